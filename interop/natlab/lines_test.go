package natlab_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/internal/natlab"
)

// flushCells are connections that a NAT forgets.
var flushCells = []natlab.Cell{
	{Client: natlab.PortRestricted, Server: natlab.PortRestricted},
	{Client: natlab.Symmetric, Server: natlab.Open},
	{Client: natlab.Open, Server: natlab.Symmetric},
	{Client: natlab.Open, Server: natlab.PortRestricted},
	{Client: natlab.PortRestricted, Server: natlab.Open},
	{Client: natlab.Carrier, Server: natlab.FullCone},
	{Client: natlab.Symmetric, Server: natlab.Symmetric},
}

// checkFlush has NATs forget an open connection, on both sides, and wants the
// next echo within ten seconds: over the connection, or over a new one.
func checkFlush(t *testing.T, cell natlab.Cell, client, server *natlab.Place) {
	t.Helper()
	key, err := server.Subject.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := natlab.Doors{}.Want(cell)
	first, err := client.Subject.Connect(t.Context(), key, want == natlab.Relayed, 40*time.Second)
	if err != nil || first.Path == natlab.None {
		t.Fatalf("%s: %v, %v", cell, first, err)
	}
	for _, p := range []*natlab.Place{client, server} {
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	again, err := client.Subject.Again(t.Context(), 60*time.Second)
	if err != nil || again.Path == natlab.None || again.Took() > 10*time.Second {
		t.Errorf("%s: %v before the NATs forgot it; again %v, %v, want less than 10 s", cell, first, again, err)
	}
	t.Logf("%s: %v before, again %v", cell, first, again)
	for _, p := range []*natlab.Place{client, server} {
		if err := p.Subject.Drop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestConnectionsComeBackInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, network, door := newMemoryWithDHT(t, clock.System)
		for _, cell := range flushCells {
			kinds := []natlab.Kind{cell.Client, cell.Server}
			clients, servers := m.places(kinds, network, door), m.places(kinds, network, door)
			checkFlush(t, cell, clients[cell.Client], servers[cell.Server])
		}
	})
}

// NATs that forget after half a minute keep the holes of connections that are
// idle for long, because those are kept alive.
func TestIdleConnectionsKeepTheirHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, network, door := newMemoryWithDHT(t, clock.System)
		m.timeout = 30 * time.Second
		kinds := []natlab.Kind{natlab.PortRestricted}
		client, server := m.places(kinds, network, door)[kinds[0]].Subject, m.places(kinds, network, door)[kinds[0]].Subject
		key, err := server.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		first, err := client.Connect(t.Context(), key, false, 20*time.Second)
		if err != nil || first.Path != natlab.Punched {
			t.Fatalf("%v, %v", first, err)
		}
		time.Sleep(10 * time.Minute)
		again, err := client.Again(t.Context(), 20*time.Second)
		if err != nil || again.Path != natlab.Punched || again.Took() > time.Second {
			t.Errorf("after ten minutes: %v, %v, want an echo at once", again, err)
		}
		for _, s := range []natlab.Subject{client, server} {
			if err := s.Drop(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// Two with bad lines, whose packets are lost and late, meet all the same.
func TestPeersMeetOverBadLinesInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, network, _ := newMemoryWithDHT(t, clock.System)
		m.line = packet.Link{Delay: 40 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.03, Reorder: 0.01, Duplicate: 0.01, Rate: 5e6}
		kinds := []natlab.Kind{natlab.PortRestricted}
		for range 20 {
			client, server := m.places(kinds, network, nil)[kinds[0]].Subject, m.places(kinds, network, nil)[kinds[0]].Subject
			key, err := server.Listen(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := client.Connect(t.Context(), key, false, 40*time.Second)
			if err != nil || got.Path != natlab.Punched {
				t.Errorf("%v %s, %v, want punched", got, got.Error, err)
			}
			for _, s := range []natlab.Subject{client, server} {
				if err := s.Drop(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
