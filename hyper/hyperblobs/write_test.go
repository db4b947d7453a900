package hyperblobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// A blob whose id was returned is whole after any crash.
func TestBlobsOutliveCrashes(t *testing.T) {
	type blob struct {
		id   ID
		data []byte
	}
	type crash struct {
		disk  *storagetest.Faulty
		acked []blob
		point uint64
	}
	open := func(disk *storagetest.Faulty) (*Blobs, func()) {
		e, err := disk.Disk().Open()
		must(t, err)
		store, err := storage.Open(e, storage.Options{})
		must(t, err)
		log := openLog(t, store, hypercore.SessionOptions{})
		return New(log, Options{}), func() {
			must(t, log.Close())
			must(t, store.Close())
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	disk := storagetest.NewFaulty()
	var mu sync.Mutex
	var crashes []crash
	var acked []blob
	b, done := open(disk)
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%11 == 0 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), acked, p.Number})
		}
	})
	for i := range 28 {
		data := randomBytes(rng, rng.IntN([]int{1000, 2 * DefaultBlockSize}[i/4%2]))
		var id ID
		switch {
		case i%4 == 0:
			var err error
			id, err = b.Put(t.Context(), data)
			must(t, err)
		case i%12 == 1: // appended in several groups
			data = bytes.Repeat(append(data, 1), heldBytes*3/2/(len(data)+1))
			id = write(t, b, WriteOptions{}, data, len(data))
		case i%4 == 2:
			old := acked[i-2]
			data = append(data, old.data...)
			id = write(t, b, WriteOptions{Dedup: true, Base: &old.id}, data, len(data))
		default:
			id = write(t, b, WriteOptions{Dedup: true}, data, len(data))
		}
		mu.Lock()
		acked = append(acked, blob{id, data})
		mu.Unlock()
	}
	disk.Hook(nil)
	done()
	if len(crashes) < 20 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for _, c := range crashes {
		b, done := open(c.disk)
		for _, blob := range c.acked {
			if got, err := b.Get(t.Context(), blob.id); err != nil || !bytes.Equal(got, blob.data) {
				t.Errorf("after a crash at write point %d, blob %+v is %d bytes (%v), want %d", c.point, blob.id, len(got), err, len(blob.data))
			}
		}
		done()
	}
}

func TestWritersWriteAtTheSameTime(t *testing.T) {
	b := newBlobs(t, 10_000)
	type blob struct {
		id   ID
		data []byte
	}
	blobs := make(chan blob, 100)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for n := range 6 {
				data := randomBytes(r, r.IntN(heldBytes*3/2))
				var id ID
				var err error
				if n%2 == 0 {
					id, err = b.Put(t.Context(), data)
				} else {
					w := b.NewWriter(t.Context(), WriteOptions{Dedup: i%2 == 0})
					_, err = w.ReadFrom(bytes.NewReader(data))
					if n == 3 {
						w.Abort()
						continue
					}
					err = errors.Join(err, w.Close())
					id = w.ID()
				}
				if err != nil {
					t.Error(err)
				}
				blobs <- blob{id, data}
			}
		})
	}
	writers.Wait()
	close(blobs)
	for x := range blobs {
		wantBlob(t, b, x.id, x.data)
	}
}

// A writer that is slow to give little data holds nobody up.
func TestSmallBlobsDoNotWaitForSlowWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlobs(t, 1000)
		w := b.NewWriter(t.Context(), WriteOptions{})
		_, err := w.Write(make([]byte, heldBytes-1))
		must(t, err)
		id, err := b.Put(t.Context(), []byte("quick"))
		must(t, err)
		wantBlob(t, b, id, []byte("quick"))

		_, err = w.Write(make([]byte, 2*heldBytes)) // now it appends
		must(t, err)
		length := b.log.Length()
		var waiting sync.WaitGroup
		for _, patience := range []time.Duration{time.Minute, 10 * time.Minute} {
			waiting.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				id, err := b.Put(ctx, []byte("waits"))
				if patience > 5*time.Minute {
					if data, getErr := b.Get(ctx, id); string(data) != "waits" {
						t.Errorf("put and got %q: %v, %v", data, err, getErr)
					}
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("put while a large blob is written: %v", err)
				}
			})
		}
		time.Sleep(5 * time.Minute) // of the bubble
		if n := b.log.Length(); n != length {
			t.Errorf("somebody else appended: %d blocks, want %d", n, length)
		}
		must(t, w.Close())
		waiting.Wait()
		wantBlob(t, b, w.ID(), make([]byte, 3*heldBytes-1))
		if n, want := b.log.Length(), w.ID().BlockOffset+w.ID().BlockLength+1; n != want {
			t.Errorf("%d blocks in the end, want %d", n, want)
		}
	})
}

func TestAbortFreesTheSpace(t *testing.T) {
	b := newBlobs(t, 1000)
	id, err := b.Put(t.Context(), []byte("stays"))
	must(t, err)
	for _, o := range []WriteOptions{{}, {Dedup: true}} {
		w := b.NewWriter(t.Context(), o)
		data := randomBytes(rand.New(rand.NewPCG(1, 2)), 3*heldBytes)
		_, err = w.Write(data)
		must(t, err)
		if b.log.Length() < 100 {
			t.Fatal("nothing was appended yet")
		}
		w.Abort()
		for i := uint64(1); i < b.log.Length(); i++ {
			if b.log.Has(i) {
				t.Fatalf("block %d of an aborted blob is held", i)
			}
		}
		if _, err := w.Write(data); err == nil {
			t.Error("written after it was aborted")
		}
	}
	wantBlob(t, b, id, []byte("stays"))
	id, err = b.Put(t.Context(), []byte("comes next"))
	must(t, err)
	wantBlob(t, b, id, []byte("comes next"))
}

