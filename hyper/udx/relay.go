package udx

import (
	"errors"
	"fmt"
	"net/netip"
)

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

// relay sends a packet on to where the stream is relayed to.
func (r *reception) relay(from netip.AddrPort, h *header, p []byte) {
	s, to := r.s, r.s.relay
	s.core.heardAt = r.now
	s.core.stats.PacketsReceived++
	s.core.stats.BytesReceived += uint64(len(p))
	end := h.kind&typeDestroy != 0
	strange := end && !s.knowsLocked(from) // who is the other side does not end the stream from elsewhere
	if strange {
		s.core.stats.PacketsDropped++
	}
	moved := !end && s.tellsLocked(r.now, from)
	s.mu.Unlock()
	r.s = nil
	if strange {
		return
	}
	if moved {
		s.o.Remote(from)
	}
	if end || s.o.Relay == nil || s.o.Relay(len(p)) {
		to.passOn(p, r.out)
	}
	if end {
		r.out.write()
		s.end(ErrReset)
	}
}
