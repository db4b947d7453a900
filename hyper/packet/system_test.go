package packet_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/packet/packettest"
)

func TestSystem(t *testing.T) { runSystem(t) }

// runSystem runs the suite on the loopback interface.
func runSystem(t *testing.T) {
	t.Helper()
	all, err := packet.System.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			ip := netip.MustParseAddr(addr)
			c, err := packet.System.Listen(netip.AddrPortFrom(ip, 0), func([]packet.Packet) {})
			if err != nil {
				t.Skip(err)
			}
			c.Close()
			ifname := ""
			for _, i := range all {
				if ip.Is4() && i.Loopback || ip.Is6() && !i.Loopback && hasIPv6(i) {
					ifname = i.Name
				}
			}
			packettest.Run(t, func(t *testing.T) packettest.Place {
				return packettest.Place{A: packet.System, B: packet.System, AddrA: ip, AddrB: ip, Interface: ifname}
			})
		})
	}
}

// hasIPv6 tells whether there is IPv6 multicast on an interface. Loopback ones
// have none.
func hasIPv6(i packet.Interface) bool {
	return slices.ContainsFunc(i.Addrs, func(a netip.Prefix) bool { return a.Addr().IsLinkLocalUnicast() && a.Addr().Is6() })
}

// Addresses of a link carry the name of their interface, both ways.
func TestSystemOnALink(t *testing.T) {
	all, err := packet.System.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	tried := false
	for _, i := range all {
		for _, a := range i.Addrs {
			if !a.Addr().Is6() || !a.Addr().IsLinkLocalUnicast() {
				continue
			}
			tried = true
			addr := netip.AddrPortFrom(a.Addr().WithZone(i.Name), 0)
			got := make(chan netip.AddrPort, 1)
			in, err := packet.System.Listen(addr, func(batch []packet.Packet) { got <- batch[0].Addr })
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			out, err := packet.System.Listen(addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			out.Write([]packet.Packet{{Addr: in.LocalAddr(), Data: []byte("x")}})
			if from := <-got; from != out.LocalAddr() || from.Addr().Zone() != i.Name {
				t.Errorf("from %s, want %s", from, out.LocalAddr())
			}
		}
	}
	if !tried {
		t.Skip("there is no such address")
	}
}

func TestLookup(t *testing.T) {
	addrs, err := packet.Lookup(t.Context(), "localhost")
	if err != nil {
		t.Skip(err)
	}
	if !slices.ContainsFunc(addrs, netip.Addr.IsLoopback) || slices.ContainsFunc(addrs, netip.Addr.Is4In6) {
		t.Errorf("localhost is at %v", addrs)
	}
}

// An interface that comes back, such as a tunnel's, has another number.
func TestSystemForgetsNumbersOfInterfaces(t *testing.T) {
	packet.Zones.Store("tun0", uint32(7))
	if _, err := packet.System.LocalAddrs(); err != nil {
		t.Fatal(err)
	}
	if index, known := packet.Zones.Load("tun0"); known {
		t.Errorf("tun0 is still number %d", index)
	}
}
