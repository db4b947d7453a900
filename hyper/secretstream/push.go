package secretstream

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
	//lint:ignore SA1019 the MAC of this construction is not that of the AEAD, see state.seal
	"golang.org/x/crypto/poly1305"
)

// Sizes of the construction.
const (
	// KeySize is the number of bytes of a key.
	KeySize = 32
	// HeaderSize is the number of bytes that a [Pull] needs before the first
	// message.
	HeaderSize = 24
	// Overhead is how much longer a sealed message is than what is in it.
	Overhead = 1 + macSize

	macSize   = 16
	blockSize = 64 // of the cipher; the tag is encrypted in one of its own
)

// A Tag travels with a message, encrypted. The npm packages send only
// TagMessage and ignore the others, except that TagRekey rekeys.
type Tag byte

// The tags of libsodium.
const (
	TagMessage Tag = 0
	TagPush    Tag = 1 // the end of a set of messages
	TagRekey   Tag = 2 // the sender forgets the key and goes on with another
	TagFinal   Tag = 3 // the end of the stream; rekeys, too
)

// Scratch around a message that is sealed or opened in place, see state.seal.
const (
	headroom = blockSize - 1 // before it
	tailroom = 15            // after its MAC
)

// A Push seals messages, each of which can only be opened after those before
// it: crypto_secretstream_xchacha20poly1305 of libsodium. It is for one
// goroutine.
type Push struct{ state }

// NewPush begins a stream and returns the header that the other side needs.
// The header is public, and its bytes come from random. With the same key and
// header nothing may be sealed ever again.
func NewPush(key [KeySize]byte, random io.Reader) (p *Push, header [HeaderSize]byte, err error) {
	if _, err := io.ReadFull(random, header[:]); err != nil {
		return nil, header, fmt.Errorf("begin secret stream: %w", err)
	}
	return &Push{newState(key, header)}, header, nil
}

// Seal appends plain, sealed with the tag, to dst: len(plain) + [Overhead]
// bytes. The two must not overlap. It allocates nothing if dst has room for
// 128 bytes and len(plain), where the AEAD of x/crypto has assembly, and saves
// a copy if dst has 63 bytes already.
func (p *Push) Seal(dst, plain []byte, tag Tag) []byte {
	at := len(dst)
	shift := max(headroom-at, 0)
	dst = slices.Grow(dst, shift+len(plain)+Overhead+tailroom)
	out := dst[:at+shift+len(plain)+Overhead]
	copy(out[at+shift+1:], plain)
	p.seal(out, at+shift, tag)
	if shift > 0 {
		copy(out[at:], out[at+shift:])
	}
	return out[:at+len(plain)+Overhead]
}

// A Pull opens what a [Push] sealed, in the same order. It is for one
// goroutine.
type Pull struct{ state }

// NewPull begins a stream with the header of the other side.
func NewPull(key [KeySize]byte, header [HeaderSize]byte) *Pull {
	return &Pull{newState(key, header)}
}

// Open appends to dst what is in the sealed message. It fails with [ErrAuth]
// if that is not what the other side sealed next; then nothing was appended
// and the Pull still waits for the real one. The two must not overlap, and
// sealed is not changed. It allocates nothing if dst has room for 128 bytes
// and len(sealed), where the AEAD of x/crypto has assembly.
func (p *Pull) Open(dst, sealed []byte) ([]byte, Tag, error) {
	if len(sealed) < Overhead {
		return dst, 0, ErrAuth
	}
	at := len(dst)
	dst = slices.Grow(dst, headroom+len(sealed)+tailroom)
	work := dst[at : at+headroom+len(sealed)]
	copy(work[headroom:], sealed)
	tag, err := p.open(work, headroom, len(sealed)-Overhead)
	if err != nil {
		return dst, 0, err
	}
	n := copy(work, work[headroom+1:headroom+1+len(sealed)-Overhead])
	return dst[:at+n], tag, nil
}

// state is what both sides of a stream have in common.
type state struct {
	key   [KeySize]byte
	nonce [chacha20.NonceSize]byte // a counter of four bytes, and eight that every MAC changes
	aead  cipher.AEAD              // of key
}

func newState(key [KeySize]byte, header [HeaderSize]byte) (s state) {
	sub, err := chacha20.HChaCha20(key[:], header[:16])
	if err != nil {
		panic("secretstream: " + err.Error()) // both lengths are right
	}
	copy(s.key[:], sub)
	copy(s.nonce[4:], header[16:])
	s.reset()
	return s
}

// reset begins to count with a new key.
func (s *state) reset() {
	aead, err := chacha20poly1305.New(s.key[:])
	if err != nil {
		panic("secretstream: " + err.Error()) // the length is right
	}
	s.aead = aead
	binary.LittleEndian.PutUint32(s.nonce[:], 1)
}

