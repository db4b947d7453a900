package secretstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// expect reads one message and compares it.
func expect(t testing.TB, s *Stream, want []byte) {
	t.Helper()
	got, err := s.ReadMessage([]byte("before"))
	if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
		t.Fatalf("read %d bytes, %v, want %d", len(got)-len("before"), err, len(want))
	}
}

func expectError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func TestEveryByteIsWhatSecretStreamSends(t *testing.T) {
	var v struct {
		XX struct {
			InitiatorStatic, ResponderStatic, InitiatorEphemeral, ResponderEphemeral struct{ Seed bin }
			Messages                                                                 []bin
			HandshakeHash                                                            bin
		}
		SecretStream struct {
			Header, HeaderFrame bin
			Chunks              []struct{ Plain, Cipher bin }
		}
	}
	readJSON(t, "testdata/noise.json", &v)
	a, b := pipe(0)
	c, s := connect(t, a, b, Options{
		KeyPair: noise.NewKeyPair([32]byte(v.XX.InitiatorStatic.Seed)), KeepAlive: -1,
		Random: bytes.NewReader(append(bytes.Clone(v.XX.InitiatorEphemeral.Seed), v.SecretStream.Header...)),
	}, Options{
		KeyPair: noise.NewKeyPair([32]byte(v.XX.ResponderStatic.Seed)), KeepAlive: -1,
		Random: bytes.NewReader(append(bytes.Clone(v.XX.ResponderEphemeral.Seed), make([]byte, 24)...)),
	})
	frame := func(body []byte) []byte { return append(appendLength(nil, len(body)), body...) }
	want := append(frame(v.XX.Messages[0]), frame(v.XX.Messages[2])...)
	want = append(want, v.SecretStream.HeaderFrame...)
	for _, chunk := range v.SecretStream.Chunks {
		if err := c.WriteMessage(chunk.Plain); err != nil {
			t.Fatal(err)
		}
		expect(t, s, chunk.Plain)
		want = append(want, frame(chunk.Cipher)...)
	}
	if got, _ := a.out.written(); !bytes.Equal(got, want) {
		t.Errorf("client wrote\n%x, want\n%x", got, want)
	}
	if err := s.WriteMessage(nil); err != nil {
		t.Fatal(err)
	}
	want = frame(v.XX.Messages[1])
	if got, _ := b.out.written(); !bytes.HasPrefix(got, append(want, headerBody, 0, 0)) {
		t.Errorf("server wrote\n%x, want it to begin with\n%x", got, want)
	}
	if hash := c.HandshakeHash(); !bytes.Equal(hash[:], v.XX.HandshakeHash) || s.HandshakeHash() != hash {
		t.Errorf("handshake hash %x, want %x", hash, v.XX.HandshakeHash)
	}
	if c.LocalKey() != s.RemoteKey() || c.RemoteKey() != s.LocalKey() || !c.Initiator() || s.Initiator() {
		t.Error("the sides do not know who they are")
	}
}

func TestMessagesArriveHoweverTheirBytesDo(t *testing.T) {
	sizes := []int{0, 1, 15, 16, 17, 24, 1000, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20}
	pipes := map[string]func() (io.ReadWriteCloser, io.ReadWriteCloser){
		"all at once":      func() (io.ReadWriteCloser, io.ReadWriteCloser) { return both(pipe(0)) },
		"byte by byte":     func() (io.ReadWriteCloser, io.ReadWriteCloser) { return both(pipe(1)) },
		"in sevens":        func() (io.ReadWriteCloser, io.ReadWriteCloser) { return both(pipe(7)) },
		"without a buffer": func() (io.ReadWriteCloser, io.ReadWriteCloser) { return net.Pipe() },
	}
	for name, open := range pipes {
		t.Run(name, func(t *testing.T) {
			a, b := open()
			c, s := connect(t, a, b, quiet(1), quiet(2))
			// Both directions at once.
			var wg sync.WaitGroup
			send := func(s *Stream) {
				for _, n := range sizes {
					if err := s.WriteMessage(content(n)); err != nil {
						t.Error(err)
					}
				}
			}
			receive := func(s *Stream) {
				for _, n := range sizes {
					got, err := s.Next()
					if err != nil || !bytes.Equal(got, content(n)) {
						t.Errorf("message of %d bytes: got %d, %v", n, len(got), err)
						return
					}
				}
			}
			for _, s := range []*Stream{c, s} {
				wg.Go(func() { send(s) })
				wg.Go(func() { receive(s) })
			}
			wg.Wait()
		})
	}
}

