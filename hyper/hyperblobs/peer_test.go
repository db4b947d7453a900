package hyperblobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A pair is a writer's blobs, and a log elsewhere that has their length only.
type pair struct {
	*Blobs
	far *hypercore.Log
}

func newPair(t *testing.T, blockSize int, encryptionKey *[32]byte) *pair {
	t.Helper()
	open := func(o corestore.LogOptions) (*corestore.Store, *hypercore.Log) {
		store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, store.Close()) })
		o.Durability, o.Session.EncryptionKey = hypercore.Soon, encryptionKey
		log, err := store.Get(o)
		must(t, err)
		t.Cleanup(func() { must(t, log.Close()) })
		return store, log
	}
	near, log := open(corestore.LogOptions{Name: "blobs"})
	key := log.Key()
	farStore, far := open(corestore.LogOptions{Key: &key})
	x, y := transport.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{1}), KeepAlive: -1}
		if stream, err := secretstream.Server(ctx, x, o); err == nil {
			_ = near.Replicate(ctx, stream, corestore.ReplicateOptions{}) // it ends with the test
		}
	})
	found := farStore.FindingPeers()
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{2}), KeepAlive: -1}
		if stream, err := secretstream.Client(ctx, y, o); err == nil {
			_ = farStore.Replicate(ctx, stream, corestore.ReplicateOptions{Attached: func(*protomux.Mux) { found() }})
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return &pair{New(log, Options{BlockSize: blockSize, Durability: hypercore.Soon}), far}
}

// theirs are the blobs as seen from elsewhere, with nothing held yet.
func (p *pair) theirs(t *testing.T) *Blobs {
	t.Helper()
	synctest.Wait() // until it heard of the writer's length
	_, err := p.far.Clear(t.Context(), 0, p.far.Length())
	must(t, err)
	return New(p.far, Options{BlockSize: p.blockSize})
}

func held(log *hypercore.Log) (n int) {
	for i := range log.Length() {
		if log.Has(i) {
			n++
		}
	}
	return n
}

func TestRangesFetchTheirBlocksOnly(t *testing.T) {
	for _, key := range []*[32]byte{nil, {5}} {
		synctest.Test(t, func(t *testing.T) {
			const size = 100
			p := newPair(t, size, key)
			r := rand.New(rand.NewPCG(1, 2))
			data := randomBytes(r, 300*size+7)
			_, err := p.Put(t.Context(), randomBytes(r, 50*size+1))
			must(t, err)
			plain, err := p.Put(t.Context(), data)
			must(t, err)
			mapped := write(t, p.Blobs, WriteOptions{BlockMap: true}, data, len(data))
			chunks, err := p.Map(t.Context(), mapped)
			must(t, err)
			if len(chunks) != 301 {
				t.Fatalf("%d chunks", len(chunks))
			}
			for _, id := range []ID{plain, mapped} {
				maps := 0
				if id.BlockMap {
					maps = int(id.BlockLength)
				}
				for _, c := range []struct{ off, n, blocks int }{
					{0, 1, 1}, {0, size, 1}, {size - 1, 2, 2}, {10 * size, 5 * size, 5}, {10*size + 1, 5 * size, 6},
					{299 * size, 107, 2}, {300*size + 6, 1, 1}, {5 * size, 0, 0}, {7777, 0, 0},
				} {
					b := p.theirs(t)
					rd, err := b.NewRangeReader(t.Context(), id, int64(c.off), int64(c.n))
					must(t, err)
					got, err := io.ReadAll(rd)
					if err != nil || !bytes.Equal(got, data[c.off:c.off+c.n]) {
						t.Errorf("range %d+%d of %+v: %d bytes, %v", c.off, c.n, id, len(got), err)
					}
					synctest.Wait()
					if n := held(p.far); n != c.blocks+maps {
						t.Errorf("range %d+%d of %+v: %d blocks were fetched, want %d", c.off, c.n, id, n, c.blocks+maps)
					}
					must(t, rd.Close())

					b = p.theirs(t)
					rd, err = b.NewReader(t.Context(), id)
					must(t, err)
					buf := make([]byte, c.n)
					if n, err := rd.ReadAt(buf, int64(c.off)); n != c.n || err != nil || !bytes.Equal(buf, data[c.off:c.off+c.n]) {
						t.Errorf("read at %d+%d of %+v: %d bytes, %v", c.off, c.n, id, n, err)
					}
					synctest.Wait()
					if n := held(p.far); n != c.blocks+maps {
						t.Errorf("read at %d+%d of %+v: %d blocks were fetched, want %d", c.off, c.n, id, n, c.blocks+maps)
					}
				}
			}
		})
	}
}

func TestDownloadBringsWholeBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 100, nil)
		r := rand.New(rand.NewPCG(1, 2))
		data := randomBytes(r, 30_000)
		base := write(t, p.Blobs, WriteOptions{Dedup: true}, data, len(data))
		other, err := p.Put(t.Context(), data[:950])
		must(t, err)
		data = append(data[:15_000:15_000], data[10_000:]...)
		mapped := write(t, p.Blobs, WriteOptions{Dedup: true, Base: &base}, data, len(data))
		b := p.theirs(t)
		ids := []ID{mapped, other}
		for _, id := range ids {
			if has, err := b.Has(t.Context(), id); has || err != nil {
				t.Fatalf("has %v, %v before", has, err)
			}
			if n, err := b.Missing(t.Context(), id); n != id.BlockLength || err != nil {
				t.Errorf("%d blocks are missing (%v), want %d", n, err, id.BlockLength)
			}
		}
		must(t, b.Download(t.Context(), ids...))
		for _, id := range ids {
			if has, err := b.Has(t.Context(), id); !has || err != nil {
				t.Errorf("has %v, %v after", has, err)
			}
			n, err := b.Clear(t.Context(), id)
			must(t, err)
			if missing, err := b.Missing(t.Context(), id); missing != id.BlockLength || err != nil {
				t.Errorf("cleared %d, %d are missing (%v)", n, missing, err)
			}
			if held(p.far) > 0 && id == other {
				t.Errorf("%d blocks are held that were not asked for", held(p.far))
			}
		}
		wantBlob(t, b, mapped, data)
	})
}

// A reader that reads in order waits for the network seldom.
func TestReadersFetchAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, DefaultBlockSize, nil)
		data := randomBytes(rand.New(rand.NewPCG(1, 2)), 200*DefaultBlockSize)
		plain, err := p.Put(t.Context(), data)
		must(t, err)
		mapped := write(t, p.Blobs, WriteOptions{BlockMap: true}, data, len(data))
		for _, id := range []ID{plain, mapped} {
			b := p.theirs(t)
			r, err := b.NewReader(t.Context(), id)
			must(t, err)
			if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := held(p.far); n < 30 || n > 70 {
				t.Errorf("after a byte of %+v %d blocks are held", id, n)
			}
			must(t, r.Close())

			snapshot, err := p.far.Snapshot()
			must(t, err)
			r, err = b.View(snapshot).NewReader(t.Context(), id)
			must(t, err)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("read a snapshot: %d bytes, %v", len(got), err)
			}
			must(t, r.Close())
			must(t, snapshot.Close())
		}
	})
}

// What is only longer elsewhere is found; what is nowhere is not waited for.
func TestReadersLearnOfLongerLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 100, nil)
		id, err := p.Put(t.Context(), []byte("new"))
		must(t, err)
		b := p.theirs(t)
		wantBlob(t, b, id, []byte("new"))
		id.BlockOffset += 100
		if _, err := b.Get(t.Context(), id); !errors.Is(err, ErrInvalid) || !errors.Is(err, hypercore.ErrNotFound) {
			t.Errorf("a blob past the end: %v", err)
		}
	})
}
