package dhtrelay

import (
	"context"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A DHT is what a relay needs of the node that it is. [Over] makes one of a
// hyperdht.DHT.
type DHT interface {
	// Connect connects to a peer as owner.
	Connect(ctx context.Context, remote noise.Key, owner Owner) (Conn, error)
	// Listen has the key of owner announced, and serves those who connect to it
	// until ctx ends. It returns when the key is announced.
	Listen(ctx context.Context, owner Owner, serve func(Conn)) (Listening, error)
	// Lookup asks who has announced itself for a topic. It calls found with what
	// nodes answer, one call at a time, and returns when all have.
	Lookup(ctx context.Context, topic [32]byte, found func(Found)) error
	// Announce and Unannounce do that, and look up on the way.
	Announce(ctx context.Context, topic [32]byte, owner Owner, found func(Found)) error
	Unannounce(ctx context.Context, topic [32]byte, owner Owner, found func(Found)) error
}

// An Owner is on whose behalf a relay does something.
type Owner struct {
	// KeyPair has the secret half only of clients that have handed it over.
	KeyPair noise.KeyPair
	// Refuse is asked about each peer that connects to such a client, with what
	// the peer says of itself.
	Refuse func(ctx context.Context, remote noise.Key, payload []byte) bool
	// Handshake and Sign are for those that have not. Handshake makes one for
	// each connection.
	Handshake func() Handshake
	Sign      func(ctx context.Context, s Signing) ([64]byte, error)
}

// A Handshake is one side of a Noise handshake that is held elsewhere: the one
// of hyperdht, whose methods these are.
type Handshake interface {
	Send(ctx context.Context, payload []byte) (message []byte, err error)
	Receive(ctx context.Context, message []byte) (payload []byte, err error)
	Remote() noise.Key
	HolepunchSecret() [32]byte
}

// A Signing is what is to be signed, that a peer is found, or isn't found any
// more, at a target.
type Signing struct {
	Unannounce     bool
	Target, Token  [32]byte
	NodeID         [32]byte
	RelayAddresses []netip.AddrPort
}

// A Conn is a connection to a peer of the DHT: a Stream if the secret key was
// there, or else the Raw stream and the Handshake that Owner made.
type Conn struct {
	Remote    noise.Key
	Stream    *secretstream.Stream
	Raw       transport.Conn
	Handshake Handshake
}

// Listening is a key that is announced.
type Listening struct {
	// Addr is the public address of the node, if it is known.
	Addr netip.AddrPort
	// Close takes the announcement back. Connections go on.
	Close func() error
}

// A Found is what one node of the DHT knows about a topic.
type Found struct {
	// From is the node, and To what it sees of who has asked.
	From, To netip.AddrPort
	// FromID and ToID are the ids of these in the DHT, if they are known.
	FromID, ToID []byte
	// Token is what the node takes announcements with.
	Token [32]byte
	Peers []Peer
}

// A Peer is who has announced itself.
type Peer struct {
	Key            noise.Key
	RelayAddresses []netip.AddrPort
}
