package protomux_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// Two peers speak a protocol with one message over an encrypted stream.
func Example() {
	ctx := context.Background()
	a, b := net.Pipe() // or any connection
	var wg sync.WaitGroup

	wg.Go(func() {
		keys, _ := noise.GenerateKeyPair(rand.Reader)
		stream, err := secretstream.Server(ctx, b, secretstream.Options{KeyPair: keys})
		if err != nil {
			fmt.Println(err)
			return
		}
		m := protomux.New(protomux.Options{})
		m.Pair("greet", nil, func(r *protomux.Request) {
			m.Open(protomux.ChannelOptions{
				Protocol: r.Protocol,
				ID:       r.ID,
				Messages: []func(*protomux.Channel, []byte) error{
					func(c *protomux.Channel, name []byte) error {
						return c.Send(0, []byte("hello "), name)
					},
				},
			})
		})
		if err := m.Serve(ctx, stream); err != nil {
			fmt.Println(err)
		}
	})

	keys, _ := noise.GenerateKeyPair(rand.Reader)
	stream, err := secretstream.Client(ctx, a, secretstream.Options{KeyPair: keys})
	if err != nil {
		fmt.Println(err)
		return
	}
	m := protomux.New(protomux.Options{})
	c, err := m.Open(protomux.ChannelOptions{
		Protocol: "greet",
		Messages: []func(*protomux.Channel, []byte) error{
			func(c *protomux.Channel, answer []byte) error {
				fmt.Println(string(answer))
				c.Mux().Close()
				return nil
			},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Send(0, []byte("alice")); err != nil {
		fmt.Println(err)
	}
	if err := m.Serve(ctx, stream); err != nil {
		fmt.Println(err)
	}
	wg.Wait()
	// Output: hello alice
}
