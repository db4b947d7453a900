package storage

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
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
	// trimDelay is how long after a deletion old logs go.
	trimDelay = 3 * time.Second
	// reclaimDelay is how long after a deletion its space is given back.
	reclaimDelay = time.Second
	// fullCheckBytes is how much is written between looks at the free space.
	fullCheckBytes = 4 << 20
	defaultMinFree = 64 << 20
	// maxFreeing is the size of a batch that may be meant to free space.
	maxFreeing = 1 << 20
)

// Key spaces of the database.
const (
	spaceBlob    = 'b' // blob key -> blob of less than blobInline
	spaceCounter = 'c' // segment number, uint32 BE -> live bytes, int64 LE, summed when merged
	spaceLarge   = 'l' // blob key -> pointer to a blob of blobInline or more
	spaceMeta    = 'm' // name -> the engine's own facts
	spaceValue   = 'v' // key -> value, appended when merged
)

// diskFormat is the version of the folder's format.
const diskFormat = 1

type disk struct {
	opts     Disk
	db       *pebble.DB
	lock     io.Closer // nil on a read-only disk
	unlocked sync.Once
	segments *segments
	files    *guard
	users    gate // closed before the database is
	copied   bool // the folder was made elsewhere

	// blobs is held shared by writers of blobs, from before they reach a segment
	// until their pointers are committed, and by those that delete blobs; and
	// alone by the collector when it moves some.
	blobs sync.RWMutex

	unchecked atomic.Int64 // bytes written since the last look at free space
	full      atomic.Bool

	group    syncGroup
	unsynced atomic.Bool // something was written since the last sync began

	mu         sync.Mutex // guards the fields below
	closed     bool
	soon       clock.Timer // a sync that is due
	collect    clock.Timer // a collection that is due
	trim       clock.Timer // a removal of old logs that is due
	background sync.WaitGroup
	snapshots  map[*diskSnapshot]bool
	snapshoted uint64          // number of the snapshot that was made last
	doomed     []doomed        // in the order of their snapshots
	stuck      map[uint32]bool // segments that can't be collected
}

// A doomed segment holds nothing that is alive, but a snapshot may read it.
type doomed struct {
	segment  uint32
	snapshot uint64 // the last that may
}

// Open opens or makes the store's folder. A store that was closed properly is
// opened for writing only with the first write: until then nothing on the disk
// changes, and opening it takes no sync.
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
	e, err := o.open()
	if err != nil {
		var copied *CopiedError
		if errors.As(err, &copied) {
			return nil, err
		}
		return nil, fmt.Errorf("open store %s: %w", o.Dir, err)
	}
	return e, nil
}

func newDisk(o Disk) *disk {
	d := &disk{opts: o, users: newGate(), snapshots: map[*diskSnapshot]bool{}, stuck: map[uint32]bool{}}
	d.files = newGuard(d)
	d.full.Store(true) // until the first write has looked
	return d
}

func (o Disk) open() (Engine, error) {
	d := newDisk(o)
	if !o.ReadOnly {
		if err := d.makeFolder(); err != nil {
			return nil, diskError(err)
		}
	} else if _, err := o.FS.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no store: %w", ErrNotFound)
	} else if err != nil {
		return nil, diskError(err)
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if r := d.reader(); r != nil {
		return &lazyDisk{writer: d, reader: r}, nil
	}
	if err := d.start(); err != nil {
		return nil, err
	}
	return d, nil
}

// start opens what is in the folder, whose lock is held. When it fails it lets
// go of the lock.
func (d *disk) start() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, d.release(false))
		} else {
			d.files.blobs.Store(d.segments)
			d.files.armed.Store(true)
		}
	}()
	if err := d.checkMarker(); err != nil {
		return err
	}
	if err := d.roomToOpen(); err != nil {
		return err
	}
	if err := d.checkFiles(); err != nil {
		return diskError(err)
	}
	d.db, err = pebble.Open(d.opts.Dir, d.pebbleOptions())
	switch {
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		return fmt.Errorf("there is no store: %w", ErrNotFound)
	case err != nil && strings.Contains(err.Error(), "unknown format major version"):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	case err != nil:
		return diskError(err)
	}
	if err := d.checkMeta(); err != nil {
		return err
	}
	if d.segments, err = openSegments(plainGuard{d.files}, d.opts.FS.PathJoin(d.opts.Dir, "blobs"), d.opts.ReadOnly); err != nil {
		return diskError(err)
	}
	if err := d.loadCounters(); err != nil {
		return err
	}
	if !d.opts.ReadOnly {
		d.mu.Lock()
		d.scheduleCollectLocked(reclaimDelay)
		d.mu.Unlock()
	}
	return nil
}

