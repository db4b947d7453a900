// Package hyperdrive is a file tree on two logs: a tree of entries (package
// hyperbee), and the contents of files (package hyperblobs). Every version of it
// can still be read, by whoever has its key.
//
// Logs are those of the npm package hyperdrive 13 to the byte: what either side
// writes, the other reads.
//
//	drive, err := hyperdrive.Open(store, hyperdrive.Options{Name: "photos"})
//	err = drive.Put(ctx, "/2026/sea.jpg", data, hyperdrive.PutOptions{})
//	data, err = drive.ReadFile(ctx, "/2026/sea.jpg")
//	for entry, err := range drive.List(ctx, "/2026", hyperdrive.ListOptions{}) {
//		…
//	}
//
// # Paths
//
// A path is absolute and has slashes, as CleanPath makes it. There are no
// folders but those that files are in. "/a" and "/a/b" may both be there; an
// fs.FS, which can't have that, then has the folder.
//
// # Versions
//
// The version of a drive is that of its tree. Checkout returns the drive as it
// was, Diff says what is different, and History what was done. The contents of
// old versions stay until they are cleared.
//
// # Drives of others
//
// What is not here is fetched when it is read, and no more than that. Entries
// that make no sense are errors that wrap ErrInvalid.
//
// # Concurrency
//
// All methods may be called by any goroutine, those of a Batch and a File by one
// at a time. No more than one Drive that Open returned may write to a drive.
package hyperdrive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/treefs"
	"golang.org/x/crypto/blake2b"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: there is no such entry. It is fs.ErrNotExist, too. That a block is
	// not here, and nobody to fetch it from, is hypercore.ErrNotFound.
	ErrNotFound error = notFound{}
	// ErrInvalid: an entry or the drive makes no sense.
	ErrInvalid = errors.New("invalid drive")
	// ErrPath: a path that names nothing.
	ErrPath = errors.New("invalid path")
	// ErrLoop: too many links lead to one another.
	ErrLoop = treefs.ErrLoop
	// ErrReadOnly: versions of the past can't be changed.
	ErrReadOnly = hyperbee.ErrReadOnly
	// ErrClosed: the drive was closed.
	ErrClosed = hyperbee.ErrClosed
)

type notFound struct{}

func (notFound) Error() string        { return "no such file" }
func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// Options for a drive. The zero value is the store's drive "db".
type Options struct {
	// Name of the log of entries in the store's namespace, which is made when there
	// is none; "db" when empty, as in the npm package.
	Name string
	// Key of the drive, which may be another's. Name is not used then.
	Key *hypercore.Key
	// EncryptionKey encrypts and decrypts entries and contents.
	EncryptionKey *[32]byte
	// Compat makes a drive of the older kind, whose two keys have nothing to do with
	// each other. Drives that are there already say themselves what they are.
	Compat bool
	// Durability of what is written; Durable when zero.
	Durability hypercore.Durability
	// BlockSize of contents; 64 KiB when 0.
	BlockSize int
	// Dedup has Create store only what it has not stored yet: contents are cut where
	// they say themselves, and pieces that the file had before are not written again.
	Dedup bool
	// Cache bounds the memory for decoded entries, see hyperbee.Options.
	Cache *hyperbee.Cache
}

// A Drive is a file tree as it is, or as it was (Checkout).
type Drive struct {
	s     *shared
	tree  *hyperbee.Tree // all of the log of entries
	files *hyperbee.Tree // the part of it with the files
	past  bool
}

// shared is what the versions of one drive have in common.
type shared struct {
	store *corestore.Store
	db    *hypercore.Log
	o     Options

	mu    sync.Mutex
	blobs *hyperblobs.Blobs // guarded by mu: nil until somebody needs them
	close bool              // guarded by mu
}

// nsBlobs is what the key of the contents is derived with (index.js).
var nsBlobs = hypercore.Namespace("hyperdrive", 0)

var filesPrefix = []byte("files")

