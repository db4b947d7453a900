// Package content keeps the contents of files as blocks in logs, one log for each
// writer, and finds them by a [Ref].
//
// What is small is one block. What is larger is cut where its bytes say, and a
// tree of nodes, blocks themselves, says which chunks it is made of. A chunk or a
// node that the content before it has already is not stored again, whichever
// device's log it is in, so that a small change to a large file costs a chunk and
// a few nodes.
//
//	store := content.New(content.Options{})
//	err := store.Own(log)
//	hold := store.Hold() // until the Ref is kept somewhere
//	ref, err := hold.Put(ctx, []byte("hello"))
//	r, err := store.NewReader(ctx, ref)
//	hold.Release()
//
// The bytes are described in docs/formats/folder.md. Encryption is that of the
// logs' sessions.
//
// # What is on the disk
//
// Blocks are appended as hypercore.Soon: they are on the disk once [Store.Sync]
// returned, or once something that was written to the same store afterwards is. So
// an entry that names a Ref and is written durably is never there without it.
//
// # Refs of others
//
// A Ref and the nodes below it may say anything. What makes no sense is
// [ErrInvalid], and costs no more memory than a few nodes.
package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrInvalid: a Ref, or what it leads to, makes no sense.
	ErrInvalid = errors.New("invalid content")
	// ErrNotFound: the log or the block is not here, and nobody has it to give.
	ErrNotFound = hypercore.ErrNotFound
	// ErrReadOnly: no log of this device's own was given.
	ErrReadOnly = errors.New("no content log can be written here")
)

// A Hash is the SHA-256 of a content.
type Hash = [sha256.Size]byte

// NewHash returns what makes the Hash of bytes that are not stored.
func NewHash() hash.Hash { return sha256.New() }

// A LogID names a log among those of one store: it is the beginning of its key.
type LogID [8]byte

func idOf(key hypercore.Key) LogID { return LogID(key[:8]) }

// A Ref says what a content is and where. Equal contents have equal hashes and
// sizes, but may be in different places. Its zero value is no content.
type Ref struct {
	Size  int64
	Hash  Hash
	log   LogID
	index uint64
	depth uint8 // of nodes above the chunks; 0 when the block is the content
}

// IsZero reports whether the Ref is none. That of an empty file is one.
func (r Ref) IsZero() bool { return r == Ref{} }

// Same reports whether both are the same bytes.
func (r Ref) Same(other Ref) bool { return r.Size == other.Size && r.Hash == other.Hash }

// Bounds of what is read.
const (
	maxDepth   = 6
	maxSize    = 1 << 52
	refVersion = 1
)

var emptyHash = Hash(sha256.Sum256(nil))

// AppendTo appends the Ref's bytes, which it must have been read from or written
// with: at most 64.
func (r Ref) AppendTo(b []byte) []byte {
	b = append(b, refVersion)
	b = compact.AppendUint(b, uint64(r.Size))
	if r.Size == 0 {
		return b
	}
	b = append(b, r.Hash[:]...)
	b = append(b, r.log[:]...)
	b = compact.AppendUint(b, r.index)
	return append(b, r.depth)
}

// ReadRef reads a Ref, whose log need not be known.
func ReadRef(d *compact.Decoder) (Ref, error) {
	fail := func(err error) (Ref, error) { return Ref{}, fmt.Errorf("%w: ref: %w", ErrInvalid, err) }
	if v := d.Uint8(); d.Err() == nil && v != refVersion {
		return fail(fmt.Errorf("version %d", v))
	}
	r := Ref{Size: int64(d.Uint()), Hash: emptyHash}
	if d.Err() == nil && r.Size > 0 {
		r.Hash = d.Fixed32()
		copy(r.log[:], d.Fixed(len(r.log)))
		r.index = d.Uint()
		r.depth = d.Uint8()
	}
	switch err := d.Err(); {
	case err != nil:
		return fail(err)
	case r.Size > maxSize, r.index > maxSize, r.depth > maxDepth, r.depth == 0 && r.Size > hypercore.MaxBlock:
		return fail(errors.New("its numbers make no sense"))
	}
	return r, nil
}

