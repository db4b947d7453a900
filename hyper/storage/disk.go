package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk opens the engine that keeps everything in one folder: a Pebble database
// for small values, and segment files for blobs of 16 KiB and more. The zero
// value of its fields is right for nearly everyone.
//
// The folder's format is written down in docs/formats/store.md.
type Disk struct {
	// Dir is the folder. It is made when missing, unless ReadOnly is set.
	Dir string
	// ReadOnly refuses writes, and works on a read-only disk.
	ReadOnly bool
	// Adopt opens for writing a folder that is a copy of another store and makes
	// it the store from then on. See CopiedError for when that is right.
	Adopt bool
	// MinFree is the free disk space, in bytes, under which writes are refused
	// with ErrFull. 64 MiB when 0: what is written before must still fit.
	MinFree uint64

	// FS is the disk seam. The machine's file system when nil.
	FS vfs.FS
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
}

// A CopiedError says that a folder is a copy of a store, restored from a backup
// or cloned with its disk. Writing to it while the original is written to as
// well forks the logs of both for good, so it opens for writing only with
// Disk.Adopt, which is right when the original is gone or will never write.
type CopiedError struct {
	Dir string
}

func (e *CopiedError) Error() string {
	return fmt.Sprintf("open store %s: it is a copy of a store from another place", e.Dir)
}

const (
	// blobInline is the size from which a blob lives in a segment file instead of
	// the database.
	blobInline = 16 << 10
	// soonDelay bounds how long a Soon write may stay unsynced.
	soonDelay = 50 * time.Millisecond
	// reclaimDelay is how long after a deletion its space is given back.
	reclaimDelay = time.Second
	// fullCheckBytes is how much is written between looks at the free space.
	fullCheckBytes = 4 << 20
	defaultMinFree = 64 << 20
)

// Key spaces of the database.
const (
	spaceBlob    = 'b' // blob key -> blobHere + bytes, or blobSegment + pointer
	spaceCounter = 'c' // segment number, uint32 BE -> live bytes, int64 LE, summed when merged
	spaceMeta    = 'm' // name -> the engine's own facts
	spaceValue   = 'v' // key -> value, appended when merged
)

const (
	blobHere    = 0
	blobSegment = 1
	pointerSize = 1 + 12
)

// diskFormat is the version of the folder's format.
const diskFormat = 1

type disk struct {
	opts     Disk
	db       *pebble.DB
	lock     *pebble.Lock
	segments *segments
	syncs    *syncCounter

	// blobs is held shared by writers of blobs, from before they reach a segment
	// until their pointers are committed, and by those that delete blobs; and
	// alone by the collector when it moves some.
	blobs sync.RWMutex

	unchecked atomic.Int64 // bytes written since the last look at free space
	full      atomic.Bool
	failed    atomic.Pointer[error] // set once: the database can't go on

	mu         sync.Mutex // guards the fields below
	closed     bool
	soon       clock.Timer // a sync that is due
	collect    clock.Timer // a collection that is due
	background sync.WaitGroup
	snapshots  int
	doomed     []uint32 // segments to remove when no snapshot is open
}

// Open opens or makes the store's folder.
func (o Disk) Open() (Engine, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
	}
	d := &disk{opts: o, syncs: &syncCounter{FS: o.FS}}
	if err := d.open(); err != nil {
		var copied *CopiedError
		if errors.As(err, &copied) {
			return nil, err
		}
		return nil, fmt.Errorf("open store %s: %w", o.Dir, err)
	}
	return d, nil
}

func (d *disk) open() (err error) {
	if !d.opts.ReadOnly {
		if err := d.syncs.MkdirAll(d.opts.Dir, 0o700); err != nil {
			return diskError(err)
		}
	} else if _, err := d.opts.FS.Stat(d.opts.Dir); err != nil {
		return diskError(err)
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.release())
		}
	}()
	if d.db, err = pebble.Open(d.opts.Dir, d.pebbleOptions()); err != nil {
		return diskError(err)
	}
	if err := d.checkMeta(); err != nil {
		return err
	}
	if d.segments, err = openSegments(d.syncs, d.opts.FS.PathJoin(d.opts.Dir, "blobs"), d.opts.ReadOnly); err != nil {
		return diskError(err)
	}
	if err := d.loadCounters(); err != nil {
		return err
	}
	if !d.opts.ReadOnly {
		d.mu.Lock()
		d.scheduleCollectLocked()
		d.mu.Unlock()
	}
	return nil
}

