package dynamodb

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// ErrNotFound is what a [Reader] says of a key, and [Trees] of a tree, that is not
// there.
var ErrNotFound = hyperbee.ErrNotFound

// ErrTooEarly is what [Tree].At says of a time before the tree was made.
var ErrTooEarly = errors.New("the tree was not there yet")

// An Entry is a key with its value. They belong to who got them.
type Entry struct{ Key, Value []byte }

// A Reader is an ordered map.
type Reader interface {
	// Get returns the value of a key, or ErrNotFound.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// Range returns entries in the order of keys. It ends with the first error.
	Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error]
}

// A Tree is an ordered map that batches change, and that can be read as it was.
// Methods may be called by any goroutine.
type Tree interface {
	Reader
	// Batch begins a batch, once no other is open.
	Batch(ctx context.Context) (Batch, error)
	// At returns the tree as it was at a time.
	At(ctx context.Context, t time.Time) (View, error)
	// Writer names who writes here, alone among all writers of the tree.
	Writer() [8]byte
	// Shared reports whether others write to the tree, too. What follows from an
	// item is then written again with it each time, or it might be lost where
	// changes of two writers meet.
	Shared() bool
	// Close ends the use of the tree.
	Close() error
}

// changes is another number after each change of a tree that others write to, too.
func changes(t Tree) uint64 {
	if c, ok := t.(interface{ Changes() uint64 }); ok {
		return c.Changes()
	}
	return 0
}

// A Batch is changes that are all done, in one durable append, or none. One
// goroutine uses it, and it must be flushed or closed. It reads with its changes.
type Batch interface {
	Reader
	Put(ctx context.Context, key, value []byte) error
	Delete(ctx context.Context, key []byte) error
	// Flush makes the changes durable and ends the batch.
	Flush(ctx context.Context) error
	// Close ends a batch that was not flushed.
	Close()
}

// A View is a tree of the past.
type View interface {
	Reader
	Close() error
}

// Trees has the trees of a door by their names, which the door makes up. Methods
// may be called by any goroutine.
type Trees interface {
	// Open returns a tree, or ErrNotFound if there is none and create is false.
	// The door opens a tree once at a time to write; one of a table that is gone it
	// may open several times, to read.
	Open(ctx context.Context, name string, create bool) (Tree, error)
	// Delete removes a tree, which is not open. One that is not there is no error.
	Delete(ctx context.Context, name string) error
}
