package udx

import "time"

// This file is BBR, version 1 (draft-cardwell-iccrg-bbr-congestion-control-00
// and Linux net/ipv4/tcp_bbr.c): the sender keeps a model of the path, the rate
// at which it delivers and the time it takes when no queue stands, paces at that
// rate, and bounds what is in flight by their product. Loss says little, so that
// a bad line is filled as a good one is.
//
// Three things are otherwise than there. Rates are in bytes, for an application
// may send small packets. Only heavy loss holds it back, but also while it
// starts. And the queue that a probe makes drains whole.

const (
	leastWindow = 4

	highGain   = 2.885 // 2/ln 2: doubles the rate each round trip
	windowGain = 2.0

	rateRounds      = 10 // round trips that a measured rate holds for
	fullGrowth      = 1.25
	fullRounds      = 3
	minRTTHolds     = 10 * time.Second
	probeRTTTime    = 200 * time.Millisecond
	longestDrain    = 3                      // round trips
	sameRTT         = 100 * time.Microsecond // so much or a sixteenth more is no queue
	heavyLoss       = 0.25                   // of what the path holds, in a round
	aggregateRounds = 5
	aggregateTime   = 100 * time.Millisecond
)

// phaseGains are the gains of the phases of probing for rate, one round trip
// each: more, then less so that the queue this made drains, then as measured.
var phaseGains = [...]float64{1.25, 0.75, 1, 1, 1, 1, 1, 1}

type bbrMode uint8

const (
	startup  bbrMode = iota // doubles until the rate grows no more
	drain                   // lets the queue go that startup made
	probeBW                 // keeps to the rate, and tries for more now and then
	probeRTT                // all but stops, to see the line without a queue
)

// A bbr is a controller. It is a pure value.
type bbr struct {
	meter   rateMeter
	wire    int // bytes of a full packet, headers included
	pace    float64
	rtt     time.Duration // the least that the present ack tells of, 0 is none
	movedAt time.Duration // to the present path

	mode       bbrMode
	cwnd       int
	priorCwnd  int     // before loss or the probing of the round trip
	pacingGain float64 // of the mode and the phase
	cwndGain   float64

	rates      maxFilter // bytes a second, by round
	rounds     uint64
	roundEnd   uint64 // the round is over when a packet is acked that left after so many were delivered
	roundBegan bool   // with this ack

	minRTT     time.Duration // 0 is unknown
	minRTTAt   time.Duration
	rttSeen    bool
	probeUntil time.Duration // 0: not drained yet
	probeRound bool          // a round has gone by since

	fullRate  float64 // the rate that startup must grow beyond
	fullCount int
	full      bool

	phase   int
	phaseAt time.Duration
	seed    uint64

	idleRestart bool
	was         recovery
	roundLost   int
	conserve    bool // for the rest of the round one packet leaves for each that arrives

	// How many more bytes come acked at once than the rate says: what is in
	// flight must be larger by it.
	extra      [2]float64
	extraIndex int
	extraRound int
	epochAt    time.Duration
	epochBytes uint64 // delivered when it began
}

// newBBR returns the controller of a stream. The seed is for streams that begin
// at once not to probe at once.
func newBBR(now time.Duration, seed uint64) *bbr {
	c := &bbr{cwnd: initialWindow, seed: seed, minRTTAt: now, epochAt: now, wire: baseMTU - 20 - 8}
	c.pace = highGain * initialWindow * float64(c.wire) / time.Millisecond.Seconds()
	c.setGains()
	return c
}

func (c *bbr) window() int   { return c.cwnd }
func (c *bbr) rate() float64 { return c.pace }

// delivers is what the path was found to deliver, in bytes a second.
func (c *bbr) delivers() float64 { return c.rates.value() }

func (c *bbr) sent(f *flight, p *rateStamp) {
	if f.inFlight == 0 && c.meter.limitedUntil > 0 {
		c.idleRestart = true
		c.epochAt, c.epochBytes = f.now, c.meter.bytes
		switch c.mode {
		case probeBW:
			c.setPace(1)
		case probeRTT:
			c.endProbeRTT(f.now)
		}
	}
	c.meter.sent(f.now, f.inFlight, p)
	if f.queued < f.payload && f.lost == 0 && f.inFlight+1 < c.cwnd {
		c.meter.limited(f.inFlight + 1)
	}
}

func (c *bbr) delivered(f *flight, p *rateStamp, d delivery) {
	if d.sentAt < c.movedAt {
		c.meter.count++ // on the path of before
		c.meter.bytes += uint64(d.size)
		return
	}
	c.meter.delivered(f.now, p, d)
	if d.rtt > 0 && (c.rtt == 0 || d.rtt < c.rtt) {
		c.rtt = d.rtt
	}
}

