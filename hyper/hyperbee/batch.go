package hyperbee

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// Put sets the value of a key. A nil value is none, and reads as nil.
func (t *Tree) Put(ctx context.Context, key, value []byte) error {
	_, err := t.one(ctx, "put", func(b *Batch) (bool, error) { return b.put(ctx, key, value, nil) })
	return err
}

// PutIf sets the value of a key if when says so, and reports whether it did. when
// gets the entry there is, nil if there is none; nobody else writes meanwhile,
// and it must not write itself.
func (t *Tree) PutIf(ctx context.Context, key, value []byte, when func(have *Entry) bool) (bool, error) {
	return t.one(ctx, "put", func(b *Batch) (bool, error) { return b.put(ctx, key, value, when) })
}

// Delete removes a key, if it is there.
func (t *Tree) Delete(ctx context.Context, key []byte) error {
	_, err := t.one(ctx, "delete", func(b *Batch) (bool, error) { return b.del(ctx, key, nil) })
	return err
}

// DeleteIf removes a key if it is there and when says so, and reports whether it
// did. when is that of PutIf.
func (t *Tree) DeleteIf(ctx context.Context, key []byte, when func(have *Entry) bool) (bool, error) {
	return t.one(ctx, "delete", func(b *Batch) (bool, error) { return b.del(ctx, key, when) })
}

