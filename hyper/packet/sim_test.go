package packet_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/packet/packettest"
)

func TestSim(t *testing.T) {
	for _, addrs := range [][2]string{{"192.168.7.1", "192.168.7.2"}, {"fd00::1", "fd00::2"}} {
		a, b := netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1])
		t.Run(addrs[0], func(t *testing.T) {
			packettest.Run(t, func(t *testing.T) packettest.Place {
				l := newLab(t)
				lan := l.LAN()
				return packettest.Place{
					A: lan.Host(a), B: lan.Host(b), AddrA: a, AddrB: b, Interface: "eth0",
					Step: func() { l.clock.Advance(time.Millisecond) },
				}
			})
		})
	}
}
