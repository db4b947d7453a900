package natlab_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/internal/natlab"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// Two on one LAN, whose NAT does not let them reach each other from outside,
// find their local addresses through the DHT.
func TestPeersOnOneLANMeetThere(t *testing.T) {
	nodepeer.Require(t)
	if err := natlab.Check(); err != nil {
		t.Skip(err)
	}
	l := newLab(t)
	for i, c := range []struct {
		client, server starter
		network        natlab.Network
	}{{l.nodeJS, l.nodeJS, l.node}, {l.ours, l.ours, l.own}, {l.ours, l.nodeJS, l.node}, {l.nodeJS, l.ours, l.own}} {
		site, err := l.Site(fmt.Sprint("home", i), natlab.PortRestricted)
		if err != nil {
			t.Fatal(err)
		}
		var subjects [2]natlab.Subject
		for j, start := range []starter{c.client, c.server} {
			host, err := site.Host(fmt.Sprint("host", i, j))
			if err != nil {
				t.Fatal(err)
			}
			p, err := start(host)
			if err != nil {
				t.Fatal(err)
			}
			subjects[j] = natlab.Process(p, c.network)
		}
		key, err := subjects[1].Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := subjects[0].Connect(t.Context(), key, false, 20*time.Second)
		if err != nil || got.Path != natlab.LAN {
			t.Errorf("pair %d: %v %s, %v, want lan", i, got, got.Error, err)
		}
		t.Logf("pair %d: %v", i, got)
	}
}

// Two on a LAN without a router, with nothing but each other, meet within a
// second.
func TestPeersMeetWithoutInternet(t *testing.T) {
	if err := natlab.Check(); err != nil {
		t.Skip(err)
	}
	lab, err := natlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	var took time.Duration
	for try := range 3 { // the machine may have much else to do
		if took = meetOnIsland(t, lab, byte(try)); took < time.Second {
			t.Logf("met after %v", took)
			return
		}
	}
	t.Errorf("met after %v, want less than a second", took)
}

// meetOnIsland has a second swarm come to a LAN where one is, and returns how
// long it takes it to have a connection.
func meetOnIsland(t *testing.T, lab *natlab.Lab, number byte) time.Duration {
	t.Helper()
	island, err := lab.Island(fmt.Sprint("island", number))
	if err != nil {
		t.Fatal(err)
	}
	topic := hyperswarm.Topic{1, number}
	met := make(chan *hyperswarm.Conn, 2)
	join := func(name string, seed byte, o hyperswarm.JoinOptions) {
		host, err := island.Host(fmt.Sprint(name, number))
		if err != nil {
			t.Fatal(err)
		}
		swarm, err := hyperswarm.New(hyperswarm.Options{
			LAN:     &mdns.Options{Network: machine{host}},
			KeyPair: noise.NewKeyPair([32]byte{seed, number}),
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
	join("server", 1, hyperswarm.JoinOptions{ServerOnly: true})
	started := time.Now()
	join("client", 2, hyperswarm.JoinOptions{ClientOnly: true})
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
