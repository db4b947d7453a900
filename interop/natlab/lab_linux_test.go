package natlab_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/internal/natlab"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// lab is a laboratory with two networks on its internet, of Node.js and of ours.
type lab struct {
	*natlab.Lab
	t         *testing.T
	node, own natlab.Network
}

func newLab(t *testing.T) *lab {
	t.Helper()
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

	// Of Node.js are 24 nodes on eight addresses, and a blind relay.
	addrs := []string{"9.9.0.1", "9.9.0.2", "9.9.0.3", "9.9.0.4", "9.9.0.5", "9.9.0.6", "9.9.0.7", "9.9.0.8"}
	dht := lab.script("dht", addrs...)
	if err := dht.Call(t.Context(), "network", map[string]any{"hosts": addrs, "each": 3}, &lab.node); err != nil {
		t.Fatal(err)
	}
	const at = "9.9.1.1"
	lab.node.Relay = &natlab.Relay{Host: at}
	if err := lab.script("relay", at).Call(t.Context(), "relay", map[string]any{"host": at, "bootstrap": lab.node.Bootstrap}, lab.node.Relay); err != nil {
		t.Fatal(err)
	}
	lab.node.Door = lab.door("9.9.1.2", lab.node.Bootstrap)

	// Of ours are 16 nodes, a blind relay and a door.
	var nodes []netip.Addr
	for i := range 16 {
		nodes = append(nodes, netip.AddrFrom4([4]byte{9, 9, 0, byte(101 + i)}))
	}
	machine := lab.machine("own-dht", nodes...)
	lab.own.Bootstrap = startDHT(t, nodes, func(netip.Addr) packet.Network { return machine })
	own := natlab.Internet("9.9.1.3")[0]
	relay := openNode(t, lab.machine("own-relay", own), hyperdht.Options{Bind: own, Open: true, Node: true, Bootstrap: lab.own.Bootstrap})
	lab.own.Relay = &natlab.Relay{Host: own.String(), Key: startRelay(t, relay)}
	lab.own.Door = lab.door("9.9.1.4", lab.own.Bootstrap)
	return lab
}

