package packet_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/packet/packettest"
)

func TestSim(t *testing.T) {
	for _, addrs := range [][2]string{{"192.168.7.1", "192.168.7.2"}, {"fd00::1", "fd00::2"}} {
		a, b := netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1])
		t.Run(addrs[0], func(t *testing.T) {
			packettest.Run(t, func(t *testing.T) packettest.Place {
				l := newLab(t)
				lan := l.LAN()
				return packettest.Place{
					A: lan.Host(a), B: lan.Host(b), AddrA: a, AddrB: b, Interface: "eth0",
					Step: func() { l.clock.Advance(time.Millisecond) },
				}
			})
		})
	}
}

// A stream is numbered packets of one size over a line.
type stream struct {
	numbers []int
	times   []time.Duration // on the way
	lost    map[string]int
}

// stream sends n packets with size bytes of data, one each interval.
func (l *lab) stream(link packet.Link, n, size int, interval time.Duration) stream {
	l.t.Helper()
	a, b := l.socket(l.Host(), 7), l.Host()
	b.SetLinks(packet.Link{}, link)
	var s stream
	var sent []time.Time
	_, err := b.Listen(netip.MustParseAddrPort("0.0.0.0:7"), func(batch []packet.Packet) {
		for _, p := range batch {
			k := int(binary.BigEndian.Uint32(p.Data))
			s.numbers = append(s.numbers, k)
			s.times = append(s.times, l.clock.Now().Sub(sent[k]))
		}
	})
	if err != nil {
		l.t.Fatal(err)
	}
	data := make([]byte, size)
	for i := range n {
		binary.BigEndian.PutUint32(data, uint32(i))
		sent = append(sent, l.clock.Now())
		a.send(netip.AddrPortFrom(b.Addr(), 7), string(data))
		l.clock.Advance(interval)
	}
	l.clock.Advance(time.Minute)
	s.lost = l.Lost()
	return s
}

// far is a lab whose hosts' lines are all there is between them.
func far(t *testing.T) *lab {
	l := newLab(t)
	l.SetDistance(packet.Link{})
	return l
}

func TestSimDelay(t *testing.T) {
	s := newLab(t).stream(packet.Link{Delay: 40 * time.Millisecond}, 10, 100, time.Millisecond)
	for i, d := range s.times {
		if d != 50*time.Millisecond || s.numbers[i] != i {
			t.Errorf("packet %d took %v, want 50ms", s.numbers[i], d)
		}
	}
	if len(s.times) != 10 {
		t.Errorf("%d packets came", len(s.times))
	}
}

func TestSimJitterKeepsTheOrder(t *testing.T) {
	s := far(t).stream(packet.Link{Delay: 40 * time.Millisecond, Jitter: 20 * time.Millisecond}, 1000, 100, 10*time.Millisecond)
	if len(s.numbers) != 1000 || !slices.IsSorted(s.numbers) {
		t.Errorf("%d packets, in order: %v", len(s.numbers), slices.IsSorted(s.numbers))
	}
	least, most := slices.Min(s.times), slices.Max(s.times)
	if least < 40*time.Millisecond || least > 41*time.Millisecond || most >= 60*time.Millisecond || most < 59*time.Millisecond {
		t.Errorf("packets took from %v to %v", least, most)
	}
}

func TestSimShares(t *testing.T) {
	const n = 20_000
	s := far(t).stream(packet.Link{Delay: 20 * time.Millisecond, Loss: 0.05, Duplicate: 0.03, Reorder: 0.02}, n, 100, time.Millisecond)
	seen := map[int]bool{}
	twice, overtaken, highest := 0, 0, -1
	for _, k := range s.numbers {
		if seen[k] {
			twice++
		} else if k < highest {
			overtaken++
		}
		seen[k] = true
		highest = max(highest, k)
	}
	for _, c := range []struct {
		what      string
		got, want int
	}{
		{"lost", n - len(seen), n * 5 / 100}, {"lost by cause", s.lost["loss"], n * 5 / 100},
		{"came twice", twice, n * 95 / 100 * 3 / 100}, {"overtaken", overtaken, n * 95 / 100 * 2 / 100},
	} {
		if c.got < c.want*85/100 || c.got > c.want*115/100 {
			t.Errorf("%s: %d, want about %d", c.what, c.got, c.want)
		}
	}
	if s := newLab(t).stream(packet.Link{Loss: 1}, 1000, 100, 0); len(s.numbers) != 0 {
		t.Errorf("%d packets passed a network without UDP", len(s.numbers))
	}
}

