package node

import (
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// restAfter is how long nothing must have happened until memory is given back.
const restAfter = 15 * time.Second

// A rester gives memory back to the system when nothing happens any more, once:
// by itself the runtime keeps what was needed last, and looks again after
// minutes.
type rester struct {
	clock clock.Clock

	mu     sync.Mutex
	rest   []func()  // what to do then, the last first
	last   time.Time // when something happened
	timer  clock.Timer
	closed bool
}

func newRester(c clock.Clock) *rester { return &rester{clock: c, rest: []func(){giveBack}} }

// onRest has f called before those there are.
func (r *rester) onRest(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = append(r.rest, f)
}

func giveBack() {
	debug.FreeOSMemory()
	forgetFiles()
}

// stir says that something happens.
func (r *rester) stir() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = r.clock.Now()
	if r.timer == nil && !r.closed {
		r.timer = r.clock.AfterFunc(restAfter, r.look)
	}
}

func (r *rester) look() {
	r.mu.Lock()
	r.timer = nil
	left := restAfter - r.clock.Now().Sub(r.last)
	if left > 0 && !r.closed {
		r.timer = r.clock.AfterFunc(left, r.look)
	}
	var rest []func()
	if left <= 0 && !r.closed {
		rest = slices.Clone(r.rest)
	}
	r.mu.Unlock()
	for _, f := range slices.Backward(rest) {
		f()
	}
}

func (r *rester) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}
