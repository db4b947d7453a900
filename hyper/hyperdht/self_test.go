package hyperdht

import (
	"testing"

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
