package udx_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/hyper/transport/transporttest"
	"github.com/cloudbevy/bevy/hyper/udx"
)

var (
	_ net.Conn       = (*udx.Stream)(nil)
	_ transport.Conn = (*udx.Stream)(nil)
)

// loopback is any port of this machine.
var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// A peer is a UDX with a socket.
type peer struct {
	t      testing.TB
	udx    *udx.UDX
	socket *udx.Socket
}

// listen returns a peer on a network. Its socket is closed with the test.
func listen(t testing.TB, network packet.Network, addr netip.AddrPort, o udx.SocketOptions) *peer {
	t.Helper()
	u := udx.New(udx.Options{Network: network})
	k, err := u.Listen(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return &peer{t, u, k}
}

// on returns a peer on a host of a network in memory.
func on(t testing.TB, host *packet.SimHost, o udx.SocketOptions) *peer {
	t.Helper()
	return listen(t, host, netip.AddrPortFrom(host.Addr(), 0), o)
}

func (p *peer) stream(o udx.StreamOptions) *udx.Stream {
	p.t.Helper()
	s, err := p.udx.NewStream(o)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *peer) connect(s *udx.Stream, id uint32, to *peer) {
	p.t.Helper()
	if err := s.Connect(p.socket, id, to.socket.LocalAddr()); err != nil {
		p.t.Fatal(err)
	}
}

// join returns connected streams of two peers.
func join(a, b *peer) (*udx.Stream, *udx.Stream) {
	s, r := a.stream(udx.StreamOptions{}), b.stream(udx.StreamOptions{})
	a.connect(s, r.ID(), b)
	b.connect(r, s.ID(), a)
	return s, r
}

func TestStreamIsATransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (a, b transport.Conn) {
		return join(listen(t, packet.System, loopback, udx.SocketOptions{}), listen(t, packet.System, loopback, udx.SocketOptions{}))
	})
}

// inMemory runs a test on a network in memory, in a time of its own.
func inMemory(t *testing.T, f func(t *testing.T, sim *packet.Sim)) {
	synctest.Test(t, func(t *testing.T) { f(t, packet.NewSim(clock.System, 1)) })
}

// pair returns connected streams of two hosts, the links of which are l.
func pair(t *testing.T, sim *packet.Sim, l packet.Link) (a, b *udx.Stream) {
	hosts := [2]*packet.SimHost{sim.Host(), sim.Host()}
	hosts[0].SetLink(l)
	return join(on(t, hosts[0], udx.SocketOptions{}), on(t, hosts[1], udx.SocketOptions{}))
}

