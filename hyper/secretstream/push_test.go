package secretstream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// bin is binary data, which the vectors have in hex.
type bin []byte

func (b *bin) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	raw, err := hex.DecodeString(s)
	*b = raw
	return err
}

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// sealedVectors is testdata/secretstream.json, written by libsodium.
type sealedVectors struct {
	Key, Header           bin
	Sizes, Rollover, Tags struct {
		Counter  uint32
		Messages []struct {
			Size   int
			Tag    Tag
			Cipher bin
		}
	}
}

// content is the message of a size in testdata/secretstream.json.
func content(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(3*i + size)
	}
	return p
}

// pair is both ends of a stream with this key and header.
func pair(t testing.TB, key, header []byte) (*Push, *Pull) {
	t.Helper()
	push, h, err := NewPush([KeySize]byte(key), bytes.NewReader(header))
	if err != nil || !bytes.Equal(h[:], header) {
		t.Fatalf("header %x, %v, want %x", h, err, header)
	}
	return push, NewPull([KeySize]byte(key), h)
}

func TestSealsAndOpensAsLibsodiumDoes(t *testing.T) {
	var v sealedVectors
	readJSON(t, "testdata/secretstream.json", &v)
	for name, part := range map[string]struct {
		Counter  uint32
		Messages []struct {
			Size   int
			Tag    Tag
			Cipher bin
		}
	}{"sizes": v.Sizes, "rollover": v.Rollover, "tags": v.Tags} {
		// Prefixes of all lengths: with and without room before the message.
		for _, prefix := range []int{0, 1, headroom - 1, headroom, 100} {
			push, pull := pair(t, v.Key, v.Header)
			binary.LittleEndian.PutUint32(push.nonce[:], part.Counter)
			binary.LittleEndian.PutUint32(pull.nonce[:], part.Counter)
			before := bytes.Repeat([]byte{0xaa}, prefix)
			for i, m := range part.Messages {
				plain := content(m.Size)
				got := push.Seal(bytes.Clone(before), plain, m.Tag)
				if !bytes.Equal(got, append(bytes.Clone(before), m.Cipher...)) {
					t.Fatalf("%s: seal message %d of %d bytes: got %x, want %x after %d bytes", name, i, m.Size, got, m.Cipher, prefix)
				}
				if !bytes.Equal(plain, content(m.Size)) {
					t.Fatalf("%s: seal changed its input", name)
				}
				kept := bytes.Clone(m.Cipher)
				opened, tag, err := pull.Open(bytes.Clone(before), m.Cipher)
				if err != nil || tag != m.Tag || !bytes.Equal(opened, append(bytes.Clone(before), plain...)) {
					t.Fatalf("%s: open message %d of %d bytes: got %x, tag %d, %v", name, i, m.Size, opened, tag, err)
				}
				if !bytes.Equal(kept, m.Cipher) {
					t.Fatalf("%s: open changed its input", name)
				}
			}
		}
	}
}

func TestSealsAsSecretStreamDoes(t *testing.T) {
	var v struct {
		SecretStream struct {
			Key, Header bin
			Chunks      []struct{ Plain, Cipher bin }
		}
	}
	readJSON(t, "testdata/noise.json", &v)
	push, pull := pair(t, v.SecretStream.Key, v.SecretStream.Header)
	for i, c := range v.SecretStream.Chunks {
		if got := push.Seal(nil, c.Plain, TagMessage); !bytes.Equal(got, c.Cipher) {
			t.Errorf("seal chunk %d: got %x, want %x", i, got, c.Cipher)
		}
		if got, tag, err := pull.Open(nil, c.Cipher); err != nil || tag != TagMessage || !bytes.Equal(got, c.Plain) {
			t.Errorf("open chunk %d: got %x, %d, %v, want %x", i, got, tag, err, c.Plain)
		}
	}
	if len(v.SecretStream.Chunks) == 0 {
		t.Error("no chunks")
	}
}

// A counter of 32 bits must not make a nonce come twice.
func TestTheKeyChangesWhenTheCounterRollsOver(t *testing.T) {
	push, pull := pair(t, make([]byte, 32), make([]byte, 24))
	push.nonce = [12]byte{0xff, 0xff, 0xff, 0xff}
	pull.nonce = push.nonce
	key := push.key
	for i := range 3 {
		sealed := push.Seal(nil, []byte("x"), TagMessage)
		if _, _, err := pull.Open(nil, sealed); err != nil {
			t.Fatal(err)
		}
		if push.key == key || push.key != pull.key || push.nonce != pull.nonce {
			t.Fatalf("message %d: the keys are not new and the same", i)
		}
	}
	if got, want := binary.LittleEndian.Uint32(push.nonce[:]), uint32(3); got != want {
		t.Errorf("counter %d after the rollover and two messages, want %d", got, want)
	}
}

