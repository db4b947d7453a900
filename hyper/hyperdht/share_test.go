package hyperdht

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/dhtrpc"
)

func TestPoolKeepsOneConnectionToAPeer(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		var pools [2]*Pool
		var dhts [2]*DHT
		var closed [2]int
		var mu sync.Mutex
		for i := range dhts {
			dhts[i] = w.peer(w.sim.Host(w.addr()), Options{})
			pools[i] = dhts[i].NewPool()
			w.listen(dhts[i], ServerOptions{Serve: func(c *Conn) {
				if !pools[i].Accept(c) {
					mu.Lock()
					closed[i]++
					mu.Unlock()
				}
			}})
		}
		// Both connect to the other at the same time, more than once.
		var all sync.WaitGroup
		for range 3 {
			for i := range dhts {
				all.Go(func() {
					if _, err := pools[i].Connect(t.Context(), dhts[1-i].KeyPair().Public, ConnectOptions{}); err != nil && !errors.Is(err, ErrDuplicate) {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
		time.Sleep(10 * time.Second)
		a, b := pools[0].Get(dhts[1].KeyPair().Public), pools[1].Get(dhts[0].KeyPair().Public)
		if a == nil || b == nil || a.HandshakeHash() != b.HandshakeHash() {
			t.Fatal("the two sides have kept different connections")
		}
		again, err := pools[0].Connect(t.Context(), dhts[1].KeyPair().Public, ConnectOptions{})
		if err != nil || again != a {
			t.Errorf("connect again: another connection, %v", err)
		}
		go echo(b)
		talk(t, a)
		a.Close()
		time.Sleep(10 * time.Second)
		if pools[0].Get(dhts[1].KeyPair().Public) != nil || pools[1].Get(dhts[0].KeyPair().Public) != nil {
			t.Error("a connection that has ended is in the pool")
		}
		if len(pools[0].conns)+len(pools[0].dials)+len(pools[1].conns)+len(pools[1].dials) != 0 {
			t.Error("the pools are not empty")
		}
	})
}

func TestPluginsAddCommands(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		twice := Plugin{Name: "twice", Version: 2, Handle: func(r *dhtrpc.Request, command uint64, value []byte) {
			r.Reply(append(append([]byte{byte(command)}, value...), value...), dhtrpc.ReplyOptions{})
		}}
		d := w.open(Options{Network: w.sim.Host(w.addr()), Open: true, Node: true, Plugins: []Plugin{twice}})
		if err := d.Bootstrapped(t.Context()); err != nil {
			t.Fatal(err)
		}
		addr, _ := d.Node().RemoteAddr()
		client := w.peer(w.sim.Host(w.addr()), Options{})
		r, err := client.Node().Do(t.Context(), addr, twice.Call(7, []byte("ab")), dhtrpc.CallOptions{})
		if err != nil || string(r.Value) != "\x07abab" {
			t.Errorf("answer is %q, %v", r.Value, err)
		}
		for _, other := range []Plugin{{Name: "twice", Version: 1}, {Name: "thrice", Version: 2}} {
			if _, err := client.Node().Do(t.Context(), addr, other.Call(7, nil), dhtrpc.CallOptions{NoRetry: true}); !errors.Is(err, dhtrpc.ErrTimeout) {
				t.Errorf("a plugin that is not there: %v", err)
			}
		}
	})
}
