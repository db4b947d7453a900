//go:build dhtrpc_node

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
