// Package corestore keeps many logs together: by name, with keys that follow
// from one primary key, or by key. It shares open logs among those who use them
// and closes those that nobody does.
//
// Names lead to the same keys as in the npm package corestore 7.
//
//	store, err := corestore.OpenDisk(storage.Disk{Dir: "data"}, corestore.Options{})
//	log, err := store.Namespace("notes").Get(corestore.LogOptions{Name: "inbox"})
//	length, err := log.Append(ctx, []byte("hello"))
//	err = log.Close()
//	err = store.Close()
package corestore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/hyper/storage"
	"golang.org/x/crypto/blake2b"
)

// A Store is a set of logs, seen from one namespace. All stores made from one
// share its logs. Their methods may be called by any goroutine.
type Store struct {
	*root
	namespace [32]byte
}

// A root is what all namespaces of a store share.
type root struct {
	storage    *storage.Store
	primaryKey [32]byte
	version    int
	clock      clock.Clock
	idleAfter  time.Duration
	replicate  replicate.Options

	mu      sync.Mutex // guards the fields below; taken before any lock of a log
	open    map[hypercore.DiscoveryKey]*entry
	conns   map[*replicate.Conn]ReplicateOptions
	finding int // who makes connections
	idle    map[*entry]struct{}
	timer   clock.Timer // closes idle logs; nil when none is idle
	closed  bool
}

// An entry is a log that is open.
type entry struct {
	log        *hypercore.Log        // the store's own session
	replicator *replicate.Replicator // nil until there is a connection
	told       []*hook               // who wants to know of it
	since      time.Time             // when it became idle
}

// Options for a store.
type Options struct {
	// PrimaryKey is the secret that names derive their keys from. The store's own
	// when nil, which is made at random when the store is new. With another one
	// than the store's own, opening fails.
	PrimaryKey *[32]byte
	// ManifestVersion of logs made by name; 1 when 0. It changes their keys.
	ManifestVersion int
	// IdleAfter is how long a log stays open when nobody uses it; 8 s when 0.
	IdleAfter time.Duration
	// Replicate says how logs are replicated. Its clock is the store's.
	Replicate replicate.Options
	// CacheBytes bounds the memory for blocks and nodes used last; 24 MiB when 0.
	CacheBytes int

	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
	// Random is the source of a new primary key. crypto/rand when nil.
	Random io.Reader
}

// ErrPrimaryKey: the store has another primary key than the one given.
var ErrPrimaryKey = errors.New("store has another primary key")

var nsCorestore = hypercore.Namespace("corestore", 0)

// Open opens the store that an engine keeps. The engine belongs to it from then
// on, also when Open fails.
func Open(engine storage.Engine, o Options) (*Store, error) {
	s, err := open(engine, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open corestore: %w", err), engine.Close())
	}
	return s, nil
}

