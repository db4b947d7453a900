package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// maxPending is how many connections may be between connecting and being
// accepted. More wait in the system's queue.
const maxPending = 256

// ListenOptions say how to listen. The zero value is right for tcp and ws.
type ListenOptions struct {
	// TLS has the certificate of a wss address, which needs one. It is not
	// changed.
	TLS *tls.Config
	// AllowOrigins are those of [Endpoint].
	AllowOrigins []string
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
}

// A Listener takes connections. Its methods may be called by any goroutine.
type Listener struct {
	addr   string
	clock  clock.Clock
	conns  chan Conn
	closed chan struct{}
	slots  chan struct{} // one for each connection that is pending
	stop   func() error
	server sync.WaitGroup

	mu        sync.Mutex     // guards what follows
	err       error          // why it is closed
	upgrading sync.WaitGroup // requests that become WebSockets; more only while it is open
}

// Listen takes connections at tcp://HOST:PORT, ws://HOST:PORT/PATH or
// wss://HOST:PORT/PATH, until the listener is closed. Port 0 is any that is
// free, and an empty host is every address of the machine. The end of ctx ends
// the attempt to listen, and later changes nothing.
func Listen(ctx context.Context, addr string, o ListenOptions) (*Listener, error) {
	u, err := parse(addr)
	if err != nil {
		return nil, fmt.Errorf("listen %w", err)
	}
	if u.Scheme == "wss" && o.TLS == nil {
		return nil, fmt.Errorf("listen %s: wss needs a certificate, in ListenOptions.TLS", u.Redacted())
	}
	if u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("listen %s: an address to listen at has no query and no user", u.Redacted())
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	inner, err := config.Listen(ctx, "tcp", hostPort(u))
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", u, plain(err))
	}
	u.Host = inner.Addr().String()
	l := &Listener{
		addr:   u.String(),
		clock:  o.Clock,
		conns:  make(chan Conn),
		closed: make(chan struct{}),
		slots:  make(chan struct{}, maxPending),
	}
	if u.Scheme == "tcp" {
		l.stop = inner.Close
		l.server.Go(func() { l.serveTCP(inner) })
	} else {
		l.serveHTTP(inner, u, o)
	}
	return l, nil
}

// Addr is the address that [Dial] takes.
func (l *Listener) Addr() string { return l.addr }

// Accept waits for the next connection. The end of ctx ends the waiting only.
// After Close it returns [net.ErrClosed].
func (l *Listener) Accept(ctx context.Context) (Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-l.closed:
		l.mu.Lock()
		defer l.mu.Unlock()
		return nil, fmt.Errorf("accept at %s: %w", l.addr, l.err)
	}
}

// Close ends the listening, and drops connections that were not accepted:
// WebSockets with a Close frame, while others may see a reset. Those that were
// accepted stay. Closing again does nothing.
func (l *Listener) Close() error {
	err := l.end(net.ErrClosed)
	l.server.Wait()
	return err
}

// end closes the listener for a reason, if it is open.
func (l *Listener) end(why error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil
	}
	l.err = plain(why)
	close(l.closed)
	// A client knows that it has a WebSocket a moment before the HTTP server
	// lets go of the connection, which would be cut in between.
	l.upgrading.Wait()
	return plain(l.stop())
}

// upgrade makes a WebSocket of a request, as [Endpoint.accept] does, if the
// listener is open.
func (l *Listener) upgrade(e *Endpoint, w http.ResponseWriter, r *http.Request) (c Conn, hijacked bool) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		http.Error(w, "nobody listens here any more", http.StatusServiceUnavailable)
		return nil, false
	}
	l.upgrading.Add(1)
	l.mu.Unlock()
	defer l.upgrading.Done()
	return e.accept(w, r)
}

// hand gives a connection to who accepts.
func (l *Listener) hand(conn Conn) {
	select {
	case l.conns <- conn:
	case <-l.closed:
		conn.Close()
	}
}

func (l *Listener) serveTCP(inner net.Listener) {
	for {
		conn, err := l.next(inner)
		if err != nil {
			l.end(err)
			return
		}
		l.hand(&tcpConn{conn: conn.(*net.TCPConn), remote: "tcp://" + conn.RemoteAddr().String(), clock: l.clock})
	}
}

// next accepts a connection. When the system has none to give for now, for
// want of memory or file handles, it tries again after a while.
func (l *Listener) next(inner net.Listener) (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		conn, err := inner.Accept()
		var passing interface{ Temporary() bool }
		if err == nil || !errors.As(err, &passing) || !passing.Temporary() {
			return conn, err
		}
		again := make(chan struct{})
		timer := l.clock.AfterFunc(wait, func() { close(again) })
		select {
		case <-again:
		case <-l.closed:
			timer.Stop()
			return nil, net.ErrClosed
		}
	}
}

func (l *Listener) serveHTTP(inner net.Listener, u *url.URL, o ListenOptions) {
	endpoint := &Endpoint{AllowOrigins: o.AllowOrigins, Clock: l.clock}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != u.Path {
				http.Error(w, "there is nothing at this path", http.StatusNotFound)
				return
			}
			conn, hijacked := l.upgrade(endpoint, w, r)
			if conn != nil {
				l.hand(conn)
			}
			if hijacked {
				<-l.slots
			}
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				<-l.slots
			}
		},
		ReadTimeout:    handshakeTimeout,
		MaxHeaderBytes: maxAnswer,
		ErrorLog:       log.New(io.Discard, "", 0),
		Protocols:      new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	server.SetKeepAlivesEnabled(false)
	l.stop = server.Close
	l.server.Go(func() {
		pending := &pendingListener{Listener: inner, l: l}
		if u.Scheme == "wss" {
			server.TLSConfig = o.TLS.Clone()
			server.TLSConfig.NextProtos = []string{"http/1.1"}
			l.end(server.ServeTLS(pending, "", ""))
			return
		}
		l.end(server.Serve(pending))
	})
}

// A pendingListener takes a slot for each connection.
type pendingListener struct {
	net.Listener
	l *Listener
}

func (p *pendingListener) Accept() (net.Conn, error) {
	select {
	case p.l.slots <- struct{}{}:
	case <-p.l.closed:
		return nil, net.ErrClosed
	}
	conn, err := p.l.next(p.Listener)
	if err != nil {
		<-p.l.slots
	}
	return conn, err
}
