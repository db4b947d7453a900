package secretstream

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/nacl/secretbox"
)

// BoxOverhead is how much longer an envelope is than the message in it.
const BoxOverhead = counterSize + secretbox.Overhead

const counterSize = 8

// A Box seals and opens messages that may get lost or come in any order, next
// to a stream: what secret-stream sends with send, over UDX only. It is for
// one goroutine.
//
// Who can repeat packets can repeat messages: a Box does not know what it has
// opened before.
type Box struct {
	tx, rx  [32]byte
	counter uint64 // of the newest message
	first   uint64 // where the counter began, and may not come to again
}

// NewBox returns a Box for a session. Its counter begins anywhere: at eight
// bytes from random, or from crypto/rand if that is nil. A session has one Box
// on each side.
func NewBox(session noise.Session, random io.Reader) (*Box, error) {
	if random == nil {
		random = rand.Reader
	}
	var first [counterSize]byte
	if _, err := io.ReadFull(random, first[:]); err != nil {
		return nil, fmt.Errorf("begin box: %w", err)
	}
	n := binary.LittleEndian.Uint64(first[:])
	return &Box{
		tx:      bound(&session.Hash, role(session.Initiator), nsSend),
		rx:      bound(&session.Hash, role(!session.Initiator), nsSend),
		counter: n,
		first:   n,
	}, nil
}

// Seal appends the envelope of plain to dst: its counter and a secretbox. It
// fails with [ErrExhausted] after 2^64 - 1 messages.
func (b *Box) Seal(dst, plain []byte) ([]byte, error) {
	if b.counter+1 == b.first {
		return dst, fmt.Errorf("seal datagram: %w", ErrExhausted)
	}
	b.counter++
	dst = binary.LittleEndian.AppendUint64(dst, b.counter)
	return secretbox.Seal(dst, plain, boxNonce(b.counter), &b.tx), nil
}

// Open appends to dst what is in an envelope of the other side. It fails with
// [ErrAuth] if that isn't one.
func (b *Box) Open(dst, envelope []byte) ([]byte, error) {
	if len(envelope) < BoxOverhead {
		return dst, fmt.Errorf("open datagram: %w", ErrAuth)
	}
	nonce := boxNonce(binary.LittleEndian.Uint64(envelope))
	out, ok := secretbox.Open(dst, envelope[counterSize:], nonce, &b.rx)
	if !ok {
		return dst, fmt.Errorf("open datagram: %w", ErrAuth)
	}
	return out, nil
}

func boxNonce(counter uint64) *[24]byte {
	var nonce [24]byte
	binary.LittleEndian.PutUint64(nonce[:], counter)
	return &nonce
}
