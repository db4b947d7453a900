// Package home is what a node does: it opens the cloud that is kept here,
// connects to the cloud's other devices, keeps folders, and says how all that
// stands. It hangs into a node.Node:
//
//	h := home.New(home.Options{DHT: hyperdht.Options{}})
//	n, err := node.Open(ctx, node.Options{Paths: paths, Wire: h.Wire})
//
// A cloud has to be opened again when its key has changed, or when this device
// joins another one: see session.
package home

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/disk"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/node"
)

// Options say what is not found by itself.
type Options struct {
	// Seed is the owner's, when a cloud is to be made again from it.
	Seed *identity.Seed
	// Name is what this device is called when it is new; that of the machine when
	// empty.
	Name string
	// DHT says which network to join. KeyPair is set here.
	DHT hyperdht.Options
	// Relays carry what finds no direct path, by their keys; they can't read it.
	Relays []noise.Key
	// Offline joins none.
	Offline bool
}

// A Home is the part of a node that has a cloud.
type Home struct {
	options Options
	node    *node.Node
	dir     string // DATA/cloud

	store   *corestore.Store
	index   storage.Engine // of what is on the disk; can be made anew
	watcher *disk.Watcher
	cache   *hyperbee.Cache // of all trees

	mu       sync.Mutex
	session  *session
	ended    error         // why there will be none any more
	opened   chan struct{} // closed when session or ended is set; nil if nobody waits
	invited  *invited
	keying   sync.Mutex // held to make an access key where there is none
	services *doors     // for programs of other services; nil until there is a request
	backups  lately
}

// New returns a home that is not part of a node yet.
func New(o Options) *Home {
	return &Home{options: o, cache: hyperbee.NewCache(treeCache), backups: lately{running: map[string]bool{}}}
}

// Wire hangs the home into a node: for node.Options.Wire.
func (h *Home) Wire(ctx context.Context, n *node.Node) (err error) {
	h.node = n
	h.dir = filepath.Join(n.Paths().Data, "cloud")
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	if err := h.openStore(); err != nil {
		return err
	}
	n.OnClose(h.store.Close)
	n.OnRest(h.cache.Forget)
	if err := h.sweepTries(); err != nil { // the store's lock says that nobody is at one
		return err
	}
	if h.index, err = openIndex(filepath.Join(h.dir, "index")); err != nil {
		return fmt.Errorf("open the index of folders: %w", err)
	}
	n.OnClose(h.index.Close)
	if h.watcher, err = disk.NewWatcher(n.Clock()); err != nil {
		return fmt.Errorf("watch folders: %w", err)
	}
	n.OnClose(h.watcher.Close)
	s, err := h.open(ctx)
	if err != nil {
		return err
	}
	h.set(s, nil)
	n.Supervise("cloud", func(ctx context.Context) error { return h.run(ctx) })
	n.OnClose(h.end)
	n.OnStatus(h.status)
	h.doors()
	h.routes()
	h.backupRoutes()
	h.feedRoutes()
	h.leaveRoutes()
	return nil
}

// secretsFile, in the folder of the cloud, has the secrets; copiedFile is there
// from when the store is found to be a copy until the device has new logs.
const (
	secretsFile = "secrets.json"
	copiedFile  = "copied"
)

// Bounds of memory, in bytes.
const (
	storeCache = 16 << 20 // for blocks and nodes of logs
	treeCache  = 64 << 20 // for decoded blocks of trees, all together; none when nothing happens
)

// openStore opens the store of logs. One that is a copy of another is adopted,
// once it is written down that this device has to begin new logs.
func (h *Home) openStore() (err error) {
	o := corestore.Options{CacheBytes: storeCache, Clock: h.node.Clock()}
	d := storage.Disk{Dir: filepath.Join(h.dir, "logs"), Clock: h.node.Clock()}
	h.store, err = corestore.OpenDisk(d, o)
	var copied *corestore.CopiedError
	if !errors.As(err, &copied) {
		return err
	}
	h.node.Log.Warn("the logs are a copy of others: this device begins its own", "dir", d.Dir)
	if err := cloud.FileVault(filepath.Join(h.dir, copiedFile)).Save(nil); err != nil { // on the disk, before
		return err
	}
	d.Adopt = true
	h.store, err = corestore.OpenDisk(d, o)
	return err
}

