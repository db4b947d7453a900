// Package packettest holds what every form of hyper/packet is tested with.
//
//	func TestMine(t *testing.T) {
//		packettest.Run(t, func(t *testing.T) packettest.Place {
//			return packettest.Place{A: mine, B: mine, AddrA: addr, AddrB: addr, Interface: "lo"}
//		})
//	}
package packettest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/packet"
)

// patience is how long a datagram may take.
const patience = 20 * time.Second

// A Place is two machines that reach each other, on a network that loses
// nothing and keeps the order. They may be one.
type Place struct {
	A, B         packet.Network
	AddrA, AddrB netip.Addr
	// Interface is the name of one that both have and on which multicast works;
	// empty if there is none.
	Interface string
	// Step lets time pass. It is nil where time passes by itself.
	Step func()
}

// Run runs the suite. Open returns a new place, or one that nobody uses.
func Run(t *testing.T, open func(t *testing.T) Place) {
	for _, part := range []struct {
		name string
		test func(p *place)
	}{
		{"datagrams arrive as they were sent", arrive},
		{"a large datagram arrives as a whole if at all", large},
		{"a batch goes to many", manyReceivers},
		{"datagrams in a row keep their bounds", bounds},
		{"segments arrive as datagrams", segments},
		{"what was written may be used again", reuse},
		{"what can't be sent is dropped alone", unsendable},
		{"a limit of hops is for one packet", hops},
		{"IPv4 addresses have one form", mapped},
		{"a wildcard socket takes and answers", wildcard},
		{"ports are given out once", ports},
		{"a closed socket is quiet", closed},
		{"a handler may close and write", closeInHandler},
		{"many write at once", concurrent},
		{"addresses are those of others", addresses},
		{"a group hears what is sent to it", multicast},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(&place{t, open(t)}) })
	}
}

type place struct {
	*testing.T
	Place
}

// A socket under test keeps what it gets.
type socket struct {
	packet.Conn
	p  *place
	in atomic.Int32 // calls of the handler that run

	mu   sync.Mutex
	got  []datagram
	news chan struct{}
}

type datagram struct {
	from netip.AddrPort
	data string
}

func newSocket(p *place) *socket { return &socket{p: p, news: make(chan struct{}, 1)} }

func (p *place) listen(n packet.Network, addr netip.Addr) *socket {
	p.Helper()
	s := newSocket(p)
	conn, err := n.Listen(netip.AddrPortFrom(addr, 0), s.take)
	if err != nil {
		p.Fatal(err)
	}
	s.use(conn)
	return s
}

// pair is a socket on each machine.
func (p *place) pair() (a, b *socket) {
	p.Helper()
	return p.listen(p.A, p.AddrA), p.listen(p.B, p.AddrB)
}

func (s *socket) use(conn packet.Conn) {
	s.Conn = conn
	s.p.Cleanup(func() { conn.Close() })
}

func (s *socket) take(batch []packet.Packet) {
	if s.in.Add(1) != 1 {
		s.p.Error("two calls of a handler at a time")
	}
	defer s.in.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		if p.TTL != 0 || p.Segment < 0 || p.Segment > 0 && p.Segment >= len(p.Data) {
			s.p.Errorf("got %d bytes with segments of %d, TTL %d", len(p.Data), p.Segment, p.TTL)
		}
		for d := range p.Datagrams() {
			s.got = append(s.got, datagram{p.Addr, string(d)})
		}
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *socket) write(batch ...packet.Packet) {
	s.p.Helper()
	if err := s.Write(batch); err != nil {
		s.p.Fatal(err)
	}
}

func (s *socket) send(to *socket, data ...string) {
	s.p.Helper()
	var batch []packet.Packet
	for _, d := range data {
		batch = append(batch, packet.Packet{Addr: to.LocalAddr(), Data: []byte(d)})
	}
	s.write(batch...)
}

