package mdns

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

var (
	group4 = netip.MustParseAddrPort("224.0.0.251:5353")
	start  = time.Unix(1_800_000_000, 0)
	red    = Topic{1}
	blue   = Topic{2}
)

// seeded is randomness that is the same each time.
func seeded(n uint64) io.Reader {
	var seed [32]byte
	seed[0], seed[1] = byte(n), byte(n>>8)
	return rand.NewChaCha8(seed)
}

// A segment is a network in memory on which cores live, with one link each.
type segment struct {
	t     *testing.T
	now   time.Time
	nodes []*segmentNode
	sent  []sentPacket
	drop  func(from, to *segmentNode) bool
}

type segmentNode struct {
	*core
	addr  netip.AddrPort // of the group's socket
	found []finding
	at    []time.Time // when
}

type sentPacket struct {
	from *segmentNode
	to   netip.AddrPort
	at   time.Time
	data []byte
}

func newSegment(t *testing.T) *segment { return &segment{t: t, now: start} }

func (s *segment) add(n byte) *segmentNode {
	addr := netip.AddrFrom4([4]byte{192, 168, 1, n})
	node := &segmentNode{core: newCore(seeded(uint64(n))), addr: netip.AddrPortFrom(addr, port)}
	node.setLinks(s.now, []link{{id: 1, prefixes: []netip.Prefix{netip.PrefixFrom(addr, 24)}, group: group4}})
	s.nodes = append(s.nodes, node)
	return node
}

// move delivers what there is, without delay.
func (s *segment) move() {
	for moved := true; moved; {
		moved = false
		for _, from := range s.nodes {
			packets, found := from.take()
			for _, f := range found {
				from.found, from.at = append(from.found, f), append(from.at, s.now)
			}
			for _, p := range packets {
				moved = true
				s.sent = append(s.sent, sentPacket{from, p.to, s.now, p.data})
				for _, to := range s.nodes {
					if s.drop != nil && s.drop(from, to) || p.to != group4 && p.to != to.addr {
						continue
					}
					to.receive(s.now, 1, from.addr, p.data) // also to itself, as sockets do
				}
			}
		}
	}
}

