package hypercore

import (
	"cmp"

	"github.com/RaduBerinde/btreemap"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A blockSet is a set of block numbers, as runs that neither touch nor overlap.
// The last run, the tail, is stored with the log's head, the others apart: an
// append, which makes the tail longer, stores nothing else.
type blockSet struct {
	runs *btreemap.BTreeMap[uint64, uint64] // start -> end; nil when empty
}

func newBlockSet(runs []storage.Range, tail storage.Range) blockSet {
	var s blockSet
	for _, r := range append(runs, tail) {
		s.insert(r)
	}
	return s
}

func (s *blockSet) insert(r storage.Range) {
	if r.Len() == 0 {
		return
	}
	if s.runs == nil {
		s.runs = btreemap.New[uint64, uint64](16, cmp.Compare[uint64])
	}
	s.runs.ReplaceOrInsert(r.Start, r.End)
}

// tail returns the last run.
func (s *blockSet) tail() storage.Range {
	if s.runs == nil {
		return storage.Range{}
	}
	start, end, _ := s.runs.Max()
	return storage.Range{Start: start, End: end}
}

// at returns the last run that starts at or before i.
func (s *blockSet) at(i uint64) (r storage.Range, ok bool) {
	if s.runs == nil {
		return r, false
	}
	for start, end := range s.runs.Descend(btreemap.LE(i), btreemap.Min[uint64]()) {
		return storage.Range{Start: start, End: end}, true
	}
	return r, false
}

// has reports whether block i is in the set.
func (s *blockSet) has(i uint64) bool {
	r, ok := s.at(i)
	return ok && i < r.End
}

// next returns the first run, or rest of a run, from block i on.
func (s *blockSet) next(i uint64) (r storage.Range, ok bool) {
	if r, ok := s.at(i); ok && i < r.End {
		return storage.Range{Start: i, End: r.End}, true
	}
	if s.runs == nil {
		return r, false
	}
	for start, end := range s.runs.Ascend(btreemap.GE(i), btreemap.Max[uint64]()) {
		return storage.Range{Start: start, End: end}, true
	}
	return r, false
}

// contiguous returns how many blocks from the first on are in the set.
func (s *blockSet) contiguous() uint64 {
	r, ok := s.at(0)
	if !ok {
		return 0
	}
	return r.End
}

// add adds blocks, and returns the stored runs that change.
func (s *blockSet) add(r storage.Range) []storage.Range {
	if r.Len() == 0 {
		return nil
	}
	old := s.tail()
	if old.Len() > 0 && r.Start == old.End {
		// An append: the tail grows.
		s.runs.ReplaceOrInsert(old.Start, r.End)
		return nil
	}
	touched := s.remove(func(run storage.Range) bool { return run.Start <= r.End && run.End >= r.Start }, r)
	for _, run := range touched {
		r.Start, r.End = min(r.Start, run.Start), max(r.End, run.End)
	}
	s.insert(r)
	return s.changes(old, append(touched, r))
}

// drop removes blocks, and returns the stored runs that change.
func (s *blockSet) drop(r storage.Range) []storage.Range {
	if r.Len() == 0 {
		return nil
	}
	old := s.tail()
	touched := s.remove(func(run storage.Range) bool { return run.Start < r.End && run.End > r.Start }, r)
	for _, run := range touched {
		left := storage.Range{Start: run.Start, End: r.Start}
		right := storage.Range{Start: r.End, End: run.End}
		for _, part := range []storage.Range{left, right} {
			if part.Len() > 0 {
				s.insert(part)
				touched = append(touched, part)
			}
		}
	}
	return s.changes(old, touched)
}

// remove takes out the runs near r that match.
func (s *blockSet) remove(match func(storage.Range) bool, r storage.Range) (out []storage.Range) {
	if s.runs == nil {
		return nil
	}
	from := r.Start
	if run, ok := s.at(r.Start); ok && match(run) {
		from = run.Start
	}
	for start, end := range s.runs.Ascend(btreemap.GE(from), btreemap.LE(r.End)) {
		if run := (storage.Range{Start: start, End: end}); match(run) {
			out = append(out, run)
		}
	}
	for _, run := range out {
		s.runs.Delete(run.Start)
	}
	return out
}

// changes returns what is to be stored anew of the runs touched, when the tail
// was old.
func (s *blockSet) changes(old storage.Range, touched []storage.Range) (out []storage.Range) {
	tail := s.tail()
	seen := map[uint64]bool{}
	for _, run := range append(touched, old, tail) {
		if seen[run.Start] {
			continue
		}
		seen[run.Start] = true
		inHead := run.Start == tail.Start && tail.Len() > 0
		if inHead && run.Start == old.Start && old.Len() > 0 {
			continue // in the head, before and after
		}
		now, ok := s.at(run.Start)
		if ok && now.Start == run.Start && !inHead {
			out = append(out, now)
		} else {
			out = append(out, storage.Range{Start: run.Start, End: run.Start})
		}
	}
	return out
}

// clone returns a copy that shares memory until one of the two is changed.
func (s *blockSet) clone() blockSet {
	if s.runs == nil {
		return blockSet{}
	}
	return blockSet{s.runs.Clone()}
}

// all returns the runs, in order.
func (s *blockSet) all() (out []storage.Range) {
	if s.runs == nil {
		return nil
	}
	for start, end := range s.runs.Ascend(btreemap.Min[uint64](), btreemap.Max[uint64]()) {
		out = append(out, storage.Range{Start: start, End: end})
	}
	return out
}
