package mdns

import (
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// loopback is the machine's network as far as it leads to the machine.
type loopback struct{ packet.Network }

func (l loopback) Interfaces() ([]packet.Interface, error) {
	all, err := l.Network.Interfaces()
	return slices.DeleteFunc(all, func(i packet.Interface) bool { return !i.Loopback }), err
}

func (l loopback) Listen(a netip.AddrPort, receive packet.Handler) (packet.Conn, error) {
	host := netip.MustParseAddr("127.0.0.1")
	if a.Addr().Is6() {
		host = netip.IPv6Loopback()
	}
	return l.Network.Listen(netip.AddrPortFrom(host, a.Port()), receive)
}

// The real sockets, on one machine, with bytes both ways.
func TestTwoNodesOfOneMachine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	network := loopback{packet.System}
	if list, err := network.Interfaces(); err != nil || len(list) == 0 {
		t.Skipf("no interface for multicast: %v", err)
	}
	var topic Topic // which nobody else has, who runs this test on this machine
	rand.Read(topic[:])
	served := make(chan *Conn, 1)
	a, err := Open(Options{KeyPair: noise.NewKeyPair([32]byte{1}), Network: network, Serve: func(c *Conn) { served <- c }})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	found := make(chan Peer, 10)
	b, err := Open(Options{KeyPair: noise.NewKeyPair([32]byte{2}), Network: network, Found: func(p Peer) { found <- p }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	began := time.Now()
	a.Announce(topic)
	b.Browse(topic)
	select {
	case p := <-found:
		t.Logf("found %v after %v", p.Addrs, time.Since(began))
		began = time.Now()
		c, err := b.Connect(ctx, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		t.Logf("connected after %v", time.Since(began))
		s := <-served
		defer s.Close()
		go func() {
			for {
				m, err := s.ReadMessage(nil)
				if err != nil || s.WriteMessage(append(m, '!')) != nil {
					return
				}
			}
		}()
		for range 100 {
			if err := c.WriteMessage([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if m, err := c.ReadMessage(nil); err != nil || string(m) != "hello!" {
				t.Fatalf("answer %q, %v", m, err)
			}
		}
	case <-ctx.Done():
		t.Fatal("nobody was found")
	}
}
