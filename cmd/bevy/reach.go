package main

import (
	"context"

	"github.com/cloudbevy/bevy/hyper/dhtrelay"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// A reach is how peers are found and connected to: over UDP, or through a door
// where there is none.
type reach interface {
	// connect connects to a peer, and says by which path.
	connect(ctx context.Context, key noise.Key, relays []noise.Key) (stream *secretstream.Stream, path string, err error)
	// listen begins to take connections to the own key, until the reach is closed.
	listen(ctx context.Context, l listening) error
	// lookup calls found with what nodes know about a topic, as it comes.
	lookup(ctx context.Context, topic [32]byte, found func(hyperdht.Found)) error
	// announce has others find the own key by a topic, and returns how many nodes
	// said so. unannounce takes it back.
	announce(ctx context.Context, topic [32]byte) (nodes int, err error)
	unannounce(ctx context.Context, topic [32]byte) error
}

// A listening says who is let in, and who serves them, each in a goroutine of
// its own.
type listening struct {
	gate   func(noise.Key) bool
	relays []noise.Key
	serve  func(stream *secretstream.Stream, path string)
}

// byUDP is the usual way.
type byUDP struct {
	*hyperdht.DHT
	server *hyperdht.Server // once it listens
}

func (r *byUDP) connect(ctx context.Context, key noise.Key, relays []noise.Key) (*secretstream.Stream, string, error) {
	c, err := r.Connect(ctx, key, hyperdht.ConnectOptions{RelayThrough: relays})
	if err != nil {
		return nil, "", err
	}
	return c.Stream, c.Path().String(), nil
}

func (r *byUDP) listen(ctx context.Context, l listening) (err error) {
	r.server, err = r.Listen(ctx, r.KeyPair(), hyperdht.ServerOptions{
		RelayThrough: l.relays,
		Refuse:       func(c hyperdht.Client) bool { return !l.gate(c.Key) },
		Serve:        func(c *hyperdht.Conn) { l.serve(c.Stream, c.Path().String()) },
	})
	return err
}

func (r *byUDP) lookup(ctx context.Context, topic [32]byte, found func(hyperdht.Found)) error {
	_, err := r.Lookup(ctx, topic, hyperdht.LookupOptions{Found: found})
	return err
}

func (r *byUDP) announce(ctx context.Context, topic [32]byte) (int, error) {
	var o hyperdht.AnnounceOptions
	if r.server != nil {
		o.RelayAddresses = r.server.RelayAddresses()
	}
	nodes, err := r.Announce(ctx, topic, r.KeyPair(), o)
	return len(nodes), err
}

func (r *byUDP) unannounce(ctx context.Context, topic [32]byte) error {
	return r.Unannounce(ctx, topic, r.KeyPair(), hyperdht.AnnounceOptions{})
}

// byDoor goes through a relay with a WebSocket.
type byDoor struct {
	*dhtrelay.Client
	url  string
	stop context.CancelFunc // ends listening, if it does
}

func (r *byDoor) connect(ctx context.Context, key noise.Key, _ []noise.Key) (*secretstream.Stream, string, error) {
	s, err := r.Connect(ctx, key, dhtrelay.ConnectOptions{})
	return s, r.path(), err
}

func (r *byDoor) path() string { return "relayed by " + r.url }

func (r *byDoor) listen(ctx context.Context, l listening) error {
	in, err := r.Listen(ctx, dhtrelay.ListenOptions{Check: func(k noise.Key) error {
		if !l.gate(k) {
			return dhtrelay.ErrDenied
		}
		return nil
	}})
	if err != nil {
		return err
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() { // Close of the client ends it
		for {
			s, err := in.Accept(ctx)
			if err != nil {
				return
			}
			go l.serve(s, r.path())
		}
	}()
	return nil
}

func (r *byDoor) lookup(ctx context.Context, topic [32]byte, found func(hyperdht.Found)) error {
	return r.Lookup(ctx, topic, found)
}

func (r *byDoor) announce(ctx context.Context, topic [32]byte) (nodes int, err error) {
	err = r.Announce(ctx, topic, r.KeyPair(), func(hyperdht.Found) { nodes++ })
	return nodes, err
}

func (r *byDoor) unannounce(ctx context.Context, topic [32]byte) error {
	return r.Unannounce(ctx, topic, r.KeyPair(), func(hyperdht.Found) {})
}

// Close ends the connection to the door, and all that goes through it.
func (r *byDoor) Close() error {
	if r.stop != nil {
		r.stop()
	}
	return r.Client.Close()
}
