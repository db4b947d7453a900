package dynamodb

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// Catalog is the name of the tree of the door itself. Those of tables are "table-" and
// their id.
const Catalog = "catalog"

// The keys of the catalog begin with what they are.
const (
	catTable  = 't' // and the name of a table
	catGone   = 'g' // and the id of a table whose tree is to be deleted
	catBackup = 'b' // and the id of a backup
	catIntent = 'x' // and the writer and the number of a transaction
	catExport = 'e' // and the id of an export
	catImport = 'i' // and the id of an import
	catLast   = 'n' // and the writer, whose last transaction has that number
)

// A catalog is what a door has besides its tables.
type catalog struct {
	tree Tree
	// mu is held by who changes it.
	mu   sync.Mutex
	next uint64 // number of the next transaction; guarded by mu
}

// A listing is what the catalog has of a table.
type listing struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Expires bool   `json:"expires,omitempty"` // it has a time to live
}

func tableKey(name string) []byte { return append([]byte{catTable}, name...) }

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // as UUIDs of version 4 are
	return hex.EncodeToString(b[:])
}

func (c *catalog) close() error {
	if c.tree == nil {
		return nil
	}
	return c.tree.Close()
}

// get reads a record, or returns ErrNotFound.
func (c *catalog) get(ctx context.Context, key []byte, into any) error {
	b, err := c.tree.Get(ctx, key)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// change writes records; a nil one is removed. The caller holds mu.
func (c *catalog) change(ctx context.Context, keys [][]byte, records []any) error {
	b, err := c.tree.Batch(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	for i, key := range keys {
		if records[i] == nil {
			err = b.Delete(ctx, key)
		} else {
			var text []byte
			if text, err = json.Marshal(records[i]); err == nil {
				err = b.Put(ctx, key, text)
			}
		}
		if err != nil {
			return err
		}
	}
	return b.Flush(ctx)
}

// each calls f for the records of a kind, by the rest of their keys.
func (c *catalog) each(ctx context.Context, kind byte, from string, f func(rest string, b []byte) (more bool, err error)) error {
	for e, err := range c.tree.Range(ctx, hyperbee.RangeOptions{Gt: append([]byte{kind}, from...), Lt: []byte{kind + 1}}) {
		if err != nil {
			return err
		}
		if more, err := f(string(e.Key[1:]), e.Value); err != nil || !more {
			return err
		}
	}
	return nil
}

// start opens the catalog and does what was left undone.
func (d *Door) start(ctx context.Context) error {
	tree, err := d.o.Trees.Open(ctx, Catalog, true)
	if err != nil {
		return err
	}
	d.catalog.tree = tree
	if err := d.recover(ctx); err != nil {
		return err
	}
	if err := d.interrupted(ctx); err != nil {
		return err
	}
	var gone []string
	if err := d.catalog.each(ctx, catGone, "", func(id string, _ []byte) (bool, error) {
		gone = append(gone, id)
		return true, nil
	}); err != nil {
		return err
	}
	for _, id := range gone {
		if err := d.deleteTree(ctx, id); err != nil {
			return err
		}
	}
	return d.catalog.each(ctx, catTable, "", func(name string, b []byte) (bool, error) {
		var l listing
		if err := json.Unmarshal(b, &l); err != nil {
			return false, fmt.Errorf("table %s: %w", name, err)
		}
		if l.Expires {
			d.due(name, 0)
		}
		return true, nil
	})
}

// deleteTree removes the tree of a table that is gone.
func (d *Door) deleteTree(ctx context.Context, id string) error {
	if err := d.o.Trees.Delete(ctx, "table-"+id); err != nil {
		return err
	}
	d.catalog.mu.Lock()
	defer d.catalog.mu.Unlock()
	return d.catalog.change(ctx, [][]byte{append([]byte{catGone}, id...)}, []any{nil})
}

// use returns a table, open until release is called with it. Its error is
// ErrNotFound if there is none.
func (d *Door) use(ctx context.Context, name string) (*table, error) {
	if t := d.opened(name); t != nil {
		same, err := d.refresh(ctx, name, t)
		if err == nil && same {
			return t, nil
		}
		d.release(t)
		if err != nil {
			return nil, fmt.Errorf("open table %s: %w", name, err)
		}
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	if t := d.opened(name); t != nil {
		return t, nil
	}
	var l listing
	if err := d.catalog.get(ctx, tableKey(name), &l); err != nil {
		return nil, fmt.Errorf("open table %s: %w", name, err)
	}
	tree, err := d.o.Trees.Open(ctx, "table-"+l.ID, false)
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", name, err)
	}
	t, err := openTable(ctx, d, l.ID, tree)
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	d.admit(name, t)
	return t, nil
}

// refresh learns what others have made of a table that is open. It reports false,
// and forgets the table, if there is no such table any more.
func (d *Door) refresh(ctx context.Context, name string, t *table) (same bool, err error) {
	if n := changes(d.catalog.tree); n != t.seenCatalog.Load() {
		var l listing
		err := d.catalog.get(ctx, tableKey(name), &l)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, err
		}
		if l.ID != t.id {
			d.mu.Lock()
			if d.tables[name] == t {
				delete(d.tables, name)
				t.done, t.kept = true, true // its tree is for those to remove who dropped it
			}
			d.mu.Unlock()
			return false, nil
		}
		t.seenCatalog.Store(n)
	}
	n := changes(t.tree)
	if n == t.seen.Load() {
		return true, nil
	}
	b, err := t.tree.Get(ctx, []byte{keyTable})
	if err != nil {
		return false, err
	}
	if bytes.Equal(b, t.now.Load().encode()) {
		t.seen.Store(n)
		return true, nil
	}
	t.writer <- struct{}{} // nobody changes it here meanwhile
	defer func() { <-t.writer }()
	s, err := readSchema(ctx, t.tree)
	if err != nil {
		return false, err
	}
	t.now.Store(s)
	t.seen.Store(n)
	if s.unfinished() {
		d.fill(name, t.id)
	}
	return true, nil
}

// opened returns a table that is open.
func (d *Door) opened(name string) *table {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tables[name]
	if t != nil {
		t.users++
	}
	return t
}

// admit keeps a table that was opened, for one user.
func (d *Door) admit(name string, t *table) {
	t.users = 1
	d.mu.Lock()
	d.tables[name] = t
	d.mu.Unlock()
	if t.now.Load().unfinished() {
		d.fill(name, t.id)
	}
}

// release ends the use of a table.
func (d *Door) release(t *table) {
	d.mu.Lock()
	t.users--
	t.idle = millis(d.o.Clock.Now())
	last := t.done && t.users == 0
	if t.users == 0 && !t.done && d.timer == nil && !d.closed {
		d.timer = d.o.Clock.AfterFunc(idleTime, d.closeIdle)
	}
	crowded := t.users == 0 && len(d.tables) > idleTables
	d.mu.Unlock()
	switch {
	case last:
		if err := t.end(d.ctx); err != nil {
			d.o.Log.Error("table was not removed", "table", t.id, "err", err)
		}
	case crowded:
		d.closeSome(func(all []*table) *table {
			var oldest *table
			for _, t := range all {
				if oldest == nil || t.idle < oldest.idle {
					oldest = t
				}
			}
			return oldest
		})
	}
}

// end closes a table that is gone, and removes its tree.
func (t *table) end(ctx context.Context) error {
	err := t.tree.Close()
	if t.kept {
		return err
	}
	return errors.Join(err, t.door.deleteTree(context.WithoutCancel(ctx), t.id))
}

// closeIdle closes the tables that nobody has used for a while.
func (d *Door) closeIdle() {
	if !d.enter() {
		return
	}
	defer d.busy.Done()
	old := millis(d.o.Clock.Now().Add(-idleTime))
	d.closeSome(func(all []*table) *table {
		for _, t := range all {
			if t.idle <= old {
				return t
			}
		}
		return nil
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = nil
	if len(d.tables) > 0 && !d.closed {
		d.timer = d.o.Clock.AfterFunc(idleTime, d.closeIdle)
	}
}

// closeSome closes idle tables, one by one, that pick returns.
func (d *Door) closeSome(pick func([]*table) *table) {
	d.opening.Lock() // or it might be opened before it is closed
	defer d.opening.Unlock()
	for range idleTables {
		d.mu.Lock()
		var idle []*table
		names := map[*table]string{}
		for name, t := range d.tables {
			if t.users == 0 {
				idle, names[t] = append(idle, t), name
			}
		}
		t := pick(idle)
		if t != nil {
			delete(d.tables, names[t])
		}
		few := len(d.tables) <= idleTables
		d.mu.Unlock()
		if t == nil {
			return
		}
		if err := t.tree.Close(); err != nil {
			d.o.Log.Error("table was not closed", "table", t.id, "err", err)
		}
		if few && len(idle) <= 1 {
			return
		}
	}
}

// useForItems is use in the words for items.
func (d *Door) useForItems(ctx context.Context, name string) (*table, error) {
	t, err := d.use(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil, errNoTable
	}
	return t, err
}

// useNamed is use in the words for tables.
func (d *Door) useNamed(ctx context.Context, name string) (*table, error) {
	t, err := d.use(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil, noTable(name)
	}
	return t, err
}