func TestAChangedMessageIsRefusedAndTheRealOneStillTaken(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 15, 16, 17, 100, 300} {
		push, pull := pair(t, make([]byte, 32), make([]byte, 24))
		first := push.Seal(nil, content(size), TagMessage)
		second := push.Seal(nil, content(size), TagMessage)
		refuse := func(what string, sealed []byte) {
			t.Helper()
			got, _, err := pull.Open([]byte("kept"), sealed)
			if !errors.Is(err, ErrAuth) || string(got) != "kept" {
				t.Fatalf("size %d, %s: got %x, %v", size, what, got, err)
			}
		}
		for at := range first {
			for bit := range 8 {
				bad := bytes.Clone(first)
				bad[at] ^= 1 << bit
				refuse(fmt.Sprintf("byte %d changed", at), bad)
			}
			refuse("cut", first[:at])
		}
		refuse("a byte more", append(bytes.Clone(first), 0))
		refuse("the second before the first", second)
		if got, _, err := pull.Open(nil, first); err != nil || !bytes.Equal(got, content(size)) {
			t.Fatalf("size %d: the real message after all that: %x, %v", size, got, err)
		}
		refuse("the first again", first)
		if _, _, err := pull.Open(nil, second); err != nil {
			t.Fatalf("size %d: the second message: %v", size, err)
		}
	}
}

// needQuietAEAD skips a test where the AEAD of x/crypto has no assembly: there
// it allocates for every message.
func needQuietAEAD(t *testing.T) {
	t.Helper()
	push, _ := pair(t, make([]byte, 32), make([]byte, 24))
	buf := make([]byte, 100, 200)
	if testing.AllocsPerRun(10, func() { push.aead.Seal(buf[:0], push.nonce[:], buf, nil) }) > 0 {
		t.Skip("the AEAD allocates on this machine")
	}
}

func TestSealingAndOpeningDoNotAllocate(t *testing.T) {
	needQuietAEAD(t)
	for _, size := range []int{0, 100, 1000, 65536, 65537} {
		push, pull := pair(t, make([]byte, 32), make([]byte, 24))
		plain := content(size)
		sealed := make([]byte, 0, size+128)
		opened := make([]byte, 0, size+Overhead+128)
		allocs := testing.AllocsPerRun(20, func() {
			out := push.Seal(sealed, plain, TagMessage)
			if _, _, err := pull.Open(opened, out); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%v allocations for a message of %d bytes", allocs, size)
		}
	}
}

func TestNewPushNeedsRandomness(t *testing.T) {
	if _, _, err := NewPush([KeySize]byte{}, strings.NewReader("too few")); err == nil {
		t.Error("a stream began with a header of seven random bytes")
	}
}

// FuzzOpen hands any bytes to a Pull as its next message. It must take only
// what the Push sealed next.
func FuzzOpen(f *testing.F) {
	var v sealedVectors
	readJSON(f, "testdata/secretstream.json", &v)
	for _, m := range v.Sizes.Messages {
		if m.Size < 40 {
			f.Add(uint8(m.Size), []byte(m.Cipher))
		}
	}
	f.Fuzz(func(t *testing.T, skip uint8, in []byte) {
		_, pull := pair(t, v.Key, v.Header)
		n := int(skip) % 40
		for _, m := range v.Sizes.Messages[:n] {
			if _, _, err := pull.Open(nil, m.Cipher); err != nil {
				t.Fatal(err)
			}
		}
		before := pull.state
		kept := bytes.Clone(in)
		got, _, err := pull.Open(nil, in)
		if !bytes.Equal(in, kept) {
			t.Error("open changed its input")
		}
		if (err == nil) != bytes.Equal(in, v.Sizes.Messages[n].Cipher) {
			t.Errorf("message %d: %x was opened as %x, %v", n, in, got, err)
		}
		if err != nil && pull.state != before {
			t.Error("a refused message changed the state")
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{100, 65536, 65537} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			push, _ := pair(b, make([]byte, 32), make([]byte, 24))
			plain := content(size)
			buf := make([]byte, headroom, size+256)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				push.Seal(buf, plain, TagMessage)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{100, 65536, 65537} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			push, pull := pair(b, make([]byte, 32), make([]byte, 24))
			sealed := push.Seal(nil, content(size), TagMessage)
			buf := make([]byte, 0, size+256)
			before := pull.state
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := pull.Open(buf, sealed); err != nil {
					b.Fatal(err)
				}
				pull.state = before
			}
		})
	}
}