// pattern returns n bytes that don't repeat soon.
func pattern(n int) []byte {
	p := make([]byte, n)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

// together runs functions at once, and fails the test with what goes wrong.
func together(t *testing.T, fs ...func() error) {
	t.Helper()
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// sends writes data and ends.
func sends(s *udx.Stream, data []byte) func() error {
	return func() error {
		_, err := s.Write(data)
		return errors.Join(err, s.CloseWrite())
	}
}

// gets reads data and the end.
func gets(s *udx.Stream, data []byte) func() error {
	return func() error {
		got, err := io.ReadAll(s)
		if err == nil && !bytes.Equal(got, data) {
			err = errors.New("read other bytes than were written")
		}
		return err
	}
}

func TestStreamsCrossBadLines(t *testing.T) {
	for name, l := range map[string]packet.Link{
		"loss":      {Delay: 10 * time.Millisecond, Loss: 0.03},
		"all":       {Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.02, Duplicate: 0.05, Reorder: 0.05},
		"small mtu": {Delay: 10 * time.Millisecond, MTU: 1280},
		"slow":      {Delay: 10 * time.Millisecond, Rate: 20e6, Queue: 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, sim *packet.Sim) {
				a, b := pair(t, sim, l)
				forth, back := pattern(1<<20), pattern(300_000)
				together(t, sends(a, forth), gets(b, forth), sends(b, back), gets(a, back))
				<-a.Done()
				<-b.Done()
				if err := errors.Join(a.Err(), b.Err()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestStreamsGoOverIPv6(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a := on(t, sim.Host(netip.MustParseAddr("2001:db8::1")), udx.SocketOptions{})
		b := on(t, sim.Host(netip.MustParseAddr("2001:db8::2")), udx.SocketOptions{})
		s, r := join(a, b)
		data := pattern(1 << 20)
		together(t, sends(s, data), gets(r, data))
		if got := s.Stats(); got.MTU < 1300 || got.Lost != 0 {
			t.Errorf("%+v", got)
		}
		if s.SendMessage(make([]byte, 1500-68)) != nil || s.SendMessage(make([]byte, 1501-68)) == nil {
			t.Error("a packet is not as large as it can be")
		}
	})
}

func TestIdleStreamHoldsNothing(t *testing.T) {
	fake := clock.NewFake(time.Unix(1000, 0))
	sim := packet.NewSim(fake, 1)
	hosts := [2]*packet.SimHost{sim.Host(), sim.Host()}
	var peers [2]*peer
	for i, h := range hosts {
		u := udx.New(udx.Options{Network: h, Clock: fake})
		k, err := u.Listen(netip.AddrPortFrom(h.Addr(), 0), udx.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		peers[i] = &peer{t, u, k}
	}
	before := runtime.NumGoroutine()
	const n = 100
	var streams [n][2]*udx.Stream
	for i := range streams {
		a, b := join(peers[0], peers[1])
		streams[i] = [2]*udx.Stream{a, b}
		if _, err := a.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	fake.Advance(3 * time.Second)
	for _, s := range streams {
		if n, err := s[1].Read(make([]byte, 10)); n != 5 || err != nil {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	}
	if fake.Waiting() != 0 || runtime.NumGoroutine() > before {
		t.Errorf("%d idle streams hold %d timers and %d goroutines", n, fake.Waiting(), runtime.NumGoroutine()-before)
	}
	// A heartbeat is all the more there is, and its answer.
	streams[0][0].SetKeepAlive(10 * time.Second)
	if fake.Waiting() != 1 {
		t.Errorf("%d timers for one heartbeat", fake.Waiting())
	}
	got := streams[0][1].Stats().PacketsReceived
	fake.Advance(100*time.Second + 500*time.Millisecond)
	if got := streams[0][1].Stats().PacketsReceived - got; got != 10 {
		t.Errorf("%d heartbeats in 100 s", got)
	}
	// Closed streams are forgotten.
	for _, s := range streams {
		s[0].Close()
		s[1].Close()
	}
	fake.Advance(time.Minute)
	if fake.Waiting() != 0 || peers[0].socket.Streams() != 0 {
		t.Errorf("%d timers, %d streams after all were closed", fake.Waiting(), peers[0].socket.Streams())
	}
	for _, s := range streams {
		for i := range s {
			select {
			case <-s[i].Done():
			default:
				t.Fatal("a stream that both sides closed isn't over")
			}
			if err := s[i].Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDeadlines(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := pair(t, sim, packet.Link{})
		start := time.Now()
		a.SetReadDeadline(start.Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		a.SetWriteDeadline(start.Add(time.Minute))
		big := make([]byte, 32<<20)
		n, err := a.Write(big)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n < 4<<20 || n > 5<<20 || time.Since(start) != time.Minute {
			t.Errorf("write: %d, %v after %v", n, err, time.Since(start))
		}
		// A deadline that is taken away is none.
		a.SetDeadline(time.Time{})
		together(t,
			func() error { _, err := a.Write([]byte("x")); return err },
			func() error { _, err := io.CopyN(io.Discard, b, int64(n)+1); return err },
		)
		// One that is set while somebody waits counts.
		time.AfterFunc(time.Second, func() { a.SetReadDeadline(time.Now()) })
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		var timeout net.Error
		if _, err := a.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
	})
}

func TestSocketIsSharedWithOtherDatagrams(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		got := make(chan string, 10)
		idle := make(chan bool, 10)
		a := on(t, sim.Host(), udx.SocketOptions{Idle: func(*udx.Socket) { idle <- true }})
		b := on(t, sim.Host(), udx.SocketOptions{Receive: func(_ *udx.Socket, from netip.AddrPort, data []byte) {
			if from == a.socket.LocalAddr() {
				got <- string(data)
			}
		}})
		s, r := join(a, b)
		unknown := "\xff\x01\x01\x00" + strings.Repeat("\x07", 16) + "a stream that isn't there"
		for _, text := range []string{"ping", "", unknown} {
			if err := a.socket.Send(b.socket.LocalAddr(), []byte(text)); err != nil {
				t.Fatal(err)
			}
			if g := <-got; g != text {
				t.Errorf("got %q, want %q", g, text)
			}
		}
		// A datagram that doesn't get far.
		a.socket.SendTTL(b.socket.LocalAddr(), []byte("far"), 2)
		data := pattern(10_000)
		together(t, sends(s, data), gets(r, data))
		if len(got) != 0 || a.socket.Streams() != 1 {
			t.Errorf("%d datagrams, %d streams", len(got), a.socket.Streams())
		}
		s.Destroy()
		<-idle
		if _, err := r.Write([]byte("x")); err == nil {
			<-r.Done()
		}
		if err := r.Err(); !errors.Is(err, udx.ErrReset) {
			t.Errorf("error %v", err)
		}
		a.socket.Close()
		if err := a.socket.Send(b.socket.LocalAddr(), nil); !errors.Is(err, packet.ErrClosed) {
			t.Errorf("send after Close: %v", err)
		}
	})
}

func TestMessagesGoBesideTheBytes(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := on(t, sim.Host(), udx.SocketOptions{}), on(t, sim.Host(), udx.SocketOptions{})
		got := make(chan []byte, 10)
		s := a.stream(udx.StreamOptions{})
		r := b.stream(udx.StreamOptions{Message: func(p []byte) { got <- bytes.Clone(p) }})
		if s.SendMessage([]byte("early")) == nil {
			t.Error("a stream that isn't connected sends a message")
		}
		a.connect(s, r.ID(), b)
		b.connect(r, s.ID(), a)
		for _, n := range []int{0, 1, 1400} {
			if err := s.SendMessage(pattern(n)); err != nil {
				t.Fatal(err)
			}
			if p := <-got; !bytes.Equal(p, pattern(n)) {
				t.Errorf("%d bytes came of %d", len(p), n)
			}
		}
		if s.SendMessage(make([]byte, 1500)) == nil {
			t.Error("a message that is too large was sent")
		}
	})
}

func TestMessagesOfOthersAreDropped(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := on(t, sim.Host(), udx.SocketOptions{}), on(t, sim.Host(), udx.SocketOptions{})
		got := make(chan string, 10)
		r := b.stream(udx.StreamOptions{Message: func(p []byte) { got <- string(p) }})
		b.connect(r, 7, a)
		for _, message := range []struct {
			seq, ack uint32
			text     string
		}{{0, 1, "acks what was not sent"}, {1 << 20, 0, "is from nowhere"}, {0, 0, "fits"}} {
			a.socket.Send(b.socket.LocalAddr(), append(forged(8, r.ID(), message.seq, message.ack), message.text...))
			time.Sleep(time.Second)
		}
		if text := <-got; text != "fits" || len(got) != 0 {
			t.Errorf("a message came that %s", text)
		}
		if silence := r.Stats().Silence; silence < time.Second/2 || silence > time.Second {
			t.Errorf("nothing came for %v", silence)
		}
		a.socket.Send(b.socket.LocalAddr(), forged(32, r.ID(), 1<<20, 0))
		time.Sleep(time.Second)
		if silence := r.Stats().Silence; silence < time.Second {
			t.Errorf("a heartbeat from nowhere is heard")
		}
		r.Close()
		a.socket.Send(b.socket.LocalAddr(), append(forged(8, r.ID(), 0, 0), "late"...))
		time.Sleep(time.Second)
		if len(got) != 0 {
			t.Error("a message came to a stream that was closed")
		}
	})
}

func TestClosedSocketTakesNoStreams(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a := on(t, sim.Host(), udx.SocketOptions{})
		s, r := a.stream(udx.StreamOptions{}), a.stream(udx.StreamOptions{})
		other := listen(t, sim.Host(), netip.MustParseAddrPort("0.0.0.0:0"), udx.SocketOptions{})
		remote := other.socket.LocalAddr()
		a.connect(r, 1, other)
		k, err := a.udx.Listen(netip.MustParseAddrPort("0.0.0.0:0"), udx.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		if err := s.Connect(k, 1, remote); !errors.Is(err, packet.ErrClosed) {
			t.Errorf("connect: %v", err)
		}
		if err := r.ChangeRemote(k, 1, remote, nil); !errors.Is(err, packet.ErrClosed) {
			t.Errorf("move: %v", err)
		}
		if err := s.Connect(a.socket, 1, remote); err != nil {
			t.Error(err)
		}
		s.Destroy()
		r.Destroy()
	})
}

func TestFirewallConnects(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := on(t, sim.Host(), udx.SocketOptions{}), on(t, sim.Host(), udx.SocketOptions{})
		s := a.stream(udx.StreamOptions{})
		var r *udx.Stream
		asked := 0
		r = b.stream(udx.StreamOptions{Firewall: func(k *udx.Socket, from netip.AddrPort) bool {
			if asked++; asked == 1 {
				return false
			}
			if err := r.Connect(k, s.ID(), from); err != nil {
				t.Error(err)
			}
			return true
		}})
		a.connect(s, r.ID(), b)
		data := pattern(100_000)
		together(t, sends(s, data), gets(r, data))
		if asked < 2 || !r.Connected() || r.RemoteAddrPort() != a.socket.LocalAddr() || r.RemoteID() != s.ID() {
			t.Errorf("asked %d times, connected to %v", asked, r.RemoteAddrPort())
		}
		// One without is closed to all.
		closed := b.stream(udx.StreamOptions{})
		s = a.stream(udx.StreamOptions{})
		a.connect(s, closed.ID(), b)
		s.Write([]byte("knock"))
		time.Sleep(time.Second)
		if n := closed.Stats().PacketsReceived; n != 0 {
			t.Errorf("%d packets were taken", n)
		}
		closed.Close()
		<-closed.Done()
	})
}

