package udx

import "time"

// A controller decides how much of a stream may be in flight, and how fast it
// goes out. It is part of a core, so it has no clock and no timer: times are
// those that the core was given, since the same beginning.
//
// For each packet with a seq there is a call of sent, at its first transmission
// and at each later one, and one of delivered at most. A packet that comes in
// while something is in flight ends with a call of acked, after those of
// delivered that it causes.
type controller interface {
	// sent is told of a packet that goes out. f does not count it yet. What a
	// sample of the rate needs later is noted in p, which is the packet's own and
	// is written anew when the packet is sent again.
	sent(f *flight, p *rateStamp)
	// delivered is told of a packet that the other side has, by the ack or by a
	// SACK. f does not count it any more.
	delivered(f *flight, p *rateStamp, d delivery)
	// acked ends what one packet from the other side told: so many of ours were
	// delivered, and so many found lost.
	acked(f *flight, delivered, lost int)
	// timedOut is told when nothing was heard for so long that much of what was in
	// flight is held for lost (RTO).
	timedOut(f *flight)
	// moved is told that the stream goes over another path from now on.
	moved(f *flight)
	// window is how many packets may be in flight, at least one.
	window() int
	// rate is how many bytes a second may go out, headers included, more than
	// zero.
	rate() float64
}

// A flight is what a controller may know of a stream.
type flight struct {
	now      time.Duration
	inFlight int // packets that were sent and are neither delivered nor held for lost
	lost     int // packets held for lost that were not sent again yet
	queued   int // bytes that were written and not sent yet
	recovery recovery
	// srtt is the smoothed round trip time and minRTT the least of the last
	// minutes; both are zero before the first sample.
	srtt, minRTT time.Duration
	payload      int // most bytes of data in a packet, at the path's MTU
}

// A recovery says how a stream stands with loss.
type recovery uint8

const (
	open       recovery = iota // nothing is missing
	recovering                 // RACK found a loss; until what was in flight then is acked
	losing                     // the same after an RTO
)

// A rateStamp is how the delivery stood when a packet was sent, for the sample
// of the rate that its ack completes. The core keeps it and never looks at it.
type rateStamp struct {
	firstSent   time.Duration // when the packet was sent whose ack came last
	deliveredAt time.Duration // when that ack came
	delivered   uint64        // packets delivered by then
	bytes       uint64        // the same in bytes, headers included
	appLimited  bool          // there was too little to send
}

// A delivery tells of a packet that the other side has.
type delivery struct {
	seq    uint32
	sentAt time.Duration // the last time
	size   int           // bytes, headers included
	again  bool          // it was sent more than once
	// rtt is the round trip time, negative if the ack may be that of an earlier
	// transmission.
	rtt time.Duration
}

const initialWindow = 10 // packets

// newController returns what a stream begins with. The seed, any number, is for
// streams that begin at once not to do all else at once too.
func newController(now time.Duration, seed uint64) controller { return newBBR(now, seed) }
