// Package hyperbee is an ordered key-value tree on a log: keys and values are
// bytes, and each change is a block, so that every version of the tree can still
// be read, by whoever has the log's key.
//
// Blocks are those of the npm package hyperbee 2 to the byte: what either side
// writes, the other reads.
//
//	tree, err := hyperbee.Open(log, hyperbee.Options{})
//	err = tree.Put(ctx, []byte("name"), []byte("value"))
//	entry, err := tree.Get(ctx, []byte("name"))
//	for entry, err := range tree.Range(ctx, hyperbee.RangeOptions{Gte: []byte("n")}) {
//		…
//	}
//
// # Versions
//
// The version of a tree is the length of its log, 1 when it is empty. Checkout
// returns the tree as it was at a version, Diff says what is different between
// two, and History returns the changes one by one.
//
// # Trees of others
//
// Blocks that are not here are fetched through the log, and only those that lead
// to what was asked for. A tree that makes no sense ends in an error that wraps
// ErrInvalid and names the log and the block, after a bounded amount of work.
//
// # Concurrency
//
// All methods may be called by any goroutine, those of a Batch by one at a time.
// Reading goes on while somebody writes, and sees the version it began with.
// Writers wait for each other. No more than one Tree that Open returned may
// write to a log.
package hyperbee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/replicate"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: there is no such entry. That a block is not here, and nobody to
	// fetch it from, is hypercore.ErrNotFound.
	ErrNotFound = errors.New("no such entry")
	// ErrInvalid: the log is not one of a tree, or one of its blocks makes no sense.
	ErrInvalid = errors.New("invalid tree")
	// ErrReadOnly: versions of the past can't be changed.
	ErrReadOnly = errors.New("tree is read-only")
	// ErrTruncated: the log was truncated meanwhile.
	ErrTruncated = hypercore.ErrTruncated
	// ErrConflict: somebody else appended to the log meanwhile.
	ErrConflict = hypercore.ErrConflict
	// ErrClosed: the tree or the batch was closed.
	ErrClosed = errors.New("tree is closed")
)

// Options for a tree. The zero value is right for most.
type Options struct {
	// Cache bounds the memory for decoded blocks. Several trees may share one. When
	// nil, the tree has one of its own of 64 MiB, which about 150,000 small entries
	// take.
	Cache *Cache
	// Metadata is written to the header of a tree that is new.
	Metadata *Metadata
	// SkipEqual leaves out puts of what an entry has already. They are written
	// otherwise, as the npm package does.
	SkipEqual bool
	// Durability of what is written; hypercore.Durable when zero.
	Durability hypercore.Durability
	// Store has the log, and replicates it: a *corestore.Store. With it, the tree
	// exchanges hints with its peers (Hint) from the beginning until it is closed.
	Store Store
}

// A Store tells who exchanges a log with peers.
type Store interface {
	// OnReplicator calls f with the log's replicator once there is one, before
	// peers are heard, and not after stop has returned.
	OnReplicator(log hypercore.Key, f func(*replicate.Replicator)) (stop func(), err error)
}

// defaultCache is the size in bytes of a cache of one tree.
const defaultCache = 64 << 20

// An Entry is a key with its value. Both belong to who got them.
type Entry struct {
	// Seq is the number of the block that has the entry: the version of the tree
	// without it.
	Seq   uint64
	Key   []byte
	Value []byte // nil if the entry has none, which is not the same as an empty one
}

// A Tree is a database on a log, or one of the databases in it (Sub), as it is
// or as it was (Checkout).
type Tree struct {
	s       *shared
	prefix  []byte      // of all keys
	pin     *pin        // what keeps a version of the past; nil for the present
	version uint64      // with a pin
	closed  atomic.Bool // with a pin
	unhint  func()      // ends what Options.Store began; only of the Tree that Open returned
}

// shared is what the trees on one log have in common.
type shared struct {
	log    *hypercore.Log
	o      Options
	cache  *cache
	writer chan struct{} // holds a token while somebody writes
	closed atomic.Bool
	hints  atomic.Pointer[hints]
}

// A pin holds a snapshot of the log for the trees of one checkout, or the log
// itself as it is while its fork is the same.
type pin struct {
	log  *hypercore.Log
	fork uint64
	live bool // log is the tree's own

	mu    sync.Mutex
	users int    // guarded by mu
	cache *cache // guarded by mu: used once the log is of another fork than the snapshot
}

// Open returns the tree on a log, which must stay open as long as the tree is
// used. A log with nothing in it is an empty tree.
func Open(log *hypercore.Log, o Options) (*Tree, error) {
	if o.Cache == nil {
		o.Cache = NewCache(defaultCache)
	}
	if m := o.Metadata; m != nil {
		o.Metadata = &Metadata{bytes.Clone(m.ContentFeed), bytes.Clone(m.UserData)}
	}
	t := &Tree{s: &shared{log: log, o: o, cache: o.Cache.newLog(), writer: make(chan struct{}, 1)}}
	if log.Has(0) {
		if _, err := t.Header(context.Background()); err != nil {
			return nil, err
		}
	}
	if o.Store != nil {
		unhint, err := t.hintWith(o.Store)
		if err != nil {
			return nil, fmt.Errorf("open tree: %w", err)
		}
		t.unhint = unhint
	}
	return t, nil
}

// Close ends the tree, and frees what a checkout keeps, or a shared cache. The log
// is left open. A tree that is no checkout and was opened without a Store or a
// Cache need not be closed, nor what Sub makes of it.
func (t *Tree) Close() error {
	if t.pin == nil {
		if len(t.prefix) > 0 || t.s.closed.Swap(true) {
			return nil
		}
		if t.unhint != nil {
			t.unhint()
		}
		t.s.cache.turn(over)
		return nil
	}
	if t.closed.Swap(true) {
		return nil
	}
	return t.pin.release()
}