// one does a batch of one operation.
func (t *Tree) one(ctx context.Context, what string, f func(*Batch) (bool, error)) (bool, error) {
	b, err := t.Batch(ctx)
	if err != nil {
		return false, fmt.Errorf("%s: %w", what, err)
	}
	defer b.Close()
	done, err := f(b)
	if err == nil {
		err = b.Flush(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", what, err)
	}
	return done, nil
}

// A Batch is several changes that are written together: all of them or none. It
// keeps them in memory until then. While it is open, nobody else can write to the
// tree. It must be flushed or closed.
type Batch struct {
	t     *Tree
	d     draft
	fresh bool  // there is no header yet
	err   error // why it can't go on
	open  bool
}

// Batch begins a batch, once nobody else writes.
func (t *Tree) Batch(ctx context.Context) (*Batch, error) {
	if t.pin != nil {
		return nil, ErrReadOnly
	}
	if !t.s.log.Writable() {
		return nil, hypercore.ErrNotWritable
	}
	select {
	case t.s.writer <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v, err := t.view(ctx)
	if err != nil {
		<-t.s.writer
		return nil, err
	}
	b := &Batch{t: t, open: true, d: draft{v: v, base: v.version}}
	b.fresh = t.s.log.Length() == 0
	return b, nil
}

// Close ends the batch. What was not flushed is forgotten.
func (b *Batch) Close() {
	if b.open {
		b.open = false
		b.d.v.end()
		b.d.ops, b.d.root = nil, nil
		<-b.t.s.writer
	}
}

// Len returns how many changes there are in the batch.
func (b *Batch) Len() int { return len(b.d.ops) }

func (b *Batch) check() error {
	if !b.open {
		return ErrClosed
	}
	return b.err
}

// Put is Tree.Put.
func (b *Batch) Put(ctx context.Context, key, value []byte) error {
	_, err := b.PutIf(ctx, key, value, nil)
	return err
}

// PutIf is Tree.PutIf. A when that is nil always says yes.
func (b *Batch) PutIf(ctx context.Context, key, value []byte, when func(have *Entry) bool) (bool, error) {
	done, err := b.put(ctx, key, value, when)
	if err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	return done, nil
}

// Delete is Tree.Delete.
func (b *Batch) Delete(ctx context.Context, key []byte) error {
	_, err := b.DeleteIf(ctx, key, nil)
	return err
}

// DeleteIf is Tree.DeleteIf. A when that is nil always says yes.
func (b *Batch) DeleteIf(ctx context.Context, key []byte, when func(have *Entry) bool) (bool, error) {
	done, err := b.del(ctx, key, when)
	if err != nil {
		return false, fmt.Errorf("delete: %w", err)
	}
	return done, nil
}

// Get is Tree.Get, with the changes of the batch.
func (b *Batch) Get(ctx context.Context, key []byte) (Entry, error) {
	if err := b.check(); err != nil {
		return Entry{}, fmt.Errorf("get: %w", err)
	}
	seq, err := b.d.find(ctx, joined(b.t.prefix, key))
	if err != nil {
		return Entry{}, fmt.Errorf("get: %w", err)
	}
	if seq == 0 {
		return Entry{}, ErrNotFound
	}
	e, err := b.entry(ctx, seq)
	if err != nil {
		return Entry{}, fmt.Errorf("get: %w", err)
	}
	return e, nil
}

func (b *Batch) entry(ctx context.Context, seq uint64) (Entry, error) {
	key, value, err := b.d.content(ctx, seq)
	if err != nil {
		return Entry{}, err
	}
	return newEntry(seq, key[len(b.t.prefix):], value), nil
}

func (b *Batch) put(ctx context.Context, key, value []byte, when func(*Entry) bool) (bool, error) {
	if err := b.check(); err != nil {
		return false, err
	}
	if value != nil {
		value = append([]byte{}, value...)
	}
	cond := b.condition(ctx, when)
	done, err := b.d.put(ctx, joined(b.t.prefix, key), value, func(seq uint64) (bool, error) {
		if ok, err := cond(seq); !ok || err != nil {
			return false, err
		}
		if seq == 0 || !b.t.s.o.SkipEqual {
			return true, nil
		}
		_, have, err := b.d.content(ctx, seq)
		return (have == nil) != (value == nil) || !bytes.Equal(have, value), err
	})
	b.err = err
	return done, err
}

func (b *Batch) del(ctx context.Context, key []byte, when func(*Entry) bool) (bool, error) {
	if err := b.check(); err != nil {
		return false, err
	}
	done, err := b.d.del(ctx, joined(b.t.prefix, key), b.condition(ctx, when))
	b.err = err
	return done, err
}

// condition makes one of a caller's function.
func (b *Batch) condition(ctx context.Context, when func(*Entry) bool) condition {
	return func(seq uint64) (bool, error) {
		if when == nil {
			return true, nil
		}
		if seq == 0 {
			return when(nil), nil
		}
		e, err := b.entry(ctx, seq)
		return err == nil && when(&e), err
	}
}

// Flush writes the changes and ends the batch. ErrConflict means that somebody
// else changed the log meanwhile.
func (b *Batch) Flush(ctx context.Context) error {
	if err := b.check(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	defer b.Close()
	if err := b.write(ctx); err != nil {
		return fmt.Errorf("flush %d changes to log %s: %w", len(b.d.ops), b.t.s.log.Key(), err)
	}
	return nil
}

func (b *Batch) write(ctx context.Context) error {
	log, o := b.t.s.log, b.t.s.o
	blocks := b.d.blocks()
	first := b.d.base
	if b.fresh {
		first = 0
		header := Header{Protocol: protocolName, Metadata: o.Metadata}.Append(nil)
		blocks = append([][]byte{header}, blocks...)
	}
	if len(blocks) == 0 {
		return nil
	}
	if err := b.d.v.same(); err != nil {
		return err
	}
	want := first + uint64(len(blocks))
	length, err := log.AppendWith(ctx, hypercore.AppendOptions{Durability: o.Durability, MaxLength: want}, blocks...)
	if errors.Is(err, hypercore.ErrLength) {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	if err != nil {
		return err
	}
	if length != want {
		return fmt.Errorf("%w: the log was truncated while the changes were written, and is no tree now", ErrConflict)
	}
	for i, raw := range blocks {
		if seq := first + uint64(i); seq > 0 {
			if decoded, err := decode(seq, raw); err == nil {
				b.d.v.cache.add(b.d.v.fork, decoded)
			}
		}
	}
	return nil
}
