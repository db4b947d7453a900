// Package noise is the handshake of the Hypercore stack: the Noise protocol
// with the patterns XX and IK over Ed25519 keys,
// Noise_XX_Ed25519_ChaChaPoly_BLAKE2b and its IK sibling.
//
// It is a port of the npm packages noise-handshake 3.1 and noise-curve-ed 2.1,
// which differ from the Noise specification (revision 34, noiseprotocol.org)
// in the curve alone: the static keys are those that sign logs, and a shared
// secret is a point of the Edwards curve. What they write this package reads,
// and the other way round; the golden files in testdata come from them. There
// are no other patterns, no pre-shared keys, and no transport: the session
// that a handshake ends in goes to hyper/secretstream.
//
// A [Handshake] is a value without clock or connection. Both sides take turns,
// the initiator first, until both are done:
//
//	h, err := noise.New(noise.Config{Pattern: noise.XX, Initiator: true, Static: keys})
//	m1, err := h.WriteMessage(nil, nil) // to the responder
//	_, err = h.ReadMessage(m2)          // from it
//	m3, err := h.WriteMessage(nil, nil)
//	session, err := h.Split()
package noise

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"filippo.io/edwards25519"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/chacha20poly1305"
)

// MaxMessage is the most bytes a handshake message may have (Noise §3).
const MaxMessage = 65535

// HashSize is the number of bytes of a handshake hash.
const HashSize = blake2b.Size

// The kinds of error a [Handshake] reports. They come wrapped with the message
// it was about: test with [errors.Is].
var (
	// ErrOrder means that the call came when it was the other side's turn, or
	// after the last message, or before it for Split. The handshake goes on.
	ErrOrder = errors.New("out of order")
	// ErrTooLarge means that a message is or would be over [MaxMessage].
	ErrTooLarge = errors.New("message too large")
	// ErrShort means that a message ended inside of a key or a tag.
	ErrShort = errors.New("message too short")
	// ErrKey means that a key from the other side is none: it is not a point
	// of prime order in its one encoding.
	ErrKey = errors.New("invalid public key")
	// ErrAuth means that a message was not made by the holder of the keys it
	// claims, for us, in this handshake, or that it was changed.
	ErrAuth = errors.New("message authentication failed")
	// ErrFailed means that an earlier call failed and this handshake is over.
	ErrFailed = errors.New("handshake failed before")
)

// A Pattern says which keys are sent when.
type Pattern uint8

const (
	// XX tells each side the other's static key, and hides both from others:
	// the initiator's best. Three messages.
	XX Pattern = iota
	// IK is for an initiator that knows the responder's static key: it proves
	// its own in the first message. Two messages.
	IK
)

// String returns the name of the pattern.
func (p Pattern) String() string {
	if int(p) >= len(patterns) {
		return fmt.Sprintf("Pattern(%d)", uint8(p))
	}
	return patterns[p].name
}

// A token is a step in making or reading a message (Noise §7.1). The letters
// of a DH token name the initiator's key first.
type token uint8

const (
	tokenE token = iota
	tokenS
	tokenEE
	tokenES
	tokenSE
	tokenSS
)

var patterns = []struct {
	name        string
	known       bool // the initiator has the responder's static key before
	initialHash [HashSize]byte
	messages    [][]token
}{
	XX: {"XX", false, protocolName("XX"), [][]token{
		{tokenE},
		{tokenE, tokenEE, tokenS, tokenES},
		{tokenS, tokenSE},
	}},
	IK: {"IK", true, protocolName("IK"), [][]token{
		{tokenE, tokenES, tokenS, tokenSS},
		{tokenE, tokenEE, tokenSE},
	}},
}

// protocolName is the name of the protocol, which is shorter than a hash and
// so stands for its own (Noise §5.2, InitializeSymmetric).
func protocolName(pattern string) (h [HashSize]byte) {
	copy(h[:], "Noise_"+pattern+"_Ed25519_ChaChaPoly_BLAKE2b")
	return h
}

