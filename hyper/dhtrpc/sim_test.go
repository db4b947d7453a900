package dhtrpc

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// A world is an internet with nodes on it, the same each time for a seed.
type world struct {
	t     testing.TB
	clock *clock.Fake
	sim   *packet.Sim
	rand  *rand.Rand
	nodes []*simNode
	seeds []string
}

type simNode struct {
	*Node
	host *packet.SimHost
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, clock: clock.NewFake(time.Unix(1_700_000_000, 0)), rand: rand.New(rand.NewPCG(seed, 1))}
	w.sim = packet.NewSim(w.clock, seed)
	w.sim.SetDistance(packet.Link{Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond})
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.Close()
		}
	})
	return w
}

// addr is a public address in a network where no other is.
func (w *world) addr() netip.Addr {
	return netip.AddrFrom4([4]byte{byte(64 + w.rand.IntN(32)), byte(w.rand.IntN(256)), byte(w.rand.IntN(256)), byte(1 + w.rand.IntN(254))})
}

func (w *world) random() *rand.ChaCha8 {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(w.rand.Uint32())
	}
	return rand.NewChaCha8(seed)
}

// open starts a node on a host.
func (w *world) open(h *packet.SimHost, o Options) *simNode {
	w.t.Helper()
	o.UDX = udx.New(udx.Options{Network: h, Clock: w.clock, Random: w.random()})
	o.Clock, o.Random = w.clock, w.random()
	if o.Port == 0 {
		o.Port = testPort
	}
	if o.Bootstrap == nil {
		o.Bootstrap = w.seeds
	}
	n, err := Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &simNode{n, h}
	w.nodes = append(w.nodes, s)
	return s
}

// bootstrapper starts a node by which the others come in.
func (w *world) bootstrapper() *simNode {
	addr := netip.AddrPortFrom(w.addr(), testPort)
	n := w.open(w.sim.Host(addr.Addr()), Bootstrapper(addr))
	w.seeds = append(w.seeds, addr.String())
	return n
}

// join starts nodes that take part, some at a time.
func (w *world) join(count int) []*simNode {
	start := len(w.nodes)
	for i := range count {
		w.open(w.sim.Host(w.addr()), Options{Ephemeral: Never})
		if i%10 == 9 {
			w.pass(time.Second)
		}
	}
	w.pass(30 * time.Second)
	return w.nodes[start:]
}

func (w *world) pass(d time.Duration) { w.clock.Advance(d) }

func (w *world) leave(n *simNode) {
	n.Close()
	w.nodes = slices.DeleteFunc(w.nodes, func(o *simNode) bool { return o == n })
}

func (w *world) id() (id ID) {
	for i := range id {
		id[i] = byte(w.rand.Uint32())
	}
	return id
}

// closest are the ids of nodes that are closest to a target in truth.
func closestOf(nodes []*simNode, target ID) []ID {
	var ids []ID
	for _, n := range nodes {
		if id, ok := n.ID(); ok {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b ID) int { return closer(target, a, b) })
	return ids[:min(K, len(ids))]
}

// A lookup is what one query came to.
type lookup struct {
	err         error
	over        bool
	took        time.Duration
	hops, asked int
	found       int // of the K closest
	first       bool
}

// lookup runs a query to its end.
func (w *world) lookup(n *simNode, target ID, among []*simNode) (l lookup) {
	start := w.clock.Now()
	q := n.FindNode(context.Background(), target, QueryOptions{Reply: func(Reply) {}, Done: func(err error) {
		l.err, l.over, l.took = err, true, w.clock.Now().Sub(start)
	}})
	for i := 0; !l.over && i < 600; i++ {
		w.pass(100 * time.Millisecond)
	}
	if !l.over {
		w.t.Fatal("a query has no end")
	}
	l.hops, l.asked = q.Cost()
	want := closestOf(slices.DeleteFunc(slices.Clone(among), func(o *simNode) bool { return o == n }), target)
	for i, r := range q.Closest() {
		l.first = l.first || i == 0 && r.From.ID == want[0]
		if slices.Contains(want, r.From.ID) {
			l.found++
		}
	}
	return l
}

