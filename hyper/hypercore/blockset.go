package hypercore

import (
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A blockSet is a set of block numbers that is stored by its runs. The last run,
// the tail, is stored with the log's head, the others apart: an append, which
// makes the tail longer, stores nothing else.
type blockSet struct{ runs.Set }

func newBlockSet(stored []storage.Range, tail storage.Range) blockSet {
	var s blockSet
	for _, r := range stored {
		s.Add(r)
	}
	s.Add(tail)
	return s
}

// contiguous returns how many blocks from the first on are in the set.
func (s *blockSet) contiguous() uint64 {
	r, _ := s.At(0)
	return r.End
}

// add adds blocks, and returns the stored runs that change.
func (s *blockSet) add(r storage.Range) []storage.Range {
	if r.Len() == 0 {
		return nil
	}
	old := s.Last()
	grows := old.Len() > 0 && r.Start == old.End
	joined := s.Add(r)
	if grows {
		return nil
	}
	now, _ := s.At(r.Start)
	return s.changes(old, append(joined, now))
}

// drop removes blocks, and returns the stored runs that change.
func (s *blockSet) drop(r storage.Range) []storage.Range {
	if r.Len() == 0 {
		return nil
	}
	old := s.Last()
	touched := s.Remove(r)
	for _, run := range touched {
		if r.End < run.End {
			touched = append(touched, storage.Range{Start: r.End, End: run.End})
		}
	}
	return s.changes(old, touched)
}

// changes returns what is to be stored anew of the runs touched, when the tail
// was old.
func (s *blockSet) changes(old storage.Range, touched []storage.Range) (out []storage.Range) {
	tail := s.Last()
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
		now, ok := s.At(run.Start)
		if ok && now.Start == run.Start && !inHead {
			out = append(out, now)
		} else {
			out = append(out, storage.Range{Start: run.Start, End: run.Start})
		}
	}
	return out
}

// clone returns a copy that shares memory until one of the two is changed.
func (s *blockSet) clone() blockSet { return blockSet{s.Clone()} }
