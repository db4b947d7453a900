// Package packet is the seam for UDP: sockets that send and take datagrams.
// Nothing else under hyper opens one, so that a whole swarm, with its NATs and
// bad lines, can run in one test.
//
// There are two forms. System is the machine's network, with batched system
// calls where the kernel has them. A Sim is a network in memory.
//
//	conn, err := packet.System.Listen(addr, func(batch []packet.Packet) { … })
//	err = conn.Write([]packet.Packet{{Addr: to, Data: hello}})
package packet

import (
	"iter"
	"net"
	"net/netip"
)

// ErrClosed is what a closed socket fails with, the one of package net.
var ErrClosed = net.ErrClosed

// An Addr is the address of a net.Conn.
type Addr = net.Addr

// NetAddr returns a as connections of package net have it.
func NetAddr(a netip.AddrPort) Addr { return net.UDPAddrFromAddrPort(a) }

// A Packet is a datagram that goes out or came in; or several of one size, as
// kernels take and give them.
type Packet struct {
	// Addr is where it goes, or came from. An IPv4 address is never in its IPv6
	// form.
	Addr netip.AddrPort
	// Data are the bytes. Those of a packet that came in may be used until the
	// handler returns.
	Data []byte
	// Segment, if it is not zero, says that Data is several datagrams one after
	// another, each of Segment bytes and the last of at most that.
	Segment int
	// TTL is how many hops a packet that goes out may take; zero is the usual.
	TTL int
	// Fragment says that a packet that goes out may be cut where the path is too
	// small for it, and put together again at its end. Others are lost there. Not
	// all routers cut, so it is for what can't be made smaller.
	Fragment bool
}

// Datagrams returns the datagrams of p one by one.
func (p Packet) Datagrams() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		data := p.Data
		for p.Segment > 0 && len(data) > p.Segment {
			if !yield(data[:p.Segment:p.Segment]) {
				return
			}
			data = data[p.Segment:]
		}
		yield(data)
	}
}

// A Handler gets packets that came in, one batch at a time. It must not wait for
// another packet, and may call whatever a socket has.
type Handler func(batch []Packet)

// MaxSize is the size of a datagram that comes in whole on every machine. What
// is larger may be lost.
const MaxSize = 2048

// A Conn is a socket. Its methods may be called by any goroutine.
type Conn interface {
	// Write sends packets in order. It does not keep them. A packet that can't be
	// sent is dropped without a word, as a network does; only a closed socket is
	// an error, ErrClosed. Write may wait while the machine's queue is full.
	Write(batch []Packet) error
	// LocalAddr is what the socket is bound to.
	LocalAddr() netip.AddrPort
	// Close ends the socket. A call of the handler that has begun goes on, and no
	// other begins. Closing again does nothing.
	Close() error
}

// A Network opens sockets. Its methods may be called by any goroutine.
type Network interface {
	// Listen binds a socket to an address of this machine; port 0 is any that is
	// free, and an unspecified address is all of its family. What comes in is
	// given to the handler.
	Listen(addr netip.AddrPort, receive Handler) (Conn, error)
	// ListenMulticast binds a socket to a port that others may share, and joins
	// the group on the interface of that name. What it sends to a group leaves
	// there, with a TTL of 255, and comes also to members on this machine, itself
	// among them. It may also get what is sent to the port alone.
	ListenMulticast(group netip.AddrPort, ifname string, receive Handler) (Conn, error)
	// LocalAddrs returns the addresses of this machine's interfaces that are up,
	// without loopback ones and without zones.
	LocalAddrs() ([]netip.Addr, error)
	// Interfaces returns what can be listened on for multicast: the interfaces
	// that are up and know it, and the loopback one, last.
	Interfaces() ([]Interface, error)
}

// An Interface connects a machine to a network.
type Interface struct {
	// Name is its name on this machine.
	Name string
	// Loopback says that it leads to this machine only.
	Loopback bool
	// Addrs are the machine's addresses on it, without zones.
	Addrs []netip.Prefix
}