// wait waits for n datagrams and returns what has come.
func (s *socket) wait(n int) []datagram {
	s.p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		s.mu.Lock()
		got := slices.Clone(s.got)
		s.mu.Unlock()
		if len(got) >= n {
			return got
		}
		if s.p.Step != nil {
			if s.p.Step(); ctx.Err() != nil {
				s.p.Fatalf("%d datagrams came, want %d", len(got), n)
			}
			continue
		}
		select {
		case <-s.news:
		case <-ctx.Done():
			s.p.Fatalf("%d datagrams came, want %d", len(got), n)
		}
	}
}

// expect waits for datagrams in their order, and that no others came.
func (s *socket) expect(from netip.AddrPort, want ...string) {
	s.p.Helper()
	got := s.wait(len(want))
	if len(got) != len(want) {
		s.p.Fatalf("%d datagrams came, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].data != want[i] {
			s.p.Fatalf("datagram %d is %s, want %s", i, short(got[i].data), short(want[i]))
		}
		if got[i].from != from {
			s.p.Fatalf("datagram %d is from %s, want %s", i, got[i].from, from)
		}
	}
	s.mu.Lock()
	s.got = nil
	s.mu.Unlock()
}

func short(data string) string {
	if len(data) > 20 {
		return fmt.Sprintf("%d bytes that begin with %q", len(data), data[:20])
	}
	return fmt.Sprintf("%q", data)
}

// text returns n bytes that differ from place to place.
func text(n int) string {
	var b []byte
	for i := uint32(0); len(b) < n; i++ {
		b = binary.BigEndian.AppendUint32(b, i)
	}
	return string(b[:n])
}

func arrive(p *place) {
	a, b := p.pair()
	for _, data := range []string{"hello", "", "x", text(1200), text(packet.MaxSize), "", ""} {
		a.send(b, data)
		b.expect(a.LocalAddr(), data)
		b.send(a, data, data)
		a.expect(b.LocalAddr(), data, data)
	}
}

func large(p *place) {
	a, b := p.pair()
	for _, n := range []int{packet.MaxSize + 1, 9000, 65_000} {
		a.send(b, text(n), "end")
		got := b.wait(1)
		if got[0].data != "end" {
			got = b.wait(2)
			if got[0].data != text(n) {
				p.Fatalf("of %d bytes came %s", n, short(got[0].data))
			}
		}
		if got[len(got)-1].data != "end" {
			p.Fatalf("got %s", short(got[len(got)-1].data))
		}
		b.mu.Lock()
		b.got = nil
		b.mu.Unlock()
	}
}

func manyReceivers(p *place) {
	a := p.listen(p.A, p.AddrA)
	var to []*socket
	for range 5 {
		to = append(to, p.listen(p.B, p.AddrB))
	}
	var batch []packet.Packet
	want := make([][]string, len(to))
	for i := range 300 {
		k := i * i % len(to)
		data := text(1 + i*7%1400)
		want[k] = append(want[k], data)
		batch = append(batch, packet.Packet{Addr: to[k].LocalAddr(), Data: []byte(data)})
	}
	a.write(batch...)
	for k := range to {
		to[k].expect(a.LocalAddr(), want[k]...)
	}
	a.write()
	a.send(to[0], "end")
	to[0].expect(a.LocalAddr(), "end")
}

// Datagrams of one size to one address may be joined on the way.
func bounds(p *place) {
	a, b := p.pair()
	shapes := [][]int{
		slices.Repeat([]int{1200}, 10),
		append(slices.Repeat([]int{1200}, 10), 700, 1200, 1200),
		{1200, 1200, 1201, 1200, 1, 1, 1, 2, 1},
		{0, 0, 1200, 0, 1200, 1200, 0},
		slices.Repeat([]int{1}, 500),
		append(slices.Repeat([]int{1400}, 150), 3),
		slices.Repeat([]int{packet.MaxSize}, 70),
	}
	for _, sizes := range shapes {
		var want []string
		for i, n := range sizes {
			want = append(want, strings.Repeat(string(rune('a'+i%26)), n))
		}
		a.send(b, want...)
		b.expect(a.LocalAddr(), want...)
	}
}

