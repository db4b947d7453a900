package transport

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

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

// accept makes a WebSocket of a request (RFC 6455 §4.2), or answers that it
// can't. Hijacked tells that the connection is the server's no more.
func (e *Endpoint) accept(w http.ResponseWriter, r *http.Request) (c Conn, hijacked bool) {
	key, status, err := e.check(r)
	if err != nil {
		if status == http.StatusUpgradeRequired {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Sec-WebSocket-Version", "13")
		}
		http.Error(w, err.Error(), status)
		return nil, false
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this server can't hand over a connection", http.StatusNotImplemented)
		return nil, false
	}
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", acceptKey(key)); err != nil {
		conn.Close()
		return nil, true
	}
	scheme := "ws://"
	if r.TLS != nil {
		scheme = "wss://"
	}
	clk := e.Clock
	if clk == nil {
		clk = clock.System
	}
	// Frames that the client sent along are in the buffer.
	return newWebSocket(conn, bufio.NewReaderSize(buffered.Reader, 4<<10), false, scheme+r.RemoteAddr, clk), true
}

// check returns the key of a request for a WebSocket, or what is wrong with it.
func (e *Endpoint) check(r *http.Request) (key string, status int, err error) {
	switch {
	case !hasToken(r.Header, "Upgrade", "websocket") || !hasToken(r.Header, "Connection", "upgrade"):
		return "", http.StatusUpgradeRequired, errors.New("only WebSockets are spoken here")
	case r.Method != http.MethodGet || r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1):
		return "", http.StatusBadRequest, fmt.Errorf("a WebSocket begins with GET of HTTP/1.1, not with %s of %s", r.Method, r.Proto)
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return "", http.StatusUpgradeRequired, errors.New("only version 13 of WebSocket is spoken here")
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if len(keys) != 1 {
		return "", http.StatusBadRequest, errors.New("a WebSocket needs one Sec-WebSocket-Key")
	}
	key = strings.TrimSpace(keys[0])
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 16 {
		return "", http.StatusBadRequest, errors.New("a Sec-WebSocket-Key is 16 bytes in base64")
	}
	for _, origin := range r.Header.Values("Origin") {
		if !e.allows(origin, r.Host) {
			return "", http.StatusForbidden, fmt.Errorf("pages of %q may not connect here", origin)
		}
	}
	return key, 0, nil
}

func (e *Endpoint) allows(origin, host string) bool {
	if slices.ContainsFunc(e.AllowOrigins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) }) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}