// Config is what a side brings to a handshake.
type Config struct {
	// Pattern is XX if it isn't set.
	Pattern Pattern
	// Initiator is true on the side that writes the first message. Exactly one
	// side must be.
	Initiator bool
	// Static is the key pair this side is known by.
	Static KeyPair
	// Remote is the responder's static key, for an initiator of IK only.
	Remote Key
	// Prologue is data that both sides must have the same, or the handshake
	// fails. It is not sent. It is read by New and not kept.
	Prologue []byte
	// Random is where the ephemeral key comes from: crypto/rand if it is nil.
	Random io.Reader
}

// A Session is what a handshake ends in. Both sides have the same Hash, and
// the Tx of one is the Rx of the other.
type Session struct {
	// Initiator is whether this side wrote the first message.
	Initiator bool
	// Local and Remote are the static keys, which both sides have proven.
	Local, Remote Key
	// Tx and Rx are the keys of what this side sends and receives.
	Tx, Rx [32]byte
	// Hash is unique to this handshake. What is bound to it cannot be used in
	// another (Noise §11.2).
	Hash [HashSize]byte
}

// String names the peers and keeps the keys to itself.
func (s Session) String() string {
	return fmt.Sprintf("session of %s with %s [keys redacted]", s.Local, s.Remote)
}

// GoString keeps %#v from printing the keys.
func (s Session) GoString() string { return "noise.Session(" + s.String() + ")" }

// A Handshake is one side of a handshake under way. It is for one goroutine.
//
// An error other than [ErrOrder] ends it: it forgets its keys and answers
// every later call with [ErrFailed]. There is no trying a message again.
type Handshake struct {
	pattern   Pattern
	initiator bool
	random    io.Reader

	static, ephemeral         KeyPair
	remoteStatic, remoteEphem Key
	hasRemote                 bool                // remoteStatic is known and, if it was read, authentic
	staticPoint, ephemPoint   *edwards25519.Point // of the remote keys; nil until they are checked

	next   int // the message that comes next
	state  symmetric
	failed error
}

// New begins a handshake. It fails if a key is missing.
func New(c Config) (*Handshake, error) {
	if int(c.Pattern) >= len(patterns) {
		return nil, fmt.Errorf("begin handshake: no pattern %v", c.Pattern)
	}
	if !c.Static.CanProve() {
		return nil, fmt.Errorf("begin handshake: %w", errNoSecret)
	}
	h := &Handshake{pattern: c.Pattern, initiator: c.Initiator, random: c.Random, static: c.Static}
	if h.random == nil {
		h.random = rand.Reader
	}
	p := &patterns[c.Pattern]
	h.state.hash, h.state.chain = p.initialHash, p.initialHash
	h.state.mixHash(c.Prologue)
	switch {
	case p.known && c.Initiator:
		if c.Remote == (Key{}) {
			return nil, fmt.Errorf("begin handshake: pattern %v needs the remote key", c.Pattern)
		}
		h.remoteStatic, h.hasRemote = c.Remote, true
		h.state.mixHash(c.Remote[:])
	case p.known:
		h.state.mixHash(c.Static.Public[:])
	}
	return h, nil
}

// Done reports whether all messages were written and read.
func (h *Handshake) Done() bool { return h.failed == nil && h.next == len(h.messages()) }

// MyTurn reports whether the next call is to be WriteMessage. If it is not and
// the handshake is neither done nor failed, it is to be ReadMessage.
func (h *Handshake) MyTurn() bool {
	return h.failed == nil && !h.Done() && (h.next%2 == 0) == h.initiator
}

// RemoteStatic returns the other side's static key once it is known. What the
// other side wrote up to then proves that it has the secret half; only the end
// of the handshake proves that it is not a recording.
func (h *Handshake) RemoteStatic() (Key, bool) {
	return h.remoteStatic, h.hasRemote && h.failed == nil
}