func TestWriteBeforeConnecting(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := on(t, sim.Host(), udx.SocketOptions{}), on(t, sim.Host(), udx.SocketOptions{})
		s := a.stream(udx.StreamOptions{})
		r := b.stream(udx.StreamOptions{Firewall: func(*udx.Socket, netip.AddrPort) bool { return true }})
		data := pattern(1 << 20)
		time.AfterFunc(time.Second, func() { a.connect(s, r.ID(), b) })
		time.AfterFunc(2*time.Second, func() { b.connect(r, s.ID(), a) })
		together(t, sends(s, data), gets(r, data))
	})
}

func TestFlushWaitsForTheOtherSide(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := pair(t, sim, packet.Link{Delay: 100 * time.Millisecond})
		start := time.Now()
		a.Write([]byte("x"))
		if err := a.Flush(t.Context()); err != nil || time.Since(start) < 200*time.Millisecond || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a.Write(make([]byte, 5<<20)[:200_000])
		b.Destroy()
		if err := a.Flush(ctx); !errors.Is(err, udx.ErrReset) {
			t.Errorf("flush to who is gone: %v", err)
		}
	})
}

func TestStreamMovesAndLosesNothing(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		l := packet.Link{Rate: 50e6, Queue: 100_000, Loss: 0.005}
		hosts := [2]*packet.SimHost{sim.Host(), sim.Host()}
		hosts[0].SetLink(l)
		a, b := on(t, hosts[0], udx.SocketOptions{}), on(t, hosts[1], udx.SocketOptions{})
		second, err := b.udx.Listen(netip.AddrPortFrom(hosts[1].Addr(), 0), udx.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		var told netip.AddrPort
		s := a.stream(udx.StreamOptions{Remote: func(from netip.AddrPort) { told = from }})
		r := b.stream(udx.StreamOptions{Firewall: func(*udx.Socket, netip.AddrPort) bool { return true }})
		a.connect(s, r.ID(), b)
		b.connect(r, s.ID(), a)
		forth, back := pattern(2<<20), pattern(2<<20)
		half := make(chan bool)
		moved := make(chan bool, 2)
		together(t,
			sends(s, forth), sends(r, back),
			func() error {
				got := make([]byte, len(forth)/2)
				if _, err := io.ReadFull(r, got); err != nil {
					return err
				}
				close(half)
				return gets(r, forth[len(got):])()
			},
			gets(s, back),
			func() error {
				<-half
				// First one side moves to another socket, then the other follows.
				if err := r.ChangeRemote(second, s.ID(), a.socket.LocalAddr(), func() { moved <- true }); err != nil {
					return err
				}
				if b.socket.Streams() != 1 || second.Streams() != 1 {
					return errors.New("the old socket is given up with packets on their way")
				}
				<-moved
				if b.socket.Streams() != 0 || told != second.LocalAddr() {
					return errors.New("the old socket is not given up, or nobody was told: " + told.String())
				}
				if err := s.ChangeRemote(a.socket, r.ID(), second.LocalAddr(), func() { moved <- true }); err != nil {
					return err
				}
				<-moved
				return b.socket.Close() // nobody needs it any more
			},
		)
	})
}

