package tree

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// A Change is a key that has another entry than before. An entry without a value
// is one that is not there.
type Change struct {
	Key      []byte
	Old, New Entry
}

// Changes returns the keys whose entries are not those of an earlier version of
// the tree, each once, in order. It costs what was changed, not what there is. A
// version that is nil is the empty one. What was cut off since (Add) is a change,
// too. It ends with the first error.
func (t *Tree) Changes(ctx context.Context, from Version, o hyperbee.RangeOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if err := t.changes(ctx, from, o, yield); err != nil {
			yield(Change{}, fmt.Errorf("changes: %w", err))
		}
	}
}

func (t *Tree) changes(ctx context.Context, from Version, o hyperbee.RangeOptions, yield func(Change, error) bool) error {
	t.s.know(from)
	now, err := t.now(ctx)
	if err != nil {
		return err
	}
	old, err := t.checkout(ctx, from, true)
	if err != nil {
		return err
	}
	limit := o.Limit
	o.Limit, o.Reverse = 0, false
	w := walk{v: now}
	defer w.end()
	for i, before := range old.members {
		if i < len(now.members) {
			err = w.add(before, differing(ctx, now.members[i], before, o))
		} else { // its writer was added later
			err = w.add(before, differing(ctx, &member{version: 1}, before, o))
		}
		if err != nil {
			return err
		}
	}
	for sent := 0; ; {
		turn, err := w.turn()
		if len(turn) == 0 || err != nil {
			return err
		}
		key := turn[0].entry.Key
		if len(key) == 0 {
			continue // the table
		}
		c := Change{Key: key}
		if c.Old, err = old.get(ctx, key); err != nil {
			return err
		}
		if c.New, err = now.get(ctx, key); err != nil {
			return err
		}
		if same(&c.Old, &c.New) {
			continue
		}
		sent++
		if !yield(c, nil) || limit > 0 && sent >= limit {
			return nil
		}
	}
}

// know takes an earlier version of the tree for one that was whole: after a start
// nothing else may tell where the last batch of a writer ends that is here.
func (s *shared) know(version Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.writers {
		if upTo := version[w.key]; upTo > w.whole {
			w.whole = upTo
			w.state.length = unknown
		}
	}
}

// differing returns the keys of entries that two versions of a bee do not share.
func differing(ctx context.Context, a, b *member, o hyperbee.RangeOptions) iter.Seq2[hyperbee.Entry, error] {
	if a.version < b.version {
		a, b = b, a
	}
	return func(yield func(hyperbee.Entry, error) bool) {
		if a.version == b.version {
			return
		}
		for d, err := range a.bee.Diff(ctx, b.version, o) {
			e := d.Left
			if e == nil {
				e = d.Right
			}
			if err != nil {
				e = &hyperbee.Entry{}
			}
			if !yield(*e, err) {
				return
			}
		}
	}
}

// same reports whether two entries are of the same statements.
func same(a, b *Entry) bool {
	return a.Writer == b.Writer && a.Seq == b.Seq && slices.EqualFunc(a.Others, b.Others, func(a, b Entry) bool { return same(&a, &b) })
}
