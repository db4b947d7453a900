package udx

import (
	"net/netip"
	"time"

	"github.com/cloudbevy/bevy/hyper/packet"
)

// This file joins a stream with its core: it gives it packets and the time, sends
// what it has to send, and tells those who wait.

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
		ok && h.kind&typeHeartbeat == 0 && s.tellsLocked(now, from)
}

// knowsLocked tells whether the other side is there, or was when it last sent
// something new.
func (s *Stream) knowsLocked(from netip.AddrPort) bool {
	return s.core.path == nil || same(from, s.core.path.addr) || same(from, s.from)
}

// tellsLocked tells whether Remote is to be called: once for an address, as long
// as there is no other. From where the stream has just moved packets still come
// that were late.
func (s *Stream) tellsLocked(now time.Duration, from netip.AddrPort) bool {
	c := &s.core
	switch {
	case s.o.Remote == nil || c.path == nil || same(from, c.path.addr) || same(from, s.told):
		return false
	case c.old != nil && same(from, c.old.addr) && now-c.movedAt < strayTime:
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