// step goes on to the next message.
func (s *state) step(mac []byte, tag Tag) {
	for i, b := range mac[:8] {
		s.nonce[4+i] ^= b
	}
	count := binary.LittleEndian.Uint32(s.nonce[:]) + 1
	binary.LittleEndian.PutUint32(s.nonce[:], count)
	if tag&TagRekey == 0 && count != 0 {
		return
	}
	var next [KeySize + 8]byte
	copy(next[:], s.key[:])
	copy(next[KeySize:], s.nonce[4:])
	c := s.cipher()
	c.XORKeyStream(next[:], next[:])
	copy(s.key[:], next[:])
	copy(s.nonce[4:], next[KeySize:])
	s.reset()
}

func (s *state) cipher() chacha20.Cipher {
	c, err := chacha20.NewUnauthenticatedCipher(s.key[:], s.nonce[:])
	if err != nil {
		panic("secretstream: " + err.Error()) // both lengths are right
	}
	return *c
}

// The cipher's stream for a message is used so: block 0 keys the MAC, block 1
// encrypts a block that has the tag in its first byte and is zero otherwise,
// the blocks from 2 on encrypt the message. Sent is the first byte of the
// encrypted block, the encrypted message, and the MAC over both, with the
// block whole.
//
// This is ChaCha20-Poly1305 of block and message, whose assembly is several
// times as fast as its parts are, but for one thing: what should pad the MAC's
// input to 16 bytes pads it with len & 15 zeros in libsodium. Only lengths of
// 0 and 8 (mod 16) have the MAC of the AEAD. For others it is made again.

// seal seals the message in buf[at+1:len(buf)-macSize], in place: all of
// buf[at:] is then what is sent. at is at least headroom, and buf has tailroom
// bytes of capacity more, which are overwritten. What is before at stays.
func (s *state) seal(buf []byte, at int, tag Tag) {
	n := len(buf) - at - Overhead
	start := at - headroom
	var before [headroom]byte
	copy(before[:], buf[start:])
	block := buf[start : at+1]
	clear(block)
	block[0] = byte(tag)
	s.aead.Seal(buf[start:start], s.nonce[:], buf[start:at+1+n], nil)
	mac := buf[at+1+n:]
	if n&7 != 0 {
		var key [32]byte
		c := s.cipher()
		c.XORKeyStream(key[:], key[:])
		sum := sum(buf[start:], blockSize+n, &key)
		copy(mac, sum[:])
	}
	buf[at] = block[0]
	copy(buf[start:], before[:])
	s.step(mac, tag)
}

// open opens the sealed message of n + Overhead bytes at buf[at:], in place:
// its plaintext is then in buf[at+1:at+1+n]. at is at least headroom, and what
// is before it is overwritten. There are tailroom bytes of capacity behind the
// message, which stay. After an error the message is garbage.
func (s *state) open(buf []byte, at, n int) (Tag, error) {
	var stream [2 * blockSize]byte
	c := s.cipher()
	c.XORKeyStream(stream[:], stream[:])
	key, block := [32]byte(stream[:]), stream[blockSize:]
	tag := Tag(block[0] ^ buf[at])
	block[0] = buf[at]
	start, end := at-headroom, at+Overhead+n
	copy(buf[start:], block)
	mac := [macSize]byte(buf[at+1+n:])
	if n&7 == 0 {
		if _, err := s.aead.Open(buf[start:start], s.nonce[:], buf[start:end], nil); err != nil {
			return 0, ErrAuth
		}
		s.step(mac[:], tag)
		return tag, nil
	}
	behind := [tailroom]byte(buf[end : end+tailroom])
	got := sum(buf[start:], blockSize+n, &key)
	copy(buf[end:end+tailroom], behind[:])
	if subtle.ConstantTimeCompare(got[:], mac[:]) == 0 {
		return 0, ErrAuth
	}
	// To encrypt once more is to decrypt. The MAC of that is of no use, and
	// lands where the real one was.
	s.aead.Seal(buf[start:start], s.nonce[:], buf[start:at+1+n], nil)
	s.step(mac[:], tag)
	return tag, nil
}

// sum is the MAC over the first n bytes of b, a block and a message, and what
// ends them: libsodium's odd padding, the length of the additional data, which
// there is none of, and n. It writes those behind, which takes up to
// macSize + tailroom bytes.
func sum(b []byte, n int, key *[32]byte) (mac [macSize]byte) {
	pad := n & 15
	b = b[: n+pad+16 : n+pad+16]
	clear(b[n : n+pad+8])
	binary.LittleEndian.PutUint64(b[n+pad+8:], uint64(n))
	poly1305.Sum(&mac, b, key)
	return mac
}
