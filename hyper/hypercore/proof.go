package hypercore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A Proof is a merkle.Proof with the manifest that it is signed under, which a
// reader needs once.
type Proof struct {
	merkle.Proof
	Manifest *Manifest
}

// Publish returns the head that others may be told of: what was signed here is on
// the disk. A writer who tells of a head and then loses it would sign another
// history of that length, which readers take for a fork. What peers signed can
// be fetched again when it is lost.
func (l *Log) Publish(ctx context.Context) (Head, error) {
	if l.snap != nil {
		return l.Head(), l.check()
	}
	if err := errors.Join(l.check(), ctx.Err()); err != nil {
		return Head{}, err
	}
	l.c.mu.RLock()
	h, unsynced := Head{l.c.tree, l.c.signature}, l.c.unsynced
	l.c.mu.RUnlock()
	if !unsynced {
		return h, nil
	}
	if err := l.c.store.Sync(); err != nil {
		return Head{}, fmt.Errorf("publish log %s: %w", l.c.key, err)
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.c.tree.Fork == h.Fork && l.c.told.Length <= h.Length && h.Length <= l.c.tree.Length {
		l.c.told = h
		l.c.unsynced = h.Length < l.c.tree.Length
	}
	return h, nil
}

// answerable returns the head that a request is answered from. What peers know of
// already needs no sync.
func (l *Log) answerable(ctx context.Context, req merkle.Request) (Head, error) {
	if l.snap == nil && l.check() == nil {
		l.c.mu.RLock()
		h := l.c.told
		l.c.mu.RUnlock()
		if req.Within(h.Length) {
			return h, nil
		}
	}
	return l.Publish(ctx)
}

// Sync returns when all that was added to the log is on the disk.
func (l *Log) Sync() error {
	if err := l.check(); err != nil {
		return err
	}
	if err := l.c.store.Sync(); err != nil {
		return fmt.Errorf("sync log %s: %w", l.c.key, err)
	}
	return nil
}

// Prove makes the proof that a peer asks for. Its upgrade, if any, is signed
// for the whole log. ErrNotFound, merkle.ErrRequest and merkle.ErrNoNode mean
// that this log can't answer.
func (l *Log) Prove(ctx context.Context, req merkle.Request, manifest bool) (*Proof, error) {
	return l.ProveIn(ctx, req, manifest, nil)
}

// ProveIn is Prove, but a large block may lie in buf, if that has room for it and
// a little more.
func (l *Log) ProveIn(ctx context.Context, req merkle.Request, manifest bool, buf []byte) (*Proof, error) {
	fail := func(err error) (*Proof, error) { return nil, fmt.Errorf("prove log %s: %w", l.c.key, err) }
	for {
		cuts := l.c.cuts.Load()
		p, err := l.prove(ctx, req, manifest, buf)
		if l.snap == nil && (cuts%2 == 1 || cuts != l.c.cuts.Load()) {
			// The log was cut meanwhile. What was read may be of both sides.
			if err := l.c.lock(ctx); err != nil {
				return fail(err)
			}
			l.c.unlock()
			continue
		}
		if err != nil {
			return fail(err)
		}
		return p, nil
	}
}

func (l *Log) prove(ctx context.Context, req merkle.Request, manifest bool, buf []byte) (*Proof, error) {
	if l.c.parent != nil {
		return nil, errors.New("a draft is not signed")
	}
	h, err := l.answerable(ctx, req)
	if err != nil {
		return nil, err
	}
	if req.Upgrade != nil && h.Signature == nil && h.Length > 0 && !l.static(h) {
		return nil, fmt.Errorf("there is no signature of %d blocks: %w", h.Length, merkle.ErrRequest)
	}
	v, r := l.Verifier(), l.reader()
	mp, err := h.Prove(req, v.prologue(), r)
	if err != nil {
		return nil, err
	}
	p := &Proof{Proof: *mp}
	if p.Block != nil {
		if p.Block.Value, err = r.BlockIn(p.Block.Index, buf); err != nil {
			return nil, err
		}
	}
	if p.Upgrade != nil {
		p.Upgrade.Signature = h.Signature
	}
	if manifest && v != nil && !v.compat {
		p.Manifest = v.manifest
	}
	return p, nil
}

// CanUpgrade reports whether Prove can prove the log's length to one who has its
// first from blocks.
func (l *Log) CanUpgrade(from uint64) bool {
	h := l.Head()
	if from >= h.Length {
		return false
	}
	_, err := h.Prove(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: from, Length: h.Length - from}}, l.Verifier().prologue(), l.reader())
	return err == nil
}

// static reports whether a head needs no signature, for it is the prologue.
func (l *Log) static(h Head) bool {
	p := l.Verifier().prologue()
	return p != nil && h.Length == p.Length
}

