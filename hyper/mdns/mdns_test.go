package mdns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// A place is a local network in memory without a way out.
type place struct {
	t     *testing.T
	clock *clock.Fake
	sim   *packet.Sim
	net   *packet.SimNet
	n     byte
}

func newPlace(t *testing.T) *place {
	p := &place{t: t, clock: clock.NewFake(start)}
	p.sim = packet.NewSim(p.clock, 1)
	p.net = p.sim.LAN()
	return p
}

// A guest is a node at a place.
type guest struct {
	*Node
	host  *packet.SimHost
	found []Peer
	lost  []Peer
	conns []*Conn
	keys  noise.KeyPair
}

func (p *place) guest(o Options) *guest {
	p.t.Helper()
	p.n++
	g := &guest{keys: noise.NewKeyPair([32]byte{p.n})}
	if g.host, _ = o.Network.(*packet.SimHost); g.host == nil {
		g.host = p.net.Host()
	}
	o.KeyPair, o.Network, o.Clock, o.Random = g.keys, g.host, p.clock, seeded(uint64(p.n))
	if o.Found == nil {
		o.Found = func(peer Peer) { g.found = append(g.found, peer) }
	}
	o.Lost = func(peer Peer) { g.lost = append(g.lost, peer) }
	if o.Serve == nil {
		o.Serve = func(c *Conn) {
			g.conns = append(g.conns, c)
			p.t.Cleanup(func() { c.Close() })
		}
	}
	node, err := Open(o)
	if err != nil {
		p.t.Fatal(err)
	}
	g.Node = node
	p.t.Cleanup(func() { node.Close() })
	return g
}

// until lets time pass until there is what is asked for.
func (p *place) until(most time.Duration, what func() bool) time.Duration {
	p.t.Helper()
	for took := time.Duration(0); took <= most; took += time.Millisecond {
		if what() {
			return took
		}
		p.clock.Advance(time.Millisecond)
	}
	p.t.Fatalf("not within %v", most)
	return 0
}