func TestSimRate(t *testing.T) {
	// 1250 bytes with their headers take 1 ms.
	link := packet.Link{Delay: 5 * time.Millisecond, Rate: 10_000_000, Queue: 12_500}
	s := far(t).stream(link, 100, 1250-28, 0)
	if len(s.times) != 10 || s.lost["queue"] != 90 {
		t.Errorf("%d came, %v were lost", len(s.times), s.lost)
	}
	for i, d := range s.times {
		if want := 5*time.Millisecond + time.Duration(i+1)*time.Millisecond; d != want {
			t.Errorf("packet %d took %v, want %v", i, d, want)
		}
	}
	s = far(t).stream(link, 1000, 1250-28, time.Millisecond)
	if len(s.times) != 1000 || slices.Max(s.times) != 6*time.Millisecond {
		t.Errorf("%d came, the last after %v", len(s.times), slices.Max(s.times))
	}
	s = far(t).stream(packet.Link{Rate: 10_000_000}, 1000, 1250-28, 0)
	if n := len(s.times); n != 100 {
		t.Errorf("%d came, want what passes in 100 ms", n)
	}
}

// A sender far away does not take the place in a queue before its packets are
// there.
func TestSimQueueIsInOrderOfArrival(t *testing.T) {
	l := far(t)
	host := l.Host()
	host.SetLink(packet.Link{Rate: 10_000_000})
	to := l.socket(host, 7)
	distant, near := l.socket(l.Host(), 7), l.socket(l.Host(), 7)
	distant.machine.SetLink(packet.Link{Delay: 100 * time.Millisecond})
	distant.send(to.at, "far")
	near.send(to.at, "near")
	l.clock.Advance(10 * time.Millisecond)
	if len(to.got) != 1 || !strings.HasSuffix(to.got[0], "near") {
		t.Errorf("got %q", to.got)
	}
	l.clock.Advance(time.Second)
	if len(to.got) != 2 {
		t.Errorf("got %q", to.got)
	}
}

func TestSimMTU(t *testing.T) {
	l := newLab(t)
	home := l.NAT(packet.NAT{})
	home.SetLink(packet.Link{MTU: 1300})
	inner, outer := l.socket(home.Host(), 7), l.socket(l.Host(), 7)
	for _, size := range []int{1300 - 28, 1300 - 27, 100} {
		inner.send(outer.at, strings.Repeat("x", size))
	}
	l.clock.Advance(time.Second)
	if len(outer.got) != 2 || l.Lost()["mtu"] != 1 {
		t.Errorf("%d came, lost %v", len(outer.got), l.Lost())
	}
	inner.Write([]packet.Packet{{Addr: outer.at, Data: make([]byte, 1400), Fragment: true}})
	l.clock.Advance(time.Second)
	if len(outer.got) != 3 {
		t.Error("what may be cut did not come")
	}
	a, b := l.socket(l.Host(netip.MustParseAddr("2600::1")), 7), l.socket(l.Host(netip.MustParseAddr("2600::2")), 7)
	b.machine.SetLink(packet.Link{MTU: 1300})
	a.send(b.at, strings.Repeat("x", 1300-48))
	a.send(b.at, strings.Repeat("x", 1300-47))
	l.clock.Advance(time.Second)
	if len(b.got) != 1 {
		t.Errorf("%d came", len(b.got))
	}
}

