package transport

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// maxFrame is the most bytes of a frame that is sent, with its header.
const maxFrame = 64 << 10

// frames are buffers for what is sent, so that who is idle has none.
var frames = sync.Pool{New: func() any { return new([maxFrame]byte) }}

// A wsConn is one side of a WebSocket.
type wsConn struct {
	conn   net.Conn
	client bool
	remote string
	clock  clock.Clock
	closed atomic.Bool

	// ping is the content of a ping that was not answered, if not nil. answering
	// is true while a goroutine is about to.
	ping      atomic.Pointer[[]byte]
	answering atomic.Bool

	// readMu is held while reading, and guards what follows. Who takes readMu and
	// writeMu takes readMu first.
	readMu   sync.Mutex
	in       *bufio.Reader
	left     uint64 // bytes of the frame that are to come
	mask     uint32 // for them
	partial  bool   // the message has more frames
	finished error  // io.EOF after a Close frame in order, or what went wrong
	theyLeft bool   // a Close frame was read
	status   int    // why this side would close

	// writeMu is held while writing, and guards what follows.
	writeMu sync.Mutex
	broken  error // what went wrong
	bye     bool  // a Close frame was sent
}

var _ Conn = (*wsConn)(nil)

// newWebSocket takes a connection on which a handshake was held. The reader may
// have read ahead; it holds a frame header and the content of a control frame.
func newWebSocket(conn net.Conn, in *bufio.Reader, client bool, remote string, c clock.Clock) *wsConn {
	return &wsConn{conn: conn, in: in, client: client, remote: remote, clock: c, status: statusNormal}
}

func (c *wsConn) Remote() string { return c.remote }

