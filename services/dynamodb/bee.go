package dynamodb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A Store is [Trees] as Hyperbees in a store of logs, each with one writer: this
// store.
type Store struct {
	logs  *corestore.Store
	clock clock.Clock
	own   bool
}

var _ Trees = (*Store)(nil)

// NewStore returns the trees of a store, which must stay open.
func NewStore(logs *corestore.Store, c clock.Clock) *Store {
	return &Store{logs: logs, clock: c}
}

// NewMemory returns trees in memory, which are gone when they are closed.
func NewMemory(c clock.Clock) (*Store, error) {
	logs, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		return nil, err
	}
	return &Store{logs: logs, clock: c, own: true}, nil
}

// Close ends trees in memory. Another store stays open.
func (s *Store) Close() error {
	if s.own {
		return s.logs.Close()
	}
	return nil
}

// Open implements [Trees].
func (s *Store) Open(_ context.Context, name string, create bool) (Tree, error) {
	log, err := s.logs.Get(corestore.LogOptions{Name: name, MustExist: !create})
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fmt.Errorf("open tree %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", name, err)
	}
	bee, err := hyperbee.Open(log, hyperbee.Options{Cache: hyperbee.NewCache(32 << 20)})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tree %s: %w", name, err), log.Close())
	}
	key := log.Key()
	return &beeTree{reader{bee}, s.clock, [8]byte(key[:8]), func() error { return errors.Join(bee.Close(), log.Close()) }}, nil
}

// Delete implements [Trees].
func (s *Store) Delete(_ context.Context, name string) error {
	log, err := s.logs.Get(corestore.LogOptions{Name: name, MustExist: true})
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete tree %s: %w", name, err)
	}
	key := log.Key()
	if err := errors.Join(log.Close(), s.logs.Delete(key)); err != nil {
		return fmt.Errorf("delete tree %s: %w", name, err)
	}
	return nil
}

// source is what a tree and a batch of it have in common.
type source interface {
	Get(ctx context.Context, key []byte) (hyperbee.Entry, error)
	Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[hyperbee.Entry, error]
}

type reader struct{ source }

func (r reader) Get(ctx context.Context, key []byte) ([]byte, error) {
	e, err := r.source.Get(ctx, key)
	return e.Value, err
}

func (r reader) Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range r.source.Range(ctx, o) {
			if !yield(Entry{e.Key, e.Value}, err) {
				return
			}
		}
	}
}

// timeKey has the time of the last batch: its last change, so that the versions
// after it are those that make sense.
var timeKey = []byte{0xfe}

type beeTree struct {
	reader
	clock  clock.Clock
	writer [8]byte
	close  func() error
}

func (t *beeTree) bee() *hyperbee.Tree { return t.source.(*hyperbee.Tree) }

// Writer implements [Tree].
func (t *beeTree) Writer() [8]byte { return t.writer }

// Shared implements [Tree]: it is not.
func (t *beeTree) Shared() bool { return false }

// Close implements [Tree].
func (t *beeTree) Close() error { return t.close() }

// Batch implements [Tree].
func (t *beeTree) Batch(ctx context.Context) (Batch, error) {
	b, err := t.bee().Batch(ctx)
	if err != nil {
		return nil, err
	}
	return &beeBatch{reader{b}, b, t.clock}, nil
}

type beeBatch struct {
	reader
	batch *hyperbee.Batch
	clock clock.Clock
}

func (b *beeBatch) Put(ctx context.Context, key, value []byte) error {
	return b.batch.Put(ctx, key, value)
}

func (b *beeBatch) Delete(ctx context.Context, key []byte) error { return b.batch.Delete(ctx, key) }

func (b *beeBatch) Close() { b.batch.Close() }

func (b *beeBatch) Flush(ctx context.Context) error {
	now := uint64(b.clock.Now().UnixMilli())
	if last, err := b.Get(ctx, timeKey); err == nil && len(last) == 8 {
		now = max(now, binary.BigEndian.Uint64(last)) // clocks are set back at times
	}
	if err := b.batch.Put(ctx, timeKey, binary.BigEndian.AppendUint64(nil, now)); err != nil {
		return err
	}
	return b.batch.Flush(ctx)
}

// At implements [Tree]: it looks for the last batch that was not later.
func (t *beeTree) At(ctx context.Context, when time.Time) (View, error) {
	low, high := uint64(1), t.bee().Version() // the batch to find ended at low or later, before high+1
	var end uint64
	for low <= high {
		mid := low + (high-low)/2
		seq, at, err := t.lastBatch(ctx, mid)
		if err != nil {
			return nil, fmt.Errorf("tree at %s: %w", when.Format(time.RFC3339), err)
		}
		if at <= when.UnixMilli() {
			end, low = max(end, seq), mid+1
		} else {
			high = mid - 1
		}
	}
	if end == 0 {
		return nil, ErrTooEarly
	}
	view, err := t.bee().Checkout(end)
	if err != nil {
		return nil, err
	}
	return beeView{reader{view}, view}, nil
}

// lastBatch returns the version after the last batch that had ended at a version,
// and its time; none is at 0. In the middle of a batch there is no tree to look
// into, but its changes can be told one by one.
func (t *beeTree) lastBatch(ctx context.Context, version uint64) (end uint64, ms int64, err error) {
	for c, err := range t.bee().History(ctx, hyperbee.HistoryOptions{To: version, Reverse: true}) {
		if err != nil {
			return 0, 0, err
		}
		if bytes.Equal(c.Key, timeKey) {
			if len(c.Value) != 8 {
				return 0, 0, hyperbee.ErrInvalid
			}
			return c.Seq + 1, int64(binary.BigEndian.Uint64(c.Value)), nil
		}
	}
	return 0, 0, nil
}

type beeView struct {
	reader
	view *hyperbee.Tree
}

func (v beeView) Close() error { return v.view.Close() }
