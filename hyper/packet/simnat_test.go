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
	got []string // "from data"
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
