package udx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// This file is what of a stream package net wants: bytes, deadlines, and calls
// that wait.

// A waiter is calls that wait, with a deadline. The stream's mu guards it.
type waiter struct {
	sync.Cond
	n        int // that wait
	deadline time.Time
	timer    clock.Timer
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
