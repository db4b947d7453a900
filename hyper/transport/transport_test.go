package transport_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/hyper/transport/transporttest"
)

func TestPipeConforms(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) { return transport.Pipe() })
}

func TestTCPConforms(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) {
		return dialed(t, listen(t, "tcp://127.0.0.1:0", transport.ListenOptions{}), transport.DialOptions{})
	})
}

func TestWebSocketConforms(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) {
		return dialed(t, listen(t, "ws://127.0.0.1:0/some/path", transport.ListenOptions{}), transport.DialOptions{})
	}, transporttest.NoHalfClose)
}

func TestWebSocketOverTLSConforms(t *testing.T) {
	server, client := certificates(t)
	transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) {
		return dialed(t, listen(t, "wss://127.0.0.1:0/", transport.ListenOptions{TLS: server}), transport.DialOptions{TLS: client})
	}, transporttest.NoHalfClose)
}

func TestWebSocketThroughProxiesConforms(t *testing.T) {
	server, client := certificates(t)
	for addr, secure := range map[string]bool{"ws://127.0.0.1:0/": false, "wss://127.0.0.1:0/": true} {
		p := newProxy(t, secure, server)
		scheme, _, _ := strings.Cut(addr, ":")
		t.Run(scheme+" through "+p.url.Scheme, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) {
				before := p.tunnels.Load()
				a, b = dialed(t, listen(t, addr, transport.ListenOptions{TLS: server}), transport.DialOptions{TLS: client, Proxy: http.ProxyURL(p.url)})
				if p.tunnels.Load() != before+1 {
					t.Error("the connection does not go through the proxy")
				}
				return a, b
			}, transporttest.NoHalfClose)
		})
	}
}

// The server is somebody else's, behind a proxy of theirs.
func TestWebSocketInAnotherServerConforms(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) {
		conns := make(chan transport.Conn, 1)
		mux := http.NewServeMux()
		mux.Handle("GET /deep/door", transport.Handler(func(c transport.Conn) { conns <- c }))
		inner := httptest.NewServer(mux)
		t.Cleanup(inner.Close)
		to, err := url.Parse(inner.URL)
		if err != nil {
			t.Fatal(err)
		}
		proxy := httputil.NewSingleHostReverseProxy(to)
		proxy.ErrorLog = log.New(io.Discard, "", 0) // it says when connections end
		outer := httptest.NewServer(proxy)
		t.Cleanup(outer.Close)
		return dial(t, "ws"+strings.TrimPrefix(outer.URL, "http")+"/deep/door", transport.DialOptions{}), <-conns
	}, transporttest.NoHalfClose)
}

