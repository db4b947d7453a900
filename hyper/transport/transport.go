// Package transport makes the connections that streams of hyper/secretstream
// run over: TCP, WebSocket, and pipes in memory. It encrypts nothing and does
// not know who the other side is; that is for the layers above. What goes over
// each is the same bytes.
//
//	l, err := transport.Listen(ctx, "ws://127.0.0.1:0/", transport.ListenOptions{})
//	conn, err := l.Accept(ctx) // the server of a secretstream
//
//	conn, err := transport.Dial(ctx, "ws://127.0.0.1:4000/", transport.DialOptions{})
//	stream, err := secretstream.Client(ctx, conn, secretstream.Options{KeyPair: keys})
//
// A [Handler] takes WebSockets inside of somebody else's HTTP server, and
// [Pipe] joins two ends in one process. Every form passes the tests of
// hyper/transport/transporttest, and an open connection that is idle holds no
// goroutine.
//
// # WebSocket
//
// WebSockets are there for browsers, and for networks that let nothing else
// through. They are those of github.com/coder/websocket, with binary messages
// whose borders mean nothing, and without compression. A client goes through
// the HTTP proxy of the environment, by CONNECT, as browsers do.
//
// A WebSocket ends in both directions at once: CloseWrite fails with
// [errors.ErrUnsupported], and when the other side has closed there is nobody
// to write to. Who wants an answer reads it before it closes.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A Conn is a pipe of bytes to one peer. One goroutine may read while another
// writes, and any may call the other methods.
type Conn interface {
	// Read returns what has come, at least a byte. After everything that the
	// other side wrote before it ended in order it returns [io.EOF]; writing may
	// go on then, but not over WebSocket. An end in the middle is
	// [io.ErrUnexpectedEOF] over WebSocket, and whatever the system says over TCP.
	//
	// Write returns once all of p is on its way. It waits while the other side
	// doesn't read. It does not keep p.
	//
	// Close ends both directions and returns at once. Calls of Read and Write
	// under way return with [net.ErrClosed], as later ones do. What was written
	// before still arrives if the other side goes on reading: the connection
	// lingers for that, for up to five seconds. Closing again does nothing.
	io.ReadWriteCloser
	// CloseWrite tells the other side that there will be no more, after what was
	// written. Reading goes on. Over WebSocket it fails with
	// [errors.ErrUnsupported], and changes nothing.
	CloseWrite() error
	// Remote is the address of the other side, to be shown to people: the one
	// that was dialed, or where the connection came from.
	Remote() string
}

// DialOptions say how to connect. The zero value is right.
type DialOptions struct {
	// Proxy tells which proxy to use for a WebSocket, such as
	// [http.ProxyURL](u); a nil URL is for none. If the function is nil, the
	// environment says ([http.ProxyFromEnvironment]). TCP goes through none.
	Proxy func(*http.Request) (*url.URL, error)
	// TLS is for wss and for proxies with https; nil is the usual. It is not
	// changed.
	TLS *tls.Config
	// Header goes along with the request for a WebSocket. It is not changed.
	Header http.Header
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
}

const (
	// handshakeTimeout is for dialing without a deadline, and for the requests of
	// clients that have connected.
	handshakeTimeout = 30 * time.Second

	// A connection that was closed lingers for lingerTime at most, and takes that
	// many bytes meanwhile: as much as may be on its way from a peer that has not
	// seen the end yet.
	lingerTime  = 5 * time.Second
	lingerBytes = 32 << 20
)

// keepAlive finds out within some 90 seconds that the other machine is gone.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6}

// past is a deadline that makes what waits return.
var past, noDeadline = time.Unix(1, 0), time.Time{}

// Dial connects to tcp://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH.
// The end of ctx ends the attempt; later it changes nothing. Without a deadline
// in ctx, the attempt ends after 30 seconds.
func Dial(ctx context.Context, addr string, o DialOptions) (Conn, error) {
	u, err := parse(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %w", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, handshakeTimeout, fmt.Errorf("no answer within %v", handshakeTimeout))
		defer cancel()
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	var conn Conn
	if u.Scheme == "tcp" {
		conn, err = dialTCP(ctx, u, o)
	} else {
		conn, err = dialWebSocket(ctx, u, o)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("dial %s: %w", u.Redacted(), plain(err))
	}
	return conn, nil
}

// parse takes an address apart. Its errors begin with the address.
func parse(addr string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok {
		return nil, fmt.Errorf("%q: no scheme: write it as tcp://HOST:PORT, ws://HOST:PORT/ or wss://HOST:PORT/", addr)
	}
	scheme = strings.ToLower(scheme)
	if scheme != "tcp" && scheme != "ws" && scheme != "wss" {
		return nil, fmt.Errorf("%q: unknown scheme %q: there are tcp, ws and wss", addr, scheme)
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		var inner *url.Error // it repeats the address, with passwords
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, fmt.Errorf("%s address: %w", scheme, err)
	}
	// Package url takes zones that it can't write, such as those with odd bytes.
	if again, err := url.Parse(u.String()); err != nil || again.Host != u.Host {
		return nil, fmt.Errorf("%s address: there is no host %q", scheme, u.Hostname())
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n > 65535 {
			return nil, fmt.Errorf("%s: no port %s: they end at 65535", u.Redacted(), port)
		}
	}
	if scheme != "tcp" {
		if u.Fragment != "" || u.RawFragment != "" {
			return nil, fmt.Errorf("%s: a WebSocket address has no fragment", u.Redacted())
		}
		if u.Path == "" {
			u.Path = "/"
		}
		return u, nil
	}
	if u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, fmt.Errorf("%s: a tcp address is tcp://HOST:PORT and nothing else", u.Redacted())
	}
	if u.Port() == "" {
		return nil, fmt.Errorf("%s: no port: write it as tcp://HOST:PORT", u.Redacted())
	}
	return &url.URL{Scheme: scheme, Host: u.Host}, nil
}

// hostPort is where to connect to.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "http": "80", "wss": "443", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// plain takes off what the address before an error says already: network,
// addresses and system call.
func plain(err error) error {
	if op, ok := err.(*net.OpError); ok {
		err = op.Err
	}
	if call, ok := err.(*os.SyscallError); ok {
		err = call.Err
	}
	return err
}
