package bridge

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// DrivesOptions say how drives are kept open.
type DrivesOptions struct {
	// Open opens the drive of a key, and has peers looked for that have it; done ends
	// both. It must be there.
	Open func(ctx context.Context, key hypercore.Key) (d *hyperdrive.Drive, done func() error, err error)
	// Max is how many are open at once; 64 when 0.
	Max int
	// IdleAfter is how long one stays open that nobody reads; 1 min when 0.
	IdleAfter time.Duration
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
}

// Drives keeps drives open that are read, and for a while after. It has no
// goroutines.
type Drives struct {
	o DrivesOptions

	mu     sync.Mutex // guards the fields below
	open   map[hypercore.Key]*openDrive
	timer  clock.Timer
	closed bool
}

// An openDrive is one that is open, or is being opened.
type openDrive struct {
	key     hypercore.Key
	instead *openDrive    // to be closed before
	ready   chan struct{} // closed when the fields up to users are there
	d       *hyperdrive.Drive
	done    func() error
	err     error

	users int       // guarded by Drives.mu, as what follows
	since time.Time // when the last user left
}

// NewDrives returns a set of no drives. It must be closed.
func NewDrives(o DrivesOptions) *Drives {
	if o.Max == 0 {
		o.Max = 64
	}
	if o.IdleAfter == 0 {
		o.IdleAfter = time.Minute
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	return &Drives{o: o, open: map[hypercore.Key]*openDrive{}}
}

// Get returns a drive as it is, or at a version if at is not empty, and what to
// call when it was read. A drive that is not known here is waited for while the
// context lasts; ErrUnreachable means that nobody who has it was found.
func (s *Drives) Get(ctx context.Context, key hypercore.Key, at string, public bool) (Source, func(), error) {
	version, err := parseVersion(at)
	if err != nil {
		return nil, nil, err
	}
	one, err := s.use(ctx, key)
	if err != nil {
		return nil, nil, fmt.Errorf("open drive %s: %w", key, err)
	}
	fail := func(err error) (Source, func(), error) {
		s.release(one)
		return nil, nil, fmt.Errorf("find drive %s: %w", key, err)
	}
	// One of which there is nothing here, or not as much as is asked for.
	if length := one.d.Tree().Log().Length(); !one.d.Writable() && (length == 0 || version > one.d.Version()) {
		if err := one.d.Update(ctx); err != nil {
			return fail(err)
		}
		if one.d.Tree().Log().Length() == 0 {
			return fail(ErrUnreachable)
		}
	}
	if at == "" {
		return NewDrive(one.d, DriveOptions{Public: public}), func() { s.release(one) }, nil
	}
	if version > one.d.Version() {
		return fail(ErrBadTime)
	}
	old, err := one.d.Checkout(version)
	if err != nil {
		return fail(err)
	}
	return NewDrive(old, DriveOptions{Public: public, Fixed: true}), func() {
		_ = old.Close() // it was read
		s.release(one)
	}, nil
}

// parseVersion returns the version that an address asks for, 0 for what is now.
func parseVersion(at string) (uint64, error) {
	if at == "" {
		return 0, nil
	}
	version, err := strconv.ParseUint(at, 10, 64)
	if err != nil || version == 0 {
		return 0, fmt.Errorf("%w: drives have versions from 1 on, not %q", ErrBadTime, at)
	}
	return version, nil
}

// use returns an open drive with one more user.
func (s *Drives) use(ctx context.Context, key hypercore.Key) (*openDrive, error) {
	for {
		one, mine, err := s.join(key)
		if err != nil {
			return nil, err
		}
		if mine {
			s.begin(ctx, one)
		}
		select {
		case <-one.ready:
		case <-ctx.Done():
			s.release(one)
			return nil, context.Cause(ctx)
		}
		if one.err == nil {
			return one, nil
		}
		s.release(one)
		if mine || ctx.Err() != nil || !errors.Is(one.err, context.Canceled) {
			return nil, one.err
		}
		// Whoever opened it has gone: another does.
	}
}

// join returns the drive of a key with one more user, and whether that user is to
// open it.
func (s *Drives) join(key hypercore.Key) (one *openDrive, mine bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, hyperdrive.ErrClosed
	}
	if one = s.open[key]; one != nil {
		one.users++
		return one, false, nil
	}
	one = &openDrive{key: key, ready: make(chan struct{}), users: 1}
	if len(s.open) >= s.o.Max {
		if one.instead = s.oldestLocked(); one.instead == nil {
			return nil, false, ErrBusy
		}
		delete(s.open, one.instead.key)
	}
	s.open[key] = one
	return one, true, nil
}

// begin opens a drive, once the one is closed that it takes the place of.
func (s *Drives) begin(ctx context.Context, one *openDrive) {
	if one.instead != nil {
		one.err = one.instead.done()
		one.instead = nil
	}
	if one.err == nil {
		one.d, one.done, one.err = s.o.Open(ctx, one.key)
	}
	if one.err != nil {
		s.mu.Lock()
		delete(s.open, one.key)
		s.mu.Unlock()
	}
	close(one.ready)
}

// oldestLocked returns the drive that was not read for the longest time.
func (s *Drives) oldestLocked() (old *openDrive) {
	for _, one := range s.open {
		if one.users == 0 && (old == nil || one.since.Before(old.since)) {
			old = one
		}
	}
	return old
}

func (s *Drives) release(one *openDrive) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.users--; one.users > 0 || s.closed {
		return
	}
	one.since = s.o.Clock.Now()
	if s.timer == nil && s.open[one.key] == one {
		s.timer = s.o.Clock.AfterFunc(s.o.IdleAfter, s.idle)
	}
}

// idle closes the drives that nobody reads.
func (s *Drives) idle() {
	s.mu.Lock()
	now := s.o.Clock.Now()
	var old []*openDrive
	next := time.Duration(-1)
	for key, one := range s.open {
		if one.users > 0 {
			continue
		}
		left := s.o.IdleAfter - now.Sub(one.since)
		if left <= 0 {
			old = append(old, one)
			delete(s.open, key)
		} else if next < 0 || left < next {
			next = left
		}
	}
	if s.timer = nil; next >= 0 && !s.closed {
		s.timer = s.o.Clock.AfterFunc(next, s.idle)
	}
	s.mu.Unlock()
	for _, one := range old {
		_ = one.done() // nothing was written
	}
}

// Len returns how many drives are open.
func (s *Drives) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Close closes all drives. Nobody may be reading any more.
func (s *Drives) Close() (err error) {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	open := s.open
	s.open = map[hypercore.Key]*openDrive{}
	s.mu.Unlock()
	for _, one := range open {
		<-one.ready
		if one.err == nil {
			err = errors.Join(err, one.done())
		}
	}
	return err
}
