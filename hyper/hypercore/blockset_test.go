package hypercore

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
)

// TestBlockSetEqualsBitmap makes random changes to a set and to a bitmap, and
// keeps the stored runs by the changes alone.
func TestBlockSetEqualsBitmap(t *testing.T) {
	const size = 80
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s blockSet
		var bits [size]bool
		stored := map[uint64]uint64{}
		for step := range 60 {
			a, b := rng.Uint64N(size+1), rng.Uint64N(size+1)
			if a > b {
				a, b = b, a
			}
			if rng.IntN(3) == 0 {
				b = min(a+1, size)
			}
			r := storage.Range{Start: a, End: b}
			add := rng.IntN(2) == 0
			var changes []storage.Range
			if add {
				changes = s.add(r)
			} else {
				changes = s.drop(r)
			}
			for i := a; i < b; i++ {
				bits[i] = add
			}
			for _, c := range changes {
				if c.Len() == 0 {
					delete(stored, c.Start)
				} else {
					stored[c.Start] = c.End
				}
			}
			// What is stored, with the tail, is the set.
			var runs []storage.Range
			for start, end := range stored {
				runs = append(runs, storage.Range{Start: start, End: end})
			}
			slices.SortFunc(runs, func(x, y storage.Range) int { return int(x.Start) - int(y.Start) })
			again := newBlockSet(runs, s.Last())
			contiguous := uint64(slices.Index(bits[:], false))
			if contiguous > size {
				contiguous = size
			}
			if s.contiguous() != contiguous {
				t.Fatalf("seed %d step %d: contiguous %d, want %d", seed, step, s.contiguous(), contiguous)
			}
			for i := range uint64(size) {
				if s.Has(i) != bits[i] || again.Has(i) != bits[i] {
					t.Fatalf("seed %d step %d: block %d: has %v, stored %v, want %v (%v of %v, changes %v)", seed, step, i, s.Has(i), again.Has(i), bits[i], add, r, changes)
				}
				next, ok := s.Next(i)
				want := slices.Index(bits[i:], true)
				if ok != (want >= 0) || ok && next.Start != i+uint64(want) {
					t.Fatalf("seed %d: next(%d) = %v, %v", seed, i, next, ok)
				}
			}
			if n := len(runs); n > 0 && runs[n-1].End > s.Last().Start {
				t.Fatalf("seed %d step %d: the tail %v is stored too: %v", seed, step, s.Last(), runs)
			}
		}
	}
}

func TestBlockSetAppendStoresNoRun(t *testing.T) {
	var s blockSet
	for i := range uint64(10) {
		if c := s.add(storage.Range{Start: i, End: i + 1}); i > 0 && len(c) != 0 {
			t.Errorf("append %d changes %v", i, c)
		}
	}
}