// ErrFork: a proof is of another fork than the log has (see StartReorg).
var ErrFork = errors.New("proof is of another fork")

// Apply verifies proofs from peers and keeps what they prove, all in one commit.
// It returns an error for each proof that was not taken, nil for the others, and
// a second error when nothing could be stored.
//
// A proof of a block that is held already is fine and adds nothing, nor does an
// upgrade that comes after a longer one. ErrConflict and merkle.ErrNoNode mean
// that the log has changed since the proof was asked for. The errors of a peer
// that lies wrap merkle.ErrProof or ErrSignature; a wrong signature may be that
// of a second history, see CheckConflict.
//
// Sessions that only read may apply proofs: what others signed is not theirs to
// refuse.
func (l *Log) Apply(ctx context.Context, d Durability, proofs ...*Proof) ([]error, error) {
	errs := make([]error, len(proofs))
	fail := func(err error) ([]error, error) {
		return errs, fmt.Errorf("apply to log %s: %w", l.c.key, err)
	}
	if err := l.check(); err != nil {
		return fail(err)
	}
	c := l.c
	if c.parent != nil || l.snap != nil {
		return fail(fmt.Errorf("%w: it is a draft or a snapshot", ErrNotWritable))
	}
	// What takes longest needs no lock.
	blocks := make([]*merkle.BlockProof, 0, len(proofs))
	for _, p := range proofs {
		if p.Block != nil {
			blocks = append(blocks, p.Block)
		}
	}
	merkle.HashNow(blocks...)
	if err := c.lock(ctx); err != nil {
		return fail(err)
	}
	defer c.unlock()
	if err := c.writable(); err != nil {
		return fail(err)
	}
	a := applier{c: c, tree: c.tree, signature: c.signature, verifier: c.verifier, nodes: overlay{c.reader(), make(map[uint64]merkle.Node, 2*len(proofs))}, blocks: make(map[uint64]bool, len(proofs))}
	for i, p := range proofs {
		errs[i] = a.add(p)
	}
	ch, changed := a.change()
	if !changed {
		return errs, nil
	}
	grown := a.tree.Length
	if a.tree.Length == c.tree.Length {
		grown = 0
	}
	if err := c.commit(d, &ch); err != nil {
		return fail(err)
	}
	if grown > 0 {
		c.notify(Event{Kind: Appended, Length: grown})
	}
	for _, b := range ch.blocks {
		c.notify(Event{Kind: Received, Range: Range{Start: b.Index, End: b.Index + 1}})
	}
	return errs, nil
}

// An overlay is a log's nodes with some that are about to be added.
type overlay struct {
	merkle.Nodes
	added map[uint64]merkle.Node
}

func (o overlay) Node(index uint64) (merkle.Node, error) {
	if n, ok := o.added[index]; ok {
		return n, nil
	}
	return o.Nodes.Node(index)
}

// An applier gathers verified proofs.
type applier struct {
	c         *core
	tree      merkle.Tree
	signature []byte
	verifier  *Verifier
	manifest  *Manifest // learned from a proof
	nodes     overlay
	blocks    map[uint64]bool
	list      []storage.Block
}

func (a *applier) add(p *Proof) error {
	if p.Fork != a.tree.Fork {
		return fmt.Errorf("%w: %d, the log has %d", ErrFork, p.Fork, a.tree.Fork)
	}
	v, learned, err := a.c.verifierFor(a.verifier, p)
	if err != nil {
		return err
	}
	b, err := a.verify(p, v)
	if err != nil {
		return err
	}
	if b.Upgraded {
		if err := v.Verify(b, b.Signature); err != nil {
			return err
		}
		// The proof may be a part of a message that is overwritten.
		a.tree, a.signature, a.verifier = b.Tree, slices.Clone(b.Signature), v
		if learned != nil {
			a.manifest = learned
		}
	}
	for _, n := range b.Nodes {
		if kept, err := a.nodes.Node(n.Index); err == nil && kept == n {
			continue
		}
		a.nodes.added[n.Index] = n
	}
	if p.Block != nil && !a.blocks[p.Block.Index] && !a.c.have.Has(p.Block.Index) {
		a.blocks[p.Block.Index] = true
		a.list = append(a.list, storage.Block{Index: p.Block.Index, Data: p.Block.Value})
	}
	return nil
}

