// Package hyperdht finds and connects peers by their public keys, through the
// NATs that are in between, without a server: the HyperDHT.
//
// It is a port of the npm package hyperdht 6.34 and speaks with it as client,
// server, relay and node. Under it is the DHT of hyper/dhtrpc and the streams
// of hyper/udx; topics and the care for many peers are above, in
// hyper/hyperswarm.
//
//	d, err := hyperdht.Open(hyperdht.Options{KeyPair: keys})
//	server, err := d.Listen(ctx, keys, hyperdht.ServerOptions{
//		Serve: func(c *hyperdht.Conn) { … },
//	})
//
//	conn, err := d.Connect(ctx, server.Key(), hyperdht.ConnectOptions{})
//	err = conn.WriteMessage([]byte("hello"))
//
// # How two peers meet
//
// A server tells the nodes of the DHT that are closest to the hash of its key
// that it is there, and keeps three of them as relays. A client finds those
// nodes, and shakes hands with the server through them (Noise IK). Then they
// find a path: over the LAN if both have the same address outside, directly if
// one of them can be reached, else by punching holes into their NATs, while
// the relays carry what they tell one another. Where both NATs choose ports at
// random nothing of this helps, and a blind relay carries the connection; it
// sees ciphertext only. Conn.Path tells which it is and why.
//
// # Beyond the reference
//
// IPv6 is tried next to all of this if both sides have global addresses. A
// blind relay is used as soon as it is clear that punching is of no use or takes
// long, and after half a second at the latest. Peers are followed when their
// address changes, and connections end some seconds after their path is dead. Handshakes under way are bounded for each
// source.
package hyperdht

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/packet"
	"golang.org/x/crypto/blake2b"
)

// Defaults of Options.
const (
	DefaultPort                = 49737
	DefaultConnectionKeepAlive = 5 * time.Second
	DefaultRandomPunchInterval = 20 * time.Second
	DefaultMaxRecords          = 65536
	DefaultMaxAge              = 20 * time.Minute
	DefaultMaxBytes            = 64 << 20
	DefaultMaxHandshakes       = 4096
	DefaultRelayDelay          = 500 * time.Millisecond
)

// PublicBootstrap are the nodes by which the public DHT is joined.
var PublicBootstrap = []string{
	"88.99.3.86@node1.hyperdht.org:49737",
	"142.93.90.113@node2.hyperdht.org:49737",
	"138.68.147.8@node3.hyperdht.org:49737",
}

// The errors of this package that callers may want to tell apart. They come
// wrapped: test with [errors.Is].
var (
	// ErrNotFound means that no node knows of the peer, or of the record.
	ErrNotFound = errors.New("not found")
	// ErrUnreachable means that the peer was found and no path to it.
	ErrUnreachable = errors.New("no path to the peer")
	// ErrAborted means that the other side gave up punching, or this one did.
	ErrAborted = errors.New("hole punching aborted")
	// ErrBothRandom means that both NATs choose ports at random, so that only a
	// relay could help.
	ErrBothRandom = errors.New("both NATs choose ports at random")
	// ErrRefused means that the server answered with an error.
	ErrRefused = errors.New("refused by the server")
	// ErrIncompatible means that the other side speaks another version.
	ErrIncompatible = errors.New("incompatible version")
	// ErrKeyInUse means that a server of this DHT listens with the key already.
	ErrKeyInUse = errors.New("key is in use")
	// ErrSeqReused and ErrSeqTooLow mean that nodes hold another value of the
	// same sequence number, or one of a higher.
	ErrSeqReused = errors.New("sequence number was used for another value")
	ErrSeqTooLow = errors.New("sequence number is too low")
	// ErrSuspended means that the DHT is suspended.
	ErrSuspended = errors.New("suspended")
	// ErrClosed means that the DHT, the server or the connection was closed.
	ErrClosed = packet.ErrClosed
)

// A Firewall says how a NAT chooses the addresses that others see.
type Firewall uint8

// The firewalls of hyperdht.
const (
	// FirewallUnknown is one that could not be made out yet.
	FirewallUnknown Firewall = iota
	// FirewallOpen is none: everyone can send to the port.
	FirewallOpen
	// FirewallConsistent gives a socket the same address whoever it sends to.
	FirewallConsistent
	// FirewallRandom gives a socket another port for everyone it sends to.
	FirewallRandom
)

// String returns the word for it.
func (f Firewall) String() string {
	switch f {
	case FirewallUnknown:
		return "unknown"
	case FirewallOpen:
		return "open"
	case FirewallConsistent:
		return "consistent"
	}
	return "random"
}

