package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// fewer is by how much a network is smaller that a large one is compared with.
const fewer = 10

// dhtBenchmarks is the table of the benchmarks of the DHT. It runs in memory and in simulated time, the same on any machine.
// What it is compared with is a tenth of the network: a cost that grows with the logarithm of the nodes has the target as
// its ratio.
func dhtBenchmarks() []benchmark {
	return []benchmark{{
		name: "swarm/dht-1000", unit: "packets/lookup", lowerIsBetter: true, target: 2.0 / 3, maxRounds: 1,
		what: "look up random ids in a simulated DHT of 1,000 nodes, 20 to 80 ms from one another; beside one of 100",
		// Nodes look at one another often until they are half an hour old.
		full:  work{peers: 1_000, gets: 200, settle: 45 * 60, seconds: 10 * 60},
		quick: work{peers: 100, gets: 20, settle: 60, seconds: 60},
		bevy:  side{name: "bevy, all nodes", run: measureLookups(1)},
		peer:  side{name: "bevy, a tenth of them", run: measureLookups(fewer)},
	}}
}

// measureLookups makes a network of w.peers nodes by so many, lets it rest for w.settle simulated seconds, counts what idle
// nodes send in w.seconds, and takes w.gets lookups.
func measureLookups(divisor int) measure {
	return func(_ context.Context, w work) (result, error) {
		d, err := newSimulatedDHT(w.peers/divisor, 1)
		if err != nil {
			return result{}, err
		}
		d.clock.Advance(time.Duration(w.settle) * time.Second)
		before := d.sim.Traffic()
		d.clock.Advance(time.Duration(w.seconds) * time.Second)
		idle := d.sim.Traffic().Sent - before.Sent
		sum := simulatedLookup{}
		for range w.gets {
			l, err := d.lookup()
			if err != nil {
				return result{}, err
			}
			sum.packets += l.packets
			sum.hops += l.hops
			sum.asked += l.asked
			sum.found += l.found
			sum.took += l.took
		}
		n := float64(w.gets)
		return result{Name: fmt.Sprintf("bevy, %d nodes", len(d.nodes)), Value: float64(sum.packets) / n, Extra: map[string]float64{
			"hops": float64(sum.hops) / n, "asked": float64(sum.asked) / n, "closest20": float64(sum.found) / n,
			"ms": milliseconds(sum.took) / n, "idlePacketsPerMinute": float64(idle) * 60 / float64(w.seconds) / float64(len(d.nodes)),
		}}, nil
	}
}

// A simulatedDHT is nodes that all know their place.
type simulatedDHT struct {
	clock *clock.Fake
	sim   *packet.Sim
	rand  *rand.Rand
	hosts []*packet.SimHost
	nodes []*dhtrpc.Node
}

func newSimulatedDHT(nodes int, seed uint64) (*simulatedDHT, error) {
	d := &simulatedDHT{clock: clock.NewFake(time.Unix(0, 0)), rand: rand.New(rand.NewPCG(seed, 0))}
	d.sim = packet.NewSim(d.clock, seed)
	d.sim.SetDistance(packet.Link{Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond})
	first := d.host()
	entry := netip.AddrPortFrom(first.Addr(), 49737)
	if err := d.open(first, dhtrpc.Bootstrapper(entry)); err != nil {
		return nil, err
	}
	for i := range nodes - 1 {
		if err := d.open(d.host(), dhtrpc.Options{Bootstrap: []string{entry.String()}, Ephemeral: dhtrpc.Never}); err != nil {
			return nil, err
		}
		if i%10 == 9 {
			d.clock.Advance(time.Second)
		}
	}
	d.clock.Advance(time.Minute)
	for _, n := range d.nodes {
		if _, ok := n.ID(); !ok {
			return nil, fmt.Errorf("one of %d nodes found no place", nodes)
		}
	}
	return d, nil
}

// host is a machine with a network of its own.
func (d *simulatedDHT) host() *packet.SimHost {
	return d.sim.Host(netip.AddrFrom4([4]byte{32 + byte(d.rand.IntN(64)), byte(d.rand.IntN(256)), byte(d.rand.IntN(256)), 1 + byte(d.rand.IntN(254))}))
}

func (d *simulatedDHT) open(h *packet.SimHost, o dhtrpc.Options) error {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], d.rand.Uint64())
	random := rand.NewChaCha8(seed)
	o.Clock, o.Random, o.UDX = d.clock, random, udx.New(udx.Options{Network: h, Clock: d.clock, Random: random})
	n, err := dhtrpc.Open(o)
	d.hosts, d.nodes = append(d.hosts, h), append(d.nodes, n)
	return err
}

// A simulatedLookup is what one took: packets that the node sent and received, hops to the closest node, nodes asked, how
// many of the 20 closest were found, and time.
type simulatedLookup struct {
	packets            int64
	hops, asked, found int
	took               time.Duration
}

// lookup looks up a random id from a random node.
func (d *simulatedDHT) lookup() (l simulatedLookup, err error) {
	i := d.rand.IntN(len(d.nodes))
	var target dhtrpc.ID
	for j := range target {
		target[j] = byte(d.rand.Uint32())
	}
	start, before, over := d.clock.Now(), d.hosts[i].Traffic(), false
	q := d.nodes[i].FindNode(context.Background(), target, dhtrpc.QueryOptions{Reply: func(dhtrpc.Reply) {}, Done: func(failed error) {
		after := d.hosts[i].Traffic()
		l.packets = after.Sent - before.Sent + after.Received - before.Received
		l.took, err, over = d.clock.Now().Sub(start), failed, true
	}})
	for range 600 {
		if over {
			break
		}
		d.clock.Advance(100 * time.Millisecond)
	}
	if !over {
		return l, fmt.Errorf("a lookup has no end")
	}
	l.hops, l.asked = q.Cost()
	for _, r := range q.Closest() {
		if slices.Contains(d.closest(i, target), r.From.Addr) {
			l.found++
		}
	}
	return l, err
}

// closest are the nodes but one that are closest to a target in truth.
func (d *simulatedDHT) closest(but int, target dhtrpc.ID) []netip.AddrPort {
	type place struct {
		addr     netip.AddrPort
		distance dhtrpc.ID
	}
	var all []place
	for i, h := range d.hosts {
		if i == but {
			continue
		}
		p := place{addr: netip.AddrPortFrom(h.Addr(), d.nodes[i].ServerSocket().LocalAddr().Port())}
		id := dhtrpc.NodeID(p.addr)
		for j := range id {
			p.distance[j] = id[j] ^ target[j]
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b place) int { return slices.Compare(a.distance[:], b.distance[:]) })
	var out []netip.AddrPort
	for _, p := range all[:min(dhtrpc.K, len(all))] {
		out = append(out, p.addr)
	}
	return out
}
