package noise

import (
	"crypto/ed25519"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"

	"filippo.io/edwards25519"
	"github.com/cloudbevy/bevy/hyper/compact"
)

// A Key is the public half of a key pair, which names a peer. It is an
// Ed25519 key, a point on the curve in its compressed form.
type Key [32]byte

// ParseKey reads a key as people write it: z-base-32, hex or a pear:// link.
func ParseKey(s string) (Key, error) {
	k, err := compact.ParseKey(s)
	return Key(k), err
}

// String returns the key in z-base-32.
func (k Key) String() string { return compact.FormatKey(k) }

// A KeyPair is what a peer is known by and what it proves that with. Its zero
// value has no secret half and can't shake hands.
type KeyPair struct {
	// Public is the half that everyone may know.
	Public Key

	secret *edwards25519.Scalar
	prefix *[32]byte // what nonces of signatures are made from (RFC 8032 §5.1.6)
}

// NewKeyPair returns the key pair of a seed. It is the pair that Ed25519 signs
// with for that seed, so one seed can both sign logs and name a peer.
func NewKeyPair(seed [32]byte) KeyPair {
	public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	h := sha512.Sum512(seed[:])
	secret, err := new(edwards25519.Scalar).SetBytesWithClamping(h[:32])
	if err != nil {
		panic("noise: " + err.Error()) // 32 bytes are always a scalar
	}
	return KeyPair{Key(public), secret, (*[32]byte)(h[32:])}
}

// GenerateKeyPair makes a key pair from 32 random bytes.
func GenerateKeyPair(random io.Reader) (KeyPair, error) {
	var seed [32]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return KeyPair{}, fmt.Errorf("generate key pair: %w", err)
	}
	return NewKeyPair(seed), nil
}

// CanProve reports whether the pair has its secret half.
func (k KeyPair) CanProve() bool { return k.secret != nil }

// Sign signs a message with Ed25519, as crypto/ed25519 does for the seed. It
// panics if the pair has no secret half.
func (k KeyPair) Sign(message []byte) []byte {
	r := hashScalar(k.prefix[:], message)
	sig := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	hash := hashScalar(sig, k.Public[:], message)
	return append(sig, hash.MultiplyAdd(hash, k.secret, r).Bytes()...)
}

// hashScalar is SHA-512 of parts as a scalar.
func hashScalar(parts ...[]byte) *edwards25519.Scalar {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	s, err := new(edwards25519.Scalar).SetUniformBytes(h.Sum(nil))
	if err != nil {
		panic("noise: " + err.Error()) // 64 bytes are always a scalar
	}
	return s
}

// String names the pair by its public half and keeps the secret to itself.
func (k KeyPair) String() string {
	if k.secret == nil {
		return k.Public.String()
	}
	return k.Public.String() + " [secret redacted]"
}

// GoString keeps %#v from printing the secret.
func (k KeyPair) GoString() string { return "noise.KeyPair(" + k.String() + ")" }

// dh multiplies the point of a public key by the secret of a pair.
func dh(local KeyPair, remote Key) ([32]byte, error) {
	p, err := point(remote)
	if err != nil {
		return [32]byte{}, err
	}
	return multiply(local, p), nil
}

// multiply is dh for a key that was checked.
func multiply(local KeyPair, p *edwards25519.Point) [32]byte {
	return [32]byte(new(edwards25519.Point).ScalarMult(local.secret, p).Bytes())
}

// point returns the point of a public key, which takes as long as dh's
// multiplication. Points that libsodium refuses are refused here: those with
// another encoding, those off the curve, and those outside of the subgroup of
// prime order, with which a peer could make the result known or learn bits of
// the secret (crypto_scalarmult_ed25519_noclamp).
func point(k Key) (*edwards25519.Point, error) {
	p, err := new(edwards25519.Point).SetBytes(k[:])
	if err != nil {
		return nil, fmt.Errorf("%w: not on the curve", ErrKey)
	}
	if Key(p.Bytes()) != k {
		return nil, fmt.Errorf("%w: not in canonical form", ErrKey)
	}
	if !inSubgroup(p) {
		return nil, fmt.Errorf("%w: not of prime order", ErrKey)
	}
	return p, nil
}

var (
	zero     = edwards25519.NewScalar()
	one      = mustScalar(1)
	minusOne = new(edwards25519.Scalar).Negate(one) // the order of the subgroup, less one
	identity = edwards25519.NewIdentityPoint()
)

func mustScalar(n byte) *edwards25519.Scalar {
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{n}, make([]byte, 31)...))
	if err != nil {
		panic("noise: " + err.Error())
	}
	return s
}

// inSubgroup reports whether p is of prime order: p times the order, which is
// p times the order less one, plus p, is the identity, and p itself is not.
// p is public, so the time this takes tells nothing.
func inSubgroup(p *edwards25519.Point) bool {
	q := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusOne, p, zero)
	return q.Add(q, p).Equal(identity) == 1 && p.Equal(identity) == 0
}

var errNoSecret = errors.New("the key pair has no secret half")
