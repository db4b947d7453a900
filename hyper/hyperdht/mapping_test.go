package hyperdht

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/packet"
)

// A fakeMapping is a port of a router that says what the test wants.
type fakeMapping struct {
	external netip.AddrPort
	change   func(netip.AddrPort)
	closed   bool
}

func (m *fakeMapping) External() netip.AddrPort        { return m.external }
func (m *fakeMapping) OnChange(f func(netip.AddrPort)) { m.change = f }
func (m *fakeMapping) Close() error                    { m.closed = true; return nil }
func (m *fakeMapping) moves(to netip.AddrPort)         { m.external = to; m.change(to) }

// TestMappedPortIsReachedDirectly has a client that could not punch to the
// server, as its NAT chooses ports at random, reach it by a port that the
// router mapped: and not by one that it only says it did.
func TestMappedPortIsReachedDirectly(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		home := w.sim.NAT(packet.NAT{Kind: packet.FullCone, Timeout: time.Hour}, w.addr())
		var server *DHT
		var m *fakeMapping
		opened, asked := make(chan struct{}), make(chan struct{})
		server = w.open(Options{Network: home.Host(), MapPort: func(ctx context.Context, port uint16) (Mapping, error) {
			defer close(asked)
			<-opened
			// A full cone lets everyone in by a port that was used: that is the mapping.
			server.Node().ServerSocket().Send(netip.MustParseAddrPort("24.9.9.9:9"), []byte{1, 2})
			m = &fakeMapping{external: netip.AddrPortFrom(home.Addr(), port)}
			return m, nil
		}})
		close(opened)
		if err := server.Bootstrapped(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-asked
		waitFor(t, func() bool { _, ok := server.serverAddr(); return ok })
		if addr, _ := server.serverAddr(); addr != m.external {
			t.Fatalf("reached at %v, want %v", addr, m.external)
		}
		s, err := server.Listen(t.Context(), server.KeyPair(), ServerOptions{Serve: func(c *Conn) { c.Next() }})
		if err != nil {
			t.Fatal(err)
		}
		random := w.sim.NAT(packet.NAT{Kind: packet.Symmetric}, w.addr())
		client := w.open(Options{Network: random.Host()})
		if err := client.Bootstrapped(t.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p := c.Path(); p.Kind != PathDirect || p.Addr != m.external {
			t.Errorf("connected %v, want directly by %v", p, m.external)
		}
		c.Close()

		m.moves(netip.AddrPortFrom(home.Addr(), m.external.Port()+1)) // which leads nowhere
		waitFor(t, func() bool { _, ok := server.serverAddr(); return !ok })
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		if !m.closed {
			t.Error("the port was not given back")
		}
	})
}

// A router that maps nothing is no reason to do anything else.
func TestRouterWithoutPorts(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		home := w.sim.NAT(packet.NAT{}, w.addr())
		d := w.open(Options{Network: home.Host(), MapPort: func(context.Context, uint16) (Mapping, error) {
			return nil, errors.New("no router that maps ports")
		}})
		if err := d.Bootstrapped(t.Context()); err != nil {
			t.Fatal(err)
		}
		if addr, ok := d.serverAddr(); ok {
			t.Errorf("reached at %v", addr)
		}
	})
}

// waitFor waits until f is true, by the time of the bubble.
func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for range 600 {
		if f() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("waited in vain for a minute")
}