// lookups are averages of some.
type lookups struct {
	hops, asked, found, seconds float64
	first                       float64 // share that found the closest node
	mostAsked                   int
}

func (w *world) lookups(count int, from, among []*simNode) (s lookups) {
	for range count {
		l := w.lookup(from[w.rand.IntN(len(from))], w.id(), among)
		if l.err != nil {
			w.t.Errorf("a query failed: %v", l.err)
		}
		s.hops += float64(l.hops) / float64(count)
		s.asked += float64(l.asked) / float64(count)
		s.found += float64(l.found) / float64(count)
		s.seconds += l.took.Seconds() / float64(count)
		if l.first {
			s.first += 1 / float64(count)
		}
		s.mostAsked = max(s.mostAsked, l.asked)
	}
	return s
}

func (s lookups) String() string {
	return fmt.Sprintf("%.2f hops, %.1f nodes asked (at most %d), %.2f of the %d closest found, the closest in %.0f %%, %.2f s", s.hops, s.asked, s.mostAsked, s.found, K, 100*s.first, s.seconds)
}

// size is how many nodes a world has: the first number in all runs, the second
// in long ones.
func size(short, long int) int {
	if os.Getenv("BEVY_LONG") != "" {
		return long
	}
	return short
}

// Ten times as many nodes cost a lookup about one hop more, log(10)/log(20) by
// theory, and a few more questions.
func TestLookupsConvergeInFewHops(t *testing.T) {
	var hops, asked []float64
	large := size(200, 1000)
	for _, n := range []int{large / 10, large} {
		w := newWorld(t, 1)
		w.bootstrapper()
		w.join(n - 1)
		s := w.lookups(25, w.nodes, w.nodes)
		traffic := w.sim.Traffic()
		t.Logf("%d nodes: %v; %d packets and %d bytes until here", n, s, traffic.Sent, traffic.SentBytes)
		if s.found < 0.98*min(K, float64(n-1)) || s.first < 0.98 {
			t.Errorf("%d nodes: %v", n, s)
		}
		hops, asked = append(hops, s.hops), append(asked, s.asked)
	}
	if grown := hops[1] - hops[0]; grown > 1.5 || hops[1] > 3.5 {
		t.Errorf("ten times as many nodes take %.2f hops, and few %.2f", hops[1], hops[0])
	}
	if asked[1] > asked[0]+20 {
		t.Errorf("ten times as many nodes ask %.1f, and few %.1f", asked[1], asked[0])
	}
}

// store makes a node keep a value for each target, for who has a token.
func store() func(*Request) bool {
	values := map[ID][]byte{}
	return func(r *Request) bool {
		if r.Target == nil || r.Command > 1 {
			return false
		}
		if r.Command == putCommand && r.Token != nil {
			values[*r.Target] = r.Value
		}
		r.Reply(values[*r.Target], ReplyOptions{NoCloser: r.Command == putCommand})
		return true
	}
}

const (
	putCommand = 0
	getCommand = 1
)

// put leaves a value at the nodes that are closest to a target.
func (w *world) put(n *simNode, target ID, value []byte) {
	w.t.Helper()
	var over bool
	n.Query(context.Background(), target, QueryOptions{
		Call:   Call{Command: getCommand},
		Reply:  func(Reply) {},
		Commit: func(r Reply) (Call, error) { return Call{Command: putCommand, Value: value, Token: r.Token}, nil },
		Done: func(err error) {
			if over = true; err != nil {
				w.t.Errorf("a value was not put: %v", err)
			}
		},
	})
	for i := 0; !over && i < 600; i++ {
		w.pass(100 * time.Millisecond)
	}
}

