package compact

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// alphabet is that of z-base-32, human-oriented base 32 without padding.
const alphabet = "ybndrfg8ejkmcpqxot1uwisza345h769"

// values maps a letter of the alphabet to its five bits, others to 0xff.
var values = func() (v [256]byte) {
	for i := range v {
		v[i] = 0xff
	}
	for i := range len(alphabet) {
		v[alphabet[i]] = byte(i)
	}
	return v
}()

// The lengths of a key as text, and the scheme that may stand before it.
const (
	z32KeyLen = 52
	hexKeyLen = 64
	scheme    = "pear://"
)

// EncodeZ32 returns b in z-base-32: 52 letters for a key of 32 bytes.
func EncodeZ32(b []byte) string {
	s := make([]byte, 0, (len(b)*8+4)/5)
	var acc, n uint
	for _, c := range b {
		acc, n = acc<<8|uint(c), n+8
		for n >= 5 {
			n -= 5
			s = append(s, alphabet[acc>>n&31])
		}
	}
	if n > 0 {
		s = append(s, alphabet[acc<<(5-n)&31])
	}
	return string(s)
}

// DecodeZ32 returns the bytes of s. As in the npm package capitals are refused,
// spare bits at the end are ignored, and a length that no whole number of bytes
// has is taken as if zero bits followed. The error is of kind [ErrInvalid].
func DecodeZ32(s string) ([]byte, error) {
	b := make([]byte, 0, (len(s)*5+7)/8)
	var acc, n uint
	for i := range len(s) {
		v := values[s[i]]
		if v == 0xff {
			return nil, fmt.Errorf("decode z-base-32: letter %q at %d: %w", s[i], i, ErrInvalid)
		}
		acc, n = acc<<5|uint(v), n+5
		if n >= 8 {
			n -= 8
			b = append(b, byte(acc>>n))
		}
	}
	if n >= 5 {
		b = append(b, byte(acc<<(8-n))) // the last letter began a byte
	}
	return b, nil
}

// ParseKey returns the key that s names: 52 letters of z-base-32 or 64 of
// hexadecimal, after which a path may follow if "pear://" stands before. The
// error is of kind [ErrInvalid].
func ParseKey(s string) ([32]byte, error) {
	id, ok := strings.CutPrefix(s, scheme)
	if ok {
		id, _, _ = strings.Cut(id, "/")
	}
	var b []byte
	var err error
	switch len(id) {
	case z32KeyLen:
		b, err = DecodeZ32(id)
	case hexKeyLen:
		if b, err = hex.DecodeString(id); err != nil {
			err = fmt.Errorf("decode hex: %w: %w", ErrInvalid, err)
		}
	default:
		err = fmt.Errorf("%d letters, want 52 of z-base-32 or 64 of hex: %w", len(id), ErrInvalid)
	}
	if err != nil {
		return [32]byte{}, fmt.Errorf("parse key: %w", err)
	}
	return [32]byte(b), nil
}

// FormatKey returns key in z-base-32, the way keys are shown and linked.
func FormatKey(key [32]byte) string { return EncodeZ32(key[:]) }