// openRoom is how much room there has to be to open a store for writing, beside
// that for what its logs have.
const openRoom = 1 << 20

// roomToOpen tells whether there is room to open the store for writing. Without,
// Pebble would try to flush its logs again and again, and never return.
func (d *disk) roomToOpen() error {
	if d.opts.ReadOnly {
		return nil
	}
	need := uint64(openRoom)
	names, err := d.opts.FS.List(d.opts.Dir)
	if err != nil {
		return diskError(err)
	}
	for _, name := range names {
		if info, err := d.opts.FS.Stat(d.path(name)); isLog(name) && err == nil {
			need += uint64(info.Size())
		}
	}
	if u, err := d.opts.FS.GetDiskUsage(d.opts.Dir); err == nil && u.AvailBytes < need {
		return fmt.Errorf("%w: %d KiB are free, %d are needed to open it; free some space", ErrFull, u.AvailBytes>>10, need>>10)
	}
	return nil
}

// checkMarker refuses a folder that has a store but not the marker of its
// manifest: Pebble would begin a new one in its place.
func (d *disk) checkMarker() error {
	names, err := d.opts.FS.List(d.opts.Dir)
	if err != nil {
		return diskError(err)
	}
	manifest := ""
	for _, name := range names {
		if strings.HasPrefix(name, markerPrefix+"manifest.") {
			return nil
		}
		// The first one is without a marker when making the store was interrupted.
		if strings.HasPrefix(name, "MANIFEST-") && name != "MANIFEST-000001" {
			manifest = name
		}
	}
	if manifest != "" {
		return fmt.Errorf("%w: there is %s, but no marker file that says which manifest counts; restore the folder from a copy", ErrCorrupt, manifest)
	}
	return nil
}

