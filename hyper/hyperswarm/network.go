package hyperswarm

import (
	"context"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/mdns"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// The swarm itself waits for nothing: these are told what to do, and call back
// later, from any goroutine and without the swarm's lock. The end of a ctx ends
// what was begun; the call back still comes.

// network is what a swarm needs of a DHT.
type network interface {
	connect(ctx context.Context, to target, done func(link, error))
	// listen announces the key of the swarm. Those for whom refuse returns true
	// get no answer.
	listen(ctx context.Context, refuse func(noise.Key) bool, serve func(link), done func(server, error))
	search(ctx context.Context, s search, found func([]hyperdht.Peer), done func(closest []netip.AddrPort, err error))
	suspend(ctx context.Context) error
	resume(ctx context.Context) error
}

// target is who to connect to.
type target struct {
	key     noise.Key
	relays  []netip.AddrPort // nodes that know it
	through []noise.Key      // blind relays
	force   bool             // begin with those
}

// search is a walk through the DHT.
type search struct {
	topic    Topic
	announce bool // us, too
	withdraw bool // take back that we are there
	clear    bool // take back what was announced before
	relays   []netip.AddrPort
	closest  []netip.AddrPort // where to begin
}

// server is what listens.
type server interface {
	RelayAddresses() []netip.AddrPort
	Refresh()
	Close() error
}

// local is what a swarm needs of the local network.
type local interface {
	announce(topics []Topic)
	browse(topics []Topic)
	// connect asks check, with the key of the other side, before it tells that
	// one who we are.
	connect(ctx context.Context, n neighbour, check func(noise.Key) error, done func(link, error))
	remembered() []netip.AddrPort
	close() error
}

// neighbour is somebody on the local network who has a topic. The id is the
// same for all its topics.
type neighbour struct {
	id   string
	peer mdns.Peer
}

// link is a connection to a peer.
type link interface {
	RemoteKey() noise.Key
	// Initiator reports whether this side connected.
	Initiator() bool
	Path() Path
	OnPath(func(Path))
	// Close ends the connection.
	Close() error
	// onClose calls f once the connection has ended, maybe at once.
	onClose(f func(error))
	// received is how many bytes came, and pending whether any that went are not
	// acked.
	received() (n uint64, pending bool)
	// keepAlive sends something, so that a dead connection is found out.
	keepAlive()
	stream() *secretstream.Stream
}
