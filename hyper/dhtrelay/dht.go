package dhtrelay

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A DHT is what a relay needs of the node that it is. [Over] makes one of a
// hyperdht.DHT.
type DHT interface {
	// Connect connects to a peer on behalf of owner.
	Connect(ctx context.Context, remote noise.Key, owner Owner) (Conn, error)
	// Listen has the key of owner announced, and serves those who connect to it
	// until it is closed. It returns when the key is announced.
	Listen(ctx context.Context, owner Owner, serve func(Conn)) (Listening, error)
	// Lookup asks who has announced itself for a topic. It calls found with what
	// nodes answer, one call at a time, and returns when all have.
	Lookup(ctx context.Context, topic [32]byte, found func(hyperdht.Found)) error
	// Announce looks up a topic, and has the closest nodes know that the key of
	// owner is there.
	Announce(ctx context.Context, topic [32]byte, owner Owner, found func(hyperdht.Found)) error
	// Unannounce takes that back.
	Unannounce(ctx context.Context, topic [32]byte, owner Owner, found func(hyperdht.Found)) error
}

// An Owner is on whose behalf a relay does something. The secret half of the
// key is elsewhere.
type Owner struct {
	// Key is who it is.
	Key noise.Key
	// Handshake makes one for each connection.
	Handshake func() hyperdht.Handshake
	// Sign signs announcements.
	Sign hyperdht.Signer
}

// A Conn is a connection to a peer of the DHT: the Raw stream, of which the
// Handshake is one that Owner made.
type Conn struct {
	Raw       transport.Conn
	Handshake hyperdht.Handshake
}

// Listening is a key that is announced.
type Listening struct {
	// Addr is the public address of the node, if it is known.
	Addr netip.AddrPort
	// Close takes the announcement back. Connections go on.
	Close func() error
}

// Over returns what a relay needs of a DHT.
func Over(d *hyperdht.DHT) DHT { return over{d} }

type over struct{ d *hyperdht.DHT }

func (o over) Connect(ctx context.Context, remote noise.Key, owner Owner) (Conn, error) {
	c, err := o.d.Connect(ctx, remote, hyperdht.ConnectOptions{KeyPair: noise.KeyPair{Public: owner.Key}, Handshake: owner.Handshake()})
	if err != nil {
		return Conn{}, err
	}
	return Conn{c.Raw(), c.Handshake()}, nil
}

func (o over) Listen(ctx context.Context, owner Owner, serve func(Conn)) (Listening, error) {
	s, err := o.d.Listen(ctx, noise.KeyPair{Public: owner.Key}, hyperdht.ServerOptions{
		Serve:     func(c *hyperdht.Conn) { serve(Conn{c.Raw(), c.Handshake()}) },
		Handshake: owner.Handshake,
		Sign:      owner.Sign,
	})
	if err != nil {
		return Listening{}, err
	}
	addr, _ := o.d.Node().RemoteAddr()
	return Listening{addr, s.Close}, nil
}

func (o over) Lookup(ctx context.Context, topic [32]byte, found func(hyperdht.Found)) error {
	_, err := o.d.Lookup(ctx, topic, hyperdht.LookupOptions{Found: found})
	return err
}

func (o over) Announce(ctx context.Context, topic [32]byte, owner Owner, found func(hyperdht.Found)) error {
	_, err := o.d.Announce(ctx, topic, noise.KeyPair{Public: owner.Key}, owner.announce(found))
	return err
}

func (o over) Unannounce(ctx context.Context, topic [32]byte, owner Owner, found func(hyperdht.Found)) error {
	return o.d.Unannounce(ctx, topic, noise.KeyPair{Public: owner.Key}, owner.announce(found))
}

func (o Owner) announce(found func(hyperdht.Found)) hyperdht.AnnounceOptions {
	return hyperdht.AnnounceOptions{LookupOptions: hyperdht.LookupOptions{Found: found}, Sign: o.Sign}
}

// A custodian is a handshake with a key that a client has handed over.
type custodian struct {
	noise *noise.Handshake
	// admits is asked about who wants to connect; nil on the other side.
	admits func(ctx context.Context, remote noise.Key, payload []byte) bool
}

var _ hyperdht.Handshake = (*custodian)(nil)

// Send implements hyperdht.Handshake.
func (c *custodian) Send(_ context.Context, payload []byte) ([]byte, error) {
	return c.noise.WriteMessage(nil, payload)
}

// Receive implements hyperdht.Handshake.
func (c *custodian) Receive(ctx context.Context, message []byte) ([]byte, error) {
	payload, err := c.noise.ReadMessage(message)
	if err == nil && c.admits != nil && !c.admits(ctx, c.Remote(), payload) {
		err = fmt.Errorf("%s: %w", c.Remote(), ErrDenied)
	}
	return payload, err
}

// Remote implements hyperdht.Handshake.
func (c *custodian) Remote() noise.Key {
	k, _ := c.noise.RemoteStatic()
	return k
}

// HolepunchSecret implements hyperdht.Handshake.
func (c *custodian) HolepunchSecret() [32]byte {
	s, err := c.noise.Split()
	if err != nil {
		return [32]byte{}
	}
	return hyperdht.HolepunchSecret(s.Hash)
}
