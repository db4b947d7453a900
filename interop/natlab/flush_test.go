package natlab_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/internal/natlab"
)

// flushCells are connections that a NAT forgets.
var flushCells = []natlab.Cell{
	{Client: natlab.PortRestricted, Server: natlab.Open},
	{Client: natlab.Symmetric, Server: natlab.Open},
	{Client: natlab.Open, Server: natlab.PortRestricted},
	{Client: natlab.Open, Server: natlab.Symmetric},
	{Client: natlab.PortRestricted, Server: natlab.PortRestricted},
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
