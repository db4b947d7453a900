package salsa

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/salsa20"
)

// The bytes are those of x/crypto, for each length, in place and not.
func TestKeyStreamIsThatOfXSalsa20(t *testing.T) {
	everyWay(t, func(t *testing.T) {
		random := rand.NewChaCha8([32]byte{1})
		data := make([]byte, 1<<20)
		random.Read(data)
		lengths := []int{64 << 10, 64<<10 + 1, 384 * 64, 384*64 + 383, 1024 * 64, 1024*64 + 1023, 1024*64 + 1024, len(data)}
		for n := range 2500 {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			var key [32]byte
			var nonce [24]byte
			random.Read(key[:])
			random.Read(nonce[:])
			want := make([]byte, n)
			salsa20.XORKeyStream(want, data[:n], nonce[:], &key)
			got := make([]byte, n+10)
			XORKeyStream(got, data[:n], &nonce, &key)
			if !bytes.Equal(got[:n], want) || !bytes.Equal(got[n:], make([]byte, 10)) {
				t.Fatalf("%d bytes are not the same, or more than these were written", n)
			}
			copy(got, data[:n])
			XORKeyStream(got[:n], got[:n], &nonce, &key)
			if !bytes.Equal(got[:n], want) {
				t.Fatalf("%d bytes in place are not the same", n)
			}
		}
	})
}

func FuzzXORKeyStream(f *testing.F) {
	f.Add([]byte("key"), []byte("nonce"), make([]byte, 1500))
	f.Fuzz(func(t *testing.T, k, n, data []byte) {
		var key [32]byte
		var nonce [24]byte
		copy(key[:], k)
		copy(nonce[:], n)
		want, got := make([]byte, len(data)), make([]byte, len(data))
		salsa20.XORKeyStream(want, data, nonce[:], &key)
		XORKeyStream(got, data, &nonce, &key)
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes are not the same", len(data))
		}
	})
}

func BenchmarkXORKeyStream(b *testing.B) {
	for _, n := range []int{256, 1024, 4 << 10, 64 << 10} {
		everyWay(b, func(b *testing.B) {
			b.Run(fmt.Sprint(n), func(b *testing.B) {
				data, key, nonce := make([]byte, n), new([32]byte), new([24]byte)
				b.SetBytes(int64(n))
				for b.Loop() {
					XORKeyStream(data, data, nonce, key)
				}
			})
		})
	}
}