// isClosed reports whether the tree was closed, or the one that it is the Sub of.
func (t *Tree) isClosed() bool {
	if t.pin == nil {
		return t.s.closed.Load()
	}
	return t.closed.Load()
}

// with returns another user of the pin, nil of none.
func (p *pin) with() *pin {
	if p != nil {
		p.mu.Lock()
		p.users++
		p.mu.Unlock()
	}
	return p
}

func (p *pin) release() error {
	p.mu.Lock()
	p.users--
	last := p.users == 0
	if last && p.cache != nil {
		p.cache.turn(over)
	}
	p.mu.Unlock()
	if !last || p.live {
		return nil
	}
	return p.log.Close()
}

// Log returns the log that the tree is on.
func (t *Tree) Log() *hypercore.Log { return t.s.log }

// Version returns the version of the tree.
func (t *Tree) Version() uint64 {
	if t.pin != nil {
		return t.version
	}
	return max(1, t.s.log.Length())
}

// Writable reports whether the tree can be changed here.
func (t *Tree) Writable() bool { return t.pin == nil && t.s.log.Writable() }

// Header returns the header of the tree: ErrNotFound if the tree was never
// written to.
func (t *Tree) Header(ctx context.Context) (Header, error) {
	fail := func(err error) (Header, error) {
		return Header{}, fmt.Errorf("read header of log %s: %w", t.s.log.Key(), err)
	}
	log := t.s.log
	if t.pin != nil {
		log = t.pin.log
	}
	if err := t.learn(ctx); err != nil {
		return fail(err)
	}
	if log.Length() == 0 {
		return fail(ErrNotFound)
	}
	raw, err := log.Get(ctx, 0)
	if err != nil {
		return fail(err)
	}
	h, err := ReadHeader(raw)
	if err == nil && h.Protocol != protocolName {
		err = fmt.Errorf("it is of %.40q", h.Protocol)
	}
	if err != nil {
		return fail(fmt.Errorf("block 0: %w: %w", ErrInvalid, err))
	}
	return h, nil
}

// learn asks peers how long the log is when nothing at all is known of it.
func (t *Tree) learn(ctx context.Context) error {
	if t.pin != nil || t.s.log.Length() > 0 || t.s.log.Writable() {
		return nil
	}
	return t.s.log.Update(ctx)
}

// Update asks peers for the newest version. New versions also come by
// themselves, a little later.
func (t *Tree) Update(ctx context.Context) error {
	if t.pin != nil {
		return nil
	}
	return t.s.log.Update(ctx)
}

// Sub returns the tree of the entries whose keys begin with prefix and a zero
// byte; in it, they have their keys without that. It is the same checkout, if
// t is one.
func (t *Tree) Sub(prefix []byte) *Tree { return t.SubWith(prefix, []byte{0}) }

// SubWith is Sub with something else than a zero byte after the prefix.
func (t *Tree) SubWith(prefix, separator []byte) *Tree {
	return &Tree{s: t.s, prefix: slices.Concat(t.prefix, prefix, separator), pin: t.pin.with(), version: t.version}
}

// Snapshot returns the tree as it is now. It must be closed, and stays readable
// when the log is truncated.
func (t *Tree) Snapshot() (*Tree, error) { return t.checkout(0) }

// Checkout returns the tree as it was at a version, read-only. It must be
// closed, and so must what Sub makes of it. Between the changes of one batch
// there is no version that makes sense.
func (t *Tree) Checkout(version uint64) (*Tree, error) { return t.checkout(max(1, version)) }

// checkout is Checkout, of the newest version when it is 0.
func (t *Tree) checkout(version uint64) (*Tree, error) {
	fail := func(err error) (*Tree, error) {
		return nil, fmt.Errorf("checkout version %d of log %s: %w", version, t.s.log.Key(), err)
	}
	if t.isClosed() {
		return fail(ErrClosed)
	}
	view := &Tree{s: t.s, prefix: t.prefix, version: version}
	newest := t.version
	if t.pin == nil {
		// The whole log, of which all roots are held, is kept: those of an earlier
		// length may not be here.
		log, err := t.s.log.Snapshot()
		if err != nil {
			return fail(err)
		}
		newest = max(1, log.Length())
		view.pin = &pin{log: log, fork: log.Fork(), users: 1}
	} else {
		view.pin = t.pin.with()
	}
	if version == 0 {
		view.version = newest
	}
	if version > newest {
		view.Close()
		return fail(fmt.Errorf("%w: the newest is %d", hypercore.ErrLength, newest))
	}
	return view, nil
}

// Pinned is Checkout without a snapshot of the log: it costs next to nothing, keeps
// no space from being freed, and need not be closed. It can't be read any more
// once the log is truncated (ErrTruncated).
func (t *Tree) Pinned(version uint64) (*Tree, error) {
	version = max(1, version)
	head := t.s.log.Head()
	newest := max(1, head.Length)
	view := &Tree{s: t.s, prefix: t.prefix, version: version}
	if t.pin != nil {
		newest, view.pin = t.version, &pin{log: t.pin.log, fork: t.pin.fork, live: true, users: 1}
	} else {
		view.pin = &pin{log: t.s.log, fork: head.Fork, live: true, users: 1}
	}
	switch {
	case t.isClosed():
		return nil, fmt.Errorf("pin version %d of log %s: %w", version, t.s.log.Key(), ErrClosed)
	case version > newest:
		return nil, fmt.Errorf("pin version %d of log %s: %w: the newest is %d", version, t.s.log.Key(), hypercore.ErrLength, newest)
	}
	return view, nil
}
