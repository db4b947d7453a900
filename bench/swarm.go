package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// swarmBenchmarks is the table of the benchmarks of finding peers and connecting to them. The targets are ratios to reach.
func swarmBenchmarks() []benchmark {
	node := func(script string) side { return side{name: "node", script: script} }
	return []benchmark{
		{
			name: "swarm/connect", unit: "ms", lowerIsBetter: true, target: 2,
			what: "connect to a server by its key, the median; a DHT of 10 nodes, the server and the client share a process on loopback",
			full: work{nodes: 10, count: 200}, quick: work{nodes: 4, count: 5},
			bevy: side{name: "bevy", run: measureConnect}, peer: node("connect.js"),
		},
		{
			name: "swarm/first-peer", unit: "ms", lowerIsBetter: true, target: 2,
			what: "from joining a topic to the connection with its only peer, the median, each time with a new swarm whose DHT is ready; " +
				"all in a process on loopback, Bevy's without finding peers on the local network, which Node has not",
			full: work{nodes: 10, count: 100}, quick: work{nodes: 4, count: 3},
			bevy: side{name: "bevy", run: measureFirstPeer}, peer: node("firstpeer.js"),
		},
		{
			name: "swarm/idle", unit: "packets/min", lowerIsBetter: true, target: 1, maxRounds: 1,
			what: "packets in and out of a swarm that has joined a topic, alone, and does nothing, in a DHT of 10 nodes of Node; " +
				"Bevy's without finding peers on the local network, which Node has not",
			full: work{nodes: 10, settle: 5, seconds: 60}, quick: work{nodes: 4, settle: 1, seconds: 5},
			bevy: side{name: "bevy", run: measureSwarmIdle}, peer: node("swarmidle.js"),
		},
	}
}

// A testnet is a DHT on loopback.
type testnet struct {
	boot []string
	all  []*hyperdht.DHT
}

func openTestnet(ctx context.Context, nodes int) (*testnet, error) {
	net := &testnet{boot: []string{}}
	first := netip.AddrPortFrom(loopback, 0)
	for range nodes {
		d, err := net.open(ctx, hyperdht.Options{Open: true, Node: true, Public: first})
		if err != nil {
			return nil, errors.Join(err, net.close())
		}
		if first.IsValid() {
			net.boot, first = []string{d.Node().ServerSocket().LocalAddr().String()}, netip.AddrPort{}
		}
	}
	return net, nil
}

// open opens a DHT that close closes.
func (n *testnet) open(ctx context.Context, o hyperdht.Options) (*hyperdht.DHT, error) {
	o.Bind, o.Port, o.Bootstrap = loopback, -1, n.boot
	d, err := hyperdht.Open(o)
	if err != nil {
		return nil, err
	}
	n.all = append(n.all, d)
	return d, d.Bootstrapped(ctx)
}

func (n *testnet) close() (err error) {
	for _, d := range slices.Backward(n.all) {
		err = errors.Join(err, d.Close())
	}
	return err
}

// measureConnect is connect.js.
func measureConnect(ctx context.Context, w work) (r result, err error) {
	net, err := openTestnet(ctx, w.nodes)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, net.close()) }()
	at, err := net.open(ctx, hyperdht.Options{Client: true})
	if err != nil {
		return r, err
	}
	server, err := at.Listen(ctx, at.KeyPair(), hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) {
		defer c.Close()
		_, _ = c.Next() // the end
	}})
	if err != nil {
		return r, err
	}
	client, err := net.open(ctx, hyperdht.Options{Client: true})
	if err != nil {
		return r, err
	}
	return medianOf(w.count, func() (time.Duration, error) {
		start := time.Now()
		c, err := client.Connect(ctx, server.Key(), hyperdht.ConnectOptions{})
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		err = c.Close()
		<-c.Done()
		return took, err
	})
}

// measureFirstPeer is firstpeer.js.
func measureFirstPeer(ctx context.Context, w work) (r result, err error) {
	net, err := openTestnet(ctx, w.nodes)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, net.close()) }()
	topic := sha256.Sum256([]byte("bench"))
	at, err := net.open(ctx, hyperdht.Options{})
	if err != nil {
		return r, err
	}
	server, err := hyperswarm.New(hyperswarm.Options{DHT: at, Serve: func(c *hyperswarm.Conn) { <-c.Done() }})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	served, err := server.Join(topic, hyperswarm.JoinOptions{ServerOnly: true})
	if err == nil {
		err = served.Flushed(ctx)
	}
	if err != nil {
		return r, err
	}
	return medianOf(w.count, func() (time.Duration, error) {
		d, err := hyperdht.Open(hyperdht.Options{Bind: loopback, Port: -1, Bootstrap: net.boot})
		if err != nil {
			return 0, err
		}
		took, err := firstPeer(ctx, d, topic)
		return took, errors.Join(err, d.Close())
	})
}

