package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// maxAnswer is the most bytes of what a proxy or a server answers, before the
// WebSocket begins.
const maxAnswer = 64 << 10

// dialWebSocket connects, through a proxy if there is one for it.
func dialWebSocket(ctx context.Context, u *url.URL, o DialOptions) (Conn, error) {
	plainURL := *u
	plainURL.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	proxy, err := o.Proxy(&http.Request{Method: http.MethodGet, URL: &plainURL, Host: u.Host, Header: o.Header.Clone()})
	if err != nil {
		return nil, fmt.Errorf("find the proxy: %w", err)
	}
	up := &upgrader{clock: o.Clock}
	var s *socket // up is not to be kept for as long as the connection
	up.http = &http.Transport{
		// Of itself it asks a proxy for a tunnel only if that is for https.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialThrough(ctx, proxy, hostPort(u), o)
			up.raw = conn
			return conn, err
		},
		TLSClientConfig:        configFor(u, o.TLS),
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswer,
	}
	ws, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient:     &http.Client{Transport: up, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader:     o.Header,
		OnPingReceived: func(ctx context.Context, p []byte) bool { return s.pong(ctx, p) },
	})
	if err == nil {
		s = up.socket
		return newWebSocket(ws, s, u.Redacted()), nil
	}
	var inner *url.Error // it repeats the address
	switch {
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, refusal(resp)
	case resp != nil:
		return nil, errors.New("the server's answer is not that of a WebSocket")
	case errors.As(err, &inner):
		err = inner.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.New("the connection was closed instead of an answer")
	}
	return nil, printable(plain(err))
}

// An upgrader puts a socket between the library and a connection.
type upgrader struct {
	http   *http.Transport
	clock  clock.Clock
	raw    net.Conn
	socket *socket
}

// RoundTrip implements [http.RoundTripper].
func (u *upgrader) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := u.http.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if conn, ok := resp.Body.(io.ReadWriteCloser); ok {
		u.socket = newSocket(conn, u.raw, u.clock)
		resp.Body = u.socket
	}
	return resp, nil
}

// dialThrough connects to a host, through a proxy if that is not nil.
func dialThrough(ctx context.Context, proxy *url.URL, host string, o DialOptions) (net.Conn, error) {
	dialer := &net.Dialer{KeepAliveConfig: keepAlive}
	if proxy == nil {
		return dialer.DialContext(ctx, "tcp", host)
	}
	if proxy.Scheme != "http" && proxy.Scheme != "https" {
		return nil, fmt.Errorf("proxy %s: unknown scheme %q: there are http and https", proxy.Redacted(), proxy.Scheme)
	}
	conn, err := dialer.DialContext(ctx, "tcp", hostPort(proxy))
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), plain(err))
	}
	tunnel, err := connect(ctx, conn, proxy, host, o.TLS)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), plain(err))
	}
	return tunnel, nil
}

// connect asks a proxy for a connection to host (RFC 9110 §9.3.6).
func connect(ctx context.Context, raw net.Conn, proxy *url.URL, host string, config *tls.Config) (_ net.Conn, err error) {
	conn := raw
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(past) })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
	}()
	if proxy.Scheme == "https" {
		if conn, err = startTLS(ctx, conn, proxy, config); err != nil {
			return nil, err
		}
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: host}, Host: host, Header: http.Header{}}
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+password)))
	}
	in, resp, err := ask(conn, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, refusal(resp)
	}
	if in.Buffered() > 0 {
		return nil, errors.New("it sends something before it was asked to")
	}
	return conn, nil
}

// startTLS shakes hands with the host of u.
func startTLS(ctx context.Context, conn net.Conn, u *url.URL, config *tls.Config) (net.Conn, error) {
	secure := tls.Client(conn, configFor(u, config))
	return secure, secure.HandshakeContext(ctx)
}

// configFor completes what a caller wants of TLS.
func configFor(u *url.URL, config *tls.Config) *tls.Config {
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	config.NextProtos = []string{"http/1.1"}
	return config
}

// ask sends a request and reads the head of the answer.
func ask(conn net.Conn, req *http.Request) (*bufio.Reader, *http.Response, error) {
	if err := req.Write(conn); err != nil {
		return nil, nil, fmt.Errorf("send the request: %w", plain(err))
	}
	limited := &limitedReader{conn, maxAnswer}
	in := bufio.NewReader(limited)
	resp, err := http.ReadResponse(in, req)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, nil, errors.New("the connection was closed instead of an answer")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", printable(plain(err)))
	}
	if resp.StatusCode/100 == 2 {
		limited.n = -1 // what follows is something else
	}
	return in, resp, nil
}

// A limitedReader reads n bytes and no more, or any number if n is negative.
type limitedReader struct {
	r io.Reader
	n int
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.n < 0 {
		return l.r.Read(p)
	}
	if l.n == 0 {
		return 0, fmt.Errorf("it is over %d bytes", maxAnswer)
	}
	n, err := l.r.Read(p[:min(len(p), l.n)])
	l.n -= n
	return n, err
}

// refusal says what a server answered, with what it says about it.
func refusal(resp *http.Response) error {
	text := printable(errors.New("it answered " + resp.Status)).Error()
	if to := resp.Header.Get("Location"); to != "" {
		return fmt.Errorf("%s, and to go to %q", text, to)
	}
	if kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); kind == "text/plain" {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		if line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n"); line != "" {
			return fmt.Errorf("%s: %q", text, line)
		}
	}
	return errors.New(text)
}

// printable keeps what a server sent in an error off the terminal, if it isn't
// text.
func printable(err error) error {
	unfit := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if !strings.ContainsFunc(err.Error(), unfit) {
		return err
	}
	return errors.New(strings.Map(func(r rune) rune {
		if unfit(r) {
			return '?'
		}
		return r
	}, err.Error()))
}
