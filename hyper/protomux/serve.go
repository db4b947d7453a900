package protomux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Stream carries messages in order, such as one of hyper/secretstream.
type Stream interface {
	// Next returns the next message, which is valid until the next call, or
	// io.EOF when the other side has ended in order. One goroutine calls it.
	Next() ([]byte, error)
	// Queue takes a message for the next Flush, and does not keep it. It may
	// write and block.
	Queue(message []byte) error
	// Flush writes what is queued.
	Flush() error
	// Close ends the stream. It makes the other methods return and may be called
	// by any goroutine, more than once.
	Close() error
}

// Serve runs the mux over a stream until either side ends it, and closes the
// stream. It returns nil if that was in order: after [Mux.Close], or when the
// other side has ended the stream. Otherwise it returns why, which is the
// cause of ctx if that ended. It may be called once.
//
// The functions of channels are called by the goroutine that called Serve, or
// by short ones it waits for. Another writes while there is something to be
// written.
func (m *Mux) Serve(ctx context.Context, stream Stream) error {
	s := &shell{mux: m, stream: stream}
	if err := s.attach(); err != nil {
		return errors.Join(err, stream.Close())
	}
	stop := context.AfterFunc(ctx, func() {
		m.end(context.Cause(ctx))
		stream.Close()
	})
	err := s.read(ctx)
	if err == nil {
		s.routines.Wait() // what was queued is written
	}
	inTime := stop()
	stream.Close() // there is nothing to be lost by now
	s.routines.Wait()
	m.Dispatch()
	if err := m.Err(); err != nil {
		return err
	}
	if !inTime {
		return context.Cause(ctx)
	}
	return nil
}

// A shell is what runs a mux.
type shell struct {
	mux      *Mux
	stream   Stream
	routines sync.WaitGroup

	// Guarded by mux.mu.
	writing bool
	frames  Frames // for the goroutine that writes
}

func (s *shell) attach() error {
	m := s.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shell != nil {
		return errors.New("serve: the mux is served already")
	}
	m.shell = s
	if m.ended || m.out.Len() > 0 {
		s.wakeWriterLocked()
	}
	if len(m.events) > 0 {
		s.wakeDispatcherLocked()
	}
	return nil
}

// read receives frames until the stream ends. It returns nil if that was in
// order, and what is queued may still be written.
func (s *shell) read(ctx context.Context) error {
	m := s.mux
	for {
		frame, err := s.stream.Next()
		if err == io.EOF {
			m.mu.Lock()
			m.endLocked(io.EOF)
			m.mu.Unlock()
			return nil
		}
		if err != nil {
			err = fmt.Errorf("read frame: %w", err)
			m.end(err) // unless this side has closed the stream
			return err
		}
		if err := m.Receive(frame); err != nil {
			if m.Err() == nil { // closed by this side, with nothing to read for
				return nil
			}
			return err
		}
		if err := s.pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits while too much is kept for requests that were not answered.
func (s *shell) pause(ctx context.Context) error {
	m := s.mux
	m.mu.Lock()
	if m.waiting <= pauseBuffered || m.ended {
		m.mu.Unlock()
		return nil
	}
	resumed := make(chan struct{})
	m.resumed = resumed
	m.mu.Unlock()
	select {
	case <-resumed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *shell) wakeWriterLocked() {
	if !s.writing {
		s.writing = true
		s.routines.Go(s.write)
	}
}

func (s *shell) wakeDispatcherLocked() { s.routines.Go(s.mux.Dispatch) }

// write writes what is queued until nothing is. After the end it closes the
// stream.
func (s *shell) write() {
	for s.take() {
		for frame := range s.frames.All() {
			if err := s.stream.Queue(frame); err != nil {
				s.mux.end(fmt.Errorf("write frame: %w", err))
				break
			}
		}
		if err := s.stream.Flush(); err != nil {
			s.mux.end(fmt.Errorf("write frames: %w", err))
		}
	}
}

// take takes the next frames, or ends the writing.
func (s *shell) take() bool {
	m := s.mux
	m.mu.Lock()
	more := m.takeLocked(&s.frames)
	ended := m.ended
	if !more {
		s.writing = false
	}
	m.mu.Unlock()
	if !more && ended {
		s.stream.Close()
	}
	return more
}