// get reports whether a value is found.
func (w *world) get(n *simNode, target ID, value []byte) (found bool) {
	over := false
	n.Query(context.Background(), target, QueryOptions{
		Call:  Call{Command: getCommand},
		Reply: func(r Reply) { found = found || string(r.Value) == string(value) },
		Done:  func(error) { over = true },
	})
	for i := 0; !over && i < 600; i++ {
		w.pass(100 * time.Millisecond)
	}
	return found
}

func (w *world) joinStores(count int) []*simNode {
	start := len(w.nodes)
	for i := range count {
		w.open(w.sim.Host(w.addr()), Options{Ephemeral: Never, Handle: store()})
		if i%10 == 9 {
			w.pass(time.Second)
		}
	}
	w.pass(30 * time.Second)
	return w.nodes[start:]
}

func TestValuesStayFindableWhileNodesComeAndGo(t *testing.T) {
	w := newWorld(t, 3)
	w.bootstrapper()
	count := size(40, 600)
	w.joinStores(count - 1)
	targets := make([]ID, 15)
	for i := range targets {
		targets[i] = w.id()
		w.put(w.nodes[1+w.rand.IntN(len(w.nodes)-1)], targets[i], targets[i][:])
	}
	// In ten minutes half of the nodes go without a word, and as many come.
	for range 10 {
		for range count / 20 {
			w.leave(w.nodes[1+w.rand.IntN(len(w.nodes)-1)])
			w.open(w.sim.Host(w.addr()), Options{Ephemeral: Never, Handle: store()})
		}
		w.pass(time.Minute)
	}
	for _, target := range targets {
		if !w.get(w.nodes[1+w.rand.IntN(len(w.nodes)-1)], target, target[:]) {
			t.Errorf("the value of %x is lost", target[:4])
		}
	}
	hints := 0
	for _, n := range w.nodes {
		hints += n.Stats().Sent[CommandDownHint]
	}
	s := w.lookups(15, w.nodes, w.nodes)
	t.Logf("%d nodes after half were replaced: %v", len(w.nodes), s)
	if s.found < 0.9*K || s.first < 0.9 || hints == 0 {
		t.Errorf("lookups came to %v, and %d hints that nodes are down", s, hints)
	}
}

func TestPartsOfANetworkFindTogetherAgain(t *testing.T) {
	w := newWorld(t, 4)
	w.bootstrapper()
	w.join(size(26, 200) - 1)
	var hosts [2][]*packet.SimHost
	var parts [2][]*simNode
	for i, n := range w.nodes {
		hosts[i%2] = append(hosts[i%2], n.host)
		parts[i%2] = append(parts[i%2], n)
	}
	heal := w.sim.Cut(hosts[0], hosts[1])
	w.pass(time.Duration(size(40, 400)) * time.Minute)
	for i := range parts {
		s := w.lookups(8, parts[i], parts[i])
		t.Logf("part %d alone: %v", i, s)
		if s.found < 0.95*float64(min(K, len(parts[i])-1)) || s.seconds > 4 {
			t.Errorf("part %d alone: %v", i, s)
		}
	}
	known := 0
	for _, n := range parts[0] {
		for _, p := range n.Nodes(0) {
			if slices.ContainsFunc(parts[1], func(o *simNode) bool { return o.host.Addr() == p.Addr.Addr() }) {
				known++
			}
		}
	}
	heal()
	w.pass(35 * time.Minute)
	s := w.lookups(15, w.nodes, w.nodes)
	t.Logf("together again, when %d ties were left: %v", known, s)
	if s.found < 0.95*K || s.first < 0.95 {
		t.Errorf("together again: %v", s)
	}
}

// A liar is the network of a node that answers with nodes of its own choice.
type liar struct {
	packet.Network
	names func(target ID) []netip.AddrPort
	asked map[string]ID // targets by who asked
}

type liarConn struct {
	packet.Conn
	l *liar
}

func askedBy(a netip.AddrPort, tid uint16) string { return fmt.Sprint(a, tid) }

