package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Segments are the files that hold large blobs, each written once from front to
// back:
//
//	file   = "bevyseg" version(1 byte) record*
//	record = crc(uint32) keyLen(uint16) valueLen(uint32) key value
//
// with little-endian numbers; crc is CRC-32C of all of the record after it. A
// file is never appended to after the process that made it ends, so a torn tail
// stays what it is: bytes that no pointer leads to.

const (
	segmentMagic  = "bevyseg\x01"
	segmentHeader = 4 + 2 + 4
	segmentLimit  = 64 << 20 // a file is full from here on
	segmentHurry  = 1 << 20  // so many bytes are handed to the disk at once
	segmentSoon   = 16 << 20 // so many bytes may wait for a sync: the next durable write waits for it, too
	segmentFiles  = 16       // files kept open for reading
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pointerVersion begins a stored pointer, which has 13 bytes.
const (
	pointerVersion = 1
	pointerSize    = 1 + 12
)

// A pointer says where a blob's record is.
type pointer struct {
	segment, offset, length uint32 // length of the value
}

func (p pointer) append(b []byte) []byte {
	b = append(b, pointerVersion)
	b = binary.LittleEndian.AppendUint32(b, p.segment)
	b = binary.LittleEndian.AppendUint32(b, p.offset)
	return binary.LittleEndian.AppendUint32(b, p.length)
}

func (p pointer) recordSize(keyLen int) int { return segmentHeader + keyLen + int(p.length) }

func parsePointer(b []byte) (pointer, bool) {
	if len(b) != pointerSize || b[0] != pointerVersion {
		return pointer{}, false
	}
	return pointer{
		segment: binary.LittleEndian.Uint32(b[1:]),
		offset:  binary.LittleEndian.Uint32(b[5:]),
		length:  binary.LittleEndian.Uint32(b[9:]),
	}, true
}

// segments keeps the segment files of one store.
type segments struct {
	fs       vfs.FS
	dir      string
	readOnly bool

	writing sync.Mutex // one writer at a time; taken before mu
	syncing sync.Mutex // one sync at a time; taken before mu

	// Guarded by writing.
	queued int64 // bytes of active that the system was told to write
	waits  bool  // it waits when told

	mu      sync.Mutex // guards the fields below
	made    bool       // the folder exists
	next    uint32
	active  vfs.File
	current uint32           // number of active
	end     int64            // bytes written to active
	synced  int64            // bytes of active that are on the disk
	broken  map[uint32]int64 // files that failed: bytes that are on the disk
	soonIn  uint32           // the segment that was written to last without a sync
	soon    int64            // up to where
	sizes   map[uint32]int64
	live    map[uint32]int64
	open    map[uint32]*segmentFile
	clock   uint64
}

type segmentFile struct {
	vfs.File
	refs int
	used uint64
	gone bool // close when the last reader is done
}

func openSegments(fsys vfs.FS, dir string, readOnly bool) (*segments, error) {
	s := &segments{fs: fsys, dir: dir, readOnly: readOnly, next: 1,
		broken: map[uint32]int64{}, sizes: map[uint32]int64{}, live: map[uint32]int64{}, open: map[uint32]*segmentFile{}}
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	s.made = true
	for _, name := range names {
		n, err := strconv.ParseUint(strings.TrimSuffix(name, ".seg"), 10, 32)
		if err != nil || !strings.HasSuffix(name, ".seg") {
			continue
		}
		info, err := fsys.Stat(s.path(uint32(n)))
		if err != nil {
			return nil, fmt.Errorf("segment %d: %w", n, err)
		}
		s.sizes[uint32(n)] = info.Size()
		s.next = max(s.next, uint32(n)+1)
	}
	return s, nil
}

func (s *segments) path(n uint32) string {
	return s.fs.PathJoin(s.dir, fmt.Sprintf("%08d.seg", n))
}

// write appends the blobs and returns where they are, once they are on the
// disk; or, if that is to be soon and is not too much, at once: see syncSoon.
func (s *segments) write(blobs []op, soon bool) ([]pointer, error) {
	pointers, err := s.append(blobs, soon)
	if err != nil || soon && !s.late() {
		return pointers, err
	}
	last := pointers[len(pointers)-1]
	return pointers, s.sync(last.segment, int64(last.offset)+int64(last.recordSize(len(blobs[len(blobs)-1].key))))
}

func (s *segments) append(blobs []op, soon bool) (pointers []pointer, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	pointers = make([]pointer, 0, len(blobs))
	for i := range blobs {
		op := &blobs[i]
		if s.active == nil || s.end >= segmentLimit || s.isBroken(s.current) {
			if err := s.roll(); err != nil {
				return nil, err
			}
		}
		head := make([]byte, segmentHeader, segmentHeader+len(op.key))
		binary.LittleEndian.PutUint16(head[4:], uint16(len(op.key)))
		binary.LittleEndian.PutUint32(head[6:], uint32(len(op.value)))
		head = append(head, op.key...)
		crc := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, op.value)
		binary.LittleEndian.PutUint32(head, crc)
		_, err := s.active.Write(head)
		if err == nil {
			_, err = s.active.Write(op.value)
		}
		if err == nil {
			err = s.hurry()
		}
		if err != nil {
			// What was written is unreachable; go on in a new file. Others may wait
			// for a sync of this one.
			_ = s.sync(s.current, s.end)
			s.dropActive()
			return nil, fmt.Errorf("write segment: %w", err)
		}
		p := pointer{segment: s.current, offset: uint32(s.end), length: uint32(len(op.value))}
		pointers = append(pointers, p)
		s.mu.Lock()
		s.end += int64(p.recordSize(len(op.key)))
		s.sizes[s.current] = s.end
		s.mu.Unlock()
	}
	if soon {
		s.mu.Lock()
		// What was not synced of a file that failed stays what syncSoon fails for.
		if synced, broken := s.broken[s.soonIn]; !broken || synced >= s.soon {
			s.soonIn, s.soon = s.current, s.end
		}
		s.mu.Unlock()
	}
	return pointers, nil
}