// verify checks a proof against the log, or, if its upgrade is from a length
// that the log has outgrown since, against the log as it was then.
func (a *applier) verify(p *Proof, v *Verifier) (*merkle.Batch, error) {
	t := a.tree
	if u := p.Upgrade; u != nil && u.Start < t.Length {
		switch earlier, err := t.At(u.Start, a.nodes); {
		case err == nil:
			t = earlier
		case !errors.Is(err, merkle.ErrNoNode):
			return nil, err
		}
		// Where the roots of that length are not held, the nodes may still fit.
	}
	b, err := t.Verify(&p.Proof, v.prologue(), a.nodes)
	if err != nil || !b.Upgraded || t.Length == a.tree.Length {
		return b, err
	}
	if b.Tree.Length <= a.tree.Length {
		ok, err := b.Downgrade(a.nodes)
		if err == nil && !ok {
			err = fmt.Errorf("its %d blocks are not those of the log: %w", b.Tree.Length, ErrConflict)
		}
		return b, err
	}
	// It continues this log if it says what the log is now.
	said := overlay{rootNodes{b.Tree.Roots}, map[uint64]merkle.Node{}}
	for _, n := range b.Nodes {
		said.added[n.Index] = n
	}
	now, err := b.Tree.At(a.tree.Length, said)
	if err != nil || !now.Same(a.tree) {
		return nil, fmt.Errorf("its upgrade from %d is not one from %d: %w", p.Upgrade.Start, a.tree.Length, ErrConflict)
	}
	return b, nil
}

// change returns what is to be committed, if anything.
func (a *applier) change() (change, bool) {
	b := a.c.tree.Batch()
	for _, index := range slices.Sorted(maps.Keys(a.nodes.added)) {
		b.Nodes = append(b.Nodes, a.nodes.added[index])
	}
	if a.tree.Length > a.c.tree.Length {
		b.Tree, b.Signature, b.Upgraded = a.tree, a.signature, true
	}
	sortBlocks(a.list)
	ch := change{batch: b, blocks: a.list, theirs: true}
	if a.manifest != nil {
		auth := a.c.auth
		auth.Manifest = a.manifest.Encode()
		ch.auth, ch.verifier = &auth, a.verifier
	}
	return ch, b.Upgraded || len(b.Nodes) > 0 || len(a.list) > 0
}

// verifierFor returns what checks a proof: known, or one of the manifest in the
// proof, or of the manifest that a log of the old kind has. learned is the
// manifest when it was not known.
func (c *core) verifierFor(known *Verifier, p *Proof) (v *Verifier, learned *Manifest, err error) {
	if known != nil {
		return known, nil, nil
	}
	m := p.Manifest
	if m == nil || m.isCompat(c.key) {
		m = SingleSigner(c.key) // the key says nothing else of a log of the old kind
	}
	v, err = NewVerifier(c.key, m)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return v, m, nil
}

// A Reorg moves a log to a higher fork that its writer signed: first Update
// until Done, with proofs of what Want names, then Commit.
type Reorg struct {
	l        *Log
	r        *merkle.Reorg
	manifest *Manifest
	verifier *Verifier
	base     merkle.Tree
}

// StartReorg begins with a proof of an upgrade from 0 that is of a higher fork
// than the log has.
func (l *Log) StartReorg(p *Proof) (*Reorg, error) {
	fail := func(err error) (*Reorg, error) { return nil, fmt.Errorf("reorg log %s: %w", l.c.key, err) }
	if err := l.check(); err != nil {
		return fail(err)
	}
	if l.c.parent != nil || l.snap != nil {
		return fail(ErrNotWritable)
	}
	t := l.tree()
	if p.Fork <= t.Fork {
		return fail(fmt.Errorf("%w: %d, the log has %d", ErrFork, p.Fork, t.Fork))
	}
	v, learned, err := l.c.verifierFor(l.Verifier(), p)
	if err != nil {
		return fail(err)
	}
	r, err := merkle.StartReorg(t, &p.Proof, v.prologue(), l.reader())
	if err != nil {
		return fail(err)
	}
	if err := v.Verify(r.Batch, r.Batch.Signature); err != nil {
		return fail(err)
	}
	r.Batch.Signature = slices.Clone(r.Batch.Signature)
	return &Reorg{l, r, learned, v, t}, nil
}

// Done reports whether Commit can be called.
func (r *Reorg) Done() bool { return r.r.Done() }

// Want returns what to ask for while not Done.
func (r *Reorg) Want() merkle.Want { return r.r.Want() }

// Update takes the proof of a hash, and reports whether it was of use.
func (r *Reorg) Update(p *Proof) (bool, error) { return r.r.Update(&p.Proof, r.l.reader()) }