func (l *liar) Listen(addr netip.AddrPort, receive packet.Handler) (packet.Conn, error) {
	c, err := l.Network.Listen(addr, func(batch []packet.Packet) {
		for _, p := range batch {
			if m, err := parse(p.Data); err == nil && m.target != nil {
				l.asked[askedBy(p.Addr, m.tid)] = *m.target
			}
		}
		receive(batch)
	})
	return liarConn{c, l}, err
}

func (c liarConn) Write(batch []packet.Packet) error {
	for i := range batch {
		p := &batch[i]
		if m, err := parse(p.Data); err == nil && m.reply && m.closer != nil {
			m.closer = c.l.names(c.l.asked[askedBy(p.Addr, m.tid)])
			p.Data = m.append(nil)
		}
	}
	return c.Conn.Write(batch)
}

// A fifth of the nodes names nodes that don't exist, each closer to the target
// than any other, or only one another.
func TestLookupsStandLiars(t *testing.T) {
	for _, kind := range []string{"nodes that don't exist", "one another"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, 5)
			count := size(60, 500)
			w.bootstrapper()
			honest := append([]*simNode{w.nodes[0]}, w.join(count*4/5-1)...)
			var liars []netip.AddrPort
			for range count / 5 {
				host := w.sim.Host(w.addr())
				l := &liar{Network: host, asked: map[string]ID{}}
				l.names = func(target ID) (names []netip.AddrPort) {
					if kind == "one another" {
						names = slices.Clone(liars)
					} else {
						for range 300 {
							names = append(names, netip.AddrPortFrom(w.addr(), uint16(1+w.rand.IntN(65535))))
						}
					}
					ids := map[netip.AddrPort]ID{}
					for _, a := range names {
						ids[a] = NodeID(a)
					}
					slices.SortFunc(names, func(a, b netip.AddrPort) int { return closer(target, ids[a], ids[b]) })
					return names[:min(K, len(names))]
				}
				o := Options{Ephemeral: Never, Clock: w.clock, Random: w.random(), Port: testPort, Bootstrap: w.seeds}
				o.UDX = udx.New(udx.Options{Network: l, Clock: w.clock, Random: w.random()})
				n, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				w.nodes = append(w.nodes, &simNode{n, host})
				liars = append(liars, netip.AddrPortFrom(host.Addr(), testPort))
			}
			w.pass(2 * time.Minute)
			s := w.lookups(15, honest, w.nodes)
			t.Logf("%d nodes, a fifth of them liars that name %s: %v", len(w.nodes), kind, s)
			if s.found < 0.9*K || s.asked > 60 || s.seconds > 4 {
				t.Errorf("lookups came to %v", s)
			}
		})
	}
}

// load is how much a node keeps, in things that others can make it keep.
func (n *simNode) load() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.m
	return len(m.requests) + len(m.timers.heap) + len(m.waiting) + m.nodes.length + m.table.size + len(m.queries) + len(m.times.young) + len(m.times.old) + len(n.calls)
}

