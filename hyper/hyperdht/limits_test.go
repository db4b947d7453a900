package hyperdht

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

func TestOnePunchWithRandomPortsAtATime(t *testing.T) {
	inWorld(t, 8, func(t *testing.T, w *world) {
		relay, _ := w.relay()
		server := w.peer(behind(packet.PortRestricted)(w), Options{})
		s := w.listen(server, ServerOptions{})
		symmetric := func() *DHT { return w.peer(behind(packet.Symmetric)(w), Options{}) }
		first, second, third := symmetric(), symmetric(), symmetric()
		c, err := first.Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		talk(t, c)
		// The server has done its part for now.
		if _, err := second.Connect(t.Context(), s.Key(), ConnectOptions{}); !errors.Is(err, ErrAborted) {
			t.Errorf("a second one: %v, want %v", err, ErrAborted)
		}
		if n := server.Stats().TryLater; n == 0 {
			t.Error("the server has put nobody off")
		}
		// With a relay there is a connection, and it is punched for later.
		c, err = third.Connect(t.Context(), s.Key(), ConnectOptions{RelayThrough: []noise.Key{relay}})
		if err != nil {
			t.Fatal(err)
		}
		if c.Path().Kind != PathRelayed {
			t.Errorf("path is %v", c.Path())
		}
		talk(t, c)
		moved := make(chan Path, 10)
		c.OnPath(func(p Path) {
			if p.Kind == PathPunched {
				moved <- p
			}
		})
		select {
		case <-moved:
		case <-time.After(2 * time.Minute):
			t.Errorf("after two minutes the path is %v", c.Path())
		}
		talk(t, c)
		time.Sleep(time.Minute)
		if c, err = second.Connect(t.Context(), s.Key(), ConnectOptions{}); err != nil {
			t.Fatalf("after some time: %v", err)
		}
		talk(t, c)
		added, removed := server.pool.stats()
		if open := added - removed; open > 5 {
			t.Errorf("the server has %d of %d sockets open", open, added)
		}
	})
}

func TestEitherSideMayDeclineToPunch(t *testing.T) {
	inWorld(t, 8, func(t *testing.T, w *world) {
		var mu sync.Mutex
		asked := 0
		decline := func(remote, local Firewall, remoteAddrs, localAddrs []netip.AddrPort) bool {
			mu.Lock()
			defer mu.Unlock()
			asked++
			if remote != FirewallConsistent || local != FirewallConsistent || len(remoteAddrs) == 0 || len(localAddrs) == 0 {
				t.Errorf("asked about %v at %v and %v at %v", remote, remoteAddrs, local, localAddrs)
			}
			return false
		}
		home := func() packet.Network { return behind(packet.PortRestricted)(w) }
		s := w.listen(w.peer(home(), Options{}), ServerOptions{})
		client := w.peer(home(), Options{})
		// What is quicker than the question is not held up by it.
		if _, err := client.Connect(t.Context(), s.Key(), ConnectOptions{Holepunch: decline, NoFastOpen: true}); !errors.Is(err, ErrAborted) || asked != 1 {
			t.Errorf("the client declines: %v, asked %d times", err, asked)
		}
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{NoFastOpen: true})
		if err != nil {
			t.Fatalf("without a quick first packet: %v", err)
		}
		talk(t, c)
		declining := w.listen(w.peer(home(), Options{}), ServerOptions{Holepunch: decline})
		if _, err := client.Connect(t.Context(), declining.Key(), ConnectOptions{NoFastOpen: true}); !errors.Is(err, ErrAborted) || asked != 2 {
			t.Errorf("the server declines: %v, asked %d times", err, asked)
		}
		never := w.listen(w.peer(home(), Options{}), ServerOptions{NoPunch: true})
		if _, err := client.Connect(t.Context(), never.Key(), ConnectOptions{NoFastOpen: true}); err == nil {
			t.Error("punched to a server that never does")
		}
		open := w.peer(w.sim.Host(w.addr()), Options{})
		if c, err = open.Connect(t.Context(), never.Key(), ConnectOptions{}); err != nil {
			t.Fatalf("who can be reached needs no punching: %v", err)
		}
		talk(t, c)
	})
}

