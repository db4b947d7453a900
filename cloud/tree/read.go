package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// Get returns the entry of a key. With ErrNotFound, it returns what was said about
// the key if it is deleted, which PutOver can be told.
func (t *Tree) Get(ctx context.Context, key []byte) (Entry, error) {
	v, err := t.now(ctx)
	if err != nil {
		return Entry{}, fmt.Errorf("get: %w", err)
	}
	return found(v.get(ctx, key))
}

// found is what Get returns of an entry.
func found(e Entry, err error) (Entry, error) {
	switch {
	case err != nil:
		return Entry{}, fmt.Errorf("get: %w", err)
	case e.Value == nil:
		return e, ErrNotFound
	}
	return e, nil
}

// get returns the entry of a key, without a value if there is none.
func (v *view) get(ctx context.Context, key []byte) (Entry, error) {
	if len(key) == 0 {
		return Entry{}, ErrKey
	}
	var few [4]statement
	list, err := v.statements(ctx, key, few[:0])
	if err != nil || len(list) == 0 {
		return Entry{}, err
	}
	return v.merge(ctx, bytes.Clone(key), list)
}

// statements returns what is said about a key.
func (v *view) statements(ctx context.Context, key []byte, list []statement) ([]statement, error) {
	for _, m := range v.members {
		if m.read == nil {
			continue
		}
		e, err := m.read.Get(ctx, key)
		switch {
		case err == nil:
			list = v.read(list, m, e.Seq, e.Value)
		case errors.Is(err, ErrNotFound):
		case bad(err):
			v.s.problem(m.w, 0, err)
		default:
			return nil, err
		}
	}
	return list, nil
}

// Range returns entries in the order of their keys, of the tree as it is when it
// begins. It ends with the first error.
func (t *Tree) Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return t.ranging(ctx, o, false)
}

// RangeAll is Range with the keys that are deleted, whose entries have no value.
func (t *Tree) RangeAll(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return t.ranging(ctx, o, true)
}

func (t *Tree) ranging(ctx context.Context, o hyperbee.RangeOptions, deleted bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		v, err := t.now(ctx)
		if err != nil {
			yield(Entry{}, fmt.Errorf("range: %w", err))
			return
		}
		if err := v.ranging(ctx, o, deleted, yield); err != nil {
			yield(Entry{}, fmt.Errorf("range: %w", err))
		}
	}
}

// ranging yields entries. It returns the error that ended it, if it was not the
// caller who did.
func (v *view) ranging(ctx context.Context, o hyperbee.RangeOptions, deleted bool, yield func(Entry, error) bool) error {
	limit := o.Limit
	o.Limit = 0
	if o.Gt == nil && len(o.Gte) == 0 {
		o.Gt = tableKey
	}
	sent := 0
	// take merges what is said about a key, and returns false when no more is wanted.
	take := func(key []byte, list []statement) (bool, error) {
		if len(list) == 0 {
			return true, nil
		}
		e, err := v.merge(ctx, key, list)
		if err != nil {
			return false, err
		}
		if e.Value == nil && !deleted {
			return true, nil
		}
		sent++
		return yield(e, nil) && (limit <= 0 || sent < limit), nil
	}
	var list []statement
	var from []*member
	for _, m := range v.members {
		if m.read != nil {
			from = append(from, m)
		}
	}
	if len(from) == 1 {
		m := from[0]
		for e, err := range m.read.Range(ctx, o) {
			if bad(err) {
				v.s.problem(m.w, 0, err)
				return nil
			}
			if err != nil {
				return err
			}
			list = v.read(list[:0], m, e.Seq, e.Value)
			if more, err := take(e.Key, list); !more || err != nil {
				return err
			}
		}
		return nil
	}
	w := walk{v: v, down: o.Reverse}
	defer w.end()
	for _, m := range from {
		if err := w.add(m, m.read.Range(ctx, o)); err != nil {
			return err
		}
	}
	for {
		turn, err := w.turn()
		if len(turn) == 0 || err != nil {
			return err
		}
		list = list[:0]
		for _, s := range turn {
			list = v.read(list, s.m, s.entry.Seq, s.entry.Value)
		}
		if more, err := take(turn[0].entry.Key, list); !more || err != nil {
			return err
		}
	}
}

// A walk goes through the entries of several bees at once.
type walk struct {
	v       *view
	down    bool
	sources []*source // that have more, the one whose turn it is last
	taken   []*source // whose entries turn returned
	stops   []func()
}

// A source is the entries of one bee in order.
type source struct {
	m     *member
	next  func() (hyperbee.Entry, error, bool)
	entry hyperbee.Entry
}

// end must be called when the walk is over.
func (w *walk) end() {
	for _, stop := range w.stops {
		stop()
	}
}

// add adds a bee.
func (w *walk) add(m *member, entries iter.Seq2[hyperbee.Entry, error]) error {
	next, stop := iter.Pull2(entries)
	w.stops = append(w.stops, stop)
	return w.push(&source{m: m, next: next})
}

// turn returns the sources that have an entry of the next key, none at the end.
func (w *walk) turn() ([]*source, error) {
	for _, s := range w.taken {
		if err := w.push(s); err != nil {
			return nil, err
		}
	}
	w.taken = w.taken[:0]
	for n := len(w.sources); n > 0; n-- {
		s := w.sources[n-1]
		if len(w.taken) > 0 && !bytes.Equal(s.entry.Key, w.taken[0].entry.Key) {
			break
		}
		w.taken, w.sources = append(w.taken, s), w.sources[:n-1]
	}
	return w.taken, nil
}

// push puts a source in its place by its next entry, if it has one.
func (w *walk) push(s *source) error {
	e, err, ok := s.next()
	switch {
	case !ok:
		return nil
	case bad(err):
		w.v.s.problem(s.m.w, 0, err)
		return nil
	case err != nil:
		return err
	}
	s.entry = e
	w.sources = append(w.sources, s)
	for i := len(w.sources) - 1; i > 0; i-- {
		c := bytes.Compare(w.sources[i].entry.Key, w.sources[i-1].entry.Key)
		if w.down {
			c = -c
		}
		if c < 0 {
			break
		}
		w.sources[i], w.sources[i-1] = w.sources[i-1], w.sources[i]
	}
	return nil
}

// Version returns the version of the tree: what of each bee is read now.
func (t *Tree) Version(ctx context.Context) (Version, error) {
	v, err := t.now(ctx)
	if err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	return v.version(), nil
}

// A Moment is a state of a tree, to be compared: while it is the same, so is all that
// is read.
type Moment struct{ v *view }

// Moment returns what the tree is now. It costs next to nothing.
func (t *Tree) Moment(ctx context.Context) (Moment, error) {
	v, err := t.now(ctx)
	if err != nil {
		return Moment{}, fmt.Errorf("moment: %w", err)
	}
	return Moment{v}, nil
}