// firstPeer returns how long a new swarm takes to connect to a peer of a topic.
func firstPeer(ctx context.Context, d *hyperdht.DHT, topic hyperswarm.Topic) (took time.Duration, err error) {
	if err := d.Bootstrapped(ctx); err != nil {
		return 0, err
	}
	var start time.Time
	connected := make(chan time.Duration, 1)
	swarm, err := hyperswarm.New(hyperswarm.Options{DHT: d, Serve: func(c *hyperswarm.Conn) {
		select {
		case connected <- time.Since(start):
		default:
		}
		<-c.Done()
	}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, swarm.Close()) }()
	start = time.Now()
	if _, err := swarm.Join(topic, hyperswarm.JoinOptions{ClientOnly: true}); err != nil {
		return 0, err
	}
	select {
	case took = <-connected:
		return took, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// measureSwarmIdle is swarmidle.js, in the network of that script.
func measureSwarmIdle(ctx context.Context, w work) (r result, err error) {
	net, err := startNode(ctx, "swarmidle.js", w)
	if err != nil {
		return r, err
	}
	defer func() {
		_, stopped := net.stop()
		err = errors.Join(err, stopped)
	}()
	counted := &countingNetwork{Network: packet.System}
	d, err := hyperdht.Open(hyperdht.Options{
		Network: counted, Bind: loopback, Port: -1, Bootstrap: []string{fmt.Sprintf("127.0.0.1:%d", net.Port)},
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	swarm, err := hyperswarm.New(hyperswarm.Options{DHT: d, Serve: func(c *hyperswarm.Conn) { <-c.Done() }})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, swarm.Close()) }()
	joined, err := swarm.Join(sha256.Sum256([]byte("bench")), hyperswarm.JoinOptions{})
	if err == nil {
		err = joined.Flushed(ctx)
	}
	if err == nil {
		err = wait(ctx, w.settle)
	}
	if err != nil {
		return r, err
	}
	before := counted.packets.Load()
	switched, err := switches()
	if err != nil {
		return r, err
	}
	took, err := timed(func() error { return wait(ctx, w.seconds) })
	if err != nil {
		return r, err
	}
	packets := counted.packets.Load() - before
	woken, _, err := switchesSince(switched)
	r.Value = float64(packets) / took.wall.Minutes()
	r.Extra = map[string]float64{
		"cpuMsPerMinute":   milliseconds(took.cpu) / took.wall.Minutes(),
		"wakeupsPerSecond": float64(woken) / took.wall.Seconds(),
	}
	r.add("rssMiB", residentMiB)
	return r, err
}

// medianOf calls f as often as that, and returns what the median of its times is, in milliseconds.
func medianOf(count int, f func() (time.Duration, error)) (r result, err error) {
	each := make([]time.Duration, count)
	for i := range each {
		if each[i], err = f(); err != nil {
			return r, fmt.Errorf("time %d: %w", i+1, err)
		}
	}
	slices.Sort(each)
	return result{Value: milliseconds(percentile(each, 0.5)), Extra: map[string]float64{
		"bestMs": milliseconds(each[0]), "p95Ms": milliseconds(percentile(each, 0.95)),
	}}, nil
}

// A countingNetwork counts packets, in and out.
type countingNetwork struct {
	packet.Network
	packets atomic.Int64
}

type countingConn struct {
	packet.Conn
	network *countingNetwork
}

func (n *countingNetwork) Listen(addr netip.AddrPort, receive packet.Handler) (packet.Conn, error) {
	c, err := n.Network.Listen(addr, func(batch []packet.Packet) {
		n.count(batch)
		receive(batch)
	})
	if err != nil {
		return nil, err
	}
	return countingConn{c, n}, nil
}

func (c countingConn) Write(batch []packet.Packet) error {
	c.network.count(batch)
	return c.Conn.Write(batch)
}

func (n *countingNetwork) count(batch []packet.Packet) {
	for _, p := range batch {
		for range p.Datagrams() {
			n.packets.Add(1)
		}
	}
}