// run lets time pass.
func (s *segment) run(d time.Duration) {
	end := s.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 1_000_000 {
			s.t.Fatal("time stands still")
		}
		s.move()
		next := end
		for _, n := range s.nodes {
			if at := n.due(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if next.After(s.now) {
			s.now = next
		}
		if !s.now.Before(end) {
			return
		}
		for _, n := range s.nodes {
			if at := n.due(); !at.IsZero() && !at.After(s.now) {
				n.tick(s.now)
			}
		}
	}
}

func (n *segmentNode) join(s *segment, topics ...Topic) {
	n.announce(s.now, topics, 4000+uint16(n.addr.Addr().As4()[3]))
	n.browse(s.now, topics)
}

func (n *segmentNode) peers(topic Topic) (addrs []netip.AddrPort) {
	now := map[salt][]netip.AddrPort{}
	for _, f := range n.found {
		if f.peer.Topic == topic {
			now[f.peer.salt] = f.peer.Addrs
		}
		if f.peer.Topic == topic && f.lost {
			delete(now, f.peer.salt)
		}
	}
	for _, list := range now {
		addrs = append(addrs, list...)
	}
	return addrs
}

func (n *segmentNode) reach() netip.AddrPort {
	return netip.AddrPortFrom(n.addr.Addr(), n.port)
}

func TestPeersFindOneAnotherWithinASecond(t *testing.T) {
	for _, apart := range []time.Duration{0, 100 * time.Millisecond, time.Minute} {
		s := newSegment(t)
		a, b, c := s.add(1), s.add(2), s.add(3)
		a.join(s, red)
		c.join(s, blue)
		s.run(apart)
		began := s.now
		b.join(s, red)
		s.run(time.Second)
		for _, n := range []*segmentNode{a, b} {
			if len(n.at) == 0 {
				t.Fatalf("%v apart: %v found nobody", apart, n.addr)
			}
			if took := n.at[0].Sub(began); took > 500*time.Millisecond {
				t.Errorf("%v apart: %v found after %v", apart, n.addr, took)
			}
		}
		if got := a.peers(red); !slices.Equal(got, []netip.AddrPort{b.reach()}) {
			t.Errorf("%v apart: a found %v", apart, got)
		}
		if got := b.peers(red); !slices.Equal(got, []netip.AddrPort{a.reach()}) {
			t.Errorf("%v apart: b found %v", apart, got)
		}
		if len(c.found) != 0 {
			t.Errorf("%v apart: c found %v of another topic", apart, c.found)
		}
	}
}

func TestAQuietNetworkStaysQuiet(t *testing.T) {
	s := newSegment(t)
	for n := range byte(10) {
		s.add(n+1).join(s, red)
	}
	s.run(30 * time.Second)
	s.sent = nil
	s.run(20 * time.Minute)
	for _, n := range s.nodes {
		if got := len(n.peers(red)); got != 9 {
			t.Errorf("%v knows %d peers", n.addr, got)
		}
	}
	if per := float64(len(s.sent)) / 10 / 20; per > 1 {
		t.Errorf("%.2f packets a minute for each node", per)
	} else {
		t.Logf("%.2f packets a minute for each node", per)
	}
}

func TestAPeerThatLeavesIsLost(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1), s.add(2)
	a.join(s, red)
	b.join(s, red)
	s.run(3 * time.Second)
	b.announce(s.now, nil, 0)
	s.run(2 * time.Second)
	if got := a.peers(red); len(got) != 0 {
		t.Errorf("still there after a goodbye: %v", got)
	}

	b.announce(s.now, []Topic{red}, 77)
	s.run(3 * time.Second)
	if got := a.peers(red); len(got) != 1 || got[0].Port() != 77 {
		t.Errorf("found %v again", got)
	}
	s.drop = func(from, to *segmentNode) bool { return from == b }
	s.run(recordTTL + time.Second)
	if got := a.peers(red); len(got) != 0 {
		t.Errorf("still there after silence: %v", got)
	}
}

func TestNamesRotateAndTellNothing(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1), s.add(2)
	a.join(s, red, blue)
	b.join(s, red)
	s.run(time.Minute)
	labels := map[string]bool{}
	for range 5 {
		labels[a.salt.label()] = true
		s.run(minRotate + rotateJitter)
		if got := b.peers(red); !slices.Equal(got, []netip.AddrPort{a.reach()}) {
			t.Errorf("b found %v", got)
		}
	}
	if len(labels) != 5 {
		t.Errorf("%d names in five periods", len(labels))
	}
	// What is said in one period has nothing in common with what is said in
	// another, but the words that all nodes use.
	seen := map[tag]string{}
	for _, p := range s.sent {
		if p.from != a {
			continue
		}
		if bytes.Contains(p.data, red[:]) || bytes.Contains(p.data, blue[:]) {
			t.Fatal("a topic is in a packet")
		}
		m, err := parse(p.data)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range append(m.instances, m.probed...) {
			if len(i.tags)%tagGroup != 0 {
				t.Errorf("%d tags tell how many topics there are", len(i.tags))
			}
			for _, g := range i.tags {
				if old, ok := seen[g]; ok && old != i.label {
					t.Errorf("a tag is under two names")
				}
				seen[g] = i.label
			}
		}
	}
	if len(seen) < 5*tagGroup {
		t.Errorf("saw %d tags", len(seen))
	}
}