// late reports whether much waits for a sync.
func (s *segments) late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end-s.synced > segmentSoon
}

// syncSoon returns when all that was to be on the disk soon is. It comes before
// anything that points there is written to any file.
func (s *segments) syncSoon() error {
	s.mu.Lock()
	segment, end := s.soonIn, s.soon
	s.mu.Unlock()
	if end == 0 {
		return nil
	}
	return s.sync(segment, end)
}

// hurry lets the system begin to write what it has of the active file, where it
// can do that without waiting, so that there is less left for the sync.
func (s *segments) hurry() error {
	if s.waits || s.end-s.queued < segmentHurry {
		return nil
	}
	s.queued = s.end
	waited, err := s.active.SyncTo(s.end)
	s.waits = waited
	return err
}

// roll ends the active file, if any, and begins a new one. Its caller holds
// writing.
func (s *segments) roll() error {
	if s.active != nil {
		if !s.isBroken(s.current) {
			if err := s.sync(s.current, s.end); err != nil {
				return err
			}
		}
		s.dropActive()
	}
	if !s.made {
		if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
			return fmt.Errorf("make segment folder: %w", err)
		}
		if err := s.syncFolder(s.fs.PathDir(s.dir)); err != nil {
			return err
		}
		s.made = true
	}
	f, err := s.fs.Create(s.path(s.next), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make segment: %w", err)
	}
	if _, err := f.Write([]byte(segmentMagic)); err != nil {
		return errors.Join(fmt.Errorf("write segment: %w", err), f.Close())
	}
	if err := s.syncFolder(s.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	s.mu.Lock()
	s.active, s.current, s.end, s.synced = f, s.next, int64(len(segmentMagic)), 0
	s.queued = 0
	s.sizes[s.current] = s.end
	s.next++
	s.mu.Unlock()
	return nil
}

// dropActive closes the active file. Its caller holds writing.
func (s *segments) dropActive() {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil {
		_ = s.active.Close() // all that matters was synced
		s.active = nil
		if s.synced < s.end {
			s.broken[s.current] = s.synced
		}
	}
}

func (s *segments) syncFolder(dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// sync returns when the first end bytes of a segment are on the disk. Those who
// wait while another syncs share the next sync.
func (s *segments) sync(segment uint32, end int64) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	f, written := s.active, s.end
	done := f == nil || s.current != segment || s.synced >= end
	synced, broken := s.broken[segment]
	s.mu.Unlock()
	if broken && synced < end {
		return fmt.Errorf("sync segment %d: writing to it failed before", segment)
	}
	if broken || done {
		return nil // a file is synced whole before the next one begins
	}
	if err := f.SyncData(); err != nil {
		// A second sync may succeed though the data was lost in the first.
		s.mu.Lock()
		s.broken[segment] = s.synced
		s.mu.Unlock()
		return fmt.Errorf("sync segment %d: %w", segment, err)
	}
	s.mu.Lock()
	s.synced = written
	s.mu.Unlock()
	return nil
}

// read returns a blob.
func (s *segments) read(p pointer, key, buf []byte) ([]byte, error) {
	f, err := s.acquire(p.segment)
	if err != nil {
		return nil, err
	}
	defer s.release(f)
	if size := p.recordSize(len(key)); size > 1<<20 {
		// Don't believe a length before it is checked.
		if info, err := f.Stat(); err != nil || info.Size() < int64(p.offset)+int64(size) {
			return nil, fmt.Errorf("segment %d at %d: %w: record of %d bytes", p.segment, p.offset, ErrCorrupt, size)
		}
	}
	record := slices.Grow(buf[:0], int(p.recordSize(len(key))))[:p.recordSize(len(key))]
	if n, err := f.ReadAt(record, int64(p.offset)); n < len(record) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("segment %d at %d: %w: %w", p.segment, p.offset, ErrCorrupt, err)
	}
	if crc32.Checksum(record[4:], castagnoli) != binary.LittleEndian.Uint32(record) ||
		int(binary.LittleEndian.Uint16(record[4:])) != len(key) ||
		binary.LittleEndian.Uint32(record[6:]) != p.length ||
		string(record[segmentHeader:segmentHeader+len(key)]) != string(key) {
		return nil, fmt.Errorf("segment %d at %d: wrong checksum: %w", p.segment, p.offset, ErrCorrupt)
	}
	return record[segmentHeader+len(key):], nil
}