func open(engine storage.Engine, o Options) (*Store, error) {
	if o.ManifestVersion == 0 {
		o.ManifestVersion = 1
	}
	if o.IdleAfter == 0 {
		o.IdleAfter = 8 * time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	st, err := storage.Open(engine, storage.Options{CacheBytes: o.CacheBytes})
	if err != nil {
		return nil, err
	}
	r := &root{storage: st, version: o.ManifestVersion, clock: o.Clock, idleAfter: o.IdleAfter, replicate: o.Replicate,
		open: map[hypercore.DiscoveryKey]*entry{}, idle: map[*entry]struct{}{}, conns: map[*replicate.Conn]ReplicateOptions{}}
	r.replicate.Clock = o.Clock
	if err := r.loadPrimaryKey(o); err != nil {
		return nil, err
	}
	return &Store{root: r}, nil
}

func (r *root) loadPrimaryKey(o Options) error {
	stored, err := r.storage.Meta("primary key")
	switch {
	case errors.Is(err, storage.ErrNotFound):
		if o.PrimaryKey != nil {
			r.primaryKey = *o.PrimaryKey
		} else if _, err := io.ReadFull(o.Random, r.primaryKey[:]); err != nil {
			return fmt.Errorf("make primary key: %w", err)
		}
		return r.storage.SetMeta("primary key", r.primaryKey[:])
	case err != nil:
		return fmt.Errorf("read primary key: %w", err)
	case copy(r.primaryKey[:], stored) != 32:
		return fmt.Errorf("read primary key: %w", storage.ErrCorrupt)
	case o.PrimaryKey != nil && *o.PrimaryKey != r.primaryKey:
		return ErrPrimaryKey
	}
	return nil
}

// A CopiedError says that the folder is a copy of a store, restored from a
// backup or cloned with its disk, and which logs fork for good if the original
// is written to as well.
type CopiedError struct {
	Dir      string
	Writable []LogInfo // logs that this store can sign
}

func (e *CopiedError) Error() string {
	s := fmt.Sprintf("open store %s: it is a copy of a store from another place. If both are written to, %d logs fork and are lost to their readers", e.Dir, len(e.Writable))
	for i, l := range e.Writable {
		if i == 3 {
			s += ", …"
			break
		}
		s += fmt.Sprintf("%c %s (%d blocks)", ":,,"[i], l.Key, l.Length)
	}
	return s + ". Open it to read only, or adopt it if the original is gone"
}

// OpenDisk opens the store in a folder. A folder that is a copy of another
// store fails with *CopiedError unless disk.Adopt or disk.ReadOnly is set.
func OpenDisk(disk storage.Disk, o Options) (*Store, error) {
	engine, err := disk.Open()
	var copied *storage.CopiedError
	if errors.As(err, &copied) {
		return nil, describeCopy(disk, o)
	}
	if err != nil {
		return nil, err
	}
	return Open(engine, o)
}

func describeCopy(disk storage.Disk, o Options) error {
	disk.ReadOnly = true
	engine, err := disk.Open()
	if err != nil {
		return err
	}
	s, err := Open(engine, o)
	if err != nil {
		return err
	}
	e := &CopiedError{Dir: disk.Dir}
	for info, err := range s.Logs() {
		if err != nil {
			return errors.Join(err, s.Close())
		}
		if info.Writable {
			e.Writable = append(e.Writable, info)
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	return e
}

// Namespace returns the store as seen from a namespace within this one: the same
// name leads to other logs there.
func (s *Store) Namespace(name string) *Store {
	return &Store{s.root, blake2b.Sum256(append(s.namespace[:len(s.namespace):len(s.namespace)], name...))}
}

// KeyPair returns the key pair that a name leads to.
func (s *Store) KeyPair(name string) hypercore.KeyPair {
	h, err := blake2b.New256(s.primaryKey[:])
	if err != nil {
		panic("corestore: " + err.Error()) // the key has 32 bytes
	}
	h.Write(nsCorestore[:])
	h.Write(s.namespace[:])
	h.Write([]byte(name))
	return hypercore.NewKeyPair([32]byte(h.Sum(nil)))
}

// PrimaryKey returns the secret that names derive their keys from. Whoever has
// it can write all logs with names.
func (s *Store) PrimaryKey() [32]byte { return s.primaryKey }

// LogOptions say which log, by one of its first fields, and how to use it.
type LogOptions struct {
	Name      string // of this namespace; its log is made when there is none
	Key       *hypercore.Key
	Discovery *hypercore.DiscoveryKey // of a log that is in the store
	Manifest  *hypercore.Manifest
	KeyPair   *hypercore.KeyPair

	// Compat makes the log of KeyPair one of the old kind, see hypercore.Options.
	Compat bool
	// MustExist makes it an error, storage.ErrNotFound, when the log is not in the
	// store.
	MustExist bool
	// Durability of making a log; Durable when zero.
	Durability hypercore.Durability
	Session    hypercore.SessionOptions
}

// Get returns a session of a log, which its caller must close.
func (s *Store) Get(o LogOptions) (*hypercore.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("get log: %w", storage.ErrClosed)
	}
	e, err := s.entryLocked(o)
	if err != nil {
		return nil, fmt.Errorf("get log: %w", err)
	}
	l, err := e.log.Session(o.Session)
	if err != nil {
		return nil, fmt.Errorf("get log: %w", err)
	}
	s.useLocked(e)
	s.replicateLocked(e, true)
	return l, nil
}

// entryLocked returns the open log that is asked for.
func (s *Store) entryLocked(o LogOptions) (*entry, error) {
	ho := hypercore.Options{Key: o.Key, Manifest: o.Manifest, KeyPair: o.KeyPair, Compat: o.Compat, MustExist: o.MustExist, Durability: o.Durability}
	switch {
	case o.Name != "":
		alias := storage.Alias{Namespace: s.namespace, Name: o.Name}
		d, err := s.storage.FindAlias(alias)
		if err == nil {
			return s.storedLocked(hypercore.DiscoveryKey(d))
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
		kp := s.KeyPair(o.Name)
		m := hypercore.SingleSigner(kp.Public)
		m.Version = s.version
		ho.Key, ho.Manifest, ho.KeyPair, ho.Compat, ho.Alias = nil, m, &kp, false, &alias
		if _, err := s.storage.Find(m.Key().Discovery()); err == nil {
			// It came by its key before it was called by its name.
			if err := s.storage.SetAlias(alias, m.Key().Discovery()); err != nil {
				return nil, err
			}
		}
	case o.Discovery != nil:
		return s.storedLocked(*o.Discovery)
	case o.Key == nil && o.Manifest == nil && o.KeyPair == nil:
		return nil, errors.New("neither a name, nor a key, manifest or key pair was given")
	}
	return s.openLocked(ho)
}

// storedLocked returns a log that is in the store.
func (s *Store) storedLocked(d hypercore.DiscoveryKey) (*entry, error) {
	if e := s.open[d]; e != nil {
		return e, nil
	}
	id, err := s.storage.Find(d)
	if err != nil {
		return nil, err
	}
	auth, err := s.storage.Log(id).Auth()
	if err != nil {
		return nil, err
	}
	key := hypercore.Key(auth.Key)
	return s.openLocked(hypercore.Options{Key: &key, MustExist: true})
}

func (s *Store) openLocked(o hypercore.Options) (*entry, error) {
	key, err := o.LogKey()
	if err != nil {
		return nil, err
	}
	d := key.Discovery()
	if e := s.open[d]; e != nil {
		return e, e.log.Learn(o)
	}
	e := new(entry)
	o.OnIdle = func() { s.becameIdle(e) }
	if e.log, err = hypercore.Open(s.storage, o); err != nil {
		return nil, err
	}
	s.open[d] = e
	return e, nil
}

func (r *root) useLocked(e *entry) {
	delete(r.idle, e)
	if len(r.idle) == 0 && r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}

// becameIdle notes that nobody uses a log any more.
func (r *root) becameIdle(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || e.log.InUse() {
		return
	}
	r.idleLocked(e)
}

// idleLocked makes a log that nobody uses one to be closed in a while.
func (r *root) idleLocked(e *entry) {
	e.since = r.clock.Now()
	r.idle[e] = struct{}{}
	if r.timer == nil {
		r.timer = r.clock.AfterFunc(r.idleAfter, r.closeIdle)
	}
}

// closeIdle closes the logs that were idle for long enough.
func (r *root) closeIdle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	if r.closed {
		return
	}
	now := r.clock.Now()
	wait := time.Duration(0)
	for e := range r.idle {
		left := r.idleAfter - now.Sub(e.since)
		if left > 0 {
			wait = max(wait, left)
			continue
		}
		delete(r.idle, e)
		if e.log.InUse() {
			continue
		}
		if e.replicator != nil {
			e.replicator.SetDownloading(false)
			if e.replicator.Busy() {
				continue // peers use it; it becomes idle again after them
			}
		}
		delete(r.open, e.log.Discovery())
		_ = e.close() // the last session: there is nothing to fail
	}
	if len(r.idle) > 0 {
		r.timer = r.clock.AfterFunc(wait, r.closeIdle)
	}
}

// close closes a log that nobody uses.
func (e *entry) close() error {
	if e.replicator != nil {
		e.replicator.Close()
	}
	return e.log.Close()
}

// Open returns how many logs are open.
func (r *root) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// A LogInfo is what a store knows of a log without opening it.
type LogInfo struct {
	Key       hypercore.Key
	Discovery hypercore.DiscoveryKey
	Length    uint64
	Fork      uint64
	Writable  bool // the store has the key pair that signs
}

// Logs returns all logs of the store, in the order of their discovery keys. It
// ends with the first error.
func (s *Store) Logs() iter.Seq2[LogInfo, error] {
	return func(yield func(LogInfo, error) bool) {
		if s.isClosed() {
			yield(LogInfo{}, storage.ErrClosed)
			return
		}
		var failed error
		err := s.storage.Logs(func(d [32]byte, id storage.ID) bool {
			info, err := s.info(d, id)
			if err != nil {
				failed = err
				return false
			}
			return yield(info, nil)
		})
		if err = errors.Join(err, failed); err != nil {
			yield(LogInfo{}, fmt.Errorf("list logs: %w", err))
		}
	}
}

func (s *Store) info(d [32]byte, id storage.ID) (LogInfo, error) {
	auth, err := s.storage.Log(id).Auth()
	if err != nil {
		return LogInfo{}, err
	}
	head, err := s.storage.Log(id).Head()
	if err != nil {
		return LogInfo{}, err
	}
	return LogInfo{Key: hypercore.Key(auth.Key), Discovery: d, Length: head.Length, Fork: head.Fork, Writable: auth.Seed != nil}, nil
}

// Names returns the names of this namespace that lead to logs, in order, with
// the logs' discovery keys. It ends with the first error.
func (s *Store) Names() iter.Seq2[Name, error] {
	return func(yield func(Name, error) bool) {
		if s.isClosed() {
			yield(Name{}, storage.ErrClosed)
			return
		}
		err := s.storage.Aliases(s.namespace, func(name string, d [32]byte) bool {
			return yield(Name{name, d}, nil)
		})
		if err != nil {
			yield(Name{}, fmt.Errorf("list names: %w", err))
		}
	}
}

// A Name leads to a log.
type Name struct {
	Name      string
	Discovery hypercore.DiscoveryKey
}

// Delete removes a log with all its blocks from the store. It fails while the
// log is in use.
func (s *Store) Delete(key hypercore.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("delete log %s: %w", key, err) }
	if s.closed {
		return fail(storage.ErrClosed)
	}
	d := key.Discovery()
	if e := s.open[d]; e != nil {
		if e.log.InUse() {
			return fail(errors.New("it is in use; close its sessions first"))
		}
		s.useLocked(e)
		delete(s.open, d)
		if err := e.close(); err != nil {
			return fail(err)
		}
	}
	if err := s.storage.Delete(d); err != nil {
		return fail(err)
	}
	return nil
}

// Stats returns what the store's engine uses and has done.
func (s *Store) Stats() (storage.Stats, error) { return s.storage.Stats() }

// Sync returns when everything written before is on the disk.
func (s *Store) Sync() error { return s.storage.Sync() }

func (r *root) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Close closes the store, for all namespaces. It fails, and closes nothing, when
// sessions of its logs are still open or peers are connected.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if len(s.conns) > 0 {
		return fmt.Errorf("close store: %d peers are connected; end Replicate first", len(s.conns))
	}
	for _, e := range s.open {
		if e.log.InUse() {
			return fmt.Errorf("close store: log %s is in use; close its sessions first", e.log.Key())
		}
	}
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	var err error
	for _, e := range s.open {
		err = errors.Join(err, e.close())
	}
	clear(s.open)
	clear(s.idle)
	return errors.Join(err, s.storage.Close())
}