// makeFolder makes the store's folder and, for its entry to be there after a
// power cut, syncs those above that it makes.
func (d *disk) makeFolder() error {
	var above []string
	for dir := d.opts.Dir; ; {
		if _, err := d.opts.FS.Stat(dir); err == nil {
			break
		}
		up := d.opts.FS.PathDir(dir)
		if up == dir {
			break
		}
		above = append(above, up)
		dir = up
	}
	if len(above) == 0 {
		return nil
	}
	if err := d.opts.FS.MkdirAll(d.opts.Dir, 0o700); err != nil {
		return err
	}
	for _, dir := range above {
		f, err := d.files.OpenDir(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// takeLock makes sure that no other process has the folder open. A read-only
// disk can't have a writer.
func (d *disk) takeLock() error {
	lock, err := d.opts.FS.Lock(d.opts.FS.PathJoin(d.opts.Dir, "LOCK"))
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
	if err == nil {
		_, err = fmt.Fprintf(f, "process %d\n", os.Getpid())
		err = errors.Join(err, f.Close())
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) { // who has it is told, but the lock is what counts
		return errors.Join(diskError(err), lock.Close())
	}
	return nil
}

func (d *disk) pebbleOptions() *pebble.Options {
	// The values were measured; docs/why.md has the reasons.
	o := &pebble.Options{
		FS:                          d.files,
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
	// Pebble's value separation is left off: one bad bit in a blob file of it ends
	// the process (v2.1.7, findOrCreateBlob).
	return o
}

// diskLogger gets Pebble's log. Pebble does not expect to go on after Fatalf.
// Here it does, but no writing of it reaches the disk any more (see guard), and
// nobody gets to read from it.
type diskLogger struct{ d *disk }

func (diskLogger) Infof(string, ...any)  {}
func (diskLogger) Errorf(string, ...any) {}
func (l diskLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, a := range args {
		if e, ok := a.(error); ok {
			err = e
		}
	}
	l.d.files.fail(err, true)
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
	if len(m.older) == 0 && len(m.newer) == 1 {
		return m.newer[0], nil, nil
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
			b.Set([]byte("mid"), id, nil))
		if err != nil {
			return err
		}
		return d.begin(b)
	}
	if err != nil {
		return err
	}
	if len(format) != 1 || format[0] > diskFormat {
		return fmt.Errorf("store format %x: %w", format, ErrVersion)
	}
	place, err := d.get(spaceMeta, []byte("place"))
	if err != nil {
		return err
	}
	d.copied = !d.isAt(string(place))
	switch {
	case d.opts.ReadOnly:
		return nil
	case !d.copied:
		d.resettle()
		return nil
	case !d.opts.Adopt:
		return &CopiedError{Dir: d.opts.Dir}
	}
	return d.begin(d.db.NewBatch())
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

// guard returns why a batch of that size can't be written, or nil. A batch that
// frees removes more than it adds.
func (d *disk) guard(size int, frees bool) error {
	if d.opts.ReadOnly {
		return ErrReadOnly
	}
	if err := d.files.failure(); err != nil {
		return err
	}
	if d.files.waiting.Load() > 0 {
		return fmt.Errorf("%w: no space or quota is left; free some and write again", ErrFull)
	}
	if d.full.Load() || d.unchecked.Add(int64(size)) > fullCheckBytes {
		d.unchecked.Store(0)
		u, err := d.opts.FS.GetDiskUsage(d.opts.Dir)
		d.full.Store(err == nil && u.AvailBytes < d.opts.MinFree)
		// What gives space back may use half of the reserve.
		if d.full.Load() && (!frees || u.AvailBytes < d.opts.MinFree/2) {
			return fmt.Errorf("%w: %d MiB are free, %d are kept in reserve; free some space and write again",
				ErrFull, u.AvailBytes>>20, d.opts.MinFree>>20)
		}
	}
	return nil
}

func (d *disk) Apply(b *Batch, durability Durability) error {
	if !d.users.enter() {
		return ErrClosed
	}
	defer d.users.leave()
	size, small, blobs, frees := 0, 0, false, false
	for i := range b.ops {
		op := &b.ops[i]
		size += len(op.key) + len(op.value)
		blobs = blobs || op.kind == opDeleteBlobs || op.kind == opSetBlob
		frees = frees || op.kind == opDeleteBlobs || op.kind == opDeleteRange || op.kind == opDelete
		if op.kind != opSetBlob || len(op.value) < blobInline {
			small += len(op.key) + len(op.value)
		}
	}
	if err := d.guard(size, frees && size < maxFreeing); err != nil {
		return err
	}
	if blobs {
		d.blobs.RLock()
		defer d.blobs.RUnlock()
	}
	pb := d.db.NewBatchWithSize(small + 32*len(b.ops))
	changes, err := d.fill(pb, b, durability == Soon)
	if err != nil {
		return errors.Join(diskError(err), pb.Close())
	}
	if err := d.commit(pb, pebble.NoSync); err != nil {
		return err
	}
	d.unsynced.Store(true)
	if durability == Durable {
		if err := d.group.sync(d.sync); err != nil {
			return err
		}
	}
	d.segments.addLive(changes)
	if durability == Soon || blobs || frees {
		d.mu.Lock()
		if frees {
			d.scheduleTrimLocked()
		}
		if durability == Soon {
			d.scheduleSyncLocked()
		}
		if blobs {
			d.scheduleCollectLocked(reclaimDelay)
		}
		d.mu.Unlock()
	}
	return nil
}

// fill turns the batch into one of the database, writing its large blobs to
// segments first. It returns how the live bytes of segments change.
func (d *disk) fill(pb *pebble.Batch, b *Batch, soon bool) (changes map[uint32]int64, err error) {
	f := filling{d: d, pb: pb}
	if f.pointers, err = d.writeLarge(b, soon); err != nil {
		return nil, err
	}
	for i := range b.ops {
		if err := f.add(&b.ops[i]); err != nil {
			return nil, err
		}
	}
	for segment, n := range f.changes {
		if err := mergeCounter(pb, segment, n); err != nil {
			return nil, err
		}
	}
	return f.changes, nil
}

// writeLarge writes the large blobs of a batch to segments and completes the
// batch meanwhile. It returns where the blobs are, in their order.
func (d *disk) writeLarge(b *Batch, soon bool) ([]pointer, error) {
	large := largeBlobs(b.ops)
	if len(large) == 0 || b.then == nil {
		if err := b.complete(); err != nil {
			return nil, err
		}
		return d.writeSegments(largeBlobs(b.ops), soon)
	}
	before := len(b.ops)
	var pointers []pointer
	done := make(chan error, 1)
	go func() {
		var err error
		pointers, err = d.writeSegments(large, soon)
		done <- err
	}()
	err := b.complete()
	if err = errors.Join(err, <-done); err != nil {
		return nil, err
	}
	more, err := d.writeSegments(largeBlobs(b.ops[before:]), soon)
	return append(pointers, more...), err
}

func (d *disk) writeSegments(blobs []op, soon bool) ([]pointer, error) {
	if len(blobs) == 0 {
		return nil, nil
	}
	return d.segments.write(blobs, soon)
}

func largeBlobs(ops []op) (out []op) {
	for i := range ops {
		if op := &ops[i]; op.kind == opSetBlob && len(op.value) >= blobInline {
			out = append(out, *op)
		}
	}
	return out
}

// A filling is a batch of the database in the making.
type filling struct {
	d        *disk
	pb       *pebble.Batch
	key      []byte
	pointers []pointer // of large blobs that are yet to be added
	changes  map[uint32]int64
	placed   map[string]pointer // large blobs of this batch
	deleted  []*op
	blobs    bool // it has some
}

// at returns a key of the database, valid until the next call.
func (f *filling) at(space byte, key []byte) []byte {
	f.key = append(append(f.key[:0], space), key...)
	return f.key
}

func (f *filling) add(op *op) error {
	switch op.kind {
	case opSet:
		return f.pb.Set(f.at(spaceValue, op.key), op.value, nil)
	case opMerge:
		return f.pb.Merge(f.at(spaceValue, op.key), op.value, nil)
	case opDelete:
		return f.pb.Delete(f.at(spaceValue, op.key), nil)
	case opDeleteRange:
		return f.pb.DeleteRange(f.at(spaceValue, op.key), append([]byte{spaceValue}, op.value...), nil)
	case opDeleteBlobs:
		return f.deleteBlobs(op)
	}
	f.blobs = true
	f.count(string(op.key), nil)
	if len(op.value) >= blobInline {
		p := f.pointers[0]
		f.pointers = f.pointers[1:]
		f.count(string(op.key), &p)
		return f.pb.Set(f.at(spaceLarge, op.key), p.append(nil), nil)
	}
	return f.pb.Set(f.at(spaceBlob, op.key), op.value, nil)
}

// count counts a large blob of this batch as alive, or as dead when p is nil.
func (f *filling) count(key string, p *pointer) {
	if p == nil {
		if old, ok := f.placed[key]; ok {
			f.change(old.segment, -old.recordSize(len(key)))
			delete(f.placed, key)
		}
		return
	}
	if f.placed == nil {
		f.placed = map[string]pointer{}
	}
	f.placed[key] = *p
	f.change(p.segment, p.recordSize(len(key)))
}

func (f *filling) change(segment uint32, n int) {
	if f.changes == nil {
		f.changes = map[uint32]int64{}
	}
	f.changes[segment] += int64(n)
}

// deleteBlobs removes blobs, and counts those in segments as dead.
func (f *filling) deleteBlobs(del *op) error {
	in := func(key []byte, del *op) bool {
		return bytes.Compare(del.key, key) <= 0 && bytes.Compare(key, del.value) < 0
	}
	some, err := f.d.some(spaceBlob, del.key, del.value)
	if err != nil {
		return err
	}
	err = f.d.pointers(del.key, del.value, func(key []byte, p pointer) {
		some = true
		// Not twice what this batch deletes twice.
		again := slices.ContainsFunc(f.deleted, func(d *op) bool { return in(key, d) })
		if !again {
			f.change(p.segment, -p.recordSize(len(key)))
		}
	})
	for key := range f.placed {
		if in([]byte(key), del) {
			f.count(key, nil)
		}
	}
	if err != nil || !some && !f.blobs {
		return err
	}
	f.deleted = append(f.deleted, del)
	for _, space := range []byte{spaceBlob, spaceLarge} {
		if err := f.pb.DeleteRange(f.at(space, del.key), append([]byte{space}, del.value...), nil); err != nil {
			return err
		}
	}
	return nil
}

func mergeCounter(pb *pebble.Batch, segment uint32, n int64) error {
	return pb.Merge(counterKey(segment), binary.LittleEndian.AppendUint64(nil, uint64(n)), nil)
}

// pointers calls f for each large blob of a range; of all, when to is nil.
func (d *disk) pointers(from, to []byte, f func(key []byte, p pointer)) error {
	var bad error
	err := d.scan(d.db, spaceLarge, from, to, func(key, value []byte) bool {
		p, ok := parsePointer(value)
		if !ok {
			bad = fmt.Errorf("blob pointer %x: %w", value, ErrCorrupt)
			return false
		}
		f(key, p)
		return true
	})
	return errors.Join(err, bad)
}

// some reports whether there is a key in a range.
func (d *disk) some(space byte, from, to []byte) (some bool, err error) {
	err = d.scan(d.db, space, from, to, func(_, _ []byte) bool {
		some = true
		return false
	})
	return some, err
}

// commit applies the batch and frees it.
func (d *disk) commit(pb *pebble.Batch, sync *pebble.WriteOptions) error {
	if err := d.db.Apply(pb, sync); err != nil {
		return diskError(err)
	}
	if err := d.files.failure(); err != nil {
		return err // it only looked as if it was written
	}
	return pb.Close()
}

func (d *disk) Sync() error {
	if !d.users.enter() {
		return ErrClosed
	}
	defer d.users.leave()
	return d.group.sync(d.sync)
}

func (d *disk) sync() error {
	if err := d.files.failure(); err != nil {
		return err
	}
	if d.opts.ReadOnly {
		return nil
	}
	d.unsynced.Store(false)
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
		if d.unsynced.Load() {
			// What fails here fails for the next writer too, who is told.
			_ = d.sync()
		}
	})
}

func (d *disk) Get(key []byte) ([]byte, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.users.leave()
	return d.getFrom(d.db, spaceValue, key)
}

// enter lets a reader in, who must leave.
func (d *disk) enter() error {
	if !d.users.enter() {
		return ErrClosed
	}
	if f := d.files.failed.Load(); f != nil && f.broken {
		d.users.leave()
		return f.err
	}
	return nil
}

func (d *disk) get(space byte, key []byte) ([]byte, error) { return d.getFrom(d.db, space, key) }

func (d *disk) getFrom(r pebble.Reader, space byte, key []byte) ([]byte, error) {
	var buf [64]byte
	value, closer, err := r.Get(append(append(buf[:0], space), key...))
	if err != nil {
		return nil, diskError(err)
	}
	out := append(make([]byte, 0, len(value)), value...)
	return out, closer.Close()
}

func (d *disk) Blob(key, buf []byte) ([]byte, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.users.leave()
	return d.blobFrom(d.db, key, buf)
}

func (d *disk) blobFrom(r pebble.Reader, key, buf []byte) ([]byte, error) {
	large := cap(buf) >= blobInline // who has room for a large one asks for one
	for misses, moved := 0, 0; ; {
		space := byte(spaceBlob)
		if large {
			space = spaceLarge
		}
		value, err := d.getFrom(r, space, key)
		if errors.Is(err, ErrNotFound) && misses < 3 {
			misses++ // both twice: one of another size may have come between
			large = !large
			continue
		}
		if err != nil || !large {
			return value, err
		}
		p, ok := parsePointer(value)
		if !ok {
			return nil, fmt.Errorf("blob pointer %x: %w", value, ErrCorrupt)
		}
		data, err := d.segments.read(p, key, buf)
		if errors.Is(err, fs.ErrNotExist) {
			// The collector may have moved it since the pointer was read.
			if moved++; moved <= 3 {
				continue
			}
			return nil, fmt.Errorf("segment %d is missing: %w", p.segment, ErrCorrupt)
		}
		return data, err
	}
}

func (d *disk) Scan(from, to []byte, f func(key, value []byte) bool) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.users.leave()
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
	d      *disk
	number uint64
	users  gate
}

func (s *diskSnapshot) enter() error {
	if err := s.d.enter(); err != nil {
		return err
	}
	if !s.users.enter() {
		s.d.users.leave()
		return ErrClosed
	}
	return nil
}

func (s *diskSnapshot) leave() {
	s.users.leave()
	s.d.users.leave()
}

func (d *disk) Snapshot() (Snapshot, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.users.leave()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.snapshoted++
	s := &diskSnapshot{d.db.NewSnapshot(), d, d.snapshoted, newGate()}
	d.snapshots[s] = true
	return s, nil
}

func (s *diskSnapshot) Get(key []byte) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.d.getFrom(s.Snapshot, spaceValue, key)
}

