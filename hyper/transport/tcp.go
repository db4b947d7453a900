package transport

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A tcpConn is a connection over TCP. The system does not wait for more to send
// with what is written: net turns that off by itself.
type tcpConn struct {
	conn   *net.TCPConn
	remote string
	clock  clock.Clock
	closed atomic.Bool

	// readMu is held while reading, and guards eof. writeMu is held while
	// writing, and guards shut. Who takes both takes readMu first.
	readMu, writeMu sync.Mutex
	eof             bool // the other side has ended
	shut            bool // this side has
}

var _ Conn = (*tcpConn)(nil)

func dialTCP(ctx context.Context, u *url.URL, o DialOptions) (Conn, error) {
	conn, err := (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return nil, err
	}
	return &tcpConn{conn: conn.(*net.TCPConn), remote: u.String(), clock: o.Clock}, nil
}

func (c *tcpConn) Remote() string { return c.remote }

func (c *tcpConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.conn.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, c.because(err)
}

func (c *tcpConn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.closed.Load() || c.shut {
		return 0, net.ErrClosed
	}
	n, err := c.conn.Write(p)
	return n, c.because(err)
}

// because prefers the reason why a call ended to how it was ended.
func (c *tcpConn) because(err error) error {
	if err != nil && c.closed.Load() {
		return net.ErrClosed
	}
	return plain(err)
}

func (c *tcpConn) CloseWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	if c.shut {
		return nil
	}
	c.shut = true
	return c.because(c.conn.CloseWrite())
}

func (c *tcpConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.conn.SetDeadline(past) // what waits returns, and gives up its lock
	if c.readMu.TryLock() {
		defer c.readMu.Unlock()
		if c.eof { // nothing is on its way to us
			return plain(c.conn.Close())
		}
	}
	go c.linger()
	return nil
}

// linger waits for the end of what the other side sends. Systems that are told
// to close a connection with something to be read forget what they still have
// to send.
func (c *tcpConn) linger() {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	defer c.conn.Close()
	defer c.clock.AfterFunc(lingerTime, func() { c.conn.Close() }).Stop()
	if c.conn.CloseWrite() != nil || c.conn.SetDeadline(noDeadline) != nil {
		return
	}
	io.CopyN(io.Discard, c.conn, lingerBytes)
}
