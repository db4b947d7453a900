package hyperdht

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/nacl/secretbox"
)

// A Handshake is one side of a Noise IK handshake: the first message goes from
// client to server, the second back, each with a payload inside that this
// package makes. The usual one is done here with a key pair; another may be
// held by somebody else, who keeps the keys, as clients of dht-relay do.
type Handshake interface {
	// Send returns the next message with the payload in it.
	Send(ctx context.Context, payload []byte) (message []byte, err error)
	// Receive returns the payload of the other side's message. After an error it
	// may be called again, with what came another way.
	Receive(ctx context.Context, message []byte) (payload []byte, err error)
	// Remote returns the other side's key: a client knows it before, a server
	// after the first message.
	Remote() noise.Key
	// HolepunchSecret is what both sides seal their messages with after the last
	// message of the handshake; see [HolepunchSecret].
	HolepunchSecret() [32]byte
}

// HolepunchSecret derives the secret of a Handshake from its hash.
func HolepunchSecret(handshakeHash [noise.HashSize]byte) (secret [32]byte) {
	h, err := blake2b.New256(handshakeHash[:])
	if err != nil {
		panic("hyperdht: " + err.Error()) // the hash is as long as a key may be
	}
	h.Write(nsHolepunch[:])
	h.Sum(secret[:0])
	return secret
}

// newHandshake begins a Noise IK handshake as this package does it. The
// initiator brings the key of the server, the other side a zero one.
func newHandshake(keys noise.KeyPair, remote noise.Key, random io.Reader) (*ownHandshake, error) {
	h, err := noise.New(noise.Config{
		Pattern: noise.IK, Initiator: remote != noise.Key{}, Static: keys, Remote: remote,
		Prologue: nsHandshake[:], Random: random,
	})
	return &ownHandshake{h}, err
}

// An ownHandshake is one with keys that are here.
type ownHandshake struct{ h *noise.Handshake }

func (o *ownHandshake) Send(_ context.Context, payload []byte) ([]byte, error) {
	return o.h.WriteMessage(nil, payload)
}

// Receive may be called again after an error, with another message.
func (o *ownHandshake) Receive(_ context.Context, message []byte) ([]byte, error) {
	h := *o.h
	payload, err := h.ReadMessage(message)
	if err == nil {
		o.h = &h
	}
	return payload, err
}

func (o *ownHandshake) Remote() noise.Key {
	k, _ := o.h.RemoteStatic()
	return k
}

func (o *ownHandshake) HolepunchSecret() [32]byte {
	s, err := o.h.Split()
	if err != nil {
		return [32]byte{}
	}
	return HolepunchSecret(s.Hash)
}

// sendPayload writes a payload into the next message of a handshake.
func sendPayload(ctx context.Context, h Handshake, p *noisePayload) ([]byte, error) {
	return h.Send(ctx, p.append(nil))
}

// receivePayload reads the next message of a handshake.
func receivePayload(ctx context.Context, h Handshake, message []byte) (noisePayload, error) {
	raw, err := h.Receive(ctx, message)
	if err != nil {
		return noisePayload{}, err
	}
	p, err := readNoisePayload(raw)
	if err != nil {
		return p, fmt.Errorf("read payload of handshake: %w", err)
	}
	return p, nil
}

// A sealer seals what the two sides of a handshake tell each other through
// relays, and makes tokens that prove addresses (lib/secure-payload.js).
type sealer struct {
	secret [32]byte
	local  [32]byte // what tokens are made from, never sent
	random io.Reader
}

func newSealer(secret [32]byte, random io.Reader) (*sealer, error) {
	s := &sealer{secret: secret, random: random}
	if _, err := io.ReadFull(random, s.local[:]); err != nil {
		return nil, fmt.Errorf("begin hole punching: %w", err)
	}
	return s, nil
}

func (s *sealer) seal(m *punchMsg) ([]byte, error) {
	var nonce [24]byte
	if _, err := io.ReadFull(s.random, nonce[:]); err != nil {
		return nil, fmt.Errorf("seal hole punching message: %w", err)
	}
	return secretbox.Seal(nonce[:], m.append(nil), &nonce, &s.secret), nil
}

var errSealed = errors.New("hole punching message is not authentic")

func (s *sealer) open(b []byte) (punchMsg, error) {
	if len(b) <= 24+secretbox.Overhead {
		return punchMsg{}, errSealed
	}
	plain, ok := secretbox.Open(nil, b[24:], (*[24]byte)(b[:24]), &s.secret)
	if !ok {
		return punchMsg{}, errSealed
	}
	return readPunch(plain)
}

// token is what the other side has to send back from an address to prove that
// it gets packets there.
func (s *sealer) token(a netip.AddrPort) *[32]byte {
	h, err := blake2b.New256(s.local[:])
	if err != nil {
		panic("hyperdht: " + err.Error()) // the key has 32 bytes
	}
	io.WriteString(h, a.Addr().String())
	var t [32]byte
	h.Sum(t[:0])
	return &t
}
