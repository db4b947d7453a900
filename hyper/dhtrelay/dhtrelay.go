// Package dhtrelay brings the HyperDHT to those who have no UDP: programs in
// browsers, and peers behind firewalls that let nothing but HTTPS out. A relay
// is a node of the DHT that takes WebSockets, and connects, listens, looks up
// and announces for its clients.
//
// It is a port of the npm package @hyperswarm/dht-relay 0.4 and speaks with
// it, on both sides; the golden files in testdata come from it. The DHT that a
// relay uses is hyper/hyperdht, the WebSockets are those of hyper/transport.
//
// A relay serves what an HTTP server of somebody else hands over:
//
//	relay := dhtrelay.NewServer(dhtrelay.Over(dht), dhtrelay.ServerOptions{})
//	http.Handle("/relay", &transport.Endpoint{Serve: relay.ServeConn, AllowOrigins: origins})
//
// A client reaches peers by their keys, and is reached by its own:
//
//	c, err := dhtrelay.Dial(ctx, "wss://relay.example/relay", dhtrelay.ClientOptions{KeyPair: keys})
//	stream, err := c.Connect(ctx, peer)
//	l, err := c.Listen(ctx, dhtrelay.ListenOptions{})
//	stream, err = l.Accept(ctx)
//
// # Who sees what
//
// A client of this package keeps its secret key. It holds the Noise handshakes
// itself and hands the relay what those are for: the relay learns with whom
// its clients speak, and when and how much, and sees ciphertext. It can refuse
// to serve, and nothing else. Clients of the npm package hand over their secret
// key unless they are told custodial: false; then the relay holds handshakes
// and streams for them, and sees everything.
//
// # On the wire
//
// One message of a WebSocket is one frame of protomux. The only channel is
// named @hyperswarm/dht-relay; its messages are in message.go. Numbers of
// streams, servers and requests are given by who opens them, and both sides
// have a number for each stream. Streams share the connection without a window
// of their own: a stream that isn't read holds up the others for five seconds
// at most, and is then destroyed.
package dhtrelay

import (
	"errors"
	"time"

	"github.com/cloudbevy/bevy/hyper/packet"
)

// protocol is the name of the channel.
const protocol = "@hyperswarm/dht-relay"

const (
	// heartbeat is the time between two pings of a relay, and silence after how
	// much of nothing a connection is given up (lib/protocol.js).
	heartbeat = 15 * time.Second
	silence   = 3 * heartbeat

	// stallTime is how long a stream may hold up the others, because nobody reads
	// it and its buffer is full.
	stallTime = 5 * time.Second

	// lingerTime is how long a stream that was closed waits for the other side to
	// end, too.
	lingerTime = 5 * time.Second

	// busyTime is how long the other side may take to read one message.
	busyTime = time.Minute

	// chunkSize is how much a message with data has at most, unless borders
	// matter.
	chunkSize = 32 << 10

	// streamBuffer is how much is kept of a stream that isn't read before others
	// wait, and lineBuffer how much of all of a line: room for the largest message
	// behind others.
	streamBuffer, lineBuffer = 256 << 10, 32 << 20
)

// The kinds of error of this package. They come wrapped: test with
// [errors.Is].
var (
	// ErrClosed means that the client, the listener or the connection to the
	// relay was closed.
	ErrClosed = packet.ErrClosed
	// ErrTimeout means that nothing came from the other side for too long, or that
	// it read nothing.
	ErrTimeout = errors.New("the other side of the relay connection is gone")
	// ErrProtocol means that the other side broke the rules.
	ErrProtocol = errors.New("dht-relay violation")
	// ErrRelay means that the relay could not do it. The text is the relay's.
	ErrRelay = errors.New("the relay says")
	// ErrDestroyed means that the other side has destroyed a stream.
	ErrDestroyed = errors.New("stream destroyed by the other side")
	// ErrStalled means that a stream was destroyed because it was not read.
	ErrStalled = errors.New("stream was not read for too long")
	// ErrTooMany means that a limit was reached.
	ErrTooMany = errors.New("too many")
	// ErrDenied means that the client of a relay refused somebody who wanted to
	// connect to it.
	ErrDenied = errors.New("handshake denied")
)