// Options for New. The zero value is right.
type Options struct {
	// ChunkSize is about how large the chunks of large contents are; 64 KiB when 0.
	// Devices that write the same folder must have the same, or they share nothing.
	ChunkSize int
	// Archive is asked for what no device at hand has. It may be nil.
	Archive Archive
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
}

// A Store reads contents from the logs it was given, and writes them to one. Any
// goroutine may call its methods.
type Store struct {
	o      Options
	cutter hyperblobs.Cutter

	mu    sync.Mutex // guards what is below
	logs  map[LogID]*source
	own   *source
	holds map[*Hold]bool
	sweep *sweep // that is going on
	told  map[*func()]bool

	writers atomic.Int64 // that are open

	clearing sync.RWMutex // held for reading by what may name old blocks anew; taken before mu
}

// A source is a log with contents.
type source struct {
	id   LogID
	log  *hypercore.Log
	upTo uint64 // blocks from here on are as if they were not there; 0 is no limit

	archiveUntil time.Time // an archive is asked before peers; guarded by the store's mu
}

// New returns a store without logs.
func New(o Options) *Store {
	if o.ChunkSize <= 0 {
		o.ChunkSize = hyperblobs.DefaultBlockSize
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	return &Store{
		o: o, cutter: hyperblobs.NewCutter(o.ChunkSize),
		logs: map[LogID]*source{}, holds: map[*Hold]bool{}, told: map[*func()]bool{},
	}
}

// Own gives the store the log that this device writes, one at most. Nobody else
// may append to it. Logs stay the caller's to close, after the store's last use.
func (s *Store) Own(log *hypercore.Log) error { return s.add(log, 0, true) }

// Add gives the store a log that somebody else writes, or that this device wrote
// before. What is in its blocks from upTo on is taken as not there; 0 is no limit.
// The session must be one that may clear blocks: not a read-only one.
func (s *Store) Add(log *hypercore.Log, upTo uint64) error { return s.add(log, upTo, false) }

func (s *Store) add(log *hypercore.Log, upTo uint64, own bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := &source{id: idOf(log.Key()), log: log, upTo: upTo}
	if own && s.own != nil {
		return errors.New("add content log: there is one to write already")
	}
	if s.logs[src.id] != nil {
		return fmt.Errorf("add content log %s: it, or one whose key begins the same, is there", log.Key())
	}
	s.logs[src.id] = src
	if own {
		s.own = src
	}
	for f := range s.told {
		(*f)()
	}
	return nil
}

// Notify calls f when a log was added, until stop is called. f must return soon, and
// must not use the store.
func (s *Store) Notify(f func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told[&f] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.told, &f)
	}
}

// Logs returns the logs, this device's own first.
func (s *Store) Logs() []*hypercore.Log {
	var out []*hypercore.Log
	for _, src := range s.sources() {
		out = append(out, src.log)
	}
	return out
}

func (s *Store) sources() []*source {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*source
	for _, src := range s.logs {
		out = append(out, src)
	}
	slices.SortFunc(out, func(a, b *source) int {
		switch {
		case a == s.own:
			return -1
		case b == s.own:
			return 1
		}
		return slices.Compare(a.id[:], b.id[:])
	})
	return out
}

// A Follower brings what others append to their logs, so that contents come while
// they are being written, before anything names them. What was there before it does
// not bring. It is one goroutine's at a time.
type Follower struct {
	s      *Store
	mu     sync.Mutex
	logs   map[LogID]bool // that are followed
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
}

// Follow returns a follower, to be closed.
func (s *Store) Follow(ctx context.Context) *Follower {
	f := &Follower{s: s, logs: map[LogID]bool{}}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.Look()
	return f
}

// Look begins to follow logs that were added, or that nobody had before.
func (f *Follower) Look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, src := range f.s.sources() {
		if f.logs[src.id] || src.upTo > 0 || src.log.Writable() || !src.log.HasSource() {
			continue
		}
		f.logs[src.id] = true
		f.all.Go(func() {
			// What it can't bring is asked for by who reads it.
			_ = src.log.Download(f.ctx, hypercore.DownloadRange{From: src.log.Length(), Live: true})
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.logs, src.id)
		})
	}
}