func TestManyConnectAtOnce(t *testing.T) {
	inWorld(t, 8, func(t *testing.T, w *world) {
		s := w.listen(w.peer(behind(packet.PortRestricted)(w), Options{}), ServerOptions{})
		client := w.peer(behind(packet.Restricted)(w), Options{})
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				talk(t, c)
				c.Close()
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		if added, removed := client.pool.stats(); added != removed {
			t.Errorf("%d of %d sockets are left open", added-removed, added)
		}
		if added, removed := s.d.pool.stats(); added != removed {
			t.Errorf("the server: %d of %d sockets are left open", added-removed, added)
		}
	})
}

func TestKeyIsListenedWithOnce(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		d := w.peer(w.sim.Host(w.addr()), Options{})
		s := w.listen(d, ServerOptions{})
		if _, err := d.Listen(t.Context(), d.KeyPair(), ServerOptions{Serve: echo}); !errors.Is(err, ErrKeyInUse) {
			t.Errorf("listen again: %v, want %v", err, ErrKeyInUse)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		w.listen(d, ServerOptions{})
		if _, err := d.FindPeer(t.Context(), noise.Key{1}); !errors.Is(err, ErrNotFound) {
			t.Errorf("find nobody: %v, want %v", err, ErrNotFound)
		}
		if _, err := d.Connect(t.Context(), noise.NewKeyPair([32]byte{1}).Public, ConnectOptions{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("connect to nobody: %v, want %v", err, ErrNotFound)
		}
		d.Close()
		if _, err := d.Connect(t.Context(), s.Key(), ConnectOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("connect when closed: %v, want %v", err, ErrClosed)
		}
		if _, err := d.Listen(t.Context(), d.KeyPair(), ServerOptions{Serve: echo}); !errors.Is(err, ErrClosed) {
			t.Errorf("listen when closed: %v, want %v", err, ErrClosed)
		}
	})
}

func TestServerThatClosesInAHandshakeConnectsNobody(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		d := w.peer(w.sim.Host(w.addr()), Options{})
		var s *Server
		asked, served := 0, 0
		s = w.listen(d, ServerOptions{
			Serve: func(c *Conn) { served++; c.Close() },
			Refuse: func(Client) bool {
				if asked++; asked == 1 {
					s.Close()
				}
				return false
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if c, err := w.peer(w.sim.Host(w.addr()), Options{}).Connect(ctx, s.Key(), ConnectOptions{}); err == nil {
			c.Close()
			t.Error("there is a connection")
		}
		synctest.Wait()
		d.mu.Lock()
		links := len(d.links)
		d.mu.Unlock()
		if asked == 0 || served != 0 || links != 0 {
			t.Errorf("asked %d times, %d connections, %d links", asked, served, links)
		}
	})
}

// ownGoroutines are those that have to do with packages under hyper.
func ownGoroutines() []string {
	buf := make([]byte, 1<<20)
	all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return slices.DeleteFunc(all, func(s string) bool { return !strings.Contains(s, "bevy/hyper/") })
}

func TestIdleServerHoldsNoGoroutine(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		host := w.sim.NAT(packet.NAT{}, w.addr()).Host()
		synctest.Wait()
		before := ownGoroutines()
		d := w.peer(host, Options{})
		w.listen(d, ServerOptions{})
		time.Sleep(6*time.Minute + 1234*time.Millisecond)
		synctest.Wait()
		if after := ownGoroutines(); len(after) > len(before) {
			t.Errorf("there are %d goroutines, before %d:\n%s", len(after), len(before), strings.Join(after, "\n\n"))
		}
		// It pings three relays every five seconds, and little else.
		sent := host.Traffic().Sent
		time.Sleep(10 * time.Minute)
		if n := (host.Traffic().Sent - sent) / 10; n > 45 {
			t.Errorf("it sends %d packets a minute", n)
		} else {
			t.Logf("it sends %d packets a minute", n)
		}
	})
}
