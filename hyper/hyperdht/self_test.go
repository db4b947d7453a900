package hyperdht

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// A DHT reaches its own servers, at home too: relays listen and connect for
// several who may want to meet.
func TestDHTConnectsToItself(t *testing.T) {
	for name, kind := range map[string]packet.NATKind{"port-restricted": packet.PortRestricted, "symmetric": packet.Symmetric} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 6, func(t *testing.T, w *world) {
				home := w.sim.NAT(packet.NAT{Kind: kind}, w.addr())
				d := w.open(Options{Network: home.Host()})
				if err := d.Bootstrapped(t.Context()); err != nil {
					t.Fatal(err)
				}
				s, err := d.Listen(t.Context(), d.KeyPair(), ServerOptions{Serve: func(c *Conn) { c.Next() }})
				if err != nil {
					t.Fatal(err)
				}
				for range 10 {
					c, err := d.Connect(t.Context(), s.Key(), ConnectOptions{})
					if err != nil {
						t.Fatal(err)
					}
					if p := c.Path(); p.Kind != PathLAN {
						t.Errorf("connected %v, want on this machine", p)
					}
					c.Close()
				}
			})
		})
	}
}

// What was written to a connection arrives, and its end too, if the DHT is
// closed just after it.
func TestClosingLosesNoLastWords(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		server := w.open(Options{Network: w.sim.NAT(packet.NAT{}, w.addr()).Host()})
		heard := make(chan error, 1)
		s, err := server.Listen(t.Context(), server.KeyPair(), ServerOptions{Serve: func(c *Conn) {
			defer c.Close()
			n := 0
			for {
				m, err := c.Next()
				if err == io.EOF && n == 100<<10 {
					heard <- nil
					return
				}
				if err != nil {
					heard <- fmt.Errorf("%w after %d bytes", err, n)
					return
				}
				n += len(m)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		client, err := Open(Options{Network: w.sim.NAT(packet.NAT{}, w.addr()).Host(), Bootstrap: w.boot})
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err == nil {
			err = errors.Join(c.WriteMessage(make([]byte, 100<<10)), c.CloseWrite(), c.Close())
		}
		if err = errors.Join(err, client.Close()); err != nil {
			t.Fatal(err)
		}
		if err := <-heard; err != nil {
			t.Error(err)
		}
	})
}

// What happens to a node while it is opened is told, too: the first node of a
// network has joined it by then.
func TestTheFirstEventsAreTold(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		events := make(chan dhtrpc.Event, 16)
		addr := w.addr()
		w.open(Options{Network: w.sim.Host(addr), Public: netip.AddrPortFrom(addr, 0), Open: true, Node: true, Bootstrap: []string{},
			Notify: func(e dhtrpc.Event) { events <- e }})
		for _, want := range []dhtrpc.Event{dhtrpc.Persistent, dhtrpc.Ready} {
			if e := <-events; e != want {
				t.Errorf("got %v, want %v", e, want)
			}
		}
	})
}