func (s *diskSnapshot) Blob(key, buf []byte) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.d.blobFrom(s.Snapshot, key, buf)
}

func (s *diskSnapshot) Scan(from, to []byte, f func(key, value []byte) bool) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.d.scan(s.Snapshot, spaceValue, from, to, f)
}

func (s *diskSnapshot) Close() error {
	d := s.d
	if !d.users.enter() {
		return ErrClosed
	}
	defer d.users.leave()
	d.mu.Lock()
	if !d.snapshots[s] {
		d.mu.Unlock()
		return ErrClosed
	}
	delete(d.snapshots, s)
	oldest := d.snapshoted + 1
	for open := range d.snapshots {
		oldest = min(oldest, open.number)
	}
	n := 0
	for n < len(d.doomed) && d.doomed[n].snapshot < oldest {
		n++
	}
	free := d.doomed[:n:n]
	d.doomed = d.doomed[n:]
	d.mu.Unlock()
	<-s.users.close()
	err := s.Snapshot.Close()
	for _, f := range free {
		err = errors.Join(err, d.segments.remove(f.segment))
	}
	return diskError(err)
}

func (d *disk) Stats() (Stats, error) {
	if err := d.enter(); err != nil {
		return Stats{}, err
	}
	defer d.users.leave()
	size := d.db.Metrics().DiskSpaceUsage() + d.segments.size()
	return Stats{DiskBytes: size, Syncs: d.files.syncs.Load()}, nil
}

