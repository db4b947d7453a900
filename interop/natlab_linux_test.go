package interop_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/natlab"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// lab is a laboratory with a DHT and a blind relay of Node.js on its internet.
type lab struct {
	*natlab.Lab
	t       *testing.T
	network natlab.Network
}

func newLab(t *testing.T) *lab {
	t.Helper()
	nodepeer.Require(t)
	if err := natlab.Check(); err != nil {
		t.Skip(err)
	}
	l, err := natlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	lab := &lab{Lab: l, t: t}

	addrs := []string{"9.9.0.1", "9.9.0.2", "9.9.0.3", "9.9.0.4", "9.9.0.5", "9.9.0.6", "9.9.0.7", "9.9.0.8"}
	dht := lab.process("dht", addrs...)
	var made struct{ Bootstrap []string }
	if err := dht.Call(t.Context(), "network", args{"hosts": addrs, "each": 3}, &made); err != nil {
		t.Fatal(err)
	}
	lab.network.Bootstrap = made.Bootstrap

	const at = "9.9.1.1"
	relay := lab.process("relay", at)
	lab.network.Relay = &natlab.Relay{Host: at}
	if err := relay.Call(t.Context(), "relay", args{"host": at, "bootstrap": made.Bootstrap}, &lab.network.Relay); err != nil {
		t.Fatal(err)
	}
	return lab
}

// process starts interop/node/natlab.js on a new host of the internet.
func (l *lab) process(name string, addrs ...string) *nodepeer.Process {
	l.t.Helper()
	host, err := l.Host(name, natlab.Internet(addrs...)...)
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := l.node(host)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// A starter starts a process that can be a subject.
type starter func(*natlab.Host) (*nodepeer.Process, error)

// node starts interop/node/natlab.js.
func (l *lab) node(host *natlab.Host) (*nodepeer.Process, error) {
	// The test's context ends before the lab does.
	ctx := context.WithoutCancel(l.t.Context())
	cmd, err := nodepeer.Command(ctx, "natlab.js")
	if err != nil {
		return nil, err
	}
	return host.Start(ctx, cmd)
}

// ours starts this test binary as a subject.
func (l *lab) ours(host *natlab.Host) (*nodepeer.Process, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), subjectEnv+"=1")
	return host.Start(context.WithoutCancel(l.t.Context()), cmd)
}

// places are sites of each kind with subjects.
func (l *lab) places(role string, kinds []natlab.Kind, start starter) map[natlab.Kind]*natlab.Place {
	l.t.Helper()
	places, err := l.Places(role, kinds, func(host *natlab.Host) (natlab.Subject, error) {
		p, err := start(host)
		if err != nil {
			return nil, err
		}
		return natlab.Process(p, l.network), nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return places
}

// The cells that are always tried: each kind, each kind of path, in few seconds.
var someCells = []natlab.Cell{
	{Client: natlab.Open, Server: natlab.PortRestricted},
	{Client: natlab.FullCone, Server: natlab.Open},
	{Client: natlab.PortRestricted, Server: natlab.FullCone},
	{Client: natlab.PortRestricted, Server: natlab.PortRestricted},
	{Client: natlab.Restricted, Server: natlab.Symmetric},
	{Client: natlab.Symmetric, Server: natlab.Symmetric},
	{Client: natlab.Double, Server: natlab.PortRestricted},
	{Client: natlab.Carrier, Server: natlab.Carrier},
	{Client: natlab.CarrierHairpin, Server: natlab.CarrierHairpin},
	{Client: natlab.NoUDP, Server: natlab.Open},
	{Client: natlab.OnlyTCP443, Server: natlab.PortRestricted},
}

func TestMatrix(t *testing.T) {
	cells := someCells
	if os.Getenv("BEVY_LONG") == "1" {
		cells = natlab.All(natlab.Kinds, natlab.Kinds)
	}
	var clientKinds, serverKinds []natlab.Kind
	for _, c := range cells {
		if !slices.Contains(clientKinds, c.Client) {
			clientKinds = append(clientKinds, c.Client)
		}
		if !slices.Contains(serverKinds, c.Server) {
			serverKinds = append(serverKinds, c.Server)
		}
	}
	l := newLab(t)
	nodeClients, nodeServers := l.places("node-client", clientKinds, l.node), l.places("node-server", serverKinds, l.node)
	ourClients, ourServers := l.places("our-client", clientKinds, l.ours), l.places("our-server", serverKinds, l.ours)
	for _, c := range []struct {
		name             string
		clients, servers map[natlab.Kind]*natlab.Place
	}{
		{"Node to Node", nodeClients, nodeServers},
		{"Go to Go", ourClients, ourServers},
		{"Go to Node", ourClients, nodeServers},
		{"Node to Go", nodeClients, ourServers},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := natlab.Run(t.Context(), c.name, cells, c.clients, c.servers, 4, 40*time.Second)
			m.Print(t.Output())
			for _, cell := range cells {
				got, ok := m.Result(cell)
				if !ok || !cell.Allows(got.Path) {
					t.Errorf("%s: %v %s, want %s", cell, got, got.Error, cell.Want())
				}
			}
		})
	}
}
