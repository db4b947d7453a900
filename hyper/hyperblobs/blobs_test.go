package hyperblobs

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// newLog returns a log in memory.
func newLog(t testing.TB, session hypercore.SessionOptions) *hypercore.Log {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	kp := hypercore.NewKeyPair([32]byte{1})
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// randomBytes returns n bytes that do not compress.
func randomBytes(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestBlobsAreWhatWasPut(t *testing.T) {
	ctx := t.Context()
	blobs := New(newLog(t, hypercore.SessionOptions{}), Options{})
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, DefaultBlockSize, DefaultBlockSize + 1, 3<<20 + 5, 9 << 20} {
		data := randomBytes(r, n)
		id, err := blobs.Put(ctx, data)
		if err != nil {
			t.Fatal(err)
		}
		w := blobs.NewWriter(ctx, WriteOptions{BlockMap: true})
		if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, id := range []ID{id, w.ID()} {
			got, err := blobs.Get(ctx, id)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("get %+v of %d bytes: %d, %v", id, n, len(got), err)
			}
			if size, err := blobs.Size(ctx, id); err != nil || size != uint64(n) {
				t.Errorf("size %d, %v, want %d", size, err, n)
			}
			if n == 0 {
				continue
			}
			part, err := blobs.NewRangeReader(ctx, id, int64(n/3), int64(n/2))
			if err != nil {
				t.Fatal(err)
			}
			got, err = io.ReadAll(part)
			if err != nil || !bytes.Equal(got, data[n/3:n/3+n/2]) {
				t.Errorf("range of %+v: %d, %v", id, len(got), err)
			}
			if n, err := blobs.Clear(ctx, id); err != nil || n == 0 {
				t.Errorf("clear: %d, %v", n, err)
			}
			if has, err := blobs.Has(ctx, id); has || err != nil {
				t.Errorf("has %v, %v after clear", has, err)
			}
		}
	}
}
