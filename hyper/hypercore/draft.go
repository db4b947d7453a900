package hypercore

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// Draft opens a draft of the log by name, which is made at the log's present
// length if it is new. A draft is read and written like a log, but is not
// signed and nobody else's: CommitDraft makes it part of the log, Discard throws
// it away. It is kept until then, also when it and the store are closed.
//
// Blocks of a draft are found through it alone, those before it through both. A
// draft whose log is truncated below it can only be thrown away (ErrConflict).
func (l *Log) Draft(ctx context.Context, name string) (*Log, error) {
	d, err := l.draft(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("draft %q of log %s: %w", name, l.c.key, err)
	}
	return d, nil
}

func (l *Log) draft(ctx context.Context, name string) (*Log, error) {
	if err := l.changeable(); err != nil {
		return nil, err
	}
	c := l.c
	if c.parent != nil {
		return nil, errors.New("a draft has no drafts")
	}
	if name == "" {
		return nil, errors.New("it needs a name")
	}
	for {
		d, err := c.acquireDraft(ctx, name)
		if err == nil {
			out := d.session(SessionOptions{})
			out.encryption = l.encryption
			return out, nil
		}
		if d == nil {
			return nil, err
		}
		// Its last session is being closed: let that be done.
		select {
		case d.writing <- struct{}{}:
			d.unlock()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// acquireDraft begins a session of a draft, and opens it when there is none. A
// draft with an error is one that is being closed.
func (c *core) acquireDraft(ctx context.Context, name string) (*core, error) {
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.unlock()
	c.mu.RLock()
	d := c.drafts[name]
	c.mu.RUnlock()
	if d != nil {
		return d, d.acquire()
	}
	d, err := c.openDraft(name)
	if err != nil {
		return nil, err
	}
	if err := c.acquire(); err != nil { // a draft holds its log open
		return nil, err
	}
	d.sessions = 1
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drafts == nil {
		c.drafts = map[string]*core{}
	}
	c.drafts[name] = d
	return d, nil
}

// openDraft reads or makes a draft. The caller holds writing.
func (c *core) openDraft(name string) (*core, error) {
	drafts, err := c.store.Log(c.id).Drafts()
	if err != nil {
		return nil, err
	}
	var stored storage.Draft
	for _, d := range drafts {
		if d.Name == name {
			stored = d
		}
	}
	if stored.ID == 0 {
		stored = storage.Draft{Name: name, Base: c.tree.Length, Fork: c.tree.Fork, Hash: c.tree.Hash()}
		if stored, err = c.store.SetDraft(c.id, stored); err != nil {
			return nil, err
		}
		// Its roots are its own: the log may clear the pages that they are in.
		if err := c.store.Commit(Durable, &storage.Tx{Log: stored.ID, Base: c.tree.Length, Nodes: c.tree.Roots}); err != nil {
			return nil, err
		}
	}
	d := newCore(c.store, stored.ID, c.key)
	d.parent, d.name, d.base = c, name, stored.Base

	head, err := c.store.Log(stored.ID).Head()
	if err != nil {
		return nil, err
	}
	runs, err := c.store.Log(stored.ID).Runs()
	if err != nil {
		return nil, err
	}
	if d.stale = c.isStale(stored); d.stale {
		d.tree = merkle.Tree{Length: max(head.Length, stored.Base)}
		return d, nil
	}
	if head.Length <= stored.Base {
		// Nothing of its own, or it was committed.
		head = storage.Head{Fork: max(head.Fork, stored.Fork), Length: stored.Base, TreeHash: stored.Hash}
	}
	if d.tree, err = readTree(head, d.reader()); err != nil {
		return nil, err
	}
	d.have = newBlockSet(runs, head.Tail)
	d.have.drop(Range{End: stored.Base})
	return d, nil
}

// draftsAfter returns the drafts that go on although the log is cut to length
// and gets a fork number, with that number.
func (c *core) draftsAfter(length, fork uint64) (out []storage.Draft, err error) {
	drafts, err := c.store.Log(c.id).Drafts()
	if err != nil {
		return nil, err
	}
	for _, d := range drafts {
		if d.Base <= length && !c.isStale(d) {
			d.Fork = fork
			out = append(out, d)
		}
	}
	return out, nil
}

// isStale reports whether the log is not the one any more that a draft
// continues.
func (c *core) isStale(d storage.Draft) bool {
	if c.tree.Length < d.Base {
		return true
	}
	if c.tree.Fork == d.Fork {
		return false
	}
	t, err := c.tree.At(d.Base, c.reader())
	return err != nil || t.Hash() != d.Hash
}

// rebased returns the change of a draft's log that makes the draft continue it
// from tree t on. The caller holds writing of both.
func (c *core) rebased(t merkle.Tree) *storage.Tx {
	d := storage.Draft{Name: c.name, ID: c.id, Base: t.Length, Fork: c.parent.tree.Fork, Hash: t.Hash()}
	return &storage.Tx{Log: c.parent.id, Base: c.parent.tree.Length, Drafts: []storage.Draft{d}}
}

// Drafts returns the names of the log's drafts, in order.
func (l *Log) Drafts() ([]string, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	drafts, err := l.c.store.Log(l.c.id).Drafts()
	names := make([]string, len(drafts))
	for i, d := range drafts {
		names[i] = d.Name
	}
	return names, err
}

// Discard throws a draft away and closes the session. Other sessions of it get
// ErrClosed.
func (l *Log) Discard(ctx context.Context) error {
	c := l.c
	fail := func(err error) error { return fmt.Errorf("discard draft %q of log %s: %w", c.name, c.key, err) }
	if c.parent == nil || l.snap != nil {
		return fail(errors.New("it is not a draft"))
	}
	if err := l.check(); err != nil {
		return fail(err)
	}
	if err := c.discard(ctx); err != nil {
		return fail(err)
	}
	return l.Close()
}

func (c *core) discard(ctx context.Context) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	// Under the log's lock no session of it is being opened.
	if err := c.parent.lock(ctx); err != nil {
		return err
	}
	defer c.parent.unlock()
	if err := c.store.DeleteDraft(c.parent.id, storage.Draft{Name: c.name, ID: c.id}); err != nil {
		return err
	}
	c.parent.forgetDraft(c)
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.endWatchers()
	return nil
}

// CommitDraft appends to the log what the draft has more, and returns the
// length after it. The draft then continues from there. The log may have grown
// meanwhile only by what the draft has too, else it is ErrConflict.
func (l *Log) CommitDraft(ctx context.Context, draft *Log, o AppendOptions) (uint64, error) {
	length, err := l.commitDraft(ctx, draft, o)
	if err != nil {
		return 0, fmt.Errorf("commit draft %q to log %s: %w", draft.c.name, l.c.key, err)
	}
	return length, nil
}

func (l *Log) commitDraft(ctx context.Context, draft *Log, o AppendOptions) (uint64, error) {
	c, d := l.c, draft.c
	if d.parent != c {
		return 0, errors.New("it is not a draft of this log")
	}
	if err := errors.Join(l.changeable(), draft.changeable()); err != nil {
		return 0, err
	}
	// Locks are always taken draft first.
	if err := d.lock(ctx); err != nil {
		return 0, err
	}
	defer d.unlock()
	if err := c.lock(ctx); err != nil {
		return 0, err
	}
	defer c.unlock()
	if err := errors.Join(c.writable(), d.writable()); err != nil {
		return 0, err
	}
	if d.tree.Length < c.tree.Length {
		return 0, fmt.Errorf("%w: the log has %d blocks, the draft %d", ErrConflict, c.tree.Length, d.tree.Length)
	}
	r := d.reader()
	shared, err := d.tree.At(c.tree.Length, r)
	if err != nil {
		return 0, err
	}
	if shared.Hash() != c.tree.Hash() {
		return 0, fmt.Errorf("%w: the log has gone another way since block %d", ErrConflict, d.base)
	}
	if d.tree.Length > c.tree.Length {
		if err := c.take(ctx, d.tree, r, o); err != nil {
			return 0, err
		}
	}
	if d.base == d.tree.Length {
		return c.tree.Length, nil
	}
	// What is the log's now is the draft's no more.
	return c.tree.Length, d.forgetBlocks()
}

// take appends the blocks that tree t, read through r, has more.
func (c *core) take(ctx context.Context, t merkle.Tree, r reader, o AppendOptions) error {
	b := c.tree.Batch()
	var blocks []storage.Block
	for i := c.tree.Length; i < t.Length; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := r.Block(i)
		if err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		blocks = append(blocks, storage.Block{Index: i, Data: data})
		b.Append(data)
	}
	if b.Tree.Hash() != t.Hash() {
		return fmt.Errorf("the draft's blocks are not those of its tree: %w", storage.ErrCorrupt)
	}
	if err := c.sign(b, b.Tree.Hash(), o.Signature, o.KeyPair); err != nil {
		return err
	}
	if err := c.commit(o.Durability, &change{batch: b, blocks: blocks}); err != nil {
		return err
	}
	c.notify(Event{Kind: Appended, Length: c.tree.Length})
	return nil
}

// forgetBlocks removes a draft's own blocks, which are its log's now. The caller
// holds writing of both.
func (c *core) forgetBlocks() error {
	none := uint64(0)
	tx := storage.Tx{Log: c.id, Base: c.tree.Length, Truncate: &none}
	for r := range c.have.All() {
		tx.Runs = append(tx.Runs, Range{Start: r.Start, End: r.Start})
	}
	tx.Head, tx.Nodes = &storage.Head{Fork: c.tree.Fork}, c.tree.Roots
	if err := c.store.Commit(Durable, &tx, c.rebased(c.tree)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.have = c.tree.Length, blockSet{}
	return nil
}
