package hyperbee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
)

// RangeOptions say which entries, by their keys. The zero value is all of them.
// A bound that is nil is none; if there are two on one side, Gt and Lt count.
type RangeOptions struct {
	Gt, Gte []byte
	Lt, Lte []byte
	// Reverse goes from the last to the first.
	Reverse bool
	// Limit is the most entries to return; 0 is all.
	Limit int
}

// A bound is one end of a range; the zero value is none.
type bound struct {
	key       []byte
	inclusive bool
}

// bounds returns the two ends of a range of keys under a prefix.
func (o RangeOptions) bounds(prefix []byte) (low, high bound) {
	pick := func(out, in []byte) bound {
		if out != nil {
			return bound{joined(prefix, out), false}
		}
		if in != nil {
			return bound{joined(prefix, in), true}
		}
		return bound{}
	}
	low, high = pick(o.Gt, o.Gte), pick(o.Lt, o.Lte)
	if len(prefix) == 0 {
		return low, high
	}
	if low.key == nil {
		low = bound{prefix, true}
	}
	if high.key == nil {
		high.key = after(prefix)
	}
	return low, high
}

// after returns the first key after all that begin with a prefix, nil if there
// is none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			next := bytes.Clone(prefix[:i+1])
			next[i]++
			return next
		}
	}
	return nil
}

// joined is not nil, as an empty bound is one.
func joined(prefix, key []byte) []byte {
	return append(append(make([]byte, 0, len(prefix)+len(key)), prefix...), key...)
}

// beyond reports whether a key is on the far side of a bound, when going up or,
// with down, when going down.
func (b bound) beyond(key []byte, down bool) bool {
	if b.key == nil {
		return false
	}
	c := bytes.Compare(key, b.key)
	if c == 0 {
		return !b.inclusive
	}
	return c < 0 == down
}

// A cursor goes through the keys of a version in order. It checks that they are,
// so that there is an end to each walk: between two keys lie no more nodes than
// a tree is deep.
type cursor struct {
	v     view
	down  bool
	first bound  // where it begins, seen from the side that it starts at
	last  bound  // where it ends
	stack []step // from the root to the node where it is
	prev  []byte // the key last come by
	// passed is how many keys were come by.
	passed int
}

// A step is a node with a position in it: child 0, key 0, child 1, key 1, … or
// in the other direction.
type step struct {
	n  node
	at place
	i  int // 2k is child k, 2k+1 key k
}

// open puts the cursor before the first key.
func (c *cursor) open(ctx context.Context) error {
	at, ok := c.v.root()
	if !ok {
		return nil
	}
	for {
		if err := c.enter(ctx, at); err != nil {
			return err
		}
		s := &c.stack[len(c.stack)-1]
		if c.first.key == nil {
			return nil
		}
		i, found, err := c.v.search(ctx, &s.n, c.first.key)
		if err != nil {
			return err
		}
		if found {
			switch {
			case c.first.inclusive:
				s.i = 2*i + 1
			case c.down:
				s.i = 2 * i
			default:
				s.i = 2*i + 2
			}
			return nil
		}
		s.i = 2 * i
		if s.n.nchildren == 0 {
			return nil
		}
		// The child is done with once the walk comes back up.
		s.next(c.down)
		at = s.n.children[i]
	}
}

func (s *step) next(down bool) {
	if down {
		s.i--
	} else {
		s.i++
	}
}

// enter goes into a node, to its near end.
func (c *cursor) enter(ctx context.Context, at place) error {
	c.stack = append(c.stack, step{at: at})
	s := &c.stack[len(c.stack)-1]
	if err := c.v.node(ctx, at, len(c.stack)-1, &s.n); err != nil {
		return err
	}
	if c.down {
		s.i = 2 * s.n.nkeys
	}
	return nil
}

// peek returns what is next: a key, or a child that nothing of was read yet. It
// pops nodes that are done. ok is false at the end.
func (c *cursor) peek() (at place, isKey, ok bool) {
	for len(c.stack) > 0 {
		s := &c.stack[len(c.stack)-1]
		switch {
		case s.i < 0 || s.i > 2*s.n.nkeys:
			c.stack = c.stack[:len(c.stack)-1]
		case s.i&1 == 1:
			return place{seq: s.n.keys[s.i>>1]}, true, true
		case s.n.nchildren == 0:
			s.next(c.down)
		default:
			return s.n.children[s.i>>1], false, true
		}
	}
	return place{}, false, false
}

// skip goes past what peek returned.
func (c *cursor) skip() { c.stack[len(c.stack)-1].next(c.down) }

