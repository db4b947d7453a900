// Package level is a tree as an abstract-level database: the operations and the
// errors that the npm packages of the Level family agree on, and a door to them
// for programs that are not in Go.
//
//	db := level.Open(tree)
//	err := db.Put(ctx, []byte("name"), []byte("value"))
//	it, err := db.Iterator(ctx, level.Range{Gte: []byte("n")})
//	for entry, err := range it.Entries(ctx) {
//		…
//	}
//
// Sublevels are prefixes of keys, which the npm package abstract-level puts there
// itself. The bytes on the door's wire are those of docs/formats/level-door.md,
// and clients/js speaks them.
//
// # What a bee is, and Level is not
//
// Values are never nil: what another writer has put without a value reads as
// empty. Each write is in the tree's history, so a key that was deleted can still
// be read by whoever has the log.
//
// # Concurrency
//
// All methods may be called by any goroutine.
package level

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Code is a kind of error, by its name in abstract-level. Errors of this
// package can be told apart with [errors.Is] and a Code, and [CodeOf] has one
// for each.
type Code string

// The codes that there are here.
const (
	DatabaseNotOpen Code = "LEVEL_DATABASE_NOT_OPEN"
	IteratorNotOpen Code = "LEVEL_ITERATOR_NOT_OPEN"
	IteratorBusy    Code = "LEVEL_ITERATOR_BUSY"
	SnapshotNotOpen Code = "LEVEL_SNAPSHOT_NOT_OPEN"
	InvalidKey      Code = "LEVEL_INVALID_KEY"
	InvalidValue    Code = "LEVEL_INVALID_VALUE"
	NotSupported    Code = "LEVEL_NOT_SUPPORTED"
	ReadOnly        Code = "LEVEL_READONLY"
	Locked          Code = "LEVEL_LOCKED"
	Corruption      Code = "LEVEL_CORRUPTION"
	Aborted         Code = "LEVEL_ABORTED"
	IOError         Code = "LEVEL_IO_ERROR"
)

var codeText = map[Code]string{
	DatabaseNotOpen: "database is not open",
	IteratorNotOpen: "iterator is not open",
	IteratorBusy:    "iterator is busy",
	SnapshotNotOpen: "snapshot is not open",
	InvalidKey:      "key is missing",
	InvalidValue:    "value is missing",
	NotSupported:    "not supported",
	ReadOnly:        "database is read-only",
	Locked:          "somebody else writes to the database",
	Corruption:      "database makes no sense",
	Aborted:         "operation was ended",
	IOError:         "input or output went wrong",
}

// Error implements error.
func (c Code) Error() string { return codeText[c] }

// CodeOf returns the code of an error: IOError if it is none that is known.
func CodeOf(err error) Code {
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	switch {
	case errors.Is(err, hyperbee.ErrReadOnly), errors.Is(err, hypercore.ErrNotWritable):
		return ReadOnly
	case errors.Is(err, hyperbee.ErrConflict):
		return Locked
	case errors.Is(err, hyperbee.ErrInvalid):
		return Corruption
	case errors.Is(err, hyperbee.ErrClosed), errors.Is(err, hypercore.ErrClosed):
		return DatabaseNotOpen
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Aborted
	}
	return IOError
}

// A DB is a tree with the operations of Level, as it is or as it was (Snapshot).
type DB struct {
	tree      *hyperbee.Tree
	parent    *DB  // of a snapshot; nil for the present
	whenEnded Code // what operations fail with after Close

	mu        sync.Mutex
	closed    bool             // guarded by mu
	snapshots map[*DB]struct{} // guarded by mu: those that are open. A parent's mu is taken before its snapshot's
}

// Open returns the database of a tree, which must stay open as long as the
// database is used, and is not closed with it. A tree may have several.
func Open(tree *hyperbee.Tree) *DB {
	return &DB{tree: tree, whenEnded: DatabaseNotOpen, snapshots: map[*DB]struct{}{}}
}

// Close ends the database, and its snapshots and iterators.
func (db *DB) Close() error {
	if db.parent != nil {
		db.parent.mu.Lock()
		defer db.parent.mu.Unlock()
		delete(db.parent.snapshots, db)
	}
	return db.end()
}

func (db *DB) end() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	var errs []error
	for s := range db.snapshots {
		errs = append(errs, s.end())
	}
	db.snapshots = nil
	if db.parent != nil {
		errs = append(errs, db.tree.Close())
	}
	return errors.Join(errs...)
}

// ended returns an error when the database is closed.
func (db *DB) ended() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return db.whenEnded
	}
	return nil
}

