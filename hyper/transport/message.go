package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/coder/websocket"
)

// A MessageConn is a connection whose messages have borders that mean
// something to who speaks over it, such as programs in browsers. WebSockets of
// this package are such.
type MessageConn interface {
	Conn
	// ReadMessage appends the next message to buf and returns it. What Read has
	// left of a message counts as one. A message of more than max bytes is an
	// error. The end is that of Read.
	ReadMessage(buf []byte, max int) ([]byte, error)
	// WriteMessage sends p as one message, as Write does.
	WriteMessage(p []byte) error
}

var _ MessageConn = (*wsConn)(nil)

func (c *wsConn) ReadMessage(buf []byte, max int) ([]byte, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	start := len(buf)
	for begun := c.message != nil; !c.closed.Load() && c.finished == nil; begun = true {
		if begun && c.message == nil {
			return buf, nil
		}
		if len(buf)-start > max {
			c.status = websocket.StatusMessageTooBig
			c.finished = fmt.Errorf("WebSocket: a message has over %d bytes", max)
			break
		}
		buf = slices.Grow(buf, 1) // doubles: memory is for what has come
		n, err := c.readLocked(buf[len(buf):min(cap(buf), start+max+1)])
		if err != nil && !c.closed.Load() {
			c.finished = c.reasonLocked(err)
		}
		buf = buf[:len(buf)+n]
	}
	if c.closed.Load() {
		return buf[:start], net.ErrClosed
	}
	return buf[:start], c.finished
}

func (c *wsConn) WriteMessage(p []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	err := c.writeMessageLocked(p)
	switch {
	case err == nil:
		return nil
	case c.closed.Load():
		return net.ErrClosed
	case errors.Is(err, net.ErrClosed): // by the other side
		return io.ErrClosedPipe
	}
	return err
}

// writeMessageLocked sends what is large in parts, so that a slow peer keeps
// the writer waiting.
func (c *wsConn) writeMessageLocked(p []byte) error {
	if err := c.socket.waitForRoom(&c.closed); err != nil {
		return err
	}
	if len(p) <= maxMessage {
		return c.ws.Write(context.Background(), websocket.MessageBinary, p)
	}
	w, err := c.ws.Writer(context.Background(), websocket.MessageBinary)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(p, maxMessage) {
		if err := c.socket.waitForRoom(&c.closed); err != nil {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return w.Close()
}