func TestFollowsWhoCantBeAnswered(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := on(t, sim.Host(), udx.SocketOptions{}), on(t, sim.Host(), udx.SocketOptions{})
		other, err := a.udx.Listen(netip.AddrPortFrom(a.socket.LocalAddr().Addr(), 0), udx.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		told := 0
		var r *udx.Stream
		s := a.stream(udx.StreamOptions{})
		r = b.stream(udx.StreamOptions{Remote: func(from netip.AddrPort) {
			if told++; from != other.LocalAddr() {
				t.Errorf("told of %v", from)
			}
			if err := r.ChangeRemote(b.socket, r.RemoteID(), from, nil); err != nil {
				t.Error(err)
			}
		}})
		a.connect(s, r.ID(), b)
		b.connect(r, s.ID(), a)
		// The first address of a hears nothing any more. What was sent from there has
		// arrived, so all that comes from the second one is known.
		sim.SetFilter(func(_, to netip.AddrPort, _ []byte) bool { return to != a.socket.LocalAddr() })
		s.Write([]byte("hello"))
		if err := s.ChangeRemote(other, r.ID(), b.socket.LocalAddr(), nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := s.Flush(ctx); err != nil || told != 1 {
			t.Errorf("%v, told %d times", err, told)
		}
		if got := s.Stats(); got.Silence > time.Second {
			t.Errorf("%+v", got)
		}
	})
}

