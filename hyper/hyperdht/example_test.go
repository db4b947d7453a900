package hyperdht_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
)

// A network of its own on one machine: a first node, a server and a client.
func Example() {
	ctx := context.Background()
	here := netip.MustParseAddr("127.0.0.1")
	first, err := hyperdht.Open(hyperdht.Options{
		Bind: here, Port: -1, Public: netip.AddrPortFrom(here, 0), Open: true, Node: true, Bootstrap: []string{},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	join := hyperdht.Options{Bind: here, Port: -1, Bootstrap: []string{first.Node().ServerSocket().LocalAddr().String()}}

	home, err := hyperdht.Open(join)
	if err != nil {
		log.Fatal(err)
	}
	defer home.Close()
	server, err := home.Listen(ctx, home.KeyPair(), hyperdht.ServerOptions{Serve: func(c *hyperdht.Conn) {
		defer c.Close()
		if m, err := c.ReadMessage(nil); err == nil {
			c.WriteMessage([]byte("hello, " + string(m)))
			c.ReadMessage(nil) // the client closes when it has read
		}
	}})
	if err != nil {
		log.Fatal(err)
	}

	away, err := hyperdht.Open(join)
	if err != nil {
		log.Fatal(err)
	}
	defer away.Close()
	conn, err := away.Connect(ctx, server.Key(), hyperdht.ConnectOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteMessage([]byte("world")); err != nil {
		log.Fatal(err)
	}
	m, err := conn.ReadMessage(nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, over the %s\n", m, conn.Path().Kind)
	// Output: hello, world, over the lan
}
