package transport

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// An Endpoint takes WebSockets inside of an HTTP server. It answers what is
// not a WebSocket with an error.
type Endpoint struct {
	// Serve gets each connection in a goroutine of its own. It owns the
	// connection and has to close it, which may be after it returns. It is needed.
	Serve func(Conn)
	// AllowOrigins are the web pages that may connect besides those of the same
	// host, such as "https://app.example", or "*" for all. What is not a browser
	// has no origin and may always connect.
	AllowOrigins []string
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
}

var _ http.Handler = (*Endpoint)(nil)

// Handler returns an [Endpoint] that hands connections to serve, and lets in
// web pages of the same host alone.
func Handler(serve func(Conn)) http.Handler { return &Endpoint{Serve: serve} }

// ServeHTTP implements [http.Handler].
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if conn, _ := e.accept(w, r); conn != nil {
		e.Serve(conn)
	}
}

// accept makes a WebSocket of a request, or answers that it can't. Hijacked
// tells that the connection is the server's no more.
func (e *Endpoint) accept(w http.ResponseWriter, r *http.Request) (c Conn, hijacked bool) {
	if !canHijack(w) {
		http.Error(w, "this server can't hand over a connection", http.StatusNotImplemented)
		return nil, false
	}
	h := &hijacker{ResponseWriter: w, clock: e.Clock}
	var s *socket // h is not to be kept for as long as the connection
	o := &websocket.AcceptOptions{
		InsecureSkipVerify: slices.Contains(e.AllowOrigins, "*"),
		OnPingReceived:     func(ctx context.Context, p []byte) bool { return s.pong(ctx, p) },
	}
	for _, origin := range e.AllowOrigins {
		o.OriginPatterns = append(o.OriginPatterns, literal.Replace(origin))
	}
	ws, err := websocket.Accept(h, r, o)
	if err != nil {
		return nil, h.socket != nil
	}
	s = h.socket
	scheme := "ws://"
	if r.TLS != nil {
		scheme = "wss://"
	}
	return newWebSocket(ws, s, scheme+r.RemoteAddr), true
}

// literal makes a pattern of the library that matches nothing else.
var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// canHijack tells whether a [http.ResponseController] could hijack, without
// doing it.
func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// A hijacker puts a socket between the library and a connection.
type hijacker struct {
	http.ResponseWriter
	clock  clock.Clock
	socket *socket
}

var _ http.Hijacker = (*hijacker)(nil)

// Hijack implements [http.Hijacker].
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.socket = newSocket(conn, conn, h.clock)
	return hijacked{conn, h.socket}, bufio.NewReadWriter(buffered.Reader, bufio.NewWriter(h.socket)), nil
}

// hijacked is a connection that reads, writes and closes as its socket does.
type hijacked struct {
	net.Conn
	s *socket
}

func (h hijacked) Read(p []byte) (int, error)  { return h.s.Read(p) }
func (h hijacked) Write(p []byte) (int, error) { return h.s.Write(p) }
func (h hijacked) Close() error                { return h.s.Close() }
