package content

import (
	"context"
	"io"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// diskLog returns the log of device c on the disk.
func diskLog(t testing.TB, c byte) *hypercore.Log {
	t.Helper()
	e, err := storage.Disk{Dir: t.TempDir()}.Open()
	must(t, err)
	store, err := storage.Open(e, storage.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	kp := hypercore.NewKeyPair([32]byte{c})
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp, Session: hypercore.SessionOptions{EncryptionKey: &secret}})
	must(t, err)
	t.Cleanup(func() { log.Close() })
	return log
}

// diskStore returns a store that writes a log on the disk.
func diskStore(b *testing.B) *Store {
	s := New(Options{})
	must(b, s.Own(diskLog(b, 1)))
	return s
}

func benchWrite(b *testing.B, s *Store, base Ref, r io.Reader) Ref {
	h := s.Hold()
	defer h.Release()
	w := h.NewWriter(context.Background(), WriteOptions{Base: base})
	_, err := w.ReadFrom(r)
	must(b, err)
	must(b, w.Close())
	return w.Ref()
}

const benchBytes = 256 << 20

func BenchmarkWriteLarge(b *testing.B) {
	s := diskStore(b)
	data := randomBytes(1, benchBytes)
	b.SetBytes(benchBytes)
	b.ReportAllocs()
	for b.Loop() {
		data[0]++
		for i := 0; i < len(data); i += 4 << 10 {
			data[i]++ // all chunks are new
		}
		benchWrite(b, s, Ref{}, &bytesOnly{data})
	}
}

// BenchmarkWriteChanged writes a content of which the base has all but a byte.
func BenchmarkWriteChanged(b *testing.B) {
	s := diskStore(b)
	data := randomBytes(1, benchBytes)
	ref := benchWrite(b, s, Ref{}, &bytesOnly{data})
	b.SetBytes(benchBytes)
	for b.Loop() {
		data[benchBytes/2]++
		ref = benchWrite(b, s, ref, &bytesOnly{data})
	}
}

func BenchmarkReadLarge(b *testing.B) {
	s := diskStore(b)
	ref := benchWrite(b, s, Ref{}, &bytesOnly{randomBytes(1, benchBytes)})
	b.SetBytes(benchBytes)
	for b.Loop() {
		r, err := s.NewReader(context.Background(), ref)
		must(b, err)
		_, err = r.WriteTo(io.Discard)
		must(b, err)
		must(b, r.Close())
	}
}

// bytesOnly is a reader that can do no more than read.
type bytesOnly struct{ rest []byte }

func (r *bytesOnly) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
