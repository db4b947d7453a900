package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Space is data that all devices of a cloud write: a tree, and contents where
// it has files. It is the cloud's to close.
type Space struct {
	cloud *Cloud
	tree  *tree.Tree

	adding sync.Mutex // held to add a writer

	mu      sync.Mutex
	info    SpaceInfo
	writers map[hypercore.Key]*writer // by the keys of their trees
	own     *writer                   // of this device, once it writes
	watch   []func(Writer)            // told of writers
	missing func() int64              // counts bytes of contents that are not here
}

// A Writer is one device's logs of a space. They are to be left open.
type Writer struct {
	Device hypercore.Key
	// Tree and Content are the logs. Content is nil where a space has none.
	Tree, Content *hypercore.Log
	// Own says that this device writes them.
	Own bool
	// UpTo is how much of the tree's log counts, if not all of it: see
	// tree.Tree.Add.
	UpTo uint64
}

// A writer is an open Writer, with what brings its blocks here.
type writer struct {
	Writer
	record writerRecord
	bee    *hyperbee.Tree
	says   *tree.Tree // what it says alone; nil but in the control tree
	brings *download  // of the tree; nil if it is this device's own
}

// Info returns what the space is.
func (s *Space) Info() SpaceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// Tree returns the space's tree.
func (s *Space) Tree() *tree.Tree { return s.tree }

// Writers calls f with each writer of the space, also with those that are yet to
// come, one call at a time. f must not call the space.
func (s *Space) Writers(f func(Writer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = append(s.watch, f)
	for _, w := range s.writers {
		f(w.Writer)
	}
}

// Open returns the writers of the space that there are now.
func (s *Space) Open() []Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Writer, 0, len(s.writers))
	for _, w := range s.writers {
		list = append(list, w.Writer)
	}
	return list
}

// open returns the writers of the space.
func (s *Space) open() []*writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.writers))
}

// add opens the logs that a record names, if they are not open.
func (s *Space) add(r writerRecord, own bool) (err error) {
	c := s.cloud
	s.adding.Lock()
	defer s.adding.Unlock()
	if s.has(r.Tree) {
		return nil
	}
	key, ok := c.key(r.Epoch)
	if !ok {
		return nil // it comes with a later look at the control tree
	}
	space := spaceKey(key, r.Space)
	w := &writer{Writer: Writer{Device: r.Device, Own: own}, record: r}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	c.protect(r, own)
	o := corestore.LogOptions{Session: hypercore.SessionOptions{EncryptionKey: &space}}
	open := func(key hypercore.Key, what string) (*hypercore.Log, error) {
		o := o
		if own {
			pair := c.logKeys(r.Space, what)
			o.KeyPair = &pair
		} else {
			o.Key = &key
		}
		l, err := c.store.Get(o)
		if err != nil {
			return nil, fmt.Errorf("open the %s of space %s: %w", what, r.Space, err)
		}
		return l, nil
	}
	if w.Tree, err = open(r.Tree, "tree"); err != nil {
		return err
	}
	if r.Content != (hypercore.Key{}) {
		if w.Content, err = open(r.Content, "content"); err != nil {
			return err
		}
	}
	w.bee, err = hyperbee.Open(w.Tree, hyperbee.Options{Cache: c.cache, SkipEqual: true})
	if err != nil {
		return err
	}
	if own {
		err = s.tree.Own(w.bee)
	} else {
		c.mu.Lock()
		w.UpTo = limit(c.roster, r.Device, r.Tree)
		c.mu.Unlock()
		err = s.tree.Add(w.bee, w.UpTo)
	}
	if err != nil {
		return err
	}
	if s.Info().Kind == Control {
		w.says = tree.New(tree.Options{Clock: c.clock})
		if err := w.says.Add(w.bee, w.UpTo); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writers == nil {
		return tree.ErrClosed
	}
	s.writers[r.Tree] = w
	if own {
		s.own = w
	} else {
		s.bring(w)
	}
	for _, f := range s.watch {
		f(w.Writer)
	}
	return nil
}

// bring has the blocks of another device's tree come here as they are written.
// Contents come when somebody wants them. s.mu is held.
func (s *Space) bring(w *writer) {
	if w.brings == nil {
		w.brings = s.cloud.download(w.Tree)
	}
	w.brings.start()
}

// A download brings the blocks of a log here, as they are written, from whatever
// device has them.
type download struct {
	cloud   *Cloud
	log     *hypercore.Log
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	starts int // how often it was started; 0 if it does not run
}

func (c *Cloud) download(l *hypercore.Log) *download {
	d := &download{cloud: c, log: l}
	d.ctx, d.cancel = context.WithCancel(c.ctx)
	return d
}

// start begins to fetch, if there is a peer. It is to be called for each
// connection that is made, because fetching ends with the last one.
func (d *download) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starts++
	if d.starts > 1 || d.ctx.Err() != nil {
		return
	}
	r := d.cloud.store.Replicator(d.log.Key())
	if r == nil {
		d.starts = 0
		return
	}
	d.running.Go(func() {
		for {
			d.mu.Lock()
			starts := d.starts
			d.mu.Unlock()
			// It ends when there is no peer, or the log is closed.
			_ = r.FetchRange(d.ctx, hypercore.DownloadRange{Live: true, Linear: true})
			d.mu.Lock()
			if d.starts == starts || d.ctx.Err() != nil {
				d.starts = 0
				d.mu.Unlock()
				return
			}
			d.mu.Unlock() // a connection was made meanwhile
		}
	})
}

func (d *download) stop() {
	d.mu.Lock()
	d.cancel() // it does not start any more
	d.mu.Unlock()
	d.running.Wait()
}

// connected is told that there is another peer.
func (s *Space) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.writers {
		if !w.Own {
			s.bring(w)
		}
	}
}

// has tells whether a writer is open.
func (s *Space) has(tree hypercore.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writers[tree] != nil
}

// Write makes sure that this device has logs of its own in the space, so that
// it can be written to.
func (s *Space) Write(ctx context.Context) error {
	s.cloud.writing.Lock()
	defer s.cloud.writing.Unlock()
	s.mu.Lock()
	done := s.own != nil
	s.mu.Unlock()
	if done {
		return nil
	}
	info := s.Info()
	r := s.cloud.newRecord(info)
	// The record comes first: logs that nobody knows of would be lost.
	if err := s.cloud.putRecord(ctx, r); err != nil {
		return fmt.Errorf("begin to write to %s: %w", info.Name, err)
	}
	return s.add(r, true)
}

// close ends everything about the writer but the tree that reads it.
func (w *writer) close() (err error) {
	if w.brings != nil {
		w.brings.stop()
	}
	if w.says != nil {
		err = w.says.Close()
	}
	if w.bee != nil {
		err = errors.Join(err, w.bee.Close())
	}
	for _, l := range []*hypercore.Log{w.Tree, w.Content} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

func (s *Space) close() error {
	err := s.tree.Close()
	s.mu.Lock()
	writers := s.writers
	s.writers = nil
	s.mu.Unlock()
	for _, w := range writers {
		err = errors.Join(err, w.close())
	}
	return err
}