func segments(p *place) {
	a, b := p.pair()
	for _, shape := range []struct{ size, segment int }{
		{5000, 1200}, {4800, 1200}, {1200, 1200}, {1199, 1200}, {1201, 1200}, {0, 1200}, {1, 1},
		{100 * 1200, 1200}, {1000, 1}, {200*1400 + 1, 1400}, {7, 3}, {20 * packet.MaxSize, packet.MaxSize},
	} {
		data := text(shape.size)
		want := []string{"before"}
		for rest := data; ; rest = rest[shape.segment:] {
			if len(rest) <= shape.segment {
				want = append(want, rest)
				break
			}
			want = append(want, rest[:shape.segment])
		}
		want = append(want, "after")
		a.write(
			packet.Packet{Addr: b.LocalAddr(), Data: []byte("before")},
			packet.Packet{Addr: b.LocalAddr(), Data: []byte(data), Segment: shape.segment},
			packet.Packet{Addr: b.LocalAddr(), Data: []byte("after")},
		)
		b.expect(a.LocalAddr(), want...)
	}
}

func reuse(p *place) {
	a, b := p.pair()
	data := []byte(text(1200))
	batch := []packet.Packet{{Addr: b.LocalAddr(), Data: data}}
	a.write(batch...)
	clear(data)
	clear(batch)
	b.expect(a.LocalAddr(), text(1200))
}

func unsendable(p *place) {
	a, b := p.pair()
	other := netip.MustParseAddrPort("[2001:db8::1]:9")
	if p.AddrA.Is6() {
		other = netip.MustParseAddrPort("192.0.2.1:9")
	}
	to, huge := b.LocalAddr(), make([]byte, 70_000)
	a.write(
		packet.Packet{Addr: to, Data: []byte("1")},
		packet.Packet{Addr: to, Data: huge},
		packet.Packet{Addr: other, Data: []byte("2")},
		packet.Packet{Data: []byte("3")},
		packet.Packet{Addr: netip.AddrPortFrom(to.Addr(), 0), Data: []byte("4")},
		packet.Packet{Addr: to, Data: []byte("5")},
		packet.Packet{Addr: to, Data: huge, Segment: 69_000},
		packet.Packet{Addr: to, Data: []byte("6")},
	)
	b.expect(a.LocalAddr(), "1", "5", string(huge[:1000]), "6")
}

func hops(p *place) {
	a, b := p.pair()
	to := b.LocalAddr()
	a.write(packet.Packet{Addr: to, Data: []byte("1")}, packet.Packet{Addr: to, Data: []byte("2"), TTL: 60}, packet.Packet{Addr: to, Data: []byte("3"), TTL: 60}, packet.Packet{Addr: to, Data: []byte("4")})
	b.expect(a.LocalAddr(), "1", "2", "3", "4")
}

func mapped(p *place) {
	if !p.AddrA.Is4() {
		p.Skip("it's about IPv4")
	}
	a, b := p.pair()
	a.write(packet.Packet{Addr: netip.AddrPortFrom(netip.AddrFrom16(p.AddrB.As16()), b.LocalAddr().Port()), Data: []byte("x")})
	b.expect(a.LocalAddr(), "x")
	c := newSocket(p)
	conn, err := p.A.Listen(netip.AddrPortFrom(netip.AddrFrom16(p.AddrA.As16()), 0), c.take)
	if err != nil {
		p.Fatal(err)
	}
	c.use(conn)
	if !c.LocalAddr().Addr().Is4() {
		p.Errorf("bound to %s", c.LocalAddr())
	}
	b.send(c, "y")
	c.expect(b.LocalAddr(), "y")
}

