package udx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
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
	told     netip.AddrPort // what Remote was told last

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

// A waiter is calls that wait, with a deadline. The stream's mu guards it.
type waiter struct {
	sync.Cond
	n        int // that wait
	deadline time.Time
	timer    clock.Timer
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
	s.settleNow()
	return nil
}

// RelayTo passes all packets that come for the stream on to the other side of
// another, as they are. Whichever of the two ends takes the other along; if a
// call ends them here, nobody is told. For packets both ways each is relayed to
// the other.
func (s *Stream) RelayTo(to *Stream) error {
	if err := s.relayTo(to); err != nil {
		return fmt.Errorf("relay a stream: %w", err)
	}
	return nil
}

func (s *Stream) relayTo(to *Stream) error {
	// First the mark that lets the end of to take s along, so that it can't come
	// between.
	to.mu.Lock()
	if err := to.notOpenLocked(); err != nil {
		return to.unlock(err)
	}
	if to.relaying == nil {
		to.relaying = map[*Stream]bool{}
	}
	to.relaying[s] = true
	to.mu.Unlock()

	s.mu.Lock()
	err := s.notOpenLocked()
	if err == nil && s.relay != nil {
		err = errors.New("it is relayed already")
	}
	if err == nil {
		s.relay = to
	}
	stays := s.relay == to
	s.mu.Unlock()
	if !stays {
		to.mu.Lock()
		delete(to.relaying, s)
		to.mu.Unlock()
	}
	return err
}

// passOn sends a packet to the other side of the stream.
func (s *Stream) passOn(p []byte, out *outbox) {
	s.mu.Lock()
	to := s.core.path
	if to == nil || len(p) > outboxSize {
		s.mu.Unlock()
		return
	}
	s.core.countSent(len(p))
	s.mu.Unlock()
	if !out.fits(to, len(p)) {
		out.write()
	}
	b := out.add(to, len(p), false)
	copy(b, p)
	putID(b, to.id)
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

// Read implements [net.Conn]. What came before the other side dropped the
// stream can still be read.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	for {
		switch c := &s.core; {
		case s.shut:
			return 0, s.unlock(packet.ErrClosed)
		case s.expiredLocked(&s.read):
			return 0, s.unlock(os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, s.unlock(nil)
		case c.in.n > 0:
			n, tell := c.read(p)
			if !tell {
				return n, s.unlock(nil)
			}
			out := newOutbox()
			c.ackNow(out)
			s.settle(out)
			out.free()
			return n, nil
		case c.remoteEnded || c.status >= ended && c.err == nil:
			return 0, s.unlock(io.EOF)
		case c.status >= ended:
			return 0, s.unlock(fmt.Errorf("read from %s: %w", s.remoteLocked(), c.err))
		}
		s.read.wait()
	}
}

// Write implements [net.Conn]. It returns when all of p is in the stream's
// buffer, and waits for room in it if the other side does not keep up.
func (s *Stream) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	mine := false
	defer func() {
		if mine {
			s.mu.Lock()
			s.writing = false
			s.write.wake()
			s.mu.Unlock()
		}
	}()
	for {
		c := &s.core
		switch {
		case s.shut || c.ending:
			return n, s.unlock(packet.ErrClosed)
		case s.expiredLocked(&s.write):
			return n, s.unlock(os.ErrDeadlineExceeded)
		case c.status >= ended:
			return n, s.unlock(fmt.Errorf("write to %s: %w", s.remoteLocked(), s.because()))
		case len(p) == 0:
			return n, s.unlock(nil)
		case s.writing && !mine:
			s.write.wait()
		case c.room() >= min(len(p), maxUnsent/4):
			s.writing, mine = true, true
			k := c.write(p)
			n += k
			p = p[k:]
			s.settleNow()
			if len(p) == 0 {
				return n, nil
			}
			s.mu.Lock()
		default:
			s.write.wait()
		}
	}
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

// Flush waits until the other side has all that was written so far.
func (s *Stream) Flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flush.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.core
	for all, end := c.outStart+uint64(c.out.n), c.ending; ; s.flush.wait() {
		switch {
		case c.status >= ended && c.err != nil:
			return fmt.Errorf("flush to %s: %w", s.remoteLocked(), c.err)
		case c.status >= ended || c.outStart >= all && (c.endAcked || !end):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// CloseWrite tells the other side that nothing comes after what was written.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	if s.shut {
		return s.unlock(packet.ErrClosed)
	}
	if err := s.core.err; err != nil {
		return s.unlock(fmt.Errorf("end the stream to %s: %w", s.remoteLocked(), err))
	}
	s.core.end()
	s.settleNow()
	return nil
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

// SetDeadline implements [net.Conn].
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (s *Stream) SetReadDeadline(t time.Time) error { return s.setDeadline(&s.read, t) }

// SetWriteDeadline implements [net.Conn].
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.setDeadline(&s.write, t) }

func (s *Stream) setDeadline(w *waiter, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return packet.ErrClosed
	}
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	w.deadline = t
	if left := t.Sub(s.u.clock.Now()); !t.IsZero() && left > 0 {
		w.timer = s.u.clock.AfterFunc(left, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			w.Broadcast()
		})
	}
	w.Broadcast()
	return nil
}

func (s *Stream) expiredLocked(w *waiter) bool {
	return !w.deadline.IsZero() && !s.u.clock.Now().Before(w.deadline)
}

func (w *waiter) wait() {
	w.n++
	w.Wait()
	w.n--
}

func (w *waiter) wake() {
	if w.n > 0 {
		w.Broadcast()
	}
}

