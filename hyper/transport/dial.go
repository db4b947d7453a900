package transport

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxAnswer is the most bytes of what a proxy or a server answers, before the
// WebSocket begins.
const maxAnswer = 64 << 10

// dialWebSocket connects as RFC 6455 §4.1 says.
func dialWebSocket(ctx context.Context, u *url.URL, o DialOptions) (_ Conn, err error) {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{}, Host: u.Host, Header: o.Header.Clone()}
	*req.URL = *u
	req.URL.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	proxy, err := o.Proxy(req)
	if err != nil {
		return nil, fmt.Errorf("find the proxy: %w", err)
	}
	tunnel, err := dialThrough(ctx, proxy, hostPort(u), o)
	if err != nil {
		return nil, err
	}
	conn := tunnel
	stop := context.AfterFunc(ctx, func() { tunnel.SetDeadline(past) })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			conn.Close() // the error that matters is the first
		}
	}()
	if u.Scheme == "wss" {
		if conn, err = startTLS(ctx, conn, u, o.TLS); err != nil {
			return nil, err
		}
	}
	in, err := upgrade(conn, req)
	if err != nil {
		return nil, err
	}
	return newWebSocket(conn, in, true, u.Redacted(), o.Clock), nil
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
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	config.NextProtos = []string{"http/1.1"}
	secure := tls.Client(conn, config)
	return secure, secure.HandshakeContext(ctx)
}

// upgrade makes a WebSocket of a connection to an HTTP server. What has come
// after the answer is in the reader.
func upgrade(conn net.Conn, req *http.Request) (*bufio.Reader, error) {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if user := req.URL.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", key)
	in, resp, err := ask(conn, req)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, refusal(resp)
	case !hasToken(resp.Header, "Upgrade", "websocket") || !hasToken(resp.Header, "Connection", "upgrade"),
		resp.Header.Get("Sec-WebSocket-Accept") != acceptKey(key):
		return nil, errors.New("the server's answer is not that of a WebSocket")
	case resp.Header.Get("Sec-WebSocket-Extensions") != "" || resp.Header.Get("Sec-WebSocket-Protocol") != "":
		return nil, errors.New("the server wants an extension or a protocol that was not offered")
	}
	return in, nil
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
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode/100 == 2 && req.Method == http.MethodConnect {
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

// acceptKey is what proves that a server understood a key (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hasToken tells whether a header's list has a word.
func hasToken(h http.Header, name, token string) bool {
	return slices.ContainsFunc(h.Values(name), func(value string) bool {
		return slices.ContainsFunc(strings.Split(value, ","), func(word string) bool {
			return strings.EqualFold(strings.TrimSpace(word), token)
		})
	})
}
