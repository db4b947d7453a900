// Package blindrelay joins two peers that can't reach each other: each opens a
// UDX stream to a relay, which passes the packets of one on to the other. The
// relay is blind: what goes through it is sealed end to end, and it knows of
// the peers what their addresses and keys are.
//
// It is a port of the npm package blind-relay 1.6 and speaks with it; the
// golden files in testdata come from it. How peers agree on a relay and a
// token is for hyper/hyperdht, which is also where connections to a relay come
// from.
//
// A relay serves connections that it has accepted:
//
//	server := blindrelay.NewServer(blindrelay.Options{UDX: u})
//	err := server.Serve(ctx, stream)
//
// Each of two peers that know one token pairs a stream of its own, one of them
// as the initiator, and connects it to the relay's:
//
//	client, err := blindrelay.NewClient(conn)
//	id, err := client.Pair(ctx, initiator, token, mine.ID())
//	err = mine.Connect(socket, id, relay)
//
// # On the wire
//
// A channel of protomux named blind-relay, whose id is the public key of the
// client, has two messages. The first asks to be paired, with flags (1 is for
// the initiator), the token, the id of the sender's UDX stream and a sequence
// number that is 0; the relay answers with the same and the id of its own
// stream once the other peer has asked too. The second takes that back: flags
// and the token. A relay of ours sends it, too, when it refuses a token or has
// waited for too long, which the npm package ignores.
package blindrelay

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// protocol is the name of the channel.
const protocol = "blind-relay"

// The numbers of messages.
const (
	messagePair = iota
	messageUnpair
)

// The kinds of error of this package. They come wrapped: test with
// [errors.Is].
var (
	// ErrRefused means that the relay doesn't take this client, or not one more
	// pairing, or has waited for the other peer for too long.
	ErrRefused = errors.New("refused by the relay")
	// ErrCancelled means that the pairing was taken back on this side.
	ErrCancelled = errors.New("pairing cancelled")
	// ErrPairing means that there is a pairing with that token already.
	ErrPairing = errors.New("already pairing")
	// ErrClosed means that the client, the server or the connection was closed.
	ErrClosed = errors.New("relay connection closed")
)

// A Token is what two peers show to a relay to be joined. It is a secret
// between them and the relay.
type Token [32]byte

// NewToken makes a token from random bytes: of crypto/rand if random is nil.
func NewToken(random io.Reader) (t Token, err error) {
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, t[:]); err != nil {
		return Token{}, fmt.Errorf("make a relay token: %w", err)
	}
	return t, nil
}

// String keeps the token out of logs.
func (Token) String() string { return "[token redacted]" }

// GoString keeps %#v from printing the token.
func (t Token) GoString() string { return t.String() }

// A pairMessage asks for a pairing, or tells that it was made.
type pairMessage struct {
	initiator bool
	token     Token
	id        uint32
}

func (m pairMessage) append(b []byte) []byte {
	flags := uint64(0)
	if m.initiator {
		flags = 1
	}
	b = compact.AppendUint(b, flags)
	b = append(b, m.token[:]...)
	b = compact.AppendUint(b, uint64(m.id))
	return compact.AppendUint(b, 0)
}

// decodePair ignores what a newer side may add.
func decodePair(b []byte) (pairMessage, error) {
	d := compact.NewDecoder(b)
	m := pairMessage{initiator: d.Uint()&1 != 0, token: d.Fixed32()}
	id := d.Uint()
	d.Uint() // the sequence number, which everybody begins with 0
	if d.Err() == nil && id > math.MaxUint32 {
		return pairMessage{}, fmt.Errorf("stream id %d is over 32 bits", id)
	}
	m.id = uint32(id)
	return m, d.Err()
}

func appendUnpair(b []byte, token Token) []byte {
	return append(compact.AppendUint(b, 0), token[:]...)
}

func decodeUnpair(b []byte) (Token, error) {
	d := compact.NewDecoder(b)
	d.Uint()
	token := Token(d.Fixed32())
	return token, d.Err()
}
