// Package tree is an ordered map that many devices write, each into a Hyperbee
// of its own, and that all of them derive in the same way from these bees.
//
// What a bee has under a key is its writer's statement: a value, or that the key
// is deleted, when it was said, and which statements of others it supersedes.
// The merged entry is what the statements say that no other one supersedes. If
// these are several they are concurrent: one of them wins on every device, and
// the others are kept beside it until somebody who has seen them all writes
// again.
//
//	t := tree.New(tree.Options{})
//	err := t.Own(bee)            // what this device says
//	err = t.Add(other, 0)        // what another one says
//	b, err := t.Batch(ctx)
//	err = b.Put(ctx, []byte("name"), []byte("value"))
//	err = b.Flush(ctx)
//	e, err := t.Get(ctx, []byte("name"))
//
// The format is docs/formats/tree.md.
//
// # What is read
//
// Nothing waits for peers. Of another device's bee is read the newest version
// that is here whole, also while more of it comes in, so that all can be read
// without a network. Download brings the bees here.
//
// # Time
//
// A statement carries the time of its batch, which is later than that of all
// batches of its writer before, and than what its writer had read (a hybrid
// logical clock). Clocks of others that are more than five minutes ahead are not
// followed.
//
// # Hostile writers
//
// What a writer says is believed as to itself. An entry that makes no sense is
// left out and told to Options.Problem; a bee that makes no sense is left out
// from there on. A writer that claims to have seen what is not yet there can do
// no more than supersede what was said before it.
//
// # Concurrency
//
// All methods may be called by any goroutine, those of a Batch by one at a time.
package tree

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: there is no such entry.
	ErrNotFound = hyperbee.ErrNotFound
	// ErrReadOnly: the tree is one of the past, or this device has no bee in it.
	ErrReadOnly = hyperbee.ErrReadOnly
	// ErrClosed: the tree or the batch was closed.
	ErrClosed = hyperbee.ErrClosed
	// ErrKey: a key is empty.
	ErrKey = errors.New("a key can't be empty")
	// ErrFull: more writers, or more statements of one writer about a key, than a
	// statement can speak of.
	ErrFull = errors.New("too many to speak of")
)

// maxDrift is how far ahead clocks of others may be and still be followed.
const maxDrift = 5 * time.Minute

// A Writer is named by the key of its bee's log.
type Writer = hypercore.Key

// Options for a tree. The zero value is right for most.
type Options struct {
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
	// Problem is told what was left out because it makes no sense, each time that
	// it is come by. It may be called by any goroutine, must return soon and must
	// not use the tree.
	Problem func(Problem)
}

// A Problem is something that a writer said and that makes no sense.
type Problem struct {
	Writer Writer
	Seq    uint64 // of the block, 0 if it is not about one
	Err    error
}

// An Entry is what all writers together say about a key, or, from History, what
// one of them said. Key, Value and Others belong to who got them.
type Entry struct {
	Key []byte
	// Value is nil if the key is deleted, or was never there. An empty value is not
	// nil.
	Value []byte
	Time  time.Time // when it was said
	// Writer and Seq, the block in the writer's log, name the statement.
	Writer Writer
	Seq    uint64
	// Others are statements that are concurrent with this one and say something
	// else, those first that would win without those before. A value wins over a
	// deletion, then what was said later, then the writer with the higher key.
	Others []Entry

	all []dot // of statements about the key that the fields above don't name in full
}

// A statement is one with its writer.
type statement struct {
	record
	m   *member
	seq uint64
}

// A Tree is the map, as it is or as it was.
type Tree struct {
	s      *shared
	past   *view // what it is, if it was checked out
	closed bool  // guarded by s.mu; of one that was checked out
}

// shared is what a tree and what was checked out of it have in common.
type shared struct {
	o Options

	mu      sync.Mutex    // taken before the locks of logs
	writers []*writer     // guarded by mu; only grows
	own     *writer       // guarded by mu; one of writers, or nil
	view    *view         // guarded by mu: the newest that was read, or nil
	closed  bool          // guarded by mu
	more    chan struct{} // guarded by mu: closed when a writer is added or the tree is closed

	toldMu sync.Mutex           // taken after the locks of logs
	told   map[*func()]struct{} // guarded by toldMu: whom Notify tells
}

