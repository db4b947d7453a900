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

// standing returns the statements that no other one has seen.
func (v *view) standing(ctx context.Context, list []statement) ([]statement, error) {
	// seen[a*n+b] says that a has seen b.
	n := len(list)
	seen := make([]bool, n*n)
	for a := range list {
		if err := v.look(ctx, list, a, seen[a*n:(a+1)*n]); err != nil {
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

// look finds out which statements of a list number a has seen.
func (v *view) look(ctx context.Context, list []statement, a int, seen []bool) error {
	s := &list[a]
	if len(s.claims) == 0 {
		return nil
	}
	table, err := s.m.getTable(ctx)
	if bad(err) {
		v.s.problem(s.m.w, s.seq, err)
	} else if err != nil {
		return err
	}
	for c := range eachClaim(s.claims) {
		if c.number >= uint64(len(table)) {
			v.s.problem(s.m.w, s.seq, errWriter)
			return nil
		}
		v.check(list, s, table[c.number], c.seq, seen)
	}
	return nil
}

// check marks what of a writer's statements another one has seen: all up to a
// block.
func (v *view) check(list []statement, s *statement, w Writer, seq uint64, seen []bool) {
	last := uint64(0)
	for i := range list {
		if list[i].m.w.key == w {
			last = max(last, list[i].seq)
		}
	}
	if last == 0 || w == s.m.w.key {
		return
	}
	for i := range list {
		b := &list[i]
		if b.m.w.key != w || b.seq > seq {
			continue
		}
		if seq < b.m.version {
			// The block is here, so what is said to have been seen must be, too.
			if seq > last {
				v.s.problem(s.m.w, s.seq, errClaim)
				return
			}
			seen[i] = true
			continue
		}
		// The block is not here yet, or never was there. What was said before it may
		// be superseded, but not what is said later.
		if b.m.cut || b.time < s.time && s.time <= v.now()+uint64(maxDrift) {
			seen[i] = true
		}
	}
}

// now is the clock's time.
func (v *view) now() uint64 { return uint64(max(0, v.s.o.Clock.Now().UnixNano())) }