func TestSimCut(t *testing.T) {
	l := newLab(t)
	var ends []*end
	var hosts []*packet.SimHost
	for range 4 {
		e := l.socket(l.Host(), 7)
		ends, hosts = append(ends, e), append(hosts, e.machine)
	}
	reach := func() string {
		var b strings.Builder
		for i, from := range ends {
			for j, to := range ends {
				to.got = nil
				from.send(to.at, "x")
				l.clock.Advance(time.Second)
				if len(to.got) == 0 {
					fmt.Fprintf(&b, "%d%d ", i, j)
				}
			}
		}
		return b.String()
	}
	heal1 := l.Cut(hosts[:2], hosts[2:])
	heal2 := l.Cut(hosts[:1], hosts[3:])
	if got := reach(); got != "02 03 12 13 20 21 30 31 " {
		t.Errorf("cut in halves: no way %s", got)
	}
	heal1()
	if got := reach(); got != "03 30 " {
		t.Errorf("one cut left: no way %s", got)
	}
	heal2()
	heal2()
	if got := reach(); got != "" {
		t.Errorf("healed: no way %s", got)
	}
}

// A phone leaves home: its sockets stay, and it is seen from elsewhere.
func TestSimMove(t *testing.T) {
	l := newLab(t)
	home := l.NAT(packet.NAT{})
	server, phone := l.socket(l.Host(), 7), l.socket(home.Host(), 7000)
	seen := func() netip.Addr {
		t.Helper()
		server.got = nil
		phone.send(server.at, "hello")
		l.clock.Advance(time.Second)
		if len(server.got) == 0 {
			return netip.Addr{}
		}
		return server.last().Addr()
	}
	if got := seen(); got != home.Addr() {
		t.Errorf("at home seen as %s", got)
	}
	phone.machine.Move(nil)
	if got := seen(); got.IsValid() {
		t.Errorf("offline seen as %s", got)
	}
	if addrs, err := phone.machine.LocalAddrs(); err != nil || len(addrs) != 0 {
		t.Errorf("offline with addresses %v, %v", addrs, err)
	}
	out := netip.MustParseAddr("9.9.3.3")
	phone.machine.Move(l.SimNet, out)
	if got := seen(); got != out {
		t.Errorf("outside seen as %s", got)
	}
	server.send(netip.AddrPortFrom(out, 7000), "on its way")
	phone.got = nil
	phone.machine.Move(l.SimNet, netip.MustParseAddr("9.9.3.4"))
	l.Host(out)
	l.clock.Advance(time.Second)
	if len(phone.got) != 0 {
		t.Errorf("got %q at an address it has left", phone.got)
	}
}

// What is routed to a network is so only while it's there.
func TestSimMoveFromBehindARouter(t *testing.T) {
	l := newLab(t)
	addr := netip.MustParseAddr("9.9.7.7")
	server, host := l.socket(l.Host(), 7), l.socket(l.NAT(packet.NAT{Kind: packet.Router}).Host(addr), 7000)
	for i, move := range []func(){
		func() {},
		func() { host.machine.Move(l.SimNet, addr) },
		func() { host.machine.Move(l.NAT(packet.NAT{}).NAT(packet.NAT{Kind: packet.Router}).SimNet, addr) },
	} {
		move()
		server.send(host.at, "x")
		l.clock.Advance(time.Second)
		if want := min(i+1, 2); len(host.got) != want {
			t.Errorf("after move %d: %d packets, want %d", i, len(host.got), want)
		}
	}
}

func TestSimFilterAndTraffic(t *testing.T) {
	l := newLab(t)
	a, b := l.socket(l.Host(), 7), l.socket(l.Host(), 8)
	l.SetFilter(func(from, to netip.AddrPort, data []byte) bool {
		return from != a.at || to != b.at || string(data) != "second"
	})
	for _, data := range []string{"first", "second", "third"} {
		a.send(b.at, data)
	}
	b.send(a.at, "second")
	l.clock.Advance(time.Second)
	if got := fmt.Sprint(b.got); got != fmt.Sprintf("[%s first %s third]", a.at, a.at) || len(a.got) != 1 {
		t.Errorf("got %s and %q", got, a.got)
	}
	for _, c := range []struct{ got, want packet.Traffic }{
		{a.machine.Traffic(), packet.Traffic{Sent: 3, SentBytes: 16, Received: 1, ReceivedBytes: 6}},
		{b.machine.Traffic(), packet.Traffic{Sent: 1, SentBytes: 6, Received: 2, ReceivedBytes: 10}},
		{l.Traffic(), packet.Traffic{Sent: 4, SentBytes: 22, Received: 3, ReceivedBytes: 16}},
	} {
		if c.got != c.want {
			t.Errorf("traffic %+v, want %+v", c.got, c.want)
		}
	}
	if got := fmt.Sprint(l.Lost()); got != "map[filter:1]" {
		t.Errorf("lost %s", got)
	}
}

