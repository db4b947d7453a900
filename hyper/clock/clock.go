// Package clock is the seam for time. Nothing else under hyper asks the
// system what time it is or waits by itself, so that whole swarms can run in
// one test on a Fake clock, at any speed and the same way every time.
package clock

import (
	"container/heap"
	"context"
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

// Sleep waits, and tells whether the time has passed before ctx ended.
func Sleep(ctx context.Context, c Clock, d time.Duration) bool {
	woken := make(chan struct{})
	timer := c.AfterFunc(d, func() { close(woken) })
	defer timer.Stop()
	select {
	case <-woken:
		return true
	case <-ctx.Done():
		return false
	}
}

// A Fake is a clock that moves only when told to. Its zero value is not ready;
// use NewFake.
type Fake struct {
	mu      sync.Mutex
	now     time.Time
	made    uint64
	waiting timers
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
	c.made++
	t := &fakeTimer{clock: c, at: c.now.Add(max(d, 0)), turn: c.made, f: f}
	heap.Push(&c.waiting, t)
	return t
}

// Advance moves the clock by d and makes the calls that fall due, one after
// another in the order of their times, each at its own time. Calls of one time
// are made in the order they were asked for.
func (c *Fake) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	for len(c.waiting) > 0 && !c.waiting[0].at.After(end) {
		next := heap.Pop(&c.waiting).(*fakeTimer)
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

type fakeTimer struct {
	clock *Fake
	at    time.Time
	turn  uint64
	f     func()
	place int // in the heap, or -1
}

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	if t.place < 0 {
		return false
	}
	heap.Remove(&t.clock.waiting, t.place)
	return true
}

// timers is a heap, so that a simulation of thousands of nodes finds its next
// timer fast.
type timers []*fakeTimer

func (h timers) Len() int { return len(h) }

func (h timers) Less(i, j int) bool {
	if c := h[i].at.Compare(h[j].at); c != 0 {
		return c < 0
	}
	return h[i].turn < h[j].turn
}

func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *timers) Push(x any) {
	t := x.(*fakeTimer)
	t.place = len(*h)
	*h = append(*h, t)
}

func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.place = -1
	return t
}
