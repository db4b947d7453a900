package mdns

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/internal/natlab"
)

// hostNetwork is the machine's network as a host of the laboratory has it.
type hostNetwork struct{ host *natlab.Host }

func (n hostNetwork) Listen(a netip.AddrPort, receive packet.Handler) (c packet.Conn, err error) {
	err = n.host.Do(func() (err error) { c, err = packet.System.Listen(a, receive); return err })
	return c, err
}

func (n hostNetwork) ListenMulticast(group netip.AddrPort, name string, receive packet.Handler) (c packet.Conn, err error) {
	err = n.host.Do(func() (err error) { c, err = packet.System.ListenMulticast(group, name, receive); return err })
	return c, err
}

func (n hostNetwork) LocalAddrs() (l []netip.Addr, err error) {
	err = n.host.Do(func() (err error) { l, err = packet.System.LocalAddrs(); return err })
	return l, err
}

func (n hostNetwork) Interfaces() (l []packet.Interface, err error) {
	err = n.host.Do(func() (err error) { l, err = packet.System.Interfaces(); return err })
	return l, err
}

// Real machines, as far as the kernel goes, on a network that has no way out
// and no default route.
func TestPeersMeetOnAnIsland(t *testing.T) {
	if err := natlab.Check(); err != nil {
		t.Skip(err)
	}
	lab, err := natlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	island, err := lab.Island("island")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	found := make(chan Peer, 10)
	served := make(chan *Conn, 1)
	var nodes []*Node
	for i, o := range []Options{{Serve: func(c *Conn) { served <- c }}, {Found: func(p Peer) { found <- p }}} {
		host, err := island.Host([]string{"server", "client"}[i])
		if err != nil {
			t.Fatal(err)
		}
		o.KeyPair, o.Network = noise.NewKeyPair([32]byte{byte(i + 1)}), hostNetwork{host}
		node, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		nodes = append(nodes, node)
	}
	nodes[0].Announce(red)
	began := time.Now()
	nodes[1].Browse(red)
	var p Peer
	select {
	case p = <-found:
	case <-ctx.Done():
		t.Fatal("nobody was found")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("found after %v", took)
	} else {
		t.Logf("found %v after %v", p.Addrs, took)
	}
	for _, a := range p.Addrs {
		if a.Addr().Zone() != "" {
			continue // interfaces have other numbers in this process, which is on another host
		}
		one := p
		one.Addrs = []netip.AddrPort{a}
		began = time.Now()
		c, err := nodes[1].Connect(ctx, one, nil)
		if err != nil {
			t.Errorf("by %v: %v", a, err)
			continue
		}
		t.Logf("connected by %v after %v", a, time.Since(began))
		s := <-served
		if err := s.WriteMessage([]byte("hello")); err != nil {
			t.Error(err)
		}
		if m, err := c.ReadMessage(nil); err != nil || string(m) != "hello" {
			t.Errorf("by %v: %q, %v", a, m, err)
		}
		c.Close()
		s.Close()
	}
}