// Multicast stays on its network, and a group on lo on its host.
func TestSimMulticast(t *testing.T) {
	l := newLab(t)
	group := netip.MustParseAddrPort("224.0.0.251:5353")
	join := func(h *packet.SimHost, ifname string) *end {
		e := &end{lab: l, machine: h}
		conn, err := h.ListenMulticast(group, ifname, e.take)
		if err != nil {
			t.Fatal(err)
		}
		e.Conn = conn
		return e
	}
	home := l.NAT(packet.NAT{})
	a, b := join(home.Host(), "eth0"), join(home.Host(), "eth0")
	local, beside := join(a.machine, "lo"), join(a.machine, "lo")
	elsewhere := l.NAT(packet.NAT{})
	away := join(elsewhere.Host(), "eth0")
	server := join(l.Host(), "eth0")
	all := []*end{a, b, local, beside, away, server}
	heard := func(from *end) string {
		for _, e := range all {
			e.got = nil
		}
		from.send(group, "x")
		l.clock.Advance(time.Second)
		var who []int
		for i, e := range all {
			if len(e.got) > 0 {
				who = append(who, i)
			}
		}
		return fmt.Sprint(who)
	}
	for _, c := range []struct {
		from *end
		want string
	}{{a, "[0 1]"}, {b, "[0 1]"}, {local, "[2 3]"}, {away, "[4]"}, {server, "[]"}} {
		if got := heard(c.from); got != c.want {
			t.Errorf("heard by %s, want %s", got, c.want)
		}
	}
	b.machine.Move(elsewhere.SimNet)
	if got := heard(away); got != "[1 4]" {
		t.Errorf("after a move heard by %s", got)
	}
	b.machine.Move(nil)
	if got := heard(a); got != "[0]" {
		t.Errorf("after another heard by %s", got)
	}
}

