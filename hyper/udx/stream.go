package udx

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// StreamOptions are of a [Stream]. The functions are called with no lock held,
// by the goroutine that reads the socket.
type StreamOptions struct {
	// Firewall tells whether to take packets that come before the stream is
	// connected, or over another socket than it is. It may connect the stream. If
	// it is nil there are none.
	Firewall func(s *Socket, from netip.AddrPort) (allow bool)
	// Message gets what the other side sends with [Stream.SendMessage]. The data
	// may be used until it returns.
	Message func(data []byte)
	// Remote is told when packets begin to come from another address than the
	// stream is connected to, be it relayed or not: a NAT may have forgotten the
	// other side. The stream does not follow by itself, for it can't tell: anybody
	// who knows its id, and about where it stands, could send them.
	Remote func(from netip.AddrPort)
	// Relay is asked for each packet of so many bytes that is passed on
	// ([Stream.RelayTo]). If it is nil all are, as are those that end the stream.
	Relay func(size int) (pass bool)
}

// A Stream is bytes both ways, reliable and in order. It is a [net.Conn] and a
// transport.Conn.
type Stream struct {
	u    *UDX
	id   uint32
	o    StreamOptions
	done chan struct{}
	fire func() // onTimer

	// mu guards what follows. It is held for no longer than it takes to copy.
	mu       sync.Mutex
	core     core
	shut     bool // by Close or Destroy
	finished bool // done is closed
	err      error
	filling  bool           // a goroutine is sending, and looks again when it is ready
	from     netip.AddrPort // where the last packet came from that brought something new
	told     netip.AddrPort // what Remote was told last, since the stream moved

	read, write, flush waiter
	writing            bool // a call of Write is under way

	timer   clock.Timer
	timerAt time.Duration
	onClose []func(error)
	moving  bool // the path was changed, and packets go over the old one
	moved   func()
	calls   []func()

	relay    *Stream          // where packets are passed on to
	relaying map[*Stream]bool // who passes packets on to this one
}

func newStream(u *UDX, id uint32, seed uint64, o StreamOptions) *Stream {
	s := &Stream{u: u, id: id, o: o, done: make(chan struct{})}
	s.read.L, s.write.L, s.flush.L = &s.mu, &s.mu, &s.mu
	s.fire = s.onTimer
	s.core.init(u.now(), seed)
	return s
}

// ID is the stream's id at this side, which the other side connects to.
func (s *Stream) ID() uint32 { return s.id }

// Connected tells whether the stream is connected and not closed.
func (s *Stream) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.path != nil && s.core.status < ended
}

// Socket is what the stream goes over, nil before it is connected.
func (s *Stream) Socket() *Socket { return s.path().socket }

// RemoteID is the stream's id at the other side, 0 before it is connected.
func (s *Stream) RemoteID() uint32 { return s.path().id }

// RemoteAddrPort is where the stream is connected to, the zero value before it
// is.
func (s *Stream) RemoteAddrPort() netip.AddrPort { return s.path().addr }

func (s *Stream) path() path {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core.path == nil {
		return path{}
	}
	return *s.core.path
}

// LocalAddr is the address of the socket that the stream goes over.
func (s *Stream) LocalAddr() packet.Addr {
	if k := s.Socket(); k != nil {
		return packet.NetAddr(k.LocalAddr())
	}
	return packet.NetAddr(netip.AddrPort{})
}

// RemoteAddr is [Stream.RemoteAddrPort] for package net.
func (s *Stream) RemoteAddr() packet.Addr { return packet.NetAddr(s.RemoteAddrPort()) }

// Remote is [Stream.RemoteAddrPort] to be shown to people.
func (s *Stream) Remote() string {
	if addr := s.RemoteAddrPort(); addr.IsValid() {
		return "udx://" + addr.String()
	}
	return "udx, not connected"
}

// Connect joins the stream with that of an id at an address.
func (s *Stream) Connect(k *Socket, remoteID uint32, remote netip.AddrPort) error {
	to, err := s.newPath(k, remoteID, remote)
	if err != nil {
		return fmt.Errorf("connect a stream: %w", err)
	}
	s.mu.Lock()
	err = s.notOpenLocked()
	if err == nil && s.core.path != nil {
		err = errors.New("it is connected already")
	}
	if err == nil {
		err = k.join(s)
	}
	if err != nil {
		return s.unlock(fmt.Errorf("connect a stream: %w", err))
	}
	out := newOutbox()
	s.core.connect(s.u.now(), to, out)
	s.settle(out)
	out.free()
	return nil
}

func (s *Stream) newPath(k *Socket, remoteID uint32, remote netip.AddrPort) (*path, error) {
	if k.u != s.u {
		return nil, errors.New("the socket is of another UDX")
	}
	if !remote.IsValid() || remote.Port() == 0 {
		return nil, fmt.Errorf("no such address: %v", remote)
	}
	return &path{socket: k, id: remoteID, addr: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())}, nil
}

