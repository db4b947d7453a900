package udx

import (
	"math"
	"sync"
	"time"
)

// minWindow is how many packets may be in flight in any case.
const minWindow = 4

const (
	// The path's MTU is looked for from baseMTU in steps, by packets with padding
	// (RFC 8899). After maxProbes that were lost it is what it is. When a packet
	// larger than baseMTU had blackHole timeouts in a row, the MTU may have shrunk,
	// and it is looked for again.
	//
	// What was cut into packets stays so, for the other side knows data by the seq
	// of its packet. Packets that are too large by then are sent again without the
	// mark that forbids to cut them. Where nobody does (with IPv6 no router does, but
	// this machine, if it was told of the MTU), or behind a relay, the stream ends
	// after maxTimeouts, as any of libudx does.
	baseMTU   = 1200
	blackHole = 2
	maxMTU    = 1500
	mtuStep   = 32
	maxProbes = 3
)

// An outgoing is the half of a core that sends data. Its loss detection is in
// loss.go.
type outgoing struct {
	una     uint32      // the first seq that is not acked
	seq     uint32      // the next seq
	packets *ring[sent] // nil if there are none
	// inFlight are the packets that were sent and are neither acked nor lost, in
	// the order they were sent in; lost are those to be sent again.
	inFlight, lost queue
	flying         int // bytes of data in flight

	out      buffer // what was written and not acked
	outStart uint64 // where it is in all that was written
	outSent  uint64 // the same of what was not sent yet
	ending   bool   // nothing will be written any more
	endSent  bool
	endAcked bool

	window   uint32 // bytes that the other side takes
	wl1, wl2 uint32 // seq and ack of the packet that told so (RFC 9293 §3.10.7.4)

	control controller
	view    flight
	pacer   pacer
	loss

	mtu        int
	probeSize  int  // of the next probe, or that on its way
	probesLost int  // of that size
	probeNext  bool // the next packet of data is to be a probe
	started    bool // a packet of the path's base MTU has arrived

	moved  bool   // packets from before a change of the path are not acked
	moveAt uint32 // the first seq after the change

	windowAt     time.Duration // when to ask for a window, while there is none
	windowProbes int
}

// A sent packet is one that has a seq.
type sent struct {
	prev, next uint32 // in the queue it is in
	to         *path
	at         time.Duration // when it was sent last
	start      uint64        // of its data in all that was written
	size       uint16        // bytes of data
	padding    uint8         // bytes in front of them: it is a probe
	kind       uint8
	state      uint8
	again      bool // it was sent more than once
	timeouts   uint8
	rate       rateStamp
}

const (
	inFlight = iota
	lost
	delivered
)

func (s *outgoing) init(now time.Duration, seed uint64) {
	s.window = firstWindow
	s.control = newController(now, seed)
	s.pacer.at, s.pacer.tokens = now, minBurst*baseMTU
	s.timeout = minTimeout
}

// payload is how many bytes of data a packet has at most.
func (c *core) payload() int {
	if c.path == nil {
		return baseMTU - 68
	}
	return c.mtu - c.path.overhead()
}

// resetMTU begins to look for the MTU, as soon as a packet of the path's base MTU
// has arrived.
func (c *core) resetMTU() {
	c.mtu = baseMTU
	c.probeSize = baseMTU + mtuStep
	c.probesLost = 0
	c.probeNext, c.started = false, false
}

// write takes as much of p as there is room for.
func (c *core) write(p []byte) int {
	n := min(len(p), c.room())
	c.out.append(p[:n])
	return n
}

// room is how many bytes can be written now.
func (c *core) room() int {
	if c.ending || c.status != living {
		return 0
	}
	return max(min(maxUnsent-c.unsent(), maxUnacked-c.out.n), 0)
}

// unsent is how many bytes were written and not sent.
func (s *outgoing) unsent() int { return s.out.n - int(s.outSent-s.outStart) }

// end says that nothing will be written any more.
func (c *core) end() { c.ending = true }

// drop lets go of what is not needed after the end.
func (s *outgoing) drop() {
	s.out.discard(s.out.n)
	s.outStart = s.outSent
	s.inFlight, s.lost, s.flying = queue{}, queue{}, 0
	for ; s.una != s.seq; s.una++ {
		s.packets.at(s.una).to = nil
	}
	s.dropPackets()
}

// rings are those of streams that have nothing on its way. What is in them is
// past, and points to nothing.
var rings = sync.Pool{New: func() any { return new(ring[sent]) }}

// dropPackets gives the ring of a stream that has nothing on its way to others.
func (s *outgoing) dropPackets() {
	if s.packets != nil {
		rings.Put(s.packets)
		s.packets = nil
	}
}

// changePath sends what is new over another path. What is on its way over the
// old one still comes that way, as long as it is answered.
func (c *core) changePath(now time.Duration, to *path) (done bool) {
	c.old, c.path, c.movedAt = c.path, to, now
	c.resetMTU()
	c.moved, c.moveAt = c.seq != c.una, c.seq
	c.control.moved(c.flight(now))
	return !c.moved
}

