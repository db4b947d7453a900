package hyperswarm

import (
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// minConnected is how long a connection has to last before the peer counts as
// one that is tried again quickly (lib/peer-info.js, MIN_CONNECTION_TIME).
const minConnected = 15 * time.Second

// A Priority says which peer is connected to first.
type Priority uint8

// The priorities. A peer whose connection was lost a moment ago goes before
// those that were never tried, and those go before one that failed for long.
const (
	VeryLow Priority = iota
	Low
	Normal
	High
	VeryHigh
)

// peer is what a swarm knows of a peer (lib/peer-info.js).
type peer struct {
	key    noise.Key
	relays []netip.AddrPort
	lan    *neighbour // where it is on the local network, if that is known
	topics []Topic

	reconnecting bool
	proven       bool // it was connected to
	banned       bool
	explicit     bool
	waiting      bool // for a retry
	forceRelay   bool
	queued       bool
	client       bool // we connected to it, and not it to us
	connected    time.Time
	disconnected time.Time
	attempts     int
	priority     Priority
	tick         int // of the flush that waits for it
}

func newPeer(key noise.Key) *peer { return &peer{key: key, reconnecting: true, priority: Normal} }

func (p *peer) rank() Priority {
	switch {
	case p.attempts > 3:
		return VeryLow
	case p.attempts == 3:
		return Low
	case p.attempts == 2:
		return High
	case p.attempts == 1:
		return VeryHigh
	}
	return Normal
}

func (p *peer) opened(now time.Time) {
	p.proven = true
	p.connected = now
}

func (p *peer) closed(now time.Time) {
	p.disconnected = now
	if !p.connected.IsZero() {
		if now.Sub(p.connected) >= minConnected {
			p.attempts = 0
		}
		p.connected = time.Time{}
	}
	p.attempts++
}

// reset lets a peer that was found again begin anew.
func (p *peer) reset() {
	p.client, p.proven, p.attempts = false, false, 0
}

// update sets the priority, and reports whether the peer may be queued.
func (p *peer) update() bool {
	if p.explicit && p.attempts > 3 {
		p.attempts = 3
	}
	if p.banned || p.queued || p.attempts > 3 {
		return false
	}
	p.priority = p.rank()
	return true
}

// idle reports whether there is no reason to remember the peer.
func (p *peer) idle() bool { return !(p.banned || p.queued || p.explicit || p.waiting) }

// A queue gives the peers of the highest priority first, and those of one
// priority in random order.
type queue struct {
	random io.Reader
	list   [VeryHigh + 1][]*peer
}

func (q *queue) add(p *peer) { q.list[p.priority] = append(q.list[p.priority], p) }

func (q *queue) len() (n int) {
	for _, l := range q.list {
		n += len(l)
	}
	return n
}

func (q *queue) shift() *peer {
	for i := len(q.list) - 1; i >= 0; i-- {
		if n := len(q.list[i]); n > 0 {
			at := int(below(q.random, uint64(n)))
			p := q.list[i][at]
			q.list[i] = slices.Delete(q.list[i], at, at+1)
			return p
		}
	}
	return nil
}

// remove takes a peer out.
func (q *queue) remove(p *peer) {
	l := &q.list[p.priority]
	*l = slices.DeleteFunc(*l, func(o *peer) bool { return o == p })
}

// below returns a number under n, near enough to evenly.
func below(random io.Reader, n uint64) uint64 {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		panic("hyperswarm: no randomness: " + err.Error())
	}
	return binary.LittleEndian.Uint64(b[:]) % max(n, 1)
}

// upTo returns a random time of at most d.
func upTo(random io.Reader, d time.Duration) time.Duration {
	return time.Duration(below(random, uint64(d)+1))
}

// retries are the peers to try again, by how long they wait
// (lib/retry-timer.js).
type retries struct {
	lists [4]*bulk
}

// defaultBackoffs are those of the reference: of a peer that was lost a moment
// ago, then of one that failed again, and of explicit peers that always fail.
func defaultBackoffs(random io.Reader) [4]time.Duration {
	const jitter = 500 * time.Millisecond
	return [4]time.Duration{
		time.Second + upTo(random, jitter),
		5*time.Second + upTo(random, 2*jitter),
		15*time.Second + upTo(random, 4*jitter),
		10*time.Minute + upTo(random, 240*jitter),
	}
}

func newRetries(c clock.Clock, random io.Reader, backoffs [4]time.Duration, jitter time.Duration, ring func(*bulk)) *retries {
	r := &retries{}
	for i, d := range backoffs {
		r.lists[i] = &bulk{clock: c, time: d + upTo(random, jitter), ring: ring}
	}
	return r
}

// add has a peer wait, and reports whether it is to be tried again at all.
func (r *retries) add(p *peer) bool {
	list := -1
	switch {
	case p.banned || !p.reconnecting:
	case p.attempts > 3 && p.explicit:
		list = 3
	case p.attempts > 3:
	case p.attempts == 0 || p.attempts == 1 && p.proven:
		list = 0
	case p.attempts == 1 || p.attempts == 2 && p.proven:
		list = 1
	default:
		list = 2
	}
	if list < 0 {
		return false
	}
	r.lists[list].add(p)
	return true
}

func (r *retries) stop() {
	for _, b := range r.lists {
		b.stop()
	}
}

// A bulk has peers wait for between half of its time and all of it, with one
// timer for all (lib/bulk-timer.js, which takes a third more). Its methods are
// called with the swarm's lock.
type bulk struct {
	clock         clock.Clock
	time          time.Duration
	ring          func(*bulk) // called when the timer fires, without the lock
	timer         clock.Timer
	next, pending []*peer
	stopped       bool
}

func (b *bulk) add(p *peer) {
	if b.stopped {
		return
	}
	b.pending = append(b.pending, p)
	b.arm()
}

func (b *bulk) arm() {
	if b.timer == nil {
		b.timer = b.clock.AfterFunc(b.time/2, func() { b.ring(b) })
	}
}

// due returns who has waited for long enough, once the timer has fired.
func (b *bulk) due() []*peer {
	b.timer = nil
	due := b.next
	b.next, b.pending = b.pending, nil
	if len(b.next) > 0 && !b.stopped {
		b.arm()
	}
	return due
}

func (b *bulk) stop() {
	b.stopped = true
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.next, b.pending = nil, nil
}
