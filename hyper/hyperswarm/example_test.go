package hyperswarm_test

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log"

	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// Peers of a local network greet one another. With Options.DHT they would meet
// wherever they are.
func Example() {
	keys, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	swarm, err := hyperswarm.New(hyperswarm.Options{
		KeyPair: keys,
		LAN:     &mdns.Options{},
		Serve: func(c *hyperswarm.Conn) {
			c.WriteMessage([]byte("hello"))
			m, err := c.ReadMessage(nil)
			fmt.Printf("%s says %q, %v, over %v\n", c.RemoteKey(), m, err, c.Path())
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer swarm.Close()
	if _, err := swarm.Join(sha256.Sum256([]byte("people who say hello")), hyperswarm.JoinOptions{}); err != nil {
		log.Fatal(err)
	}
	select {}
}
