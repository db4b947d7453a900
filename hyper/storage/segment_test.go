package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// A blobStore is a store on a faulty disk, with a clock that stands still.
type blobStore struct {
	t     *testing.T
	disk  *storagetest.Faulty
	clock *clock.Fake
	e     storage.Engine
}

func newBlobStore(t *testing.T) *blobStore {
	s := &blobStore{t: t, disk: storagetest.NewFaulty(), clock: clock.NewFake(time.Unix(0, 0))}
	s.open()
	t.Cleanup(func() { _ = s.e.Close() })
	return s
}

func (s *blobStore) open() {
	s.t.Helper()
	d := s.disk.Disk()
	d.Clock = s.clock
	s.e = mustOpen(s.t, d)
}

func (s *blobStore) reopen() {
	s.t.Helper()
	if err := s.e.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// collect lets time pass until nothing is left to be done.
func (s *blobStore) collect() {
	for range 20 {
		if s.clock.Waiting() == 0 {
			return
		}
		s.clock.Advance(10 * time.Second)
	}
	s.t.Helper()
	s.t.Fatal("there is always more to do")
}

func blobKey(i int) []byte { return fmt.Appendf(nil, "%04d", i) }

func blobData(i, size int) []byte {
	return bytes.Repeat([]byte{byte(i), byte(i >> 8), 7}, size/3+1)[:size]
}

func (s *blobStore) set(from, to, size int) {
	s.t.Helper()
	for i := from; i < to; i++ {
		var b storage.Batch
		b.SetBlob(blobKey(i), blobData(i, size))
		if err := s.e.Apply(&b, storage.Soon); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *blobStore) delete(from, to int) {
	s.t.Helper()
	var b storage.Batch
	b.DeleteBlobs(blobKey(from), blobKey(to))
	if err := s.e.Apply(&b, storage.Soon); err != nil {
		s.t.Fatal(err)
	}
}

func (s *blobStore) check(r storage.Reader, from, to, size int) {
	s.t.Helper()
	for i := from; i < to; i++ {
		got, err := r.Blob(blobKey(i), nil)
		if size == 0 && !errors.Is(err, storage.ErrNotFound) {
			s.t.Errorf("blob %d is there: %v", i, err)
		} else if size > 0 && (err != nil || !bytes.Equal(got, blobData(i, size))) {
			s.t.Errorf("blob %d is lost: %d bytes, %v", i, len(got), err)
		}
	}
}

func segments(disk *storagetest.Faulty) map[string]int {
	out := map[string]int{}
	for name, data := range disk.Files() {
		if strings.HasSuffix(name, ".seg") {
			out[name[len(name)-12:]] = len(data)
		}
	}
	return out
}

func TestDeadSegmentsGiveTheirSpaceBack(t *testing.T) {
	s := newBlobStore(t)
	s.set(0, 100, 64<<10)
	s.delete(0, 40)
	s.collect()
	if got := segments(s.disk); len(got) != 1 {
		t.Errorf("a segment that is half alive was collected: %v", got)
	}
	s.reopen() // the counters too
	s.delete(40, 90)
	s.collect()
	got := segments(s.disk)
	if len(got) != 1 || got["00000002.seg"] == 0 || got["00000002.seg"] > 11*64<<10 {
		t.Errorf("segments after deleting 90 of 100 blobs: %v", got)
	}
	s.check(s.e, 90, 100, 64<<10)
	s.check(s.e, 0, 90, 0)
	s.reopen()
	s.check(s.e, 90, 100, 64<<10)
	s.delete(0, 1000)
	s.collect()
	if got := segments(s.disk); len(got) != 0 {
		t.Errorf("segments when nothing is left: %v", got)
	}
	s.set(0, 10, 64<<10)
	s.delete(0, 10) // of the active segment
	s.collect()
	if got := segments(s.disk); len(got) != 0 {
		t.Errorf("segments when nothing is left: %v", got)
	}
	s.set(0, 1, 64<<10)
	s.check(s.e, 0, 1, 64<<10)
}

func TestSnapshotsReadCollectedSegments(t *testing.T) {
	s := newBlobStore(t)
	s.set(0, 20, 64<<10)
	first, err := s.e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s.delete(0, 19)
	s.collect()
	s.check(first, 0, 20, 64<<10)
	second, err := s.e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s.check(second, 0, 19, 0)
	s.check(second, 19, 20, 64<<10)
	if got := segments(s.disk); len(got) != 2 {
		t.Errorf("a segment is gone while a snapshot reads it: %v", got)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if got := segments(s.disk); len(got) != 1 {
		t.Errorf("a segment stays though no snapshot needs it: %v", got)
	}
	s.check(second, 19, 20, 64<<10)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// One that is left when the store closes goes after the next start.
	third, err := s.e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s.delete(19, 20)
	s.collect()
	s.reopen()
	if err := third.Close(); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("closing a snapshot of a closed store: %v", err)
	}
	s.collect()
	if got := segments(s.disk); len(got) != 0 {
		t.Errorf("segments when nothing is left: %v", got)
	}
}

func TestSmallSegmentsAreJoined(t *testing.T) {
	s := newBlobStore(t)
	most := 0
	for i := range 60 {
		s.set(i, i+1, 20<<10)
		s.reopen()
		s.collect()
		most = max(most, len(segments(s.disk)))
	}
	if most > 10 {
		t.Errorf("%d segments of one blob each", most)
	}
	s.check(s.e, 0, 60, 20<<10)
}

// A collection loses nothing, whenever it is cut off.
func TestCollectionSurvivesACrashAtEveryWritePoint(t *testing.T) {
	t.Logf("seed %d", *seed)
	s := newBlobStore(t)
	s.set(0, 30, 20<<10)
	s.reopen()
	s.set(30, 60, 20<<10)
	s.delete(2, 28)
	s.delete(32, 58)
	if err := s.e.Sync(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var crashed []*storagetest.Faulty
	s.disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		crashed = append(crashed, s.disk.Kill(), s.disk.PowerCut(0), s.disk.PowerCut(*seed+p.Number))
	})
	s.collect()
	s.disk.Hook(nil)
	mu.Lock()
	all := crashed // a hook may be under way: the database flushes when it likes
	mu.Unlock()
	if got := segments(s.disk); len(got) != 1 || len(all) < 20 {
		t.Fatalf("segments %v, %d crashes", got, len(all))
	}
	for i, disk := range all {
		after := &blobStore{t: t, disk: disk, clock: s.clock}
		after.open()
		for range 2 {
			after.check(after.e, 0, 2, 20<<10)
			after.check(after.e, 2, 28, 0)
			after.check(after.e, 28, 32, 20<<10)
			after.check(after.e, 32, 58, 0)
			after.check(after.e, 58, 60, 20<<10)
			after.collect()
		}
		after.delete(0, 100)
		after.collect()
		if got := segments(disk); len(got) != 0 {
			t.Errorf("crash %d: segments %v stay for ever", i, got)
		}
		if err := after.e.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("crash %d of %d", i, len(all))
		}
	}
}

