package dhtrelay_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrelay"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A client that has nothing but WebSockets reaches a peer of the DHT.
func Example() {
	ctx := context.Background()
	internet := packet.NewSim(clock.System, 1) // for a real one leave Network and Bootstrap out
	boot := netip.MustParseAddrPort("24.1.1.1:49737")
	first, _ := hyperdht.Open(hyperdht.Options{
		Network: internet.Host(boot.Addr()), Public: boot, FixedPort: true, Bootstrap: []string{}, Open: true, Node: true,
	})
	defer first.Close()
	node := func(last byte) *hyperdht.DHT {
		host := internet.Host(netip.AddrFrom4([4]byte{24, 1, last, 1}))
		d, err := hyperdht.Open(hyperdht.Options{Network: host, Bootstrap: []string{boot.String()}, Open: true, Node: true})
		if err != nil {
			fmt.Println(err)
		}
		return d
	}

	// A peer that listens.
	peer := node(2)
	defer peer.Close()
	keys := noise.NewKeyPair([32]byte{1})
	if _, err := peer.Listen(ctx, keys, hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) {
		defer c.Close()
		name, _ := c.ReadMessage(nil)
		c.WriteMessage(append([]byte("hello "), name...))
		c.ReadMessage(nil) // until the other side ends
	}}); err != nil {
		fmt.Println(err)
	}

	// A relay on another node, with a door for WebSockets.
	d := node(3)
	defer d.Close()
	relay := dhtrelay.NewServer(dhtrelay.Over(d), dhtrelay.ServerOptions{})
	defer relay.Close()
	door, err := transport.Listen(ctx, "ws://127.0.0.1:0/", transport.ListenOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer door.Close()
	go relay.ServeListener(ctx, door)

	client, err := dhtrelay.Dial(ctx, door.Addr(), dhtrelay.ClientOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	s, err := client.Connect(ctx, keys.Public, dhtrelay.ConnectOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	s.WriteMessage([]byte("world"))
	answer, err := s.ReadMessage(nil)
	fmt.Println(string(answer), err)
	// Output: hello world <nil>
}
