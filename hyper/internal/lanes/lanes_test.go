package lanes

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// sums hashes messages that are given as data, each behind a prefix.
func sums(how func(func() (Message, bool)), prefix []byte, messages [][]byte) [][Size]byte {
	out := make([][Size]byte, len(messages))
	i := -1
	how(func() (m Message, ok bool) {
		if i++; i >= len(messages) {
			return m, false
		}
		return Message{prefix, messages[i], &out[i]}, true
	})
	return out
}

// The hashes are those of x/crypto, for each length and each mixture of lengths.
func TestHashesAreThoseOfBLAKE2b(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	all := make([]byte, 300<<10)
	random.Read(all)
	check := func(prefix []byte, messages [][]byte) {
		t.Helper()
		got := sums(Sum, prefix, messages)
		for i, m := range messages {
			if want := blake2b.Sum256(append(bytes.Clone(prefix), m...)); got[i] != want {
				t.Fatalf("message %d of %d, %d + %d bytes: %x, want %x", i, len(messages), len(prefix), len(m), got[i], want)
			}
		}
	}
	for n := range 520 {
		for _, prefix := range []int{0, 9, MaxPrefix} {
			check(all[:prefix], [][]byte{all[n : 2*n], all[n+1 : 2*n+2]})
		}
	}
	rng := rand.New(random)
	for range 200 {
		messages := make([][]byte, rng.IntN(12))
		for i := range messages {
			from := rng.IntN(1000)
			messages[i] = all[from : from+rng.IntN([]int{1, 200, 5000, len(all) - 1000}[rng.IntN(4)])]
		}
		check(all[:rng.IntN(MaxPrefix+1)], messages)
	}
}

// Who has no vectors has the same hashes.
func TestOneByOne(t *testing.T) {
	messages := [][]byte{nil, {1}, make([]byte, 1000)}
	one := sums(func(next func() (Message, bool)) {
		for m, ok := next(); ok; m, ok = next() {
			sumOne(&m)
		}
	}, []byte("prefix"), messages)
	for i, got := range sums(Sum, []byte("prefix"), messages) {
		if got != one[i] {
			t.Errorf("message %d: %x, alone %x", i, got, one[i])
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("some bytes that are cut anywhere"), uint16(3), uint16(20), uint8(5))
	f.Add(make([]byte, 2000), uint16(128), uint16(1000), uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, one, two uint16, prefix uint8) {
		cut := func(n uint16) (head []byte) {
			k := min(int(n), len(b))
			head, b = b[:k], b[k:]
			return head
		}
		p := cut(uint16(prefix % (MaxPrefix + 1)))
		messages := [][]byte{cut(one), cut(two), cut(one), cut(two), b}
		for i, got := range sums(Sum, p, messages) {
			if want := blake2b.Sum256(append(bytes.Clone(p), messages[i]...)); got != want {
				t.Fatalf("%d bytes: %x, want %x", len(messages[i]), got, want)
			}
		}
	})
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{1, 2, 4, 16} {
		b.Run(fmt.Sprintf("%d messages", n), func(b *testing.B) {
			messages := make([][]byte, n)
			for i := range messages {
				messages[i] = make([]byte, 64<<10)
			}
			b.SetBytes(int64(n) * 64 << 10)
			for b.Loop() {
				sums(Sum, make([]byte, 9), messages)
			}
		})
	}
}
