package protomux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tube is one end of a stream in memory that holds few messages at a time.
type tube struct {
	in, out chan []byte
	queued  [][]byte
	end     chan struct{} // closed when this end is
	peer    chan struct{}
	once    *sync.Once
	fail    atomic.Pointer[error]
	flushes int
}

func tubes(capacity int) (a, b *tube) {
	x, y := make(chan []byte, capacity), make(chan []byte, capacity)
	a = &tube{in: x, out: y, end: make(chan struct{}), once: new(sync.Once)}
	b = &tube{in: y, out: x, end: make(chan struct{}), once: new(sync.Once)}
	a.peer, b.peer = b.end, a.end
	return a, b
}

var errTube = errors.New("tube closed")

func (s *tube) Next() ([]byte, error) {
	select {
	case p := <-s.in:
		return p, nil
	default:
	}
	select {
	case p := <-s.in:
		return p, nil
	case <-s.end:
		if err := s.fail.Load(); err != nil {
			return nil, *err
		}
		return nil, errTube
	case <-s.peer:
	}
	select { // what was sent before the end
	case p := <-s.in:
		return p, nil
	default:
		return nil, io.EOF
	}
}

func (s *tube) Queue(p []byte) error {
	s.queued = append(s.queued, bytes.Clone(p))
	return nil
}

func (s *tube) Flush() error {
	s.flushes++
	for _, p := range s.queued {
		select {
		case s.out <- p:
		case <-s.end:
			return errTube
		case <-s.peer:
			return errTube
		}
	}
	s.queued = nil
	return nil
}

func (s *tube) Close() error {
	s.once.Do(func() { close(s.end) })
	return nil
}

// serve serves a mux until the end of the test, and returns a function that
// waits for what Serve returned.
func serve(t *testing.T, ctx context.Context, m *Mux, s Stream) (result func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx, s) }()
	var once sync.Once
	var err error
	result = func() error {
		once.Do(func() {
			select {
			case err = <-done:
			case <-time.After(20 * time.Second):
				stacks := make([]byte, 1<<16)
				t.Fatalf("Serve does not end:\n%s", stacks[:runtime.Stack(stacks, true)])
			}
		})
		return err
	}
	t.Cleanup(func() { m.Destroy(nil); result() })
	return result
}

func TestServedMuxesTalkAndEndInOrder(t *testing.T) {
	before := runtime.NumGoroutine()
	x, y := tubes(2)
	a, b := New(Options{}), New(Options{})
	closed := make(chan error, 2)
	onClose := func(_ *Channel, reason error) { closed <- reason }
	b.Pair("echo", nil, func(r *Request) {
		_, err := b.Open(ChannelOptions{
			Protocol: r.Protocol, ID: r.ID, OnClose: onClose,
			Messages: []func(*Channel, []byte) error{func(c *Channel, p []byte) error { return c.Send(0, p) }},
		})
		if err != nil {
			t.Error(err)
		}
	})
	answers := make(chan string)
	c := mustOpen(t, a, ChannelOptions{Protocol: "echo", OnClose: onClose, Messages: []func(*Channel, []byte) error{
		func(_ *Channel, p []byte) error { answers <- string(p); return nil },
	}})
	send(t, c, 0, "before it is served")
	aDone, bDone := serve(t, t.Context(), a, x), serve(t, t.Context(), b, y)
	check(t, "answer", <-answers, "before it is served")
	for i := range 100 {
		send(t, c, 0, fmt.Sprint(i))
		check(t, "answer", <-answers, fmt.Sprint(i))
	}
	b.Cork()
	b.Channels()[0].Send(0, []byte("last"))
	b.Uncork()
	b.Close() // after what was sent
	check(t, "answer", <-answers, "last")
	if err := bDone(); err != nil {
		t.Errorf("the side that closed: %v", err)
	}
	if err := aDone(); err != nil {
		t.Errorf("the other side: %v", err)
	}
	if x, y := <-closed, <-closed; !(x == nil && errors.Is(y, ErrClosed) || y == nil && errors.Is(x, ErrClosed)) {
		t.Errorf("the channels closed with %v and %v", x, y)
	}
	if err := c.Send(0); !errors.Is(err, ErrClosed) {
		t.Errorf("send after the end: %v", err)
	}
	if err := a.Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("wait after the end: %v", err)
	}
	if err := a.Serve(t.Context(), x); err == nil {
		t.Error("served twice")
	}
	for deadline := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
}

func TestAServedMuxEndsWithItsReason(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		what string
		end  func(m *Mux, s *tube, cancel context.CancelCauseFunc)
		want error
	}{
		{"destroyed", func(m *Mux, _ *tube, _ context.CancelCauseFunc) { m.Destroy(broken) }, broken},
		{"destroyed without a reason", func(m *Mux, _ *tube, _ context.CancelCauseFunc) { m.Destroy(nil) }, ErrClosed},
		{"context", func(_ *Mux, _ *tube, cancel context.CancelCauseFunc) { cancel(broken) }, broken},
		{"stream", func(_ *Mux, s *tube, _ context.CancelCauseFunc) { s.fail.Store(&broken); s.Close() }, broken},
		{"garbage", func(_ *Mux, s *tube, _ context.CancelCauseFunc) { s.in <- []byte{0, controlReject, 9} }, ErrProtocol},
	} {
		x, _ := tubes(1)
		m := New(Options{})
		var reason error
		opened := mustOpen(t, m, ChannelOptions{Protocol: "p", OnClose: func(_ *Channel, err error) { reason = err }})
		ctx, cancel := context.WithCancelCause(t.Context())
		done := serve(t, ctx, m, x)
		<-x.out // the open
		c.end(m, x, cancel)
		if err := done(); !errors.Is(err, c.want) {
			t.Errorf("%s: Serve returned %v, want %v", c.what, err, c.want)
		}
		if !errors.Is(reason, c.want) || !opened.Closed() {
			t.Errorf("%s: the channel got %v, want %v", c.what, reason, c.want)
		}
		cancel(nil)
	}
}

