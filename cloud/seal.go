package cloud

import (
	"crypto/sha512"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/edwards25519"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/nacl/box"
)

// A sealedKey is a key of the cloud that one device can open.
type sealedKey struct {
	epoch  string
	device hypercore.Key // or the owner's
	by     hypercore.Key // the device that gave it out
	box    []byte
	time   time.Time // when it was given out
}

// readSealed reads an entry of the control tree.
func readSealed(name string, value []byte) (k sealedKey, err error) {
	epoch, device, _ := strings.Cut(name, "/")
	k.device, err = hypercore.ParseKey(device)
	if err != nil || epoch == "" || len(epoch) > maxEpoch {
		return k, fmt.Errorf("%w: key %q", errRecord, name)
	}
	k.epoch, k.box = epoch, value
	return k, nil
}

// seal encrypts a message for who has the secret half of an Ed25519 key. The key
// is used as one of X25519, as in libsodium's crypto_box_seal with
// crypto_sign_ed25519_pk_to_curve25519.
func seal(message []byte, to hypercore.Key, random io.Reader) ([]byte, error) {
	point, err := new(edwards25519.Point).SetBytes(to[:])
	if err != nil {
		return nil, fmt.Errorf("seal for %s: %w", to, err)
	}
	public := [32]byte(point.BytesMontgomery())
	return box.SealAnonymous(nil, message, &public, random)
}

// unseal opens what was sealed for the key pair of a seed.
func unseal(sealed []byte, seed [32]byte) ([]byte, bool) {
	h := sha512.Sum512(seed[:])
	secret := [32]byte(h[:32]) // clamped where it is used
	public, err := curve25519.X25519(secret[:], curve25519.Basepoint)
	if err != nil {
		return nil, false
	}
	return box.OpenAnonymous(nil, sealed, (*[32]byte)(public), &secret)
}