// consistent reports whether packets from elsewhere find the port they saw.
func (f Firewall) consistent() bool { return f == FirewallOpen || f == FirewallConsistent }

// Options say what a DHT is. The zero value joins the public one from a
// machine behind a NAT.
type Options struct {
	// KeyPair is what connections use that don't bring their own: one made from
	// Random if it is zero.
	KeyPair noise.KeyPair

	// Network, Clock and Random are the machine's if they are nil.
	Network packet.Network
	Clock   clock.Clock
	Random  io.Reader

	// Bind is the address of this machine to use: all of IPv4 if it is zero.
	Bind netip.Addr
	// Port is that of the server socket: [DefaultPort] or one of the five after
	// it if it is zero, any that is free if it is negative.
	Port int
	// FixedPort fails instead of taking another port.
	FixedPort bool
	// Public is the address that others know the node by, if there is nobody who
	// could tell it: that of the first node of a network.
	Public netip.AddrPort
	// Plugins add commands to the node.
	Plugins []Plugin
	// Notify tells what happens to the node, maybe before Open returns. It must
	// not block.
	Notify func(dhtrpc.Event)
	// Bootstrap are nodes to begin with, as HOST:PORT or IP@HOST:PORT: those of
	// the public DHT if it is nil, none if it is empty.
	Bootstrap []string
	// Nodes are addresses of nodes that were there before.
	Nodes []netip.AddrPort
	// Resolve looks up names in Bootstrap.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Open says that everyone can reach this machine, so there is no need to find
	// out (firewalled: false).
	Open bool
	// Node says that this machine takes part in the DHT from the start, for
	// others. Without it that begins when it was reachable for 20 minutes. A
	// Node that is Open needs nobody to begin with. Client never takes part.
	Node, Client bool

	// ConnectionKeepAlive is after how much silence a connection is kept alive:
	// [DefaultConnectionKeepAlive] if it is zero, never if it is negative.
	ConnectionKeepAlive time.Duration
	// RandomPunchInterval is the time between two attempts that need hundreds of
	// packets: [DefaultRandomPunchInterval] if it is zero.
	RandomPunchInterval time.Duration
	// DeferRandomPunch puts off the first of those by that time.
	DeferRandomPunch bool
	// RelayThrough are the keys of blind relays for connections that bring none
	// of their own; one of them is chosen each time. A function, so that they may
	// change; nil is none.
	RelayThrough func() []noise.Key
	// RelayDelay is how long a client waits for a direct path before it asks a
	// relay: [DefaultRelayDelay] if it is zero, not at all if it is negative. It
	// doesn't wait when both NATs turn out to be random.
	RelayDelay time.Duration
	// MapPort asks the router for a UDP port that leads to a port of this machine,
	// as hyper/portmap does; nil doesn't. It is called once, if others can't reach
	// the machine as it is. Clients connect directly to a server that turns out to
	// be reachable there.
	MapPort func(ctx context.Context, port uint16) (Mapping, error)
	// NoIPv6 leaves out the socket for IPv6.
	NoIPv6 bool

	// MaxRecords, MaxBytes and MaxAge bound what a node keeps for others:
	// [DefaultMaxRecords], [DefaultMaxBytes] and [DefaultMaxAge] if they are
	// zero. Mutable and immutable values are kept for 48 hours unless MaxAge is
	// set.
	MaxRecords int
	MaxBytes   int
	MaxAge     time.Duration
}

// hash is BLAKE2b-256.
func hash(parts ...[]byte) (out [32]byte) {
	h, err := blake2b.New256(nil)
	if err != nil {
		panic("hyperdht: " + err.Error()) // there is no key that could be wrong
	}
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	return out
}

// Target returns where in the DHT a peer is to be found: the hash of its key.
func Target(key noise.Key) [32]byte { return hash(key[:]) }

// Namespaces of what is signed and derived: the hash of the hash of a name,
// and the number of a command (hypercore-crypto, namespace).
var (
	nsAnnounce   = namespace(cmdAnnounce)
	nsUnannounce = namespace(cmdUnannounce)
	nsMutablePut = namespace(cmdMutablePut)
	nsHandshake  = namespace(cmdPeerHandshake)
	nsHolepunch  = namespace(cmdPeerHolepunch)
)

func namespace(n byte) [32]byte {
	name := hash([]byte("hyperswarm/dht"))
	return hash(name[:], []byte{n})
}

func verify(key noise.Key, message []byte, signature *[64]byte) bool {
	return ed25519.Verify(key[:], message, signature[:])
}
