package hyperblobs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func TestSmallAndLargeBlobsAreWhatWasPut(t *testing.T) {
	b := New(newLog(t, hypercore.SessionOptions{}), Options{})
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, DefaultBlockSize, DefaultBlockSize + 1, heldBytes, 2*groupBytes + 5} {
		data := randomBytes(r, n)
		id, err := b.Put(t.Context(), data)
		must(t, err)
		wantBlob(t, b, id, data)
		for _, o := range []WriteOptions{{}, {BlockMap: true}, {Dedup: true}, {Dedup: true, Base: &id}, {Chunks: true}} {
			id := write(t, b, o, data, 100_000)
			wantBlob(t, b, id, data)
			size, err := b.Size(t.Context(), id)
			if err != nil || size != uint64(n) {
				t.Errorf("size of %+v: %d, %v, want %d", id, size, err, n)
			}
		}
	}
}

// A random program must see what it would see if blobs were byte slices.
func TestBlobsAreLikeBytes(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, 1)), seed%2 == 1) })
	}
}

func runModel(t *testing.T, r *rand.Rand, encrypted bool) {
	const blockSize = 256
	ctx := t.Context()
	var session hypercore.SessionOptions
	if encrypted {
		session.EncryptionKey = &[32]byte{7}
	}
	engine := storage.NewMemory()
	var store *storage.Store
	var log *hypercore.Log
	var b *Blobs
	open := func() {
		var err error
		store, err = storage.Open(engine, storage.Options{})
		must(t, err)
		log = openLog(t, store, session)
		b = New(log, Options{BlockSize: blockSize, Durability: hypercore.Soon})
	}
	open()
	type blob struct {
		ID
		data    []byte
		cleared bool
	}
	var all []*blob
	some := func() *blob { return all[r.IntN(len(all))] }
	data := func() []byte {
		p := randomBytes(r, r.IntN([]int{2, blockSize, 20 * blockSize, 60 * blockSize}[r.IntN(4)]))
		if len(all) > 0 && r.IntN(2) == 0 { // a newer version of another
			old := some().data
			at := r.IntN(len(old) + 1)
			p = append(append(bytes.Clone(old[:at]), p[:min(len(p), 100)]...), old[at:]...)
		}
		return p
	}
	for range 200 {
		switch op := r.IntN(10); {
		case op == 0 || len(all) == 0:
			var parts [][]byte
			for range 1 + r.IntN(4) {
				parts = append(parts, data())
			}
			ids, err := b.PutAll(ctx, parts...)
			must(t, err)
			for i, id := range ids {
				all = append(all, &blob{ID: id, data: parts[i]})
			}
		case op == 1:
			p := data()
			o := WriteOptions{Dedup: r.IntN(2) == 0, BlockMap: r.IntN(2) == 0, Chunks: r.IntN(3) == 0}
			if r.IntN(2) == 0 {
				o.Base = &some().ID
			}
			before := log.Length()
			id := write(t, b, o, p, 1+r.IntN(3*blockSize))
			if (o.Dedup || o.BlockMap) != id.BlockMap && len(p) > 0 {
				t.Fatalf("written with %+v, the id is %+v", o, id)
			}
			// Others that are cleared must not take its blocks along.
			if id.BlockMap {
				chunks, err := b.Map(ctx, id)
				must(t, err)
				shared := false
				for _, c := range chunks {
					shared = shared || c.Index < before
				}
				if shared {
					wantBlob(t, b, id, p)
					continue
				}
			}
			all = append(all, &blob{ID: id, data: p})
		case op == 2:
			x := some()
			w := b.NewWriter(ctx, WriteOptions{Dedup: r.IntN(2) == 0, Base: &x.ID})
			p := data()
			n, err := w.ReadFrom(iotest.HalfReader(bytes.NewReader(p)))
			if err != nil || n != int64(len(p)) {
				t.Fatalf("read from: %d, %v", n, err)
			}
			w.Abort()
			w.Abort()
			if err := w.Close(); err == nil {
				t.Fatal("closed after it was aborted")
			}
		case op == 3 && r.IntN(4) == 0:
			x := some()
			n, err := b.Clear(ctx, x.ID)
			must(t, err)
			if (n > 0) != (!x.cleared && len(x.data) > 0) {
				t.Fatalf("clear %+v of %d bytes: %d blocks, cleared before: %v", x.ID, len(x.data), n, x.cleared)
			}
			x.cleared = true
		case op == 4 && r.IntN(8) == 0:
			must(t, log.Close())
			open()
		default:
			x := some()
			has, err := b.Has(ctx, x.ID)
			must(t, err)
			if want := !x.cleared || len(x.data) == 0; has != want {
				t.Fatalf("has %+v: %v, want %v", x.ID, has, want)
			}
			if !has {
				if _, err := b.Get(ctx, x.ID); err == nil {
					t.Fatal("got a cleared blob")
				}
				continue
			}
			wantBlob(t, b, x.ID, x.data)
			readModel(t, r, b, x.ID, x.data)
		}
	}
	must(t, log.Close())
	must(t, store.Close())
}

// readModel reads a blob that holds data in all ways.
func readModel(t *testing.T, r *rand.Rand, b *Blobs, id ID, data []byte) {
	t.Helper()
	off := r.IntN(len(data) + 2)
	n := r.IntN(len(data)+2) - 1
	want := data[min(off, len(data)):]
	if n >= 0 {
		want = want[:min(n, len(want))]
	}
	rd, err := b.NewRangeReader(t.Context(), id, int64(off), int64(n))
	must(t, err)
	defer rd.Close()
	if rd.Size() != int64(len(want)) {
		t.Fatalf("range %d+%d of %d bytes: size %d, want %d", off, n, len(data), rd.Size(), len(want))
	}
	if err := iotest.TestReader(struct {
		io.ReadSeeker
		io.ReaderAt
	}{rd, rd}, want); err != nil {
		t.Fatalf("range %d+%d of %+v: %v", off, n, id, err)
	}
	at := r.IntN(len(want) + 1)
	_, err = rd.Seek(int64(at), io.SeekStart)
	must(t, err)
	var buf bytes.Buffer
	if _, err := rd.WriteTo(&buf); err != nil || !bytes.Equal(buf.Bytes(), want[at:]) {
		t.Fatalf("write range %d+%d of %+v from %d: %d bytes, %v, want %d", off, n, id, at, buf.Len(), err, len(want)-at)
	}
}
