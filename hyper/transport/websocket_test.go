package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/cloudbevy/bevy/hyper/clock"
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
	host, _, _ := strings.Cut(strings.TrimPrefix(l.Addr(), "ws://"), "/")
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return rawClient{raw, bufio.NewReader(raw)}
}

// frame is a frame as a client sends it, with the mask of RFC 6455 §5.7.
func frame(first byte, content string) []byte {
	b := appendHeader(nil, 0, true, 0x3d21fa37, len(content))
	b[0] = first
	at := len(b)
	b = append(b, content...)
	applyMask(b[at:], 0x3d21fa37)
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// next reads a frame of the server.
func (c rawClient) next(t *testing.T) (op byte, content []byte) {
	t.Helper()
	b, err := c.in.Peek(2)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = c.in.Peek(headerLength(b[1])); err != nil {
		t.Fatal(err)
	}
	h, fault := parseHeader(b, false)
	if fault != "" || !h.fin {
		t.Fatal(fault, h)
	}
	c.in.Discard(h.length)
	content = make([]byte, h.size)
	if _, err := io.ReadFull(c.in, content); err != nil {
		t.Fatal(err)
	}
	return h.op, content
}

func TestFramesAreThoseOfTheRFC(t *testing.T) {
	// RFC 6455 §5.7, with binary for text.
	if got, want := frame(0x82, "Hello"), "\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; string(got) != want {
		t.Errorf("masked Hello: %x, want %x", got, want)
	}
	for size, want := range map[int]string{
		0: "\x82\x00", 125: "\x82\x7d", 126: "\x82\x7e\x00\x7e", 256: "\x82\x7e\x01\x00", 65535: "\x82\x7e\xff\xff",
		65536: "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
	} {
		got := appendHeader(nil, opBinary, false, 0, size)
		if string(got) != want {
			t.Errorf("header of %d bytes: %x, want %x", size, got, want)
		}
		if h, fault := parseHeader(got, false); fault != "" || h.size != uint64(size) || h.length != len(got) || headerLength(got[1]) != len(got) {
			t.Errorf("header of %d bytes is read as %+v, %s", size, h, fault)
		}
	}
	// The mask goes on where it was, however content is cut.
	plain := []byte(strings.Repeat("the quick brown fox ", 50))
	for cut := range 70 {
		p := bytes.Clone(plain)
		applyMask(p[cut:], applyMask(p[:cut], 0x3d21fa37))
		for i := range p {
			if p[i] != plain[i]^[]byte{0x37, 0xfa, 0x21, 0x3d}[i%4] {
				t.Fatalf("cut at %d: byte %d is wrong", cut, i)
			}
		}
	}
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
		"a message of many size": {join(frame(0x82, strings.Repeat("a", 125)), frame(0x82, strings.Repeat("b", 70_000)), normal), strings.Repeat("a", 125) + strings.Repeat("b", 70_000)},
	} {
		t.Run(name, func(t *testing.T) {
			conn, raw := withRaw(t, ListenOptions{}, c.sent)
			got, err := io.ReadAll(conn)
			if string(got) != c.want || err != nil {
				t.Errorf("read %.50q, %v, want %.50q", got, err, c.want)
			}
			if _, err := conn.Write([]byte("still here")); err != nil {
				t.Error(err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			var answers []string
			for op := byte(0); op != opClose; {
				var content []byte
				op, content = raw.next(t)
				answers = append(answers, fmt.Sprintf("%d %s", op, content))
			}
			if last := answers[len(answers)-1]; last != "8 \x03\xe8" || !strings.HasSuffix(answers[len(answers)-2], "still here") {
				t.Errorf("the client got %q", answers)
			}
			if rest, err := io.ReadAll(raw.in); len(rest) > 0 || err != nil && name != "something after close" {
				t.Errorf("after the Close frame: %q, %v", rest, err)
			}
		})
	}
}

func TestWebSocketRefusesWhatIsNotOne(t *testing.T) {
	unmasked := appendHeader(nil, opBinary, false, 0, 0)
	long := frame(0x89, strings.Repeat("x", 126))
	huge := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<63)
	for name, c := range map[string]struct {
		sent   []byte
		want   string
		status int // that the client is told
	}{
		"no mask":                     {unmasked, "a frame of the client is not masked", 1002},
		"text":                        {frame(0x81, "hello"), "a message is text, and only binary ones are spoken here", 1003},
		"compressed":                  {frame(0xc2, "hello"), "an extension that was not agreed on", 1002},
		"unknown data":                {frame(0x83, "hello"), "a frame is of no known kind", 1002},
		"unknown control":             {frame(0x8b, ""), "a frame is of no known kind", 1002},
		"a ping in parts":             {frame(0x09, ""), "a control frame is too long or in parts", 1002},
		"a long ping":                 {long, "a control frame is too long or in parts", 1002},
		"a part of nothing":           {frame(0x80, "x"), "a message begins before", 1002},
		"a message within a message":  {join(frame(0x02, "x"), frame(0x82, "y")), "a message begins before", 1002},
		"a length with bytes to many": {[]byte{0x82, 0xfe, 0, 5, 0, 0, 0, 0}, "a frame's length is not written as it must be", 1002},
		"a length over 63 bits":       {join(huge, []byte{0, 0, 0, 0}), "a frame's length is not written as it must be", 1002},
		"half a status":               {frame(0x88, "\x03"), "a Close frame has half a status", 1002},
		"no status":                   {frame(0x88, "\x03\xed"), "a Close frame has no valid status or reason", 1002},
		"a reason that is not UTF-8":  {frame(0x88, "\x03\xe8\xff"), "a Close frame has no valid status or reason", 1002},
		"a failure":                   {frame(0x88, "\x03\xf3on fire"), `the other side closed the WebSocket with status 1011 "on fire"`, 1000},
		"closed in a message":         {join(frame(0x02, "x"), frame(0x88, "")), "the other side closed the WebSocket within a message: unexpected EOF", 1000},
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
			if op, content := raw.next(t); op != opClose || len(content) != 2 || int(binary.BigEndian.Uint16(content)) != c.status {
				t.Errorf("the client is told %d %x, want status %d", op, content, c.status)
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

// No peer can make us wait for, or hold, more than what it sends.
func TestLargeFramesStreamThrough(t *testing.T) {
	announced := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<62)
	conn, raw := withRaw(t, ListenOptions{}, append(announced, 0, 0, 0, 0))
	buf := make([]byte, 1<<20)
	for _, s := range []string{"a", "secret-stream frame", "z"} {
		io.WriteString(raw, s)
		if _, err := io.ReadFull(conn, buf[:1]); err != nil {
			t.Fatal(err)
		}
		n := 1
		for n < len(s) {
			m, err := conn.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if string(buf[:n]) != s {
			t.Fatalf("read %q, want %q", buf[:n], s)
		}
	}
	const total = 64 << 20
	go func() {
		chunk := make([]byte, 1<<20)
		for range total / len(chunk) {
			raw.Write(chunk)
		}
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for n := 0; n < total; {
		m, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("reading a frame of %d bytes took %d bytes of memory", total, took)
	}
}

func TestPingsAreAnsweredAlsoByAStuckWriter(t *testing.T) {
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
	// While the client doesn't read, pings don't keep us from reading.
	wrote := make(chan error, 1)
	go func() {
		chunk := make([]byte, 1<<20)
		for range 64 {
			if _, err := conn.Write(chunk); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	for i := range 1000 {
		raw.Write(frame(0x89, fmt.Sprint("ping ", i)))
	}
	raw.Write(frame(0x82, "yz!"))
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	// When it reads again, the newest is among the answers.
	got, last := 0, ""
	for got < 64<<20 || last != "ping 999" {
		op, content := raw.next(t)
		if got += len(content); op == opPong {
			got -= len(content)
			last = string(content)
		}
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
		fmt.Fprintf(c, "HTTP/1.1 101 OK\r\nupgrade: WebSocket\r\nconnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x82\x05hello\x88\x02\x03\xe8",
			acceptKey(req.Header.Get("Sec-WebSocket-Key")))
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

// Over a pipe without a buffer, who says goodbye waits until the other reads.
func TestBothSidesMayCloseWithFullBuffers(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	x, y := net.Pipe()
	a := newWebSocket(x, bufio.NewReader(x), true, "", fake)
	b := newWebSocket(y, bufio.NewReader(y), false, "", fake)
	for _, c := range []*wsConn{a, b} {
		c.Close()
	}
	ended := func(c net.Conn) bool {
		_, err := c.Write(nil)
		return errors.Is(err, io.ErrClosedPipe)
	}
	waitUntil(t, "both have closed without running out of time", func() bool { return ended(x) && ended(y) && fake.Waiting() == 0 })
	if !a.theyLeft || !b.theyLeft || !a.bye || !b.bye {
		t.Error("they have not said goodbye to each other")
	}
}

func TestServersMayNotMask(t *testing.T) {
	conn := newWebSocket(fakeConn{}, bufio.NewReader(bytes.NewReader(frame(0x82, "x"))), true, "", clock.System)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, errProtocol) {
		t.Error(err)
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
		says    string
	}{
		"a page":        {"GET /door HTTP/1.1\r\nHost: a\r\n\r\n", 426, "only WebSockets are spoken here"},
		"another path":  {sampleRequest + "\r\n", 404, "there is nothing at this path"},
		"a post":        {strings.Replace(request, "GET", "POST", 1), 400, "a WebSocket begins with GET of HTTP/1.1, not with POST of HTTP/1.1"},
		"old HTTP":      {strings.Replace(request, "HTTP/1.1", "HTTP/1.0", 1), 400, "a WebSocket begins with GET of HTTP/1.1, not with GET of HTTP/1.0"},
		"old WebSocket": {strings.Replace(request, "Version: 13", "Version: 8", 1), 426, "only version 13 of WebSocket is spoken here"},
		"no key":        {strings.Replace(request, "Sec-WebSocket-Key", "X", 1), 400, "a WebSocket needs one Sec-WebSocket-Key"},
		"a short key":   {strings.Replace(request, "dGhl", "", 1), 400, "a Sec-WebSocket-Key is 16 bytes in base64"},
		"not HTTP":      {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "400 Bad Request"},
		"too much":      {"GET /door HTTP/1.1\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", 431, "431 Request Header Fields Too Large"},
	} {
		raw := connectRaw(t, l)
		io.WriteString(raw, c.request)
		resp, err := http.ReadResponse(raw.in, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || strings.TrimSpace(string(body)) != c.says {
			t.Errorf("%s: %d %q %v, want %d %q", name, resp.StatusCode, body, err, c.status, c.says)
		}
		if c.status == 426 && (resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-WebSocket-Version") != "13") {
			t.Errorf("%s: the answer does not say what is spoken: %v", name, resp.Header)
		}
		raw.Close()
	}
	waitUntil(t, "all places are free but the one for whoever comes next", func() bool { return len(l.slots) <= 1 })
}

// fakeConn is a connection that takes everything and gives nothing.
type fakeConn struct{ net.Conn }

func (fakeConn) Write(p []byte) (int, error)   { return len(p), nil }
func (fakeConn) Close() error                  { return nil }
func (fakeConn) SetDeadline(t time.Time) error { return nil }

// decode is what a WebSocket carries, read as simply as can be. It stops at the
// end, or where something is wrong.
func decode(b []byte, fromClient bool) (content []byte, ended bool) {
	message := false
	for len(b) >= 2 {
		fin, op, size, at := b[0]>>7 == 1, b[0]&0x7f, uint64(b[1]&0x7f), uint64(2)
		switch {
		case size == 126 && len(b) >= 4:
			size, at = uint64(b[2])<<8|uint64(b[3]), 4
			if size < 126 {
				return content, false
			}
		case size == 127 && len(b) >= 10:
			size, at = binary.BigEndian.Uint64(b[2:]), 10
			if size < 1<<16 || size >= 1<<63 {
				return content, false
			}
		case size >= 126:
			return content, false
		}
		mask := make([]byte, 4)
		if b[1]>>7 == 1 {
			if !fromClient || uint64(len(b)) < at+4 {
				return content, false
			}
			mask = b[at : at+4]
			at += 4
		} else if fromClient {
			return content, false
		}
		control := op == 8 || op == 9 || op == 10
		if control && (!fin || size > 125 || size > uint64(len(b))-at) || !control && op != map[bool]byte{false: 2, true: 0}[message] {
			return content, false
		}
		body := bytes.Clone(b[at:min(uint64(len(b)), at+size)])
		for i := range body {
			body[i] ^= mask[i%4]
		}
		if op == 8 {
			status, _, fault := parseClose(body)
			return content, fault == "" && !message && (status == 1000 || status == 1001 || status == 1005)
		}
		if !control {
			content = append(content, body...)
			message = !fin
		}
		b = b[at+uint64(len(body)):]
	}
	return content, false
}

func FuzzWebSocketRead(f *testing.F) {
	f.Add(join(frame(0x82, "hello"), frame(0x88, "\x03\xe8")), uint8(3), true)
	f.Add(join(frame(0x02, "he"), frame(0x89, "x"), frame(0x80, "llo"), frame(0x88, "")), uint8(1), true)
	f.Add([]byte("\x82\x05hello\x8a\x00\x02\x01x\x00\x00\x80\x01y\x88\x02\x03\xe9"), uint8(200), false)
	f.Add(binary.BigEndian.AppendUint64([]byte{0x82, 0x7f}, 1<<40), uint8(200), false)
	f.Fuzz(func(t *testing.T, sent []byte, size uint8, fromClient bool) {
		conn := newWebSocket(fakeConn{}, bufio.NewReader(bytes.NewReader(sent)), !fromClient, "", clock.System)
		var got []byte
		buf := make([]byte, int(size)+1)
		var err error
		for err == nil {
			var n int
			n, err = conn.Read(buf)
			got = append(got, buf[:n]...)
		}
		want, ended := decode(sent, fromClient)
		if !bytes.Equal(got, want) || (err == io.EOF) != ended {
			t.Errorf("read %x, %v, want %x, an end %v", got, err, want, ended)
		}
		conn.Close()
	})
}

// answering is a server that has one answer to everything.
type answering struct {
	fakeConn
	answer io.Reader
}

func (a answering) Read(p []byte) (int, error) { return a.answer.Read(p) }

func FuzzServerAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n\x82\x01x"))
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nno\nreally"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		req, err := http.NewRequest(http.MethodGet, "http://a/", nil)
		if err != nil {
			t.Fatal(err)
		}
		// No answer that was made before the key is right.
		unfit := func(r rune) bool { return !unicode.IsPrint(r) }
		if _, err := upgrade(answering{answer: bytes.NewReader(answer)}, req); err == nil || strings.ContainsFunc(err.Error(), unfit) {
			t.Errorf("error %q", err)
		}
		in, resp, err := ask(answering{answer: bytes.NewReader(answer)}, &http.Request{Method: http.MethodConnect, URL: req.URL, Host: "a", Header: http.Header{}})
		if err == nil && in.Size() > maxAnswer {
			t.Error(resp)
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
			x.CloseWrite()
			reading.Wait()
		})
	}
}