// connect connects a to the first peer that it has found.
func (p *place) connect(a *guest, check func(noise.Key) error) (*Conn, error) {
	p.t.Helper()
	var conn *Conn
	var err error
	done := false
	a.Start(context.Background(), a.found[0], check, func(c *Conn, e error) { conn, err, done = c, e, true })
	p.until(5*time.Second, func() bool { return done })
	if conn != nil {
		p.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func TestPeersMeetOnALocalNetwork(t *testing.T) {
	for _, apart := range []time.Duration{0, 3 * time.Second} {
		p := newPlace(t)
		a, b := p.guest(Options{}), p.guest(Options{})
		if err := a.Announce(red); err != nil {
			t.Fatal(err)
		}
		p.clock.Advance(apart)
		b.Browse(red)
		took := p.until(time.Second, func() bool { return len(b.found) > 0 })
		t.Logf("found after %v", took)
		began := p.clock.Now()
		conn, err := p.connect(b, func(key noise.Key) error {
			if key != a.keys.Public {
				return fmt.Errorf("it is %v", key)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := p.clock.Now().Sub(began); took > 20*time.Millisecond {
			t.Errorf("connected after %v", took)
		}
		if len(a.conns) != 1 || a.conns[0].RemoteKey() != b.keys.Public || a.conns[0].HandshakeHash() != conn.HandshakeHash() {
			t.Errorf("the other side has %d connections", len(a.conns))
		}
		if got := b.Remembered(); len(got) != 1 || got[0].Port() != DefaultPort {
			t.Errorf("remembers %v", got)
		}
		a.Close()
		p.until(3*time.Second, func() bool { return len(b.lost) == 1 })
	}
}

// Each of two machines has another program at our port, in another family: they
// would never meet if each took the half that is left.
func TestPeersMeetWhereThePortIsHalfTaken(t *testing.T) {
	p := newPlace(t)
	guest := func(taken netip.Addr) *guest {
		host := p.net.Host()
		c, err := host.Listen(netip.AddrPortFrom(taken, DefaultPort), func([]packet.Packet) {})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return p.guest(Options{Network: host})
	}
	a, b := guest(netip.IPv4Unspecified()), guest(netip.IPv6Unspecified())
	if err := a.Announce(red); err != nil {
		t.Fatal(err)
	}
	b.Browse(red)
	p.until(time.Second, func() bool { return len(b.found) > 0 })
	if _, err := p.connect(b, nil); err != nil {
		t.Error(err)
	}
}

func TestHandshakesSurviveLoss(t *testing.T) {
	// Each packet of the handshake is lost in its turn, and then the first two of
	// each kind.
	for step := byte(1); step <= 4; step++ {
		for times := 1; times <= 2; times++ {
			p := newPlace(t)
			a, b := p.guest(Options{}), p.guest(Options{})
			a.Announce(red)
			b.Browse(red)
			p.until(time.Second, func() bool { return len(b.found) > 0 })
			lost := 0
			p.sim.SetFilter(func(from, to netip.AddrPort, data []byte) bool {
				if m, ok := parseNotice(data); ok && m.step == step && lost < times {
					lost++
					return false
				}
				return true
			})
			if _, err := p.connect(b, nil); err != nil || len(a.conns) != 1 || lost != times {
				t.Errorf("step %d lost %d times: %v, %d connections", step, lost, err, len(a.conns))
			}
		}
	}
}

func TestWhoIsRefusedIsTold(t *testing.T) {
	p := newPlace(t)
	a := p.guest(Options{Refuse: func(noise.Key) bool { return true }})
	b := p.guest(Options{})
	a.Announce(red)
	b.Browse(red)
	p.until(time.Second, func() bool { return len(b.found) > 0 })
	began := p.clock.Now()
	if _, err := p.connect(b, nil); !errors.Is(err, ErrRefused) || p.clock.Now().Sub(began) > 100*time.Millisecond {
		t.Errorf("%v after %v", err, p.clock.Now().Sub(began))
	}
	seen := false
	p.sim.SetFilter(func(from, to netip.AddrPort, data []byte) bool {
		m, ok := parseNotice(data)
		seen = seen || ok && m.step == 3
		return true
	})
	no := errors.New("not that one")
	if _, err := p.connect(b, func(noise.Key) error { return no }); !errors.Is(err, no) || seen {
		t.Errorf("%v, and told who we are: %v", err, seen)
	}
	// Nobody is there any more.
	a.Close()
	began = p.clock.Now()
	if _, err := p.connect(b, nil); !errors.Is(err, errNoAnswer) || p.clock.Now().Sub(began) > dialTime+time.Millisecond {
		t.Errorf("%v after %v", err, p.clock.Now().Sub(began))
	}
	if len(b.calls) != 0 || len(a.conns) != 0 {
		t.Error("something is left")
	}
}

// Who does not know the topic learns nothing from a node, whatever it sends:
// no packet of any handshake is like another, and none has a key in it.
func TestStrangersGetNoAnswer(t *testing.T) {
	p := newPlace(t)
	a, b := p.guest(Options{}), p.guest(Options{})
	a.Announce(red)
	b.Browse(red)
	p.until(time.Second, func() bool { return len(b.found) > 0 })
	var seen [][]byte
	p.sim.SetFilter(func(from, to netip.AddrPort, data []byte) bool {
		if isNotice(data) {
			seen = append(seen, slices.Clone(data))
		}
		return true
	})
	if _, err := p.connect(b, nil); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 4 {
		t.Fatalf("%d packets", len(seen))
	}
	answers := 0
	spy := p.net.Host()
	conn, err := spy.Listen(netip.MustParseAddrPort("0.0.0.0:0"), func(batch []packet.Packet) { answers += len(batch) })
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(a.host.Addr(), a.Port())
	send := func(data []byte) {
		conn.Write([]packet.Packet{{Addr: to, Data: data}})
		p.clock.Advance(50 * time.Millisecond)
	}
	wrong := b.found[0]
	wrong.Topic = blue
	call, err := newCall(noise.NewKeyPair([32]byte{9}), wrong, 1, seeded(1))
	if err != nil {
		t.Fatal(err)
	}
	send(call.packet)
	for _, data := range seen {
		if len(data) != noticeSize {
			t.Errorf("a packet of %d bytes", len(data))
		}
		send(data) // again, from elsewhere
		for at := range data {
			if at%9 == 0 {
				bad := slices.Clone(data)
				bad[at] ^= 1
				send(bad)
			}
		}
	}
	if answers != 0 {
		t.Errorf("%d answers", answers)
	}
	// When the handshake is forgotten, the first packet begins another; it goes
	// no further without the key. When the salt is, it is nothing.
	p.clock.Advance(pendingTime)
	send(seen[0])
	send(seen[2])
	if answers != 1 || len(a.conns) != 1 {
		t.Errorf("%d answers, %d connections", answers, len(a.conns))
	}
	p.clock.Advance(2 * (minRotate + rotateJitter))
	send(seen[0])
	if answers != 1 {
		t.Error("an old packet is answered")
	}
}

func TestHandshakesAreBounded(t *testing.T) {
	p := newPlace(t)
	a, b := p.guest(Options{}), p.guest(Options{})
	a.Announce(red)
	b.Browse(red)
	p.until(time.Second, func() bool { return len(b.found) > 0 })
	to := netip.AddrPortFrom(a.host.Addr(), a.Port())
	for h := range 20 {
		spy := p.net.Host()
		conn, err := spy.Listen(netip.MustParseAddrPort("0.0.0.0:0"), func([]packet.Packet) {})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			call, err := newCall(b.keys, b.found[0], 1, seeded(uint64(h*100+n)))
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]packet.Packet{{Addr: to, Data: call.packet}})
			p.clock.Advance(5 * time.Millisecond)
			if h == 0 && len(a.reception.list) > maxFromHost {
				t.Fatalf("%d handshakes of one host", len(a.reception.list))
			}
		}
	}
	if got := len(a.reception.list); got != maxPending {
		t.Errorf("%d handshakes under way", got)
	}
	p.clock.Advance(pendingTime)
	if len(a.reception.list) != 0 {
		t.Error("they are not forgotten")
	}
	if _, err := p.connect(b, nil); err != nil {
		t.Error(err)
	}
}

// Where multicast does not go, those who are remembered are asked.
func TestRememberedPeersAreFoundWithoutMulticast(t *testing.T) {
	p := newPlace(t)
	p.sim.SetFilter(func(from, to netip.AddrPort, data []byte) bool { return !to.Addr().IsMulticast() })
	a := p.guest(Options{})
	a.Announce(red)
	p.clock.Advance(2 * time.Second)
	b := p.guest(Options{Remembered: []netip.AddrPort{netip.AddrPortFrom(a.host.Addr(), DefaultPort)}})
	b.Browse(red)
	p.until(50*time.Millisecond, func() bool { return len(b.found) > 0 })
	if conn, err := p.connect(b, nil); err != nil || conn.RemoteKey() != a.keys.Public {
		t.Error(err)
	}
}

// Who found a node under names that it has just left reaches it still.
func TestANameThatWasLeftIsGoodForAMinute(t *testing.T) {
	p := newPlace(t)
	a, b := p.guest(Options{}), p.guest(Options{})
	a.Announce(red)
	b.Browse(red)
	p.until(time.Second, func() bool { return len(b.found) > 0 })
	for n := range byte(5) {
		a.Announce(red, Topic{9, n})
	}
	p.clock.Advance(pastTime - time.Second)
	if _, err := p.connect(b, nil); err != nil {
		t.Error(err)
	}
	p.clock.Advance(2 * time.Second)
	if _, err := p.connect(b, nil); !errors.Is(err, errNoAnswer) {
		t.Errorf("error %v", err)
	}
}

func TestMovingToAnotherNetwork(t *testing.T) {
	p := newPlace(t)
	a, b := p.guest(Options{}), p.guest(Options{})
	other := p.sim.LAN()
	a.Announce(red)
	b.Browse(red)
	p.until(time.Second, func() bool { return len(b.found) > 0 })
	name := b.found[0].ID()
	a.host.Move(other, netip.MustParseAddr("192.168.7.4"))
	b.host.Move(other, netip.MustParseAddr("192.168.7.5"))
	p.until(watchEvery+time.Second, func() bool { return len(b.found) > 1 })
	if b.found[1].ID() == name || b.found[1].Addrs[0].Addr() != a.host.Addr() {
		t.Errorf("found %v %v", b.found[1].ID(), b.found[1].Addrs)
	}
	if _, err := p.connect(&guest{Node: b.Node, found: b.found[1:]}, nil); err != nil {
		t.Error(err)
	}
}

func TestIdleNodesAreQuiet(t *testing.T) {
	p := newPlace(t)
	a, b := p.guest(Options{}), p.guest(Options{})
	if p.clock.Waiting() != 0 {
		t.Errorf("%d timers of nodes with nothing to do", p.clock.Waiting())
	}
	a.Announce(red)
	b.Announce(red)
	a.Browse(red)
	b.Browse(red)
	p.clock.Advance(time.Minute)
	before := p.sim.Traffic()
	p.clock.Advance(10 * time.Minute)
	after := p.sim.Traffic()
	if sent := after.Sent - before.Sent; sent > 20 {
		t.Errorf("%d packets in 10 minutes", sent)
	}
	a.Announce()
	a.Browse()
	b.Announce()
	b.Browse()
	p.clock.Advance(recordTTL)
	if p.clock.Waiting() != 0 {
		t.Errorf("%d timers are left", p.clock.Waiting())
	}
}

func TestTooManyTopics(t *testing.T) {
	p := newPlace(t)
	a := p.guest(Options{})
	if err := a.Announce(make([]Topic, MaxTopics+1)...); !errors.Is(err, ErrTooMany) {
		t.Errorf("error %v", err)
	}
	a.Close()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := a.Connect(context.Background(), Peer{}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// FuzzHandshake hands any datagram to the socket of a node, as its caller and
// as its server.
func FuzzHandshake(f *testing.F) {
	s := newSalt(seeded(3))
	peer := Peer{Topic: red, Addrs: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1")}, salt: s}
	keys := noise.NewKeyPair([32]byte{1})
	first, err := newCall(keys, peer, 7, seeded(4))
	if err != nil {
		f.Fatal(err)
	}
	a := aeadOf(red, s)
	f.Add(first.packet, []byte{})
	f.Add(seal(a, 2, first.id, make([]byte, 100), seeded(5)), []byte{1})
	f.Add(seal(a, 3, first.id, make([]byte, 64), seeded(6)), []byte{2})
	f.Fuzz(func(t *testing.T, data, inner []byte) {
		r := reception[int]{keys: keys, random: seeded(7)}
		open := func() (int, uint32, error) { return 1, 1, nil }
		c, err := newCall(keys, peer, 7, seeded(4))
		if err != nil {
			t.Fatal(err)
		}
		list := [][]byte{data}
		if len(inner) <= bodySize-2 {
			for step := byte(1); step <= 4; step++ { // by one who knows the topic
				list = append(list, seal(a, step, c.id, inner, seeded(8)))
			}
		}
		for _, data := range list {
			m, ok := parseNotice(data)
			if !ok {
				continue
			}
			from := peer.Addrs[0]
			if reply := r.greet(start, from, &m, []Topic{red}, []salt{s}, open); len(reply) > len(data) {
				t.Fatal("an answer that is longer than the question")
			}
			if p, _, _ := r.conclude(from, &m); p != nil {
				t.Fatal("a handshake without a key")
			}
			if _, ok, err := c.answer(from, &m); ok && err == nil {
				t.Fatal("an answer without a key")
			}
			c.verdict(&m)
		}
		if len(r.list) > maxPending {
			t.Fatal("too many")
		}
	})
}
