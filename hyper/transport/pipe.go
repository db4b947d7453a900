package transport

import (
	"io"
	"net"
	"sync"
)

// pipeSize is how many bytes each direction of a [Pipe] holds.
const pipeSize = 64 << 10

// Pipe returns two ends of a connection in memory. Each direction holds 64 KiB
// that were written and not read.
func Pipe() (a, b Conn) {
	x, y := newFlow(), newFlow()
	return &pipeEnd{in: x, out: y}, &pipeEnd{in: y, out: x}
}

// A flow is one direction of a pipe.
type flow struct {
	mu     sync.Mutex
	moved  sync.Cond
	buf    []byte // what was read is before r
	r      int
	ended  bool // the writer has ended
	closed bool // the writer was closed, so that even a second end is an error
	gone   bool // the reader was closed
}

func newFlow() *flow {
	f := &flow{}
	f.moved.L = &f.mu
	return f
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(p) > 0 && len(f.buf) == 0 && !f.ended && !f.gone {
		f.moved.Wait()
	}
	switch {
	case f.gone:
		return 0, net.ErrClosed
	case len(p) == 0:
		return 0, nil
	case len(f.buf) == 0:
		return 0, io.EOF
	}
	n := copy(p, f.buf[f.r:])
	f.r += n
	if f.r == len(f.buf) {
		f.buf, f.r = f.buf[:0], 0
	}
	f.moved.Broadcast()
	return n, nil
}

func (f *flow) write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.ended {
			return n, net.ErrClosed
		}
		if f.gone {
			return n, io.ErrClosedPipe
		}
		if len(p) == 0 {
			return n, nil
		}
		if room := pipeSize - (len(f.buf) - f.r); room > 0 {
			if 2*f.r > len(f.buf) && len(f.buf)+min(room, len(p)) > cap(f.buf) {
				f.buf = f.buf[:copy(f.buf, f.buf[f.r:])]
				f.r = 0
			}
			some := p[:min(room, len(p))]
			f.buf = append(f.buf, some...)
			p, n = p[len(some):], n+len(some)
			f.moved.Broadcast()
			continue
		}
		f.moved.Wait()
	}
}

// end ends the writing, for good if closed.
func (f *flow) end(closed bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed && !closed {
		return net.ErrClosed
	}
	f.ended, f.closed = true, f.closed || closed
	f.moved.Broadcast()
	return nil
}

// leave ends the reading.
func (f *flow) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone, f.buf, f.r = true, nil, 0
	f.moved.Broadcast()
}

// A pipeEnd is one end of a pipe.
type pipeEnd struct{ in, out *flow }

var _ Conn = (*pipeEnd)(nil)

func (e *pipeEnd) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *pipeEnd) CloseWrite() error           { return e.out.end(false) }
func (e *pipeEnd) Remote() string              { return "pipe" }

func (e *pipeEnd) Close() error {
	e.in.leave()
	return e.out.end(true)
}