// script starts interop/node/natlab.js on a new host of the internet.
func (l *lab) script(name string, addrs ...string) *nodepeer.Process {
	l.t.Helper()
	host, err := l.Host(name, natlab.Internet(addrs...)...)
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := l.nodeJS(host)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// door opens a WebSocket door to a network, on port 443, and returns its URL.
func (l *lab) door(addr string, bootstrap []string) string {
	l.t.Helper()
	at := natlab.Internet(addr)[0]
	machine := l.machine("door-"+addr, at)
	door := startDoor(l.t, openNode(l.t, machine, hyperdht.Options{Bind: at, Open: true, Node: true, Bootstrap: bootstrap}))
	url := "ws://" + addr + ":443/"
	var listener *transport.Listener
	err := machine.host.Do(func() (err error) {
		listener, err = transport.Listen(l.t.Context(), url, transport.ListenOptions{})
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go door.ServeConn(conn)
		}
	}()
	l.t.Cleanup(func() { listener.Close() })
	return url
}

// A machine is a host of the laboratory as nodes in this process use it.
type machine struct{ host *natlab.Host }

func (l *lab) machine(name string, addrs ...netip.Addr) machine {
	l.t.Helper()
	host, err := l.Host(name, addrs...)
	if err != nil {
		l.t.Fatal(err)
	}
	return machine{host}
}

// in is what f returns in the host.
func in[T any](m machine, f func() (T, error)) (v T, err error) {
	err = m.host.Do(func() (err error) {
		v, err = f()
		return err
	})
	return v, err
}

func (m machine) Listen(addr netip.AddrPort, receive packet.Handler) (packet.Conn, error) {
	return in(m, func() (packet.Conn, error) { return packet.System.Listen(addr, receive) })
}

func (m machine) ListenMulticast(group netip.AddrPort, ifname string, receive packet.Handler) (packet.Conn, error) {
	return in(m, func() (packet.Conn, error) { return packet.System.ListenMulticast(group, ifname, receive) })
}

func (m machine) LocalAddrs() ([]netip.Addr, error) { return in(m, packet.System.LocalAddrs) }

func (m machine) Interfaces() ([]packet.Interface, error) { return in(m, packet.System.Interfaces) }

// A starter starts a process that can be a subject.
type starter func(*natlab.Host) (*nodepeer.Process, error)

// nodeJS starts interop/node/natlab.js.
func (l *lab) nodeJS(host *natlab.Host) (*nodepeer.Process, error) {
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

// places are sites of each kind with subjects, for one network or another.
func (l *lab) places(role string, kinds []natlab.Kind, start starter) func(natlab.Network) map[natlab.Kind]*natlab.Place {
	l.t.Helper()
	var mu sync.Mutex
	processes := make(map[*natlab.Place]*nodepeer.Process)
	places, err := l.Places(role, kinds, func(host *natlab.Host, place *natlab.Place) error {
		p, err := start(host)
		mu.Lock()
		defer mu.Unlock()
		processes[place] = p
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return func(network natlab.Network) map[natlab.Kind]*natlab.Place {
		on := make(map[natlab.Kind]*natlab.Place)
		for kind, place := range places {
			on[kind] = &natlab.Place{Kind: kind, Subject: natlab.Process(processes[place], network), Flush: place.Flush}
		}
		return on
	}
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

// cellsToTry are some cells, or all in a long run, and the kinds in them.
func cellsToTry() (cells []natlab.Cell, clients, servers []natlab.Kind) {
	cells = someCells
	if os.Getenv("BEVY_LONG") == "1" {
		cells = natlab.All(natlab.Kinds, natlab.Kinds)
	}
	for _, c := range cells {
		if !slices.Contains(clients, c.Client) {
			clients = append(clients, c.Client)
		}
		if !slices.Contains(servers, c.Server) {
			servers = append(servers, c.Server)
		}
	}
	return cells, clients, servers
}

// TestMatrix has subjects of Node.js and ours at all kinds of sites connect.
func TestMatrix(t *testing.T) {
	nodepeer.Require(t)
	if err := natlab.Check(); err != nil {
		t.Skipf("%v: TestMatrixInMemory has ours at both ends", err)
	}
	cells, clientKinds, serverKinds := cellsToTry()
	l := newLab(t)
	nodeClients, nodeServers := l.places("node-client", clientKinds, l.nodeJS), l.places("node-server", serverKinds, l.nodeJS)
	ourClients, ourServers := l.places("our-client", clientKinds, l.ours), l.places("our-server", serverKinds, l.ours)
	type side = func(natlab.Network) map[natlab.Kind]*natlab.Place
	run := func(t *testing.T, name string, doors natlab.Doors, network natlab.Network, clients, servers side) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runMatrix(t, name, cells, doors, clients(network), servers(network), 6)
		})
	}
	// Two that share no site go on at the same time.
	t.Run("alike", func(t *testing.T) {
		run(t, "Node to Node", natlab.Doors{}, l.node, nodeClients, nodeServers)
		run(t, "Go to Go", natlab.Doors{Client: true, Server: true}, l.own, ourClients, ourServers)
	})
	t.Run("mixed", func(t *testing.T) {
		run(t, "Go to Node", natlab.Doors{Client: true}, l.node, ourClients, nodeServers)
		run(t, "Node to Go", natlab.Doors{Server: true}, l.own, nodeClients, ourServers)
	})
	t.Run("forgotten", func(t *testing.T) {
		clients, servers := ourClients(l.own), ourServers(l.own)
		for _, cell := range flushCells[:3] { // which share no site; all of them: in memory
			t.Run(cell.String(), func(t *testing.T) {
				t.Parallel()
				checkFlush(t, cell, clients[cell.Client], servers[cell.Server])
			})
		}
	})
}

// Two with bad lines, whose packets are lost and late, meet all the same. The
// short form is TestPeersMeetOverBadLinesInMemory.
func TestPeersMeetOverBadLines(t *testing.T) {
	if os.Getenv("BEVY_LONG") != "1" {
		t.Skip("takes 20 s: set BEVY_LONG=1")
	}
	nodepeer.Require(t)
	if err := natlab.Check(); err != nil {
		t.Skip(err)
	}
	l := newLab(t)
	line := natlab.Line{Delay: 40 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.03, Rate: 5e6}
	for i, c := range []struct {
		client, server starter
		network        natlab.Network
	}{{l.ours, l.ours, l.own}, {l.ours, l.nodeJS, l.node}, {l.nodeJS, l.ours, l.own}} {
		var subjects [2]natlab.Subject
		for j, start := range []starter{c.client, c.server} {
			name := fmt.Sprint("bad", i, j)
			site, err := l.Site(name, natlab.PortRestricted)
			if err != nil {
				t.Fatal(err)
			}
			host, err := site.Host(name)
			if err != nil {
				t.Fatal(err)
			}
			p, err := start(host)
			if err != nil {
				t.Fatal(err)
			}
			subjects[j] = natlab.Process(p, c.network)
			if err := site.Routers()[0].Line(line); err != nil {
				t.Fatal(err)
			}
		}
		started := time.Now()
		key, err := subjects[1].Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		listening := time.Since(started)
		got, err := subjects[0].Connect(t.Context(), key, false, 40*time.Second)
		if err != nil || got.Path != natlab.Punched {
			t.Errorf("pair %d: %v %s, %v, want punched", i, got, got.Error, err)
		}
		t.Logf("pair %d: %v, listening took %v, all %v", i, got, listening, time.Since(started))
	}
}
