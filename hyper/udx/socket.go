package udx

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/packet"
)

// SocketOptions are of a [Socket]. The functions are called with no lock held,
// by the goroutine that reads the socket or by one that calls a method.
type SocketOptions struct {
	// Receive gets the datagrams that belong to no stream, and those of streams
	// that are not there. The data may be used until it returns.
	Receive func(s *Socket, from netip.AddrPort, data []byte)
	// Idle is called when the last stream of the socket has left it.
	Idle func(s *Socket)
}

// A Socket is a UDP socket that streams and other datagrams share.
type Socket struct {
	u    *UDX
	o    SocketOptions
	conn packet.Conn
	open chan struct{} // closed once conn is there

	mu      sync.Mutex // taken after a stream's
	closed  bool
	streams map[*Stream]bool
}

// Listen opens a socket; port 0 is any that is free.
func (u *UDX) Listen(addr netip.AddrPort, o SocketOptions) (*Socket, error) {
	k := &Socket{u: u, o: o, open: make(chan struct{}), streams: map[*Stream]bool{}}
	conn, err := u.network.Listen(addr, k.receive)
	if err != nil {
		return nil, fmt.Errorf("open a socket for streams: %w", err)
	}
	k.conn = conn
	close(k.open)
	return k, nil
}

// LocalAddr is what the socket is bound to.
func (k *Socket) LocalAddr() netip.AddrPort { return k.conn.LocalAddr() }

// Send sends a datagram, of no stream. It does not keep data. Only a closed
// socket is an error; networks drop what they can't send.
func (k *Socket) Send(to netip.AddrPort, data []byte) error { return k.SendTTL(to, data, 0) }

// SendTTL sends a datagram that passes as many routers at most, as [Socket.Send]
// does.
func (k *Socket) SendTTL(to netip.AddrPort, data []byte, ttl int) error {
	return k.conn.Write([]packet.Packet{{Addr: to, Data: data, TTL: ttl}})
}

// Streams is how many streams are connected over the socket.
func (k *Socket) Streams() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.streams)
}

// Close destroys the streams that go over the socket, and closes it. Streams
// that have moved to another one stay. Closing again does nothing.
func (k *Socket) Close() error {
	k.mu.Lock()
	k.closed = true
	streams := slices.Collect(maps.Keys(k.streams))
	k.mu.Unlock()
	for _, s := range streams {
		if s.Socket() == k {
			s.Destroy()
		}
	}
	return k.conn.Close()
}

func (k *Socket) join(s *Stream) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return packet.ErrClosed
	}
	k.streams[s] = true
	return nil
}

// leave returns what is to be called then, or nil.
func (k *Socket) leave(s *Stream) func() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.streams[s] {
		return nil
	}
	delete(k.streams, s)
	if len(k.streams) > 0 || k.o.Idle == nil {
		return nil
	}
	return func() { k.o.Idle(k) }
}

// write sends what is in out and empties it.
func (o *outbox) write() {
	if len(o.packets) > 0 {
		o.socket.conn.Write(o.packets) // a closed socket loses packets like any network
		o.reset()
	}
}

// receive is the socket's handler.
func (k *Socket) receive(batch []packet.Packet) {
	<-k.open
	r := reception{k: k, now: k.u.now(), out: newOutbox()}
	for _, p := range batch {
		for data := range p.Datagrams() {
			r.take(p.Addr, data)
		}
	}
	r.settle()
	r.out.free()
}

// A reception gives a batch of packets to their streams. Packets of one stream
// in a row are taken together.
type reception struct {
	k   *Socket
	now time.Duration
	out *outbox
	s   *Stream // locked, unless it is nil
}

func (r *reception) take(from netip.AddrPort, p []byte) {
	h, blocks, data, ok := parse(p)
	if !ok {
		r.pass(from, p)
		return
	}
	if r.s == nil || r.s.id != h.id {
		r.settle()
		s := r.k.u.stream(h.id)
		if s == nil {
			r.pass(from, p)
			return
		}
		s.mu.Lock()
		r.s = s
	}
	s := r.s
	if !s.fromRemote(r.k, from) {
		r.settle() // the firewall may want to connect the stream
		if s.o.Firewall == nil || !s.o.Firewall(r.k, from) {
			return
		}
		s.mu.Lock()
		r.s = s
	}
	if s.relay != nil {
		r.relay(from, &h, p)
		return
	}
	message, moved := s.receive(r.now, from, &h, blocks, data, r.out)
	if moved {
		r.settle()
		s.o.Remote(from)
	}
	if message {
		r.settle()
		s.o.Message(data)
	}
}

// pass gives on what is not for a stream.
func (r *reception) pass(from netip.AddrPort, p []byte) {
	r.settle()
	if r.k.o.Receive != nil {
		r.k.o.Receive(r.k, from, p)
	}
}

// settle ends what was begun with a stream.
func (r *reception) settle() {
	s := r.s
	r.s = nil
	if s == nil {
		r.out.write()
		return
	}
	s.core.ackRest(r.out)
	s.settle(r.out)
}