// crowd lets n hosts gossip for a while behind lines of all kinds, and returns a
// hash of all that was received and when.
func crowd(t testing.TB, seed uint64, n int, long time.Duration) (string, *packet.Sim) {
	c := clock.NewFake(time.Unix(1e9, 0))
	s := packet.NewSim(c, seed)
	start := c.Now()
	hash := sha256.New()
	var addrs []netip.AddrPort
	for i := range n {
		var host *packet.SimHost
		at := netip.AddrPort{}
		if i%3 == 0 {
			nat := s.NAT(packet.NAT{Kind: packet.NATKind(i % 4)})
			nat.SetLink(packet.Link{Delay: time.Duration(i%50) * time.Millisecond, Jitter: 3 * time.Millisecond, Loss: 0.01, Duplicate: 0.01})
			host = nat.Host()
			at = netip.AddrPortFrom(nat.Addr(), 7)
		} else {
			host = s.Host()
			host.SetLink(packet.Link{Delay: time.Duration(i%50) * time.Millisecond, Reorder: 0.1, Rate: 10_000_000})
			at = netip.AddrPortFrom(host.Addr(), 7)
		}
		addrs = append(addrs, at)
		turn := i
		var conn packet.Conn
		conn, err := host.Listen(netip.MustParseAddrPort("0.0.0.0:7"), func(batch []packet.Packet) {
			for _, p := range batch {
				fmt.Fprint(hash, c.Now().Sub(start), i, p.Addr, string(p.Data))
				if string(p.Data) == "rumour" { // each goes on until it is lost
					turn += 17
					conn.Write([]packet.Packet{{Addr: p.Addr, Data: []byte("answer")}, {Addr: addrs[turn%n], Data: p.Data}})
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		var begin func()
		begin = func() {
			turn++
			conn.Write([]packet.Packet{{Addr: addrs[turn*7%n], Data: []byte("rumour")}})
			c.AfterFunc(time.Second, begin)
		}
		c.AfterFunc(time.Duration(i)*time.Millisecond, begin)
	}
	c.Advance(long)
	return fmt.Sprintf("%x", hash.Sum(nil)), s
}

func TestSimIsTheSameForASeed(t *testing.T) {
	a, s := crowd(t, 1, 60, 6*time.Second)
	b, _ := crowd(t, 1, 60, 6*time.Second)
	other, _ := crowd(t, 2, 60, 6*time.Second)
	if s.Traffic().Received < 1000 {
		t.Fatalf("only %d packets", s.Traffic().Received)
	}
	if a != b {
		t.Error("the same seed led to something else")
	}
	if a == other {
		t.Error("another seed led to the same")
	}
}

// On a clock that runs by itself packets are in order, too, and handlers are
// called one at a time.
func TestSimOnARealClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := packet.NewSim(clock.System, 1)
		to, from := s.Host(), s.Host()
		var mu sync.Mutex
		var got []int
		_, err := to.Listen(netip.MustParseAddrPort("0.0.0.0:7"), func(batch []packet.Packet) {
			mu.Lock()
			defer mu.Unlock()
			for _, p := range batch {
				got = append(got, int(binary.BigEndian.Uint32(p.Data)))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := from.Listen(netip.MustParseAddrPort("0.0.0.0:7"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for w := range 4 {
			group.Go(func() {
				for i := range 250 {
					time.Sleep(time.Duration(i%3) * time.Microsecond)
					conn.Write([]packet.Packet{{Addr: netip.AddrPortFrom(to.Addr(), 7), Data: binary.BigEndian.AppendUint32(nil, uint32(w*1000+i))}})
				}
			})
		}
		group.Wait()
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 1000 {
			t.Errorf("%d packets", len(got))
		}
		var last [4]int
		for _, k := range got {
			if k%1000 < last[k/1000] {
				t.Fatalf("%d came after %d", k%1000, last[k/1000])
			}
			last[k/1000] = k % 1000
		}
	})
}

// All of it may be used by many at once.
func TestSimHammer(t *testing.T) {
	l := newLab(t)
	home := l.NAT(packet.NAT{Hairpin: true})
	var hosts []*packet.SimHost
	var conns []packet.Conn
	var heard atomic.Int64
	for i := range 8 {
		n := []*packet.SimNet{l.SimNet, home.SimNet}[i%2]
		h := n.Host()
		conn, err := h.Listen(netip.MustParseAddrPort("0.0.0.0:7"), func(batch []packet.Packet) { heard.Add(int64(len(batch))) })
		if err != nil {
			t.Fatal(err)
		}
		hosts, conns = append(hosts, h), append(conns, conn)
	}
	var group sync.WaitGroup
	for i, h := range hosts {
		group.Go(func() {
			for k := range 300 {
				to := hosts[(i+k)%len(hosts)]
				conns[i].Write([]packet.Packet{{Addr: netip.AddrPortFrom(to.Addr(), 7), Data: []byte("x")}})
				switch k % 30 {
				case 1:
					l.clock.Advance(time.Millisecond)
				case 5:
					h.SetLink(packet.Link{Delay: time.Duration(k) * time.Microsecond, Jitter: time.Millisecond})
				case 9:
					h.Move(l.SimNet)
				case 13:
					h.Move(home.SimNet)
				case 17:
					home.Flush()
				case 21:
					l.Cut(hosts[:1], hosts[i:])()
				case 25:
					c, err := h.ListenMulticast(netip.MustParseAddrPort("224.0.0.251:5353"), "eth0", func([]packet.Packet) {})
					if err != nil {
						t.Error(err)
						return
					}
					c.Write([]packet.Packet{{Addr: netip.MustParseAddrPort("224.0.0.251:5353"), Data: []byte("x")}})
					c.Close()
				}
			}
		})
	}
	group.Wait()
	l.clock.Advance(time.Minute)
	for _, c := range conns {
		c.Close()
	}
	if heard.Load() == 0 || l.Traffic().Sent != 8*300+8*10 {
		t.Errorf("%d heard of %d", heard.Load(), l.Traffic().Sent)
	}
}

// BenchmarkSim is what a packet costs in a crowd of a thousand hosts.
func BenchmarkSim(b *testing.B) {
	var sent int64
	for b.Loop() {
		_, s := crowd(b, 1, 1000, 20*time.Second)
		sent += s.Traffic().Sent
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/packet")
}