// Open opens a drive in a store. It must be closed, before the store is.
func Open(store *corestore.Store, o Options) (*Drive, error) {
	if o.Name == "" {
		o.Name = "db"
	}
	at := corestore.LogOptions{Name: o.Name, Durability: o.Durability, Session: hypercore.SessionOptions{EncryptionKey: o.EncryptionKey}}
	switch {
	case o.Key != nil:
		at.Name, at.Key = "", o.Key
	case o.Compat:
		kp := store.KeyPair(o.Name)
		at.Name, at.KeyPair, at.Compat = "", &kp, true
	}
	db, err := store.Get(at)
	if err != nil {
		return nil, fmt.Errorf("open drive: %w", err)
	}
	s := &shared{store: store, db: db, o: o}
	d, err := s.open()
	if err != nil {
		err = fmt.Errorf("open drive %s: %w", db.Key(), err)
		if s.blobs != nil {
			err = errors.Join(err, s.blobs.Log().Close())
		}
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

func (s *shared) open() (*Drive, error) {
	metadata := new(hyperbee.Metadata)
	if s.db.Length() == 0 && s.db.Writable() && s.db.Compat() {
		if err := s.openBlobs(nil); err != nil {
			return nil, err
		}
		key := s.blobs.Log().Key()
		metadata.ContentFeed = key[:]
	}
	tree, err := hyperbee.Open(s.db, hyperbee.Options{
		Cache:    s.o.Cache,
		Metadata: metadata,
		// What is written is synced once, when the writer has let others write.
		Durability: hypercore.Soon,
		Store:      s.store,
	})
	if err != nil {
		return nil, err
	}
	return &Drive{s: s, tree: tree, files: tree.Sub(filesPrefix)}, nil
}

// Close ends the drive, or the version of it.
func (d *Drive) Close() error {
	if d.past {
		return errors.Join(d.files.Close(), d.tree.Close())
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.s.close {
		return nil
	}
	d.s.close = true
	err := d.tree.Close()
	if d.s.blobs != nil {
		err = errors.Join(err, d.s.blobs.Log().Close())
	}
	return errors.Join(err, d.s.db.Close())
}

// Key returns the drive's key.
func (d *Drive) Key() hypercore.Key { return d.s.db.Key() }

// Tree returns the tree that entries are kept in, under "files".
func (d *Drive) Tree() *hyperbee.Tree { return d.tree }

// Version returns the version of the drive, 1 when nothing was ever put in it.
func (d *Drive) Version() uint64 { return d.tree.Version() }

// Writable reports whether the drive can be changed here.
func (d *Drive) Writable() bool { return d.tree.Writable() }

// Update asks peers for the newest version. New versions also come by
// themselves, a little later.
func (d *Drive) Update(ctx context.Context) error { return d.tree.Update(ctx) }

// Checkout returns the drive as it was at a version, read-only. It must be
// closed. Between the changes of one batch there is no version that makes
// sense.
func (d *Drive) Checkout(version uint64) (*Drive, error) {
	tree, err := d.tree.Checkout(version)
	return d.at(tree, err)
}

// Snapshot returns the drive as it is now, read-only. It must be closed.
func (d *Drive) Snapshot() (*Drive, error) {
	tree, err := d.tree.Snapshot()
	return d.at(tree, err)
}

func (d *Drive) at(tree *hyperbee.Tree, err error) (*Drive, error) {
	if err != nil {
		return nil, err
	}
	return &Drive{s: d.s, tree: tree, files: tree.Sub(filesPrefix), past: true}, nil
}

// ContentKey returns the key of the log that the contents are on.
func (d *Drive) ContentKey(ctx context.Context) (hypercore.Key, error) {
	b, err := d.Blobs(ctx)
	if err != nil {
		return hypercore.Key{}, err
	}
	return b.Log().Key(), nil
}

// Blobs returns the contents of all versions. It waits until peers have told
// where they are, if that is not known.
func (d *Drive) Blobs(ctx context.Context) (*hyperblobs.Blobs, error) {
	s := d.s
	fail := func(err error) (*hyperblobs.Blobs, error) {
		return nil, fmt.Errorf("open contents of drive %s: %w", s.db.Key(), err)
	}
	if b, err := s.opened(); b != nil || err != nil {
		return b, err
	}
	// The header is read without a lock: that may take as long as a peer does.
	var header *hyperbee.Header
	switch h, err := d.tree.Header(ctx); {
	case err == nil:
		header = &h
	case !errors.Is(err, hyperbee.ErrNotFound) || !s.db.Writable():
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.close {
		return fail(ErrClosed)
	}
	if s.blobs == nil {
		if err := s.openBlobs(header); err != nil {
			return fail(err)
		}
	}
	return s.blobs, nil
}

func (s *shared) opened() (*hyperblobs.Blobs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.close {
		return nil, ErrClosed
	}
	return s.blobs, nil
}

// openBlobs opens the log of contents: that which the header names, or the one
// that follows from the log of entries.
func (s *shared) openBlobs(header *hyperbee.Header) error {
	at := corestore.LogOptions{Durability: s.o.Durability, Session: hypercore.SessionOptions{EncryptionKey: s.o.EncryptionKey}}
	switch m := s.db.Manifest(); {
	case header != nil && header.Metadata != nil && len(header.Metadata.ContentFeed) > 0:
		feed := header.Metadata.ContentFeed
		if len(feed) < len(hypercore.Key{}) {
			return fmt.Errorf("%w: its header has a key of %d bytes", ErrInvalid, len(feed))
		}
		key := hypercore.Key(feed[:32])
		at.Key = &key
	case s.db.Compat() && header == nil:
		// One that is new: the name is that of the npm package.
		kp := s.store.KeyPair(s.db.Key().String() + "/blobs")
		at.KeyPair, at.Compat = &kp, true
	case m == nil || m.Version < 1:
		return fmt.Errorf("%w: it says nowhere where its contents are", ErrInvalid)
	default:
		at.Manifest = contentManifest(s.db.Key(), m)
		if s.db.Writable() {
			kp := s.db.KeyPair()
			at.KeyPair = &kp
		}
	}
	log, err := s.store.Get(at)
	if err != nil {
		return err
	}
	s.blobs = hyperblobs.New(log, hyperblobs.Options{BlockSize: s.o.BlockSize, Durability: hypercore.Soon})
	return nil
}

// ContentKey returns the key of the contents of the drive with a manifest of
// version 1 or later. Older drives name it in their header.
func ContentKey(key hypercore.Key, m *hypercore.Manifest) hypercore.Key {
	return contentManifest(key, m).Key()
}

// contentManifest is generateContentManifest in index.js.
func contentManifest(key hypercore.Key, m *hypercore.Manifest) *hypercore.Manifest {
	out := &hypercore.Manifest{Version: m.Version, AllowPatch: m.AllowPatch, Quorum: m.Quorum}
	for _, s := range m.Signers {
		ns := make([]byte, 0, 96)
		ns = append(append(append(ns, nsBlobs[:]...), key[:]...), s.Namespace[:]...)
		out.Signers = append(out.Signers, hypercore.Signer{Namespace: blake2b.Sum256(ns), PublicKey: s.PublicKey})
	}
	return out
}

// sync makes what was written as durable as was asked for.
func (s *shared) sync() error {
	if s.o.Durability == hypercore.Soon {
		return nil
	}
	return s.db.Sync() // of all logs of the store
}