// flight is what the controller is told. It is good until the next call.
func (c *core) flight(now time.Duration) *flight {
	c.view = flight{
		now:      now,
		inFlight: c.inFlight.n,
		lost:     c.lost.n,
		queued:   c.unsent(),
		recovery: c.recovery,
		srtt:     c.srtt,
		minRTT:   c.minRTT,
		payload:  c.payload(),
	}
	return &c.view
}

// fill adds what may be sent now, as far as there is room.
func (c *core) fill(now time.Duration, out *outbox) {
	if c.path == nil || c.status >= ended {
		return
	}
	if c.ackOwed {
		c.sendAck(out)
	}
	if c.heartbeat && c.sendBare(typeHeartbeat, out) {
		c.heartbeat = false
	}
	if c.tailNow {
		c.sendTail(now, out)
	}
	// After a timeout one packet at a time would be little to get through a bad
	// line with.
	window := max(c.control.window(), minWindow)
	for c.inFlight.n < window && (c.lost.n > 0 || c.hasNew()) {
		if !c.pacer.ready(now, c.control.rate(), c.payload()) {
			return
		}
		room := false
		if c.lost.n > 0 {
			room = c.resend(now, c.lost.head, out)
		} else {
			room = c.sendNew(now, false, out)
		}
		if !room {
			return
		}
	}
	c.pacer.wait = 0 // something else holds it up
	c.watchWindow(now)
}

// hasNew tells whether there is data that the other side has room for, or an
// end.
func (c *core) hasNew() bool {
	if diff(c.seq, c.una) >= maxAhead {
		return false
	}
	if n := min(c.unsent(), c.payload()); n > 0 {
		// A window is for what is in flight; the rest has been taken.
		return c.flying+n <= int(c.window) || c.inFlight.n == 0 && c.window > 0
	}
	return c.ending && !c.endSent
}

// sendNew sends the next data, or the end, and reports whether there was room.
func (c *core) sendNew(now time.Duration, tail bool, out *outbox) bool {
	p := sent{to: c.path, start: c.outSent, size: uint16(min(c.unsent(), c.payload()))}
	if p.size > 0 {
		p.kind = typeData
	}
	if c.ending && int(p.size) == c.unsent() {
		p.kind |= typeEnd
	}
	if c.probeNext && p.size > 0 && !tail && !c.moved {
		if n := c.probeSize - c.path.overhead() - int(p.size); n > 0 && n <= math.MaxUint8 {
			p.padding = uint8(n)
		}
	}
	seq := c.seq
	if c.packets == nil {
		c.packets = rings.Get().(*ring[sent])
	}
	c.packets.grow(c.una, seq, seq+1)
	*c.packets.at(seq) = p
	if !c.transmit(now, seq, out) {
		return false
	}
	c.seq++
	c.outSent += uint64(p.size)
	c.endSent = c.endSent || p.kind&typeEnd != 0
	if p.padding > 0 {
		c.probeNext = false
	}
	if !tail {
		c.armTail(now)
	}
	return true
}

// resend sends a lost packet again.
func (c *core) resend(now time.Duration, seq uint32, out *outbox) bool {
	if !out.fits(c.packets.at(seq).to, c.packets.at(seq).length()) {
		return false
	}
	c.lost.remove(c.packets, seq)
	c.packets.at(seq).again = true
	c.stats.Resent++
	return c.transmit(now, seq, out)
}

func (p *sent) length() int { return headerSize + int(p.padding) + int(p.size) }

// wire is how large the packet is with all its headers.
func (p *sent) wire() int { return p.length() - headerSize + p.to.overhead() }

// transmit sends a packet that is in no queue, if there is room.
func (c *core) transmit(now time.Duration, seq uint32, out *outbox) bool {
	p := c.packets.at(seq)
	size := p.length()
	if !out.fits(p.to, size) {
		return false
	}
	f := c.flight(now)
	if !p.again {
		f.queued -= int(p.size) // it doesn't count as sent yet
	}
	c.control.sent(f, &p.rate)
	p.at, p.state = now, inFlight
	large := p.wire() > c.mtu
	b := out.add(p.to, size, large)
	if large && p.padding == 0 {
		out.packets[len(out.packets)-1].Fragment = true
	}
	h := header{kind: p.kind, offset: p.padding, id: p.to.id, window: c.advertise(), seq: seq, ack: c.ack}
	h.put(b)
	clear(b[headerSize : headerSize+int(p.padding)])
	c.out.copyAt(b[headerSize+int(p.padding):], int(p.start-c.outStart))
	c.inFlight.push(c.packets, seq)
	c.flying += int(p.size)
	c.pacer.spend(size)
	c.countSent(size)
	if c.timeoutAt == 0 {
		c.timeoutAt = now + c.backedOff()
	}
	c.windowAt, c.keepAt = 0, 0
	return true
}

// watchWindow sees to it that the other side is asked for room, if that is all
// that is missing.
func (c *core) watchWindow(now time.Duration) {
	switch {
	case c.window > 0 || c.una != c.seq || c.unsent() == 0:
		c.windowAt, c.windowProbes = 0, 0
	case c.windowAt == 0:
		c.windowAt = now + c.timeout
	}
}