// takeLock makes sure that no other process has the folder open. A read-only
// disk can't have a writer.
func (d *disk) takeLock() error {
	lock, err := pebble.LockDirectory(d.opts.Dir, d.opts.FS)
	if err != nil {
		if errors.Is(err, syscall.EROFS) && d.opts.ReadOnly {
			return nil
		}
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK) || strings.Contains(err.Error(), "lock held") {
			owner, _ := d.readFile("OWNER")
			if len(owner) > 0 {
				return fmt.Errorf("%w (%s); stop it first", ErrLocked, bytes.TrimSpace(owner))
			}
			return fmt.Errorf("%w; stop it first", ErrLocked)
		}
		return diskError(err)
	}
	d.lock = lock
	if d.opts.ReadOnly {
		return nil
	}
	f, err := d.opts.FS.Create(d.opts.FS.PathJoin(d.opts.Dir, "OWNER"), vfs.WriteCategoryUnspecified)
	if err != nil {
		return errors.Join(diskError(err), lock.Close())
	}
	_, err = fmt.Fprintf(f, "process %d\n", os.Getpid())
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(diskError(err), lock.Close())
	}
	return nil
}

func (d *disk) readFile(name string) ([]byte, error) {
	f, err := d.opts.FS.Open(d.opts.FS.PathJoin(d.opts.Dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, 256)
	n, err := f.ReadAt(buf, 0)
	if n > 0 {
		err = nil
	}
	return buf[:n], err
}

func (d *disk) pebbleOptions() *pebble.Options {
	// The values are measured in shared research; docs/why.md has the reasons.
	o := &pebble.Options{
		FS:                          d.syncs,
		Lock:                        d.lock,
		ReadOnly:                    d.opts.ReadOnly,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		CacheSize:                   8 << 20, // decoded pages are cached above
		MemTableSize:                16 << 20,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                48,
		BytesPerSync:                1 << 20,
		FlushDelayDeleteRange:       reclaimDelay,
		Merger:                      &pebble.Merger{Name: "bevy.1", Merge: newMerge},
		Logger:                      diskLogger{d},
		EventListener: &pebble.EventListener{
			// The default ends the process. A read of the bad block gets the error.
			DataCorruption:  func(pebble.DataCorruptionInfo) {},
			BackgroundError: func(error) {},
		},
	}
	o.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	o.Experimental.FileCacheShards = 1
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           4 << 10,
			MaxBlobReferenceDepth: 10,
			RewriteMinimumAge:     15 * time.Minute,
			TargetGarbageRatio:    .2,
		}
	}
	return o
}

// diskLogger gets Pebble's log. Pebble can't go on after Fatalf: in a writer's
// goroutine that becomes the writer's error (see commit), elsewhere it ends the
// process, which loses nothing acknowledged.
type diskLogger struct{ d *disk }

type fatalError struct{ err error }

func (diskLogger) Infof(string, ...any)  {}
func (diskLogger) Errorf(string, ...any) {}
func (l diskLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("store %s failed and must be opened anew: %s", l.d.opts.Dir, fmt.Sprintf(format, args...))
	for _, a := range args {
		if e, ok := a.(error); ok {
			err = fmt.Errorf("store %s failed and must be opened anew: %w", l.d.opts.Dir, diskError(e))
		}
	}
	l.d.failed.CompareAndSwap(nil, &err)
	panic(fatalError{err})
}

// A merge collects operands, which Pebble hands over in one of two orders.
type merge struct {
	key          []byte
	newer, older [][]byte // newer: in order; older: latest first
}

func newMerge(key, value []byte) (pebble.ValueMerger, error) {
	return &merge{key: bytes.Clone(key), newer: [][]byte{bytes.Clone(value)}}, nil
}

