package hyperswarm

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// Swarms on a local network in memory that leads nowhere: real discovery, real
// handshakes, real streams.
func TestSwarmsMeetWithoutInternet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := packet.NewSim(clock.System, 1)
		lan := sim.LAN()
		const n = 6
		var swarms []*Swarm
		said := make(chan string, n*n)
		for i := range n {
			s, err := New(Options{KeyPair: ranked[i], LAN: &mdns.Options{Network: lan.Host()}, Serve: func(c *Conn) {
				if err := c.WriteMessage([]byte("hello")); err != nil {
					return
				}
				m, err := c.ReadMessage(nil)
				if err == nil {
					said <- string(m)
				}
				<-c.Done()
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			swarms = append(swarms, s)
		}
		for _, s := range swarms {
			if _, err := s.Join(red, JoinOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		all := func() (err error) {
			for i, s := range swarms {
				if got := len(s.Conns()); got != n-1 {
					err = errors.Join(err, fmt.Errorf("%d has %d connections", i, got))
				}
			}
			return err
		}
		for all() != nil {
			if time.Since(began) > time.Second {
				t.Fatal(all())
			}
			time.Sleep(time.Millisecond)
		}
		t.Logf("all are connected after %v", time.Since(began))
		time.Sleep(time.Minute)
		if err := all(); err != nil {
			t.Error(err)
		}
		for _, s := range swarms {
			for _, c := range s.Conns() {
				if c.Path().Kind != hyperdht.PathLAN || c.Path().Why != "" {
					t.Errorf("path %v", c.Path())
				}
			}
		}
		if len(said) < n*(n-1) {
			t.Errorf("%d messages came", len(said))
		}
	})
}

// A peer that is asked for by its key is found by it.
func TestAPeerIsFoundByItsKeyWithoutInternet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := packet.NewSim(clock.System, 1)
		lan := sim.LAN()
		var swarms []*Swarm
		for i := range 2 {
			s, err := New(Options{KeyPair: ranked[i], LAN: &mdns.Options{Network: lan.Host()}, Serve: func(c *Conn) { <-c.Done() }})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			swarms = append(swarms, s)
		}
		if err := swarms[0].Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		swarms[1].JoinPeer(ranked[0].Public)
		time.Sleep(time.Second)
		if len(swarms[1].Conns()) != 1 {
			t.Errorf("%+v", swarms[1].Peers())
		}
		for _, s := range swarms {
			if len(s.Remembered()) != 1 {
				t.Errorf("remembers %v", s.Remembered())
			}
		}
	})
}
