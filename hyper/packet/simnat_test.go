package packet_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// A lab is a Sim on a fake clock.
type lab struct {
	*packet.Sim
	t     *testing.T
	clock *clock.Fake
}

func newLab(t *testing.T) *lab {
	c := clock.NewFake(time.Unix(1e9, 0))
	return &lab{packet.NewSim(c, 1), t, c}
}

// An end is a socket that keeps what it got.
type end struct {
	*lab
	packet.Conn
	machine *packet.SimHost
	at      netip.AddrPort // of a host that does not move
	got     []string       // "from data"
}

// socket binds a port of a host.
func (l *lab) socket(h *packet.SimHost, port uint16) *end {
	l.t.Helper()
	any := netip.IPv4Unspecified()
	if h.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	e := l.listen(h, netip.AddrPortFrom(any, port).String())
	e.machine, e.at = h, netip.AddrPortFrom(h.Addr(), port)
	return e
}

// last is whom the last datagram came from.
func (e *end) last() netip.AddrPort {
	e.t.Helper()
	if len(e.got) == 0 {
		e.t.Fatal("nothing came")
	}
	from, _, _ := strings.Cut(e.got[len(e.got)-1], " ")
	return netip.MustParseAddrPort(from)
}

func (l *lab) listen(n packet.Network, addr string) *end {
	l.t.Helper()
	e := &end{lab: l}
	conn, err := n.Listen(netip.MustParseAddrPort(addr), e.take)
	if err != nil {
		l.t.Fatal(err)
	}
	e.Conn = conn
	return e
}

func (e *end) take(batch []packet.Packet) {
	for _, p := range batch {
		for d := range p.Datagrams() {
			e.got = append(e.got, fmt.Sprint(p.Addr, " ", string(d)))
		}
	}
}

func (e *end) send(to netip.AddrPort, data string) { e.sendTTL(to, data, 0) }

func (e *end) sendTTL(to netip.AddrPort, data string, ttl int) {
	e.t.Helper()
	if err := e.Write([]packet.Packet{{Addr: to, Data: []byte(data), TTL: ttl}}); err != nil {
		e.t.Fatal(err)
	}
}

// ask sends data, waits a second and returns what comes back.
func (e *end) ask(to netip.AddrPort, data string) string {
	e.t.Helper()
	e.got = nil
	e.send(to, data)
	e.clock.Advance(time.Second)
	return strings.Join(e.got, ", ")
}