func (m *merge) MergeNewer(value []byte) error {
	m.newer = append(m.newer, bytes.Clone(value))
	return nil
}

func (m *merge) MergeOlder(value []byte) error {
	m.older = append(m.older, bytes.Clone(value))
	return nil
}

func (m *merge) Finish(bool) ([]byte, io.Closer, error) {
	if len(m.key) > 0 && m.key[0] == spaceCounter {
		var sum int64
		for _, list := range [][][]byte{m.newer, m.older} {
			for _, v := range list {
				if len(v) != 8 {
					return nil, nil, fmt.Errorf("segment counter of %d bytes: %w", len(v), ErrCorrupt)
				}
				sum += int64(binary.LittleEndian.Uint64(v))
			}
		}
		return binary.LittleEndian.AppendUint64(nil, uint64(sum)), nil, nil
	}
	n := 0
	for _, list := range [][][]byte{m.newer, m.older} {
		for _, v := range list {
			n += len(v)
		}
	}
	out := make([]byte, 0, n)
	for i := len(m.older) - 1; i >= 0; i-- {
		out = append(out, m.older[i]...)
	}
	for _, v := range m.newer {
		out = append(out, v...)
	}
	return out, nil, nil
}

// checkMeta makes or checks the engine's own facts: the format, and the place
// that the folder was made at.
func (d *disk) checkMeta() error {
	place := folderPlace(d.opts.FS, d.opts.Dir)
	format, err := d.get(spaceMeta, []byte("format"))
	if errors.Is(err, ErrNotFound) {
		if d.opts.ReadOnly {
			return fmt.Errorf("no store: %w", ErrNotFound)
		}
		id := make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return err
		}
		b := d.db.NewBatch()
		err := errors.Join(
			b.Set([]byte("mformat"), []byte{diskFormat}, nil),
			b.Set([]byte("mid"), id, nil),
			b.Set([]byte("mplace"), []byte(place), nil))
		if err == nil {
			err = d.commit(b, pebble.Sync)
		}
		return err
	}
	if err != nil {
		return err
	}
	if len(format) != 1 || format[0] > diskFormat {
		return fmt.Errorf("store format %x: %w", format, ErrVersion)
	}
	was, err := d.get(spaceMeta, []byte("place"))
	if err != nil {
		return err
	}
	if string(was) == place || d.opts.ReadOnly {
		return nil
	}
	if !d.opts.Adopt {
		return &CopiedError{Dir: d.opts.Dir}
	}
	b := d.db.NewBatch()
	if err := b.Set([]byte("mplace"), []byte(place), nil); err != nil {
		return err
	}
	return d.commit(b, pebble.Sync)
}

func (d *disk) loadCounters() error {
	live := map[uint32]int64{}
	err := d.scan(d.db, spaceCounter, nil, nil, func(key, value []byte) bool {
		// A counter may outlive its file: a delete that raced with the removal.
		if len(key) == 4 && len(value) == 8 && d.segments.has(binary.BigEndian.Uint32(key)) {
			live[binary.BigEndian.Uint32(key)] = int64(binary.LittleEndian.Uint64(value))
		}
		return true
	})
	if err != nil {
		return err
	}
	d.segments.setLive(live)
	return nil
}

// guard returns why nothing can be written, or nil.
func (d *disk) guard(size int) error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	if d.opts.ReadOnly {
		return ErrReadOnly
	}
	if d.full.Load() || d.unchecked.Add(int64(size)) > fullCheckBytes {
		d.unchecked.Store(0)
		u, err := d.opts.FS.GetDiskUsage(d.opts.Dir)
		d.full.Store(err == nil && u.AvailBytes < d.opts.MinFree)
		if d.full.Load() {
			return fmt.Errorf("%w: %d MiB are free, %d are kept in reserve; free some space and write again",
				ErrFull, u.AvailBytes>>20, d.opts.MinFree>>20)
		}
	}
	return nil
}