func (s *segments) acquire(n uint32) (*segmentFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	if f := s.open[n]; f != nil {
		f.refs++
		f.used = s.clock
		return f, nil
	}
	file, err := s.fs.Open(s.path(n))
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	if len(s.open) >= segmentFiles {
		s.evictLocked()
	}
	f := &segmentFile{File: file, refs: 1, used: s.clock}
	s.open[n] = f
	return f, nil
}

func (s *segments) evictLocked() {
	oldest := uint32(0)
	for n, f := range s.open {
		if oldest == 0 || f.used < s.open[oldest].used {
			oldest = n
		}
	}
	s.dropLocked(oldest)
}

func (s *segments) dropLocked(n uint32) {
	if f := s.open[n]; f != nil {
		delete(s.open, n)
		f.gone = true
		if f.refs == 0 {
			_ = f.Close() // opened for reading
		}
	}
}

func (s *segments) release(f *segmentFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.refs--
	if f.gone && f.refs == 0 {
		_ = f.Close() // opened for reading
	}
}

// forget stops counting a segment that is to be removed.
func (s *segments) forget(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sizes, n)
	delete(s.live, n)
}

func (s *segments) remove(n uint32) error {
	s.forget(n)
	s.mu.Lock()
	s.dropLocked(n)
	s.mu.Unlock()
	if err := s.fs.Remove(s.path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove segment: %w", err)
	}
	return nil
}

func (s *segments) has(n uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.sizes[n]
	return ok
}

func (s *segments) setLive(live map[uint32]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = live
}

func (s *segments) addLive(changes map[uint32]int64) {
	if len(changes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, c := range changes {
		s.live[n] += c
	}
}

func (s *segments) size() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, size := range s.sizes {
		n += uint64(size)
	}
	return n
}

const (
	// Of small segments, which every start and stop of a writer leaves, there may
	// be this many.
	smallSegment  = 8 << 20
	smallSegments = 8
	// smallActive is the size under which the active segment is left alone.
	smallActive = 1 << 20
)

// wasteful returns the segments of which less than half is alive, and the small
// ones when there are many; and none that is stuck.
func (s *segments) wasteful(stuck map[uint32]bool) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out, small []uint32
	for n, size := range s.sizes {
		live := s.live[n]
		active := s.active != nil && n == s.current
		switch {
		case stuck[n]:
		case active && live > 0 && size < smallActive:
		case 2*live < size:
			out = append(out, n)
		case !active && size < smallSegment:
			small = append(small, n)
		}
	}
	if len(small) > smallSegments {
		out = append(out, small...)
	}
	slices.Sort(out)
	return out
}

// alive returns how many bytes of a segment are alive.
func (s *segments) alive(n uint32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[n]
}

func (s *segments) isBroken(n uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.broken[n]
	return ok
}

// seal makes sure that nothing more is written to a segment.
func (s *segments) seal(n uint32) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.active != nil && s.current == n {
		if err := s.sync(n, s.end); err != nil && !s.isBroken(n) {
			return err
		}
		s.dropActive()
	}
	return nil
}

// records calls f with the key and place of each whole record of a segment,
// without reading the values.
func (s *segments) records(n uint32, f func(key []byte, p pointer) error) error {
	file, err := s.acquire(n)
	if err != nil {
		return err
	}
	defer s.release(file)
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("segment %d: %w", n, err)
	}
	head := make([]byte, segmentHeader)
	for at := int64(len(segmentMagic)); at+segmentHeader <= info.Size(); {
		if _, err := file.ReadAt(head, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("segment %d at %d: %w", n, at, err)
		}
		key := make([]byte, binary.LittleEndian.Uint16(head[4:]))
		p := pointer{segment: n, offset: uint32(at), length: binary.LittleEndian.Uint32(head[6:])}
		next := at + int64(p.recordSize(len(key)))
		if next > info.Size() {
			return nil // a torn tail
		}
		if _, err := file.ReadAt(key, at+segmentHeader); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("segment %d at %d: %w", n, at, err)
		}
		if err := f(key, p); err != nil {
			return err
		}
		at = next
	}
	return nil
}

func (s *segments) close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var err error
	if s.active != nil {
		err = s.sync(s.current, s.end)
		s.dropActive()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.open {
		s.dropLocked(n)
	}
	return err
}

// counterKey is where the database counts a segment's live bytes.
func counterKey(n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{spaceCounter}, n)
}
