// Package cloud is a personal cloud as data: its owner, the devices that have
// joined, and the spaces of data that these write together, such as folders and
// tables. All of it is in logs, and can be made again from them.
//
//	c, err := cloud.Create(ctx, cloud.Options{Store: store, Vault: vault, Device: "laptop"}, nil)
//	space, err := c.Make(ctx, cloud.SpaceInfo{Kind: cloud.Folder, Name: "Photos"})
//
// # Who is who
//
// A cloud belongs to one owner, who is a seed of 32 bytes (package words). A
// device has a key pair of its own that is never copied, and a certificate
// (package identity). It gets in by the owner's seed, or by a device that is in
// (package pair).
//
// # Who writes
//
// Each device writes logs of its own only, and no log is ever written by two.
// What they write together is a tree (package tree). A device begins new logs
// when its store is a copy of another, and when the cloud has got a new key; the
// old ones stay part of what everybody reads.
//
// # Who reads
//
// Logs are encrypted with keys that follow from the cloud's, one for each space.
// They are given to devices of the cloud alone (Access). When a device is
// revoked, the others get a new key, and nothing that is written from then on
// can be read with what it has.
//
// # Concurrency
//
// All methods may be called by any goroutine.
package cloud

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// Options say where a device keeps its part of a cloud.
type Options struct {
	// Store has the logs. It stays the caller's, and must be open as long as the
	// cloud is.
	Store *corestore.Store
	// Cache bounds the memory for the trees of the cloud; nil is one of 16 MiB.
	Cache *hyperbee.Cache
	// Vault has the secrets.
	Vault Vault
	// Device is what a new device is called.
	Device string
	// Copied says that the store is a copy of another that may still be in use:
	// see corestore.CopiedError. The device then becomes another one, with new
	// keys and new logs, as the old ones are the original's.
	Copied bool
	// Changed is called when anything about the cloud has changed, and must
	// return soon. It may be nil.
	Changed func()
	// Log is where to tell of what is wrong and concerns nobody; nil is nowhere.
	Log *slog.Logger
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
	// Random is crypto/rand if it is nil.
	Random io.Reader
}

// A Cloud is one device's part in a cloud.
type Cloud struct {
	store  *corestore.Store
	cache  *hyperbee.Cache
	vault  Vault
	clock  clock.Clock
	random io.Reader
	log    *slog.Logger
	tell   func()

	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup
	wake    chan struct{} // there is something new in the control tree
	stale   chan struct{} // closed when the cloud must be opened again
	again   sync.Once     // closes it
	control *Space

	naming     sync.Mutex      // held to give a name to a space
	writing    sync.Mutex      // held to begin logs of one's own
	refreshing sync.Mutex      // held by refresh
	checked    map[string]bool // what was found to be signed as it must be; guarded by refreshing

	mu      sync.Mutex
	closed  bool
	secrets *secrets // Keys, Seed and SeedShown change
	next    *secrets // those to be opened again with, once they are saved
	state
	spaces  map[string]*Space
	private map[hypercore.Key]bool // the logs of the cloud
	own     map[hypercore.Key]bool // those that this device writes
	apart   map[hypercore.Key]bool // those that have forked, and that nobody is to get
	peers   map[*Peer]bool
	pinged  uint64 // how many pings there were
}

// fill sets what was left out.
func (o *Options) fill() {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Cache == nil {
		o.Cache = hyperbee.NewCache(16 << 20)
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
}

// NewID makes a name that nobody else makes.
func NewID() (string, error) { return newID(rand.Reader) }

func newID(random io.Reader) (string, error) {
	var id [16]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return "", fmt.Errorf("make a random name: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

// newSecret makes 32 random bytes.
func newSecret(random io.Reader) (secret, error) {
	s := make(secret, 32)
	if _, err := io.ReadFull(random, s); err != nil {
		return nil, fmt.Errorf("make a random key: %w", err)
	}
	return s, nil
}

// start opens the control tree and begins to follow it.
func (c *Cloud) start(ctx context.Context) (err error) {
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	c.control = c.newSpace(SpaceInfo{ID: controlSpace, Kind: Control})
	for _, r := range c.secrets.Before {
		c.try(c.control, r)
	}
	own := c.newRecord(c.control.info)
	if err := c.control.add(own, true); err != nil {
		return err
	}
	if err := c.refresh(ctx); err != nil {
		return err
	}
	if err := c.introduce(ctx, own); err != nil {
		return err
	}
	notify := func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	ended := c.control.tree.Notify(notify)
	notify()
	c.work.Go(func() {
		defer ended()
		c.run()
	})
	return nil
}

// run follows the control tree.
func (c *Cloud) run() {
	for {
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return
		}
		if err := c.refresh(c.ctx); err != nil && c.ctx.Err() == nil {
			c.log.Warn("cannot read the control tree", "err", err)
		}
	}
}

// Close leaves everything but the store, which is the caller's. No space of the
// cloud may be used any more, and no connection.
func (c *Cloud) Close() (err error) {
	c.mu.Lock()
	c.closed = true // no more work begins
	c.mu.Unlock()
	c.stop()
	c.work.Wait()
	c.refreshing.Lock() // a last one ends
	defer c.refreshing.Unlock()
	c.mu.Lock()
	spaces := c.spaces
	c.spaces = nil
	c.mu.Unlock()
	for _, s := range spaces {
		err = errors.Join(err, s.close())
	}
	if c.control != nil {
		err = errors.Join(err, c.control.close())
	}
	return err
}

// try opens the logs of another writer. Those that can't be opened are left out:
// they must not keep this device from the rest.
func (c *Cloud) try(s *Space, r writerRecord) {
	if err := s.add(r, false); err != nil && c.ctx.Err() == nil {
		c.log.Warn("cannot open the logs of a device", "device", r.Device, "space", r.Space, "err", err)
	}
}

// save saves the secrets. c.mu is held.
func (c *Cloud) save() error {
	s := c.secrets
	if c.next != nil {
		c.next.Keys, c.next.Seed, c.next.SeedShown, c.next.Behind, c.next.Lost, c.next.Mended = s.Keys, s.Seed, s.SeedShown, s.Behind, s.Lost, s.Mended
		s = c.next
	}
	return s.save(c.vault)
}

func (c *Cloud) newSpace(info SpaceInfo) *Space {
	return &Space{cloud: c, tree: tree.New(tree.Options{Clock: c.clock}), info: info, writers: map[hypercore.Key]*writer{}}
}

// key returns the cloud's key of an epoch, if this device has it.
func (c *Cloud) key(epoch string) (key [32]byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.secrets.Keys[epoch]
	return k.array(), k != nil
}

// logKeys returns the key pair of a log of this device's own.
func (c *Cloud) logKeys(space, what string) hypercore.KeyPair {
	return c.store.Namespace("bevy cloud").KeyPair(c.secrets.Writer + "/" + space + "/" + what)
}

// newRecord makes the record of this device's logs in a space.
func (c *Cloud) newRecord(info SpaceInfo) writerRecord {
	r := writerRecord{Space: info.ID, Epoch: c.secrets.Epoch}
	var content *hypercore.KeyPair
	if info.Kind == Folder {
		pair := c.logKeys(info.ID, "content")
		content = &pair
	}
	r.sign(c.secrets.pair(), c.logKeys(info.ID, "tree"), content)
	return r
}
