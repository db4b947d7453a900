package udx

import (
	"errors"
	"net/netip"
	"time"
)

const (
	// firstWindow is how many bytes may wait to be read, as in libudx. A stream
	// that is read as fast as they come, over a line for which this is too little,
	// gets up to maxWindow.
	firstWindow = 4 << 20
	maxWindow   = 16 << 20
	// maxEarly is the same before the stream is connected: nobody is told of a
	// window then.
	maxEarly = 128 << 10
	// maxAhead is how many packets may be on the way, or have come ahead of one
	// that is missing.
	maxAhead = 1 << 14
	// maxUnsent is how many bytes may be written that were not sent yet, and
	// maxUnacked how many that were not acked.
	maxUnsent  = 256 << 10
	maxUnacked = 16 << 20

	// lingerTime is how long a stream that was closed waits for the other side to
	// take more of what was written, and in the end to close too; lingerBytes is how many bytes it drops meanwhile. A stream that has
	// ended answers packets for answerTime, in case the last one was lost.
	lingerTime  = 5 * time.Second
	lingerBytes = 32 << 20
	answerTime  = 10 * time.Second
	// strayTime is how long packets may come from an address that was left.
	strayTime = 10 * time.Second
)

// ErrReset is what a stream fails with that the other side destroyed.
var ErrReset = errors.New("the other side dropped the stream")

// ErrTimeout is what a stream fails with when nothing it sends is acked.
var ErrTimeout = errors.New("the other side does not answer")

// A path is a way to the other side. It doesn't change.
type path struct {
	socket *Socket // nil in tests of the core alone
	id     uint32  // of the stream, at the other side
	addr   netip.AddrPort
}

// overhead is how many bytes of a packet on the wire are not the stream's.
func (p *path) overhead() int {
	if p.addr.Addr().Is4() {
		return 20 + 8 + headerSize
	}
	return 40 + 8 + headerSize
}

// A core is a stream without sockets, clocks or timers: packets and the time
// come in as arguments, and packets go out into an outbox. Who owns it calls
// [core.tick] when [core.deadline] is due, and [core.fill] after each other
// call, until it adds nothing.
type core struct {
	path   *path // nil until it is connected
	old    *path // the one before, or nil
	status status
	err    error // why it is closed; nil if both sides ended it

	movedAt time.Duration // when it left the old path

	outgoing
	incoming

	heardAt     time.Duration // when the last packet came
	keepAlive   time.Duration // 0: none
	keepAt      time.Duration // when the next heartbeat is due
	heartbeat   bool          // one is to be sent
	lingerUntil time.Duration // when it is over with the stream, once it is closing

	stats Stats
}

type status uint8

const (
	living  status = iota
	closing        // what comes is dropped, until the other side ends
	ended          // both sides have ended in order; late packets are answered
	broken         // late packets are refused
	gone
)

// init makes a stream that isn't connected. The seed is any number.
func (c *core) init(now time.Duration, seed uint64) {
	c.outgoing.init(now, seed)
	c.most = firstWindow
}

func (c *core) connect(now time.Duration, to *path, out *outbox) {
	c.path = to
	c.resetMTU()
	c.restKeepAlive(now)
	if c.ackOwed {
		c.sendAck(out)
	}
}

// receive takes a packet of the stream, and reports whether it can be the other
// side's and the stream is there for it. Acks that it causes are added to out, if
// there is room.
func (c *core) receive(now time.Duration, h *header, blocks, data []byte, out *outbox) (ok bool) {
	if c.status >= ended {
		c.answer(h, out)
		return false
	}
	c.stats.PacketsReceived++
	c.stats.BytesReceived += uint64(headerSize + int(h.offset) + len(data))
	// An ack of what was never sent, or a seq from nowhere, is not from the other
	// side (RFC 5961 §5).
	ahead, acked := diff(h.seq, c.ack), diff(h.ack, c.una)
	if acked > diff(c.seq, c.una) || acked < -4*maxAhead || ahead > 4*maxAhead || ahead < -4*maxAhead {
		c.stats.PacketsDropped++
		return false
	}
	c.silent, c.heardAt = 0, now
	if h.kind&typeHeartbeat != 0 {
		c.sendAck(out)
		return true
	}
	if h.kind&typeDestroy != 0 {
		if ahead >= 0 {
			c.close(now, ErrReset)
		}
		return true
	}
	if h.kind&(typeData|typeEnd) != 0 {
		c.take(h, data, out)
		c.widen(now)
	}
	c.takeAck(now, h, blocks)
	switch {
	case c.remoteEnded && c.endAcked:
		c.close(now, nil)
	case c.status == closing && c.dropped > lingerBytes:
		c.destroy(now, out)
	}
	return true
}

