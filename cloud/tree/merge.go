package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

var (
	errClaim  = errors.New("it claims to have seen a statement that was never made")
	errWriter = errors.New("it speaks of a writer that its table has not")
)

// read adds the statements of a bee's entry to a list. Those that make no sense
// are left out.
func (v *view) read(list []statement, m *member, seq uint64, value []byte) []statement {
	r, err := readRecord(value)
	if err != nil {
		v.s.problem(m.w, seq, err)
		return list
	}
	list = append(list, statement{record: r, m: m, seq: seq})
	for before, r := range eachKept(r.kept) {
		if before >= seq {
			v.s.problem(m.w, seq, fmt.Errorf("%w: it keeps a later one", ErrStatement))
			break
		}
		list = append(list, statement{record: r, m: m, seq: before})
	}
	return list
}

// merge makes the entry of a key of all statements about it, at least one.
func (v *view) merge(ctx context.Context, key []byte, list []statement) (Entry, error) {
	if len(list) == 1 {
		e := list[0].entry(key)
		if d := list[0].dot(); d.claims != nil {
			e.all = []dot{d}
		}
		return e, nil
	}
	standing, err := v.standing(ctx, list)
	if err != nil {
		return Entry{}, err
	}
	slices.SortFunc(standing, beats)
	e := standing[0].entry(key)
	e.all = make([]dot, len(list))
	for i := range list {
		e.all[i] = list[i].dot()
	}
	for i := range standing[1:] {
		s := &standing[1+i]
		if !slices.ContainsFunc(standing[:1+i], s.saysSame) {
			e.Others = append(e.Others, s.entry(bytes.Clone(key)))
		}
	}
	return e, nil
}

func (s *statement) entry(key []byte) Entry {
	e := Entry{Key: key, Time: timeOf(s.time), Writer: s.m.w.key, Seq: s.seq}
	if !s.deleted {
		e.Value = s.value
	}
	return e
}

func timeOf(t uint64) time.Time { return time.Unix(0, int64(t)).UTC() }

// beats orders concurrent statements, the winner first.
func beats(a, b statement) int {
	switch {
	case a.deleted != b.deleted:
		if b.deleted {
			return -1
		}
		return 1
	case a.time != b.time:
		if a.time > b.time {
			return -1
		}
		return 1
	case a.m != b.m:
		return -compareWriters(a.m.w.key, b.m.w.key)
	case a.seq > b.seq:
		return -1
	}
	return 1
}

func (s *statement) saysSame(other statement) bool {
	return s.deleted == other.deleted && bytes.Equal(s.value, other.value)
}

// standing returns the statements that no other one has seen. Those of a writer
// follow one another in the list.
func (v *view) standing(ctx context.Context, list []statement) ([]statement, error) {
	n := len(list)
	l := looking{v: v, list: list}
	for i := range list {
		if i == 0 || list[i].m != list[i-1].m {
			l.firsts = append(l.firsts, i)
		}
	}
	seen := make([]bool, n*n) // seen[a*n+b] says that a has seen b
	for a := range list {
		if err := l.look(ctx, a, seen[a*n:(a+1)*n]); err != nil {
			return nil, err
		}
	}
	var out []statement
	for b := range list {
		if !superseded(seen, n, b) {
			out = append(out, list[b])
		}
	}
	return out, nil
}

// superseded reports whether a statement was seen by another one which has not,
// by whatever way, seen it as well: those that claim to have seen each other lie,
// and stand both.
func superseded(seen []bool, n, b int) bool {
	var from []bool // what b has seen, by whatever way
	for a := range n {
		if !seen[a*n+b] {
			continue
		}
		if from == nil {
			from = make([]bool, n)
			todo := []int{b}
			for len(todo) > 0 {
				at := todo[len(todo)-1]
				todo = todo[:len(todo)-1]
				for next := range n {
					if seen[at*n+next] && !from[next] {
						from[next] = true
						todo = append(todo, next)
					}
				}
			}
		}
		if !from[a] {
			return true
		}
	}
	return false
}

// looking finds out which of some statements have seen which.
type looking struct {
	v      *view
	list   []statement
	firsts []int // the first, which is the newest, of each writer
}

// look marks what number a of the list has seen.
func (l *looking) look(ctx context.Context, a int, seen []bool) error {
	s := &l.list[a]
	if s.claims == nil {
		return nil
	}
	table, err := s.m.getTable(ctx)
	if bad(err) {
		l.v.s.problem(s.m.w, s.seq, err)
		return nil
	}
	if err != nil {
		return err
	}
	for c := range eachClaim(s.claims) {
		if c.number >= uint64(len(table)) {
			l.v.s.problem(s.m.w, s.seq, errWriter)
			return nil
		}
		for _, first := range l.firsts {
			if m := l.list[first].m; m != s.m && m.w.key == table[c.number] {
				l.mark(s, first, c.seq, seen)
			}
		}
	}
	return nil
}

// mark marks what of a writer's statements, the newest of which is given, another
// one has seen: all up to a block.
func (l *looking) mark(s *statement, first int, upTo uint64, seen []bool) {
	m := l.list[first].m
	here := upTo < m.version
	if here && upTo > l.list[first].seq {
		// The block is here and says nothing about the key.
		l.v.s.problem(s.m.w, s.seq, errClaim)
		return
	}
	cut := m.upTo > 0 && m.version == m.upTo
	for i := first; i < len(l.list) && l.list[i].m == m; i++ {
		b := &l.list[i]
		if b.seq > upTo {
			continue
		}
		// A block that is not here may never have been there. What was said before it
		// may have been seen, but not what is said later.
		if here || cut || b.time < s.time && s.time <= l.v.clock()+uint64(maxDrift) {
			seen[i] = true
		}
	}
}

// clock is what the clock shows.
func (v *view) clock() uint64 { return uint64(max(0, v.s.o.Clock.Now().UnixNano())) }
