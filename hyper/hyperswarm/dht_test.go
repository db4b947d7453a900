package hyperswarm

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// An internet is one in memory with a DHT on it, in a bubble of time.
type internet struct {
	t    *testing.T
	sim  *packet.Sim
	boot []string
	seed byte
}

func onInternet(t *testing.T, f func(t *testing.T, n *internet)) {
	synctest.Test(t, func(t *testing.T) {
		n := &internet{t: t, sim: packet.NewSim(clock.System, 1)}
		var nodes []*hyperdht.DHT
		for range 4 {
			host := n.sim.Host(n.addr())
			o := hyperdht.Options{Network: host, Open: true, Node: true, Bootstrap: n.boot}
			if len(nodes) == 0 {
				o.Bootstrap, o.Public, o.FixedPort = []string{}, netip.AddrPortFrom(host.Addr(), hyperdht.DefaultPort), true
				n.boot = []string{o.Public.String()}
			}
			nodes = append(nodes, n.dht(o))
		}
		for _, d := range nodes {
			if err := d.Bootstrapped(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f(t, n)
	})
}

// addr returns an address in a network of its own.
func (n *internet) addr() netip.Addr {
	n.seed++
	return netip.AddrFrom4([4]byte{24, 1, n.seed, 7})
}

func (n *internet) dht(o hyperdht.Options) *hyperdht.DHT {
	n.t.Helper()
	n.seed++
	o.KeyPair = noise.NewKeyPair([32]byte{n.seed, 0xda})
	d, err := hyperdht.Open(o)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { d.Close() })
	return d
}

// A resident is a swarm on the internet, that answers what it is told.
type resident struct {
	*Swarm
	dht  *hyperdht.DHT
	host packet.Network

	mu    sync.Mutex
	heard int
}

func (n *internet) swarm(host packet.Network, how how) *resident {
	n.t.Helper()
	r := &resident{host: host}
	o := Options{Serve: func(c *Conn) {
		for range 3 {
			if c.WriteMessage([]byte("hello")) != nil {
				return
			}
			if _, err := c.ReadMessage(nil); err != nil {
				return
			}
		}
		r.mu.Lock()
		r.heard++
		r.mu.Unlock()
		<-c.Done()
	}}
	if how&overDHT != 0 {
		r.dht = n.dht(hyperdht.Options{Network: host, Bootstrap: n.boot})
		if err := r.dht.Bootstrapped(n.t.Context()); err != nil {
			n.t.Fatal(err)
		}
		o.DHT = r.dht
	} else {
		n.seed++
		o.KeyPair = noise.NewKeyPair([32]byte{n.seed, 0xda})
	}
	if how&overLAN != 0 {
		o.LAN = &mdns.Options{Network: host}
	}
	var err error
	if r.Swarm, err = New(o); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { r.Close() })
	return r
}

// met says which of the swarms are not connected to all others.
func met(all []*resident) (err error) {
	for i, r := range all {
		r.mu.Lock()
		heard := r.heard
		r.mu.Unlock()
		if got := len(r.Conns()); got != len(all)-1 || heard < got {
			err = errors.Join(err, fmt.Errorf("swarm %d has %d connections, and has heard of %d", i, got, heard))
		}
	}
	return err
}