// answer is for packets that come when the stream has ended here.
func (c *core) answer(h *header, out *outbox) {
	switch {
	case h.kind&typeDestroy != 0:
		c.status = gone
	case h.kind&(typeData|typeEnd|typeHeartbeat) == 0:
	case c.status == ended:
		c.sendAck(out)
	case c.status == broken:
		c.sendDestroy(out)
	}
}

// shut drops what comes from now on and ends the stream, once all that was
// written has been sent.
func (c *core) shut(now time.Duration) {
	if c.status != living {
		return
	}
	c.status = closing
	c.end()
	c.in.discard(c.in.n)
	c.lingerUntil = now + lingerTime
}

// destroy ends the stream at once, and tells the other side.
func (c *core) destroy(now time.Duration, out *outbox) {
	if c.status >= ended {
		return
	}
	c.close(now, ErrReset)
	c.in.discard(c.in.n)
	if c.path != nil {
		c.status = broken
		c.lingerUntil = now + answerTime
		c.sendDestroy(out)
	}
}

// close ends the stream.
func (c *core) close(now time.Duration, err error) {
	if c.status >= ended {
		return
	}
	c.err = err
	c.status = gone
	switch {
	case err == nil:
		c.status = ended
	case err == ErrTimeout:
		c.status = broken
	}
	c.lingerUntil = now + answerTime
	c.outgoing.drop()
	c.incoming.drop()
}

// tick does what is due.
func (c *core) tick(now time.Duration, out *outbox) {
	if c.lingerUntil != 0 && now >= c.lingerUntil {
		if c.status >= ended {
			c.status = gone
			return
		}
		c.destroy(now, out)
		return
	}
	if c.status >= ended || c.path == nil {
		return
	}
	if due(c.reorderAt, now) {
		c.reorderAt = 0
		c.detectLoss(now)
	}
	if due(c.tailAt, now) {
		c.tailAt = 0
		c.probeTail(now)
	}
	if due(c.timeoutAt, now) {
		c.timedOut(now)
	}
	if due(c.windowAt, now) {
		c.probeWindow(now)
	}
	if due(c.keepAt, now) {
		c.heartbeat = true
		c.restKeepAlive(now)
	}
}

func due(at, now time.Duration) bool { return at != 0 && now >= at }

// deadline is when tick has to be called, or zero.
func (c *core) deadline() time.Duration {
	first := c.lingerUntil
	if c.status < ended && c.path != nil {
		for _, at := range [...]time.Duration{c.reorderAt, c.tailAt, c.timeoutAt, c.windowAt, c.keepAt, c.pacer.wait} {
			if at != 0 && (first == 0 || at < first) {
				first = at
			}
		}
	}
	return first
}

// restKeepAlive puts the next heartbeat off. There is none while packets are on
// their way: those are acked.
func (c *core) restKeepAlive(now time.Duration) {
	c.keepAt = 0
	if c.keepAlive > 0 && c.una == c.seq && c.path != nil {
		c.keepAt = now + c.keepAlive
	}
}

// head returns the header of a packet that goes out now.
func (c *core) head(kind uint8) header {
	return header{kind: kind, id: c.path.id, window: c.advertise(), seq: c.seq, ack: c.ack}
}

func (c *core) sendBare(kind uint8, out *outbox) bool {
	if !out.fits(c.path, headerSize) {
		return false
	}
	h := c.head(kind)
	h.put(out.add(c.path, headerSize, false))
	c.countSent(headerSize)
	return true
}

func (c *core) sendDestroy(out *outbox) { c.sendBare(typeDestroy, out) }

func (c *core) countSent(n int) {
	c.stats.PacketsSent++
	c.stats.BytesSent += uint64(n)
}
