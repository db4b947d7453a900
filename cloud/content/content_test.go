package content

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// randomBytes returns n bytes that do not repeat.
func randomBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	p := make([]byte, 0, n+8)
	for len(p) < n {
		p = binary.LittleEndian.AppendUint64(p, r.Uint64())
	}
	return p[:n:n]
}

var secret = [32]byte{42}

// newLog returns the log of device c in memory.
func newLog(t testing.TB, c byte) *hypercore.Log {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	kp := hypercore.NewKeyPair([32]byte{c})
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp, Session: hypercore.SessionOptions{EncryptionKey: &secret}})
	must(t, err)
	t.Cleanup(func() { log.Close() })
	return log
}

// newStore returns a store that writes a log in memory.
func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	s := New(o)
	must(t, s.Own(newLog(t, 1)))
	return s
}

// write writes a content in pieces.
func write(t testing.TB, s *Store, base Ref, data []byte) Ref {
	t.Helper()
	h := s.Hold()
	defer h.Release()
	w := h.NewWriter(t.Context(), WriteOptions{Base: base})
	n, err := io.Copy(struct{ io.Writer }{w}, bytes.NewReader(data))
	must(t, err)
	must(t, w.Close())
	if ref := w.Ref(); n != int64(len(data)) || ref.Size != n || ref.Hash != hashOf(data) {
		t.Fatalf("wrote %d of %d bytes: %+v", n, len(data), ref)
	}
	return w.Ref()
}

func wantContent(t testing.TB, s *Store, ref Ref, data []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), ref, 1<<40)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes (%v), want %d", len(got), err, len(data))
	}
}

func TestContentsComeBack(t *testing.T) {
	s := newStore(t, Options{ChunkSize: 256})
	for i, size := range []int{0, 1, 63, 255, 256, 257, 5000, 70_000, 1 << 20} {
		data := randomBytes(uint64(i), size)
		ref := write(t, s, Ref{}, data)
		wantContent(t, s, ref, data)
		if n, err := s.Missing(t.Context(), ref); n != 0 || err != nil {
			t.Errorf("%d bytes: %d are missing (%v)", size, n, err)
		}
		if n, err := s.Verify(t.Context(), ref); n != 0 || err != nil {
			t.Errorf("%d bytes: %d are missing (%v)", size, n, err)
		}
		if size > 100_000 {
			continue
		}
		r, err := s.NewReader(t.Context(), ref)
		must(t, err)
		must(t, iotest.TestReader(r, data))
		must(t, r.Close())
	}
	if ref := write(t, s, Ref{}, randomBytes(1, 1<<20)); ref.depth < 2 {
		t.Errorf("the largest has %d levels only", ref.depth)
	}
}

// A short writer takes so many bytes, and then no more.
type short struct {
	bytes.Buffer
	room int
}

func (s *short) Write(p []byte) (int, error) {
	n, _ := s.Buffer.Write(p[:min(len(p), s.room)])
	s.room -= n
	if n < len(p) {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

func TestWriteToGoesOnWhereItEnded(t *testing.T) {
	log := newLog(t, 1)
	s := New(Options{ChunkSize: 256})
	must(t, s.Own(log))
	data := randomBytes(3, 70_000)
	ref := write(t, s, Ref{}, data)
	for _, start := range []int64{0, 1, 33_333, 69_999, 70_000} {
		r, err := s.NewReader(t.Context(), ref)
		must(t, err)
		_, err = r.Seek(start, io.SeekStart)
		must(t, err)
		to := &short{room: 1000}
		n, err := r.WriteTo(to)
		if want := min(1000, int64(len(data))-start); n != want || (err != nil) != (start+1000 < int64(len(data))) {
			t.Fatalf("from %d: wrote %d bytes (%v), want %d", start, n, err, want)
		}
		to.room = len(data)
		n, err = r.WriteTo(to)
		must(t, err)
		if !bytes.Equal(to.Bytes(), data[start:]) {
			t.Fatalf("from %d: %d bytes and %d more, which are others", start, to.Len(), n)
		}
		must(t, r.Close())
	}
	// What comes before a chunk that nobody has is written.
	cleared := log.Length() / 2
	_, err := log.Clear(t.Context(), cleared, cleared+1)
	must(t, err)
	r, err := s.NewReader(t.Context(), ref)
	must(t, err)
	var to bytes.Buffer
	n, err := r.WriteTo(&to)
	if !errors.Is(err, ErrNotFound) || n < 10_000 || n > 60_000 || !bytes.Equal(to.Bytes(), data[:n]) {
		t.Errorf("wrote %d bytes of %d (%v)", n, len(data), err)
	}
	again, err := r.WriteTo(&to)
	if again != 0 || !errors.Is(err, ErrNotFound) {
		t.Errorf("wrote %d bytes more (%v)", again, err)
	}
}

// A part is written from anywhere to anywhere, and what follows it can be read after it.
func TestCopyNWritesAPart(t *testing.T) {
	s := newStore(t, Options{ChunkSize: 1 << 10})
	data := randomBytes(3, 100_000)
	ref := write(t, s, Ref{}, data)
	r, err := s.NewReader(t.Context(), ref)
	must(t, err)
	defer r.Close()
	rng := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		from := rng.IntN(len(data))
		n := rng.IntN(len(data) - from)
		if _, err := r.Seek(int64(from), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		var part bytes.Buffer
		if got, err := r.CopyN(&part, int64(n)); err != nil || got != int64(n) || !bytes.Equal(part.Bytes(), data[from:from+n]) {
			t.Fatalf("%d bytes from %d: %d, %v", n, from, got, err)
		}
		next := make([]byte, min(10, len(data)-from-n))
		if _, err := io.ReadFull(r, next); err != nil || !bytes.Equal(next, data[from+n:from+n+len(next)]) {
			t.Fatalf("what follows %d bytes from %d: %v", n, from, err)
		}
	}
	if _, err := r.Seek(-5, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if n, err := r.CopyN(io.Discard, 6); n != 5 || err != io.EOF {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
}