// probeWindow asks for room, less and less often.
func (c *core) probeWindow(now time.Duration) {
	c.heartbeat = true
	c.windowProbes++
	c.windowAt = now + min(c.timeout<<min(c.windowProbes, 5), maxTimeout)
	if c.silent++; c.silent > maxTimeouts {
		c.close(now, ErrTimeout)
	}
}

// takeAck takes what a packet tells of ours. Its ack is not past what was sent.
func (c *core) takeAck(now time.Duration, h *header, blocks []byte) {
	if diff(h.ack, c.una) >= 0 && (diff(h.seq, c.wl1) > 0 || h.seq == c.wl1 && diff(h.ack, c.wl2) >= 0) {
		c.window, c.wl1, c.wl2 = h.window, h.seq, h.ack
	}
	if c.una == c.seq {
		return
	}
	if c.window == 0 {
		// It is there, and may refuse what comes for want of room.
		c.packets.at(c.una).timeouts = 0
	}
	c.tailAcked(h.ack)
	n, advanced := 0, diff(h.ack, c.una) > 0
	for ; diff(h.ack, c.una) > 0; c.una++ {
		p := c.packets.at(c.una)
		if p.state == delivered {
			c.sacked--
		} else {
			c.deliver(now, c.una)
			n++
		}
		c.out.discard(int(p.size))
		c.outStart += uint64(p.size)
		c.endAcked = c.endAcked || p.kind&typeEnd != 0
		p.to = nil
	}
	n += c.takeBlocks(now, blocks)
	if c.recovery != open && diff(c.una, c.recoverTo) >= 0 {
		c.recovery = open
	}
	if c.moved && diff(c.una, c.moveAt) >= 0 {
		c.moved = false
	}
	if advanced && c.status == closing {
		c.lingerUntil = now + lingerTime
	}
	if n > 0 {
		c.backoff, c.tailTries = 0, 0
		c.timeoutAt = now + c.timeout
		c.detectLoss(now)
	}
	switch {
	case c.una == c.seq:
		c.timeoutAt, c.tailAt, c.reorderAt = 0, 0, 0
		c.restKeepAlive(now)
		c.dropPackets()
	case advanced:
		c.armTail(now)
	}
	c.control.acked(c.flight(now), n, c.newlyLost)
	c.newlyLost = 0
}

// takeBlocks takes the blocks of a SACK, and returns how many packets they tell
// of that were not known to be there. Blocks mostly grow at their ends, so what
// the last SACK told is not gone through again.
func (c *core) takeBlocks(now time.Duration, blocks []byte) (n int) {
	if len(blocks) == 0 {
		c.told = c.told[:0]
		return 0
	}
	known := 0
	var told [maxBlocks]span
	count, last := 0, c.una
	for ; len(blocks) > 0; blocks = blocks[8:] {
		b := getBlock(blocks)
		if diff(b.start, last) < 0 || diff(b.start, b.end) >= 0 || diff(b.end, c.seq) > 0 {
			continue // old, or not in order, which would be much work for nothing
		}
		last = b.end
		told[count] = b
		count++
		for known < len(c.told) && diff(c.told[known].end, b.start) <= 0 {
			known++
		}
		from := b.start
		if known < len(c.told) && diff(c.told[known].start, from) <= 0 {
			from = c.told[known].end
		}
		for seq := from; diff(b.end, seq) > 0; seq++ {
			if p := c.packets.at(seq); p.state != delivered {
				c.deliver(now, seq)
				c.sacked++
				n++
			}
		}
	}
	c.told = append(c.told[:0], told[:count]...)
	return n
}

// deliver notes that the other side has a packet.
func (c *core) deliver(now time.Duration, seq uint32) {
	p := c.packets.at(seq)
	c.leave(p, seq)
	p.state = delivered
	rtt := c.sample(now, p, seq)
	c.control.delivered(c.flight(now), &p.rate, delivery{seq: seq, sentAt: p.at, size: p.length(), again: p.again, rtt: rtt})
	c.mtuDelivered(p)
}

// leave takes a packet out of the queue it is in.
func (c *core) leave(p *sent, seq uint32) {
	if p.state == lost {
		c.lost.remove(c.packets, seq)
		return
	}
	c.inFlight.remove(c.packets, seq)
	c.flying -= int(p.size)
}

func (c *core) mtuDelivered(p *sent) {
	if p.to != c.path {
		return
	}
	if !c.started {
		c.started, c.probeNext = true, true
	}
	if p.padding == 0 || p.wire() != c.probeSize {
		return
	}
	c.mtu = c.probeSize
	c.probeSize = min(c.probeSize+mtuStep, maxMTU)
	c.probesLost = 0
	c.probeNext = c.mtu < maxMTU
}

// mtuLost makes a usual packet of a probe that was lost.
func (c *core) mtuLost(p *sent) {
	p.padding = 0
	if p.to == c.path {
		c.probesLost++
		c.probeNext = c.probesLost < maxProbes
	}
}
