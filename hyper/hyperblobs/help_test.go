package hyperblobs

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openLog opens the log that all these tests write, in a store.
func openLog(t testing.TB, store *storage.Store, session hypercore.SessionOptions) *hypercore.Log {
	t.Helper()
	kp := hypercore.NewKeyPair([32]byte{1})
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp, Session: session})
	must(t, err)
	return log
}

// newLog is an empty log in memory.
func newLog(t testing.TB, session hypercore.SessionOptions) *hypercore.Log {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	log := openLog(t, store, session)
	t.Cleanup(func() { log.Close() })
	return log
}

// newBlobs are blobs in memory with small blocks.
func newBlobs(t testing.TB, blockSize int) *Blobs {
	t.Helper()
	return New(newLog(t, hypercore.SessionOptions{}), Options{BlockSize: blockSize, Durability: hypercore.Soon})
}

// randomBytes returns n bytes that do not repeat.
func randomBytes(r *rand.Rand, n int) []byte {
	p := make([]byte, 0, n+8)
	for len(p) < n {
		p = binary.LittleEndian.AppendUint64(p, r.Uint64())
	}
	return p[:n:n]
}

// write writes a blob in parts of up to part bytes.
func write(t testing.TB, b *Blobs, o WriteOptions, data []byte, part int) ID {
	t.Helper()
	w := b.NewWriter(t.Context(), o)
	for len(data) > 0 {
		n, err := w.Write(data[:min(part, len(data))])
		must(t, err)
		data = data[n:]
	}
	must(t, w.Close())
	return w.ID()
}

// wantBlob checks that a blob is data.
func wantBlob(t testing.TB, b *Blobs, id ID, data []byte) {
	t.Helper()
	got, err := b.Get(t.Context(), id)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("get %+v: %d bytes (%v), want %d", id, len(got), err, len(data))
	}
}