// openIndex opens what is known of folders on the disk. It can be made anew,
// which is done when it is broken, or came with a copy.
func openIndex(dir string) (storage.Engine, error) {
	engine, err := storage.Disk{Dir: dir, Adopt: true}.Open()
	if err == nil || errors.Is(err, storage.ErrLocked) || errors.Is(err, storage.ErrFull) {
		return engine, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	return storage.Disk{Dir: dir}.Open()
}

// cloudOptions are those of the cloud that is kept here.
func (h *Home) cloudOptions() cloud.Options {
	_, err := os.Stat(filepath.Join(h.dir, copiedFile))
	return cloud.Options{
		Store: h.store, Cache: h.cache, Vault: cloud.FileVault(filepath.Join(h.dir, secretsFile)),
		Device: h.deviceName(), Copied: err == nil,
		Changed: h.changed, Log: h.node.Log, Clock: h.node.Clock(),
	}
}

// deviceName is what this machine is called by itself.
func (h *Home) deviceName() string {
	if h.options.Name != "" {
		return h.options.Name
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "this machine"
	}
	if len(name) > identity.MaxName {
		name = name[:identity.MaxName]
	}
	return name
}

// openCloud opens the cloud, or makes one if there is none.
func (h *Home) openCloud(ctx context.Context) (*cloud.Cloud, error) {
	o := h.cloudOptions()
	c, err := cloud.Open(ctx, o)
	switch {
	case errors.Is(err, cloud.ErrNoCloud):
		return cloud.Create(ctx, o, h.options.Seed)
	case err != nil:
		return nil, err
	}
	if seed := h.options.Seed; seed != nil && identity.NewOwner(*seed).Cloud() != c.ID() {
		return nil, errors.Join(&client.Error{
			Code: client.CodeConflict, Message: "another cloud is here already",
			Cause: "the words are not those of its owner", Try: "bevy up --home <another folder> --restore",
		}, c.Close())
	}
	if o.Copied {
		return c, os.Remove(filepath.Join(h.dir, copiedFile))
	}
	return c, nil
}

// run keeps a session open until ctx ends, and opens another when it has to.
func (h *Home) run(ctx context.Context) error {
	for {
		s := h.now()
		if s == nil {
			var err error
			if s, err = h.open(ctx); err != nil {
				return err
			}
			h.set(s, nil)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.cloud.Stale():
			h.node.Say("this machine goes on with new logs")
		case <-s.replaced:
		}
		h.set(nil, nil)
		if err := s.close(); err != nil {
			return err
		}
		if s.quitted {
			if err := h.forget(s); err != nil {
				return err
			}
		}
	}
}

func (h *Home) now() *session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.session
}

// set says which session there is now: none for a moment, without an error.
func (h *Home) set(s *session, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session, h.ended = s, why
	if h.opened != nil && (s != nil || why != nil) {
		close(h.opened)
		h.opened = nil
	}
}

// reopening is how long calls wait while the cloud is opened again.
const reopening = 10 * time.Second

// acquire returns the session there is; it is not closed before done is called.
func (h *Home) acquire(ctx context.Context) (s *session, done func(), err error) {
	for {
		h.mu.Lock()
		s, ended := h.session, h.ended
		switch {
		case ended != nil:
			h.mu.Unlock()
			return nil, nil, ended
		case s != nil && !s.over():
			s.users.Add(1)
			h.mu.Unlock()
			return s, s.users.Done, nil
		case h.opened == nil:
			h.opened = make(chan struct{})
		}
		opened := h.opened
		h.mu.Unlock()
		limited, cancel := context.WithCancel(ctx)
		timer := h.node.Clock().AfterFunc(reopening, cancel)
		select {
		case <-opened:
		case <-limited.Done():
			err = &client.Error{Code: client.CodeOffline, Message: "the cloud is being opened again", Cause: "it has changed", Try: "the same in a moment"}
		}
		timer.Stop()
		cancel()
		if err != nil {
			return nil, nil, err
		}
	}
}

// use calls f with the session there is; it is not closed meanwhile.
func (h *Home) use(ctx context.Context, f func(*session) error) error {
	s, done, err := h.acquire(ctx)
	if err != nil {
		return err
	}
	defer done()
	return f(s)
}

// end closes what run has left open.
func (h *Home) end() error {
	h.stopInviting()
	s := h.now()
	if s == nil {
		return nil
	}
	h.set(nil, errors.New("the node is ending"))
	return s.close()
}

// changed is told that something about the cloud has changed.
func (h *Home) changed() {
	if s := h.now(); s != nil {
		s.poke()
	}
}
