package backup

import "slices"

// A rangeSet is a set of blocks as ranges in order that do not touch.
type rangeSet struct{ ranges []Blocks }

// add adds a range.
func (s *rangeSet) add(b Blocks) {
	if b[0] >= b[1] {
		return
	}
	i, _ := slices.BinarySearchFunc(s.ranges, b[0], func(r Blocks, at uint64) int {
		if r[1] < at {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(s.ranges) && s.ranges[j][0] <= b[1]; j++ {
		b[0], b[1] = min(b[0], s.ranges[j][0]), max(b[1], s.ranges[j][1])
	}
	s.ranges = slices.Replace(s.ranges, i, j, b)
}

func (s *rangeSet) addAll(list []Blocks) {
	for _, b := range list {
		s.add(b)
	}
}

// without returns what of a range is not in the set.
func (s *rangeSet) without(b Blocks) (rest []Blocks) {
	for _, r := range s.ranges {
		if r[1] <= b[0] {
			continue
		}
		if r[0] >= b[1] {
			break
		}
		if r[0] > b[0] {
			rest = append(rest, Blocks{b[0], r[0]})
		}
		b[0] = r[1]
	}
	if b[0] < b[1] {
		rest = append(rest, b)
	}
	return rest
}