// take goes past the key that peek returned, and returns its block. It is nil
// when that is beyond the end.
func (c *cursor) take(ctx context.Context, seq uint64) (*block, error) {
	b, err := c.v.block(ctx, seq)
	if err != nil {
		return nil, err
	}
	before := c.first
	if c.prev != nil {
		before = bound{key: c.prev}
	}
	if before.beyond(b.key, !c.down) {
		return nil, c.v.invalid(c.stack[len(c.stack)-1].at.seq, fmt.Errorf("its tree has the key of block %d out of order", seq))
	}
	c.prev = b.key
	if c.passed++; c.passed == groupBlocks {
		c.v.group = true
	}
	c.skip()
	if c.last.beyond(b.key, c.down) {
		c.stack = c.stack[:0]
		return nil, nil
	}
	return b, nil
}

// next returns the block of the next key, or nil.
func (c *cursor) next(ctx context.Context) (*block, error) {
	for {
		at, isKey, ok := c.peek()
		if !ok {
			return nil, nil
		}
		if isKey {
			return c.take(ctx, at.seq)
		}
		c.skip()
		if err := c.enter(ctx, at); err != nil {
			return nil, err
		}
	}
}

// Range returns entries in the order of their keys, of the version there is when
// it begins. It ends with the first error, which is ErrTruncated when the log is
// truncated meanwhile; ranges of a Snapshot are not troubled by that.
func (t *Tree) Range(ctx context.Context, o RangeOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		v, err := t.view(ctx)
		if err != nil {
			yield(Entry{}, fmt.Errorf("range: %w", err))
			return
		}
		defer v.end()
		low, high := o.bounds(t.prefix)
		if o.Reverse {
			low, high = high, low
		}
		c := cursor{v: v, down: o.Reverse, first: low, last: high}
		c.hint(o.Limit)
		if err := c.open(ctx); err != nil {
			yield(Entry{}, fmt.Errorf("range: %w", err))
			return
		}
		for n := 0; o.Limit <= 0 || n < o.Limit; n++ {
			if err := ctx.Err(); err != nil {
				yield(Entry{}, fmt.Errorf("range: %w", err))
				return
			}
			b, err := c.next(ctx)
			if err != nil {
				yield(Entry{}, fmt.Errorf("range: %w", err))
				return
			}
			if b == nil {
				return
			}
			if !yield(b.entry(t.prefix), nil) {
				return
			}
		}
	}
}

// Range is Tree.Range, with the changes of the batch, which must not be changed
// meanwhile.
func (b *Batch) Range(ctx context.Context, o RangeOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := b.check()
		var root *draftNode
		if err == nil {
			root, err = b.d.getRoot(ctx)
		}
		if root != nil && err == nil {
			w := draftWalk{b: b, o: o, yield: yield}
			w.low, w.high = o.bounds(b.t.prefix)
			_, err = w.walk(ctx, root, 0)
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("range: %w", err))
		}
	}
}

// A draftWalk goes through the entries of a batch in order.
type draftWalk struct {
	b         *Batch
	o         RangeOptions
	low, high bound
	yield     func(Entry, error) bool
	n         int
	prev      []byte
}

// walk yields what is in the range of a node and those below it, and returns
// false when no more is wanted.
func (w *draftWalk) walk(ctx context.Context, n *draftNode, depth int) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	d := &w.b.d
	// Positions are those of a step. What is before the near end is left out.
	i, step, first := 0, 1, w.low
	if w.o.Reverse {
		i, step, first = 2*len(n.keys), -1, w.high
	}
	if first.key != nil {
		at, found, err := d.search(ctx, n, first.key)
		if err != nil {
			return false, err
		}
		if i = 2 * at; found {
			i++
		}
	}
	for ; i >= 0 && i <= 2*len(n.keys); i += step {
		if i&1 == 0 {
			if len(n.children) == 0 {
				continue
			}
			l := n.children[i/2]
			child := l.node
			if child == nil { // not kept: the batch need not grow by what is read
				if child, err = d.load(ctx, l.place, depth+1); err != nil {
					return false, err
				}
			}
			if more, err := w.walk(ctx, child, depth+1); !more || err != nil {
				return false, err
			}
			continue
		}
		key, err := d.key(ctx, n, i/2)
		if err != nil {
			return false, err
		}
		if w.prev != nil && (bound{key: w.prev}).beyond(key, !w.o.Reverse) {
			return false, d.v.invalid(n.keys[i/2].seq, errors.New("its key is out of order"))
		}
		w.prev = key
		if first.beyond(key, !w.o.Reverse) {
			continue
		}
		last := w.high
		if w.o.Reverse {
			last = w.low
		}
		if last.beyond(key, w.o.Reverse) {
			return false, nil
		}
		e, err := w.b.entry(ctx, n.keys[i/2].seq)
		if err != nil {
			return false, err
		}
		w.n++
		if !w.yield(e, nil) || w.o.Limit > 0 && w.n >= w.o.Limit {
			return false, nil
		}
	}
	return true, nil
}
