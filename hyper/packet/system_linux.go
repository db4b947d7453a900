package packet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// readMessages is how many messages one call takes. With UDP_GRO each may be
	// tens of datagrams.
	readMessages = 16
	// readSize is room for the largest message.
	readSize = 64 << 10
	// manyReads is how many sockets may read at once with buffers for
	// readMessages; more than that take one message at a time.
	manyReads = 16

	// writeMessages and writePieces are how many messages one call gives, and of
	// how many pieces of memory.
	writeMessages = 64
	writePieces   = 256
	// maxSegments and maxSegmented limit a message that the kernel cuts into
	// datagrams: UDP_MAX_SEGMENTS, and what fits into one IP packet.
	maxSegments  = 64
	maxSegmented = 64000
)

// controlSize is room for what is said beside a message: size of segments and TTL.
var controlSize = 2 * unix.CmsgSpace(4)

// An mmsghdr is a message of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	len uint32
}

// A socket is a Conn with batched system calls.
type socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	local   netip.AddrPort
	receive Handler
	closed  atomic.Bool
	gso     atomic.Bool // the kernel cuts what goes out into datagrams

	fragments sync.Mutex // one call at a time sends what may be cut on its way
}

// newSocket finds out what the kernel has. A sandbox may refuse any of it.
func newSocket(conn *net.UDPConn, local netip.AddrPort, receive Handler) (runner, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw, local: local, receive: receive}
	batches := !lacking.batches
	err = raw.Control(func(fd uintptr) {
		batches = batches && hasBatches(fd)
		if !batches || lacking.segments {
			return
		}
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		s.gso.Store(err == nil)
		// Without it the kernel gives datagrams one by one.
		unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	})
	if err != nil {
		return nil, err
	}
	if !batches {
		return newPlainSocket(conn, local, receive), nil
	}
	return s, nil
}

// lacking is set by tests, for kernels that have less.
var lacking struct{ batches, segments bool }

// hasBatches asks for messages, of which a new socket has none or which then
// are lost, and gives none.
func hasBatches(fd uintptr) bool {
	var h mmsghdr
	_, _, in := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&h)), 0, unix.MSG_DONTWAIT, 0, 0)
	_, _, out := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&h)), 0, unix.MSG_DONTWAIT, 0, 0)
	return in == 0 && out == 0
}

// LocalAddr implements Conn.
func (s *socket) LocalAddr() netip.AddrPort { return s.local }

// Close implements Conn.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.conn.Close()
}

// A reading is memory for what comes in. A socket holds one only while there is
// something to read, so that idle sockets cost little.
type reading struct {
	headers  []mmsghdr
	names    []unix.RawSockaddrInet6 // fits an IPv4 one
	pieces   []unix.Iovec
	controls []byte
	packets  []Packet
}

func newReading(messages int) *reading {
	r := &reading{
		headers:  make([]mmsghdr, messages),
		names:    make([]unix.RawSockaddrInet6, messages),
		pieces:   make([]unix.Iovec, messages),
		controls: make([]byte, messages*controlSize),
		packets:  make([]Packet, 0, messages),
	}
	data := make([]byte, messages*readSize)
	for i := range r.headers {
		r.pieces[i].Base = &data[i*readSize]
		r.pieces[i].SetLen(readSize)
		h := &r.headers[i]
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.pieces[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i*controlSize]
	}
	return r
}

var (
	readers    atomic.Int32
	largeReads = sync.Pool{New: func() any { return newReading(readMessages) }}
	smallReads = sync.Pool{New: func() any { return newReading(1) }}
)

func takeReading() *reading {
	if readers.Add(1) > manyReads {
		return smallReads.Get().(*reading)
	}
	return largeReads.Get().(*reading)
}

func (r *reading) release() {
	readers.Add(-1)
	clear(r.packets)
	if len(r.headers) == 1 {
		smallReads.Put(r)
	} else {
		largeReads.Put(r)
	}
}

// read gives what comes in to the handler until the socket is closed.
func (s *socket) read() {
	var r *reading
	attempt := func(fd uintptr) bool {
		if r == nil {
			r = takeReading()
		}
		if r.receive(fd) {
			return true
		}
		r.release()
		r = nil
		return false
	}
	for s.raw.Read(attempt) == nil && !s.closed.Load() {
		if len(r.packets) > 0 {
			s.receive(r.packets)
		}
	}
	if r != nil {
		r.release()
	}
}

