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
	// TTL is how many routers a packet that goes out may pass; zero is the usual.
	TTL int
}

// A Handler gets packets that came in, one batch at a time.
type Handler func(batch []Packet)

// A Conn is a socket. Its methods may be called by any goroutine.
type Conn interface {
	// Write sends packets in order. It does not keep them. A packet that can't be
	// sent is dropped without a word, as a network does; only a closed socket is
	// an error, ErrClosed.
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
	// LocalAddrs returns the addresses of this machine's interfaces that are up,
	// without loopback ones and without zones.
	LocalAddrs() ([]netip.Addr, error)
}
