package udx

import "time"

// This file measures how fast the network delivers, as
// draft-cheng-iccrg-delivery-rate-estimation-00 says.

// A rateMeter counts what arrived.
type rateMeter struct {
	count        uint64        // packets that were delivered
	bytes        uint64        // of them, headers included
	at           time.Duration // when the last one was
	firstSent    time.Duration // when the newest packet that was delivered had left
	limitedUntil uint64        // until so many are delivered, too little was sent to measure; 0 is none

	// Of what the present ack tells of, the packet that left last.
	newest rateStamp
	sentAt time.Duration
	again  bool // and it had left before
	any    bool
}

// sent notes that a packet leaves, and stamps it.
func (r *rateMeter) sent(now time.Duration, inFlight int, p *rateStamp) {
	if inFlight == 0 {
		r.firstSent, r.at = now, now
	}
	*p = rateStamp{firstSent: r.firstSent, deliveredAt: r.at, delivered: r.count, bytes: r.bytes, appLimited: r.limitedUntil > 0}
}

// limited notes that there is nothing to send although there might be.
func (r *rateMeter) limited(inFlight int) { r.limitedUntil = max(1, r.count+uint64(inFlight)) }

// delivered notes that a packet arrived.
func (r *rateMeter) delivered(now time.Duration, p *rateStamp, d delivery) {
	r.count++
	r.bytes += uint64(d.size)
	r.at = now
	if r.any && d.sentAt < r.sentAt {
		return
	}
	r.newest, r.sentAt, r.again, r.any = *p, d.sentAt, d.again, true
	if !d.again {
		r.firstSent = d.sentAt
	}
}

// A sample is one measurement.
type sample struct {
	bytes    uint64 // delivered since the packet left that it was taken with
	prior    uint64 // packets delivered before that
	interval time.Duration
	limited  bool
}

// rate is bytes a second; 0 is not known.
func (s sample) rate() float64 {
	if s.interval <= 0 {
		return 0
	}
	return float64(s.bytes) / s.interval.Seconds()
}

// sample ends an ack and returns what it tells; false is nothing.
func (r *rateMeter) sample(now, minRTT time.Duration) (s sample, ok bool) {
	if r.count > r.limitedUntil {
		r.limitedUntil = 0
	}
	if !r.any {
		return s, false
	}
	r.any = false
	p := &r.newest
	s = sample{bytes: r.bytes - p.bytes, prior: p.delivered, limited: p.appLimited}
	// Acks that come in a bunch would feign a rate that the line doesn't have,
	// and so would packets that left in one: the slower is true.
	s.interval = max(r.sentAt-p.firstSent, now-p.deliveredAt)
	if s.interval < minRTT || r.again {
		// Which sending is it that arrived? And behind one that was lost much may
		// have arrived before and is told of only now.
		s.interval = 0
	}
	return s, true
}
