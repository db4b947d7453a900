package dynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// OnCloud returns the tree of a cloud as one of a door. own is the key of the bee
// that this device writes; close is called when the door needs it no more.
func OnCloud(t *tree.Tree, own tree.Writer, close func() error) Tree {
	c := &cloudTree{cloudReader: cloudReader{t}, tree: t, writer: [8]byte(own[:8]), close: close}
	c.stop = t.Notify(func() { c.changes.Add(1) })
	return c
}

// cloudSource is what a tree of a cloud and a batch of it have in common.
type cloudSource interface {
	Get(ctx context.Context, key []byte) (tree.Entry, error)
	Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[tree.Entry, error]
}

type cloudReader struct{ cloudSource }

func (r cloudReader) Get(ctx context.Context, key []byte) ([]byte, error) {
	e, err := r.cloudSource.Get(ctx, key)
	if errors.Is(err, tree.ErrNotFound) {
		return nil, fmt.Errorf("get: %w", ErrNotFound)
	}
	return e.Value, err
}

func (r cloudReader) Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range r.cloudSource.Range(ctx, o) {
			if !yield(Entry{e.Key, e.Value}, err) {
				return
			}
		}
	}
}

type cloudTree struct {
	cloudReader
	tree    *tree.Tree
	writer  [8]byte
	close   func() error
	stop    func() // being told
	changes atomic.Uint64
}

func (t *cloudTree) Writer() [8]byte { return t.writer }
func (t *cloudTree) Shared() bool    { return true }

func (t *cloudTree) Close() error {
	t.stop()
	return t.close()
}

// Changes is another number after each change, whoever made it.
func (t *cloudTree) Changes() uint64 { return t.changes.Load() }

func (t *cloudTree) Batch(ctx context.Context) (Batch, error) {
	b, err := t.tree.Batch(ctx)
	if err != nil {
		return nil, err
	}
	return cloudBatch{cloudReader{b}, b}, nil
}

func (t *cloudTree) At(ctx context.Context, when time.Time) (View, error) {
	view, err := t.tree.At(ctx, when)
	if err != nil {
		return nil, err
	}
	return cloudView{cloudReader{view}, view}, nil
}

type cloudBatch struct {
	cloudReader
	batch *tree.Batch
}

func (b cloudBatch) Put(ctx context.Context, key, value []byte) error {
	return b.batch.Put(ctx, key, value)
}
func (b cloudBatch) Delete(ctx context.Context, key []byte) error { return b.batch.Delete(ctx, key) }
func (b cloudBatch) Flush(ctx context.Context) error              { return b.batch.Flush(ctx) }
func (b cloudBatch) Close()                                       { b.batch.Close() }

type cloudView struct {
	cloudReader
	tree *tree.Tree
}

func (v cloudView) Close() error { return v.tree.Close() }

// TableTrees returns the names of the tables of a catalog by those of their trees.
func TableTrees(ctx context.Context, catalog *tree.Tree) (map[string]string, error) {
	trees := map[string]string{}
	for e, err := range catalog.Range(ctx, hyperbee.RangeOptions{Gte: []byte{catTable}, Lt: []byte{catTable + 1}}) {
		if err != nil {
			return nil, fmt.Errorf("list the tables: %w", err)
		}
		var l listing
		if err := json.Unmarshal(e.Value, &l); err != nil {
			return nil, fmt.Errorf("list the tables: %w", err)
		}
		trees["table-"+l.ID] = string(e.Key[1:])
	}
	return trees, nil
}

// CheckItems reads all items of a table, counts them, and reports those that make no
// sense.
func CheckItems(ctx context.Context, table *tree.Tree, report func(error)) (items int, err error) {
	for e, err := range table.Range(ctx, hyperbee.RangeOptions{Gte: []byte{keyItem}, Lt: []byte{keyItem + 1}}) {
		if err != nil {
			return items, fmt.Errorf("check the items: %w", err)
		}
		items++
		if _, err := stored(e.Value).item(); err != nil {
			report(fmt.Errorf("item %x, written at %s: %w", e.Key, e.Time.UTC().Format(time.RFC3339), err))
		}
	}
	return items, nil
}
