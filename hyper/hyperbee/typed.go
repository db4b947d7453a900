package hyperbee

import (
	"context"
	"fmt"
	"iter"
)

// A Typed is a tree whose keys and values are of types. It has the methods of the
// tree that it is on, with these types where those have bytes, and closing it
// closes the tree. A key or value that does not decode ends in an error that
// wraps ErrInvalid.
type Typed[K, V any] struct {
	*Tree
	c codec[K, V]
}

// NewTyped returns a tree with types.
func NewTyped[K, V any](tree *Tree, keys Encoding[K], values Encoding[V]) *Typed[K, V] {
	return &Typed[K, V]{tree, codec[K, V]{keys, values}}
}

// A TypedEntry is an Entry with types. Value is the zero value if there is none.
type TypedEntry[K, V any] struct {
	Seq   uint64
	Key   K
	Value V
}

// A TypedDifference is a Difference with types.
type TypedDifference[K, V any] struct {
	Left, Right *TypedEntry[K, V]
}

// A TypedChange is a Change with types.
type TypedChange[K, V any] struct {
	TypedEntry[K, V]
	Deleted bool
}

// TypedRange is RangeOptions with types.
type TypedRange[K any] struct {
	Gt, Gte *K
	Lt, Lte *K
	Reverse bool
	Limit   int
}

// A codec makes bytes of what has types, and the other way round.
type codec[K, V any] struct {
	keys   Encoding[K]
	values Encoding[V]
}

func (c codec[K, V]) key(k K) ([]byte, error) {
	b, err := c.keys.Encode(k)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	if b == nil {
		b = []byte{} // no bound is nil
	}
	return b, nil
}

func (c codec[K, V]) pair(k K, v V) (key, value []byte, err error) {
	if key, err = c.key(k); err != nil {
		return nil, nil, err
	}
	if value, err = c.values.Encode(v); err != nil {
		return nil, nil, fmt.Errorf("encode value: %w", err)
	}
	return key, value, nil
}

func (c codec[K, V]) entry(e Entry) (out TypedEntry[K, V], err error) {
	out.Seq = e.Seq
	if out.Key, err = c.keys.Decode(e.Key); err != nil {
		return out, fmt.Errorf("%w: decode key of block %d: %w", ErrInvalid, e.Seq, err)
	}
	if e.Value == nil {
		return out, nil
	}
	if out.Value, err = c.values.Decode(e.Value); err != nil {
		return out, fmt.Errorf("%w: decode value of block %d: %w", ErrInvalid, e.Seq, err)
	}
	return out, nil
}

// some is entry of one that may be nil.
func (c codec[K, V]) some(e *Entry) (*TypedEntry[K, V], error) {
	if e == nil {
		return nil, nil
	}
	out, err := c.entry(*e)
	return &out, err
}

func (c codec[K, V]) options(o TypedRange[K]) (out RangeOptions, err error) {
	out.Reverse, out.Limit = o.Reverse, o.Limit
	for _, b := range []struct {
		from *K
		to   *[]byte
	}{{o.Gt, &out.Gt}, {o.Gte, &out.Gte}, {o.Lt, &out.Lt}, {o.Lte, &out.Lte}} {
		if b.from == nil {
			continue
		}
		if *b.to, err = c.key(*b.from); err != nil {
			return out, err
		}
	}
	return out, nil
}

// when makes a condition on bytes of one on types. It says no, and sets err, when
// the entry does not decode.
func (c codec[K, V]) when(f func(have *TypedEntry[K, V]) bool, err *error) func(*Entry) bool {
	if f == nil {
		return nil
	}
	return func(have *Entry) bool {
		e, failed := c.some(have)
		*err = failed
		return failed == nil && f(e)
	}
}

// each decodes what a walk over bytes yields. open begins the walk.
func each[B, T any](open func() (iter.Seq2[B, error], error), decode func(B) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		walk, err := open()
		if err != nil {
			yield(none, err)
			return
		}
		for b, err := range walk {
			if err != nil {
				yield(none, err)
				return
			}
			t, err := decode(b)
			if err != nil {
				yield(none, err)
				return
			}
			if !yield(t, nil) {
				return
			}
		}
	}
}

