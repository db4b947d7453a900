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
