package node

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// An idler counts the reasons for a node to go on, and calls back when there
// was none for a while.
type idler struct {
	clock clock.Clock
	after time.Duration // 0: never
	f     func()

	mu     sync.Mutex
	counts map[string]int
	timer  clock.Timer
	at     time.Time // when the timer fires
	turn   int       // of the timer: an old one that fires late counts for nothing
	closed bool
}

func newIdler(c clock.Clock, after time.Duration, f func()) *idler {
	i := &idler{clock: c, after: after, f: f, counts: map[string]int{}}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.armLocked()
	return i
}

// busy adds a reason. The node goes on until done is called, at least.
func (i *idler) busy(why string) (done func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.counts[why]++
	i.disarmLocked()
	return sync.OnceFunc(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.counts[why]--; i.counts[why] == 0 {
			delete(i.counts, why)
		}
		i.armLocked()
	})
}

func (i *idler) armLocked() {
	if i.after == 0 || i.closed || len(i.counts) > 0 {
		return
	}
	i.disarmLocked()
	turn := i.turn
	i.at = i.clock.Now().Add(i.after)
	i.timer = i.clock.AfterFunc(i.after, func() { i.fire(turn) })
}

func (i *idler) disarmLocked() {
	i.turn++
	if i.timer != nil {
		i.timer.Stop()
		i.timer, i.at = nil, time.Time{}
	}
}

func (i *idler) fire(turn int) {
	i.mu.Lock()
	due := turn == i.turn && !i.closed
	i.closed = i.closed || due
	i.mu.Unlock()
	if due {
		i.f()
	}
}

func (i *idler) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	i.disarmLocked()
}

// reasons lists why the node goes on, and when it would end if nothing comes.
func (i *idler) reasons() (list []client.Busy, at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for why, n := range i.counts {
		list = append(list, client.Busy{Why: why, Count: n})
	}
	slices.SortFunc(list, func(a, b client.Busy) int { return cmp.Compare(a.Why, b.Why) })
	return list, i.at
}