func both(a, b end) (io.ReadWriteCloser, io.ReadWriteCloser) { return a, b }

func TestQueuedMessagesShareOneWrite(t *testing.T) {
	a, b := pipe(0)
	c, s := connect(t, a, b, quiet(1), quiet(2))
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	_, before := a.out.written()
	for i := range 100 {
		if err := c.Queue(content(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, after := a.out.written(); after != before {
		t.Errorf("%d writes before the flush", after-before)
	}
	for range 2 {
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if _, after := a.out.written(); after != before+1 {
		t.Errorf("%d writes, want 1", after-before)
	}
	for i := range 100 {
		expect(t, s, content(i))
	}
	// What is queued is bounded: past 64 KiB it is written.
	for range 10 {
		if err := c.Queue(content(30_000)); err != nil {
			t.Fatal(err)
		}
		if len(c.out) > maxQueued {
			t.Errorf("%d bytes are queued", len(c.out))
		}
	}
	// A message takes along what is queued before it.
	if err := c.WriteMessage([]byte("last")); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		expect(t, s, content(30_000))
	}
	expect(t, s, []byte("last"))
}

func TestAgreedKeysNeedNoHandshake(t *testing.T) {
	session := noise.Session{Initiator: true, Local: seeded(1).Public, Remote: seeded(2).Public, Tx: [32]byte{1}, Rx: [32]byte{2}, Hash: [64]byte{3}}
	reverse := noise.Session{Local: session.Remote, Remote: session.Local, Tx: session.Rx, Rx: session.Tx, Hash: session.Hash}
	for _, open := range []func() (io.ReadWriteCloser, io.ReadWriteCloser){
		func() (io.ReadWriteCloser, io.ReadWriteCloser) { return both(pipe(0)) },
		func() (io.ReadWriteCloser, io.ReadWriteCloser) { return net.Pipe() },
	} {
		a, b := open()
		c, err := New(a, session, Options{KeepAlive: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := New(b, reverse, Options{KeepAlive: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := errors.Join(c.WriteMessage([]byte("there")), s.WriteMessage([]byte("back"))); err != nil {
				t.Error(err)
			}
		})
		expect(t, s, []byte("there"))
		expect(t, c, []byte("back"))
		wg.Wait()
	}
	a, b := pipe(0)
	c, err := New(a, session, Options{KeepAlive: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := New(b, session, Options{KeepAlive: -1}) // in the wrong role
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = c.Next()
	expectError(t, "the header of another stream", err, ErrInvalid)
	if _, err := New(a, session, Options{Random: bytes.NewReader(nil)}); err == nil {
		t.Error("a stream began without randomness")
	}
}

// talk runs a handshake of at most d and sends two messages each way, and returns what each
// side has read in order and the errors that ended either side.
func talk(t testing.TB, d time.Duration, a, b end) (got [2][]string, failed int) {
	t.Helper()
	c, s, cErr, sErr := shakeFor(t, d, a, b, quiet(1), quiet(2))
	var wg sync.WaitGroup
	for i, side := range []*Stream{c, s} {
		if side == nil {
			continue
		}
		wg.Go(func() {
			for _, m := range []string{"one", "two"} {
				if side.WriteMessage([]byte(m)) != nil {
					break
				}
			}
			side.CloseWrite()
			for {
				p, err := side.Next()
				if err == io.EOF {
					return
				}
				if err != nil {
					break
				}
				got[i] = append(got[i], string(p))
			}
			side.Close()
		})
	}
	wg.Wait()
	for _, err := range []error{cErr, sErr} {
		if err != nil {
			failed++
		}
	}
	for _, s := range []*Stream{c, s} {
		if s != nil && s.cause.Load() != nil {
			failed++
		}
	}
	return got, failed
}

// Whatever byte is changed, in whatever frame: a side ends with an error, and
// no side takes anything that was not sent.
func TestAChangedByteAnywhereEndsTheStream(t *testing.T) {
	a, b := pipe(0)
	if got, failed := talk(t, time.Minute, a, b); failed != 0 || fmt.Sprint(got) != "[[one two] [one two]]" {
		t.Fatalf("unchanged: %v, %d failed", got, failed)
	}
	for side, whole := range []*wire{a.out, b.out} {
		all, _ := whole.written()
		for at := range all {
			a, b := pipe(0)
			w := []*wire{a.out, b.out}[side]
			w.change = func(i int, b *byte) {
				if i == at {
					*b ^= 0x10
				}
			}
			// A handshake message that seems to be longer waits for what never
			// comes. That takes a deadline.
			d := time.Minute
			if at == 0 || side == 0 && at == lengthSize+32 {
				d = 50 * time.Millisecond
			}
			got, failed := talk(t, d, a, b)
			if failed == 0 {
				t.Errorf("side %d, byte %d: nobody noticed", side, at)
			}
			for _, messages := range got {
				for i, m := range messages {
					if i > 1 || m != []string{"one", "two"}[i] {
						t.Errorf("side %d, byte %d: read %q", side, at, messages)
					}
				}
			}
		}
	}
}

func TestACutConnectionIsNoOrderlyEnd(t *testing.T) {
	client := func(received []byte) error {
		in, out := newWire(0), newWire(0)
		in.Write(received)
		in.close()
		// The same randomness, so that the recorded answers are the right ones.
		s, err := Client(t.Context(), end{in, out}, Options{KeyPair: seeded(1), KeepAlive: -1, Random: bytes.NewReader(content(56))})
		if err != nil {
			return err
		}
		defer s.Close()
		for {
			if _, err := s.Next(); err != nil {
				return err
			}
		}
	}
	// Record a server's answers to that client.
	a, b := pipe(0)
	c, s := connect(t, a, b, Options{KeyPair: seeded(1), KeepAlive: -1, Random: bytes.NewReader(content(56))}, quiet(2))
	if err := s.WriteMessage([]byte("one")); err != nil {
		t.Fatal(err)
	}
	expect(t, c, []byte("one"))
	header, _ := b.out.written()
	header = header[:len(header)-lengthSize-Overhead-3]
	if err := s.WriteMessage([]byte("two")); err != nil {
		t.Fatal(err)
	}
	all, _ := b.out.written()
	frame := lengthSize + Overhead + 3
	ends := map[int]bool{len(header): true, len(header) + frame: true, len(all): true}
	for cut := range len(all) + 1 {
		err := client(all[:cut])
		if ends[cut] {
			if err != io.EOF {
				t.Errorf("cut after a whole message at %d: %v", cut, err)
			}
			continue
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at byte %d of %d: %v", cut, len(all), err)
		}
	}
}

func TestGarbageAtAnyMessageEndsTheStream(t *testing.T) {
	for n := range 5 {
		a, b := pipe(0)
		c, s := connect(t, a, b, quiet(1), quiet(2))
		for range n {
			if err := c.WriteMessage([]byte("good")); err != nil {
				t.Fatal(err)
			}
			expect(t, s, []byte("good"))
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		a.out.Write(append(appendLength(nil, 40), content(40)...))
		_, err := s.Next()
		expectError(t, fmt.Sprintf("garbage at message %d", n), err, ErrAuth)
		_, again := s.Next()
		expectError(t, "read after the end", again, err)
		expectError(t, "write after the end", s.WriteMessage(nil), err)
		expectError(t, "queue after the end", s.Queue(nil), err)
		expectError(t, "flush after the end", s.Flush(), err)
		expectError(t, "end after the end", s.CloseWrite(), err)
		if err := s.Close(); err != nil {
			t.Errorf("close after the end: %v", err)
		}
		if _, err := c.Next(); err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the other side: %v", err)
		}
	}
}

func TestFramesOverTheLimitAreRefused(t *testing.T) {
	for _, size := range []int{maxHandshake + 1, 1<<24 - 1} {
		in, out := newWire(0), newWire(0)
		in.Write(appendLength(nil, size))
		_, err := Server(t.Context(), end{in, out}, quiet(1))
		expectError(t, "a large handshake message", err, ErrTooLarge)
	}
	a, b := pipe(0)
	server := quiet(2)
	server.MaxMessage = 100
	c, s := connect(t, a, b, quiet(1), server)
	expectError(t, "write too large a message", c.WriteMessage(make([]byte, MaxMessage+1)), ErrTooLarge)
	expectError(t, "queue too large a message", c.Queue(make([]byte, MaxMessage+1)), ErrTooLarge)
	for _, n := range []int{100, 101} {
		if err := c.WriteMessage(content(n)); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, s, content(100))
	_, err := s.Next()
	expectError(t, "read too large a message", err, ErrTooLarge)

	a, b = pipe(0)
	c, s = connect(t, a, b, quiet(1), quiet(2))
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	a.out.Write(append(appendLength(nil, Overhead-1), make([]byte, Overhead-1)...))
	_, err = s.Next()
	expectError(t, "a frame shorter than any message", err, ErrInvalid)
}

func TestTheLargestMessageArrives(t *testing.T) {
	a, b := pipe(0)
	c, s := connect(t, a, b, quiet(1), quiet(2))
	want := content(MaxMessage)
	if err := c.WriteMessage(want); err != nil {
		t.Fatal(err)
	}
	expect(t, s, want)
	if err := c.WriteMessage(nil); err != nil {
		t.Fatal(err)
	}
	expect(t, s, nil)
	if len(s.in) > largeBuffer || cap(c.out) > largeBuffer {
		t.Errorf("buffers of %d and %d bytes are kept", len(s.in), cap(c.out))
	}
}

func TestAnAnnouncedMessageTakesNoMemory(t *testing.T) {
	a, b := pipe(0)
	c, s := connect(t, a, b, quiet(1), quiet(2))
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	a.out.Write(append(appendLength(nil, 1<<24-1), make([]byte, 1000)...))
	a.out.close()
	if _, err := s.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read a cut message: %v", err)
	}
	if len(s.in) > busyBuffer+headroom+tailroom {
		t.Errorf("a buffer of %d bytes for 1000", len(s.in))
	}
}

func TestCheckIsAskedBeforeAnythingIsTold(t *testing.T) {
	refuse := errors.New("not today")
	a, b := pipe(0)
	client, server := quiet(1), quiet(2)
	client.Check = func(remote noise.Key) error {
		if remote != seeded(2).Public {
			t.Errorf("client is asked about %v", remote)
		}
		return refuse
	}
	_, _, cErr, sErr := shake(t, a, b, client, server)
	expectError(t, "client", cErr, ErrRefused)
	expectError(t, "client", cErr, refuse)
	expectError(t, "server", sErr, io.ErrUnexpectedEOF)
	if got, _ := a.out.written(); len(got) != lengthSize+32 {
		t.Errorf("a client that refused has sent %d bytes", len(got))
	}

	a, b = pipe(0)
	client.Check, server.Check = Only(seeded(2).Public), Only(seeded(7).Public, seeded(8).Public)
	c, _, cErr, sErr := shake(t, a, b, client, server)
	expectError(t, "server", sErr, ErrRefused)
	if cErr != nil {
		t.Fatal(cErr)
	}
	if _, err := c.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a refused client reads %v", err)
	}

	a, b = pipe(0)
	server.Check = Only(seeded(7).Public, seeded(1).Public)
	connect(t, a, b, client, server)
}

func TestTheContextEndsAHandshake(t *testing.T) {
	for _, begin := range []func(context.Context, io.ReadWriteCloser, Options) (*Stream, error){Client, Server} {
		a, _ := pipe(0)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		go cancel(why)
		_, err := begin(ctx, a, quiet(1))
		expectError(t, "handshake", err, why)
	}
	// Once it is over, the context is of no matter.
	a, b := pipe(0)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var s *Stream
	wg.Go(func() { s, _ = Server(ctx, b, quiet(2)) })
	c, err := Client(ctx, a, quiet(1))
	wg.Wait()
	if err != nil || s == nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer s.Close()
	cancel()
	if err := c.WriteMessage([]byte("still there")); err != nil {
		t.Fatal(err)
	}
	expect(t, s, []byte("still there"))
	if _, err := Client(t.Context(), a, Options{}); err == nil {
		t.Error("a client without keys shook hands")
	}
}

func TestHalfCloseEndsOneDirection(t *testing.T) {
	a, b := pipe(0)
	c, s := connect(t, a, b, quiet(1), quiet(2))
	if err := c.Queue([]byte("queued")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, s, []byte("queued"))
	for range 2 {
		if _, err := s.Next(); err != io.EOF {
			t.Errorf("read after the end: %v", err)
		}
	}
	expectError(t, "write after CloseWrite", c.WriteMessage(nil), ErrClosed)
	if err := s.WriteMessage([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	expect(t, c, []byte("answer"))
	x, y := net.Pipe()
	c, _ = connect(t, x, y, quiet(1), quiet(2))
	go io.Copy(io.Discard, y)
	expectError(t, "half close of a pipe that cannot", c.CloseWrite(), errors.ErrUnsupported)
	a, b = pipe(0)
	c, s = connect(t, whole{a}, b, quiet(1), quiet(2))
	expectError(t, "half close of a pipe that says it cannot", c.CloseWrite(), errors.ErrUnsupported)
	if err := c.WriteMessage([]byte("still there")); err != nil {
		t.Fatal(err)
	}
	expect(t, s, []byte("still there"))
}

// whole has a CloseWrite that it can't do.
type whole struct{ io.ReadWriteCloser }

func (whole) CloseWrite() error { return errors.ErrUnsupported }

func TestCloseEndsWhatWaits(t *testing.T) {
	before := runtime.NumGoroutine()
	a, b := net.Pipe() // a write waits until someone reads
	c, s := connect(t, a, b, Options{KeyPair: seeded(1), Timeout: time.Hour}, Options{KeyPair: seeded(2), Timeout: time.Hour})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { expectError(t, "write", c.WriteMessage(content(1<<20)), ErrClosed) })
	}
	wg.Go(func() {
		_, err := c.Next()
		expectError(t, "read", err, ErrClosed)
	})
	runtime.Gosched()
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	s.Close()
	for deadline := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
}

func TestAnIdleStreamHoldsNoGoroutineAndLittleMemory(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	o := func(b byte) Options { return Options{KeyPair: seeded(b), Clock: fake} }
	a, b := pipe(0)
	before := runtime.NumGoroutine()
	c, s := connect(t, a, b, o(1), o(2))
	for deadline := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
	if err := c.WriteMessage(content(300_000)); err != nil {
		t.Fatal(err)
	}
	expect(t, s, content(300_000))
	if len(s.in) <= smallBuffer || cap(c.out) <= smallBuffer {
		t.Errorf("buffers of %d and %d bytes while busy", len(s.in), cap(c.out))
	}
	fake.Advance(2 * DefaultKeepAlive)
	if err := c.WriteMessage([]byte("awake")); err != nil {
		t.Fatal(err)
	}
	expect(t, s, []byte("awake"))
	if len(s.in) > smallBuffer || cap(c.out) > smallBuffer {
		t.Errorf("buffers of %d and %d bytes after a pause", len(s.in), cap(c.out))
	}
}

func TestSilenceIsBrokenByEmptyMessages(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	a, b := pipe(0)
	talker, listener := Options{KeyPair: seeded(1), Clock: fake, KeepAlive: 3 * time.Second}, quiet(2)
	listener.Clock = fake
	c, s := connect(t, a, b, talker, listener)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	writes := func(want int, what string) {
		t.Helper()
		if _, got := a.out.written(); got != want {
			t.Errorf("%s: %d writes, want %d", what, got, want)
		}
	}
	_, n := a.out.written()
	fake.Advance(2 * time.Second)
	if err := c.WriteMessage([]byte("not silent")); err != nil {
		t.Fatal(err)
	}
	n++
	fake.Advance(2 * time.Second)
	writes(n, "two seconds after a message")
	fake.Advance(time.Second)
	writes(n+1, "three seconds after a message")
	fake.Advance(9 * time.Second)
	writes(n+4, "nine seconds later")
	// A listener without keep-alive sees them, as in secret-stream.
	expect(t, s, []byte("not silent"))
	for range 4 {
		expect(t, s, nil)
	}
	// The talker drops those of the listener.
	for _, m := range []string{"", "", "x"} {
		if err := s.WriteMessage([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, c, []byte("x"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	fake.Advance(time.Minute)
	writes(n+4, "after the end")
	c.Close()
	s.Close()
	if fake.Waiting() != 0 {
		t.Errorf("%d timers are left", fake.Waiting())
	}
}

func TestAReadThatWaitsTooLongEndsTheStream(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	a, b := pipe(0)
	patient := quiet(1)
	patient.Clock, patient.Timeout = fake, 8*time.Second
	c, s := connect(t, a, b, patient, quiet(2))
	fake.Advance(time.Minute) // nobody reads: nothing to wait for
	if err := s.WriteMessage([]byte("one")); err != nil {
		t.Fatal(err)
	}
	expect(t, c, []byte("one"))
	read := make(chan error)
	go func() {
		_, err := c.Next()
		read <- err
	}()
	waiting := func() bool {
		c.waitMu.Lock()
		defer c.waitMu.Unlock()
		return !c.waiting.IsZero()
	}
	for !waiting() {
		runtime.Gosched()
	}
	fake.Advance(7 * time.Second)
	if c.cause.Load() != nil {
		t.Fatal("ended a second too early")
	}
	fake.Advance(9 * time.Second)
	expectError(t, "read", <-read, ErrTimeout)
	expectError(t, "write", c.WriteMessage(nil), ErrTimeout)
	c.Close()
	if fake.Waiting() != 0 {
		t.Errorf("%d timers are left", fake.Waiting())
	}
}

func TestManyGoroutinesCanWrite(t *testing.T) {
	a, b := pipe(0)
	c, s := connect(t, a, b, Options{KeyPair: seeded(1), KeepAlive: time.Millisecond}, Options{KeyPair: seeded(2), KeepAlive: time.Millisecond})
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				write := c.WriteMessage
				if i%3 == 0 {
					write = c.Queue
				}
				if err := write([]byte{byte(w), byte(i)}); err != nil {
					t.Error(err)
				}
			}
			if err := c.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	var next [writers]int
	for range writers * each {
		p, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if len(p) != 2 || int(p[1]) != next[p[0]] {
			t.Fatalf("got %v, want message %d of it", p, next[p[0]])
		}
		next[p[0]]++
	}
	wg.Wait()
}

func TestABrokenConnectionEndsTheStream(t *testing.T) {
	broken := errors.New("cable cut")
	a, b := pipe(0)
	flaky := &flakyConn{ReadWriteCloser: a}
	c, _ := connect(t, flaky, b, quiet(1), quiet(2))
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	flaky.fail(broken)
	expectError(t, "write", c.WriteMessage(nil), broken)
	_, err := c.Next()
	expectError(t, "read", err, broken)

	a, b = pipe(0)
	flaky = &flakyConn{ReadWriteCloser: a}
	c, s := connect(t, flaky, b, quiet(1), quiet(2))
	if err := s.WriteMessage([]byte("in time")); err != nil {
		t.Fatal(err)
	}
	expect(t, c, []byte("in time"))
	flaky.fail(broken)
	_, err = c.Next()
	expectError(t, "read", err, broken)

	a, b = pipe(0)
	flaky = &flakyConn{ReadWriteCloser: a}
	c, _ = connect(t, flaky, b, quiet(1), quiet(2))
	flaky.fail(nil)
	_, err = c.Next()
	expectError(t, "read what returns nothing", err, io.ErrNoProgress)
}

// flakyConn is a connection that does nothing from a point on.
type flakyConn struct {
	io.ReadWriteCloser
	mu   sync.Mutex
	down bool
	err  error
}

func (f *flakyConn) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.err = true, err
}

func (f *flakyConn) state() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down, f.err
}

func (f *flakyConn) Read(p []byte) (int, error) {
	if down, err := f.state(); down {
		return 0, err
	}
	return f.ReadWriteCloser.Read(p)
}

func (f *flakyConn) Write(p []byte) (int, error) {
	if down, err := f.state(); down && err != nil {
		return 0, err
	}
	return f.ReadWriteCloser.Write(p)
}

// looped returns both sides of a stream, over what one writes and the other
// reads in the same goroutine.
func looped(t testing.TB) (c, s *Stream) {
	t.Helper()
	a, b := loop{&bytes.Buffer{}}, loop{&bytes.Buffer{}}
	session := noise.Session{Initiator: true, Hash: [64]byte{3}}
	c, err := New(a, session, Options{KeepAlive: -1})
	if err != nil {
		t.Fatal(err)
	}
	session.Initiator = false
	s, err = New(b, session, Options{KeepAlive: -1})
	if err != nil {
		t.Fatal(err)
	}
	c.background.Wait()
	s.background.Wait()
	s.conn = a
	return c, s
}

func TestMessagesDoNotAllocate(t *testing.T) {
	needQuietAEAD(t)
	c, s := looped(t)
	for _, size := range []int{0, 100, 65536} {
		p := content(size)
		allocs := testing.AllocsPerRun(20, func() {
			if err := c.WriteMessage(p); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Next(); err != nil || len(got) != size {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		})
		if allocs > 0 {
			t.Errorf("%v allocations for a message of %d bytes", allocs, size)
		}
	}
}

// loop is a connection that reads what was written to it.
type loop struct{ *bytes.Buffer }

func (loop) Close() error { return nil }

// FuzzStream hands any bytes to a side at any stage of a stream. It must not
// panic, deliver anything, take much more memory than it was given, or go on.
func FuzzStream(f *testing.F) {
	f.Add(uint8(0), []byte{32, 0, 0})
	f.Add(uint8(0), append([]byte{32, 0, 0}, make([]byte, 32)...))
	f.Add(uint8(1), append([]byte{96, 0, 0}, make([]byte, 96)...))
	f.Add(uint8(2), append([]byte{56, 0, 0}, make([]byte, 56)...))
	f.Add(uint8(3), append([]byte{17, 0, 0}, make([]byte, 17)...))
	f.Add(uint8(3), []byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stage uint8, in []byte) {
		feed := func(in []byte) end {
			e := end{newWire(0), newWire(0)}
			e.in.Write(in)
			e.in.close()
			return e
		}
		var s *Stream
		var err error
		switch stage % 4 {
		case 0:
			s, err = Server(t.Context(), feed(in), quiet(1))
		case 1:
			s, err = Client(t.Context(), feed(in), quiet(1))
		case 2:
			s, err = New(feed(in), noise.Session{Hash: [64]byte{1}}, quiet(1))
		case 3:
			session := noise.Session{Hash: [64]byte{1}}
			id := streamID(&session.Hash, true)
			header := append(appendLength(nil, headerBody), id[:]...)
			header = append(header, make([]byte, HeaderSize)...)
			s, err = New(feed(append(header, in...)), session, quiet(1))
		}
		if err != nil {
			return
		}
		defer s.Close()
		p, err := s.Next()
		if err == nil {
			t.Fatalf("%x was read as the message %x", in, p)
		}
		if _, again := s.Next(); again == nil || !errors.Is(again, err) {
			t.Errorf("read again after %v: %v", err, again)
		}
		if len(s.in) > 2*len(in)+busyBuffer+2*smallBuffer {
			t.Errorf("a buffer of %d bytes for %d", len(s.in), len(in))
		}
	})
}

func BenchmarkStream(b *testing.B) {
	for _, size := range []int{100, 65536} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c, s := looped(b)
			p := content(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.WriteMessage(p); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHandshake(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		x, y := pipe(0)
		c, s := connect(b, x, y, quiet(1), quiet(2))
		c.Close()
		s.Close()
	}
}

func TestTrafficIsWhatWentOverTheConnection(t *testing.T) {
	a, b := pipe(7)
	c, s := connect(t, a, b, quiet(1), quiet(2))
	start, _ := c.Traffic()
	all, _ := a.out.written()
	before := len(all)
	if err := c.WriteMessage(content(5000)); err != nil {
		t.Fatal(err)
	}
	expect(t, s, content(5000))
	sent, _ := c.Traffic()
	all, _ = a.out.written()
	_, received := s.Traffic()
	if wrote := uint64(len(all) - before); sent-start != wrote || wrote <= 5000 || received != sent {
		t.Errorf("sent %d, received %d, wrote %d", sent-start, received, wrote)
	}
}
