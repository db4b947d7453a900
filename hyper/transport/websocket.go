package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// maxMessage is the most bytes of a message that is sent.
const maxMessage = 64 << 10

// A wsConn is one side of a WebSocket.
type wsConn struct {
	ws     *websocket.Conn
	socket *socket
	remote string
	closed atomic.Bool

	// readMu is held while reading, and guards what follows. Who takes readMu and
	// writeMu takes readMu first.
	readMu   sync.Mutex
	message  io.Reader            // what is left of one, or nil
	finished error                // io.EOF after an end in order, or what went wrong
	status   websocket.StatusCode // why this side would close

	writeMu sync.Mutex // held while writing, so that the parts of a long write stay together
}

var _ Conn = (*wsConn)(nil)

func newWebSocket(ws *websocket.Conn, s *socket, remote string) *wsConn {
	ws.SetReadLimit(-1) // messages are not kept, so they may have any length
	return &wsConn{ws: ws, socket: s, remote: remote, status: websocket.StatusNormalClosure}
}

func (c *wsConn) Remote() string { return c.remote }

func (c *wsConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for !c.closed.Load() && c.finished == nil && len(p) > 0 {
		n, err := c.readLocked(p)
		if err != nil && !c.closed.Load() {
			c.finished = c.reasonLocked(err)
		}
		if n > 0 {
			return n, nil // an error comes again
		}
	}
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	return 0, c.finished
}

// readLocked reads of the message that has begun, or begins the next. It may
// return nothing.
func (c *wsConn) readLocked(p []byte) (n int, err error) {
	if c.message == nil {
		kind, message, err := c.ws.Reader(context.Background())
		if err != nil {
			return 0, err
		}
		if kind != websocket.MessageBinary {
			c.status = websocket.StatusUnsupportedData
			return 0, errors.New("WebSocket: a message is text, and only binary ones are spoken here")
		}
		c.message = message
	}
	n, err = c.message.Read(p)
	switch {
	case err == io.EOF:
		c.message, err = nil, nil
	case err != nil:
		n = 0 // the library has not unmasked them
	}
	return n, err
}

// reasonLocked is what a reader is told of an error that ends the reading.
func (c *wsConn) reasonLocked(err error) error {
	var end websocket.CloseError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the WebSocket ended without a Close frame: %w", io.ErrUnexpectedEOF)
	case !errors.As(err, &end):
		if c.status != websocket.StatusNormalClosure {
			return err
		}
		return fmt.Errorf("WebSocket: %w", printable(err))
	case end.Code != websocket.StatusNormalClosure && end.Code != websocket.StatusGoingAway && end.Code != websocket.StatusNoStatusRcvd:
		return fmt.Errorf("the other side closed the WebSocket with status %d %q", end.Code, end.Reason)
	case c.message != nil:
		return fmt.Errorf("the other side closed the WebSocket within a message: %w", io.ErrUnexpectedEOF)
	}
	return io.EOF
}

func (c *wsConn) Write(p []byte) (n int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for len(p) > 0 {
		err := c.socket.waitForRoom(&c.closed)
		some := p[:min(len(p), maxMessage)]
		if err == nil {
			err = c.ws.Write(context.Background(), websocket.MessageBinary, some)
		}
		switch {
		case err == nil:
			p, n = p[len(some):], n+len(some)
		case c.closed.Load():
			return n, net.ErrClosed
		case errors.Is(err, net.ErrClosed): // by the other side
			return n, io.ErrClosedPipe
		default:
			return n, err
		}
	}
	return n, nil
}

// CloseWrite fails: the library ends both directions at once.
func (c *wsConn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return fmt.Errorf("end one direction of a WebSocket: %w", errors.ErrUnsupported)
}

func (c *wsConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.socket.interrupt()
	go c.linger()
	return nil
}

// linger shakes hands on the end, within lingerTime.
func (c *wsConn) linger() {
	c.readMu.Lock() // a reader that was interrupted gives it up
	defer c.readMu.Unlock()
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.socket.resume()
	c.ws.Close(c.status, "") // it closes the socket, whatever comes of it
}