// WriteMessage appends the next message to dst and returns it. The payload may
// be empty. In the first message of XX everyone can read it, in the first of
// IK everyone can send it again.
func (h *Handshake) WriteMessage(dst, payload []byte) ([]byte, error) {
	if err := h.turn(true); err != nil {
		return dst, fmt.Errorf("write handshake message %d: %w", h.next+1, err)
	}
	out, err := h.write(dst, payload)
	if err != nil {
		return dst, fmt.Errorf("write handshake message %d: %w", h.next+1, h.fail(err))
	}
	h.advance()
	return out, nil
}

// ReadMessage reads the next message and returns its payload, which is not
// part of msg. It does not change msg.
func (h *Handshake) ReadMessage(msg []byte) (payload []byte, err error) {
	if err := h.turn(false); err != nil {
		return nil, fmt.Errorf("read handshake message %d: %w", h.next+1, err)
	}
	if payload, err = h.read(msg); err != nil {
		return nil, fmt.Errorf("read handshake message %d: %w", h.next+1, h.fail(err))
	}
	h.advance()
	return payload, nil
}

// Split returns the keys that the handshake agreed on. It may be called again.
func (h *Handshake) Split() (Session, error) {
	if h.failed != nil {
		return Session{}, fmt.Errorf("split: %w: %w", ErrFailed, h.failed)
	}
	if !h.Done() {
		return Session{}, fmt.Errorf("split: %w", ErrOrder)
	}
	s := Session{Initiator: h.initiator, Local: h.static.Public, Remote: h.remoteStatic, Hash: h.state.hash}
	first, second := h.state.derive(nil)
	s.Tx, s.Rx = [32]byte(first[:32]), [32]byte(second[:32])
	if !h.initiator {
		s.Tx, s.Rx = s.Rx, s.Tx
	}
	return s, nil
}

func (h *Handshake) messages() [][]token { return patterns[h.pattern].messages }

// turn checks that the next message is ours to write, or to read.
func (h *Handshake) turn(write bool) error {
	if h.failed != nil {
		return fmt.Errorf("%w: %w", ErrFailed, h.failed)
	}
	if h.Done() || h.MyTurn() != write {
		return ErrOrder
	}
	return nil
}

// advance goes to the next message. After the last, secrets are of no more use.
func (h *Handshake) advance() {
	h.next++
	if h.Done() {
		h.static, h.ephemeral = KeyPair{Public: h.static.Public}, KeyPair{}
		h.staticPoint, h.ephemPoint = nil, nil
	}
}

// fail ends the handshake and forgets what was secret.
func (h *Handshake) fail(err error) error {
	h.failed = err
	h.state = symmetric{}
	h.static, h.ephemeral = KeyPair{}, KeyPair{}
	return err
}