func TestFollowsWhoGoesAwayAndComesBack(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := on(t, sim.Host(), udx.SocketOptions{}), on(t, sim.Host(), udx.SocketOptions{})
		other, err := a.udx.Listen(netip.AddrPortFrom(a.socket.LocalAddr().Addr(), 0), udx.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		var told []netip.AddrPort
		var r *udx.Stream
		s := a.stream(udx.StreamOptions{})
		r = b.stream(udx.StreamOptions{Remote: func(from netip.AddrPort) {
			told = append(told, from)
			if err := r.ChangeRemote(b.socket, r.RemoteID(), from, nil); err != nil {
				t.Error(err)
			}
		}})
		a.connect(s, r.ID(), b)
		b.connect(r, s.ID(), a)
		for i, k := range []*udx.Socket{other, a.socket, other} {
			if err := s.ChangeRemote(k, r.ID(), b.socket.LocalAddr(), nil); err != nil {
				t.Fatal(err)
			}
			for range 30 {
				s.Write([]byte("hello"))
				time.Sleep(time.Second)
			}
			if len(told) != i+1 || told[i] != k.LocalAddr() || r.RemoteAddrPort() != k.LocalAddr() {
				t.Fatalf("told of %v when the other side moved to %v", told, k.LocalAddr())
			}
		}
	})
}

// relayed returns streams of a and b that find one another through c.
func relayed(a, b, c *peer) (s, r, toA, toB *udx.Stream) {
	return relayedIf(a, b, c, nil)
}

