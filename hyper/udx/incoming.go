package udx

import (
	"slices"
	"sync"
	"time"
)

// An incoming is the half of a core that takes data.
type incoming struct {
	ack         uint32 // the seq that is next
	in          buffer // what can be read
	most        int    // how much of it there may be
	remoteEnded bool   // and nothing comes after it
	dropped     int    // bytes that came while closing

	// Packets that came before one that is missing.
	early      ring[earlyPacket]
	earlyBytes int
	spans      []span // where they are, in order; none touches another or ack
	latest     int    // of the spans, that of the packet that came last

	pending    int    // packets that came in order and were not acked
	ackOwed    bool   // an ack waits for the stream to be connected
	advertised uint32 // the window the other side was told last

	round   time.Duration // when the present round trip began
	arrived int           // bytes that came in order since
}

type earlyPacket struct {
	here bool
	end  bool
	data []byte // of spare, if it is large
}

// take stores the data of a packet whose seq is not too far ahead.
func (c *core) take(h *header, data []byte, out *outbox) {
	ahead := diff(h.seq, c.ack)
	if ahead < 0 || c.remoteEnded || !c.hasRoom(ahead, len(data)) {
		c.ackNow(out)
		return
	}
	if h.kind&typeData == 0 {
		data = nil
	}
	if ahead > 0 {
		if ahead >= maxAhead || !c.store(h.seq, h.kind&typeEnd != 0, data) {
			c.stats.PacketsDropped++
		}
		c.ackNow(out)
		return
	}
	c.accept(data)
	c.ack++
	c.remoteEnded = h.kind&typeEnd != 0
	if len(c.spans) > 0 {
		if c.spans[0].start == c.ack {
			c.join()
		}
		c.ackNow(out)
		return
	}
	// The other side counts acks to know how fast its packets arrive, so there is
	// one for each second packet at least; who gave us the packet asks for the
	// last.
	if c.pending++; c.pending >= 2 {
		c.ackNow(out)
	}
}

// hasRoom tells whether data that is so many packets ahead fits. Packets that
// came early never keep out the one that they wait for.
func (c *core) hasRoom(ahead, n int) bool {
	held, most := c.in.n, c.most
	if ahead > 0 {
		held += c.earlyBytes
	}
	if c.path == nil {
		most = maxEarly
	}
	return n == 0 || held+n <= most
}

// widen doubles the window if half of it came in one round trip and did not have
// to wait: the line takes about as much as the window, and the reader more.
func (c *core) widen(now time.Duration) {
	if c.srtt == 0 || now-c.round < c.srtt {
		return
	}
	if c.arrived > c.most/2 && c.in.n < c.most/4 {
		c.most = min(2*c.most, maxWindow)
	}
	c.round, c.arrived = now, 0
}

// accept takes the next bytes in order.
func (c *core) accept(data []byte) {
	c.arrived += len(data)
	if c.status == closing {
		c.dropped += len(data)
		return
	}
	c.in.append(data)
}

// store keeps a packet that came early, and reports whether it is new.
func (r *incoming) store(seq uint32, end bool, data []byte) bool {
	r.early.grow(r.ack, r.top(), seq+1)
	p := r.early.at(seq)
	if p.here {
		return false
	}
	*p = earlyPacket{here: true, end: end, data: keep(data)}
	r.earlyBytes += len(data)
	i, _ := slices.BinarySearchFunc(r.spans, seq, func(s span, seq uint32) int { return diff(s.start, seq) })
	before := i > 0 && r.spans[i-1].end == seq
	after := i < len(r.spans) && r.spans[i].start == seq+1
	r.latest = i
	switch {
	case before && after:
		r.spans[i-1].end = r.spans[i].end
		r.spans = slices.Delete(r.spans, i, i+1)
		r.latest--
	case before:
		r.spans[i-1].end++
		r.latest--
	case after:
		r.spans[i].start--
	default:
		r.spans = slices.Insert(r.spans, i, span{seq, seq + 1})
	}
	return true
}