// within waits until what is asked for is true, and says how long that took.
func within(t *testing.T, most time.Duration, what func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := what()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > most {
			t.Fatalf("not within %v: %v", most, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSwarmsMeetOverTheDHT(t *testing.T) {
	onInternet(t, func(t *testing.T, n *internet) {
		kinds := []packet.NATKind{packet.FullCone, packet.Restricted, packet.PortRestricted}
		all := []*resident{n.swarm(n.sim.Host(n.addr()), overDHT)}
		for _, kind := range kinds {
			all = append(all, n.swarm(n.sim.NAT(packet.NAT{Kind: kind}, n.addr()).Host(), overDHT|overLAN))
		}
		for _, r := range all {
			d, err := r.Join(red, JoinOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Flushed(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("all met after %v", within(t, time.Minute, func() error { return met(all) }))
		for i, r := range all {
			for _, c := range r.Conns() {
				p := c.Path()
				if p.Kind != hyperdht.PathDirect && p.Kind != hyperdht.PathPunched || p.Kind == hyperdht.PathPunched && p.Why == "" {
					t.Errorf("swarm %d: %v", i, p)
				}
			}
		}
		// Of each pair, one side has made the connection.
		made := 0
		for _, r := range all {
			for _, c := range r.Conns() {
				if c.Initiator() {
					made++
				}
			}
		}
		if want := len(all) * (len(all) - 1) / 2; made != want {
			t.Errorf("%d connections were made, want %d", made, want)
		}
	})
}

// Peers that are on one local network meet there, and others elsewhere, in one
// set; and a peer without the DHT is met by its neighbours only.
func TestTheLocalNetworkAndTheDHTAreOne(t *testing.T) {
	onInternet(t, func(t *testing.T, n *internet) {
		home := n.sim.NAT(packet.NAT{Kind: packet.PortRestricted}, n.addr())
		a := n.swarm(home.Host(), overDHT|overLAN)
		b := n.swarm(home.Host(), overDHT|overLAN)
		c := n.swarm(home.Host(), overLAN)
		d := n.swarm(n.sim.Host(n.addr()), overDHT|overLAN)
		all := []*resident{a, b, c, d}
		for _, r := range all {
			if _, err := r.Join(red, JoinOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		within(t, time.Minute, func() error {
			want := []int{3, 3, 2, 2}
			for i, r := range all {
				if got := len(r.Conns()); got != want[i] {
					return fmt.Errorf("swarm %d has %d connections", i, got)
				}
			}
			return nil
		})
		time.Sleep(30 * time.Second)
		for i, r := range all {
			for _, conn := range r.Conns() {
				far := r == d || conn.RemoteKey() == d.KeyPair().Public
				if local := conn.Path().Kind == hyperdht.PathLAN; local == far {
					t.Errorf("swarm %d: %v", i, conn.Path())
				}
			}
		}
	})
}

func TestSuspendingARealSwarm(t *testing.T) {
	onInternet(t, func(t *testing.T, n *internet) {
		all := []*resident{n.swarm(n.sim.Host(n.addr()), overDHT), n.swarm(n.sim.NAT(packet.NAT{}, n.addr()).Host(), overDHT)}
		for _, r := range all {
			if _, err := r.Join(red, JoinOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		within(t, time.Minute, func() error { return met(all) })
		if err := all[1].Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if len(all[0].Conns())+len(all[1].Conns()) != 0 {
			t.Error("connected while suspended")
		}
		if err := all[1].Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("met again after %v", within(t, 30*time.Second, func() error { return met(all) }))
	})
}

// A router that comes back with another address has forgotten all connections.
func TestConnectionsComeBackAfterARouterRestarts(t *testing.T) {
	for which := range 2 {
		onInternet(t, func(t *testing.T, n *internet) {
			var all []*resident
			var routers []*packet.SimNAT
			for range 2 {
				router := n.sim.NAT(packet.NAT{Kind: packet.PortRestricted}, n.addr())
				r := n.swarm(router.Host(), overDHT)
				all, routers = append(all, r), append(routers, router)
				if _, err := r.Join(red, JoinOptions{}); err != nil {
					t.Fatal(err)
				}
				if err := r.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			within(t, time.Minute, func() error { return met(all) })
			time.Sleep(time.Minute)
			routers[which].Flush()
			routers[which].SetAddr(n.addr())
			took := within(t, time.Minute, func() error {
				a, b := all[0].Conns(), all[1].Conns()
				if len(a) != 1 || len(b) != 1 {
					return errors.New("not connected")
				}
				before, _ := b[0].link.received()
				if err := a[0].WriteMessage([]byte("alive?")); err != nil {
					return err
				}
				time.Sleep(100 * time.Millisecond)
				if after, _ := b[0].link.received(); after == before {
					return errors.New("nothing comes")
				}
				return nil
			})
			if took > 10*time.Second {
				t.Errorf("back after %v", took)
			}
			t.Logf("back after %v, %+v, %+v", took, all[0].Stats(), all[1].Stats())
		})
	}
}

// A stream may end within a call that its connection's Close waits for.
func TestTheEndOfAStreamIsToldApart(t *testing.T) {
	s, err := udx.New(udx.Options{Network: packet.NewSim(clock.System, 1).Host()}).NewStream(udx.StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var busy sync.Mutex
	told := make(chan bool)
	onClose(s, func(error) {
		busy.Lock()
		defer busy.Unlock()
		close(told)
	})
	busy.Lock()
	s.Destroy()
	busy.Unlock()
	<-told
}