func (h *Handshake) write(dst, payload []byte) ([]byte, error) {
	start := len(dst)
	for _, tok := range h.messages()[h.next] {
		var err error
		switch tok {
		case tokenE:
			if h.ephemeral, err = GenerateKeyPair(h.random); err != nil {
				return nil, err
			}
			h.state.mixHash(h.ephemeral.Public[:])
			dst = append(dst, h.ephemeral.Public[:]...)
		case tokenS:
			dst = h.state.seal(dst, h.static.Public[:])
		default:
			err = h.mixDH(tok)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(dst)-start+len(payload)+h.state.overhead() > MaxMessage {
		return nil, ErrTooLarge
	}
	return h.state.seal(dst, payload), nil
}

func (h *Handshake) read(msg []byte) ([]byte, error) {
	if len(msg) > MaxMessage {
		return nil, ErrTooLarge
	}
	for _, tok := range h.messages()[h.next] {
		switch tok {
		case tokenE:
			if len(msg) < len(h.remoteEphem) {
				return nil, ErrShort
			}
			h.remoteEphem, h.ephemPoint, msg = Key(msg[:32]), nil, msg[32:]
			h.state.mixHash(h.remoteEphem[:])
		case tokenS:
			size := len(h.remoteStatic) + h.state.overhead()
			if len(msg) < size {
				return nil, ErrShort
			}
			key, err := h.state.open(nil, msg[:size])
			if err != nil {
				return nil, err
			}
			h.remoteStatic, h.staticPoint, h.hasRemote, msg = Key(key), nil, true, msg[size:]
		default:
			if err := h.mixDH(tok); err != nil {
				return nil, err
			}
		}
	}
	return h.state.open(nil, msg)
}

// mixDH adds the secret that a key of ours and one of theirs share.
func (h *Handshake) mixDH(tok token) error {
	local, remote, checked := h.ephemeral, h.remoteEphem, &h.ephemPoint
	if tok == tokenSS || tok == tokenSE && h.initiator || tok == tokenES && !h.initiator {
		local = h.static
	}
	if tok == tokenSS || tok == tokenES && h.initiator || tok == tokenSE && !h.initiator {
		remote, checked = h.remoteStatic, &h.staticPoint
	}
	if *checked == nil {
		p, err := point(remote)
		if err != nil {
			return err
		}
		*checked = p
	}
	secret := multiply(local, *checked)
	var key []byte
	h.state.chain, key = h.state.derive(secret[:])
	return h.state.setKey(key)
}

// symmetric is the part of the state that hashes and encrypts (Noise §5.2).
type symmetric struct {
	hash, chain [HashSize]byte
	aead        cipher.AEAD // nil until there is a key
	nonce       uint64
}

// overhead is how much longer the next ciphertext is than its plaintext.
func (s *symmetric) overhead() int {
	if s.aead == nil {
		return 0
	}
	return s.aead.Overhead()
}

func (s *symmetric) mixHash(data []byte) {
	h := newHash()
	h.Write(s.hash[:])
	h.Write(data)
	h.Sum(s.hash[:0])
}

// derive returns the first two outputs of HKDF over the chaining key.
func (s *symmetric) derive(input []byte) (first [HashSize]byte, second []byte) {
	out, err := hkdf.Key(newHash, input, s.chain[:], "", 2*HashSize)
	if err != nil {
		panic("noise: " + err.Error()) // the length is far below HKDF's limit
	}
	return [HashSize]byte(out), out[HashSize:]
}

// setKey takes the first 32 bytes of a derived output as the cipher's key.
func (s *symmetric) setKey(key []byte) (err error) {
	s.nonce = 0
	s.aead, err = chacha20poly1305.New(key[:chacha20poly1305.KeySize])
	return err
}

// seal appends the ciphertext of plain, or plain itself before there is a key.
func (s *symmetric) seal(dst, plain []byte) []byte {
	start := len(dst)
	if s.aead == nil {
		dst = append(dst, plain...)
	} else {
		dst = s.aead.Seal(dst, s.nextNonce(), plain, s.hash[:])
	}
	s.mixHash(dst[start:])
	return dst
}

// open appends the plaintext of sealed.
func (s *symmetric) open(dst, sealed []byte) ([]byte, error) {
	if s.aead == nil {
		dst = append(dst, sealed...)
	} else {
		if len(sealed) < s.aead.Overhead() {
			return nil, ErrShort
		}
		var err error
		if dst, err = s.aead.Open(dst, s.nextNonce(), sealed, s.hash[:]); err != nil {
			return nil, ErrAuth
		}
	}
	s.mixHash(sealed)
	return dst, nil
}

// nextNonce counts up. A key is used twice at most.
func (s *symmetric) nextNonce() []byte {
	nonce := make([]byte, chacha20poly1305.NonceSize)
	binary.LittleEndian.PutUint64(nonce[4:], s.nonce)
	s.nonce++
	return nonce
}

func newHash() hash.Hash {
	h, err := blake2b.New512(nil)
	if err != nil {
		panic("noise: " + err.Error()) // there is no key that could be too long
	}
	return h
}