// A writer is one bee of a tree.
type writer struct {
	key  Writer
	bee  *hyperbee.Tree
	own  bool
	stop func() // ends its notices

	upTo  uint64  // guarded by shared.mu; 0 is no limit
	state state   // guarded by shared.mu: what last was made from
	last  *member // guarded by shared.mu: what was last read, or nil
	whole uint64  // guarded by shared.mu: a version that ends a batch, whatever follows
}

// New returns a tree without writers. It must be closed.
func New(o Options) *Tree {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	return &Tree{s: &shared{o: o, told: map[*func()]struct{}{}, more: make(chan struct{})}}
}

// Own gives the tree the bee that this device writes. There can be one. It must
// stay open until the tree is closed, and nobody else may write to it.
func (t *Tree) Own(bee *hyperbee.Tree) error { return t.add(bee, 0, true) }

// Add gives the tree the bee of another writer. What is beyond version upTo is
// taken as not there, now and for ever; 0 is no limit. Adding a bee again sets
// upTo, which must be a version that some device's tree had of the writer. The
// bee must stay open until the tree is closed.
func (t *Tree) Add(bee *hyperbee.Tree, upTo uint64) error { return t.add(bee, upTo, false) }

func (t *Tree) add(bee *hyperbee.Tree, upTo uint64, own bool) error {
	if t.past != nil {
		return fmt.Errorf("add writer %s: %w", bee.Log().Key(), ErrReadOnly)
	}
	news, err := t.s.add(bee, upTo, own)
	if err != nil {
		return fmt.Errorf("add writer %s: %w", bee.Log().Key(), err)
	}
	if news { // who is told may say the same again, and would never end
		t.s.tell()
	}
	return nil
}

// add reports whether anything is different now.
func (s *shared) add(bee *hyperbee.Tree, upTo uint64, own bool) (news bool, err error) {
	key := bee.Log().Key()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return false, ErrClosed
	case own && s.own != nil:
		return false, fmt.Errorf("this device writes to %s already", s.own.key)
	}
	for _, w := range s.writers {
		if w.key != key {
			continue
		}
		if own || w.own {
			return false, errors.New("it was added before")
		}
		if w.upTo == upTo {
			return false, nil
		}
		w.upTo = upTo
		s.announce()
		return true, nil
	}
	w := &writer{key: key, bee: bee, own: own, upTo: upTo}
	stop, err := bee.Log().Notify(func(e hypercore.Event) {
		switch e.Kind {
		case hypercore.Appended, hypercore.Received, hypercore.Truncated, hypercore.Lagged:
			s.tell()
		}
	})
	if err != nil {
		return false, err
	}
	w.stop = stop
	s.writers = append(s.writers, w)
	if own {
		s.own = w
	}
	s.announce()
	return true, nil
}

// announce tells that there is another set of writers. s.mu is held.
func (s *shared) announce() {
	close(s.more)
	s.more = make(chan struct{})
}

// Notify calls f when a writer may have said more, was added or was cut, until stop
// is called. f must return soon and must not use the tree or its logs.
func (t *Tree) Notify(f func()) (stop func()) {
	s := t.s
	s.toldMu.Lock()
	defer s.toldMu.Unlock()
	s.told[&f] = struct{}{}
	return func() {
		s.toldMu.Lock()
		defer s.toldMu.Unlock()
		delete(s.told, &f)
	}
}

func (s *shared) tell() {
	s.toldMu.Lock()
	told := slices.Collect(maps.Keys(s.told))
	s.toldMu.Unlock()
	for _, f := range told {
		(*f)()
	}
}

func (s *shared) problem(w *writer, seq uint64, err error) {
	if s.o.Problem != nil {
		s.o.Problem(Problem{w.key, seq, err})
	}
}

// Writable reports whether this device can write to the tree.
func (t *Tree) Writable() bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.past == nil && t.s.own != nil
}

// Close ends the tree. The bees are left open. What was checked out is closed for
// itself.
func (t *Tree) Close() error {
	s := t.s
	s.mu.Lock()
	if t.past != nil || s.closed {
		t.closed = true
		s.mu.Unlock()
		return nil
	}
	s.closed, s.view = true, nil
	writers := s.writers
	s.announce()
	s.mu.Unlock()
	for _, w := range writers {
		w.stop()
	}
	return nil
}
