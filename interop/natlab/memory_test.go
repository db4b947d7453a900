package natlab_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrelay"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/internal/natlab"
)

// memory is a network in memory with the sites of a laboratory, where none can
// be built.
type memory struct {
	*packet.Sim
	timeout  time.Duration // of mappings; zero is the usual
	line     packet.Link   // of NATs to the internet
	alike    bool          // hosts have the same addresses at home
	sites    byte
	carriers map[natlab.Kind]*packet.SimNAT
}

func newMemory(c clock.Clock, seed uint64) *memory {
	return &memory{Sim: packet.NewSim(c, seed), carriers: make(map[natlab.Kind]*packet.SimNAT)}
}

// site adds a site, and returns how to add hosts to it and to flush its NATs.
func (m *memory) site(kind natlab.Kind) (host func() *packet.SimHost, flush func() error) {
	nats := kind.NATs()
	m.sites++
	on := m.SimNet
	var own []*packet.SimNAT
	for i := len(nats) - 1; i >= 0; i-- {
		shared := kind.Carried() && i == len(nats)-1
		nat := m.carriers[kind]
		if !shared || nat == nil {
			nat = on.NAT(simNAT(nats[i], m.timeout))
			nat.SetLink(m.line)
			if nats[i].Block != natlab.Nothing {
				nat.SetLink(packet.Link{Loss: 1})
			}
		}
		if shared {
			m.carriers[kind] = nat
		} else {
			own = append(own, nat)
		}
		on = nat.SimNet
	}
	hosts, number := byte(1), m.sites
	if m.alike {
		number = 1
	}
	host = func() *packet.SimHost {
		if len(nats) == 0 {
			return on.Host()
		}
		hosts++
		return on.Host(netip.AddrFrom4([4]byte{192, 168, number, hosts}))
	}
	flush = func() error {
		for _, nat := range own {
			nat.Flush()
		}
		return nil
	}
	return host, flush
}

func simNAT(n natlab.NAT, timeout time.Duration) packet.NAT {
	nat := packet.NAT{Hairpin: n.Hairpin, Timeout: timeout}
	switch {
	case n.Mapping != natlab.Independent:
		nat.Kind = packet.Symmetric
	case n.Filtering == natlab.Independent:
		nat.Kind = packet.FullCone
	case n.Filtering == natlab.Address:
		nat.Kind = packet.Restricted
	default:
		nat.Kind = packet.PortRestricted
	}
	return nat
}

// places are sites of each kind with subjects of ours.
func (m *memory) places(kinds []natlab.Kind, network natlab.Network, door *dhtrelay.Server) map[natlab.Kind]*natlab.Place {
	places := make(map[natlab.Kind]*natlab.Place)
	for _, kind := range kinds {
		host, flush := m.site(kind)
		subject := &goSubject{machine: host(), network: network}
		if door != nil {
			subject.door = func(ctx context.Context) (*dhtrelay.Client, error) { return throughDoor(ctx, door) }
		}
		places[kind] = &natlab.Place{Kind: kind, Subject: subject, Flush: flush}
	}
	return places
}

// throughDoor makes a client of a door over a pipe, instead of a WebSocket.
func throughDoor(ctx context.Context, door *dhtrelay.Server) (*dhtrelay.Client, error) {
	near, far := transport.Pipe()
	keys, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		return nil, err
	}
	go func() {
		if stream, err := secretstream.Server(context.Background(), far, secretstream.Options{KeyPair: keys}); err == nil {
			_ = door.Serve(context.Background(), stream)
		}
	}()
	stream, err := secretstream.Client(ctx, near, secretstream.Options{KeyPair: keys})
	if err != nil {
		return nil, err
	}
	return dhtrelay.NewClient(stream, dhtrelay.ClientOptions{})
}

