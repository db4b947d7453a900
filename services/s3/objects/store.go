package objects

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// A Store has buckets.
type Store struct {
	o      Options
	device [6]byte // in the ids of versions

	mu     sync.Mutex
	open   map[place]*shared // guarded by mu: in use, or lately
	uses   uint64            // guarded by mu
	closed bool              // guarded by mu
}

// A place names a bucket.
type place struct{ app, name string }

// shared is an open bucket, of all who have it open.
type shared struct {
	store *Store
	place place
	space *Space
	f     *folder.Folder
	queue queue
	known memory

	ready chan struct{} // closed when it is open, or could not be opened
	err   error

	// Guarded by the store.
	users int
	last  uint64        // when it was used, counted in uses
	gone  chan struct{} // it is about to be dropped; closed when nobody has it open
}

// New returns the buckets of some spaces. It must be closed.
func New(o Options) *Store {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Idle <= 0 {
		o.Idle = 64
	}
	s := &Store{o: o, open: map[place]*shared{}}
	_, _ = rand.Read(s.device[:]) // it never fails
	return s
}

// List returns the buckets of an app in the order of their names.
func (s *Store) List(ctx context.Context, app string) ([]Info, error) {
	return s.o.Spaces.List(ctx, app)
}

// Make makes a bucket and opens it. With lock, versions can be locked in it; it has
// versions then. The bucket must be closed.
func (s *Store) Make(ctx context.Context, app, name string, lock bool) (*Bucket, error) {
	space, err := s.o.Spaces.Make(ctx, app, name)
	if err != nil {
		return nil, err
	}
	if err := space.close(); err != nil {
		return nil, err
	}
	b, err := s.Open(ctx, app, name)
	if err != nil || !lock {
		return b, err
	}
	err = b.SetState(ctx, func(st *State) { st.Versioning, st.Locks = Enabled, true })
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (s *Space) close() error {
	if s.Close == nil {
		return nil
	}
	return s.Close()
}

var errClosed = errors.New("the buckets were closed")

// Open opens a bucket, which must be closed. It costs little when it was open lately.
func (s *Store) Open(ctx context.Context, app, name string) (*Bucket, error) {
	p := place{app, name}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errClosed
	}
	sh, there := s.open[p]
	var end *shared
	if there && sh.lost() {
		// Who uses it still closes it.
		if delete(s.open, p); sh.users == 0 {
			end = sh
		}
		there = false
	}
	if there && sh.gone != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("open bucket %q: %w", name, ErrNoBucket)
	}
	if !there {
		sh = &shared{store: s, place: p, ready: make(chan struct{}), queue: queue{turn: make(chan struct{}, 1)}}
		s.open[p] = sh
	}
	sh.users++
	s.mu.Unlock()
	if end != nil {
		_ = end.space.close() // of what is gone
	}
	if there {
		<-sh.ready
	} else {
		// Who else waits for it must not depend on this one's context.
		sh.space, sh.err = s.o.Spaces.Open(context.WithoutCancel(ctx), app, name)
		if sh.err == nil {
			sh.f = sh.space.Folder
		}
		close(sh.ready)
	}
	if sh.err != nil {
		return nil, errors.Join(sh.err, s.release(sh))
	}
	return &Bucket{shared: sh}, nil
}

// lost reports whether its folder is gone. s.mu is held.
func (sh *shared) lost() bool {
	select {
	case <-sh.ready:
		return sh.err == nil && sh.gone == nil && sh.space.Gone != nil && sh.space.Gone()
	default:
		return false
	}
}

// release ends one use, and closes what was not used for longest.
func (s *Store) release(sh *shared) error {
	s.mu.Lock()
	sh.users--
	s.uses++
	sh.last = s.uses
	var end *shared
	switch {
	case sh.users > 0:
	case sh.err != nil:
		if s.open[sh.place] == sh {
			delete(s.open, sh.place)
		}
	case s.open[sh.place] != sh:
		end = sh
	case sh.gone != nil:
		close(sh.gone)
	case s.closed:
		end = sh
	default:
		idle := 0
		for _, other := range s.open {
			if other.users == 0 && other.gone == nil {
				if idle++; end == nil || other.last < end.last {
					end = other
				}
			}
		}
		if idle <= s.o.Idle {
			end = nil
		}
	}
	if end != nil && s.open[end.place] == end {
		delete(s.open, end.place)
	}
	s.mu.Unlock()
	if end == nil {
		return nil
	}
	return end.space.close()
}

// Drop removes a bucket, which must be empty: ErrNotEmpty. Uploads in it are
// forgotten. It waits for those who use it.
func (s *Store) Drop(ctx context.Context, app, name string) (err error) {
	b, err := s.Open(ctx, app, name)
	if err != nil {
		return err
	}
	sh := b.shared
	if empty, err := sh.empty(ctx); err != nil || !empty {
		if err == nil {
			err = fmt.Errorf("drop bucket %q: %w", name, ErrNotEmpty)
		}
		return errors.Join(err, b.Close())
	}
	// Nobody can open it any more; see again when the last one has gone.
	gone := make(chan struct{})
	s.mu.Lock()
	if sh.gone != nil {
		s.mu.Unlock()
		return errors.Join(fmt.Errorf("drop bucket %q: %w", name, ErrNoBucket), b.Close())
	}
	sh.gone = gone
	s.mu.Unlock()
	if err := b.Close(); err != nil {
		return err
	}
	back := func() {
		s.mu.Lock()
		sh.gone = nil
		s.mu.Unlock()
	}
	select {
	case <-gone:
	case <-ctx.Done():
		back()
		return ctx.Err()
	}
	empty, err := sh.empty(ctx)
	if err == nil && !empty {
		err = fmt.Errorf("drop bucket %q: %w", name, ErrNotEmpty)
	}
	if err != nil {
		back()
		return err
	}
	err = sh.space.close()
	if err == nil {
		err = s.o.Spaces.Drop(ctx, app, name)
	}
	s.mu.Lock()
	delete(s.open, sh.place)
	s.mu.Unlock()
	return err
}

// empty reports whether there is no object and no version.
func (sh *shared) empty(ctx context.Context) (bool, error) {
	for e, err := range sh.f.Range(ctx, hyperbee.RangeOptions{}) {
		if err != nil || e.Kind == folder.File {
			return false, err
		}
	}
	for _, kind := range []string{rowObject, rowVersion} {
		for _, err := range sh.f.Asides(ctx, from("", kind)) {
			return false, err
		}
	}
	return true, nil
}

// Close closes all that is open. What is in use is closed when its user closes it.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	var list []*shared
	for p, sh := range s.open {
		if sh.users == 0 && sh.gone == nil {
			list = append(list, sh)
			delete(s.open, p)
		}
	}
	s.mu.Unlock()
	var err error
	for _, sh := range list {
		err = errors.Join(err, sh.space.close())
	}
	return err
}

// A Bucket is one that is open.
type Bucket struct {
	*shared
	closing sync.Once
}

// Close ends the use of the bucket.
func (b *Bucket) Close() (err error) {
	b.closing.Do(func() { err = b.store.release(b.shared) })
	return err
}

// Name returns the bucket's name.
func (b *Bucket) Name() string { return b.place.name }

// Created returns when it was made; zero where that is not known.
func (b *Bucket) Created() time.Time { return b.space.Created }

// Notify calls f when something may have happened, until stop is called. f must
// return soon and must not use the bucket.
func (b *Bucket) Notify(f func()) (stop func()) { return b.f.Notify(f) }