// Commit moves the log to the other fork. ErrConflict means that the log
// changed meanwhile: start again.
func (r *Reorg) Commit(ctx context.Context, d Durability) error {
	c := r.l.c
	fail := func(err error) error { return fmt.Errorf("reorg log %s: %w", c.key, err) }
	if !r.Done() {
		return fail(errors.New("the common blocks are not known yet"))
	}
	if err := c.lock(ctx); err != nil {
		return fail(err)
	}
	defer c.unlock()
	if err := c.writable(); err != nil {
		return fail(err)
	}
	if c.tree.Length != r.base.Length || c.tree.Fork != r.base.Fork {
		return fail(fmt.Errorf("%w: the log changed meanwhile", ErrConflict))
	}
	ch := change{batch: r.r.Batch, truncate: true, theirs: true}
	if r.manifest != nil {
		auth := c.auth
		auth.Manifest = r.manifest.Encode()
		ch.auth, ch.verifier = &auth, r.verifier
	}
	if err := c.commit(d, &ch); err != nil {
		return fail(err)
	}
	c.truncated(r.r.Batch.Ancestors)
	if c.tree.Length > r.r.Batch.Ancestors {
		c.notify(Event{Kind: Appended, Length: c.tree.Length})
	}
	return nil
}

// A Conflict is evidence that a log's writer signed two histories: two trees of
// one fork, of which neither continues the other.
type Conflict struct {
	Fork         uint64
	Ours, Theirs SignedTree
}

// A SignedTree is a tree's hash with its signature.
type SignedTree struct {
	Length    uint64
	Hash      merkle.Hash
	Signature []byte
}

// CheckConflict looks whether a proof of an upgrade from 0 shows a second
// history of the log. If it does, the log is frozen for good: it can still be
// read, and Frozen returns the evidence.
func (l *Log) CheckConflict(ctx context.Context, p *Proof) (bool, error) {
	c := l.c
	fail := func(err error) (bool, error) { return false, fmt.Errorf("check log %s for a conflict: %w", c.key, err) }
	if err := l.check(); err != nil {
		return fail(err)
	}
	if p.Upgrade == nil || p.Upgrade.Start != 0 || l.snap != nil || c.parent != nil {
		return false, nil
	}
	if err := c.lock(ctx); err != nil {
		return fail(err)
	}
	defer c.unlock()
	if c.auth.Frozen != nil || c.verifier == nil || p.Fork != c.tree.Fork {
		return c.auth.Frozen != nil, nil
	}
	b, err := (merkle.Tree{}).Verify(&p.Proof, c.verifier.prologue(), overlay{c.reader(), nil})
	if err != nil || c.verifier.Verify(b, b.Signature) != nil {
		return false, nil // not signed: a lie, no second history
	}
	theirs := b.Tree
	if theirs.Length > c.tree.Length {
		// The log is shorter: their tree as it was at the proof's length may tell.
		start := *p.Upgrade
		start.Additional = nil
		short, err := (merkle.Tree{}).Verify(&merkle.Proof{Fork: p.Fork, Upgrade: &start}, nil, overlay{c.reader(), nil})
		if err != nil || short.Tree.Length > c.tree.Length {
			return false, nil // an upgrade will tell
		}
		theirs = short.Tree
	}
	ours, err := c.tree.At(theirs.Length, c.reader())
	if err != nil {
		return fail(err)
	}
	if ours.Same(theirs) {
		return false, nil
	}
	auth := c.auth
	auth.Frozen = encodeConflict(&Conflict{
		Fork:   p.Fork,
		Ours:   SignedTree{c.tree.Length, c.tree.Hash(), c.signature},
		Theirs: SignedTree{b.Tree.Length, b.Tree.Hash(), b.Signature},
	})
	if err := c.commit(Durable, &change{auth: &auth, verifier: c.verifier}); err != nil {
		return fail(err)
	}
	c.notify(Event{Kind: Froze})
	return true, nil
}

const conflictVersion = 1

func encodeConflict(c *Conflict) []byte {
	b := []byte{conflictVersion}
	b = binary.AppendUvarint(b, c.Fork)
	for _, t := range []SignedTree{c.Ours, c.Theirs} {
		b = binary.AppendUvarint(b, t.Length)
		b = append(b, t.Hash[:]...)
		b = binary.AppendUvarint(b, uint64(len(t.Signature)))
		b = append(b, t.Signature...)
	}
	return b
}

func decodeConflict(b []byte) *Conflict {
	if len(b) == 0 {
		return nil
	}
	c := new(Conflict)
	b = b[1:]
	number := func() uint64 {
		n, k := binary.Uvarint(b)
		b = b[max(k, 0):]
		return n
	}
	c.Fork = number()
	for _, t := range []*SignedTree{&c.Ours, &c.Theirs} {
		t.Length = number()
		b = b[copy(t.Hash[:], b):]
		n := min(number(), uint64(len(b)))
		t.Signature, b = append([]byte(nil), b[:n]...), b[n:]
	}
	return c
}