// Close ends it.
func (f *Follower) Close() {
	f.cancel()
	f.all.Wait()
}

func (s *Store) source(id LogID) (*source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.logs[id]; src != nil {
		return src, nil
	}
	return nil, fmt.Errorf("content log %x…: %w", id, ErrNotFound)
}

// has reports whether the block that a pointer names is held here.
func (s *Store) has(p pointer) bool {
	src, err := s.source(p.log)
	return err == nil && src.holds(p.index)
}

func (src *source) holds(index uint64) bool {
	return (src.upTo == 0 || index < src.upTo) && src.log.Has(index)
}

// block returns the block that a pointer names.
func (s *Store) block(ctx context.Context, p pointer) ([]byte, error) { return s.blockIn(ctx, p, nil) }

// chunk is blockIn for a chunk, whose size is known.
func (s *Store) chunk(ctx context.Context, p pointer, buf []byte) ([]byte, error) {
	data, err := s.blockIn(ctx, p, buf)
	if err == nil && int64(len(data)) != p.size {
		err = fmt.Errorf("%w: a chunk has %d bytes, not %d", ErrInvalid, len(data), p.size)
	}
	return data, err
}

// blockIn is block, but a large one may lie in buf.
func (s *Store) blockIn(ctx context.Context, p pointer, buf []byte) ([]byte, error) {
	src, err := s.source(p.log)
	if err != nil {
		return nil, err
	}
	if src.upTo > 0 && p.index >= src.upTo {
		return nil, fmt.Errorf("block %d of content log %s, which counts up to %d: %w", p.index, src.log.Key(), src.upTo, ErrNotFound)
	}
	if p.index >= src.log.Length() {
		if src.log.Writable() {
			return nil, fmt.Errorf("%w: block %d of content log %s, which has %d", ErrInvalid, p.index, src.log.Key(), src.log.Length())
		}
		if err := hyperblobs.Grow(ctx, src.log, p.index+1, s.o.Clock); err != nil {
			return nil, err
		}
	}
	if s.o.Archive != nil && !src.log.Has(p.index) {
		var want runs.Set
		want.Add(runs.Range{Start: p.index, End: p.index + 1})
		if err := s.fetch(ctx, src, false, &want); err != nil {
			return nil, err
		}
	}
	return src.log.GetIn(ctx, p.index, buf)
}

// download brings the blocks of pointers here, all that are not.
func (s *Store) download(ctx context.Context, linear bool, pointers []pointer) error {
	sets := map[LogID]*runs.Set{}
	for _, p := range pointers {
		if s.has(p) {
			continue
		}
		set := sets[p.log]
		if set == nil {
			set = new(runs.Set)
			sets[p.log] = set
		}
		set.Add(runs.Range{Start: p.index, End: p.index + 1})
	}
	// Each log by itself: what nobody has of one must not hold up the others.
	errs := make(chan error, len(sets))
	for id, set := range sets {
		go func() { errs <- s.downloadFrom(ctx, linear, id, set) }()
	}
	var first error
	for range sets {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (s *Store) downloadFrom(ctx context.Context, linear bool, id LogID, set *runs.Set) error {
	src, err := s.source(id)
	if err != nil {
		return err
	}
	last := set.Last().End
	if src.upTo > 0 && last > src.upTo {
		return fmt.Errorf("block %d of content log %s, which counts up to %d: %w", last-1, src.log.Key(), src.upTo, ErrNotFound)
	}
	if last > src.log.Length() {
		if err := hyperblobs.Grow(ctx, src.log, last, s.o.Clock); err != nil {
			return err
		}
		if last > src.log.Length() {
			return fmt.Errorf("block %d of content log %s, which has %d as far as is known here: %w", last-1, src.log.Key(), src.log.Length(), ErrNotFound)
		}
	}
	return s.fetch(ctx, src, linear, set)
}

// maxRanges is how many ranges of a log are downloaded at once.
const maxRanges = 256