// ranged is each with a range.
func ranged[B, T, K, V any](c codec[K, V], o TypedRange[K], open func(RangeOptions) iter.Seq2[B, error], decode func(B) (T, error)) iter.Seq2[T, error] {
	return each(func() (iter.Seq2[B, error], error) {
		bytes, err := c.options(o)
		return open(bytes), err
	}, decode)
}

func (c codec[K, V]) difference(d Difference) (out TypedDifference[K, V], err error) {
	if out.Left, err = c.some(d.Left); err == nil {
		out.Right, err = c.some(d.Right)
	}
	return out, err
}

// A writer is what trees and batches have in common.
type writer interface {
	Get(context.Context, []byte) (Entry, error)
	Put(ctx context.Context, key, value []byte) error
	PutIf(ctx context.Context, key, value []byte, when func(*Entry) bool) (bool, error)
	Delete(ctx context.Context, key []byte) error
	DeleteIf(ctx context.Context, key []byte, when func(*Entry) bool) (bool, error)
}

func (c codec[K, V]) get(ctx context.Context, w writer, key K) (out TypedEntry[K, V], err error) {
	k, err := c.key(key)
	if err != nil {
		return out, err
	}
	e, err := w.Get(ctx, k)
	if err != nil {
		return out, err
	}
	return c.entry(e)
}

func (c codec[K, V]) put(ctx context.Context, w writer, key K, value V) error {
	k, v, err := c.pair(key, value)
	if err != nil {
		return err
	}
	return w.Put(ctx, k, v)
}

func (c codec[K, V]) putIf(ctx context.Context, w writer, key K, value V, when func(*TypedEntry[K, V]) bool) (bool, error) {
	k, v, err := c.pair(key, value)
	if err != nil {
		return false, err
	}
	var failed error
	done, err := w.PutIf(ctx, k, v, c.when(when, &failed))
	if err == nil {
		err = failed
	}
	return done, err
}

func (c codec[K, V]) delete(ctx context.Context, w writer, key K) error {
	k, err := c.key(key)
	if err != nil {
		return err
	}
	return w.Delete(ctx, k)
}

func (c codec[K, V]) deleteIf(ctx context.Context, w writer, key K, when func(*TypedEntry[K, V]) bool) (bool, error) {
	k, err := c.key(key)
	if err != nil {
		return false, err
	}
	var failed error
	done, err := w.DeleteIf(ctx, k, c.when(when, &failed))
	if err == nil {
		err = failed
	}
	return done, err
}

// Get is Tree.Get.
func (t *Typed[K, V]) Get(ctx context.Context, key K) (TypedEntry[K, V], error) {
	return t.c.get(ctx, t.Tree, key)
}

// Put is Tree.Put.
func (t *Typed[K, V]) Put(ctx context.Context, key K, value V) error {
	return t.c.put(ctx, t.Tree, key, value)
}

// PutIf is Tree.PutIf.
func (t *Typed[K, V]) PutIf(ctx context.Context, key K, value V, when func(have *TypedEntry[K, V]) bool) (bool, error) {
	return t.c.putIf(ctx, t.Tree, key, value, when)
}

// Delete is Tree.Delete.
func (t *Typed[K, V]) Delete(ctx context.Context, key K) error { return t.c.delete(ctx, t.Tree, key) }

// DeleteIf is Tree.DeleteIf.
func (t *Typed[K, V]) DeleteIf(ctx context.Context, key K, when func(have *TypedEntry[K, V]) bool) (bool, error) {
	return t.c.deleteIf(ctx, t.Tree, key, when)
}

// Range is Tree.Range.
func (t *Typed[K, V]) Range(ctx context.Context, o TypedRange[K]) iter.Seq2[TypedEntry[K, V], error] {
	return ranged(t.c, o, func(o RangeOptions) iter.Seq2[Entry, error] { return t.Tree.Range(ctx, o) }, t.c.entry)
}