func listen(t testing.TB, addr string, o transport.ListenOptions) *transport.Listener {
	t.Helper()
	l, err := transport.Listen(t.Context(), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func dial(t testing.TB, addr string, o transport.DialOptions) transport.Conn {
	t.Helper()
	c, err := transport.Dial(t.Context(), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dialed returns both ends of a connection to l.
func dialed(t testing.TB, l *transport.Listener, o transport.DialOptions) (a, b transport.Conn) {
	t.Helper()
	a = dial(t, l.Addr(), o)
	b, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// certificates returns what a server on 127.0.0.1 and its clients need.
func certificates(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test"},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Unix(1<<32, 0),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"peer.example"},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}, &tls.Config{RootCAs: roots}
}

// A proxy is an ordinary one: it connects and forwards bytes.
type proxy struct {
	url     *url.URL
	tunnels atomic.Int64
	asked   atomic.Pointer[http.Request] // the last request
	to      atomic.Pointer[string]       // where to connect to instead, if not nil
	refuse  atomic.Int64                 // the status to refuse with, if not 0
}

func newProxy(t testing.TB, secure bool, config *tls.Config) *proxy {
	p := &proxy{}
	server := httptest.NewUnstartedServer(p)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		server.TLS = config.Clone()
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	p.url = u
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked.Store(r)
	if status := p.refuse.Load(); status != 0 {
		http.Error(w, "ask your administrator", int(status))
		return
	}
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	to := r.Host
	if instead := p.to.Load(); instead != nil {
		to = *instead
	}
	out, err := new(net.Dialer).DialContext(r.Context(), "tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer out.Close()
	in, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	p.tunnels.Add(1)
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{}, 2)
	forward := func(to net.Conn, from io.Reader) {
		io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		done <- struct{}{}
	}
	go forward(out, buffered)
	go forward(in, out)
	<-done
	<-done
}

// rawServer answers every connection with what answer does, as no HTTP server
// would.
func rawServer(t *testing.T, answer func(net.Conn)) (hostPort string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
	return l.Addr().String()
}

// says returns an answer that reads a request, sends text and ends.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, text)
		}
	}
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	server, client := certificates(t)
	refusing := newProxy(t, false, nil)
	refusing.refuse.Store(http.StatusForbidden)
	dead := &url.URL{Scheme: "http", Host: closed.Addr().String()}
	ws := "ws://" + closed.Addr().String() + "/"
	tlsServer := strings.TrimPrefix(listen(t, "wss://127.0.0.1:0", transport.ListenOptions{TLS: server}).Addr(), "wss")
	for _, c := range []struct {
		addr, want string
		o          transport.DialOptions
	}{
		{addr: "127.0.0.1:80", want: `dial "127.0.0.1:80": no scheme: write it as tcp://HOST:PORT, ws://HOST:PORT/ or wss://HOST:PORT/`},
		{addr: "quic://x:1", want: `dial "quic://x:1": unknown scheme "quic": there are tcp, ws and wss`},
		{addr: "tcp://127.0.0.1", want: "dial tcp://127.0.0.1: no port: write it as tcp://HOST:PORT"},
		{addr: "tcp://127.0.0.1:1/x", want: "dial tcp://127.0.0.1:1/x: a tcp address is tcp://HOST:PORT and nothing else"},
		{addr: "tcp://a:b", want: `dial tcp address: invalid port ":b" after host`},
		{addr: "ws://u:secret@[::1", want: `dial ws address: missing ']' in host`},
		{addr: "ws://a:70000/", want: "dial ws://a:70000/: no port 70000: they end at 65535"},
		{addr: "ws://a/#b", want: "dial ws://a/#b: a WebSocket address has no fragment"},
		{addr: "tcp://" + closed.Addr().String(), want: "dial tcp://" + closed.Addr().String() + ": connection refused"},
		{addr: ws, want: "dial " + ws + ": connection refused"},
		{addr: ws, o: transport.DialOptions{Proxy: http.ProxyURL(dead)}, want: "dial " + ws + ": proxy " + dead.String() + ": connection refused"},
		{addr: ws, o: transport.DialOptions{Proxy: http.ProxyURL(refusing.url)}, want: "dial " + ws + ": proxy " + refusing.url.String() + `: it answered 403 Forbidden: "ask your administrator"`},
		{addr: ws, o: transport.DialOptions{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5", Host: "a:1"})}, want: "dial " + ws + `: proxy socks5://a:1: unknown scheme "socks5": there are http and https`},
		{addr: "wss" + tlsServer, want: "dial wss" + tlsServer + ": tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{addr: "ws" + tlsServer, o: transport.DialOptions{TLS: client}, want: "dial ws" + tlsServer + ": it answered 400 Bad Request"},
	} {
		conn, err := transport.Dial(t.Context(), c.addr, c.o)
		if conn != nil || err == nil || err.Error() != c.want {
			t.Errorf("dial %s:\n got %v\nwant %s", c.addr, err, c.want)
		}
	}
}

func TestDialSaysWhatTheServerAnswered(t *testing.T) {
	long := "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 100) + "\r\n"
	upgraded := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	for _, c := range []struct{ answer, want string }{
		{"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 12\r\n\r\nno such page", `it answered 404 Not Found: "no such page"`},
		{"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<!doctype", "it answered 200 OK"},
		{"HTTP/1.1 301 Moved Permanently\r\nLocation: https://example/\r\nContent-Length: 0\r\n\r\n", `it answered 301 Moved Permanently, and to go to "https://example/"`},
		{"SSH-2.0-OpenSSH_9\r\n", `net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-OpenSSH_9"`},
		{"", "the connection was closed instead of an answer"},
		{"HTTP/1.1 200 OK\r\nX: y", "the connection was closed instead of an answer"},
		{long, "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 65536 bytes; aborted"},
		{upgraded + "\r\n", "the server's answer is not that of a WebSocket"},
		{upgraded + "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", "the server's answer is not that of a WebSocket"},
	} {
		addr := "ws://" + rawServer(t, says(c.answer)) + "/"
		conn, err := transport.Dial(t.Context(), addr, transport.DialOptions{})
		if want := "dial " + addr + ": " + c.want; conn != nil || err == nil || err.Error() != want {
			t.Errorf("answer %.80q:\n got %v\nwant %s", c.answer, err, want)
		}
	}
}

func TestDialProvesWhoItIs(t *testing.T) {
	heads := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heads <- r.Header
		transport.Handler(func(c transport.Conn) { c.Close() }).ServeHTTP(w, r)
	}))
	defer server.Close()
	p := newProxy(t, false, nil)
	at := *p.url
	at.User = url.UserPassword("me", "proxy secret")
	header := http.Header{"X-Mine": {"yes"}, "Upgrade": {"nonsense"}}
	host := strings.TrimPrefix(server.URL, "http://")
	conn := dial(t, "ws://user:secret@"+host+"/", transport.DialOptions{Header: header, Proxy: http.ProxyURL(&at)})
	if got, want := conn.Remote(), "ws://user:xxxxx@"+host+"/"; got != want {
		t.Errorf("remote %s, want %s", got, want)
	}
	seen := <-heads
	for name, want := range map[string]string{"Authorization": "Basic dXNlcjpzZWNyZXQ=", "X-Mine": "yes", "Upgrade": "websocket"} {
		if got := seen.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got, want := p.asked.Load().Header.Get("Proxy-Authorization"), "Basic bWU6cHJveHkgc2VjcmV0"; got != want {
		t.Errorf("the proxy got %q, want %q", got, want)
	}
	if len(header) != 2 || header.Get("Upgrade") != "nonsense" {
		t.Errorf("the caller's header was changed: %v", header)
	}
	p.refuse.Store(http.StatusProxyAuthRequired)
	_, err := transport.Dial(t.Context(), "ws://user:secret@"+host+"/", transport.DialOptions{Proxy: http.ProxyURL(&at)})
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "407 Proxy Authentication Required") {
		t.Error(err)
	}
}

// What the environment says is read once, so another process has to look.
func TestDialUsesTheProxyOfTheEnvironment(t *testing.T) {
	const child = "TRANSPORT_TEST_DIAL"
	if addr := os.Getenv(child); addr != "" {
		_, config := certificates(t)
		conn, err := transport.Dial(t.Context(), addr, transport.DialOptions{TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
		return
	}
	server, _ := certificates(t)
	for scheme, variable := range map[string]string{"ws": "HTTP_PROXY", "wss": "HTTPS_PROXY"} {
		l := listen(t, scheme+"://127.0.0.1:0", transport.ListenOptions{TLS: server})
		p := newProxy(t, false, nil)
		to := strings.TrimSuffix(strings.TrimPrefix(l.Addr(), scheme+"://"), "/")
		p.to.Store(&to)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDialUsesTheProxyOfTheEnvironment$")
		cmd.Env = append(os.Environ(), child+"="+scheme+"://peer.example/", variable+"="+p.url.String(), "NO_PROXY=", "REQUEST_METHOD=")
		go func() {
			if conn, err := l.Accept(t.Context()); err == nil {
				conn.Close()
			}
		}()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", scheme, err, out)
		}
		if p.tunnels.Load() != 1 {
			t.Errorf("%s: %d connections went through the proxy", scheme, p.tunnels.Load())
		} else if want := map[string]string{"ws": "peer.example:80", "wss": "peer.example:443"}[scheme]; p.asked.Load().Host != want {
			t.Errorf("%s: the proxy was asked for %s, want %s", scheme, p.asked.Load().Host, want)
		}
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	reached := make(chan struct{}, 10)
	silent := rawServer(t, func(c net.Conn) {
		reached <- struct{}{}
		io.Copy(io.Discard, c)
	})
	u := &url.URL{Scheme: "http", Host: silent}
	for _, c := range []struct {
		addr string
		o    transport.DialOptions
	}{
		{addr: "ws://" + silent},
		{addr: "wss://" + silent},
		{addr: "ws://peer.example/", o: transport.DialOptions{Proxy: http.ProxyURL(u)}},
		{addr: "ws://peer.example/", o: transport.DialOptions{Proxy: http.ProxyURL(&url.URL{Scheme: "https", Host: silent})}},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		bored := errors.New("bored")
		go func() {
			<-reached
			cancel(bored)
		}()
		if _, err := transport.Dial(ctx, c.addr, c.o); !errors.Is(err, bored) {
			t.Errorf("dial %s: %v, want %v", c.addr, err, bored)
		}
	}
	// Later its end changes nothing.
	l := listen(t, "ws://127.0.0.1:0", transport.ListenOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	a, err := transport.Dial(ctx, l.Addr(), transport.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cancel()
	if _, err := a.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if n, err := b.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Error(n, err)
	}
}
