package hyperswarm

import (
	"context"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// dhtNetwork is a DHT as a swarm needs it.
type dhtNetwork struct {
	dht   *hyperdht.DHT
	keys  noise.KeyPair
	relay []noise.Key
}

func (n *dhtNetwork) connect(ctx context.Context, to target, done func(link, error)) {
	go func() {
		c, err := n.dht.Connect(ctx, to.key, hyperdht.ConnectOptions{
			KeyPair: n.keys, RelayAddresses: to.relays, RelayThrough: to.through, RelayNow: to.force,
		})
		if err != nil {
			done(nil, err)
			return
		}
		done(dhtLink{c}, nil)
	}()
}

func (n *dhtNetwork) listen(ctx context.Context, refuse func(noise.Key) bool, serve func(link), done func(server, error)) {
	go func() {
		s, err := n.dht.Listen(ctx, n.keys, hyperdht.ServerOptions{
			Serve:        func(c *hyperdht.Conn) { serve(dhtLink{c}) },
			Refuse:       func(c hyperdht.Client) bool { return refuse(c.Key) },
			RelayThrough: n.relay,
		})
		if err != nil {
			done(nil, err)
			return
		}
		done(s, nil)
	}()
}

func (n *dhtNetwork) search(ctx context.Context, s search, found func([]hyperdht.Peer), done func([]netip.AddrPort, error)) {
	o := hyperdht.LookupOptions{Nodes: s.closest, Found: func(f hyperdht.Found) { found(f.Peers) }}
	go func() {
		switch {
		case s.announce:
			done(n.dht.Announce(ctx, s.topic, n.keys, hyperdht.AnnounceOptions{LookupOptions: o, RelayAddresses: s.relays, Clear: s.clear}))
		case s.withdraw:
			done(s.closest, n.dht.Unannounce(ctx, s.topic, n.keys, hyperdht.AnnounceOptions{LookupOptions: o}))
		default:
			done(n.dht.Lookup(ctx, s.topic, o))
		}
	}()
}

func (n *dhtNetwork) suspend(ctx context.Context) error { return n.dht.Suspend(ctx) }
func (n *dhtNetwork) resume(ctx context.Context) error  { return n.dht.Resume(ctx) }

type dhtLink struct{ *hyperdht.Conn }

func (l dhtLink) stream() *secretstream.Stream { return l.Conn.Stream }
func (l dhtLink) onClose(f func(error))        { onClose(l.Raw(), f) }
func (l dhtLink) received() (uint64, bool)     { return received(l.Raw()) }
func (l dhtLink) keepAlive()                   { keepAlive(l.Conn.Stream) }

// lanNetwork is the local network as a swarm needs it.
type lanNetwork struct{ node *mdns.Node }

func openLocal(s *Swarm, o mdns.Options) (local, error) {
	o.KeyPair, o.Clock, o.Random = s.o.KeyPair, s.o.Clock, s.o.Random
	o.Found = func(p mdns.Peer) { s.foundLocal(neighbour{p.ID(), p}, false) }
	o.Lost = func(p mdns.Peer) { s.foundLocal(neighbour{p.ID(), p}, true) }
	o.Refuse = s.refuses
	o.Serve = func(c *mdns.Conn) { s.serve(lanLink{c}) }
	node, err := mdns.Open(o)
	return lanNetwork{node}, err
}

// announce leaves out what is too much; who looks for that finds us by the
// DHT, or is found by us.
func (n lanNetwork) announce(topics []Topic) {
	n.node.Announce(topics[:min(len(topics), mdns.MaxTopics)]...)
}

func (n lanNetwork) browse(topics []Topic) { n.node.Browse(topics...) }

func (n lanNetwork) connect(ctx context.Context, to neighbour, check func(noise.Key) error, done func(link, error)) {
	n.node.Start(ctx, to.peer, check, func(c *mdns.Conn, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(lanLink{c}, nil)
	})
}

func (n lanNetwork) remembered() []netip.AddrPort { return n.node.Remembered() }
func (n lanNetwork) close() error                 { return n.node.Close() }

type lanLink struct{ *mdns.Conn }

func (l lanLink) stream() *secretstream.Stream { return l.Conn.Stream }
func (l lanLink) onClose(f func(error))        { onClose(l.Raw(), f) }
func (l lanLink) received() (uint64, bool)     { return received(l.Raw()) }
func (l lanLink) keepAlive()                   { keepAlive(l.Conn.Stream) }
func (l lanLink) Path() Path                   { return Path{Kind: hyperdht.PathLAN, Addr: l.Raw().RemoteAddrPort()} }
func (l lanLink) OnPath(func(Path))            {} // there is no better one

func received(s *udx.Stream) (uint64, bool) {
	stats := s.Stats()
	return stats.BytesReceived, stats.InFlight > 0
}

// onClose calls f apart: the stream may end within a call that f waits for.
func onClose(s *udx.Stream, f func(error)) { s.OnClose(func(err error) { go f(err) }) }

// keepAlive writes nothing, which has to be acked. It does not wait for a
// stream that takes no more; that is not idle anyway.
func keepAlive(s *secretstream.Stream) { go s.WriteMessage(nil) }