// fail is an error of an operation. What goes wrong because the database was
// closed meanwhile says that.
func (db *DB) fail(what string, err error) error {
	if ended := db.ended(); ended != nil {
		err = ended
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Snapshot returns the database as it is now. It can't be changed, and must be
// closed.
func (db *DB) Snapshot(ctx context.Context) (*DB, error) {
	s, err := db.snapshot(ctx, SnapshotNotOpen)
	if err != nil {
		return nil, db.fail("take a snapshot", err)
	}
	return s, nil
}

func (db *DB) snapshot(ctx context.Context, whenEnded Code) (*DB, error) {
	if !db.tree.Writable() && db.tree.Version() == 1 {
		// Nothing is known of it yet, and what there is is with others.
		if err := db.tree.Update(ctx); err != nil {
			return nil, err
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil, db.whenEnded
	}
	tree, err := db.tree.Snapshot()
	if err != nil {
		return nil, err
	}
	s := Open(tree)
	s.parent, s.whenEnded = db, whenEnded
	db.snapshots[s] = struct{}{}
	return s, nil
}

// Get returns the value of a key, nil if there is none: values are never nil.
func (db *DB) Get(ctx context.Context, key []byte) ([]byte, error) {
	value, err := db.get(ctx, key)
	if err != nil {
		return nil, db.fail("get", err)
	}
	return value, nil
}

func (db *DB) get(ctx context.Context, key []byte) ([]byte, error) {
	if key == nil {
		return nil, InvalidKey
	}
	if err := db.ended(); err != nil {
		return nil, err
	}
	e, err := db.tree.Get(ctx, key)
	if errors.Is(err, hyperbee.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return present(e.Value), nil
}

// present is a slice that is not nil.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// GetMany returns the values of keys, in their order.
func (db *DB) GetMany(ctx context.Context, keys [][]byte) ([][]byte, error) {
	values := make([][]byte, len(keys))
	for i, key := range keys {
		value, err := db.get(ctx, key)
		if err != nil {
			return nil, db.fail("get many", err)
		}
		values[i] = value
	}
	return values, nil
}

// Has reports whether there is a key.
func (db *DB) Has(ctx context.Context, key []byte) (bool, error) {
	value, err := db.get(ctx, key)
	if err != nil {
		return false, db.fail("has", err)
	}
	return value != nil, nil
}

// HasMany reports which of some keys there are, in their order.
func (db *DB) HasMany(ctx context.Context, keys [][]byte) ([]bool, error) {
	has := make([]bool, len(keys))
	for i, key := range keys {
		value, err := db.get(ctx, key)
		if err != nil {
			return nil, db.fail("has many", err)
		}
		has[i] = value != nil
	}
	return has, nil
}

// Put sets the value of a key.
func (db *DB) Put(ctx context.Context, key, value []byte) error {
	if err := db.write(ctx, []Change{{Key: key, Value: value}}); err != nil {
		return db.fail("put", err)
	}
	return nil
}

// Del removes a key, if it is there.
func (db *DB) Del(ctx context.Context, key []byte) error {
	if err := db.write(ctx, []Change{{Key: key, Delete: true}}); err != nil {
		return db.fail("delete", err)
	}
	return nil
}

// A Change is one operation of a batch: a put, or with Delete the removal of a
// key.
type Change struct {
	Key, Value []byte
	Delete     bool
}

// Batch makes several changes: all of them or none.
func (db *DB) Batch(ctx context.Context, changes []Change) error {
	if err := db.write(ctx, changes); err != nil {
		return db.fail("batch", err)
	}
	return nil
}

func (db *DB) write(ctx context.Context, changes []Change) error {
	if err := db.ended(); err != nil {
		return err
	}
	if db.parent != nil {
		return ReadOnly
	}
	for _, c := range changes {
		if c.Key == nil {
			return InvalidKey
		}
		if c.Value == nil && !c.Delete {
			return InvalidValue
		}
	}
	if len(changes) == 0 {
		return nil
	}
	batch, err := db.tree.Batch(ctx)
	if err != nil {
		return err
	}
	defer batch.Close()
	for _, c := range changes {
		if c.Delete {
			err = batch.Delete(ctx, c.Key)
		} else {
			err = batch.Put(ctx, c.Key, c.Value)
		}
		if err != nil {
			return err
		}
	}
	return batch.Flush(ctx)
}

// What Clear removes in one batch, at most.
const clearKeys, clearBytes = 1000, 1 << 20

// Clear removes what is in a range, and with at only what was there in that
// snapshot. It does so in several batches: when it fails, some of it is gone.
func (db *DB) Clear(ctx context.Context, r Range, at *DB) error {
	if err := db.clear(ctx, r, at); err != nil {
		return db.fail("clear", err)
	}
	return nil
}

func (db *DB) clear(ctx context.Context, r Range, at *DB) error {
	if at == nil {
		at = db
	}
	it, err := at.Iterator(ctx, r)
	if err != nil {
		return err
	}
	defer it.Close()
	var changes []Change
	size := 0
	for e, err := range it.Entries(ctx) {
		if err != nil {
			return err
		}
		changes = append(changes, Change{Key: e.Key, Delete: true})
		if size += len(e.Key); len(changes) == clearKeys || size >= clearBytes {
			if err := db.write(ctx, changes); err != nil {
				return err
			}
			changes, size = changes[:0], 0
		}
	}
	return db.write(ctx, changes)
}

// A Range says which entries, by their keys. The zero value is all of them. A
// bound that is nil is none; if there are two on one side, Gte and Lte count.
type Range struct {
	Gt, Gte []byte
	Lt, Lte []byte
	// Reverse goes from the last to the first.
	Reverse bool
	// Limit is the most entries to return; 0 is all.
	Limit int
}

// bounds is the range with copies of the bounds that count.
func (r Range) bounds() hyperbee.RangeOptions {
	o := hyperbee.RangeOptions{Reverse: r.Reverse}
	if o.Gte = bytes.Clone(r.Gte); r.Gte == nil {
		o.Gt = bytes.Clone(r.Gt)
	}
	if o.Lte = bytes.Clone(r.Lte); r.Lte == nil {
		o.Lt = bytes.Clone(r.Lt)
	}
	return o
}

// An Entry is a key with its value. Both belong to who got them.
type Entry struct{ Key, Value []byte }

// An Iterator goes through a range, of the database as it was when the iterator
// was made.
type Iterator struct {
	view *DB
	owns bool // the view is closed with it
	all  hyperbee.RangeOptions

	closed  atomic.Bool
	reading sync.Mutex            // held while entries are read, and guards what follows
	rest    hyperbee.RangeOptions // of all, from where it is
	ended   bool                  // there is no more
	limited bool
	left    int // how many more it may return, if limited
}

// Iterator returns an iterator, which must be closed.
func (db *DB) Iterator(ctx context.Context, r Range) (*Iterator, error) {
	it := &Iterator{view: db, all: r.bounds(), limited: r.Limit > 0, left: r.Limit}
	it.rest = it.all
	var err error
	if db.parent == nil {
		it.owns = true
		it.view, err = db.snapshot(ctx, IteratorNotOpen)
	} else {
		err = db.ended()
	}
	if err != nil {
		return nil, db.fail("iterate", err)
	}
	return it, nil
}

// Close ends the iterator.
func (it *Iterator) Close() error {
	if !it.closed.Swap(true) && it.owns {
		return it.view.Close()
	}
	return nil
}

// enter lets one caller in, who has to unlock reading.
func (it *Iterator) enter() error {
	if it.closed.Load() {
		return IteratorNotOpen
	}
	if err := it.view.ended(); err != nil {
		return err
	}
	if !it.reading.TryLock() {
		return IteratorBusy
	}
	return nil
}

// Entries returns the entries from where the iterator is. A loop over them may
// end early, and a later one goes on after it.
func (it *Iterator) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := it.enter(); err != nil {
			yield(Entry{}, fmt.Errorf("iterate: %w", err))
			return
		}
		defer it.reading.Unlock()
		if it.ended || it.limited && it.left == 0 {
			return
		}
		o := it.rest
		o.Limit = it.left
		for e, err := range it.view.tree.Range(ctx, o) {
			if it.closed.Load() {
				err = IteratorNotOpen
			}
			if err != nil {
				yield(Entry{}, it.view.fail("iterate", err))
				return
			}
			it.near(nil, append([]byte{}, e.Key...))
			if it.limited {
				it.left--
			}
			if !yield(Entry{e.Key, present(e.Value)}, nil) {
				return
			}
		}
		it.ended = true
	}
}

// near sets the bound that the iterator begins at: from a key, or after one.
func (it *Iterator) near(from, after []byte) {
	if it.all.Reverse {
		it.rest.Lte, it.rest.Lt = from, after
	} else {
		it.rest.Gte, it.rest.Gt = from, after
	}
}

// Seek moves the iterator to a key, or the next there is in its direction. From
// a key that is not in its range there is nothing to be read. What was returned
// before counts for the limit.
func (it *Iterator) Seek(key []byte) error {
	if key == nil {
		return fmt.Errorf("seek: %w", InvalidKey)
	}
	if err := it.enter(); err != nil {
		return fmt.Errorf("seek: %w", err)
	}
	defer it.reading.Unlock()
	it.near(append([]byte{}, key...), nil)
	it.ended = !contains(it.all, key)
	return nil
}

// contains reports whether a key is in a range.
func contains(o hyperbee.RangeOptions, key []byte) bool {
	return !(o.Gt != nil && bytes.Compare(key, o.Gt) <= 0 ||
		o.Gte != nil && bytes.Compare(key, o.Gte) < 0 ||
		o.Lt != nil && bytes.Compare(key, o.Lt) >= 0 ||
		o.Lte != nil && bytes.Compare(key, o.Lte) > 0)
}
