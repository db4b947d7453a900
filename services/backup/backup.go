// Package backup keeps a copy of a cloud's logs where nobody runs Bevy: in a
// bucket of any S3 server, or in a folder such as that of a disk.
//
//	repo, err := backup.Create(ctx, remote, c.ID().String(), c.SealForOwner, backup.Options{})
//	done, err := repo.Run(ctx, backup.Source{Store: store, Logs: logs, Root: root}, nil)
//	snapshot, err := repo.Snapshot(ctx, "")
//	err = repo.Restore(ctx, snapshot, otherStore, nil)
//
// A snapshot is of all logs as they were, and history is in the logs: one
// snapshot has all versions that were kept. The next one adds the blocks that are
// new. Everything is encrypted by a key of the repository, which is sealed for
// the cloud's owner: the owner's words and the address are all that is needed to
// get it back. docs/formats/backup.md has the bytes.
//
// What comes from a remote is believed as little as what comes from a peer: each
// block is proven by the signature of its log's writer.
package backup

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: the remote has no such object, no repository, or no snapshot.
	ErrNotFound = errors.New("not found")
	// ErrExists: there is a repository already.
	ErrExists = errors.New("there is a backup already")
	// ErrKey: the key is not that of the repository, or something was changed.
	ErrKey = errors.New("wrong key, or it was changed")
	// ErrVersion: it was written by a newer program.
	ErrVersion = errors.New("of a newer version")
	// ErrNoBucket: the server has no such bucket.
	ErrNoBucket = errors.New("there is no such bucket")
	// ErrDenied: the server does not take the access key, or its rights don't suffice.
	ErrDenied = errors.New("access denied")
)

// A Remote keeps objects by name. Names are of letters, digits and "-./". Its
// methods may be called by any goroutine.
type Remote interface {
	// Put keeps an object, durably where the remote can, in place of an older one.
	// It does not keep body.
	Put(ctx context.Context, name string, body []byte) error
	// Get returns an object of up to limit bytes: ErrNotFound if there is none.
	Get(ctx context.Context, name string, limit int64) ([]byte, error)
	// GetRange returns n bytes of an object from a place on, fewer where it ends.
	GetRange(ctx context.Context, name string, at, n int64) ([]byte, error)
	// List returns all objects whose names begin with prefix.
	List(ctx context.Context, prefix string) ([]Item, error)
	// Delete removes an object. It is fine if there is none.
	Delete(ctx context.Context, name string) error
}

// An Item is an object of a Remote.
type Item struct {
	Name string
	Size int64
	Time time.Time // when it was put
}

const (
	configName  = "bevy-backup.json"
	packPrefix  = "packs/"
	snapPrefix  = "snapshots/"
	magic       = "bevybak\x01"
	version     = 1
	keyBytes    = 32
	maxConfig   = 64 << 10
	maxSnapshot = 256 << 20
	maxPack     = packBytes + 32<<20 // one block more than it should have

	// packBytes is about how large packs are.
	packBytes = 16 << 20
)

// A config says what a repository is. Nothing in it is secret.
type config struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Cloud   string    `json:"cloud"` // whose it is
	Created time.Time `json:"created"`
	Key     []byte    `json:"key"` // of the repository, sealed for the owner of the cloud
}

// A Repo is a repository of one cloud. Any goroutine may call its methods; one
// Run, Prune or Verify at a time.
type Repo struct {
	remote Remote
	config config
	key    [keyBytes]byte
	clock  clock.Clock
	random io.Reader
}

// Options for Create and Open.
type Options struct {
	// Clock is the machine's clock if it is nil, Random crypto/rand.
	Clock  clock.Clock
	Random io.Reader
}

func (o *Options) fill() {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
}

