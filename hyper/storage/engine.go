package storage

import "errors"

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: there is nothing under that key or name.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt: bytes on the disk are not those that were written.
	ErrCorrupt = errors.New("corrupt data")
	// ErrFull: the disk has too little free space to write safely.
	ErrFull = errors.New("disk full")
	// ErrLocked: another live process has the store open.
	ErrLocked = errors.New("store is open in another process")
	// ErrReadOnly: the store or the disk does not take writes.
	ErrReadOnly = errors.New("read-only")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrVersion: the data was written by a newer version of this program.
	ErrVersion = errors.New("written by a newer version")
)

// Durability says when a write is acknowledged.
type Durability uint8

const (
	// Durable writes are on the disk, fsynced, when they are acknowledged.
	Durable Durability = iota
	// Soon writes are acknowledged before that, and on the disk within 100 ms. A
	// crash may lose the newest of them, never an older one without the newer.
	Soon
)

// An Engine is an ordered map of byte strings with atomic batches: the seam
// between logs and what they are kept on. It has three forms: OpenDisk,
// NewMemory, and the faulty disk of package storagetest, whose Run is the suite
// that every form passes.
//
// Besides small values there are blobs, in a key space of their own, for
// values that are large and never merged; an engine may keep them elsewhere.
//
// All methods may be called by any goroutine. Keys and values passed in are not
// kept and not changed.
type Engine interface {
	Reader
	// Apply makes all of a batch visible at once, or nothing of it. It returns
	// when the batch is as durable as asked for. Batches become durable in the
	// order in which they were applied.
	Apply(b *Batch, d Durability) error
	// Sync returns when everything applied before is durable.
	Sync() error
	// Snapshot returns a view of this moment. It must be closed: until then the
	// space of what is deleted is not given back.
	Snapshot() (Snapshot, error)
	// Stats returns what the engine uses and has done.
	Stats() (Stats, error)
	// Close makes everything durable and ends the engine, once those who use it
	// are done. Snapshots should have been closed; they can't be read any more.
	Close() error
}

// A Reader reads one state of an engine.
type Reader interface {
	// Get returns the value of a key, owned by the caller, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Blob returns the blob of a key, owned by the caller, or ErrNotFound. It may
	// lie in buf, if that has room for it and a little more.
	Blob(key, buf []byte) ([]byte, error)
	// Scan calls f with the keys from <= key < to in order, until it returns
	// false; to the last key when to is nil. Key and value are valid during the
	// call only. What f writes to the engine is not met.
	Scan(from, to []byte, f func(key, value []byte) bool) error
}

// A Snapshot reads an engine as it was at one moment.
type Snapshot interface {
	Reader
	// Close ends the snapshot. It may be called once.
	Close() error
}

// Stats is what an engine uses and has done since it was opened.
type Stats struct {
	DiskBytes uint64 // bytes of all its files, as the disk counts them
	Syncs     uint64 // fsyncs and the like
}

// A Batch is a list of changes that are made together. Its zero value is empty
// and ready; it may be used again after Reset. It keeps copies of keys, and of
// values passed to Set and Merge; blobs stay the caller's until Apply returns.
type Batch struct {
	ops  []op
	then func() error
	buf  []byte
}

type opKind uint8

const (
	opSet opKind = iota
	opMerge
	opDelete
	opDeleteRange
	opSetBlob
	opDeleteBlobs
)

type op struct {
	kind  opKind
	key   []byte
	value []byte // of a range: its end
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.then = nil
	clear(b.ops)
	b.ops, b.buf = b.ops[:0], b.buf[:0]
}

// Then sets what Apply calls once, before anything is visible, to add the rest
// of the batch. An engine may be writing the blobs that were set before
// meanwhile. When f fails, so does Apply, with its error, and changes nothing.
func (b *Batch) Then(f func() error) { b.then = f }

// complete calls what Then set.
func (b *Batch) complete() error {
	if b.then == nil {
		return nil
	}
	f := b.then
	b.then = nil
	return f()
}

// Len returns the number of changes.
func (b *Batch) Len() int { return len(b.ops) }

func (b *Batch) add(kind opKind, key, value []byte) {
	b.ops = append(b.ops, op{kind, b.keep(key), value})
}

// addOwned is add for keys and values that are the batch's from now on.
func (b *Batch) addOwned(kind opKind, key, value []byte) {
	b.ops = append(b.ops, op{kind, key, value})
}

func (b *Batch) keep(p []byte) []byte {
	if cap(b.buf)-len(b.buf) < len(p) {
		b.buf = make([]byte, 0, max(1<<10, 2*cap(b.buf), len(p)))
	}
	n := len(b.buf)
	b.buf = append(b.buf, p...)
	return b.buf[n:len(b.buf):len(b.buf)]
}

// Set gives the key a value.
func (b *Batch) Set(key, value []byte) { b.add(opSet, key, b.keep(value)) }

// Merge appends to the key's value, which is empty when there is none.
func (b *Batch) Merge(key, value []byte) { b.add(opMerge, key, b.keep(value)) }

// Delete removes a key. It need not exist.
func (b *Batch) Delete(key []byte) { b.add(opDelete, key, nil) }

// DeleteRange removes the keys from <= key < to, and no blobs.
func (b *Batch) DeleteRange(from, to []byte) { b.add(opDeleteRange, from, b.keep(to)) }

// SetBlob gives the key a blob. If it has one, that must be deleted first, which
// may be in the same batch.
func (b *Batch) SetBlob(key, blob []byte) { b.add(opSetBlob, key, blob) }

// DeleteBlobs removes the blobs with keys from <= key < to.
func (b *Batch) DeleteBlobs(from, to []byte) { b.add(opDeleteBlobs, from, b.keep(to)) }
