package packet

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A plainSocket is a Conn that sends and takes one datagram at a time, with
// nothing that only some kernels have.
type plainSocket struct {
	conn    *net.UDPConn
	local   netip.AddrPort
	receive Handler
	closed  atomic.Bool

	// A TTL, and whether to cut packets, is the whole socket's here: it is set for
	// one packet and back.
	mu sync.Mutex
}

// usualTTL is what a socket begins with.
const usualTTL = 64

func newPlainSocket(conn *net.UDPConn, local netip.AddrPort, receive Handler) *plainSocket {
	conn.SetReadBuffer(readBuffer)
	conn.SetWriteBuffer(writeBuffer)
	return &plainSocket{conn: conn, local: local, receive: receive}
}

// LocalAddr implements Conn.
func (s *plainSocket) LocalAddr() netip.AddrPort { return s.local }

// Close implements Conn.
func (s *plainSocket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.conn.Close()
}

// read gives what comes in to the handler until the socket is closed.
func (s *plainSocket) read() {
	data := make([]byte, MaxSize+1)
	batch := make([]Packet, 1)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(data)
		if errors.Is(err, net.ErrClosed) || s.closed.Load() {
			return
		}
		if err != nil || n > MaxSize {
			continue // too large, or the answer of a host to what was sent before
		}
		batch[0] = Packet{Addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Data: data[:n]}
		s.receive(batch)
	}
}

// Write implements Conn.
func (s *plainSocket) Write(batch []Packet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		addr := netip.AddrPortFrom(p.Addr.Addr().Unmap(), p.Addr.Port())
		if p.TTL > 0 {
			s.set(func(fd uintptr, v6 bool) { setTTL(fd, v6, p.TTL) })
		}
		if p.Fragment {
			s.set(func(fd uintptr, v6 bool) { setFragment(fd, v6, true) })
		}
		for data := range p.Datagrams() {
			s.conn.WriteToUDPAddrPort(data, addr)
		}
		if p.TTL > 0 {
			s.set(func(fd uintptr, v6 bool) { setTTL(fd, v6, usualTTL) })
		}
		if p.Fragment {
			s.set(func(fd uintptr, v6 bool) { setFragment(fd, v6, false) })
		}
	}
	if s.closed.Load() {
		return ErrClosed
	}
	return nil
}

func (s *plainSocket) set(option func(fd uintptr, v6 bool)) {
	raw, err := s.conn.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { option(fd, s.local.Addr().Is6()) })
	}
}
