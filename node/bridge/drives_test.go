package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// someDrives are drives of one store, and a set of those that are open.
type someDrives struct {
	*Drives
	t     *testing.T
	clock *clock.Fake
	keys  []hypercore.Key

	mu     sync.Mutex
	opened map[hypercore.Key]int // how many times, less those it was closed
}

func newSomeDrives(t *testing.T, n, most int) *someDrives {
	store := openStore(t, 'd')
	s := &someDrives{t: t, clock: clock.NewFake(time.Unix(1e9, 0)), opened: map[hypercore.Key]int{}}
	for i := range n {
		d, err := hyperdrive.Open(store, hyperdrive.Options{Name: fmt.Sprint("drive", i), Durability: hypercore.Soon})
		must(t, err)
		put(t, d, "/n", fmt.Append(nil, i), hyperdrive.PutOptions{})
		s.keys = append(s.keys, d.Key())
		must(t, d.Close())
	}
	s.Drives = NewDrives(DrivesOptions{Max: most, Clock: s.clock, Open: func(ctx context.Context, key hypercore.Key) (*hyperdrive.Drive, func() error, error) {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		d, err := hyperdrive.Open(store, hyperdrive.Options{Key: &key})
		if err != nil {
			return nil, nil, err
		}
		s.count(key, 1)
		return d, func() error { s.count(key, -1); return d.Close() }, nil
	}})
	t.Cleanup(func() {
		must(t, s.Close())
		for key, n := range s.opened {
			if n != 0 {
				t.Errorf("drive %s is open %d times at the end", key, n)
			}
		}
	})
	return s
}

func (s *someDrives) count(key hypercore.Key, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[key] += n
}

func (s *someDrives) get(i int) func() {
	s.t.Helper()
	source, release, err := s.Get(s.t.Context(), s.keys[i], "", true)
	must(s.t, err)
	if _, err := source.Lookup(s.t.Context(), "/n"); err != nil {
		s.t.Errorf("drive %d: %v", i, err)
	}
	return release
}

func TestDrivesCloseWhenIdle(t *testing.T) {
	s := newSomeDrives(t, 3, 10)
	first, again := s.get(0), s.get(0)
	s.get(1)()
	s.clock.Advance(40 * time.Second)
	s.get(2)()
	if s.Len() != 3 || s.opened[s.keys[0]] != 1 {
		t.Errorf("%d drives are open, the first %d times", s.Len(), s.opened[s.keys[0]])
	}
	s.clock.Advance(30 * time.Second)
	if s.Len() != 2 || s.opened[s.keys[1]] != 0 {
		t.Errorf("%d drives are open, want the one that is read and the last", s.Len())
	}
	first()
	s.clock.Advance(10 * time.Minute)
	if s.Len() != 1 {
		t.Errorf("%d drives are open, want the one that is read", s.Len())
	}
	again()
	s.clock.Advance(time.Minute)
	if s.Len() != 0 || s.clock.Waiting() != 0 {
		t.Errorf("%d drives are open, and %d timers, when nobody reads", s.Len(), s.clock.Waiting())
	}
	s.get(0)() // it opens again
}

func TestFewDrivesAreOpenAtOnce(t *testing.T) {
	s := newSomeDrives(t, 4, 2)
	busy := s.get(0)
	s.get(1)()
	s.clock.Advance(time.Second)
	s.get(2)() // in place of the second
	if s.opened[s.keys[1]] != 0 || s.Len() != 2 {
		t.Errorf("%d drives are open", s.Len())
	}
	also := s.get(2)
	if _, _, err := s.Get(t.Context(), s.keys[3], "", true); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want that it is busy", err)
	}
	busy()
	s.get(3)()
	also()
}

func TestManyOpenADriveOnce(t *testing.T) {
	s := newSomeDrives(t, 2, 2)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ctx := t.Context()
			if i%4 == 0 {
				ctx = gone
			}
			_, release, err := s.Get(ctx, s.keys[i%2], "", false)
			if (err != nil) != (i%4 == 0) && ctx != gone {
				t.Errorf("get %d: %v", i, err)
			}
			if err == nil {
				release()
			}
		})
	}
	wg.Wait()
	if s.opened[s.keys[0]] > 1 || s.opened[s.keys[1]] > 1 {
		t.Errorf("open: %v", s.opened)
	}
}

func TestVersionsOfDrives(t *testing.T) {
	s := newSomeDrives(t, 1, 2)
	for at, want := range map[string]error{"1": nil, "2": nil, "3": ErrBadTime, "0": ErrBadTime, "x": ErrBadTime, "-1": ErrBadTime, "99999999999999999999": ErrBadTime} {
		source, release, err := s.Get(t.Context(), s.keys[0], at, true)
		if !errors.Is(err, want) {
			t.Errorf("version %s: got %v, want %v", at, err, want)
		}
		if err != nil {
			continue
		}
		if got := source.State(); got.Revision != at || !got.Fixed || !got.Public {
			t.Errorf("version %s: state %+v", at, got)
		}
		release()
	}
	unknown := hypercore.Key{1}
	if _, _, err := s.Get(t.Context(), unknown, "", true); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a drive that nobody has: got %v", err)
	}
}