func TestAnotherNetworkIsAnotherName(t *testing.T) {
	s := newSegment(t)
	a := s.add(1)
	a.join(s, red)
	s.run(3 * time.Second)
	before := a.salt
	same := []link{{id: 1, prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}, group: group4}}
	a.setLinks(s.now, same)
	if a.salt != before {
		t.Error("a new name for nothing")
	}
	a.setLinks(s.now, []link{{id: 1, prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.7.4/24")}, group: group4}})
	if a.salt == before {
		t.Error("the old name on another network")
	}
}

func TestKnownAnswersAreNotRepeated(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1), s.add(2)
	a.join(s, red)
	s.run(5 * time.Second)
	ask := func(answers ...known) (got []sentPacket) {
		t.Helper()
		s.run(2 * time.Second)
		s.sent = nil
		for _, q := range query(answers) {
			a.receive(s.now, 1, b.addr, q)
		}
		s.run(time.Second)
		return slices.DeleteFunc(s.sent, func(p sentPacket) bool {
			m, err := parse(p.data)
			return err != nil || p.from != a || !m.response
		})
	}
	if got := ask(); len(got) != 1 || got[0].to != group4 {
		t.Fatalf("%d answers to a question", len(got))
	}
	if got := ask(known{a.salt.label(), recordTTL / 2}); len(got) != 0 {
		t.Error("a known answer was repeated")
	}
	if got := ask(known{a.salt.label(), recordTTL/2 - time.Second}); len(got) != 1 {
		t.Error("an answer that is nearly forgotten was not repeated")
	}
	// The answer we know comes in the second packet.
	var many []known
	for n := range 40 {
		many = append(many, known{newSalt(seeded(uint64(100 + n))).label(), recordTTL})
	}
	if got := ask(many...); len(got) != 1 {
		t.Errorf("%d answers to a question of two packets", len(got))
	}
	if got := ask(append(many, known{a.salt.label(), recordTTL})...); len(got) != 0 {
		t.Error("a known answer of the second packet was repeated")
	}
	// Two ask at once: one answer for both, and none again within a second.
	s.run(2 * time.Second)
	s.sent = nil
	for range 50 {
		a.receive(s.now, 1, b.addr, query(nil)[0])
		a.receive(s.now, 1, netip.MustParseAddrPort("192.168.1.77:5353"), query(nil)[0])
	}
	s.run(500 * time.Millisecond)
	if len(s.sent) != 1 {
		t.Errorf("%d answers to many questions at once", len(s.sent))
	}
}

func TestQueriesOfOthersStandForOurs(t *testing.T) {
	s := newSegment(t)
	var queries int
	for n := range byte(8) {
		s.add(n+1).browse(s.now, []Topic{red})
	}
	s.run(2 * time.Minute)
	for _, p := range s.sent {
		if m, err := parse(p.data); err == nil && !m.response {
			queries++
		}
	}
	// Alone, each asks 7 times in that time.
	if queries > 8*4 || queries < 7 {
		t.Errorf("%d queries of 8 nodes", queries)
	}
}

func TestAnsweringByUnicast(t *testing.T) {
	s := newSegment(t)
	a := s.add(1)
	a.join(s, red)
	s.run(5 * time.Second)
	s.sent = nil

	// RFC 6762 §6.7: to another port, with id and question.
	from := netip.MustParseAddrPort("192.168.1.9:40000")
	q := query(nil)[0]
	q[1] = 7
	a.receive(s.now, 1, from, q)
	s.move()
	if len(s.sent) != 1 || s.sent[0].to != from {
		t.Fatalf("sent %v", s.sent)
	}
	var m dnsmessage.Message
	if err := m.Unpack(s.sent[0].data); err != nil {
		t.Fatal(err)
	}
	if m.ID != 7 || len(m.Questions) != 1 || len(m.Answers) != 1 || m.Answers[0].Header.TTL > 10 {
		t.Errorf("legacy answer %v", m.GoString())
	}
	for _, r := range m.Additionals {
		if r.Header.Class != dnsmessage.ClassINET {
			t.Error("a legacy answer has the bit of multicast DNS")
		}
	}

	// §5.4: to who asks for it.
	s.sent = nil
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	b.StartQuestions()
	b.Question(dnsmessage.Question{Name: name(service), Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET | topBit})
	q, _ = b.Finish()
	asker := netip.MustParseAddrPort("192.168.1.9:5353")
	a.receive(s.now, 1, asker, q)
	s.move()
	if len(s.sent) != 1 || s.sent[0].to != asker {
		t.Errorf("sent %v", s.sent)
	}
}

func TestRememberedPeersAreAskedDirectly(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1), s.add(2)
	a.join(s, red)
	b.browse(s.now, []Topic{red})
	s.drop = func(from, to *segmentNode) bool { return true }
	s.run(time.Second)
	far := netip.MustParseAddrPort("8.8.8.8:5000")
	a.receiveDirect(s.now, far, query(nil)[0], false)
	if packets, _ := a.take(); len(packets) != 0 {
		t.Error("it answers those who are far away")
	}
	a.receiveDirect(s.now, netip.MustParseAddrPort("192.168.1.2:4002"), query(nil)[0], false)
	packets, _ := a.take()
	if len(packets) != 1 || packets[0].link != direct {
		t.Fatalf("sent %v", packets)
	}
	b.receiveDirect(s.now, a.reach(), packets[0].data, false)
	b.take()
	if len(b.cache) != 0 {
		t.Error("an answer to nothing was taken")
	}
	b.receiveDirect(s.now, a.reach(), packets[0].data, true)
	if _, f := b.take(); len(f) != 1 || !slices.Equal(f[0].peer.Addrs, []netip.AddrPort{a.reach()}) {
		t.Errorf("found %v", f)
	}
}

