package udx

import "time"

const (
	minTimeout  = time.Second
	maxTimeout  = 30 * time.Second
	maxTimeouts = 6 // of one packet; the next one ends the stream

	// minRTTWindow is for how long the least round trip time counts.
	minRTTWindow = 5 * time.Minute
	// maxTails is how many probes of a tail there are before a timeout.
	maxTails = 4
	// ackDelay is how long an ack may take at the other side beyond the path, for
	// timers and goroutines there and here.
	ackDelay = 2 * time.Millisecond
)

// A loss finds out what was lost, by RACK-TLP (RFC 8985) and in the end by a
// timeout (RFC 6298).
type loss struct {
	srtt, rttvar time.Duration
	minRTT       time.Duration
	minRTTAt     time.Duration
	timeout      time.Duration // RTO, before backoff
	backoff      int           // timeouts in a row
	timeoutAt    time.Duration

	recovery  recovery
	recoverTo uint32 // it ends when this is acked
	newlyLost int    // packets, since the controller was told

	// The packet that was sent last of those delivered.
	rackAt  time.Duration
	rackSeq uint32
	rackRTT time.Duration

	highest    uint32 // past the highest seq delivered
	reordering bool   // packets were seen to overtake one another
	sacked     int    // packets delivered above una
	told       []span // blocks of the last SACK
	reorderAt  time.Duration

	tailAt     time.Duration // when to probe for a lost tail
	tailNow    bool          // it is time
	tailOut    bool          // a probe is on its way
	tailTries  int           // probes since something was delivered
	tailResent bool          // and was sent before
	tailSeq    uint32
	tailOK     bool // a round trip time was measured since the last probe

	silent int // times in a row that nothing came when it should have
}

// sample takes what a delivered packet tells of time and order. It returns the
// round trip time, negative if that is not known for sure.
func (l *loss) sample(now time.Duration, p *sent, seq uint32) time.Duration {
	rtt := now - p.at
	if !p.again {
		l.sampleRTT(now, rtt)
		l.tailOK = true
	}
	// Too short a time is that of an ack for an earlier transmission.
	sure := !p.again || rtt >= l.minRTT
	if sure {
		l.rackRTT = rtt
		if p.at > l.rackAt || p.at == l.rackAt && diff(seq, l.rackSeq) > 0 {
			l.rackAt, l.rackSeq = p.at, seq
		}
	}
	switch past := diff(seq+1, l.highest); {
	case past > 0:
		l.highest = seq + 1
	case past < 0 && !p.again:
		l.reordering = true
	}
	if !sure {
		return -1
	}
	return rtt
}

func (l *loss) sampleRTT(now, rtt time.Duration) {
	rtt = max(rtt, 1)
	if l.srtt != 0 {
		// A machine that slept is not a slow line.
		if most := l.srtt + 5*l.rttvar; rtt > most && rtt > 5*time.Second {
			rtt = min(most, maxTimeout)
		}
	}
	if l.minRTT == 0 || rtt <= l.minRTT || now-l.minRTTAt > minRTTWindow {
		l.minRTT, l.minRTTAt = rtt, now
	}
	if l.srtt == 0 {
		l.srtt, l.rttvar = rtt, rtt/2
	} else {
		l.rttvar = (3*l.rttvar + (l.srtt - rtt).Abs()) / 4
		l.srtt = (7*l.srtt + rtt) / 8
	}
	l.timeout = min(max(l.srtt+4*l.rttvar, minTimeout), maxTimeout)
}

// backedOff is the timeout after those in a row.
func (l *loss) backedOff() time.Duration { return min(l.timeout<<min(l.backoff, 5), maxTimeout) }

// reorderWindow is how long a packet may be overtaken before it is held for
// lost (RFC 8985 §6.2 step 4).
func (l *loss) reorderWindow() time.Duration {
	if !l.reordering && (l.recovery != open || l.sacked >= 3) {
		return 0
	}
	return min(l.minRTT/4, l.srtt)
}

// detectLoss finds packets that were sent long enough before one that was
// delivered (RFC 8985 §6.2 step 5).
func (c *core) detectLoss(now time.Duration) {
	wait := c.rackRTT + c.reorderWindow()
	found := 0
	c.reorderAt = 0
	blind, from := len(c.told) == maxBlocks, uint32(0)
	if blind {
		from = c.told[maxBlocks-1].end
	}
	next := c.inFlight.head
	for range c.inFlight.n {
		seq := next
		p := c.packets.at(seq)
		next = p.next
		if p.at > c.rackAt || p.at == c.rackAt && diff(seq, c.rackSeq) >= 0 {
			break
		}
		if blind && diff(seq, from) >= 0 {
			continue // a SACK has room for no more: libudx tells of the lowest blocks
		}
		if p.at+wait > now {
			c.reorderAt = p.at + wait
			break
		}
		if !c.lose(p, seq) {
			found++
		}
	}
	// A probe of the MTU that is lost tells nothing of congestion.
	if found > 0 && c.recovery == open {
		c.recovery, c.recoverTo = recovering, c.seq
		c.tailOut = false
		c.tailAt = 0
		c.stats.Recoveries++
	}
}

