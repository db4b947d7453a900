package home

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/portmap"
)

// A swarm is the device's place in the network of peers.
type swarm struct {
	*hyperswarm.Swarm
	dht    *hyperdht.DHT
	clock  clock.Clock
	lan    bool
	relays []noise.Key

	mu    sync.Mutex
	conns map[*hyperswarm.Conn]string // by what they are called
}

// topic is where the devices of a cloud meet: BLAKE2b-256 of
// "bevy cloud topic 1", a zero byte, and the cloud's id.
func topic(id identity.CloudID) hyperswarm.Topic {
	return blake2b.Sum256(append([]byte("bevy cloud topic 1\x00"), id[:]...))
}

// join joins the network as the device.
func (s *session) join() (*swarm, error) {
	h := s.home
	w := &swarm{clock: h.node.Clock(), relays: h.options.Relays, conns: map[*hyperswarm.Conn]string{}}
	o := h.options.DHT
	o.KeyPair = s.cloud.KeyPair()
	o.Clock = h.node.Clock()
	w.lan = !o.Bind.IsLoopback() // nobody else is there
	if w.lan {
		o.MapPort = MapPort(o.Clock)
	}
	var joined atomic.Pointer[hyperswarm.Swarm]
	o.Notify = func(e dhtrpc.Event) {
		if sw := joined.Load(); sw != nil && e == dhtrpc.InterfacesChanged {
			sw.Refresh()
		}
	}
	dht, err := hyperdht.Open(o)
	if err != nil {
		return nil, fmt.Errorf("join the swarm: %w", err)
	}
	w.dht = dht
	if w.Swarm, err = w.open(noise.KeyPair{}, o.Clock, func(c *hyperswarm.Conn) { s.serve(w, c) }); err != nil {
		return nil, errors.Join(err, dht.Close())
	}
	joined.Store(w.Swarm)
	if _, err := w.Join(topic(s.cloud.ID()), hyperswarm.JoinOptions{}); err != nil {
		return nil, errors.Join(fmt.Errorf("join the swarm: %w", err), w.close())
	}
	return w, nil
}

// MapPort asks the router for ports: for hyperdht.Options.
func MapPort(clk clock.Clock) func(context.Context, uint16) (hyperdht.Mapping, error) {
	return func(ctx context.Context, port uint16) (hyperdht.Mapping, error) {
		m, err := portmap.Map(ctx, portmap.UDP, port, portmap.Options{Clock: clk})
		if err != nil {
			return nil, err // and not a nil mapping that is one
		}
		return m, nil
	}
}

// open makes a swarm on the DHT, by a key pair of its own if there is one.
func (w *swarm) open(keys noise.KeyPair, clk clock.Clock, serve func(*hyperswarm.Conn)) (*hyperswarm.Swarm, error) {
	o := hyperswarm.Options{DHT: w.dht, KeyPair: keys, Clock: clk, RelayThrough: w.relays, Serve: serve}
	if w.lan {
		o.LAN = &mdns.Options{}
	}
	sw, err := hyperswarm.New(o)
	if err != nil {
		return nil, fmt.Errorf("join the swarm: %w", err)
	}
	return sw, nil
}

// serve carries logs over a connection until it ends.
func (s *session) serve(w *swarm, c *hyperswarm.Conn) {
	name := hypercore.Key(c.RemoteKey()).String()
	w.mu.Lock()
	w.conns[c] = name
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.conns, c)
		w.mu.Unlock()
		s.left(c.RemoteKey())
	}()
	c.OnPath(func(hyperswarm.Path) { s.poke() })
	err := s.home.store.Replicate(s.ctx, c.Stream, corestore.ReplicateOptions{
		Name: name, Allow: s.cloud.Access, Attached: s.cloud.Attacher(c.RemoteKey()),
	})
	if err != nil && s.ctx.Err() == nil {
		s.home.node.Log.Debug("a connection ended", "peer", name, "err", err)
	}
}

// connOf returns the connection to a device, nil if there is none.
func (w *swarm) connOf(key noise.Key) *hyperswarm.Conn {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if c.RemoteKey() == key {
			return c
		}
	}
	return nil
}

// meet keeps connections to the devices that are in the cloud.
func (s *session) meet() {
	if s.swarm == nil {
		return
	}
	self := s.cloud.Self()
	for _, d := range s.cloud.Devices() {
		if d.Key == self {
			continue
		}
		if d.Status == identity.In {
			s.swarm.JoinPeer(d.Key)
		} else {
			s.swarm.LeavePeer(d.Key)
		}
	}
}

// left remembers when a device was last seen.
func (s *session) left(key noise.Key) {
	s.mu.Lock()
	s.seen[hypercore.Key(key).String()] = s.home.node.Clock().Now()
	s.mu.Unlock()
	s.poke()
}

// leaving is how long it may take to tell others that this device leaves, and alone
// how long when nobody is known who would hear it. Those who don't hear of it find
// out: what was announced ends by itself.
const (
	leaving = time.Second
	alone   = 100 * time.Millisecond
)

// close leaves the network.
func (w *swarm) close() error {
	patience := leaving
	if n := w.dht.Node(); !n.Online() || len(n.Nodes(1)) == 0 {
		patience = alone
	}
	timer := w.clock.AfterFunc(patience, func() { // which ends what the swarm waits for
		late, cancel := context.WithCancel(context.Background())
		cancel()
		_ = errors.Join(w.dht.Suspend(late), w.dht.Close()) // nobody is told any more
	})
	defer timer.Stop()
	_ = w.Swarm.Close()
	return w.dht.Close()
}