func (c *bbr) timedOut(f *flight) {
	c.saveCwnd()
	c.was = losing
	c.conserve = false
	c.fullRate = 0
	c.cwnd = f.inFlight + 1
}

// moved begins anew: what is known is of another path.
func (c *bbr) moved(f *flight) {
	fresh := newBBR(f.now, c.seed)
	fresh.meter, fresh.wire, fresh.roundEnd, fresh.movedAt = c.meter, c.wire, c.meter.count, f.now
	fresh.epochBytes = c.meter.bytes
	fresh.meter.firstSent, fresh.meter.at = f.now, f.now
	*c = *fresh
}

func (c *bbr) acked(f *flight, delivered, lost int) {
	c.wire = f.payload + headerSize
	s, ok := c.meter.sample(f.now, f.minRTT)
	if f.recovery != open && c.was == open {
		c.saveCwnd()
		c.was = recovering
	}
	c.roundBegan = false
	if ok {
		c.measure(s)
		c.measureAggregation(f.now)
	}
	c.measureLoss(f, delivered, lost)
	if c.mode == probeBW && c.phaseIsOver(f, lost) {
		c.nextPhase(f.now)
	}
	c.checkFull(s)
	c.checkDrain(f)
	c.measureRTT(f, s)
	c.setGains()
	c.setPace(c.pacingGain)
	c.setCwnd(f, delivered, lost)
}

// measure takes a sample of the rate.
func (c *bbr) measure(s sample) {
	if s.prior >= c.roundEnd {
		c.roundEnd = c.meter.count
		c.rounds++
		c.roundBegan = true
		c.roundLost = 0
		c.conserve = false
	}
	// What was sent too slowly tells no more than that the line is at least so fast.
	if rate := s.rate(); rate > 0 && !s.limited || rate > c.delivers() {
		c.rates.add(c.rounds, rateRounds, rate)
	}
}

// measureLoss finds a queue that overflows. A quarter of what the path holds is
// more than a bad line loses in a round. Who holds back for each loss fills a
// bad line slowly.
func (c *bbr) measureLoss(f *flight, delivered, lost int) {
	c.roundLost += lost
	switch {
	case c.minRTT == 0 || c.delivers() == 0: // what was lost was of another path
		c.roundLost = 0
		return
	case c.roundLost < max(c.holds(heavyLoss), 2*leastWindow) || f.recovery != recovering:
		return
	}
	c.full = true
	if !c.conserve {
		c.conserve = true
		c.roundEnd = c.meter.count
		c.cwnd = min(c.cwnd, f.inFlight+max(delivered, 1))
	}
}

// measureAggregation finds how much is acked beyond what the rate lets expect,
// over the last few rounds.
func (c *bbr) measureAggregation(now time.Duration) {
	if c.roundBegan {
		if c.extraRound++; c.extraRound >= aggregateRounds {
			c.extraRound = 0
			c.extraIndex ^= 1
			c.extra[c.extraIndex] = 0
		}
	}
	extra := float64(c.meter.bytes-c.epochBytes) - c.delivers()*(now-c.epochAt).Seconds()
	if extra <= 0 {
		c.epochAt, c.epochBytes = now, c.meter.bytes
		return
	}
	c.extra[c.extraIndex] = max(c.extra[c.extraIndex], min(extra, float64(c.cwnd*c.wire)))
}

// aggregation is what the window is to be larger by, in packets.
func (c *bbr) aggregation() int {
	if !c.full {
		return 0
	}
	return int(min(max(c.extra[0], c.extra[1]), c.delivers()*aggregateTime.Seconds())) / c.wire
}

// holds is gain times as many packets as the path holds without a queue.
func (c *bbr) holds(gain float64) int {
	if c.minRTT == 0 {
		return initialWindow
	}
	return int(c.delivers()*c.minRTT.Seconds()*gain) / c.wire
}

func (c *bbr) phaseIsOver(f *flight, lost int) bool {
	lasts := f.now - c.phaseAt
	switch {
	case c.pacingGain == 1:
		return lasts > c.minRTT
	case c.pacingGain > 1:
		// It takes a while until the window is filled to the gain.
		return lasts > c.minRTT && (lost > 0 || f.inFlight >= c.holds(c.pacingGain))
	}
	// A rate that is thought a little too high makes a queue that grows from
	// cycle to cycle; so it drains whole, even if that takes some round trips.
	return f.inFlight <= c.holds(1) || lasts > longestDrain*c.minRTT
}

func (c *bbr) nextPhase(now time.Duration) {
	c.phase = (c.phase + 1) % len(phaseGains)
	c.phaseAt = now
}