// Blobs come and go while others are collected.
func TestBlobsWrittenDuringACollectionStay(t *testing.T) {
	s := newBlobStore(t)
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 40 {
				n := 1000*(w+1) + i
				var b storage.Batch
				b.SetBlob(blobKey(n), blobData(n, 17<<10))
				if i%4 != 0 && i > 0 {
					b.DeleteBlobs(blobKey(n-1), blobKey(n)) // not one of its own
				}
				if err := s.e.Apply(&b, storage.Soon); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			s.clock.Advance(time.Second)
		}
	}
	s.collect()
	check := func() {
		t.Helper()
		for w := range 3 {
			for i := range 40 {
				n := 1000*(w+1) + i
				// The next one, unless it began a run of four, removed it.
				if i < 39 && (i+1)%4 != 0 {
					s.check(s.e, n, n+1, 0)
				} else {
					s.check(s.e, n, n+1, 17<<10)
				}
			}
		}
	}
	check()
	s.reopen()
	check()
}

// Bits that flip in what is dead must not hide what is alive from a collection.
func TestCollectionDoesNotBelieveABadSegment(t *testing.T) {
	s := newBlobStore(t)
	s.set(0, 20, 20<<10)
	if err := s.e.Close(); err != nil {
		t.Fatal(err)
	}
	const name = "store/blobs/00000001.seg"
	data := s.disk.Files()[name]
	if data == nil {
		t.Fatal(segments(s.disk))
	}
	data[8+4+2+1] ^= 0x10 // the length of the first record
	if err := s.disk.SetFile(name, data); err != nil {
		t.Fatal(err)
	}
	s.open()
	if _, err := s.e.Blob(blobKey(0), nil); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("a bad record: %v", err)
	}
	s.delete(1, 19)
	s.collect()
	s.check(s.e, 19, 20, 20<<10)
	if _, err := s.e.Blob(blobKey(0), nil); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("a bad record after a collection: %v", err)
	}
	s.delete(0, 1)
	s.reopen()
	s.collect()
	if got := segments(s.disk); len(got) != 1 || got["00000001.seg"] != 0 {
		t.Errorf("segments: %v", got)
	}
	s.check(s.e, 19, 20, 20<<10)
}