func wildcard(p *place) {
	any := netip.IPv4Unspecified()
	if p.AddrA.Is6() {
		any = netip.IPv6Unspecified()
	}
	a, b := p.listen(p.A, any), p.listen(p.B, p.AddrB)
	if got := a.LocalAddr(); got.Addr() != any || got.Port() == 0 {
		p.Fatalf("bound to %s", got)
	}
	at := netip.AddrPortFrom(p.AddrA, a.LocalAddr().Port())
	b.write(packet.Packet{Addr: at, Data: []byte("hello")})
	a.expect(b.LocalAddr(), "hello")
	a.send(b, "hello yourself")
	b.expect(at, "hello yourself")
}

func ports(p *place) {
	a, b := p.listen(p.A, p.AddrA), p.listen(p.A, p.AddrA)
	if a.LocalAddr().Port() == b.LocalAddr().Port() || a.LocalAddr().Port() == 0 || a.LocalAddr().Addr() != p.AddrA {
		p.Fatalf("bound to %s and %s", a.LocalAddr(), b.LocalAddr())
	}
	if c, err := p.A.Listen(a.LocalAddr(), func([]packet.Packet) {}); err == nil {
		c.Close()
		p.Errorf("%s is bound twice", a.LocalAddr())
	}
	foreign := netip.MustParseAddrPort("203.0.113.7:0")
	if p.AddrA.Is6() {
		foreign = netip.MustParseAddrPort("[2001:db8::7]:0")
	}
	if c, err := p.A.Listen(foreign, func([]packet.Packet) {}); err == nil {
		c.Close()
		p.Errorf("%s is bound here", foreign)
	}
}

func closed(p *place) {
	a, b := p.pair()
	a.send(b, "1")
	b.expect(a.LocalAddr(), "1")
	for range 2 {
		if err := b.Close(); err != nil {
			p.Fatal(err)
		}
	}
	if err := b.Write([]packet.Packet{{Addr: a.LocalAddr(), Data: []byte("x")}}); !errors.Is(err, packet.ErrClosed) {
		p.Errorf("write fails with %v", err)
	}
	if err := b.Write(nil); !errors.Is(err, packet.ErrClosed) {
		p.Errorf("write of nothing fails with %v", err)
	}
	a.send(b, "2")
	again := newSocket(p)
	conn, err := p.B.Listen(b.LocalAddr(), again.take)
	if err != nil {
		p.Fatalf("the port is not free: %v", err)
	}
	again.use(conn)
	a.send(again, "3")
	got := again.wait(1)
	// The second datagram may have been late enough for the new socket.
	if got[len(got)-1].data == "2" {
		got = again.wait(2)
	}
	if got[len(got)-1].data != "3" {
		p.Errorf("got %v", got)
	}
	if got := b.wait(0); len(got) != 0 {
		p.Errorf("a closed socket got %v", got)
	}
}

func closeInHandler(p *place) {
	a := p.listen(p.A, p.AddrA)
	var conn packet.Conn
	ready := make(chan struct{})
	var calls atomic.Int32
	conn, err := p.B.Listen(netip.AddrPortFrom(p.AddrB, 0), func(batch []packet.Packet) {
		<-ready
		calls.Add(1)
		if err := conn.Write([]packet.Packet{{Addr: batch[0].Addr, Data: bytes.Clone(batch[0].Data)}}); err != nil {
			p.Error(err)
		}
		if err := conn.Close(); err != nil {
			p.Error(err)
		}
		if err := conn.Write(batch); !errors.Is(err, packet.ErrClosed) {
			p.Errorf("write fails with %v", err)
		}
	})
	if err != nil {
		p.Fatal(err)
	}
	close(ready)
	for range 3 {
		a.write(packet.Packet{Addr: conn.LocalAddr(), Data: []byte("x")})
	}
	a.expect(conn.LocalAddr(), "x")
	if n := calls.Load(); n != 1 {
		p.Errorf("%d calls, want 1", n)
	}
}

