package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// HistoryOptions say which statements. The zero value is all there are.
type HistoryOptions struct {
	// Key is the one they are about; nil is all. Those that their writer replaced in
	// the same batch are left out then.
	Key []byte
	// Prefix is what their keys begin with. Without Key, all statements between the
	// times are read.
	Prefix []byte
	// From is the time of the first, To that of the first that is too late. A zero
	// time is no bound.
	From, To time.Time
	// Since has for writers the first of their blocks to read: a version of the tree,
	// or between two of them. Those that it has not are read from the beginning.
	Since Version
	// Reverse goes from the last to the first.
	Reverse bool
	// Limit is the most statements to return; 0 is all.
	Limit int
}

// History returns what all writers said, in the order of time; what was said at
// the same time in the order of writers, then as it was said. It ends with the
// first error.
func (t *Tree) History(ctx context.Context, o HistoryOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := t.history(ctx, o, yield); err != nil {
			yield(Entry{}, fmt.Errorf("history: %w", err))
		}
	}
}

func (t *Tree) history(ctx context.Context, o HistoryOptions, yield func(Entry, error) bool) error {
	if o.Key != nil && len(o.Key) == 0 {
		return ErrKey
	}
	v, err := t.now(ctx)
	if err != nil {
		return err
	}
	var lines []*line
	defer func() {
		for _, l := range lines {
			l.stop()
		}
	}()
	for _, m := range v.members {
		if m.bee == nil {
			continue
		}
		from, to := uint64(1), m.version
		if !o.From.IsZero() {
			if from, err = v.since(ctx, m, o.From); err != nil {
				return err
			}
		}
		if !o.To.IsZero() {
			if to, err = v.since(ctx, m, o.To); err != nil {
				return err
			}
		}
		from = max(from, o.Since[m.w.key])
		said := v.said(ctx, m, from, to, &o)
		if o.Key != nil {
			said = v.saidOf(ctx, m, from, to, &o)
		}
		l := &line{}
		l.next, l.stop = iter.Pull2(said)
		lines = append(lines, l)
		if err := l.step(); err != nil {
			return err
		}
	}
	for sent := 0; o.Limit <= 0 || sent < o.Limit; sent++ {
		var first *line
		for _, l := range lines {
			if l.more && (first == nil || l.before(first) != o.Reverse) {
				first = l
			}
		}
		if first == nil || !yield(first.at, nil) {
			return nil
		}
		if err := first.step(); err != nil {
			return err
		}
	}
	return nil
}

// A line is what one writer said.
type line struct {
	next func() (Entry, error, bool)
	stop func()
	at   Entry
	more bool
}

func (l *line) step() (err error) {
	l.at, err, l.more = l.next()
	return err
}

func (l *line) before(other *line) bool {
	if c := l.at.Time.Compare(other.at.Time); c != 0 {
		return c < 0
	}
	return compareWriters(l.at.Writer, other.at.Writer) < 0
}

// said returns what is in some blocks of a bee, about keys with the prefix.
func (v *view) said(ctx context.Context, m *member, from, to uint64, o *HistoryOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if from >= to {
			return
		}
		for c, err := range m.bee.History(ctx, hyperbee.HistoryOptions{From: from, To: to, Reverse: o.Reverse}) {
			if bad(err) {
				v.s.problem(m.w, 0, err)
				return
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if len(c.Key) == 0 || !bytes.HasPrefix(c.Key, o.Prefix) {
				continue
			}
			if e, ok := v.one(m, c.Entry); ok && !yield(e, nil) {
				return
			}
		}
	}
}

// one returns the entry of one statement.
func (v *view) one(m *member, e hyperbee.Entry) (Entry, bool) {
	r, err := readRecord(e.Value)
	if err != nil {
		v.s.problem(m.w, e.Seq, err)
		return Entry{}, false
	}
	s := statement{record: r, m: m, seq: e.Seq}
	out := s.entry(e.Key)
	if d := s.dot(); d.claims != nil {
		out.all = []dot{d}
	}
	return out, true
}

// saidOf returns what is in some blocks of a bee about a key. Each statement says
// in which version to look for the one before.
func (v *view) saidOf(ctx context.Context, m *member, from, to uint64, o *HistoryOptions) iter.Seq2[Entry, error] {
	back := func(yield func(hyperbee.Entry, error) bool) {
		for to > max(1, from) {
			e, err := m.get(ctx, to, o.Key)
			if errors.Is(err, ErrNotFound) || err == nil && e.Seq < from {
				return
			}
			if err == nil && e.Seq >= to {
				err = fmt.Errorf("%w: block %d is in version %d", ErrStatement, e.Seq, to)
			}
			if !yield(e, err) || err != nil {
				return
			}
			_, time, err := readHead(e.Value)
			if err != nil {
				to = e.Seq
				continue
			}
			if to, err = batchStart(ctx, m.bee, e.Seq, time); err != nil {
				yield(hyperbee.Entry{}, err)
				return
			}
		}
	}
	return func(yield func(Entry, error) bool) {
		if o.Reverse {
			for e, err := range back {
				if bad(err) {
					v.s.problem(m.w, 0, err)
					return
				}
				if err != nil {
					yield(Entry{}, err)
					return
				}
				if out, ok := v.one(m, e); ok && !yield(out, nil) {
					return
				}
			}
			return
		}
		var blocks []uint64
		for e, err := range back {
			if bad(err) {
				v.s.problem(m.w, 0, err)
				break
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			blocks = append(blocks, e.Seq)
		}
		for _, seq := range slices.Backward(blocks) {
			for e, err := range v.said(ctx, m, seq, seq+1, &HistoryOptions{}) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// get returns what a version of the bee has of a key.
func (m *member) get(ctx context.Context, version uint64, key []byte) (hyperbee.Entry, error) {
	bee, err := m.bee.Pinned(version)
	if err != nil {
		return hyperbee.Entry{}, err
	}
	return bee.Get(ctx, key)
}