// ChangeRemote sends what is new over another socket, or to another address or
// id. What is on its way still goes the old way, unless it is not answered.
// Done, if it isn't nil, is called when all that was on its way is acked.
func (s *Stream) ChangeRemote(k *Socket, remoteID uint32, remote netip.AddrPort, done func()) error {
	to, err := s.newPath(k, remoteID, remote)
	if err != nil {
		return fmt.Errorf("move a stream: %w", err)
	}
	s.mu.Lock()
	err = s.notOpenLocked()
	switch {
	case err != nil:
	case s.core.path == nil:
		err = errors.New("it is not connected")
	case s.core.moved:
		err = errors.New("it is still being moved")
	default:
		err = k.join(s)
	}
	if err != nil {
		return s.unlock(fmt.Errorf("move a stream: %w", err))
	}
	s.core.changePath(s.u.now(), to)
	s.moving, s.moved = true, done
	s.told = netip.AddrPort{}
	s.settleNow()
	return nil
}

// SendMessage sends a datagram beside the bytes of the stream. It may get lost
// or overtaken. It has to fit in one packet.
func (s *Stream) SendMessage(b []byte) error {
	s.mu.Lock()
	err := s.notOpenLocked()
	switch {
	case err != nil:
	case s.core.path == nil:
		err = errors.New("it is not connected")
	case len(b) > maxMTU-s.core.path.overhead():
		err = fmt.Errorf("%d bytes are more than a packet has", len(b))
	}
	if err != nil {
		return s.unlock(fmt.Errorf("send a message beside a stream: %w", err))
	}
	out := newOutbox()
	p := out.add(s.core.path, headerSize+len(b), true)
	h := s.core.head(typeMessage)
	h.put(p)
	copy(p[headerSize:], b)
	s.core.countSent(len(p))
	s.mu.Unlock()
	out.write()
	out.free()
	return nil
}

// SetKeepAlive sends a heartbeat whenever the stream was idle for d, so that
// NATs don't forget it; 0 is never, as in the beginning.
func (s *Stream) SetKeepAlive(d time.Duration) {
	s.mu.Lock()
	s.core.keepAlive = d
	s.core.restKeepAlive(s.u.now())
	s.settleNow()
}

func (s *Stream) because() error {
	if s.shut || s.core.err == nil {
		return packet.ErrClosed
	}
	return s.core.err
}

func (s *Stream) remoteLocked() string {
	if s.core.path == nil {
		return "a stream that is not connected"
	}
	return s.core.path.addr.String()
}

// unlock gives up mu, and returns err.
func (s *Stream) unlock(err error) error {
	s.mu.Unlock()
	return err
}

// Close ends the stream both ways and returns at once. What was written still
// arrives, unless the other side takes nothing of it for five seconds; who has
// all of it has as long to end its direction too. Closing again does nothing.
func (s *Stream) Close() error {
	s.mu.Lock()
	if s.shut {
		return s.unlock(nil)
	}
	s.shut = true
	if s.core.path == nil {
		s.core.close(s.u.now(), packet.ErrClosed)
	}
	s.core.shut(s.u.now())
	s.core.in.discard(s.core.in.n)
	s.settleNow()
	return nil
}

// Destroy ends the stream at once. What was written and not acked may be lost.
func (s *Stream) Destroy() { s.end(packet.ErrClosed) }

// end ends the stream at once. The other side is told, unless it is the reason,
// or the stream is relayed: those who speak over a relay may have another path by
// then, and would take it for their own end.
func (s *Stream) end(err error) {
	s.mu.Lock()
	s.shut = s.shut || err == packet.ErrClosed
	out := newOutbox()
	now := s.u.now()
	if err == ErrReset || s.relay != nil {
		s.core.close(now, err)
	} else {
		s.core.destroy(now, out)
	}
	s.settle(out)
	out.free()
}

// Done is closed when the stream is over: both sides have ended it, or one has
// dropped it.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err tells why the stream is over. It is nil if both sides have ended it, or
// it is not over.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Closed reports whether Close or Destroy was called. The stream may still be on
// its way out; see Done.
func (s *Stream) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shut
}

// OnClose calls f when the stream is over, with what Err returns then; at once
// if it is.
func (s *Stream) OnClose(f func(err error)) {
	s.mu.Lock()
	if !s.finished {
		s.onClose = append(s.onClose, f)
		s.mu.Unlock()
		return
	}
	err := s.err
	s.mu.Unlock()
	f(err)
}

// Stats tells of what the stream did so far.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.core
	stats := c.stats
	stats.RTT, stats.MTU, stats.Window, stats.InFlight = c.srtt, c.mtu, c.control.window(), c.inFlight.n
	if c.heardAt != 0 {
		stats.Silence = s.u.now() - c.heardAt
	}
	return stats
}

// notOpenLocked returns an error if the stream is closed.
func (s *Stream) notOpenLocked() error {
	if s.shut || s.core.status >= ended {
		return s.because()
	}
	return nil
}
