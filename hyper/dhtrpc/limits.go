package dhtrpc

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/crypto/blake2b"
)

// A window bounds how many requests are under way: so many in each slot of time
// and twice as many in four of them, not counting those that were answered.
type window struct {
	max   int
	total int
	slots [4]int
	i     int
	next  time.Time // when the next slot begins
}

const windowSlot = 750 * time.Millisecond

// advance begins the slots whose time has come.
func (w *window) advance(now time.Time) {
	if w.total == 0 || now.Sub(w.next) > time.Duration(len(w.slots))*windowSlot {
		*w = window{max: w.max, next: now.Add(windowSlot)}
		return
	}
	for !now.Before(w.next) {
		w.next = w.next.Add(windowSlot)
		w.i = (w.i + 1) % len(w.slots)
		w.total -= w.slots[w.i]
		w.slots[w.i] = 0
	}
}

func (w *window) full() bool { return w.total >= 2*w.max || w.slots[w.i] >= w.max }

func (w *window) sent() {
	w.total++
	w.slots[w.i]++
}

// done takes a request out that was answered or given up.
func (w *window) done() {
	if w.slots[w.i] > 0 {
		w.slots[w.i]--
		w.total--
	}
}

const (
	// firstTimeout is how long an answer of a node is waited for that has not
	// answered before.
	firstTimeout = time.Second

	// The timeout for one that has is between these; what is added at random keeps
	// nodes from asking again all at once.
	minTimeout    = 300 * time.Millisecond
	maxTimeout    = 4 * time.Second
	timeoutJitter = 256 * time.Millisecond

	maxTimes = 512 // nodes of which round trips are kept, twice
)

// times are the round trips to nodes, from which timeouts are made (RFC 6298).
// It keeps those of the nodes that were measured last.
type times struct {
	young, old map[netip.AddrPort]roundTrip
}

type roundTrip struct{ mean, deviation time.Duration }

func (t *times) get(addr netip.AddrPort) (roundTrip, bool) {
	r, ok := t.young[addr]
	if !ok {
		r, ok = t.old[addr]
	}
	return r, ok
}

// measured counts a round trip.
func (t *times) measured(addr netip.AddrPort, d time.Duration) {
	r, ok := t.get(addr)
	if !ok {
		r = roundTrip{d, d / 2}
	} else {
		r.deviation += ((r.mean - d).Abs() - r.deviation) / 4
		r.mean += (d - r.mean) / 8
	}
	if t.young == nil || len(t.young) >= maxTimes {
		t.old, t.young = t.young, map[netip.AddrPort]roundTrip{}
	}
	t.young[addr] = r
}

// timeout is how long to wait for the answer to a request that is sent for the
// n-th time.
func (t *times) timeout(addr netip.AddrPort, n int, random *dice) time.Duration {
	r, ok := t.get(addr)
	if !ok {
		return firstTimeout
	}
	d := (r.mean+2*r.deviation)*time.Duration(n) + time.Duration(random.below(int(timeoutJitter)))
	return min(max(d, minTimeout), maxTimeout)
}

// dice are numbers that nobody else can predict.
type dice struct{ blake2b.XOF }

func newDice(seed [32]byte) (*dice, error) {
	x, err := blake2b.NewXOF(blake2b.OutputLengthUnknown, seed[:])
	return &dice{x}, err
}

func (d *dice) number() uint64 {
	var b [8]byte
	if _, err := d.Read(b[:]); err != nil {
		panic("dhtrpc: the dice are used up, after 256 GiB")
	}
	return binary.LittleEndian.Uint64(b[:])
}

// below is a number from 0 to n-1.
func (d *dice) below(n int) int { return int(d.number() % uint64(n)) }

// tokenTime is how long a token is the one that is given out. It is taken for
// as long again.
const tokenTime = 7500 * time.Millisecond

// tokens makes and knows tokens: proofs that who sends one can receive at its
// address. Others than the node that made them can't tell anything from them.
type tokens struct{ secret [32]byte }

// at is the token for an address at a time.
func (t *tokens) at(now time.Time, back int64, addr netip.Addr) Token {
	b := binary.LittleEndian.AppendUint64(t.secret[:], uint64(now.UnixNano()/int64(tokenTime)-back))
	return blake2b.Sum256(append(b, addr.AsSlice()...))
}

func (t *tokens) valid(now time.Time, token Token, addr netip.Addr) bool {
	return token == t.at(now, 0, addr) || token == t.at(now, 1, addr)
}

// Allowance of a source that has not proven its address.
const (
	budgetBurst = 64 << 10 // bytes
	budgetRate  = 1 << 10  // bytes a second
	budgets     = 1 << 10
)

// A budget bounds how much more is sent to addresses than came from them, as
// long as they have not proven that they are who they say: an address in a
// packet may be that of a victim. Networks of 256 addresses have an allowance
// each, or share one with others that a secret hash puts with them; so it has
// one size whoever sends.
type budget struct {
	seed    uint64
	buckets []bucket // nil as long as nothing was taken
}

type bucket struct {
	spent float64 // bytes, as it was at
	at    float64 // seconds since start
}

// take reports whether that many bytes more than came may go to an address, and
// counts them. The time is since the start.
func (b *budget) take(now time.Duration, to netip.Addr, bytes int) bool {
	if bytes <= 0 || to.IsLoopback() {
		return true
	}
	if b.buckets == nil {
		b.buckets = make([]bucket, budgets)
	}
	ip := to.As4()
	key := (uint64(binary.BigEndian.Uint32(ip[:])>>8) ^ b.seed) * 0x9e3779b97f4a7c15
	key = (key ^ key>>32) * 0xd6e8feb86659fd93
	p := &b.buckets[key>>32%budgets]
	seconds := now.Seconds()
	spent := max(0, p.spent-(seconds-p.at)*budgetRate)
	if spent+float64(bytes) > budgetBurst {
		return false
	}
	*p = bucket{spent + float64(bytes), seconds}
	return true
}

// Ticks of health.
const (
	healthTicks  = 4
	offlineAfter = 2 // ticks without an answer
	healthIdle   = 4 // requests of a tick that tell something
)

// health concludes from requests that were answered and not whether this
// machine is online (lib/health.js).
type health struct {
	ticks             int // since the start or the reset
	responses, lost   int // before the last tick
	window            [healthTicks]condition
	offlineTicks      int
	offline, degraded bool
}

// A condition is what a tick tells of the network.
type condition int8

const (
	unknown condition = iota
	good
	bad
)

// update ends a tick; the counts are of all time.
func (h *health) update(responses, lost int) {
	r, l := responses-h.responses, lost-h.lost
	h.responses, h.lost = responses, lost
	h.ticks++
	now := &h.window[h.ticks%healthTicks]
	*now = unknown
	if h.ticks < healthTicks || r+l < healthIdle {
		return
	}
	if r == 0 {
		if h.offlineTicks++; h.offlineTicks >= offlineAfter {
			h.offline = true
		}
	} else {
		h.offline, h.offlineTicks = false, 0
		*now = good
		if float64(l) > 0.5*float64(r+l) {
			*now = bad
		}
	}
	switch {
	case h.offline || h.all(good):
		h.degraded = false
	case h.all(bad):
		h.degraded = true
	}
}

func (h *health) all(c condition) bool { return h.window == [healthTicks]condition{c, c, c, c} }

func (h *health) reset(responses, lost int) { *h = health{responses: responses, lost: lost} }
