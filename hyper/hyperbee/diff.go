package hyperbee

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Difference is a key that has not the same entry in two versions. An entry
// that a version has not is nil.
type Difference struct {
	Left, Right *Entry
}

// Diff returns what is different between this tree, on the left, and a version
// of it, on the right, in the order of keys. An entry that was put again is
// different also if its value is the same. Parts that both have are not read. It
// ends with the first error. Reverse is ignored.
func (t *Tree) Diff(ctx context.Context, version uint64, o RangeOptions) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		fail := func(err error) { yield(Difference{}, fmt.Errorf("diff with version %d: %w", version, err)) }
		left, err := t.view(ctx)
		if err != nil {
			fail(err)
			return
		}
		defer left.end()
		right := left
		if version > left.log.Length() && t.pin != nil {
			// The later version is that of the present, if that continues this one.
			if right, err = (&Tree{s: t.s}).view(ctx); err != nil {
				fail(err)
				return
			}
			defer right.end()
			if right.fork != left.fork {
				fail(ErrTruncated)
				return
			}
		}
		right.version = max(1, version)
		if right.version > max(1, right.log.Length()) {
			fail(fmt.Errorf("%w: the log has %d blocks", hypercore.ErrLength, right.log.Length()))
			return
		}
		d := differ{left: cursor{v: left}, right: cursor{v: right}, same: math.MaxUint64}
		if err := d.run(ctx, t.prefix, o, yield); err != nil {
			fail(err)
		}
	}
}

// A differ walks through two versions at once.
type differ struct {
	left, right cursor
	same        uint64 // blocks before this one are the same on both sides
}

// run yields the differences in a range of keys under a prefix.
func (d *differ) run(ctx context.Context, prefix []byte, o RangeOptions, yield func(Difference, error) bool) error {
	low, high := o.bounds(prefix)
	for _, c := range []*cursor{&d.left, &d.right} {
		c.first, c.last = low, high
		if err := c.open(ctx); err != nil {
			return err
		}
	}
	for n := 0; o.Limit <= 0 || n < o.Limit; n++ {
		l, r, err := d.next(ctx)
		if err != nil {
			return err
		}
		if l == nil && r == nil {
			return nil
		}
		var out Difference
		if l != nil {
			e := l.entry(prefix)
			out.Left = &e
		}
		if r != nil {
			e := r.entry(prefix)
			out.Right = &e
		}
		if !yield(out, nil) {
			return nil
		}
	}
	return nil
}

// next returns the next difference: the blocks of the two entries.
func (d *differ) next(ctx context.Context) (l, r *block, err error) {
	a, b := &d.left, &d.right
	for {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		la, lkey, lok := a.peek()
		rb, rkey, rok := b.peek()
		switch {
		case !lok && !rok:
			return nil, nil, nil
		case !lok:
			r, err = b.next(ctx)
			return nil, r, err
		case !rok:
			l, err = a.next(ctx)
			return l, nil, err
		case la == rb && lkey == rkey && la.seq < d.same && !lkey:
			a.skip()
			b.skip()
			continue
		case !lkey && !rkey:
			// Of two that begin at the same key, go into the one that ends later: a part
			// of it may be the other.
			c, err := compareEnds(ctx, a, b)
			if err != nil {
				return nil, nil, err
			}
			if c >= 0 {
				err = a.descend(ctx, la)
			}
			if c <= 0 && err == nil {
				err = b.descend(ctx, rb)
			}
			if err != nil {
				return nil, nil, err
			}
			continue
		case !lkey:
			if err := a.descend(ctx, la); err != nil {
				return nil, nil, err
			}
			continue
		case !rkey:
			if err := b.descend(ctx, rb); err != nil {
				return nil, nil, err
			}
			continue
		}
		kl, err := a.v.key(ctx, la.seq)
		if err != nil {
			return nil, nil, err
		}
		kr, err := b.v.key(ctx, rb.seq)
		if err != nil {
			return nil, nil, err
		}
		c := bytes.Compare(kl, kr)
		if c <= 0 {
			if l, err = a.take(ctx, la.seq); err != nil {
				return nil, nil, err
			}
		}
		if c >= 0 {
			if r, err = b.take(ctx, rb.seq); err != nil {
				return nil, nil, err
			}
		}
		switch {
		case l == nil && r == nil: // both are at their end
		case c == 0 && d.equal(l, r):
			l, r = nil, nil
		default:
			return l, r, nil
		}
	}
}

// equal tells whether two entries of a key are one.
func (d *differ) equal(l, r *block) bool {
	if l == nil || r == nil || l.seq != r.seq {
		return false
	}
	return l.seq < d.same || (l.value == nil) == (r.value == nil) && bytes.Equal(l.value, r.value)
}

// descend goes into the child that peek returned.
func (c *cursor) descend(ctx context.Context, at place) error {
	c.skip()
	return c.enter(ctx, at)
}

// end returns the key after the child that peek returned, or nil if none is.
func (c *cursor) end(ctx context.Context) ([]byte, error) {
	for i := len(c.stack) - 1; i >= 0; i-- {
		s := &c.stack[i]
		// Below the top, the child gone to was skipped: the next is a key.
		if k := s.i / 2; k < s.n.nkeys {
			return c.v.key(ctx, s.n.keys[k])
		}
	}
	return nil, nil
}

// compareEnds compares the ends of the children that two cursors are at.
func compareEnds(ctx context.Context, a, b *cursor) (int, error) {
	l, err := a.end(ctx)
	if err != nil {
		return 0, err
	}
	r, err := b.end(ctx)
	if err != nil {
		return 0, err
	}
	switch {
	case l == nil && r == nil:
		return 0, nil
	case l == nil:
		return 1, nil
	case r == nil:
		return -1, nil
	}
	return bytes.Compare(l, r), nil
}