func (c *wsConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.readLocked(p)
	if err != nil && c.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

// readLocked reads content as it comes. An error that is not kept in finished,
// such as a deadline, leaves everything as it was.
func (c *wsConn) readLocked(p []byte) (int, error) {
	for len(p) > 0 && c.left == 0 {
		if c.finished != nil {
			return 0, c.finished
		}
		if err := c.nextLocked(); err != nil {
			return 0, c.finishLocked(err)
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.in.Read(p[:min(uint64(len(p)), c.left)])
	if !c.client {
		c.mask = applyMask(p[:n], c.mask)
	}
	c.left -= uint64(n)
	if n > 0 || err == nil {
		return n, nil // an error comes again
	}
	return 0, c.finishLocked(err)
}

// finishLocked keeps what ends the reading for good.
func (c *wsConn) finishLocked(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err // Close wants the lock
	}
	if !c.theyLeft && (err == io.EOF || err == io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the WebSocket ended without a Close frame: %w", io.ErrUnexpectedEOF)
	}
	if c.finished == nil {
		c.finished = plain(err)
	}
	c.left = 0
	return c.finished
}

// nextLocked reads the header of the next frame, and control frames whole.
func (c *wsConn) nextLocked() error {
	b, err := c.in.Peek(2)
	if err != nil {
		return err
	}
	if b, err = c.in.Peek(headerLength(b[1])); err != nil {
		return err
	}
	h, fault := parseHeader(b, !c.client)
	switch {
	case fault != "":
	case h.op >= opClose:
		return c.controlLocked(h)
	case h.op == opText:
		c.status = statusNotBinary
		return fmt.Errorf("%w: a message is text, and only binary ones are spoken here", errProtocol)
	case (h.op == opContinuation) != c.partial:
		fault = "a message begins before the one before has ended, or goes on after it has"
	}
	if fault != "" {
		return c.faultLocked(fault)
	}
	c.in.Discard(h.length)
	c.left, c.mask, c.partial = h.size, h.mask, !h.fin
	return nil
}

var errProtocol = errors.New("WebSocket violation")

func (c *wsConn) faultLocked(what string) error {
	c.status = statusProtocol
	return fmt.Errorf("%w: %s", errProtocol, what)
}

func (c *wsConn) controlLocked(h header) error {
	b, err := c.in.Peek(h.length + int(h.size))
	if err != nil {
		return err
	}
	var content [maxControl]byte
	p := content[:copy(content[:], b[h.length:])]
	c.in.Discard(len(b))
	if h.masked {
		applyMask(p, h.mask)
	}
	switch h.op {
	case opPing:
		c.pong(append([]byte(nil), p...))
	case opClose:
		status, reason, fault := parseClose(p)
		switch {
		case fault != "":
			return c.faultLocked(fault)
		case status != statusNormal && status != statusGoingAway && status != statusNone:
			c.finished = fmt.Errorf("the other side closed the WebSocket with status %d %q", status, reason)
		case c.partial:
			c.finished = fmt.Errorf("the other side closed the WebSocket within a message: %w", io.ErrUnexpectedEOF)
		default:
			c.finished = io.EOF
		}
		c.theyLeft = true
		return c.finished
	}
	return nil
}

// pong answers a ping without keeping the reader waiting. Of pings that come
// faster than answers go out, the newest is answered (RFC 6455 §5.5.3).
func (c *wsConn) pong(content []byte) {
	c.ping.Store(&content)
	if c.answering.Swap(true) {
		return
	}
	go func() {
		c.writeMu.Lock()
		defer c.writeMu.Unlock()
		c.answering.Store(false)
		if content := c.ping.Swap(nil); content != nil && !c.closed.Load() && !c.bye && c.broken == nil {
			c.sendLocked(opPong, *content)
		}
	}()
}

func (c *wsConn) Write(p []byte) (n int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for len(p) > 0 {
		switch {
		case c.closed.Load() || c.bye:
			return n, net.ErrClosed
		case c.broken != nil:
			return n, c.broken
		}
		some := p[:min(len(p), maxFrame-maxHeader)]
		if err := c.sendLocked(opBinary, some); err != nil {
			if c.closed.Load() {
				err = net.ErrClosed
			}
			return n, err
		}
		p, n = p[len(some):], n+len(some)
	}
	return n, nil
}

// sendLocked sends one frame. After an error nothing can follow.
func (c *wsConn) sendLocked(op byte, content []byte) error {
	buf := frames.Get().(*[maxFrame]byte)
	defer frames.Put(buf)
	var mask uint32
	if c.client {
		var key [4]byte
		rand.Read(key[:])
		mask = binary.LittleEndian.Uint32(key[:])
	}
	frame := appendHeader(buf[:0], op, c.client, mask, len(content))
	at := len(frame)
	frame = append(frame, content...)
	if c.client {
		applyMask(frame[at:], mask)
	}
	if _, err := c.conn.Write(frame); err != nil {
		c.broken = plain(err)
	}
	return c.broken
}

func (c *wsConn) CloseWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case c.bye:
		return nil
	case c.broken != nil:
		return c.broken
	}
	return c.byeLocked(statusNormal)
}

func (c *wsConn) byeLocked(status int) error {
	c.bye = true
	return c.sendLocked(opClose, binary.BigEndian.AppendUint16(nil, uint16(status)))
}

func (c *wsConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.conn.SetDeadline(past) // what waits returns, and gives up its lock
	if c.readMu.TryLock() {
		defer c.readMu.Unlock()
		if c.writeMu.TryLock() {
			defer c.writeMu.Unlock()
			if c.theyLeft && c.bye { // both sides have said goodbye
				return plain(c.conn.Close())
			}
		}
	}
	go c.linger()
	return nil
}

// linger sends the Close frame, and waits for that of the other side.
func (c *wsConn) linger() {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	defer c.conn.Close()
	defer c.clock.AfterFunc(lingerTime, func() { c.conn.Close() }).Stop()
	if c.conn.SetDeadline(time.Time{}) != nil {
		return
	}
	// Both sides may be doing this with all buffers full, so who writes the frame
	// has to read on.
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		if c.broken == nil && !c.bye {
			c.byeLocked(c.status)
		}
		if half, ok := c.conn.(interface{ CloseWrite() error }); ok && c.broken != nil {
			half.CloseWrite() // the frame that was cut off ends what there is
		}
	})
	buf := frames.Get().(*[maxFrame]byte)
	defer frames.Put(buf)
	left := int64(lingerBytes)
	for left > 0 {
		n, err := c.readLocked(buf[:])
		if left -= int64(n); err != nil {
			break
		}
	}
	if left > 0 && !c.theyLeft { // its frames can't be told apart any more
		io.CopyN(io.Discard, c.in, left)
	}
}
