package udx

import (
	"net/netip"
	"sync"

	"github.com/cloudbevy/bevy/hyper/packet"
)

const (
	outboxSize  = 64 << 10
	maxSegments = 64    // that kernels take at once
	maxJoined   = 65000 // bytes of them
)

// An outbox collects packets for one socket. Packets of one size to one address
// become one [packet.Packet] with segments.
type outbox struct {
	socket  *Socket
	packets []packet.Packet
	buf     []byte // of all packets, one after another
}

var outboxes = sync.Pool{New: func() any {
	return &outbox{packets: make([]packet.Packet, 0, 64), buf: make([]byte, 0, outboxSize)}
}}

func newOutbox() *outbox { return outboxes.Get().(*outbox) }

// free gives the outbox up. Its packets are not to be used any more.
func (o *outbox) free() {
	o.reset()
	outboxes.Put(o)
}

func (o *outbox) reset() {
	clear(o.packets)
	o.socket, o.packets, o.buf = nil, o.packets[:0], o.buf[:0]
}

// fits tells whether a packet of n bytes over the path can be added.
func (o *outbox) fits(to *path, n int) bool {
	return len(o.buf)+n <= cap(o.buf) && (len(o.packets) == 0 || o.socket == to.socket)
}

// add returns n bytes to write a packet into, which must fit. One that is to go
// alone, because it may be too large for the path, is not joined with others.
func (o *outbox) add(to *path, n int, alone bool) []byte {
	start := len(o.buf)
	o.buf = o.buf[:start+n]
	o.socket = to.socket
	if last := len(o.packets) - 1; last >= 0 && !alone && joins(&o.packets[last], to.addr, n) {
		l := &o.packets[last]
		if l.Segment == 0 {
			l.Segment = len(l.Data)
		}
		l.Data = l.Data[:len(l.Data)+n]
		return o.buf[start:]
	}
	p := o.buf[start:]
	if alone {
		p = p[:n:n] // nothing joins it
	}
	o.packets = append(o.packets, packet.Packet{Addr: to.addr, Data: p})
	return p
}

// joins tells whether a packet of n bytes can be a segment of p.
func joins(p *packet.Packet, to netip.AddrPort, n int) bool {
	size := p.Segment
	if size == 0 {
		size = len(p.Data)
	}
	return p.Addr == to && n <= size && len(p.Data)%size == 0 && len(p.Data)/size < maxSegments && len(p.Data)+n <= cap(p.Data) && len(p.Data)+n <= maxJoined
}
