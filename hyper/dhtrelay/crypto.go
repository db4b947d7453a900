package dhtrelay

import (
	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/blake2b"
)

// Namespaces of what is signed and derived (hyperdht, lib/constants.js; the
// last is of secret-stream). The numbers are those of commands.
var (
	nsHandshake  = namespace("hyperswarm/dht", 0)
	nsHolepunch  = namespace("hyperswarm/dht", 1)
	nsAnnounce   = namespace("hyperswarm/dht", 4)
	nsUnannounce = namespace("hyperswarm/dht", 5)
	nsInitiator  = namespace("hyperswarm/secret-stream", 0)
)

func namespace(name string, n byte) [32]byte {
	h := blake2b.Sum256([]byte(name))
	return blake2b.Sum256(append(h[:], n))
}

// target is where a peer that listens is announced.
func target(key noise.Key) [32]byte { return blake2b.Sum256(key[:]) }

// signable is what a client signs (lib/signee.js): the namespace, and a hash of
// the rest.
func signable(s signee, m *signMsg, unannounce bool) []byte {
	ns := nsAnnounce
	if unannounce {
		ns = nsUnannounce
	}
	c := &coder{out: append([]byte(nil), s.target[:]...)}
	c.out = append(c.out, m.peer...)
	c.fixed(m.token[:])
	c.fixed(s.keys.Public[:])
	c.addrs(&m.addrs)
	hash := blake2b.Sum256(c.out)
	return append(ns[:], hash[:]...)
}

// holepunchSecret is what the relay seals with, that punches holes for a
// client.
func holepunchSecret(hash [noise.HashSize]byte) [32]byte { return bound(hash, nsHolepunch) }

// streamID is the initiator's id of a secret-stream. The reference sends it for
// either side, and uses it no more.
func streamID(hash [noise.HashSize]byte) [32]byte { return bound(hash, nsInitiator) }

func bound(hash [noise.HashSize]byte, ns [32]byte) (out [32]byte) {
	h, err := blake2b.New256(hash[:])
	if err != nil {
		panic("dhtrelay: " + err.Error()) // the hash is as long as a key may be
	}
	h.Write(ns[:])
	h.Sum(out[:0])
	return out
}
