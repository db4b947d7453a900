// Package secretstream turns any pipe of bytes into a stream of messages that
// nobody else can read, forge, drop or put in another order, between two peers
// that know each other's keys.
//
// It is a port of the npm packages @hyperswarm/secret-stream 6.9 and
// sodium-secretstream 1.2, and speaks with them; the golden files in testdata
// come from them. It opens no connection and knows nothing of what the
// messages mean: channels are in hyper/protomux, addresses in hyper/hyperdht.
//
// Exactly one side is the client:
//
//	s, err := secretstream.Client(ctx, conn, secretstream.Options{KeyPair: keys})
//	err = s.WriteMessage([]byte("hello"))
//	msg, err := s.ReadMessage(nil)
//	err = s.Close()
//
// # On the wire
//
// Everything is in frames: a length of three bytes, little endian, and that
// many bytes. First come the three messages of a Noise XX handshake. Then each
// side sends a header of 56 bytes: an id, BLAKE2b of its role keyed with the
// handshake hash, and what the other side needs to open its messages. From
// then on each frame is one message, sealed by a [Push]. A message without
// content keeps the connection alive. Where the keys are agreed on by other
// means, the headers come first; see [New].
//
// # What it does not do
//
// Lengths and times of messages can be seen. The end of the stream is not
// authenticated, as the npm packages don't: someone on the way can end it
// after any message, though not inside of one unnoticed.
package secretstream

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/blake2b"
)

// MaxMessage is the most bytes a message may have, so that its frame's length
// fits into three bytes.
const MaxMessage = 1<<24 - 1 - Overhead

// DefaultKeepAlive is how long a stream is silent before it sends an empty
// message, as in the npm packages that use secret-stream.
const DefaultKeepAlive = 5 * time.Second

// The kinds of error that callers may want to tell apart. They come wrapped:
// test with [errors.Is]. Errors of a handshake are those of hyper/noise.
var (
	// ErrAuth means that a message is not what the other side sealed next: it
	// was forged, changed, repeated, or one before it is missing.
	ErrAuth = errors.New("message authentication failed")
	// ErrTooLarge means that a message or a frame is over its limit.
	ErrTooLarge = errors.New("message too large")
	// ErrInvalid means that a frame can't be what it should be by its length,
	// or that the header is for another stream.
	ErrInvalid = errors.New("invalid frame")
	// ErrRefused means that Options.Check refused the other side.
	ErrRefused = errors.New("remote key refused")
	// ErrTimeout means that nothing came for as long as Options.Timeout.
	ErrTimeout = errors.New("stream timed out")
	// ErrClosed means that the stream was closed on this side.
	ErrClosed = errors.New("stream closed")
	// ErrExhausted means that a [Box] has sealed all it may.
	ErrExhausted = errors.New("nonces exhausted")
)

// Options say how a stream begins and lives. KeyPair is needed, except for
// [New]; the zero value of everything else is right.
type Options struct {
	// KeyPair is what this side is known by.
	KeyPair noise.KeyPair
	// Check is asked whether to go on once the other side's key is known, and
	// refuses it with an error. It is the gate: a server asks before the first
	// message counts, a client before it tells the server who it is. Nil lets
	// everyone in. It blocks the handshake, and must not use the stream.
	Check func(remote noise.Key) error
	// Clock is the machine's clock if it is nil.
	Clock clock.Clock
	// KeepAlive is how long this side is silent before it sends an empty
	// message: [DefaultKeepAlive] if it is zero, never if it is negative. Empty
	// messages of the other side are dropped, unless it is negative.
	KeepAlive time.Duration
	// Timeout ends the stream when a read has waited for that long without a
	// byte, so it should be well over the other side's KeepAlive. Zero waits for
	// ever. It does not count while nobody reads.
	Timeout time.Duration
	// Random is where keys come from: crypto/rand if it is nil.
	Random io.Reader
	// MaxMessage is the most bytes a message from the other side may have: the
	// constant of that name if it is zero. However large a message claims to be,
	// over 128 KiB it takes at most twice the memory of what has arrived of it.
	MaxMessage int
}

// Only returns a function for Options.Check that lets in these keys alone.
func Only(keys ...noise.Key) func(noise.Key) error {
	return func(remote noise.Key) error {
		if slices.Contains(keys, remote) {
			return nil
		}
		return fmt.Errorf("%s is not expected", remote)
	}
}

// Namespaces of the ids and keys that are bound to a handshake: BLAKE2b of
// BLAKE2b(name) and a number (hypercore-crypto, namespace).
var nsInitiator, nsResponder, nsSend = namespace(0), namespace(1), namespace(2)

func namespace(n byte) []byte {
	name := blake2b.Sum256([]byte("hyperswarm/secret-stream"))
	ns := blake2b.Sum256(append(name[:], n))
	return ns[:]
}

// streamID is how a side begins its stream.
func streamID(hash *[noise.HashSize]byte, initiator bool) [32]byte {
	return bound(hash, role(initiator))
}

func role(initiator bool) []byte {
	if initiator {
		return nsInitiator
	}
	return nsResponder
}

// bound is BLAKE2b-256 of parts, keyed with the handshake hash.
func bound(hash *[noise.HashSize]byte, parts ...[]byte) (out [32]byte) {
	h, err := blake2b.New256(hash[:])
	if err != nil {
		panic("secretstream: " + err.Error()) // the hash is as long as a key may be
	}
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	return out
}
