package natlab_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// meet has a second swarm come to a LAN where one is, and returns how long it
// takes both to have a connection.
func meet(t *testing.T, first, second packet.Network) time.Duration {
	t.Helper()
	topic := hyperswarm.Topic{1}
	met := make(chan *hyperswarm.Conn, 2)
	join := func(machine packet.Network, seed byte, o hyperswarm.JoinOptions) {
		swarm, err := hyperswarm.New(hyperswarm.Options{
			LAN:     &mdns.Options{Network: machine},
			KeyPair: noise.NewKeyPair([32]byte{seed}),
			Serve: func(c *hyperswarm.Conn) {
				met <- c
				<-c.Done()
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := swarm.Close(); err != nil {
				t.Error(err)
			}
		})
		if _, err := swarm.Join(topic, o); err != nil {
			t.Fatal(err)
		}
	}
	join(first, 1, hyperswarm.JoinOptions{ServerOnly: true})
	started := time.Now()
	join(second, 2, hyperswarm.JoinOptions{ClientOnly: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		select {
		case c := <-met:
			if kind := c.Path().Kind; kind != hyperdht.PathLAN {
				t.Errorf("the path is %v, want lan", kind)
			}
		case <-ctx.Done():
			t.Fatal("they did not meet")
		}
	}
	return time.Since(started)
}

// Two on a LAN without a router, with nothing but each other, meet within a
// second. In the laboratory it is TestPeersMeetWithoutInternet.
func TestPeersMeetWithoutInternetInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := packet.NewSim(clock.System, 1).LAN()
		took := meet(t, lan.Host(), lan.Host())
		if took >= time.Second {
			t.Errorf("met after %v, want less than a second", took)
		}
	})
}