func (d *disk) Apply(b *Batch, durability Durability) error {
	size, blobs := 0, false
	for i := range b.ops {
		op := &b.ops[i]
		size += len(op.key) + len(op.value)
		blobs = blobs || op.kind == opDeleteBlobs || op.kind == opSetBlob
	}
	if err := d.guard(size); err != nil {
		return err
	}
	if blobs {
		d.blobs.RLock()
		defer d.blobs.RUnlock()
	}
	pb := d.db.NewBatchWithSize(size + 32*len(b.ops))
	changes := map[uint32]int64(nil)
	if err := d.fill(pb, b, &changes); err != nil {
		return errors.Join(err, pb.Close())
	}
	sync := pebble.Sync
	if durability == Soon {
		sync = pebble.NoSync
	}
	if err := d.commit(pb, sync); err != nil {
		return err
	}
	d.segments.addLive(changes)
	if durability == Soon || blobs {
		d.mu.Lock()
		if durability == Soon {
			d.scheduleSyncLocked()
		}
		if blobs {
			d.scheduleCollectLocked()
		}
		d.mu.Unlock()
	}
	return nil
}

// fill turns the batch into one of the database, writing its large blobs to
// segments first.
func (d *disk) fill(pb *pebble.Batch, b *Batch, changes *map[uint32]int64) error {
	var key []byte
	at := func(space byte, k []byte) []byte {
		key = append(append(key[:0], space), k...)
		return key
	}
	var large []*op
	for i := range b.ops {
		op := &b.ops[i]
		var err error
		switch op.kind {
		case opSet:
			err = pb.Set(at(spaceValue, op.key), op.value, nil)
		case opMerge:
			err = pb.Merge(at(spaceValue, op.key), op.value, nil)
		case opDelete:
			err = pb.Delete(at(spaceValue, op.key), nil)
		case opDeleteRange:
			err = pb.DeleteRange(at(spaceValue, op.key), append([]byte{spaceValue}, op.value...), nil)
		case opSetBlob:
			if len(op.value) >= blobInline {
				large = append(large, op)
				continue
			}
			d := pb.SetDeferred(1+len(op.key), 1+len(op.value))
			d.Key[0] = spaceBlob
			copy(d.Key[1:], op.key)
			d.Value[0] = blobHere
			copy(d.Value[1:], op.value)
			err = d.Finish()
		case opDeleteBlobs:
			if len(large) > 0 {
				// A batch that deletes what it set would lose the order; none does.
				panic("storage: DeleteBlobs after SetBlob in one batch")
			}
			err = d.deleteBlobs(pb, op.key, op.value, changes)
		}
		if err != nil {
			return diskError(err)
		}
	}
	if len(large) == 0 {
		return nil
	}
	pointers, err := d.segments.write(large)
	if err != nil {
		return diskError(err)
	}
	if *changes == nil {
		*changes = map[uint32]int64{}
	}
	added := map[uint32]int64{}
	for i, op := range large {
		if err := pb.Set(at(spaceBlob, op.key), pointers[i].append(nil), nil); err != nil {
			return diskError(err)
		}
		added[pointers[i].segment] += int64(pointers[i].recordSize(len(op.key)))
	}
	for segment, n := range added {
		(*changes)[segment] += n
		if err := d.mergeCounter(pb, segment, n); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) mergeCounter(pb *pebble.Batch, segment uint32, n int64) error {
	key := counterKey(segment)
	return diskError(pb.Merge(key, binary.LittleEndian.AppendUint64(nil, uint64(n)), nil))
}

// deleteBlobs removes blobs, and counts those in segments as dead.
func (d *disk) deleteBlobs(pb *pebble.Batch, from, to []byte, changes *map[uint32]int64) error {
	dead := map[uint32]int64{}
	some := false
	err := d.pointers(from, to, func(key []byte, p *pointer) {
		some = true
		if p != nil {
			dead[p.segment] -= int64(p.recordSize(len(key)))
		}
	})
	if err != nil || !some {
		return err
	}
	if *changes == nil {
		*changes = map[uint32]int64{}
	}
	for segment, n := range dead {
		(*changes)[segment] += n
		if err := d.mergeCounter(pb, segment, n); err != nil {
			return err
		}
	}
	return pb.DeleteRange(append([]byte{spaceBlob}, from...), append([]byte{spaceBlob}, to...), nil)
}

// pointers calls f for each blob of a range, with its pointer when it is in a
// segment.
func (d *disk) pointers(from, to []byte, f func(key []byte, p *pointer)) error {
	it, err := d.db.NewIter(&pebble.IterOptions{
		LowerBound: append([]byte{spaceBlob}, from...),
		UpperBound: append([]byte{spaceBlob}, to...),
	})
	if err != nil {
		return diskError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		var p *pointer
		// The length tells a pointer from a blob, without reading the blob.
		if lv := it.LazyValue(); lv.Len() == pointerSize {
			value, err := it.ValueAndErr()
			if err != nil {
				return errors.Join(diskError(err), it.Close())
			}
			if parsed, ok := parsePointer(value); ok {
				p = &parsed
			}
		}
		f(it.Key()[1:], p)
	}
	return diskError(errors.Join(it.Error(), it.Close()))
}

// commit applies the batch and frees it.
func (d *disk) commit(pb *pebble.Batch, sync *pebble.WriteOptions) (err error) {
	defer func() {
		if r := recover(); r != nil {
			fatal, ok := r.(fatalError)
			if !ok {
				panic(r)
			}
			err = fatal.err
		}
	}()
	if err := d.db.Apply(pb, sync); err != nil {
		return diskError(err)
	}
	return pb.Close()
}

func (d *disk) Sync() error {
	if err := d.guard(0); err != nil && !errors.Is(err, ErrFull) {
		return err
	}
	pb := d.db.NewBatch()
	if err := pb.LogData(nil, nil); err != nil {
		return diskError(err)
	}
	return d.commit(pb, pebble.Sync)
}

func (d *disk) scheduleSyncLocked() {
	if d.soon != nil || d.closed {
		return
	}
	d.background.Add(1)
	d.soon = d.opts.Clock.AfterFunc(soonDelay, func() {
		defer d.background.Done()
		d.mu.Lock()
		d.soon = nil
		d.mu.Unlock()
		// What fails here fails for the next writer too, who is told.
		_ = d.Sync()
	})
}

func (d *disk) Get(key []byte) ([]byte, error) { return d.get(spaceValue, key) }

func (d *disk) get(space byte, key []byte) ([]byte, error) { return d.getFrom(d.db, space, key) }

func (d *disk) getFrom(r pebble.Reader, space byte, key []byte) ([]byte, error) {
	var buf [64]byte
	value, closer, err := r.Get(append(append(buf[:0], space), key...))
	if err != nil {
		return nil, diskError(err)
	}
	out := bytes.Clone(value)
	if out == nil {
		out = []byte{}
	}
	return out, closer.Close()
}

func (d *disk) Blob(key []byte) ([]byte, error) { return d.blobFrom(d.db, key) }

func (d *disk) blobFrom(r pebble.Reader, key []byte) ([]byte, error) {
	for try := 0; ; try++ {
		value, err := d.getFrom(r, spaceBlob, key)
		if err != nil {
			return nil, err
		}
		if len(value) > 0 && value[0] == blobHere {
			return value[1:], nil
		}
		p, ok := parsePointer(value)
		if !ok {
			return nil, fmt.Errorf("blob pointer %x: %w", value, ErrCorrupt)
		}
		data, err := d.segments.read(p, key)
		if errors.Is(err, fs.ErrNotExist) {
			// The collector may have moved it since the pointer was read.
			if try < 3 {
				continue
			}
			return nil, fmt.Errorf("segment %d is missing: %w", p.segment, ErrCorrupt)
		}
		return data, err
	}
}

func (d *disk) Scan(from, to []byte, f func(key, value []byte) bool) error {
	return d.scan(d.db, spaceValue, from, to, f)
}

func (d *disk) scan(r pebble.Reader, space byte, from, to []byte, f func(key, value []byte) bool) error {
	upper := []byte{space + 1}
	if to != nil {
		upper = append([]byte{space}, to...)
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: append([]byte{space}, from...), UpperBound: upper})
	if err != nil {
		return diskError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(diskError(err), it.Close())
		}
		if !f(it.Key()[1:], value) {
			break
		}
	}
	return diskError(errors.Join(it.Error(), it.Close()))
}

