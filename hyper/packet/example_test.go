package packet_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// A laptop at home asks a server how it is seen.
func ExampleSim() {
	time0 := clock.NewFake(time.Unix(0, 0))
	sim := packet.NewSim(time0, 1)
	server := sim.Host(netip.MustParseAddr("9.9.0.1"))
	home := sim.NAT(packet.NAT{Kind: packet.PortRestricted}, netip.MustParseAddr("9.9.0.2"))
	laptop := home.Host()

	var echo packet.Conn
	echo, _ = server.Listen(netip.MustParseAddrPort("0.0.0.0:7"), func(batch []packet.Packet) {
		for _, p := range batch {
			echo.Write([]packet.Packet{{Addr: p.Addr, Data: []byte(p.Addr.String())}})
		}
	})
	conn, _ := laptop.Listen(netip.MustParseAddrPort("0.0.0.0:7000"), func(batch []packet.Packet) {
		for _, p := range batch {
			fmt.Printf("%s sees %s after %v\n", p.Addr, p.Data, time0.Now().Sub(time.Unix(0, 0)))
		}
	})
	conn.Write([]packet.Packet{{Addr: netip.MustParseAddrPort("9.9.0.1:7"), Data: []byte("hello")}})
	time0.Advance(time.Second)
	// Output: 9.9.0.1:7 sees 9.9.0.2:7000 after 20.4ms
}
