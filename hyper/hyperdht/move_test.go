package hyperdht

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// TestPeerThatMovesLosesNothing changes the address of a client in the middle
// of a transfer, and of a NAT.
func TestPeerThatMovesLosesNothing(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		server := w.peer(w.sim.Host(w.addr()), Options{})
		s := w.listen(server, ServerOptions{})
		nat := w.sim.NAT(packet.NAT{}, w.addr())
		for what, move := range map[string]func(h *packet.SimHost){
			"another network":          func(h *packet.SimHost) { h.Move(w.sim.SimNet, w.addr()) },
			"a NAT that has forgotten": func(*packet.SimHost) { nat.Flush() },
			"a NAT that has moved":     func(*packet.SimHost) { nat.SetAddr(w.addr()) },
		} {
			t.Log(what)
			host := nat.Host()
			client := w.peer(host, Options{})
			c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c)
			done := make(chan error, 1)
			const messages = 200
			go func() {
				for i := range messages {
					if i == messages/2 {
						move(host)
					}
					if err := c.WriteMessage(bytes.Repeat([]byte{byte(i)}, 5000)); err != nil {
						done <- err
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				done <- nil
			}()
			for i := range messages {
				m, err := c.ReadMessage(nil)
				if err != nil || len(m) != 5000 || m[0] != byte(i) {
					t.Fatalf("message %d: %d bytes, %v", i, len(m), err)
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			talk(t, c)
			c.Close()
		}
	})
}

func TestSuspendTakesAServerBackAndResumeAnnouncesIt(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		host := w.sim.NAT(packet.NAT{}, w.addr()).Host()
		server := w.peer(host, Options{})
		s := w.listen(server, ServerOptions{})
		client := w.peer(behind(packet.PortRestricted)(w), Options{})
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		talk(t, c)
		if err := server.Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadMessage(nil); err == nil {
			t.Error("the connection is still there")
		}
		if _, err := client.FindPeer(t.Context(), s.Key()); !errors.Is(err, ErrNotFound) {
			t.Errorf("find a server that is suspended: %v", err)
		}
		if _, err := client.Connect(t.Context(), s.Key(), ConnectOptions{}); err == nil {
			t.Error("connected to a server that is suspended")
		}
		if _, err := server.Connect(t.Context(), client.KeyPair().Public, ConnectOptions{}); !errors.Is(err, ErrSuspended) {
			t.Errorf("connect while suspended: %v, want %v", err, ErrSuspended)
		}
		before := host.Traffic().Sent
		time.Sleep(time.Hour)
		if sent := host.Traffic().Sent - before; sent > 0 {
			t.Errorf("it sent %d packets while suspended", sent)
		}
		if err := server.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c, err = client.Connect(t.Context(), s.Key(), ConnectOptions{}); err != nil {
			t.Fatal(err)
		}
		talk(t, c)
		c.Close()
		if err := server.Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := server.Close(); err != nil { // while suspended
			t.Fatal(err)
		}
	})
}

func TestServerIsFoundAgainWhenItsRelaysAreGone(t *testing.T) {
	inWorld(t, 20, func(t *testing.T, w *world) {
		server := w.peer(behind(packet.PortRestricted)(w), Options{})
		s := w.listen(server, ServerOptions{})
		client := w.peer(behind(packet.PortRestricted)(w), Options{})
		for range 3 {
			gone := 0
			for _, addr := range s.RelayAddresses() {
				for _, d := range w.nodes[1:] { // the first is needed to join
					if at, ok := d.Node().RemoteAddr(); ok && at == addr {
						d.Close()
						gone++
					}
				}
			}
			if gone == 0 {
				t.Fatal("the server has no relays")
			}
			time.Sleep(20 * time.Second)
			c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
			if err != nil {
				t.Fatalf("with %d relays gone: %v", gone, err)
			}
			talk(t, c)
			c.Close()
		}
	})
}

func TestLocalNetworkIsTheShortestWay(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		home := w.sim.NAT(packet.NAT{}, w.addr()) // without hairpin
		server := w.peer(home.Host(), Options{})
		s := w.listen(server, ServerOptions{})
		client := w.peer(home.Host(), Options{})
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p := c.Path(); p.Kind != PathLAN || !p.Addr.Addr().IsPrivate() {
			t.Errorf("path is %v", p)
		}
		talk(t, c)
		c.Close()
	})
}

// TestNeighborsWithTheSameAddressesMeet has two customers of one carrier, whose
// homes use the same addresses: the other's is one's own, or somebody else's.
func TestNeighborsWithTheSameAddressesMeet(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		carrier := w.sim.NAT(packet.NAT{Hairpin: true}, w.addr())
		at := netip.AddrFrom4([4]byte{192, 168, 1, 2})
		home := func() *packet.SimNAT { return carrier.NAT(packet.NAT{}) }
		server := w.peer(home().Host(at), Options{})
		s := w.listen(server, ServerOptions{})
		own := w.peer(home().Host(at), Options{})
		other := home()
		w.peer(other.Host(at), Options{}) // a stranger with the server's address
		stranger := w.peer(other.Host(netip.AddrFrom4([4]byte{192, 168, 1, 3})), Options{})
		for _, client := range []*DHT{own, stranger} {
			c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c)
			c.Close()
		}
	})
}

