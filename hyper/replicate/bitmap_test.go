package replicate

import (
	"math/rand/v2"
	"testing"

	"github.com/cloudbevy/bevy/hyper/runs"
)

func TestBitmapIsASet(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		const size = 6 * pageBits
		var b bitmap
		set := make([]bool, size)
		place := func() uint64 {
			switch rng.IntN(3) {
			case 0:
				return rng.Uint64N(200)
			case 1:
				return rng.Uint64N(size/pageBits)*pageBits + rng.Uint64N(3)
			}
			return rng.Uint64N(size)
		}
		for range 300 {
			switch start := place(); rng.IntN(4) {
			case 0:
				words := make([]uint32, rng.IntN(10))
				start -= start % 32
				if start+32*uint64(len(words)) > size {
					continue
				}
				for i := range words {
					if words[i] = rng.Uint32(); rng.IntN(3) == 0 {
						words[i] = 0
					}
					for k := range uint64(32) {
						set[start+32*uint64(i)+k] = words[i]>>k&1 != 0
					}
				}
				b.setWords(start, words)
			default:
				r := runs.Range{Start: start, End: min(start+rng.Uint64N(1<<rng.IntN(18)), size)}
				in := rng.IntN(2) == 0
				b.set(r, in)
				for i := r.Start; i < r.End; i++ {
					set[i] = in
				}
			}
			for range 5 {
				i := place()
				in := rng.IntN(2) == 0
				want := uint64(noBlock)
				for k := i; k < size; k++ {
					if set[k] == in {
						want = k
						break
					}
				}
				if want == noBlock && !in {
					want = size
				}
				if got := b.next(i, in); got != want || b.has(i) != set[i] {
					t.Fatalf("seed %d: next(%d, %v) is %d, want %d; has it: %v", seed, i, in, got, want, b.has(i))
				}
			}
			if b.prefix > 0 && !set[b.prefix-1] || len(b.pages) > size/pageBits {
				t.Fatalf("seed %d: prefix %d and %d pages", seed, b.prefix, len(b.pages))
			}
		}
		for i, in := range set {
			if b.has(uint64(i)) != in {
				t.Fatalf("seed %d: has %d: %v", seed, i, !in)
			}
		}
	})
}

// What a peer says that it has takes bounded memory, however it says it.
func TestBitmapIsBounded(t *testing.T) {
	var b bitmap
	b.set(runs.Range{Start: 0, End: 1 << 52}, true)
	b.set(runs.Range{Start: 0, End: 1}, false)
	if b.has(0) || !b.has(1) || len(b.pages) > maxPages {
		t.Errorf("%d pages", len(b.pages))
	}
	for i := range uint64(3 * maxPages) {
		b.set(runs.Range{Start: i * pageBits * 7, End: i*pageBits*7 + 1}, true)
		b.setWords(i*pageBits*5+64, []uint32{1, 2, 3})
	}
	if len(b.pages) > maxPages {
		t.Errorf("%d pages", len(b.pages))
	}
	// As the log fills from the front, nothing is left of it but a number.
	b = bitmap{}
	for i := uint64(0); i < 20*pageBits; i += 1000 {
		b.set(runs.Range{Start: i + 500, End: i + 1000}, true)
	}
	for i := uint64(0); i < 20*pageBits; i += 1000 {
		b.set(runs.Range{Start: i, End: i + 500}, true)
	}
	if b.prefix < 20*pageBits || len(b.pages) > 1 {
		t.Errorf("prefix %d and %d pages", b.prefix, len(b.pages))
	}
}
