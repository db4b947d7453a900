package hyperdht

import (
	"context"
	"errors"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/noise"
)

// A DHT is one node of the network: it finds peers, connects to them and is
// found by them. Its methods may be called by any goroutine.
type DHT struct{}

// Open begins a DHT. It binds its sockets and goes on joining in the
// background; see [DHT.Bootstrapped].
func Open(o Options) (*DHT, error) { return nil, errors.ErrUnsupported }

// Bootstrapped waits until the DHT has joined the network, or found nobody.
func (d *DHT) Bootstrapped(ctx context.Context) error { return errors.ErrUnsupported }

// KeyPair returns what connections use that don't bring their own.
func (d *DHT) KeyPair() noise.KeyPair { return noise.KeyPair{} }

// Close ends all servers and connections and leaves the network.
func (d *DHT) Close() error { return nil }

// Suspend takes the DHT off the network, for a machine that goes to sleep:
// servers are taken back, connections end, sockets close.
func (d *DHT) Suspend(ctx context.Context) error { return errors.ErrUnsupported }

// Resume puts a DHT back that was suspended, with its servers.
func (d *DHT) Resume(ctx context.Context) error { return errors.ErrUnsupported }

// Stats returns what the DHT has done.
func (d *DHT) Stats() Stats { return Stats{} }

// Stats count what a DHT has done.
type Stats struct {
	// PunchesConsistent, PunchesRandom and PunchesOpen count attempts by what was
	// tried. TryLater counts those that a server put off because it had another
	// with random ports under way.
	PunchesConsistent, PunchesRandom, PunchesOpen, TryLater int
	// RelayAttempts, RelaySuccesses and RelayAborts count relays asked.
	RelayAttempts, RelaySuccesses, RelayAborts int
	// SocketsAdded and SocketsRemoved count sockets for punching.
	SocketsAdded, SocketsRemoved int
	// Records, Values and Forwards are how many this node keeps for others:
	// announcements, mutable and immutable values, and peers that it relays for.
	Records, Values, Forwards int
}

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

// Connect finds the peer and connects to it. It returns when there is a path,
// maybe through a relay; a better one may be found later, see [Conn.OnPath].
// The end of ctx before that ends the attempt; later it changes nothing.
func (d *DHT) Connect(ctx context.Context, remote noise.Key, o ConnectOptions) (*Conn, error) {
	return nil, errors.ErrUnsupported
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

// Listen announces a key and serves those who connect to it. It returns when
// the key is announced.
func (d *DHT) Listen(ctx context.Context, keys noise.KeyPair, o ServerOptions) (*Server, error) {
	return nil, errors.ErrUnsupported
}

// A Server is a key that others may connect to.
type Server struct{}

// Key returns the public key of the server.
func (s *Server) Key() noise.Key { return noise.Key{} }

// RelayAddresses returns the nodes through which the server is found.
func (s *Server) RelayAddresses() []netip.AddrPort { return nil }

// Refresh announces the server again soon, as when the network has changed.
func (s *Server) Refresh() {}

// Close takes the announcement back. Connections go on.
func (s *Server) Close() error { return nil }

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

// A Peer is who has announced itself.
type Peer struct {
	Key            noise.Key
	RelayAddresses []netip.AddrPort
}

// A Found is what one node knows about a topic.
type Found struct {
	// From is the node, To is what it sees of us, and Token what it gave us.
	From, To netip.AddrPort
	Token    *[32]byte
	Peers    []Peer
	// Bump is when somebody last asked for attention, in milliseconds since 1970.
	Bump uint64
}

// LookupOptions say how to look. The zero value is right.
type LookupOptions struct {
	// Found gets what nodes answer, as it comes, one call at a time.
	Found func(Found)
	// Nodes are where to begin, such as those of an earlier lookup.
	Nodes []netip.AddrPort
}

// Lookup asks the nodes closest to a topic who has announced itself there. It
// returns the closest nodes when all have answered, after the last Found.
func (d *DHT) Lookup(ctx context.Context, topic [32]byte, o LookupOptions) ([]netip.AddrPort, error) {
	return nil, errors.ErrUnsupported
}

// AnnounceOptions say how to announce. The zero value is right.
type AnnounceOptions struct {
	LookupOptions
	// RelayAddresses are where the peer is found quickest, at most three: those
	// of its server.
	RelayAddresses []netip.AddrPort
	// Bump is the time to ask for attention with, in milliseconds since 1970.
	Bump uint64
	// Clear takes back what was announced at nodes that are no longer close.
	Clear bool
	// Sign signs for a key that is not here.
	Sign Signer
}

// Announce looks up a topic and has the closest nodes know that keys is there.
func (d *DHT) Announce(ctx context.Context, topic [32]byte, keys noise.KeyPair, o AnnounceOptions) ([]netip.AddrPort, error) {
	return nil, errors.ErrUnsupported
}

// Unannounce takes an announcement back from all nodes that have it. What they
// know of others goes to Found on the way.
func (d *DHT) Unannounce(ctx context.Context, topic [32]byte, keys noise.KeyPair, o AnnounceOptions) error {
	return errors.ErrUnsupported
}

// FindPeer returns what nodes know of a peer that listens. It fails with
// [ErrNotFound] if that is nothing.
func (d *DHT) FindPeer(ctx context.Context, key noise.Key) (Found, error) {
	return Found{}, errors.ErrUnsupported
}

// ImmutablePut stores a value under its hash, which it returns.
func (d *DHT) ImmutablePut(ctx context.Context, value []byte) ([32]byte, error) {
	return [32]byte{}, errors.ErrUnsupported
}

// ImmutableGet returns the value of a hash, or [ErrNotFound].
func (d *DHT) ImmutableGet(ctx context.Context, hash [32]byte) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// A Mutable is a value that its owner signed and may replace.
type Mutable struct {
	Seq       uint64
	Value     []byte
	Signature [64]byte
	// From is a node that has it.
	From netip.AddrPort
}

// MutablePut stores a value under a key. Nodes keep the one of the highest seq.
func (d *DHT) MutablePut(ctx context.Context, keys noise.KeyPair, seq uint64, value []byte) error {
	return errors.ErrUnsupported
}

// MutableOptions say what to get.
type MutableOptions struct {
	// Seq is the least sequence number that will do.
	Seq uint64
	// First takes the first value that is valid, not the latest of all nodes.
	First bool
	// Refresh puts what was found to the closest nodes again.
	Refresh bool
}

// MutableGet returns the value of a key, or [ErrNotFound].
func (d *DHT) MutableGet(ctx context.Context, key noise.Key, o MutableOptions) (Mutable, error) {
	return Mutable{}, errors.ErrUnsupported
}