// echo serves at addr: it says whom it sees, or has another socket do so.
func (l *lab) echo(n packet.Network, addr string, via map[string]packet.Conn) packet.Conn {
	l.t.Helper()
	var conn packet.Conn
	conn, err := n.Listen(netip.MustParseAddrPort(addr), func(batch []packet.Packet) {
		for _, p := range batch {
			out := conn
			if other := via[string(p.Data)]; other != nil {
				out = other
			}
			out.Write([]packet.Packet{{Addr: p.Addr, Data: []byte(p.Addr.String())}})
		}
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return conn
}

// classify finds out what is in front of a host, in the words of RFC 4787.
func (l *lab) classify(host packet.Network) string {
	server := l.Host(netip.MustParseAddr("9.9.0.1"), netip.MustParseAddr("9.9.0.2"))
	via := map[string]packet.Conn{}
	s11 := l.echo(server, "9.9.0.1:34780", via)
	s12 := l.echo(server, "9.9.0.1:34781", nil)
	s21 := l.echo(server, "9.9.0.2:34780", nil)
	via["12"], via["21"] = s12, s21

	c := l.listen(host, "0.0.0.0:7000")
	seen := func(to packet.Conn) string {
		_, mapped, _ := strings.Cut(c.ask(to.LocalAddr(), "?"), " ")
		return mapped
	}
	m11 := seen(s11)
	filtering := "APD"
	if c.ask(s11.LocalAddr(), "21") != "" {
		filtering = "EI"
	} else if c.ask(s11.LocalAddr(), "12") != "" {
		filtering = "AD"
	}
	m12, m21 := seen(s12), seen(s21)
	mapping := "APD"
	switch {
	case m11 == "":
		return "blocked"
	case m11 == m12 && m11 == m21:
		mapping = "EI"
	case m11 == m12:
		mapping = "AD"
	}
	port := "changed"
	if strings.HasSuffix(m11, ":7000") {
		port = "kept"
	}
	return fmt.Sprintf("mapping=%s filtering=%s port=%s", mapping, filtering, port)
}

func TestSimNATsBehaveAsTheirKind(t *testing.T) {
	for kind, want := range map[packet.NATKind]string{
		packet.FullCone:       "mapping=EI filtering=EI port=kept",
		packet.Restricted:     "mapping=EI filtering=AD port=kept",
		packet.PortRestricted: "mapping=EI filtering=APD port=kept",
		packet.Symmetric:      "mapping=APD filtering=APD port=changed",
		packet.Firewall:       "mapping=EI filtering=APD port=kept",
		packet.Router:         "mapping=EI filtering=EI port=kept",
	} {
		l := newLab(t)
		host := l.NAT(packet.NAT{Kind: kind}).Host(netip.MustParseAddr("9.9.7.7"))
		if got := l.classify(host); got != want {
			t.Errorf("kind %d: got %s, want %s", kind, got, want)
		}
	}
}

func TestSimNATForgets(t *testing.T) {
	for _, kind := range []packet.NATKind{packet.FullCone, packet.Restricted, packet.PortRestricted, packet.Symmetric, packet.Firewall} {
		l := newLab(t)
		nat := l.NAT(packet.NAT{Kind: kind, Timeout: 30 * time.Second})
		server, host := l.socket(l.Host(), 7), l.socket(nat.Host(netip.MustParseAddr("9.9.7.7")), 7000)
		host.send(server.at, "hello")
		l.clock.Advance(time.Second)
		mapped := server.last()
		answered := func() bool {
			host.got = nil
			server.send(mapped, "answer")
			l.clock.Advance(time.Second)
			return len(host.got) == 1
		}
		for range 5 { // answers keep it open
			l.clock.Advance(25 * time.Second)
			if !answered() {
				t.Fatalf("kind %d: forgotten while it was used", kind)
			}
		}
		l.clock.Advance(30 * time.Second)
		if answered() {
			t.Errorf("kind %d: remembers after the timeout", kind)
		}
		host.send(server.at, "hello")
		l.clock.Advance(time.Second)
		mapped = server.last()
		if !answered() {
			t.Errorf("kind %d: no new mapping", kind)
		}
		nat.Flush()
		if answered() {
			t.Errorf("kind %d: remembers after Flush", kind)
		}
	}
}

// What one mapping lets in is forgotten alone.
func TestSimNATForgetsEachRemote(t *testing.T) {
	l := newLab(t)
	nat := l.NAT(packet.NAT{Timeout: 30 * time.Second})
	a, b := l.socket(l.Host(), 7), l.socket(l.Host(), 7)
	host := l.socket(nat.Host(), 7000)
	mapped := netip.AddrPortFrom(nat.Addr(), 7000)
	host.send(a.at, "hello")
	for range 4 {
		host.send(b.at, "hello")
		l.clock.Advance(10 * time.Second)
	}
	a.send(mapped, "from a")
	b.send(mapped, "from b")
	l.clock.Advance(time.Second)
	if len(host.got) != 1 || !strings.HasSuffix(host.got[0], "from b") {
		t.Errorf("got %q", host.got)
	}
}

// Two hosts want the same outer port; each of the NAT's ports is one host's.
func TestSimNATSharesItsAddress(t *testing.T) {
	for _, kind := range []packet.NATKind{packet.FullCone, packet.Restricted, packet.PortRestricted, packet.Symmetric} {
		l := newLab(t)
		nat := l.NAT(packet.NAT{Kind: kind})
		echo := l.echo(l.Host(netip.MustParseAddr("9.9.0.1")), "9.9.0.1:7", nil).LocalAddr()
		seen := map[string]bool{}
		for range 100 {
			host := l.socket(nat.Host(), 7000)
			answer := host.ask(echo, "?")
			from, mapped, _ := strings.Cut(answer, " ")
			if from != "9.9.0.1:7" || !strings.HasPrefix(mapped, nat.Addr().String()+":") || seen[mapped] {
				t.Fatalf("kind %d: got %q", kind, answer)
			}
			seen[mapped] = true
		}
	}
}

func TestSimHairpin(t *testing.T) {
	for _, hairpin := range []bool{true, false} {
		// Two homes behind a carrier's NAT.
		l := newLab(t)
		carrier := l.NAT(packet.NAT{Kind: packet.FullCone, Hairpin: hairpin})
		echo := l.echo(l.Host(netip.MustParseAddr("9.9.0.1")), "9.9.0.1:7", nil).LocalAddr()
		var ends [2]*end
		var outer, middle [2]netip.AddrPort
		for i := range ends {
			home := carrier.NAT(packet.NAT{Kind: packet.FullCone})
			ends[i] = l.socket(home.Host(), 7000)
			_, mapped, _ := strings.Cut(ends[i].ask(echo, "?"), " ")
			outer[i] = netip.MustParseAddrPort(mapped)
			middle[i] = netip.AddrPortFrom(home.Addr(), 7000)
			if outer[i].Addr() != carrier.Addr() {
				t.Fatalf("seen as %s behind %s", outer[i], carrier.Addr())
			}
			ends[i].got = nil
		}
		ends[0].send(outer[1], "around")
		l.clock.Advance(time.Second)
		if want := fmt.Sprint([]string{outer[0].String() + " around"}); hairpin && fmt.Sprint(ends[1].got) != want || !hairpin && len(ends[1].got) != 0 {
			t.Errorf("hairpin %v: got %q, want %s", hairpin, ends[1].got, want)
		}
		ends[1].got = nil
		ends[0].send(middle[1], "straight")
		l.clock.Advance(time.Second)
		if want := fmt.Sprint([]string{middle[0].String() + " straight"}); fmt.Sprint(ends[1].got) != want {
			t.Errorf("within the carrier's network: got %q, want %s", ends[1].got, want)
		}
	}
}

// A packet of few hops opens the NATs it comes through and goes no further.
func TestSimHopsOpenTheNAT(t *testing.T) {
	for ttl, want := range map[int]string{1: "0 0", 2: "0 0", 3: "0 1", 5: "0 1", 10: "0 1", 11: "1 1", 0: "1 1"} {
		l := newLab(t)
		carrier := l.NAT(packet.NAT{})
		server, host := l.socket(l.Host(), 7), l.socket(carrier.NAT(packet.NAT{}).Host(), 7000)
		host.sendTTL(server.at, "opener", ttl)
		l.clock.Advance(time.Second)
		server.send(netip.AddrPortFrom(carrier.Addr(), 7000), "hello")
		l.clock.Advance(time.Second)
		if got := fmt.Sprint(len(server.got), " ", len(host.got)); got != want {
			t.Errorf("TTL %d: the server and the host got %s, want %s", ttl, got, want)
		}
	}
}

// Both sides of each pair of kinds send to what a server saw of the other, as
// hole punching does.
func TestSimPunching(t *testing.T) {
	kinds := []packet.NATKind{packet.Router, packet.FullCone, packet.Restricted, packet.Firewall, packet.PortRestricted, packet.Symmetric}
	for i, a := range kinds {
		for j, b := range kinds {
			l := newLab(t)
			echo := l.echo(l.Host(netip.MustParseAddr("9.9.0.1")), "9.9.0.1:7", nil).LocalAddr()
			var ends [2]*end
			var seen [2]netip.AddrPort
			for k, kind := range []packet.NATKind{a, b} {
				host := l.NAT(packet.NAT{Kind: kind}).Host(netip.AddrFrom4([4]byte{9, 9, 7, byte(k)}))
				ends[k] = l.socket(host, 7000)
				_, mapped, _ := strings.Cut(ends[k].ask(echo, "?"), " ")
				seen[k] = netip.MustParseAddrPort(mapped)
				ends[k].got = nil
			}
			for range 3 {
				ends[0].send(seen[1], "punch")
				ends[1].send(seen[0], "punch")
				l.clock.Advance(time.Second)
			}
			// A side that got something can answer to where it came from.
			got := len(ends[0].got) > 0 || len(ends[1].got) > 0
			symmetric, other := max(i, j), min(i, j)
			want := kinds[symmetric] != packet.Symmetric || kinds[other] != packet.Symmetric && kinds[other] != packet.PortRestricted && kinds[other] != packet.Firewall
			if got != want {
				t.Errorf("kinds %d and %d: reached %v, want %v", a, b, got, want)
			}
		}
	}
}

func TestSimNATChanges(t *testing.T) {
	l := newLab(t)
	nat := l.NAT(packet.NAT{Kind: packet.Symmetric})
	server := l.socket(l.Host(), 7)
	addr := netip.MustParseAddr("9.9.7.7")
	host := l.socket(nat.Host(addr), 7000)
	from := func() netip.AddrPort {
		t.Helper()
		server.got = nil
		host.send(server.at, "hello")
		l.clock.Advance(time.Second)
		return server.last()
	}
	if got := from(); got.Addr() != nat.Addr() || got.Port() == 7000 {
		t.Errorf("seen as %s", got)
	}
	other := netip.MustParseAddr("9.9.8.8")
	nat.SetAddr(other)
	if got := from(); got.Addr() != other {
		t.Errorf("seen as %s, want %s", got, other)
	}
	nat.SetNAT(packet.NAT{Kind: packet.FullCone})
	if got := from(); got != netip.AddrPortFrom(other, 7000) {
		t.Errorf("seen as %s", got)
	}
	nat.SetNAT(packet.NAT{Kind: packet.Router})
	if got := from(); got != host.at {
		t.Errorf("seen as %s, want %s", got, host.at)
	}
	server.send(host.at, "in")
	l.clock.Advance(time.Second)
	if len(host.got) != 1 {
		t.Errorf("got %q", host.got)
	}
	nat.SetNAT(packet.NAT{})
	server.send(host.at, "in")
	l.clock.Advance(time.Second)
	if len(host.got) != 1 || l.Lost()["no such host"] != 1 {
		t.Errorf("got %q, lost %v", host.got, l.Lost())
	}
}

// IPv6 needs no NAT, but homes have a firewall.
func TestSimIPv6BehindNAT(t *testing.T) {
	l := newLab(t)
	nat := l.NAT(packet.NAT{Kind: packet.Symmetric}).NAT(packet.NAT{Kind: packet.FullCone})
	server := l.socket(l.Host(netip.MustParseAddr("2600::1")), 7)
	host := l.socket(nat.Host(netip.MustParseAddr("192.168.0.9"), netip.MustParseAddr("2600::7:1")), 7000)
	v6 := l.listen(host.machine, "[::]:7000")
	at := netip.MustParseAddrPort("[2600::7:1]:7000")
	server.send(at, "knock")
	l.clock.Advance(time.Second)
	v6.send(server.at, "hello")
	l.clock.Advance(time.Second)
	server.send(at, "answer")
	l.clock.Advance(time.Second)
	if len(server.got) != 1 || server.last() != at || len(v6.got) != 1 || !strings.HasSuffix(v6.got[0], "answer") {
		t.Errorf("the server got %q, the host %q", server.got, v6.got)
	}
}

// A NAT remembers no more than what is in use.
func TestSimNATsMemoryIsBounded(t *testing.T) {
	for _, kind := range []packet.NATKind{packet.FullCone, packet.PortRestricted, packet.Symmetric} {
		l := newLab(t)
		nat := l.NAT(packet.NAT{Kind: kind, Timeout: 10 * time.Second})
		host := l.socket(nat.Host(), 7000)
		most := 0
		for i := range 4000 {
			host.send(netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, 10, byte(i >> 8), byte(i)}), 7), "x")
			l.clock.Advance(100 * time.Millisecond)
			most = max(most, nat.Remembers())
		}
		if most > 2*(64+2*100) {
			t.Errorf("kind %d: remembers %d for 100 in use", kind, most)
		}
	}
}