// Diff is Tree.Diff.
func (t *Typed[K, V]) Diff(ctx context.Context, version uint64, o TypedRange[K]) iter.Seq2[TypedDifference[K, V], error] {
	return ranged(t.c, o, func(o RangeOptions) iter.Seq2[Difference, error] { return t.Tree.Diff(ctx, version, o) }, t.c.difference)
}

// Watch is Tree.Watch.
func (t *Typed[K, V]) Watch(ctx context.Context, from uint64, o TypedRange[K]) iter.Seq2[TypedDifference[K, V], error] {
	return ranged(t.c, o, func(o RangeOptions) iter.Seq2[Difference, error] { return t.Tree.Watch(ctx, from, o) }, t.c.difference)
}

// History is Tree.History.
func (t *Typed[K, V]) History(ctx context.Context, o HistoryOptions) iter.Seq2[TypedChange[K, V], error] {
	return each(func() (iter.Seq2[Change, error], error) { return t.Tree.History(ctx, o), nil },
		func(c Change) (TypedChange[K, V], error) {
			e, err := t.c.entry(c.Entry)
			return TypedChange[K, V]{e, c.Deleted}, err
		})
}

// Sub is Tree.Sub, with the same types.
func (t *Typed[K, V]) Sub(prefix []byte) *Typed[K, V] {
	return &Typed[K, V]{t.Tree.Sub(prefix), t.c}
}

// SubWith is Tree.SubWith, with the same types.
func (t *Typed[K, V]) SubWith(prefix, separator []byte) *Typed[K, V] {
	return &Typed[K, V]{t.Tree.SubWith(prefix, separator), t.c}
}

// Snapshot is Tree.Snapshot.
func (t *Typed[K, V]) Snapshot() (*Typed[K, V], error) { return t.of(t.Tree.Snapshot()) }

// Checkout is Tree.Checkout.
func (t *Typed[K, V]) Checkout(version uint64) (*Typed[K, V], error) {
	return t.of(t.Tree.Checkout(version))
}

func (t *Typed[K, V]) of(tree *Tree, err error) (*Typed[K, V], error) {
	if err != nil {
		return nil, err
	}
	return &Typed[K, V]{tree, t.c}, nil
}

// A TypedBatch is a Batch with types.
type TypedBatch[K, V any] struct {
	*Batch
	c codec[K, V]
}

// Batch is Tree.Batch.
func (t *Typed[K, V]) Batch(ctx context.Context) (*TypedBatch[K, V], error) {
	b, err := t.Tree.Batch(ctx)
	if err != nil {
		return nil, err
	}
	return &TypedBatch[K, V]{b, t.c}, nil
}

// Get is Batch.Get.
func (b *TypedBatch[K, V]) Get(ctx context.Context, key K) (TypedEntry[K, V], error) {
	return b.c.get(ctx, b.Batch, key)
}

// Put is Batch.Put.
func (b *TypedBatch[K, V]) Put(ctx context.Context, key K, value V) error {
	return b.c.put(ctx, b.Batch, key, value)
}

// PutIf is Batch.PutIf.
func (b *TypedBatch[K, V]) PutIf(ctx context.Context, key K, value V, when func(have *TypedEntry[K, V]) bool) (bool, error) {
	return b.c.putIf(ctx, b.Batch, key, value, when)
}

// Delete is Batch.Delete.
func (b *TypedBatch[K, V]) Delete(ctx context.Context, key K) error {
	return b.c.delete(ctx, b.Batch, key)
}

// DeleteIf is Batch.DeleteIf.
func (b *TypedBatch[K, V]) DeleteIf(ctx context.Context, key K, when func(have *TypedEntry[K, V]) bool) (bool, error) {
	return b.c.deleteIf(ctx, b.Batch, key, when)
}

// Range is Batch.Range.
func (b *TypedBatch[K, V]) Range(ctx context.Context, o TypedRange[K]) iter.Seq2[TypedEntry[K, V], error] {
	return ranged(b.c, o, func(o RangeOptions) iter.Seq2[Entry, error] { return b.Batch.Range(ctx, o) }, b.c.entry)
}