func TestWhoTakesOurNameOnlyMakesUsTakeAnother(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1), s.add(2)
	a.join(s, red)
	b.browse(s.now, []Topic{red})
	s.run(3 * time.Second)
	evil := netip.MustParseAddrPort("192.168.1.66:5353")
	names := map[string]bool{}
	s.sent = nil
	for range 1000 {
		o := a.own(a.links[1])
		names[o.label] = true
		if !a.said {
			s.run(50 * time.Millisecond)
			continue
		}
		o.port, o.addrs = 666, []netip.Addr{evil.Addr()}
		data := o.response(allKinds, recordTTL)
		a.receive(s.now, 1, evil, data)
		b.receive(s.now, 1, evil, data)
		s.run(50 * time.Millisecond)
	}
	if len(names) > 5*maxConflicts+5 {
		t.Errorf("%d names in 50 seconds", len(names))
	}
	if len(s.sent) > 600 {
		t.Errorf("%d packets in 50 seconds", len(s.sent))
	}
	s.run(10 * time.Second)
	// The first who said a name is believed.
	o := a.own(a.links[1])
	o.port, o.addrs = 666, []netip.Addr{evil.Addr()}
	b.receive(s.now, 1, evil, o.response(allKinds, recordTTL))
	b.receive(s.now, 1, evil, o.response(allKinds, 0))
	s.run(2 * time.Second)
	if r := b.cache[o.label]; r == nil || len(r.sources) != 1 || !slices.Equal(r.sources[1].addrs, []netip.AddrPort{a.reach()}) {
		t.Errorf("b remembers %+v", r)
	}
}

func TestAStormIsBounded(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1), s.add(2)
	a.join(s, red)
	s.run(3 * time.Second)
	s.sent = nil
	r := seeded(9)
	for n := range 6_000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, byte(n)}), port)
		o := &own{label: newSalt(r).label(), port: 9, text: text(newSalt(r).tags([]Topic{{9}}, r)), addrs: []netip.Addr{from.Addr()}}
		a.receive(s.now, 1, from, o.response(allKinds, recordTTL))
		a.receive(s.now, 1, netip.AddrPortFrom(from.Addr(), 9999), query(nil)[0])
		if n%100 == 0 {
			s.run(50 * time.Millisecond)
		}
	}
	if len(a.cache) > maxInstances {
		t.Errorf("%d instances are remembered", len(a.cache))
	}
	if len(s.sent) > burst+sendRate*4 {
		t.Errorf("%d packets in 3 seconds", len(s.sent))
	}
	if len(a.found) != 0 {
		t.Errorf("found %v", a.found)
	}
	// A peer that is one finds its place.
	s.run(time.Second)
	b.join(s, red)
	s.run(2 * time.Second)
	if got := a.peers(red); !slices.Equal(got, []netip.AddrPort{b.reach()}) {
		t.Errorf("found %v", got)
	}
	// One address does not fill the memory.
	c := s.add(3)
	for range 100 {
		o := &own{label: newSalt(r).label(), port: 9, text: text(nil), addrs: []netip.Addr{b.addr.Addr()}}
		c.receive(s.now, 1, b.addr, o.response(allKinds, recordTTL))
		s.now = s.now.Add(time.Second / 10)
	}
	if len(c.cache) > maxFromSource {
		t.Errorf("%d instances of one address", len(c.cache))
	}
}

