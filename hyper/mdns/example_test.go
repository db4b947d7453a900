package mdns_test

import (
	"crypto/rand"
	"fmt"
	"log"

	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// A node that says that it has a topic, and lists who has it, too.
func Example() {
	keys, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	node, err := mdns.Open(mdns.Options{
		KeyPair: keys,
		Found:   func(p mdns.Peer) { fmt.Println("somebody is at", p.Addrs) },
		Serve:   func(c *mdns.Conn) { c.Close() },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	topic := mdns.Topic{1, 2, 3}
	if err := node.Announce(topic); err != nil {
		log.Fatal(err)
	}
	node.Browse(topic)
	select {}
}