// notOpenLocked returns an error if the stream is closed.
func (s *Stream) notOpenLocked() error {
	if s.shut || s.core.status >= ended {
		return s.because()
	}
	return nil
}

// fromRemote tells whether packets from there need no permission. It is called
// with mu held.
func (s *Stream) fromRemote(k *Socket, from netip.AddrPort) bool {
	c := &s.core
	if c.status >= ended || c.path != nil && c.path.socket == k {
		return true
	}
	return c.old != nil && c.old.socket == k && same(from, c.old.addr)
}

// receive gives a packet to the core. It reports whether a message in it is to be
// given on, and whether to tell that the other side has moved. It is called with
// mu held.
func (s *Stream) receive(now time.Duration, from netip.AddrPort, h *header, blocks, data []byte, out *outbox) (message, moved bool) {
	c := &s.core
	known := s.knowsLocked(from)
	if h.kind&typeDestroy != 0 && !known {
		// Such as a relay that is not used any more.
		c.stats.PacketsDropped++
		return false, false
	}
	ack, una := c.ack, c.una
	ok := c.receive(now, h, blocks, data, out)
	if c.ack != ack || c.una != una {
		s.from = from
	}
	// A packet that was seen before counts too: its ack may have gone astray.
	return ok && !s.shut && h.kind&typeMessage != 0 && s.o.Message != nil,
		ok && !known && h.kind&typeHeartbeat == 0 && s.tellsLocked(from)
}

// knowsLocked tells whether the other side is there, or was when it last sent
// something new.
func (s *Stream) knowsLocked(from netip.AddrPort) bool {
	return s.core.path == nil || same(from, s.core.path.addr) || same(from, s.from)
}

// tellsLocked tells whether Remote is to be called: once for an address, as long
// as there is no other.
func (s *Stream) tellsLocked(from netip.AddrPort) bool {
	old := s.core.old
	if s.o.Remote == nil || same(from, s.told) || old != nil && same(from, old.addr) {
		return false
	}
	s.told = from
	return true
}

// same tells whether two addresses are the same, however their interface is
// called.
func same(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().WithZone("") == b.Addr().WithZone("")
}

func (s *Stream) onTimer() {
	s.mu.Lock()
	now := s.u.now()
	if s.timerAt == 0 || now < s.timerAt { // it was stopped too late
		s.mu.Unlock()
		return
	}
	s.timer, s.timerAt = nil, 0
	out := newOutbox()
	s.core.tick(now, out)
	s.settle(out)
	out.free()
}

func (s *Stream) settleNow() {
	out := newOutbox()
	s.settle(out)
	out.free()
}

// settle ends a change of the core: it sends what is in out and what the core
// has to send, wakes who waits and sets the timer. It is called with mu held,
// and gives it up.
func (s *Stream) settle(out *outbox) {
	s.wakeLocked()
	for {
		mine := !s.filling
		if mine {
			s.core.fill(s.u.now(), out)
		}
		if len(out.packets) == 0 {
			break
		}
		s.filling = true
		s.mu.Unlock()
		out.write()
		s.mu.Lock()
		if !mine { // who is at it looks again
			break
		}
		s.filling = false
	}
	s.wakeLocked()
	if !s.filling { // or else who is at it does that too
		s.armLocked()
	}
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// wakeLocked wakes who can go on, and notes what is to be called.
func (s *Stream) wakeLocked() {
	c := &s.core
	over := c.status >= ended || s.shut
	if over || c.in.n > 0 || c.remoteEnded {
		s.read.wake()
	}
	if over || c.ending || c.room() >= maxUnsent/4 {
		s.write.wake()
	}
	s.flush.wake()
	if s.moving && !c.moved && !over {
		s.callLocked(s.moved)
		s.moving, s.moved = false, nil
		if c.old.socket != c.path.socket {
			s.callLocked(c.old.socket.leave(s))
		}
	}
	if c.status >= ended && !s.finished {
		s.finishLocked()
	}
	if c.status == gone {
		s.u.forget(s)
	}
}

func (s *Stream) callLocked(f func()) {
	if f != nil {
		s.calls = append(s.calls, f)
	}
}

// finishLocked ends the stream for those who use it. Late packets may still be
// answered.
func (s *Stream) finishLocked() {
	s.finished = true
	if s.err = s.core.err; s.err != nil && s.shut {
		s.err = packet.ErrClosed
	}
	for _, p := range [...]*path{s.core.path, s.core.old} {
		if p != nil {
			s.callLocked(p.socket.leave(s))
		}
	}
	close(s.done)
	err, onClose, relay := s.err, s.onClose, s.relay
	s.onClose, s.moved = nil, nil
	for _, f := range onClose {
		s.callLocked(func() { f(err) })
	}
	if relay != nil {
		s.callLocked(func() {
			relay.mu.Lock()
			delete(relay.relaying, s)
			relay.mu.Unlock()
		})
	}
	why := packet.ErrClosed
	if s.core.err == ErrReset {
		why = ErrReset // that side knows
	}
	for other := range s.relaying {
		s.callLocked(func() { other.end(why) })
	}
	s.relaying = nil
	for _, w := range [...]*waiter{&s.read, &s.write} {
		if w.timer != nil {
			w.timer.Stop()
		}
	}
}

// armLocked sets the timer to what the core waits for. One that comes too early
// is left: most deadlines are put off again and again.
func (s *Stream) armLocked() {
	at := s.core.deadline()
	if s.core.status == gone {
		at = 0
	}
	if s.timerAt != 0 && at != 0 && s.timerAt <= at {
		return
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.timerAt = at
	if at != 0 {
		s.timer = s.u.clock.AfterFunc(at-s.u.now(), s.fire)
	}
}
