package hyperdht

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/blindrelay"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
)

// relay opens a blind relay on the internet.
func (w *world) relay() (noise.Key, *blindrelay.Server) {
	w.t.Helper()
	d := w.peer(w.sim.Host(w.addr()), Options{})
	relay := blindrelay.NewServer(blindrelay.Options{UDX: d.UDX()})
	w.t.Cleanup(func() { relay.Close() })
	s := w.listen(d, ServerOptions{Serve: func(c *Conn) { relay.Serve(context.Background(), c) }})
	return s.Key(), relay
}

func TestRelayHelpsWhereBothPortsAreRandom(t *testing.T) {
	for _, whose := range []string{"client", "server"} {
		t.Run("the "+whose+"'s", func(t *testing.T) {
			inWorld(t, 8, func(t *testing.T, w *world) {
				key, _ := w.relay()
				keys := func() []noise.Key { return []noise.Key{key} }
				server := w.peer(behind(packet.Symmetric)(w), Options{})
				so, co := ServerOptions{}, ConnectOptions{}
				if whose == "client" {
					co.RelayThrough = keys()
				} else {
					so.RelayThrough = keys()
				}
				s := w.listen(server, so)
				client := w.peer(behind(packet.Symmetric)(w), Options{})
				start := time.Now()
				c, err := client.Connect(t.Context(), s.Key(), co)
				if err != nil {
					t.Fatal(err)
				}
				took := time.Since(start)
				t.Logf("connected after %v: %v", took, c.Path())
				if took > time.Second {
					t.Errorf("it took %v", took)
				}
				if p := c.Path(); p.Kind != PathRelayed || p.Relay != key || p.Why == "" {
					t.Errorf("path is %v", p)
				}
				talk(t, c)
				time.Sleep(30 * time.Second) // all attempts to do better end
				talk(t, c)
				if p := c.Path(); p.Kind != PathRelayed || p.Why != "both sides are behind NATs that choose ports at random" {
					t.Errorf("path is %v", p)
				}
				c.Close()
			})
		})
	}
}

func TestRelayIsLeftForADirectPath(t *testing.T) {
	inWorld(t, 8, func(t *testing.T, w *world) {
		key, relay := w.relay()
		var got conns
		server := w.peer(behind(packet.PortRestricted)(w), Options{})
		s := w.listen(server, ServerOptions{Serve: got.serve})
		client := w.peer(behind(packet.Symmetric)(w), Options{})
		c, err := client.Connect(t.Context(), s.Key(), ConnectOptions{RelayThrough: []noise.Key{key}, RelayNow: true})
		if err != nil {
			t.Fatal(err)
		}
		if c.Path().Kind != PathRelayed {
			t.Fatalf("path is %v", c.Path())
		}
		moved := make(chan Path, 4)
		c.OnPath(func(p Path) {
			if p.Kind != PathRelayed {
				moved <- p
			}
		})
		// What is on its way while the path changes arrives whole.
		for more, i := 100, 0; more > 0; i++ {
			if i == 2000 {
				t.Fatalf("the path is still %v", c.Path())
			}
			want := bytes.Repeat([]byte{byte(i)}, 20000)
			if err := c.WriteMessage(want); err != nil {
				t.Fatal(err)
			}
			if i >= 4 { // some are always on their way
				if m, err := c.ReadMessage(nil); err != nil || !bytes.Equal(m, bytes.Repeat([]byte{byte(i - 4)}, 20000)) {
					t.Fatalf("message %d is %d bytes, %v", i-4, len(m), err)
				}
			}
			if more < 100 {
				more--
			} else {
				select {
				case p := <-moved:
					if p.Kind != PathPunched {
						t.Fatalf("moved to %v", p)
					}
					more--
				default:
				}
			}
			time.Sleep(25 * time.Millisecond)
		}
		for range 4 {
			if _, err := c.ReadMessage(nil); err != nil {
				t.Fatal(err)
			}
		}
		if p := got.last().Path(); p.Kind != PathPunched {
			t.Errorf("the server's path is %v", p)
		}
		// Nobody keeps the relay busy any more.
		time.Sleep(15 * time.Second)
		if n := len(relay.Sessions()); n != 0 {
			t.Errorf("the relay still has %d sessions", n)
		}
		talk(t, c)
		c.Close()
	})
}

// A packet that came by the relay before the stream had a path must not make
// the one message doubtful by which Node says that it is on the direct path.
func TestRelayIsLeftAtTheFirstWord(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		s := w.listen(w.peer(w.sim.Host(w.addr()), Options{}), ServerOptions{Serve: func(c *Conn) {
			c.ReadMessage(nil)
			c.Close()
		}})
		c, err := w.peer(w.sim.Host(w.addr()), Options{}).Connect(t.Context(), s.Key(), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		closed := make(chan struct{}, 1)
		l := c.link
		l.mu.Lock()
		l.leg = &leg{conn: c, close: func() error { closed <- struct{}{}; return nil }}
		l.mu.Unlock()
		if !l.firewall(c.Raw().Socket(), c.Raw().RemoteAddrPort()) {
			t.Error("packets from the relay are refused")
		}
		l.message(knock)
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("the relay is left for a word that came through it")
		default:
		}
		l.message(nil)
		<-closed
	})
}
