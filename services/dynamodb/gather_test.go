package dynamodb

import (
	"context"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// slowTree is an empty tree whose batches take as long as a disk does.
type slowTree struct {
	Tree
	batches int
}

func (t *slowTree) Writer() [8]byte                             { return [8]byte{} }
func (t *slowTree) Shared() bool                                { return false }
func (t *slowTree) Batch(context.Context) (Batch, error)        { return slowBatch{tree: t}, nil }
func (t *slowTree) Get(context.Context, []byte) ([]byte, error) { return nil, ErrNotFound }

type slowBatch struct {
	Batch
	tree *slowTree
}

func (b slowBatch) Put(context.Context, []byte, []byte) error { return nil }
func (b slowBatch) Close()                                    {}
func (b slowBatch) Range(context.Context, hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return func(func(Entry, error) bool) {}
}

func (b slowBatch) Flush(context.Context) error {
	b.tree.batches++
	time.Sleep(4 * time.Millisecond)
	return nil
}

func TestWritersThatComeBackShareABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, rounds = 16, 50
		tree := &slowTree{}
		own := &table{door: &Door{o: Options{Clock: clock.System}}, tree: tree, writer: make(chan struct{}, 1), enough: make(chan struct{}, 1)}
		own.now.Store(&schema{})
		write := func(n int) time.Duration {
			began := time.Now()
			for range n {
				if err := own.write(t.Context(), func(x *tx) error { x.put([]byte("k"), nil); return nil }); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Microsecond) // until the client asks again
			}
			return time.Since(began)
		}
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				time.Sleep(time.Duration(c) * time.Millisecond)
				write(rounds)
			})
		}
		all.Wait()
		// Each batch has nearly all: with halves there would be twice as many.
		if tree.batches > rounds*3/2 {
			t.Errorf("%d clients wrote %d times in %d batches", clients, rounds, tree.batches)
		}
		// One alone waits for nobody, but once for those who were there before.
		if took := write(rounds); took > rounds*4100*time.Microsecond {
			t.Errorf("one alone took %v for %d", took, rounds)
		}
	})
}