// newMemoryWithDHT is a network in memory with a DHT, a blind relay and a door
// of ours on it.
func newMemoryWithDHT(t *testing.T, c clock.Clock) (*memory, natlab.Network, *dhtrelay.Server) {
	t.Helper()
	m := newMemory(c, 1)
	var addrs []netip.Addr
	for i := range 16 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{24, 8, byte(i), 1}))
	}
	var network natlab.Network
	network.Bootstrap = startDHT(t, addrs, func(addr netip.Addr) packet.Network { return m.Host(addr) })
	open := func() *hyperdht.DHT {
		return openNode(t, m.Host(), hyperdht.Options{Open: true, Node: true, Bootstrap: network.Bootstrap})
	}
	network.Relay = &natlab.Relay{Key: startRelay(t, open())}
	return m, network, startDoor(t, open())
}

// TestMatrixInMemory is the matrix where no laboratory can be built, with ours
// at both ends.
func TestMatrixInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, network, door := newMemoryWithDHT(t, clock.System)
		cells := natlab.All(natlab.Kinds, natlab.Kinds) // which take no time here
		doors := natlab.Doors{Client: true, Server: true}
		runMatrix(t, "Go to Go, in memory", cells, doors, m.places(natlab.Kinds, network, door), m.places(natlab.Kinds, network, door), 1)
	})
}

// simConn is a socket of a packet.Network that is read from.
type simConn struct {
	packet.Conn
	mu       sync.Mutex
	changed  *sync.Cond
	arrived  []packet.Packet
	deadline time.Time
	closed   bool
}

// listenOn opens sockets of a host for a prober.
func listenOn(host packet.Network) natlab.Listen {
	return func(addr netip.AddrPort) (net.PacketConn, error) {
		c := &simConn{}
		c.changed = sync.NewCond(&c.mu)
		conn, err := host.Listen(addr, func(batch []packet.Packet) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, p := range batch {
				for data := range p.Datagrams() {
					c.arrived = append(c.arrived, packet.Packet{Addr: p.Addr, Data: append([]byte(nil), data...)})
				}
			}
			c.changed.Broadcast()
		})
		c.Conn = conn
		return c, err
	}
}

func (c *simConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.arrived) == 0 {
		if c.closed {
			return 0, nil, net.ErrClosed
		}
		if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
			return 0, nil, os.ErrDeadlineExceeded
		}
		c.changed.Wait()
	}
	p := c.arrived[0]
	c.arrived = c.arrived[1:]
	return copy(b, p.Data), packet.NetAddr(p.Addr), nil
}

func (c *simConn) WriteTo(b []byte, to net.Addr) (int, error) {
	return len(b), c.Write([]packet.Packet{{Addr: to.(*net.UDPAddr).AddrPort(), Data: b}})
}

func (c *simConn) LocalAddr() net.Addr { return packet.NetAddr(c.Conn.LocalAddr()) }

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	time.AfterFunc(time.Until(t), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	return nil
}

func (c *simConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *simConn) SetWriteDeadline(t time.Time) error { return nil }

func (c *simConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.changed.Broadcast()
	c.mu.Unlock()
	return c.Conn.Close()
}

// The network in memory has the same sites as the laboratory: the same probes
// find the same in both.
func TestMemoryHasTheSitesOfTheLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(clock.System, 1)
		addrs := natlab.Internet("24.9.9.1", "24.9.9.2")
		p, err := natlab.NewProber(listenOn(m.Host(addrs...)), addrs[0], addrs[1])
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for _, kind := range natlab.Kinds {
			host, _ := m.site(kind)
			found, err := p.Probe(listenOn(host()))
			want, udp := kind.Probed()
			if !udp && !errors.Is(err, natlab.ErrBlocked) {
				t.Errorf("%s: got %v, %v, want no UDP", kind, found, err)
			}
			if udp && (err != nil || found.String() != want.String()) {
				t.Errorf("%s: got %v, %v, want %v", kind, found, err, want)
			}
		}
	})
}