// lose marks a packet to be sent again, and tells whether it was an MTU probe.
func (c *core) lose(p *sent, seq uint32) (probe bool) {
	c.inFlight.remove(c.packets, seq)
	c.flying -= int(p.size)
	p.state = lost
	c.lost.push(c.packets, seq)
	c.stats.Lost++
	c.newlyLost++
	if p.padding == 0 {
		return false
	}
	c.mtuLost(p)
	return true
}

// timedOut holds for lost what is old enough, beginning with the first packet
// (RFC 8985 §6.3).
func (c *core) timedOut(now time.Duration) {
	c.timeoutAt = 0
	if c.una == c.seq {
		return
	}
	c.recovery, c.recoverTo = losing, c.seq
	c.tailOut, c.tailAt, c.reorderAt = false, 0, 0
	c.stats.Timeouts++
	wait := c.rackRTT + c.reorderWindow()
	hole := false
	for seq := c.una; seq != c.seq; seq++ {
		p := c.packets.at(seq)
		if p.state == delivered || p.state == inFlight && seq != c.una && p.at+wait > now {
			continue
		}
		// What did not arrive the old way goes the new one.
		p.to = c.path
		if p.state == lost {
			c.lost.remove(c.packets, seq)
			c.lost.push(c.packets, seq) // in the order of seqs
			continue
		}
		if p.timeouts++; p.timeouts > maxTimeouts {
			c.close(now, ErrTimeout)
			return
		}
		c.lose(p, seq)
		hole = hole || p.timeouts >= blackHole && p.wire() > baseMTU
	}
	if hole && c.mtu > baseMTU {
		c.resetMTU()
	}
	c.backoff++
	c.timeoutAt = now + c.backedOff()
	c.control.timedOut(c.flight(now))
}

// armTail sets when the end of a flight is probed, so that its loss is found
// before a timeout (RFC 8985 §7.2).
func (c *core) armTail(now time.Duration) {
	if c.recovery != open || c.sacked > 0 || c.una == c.seq {
		c.tailAt = 0
		return
	}
	c.tailAt = min(now+c.tailWait(), c.timeoutAt)
}

func (l *loss) tailWait() time.Duration {
	wait := time.Second
	if l.srtt != 0 {
		wait = 2*l.srtt + ackDelay
	}
	return wait << l.tailTries
}

// probeTail decides on a probe (RFC 8985 §7.3). Unlike there, one that is not
// answered is followed by others, each after twice the time, as long as it is not
// time for more than probes.
func (c *core) probeTail(now time.Duration) {
	if c.una == c.seq || c.tailTries == 0 && (c.tailOut || !c.tailOK) {
		return
	}
	c.tailNow = true
	if c.tailTries == 0 {
		c.timeoutAt = now + c.backedOff()
	}
	if c.tailTries++; c.tailTries < maxTails {
		c.tailAt = min(now+c.tailWait(), c.timeoutAt)
	}
}

// sendTail sends the next data as a probe, or the last packet again.
func (c *core) sendTail(now time.Duration, out *outbox) {
	seq, resent := c.seq, !c.hasNew()
	if resent {
		seq--
	}
	switch {
	case c.una == c.seq || resent && c.packets.at(seq).state != inFlight:
		c.tailNow = false // there is no tail any more
		return
	case !resent:
		if !c.sendNew(now, true, out) {
			return
		}
	default:
		p := c.packets.at(seq)
		if !out.fits(p.to, p.length()) {
			return
		}
		c.leave(p, seq)
		p.again = true
		c.stats.Resent++
		c.transmit(now, seq, out)
	}
	c.tailNow, c.tailOut, c.tailResent, c.tailSeq, c.tailOK = false, true, resent, seq, false
}

// tailAcked notes that a probe has done its work (RFC 8985 §7.4.2).
func (l *loss) tailAcked(ack uint32) {
	if past := diff(ack, l.tailSeq); l.tailOut && (past > 0 || past == 0 && !l.tailResent) {
		l.tailOut = false
	}
}