// relayedIf is relayed with a c that asks what to pass on.
func relayedIf(a, b, c *peer, pass func(int) bool) (s, r, toA, toB *udx.Stream) {
	s, r = a.stream(udx.StreamOptions{}), b.stream(udx.StreamOptions{})
	toA, toB = c.stream(udx.StreamOptions{Relay: pass}), c.stream(udx.StreamOptions{Relay: pass})
	a.connect(s, toA.ID(), c)
	b.connect(r, toB.ID(), c)
	c.connect(toA, s.ID(), a)
	c.connect(toB, r.ID(), b)
	for _, err := range []error{toA.RelayTo(toB), toB.RelayTo(toA)} {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return s, r, toA, toB
}

func TestRelayPassesOnAndEndsWithEitherSide(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		var peers [3]*peer
		for i := range peers {
			peers[i] = on(t, sim.Host(), udx.SocketOptions{})
		}
		s, r, toA, toB := relayed(peers[0], peers[1], peers[2])
		forth, back := pattern(1<<20), pattern(1<<20)
		together(t, sends(s, forth), gets(r, forth), sends(r, back), gets(s, back))
		<-s.Done()
		<-r.Done()
		if n := toA.Stats().BytesReceived; n < 1<<20 || n > 3<<20 {
			t.Errorf("%d bytes were passed on", n)
		}
		toA.Destroy()
		<-toB.Done()

		s, r, toA, toB = relayed(peers[0], peers[1], peers[2])
		together(t, func() error { _, err := s.Write([]byte("x")); return err }, func() error { _, err := io.ReadFull(r, make([]byte, 1)); return err })
		s.Destroy()
		for _, s := range []*udx.Stream{r, toA, toB} {
			<-s.Done()
			if err := s.Err(); !errors.Is(err, udx.ErrReset) {
				t.Errorf("error %v", err)
			}
		}
		// The relay ends both of its streams at once, and says nothing.
		s, r, toA, toB = relayed(peers[0], peers[1], peers[2])
		together(t, func() error { _, err := s.Write([]byte("x")); return err }, func() error { _, err := io.ReadFull(r, make([]byte, 1)); return err })
		time.Sleep(time.Second)
		toB.Destroy()
		<-toA.Done()
		time.Sleep(time.Second)
		if !s.Connected() || !r.Connected() {
			t.Errorf("errors %v and %v", s.Err(), r.Err())
		}
		if n := peers[2].socket.Streams(); n != 0 {
			t.Errorf("the relay has %d streams", n)
		}
	})
}

func TestRelayEndsForNobodyElse(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		var peers [4]*peer
		for i := range peers {
			peers[i] = on(t, sim.Host(), udx.SocketOptions{})
		}
		s, r, toA, _ := relayed(peers[0], peers[1], peers[2])
		together(t, func() error { _, err := s.Write([]byte("x")); return err }, func() error { _, err := io.ReadFull(r, make([]byte, 1)); return err })
		peers[3].socket.Send(peers[2].socket.LocalAddr(), destroy(toA.ID(), 1))
		time.Sleep(time.Second)
		if !toA.Connected() || !r.Connected() {
			t.Errorf("a stranger ended a relayed stream: %v, %v", toA.Err(), r.Err())
		}

		// Who can't be relayed to what has ended is still there for something else.
		over, other := peers[2].stream(udx.StreamOptions{}), peers[2].stream(udx.StreamOptions{})
		over.Destroy()
		q, end := join(peers[0], peers[2])
		if err := end.RelayTo(over); !errors.Is(err, packet.ErrClosed) {
			t.Errorf("error %v", err)
		}
		if err := end.RelayTo(other); err != nil {
			t.Error(err)
		}
		if end.RelayTo(s) == nil || end.RelayTo(other) == nil {
			t.Error("a stream is relayed twice")
		}
		other.Destroy()
		<-end.Done()
		q.Destroy()
	})
}

// destroy is the packet that ends a stream, if the seq is one that it awaits.
func destroy(id, seq uint32) []byte { return forged(16, id, seq, 0) }

// forged is the beginning of a packet of any kind.
func forged(kind byte, id, seq, ack uint32) []byte {
	p := binary.LittleEndian.AppendUint32([]byte{0xff, 1, kind, 0}, id)
	p = binary.LittleEndian.AppendUint32(p, 4<<20)
	p = binary.LittleEndian.AppendUint32(p, seq)
	return binary.LittleEndian.AppendUint32(p, ack)
}

func TestRelayAsksForEachPacket(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		var peers [3]*peer
		for i := range peers {
			peers[i] = on(t, sim.Host(), udx.SocketOptions{})
		}
		left := 100_000
		s, r, toA, toB := relayedIf(peers[0], peers[1], peers[2], func(size int) bool {
			left -= size
			return left >= 0
		})
		go s.Write(pattern(1 << 20))
		time.Sleep(10 * time.Second)
		passed := toA.Stats().BytesSent + toB.Stats().BytesSent
		if passed > 100_000 || passed < 90_000 || toA.Stats().BytesReceived <= passed {
			t.Errorf("%d bytes were passed on of %d", passed, toA.Stats().BytesReceived)
		}
		s.Destroy() // that is passed on whatever the answer
		<-r.Done()
	})
}

