package lanes

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/salsa20"
)

// sets are the ways to hash that this processor has.
func sets() map[string]func([]Sum, []Message) {
	out := map[string]func([]Sum, []Message){"1": sum1, "as chosen": Sum256}
	if has4 {
		out["4"] = sum4
	}
	if has8 {
		out["8"] = sum8
	}
	return out
}

func check(t *testing.T, messages []Message) {
	t.Helper()
	for name, hash := range sets() {
		sums := make([]Sum, len(messages))
		hash(sums, messages)
		for i, m := range messages {
			if want := blake2b.Sum256(append(bytes.Clone(m.Head), m.Body...)); sums[i] != want {
				t.Fatalf("in lanes %s, message %d of %d, of %d and %d bytes: got %x, want %x", name, i, len(messages), len(m.Head), len(m.Body), sums[i], want)
			}
		}
	}
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:i+8:cap(b)], r.Uint64())
	}
	return b
}

func TestSumsAreThoseOfBLAKE2b(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	check(t, nil)
	for _, head := range []int{0, 1, 9, MaxHead} {
		var all []Message
		for body := range 300 { // all around the ends of blocks
			all = append(all, Message{Head: random(r, head), Body: random(r, body)})
		}
		check(t, all)
		check(t, all[:1])
		check(t, all[126:129])
	}
	for range 50 {
		messages := make([]Message, r.IntN(30))
		for i := range messages {
			messages[i] = Message{Head: random(r, 9), Body: random(r, r.IntN(1<<r.IntN(18)))}
		}
		check(t, messages)
	}
}

func FuzzSums(f *testing.F) {
	f.Add([]byte("head"), []byte("body"), uint16(3))
	f.Fuzz(func(t *testing.T, head, body []byte, cut uint16) {
		head = head[:min(len(head), MaxHead)]
		at := min(int(cut), len(body))
		check(t, []Message{{head, body}, {nil, body[:at]}, {head, body[at:]}, {body[:min(at, MaxHead)], nil}})
	})
}

func TestXSalsa20IsThatOfSalsa20(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 63, 64, 1023, 1024, 1025, 2048, 5000, 65_536, 300_001} {
		nonce, key, src := [24]byte(random(r, 24)), [32]byte(random(r, 32)), random(r, n)
		got, want := make([]byte, n), make([]byte, n)
		salsa20.XORKeyStream(want, src, nonce[:], &key)
		XSalsa20(got, src, &nonce, &key)
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes are encrypted to others", n)
		}
		XSalsa20(got, got, &nonce, &key)
		if !bytes.Equal(got, src) {
			t.Fatalf("%d bytes are decrypted to others", n)
		}
	}
}

// The number of the block has two words: each block is the same as the first from its number on.
func TestSalsaCountsBeyondOneWord(t *testing.T) {
	if !has16 {
		t.Skip("needs AVX-512")
	}
	stream := func(number uint64, n int) []byte {
		place := [16]byte{1, 2, 3}
		binary.LittleEndian.PutUint64(place[8:], number)
		state := salsaState(&place, &[32]byte{4})
		out := make([]byte, n*wide)
		salsa16(&out[0], &out[0], &state, n)
		return out
	}
	for _, first := range []uint64{0, 1<<32 - 40, 1<<32 - 16, 1<<32 - 9, 1<<32 - 1, 1 << 32, 1<<40 - 3} {
		all := stream(first, 4)
		for i := range len(all) / 64 {
			if want := stream(first+uint64(i), 1)[:64]; !bytes.Equal(all[64*i:][:64], want) {
				t.Fatalf("block %d from number %d on is another", i, first)
			}
		}
	}
}

func FuzzXSalsa20(f *testing.F) {
	f.Add([]byte("nonce"), []byte("key"), make([]byte, 3000))
	f.Fuzz(func(t *testing.T, n, k, src []byte) {
		var nonce [24]byte
		var key [32]byte
		copy(nonce[:], n)
		copy(key[:], k)
		got, want := make([]byte, len(src)), make([]byte, len(src))
		salsa20.XORKeyStream(want, src, nonce[:], &key)
		XSalsa20(got, src, &nonce, &key)
		if !bytes.Equal(got, want) {
			t.Fatal("it encrypts to other bytes")
		}
	})
}

func BenchmarkSum256(b *testing.B) {
	messages := make([]Message, 64)
	for i := range messages {
		messages[i] = Message{Head: make([]byte, 9), Body: make([]byte, 32<<10+i<<10)}
	}
	sums := make([]Sum, len(messages))
	for name, hash := range sets() {
		b.Run(name, func(b *testing.B) {
			n := 0
			for _, m := range messages {
				n += len(m.Body)
			}
			b.SetBytes(int64(n))
			for b.Loop() {
				hash(sums, messages)
			}
		})
	}
}

func BenchmarkXSalsa20(b *testing.B) {
	p := make([]byte, 64<<10)
	var nonce [24]byte
	var key [32]byte
	b.Run("x/crypto", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			salsa20.XORKeyStream(p, p, nonce[:], &key)
		}
	})
	b.Run("as chosen", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			XSalsa20(p, p, &nonce, &key)
		}
	})
}

func ExampleSum256() {
	var sums [2]Sum
	Sum256(sums[:], []Message{{Body: []byte("a")}, {Body: []byte("b")}})
}
