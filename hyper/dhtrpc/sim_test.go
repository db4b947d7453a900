package dhtrpc

import (
	"context"
	"fmt"
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

func size() int {
	if os.Getenv("BEVY_LONG") != "" {
		return 1000
	}
	return 200
}

func TestLookupsConvergeInFewHops(t *testing.T) {
	var hops, asked []float64
	for _, n := range []int{size() / 10, size()} {
		w := newWorld(t, 1)
		w.bootstrapper()
		w.join(n - 1)
		s := w.lookups(50, w.nodes, w.nodes)
		traffic := w.sim.Traffic()
		t.Logf("%d nodes: %v; %d packets and %d bytes until here", n, s, traffic.Sent, traffic.SentBytes)
		if s.found < 0.98*min(K, float64(n-1)) || s.first < 0.98 {
			t.Errorf("%d nodes: %v", n, s)
		}
		hops, asked = append(hops, s.hops), append(asked, s.asked)
	}
	_, _ = hops, asked
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
	w.joinStores(size() - 1)
	targets := make([]ID, 30)
	for i := range targets {
		targets[i] = w.id()
		w.put(w.nodes[1+w.rand.IntN(len(w.nodes)-1)], targets[i], targets[i][:])
	}
	// In twenty minutes half of the nodes go without a word, and as many come.
	for range 20 {
		for range size() / 40 {
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
	s := w.lookups(30, w.nodes, w.nodes)
	t.Logf("%d nodes after half were replaced: %v", len(w.nodes), s)
	if s.found < 0.9*K || s.first < 0.9 {
		t.Errorf("lookups came to %v", s)
	}
}

func TestPartsOfANetworkFindTogetherAgain(t *testing.T) {
	w := newWorld(t, 4)
	w.bootstrapper()
	w.join(size()/2 - 1)
	var hosts [2][]*packet.SimHost
	var parts [2][]*simNode
	for i, n := range w.nodes {
		hosts[i%2] = append(hosts[i%2], n.host)
		parts[i%2] = append(parts[i%2], n)
	}
	heal := w.sim.Cut(hosts[0], hosts[1])
	w.pass(2 * time.Hour)
	for i := range parts {
		s := w.lookups(20, parts[i], parts[i])
		t.Logf("part %d alone: %v", i, s)
		if s.found < 0.95*K {
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
	w.pass(90 * time.Minute)
	s := w.lookups(30, w.nodes, w.nodes)
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
			w.bootstrapper()
			honest := append([]*simNode{w.nodes[0]}, w.join(size()*4/5-1)...)
			var liars []netip.AddrPort
			for range size() / 5 {
				host := w.sim.Host(w.addr())
				l := &liar{Network: host, asked: map[string]ID{}}
				l.names = func(target ID) (names []netip.AddrPort) {
					if kind == "one another" {
						names = slices.Clone(liars)
					} else {
						for range 500 {
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
			w.pass(10 * time.Minute)
			s := w.lookups(30, honest, w.nodes)
			t.Logf("%d nodes, a fifth of them liars that name %s: %v", len(w.nodes), kind, s)
			if s.found < 0.9*K || s.mostAsked > maxVisits {
				t.Errorf("lookups came to %v", s)
			}
		})
	}
}