func TestUpgradeFromARelayToTheDirectPath(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		var peers [3]*peer
		for i := range peers {
			h := sim.Host()
			h.SetLink(packet.Link{Rate: 50e6, Queue: 100_000})
			peers[i] = on(t, h, udx.SocketOptions{})
		}
		a, b := peers[0], peers[1]
		s, r, toA, _ := relayed(a, b, peers[2])
		forth, back := pattern(3<<20), pattern(3<<20)
		half := make(chan bool)
		together(t, sends(s, forth), sends(r, back), gets(s, back),
			func() error {
				got := make([]byte, len(forth)/2)
				_, err := io.ReadFull(r, got)
				close(half)
				return errors.Join(err, gets(r, forth[len(got):])())
			},
			func() error {
				<-half
				moved := make(chan bool, 2)
				err := errors.Join(
					s.ChangeRemote(a.socket, r.ID(), b.socket.LocalAddr(), func() { moved <- true }),
					r.ChangeRemote(b.socket, s.ID(), a.socket.LocalAddr(), func() { moved <- true }))
				<-moved
				<-moved
				toA.Destroy()
				// Who was a relay can't end it any more, whatever it knows.
				time.Sleep(100 * time.Millisecond)
				dropped := s.Stats().PacketsDropped
				for seq := range 1500 {
					err = errors.Join(err, peers[2].socket.Send(a.socket.LocalAddr(), destroy(s.ID(), uint32(seq))))
				}
				time.Sleep(100 * time.Millisecond)
				if n := s.Stats().PacketsDropped - dropped; n != 1500 {
					err = errors.Join(err, fmt.Errorf("%d packets were dropped", n))
				}
				return err
			},
		)
	})
}

func TestCallbacksMayCallBack(t *testing.T) {
	inMemory(t, func(t *testing.T, sim *packet.Sim) {
		a, b := pair(t, sim, packet.Link{})
		over := make(chan error, 3)
		for range 2 {
			a.OnClose(func(err error) {
				a.Stats()
				a.Close()
				over <- err
			})
		}
		b.Destroy()
		<-a.Done()
		a.OnClose(func(err error) { over <- err })
		for range 3 {
			if err := <-over; !errors.Is(err, udx.ErrReset) {
				t.Errorf("error %v", err)
			}
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("a stream that was dropped takes bytes")
		}
	})
}

func TestManyCallsAtOnce(t *testing.T) {
	a := listen(t, packet.System, loopback, udx.SocketOptions{Idle: func(k *udx.Socket) { k.Streams() }})
	b := listen(t, packet.System, loopback, udx.SocketOptions{})
	var wg sync.WaitGroup
	for i := range 6 {
		s, r := join(a, b)
		s.OnClose(func(error) { s.Stats() })
		wg.Go(func() {
			defer r.Close()
			io.Copy(io.Discard, r)
		})
		for range 2 {
			wg.Go(func() {
				for {
					if _, err := s.Write(make([]byte, 10_000)); err != nil {
						return
					}
				}
			})
		}
		wg.Go(func() {
			for j := range 15 {
				s.SetKeepAlive(time.Duration(j) * time.Millisecond)
				s.SetReadDeadline(time.Now().Add(time.Millisecond))
				s.Read(make([]byte, 1))
				s.SendMessage([]byte("hi"))
				s.ChangeRemote(a.socket, r.ID(), b.socket.LocalAddr(), func() { s.Stats() })
				s.Flush(t.Context())
			}
			if i%3 == 0 {
				s.Destroy()
			}
			s.Close()
			if i%3 == 1 {
				s.Destroy()
			}
		})
	}
	wg.Wait()
	a.socket.Close()
	b.socket.Close()
	if n := a.socket.Streams() + b.socket.Streams(); n != 0 {
		t.Errorf("%d streams on closed sockets", n)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	a := listen(t, packet.System, loopback, udx.SocketOptions{})
	b := listen(t, packet.System, loopback, udx.SocketOptions{})
	for range 50 {
		s, r := join(a, b)
		data := pattern(10_000)
		together(t, sends(s, data), gets(r, data))
		s.Close()
		r.Close()
		<-s.Done()
		<-r.Done()
	}
	a.socket.Close()
	b.socket.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for runtime.NumGoroutine() > before && ctx.Err() == nil {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
}