// Create makes a repository for a cloud. seal encrypts its key for the owner.
func Create(ctx context.Context, r Remote, cloud string, seal func([]byte) ([]byte, error), o Options) (*Repo, error) {
	o.fill()
	if _, err := r.Get(ctx, configName, maxConfig); !errors.Is(err, ErrNotFound) {
		if err == nil {
			err = ErrExists
		}
		return nil, fmt.Errorf("begin a backup: %w", err)
	}
	repo := &Repo{remote: r, clock: o.Clock, random: o.Random}
	if _, err := io.ReadFull(o.Random, repo.key[:]); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	sealed, err := seal(repo.key[:])
	if err != nil {
		return nil, err
	}
	id, err := repo.newID()
	if err != nil {
		return nil, err
	}
	repo.config = config{Version: version, ID: id, Cloud: cloud, Created: o.Clock.Now().UTC(), Key: sealed}
	b, err := json.MarshalIndent(repo.config, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := r.Put(ctx, configName, append(b, '\n')); err != nil {
		return nil, fmt.Errorf("begin a backup: %w", err)
	}
	return repo, nil
}

// Open opens a repository. unseal opens its key, and reports whether it could.
func Open(ctx context.Context, r Remote, unseal func(sealed []byte) ([]byte, bool), o Options) (*Repo, error) {
	o.fill()
	repo := &Repo{remote: r, clock: o.Clock, random: o.Random}
	b, err := r.Get(ctx, configName, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("open the backup: %w", err)
	}
	if err := json.Unmarshal(b, &repo.config); err != nil {
		return nil, fmt.Errorf("open the backup: read %s: %w", configName, err)
	}
	if repo.config.Version != version {
		return nil, fmt.Errorf("open the backup: version %d: %w", repo.config.Version, ErrVersion)
	}
	key, ok := unseal(repo.config.Key)
	if !ok || len(key) != keyBytes {
		return nil, fmt.Errorf("open the backup of cloud %s: %w", repo.config.Cloud, ErrKey)
	}
	copy(repo.key[:], key)
	return repo, nil
}

// WithKey is an unseal for Open that has the key already.
func WithKey(key []byte) func([]byte) ([]byte, bool) {
	return func([]byte) ([]byte, bool) { return key, true }
}

// Key returns the repository's key: who has it can read all of it.
func (r *Repo) Key() []byte { return slices.Clone(r.key[:]) }

// ID names the repository.
func (r *Repo) ID() string { return r.config.ID }

// Cloud is whose backup it is.
func (r *Repo) Cloud() string { return r.config.Cloud }

// newID makes a name that nobody else makes.
func (r *Repo) newID() (string, error) {
	var id [16]byte
	if _, err := io.ReadFull(r.random, id[:]); err != nil {
		return "", fmt.Errorf("make a random name: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

// aead returns what encrypts one object, by its name.
func (r *Repo) aead(name string) (seal interface {
	Seal(dst, nonce, plain, more []byte) []byte
	Open(dst, nonce, sealed, more []byte) ([]byte, error)
}, err error) {
	key, err := r.keyOf(name)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.NewX(key)
}

// keyOf returns what one object is encrypted with.
func (r *Repo) keyOf(name string) ([]byte, error) {
	return hkdf.Key(sha256.New, r.key[:], nil, "bevy backup 1 "+name, chacha20poly1305.KeySize)
}

// put encrypts and keeps an object.
func (r *Repo) put(ctx context.Context, name string, plain []byte) (size int64, err error) {
	a, err := r.aead(name)
	if err != nil {
		return 0, err
	}
	b := make([]byte, headBytes, headBytes+len(plain)+chacha20poly1305.Overhead)
	copy(b, magic)
	nonce := b[len(magic):]
	if _, err := io.ReadFull(r.random, nonce); err != nil {
		return 0, err
	}
	b = a.Seal(b, nonce, plain, []byte(magic))
	if err := r.remote.Put(ctx, name, b); err != nil {
		return 0, fmt.Errorf("put %s: %w", name, err)
	}
	return int64(len(b)), nil
}

// get brings and decrypts an object. One that was changed is returned with [ErrKey]:
// what is in it has to be proven otherwise.
func (r *Repo) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := r.remote.Get(ctx, name, limit)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	nonce, err := readHead(name, b)
	if err != nil {
		return nil, err
	}
	a, err := r.aead(name)
	if err != nil {
		return nil, err
	}
	if plain, err := a.Open(nil, nonce, b[headBytes:], []byte(magic)); err == nil {
		return plain, nil
	}
	plain := b[headBytes:max(headBytes, len(b)-chacha20poly1305.Overhead)]
	if err := r.decrypt(name, nonce, plain, 0); err != nil {
		return nil, err
	}
	return plain, fmt.Errorf("read %s: %w", name, ErrKey)
}

// decrypt decrypts what lies in an object from a place on, and proves nothing.
func (r *Repo) decrypt(name string, nonce, b []byte, at int64) error {
	key, err := r.keyOf(name)
	if err != nil {
		return err
	}
	c, err := chacha20.NewUnauthenticatedCipher(key, nonce)
	if err != nil {
		return err
	}
	c.SetCounter(uint32(1 + at/64)) // the first block of the stream is the seal's
	var skip [64]byte
	c.XORKeyStream(skip[:at%64], skip[:at%64])
	c.XORKeyStream(b, b)
	return nil
}

// headBytes is how much is in front of what is encrypted.
const headBytes = len(magic) + chacha20poly1305.NonceSizeX

// readHead reads how an object begins, and returns the nonce.
func readHead(name string, b []byte) ([]byte, error) {
	switch {
	case len(b) < headBytes || !bytes.Equal(b[:len(magic)-1], []byte(magic[:len(magic)-1])):
		return nil, fmt.Errorf("read %s: it is no part of a backup: %w", name, ErrKey)
	case b[len(magic)-1] != magic[len(magic)-1]:
		return nil, fmt.Errorf("read %s: version %d: %w", name, b[len(magic)-1], ErrVersion)
	}
	return b[len(magic):headBytes], nil
}

// packName is where a pack is.
func packName(id string) string { return packPrefix + id[:2] + "/" + id }

// Snapshots returns the names of all snapshots, the oldest first.
func (r *Repo) Snapshots(ctx context.Context) (names []string, err error) {
	items, err := r.remote.List(ctx, snapPrefix)
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	for _, i := range items {
		if name := strings.TrimPrefix(i.Name, snapPrefix); checkName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// checkName reports whether a name may be that of a snapshot.
func checkName(s string) bool {
	at, id, ok := strings.Cut(s, "-")
	_, err := time.Parse(snapTime, at)
	return ok && err == nil && len(id) == 8 && strings.Trim(id, "0123456789abcdef") == ""
}

// snapTime is how the name of a snapshot begins.
const snapTime = "20060102T150405.000Z"