func TestFarAwayPacketsAreDropped(t *testing.T) {
	s := newSegment(t)
	a := s.add(1)
	a.join(s, red)
	s.run(3 * time.Second)
	s.sent = nil
	a.receive(s.now, 1, netip.MustParseAddrPort("10.0.0.9:5353"), query(nil)[0])
	a.receive(s.now, 2, netip.MustParseAddrPort("192.168.1.9:5353"), query(nil)[0])
	s.run(time.Second)
	for _, p := range s.sent {
		if m, err := parse(p.data); err != nil || m.response {
			t.Errorf("answered with %x, %v", p.data, err)
		}
	}
}

func TestManyTopicsFitIntoAPacket(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1), s.add(2)
	var topics []Topic
	for n := range byte(MaxTopics) {
		topics = append(topics, Topic{9, n})
	}
	a.join(s, topics...)
	b.browse(s.now, topics)
	s.run(3 * time.Second)
	if len(b.found) != MaxTopics {
		t.Errorf("found %d topics", len(b.found))
	}
	for _, p := range s.sent {
		if len(p.data) > 1200 {
			t.Errorf("a packet of %d bytes", len(p.data))
		}
	}
}

func TestNamesOfTheFormat(t *testing.T) {
	for _, bad := range []string{"", "short", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "aaaaaaaaaaaaaaaaaaaaaaaaa7"} {
		if _, ok := saltOf(bad); ok {
			t.Errorf("%q is a label", bad)
		}
	}
	one := newSalt(seeded(1))
	if got, want := fmt.Sprintf("%s %x", salt{1, 2, 3}.label(), salt{1, 2, 3}.tag(red)), "aebagaaaaaaaaaaaaaaaaaaaaa eb729df57c1bed91"; got != want {
		t.Errorf("names of format 1 are %q, were %q", got, want)
	}
	if got, ok := saltOf(one.label()); !ok || got != one {
		t.Errorf("%q is %v", one.label(), got)
	}
	for _, bad := range [][]string{nil, {"v=2", "t0=12345678"}, {"v=1", "t1=12345678"}, {"v=1", "t0=1234567"}} {
		if got := tagsOf(bad); len(got) != 0 {
			t.Errorf("%q has tags %v", bad, got)
		}
	}
}

// FuzzReceive hands any packet to a node that has everything under way.
func FuzzReceive(f *testing.F) {
	o := &own{label: newSalt(seeded(5)).label(), port: 1, text: text(newSalt(seeded(5)).tags([]Topic{red}, seeded(6))), addrs: []netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("fe80::1")}}
	f.Add(o.response(allKinds, recordTTL), uint8(5), uint16(port))
	f.Add(o.response(ptrKind, 0), uint8(5), uint16(port))
	f.Add(o.probe(), uint8(5), uint16(port))
	f.Add(query([]known{{o.label, time.Minute}})[0], uint8(5), uint16(1))
	f.Fuzz(func(t *testing.T, data []byte, host uint8, from uint16) {
		c := newCore(seeded(1))
		c.setLinks(start, []link{{id: 1, prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}, group: group4}})
		c.announce(start, []Topic{red}, 4000)
		c.browse(start, []Topic{red})
		now := start
		for range 8 {
			now = now.Add(300 * time.Millisecond)
			c.tick(now)
			c.receive(now, 1, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, host}), from), data)
			c.receiveDirect(now, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, host}), from), data, true)
		}
		packets, _ := c.take()
		for _, p := range packets {
			if len(p.data) > maxPacket {
				t.Fatalf("a packet of %d bytes", len(p.data))
			}
			if _, err := parse(p.data); err != nil {
				t.Fatalf("sent what can't be read: %v", err)
			}
		}
		if len(c.cache) > maxFromSource {
			t.Fatalf("%d instances", len(c.cache))
		}
	})
}