func TestIPv6IsTriedWhereBothHaveIt(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		site := func(n byte) packet.Network {
			home := w.sim.NAT(packet.NAT{Kind: packet.Symmetric}, w.addr())
			return home.Host(netip.AddrFrom4([4]byte{192, 168, n, 2}), netip.AddrFrom16([16]byte{0x24, 0, 0, n, 15: 2}))
		}
		var got conns
		server := w.peer(site(1), Options{})
		s := w.listen(server, ServerOptions{Serve: got.serve})
		client := w.peer(site(2), Options{})
		start := time.Now()
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: %v", time.Since(start), c.Path())
		if p := c.Path(); p.Kind != PathDirect || !p.Addr.Addr().Is6() {
			t.Errorf("path is %v", p)
		}
		talk(t, c)
		c.Close()
		// Without it there is no way.
		without := w.peer(site(3), Options{NoIPv6: true})
		if _, err := without.Connect(t.Context(), s.Key(), ConnectOptions{}); !errors.Is(err, ErrBothRandom) {
			t.Errorf("without IPv6: %v, want %v", err, ErrBothRandom)
		}
	})
}

func TestReusableSocketsSpareASearch(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		server := w.peer(behind(packet.PortRestricted)(w), Options{})
		s := w.listen(server, ServerOptions{Reusable: true})
		client := w.peer(behind(packet.PortRestricted)(w), Options{})
		var took [3]time.Duration
		for i := range took {
			start := time.Now()
			c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{Reusable: true})
			if err != nil {
				t.Fatal(err)
			}
			took[i] = time.Since(start)
			talk(t, c)
			c.Close()
			time.Sleep(time.Second)
		}
		t.Log(took)
		if took[1] > took[0]/2 || took[2] > took[0]/2 {
			t.Errorf("connected after %v", took)
		}
	})
}

func TestConnectEndsWithItsContext(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		server := w.peer(w.sim.Host(w.addr()), Options{})
		s := w.listen(server, ServerOptions{Refuse: func(Client) bool { return true }})
		client := w.peer(w.sim.Host(w.addr()), Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := client.Connect(ctx, s.Key(), ConnectOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("connect: %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
		if _, err := client.Connect(t.Context(), s.Key(), ConnectOptions{}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("connect to a server that refuses: %v", err)
		}
	})
}

func TestConnectionEndsWhenItsPathIsDead(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		host := w.sim.Host(w.addr())
		server := w.peer(host, Options{})
		s := w.listen(server, ServerOptions{})
		client := w.peer(w.sim.Host(w.addr()), Options{})
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		talk(t, c)
		time.Sleep(10 * time.Minute) // nothing to say is no reason
		talk(t, c)
		host.Move(nil)
		start := time.Now()
		if err := c.WriteMessage([]byte("hello?")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadMessage(nil); err == nil {
			t.Error("read from nobody")
		}
		<-c.Done()
		if took := time.Since(start); took > 9*time.Second || took < 5*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}

func TestServerAnnouncesItsNewAddressWhenItsNATForgets(t *testing.T) {
	inWorld(t, 10, func(t *testing.T, w *world) {
		nat := w.sim.NAT(packet.NAT{Kind: packet.Symmetric}, w.addr())
		server := w.peer(nat.Host(), Options{})
		s := w.listen(server, ServerOptions{})
		client := w.peer(w.sim.Host(w.addr()), Options{})
		for range 3 {
			c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c)
			nat.Flush()
			time.Sleep(4 * time.Second) // it notices when it pings its relays
			c.Close()
		}
	})
}

func TestForgedAnswersDoNotEndAnAttempt(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		evil, err := dhtrpc.Open(dhtrpc.Options{
			UDX: udx.New(udx.Options{Network: w.sim.Host(w.addr())}), Bootstrap: w.boot, Open: true,
			Handle: func(r *dhtrpc.Request) bool {
				r.Reply(handshakeMsg{mode: modeReply, noise: make([]byte, 200), peer: addrOf(1)}.append(nil), dhtrpc.ReplyOptions{})
				return true
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer evil.Close()
		if err := evil.Bootstrapped(t.Context()); err != nil {
			t.Fatal(err)
		}
		server := w.peer(behind(packet.PortRestricted)(w), Options{})
		s := w.listen(server, ServerOptions{})
		client := w.peer(behind(packet.PortRestricted)(w), Options{})
		at := evil.PublicAddr()
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{RelayAddresses: []netip.AddrPort{netip.AddrPortFrom(at.Addr(), evil.ServerSocket().LocalAddr().Port())}})
		if err != nil {
			t.Fatal(err)
		}
		talk(t, c)
		c.Close()
	})
}

func TestServerThatNobodyAnswersEndsAtOnce(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		d := w.peer(behind(packet.PortRestricted)(w), Options{})
		s := w.listen(d, ServerOptions{})
		for _, n := range w.nodes {
			n.Close()
		}
		s.ann.refresh() // which looks for nodes
		time.Sleep(10 * time.Millisecond)
		began := time.Now()
		late, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Suspend(late); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}