type diskSnapshot struct {
	*pebble.Snapshot
	d *disk
}

func (d *disk) Snapshot() (Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	d.snapshots++
	return &diskSnapshot{d.db.NewSnapshot(), d}, nil
}

func (s *diskSnapshot) Get(key []byte) ([]byte, error) {
	return s.d.getFrom(s.Snapshot, spaceValue, key)
}
func (s *diskSnapshot) Blob(key []byte) ([]byte, error) { return s.d.blobFrom(s.Snapshot, key) }
func (s *diskSnapshot) Scan(from, to []byte, f func(key, value []byte) bool) error {
	return s.d.scan(s.Snapshot, spaceValue, from, to, f)
}

func (s *diskSnapshot) Close() error {
	err := s.Snapshot.Close()
	s.d.mu.Lock()
	s.d.snapshots--
	var doomed []uint32
	if s.d.snapshots == 0 {
		doomed, s.d.doomed = s.d.doomed, nil
	}
	s.d.mu.Unlock()
	for _, segment := range doomed {
		err = errors.Join(err, s.d.segments.remove(segment))
	}
	return diskError(err)
}

func (d *disk) Stats() (Stats, error) {
	size := d.db.Metrics().DiskSpaceUsage() + d.segments.size()
	return Stats{DiskBytes: size, Syncs: d.syncs.n.Load()}, nil
}