// Somebody with a network of 256 addresses sends each node of the network 100
// questions a second, as many nodes that do exist and answer.
func TestLookupsStandAFlood(t *testing.T) {
	w := newWorld(t, 6)
	w.bootstrapper()
	w.join(size(21, 300) - 1)
	var addrs []netip.Addr
	for i := range 200 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i)}))
	}
	host := w.sim.Host(addrs...)
	var conns []packet.Conn
	for _, a := range addrs {
		from := netip.AddrPortFrom(a, 1000)
		id := NodeID(from)
		var c packet.Conn
		c, err := host.Listen(from, func(batch []packet.Packet) {
			for _, p := range batch {
				if m, err := parse(p.Data); err == nil && !m.reply {
					c.Write([]packet.Packet{{Addr: p.Addr, Data: (&message{reply: true, tid: m.tid, to: p.Addr, id: &id}).append(nil)}})
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	before := host.Traffic()
	const seconds = 6
	for range 10 * seconds {
		for range 10 {
			i := w.rand.IntN(len(conns))
			from := netip.AddrPortFrom(addrs[i], 1000)
			id, target := NodeID(from), w.id()
			for _, n := range w.nodes {
				to := netip.AddrPortFrom(n.host.Addr(), testPort)
				conns[i].Write([]packet.Packet{{Addr: to, Data: (&message{internal: true, command: CommandFindNode, tid: uint16(w.rand.Uint32()), to: to, id: &id, target: &target}).append(nil)}})
			}
		}
		w.pass(100 * time.Millisecond)
	}
	traffic := host.Traffic()
	in, out := traffic.SentBytes-before.SentBytes, traffic.ReceivedBytes-before.ReceivedBytes
	most := 0
	for _, n := range w.nodes {
		most = max(most, n.load())
		for i, row := range n.m.table.rows {
			flood := 0
			for _, o := range row {
				if o.addr.Addr().As4()[0] == 203 {
					flood++
				}
			}
			if flood > maxPerNet {
				t.Errorf("%d of row %d of a table are the flood's", flood, i)
			}
		}
	}
	during := w.lookups(15, w.nodes, w.nodes)
	for _, c := range conns {
		c.Close()
	}
	w.pass(10 * time.Minute)
	after := w.lookups(15, w.nodes, w.nodes)
	t.Logf("%d nodes under a flood of %d bytes sent %d bytes there, %.2f of it, and keep at most %d things", len(w.nodes), in, out, float64(out)/float64(in), most)
	t.Logf("while it is there: %v; ten minutes after: %v", during, after)
	if limit := in + int64(len(w.nodes))*(budgetBurst+(seconds+2)*budgetRate); out > limit {
		t.Errorf("%d bytes went to who flooded, want at most %d", out, limit)
	}
	if most > 2000 {
		t.Errorf("a node keeps %d things", most)
	}
	if during.found < K-maxPerNet-0.01 || after.found < 0.95*min(K, float64(len(w.nodes)-1)) {
		t.Error("lookups came to less than half, or less than all after it")
	}
}

func TestWorldsAreTheSameForASeed(t *testing.T) {
	run := func(seed uint64) string {
		w := newWorld(t, seed)
		sum := fnv.New64a()
		w.sim.SetFilter(func(from, to netip.AddrPort, data []byte) bool {
			fmt.Fprint(sum, w.clock.Now(), from, to, data)
			return true
		})
		w.bootstrapper()
		w.joinStores(20)
		w.put(w.nodes[3], ID{1}, []byte("x"))
		w.leave(w.nodes[5])
		w.pass(5 * time.Minute)
		s := w.lookups(3, w.nodes, w.nodes)
		return fmt.Sprint(s, w.sim.Traffic(), sum.Sum64())
	}
	first, again, other := run(1), run(1), run(2)
	if first != again {
		t.Errorf("the same seed came to\n%s and\n%s", first, again)
	}
	if first == other {
		t.Error("two seeds came to the same")
	}
}

func TestNodesFindOutWhetherTheyAreReachable(t *testing.T) {
	w := newWorld(t, 7)
	w.bootstrapper()
	w.join(10)
	var events []Event
	open := w.open(w.sim.Host(w.addr()), Options{Notify: func(e Event) { events = append(events, e) }})
	homes := map[string]*simNode{}
	for name, kind := range map[string]packet.NATKind{"port-restricted": packet.PortRestricted, "symmetric": packet.Symmetric, "firewall": packet.Firewall, "full cone": packet.FullCone} {
		homes[name] = w.open(w.sim.NAT(packet.NAT{Kind: kind}).Host(), Options{})
	}
	w.pass(time.Minute)
	if open.Firewalled() || !open.Ephemeral() {
		t.Errorf("after a minute a node that is reachable is firewalled %v, ephemeral %v", open.Firewalled(), open.Ephemeral())
	}
	for i := 0; i < 1400 && !slices.Contains(events, Persistent); i++ {
		w.pass(time.Second)
	}
	id, ok := open.ID()
	addr, reachable := open.RemoteAddr()
	if want := netip.AddrPortFrom(open.host.Addr(), testPort); !ok || !reachable || addr != want || id != NodeID(want) || !slices.Contains(events, Persistent) || !slices.Contains(events, Ready) {
		t.Errorf("after 23 minutes it is %x %v at %v, want %v; events %v", id, ok, addr, want, events)
	}
	// It tells the others at once.
	w.pass(3 * time.Second)
	if l := w.lookup(w.nodes[1], id, w.nodes); !l.first {
		t.Error("the others don't find it")
	}
	w.pass(time.Minute)
	for name, n := range homes {
		// A full cone lets packets in where some went out, which none did from the
		// server socket.
		if !n.Firewalled() || !n.Ephemeral() || n.Randomized() != (name == "symmetric") || !n.PublicAddr().Addr().IsValid() {
			t.Errorf("behind a %s a node is firewalled %v, ephemeral %v, randomized %v, at %v", name, n.Firewalled(), n.Ephemeral(), n.Randomized(), n.PublicAddr())
		}
	}
	// The same network is not looked at again.
	probes := homes["firewall"].Stats().Sent[CommandPingNAT]
	w.pass(65 * time.Minute)
	if got := homes["firewall"].Stats().Sent[CommandPingNAT]; got != probes || probes == 0 {
		t.Errorf("a node that is not reachable asked for %d pings, and then for %d", probes, got-probes)
	}
}

func TestIdleNodesAreQuiet(t *testing.T) {
	w := newWorld(t, 8)
	w.bootstrapper()
	w.join(size(30, 300))
	w.pass(5 * time.Minute)
	before := w.sim.Traffic()
	const minutes = 15
	w.pass(minutes * time.Minute)
	after := w.sim.Traffic()
	each := float64(after.Sent-before.Sent) / minutes / float64(len(w.nodes))
	t.Logf("%d nodes: an idle one sends %.1f packets and %.0f bytes a minute", len(w.nodes), each, float64(after.SentBytes-before.SentBytes)/minutes/float64(len(w.nodes)))
	if each > 40 {
		t.Errorf("an idle node sends %.1f packets a minute", each)
	}
	if n := w.clock.Waiting(); n > 2*len(w.nodes)+5 {
		t.Errorf("%d timers wait for %d nodes", n, len(w.nodes))
	}
}

func TestSuspendedNodesAreStillAndComeBack(t *testing.T) {
	w := newWorld(t, 9)
	w.bootstrapper()
	w.join(10)
	n := w.nodes[4]
	id, _ := n.ID()
	var failed, over error
	n.Start(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 1), Call{}, CallOptions{}, func(_ Reply, err error) { failed = err })
	n.FindNode(context.Background(), ID{}, QueryOptions{Done: func(err error) { over = err }})
	if err := n.Suspend(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(failed, ErrSuspended) || !errors.Is(over, ErrSuspended) || !n.Suspended() || n.Socket() != nil {
		t.Errorf("what was under way ended with %v and %v", failed, over)
	}
	before := n.host.Traffic()
	w.pass(time.Hour)
	if n.host.Traffic() != before {
		t.Error("a node that is suspended sends")
	}
	if l := w.lookup(w.nodes[1], id, w.nodes); l.first {
		t.Error("a node that is suspended is found")
	}
	if err := n.Resume(); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	if l := w.lookup(w.nodes[1], id, w.nodes); !l.first {
		t.Error("a node that came back is not found")
	}
	if got := n.ServerSocket().LocalAddr().Port(); got != testPort {
		t.Errorf("it came back at port %d", got)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Resume(); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed node comes back: %v", err)
	}
	if q := n.FindNode(context.Background(), ID{}, QueryOptions{}); !errors.Is(q.Wait(), ErrClosed) {
		t.Error("a closed node looks for others")
	}
}

func TestQueriesEndWithTheirContext(t *testing.T) {
	w := newWorld(t, 10)
	w.bootstrapper()
	w.join(5)
	ctx, cancel := context.WithCancel(t.Context())
	before := w.nodes[1].Stats()
	q := w.nodes[1].FindNode(ctx, ID{}, QueryOptions{})
	if s := w.nodes[1].Stats(); s.ActiveQueries != before.ActiveQueries+1 || s.ActiveRequests <= before.ActiveRequests {
		t.Errorf("%d queries, %d requests are under way", s.ActiveQueries, s.ActiveRequests)
	}
	cancel()
	if err := q.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if s := w.nodes[1].Stats(); s.ActiveQueries != before.ActiveQueries || s.ActiveRequests != before.ActiveRequests {
		t.Errorf("%d queries, %d requests are left", s.ActiveQueries, s.ActiveRequests)
	}
	if _, err := w.nodes[1].Ping(ctx, addrOf(1), CallOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if s := w.nodes[1].Stats(); s.ActiveRequests != before.ActiveRequests {
		t.Error("a request is left")
	}
}

// What nobody takes, and what nobody is there to take, fails.
func TestACommitThatNobodyTakesFails(t *testing.T) {
	w := newWorld(t, 11)
	w.bootstrapper()
	w.joinStores(8)
	for _, c := range []struct {
		what  string
		make  func(Reply) (Call, error)
		taken bool
	}{
		{"one that can't be made", func(Reply) (Call, error) { return Call{}, errors.New("no key") }, false},
		{"one that nobody knows", func(r Reply) (Call, error) { return Call{Command: 99, Token: r.Token}, nil }, false},
		{"one with an old token", func() func(r Reply) (Call, error) {
			seen := map[ID]bool{}
			return func(r Reply) (Call, error) {
				if !seen[r.From.ID] {
					seen[r.From.ID] = true
					return Call{Command: putCommand, Token: new(Token)}, nil
				}
				return Call{Command: putCommand, Token: r.Token}, nil
			}
		}(), true},
		{"a good one", CommitSame(QueryOptions{Call: Call{Command: putCommand}}), true},
	} {
		over, got := false, error(nil)
		w.nodes[2].Query(context.Background(), ID{1}, QueryOptions{
			Call: Call{Command: getCommand}, Reply: func(Reply) {}, Commit: c.make,
			Done: func(err error) { over, got = true, err },
		})
		w.pass(20 * time.Second)
		if !over || c.taken != (got == nil) || !c.taken && !errors.Is(got, ErrTooFew) {
			t.Errorf("%s: over %v, %v", c.what, over, got)
		}
	}
}

// A countingClock counts how often its timers went off.
type countingClock struct {
	clock.Clock
	fired int
}

func (c *countingClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	return c.Clock.AfterFunc(d, func() {
		c.fired++
		f()
	})
}

// What was answered wakes nobody up when its time would have been over.
func TestAnAnsweredRequestLeavesNoTimer(t *testing.T) {
	w := newWorld(t, 1)
	entry := w.bootstrapper()
	counted := &countingClock{Clock: w.clock}
	n, err := Open(Options{
		UDX: udx.New(udx.Options{Network: w.sim.Host(w.addr()), Clock: w.clock, Random: w.random()}), Clock: counted, Random: w.random(),
		Port: testPort, Bootstrap: w.seeds,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	w.clock.Advance(time.Minute)
	for seen := counted.fired; counted.fired == seen; { // until a tick, so that there is time before the next
		w.clock.Advance(10 * time.Millisecond)
	}
	w.clock.Advance(100 * time.Millisecond)
	counted.fired = 0
	answers := 0
	for range 3 {
		n.Start(netip.AddrPortFrom(entry.host.Addr(), testPort), Call{Internal: true, Command: CommandPing}, CallOptions{}, func(_ Reply, err error) {
			if err == nil {
				answers++
			}
		})
	}
	w.clock.Advance(3 * time.Second)
	if answers != 3 || counted.fired != 0 {
		t.Errorf("%d answers, and timers went off %d times", answers, counted.fired)
	}
}