// outSize is how many bytes wait for the system to take them before writers
// wait too. Answers of the library to pings may go above.
const outSize, outSpare = 64 << 10, 16 << 10

// outs are buffers for what is sent, so that who is idle has none.
var outs = sync.Pool{New: func() any { b := make([]byte, 0, outSize+maxMessage+outSpare); return &b }}

// A socket is the connection below a WebSocket. The library holds a lock while
// it writes, and gives up the connection when the answer to a ping can't be
// sent at once, so writes to the socket never wait: they fill a buffer, which a
// goroutine empties that ends when it has. Closing sends what is in the buffer
// and waits for the other side's end.
type socket struct {
	conn  io.ReadWriteCloser
	raw   net.Conn // conn or below it: its deadlines and its end are those of conn
	clock clock.Clock

	reading sync.Mutex // held while reading conn

	mu       sync.Mutex
	moved    sync.Cond   // something of what follows has changed
	out      *[]byte     // what is to be written, if not nil
	flushing bool        // a goroutine writes
	broken   error       // why writing failed
	closed   bool        // by the library
	bound    clock.Timer // closes raw, if not nil; set before closed
}

func newSocket(conn io.ReadWriteCloser, raw net.Conn, c clock.Clock) *socket {
	if c == nil {
		c = clock.System
	}
	s := &socket{conn: conn, raw: raw, clock: c}
	s.moved.L = &s.mu
	return s
}

// Read implements [io.Reader]. That the connection has ended is never in order
// here: the library would take it for the end of a message.
func (s *socket) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := s.conn.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, plain(err)
}

func (s *socket) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Write implements [io.Writer].
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	if s.broken != nil {
		return 0, s.broken
	}
	if s.out == nil {
		s.out = outs.Get().(*[]byte)
	}
	*s.out = append(*s.out, p...)
	if !s.flushing {
		s.flushing = true
		go s.flush()
	}
	return len(p), nil
}

// flush writes until there is no more to write.
func (s *socket) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.out != nil {
		p := s.out
		s.out = nil
		s.moved.Broadcast()
		if s.broken == nil {
			s.mu.Unlock()
			_, err := s.conn.Write(*p)
			s.mu.Lock()
			s.broken = plain(err)
		}
		*p = (*p)[:0]
		outs.Put(p)
	}
	s.flushing = false
	s.moved.Broadcast()
}

// waitForRoom waits until the buffer has room, or the socket or its owner is
// closed.
func (s *socket) waitForRoom(closed *atomic.Bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && !closed.Load() && s.broken == nil && s.out != nil && len(*s.out) >= outSize {
		s.moved.Wait()
	}
	if s.closed || closed.Load() {
		return net.ErrClosed
	}
	return s.broken
}

// pong tells whether a ping is answered. Of pings that come faster than the
// answers go out, some are not (RFC 6455 §5.5.3).
func (s *socket) pong(context.Context, []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out == nil || len(*s.out) < outSize+maxMessage
}

// interrupt makes what waits return, and bounds how long the rest takes.
func (s *socket) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interruptLocked()
}

func (s *socket) interruptLocked() {
	if s.closed {
		return
	}
	s.raw.SetReadDeadline(past)
	if s.bound == nil {
		s.bound = s.clock.AfterFunc(lingerTime, func() { s.raw.Close() })
	}
	s.moved.Broadcast()
}

// resume lets the library read again.
func (s *socket) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.raw.SetReadDeadline(noDeadline)
	}
}

// Close implements [io.Closer] for the library. It returns at once, and the
// connection lingers.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.interruptLocked()
		s.closed = true
		go s.linger()
	}
	return nil
}

// linger ends both directions. Systems that are told to close a connection with
// something to be read forget what they still have to send.
func (s *socket) linger() {
	s.reading.Lock() // a reader that was interrupted gives it up
	defer s.reading.Unlock()
	s.raw.SetReadDeadline(noDeadline)
	var writing sync.WaitGroup
	writing.Go(func() {
		s.mu.Lock()
		for s.flushing {
			s.moved.Wait()
		}
		s.mu.Unlock()
		if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	})
	io.CopyN(io.Discard, s.conn, lingerBytes)
	writing.Wait()
	s.bound.Stop()
	s.conn.Close()
}