// receive takes what has come and tells whether there was anything.
func (r *reading) receive(fd uintptr) bool {
	for i := range r.headers {
		h := &r.headers[i]
		h.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	var n int
	for {
		got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers[0])), uintptr(len(r.headers)), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			n = int(got)
			break
		}
		if errno != unix.EINTR {
			return false
		}
	}
	r.packets = r.packets[:0]
	for i := range n {
		h := &r.headers[i]
		if h.Flags&unix.MSG_TRUNC != 0 {
			continue
		}
		size := int(h.len)
		p := Packet{Addr: fromSockaddr(&r.names[i]), Data: unsafe.Slice(r.pieces[i].Base, size)}
		if segment := segmentSize(r.controls[i*controlSize:][:h.Controllen]); segment < size {
			p.Segment = segment
		}
		r.packets = append(r.packets, p)
	}
	return true
}

// segmentSize reads from a control message by which size the kernel put
// datagrams together. There is no other kind that was asked for.
func segmentSize(control []byte) int {
	if len(control) < unix.CmsgLen(4) {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if h.Level != unix.IPPROTO_UDP || h.Type != unix.UDP_GRO {
		return 0
	}
	return int(binary.NativeEndian.Uint32(control[unix.CmsgLen(0):]))
}

func fromSockaddr(a *unix.RawSockaddrInet6) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&a.Port))
	var addr netip.Addr
	if a.Family == unix.AF_INET {
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(a)).Addr)
	} else {
		addr = netip.AddrFrom16(a.Addr)
		if a.Scope_id != 0 {
			addr = addr.WithZone(zoneName(a.Scope_id))
		}
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:]))
}

