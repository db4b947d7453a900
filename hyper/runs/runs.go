// Package runs is a set of numbers, kept as runs of consecutive ones: of the
// blocks that a log holds, or that are still to be fetched. It takes memory for
// the runs, not for the numbers in them, and every method takes logarithmic time
// for each run that it changes.
//
//	var s runs.Set
//	s.Add(runs.Range{Start: 3, End: 7})
//	s.Remove(runs.Range{Start: 4, End: 5})
//	s.Has(5) // true
//	s.Next(4) // {5 7}, true
//
// It is no bitmap: where every second number is in the set, a bitmap is smaller.
package runs

import (
	"cmp"
	"iter"

	"github.com/RaduBerinde/btreemap"
)

// A Range is the numbers Start to End, without End.
type Range struct{ Start, End uint64 }

// Len returns how many numbers there are.
func (r Range) Len() uint64 {
	if r.End < r.Start {
		return 0
	}
	return r.End - r.Start
}

// Contains reports whether i is in the range.
func (r Range) Contains(i uint64) bool { return r.Start <= i && i < r.End }

// Intersect returns what two ranges share, which may be nothing.
func (r Range) Intersect(other Range) Range {
	return Range{max(r.Start, other.Start), min(r.End, other.End)}
}

// A Set is a set of numbers below 2^64 - 1. Its zero value is empty. It is for
// one goroutine at a time.
type Set struct {
	m *btreemap.BTreeMap[uint64, uint64] // start -> end of runs that neither touch nor overlap; nil when empty
}

// Runs returns how many runs there are.
func (s *Set) Runs() int {
	if s.m == nil {
		return 0
	}
	return s.m.Len()
}

// Last returns the last run, or an empty range.
func (s *Set) Last() Range {
	if s.m == nil {
		return Range{}
	}
	start, end, _ := s.m.Max()
	return Range{start, end}
}

// At returns the last run that starts at or before i.
func (s *Set) At(i uint64) (r Range, ok bool) {
	if s.m == nil {
		return r, false
	}
	for start, end := range s.m.Descend(btreemap.LE(i), btreemap.Min[uint64]()) {
		return Range{start, end}, true
	}
	return r, false
}

// Has reports whether i is in the set.
func (s *Set) Has(i uint64) bool {
	r, ok := s.At(i)
	return ok && i < r.End
}

// Next returns the first run from i on, or what is left of it there. ok is false
// when none follows.
func (s *Set) Next(i uint64) (r Range, ok bool) {
	if r, ok := s.At(i); ok && i < r.End {
		return Range{i, r.End}, true
	}
	if s.m == nil {
		return r, false
	}
	for start, end := range s.m.Ascend(btreemap.GE(i), btreemap.Max[uint64]()) {
		return Range{start, end}, true
	}
	return r, false
}

// Add adds numbers, and returns the runs that they were joined with, as they
// were before.
func (s *Set) Add(r Range) (joined []Range) {
	if r.Len() == 0 {
		return nil
	}
	if last := s.Last(); last.Len() > 0 && r.Start == last.End {
		s.put(Range{last.Start, r.End}) // what grows at its end is the common case
		return nil
	}
	joined = s.take(r, func(run Range) bool { return run.Start <= r.End && run.End >= r.Start })
	for _, run := range joined {
		r.Start, r.End = min(r.Start, run.Start), max(r.End, run.End)
	}
	s.put(r)
	return joined
}

// Remove removes numbers, and returns the runs that they were in, as they were
// before.
func (s *Set) Remove(r Range) (cut []Range) {
	if r.Len() == 0 {
		return nil
	}
	cut = s.take(r, func(run Range) bool { return run.Start < r.End && run.End > r.Start })
	for _, run := range cut {
		s.put(Range{run.Start, min(run.End, r.Start)})
		s.put(Range{max(run.Start, r.End), run.End})
	}
	return cut
}

func (s *Set) put(r Range) {
	if r.Len() == 0 {
		return
	}
	if s.m == nil {
		s.m = btreemap.New[uint64, uint64](16, cmp.Compare[uint64])
	}
	s.m.ReplaceOrInsert(r.Start, r.End)
}

// take takes out the runs near r that match.
func (s *Set) take(r Range, match func(Range) bool) (out []Range) {
	if s.m == nil {
		return nil
	}
	from := r.Start
	if run, ok := s.At(r.Start); ok && match(run) {
		from = run.Start
	}
	for start, end := range s.m.Ascend(btreemap.GE(from), btreemap.LE(r.End)) {
		if run := (Range{start, end}); match(run) {
			out = append(out, run)
		}
	}
	for _, run := range out {
		s.m.Delete(run.Start)
	}
	return out
}

// Clone returns a copy that shares memory until one of the two is changed.
func (s *Set) Clone() Set {
	if s.m == nil {
		return Set{}
	}
	return Set{s.m.Clone()}
}

// All returns the runs, in order. The set must not be changed meanwhile.
func (s *Set) All() iter.Seq[Range] {
	return func(yield func(Range) bool) {
		if s.m == nil {
			return
		}
		for start, end := range s.m.Ascend(btreemap.Min[uint64](), btreemap.Max[uint64]()) {
			if !yield(Range{start, end}) {
				return
			}
		}
	}
}
