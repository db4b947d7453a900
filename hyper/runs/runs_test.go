package runs

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSetEqualsBitmap makes random changes to a set and to a bitmap.
func TestSetEqualsBitmap(t *testing.T) {
	const size = 80
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s Set
		var bits [size]bool
		for step := range 60 {
			a, b := rng.Uint64N(size+1), rng.Uint64N(size+1)
			r := Range{min(a, b), max(a, b)}
			add := rng.IntN(2) == 0
			before := s.Clone()
			var touched []Range
			if add {
				touched = s.Add(r)
			} else {
				touched = s.Remove(r)
			}
			for i := r.Start; i < r.End; i++ {
				bits[i] = add
			}
			for _, run := range touched {
				if was, ok := before.At(run.Start); !ok || was != run {
					t.Fatalf("seed %d step %d: %v is said to have been a run, it was %v", seed, step, run, was)
				}
			}
			var all []Range
			for run := range s.All() {
				if n := len(all); run.Len() == 0 || n > 0 && all[n-1].End >= run.Start {
					t.Fatalf("seed %d step %d: run %v after %v", seed, step, run, all)
				}
				all = append(all, run)
			}
			if s.Runs() != len(all) || len(all) > 0 && s.Last() != all[len(all)-1] {
				t.Fatalf("seed %d step %d: %d runs, last %v: %v", seed, step, s.Runs(), s.Last(), all)
			}
			for i := range uint64(size) {
				if s.Has(i) != bits[i] {
					t.Fatalf("seed %d step %d: %d is in the set: %v", seed, step, i, s.Has(i))
				}
				next, ok := s.Next(i)
				want := slices.Index(bits[i:], true)
				if ok != (want >= 0) || ok && next.Start != i+uint64(want) {
					t.Fatalf("seed %d: next(%d) = %v, %v", seed, i, next, ok)
				}
			}
		}
	}
}
