package hypercore

import (
	"crypto/ed25519"
	"fmt"
	"io"

	"github.com/cloudbevy/bevy/hyper/compact"
	"golang.org/x/crypto/blake2b"
)

// A Key names a log and proves what is in it.
type Key [32]byte

// A DiscoveryKey names a log to those who look for it, without telling those
// who do not have its key what it is.
type DiscoveryKey [32]byte

// ParseKey reads a key as people write it: z-base-32, hex or a pear:// link.
func ParseKey(s string) (Key, error) {
	k, err := compact.ParseKey(s)
	return Key(k), err
}

// String returns the key in z-base-32.
func (k Key) String() string { return compact.FormatKey(k) }

// MarshalText implements [encoding.TextMarshaler]: the key as String has it.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler], for what ParseKey reads.
func (k *Key) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKey(string(b))
	return err
}

// Discovery returns the log's discovery key: BLAKE2b keyed with the log's key,
// of "hypercore".
func (k Key) Discovery() DiscoveryKey {
	return DiscoveryKey(keyedHash(k[:], []byte("hypercore")))
}

// String returns the discovery key in z-base-32.
func (d DiscoveryKey) String() string { return compact.FormatKey(d) }

// A KeyPair signs. Its zero value can't.
type KeyPair struct {
	Public Key
	secret ed25519.PrivateKey
}

// NewKeyPair returns the Ed25519 key pair of a seed.
func NewKeyPair(seed [32]byte) KeyPair {
	secret := ed25519.NewKeyFromSeed(seed[:])
	return KeyPair{Key(secret.Public().(ed25519.PublicKey)), secret}
}

// GenerateKeyPair makes a key pair from random bytes.
func GenerateKeyPair(random io.Reader) (KeyPair, error) {
	var seed [32]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return KeyPair{}, fmt.Errorf("generate key pair: %w", err)
	}
	return NewKeyPair(seed), nil
}

// CanSign reports whether the pair has its secret half.
func (k KeyPair) CanSign() bool { return k.secret != nil }

// Seed returns the 32 secret bytes the pair was made from, or nil.
func (k KeyPair) Seed() []byte {
	if k.secret == nil {
		return nil
	}
	return k.secret.Seed()
}

// Sign signs a message.
func (k KeyPair) Sign(message []byte) []byte { return ed25519.Sign(k.secret, message) }

// String names the pair by its public half and keeps the secret to itself.
func (k KeyPair) String() string {
	if k.secret == nil {
		return k.Public.String()
	}
	return k.Public.String() + " [secret redacted]"
}

// GoString keeps %#v from printing the secret.
func (k KeyPair) GoString() string { return "hypercore.KeyPair(" + k.String() + ")" }

// Namespaces separate what is hashed and signed for one purpose from what is
// for another: BLAKE2b(BLAKE2b(name) || number) (hypercore lib/caps.js).
var (
	nsTree           = Namespace("hypercore", 0)
	nsReplicateInit  = Namespace("hypercore", 1)
	nsReplicateResp  = Namespace("hypercore", 2)
	nsManifest       = Namespace("hypercore", 3)
	nsEncryption     = Namespace("hypercore", 5)
	DefaultNamespace = Namespace("hypercore", 4) // of signers that name none
)

// Namespace returns namespace number n of a name.
func Namespace(name string, n byte) [32]byte {
	h := blake2b.Sum256([]byte(name))
	return blake2b.Sum256(append(h[:], n))
}

// Capability returns what a peer sends to show that it has a log's key: it
// holds for one connection, named by its 64-byte handshake hash, and one side.
func (k Key) Capability(initiator bool, handshakeHash []byte) [32]byte {
	ns := nsReplicateResp
	if initiator {
		ns = nsReplicateInit
	}
	return keyedHash(handshakeHash, ns[:], k[:])
}

// keyedHash returns BLAKE2b-256 of parts, keyed with key.
func keyedHash(key []byte, parts ...[]byte) (out [32]byte) {
	h, err := blake2b.New256(key)
	if err != nil {
		panic("hypercore: " + err.Error()) // keys are at most 64 bytes
	}
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	return out
}