func TestForeignAppendsConflict(t *testing.T) {
	b := newBlobs(t, 1000)
	data := randomBytes(rand.New(rand.NewPCG(1, 2)), 3*heldBytes)
	w := b.NewWriter(t.Context(), WriteOptions{})
	_, err := w.Write(data)
	must(t, err)
	_, err = b.log.Append(t.Context(), []byte("a stranger's"))
	must(t, err)
	if err := w.Close(); !errors.Is(err, ErrConflict) {
		t.Errorf("close after somebody else appended: %v", err)
	}
	for i := range b.log.Length() - 1 {
		if b.log.Has(i) {
			t.Fatalf("block %d of the blob is held", i)
		}
	}
	if !b.log.Has(b.log.Length() - 1) {
		t.Error("the stranger's block was cleared")
	}
	id, err := b.Put(t.Context(), data)
	must(t, err)
	wantBlob(t, b, id, data)
}

// A log that was cut and grew again to the same length is another one.
func TestTruncationsConflict(t *testing.T) {
	b := newBlobs(t, 1000)
	w := b.NewWriter(t.Context(), WriteOptions{})
	_, err := w.Write(randomBytes(rand.New(rand.NewPCG(1, 2)), 3*heldBytes))
	must(t, err)
	last := b.log.Length() - 1
	must(t, b.log.Truncate(t.Context(), last, hypercore.TruncateOptions{}))
	_, err = b.log.Append(t.Context(), []byte("a stranger's"))
	must(t, err)
	if err := w.Close(); !errors.Is(err, ErrConflict) {
		t.Errorf("close after the log was truncated: %v", err)
	}
	if !b.log.Has(last) {
		t.Error("the stranger's block was cleared")
	}
}

func TestWritersThatFailHoldNobodyUp(t *testing.T) {
	b := newBlobs(t, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	w := b.NewWriter(ctx, WriteOptions{})
	data := randomBytes(rand.New(rand.NewPCG(1, 2)), 3*heldBytes)
	_, err := w.Write(data)
	must(t, err)
	cancel()
	if err := w.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	if b.log.Has(0) {
		t.Error("what was written is still held")
	}
	if _, err := b.Put(t.Context(), data); err != nil {
		t.Error(err)
	}
	w = b.NewWriter(t.Context(), WriteOptions{Chunks: true})
	if _, err := w.Write(make([]byte, hypercore.MaxBlock+1)); !errors.Is(err, hypercore.ErrTooLarge) {
		t.Errorf("a chunk over the limit: %v", err)
	}
	must(t, w.Close())
	if _, err := w.Write([]byte("more")); err == nil {
		t.Error("written after close")
	}
}

// An edit stores what is around it, whatever moves.
func TestDedupStoresOnlyWhatChanged(t *testing.T) {
	b := New(newLog(t, hypercore.SessionOptions{}), Options{BlockSize: 8 << 10, Durability: hypercore.Soon})
	r := rand.New(rand.NewPCG(1, 2))
	data := randomBytes(r, 1<<20)
	base := write(t, b, WriteOptions{Dedup: true}, data, 1<<17)
	for name, edited := range map[string][]byte{
		"inserted":   append(append(bytes.Clone(data[:3<<17]), "something"...), data[3<<17:]...),
		"removed":    append(bytes.Clone(data[:3<<17]), data[3<<17+1000:]...),
		"put before": append([]byte("something"), data...),
		"moved":      append(bytes.Clone(data[4<<17:]), data[:4<<17]...),
		"twice":      append(bytes.Clone(data), data...),
	} {
		before := b.log.ByteLength()
		id := write(t, b, WriteOptions{Dedup: true, Base: &base}, edited, 10_000)
		wantBlob(t, b, id, edited)
		if grew := b.log.ByteLength() - before; grew > 1<<18 {
			t.Errorf("%s: the log grew by %d bytes", name, grew)
		}
	}
	// A base with no map is one chunk a block.
	plain, err := b.Put(t.Context(), data)
	must(t, err)
	before := b.log.ByteLength()
	w := b.NewWriter(t.Context(), WriteOptions{Dedup: true, Chunks: true, Base: &plain})
	for i := 0; i < len(data); i += 8 << 10 {
		_, err := w.Write(data[i : i+8<<10])
		must(t, err)
	}
	must(t, w.Close())
	wantBlob(t, b, w.ID(), data)
	if grew := b.log.ByteLength() - before; grew > 10<<10 {
		t.Errorf("the same blocks again: the log grew by %d bytes", grew)
	}
	// What is not here any more can't be built on.
	_, err = b.Clear(t.Context(), plain)
	must(t, err)
	id := write(t, b, WriteOptions{Dedup: true, Base: &plain}, data, len(data))
	wantBlob(t, b, id, data)
}

// Where it cuts must stay, or new versions would share nothing with old ones.
func TestCutsStayWhereTheyAre(t *testing.T) {
	data := randomBytes(rand.New(rand.NewPCG(1, 2)), 1<<20)
	c := NewCutter(DefaultBlockSize)
	var lengths []int
	for rest := data; len(rest) > 0; {
		n := c.Cut(rest)
		if (n < c.min || n > c.max) && n != len(rest) {
			t.Errorf("a chunk of %d bytes", n)
		}
		lengths = append(lengths, n)
		rest = rest[n:]
	}
	if got, want := fmt.Sprint(lengths), "[70849 68680 73862 62427 61270 69632 87678 68970 66495 69159 73842 39657 86791 57443 68032 23789]"; got != want {
		t.Errorf("cut into %s, want %s", got, want)
	}
	if n := c.Cut(make([]byte, 2*c.max)); n != c.max {
		t.Errorf("zeros are cut at %d, want %d", n, c.max)
	}
}
