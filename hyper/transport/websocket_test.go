package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

// sample is the request of RFC 6455 §1.3, and its answer.
const (
	sampleRequest = "GET / HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n"
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// waitUntil waits for something that another goroutine is about to do.
func waitUntil(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !done() {
		if ctx.Err() != nil {
			t.Fatalf("%s: it never comes", what)
		}
		runtime.Gosched()
	}
}

// rawClient is a client that says what it likes.
type rawClient struct {
	net.Conn
	in *bufio.Reader
}

// withRaw returns a WebSocket at a listener, and its client, which sends more
// right behind its request.
func withRaw(t *testing.T, o ListenOptions, more []byte) (Conn, rawClient) {
	t.Helper()
	l, err := Listen(t.Context(), "ws://127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw := connectRaw(t, l)
	if _, err := raw.Write(append([]byte(sampleRequest+"\r\n"), more...)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(raw.in, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != sampleAccept || resp.Header.Get("Sec-WebSocket-Protocol") != "" {
		t.Fatal(resp, err)
	}
	conn, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, raw
}

func connectRaw(t *testing.T, l *Listener) rawClient {
	t.Helper()
	host, _, _ := strings.Cut(l.Addr()[strings.Index(l.Addr(), "://")+3:], "/")
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return rawClient{raw, bufio.NewReader(raw)}
}

// Opcodes of frames (RFC 6455 §11.8).
const (
	opBinary = 2
	opClose  = 8
	opPong   = 10
)

// frame is a frame as a client sends it, with the mask of RFC 6455 §5.7.
func frame(first byte, content string) []byte {
	b := []byte{first, 0x80}
	switch n := len(content); {
	case n < 126:
		b[1] |= byte(n)
	case n < 1<<16:
		b[1] |= 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] |= 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	mask := []byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, mask...)
	for i := range len(content) {
		b = append(b, content[i]^mask[i%4])
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// next reads a frame of the server.
func (c rawClient) next(t *testing.T) (op byte, content []byte) {
	t.Helper()
	b := make([]byte, 10)
	if _, err := io.ReadFull(c.in, b[:2]); err != nil {
		t.Fatal(err)
	}
	size := uint64(b[1])
	switch extra := map[byte]int{126: 2, 127: 8}[b[1]]; {
	case b[0]&0xf0 != 0x80 || b[1] > 127:
		t.Fatalf("a frame of the server begins with %x", b[:2])
	case extra > 0:
		if _, err := io.ReadFull(c.in, b[10-extra:]); err != nil {
			t.Fatal(err)
		}
		size = binary.BigEndian.Uint64(append(make([]byte, 8-extra), b[10-extra:]...))
	}
	content = make([]byte, size)
	if _, err := io.ReadFull(c.in, content); err != nil {
		t.Fatal(err)
	}
	return b[0] & 0xf, content
}

func TestWebSocketReadsWhatClientsMaySend(t *testing.T) {
	normal := frame(0x88, "\x03\xe8bye")
	for name, c := range map[string]struct {
		sent []byte
		want string
	}{
		"one message":            {join(frame(0x82, "hello"), normal), "hello"},
		"a message in parts":     {join(frame(0x02, "he"), frame(0x00, ""), frame(0x00, "l"), frame(0x80, "lo"), normal), "hello"},
		"a ping between parts":   {join(frame(0x02, "he"), frame(0x89, "x"), frame(0x8a, ""), frame(0x80, "llo"), normal), "hello"},
		"empty messages":         {join(frame(0x82, ""), frame(0x02, ""), frame(0x80, ""), frame(0x82, "hello"), normal), "hello"},
		"an end without status":  {join(frame(0x82, "hello"), frame(0x88, "")), "hello"},
		"a page that is left":    {join(frame(0x82, "hello"), frame(0x88, "\x03\xe9")), "hello"},
		"something after close":  {join(frame(0x82, "hello"), normal, frame(0x82, "more")), "hello"},
		"messages of many sizes": {join(frame(0x82, strings.Repeat("a", 125)), frame(0x82, strings.Repeat("b", 70_000)), normal), strings.Repeat("a", 125) + strings.Repeat("b", 70_000)},
	} {
		t.Run(name, func(t *testing.T) {
			conn, raw := withRaw(t, ListenOptions{}, c.sent)
			for range 2 {
				got, err := io.ReadAll(conn)
				if string(got) != c.want || err != nil {
					t.Errorf("read %.50q, %v, want %.50q", got, err, c.want)
				}
				c.want = "" // the end is read again
			}
			if n, err := conn.Write([]byte("too late")); n != 0 || err != io.ErrClosedPipe {
				t.Errorf("write after the end: %d, %v", n, err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			for op := byte(0); op != opClose; {
				if op, _ = raw.next(t); op != opPong && op != opClose {
					t.Errorf("the client got a frame of kind %d", op)
				}
			}
			if rest, err := io.ReadAll(raw.in); len(rest) > 0 || err != nil {
				t.Errorf("after the Close frame: %q, %v", rest, err)
			}
		})
	}
}

func TestWebSocketRefusesWhatIsNotOne(t *testing.T) {
	for name, c := range map[string]struct {
		sent   []byte
		want   string
		status int // that the client is told
	}{
		"no mask":                 {[]byte{0x82, 0}, "WebSocket: ", 1000},
		"text":                    {frame(0x81, "hello"), "a message is text, and only binary ones are spoken here", 1003},
		"compressed":              {frame(0xc2, "hello"), "WebSocket: ", 1002},
		"unknown data":            {frame(0x83, "hello"), "WebSocket: ", 1002},
		"a long ping":             {frame(0x89, strings.Repeat("x", 126)), "WebSocket: ", 1002},
		"a message in a message":  {join(frame(0x02, "x"), frame(0x82, "y")), "WebSocket: ", 1002},
		"a length over 63 bits":   {[]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "WebSocket: ", 1000},
		"half a status":           {frame(0x88, "\x03"), "WebSocket: ", 1002},
		"a failure":               {frame(0x88, "\x03\xf3on fire"), `the other side closed the WebSocket with status 1011 "on fire"`, 1011},
		"closed within a message": {join(frame(0x02, "x"), frame(0x88, "")), "the other side closed the WebSocket within a message: unexpected EOF", 0},
	} {
		t.Run(name, func(t *testing.T) {
			conn, raw := withRaw(t, ListenOptions{}, c.sent)
			_, err := io.ReadAll(conn)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, again := conn.Read(make([]byte, 1)); again == nil || again.Error() != err.Error() {
				t.Errorf("the next read fails with %v", again)
			}
			conn.Close()
			op, content := raw.next(t)
			status := 0
			if len(content) >= 2 {
				status = int(binary.BigEndian.Uint16(content))
			}
			if op != opClose || status != c.status {
				t.Errorf("the client is told %d %q, want status %d", op, content, c.status)
			}
		})
	}
}

func TestWebSocketTellsACutFromAnEnd(t *testing.T) {
	for name, sent := range map[string][]byte{
		"nothing":             nil,
		"a message":           frame(0x82, "hello"),
		"half a header":       {0x82},
		"half a length":       {0x82, 0xfe, 1},
		"half a message":      frame(0x82, "hello")[:9],
		"half a Close frame":  frame(0x88, "\x03\xe8")[:7],
		"a message in part 1": frame(0x02, "hello"),
	} {
		conn, raw := withRaw(t, ListenOptions{}, sent)
		raw.Conn.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadAll(conn); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "without a Close frame") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However long a peer makes a message or a frame, it is not kept.
func TestLargeMessagesStreamThrough(t *testing.T) {
	const total = 64 << 20
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	for name, send := range map[string]func(io.Writer){
		"in one frame": func(w io.Writer) {
			w.Write(append(binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<62), 0, 0, 0, 0))
			for range total / len(chunk) {
				w.Write(chunk)
			}
		},
		"in many frames": func(w io.Writer) {
			w.Write(frame(0x02, ""))
			some := frame(0x00, string(chunk))
			for range total / len(chunk) {
				w.Write(some)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, raw := withRaw(t, ListenOptions{}, nil)
			go send(raw)
			buf := make([]byte, 1<<20)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for n := 0; n < total; {
				m, err := conn.Read(buf)
				if n += m; err != nil || len(bytes.Trim(buf[:m], "x")) > 0 {
					t.Fatal("read other bytes than were sent", err)
				}
			}
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
				t.Errorf("reading %d bytes took %d bytes of memory", total, took)
			}
		})
	}
}

// A reader that is interrupted within a frame has lost its place. What was
// written before still arrives, and in order.
func TestCloseWithinAFrameLosesNothing(t *testing.T) {
	whole := frame(0x82, strings.Repeat("x", 100_000))
	conn, raw := withRaw(t, ListenOptions{}, whole[:50_000])
	read := make(chan error, 1)
	go func() {
		buf := make([]byte, 100_000)
		for {
			if _, err := conn.Read(buf); err != nil {
				read <- err
				return
			}
		}
	}()
	waitUntil(t, "the reader has begun", func() bool {
		c := conn.(*wsConn)
		if c.readMu.TryLock() {
			c.readMu.Unlock()
			return false
		}
		return true
	})
	sent := strings.Repeat("y", 3<<20)
	got := make(chan string, 1)
	go func() {
		var b strings.Builder
		for {
			op, content := raw.next(t)
			if op != opBinary {
				got <- fmt.Sprint(b.String(), op)
				return
			}
			b.Write(content)
		}
	}()
	if _, err := io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	raw.Write(whole[50_000:])
	if all := <-got; all != sent+"8" {
		t.Errorf("the client got %d bytes, and at the end %q", len(all), all[max(0, len(all)-5):])
	}
	raw.Write(frame(0x88, "\x03\xe8"))
	raw.Conn.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(raw.in); len(rest) > 0 || err != nil {
		t.Errorf("after the Close frame: %q, %v", rest, err)
	}
}

func TestPingsAreAnsweredAndDoNotHoldUpTheReader(t *testing.T) {
	conn, raw := withRaw(t, ListenOptions{}, frame(0x89, "one"))
	read := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(conn, make([]byte, 4))
		read <- err
	}()
	if op, content := raw.next(t); op != opPong || string(content) != "one" {
		t.Fatalf("got %d %q", op, content)
	}
	raw.Write(frame(0x82, "x"))
	// The client doesn't read now, so that a writer waits.
	const total = 64 << 20
	wrote := make(chan error, 1)
	go func() {
		chunk := make([]byte, 1<<20)
		for range total / len(chunk) {
			if _, err := conn.Write(chunk); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	s := conn.(*wsConn).socket
	waitUntil(t, "the writer waits", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.out != nil && len(*s.out) >= outSize
	})
	const pings = 5000
	for i := range pings {
		raw.Write(frame(0x89, fmt.Sprint("ping ", i, strings.Repeat(" ", 100))))
	}
	raw.Write(frame(0x82, "yz!"))
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	if s.out != nil && len(*s.out) > cap(*outs.New().(*[]byte)) {
		t.Errorf("%d bytes wait to be sent", len(*s.out))
	}
	s.mu.Unlock()
	got, pongs := 0, 0
	for got < total {
		op, content := raw.next(t)
		if op == opPong {
			pongs++
			continue
		}
		got += len(content)
	}
	if pongs == 0 || pongs > pings {
		t.Errorf("%d pings were answered by %d pongs", pings, pongs)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// What a server sends right behind its answer is not lost.
func TestFramesBehindTheAnswerAreRead(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		accept := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 OK\r\nupgrade: WebSocket\r\nconnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x82\x05hello\x88\x02\x03\xe8",
			base64.StdEncoding.EncodeToString(accept[:]))
		io.Copy(io.Discard, c)
		c.Close()
	}()
	conn, err := Dial(t.Context(), "ws://"+l.Addr().String(), DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestOnlyAllowedPagesMayConnect(t *testing.T) {
	for _, c := range []struct {
		allow  []string
		origin string
		want   int
	}{
		{nil, "", 101},
		{nil, "https://server.example.com", 101},
		{nil, "http://SERVER.example.com", 101},
		{nil, "https://server.example.com:8443", 403},
		{nil, "https://evil.example", 403},
		{nil, "null", 403},
		{nil, "https://evil.example/server.example.com", 403},
		{[]string{"https://app.example"}, "https://app.example", 101},
		{[]string{"https://app.example"}, "http://app.example", 403},
		{[]string{"https://app.example"}, "https://app.example.evil", 403},
		{[]string{"https://*.example"}, "https://app.example", 403},
		{[]string{"https://[::1]:8080"}, "https://[::1]:8080", 101},
		{[]string{"*"}, "null", 101},
	} {
		l, err := Listen(t.Context(), "ws://127.0.0.1:0/", ListenOptions{AllowOrigins: c.allow})
		if err != nil {
			t.Fatal(err)
		}
		raw := connectRaw(t, l)
		header := ""
		if c.origin != "" {
			header = "Origin: " + c.origin + "\r\n"
		}
		io.WriteString(raw, sampleRequest+header+"\r\n")
		resp, err := http.ReadResponse(raw.in, nil)
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("allow %q, origin %q: %v, %v, want %d", c.allow, c.origin, resp, err, c.want)
		}
		l.Close()
	}
}

func TestOtherRequestsAreAnswered(t *testing.T) {
	l, err := Listen(t.Context(), "ws://127.0.0.1:0/door", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	request := strings.Replace(sampleRequest, " / ", " /door ", 1) + "\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"a page":        {"GET /door HTTP/1.1\r\nHost: a\r\n\r\n", 426},
		"another path":  {sampleRequest + "\r\n", 404},
		"a post":        {strings.Replace(request, "GET", "POST", 1), 405},
		"old HTTP":      {strings.Replace(request, "HTTP/1.1", "HTTP/1.0", 1), 426},
		"old WebSocket": {strings.Replace(request, "Version: 13", "Version: 8", 1), 400},
		"no key":        {strings.Replace(request, "Sec-WebSocket-Key", "X", 1), 400},
		"not HTTP":      {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400},
		"too much":      {"GET /door HTTP/1.1\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", 431},
	} {
		raw := connectRaw(t, l)
		io.WriteString(raw, c.request)
		resp, err := http.ReadResponse(raw.in, nil)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s: %v, %v, want %d", name, resp, err, c.status)
		}
		raw.Close()
	}
	waitUntil(t, "all places are free but the one for whoever comes next", func() bool { return len(l.slots) <= 1 })
}

func TestServersThatCannotHandOverSaySo(t *testing.T) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sampleRequest + "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	Handler(func(Conn) { t.Error("served") }).ServeHTTP(w, r)
	if w.Code != http.StatusNotImplemented {
		t.Errorf("status %d", w.Code)
	}
}

// answering is a proxy that has one answer to everything.
type answering struct {
	net.Conn
	answer io.Reader
}

func (a answering) Read(p []byte) (int, error)  { return a.answer.Read(p) }
func (a answering) Write(p []byte) (int, error) { return len(p), nil }
func (a answering) SetDeadline(time.Time) error { return nil }

func FuzzProxyAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\ntoo early"))
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nno\nreally"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: \x1b[2J\r\nTransfer-Encoding: chunked\r\n\r\n"))
	proxy := &url.URL{Scheme: "http", Host: "proxy.example"}
	f.Fuzz(func(t *testing.T, answer []byte) {
		conn, err := connect(t.Context(), answering{answer: bytes.NewReader(answer)}, proxy, "a:1", nil)
		unfit := func(r rune) bool { return !unicode.IsPrint(r) }
		if (conn == nil) == (err == nil) || err != nil && strings.ContainsFunc(err.Error(), unfit) {
			t.Errorf("%v, error %q", conn, err)
		}
		version, status, _ := bytes.Cut(answer, []byte(" "))
		if ok := bytes.HasPrefix(version, []byte("HTTP/")) && bytes.HasPrefix(bytes.TrimLeft(status, " "), []byte("2")); err == nil && !ok {
			t.Errorf("%q is taken for a tunnel", answer)
		}
	})
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"tcp://127.0.0.1:1", "ws://a/b?c=d", "wss://u:p@[::1]:443/", "WS://x", "tcp://[fe80::1%25eth0]:1", "://", "ws://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		u, err := parse(addr)
		if err != nil {
			return
		}
		again, err := parse(u.String())
		if err != nil || again.String() != u.String() || hostPort(again) != hostPort(u) {
			t.Errorf("%q is %s, and that is %v, %v", addr, u, again, err)
		}
	})
}

func BenchmarkThroughput(b *testing.B) {
	for _, scheme := range []string{"pipe", "tcp", "ws"} {
		b.Run(scheme, func(b *testing.B) {
			x, y := Pipe()
			if scheme != "pipe" {
				l, err := Listen(b.Context(), scheme+"://127.0.0.1:0", ListenOptions{})
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				if x, err = Dial(b.Context(), l.Addr(), DialOptions{}); err != nil {
					b.Fatal(err)
				}
				if y, err = l.Accept(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			defer x.Close()
			defer y.Close()
			chunk := make([]byte, 64<<10)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			var reading sync.WaitGroup
			reading.Go(func() { io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{y}, make([]byte, 128<<10)) })
			for b.Loop() {
				if _, err := x.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			x.Close()
			reading.Wait()
		})
	}
}