func TestTornSegmentTailIsHarmless(t *testing.T) {
	s := newBlobStore(t)
	s.set(0, 4, 20<<10)
	if err := s.e.Close(); err != nil {
		t.Fatal(err)
	}
	const name = "store/blobs/00000001.seg"
	data := s.disk.Files()[name]
	for _, tail := range []int{1, 9, 10, 15, 3000} {
		torn := append(bytes.Clone(data), data[8:8+tail]...)
		if err := s.disk.SetFile(name, torn); err != nil {
			t.Fatal(err)
		}
		s.open()
		s.check(s.e, 0, 4, 20<<10)
		if err := s.e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.open()
	s.delete(0, 3)
	s.collect()
	s.check(s.e, 3, 4, 20<<10)
	if got := segments(s.disk); len(got) != 1 || got["00000001.seg"] != 0 {
		t.Errorf("segments: %v", got)
	}
}

// A write that is to be on the disk soon does not wait for its blobs, but nothing that
// points to them is on the disk before they are: not in the log, and not in tables.
func TestSoonBlobsAreOnTheDiskBeforeWhatPointsToThem(t *testing.T) {
	s := newBlobStore(t)
	var mu sync.Mutex
	var crashes []*storagetest.Faulty
	logs, tables := 0, 0
	s.disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.HasSuffix(p.Name, ".log"):
			if logs++; logs > 300 || logs%50 != 0 {
				return
			}
		case strings.HasSuffix(p.Name, ".sst") || strings.Contains(p.Name, "MANIFEST"):
			if tables++; tables > 6 {
				return
			}
		default:
			return
		}
		crashes = append(crashes, s.disk.PowerCut(*seed+p.Number))
	})
	const n, size = 80, 20 << 10
	for i := range n {
		var b storage.Batch
		b.SetBlob(blobKey(i), blobData(i, size))
		b.Set(blobKey(i), make([]byte, 300<<10)) // all together more than is kept in memory
		if err := s.e.Apply(&b, storage.Soon); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "a table is written", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return logs >= 300 && tables >= 6
	})
	s.disk.Hook(nil)
	mu.Lock()
	all := crashes // a hook may be under way
	mu.Unlock()
	for i, disk := range all {
		e := mustOpen(t, disk.Disk())
		held := 0
		for ; held < n; held++ {
			if _, err := e.Get(blobKey(held)); err != nil {
				break
			}
		}
		s.check(e, 0, held, size)
		s.check(e, held, n, 0)
		if err := e.Close(); err != nil || t.Failed() {
			t.Fatalf("crash %d, with %d blobs: %v", i, held, err)
		}
	}
}

// When blobs can't be synced that were to be soon, the store ends with the next write
// that waits, and what was durable before is there.
func TestSoonBlobsThatAreNotSyncedEndTheStore(t *testing.T) {
	s := newBlobStore(t)
	if err := setValue(s.e, "before", 10); err != nil {
		t.Fatal(err)
	}
	s.set(0, 1, 20<<10)
	s.disk.FailWrites(fails(".seg", syscall.EIO, "sync"))
	if err := setValue(s.e, "after", 10); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "must be opened anew") {
		t.Fatalf("a write after it: %v", err)
	}
	s.disk.FailWrites(nil)
	cut := s.disk.PowerCut(0)
	e := mustOpen(t, cut.Disk())
	hasValue(t, e, "before", 10)
	s.check(e, 0, 1, 0)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is to be on the disk soon is synced by itself, unless a write that waits for the
// disk has taken it along.
func TestSoonIsSyncedOnce(t *testing.T) {
	s := newBlobStore(t)
	if err := setValue(s.e, "first", 10); err != nil { // which opens the store for writing
		t.Fatal(err)
	}
	syncs := func() uint64 {
		t.Helper()
		stats, err := s.e.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return stats.Syncs
	}
	for _, also := range []bool{false, true} {
		before := syncs()
		var b storage.Batch
		b.Set([]byte("soon"), []byte(fmt.Sprint(also)))
		if err := s.e.Apply(&b, storage.Soon); err != nil {
			t.Fatal(err)
		}
		if got := syncs(); got != before {
			t.Errorf("a write that is to be soon caused %d syncs at once", got-before)
		}
		if also {
			if err := setValue(s.e, "durable", 10); err != nil {
				t.Fatal(err)
			}
		}
		s.clock.Advance(50 * time.Millisecond)
		if got := syncs(); got != before+1 {
			t.Errorf("%d syncs, want 1; with a write that waits: %v", got-before, also)
		}
		cut := s.disk.PowerCut(0)
		e := mustOpen(t, cut.Disk())
		if got, err := e.Get([]byte("soon")); string(got) != fmt.Sprint(also) || err != nil {
			t.Errorf("after a power cut it is %q, %v", got, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
