// Package identity says who belongs to a cloud and who may do what in it: the
// owner, the devices it or they admitted, which of them were revoked, and rights
// handed to others. All of it is signed values: they may come from anywhere, in
// any order and more than once, and mean the same to everybody who has them.
//
// A cloud has one owner, a [Seed] that people keep as 24 words (cloud/words). The
// owner's public key names the cloud. Each device has a random key pair of its
// own and a [Certificate] for it, by the owner or by a device that may admit
// others. A [Revocation] takes it back. A [Roster] is fed with both and says who
// is in:
//
//	owner := identity.NewOwner(seed)
//	cert, err := identity.Certificate{
//		Cloud: owner.Cloud(), Device: key, Name: "attic", Issued: now, Admits: true,
//	}.Sign(owner.KeyPair())
//	roster := identity.NewRoster(owner.Cloud())
//	err = roster.Admit(cert)
//	ok := roster.Has(key)
//
// A [Grant] is for those who are not of the cloud: a chain of signed capabilities
// from a device to whoever holds the last key, each no wider than the one before.
//
// The package stores nothing, opens nothing, and knows no time but what it is
// given. The bytes are those of docs/formats/identity.md.
package identity

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/blake2b"
)

// A Key is the public key of an owner, a device, a person or a link. It is the
// one by which a device is known on connections, too.
type Key = noise.Key

// A CloudID names a cloud. It is the public key of its owner.
type CloudID [32]byte

// String returns the id in z-base-32.
func (id CloudID) String() string { return Key(id).String() }

// The kinds of error of this package. They come wrapped: test with
// [errors.Is].
var (
	// ErrInvalid means that the bytes or fields are not such a value, or not in
	// the one form that it has.
	ErrInvalid = errors.New("invalid statement")
	// ErrSignature means that it was not signed by whom it names.
	ErrSignature = errors.New("bad signature")
	// ErrCloud means that it is about another cloud.
	ErrCloud = errors.New("of another cloud")
	// ErrDenied means that the right is not given by what was shown.
	ErrDenied = errors.New("not allowed")
	// ErrExpired means that the right is over, or has not begun.
	ErrExpired = errors.New("not valid at this time")
	// ErrRevoked means that the right or the device was taken back.
	ErrRevoked = errors.New("revoked")
	// ErrReplayed means that a challenge was answered before, is too old, or was
	// never given.
	ErrReplayed = errors.New("challenge not open")
	// ErrFull means that there is no room for more.
	ErrFull = errors.New("too many statements")
)

// A Seed is 32 secret bytes from which keys are made. It prints as [redacted],
// and is not written as text or JSON.
type Seed [32]byte

// NewSeed makes a seed from random bytes.
func NewSeed(random io.Reader) (s Seed, err error) {
	if _, err := io.ReadFull(random, s[:]); err != nil {
		return Seed{}, fmt.Errorf("make a seed: %w", err)
	}
	return s, nil
}

// Derive returns the seed for one purpose. It tells nothing of s, nor of what is
// derived by other names: BLAKE2b-256 keyed with s, of "bevy/derive/1", a zero
// byte and the name.
func (s Seed) Derive(name string) Seed {
	h, err := blake2b.New256(s[:])
	if err != nil {
		panic("identity: " + err.Error()) // the key is 32 bytes
	}
	io.WriteString(h, "bevy/derive/1\x00"+name)
	return Seed(h.Sum(nil))
}

// KeyPair returns the Ed25519 key pair of the seed.
func (s Seed) KeyPair() noise.KeyPair { return noise.NewKeyPair(s) }

// Format keeps the seed out of what is printed, whatever the verb.
func (Seed) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

// LogValue does the same for handlers of slog that look into values.
func (Seed) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalText fails, so that no seed gets into a file by way of what holds it.
func (Seed) MarshalText() ([]byte, error) {
	return nil, errors.New("a seed is not written as text")
}

// An Owner is the last word in a cloud. It prints as the cloud's id.
type Owner struct {
	seed Seed
	keys noise.KeyPair
}

// NewOwner returns the owner that begins with a seed.
func NewOwner(seed Seed) Owner { return Owner{seed, seed.Derive("owner").KeyPair()} }

// Cloud returns the id of the owner's cloud.
func (o Owner) Cloud() CloudID { return CloudID(o.keys.Public) }

// KeyPair returns what the owner signs with.
func (o Owner) KeyPair() noise.KeyPair { return o.keys }

// Derive returns another secret of the owner, see [Seed.Derive].
func (o Owner) Derive(name string) Seed { return o.seed.Derive(name) }

// Format keeps the secrets out of what is printed.
func (o Owner) Format(f fmt.State, _ rune) {
	io.WriteString(f, "owner of "+o.Cloud().String()+" [secret redacted]")
}

// LogValue does the same for handlers of slog that look into values.
func (o Owner) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// MarshalText fails, as that of [Seed].
func (o Owner) MarshalText() ([]byte, error) { return o.seed.MarshalText() }
