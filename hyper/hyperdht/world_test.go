package hyperdht

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// A world is an internet in memory with nodes of a DHT on it. All its time is
// that of a bubble, so waiting costs none.
type world struct {
	t     *testing.T
	sim   *packet.Sim
	nodes []*DHT
	boot  []string
	seed  uint16
}

// inWorld runs f in a world with some nodes.
func inWorld(t *testing.T, nodes int, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, sim: packet.NewSim(clock.System, 1)}
		for range nodes {
			host := w.sim.Host(w.addr())
			o := Options{Network: host, Open: true, Node: true, Bootstrap: w.boot}
			if len(w.nodes) == 0 {
				o.Bootstrap, o.Public, o.FixedPort = []string{}, netip.AddrPortFrom(host.Addr(), DefaultPort), true
				w.boot = []string{o.Public.String()}
			}
			w.nodes = append(w.nodes, w.open(o))
		}
		for _, d := range w.nodes {
			if err := d.Bootstrapped(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f(t, w)
	})
}

// addr returns an address on the internet in a network of its own.
func (w *world) addr() netip.Addr {
	w.seed++
	return netip.AddrFrom4([4]byte{24, 1 + byte(w.seed>>8), byte(w.seed), 7})
}

// open opens a DHT that is closed at the end of the test.
func (w *world) open(o Options) *DHT {
	w.t.Helper()
	if o.Bootstrap == nil {
		o.Bootstrap = w.boot
	}
	w.seed++
	o.Random = rand.NewChaCha8([32]byte{byte(w.seed), byte(w.seed >> 8), 0xce})
	o.KeyPair = noise.NewKeyPair([32]byte{byte(w.seed), byte(w.seed >> 8), 0xda})
	d, err := Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			w.t.Errorf("close: %v", err)
		}
	})
	return d
}

// place is where a peer is: it returns its network.
type place struct {
	name string
	host func(*world) packet.Network
}

func behind(kind packet.NATKind) func(*world) packet.Network {
	return func(w *world) packet.Network { return w.sim.NAT(packet.NAT{Kind: kind}, w.addr()).Host() }
}

var places = []place{
	{"open", func(w *world) packet.Network { return w.sim.Host(w.addr()) }},
	{"full cone", behind(packet.FullCone)},
	{"restricted", behind(packet.Restricted)},
	{"port restricted", behind(packet.PortRestricted)},
	{"symmetric", behind(packet.Symmetric)},
	{"carrier", func(w *world) packet.Network {
		carrier := w.sim.NAT(packet.NAT{}, w.addr())
		return carrier.NAT(packet.NAT{}, netip.AddrFrom4([4]byte{100, 64, 0, 9})).Host()
	}},
}

// peer opens a DHT at a place and waits until it has joined.
func (w *world) peer(n packet.Network, o Options) *DHT {
	w.t.Helper()
	o.Network = n
	d := w.open(o)
	if err := d.Bootstrapped(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// echo sends back what it gets.
func echo(c *Conn) {
	defer c.Close()
	for {
		m, err := c.ReadMessage(nil)
		if err != nil {
			return
		}
		if err := c.WriteMessage(m); err != nil {
			return
		}
	}
}

// talk checks that messages go both ways.
func talk(t *testing.T, c *Conn) {
	t.Helper()
	for i := range 3 {
		want := fmt.Sprint("message ", i)
		if err := c.WriteMessage([]byte(want)); err != nil {
			t.Fatalf("write: %v", err)
		}
		if got, err := c.ReadMessage(nil); err != nil || string(got) != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
}

// conns collects what a server gets.
type conns struct {
	mu  sync.Mutex
	all []*Conn
}

func (c *conns) serve(conn *Conn) {
	c.mu.Lock()
	c.all = append(c.all, conn)
	c.mu.Unlock()
	echo(conn)
}

func (c *conns) last() *Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) == 0 {
		return nil
	}
	return c.all[len(c.all)-1]
}

func (w *world) listen(d *DHT, o ServerOptions) *Server {
	w.t.Helper()
	if o.Serve == nil {
		o.Serve = echo
	}
	s, err := d.Listen(w.t.Context(), d.KeyPair(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestPeersConnectByKey(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		server := w.peer(w.sim.Host(w.addr()), Options{})
		s := w.listen(server, ServerOptions{})
		client := w.peer(w.sim.Host(w.addr()), Options{})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := client.Connect(ctx, s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("connected after %v: %v", time.Since(start), c.Path())
		talk(t, c)
		if c.RemoteKey() != s.Key() {
			t.Errorf("connected to %s, want %s", c.RemoteKey(), s.Key())
		}
		c.Close()
		if _, err := c.ReadMessage(nil); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read after close: %v", err)
		}
	})
}

func callOf(command uint64, target [32]byte, value []byte) dhtrpc.Call {
	id := dhtrpc.ID(target)
	return dhtrpc.Call{Command: command, Target: &id, Value: value}
}

var noCall dhtrpc.CallOptions

func noReply(dhtrpc.Reply, error) {}
