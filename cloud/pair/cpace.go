package pair

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"io"

	"github.com/gtank/ristretto255"
)

// CPace, a key exchange from a password (draft-irtf-cfrg-cpace, suite
// CPACE-RISTR255-SHA512, one side first). Two that know the password get a key;
// who does not can try one password each time it takes part, and learns nothing
// from what others send.

const (
	dsi      = "CPaceRistretto255"
	dsiKey   = "CPaceRistretto255_ISK"
	blockLen = 128 // of SHA-512
	shareLen = 32
)

// errShare means that a share is no point of the group, or the one that makes
// every key the same.
var errShare = errors.New("bad share")

// An exchange is one side of a key exchange. It is used once.
type exchange struct {
	sid    []byte
	secret *ristretto255.Scalar
	share  [shareLen]byte // to be sent
}

// newExchange begins with the password, what both know of the channel (the same
// bytes on both sides), and what names this exchange alone.
func newExchange(password, channel, sid []byte, random io.Reader) (*exchange, error) {
	var b [64]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("make a share: %w", err)
	}
	return exchangeOf(password, channel, sid, ristretto255.NewScalar().FromUniformBytes(b[:])), nil
}

func exchangeOf(password, channel, sid []byte, secret *ristretto255.Scalar) *exchange {
	e := &exchange{sid: sid, secret: secret}
	share := ristretto255.NewElement().ScalarMult(secret, generator(password, channel, sid))
	copy(e.share[:], share.Encode(nil))
	return e
}

// generator is the point that both multiply (draft, calculate_generator).
func generator(password, channel, sid []byte) *ristretto255.Element {
	pad := blockLen - 1 - len(lv(password)) - len(lv([]byte(dsi)))
	h := sha512.Sum512(lv([]byte(dsi), password, make([]byte, max(0, pad)), channel, sid))
	return ristretto255.NewElement().FromUniformBytes(h[:])
}

// point multiplies the other side's share (draft, scalar_mult_vfy).
func (e *exchange) point(share []byte) ([]byte, error) {
	p := ristretto255.NewElement()
	if err := p.Decode(share); err != nil {
		return nil, errShare
	}
	p.ScalarMult(e.secret, p)
	if p.Equal(ristretto255.NewElement()) == 1 {
		return nil, errShare
	}
	return p.Encode(nil), nil
}

// key returns the key, of who was first or not, and what each said besides.
func (e *exchange) key(first bool, share, firstSaid, secondSaid []byte) ([]byte, error) {
	k, err := e.point(share)
	if err != nil {
		return nil, err
	}
	a, b := e.share[:], share
	if !first {
		a, b = b, a
	}
	h := sha512.New()
	h.Write(lv([]byte(dsiKey), e.sid, k))
	h.Write(lv(a, firstSaid))
	h.Write(lv(b, secondSaid))
	return h.Sum(nil), nil
}

// lv joins parts, each with its length before it (draft, lv_cat).
func lv(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		n := len(p)
		for ; n >= 0x80; n >>= 7 {
			out = append(out, byte(n)|0x80)
		}
		out = append(append(out, byte(n)), p...)
	}
	return out
}
