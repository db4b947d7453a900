package hyperdht

import (
	"context"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// ConnectOptions say how to connect. The zero value is right.
type ConnectOptions struct {
	// KeyPair is what this side is known by: that of the DHT if it is zero.
	KeyPair noise.KeyPair
	// RelayAddresses are nodes that may know the peer, which saves a search.
	RelayAddresses []netip.AddrPort
	// RelayThrough are the blind relays this connection may use: those of the DHT
	// if it is nil, none if it is empty.
	RelayThrough []noise.Key
	// RelayNow asks the relay at once, without waiting for punching.
	RelayNow bool
	// NoLocal leaves out paths over the local network.
	NoLocal bool
	// NoFastOpen leaves out the packet that is sent before NATs are known.
	NoFastOpen bool
	// Reusable lets later connections to the peer use the same socket and path.
	Reusable bool
	// Holepunch is asked before punching begins, and false gives up.
	Holepunch func(remote, local Firewall, remoteAddrs, localAddrs []netip.AddrPort) bool
	// Handshake is one that is held by somebody else. The connection has no
	// Stream then, and KeyPair needs only its public half.
	Handshake Handshake
}

// A Client is who asks a server for a connection.
type Client struct {
	Key  noise.Key
	Addr netip.AddrPort
	// Firewall is what the client knows of its own.
	Firewall Firewall
	// Addrs are the addresses it says it has.
	Addrs []netip.AddrPort
}

// ServerOptions say how a server listens. Serve is needed.
type ServerOptions struct {
	// Serve gets the connections, each in a goroutine of its own. The connection
	// is the callee's to close. Close of the DHT waits for it to return.
	Serve func(*Conn)
	// Refuse is the gate: clients for which it returns true get no answer at all.
	Refuse func(Client) bool
	// Holepunch is asked before punching begins, and false gives up.
	Holepunch func(remote, local Firewall, remoteAddrs, localAddrs []netip.AddrPort) bool
	// NoPunch leaves out punching: only what is reachable connects.
	NoPunch bool
	// RelayThrough are the blind relays for clients: those of the DHT if it is
	// nil, none if it is empty.
	RelayThrough []noise.Key
	// NoLocal keeps the local addresses of this machine from clients.
	NoLocal bool
	// Reusable lets clients use a socket and path again.
	Reusable bool
	// Handshake, if it isn't nil, makes the handshakes, which are then held by
	// somebody else. The connections have no Stream.
	Handshake func() Handshake
	// Sign signs announcements for a key that is not here.
	Sign Signer
	// MaxHandshakes bounds those under way, and PerSource those of one address:
	// [DefaultMaxHandshakes] and a quarter of that if they are zero.
	MaxHandshakes, PerSource int
}

// A Signing is what a [Signer] signs: that a peer is, or is no more, to be
// found at a target.
type Signing struct {
	Unannounce     bool
	Target, Token  [32]byte
	NodeID         [32]byte
	Peer           noise.Key
	RelayAddresses []netip.AddrPort
}

// A Signer signs announcements. The usual one has the key pair.
type Signer func(ctx context.Context, s Signing) ([64]byte, error)
