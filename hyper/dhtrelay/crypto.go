package dhtrelay

import (
	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/blake2b"
)

// handshakePrologue is what both sides of a handshake of hyperdht have to have
// the same, and nsInitiator is of secret-stream: the hash of the hash of a name
// and a number (hypercore-crypto, namespace).
var handshakePrologue, nsInitiator = namespace("hyperswarm/dht", 0), namespace("hyperswarm/secret-stream", 0)

func namespace(name string, n byte) [32]byte {
	h := blake2b.Sum256([]byte(name))
	return blake2b.Sum256(append(h[:], n))
}

// newHandshake begins a handshake with a key that is here. The initiator brings
// the key of the other side.
func newHandshake(o noise.Config) (*noise.Handshake, error) {
	o.Pattern, o.Prologue = noise.IK, handshakePrologue[:]
	return noise.New(o)
}

// streamID is the initiator's id of a secret-stream. The reference sends it for
// either side, and uses it no more.
func streamID(hash [noise.HashSize]byte) (id [32]byte) {
	h, err := blake2b.New256(hash[:])
	if err != nil {
		panic("dhtrelay: " + err.Error()) // the hash is as long as a key may be
	}
	h.Write(nsInitiator[:])
	h.Sum(id[:0])
	return id
}
