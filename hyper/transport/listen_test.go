package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

func TestListenSaysWhatIsWrong(t *testing.T) {
	taken, err := Listen(t.Context(), "tcp://127.0.0.1:0", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct{ addr, want string }{
		{"udp://127.0.0.1:0", `listen "udp://127.0.0.1:0": unknown scheme "udp": there are tcp, ws and wss`},
		{taken.Addr(), "listen " + taken.Addr() + ": address already in use"},
		{"wss://127.0.0.1:0/", "listen wss://127.0.0.1:0/: wss needs a certificate, in ListenOptions.TLS"},
		{"ws://127.0.0.1:0/?a", "listen ws://127.0.0.1:0/?a: an address to listen at has no query and no user"},
	} {
		if l, err := Listen(t.Context(), c.addr, ListenOptions{}); l != nil || err == nil || err.Error() != c.want {
			t.Errorf("listen at %s:\n got %v\nwant %s", c.addr, err, c.want)
		}
	}
}

func TestListenersEnd(t *testing.T) {
	for _, addr := range []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0"} {
		l, err := Listen(t.Context(), addr, ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		bored := errors.New("bored")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(bored)
		if _, err := l.Accept(ctx); err != bored {
			t.Errorf("accept after the end of its context: %v", err)
		}
		a, err := Dial(t.Context(), l.Addr(), DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		forgotten, err := Dial(t.Context(), l.Addr(), DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		waiting := make(chan error)
		for range 2 {
			go func() {
				for {
					c, err := l.Accept(t.Context())
					if err != nil {
						waiting <- err
						return
					}
					c.Close() // it may be the one that was to be forgotten
				}
			}()
		}
		for range 2 {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		for range 2 {
			if err := <-waiting; !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), l.Addr()) {
				t.Errorf("accept: %v", err)
			}
		}
		if _, err := io.Copy(io.Discard, forgotten); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("a connection that was not accepted: %v", err)
		}
		// What was accepted goes on.
		if _, err := a.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if n, err := b.Read(make([]byte, 9)); n != 1 || err != nil {
			t.Error(n, err)
		}
		if _, err := Dial(t.Context(), l.Addr(), DialOptions{}); err == nil || !strings.HasSuffix(err.Error(), ": connection refused") {
			t.Errorf("dial a closed listener: %v", err)
		}
		for _, c := range []Conn{a, b, forgotten} {
			c.Close()
		}
	}
}

// A listener that is closed while clients connect cuts off none of those that
// have a WebSocket by then.
func TestClosingCutsNoWebSocket(t *testing.T) {
	for range 50 {
		l, err := Listen(t.Context(), "ws://127.0.0.1:0", ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var dialing sync.WaitGroup
		for range 4 {
			dialing.Go(func() {
				c, err := Dial(t.Context(), l.Addr(), DialOptions{})
				l.Close()
				if err != nil {
					return // it was too late
				}
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Errorf("a connection that was not accepted: %v", err)
				}
				c.Close()
			})
		}
		dialing.Wait()
	}
}

func TestPendingConnectionsAreBounded(t *testing.T) {
	l, err := Listen(t.Context(), "ws://127.0.0.1:0", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var silent []net.Conn
	for range maxPending + 10 {
		silent = append(silent, connectRaw(t, l))
	}
	waitUntil(t, "all places are taken", func() bool { return len(l.slots) == maxPending })
	var dialing sync.WaitGroup
	dialing.Go(func() {
		c, err := Dial(t.Context(), l.Addr(), DialOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	})
	for _, c := range silent {
		c.Close()
	}
	c, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dialing.Wait()
	c.Close()
	waitUntil(t, "all places are free but the one for whoever comes next", func() bool { return len(l.slots) <= 1 })
}

func TestIdleConnectionsHoldNoGoroutine(t *testing.T) {
	for _, addr := range []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0"} {
		l, err := Listen(t.Context(), addr, ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		before := runtime.NumGoroutine()
		var conns []Conn
		for range 20 {
			a, err := Dial(t.Context(), l.Addr(), DialOptions{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := l.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, a, b)
		}
		waitUntil(t, "the goroutines of the handshakes end", func() bool { return runtime.NumGoroutine() <= before })
		for _, c := range conns {
			c.Close()
		}
		// Both sides close, so nothing lingers.
		waitUntil(t, "the goroutines of the ends end", func() bool { return runtime.NumGoroutine() <= before })
		l.Close()
	}
}

// A peer that neither answers nor ends holds a closed connection for a while
// only.
func TestLingeringEnds(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	for _, addr := range []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0"} {
		l, err := Listen(t.Context(), addr, ListenOptions{Clock: fake})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		raw := connectRaw(t, l)
		if strings.HasPrefix(addr, "ws") {
			raw.Write([]byte(sampleRequest + "\r\n"))
		}
		b, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := runtime.NumGoroutine()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		waitUntil(t, "it lingers", func() bool { return fake.Waiting() == 1 })
		if _, err := raw.Write([]byte("nobody reads this")); err != nil {
			t.Errorf("write to a connection that lingers: %v", err)
		}
		fake.Advance(lingerTime)
		waitUntil(t, "it lingers no more", func() bool { return fake.Waiting() == 0 && runtime.NumGoroutine() <= before })
		for err == nil {
			_, err = raw.Write(make([]byte, 1<<10))
		}
	}
}