// setSockaddr returns the size of a.
func setSockaddr(a *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	port := (*[2]byte)(unsafe.Pointer(&a.Port)) // at the same place in both
	binary.BigEndian.PutUint16(port[:], to.Port())
	if to.Addr().Is4() {
		a4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		a4.Family = unix.AF_INET
		a4.Addr = to.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	a.Family = unix.AF_INET6
	a.Flowinfo = 0
	a.Addr = to.Addr().As16()
	a.Scope_id = 0
	if zone := to.Addr().Zone(); zone != "" {
		a.Scope_id = zoneIndex(zone)
	}
	return unix.SizeofSockaddrInet6
}

// A writing is memory for what goes out: messages of one or more datagrams.
type writing struct {
	headers  [writeMessages]mmsghdr
	names    [writeMessages]unix.RawSockaddrInet6
	messages [writeMessages]message
	pieces   [writePieces]unix.Iovec
	controls []byte
	count    int  // of messages
	used     int  // of pieces
	behind   bool // what is added next lies in memory behind what was added last

	// The call that is under way.
	send  func(fd uintptr) bool
	first int
	sent  int
	errno unix.Errno
}

// A message is datagrams of one size to one address; the last may be shorter.
type message struct {
	addr      netip.AddrPort
	ttl       int
	segment   int
	datagrams int
	size      int
	piece     int // the first
	full      bool
}

var writings = sync.Pool{New: func() any {
	w := &writing{controls: make([]byte, writeMessages*controlSize)}
	w.send = w.sendmmsg // made once, it would be an allocation for each call
	return w
}}

// Write implements Conn.
func (s *socket) Write(batch []Packet) error {
	if s.closed.Load() {
		return ErrClosed
	}
	w := writings.Get().(*writing)
	defer writings.Put(w)
	for i := range batch {
		p := &batch[i]
		addr := p.Addr
		if addr.Addr().Is4In6() {
			addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		}
		if addr.Addr().Is4() != s.local.Addr().Is4() {
			continue
		}
		if p.Fragment {
			if err := s.writeFragments(w, addr, p); err != nil {
				return err
			}
			continue
		}
		w.behind = false
		for data := range p.Datagrams() {
			if !w.add(addr, p.TTL, data, s.gso.Load()) {
				if err := s.flush(w); err != nil {
					return err
				}
				w.add(addr, p.TTL, data, s.gso.Load())
			}
			w.behind = true
		}
	}
	return s.flush(w)
}

// writeFragments sends what may be cut on its way, after what is in w. That is an
// option of the whole socket, so that what others send meanwhile may be cut too,
// which is no harm.
func (s *socket) writeFragments(w *writing, addr netip.AddrPort, p *Packet) error {
	if err := s.flush(w); err != nil {
		return err
	}
	s.fragments.Lock()
	defer s.fragments.Unlock()
	set := func(may bool) error {
		return s.raw.Control(func(fd uintptr) { setFragment(fd, s.local.Addr().Is6(), may) })
	}
	if set(true) != nil {
		return ErrClosed
	}
	defer set(false)
	for data := range p.Datagrams() {
		w.add(addr, p.TTL, data, false)
		if err := s.flush(w); err != nil {
			return err
		}
	}
	return nil
}

// add puts in a datagram and tells whether there was room. What goes to the
// same address in a row becomes one message, if join says that the kernel takes
// it apart.
func (w *writing) add(addr netip.AddrPort, ttl int, data []byte, join bool) bool {
	if join && w.count > 0 {
		m := &w.messages[w.count-1]
		if !m.full && len(data) > 0 && len(data) <= m.segment && m.datagrams < maxSegments && m.size+len(data) <= maxSegmented && m.ttl == ttl && m.addr == addr {
			if last := &w.pieces[w.used-1]; w.behind {
				last.SetLen(int(last.Len) + len(data))
			} else if !w.piece(data) {
				return false
			}
			m.datagrams++
			m.size += len(data)
			m.full = len(data) < m.segment
			return true
		}
	}
	piece := w.used
	if w.count == len(w.messages) || len(data) > 0 && !w.piece(data) {
		return false
	}
	w.messages[w.count] = message{addr: addr, ttl: ttl, segment: len(data), datagrams: 1, size: len(data), piece: piece, full: len(data) == 0}
	w.count++
	return true
}

func (w *writing) piece(data []byte) bool {
	if w.used == len(w.pieces) {
		return false
	}
	w.pieces[w.used].Base = &data[0]
	w.pieces[w.used].SetLen(len(data))
	w.used++
	return true
}

// flush sends what was put in.
func (s *socket) flush(w *writing) error {
	defer w.reset()
	for i := range w.count {
		w.prepare(i)
	}
	for w.first = 0; w.first < w.count; w.first += w.sent {
		if err := s.raw.Write(w.send); err != nil {
			return ErrClosed
		}
		if w.errno == 0 {
			continue
		}
		// It's about the first message, which is given up.
		w.sent = 1
		if m := &w.messages[w.first]; m.datagrams > 1 {
			if w.errno == unix.EIO {
				s.gso.Store(false) // the interface can't do it
			}
			if err := s.writeSingly(w, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeSingly sends the datagrams of a message that the kernel does not take as
// a whole: perhaps only some are too large for the interface.
func (s *socket) writeSingly(from *writing, m *message) error {
	w := writings.Get().(*writing)
	defer writings.Put(w)
	w.behind = false
	for left, piece := m.size, m.piece; left > 0; piece++ {
		v := &from.pieces[piece]
		p := Packet{Data: unsafe.Slice(v.Base, int(v.Len)), Segment: m.segment}
		left -= len(p.Data)
		for data := range p.Datagrams() {
			w.add(m.addr, m.ttl, data, false) // there is room for maxSegments
		}
	}
	return s.flush(w)
}

func (w *writing) prepare(i int) {
	m, h := &w.messages[i], &w.headers[i]
	h.Name = (*byte)(unsafe.Pointer(&w.names[i]))
	h.Namelen = setSockaddr(&w.names[i], m.addr)
	end := w.used
	if i+1 < w.count {
		end = w.messages[i+1].piece
	}
	h.Iov = nil
	if end > m.piece {
		h.Iov = &w.pieces[m.piece]
	}
	h.SetIovlen(end - m.piece)
	control := w.controls[i*controlSize:][:0:controlSize]
	if m.datagrams > 1 {
		control = appendControl(control, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2, uint32(m.segment))
	}
	if m.ttl > 0 && m.addr.Addr().Is4() {
		control = appendControl(control, unix.IPPROTO_IP, unix.IP_TTL, 4, uint32(m.ttl))
	} else if m.ttl > 0 {
		control = appendControl(control, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, 4, uint32(m.ttl))
	}
	h.Control = nil
	if len(control) > 0 {
		h.Control = &control[0]
	}
	h.SetControllen(len(control))
}

// appendControl adds a control message of two or four bytes.
func appendControl(b []byte, level, kind int32, size int, value uint32) []byte {
	start := len(b)
	b = b[:start+unix.CmsgSpace(size)]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[start]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	if at := b[start+unix.CmsgLen(0):]; size == 2 {
		binary.NativeEndian.PutUint16(at, uint16(value))
	} else {
		binary.NativeEndian.PutUint32(at, value)
	}
	return b
}

// sendmmsg gives the messages from first on to the kernel, and asks to be called
// again when there is room.
func (w *writing) sendmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.headers[w.first])), uintptr(w.count-w.first), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		w.sent, w.errno = int(n), errno
		return true
	}
}

// reset forgets what was sent, so that it can be collected.
func (w *writing) reset() {
	for i := range w.used {
		w.pieces[i].Base = nil
	}
	clear(w.messages[:w.count])
	w.count, w.used = 0, 0
}