func concurrent(p *place) {
	a, b := p.pair()
	const writers, each = 8, 50
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				data := []byte{byte(w), byte(i)}
				a.Write([]packet.Packet{{Addr: b.LocalAddr(), Data: data}, {Addr: b.LocalAddr(), Data: data}})
			}
		})
	}
	group.Wait()
	next := make([]int, writers)
	for _, d := range b.wait(2 * writers * each) {
		w := d.data[0]
		if int(d.data[1]) != next[w]/2 {
			p.Fatalf("datagram %d of writer %d is %d", next[w], w, d.data[1])
		}
		next[w]++
	}
}

func addresses(p *place) {
	for _, n := range []packet.Network{p.A, p.B} {
		addrs, err := n.LocalAddrs()
		if err != nil {
			p.Fatal(err)
		}
		for _, a := range addrs {
			if a.IsLoopback() || a.Zone() != "" || a.Is4In6() || !a.IsValid() {
				p.Errorf("got address %s", a)
			}
		}
		all, err := n.Interfaces()
		if err != nil {
			p.Fatal(err)
		}
		for i, ifi := range all {
			if last := i == len(all)-1; ifi.Loopback != last {
				p.Errorf("interface %d of %d is %+v", i, len(all), ifi)
			}
			for _, a := range ifi.Addrs {
				if a.Addr().IsLoopback() != ifi.Loopback || a.Addr().Zone() != "" || a.Addr().Is4In6() || a.Bits() <= 0 {
					p.Errorf("interface %s has address %s", ifi.Name, a)
				}
				if !ifi.Loopback && !slices.Contains(addrs, a.Addr()) {
					p.Errorf("%s of interface %s is not among %v", a, ifi.Name, addrs)
				}
			}
		}
		if p.Interface != "" && !slices.ContainsFunc(all, func(i packet.Interface) bool { return i.Name == p.Interface }) {
			p.Errorf("there is no interface %s", p.Interface)
		}
	}
}

func multicast(p *place) {
	if p.Interface == "" {
		p.Skip("there is no interface for it")
	}
	group, other := netip.MustParseAddr("239.77.0.1"), netip.MustParseAddr("239.77.0.2")
	if p.AddrA.Is6() {
		group, other = netip.MustParseAddr("ff02::77:1"), netip.MustParseAddr("ff02::77:2")
	}
	// A port of the group that nobody uses.
	free := p.listen(p.A, p.AddrA)
	port := free.LocalAddr().Port()
	free.Close()
	join := func(n packet.Network, group netip.Addr) *socket {
		s := newSocket(p)
		conn, err := n.ListenMulticast(netip.AddrPortFrom(group, port), p.Interface, s.take)
		if err != nil {
			p.Fatal(err)
		}
		s.use(conn)
		if s.LocalAddr().Port() != port {
			p.Errorf("bound to %s", s.LocalAddr())
		}
		return s
	}
	a, b, beside, c := join(p.A, group), join(p.B, group), join(p.A, group), join(p.B, other)
	to := netip.AddrPortFrom(group, port)
	for range 2 {
		a.write(packet.Packet{Addr: to, Data: []byte("hello")})
	}
	for _, s := range []*socket{a, b, beside} {
		got := s.wait(2)
		if len(got) != 2 || got[0].data != "hello" || got[0].from.Port() != port || !got[0].from.Addr().IsValid() {
			p.Errorf("got %v", got)
		}
	}
	if err := b.Close(); err != nil {
		p.Error(err)
	}
	c.write(packet.Packet{Addr: to, Data: []byte("from outside")})
	if got := a.wait(3); got[2].data != "from outside" {
		p.Errorf("got %v", got)
	}
	if got := c.wait(0); len(got) != 0 {
		p.Errorf("one that did not join got %v", got)
	}
	if _, err := p.A.ListenMulticast(netip.AddrPortFrom(p.AddrA, port), p.Interface, func([]packet.Packet) {}); err == nil {
		p.Error("joined an address that is no group")
	}
	if _, err := p.A.ListenMulticast(to, "no such interface", func([]packet.Packet) {}); err == nil {
		p.Error("joined on no interface")
	}
}