// beginProbeBW begins anywhere but with the phase that gives way, so that
// streams that begin together don't probe together.
func (c *bbr) beginProbeBW(now time.Duration) {
	c.mode = probeBW
	c.seed = c.seed*6364136223846793005 + 1442695040888963407
	c.phase = len(phaseGains) - 1 - int(c.seed>>33)%(len(phaseGains)-1)
	c.nextPhase(now)
}

// checkFull finds that the line is full when three rounds brought no quarter more.
func (c *bbr) checkFull(s sample) {
	if c.full || !c.roundBegan || s.limited {
		return
	}
	if rate := c.delivers(); rate >= c.fullRate*fullGrowth {
		c.fullRate, c.fullCount = rate, 0
		return
	}
	c.fullCount++
	c.full = c.fullCount >= fullRounds
}

func (c *bbr) checkDrain(f *flight) {
	if c.mode == startup && c.full {
		c.mode = drain
	}
	if c.mode == drain && f.inFlight <= c.holds(1) {
		c.beginProbeBW(f.now)
	}
}

func (c *bbr) measureRTT(f *flight, s sample) {
	now, rtt := f.now, c.rtt
	c.rtt = 0
	expired := now-c.minRTTAt > minRTTHolds
	switch {
	case rtt <= 0:
	case c.minRTT == 0 || rtt < c.minRTT || expired:
		c.minRTT, c.minRTTAt = rtt, now
	case rtt <= c.minRTT+max(c.minRTT/16, sameRTT):
		c.minRTTAt = now // hardly a queue stands: there is no need to stop and look
	}
	if expired && !c.idleRestart && c.mode != probeRTT {
		c.saveCwnd()
		c.mode = probeRTT
		c.probeUntil = 0
	}
	if c.mode == probeRTT {
		// What is measured in this mode says nothing of the line.
		c.meter.limited(f.inFlight)
		switch {
		case c.probeUntil == 0 && f.inFlight <= leastWindow:
			c.probeUntil = now + probeRTTTime
			c.probeRound = false
			c.roundEnd = c.meter.count
		case c.probeUntil > 0:
			c.probeRound = c.probeRound || c.roundBegan
			if c.probeRound {
				c.endProbeRTT(now)
			}
		}
	}
	if s.bytes > 0 {
		c.idleRestart = false
	}
}

func (c *bbr) endProbeRTT(now time.Duration) {
	if c.probeUntil == 0 || now <= c.probeUntil {
		return
	}
	c.minRTTAt = now
	c.cwnd = max(c.cwnd, c.priorCwnd)
	if c.full {
		c.beginProbeBW(now)
	} else {
		c.mode = startup
	}
}

func (c *bbr) setGains() {
	switch c.mode {
	case startup:
		c.pacingGain, c.cwndGain = highGain, highGain
	case drain:
		c.pacingGain, c.cwndGain = 1/highGain, windowGain
	case probeBW:
		c.pacingGain, c.cwndGain = phaseGains[c.phase], windowGain
	case probeRTT:
		c.pacingGain, c.cwndGain = 1, 1
	}
}

// setPace sets the rate at which packets leave.
func (c *bbr) setPace(gain float64) {
	if !c.rttSeen && c.minRTT > 0 {
		c.rttSeen = true
		c.pace = highGain * float64(c.cwnd*c.wire) / c.minRTT.Seconds()
	}
	// Before the line is full a sample is too small rather than too large.
	if rate := c.delivers() * gain; rate > 0 && c.full || rate > c.pace {
		c.pace = max(rate, float64(leastWindow*c.wire))
	}
}

// saveCwnd remembers the window to come back to.
func (c *bbr) saveCwnd() {
	if c.was == open && c.mode != probeRTT {
		c.priorCwnd = c.cwnd
	} else {
		c.priorCwnd = max(c.priorCwnd, c.cwnd)
	}
}

func (c *bbr) setCwnd(f *flight, delivered, lost int) {
	// An ack is to let out twice what it tells of at the most.
	c.cwnd = max(c.cwnd-lost, 1)
	if f.recovery == open && c.was != open {
		c.was, c.conserve = open, false
		c.cwnd = max(c.cwnd, c.priorCwnd)
	}
	if c.conserve {
		c.cwnd = max(c.cwnd, f.inFlight+delivered)
	} else {
		target := c.holds(c.cwndGain) + c.aggregation()
		if c.full {
			c.cwnd = min(c.cwnd+delivered, target)
		} else if c.cwnd < target || c.meter.count < initialWindow {
			c.cwnd += delivered
		}
		c.cwnd = max(c.cwnd, leastWindow)
	}
	if c.mode == probeRTT {
		c.cwnd = min(c.cwnd, leastWindow)
	}
}