// Two sides that both write more than the stream holds go on: reading never
// waits for writing.
func TestBothSidesCanWriteMuch(t *testing.T) {
	x, y := tubes(1)
	a, b := New(Options{}), New(Options{})
	const each = 300
	var wg sync.WaitGroup
	for _, m := range []*Mux{a, b} {
		wg.Add(1)
		n := 0
		mustOpen(t, m, ChannelOptions{Protocol: "p", Messages: []func(*Channel, []byte) error{
			func(c *Channel, p []byte) error {
				if n++; n == each {
					wg.Done()
				}
				if len(p) > 1 {
					return c.Send(1, p[:1]) // more to write, from where it is read
				}
				return nil
			},
		}})
	}
	serve(t, t.Context(), a, x)
	serve(t, t.Context(), b, y)
	for _, m := range []*Mux{a, b} {
		wg.Go(func() {
			c := m.Channels()[0]
			for range each {
				if err := m.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				if err := c.Send(0, make([]byte, 30_000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWaitHoldsASenderBack(t *testing.T) {
	x, y := tubes(1)
	a := New(Options{})
	drains := make(chan struct{}, 100)
	c := mustOpen(t, a, ChannelOptions{Protocol: "p", OnDrain: func(*Channel) { drains <- struct{}{} }})
	serve(t, t.Context(), a, x)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var err error
	for tries := 0; err == nil && tries < 100; tries++ { // nobody reads
		for a.Drained() {
			if err := c.Send(0, make([]byte, 10_000)); err != nil {
				t.Fatal(err)
			}
		}
		err = a.Wait(ctx)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- a.Wait(t.Context()) }()
	go func() {
		for {
			if _, err := y.Next(); err != nil {
				return
			}
		}
	}()
	if err := <-waited; err != nil {
		t.Errorf("wait: %v", err)
	}
	<-drains
}

func TestAHeldRequestPausesTheStreamUntilItIsAnswered(t *testing.T) {
	x, y := tubes(1)
	a, b := New(Options{}), New(Options{})
	held := make(chan *Request, 1)
	b.Pair("p", nil, func(r *Request) { r.Hold(); held <- r })
	c := mustOpen(t, a, ChannelOptions{Protocol: "p"})
	serve(t, t.Context(), a, x)
	serve(t, t.Context(), b, y)
	for range 100 {
		if err := c.Send(0, make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	r := <-held
	for !b.Paused() {
		runtime.Gosched()
	}
	got := make(chan int, 100)
	mustOpen(t, b, ChannelOptions{Protocol: "p", ID: r.ID, Messages: []func(*Channel, []byte) error{
		func(_ *Channel, p []byte) error { got <- len(p); return nil },
	}})
	for range 100 {
		if n := <-got; n != 10_000 {
			t.Fatalf("%d bytes", n)
		}
	}
	b.mu.Lock()
	if b.waiting != 0 {
		t.Errorf("%d bytes are kept", b.waiting)
	}
	b.mu.Unlock()
}

func TestManyGoroutinesCanUseAServedMux(t *testing.T) {
	x, y := tubes(4)
	a, b := New(Options{}), New(Options{})
	b.Pair("p", nil, func(r *Request) {
		_, err := b.Open(ChannelOptions{Protocol: "p", ID: r.ID, Messages: []func(*Channel, []byte) error{
			func(c *Channel, p []byte) error { return c.Send(0, p) },
		}})
		if err != nil {
			t.Error(err)
		}
	})
	aDone := serve(t, t.Context(), a, x)
	serve(t, t.Context(), b, y)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 30 {
				opened, back := make(chan struct{}), make(chan []byte, 10)
				c, err := a.Open(ChannelOptions{
					Protocol: "p", ID: []byte{byte(w), byte(i)},
					OnOpen:   func(*Channel, []byte) error { close(opened); return nil },
					Messages: []func(*Channel, []byte) error{func(_ *Channel, p []byte) error { back <- bytes.Clone(p); return nil }},
				})
				if err != nil {
					t.Error(err)
					return
				}
				for n := range 3 {
					c.Cork()
					err := c.Send(0, []byte{byte(n)})
					c.Uncork()
					if err != nil {
						t.Error(err)
					}
				}
				<-opened
				for n := range 3 {
					if p := <-back; len(p) != 1 || p[0] != byte(n) {
						t.Errorf("got %v, want %d", p, n)
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	a.Close()
	if err := aDone(); err != nil {
		t.Error(err)
	}
}

func TestAnIdleMuxHoldsNoGoroutineButTheReader(t *testing.T) {
	before := runtime.NumGoroutine()
	x, y := tubes(1)
	a, b := New(Options{}), New(Options{})
	mustOpen(t, a, ChannelOptions{Protocol: "p"})
	mustOpen(t, b, ChannelOptions{Protocol: "p"})
	serve(t, t.Context(), a, x)
	serve(t, t.Context(), b, y)
	opened := func(m *Mux) bool { return m.Channels()[0].Opened() }
	for deadline := time.Now().Add(2 * time.Second); !opened(a) || !opened(b) || runtime.NumGoroutine() > before+2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d with two idle muxes", before, runtime.NumGoroutine())
		}
	}
}