func (d *disk) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return ErrClosed
	}
	d.closed = true
	for _, t := range []clock.Timer{d.soon, d.collect} {
		if t != nil && t.Stop() {
			d.background.Done()
		}
	}
	d.mu.Unlock()
	d.background.Wait()
	if err := d.failed.Load(); err != nil {
		// The database can't be closed; the lock stays until the process ends, so
		// that nobody opens it beside what is left running.
		return *err
	}
	var err error
	if !d.opts.ReadOnly {
		// Flushing leaves no write-ahead log to replay: the next start is quick,
		// and the disk holds each byte once.
		err = d.db.Flush()
	}
	return errors.Join(diskError(err), d.release())
}

// release closes what is open.
func (d *disk) release() (err error) {
	if d.segments != nil {
		err = d.segments.close()
	}
	if d.db != nil {
		err = errors.Join(err, d.db.Close())
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return diskError(err)
}

// diskError gives errors of the disk and the database the names of this package.
func diskError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrFull), errors.Is(err, ErrReadOnly):
		return err
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission), errors.Is(err, pebble.ErrReadOnly):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// folderPlace names where a folder is, so that a copy of it has another place:
// the machine and the folder's number in its file system.
func folderPlace(fsys vfs.FS, dir string) string {
	if fsys != vfs.Default {
		return "no place"
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	machine, _ := os.ReadFile("/etc/machine-id")
	if n, ok := folderNumber(abs); ok {
		return fmt.Sprintf("machine %s folder %d", bytes.TrimSpace(machine), n)
	}
	return fmt.Sprintf("machine %s path %s", bytes.TrimSpace(machine), abs)
}

// A syncCounter counts the syncs of a file system.
type syncCounter struct {
	vfs.FS
	n atomic.Uint64
}

type countedFile struct {
	vfs.File
	n *atomic.Uint64
}

func (f countedFile) Sync() error     { f.n.Add(1); return f.File.Sync() }
func (f countedFile) SyncData() error { f.n.Add(1); return f.File.SyncData() }
func (f countedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	if full {
		f.n.Add(1)
	}
	return full, err
}

func (c *syncCounter) counted(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return countedFile{f, &c.n}, nil
}

func (c *syncCounter) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return c.counted(c.FS.Create(name, category))
}

func (c *syncCounter) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return c.counted(c.FS.ReuseForWrite(old, name, category))
}

func (c *syncCounter) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return c.counted(c.FS.OpenReadWrite(name, category, opts...))
}

func (c *syncCounter) OpenDir(name string) (vfs.File, error) { return c.counted(c.FS.OpenDir(name)) }

func (c *syncCounter) Unwrap() vfs.FS { return c.FS }