// top is past the last seq that came.
func (r *incoming) top() uint32 {
	if len(r.spans) == 0 {
		return r.ack
	}
	return r.spans[len(r.spans)-1].end
}

// join takes the first span, which is next.
func (c *core) join() {
	for end := c.spans[0].end; c.ack != end && !c.remoteEnded; c.ack++ {
		p := c.early.at(c.ack)
		c.accept(p.data)
		c.earlyBytes -= len(p.data)
		c.remoteEnded = p.end
		release(p.data)
		*p = earlyPacket{}
	}
	c.spans = slices.Delete(c.spans, 0, 1)
	if len(c.spans) == 0 || c.remoteEnded {
		c.dropEarly()
	}
}

// dropEarly lets go of the memory for packets that come early.
func (r *incoming) dropEarly() {
	for _, s := range r.spans {
		for seq := s.start; seq != s.end; seq++ {
			if p := r.early.at(seq); p.here {
				release(p.data)
			}
		}
	}
	r.early, r.earlyBytes, r.spans = ring[earlyPacket]{}, 0, nil
}

// drop lets go of what nobody needs after the end. What can be read stays.
func (r *incoming) drop() { r.dropEarly() }

// spare are buffers for packets that come early.
var spare = sync.Pool{New: func() any { return new([maxMTU]byte) }}

// keep copies data. Small data gets no more memory than it needs, so that many
// small packets can't take much.
func keep(data []byte) []byte {
	if len(data) < maxMTU/2 || len(data) > maxMTU {
		return slices.Clone(data)
	}
	p := spare.Get().(*[maxMTU]byte)
	return p[:copy(p[:], data)]
}

func release(data []byte) {
	if cap(data) == maxMTU {
		spare.Put((*[maxMTU]byte)(data[:maxMTU]))
	}
}

// advertise is the window that the other side is told.
func (c *core) advertise() uint32 {
	free := c.most - c.in.n - c.earlyBytes
	if c.status == closing {
		free = c.most
	}
	if free < maxMTU { // not to get it in crumbs
		free = 0
	}
	c.advertised = uint32(free)
	return c.advertised
}

// read moves bytes to p. It reports whether the other side should be told of
// the room that this made.
func (c *core) read(p []byte) (n int, tell bool) {
	n = c.in.read(p)
	free := c.most - c.in.n - c.earlyBytes
	return n, c.path != nil && c.status == living && !c.remoteEnded && int(c.advertised) < c.most/2 && free-int(c.advertised) >= c.most/4
}

// ackNow acks all that came.
func (c *core) ackNow(out *outbox) { c.sendAck(out) }

// ackRest acks what was not acked yet.
func (c *core) ackRest(out *outbox) {
	if c.pending > 0 {
		c.sendAck(out)
	}
}

// blocks are the spans to tell of. If there are more than a packet takes, it
// tells of that which grew and of those before it: the other side remembers what
// it was told, so all of them come to be told, and the newest at once.
func (r *incoming) blocks() []span {
	end := min(max(r.latest+1, maxBlocks), len(r.spans))
	return r.spans[max(0, end-maxBlocks):end]
}

// sendAck adds an ack. If there is no room for it, it comes with the next one.
func (c *core) sendAck(out *outbox) {
	if c.path == nil {
		c.ackOwed = true
		return
	}
	blocks := c.blocks()
	size := headerSize + 8*len(blocks)
	if !out.fits(c.path, size) {
		c.ackOwed = true
		return
	}
	c.ackOwed, c.pending = false, 0
	p := out.add(c.path, size, false)
	h := c.head(0)
	if len(blocks) > 0 {
		h.kind = typeSACK
	}
	h.put(p)
	for i, b := range blocks {
		putBlock(p[headerSize+8*i:], b)
	}
	c.countSent(size)
}
