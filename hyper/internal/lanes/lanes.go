// Package lanes hashes many messages with BLAKE2b-256 at once: where the
// processor has vectors, four of them side by side, which is several times as
// fast as one after the other. The hashes are those of RFC 7693 without a key,
// which golang.org/x/crypto/blake2b makes as well.
//
//	i := 0
//	lanes.Sum(func() (m lanes.Message, ok bool) {
//		if i == len(blocks) {
//			return m, false
//		}
//		i++
//		return lanes.Message{Data: blocks[i-1], Hash: &hashes[i-1]}, true
//	})
package lanes

import "golang.org/x/crypto/blake2b"

// Size is how many bytes a hash has.
const Size = blake2b.Size256

// MaxPrefix is how many bytes a prefix may have.
const MaxPrefix = 16

// Count is how many messages are hashed side by side.
const Count = 4

// A Message is a prefix and data, hashed as if they were one, and where the hash
// goes. The prefix has up to MaxPrefix bytes, which may be changed once the next
// message is asked for.
type Message struct {
	Prefix, Data []byte
	Hash         *[Size]byte
}

// Sum hashes the messages that next returns until it returns false. They should
// be long, and of about the same length.
func Sum(next func() (Message, bool)) {
	if vectors {
		sumLanes(next)
		return
	}
	for m, ok := next(); ok; m, ok = next() {
		sumOne(&m)
	}
}

// sumOne hashes one message alone.
func sumOne(m *Message) {
	d, err := blake2b.New256(nil)
	if err != nil {
		panic("lanes: " + err.Error()) // no key, so it can't fail
	}
	d.Write(m.Prefix)
	d.Write(m.Data)
	d.Sum(m.Hash[:0])
}