func (d *disk) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return ErrClosed
	}
	d.closed = true
	for _, t := range []clock.Timer{d.soon, d.collect, d.trim} {
		if t != nil && t.Stop() {
			d.background.Done()
		}
	}
	d.mu.Unlock()
	close(d.files.closing) // who waits for space gives up
	done := make(chan error, 1)
	go func() { done <- d.finish() }()
	select {
	case err := <-done:
		return err
	case <-d.files.dead:
	}
	// Some of what runs may have stopped for good. It can't reach the disk any
	// more, so others may.
	return errors.Join(d.files.failure(), d.unlock())
}

// finish closes a store that nobody enters any more. It may not return when the
// store fails.
func (d *disk) finish() error {
	<-d.users.close()
	d.background.Wait()
	for s := range d.snapshots {
		// Its owner should have closed it, or the database can't be.
		_ = s.Snapshot.Close()
	}
	var err error
	if !d.opts.ReadOnly {
		// Flushing leaves no write-ahead log to replay: the next start is quick,
		// and the disk holds each byte once.
		if err = d.sync(); err == nil {
			d.resettle()
			err = diskError(d.db.Flush())
		}
	}
	return errors.Join(err, d.release(err == nil && !d.opts.ReadOnly))
}

// release closes what is open and lets others in. flushed says that all is in
// tables.
func (d *disk) release(flushed bool) (err error) {
	if d.segments != nil {
		err = d.segments.close()
	}
	if d.db != nil {
		err = errors.Join(err, d.db.Close())
	}
	if err == nil && flushed {
		if err = d.removeOldLogs(func() int { return 1 }); err == nil {
			err = d.seal()
		}
	}
	return diskError(errors.Join(err, d.unlock()))
}

// scheduleTrimLocked makes a removal of old logs due, after the flush that a
// deletion causes.
func (d *disk) scheduleTrimLocked() {
	if d.trim != nil || d.closed {
		return
	}
	d.background.Add(1)
	d.trim = d.opts.Clock.AfterFunc(trimDelay, func() {
		defer d.background.Done()
		d.mu.Lock()
		d.trim = nil
		d.mu.Unlock()
		// What stays is removed with the next one, or when the store is closed.
		_ = d.removeOldLogs(func() int { return int(d.db.Metrics().WAL.Files) })
	})
}

// removeOldLogs removes the write-ahead logs that Pebble keeps to use their
// files again (see guard.ReuseForWrite): all but the last so many.
func (d *disk) removeOldLogs(keep func() int) error {
	names, err := d.opts.FS.List(d.opts.Dir)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !isLog(name) })
	slices.SortFunc(names, func(a, b string) int { // by number
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	for _, name := range names[:max(0, len(names)-keep())] {
		if err := d.files.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (d *disk) unlock() (err error) {
	d.unlocked.Do(func() {
		if d.lock != nil {
			err = d.lock.Close()
		}
	})
	return err
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
