package pair

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha512"
	"fmt"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/chacha20poly1305"
)

// version is the first byte of the first message.
const version = 1

// The numbers of messages, in the order they come in.
const (
	messageHello     = iota // joiner: version and share
	messageShare            // inviter: share
	messageRequest          // joiner: that it knows the words, and who it is
	messageAdmission        // inviter: that it knows them too, and what the joiner needs
	messageDone             // joiner: that it has kept that
	messageRefused          // inviter, at any time: a reason
	messages
)

const (
	tagLen = 32
	// MaxPayload is the most bytes of [Admission.Payload].
	MaxPayload     = 256 << 10
	maxCertificate = 512

	maxRequest   = 1 << 10
	maxAdmission = MaxPayload + 16<<10
)

// purposes of keys that both sides make of the one they agreed on.
const (
	keyRequestTag    = "request tag"
	keyRequestSeal   = "request seal"
	keyAdmissionTag  = "admission tag"
	keyAdmissionSeal = "admission seal"
	keyDone          = "done"
	keyDevice        = "device"
)

// A Request is a device that wants to join.
type Request struct {
	// Device is the key it will be known by. It has shown that it has the secret
	// half.
	Device identity.Key
	// Name is what it would like to be called.
	Name string
}

// An Admission is what a device that joins is given.
type Admission struct {
	// Chain leads from the cloud's owner to the device. The last certificate is
	// the device's own.
	Chain []identity.Certificate
	// Payload is whatever else it needs.
	Payload []byte
}

// keys are made of the key that both agreed on.
type keys []byte

func (k keys) make(purpose string) []byte {
	out, err := hkdf.Expand(sha512.New, k, "bevy/pair/1 "+purpose, 32)
	if err != nil {
		panic("pair: " + err.Error()) // 32 bytes are not too many
	}
	return out
}

func (k keys) aead(purpose string) cipher.AEAD {
	aead, err := chacha20poly1305.New(k.make(purpose))
	if err != nil {
		panic("pair: " + err.Error()) // the key is 32 bytes
	}
	return aead
}

// tag shows that one has the key, and said message.
func (k keys) tag(purpose string, message []byte) []byte {
	h := hmac.New(sha512.New, k.make(purpose))
	h.Write(message)
	return h.Sum(nil)[:tagLen]
}

// seal returns a tag and the sealed message. It is used once for each purpose, as
// the nonce is zero.
func (k keys) seal(tag, seal string, plain []byte) []byte {
	sealed := k.aead(seal).Seal(nil, make([]byte, chacha20poly1305.NonceSize), plain, nil)
	return append(k.tag(tag, sealed), sealed...)
}

// open fails with ErrWords if the tag is not of this key. The tag comes first
// because the seal alone does not commit to one key.
func (k keys) open(tag, seal string, b []byte, most int) ([]byte, error) {
	if len(b) < tagLen || len(b) > most {
		return nil, fmt.Errorf("%w: a message of %d bytes", ErrProtocol, len(b))
	}
	if !hmac.Equal(k.tag(tag, b[tagLen:]), b[:tagLen]) {
		return nil, ErrWords
	}
	plain, err := k.aead(seal).Open(nil, make([]byte, chacha20poly1305.NonceSize), b[tagLen:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return plain, nil
}

func appendHello(share [shareLen]byte) []byte {
	return append([]byte{version}, share[:]...)
}

func readHello(b []byte) ([]byte, error) {
	if len(b) != 1+shareLen || b[0] != version {
		return nil, fmt.Errorf("%w: hello of %d bytes", ErrProtocol, len(b))
	}
	return b[1:], nil
}

// deviceMessage is what a device signs to show that it has its secret half.
func deviceMessage(k keys) []byte {
	return append([]byte("bevy/pair/1/device\x00"), k.make(keyDevice)...)
}

func appendRequest(k keys, device noise.KeyPair, name string) []byte {
	b := append(device.Public[:], device.Sign(deviceMessage(k))...)
	return compact.AppendString(b, name)
}

func readRequest(k keys, b []byte) (r Request, err error) {
	d := compact.NewDecoder(b)
	r.Device = d.Fixed32()
	signature := d.Fixed(64)
	r.Name = d.String(identity.MaxName)
	if err := d.Finish(); err != nil {
		return Request{}, fmt.Errorf("%w: request: %w", ErrProtocol, err)
	}
	if !ed25519.Verify(r.Device[:], deviceMessage(k), signature) {
		return Request{}, fmt.Errorf("%w: request: bad signature of %s", ErrProtocol, r.Device)
	}
	return r, nil
}

func (a Admission) append(b []byte) []byte {
	b = compact.AppendArray(b, a.Chain, func(b []byte, c identity.Certificate) []byte {
		return compact.AppendBuffer(b, c.Encode())
	})
	return compact.AppendBuffer(b, a.Payload)
}

// readAdmission checks that the chain leads to the device.
func readAdmission(device identity.Key, b []byte) (a Admission, err error) {
	d := compact.NewDecoder(b)
	parts := compact.DecodeArray(&d, identity.MaxDepth, func(d *compact.Decoder) []byte { return d.Buffer(maxCertificate) })
	a.Payload = d.Buffer(MaxPayload)
	if err := d.Finish(); err != nil {
		return Admission{}, fmt.Errorf("%w: admission: %w", ErrProtocol, err)
	}
	for _, part := range parts {
		c, err := identity.DecodeCertificate(part)
		if err != nil {
			return Admission{}, fmt.Errorf("%w: admission: %w", ErrProtocol, err)
		}
		a.Chain = append(a.Chain, c)
	}
	if err := a.check(device); err != nil {
		return Admission{}, fmt.Errorf("%w: admission: %w", ErrProtocol, err)
	}
	return a, nil
}

// check tells why an admission does not admit a device.
func (a Admission) check(device identity.Key) error {
	if len(a.Chain) == 0 || len(a.Chain) > identity.MaxDepth || len(a.Payload) > MaxPayload {
		return fmt.Errorf("%d certificates and %d bytes", len(a.Chain), len(a.Payload))
	}
	roster := identity.NewRoster(a.Cloud())
	for _, c := range a.Chain {
		if err := roster.Admit(c); err != nil {
			return err
		}
	}
	if !roster.Has(device) || a.Chain[len(a.Chain)-1].Device != device {
		return fmt.Errorf("the certificates do not lead to %s", device)
	}
	return nil
}

// Cloud returns the cloud that the device joins.
func (a Admission) Cloud() identity.CloudID { return a.Chain[len(a.Chain)-1].Cloud }
