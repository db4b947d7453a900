// Package clock is the seam for time. Nothing else under hyper asks the
// system what time it is or waits by itself, so that whole swarms can run in
// one test on a Fake clock, at any speed and the same way every time.
package clock

import (
	"sync"
	"time"
)

// A Clock tells the time and calls back later. Its methods may be called by
// any goroutine.
type Clock interface {
	// Now returns the time.
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own once d has passed.
	AfterFunc(d time.Duration, f func()) Timer
}

// A Timer is a call that is to come.
type Timer interface {
	// Stop cancels the call and reports whether it did; false means that the
	// call has begun or was cancelled before.
	Stop() bool
}

// System is the machine's clock.
var System Clock = system{}

type system struct{}

func (system) Now() time.Time                            { return time.Now() }
func (system) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// A Fake is a clock that moves only when told to. Its zero value is not ready;
// use NewFake.
type Fake struct {
	mu      sync.Mutex
	now     time.Time
	waiting []*fakeTimer
}

// NewFake returns a fake clock that shows the given time.
func NewFake(now time.Time) *Fake { return &Fake{now: now} }

// Now returns the time the clock was last moved to.
func (c *Fake) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc implements Clock. The call is made by Advance, in its goroutine.
func (c *Fake) AfterFunc(d time.Duration, f func()) Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{clock: c, at: c.now.Add(d), f: f}
	c.waiting = append(c.waiting, t)
	return t
}

// Advance moves the clock by d and makes the calls that fall due, one after
// another in the order of their times, each at its own time.
func (c *Fake) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	for {
		var next *fakeTimer
		for _, t := range c.waiting {
			if !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			break
		}
		c.removeLocked(next)
		c.now = next.at
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// Waiting returns how many calls are to come.
func (c *Fake) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

func (c *Fake) removeLocked(t *fakeTimer) bool {
	for i := range c.waiting {
		if c.waiting[i] == t {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			return true
		}
	}
	return false
}

type fakeTimer struct {
	clock *Fake
	at    time.Time
	f     func()
}

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return t.clock.removeLocked(t)
}
