package identity

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// MaxToken is the most letters of a link's token.
const MaxToken = 6 << 10

// A Link lets whoever has it do what a grant says. It has the secret half of the
// key of the grant's holder, and no more of the grant than its cloud does not
// keep: nothing, or what was handed on without asking the cloud. It does not
// print.
type Link struct {
	// Seed is that of the holder's key pair.
	Seed [32]byte
	// Behind are the capabilities behind those that the cloud keeps.
	Behind []Capability
}

func (Link) String() string   { return "[redacted]" }
func (Link) GoString() string { return "[redacted]" }

// NewLink makes a link with a key of its own.
func NewLink(random io.Reader) (l Link, err error) {
	if _, err := io.ReadFull(random, l.Seed[:]); err != nil {
		return Link{}, fmt.Errorf("make a link: %w", err)
	}
	return l, nil
}

// Keys returns the key pair of the holder.
func (l Link) Keys() noise.KeyPair { return noise.NewKeyPair(l.Seed) }

// Kept returns the holder of the last capability that the cloud keeps, by which
// the link is found.
func (l Link) Kept() Key {
	if len(l.Behind) > 0 {
		return l.Behind[0].Issuer
	}
	return l.Keys().Public
}

// Token returns the link as text: letters, digits, - and _.
func (l Link) Token() string {
	b := compact.AppendArray(append([]byte{version}, l.Seed[:]...), l.Behind, func(b []byte, c Capability) []byte {
		return compact.AppendBuffer(b, c.Encode())
	})
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseLink reads what Token wrote. It checks no signature.
func ParseLink(token string) (l Link, err error) {
	if len(token) > MaxToken {
		return Link{}, fmt.Errorf("link: %w: it has %d letters", ErrInvalid, len(token))
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return Link{}, fmt.Errorf("link: %w: %w", ErrInvalid, err)
	}
	d := compact.NewDecoder(b)
	if v := d.Uint8(); d.Err() == nil && v != version {
		d.Fail("version", compact.ErrInvalid)
	}
	l.Seed = d.Fixed32()
	parts := compact.DecodeArray(&d, MaxChain-1, func(d *compact.Decoder) []byte { return d.Buffer(MaxPrefix + 1024) })
	if err := d.Finish(); err != nil {
		return Link{}, fmt.Errorf("link: %w: %w", ErrInvalid, err)
	}
	for _, part := range parts {
		c, err := DecodeCapability(part)
		if err != nil {
			return Link{}, fmt.Errorf("link: %w", err)
		}
		l.Behind = append(l.Behind, c)
	}
	if l.Token() != token {
		return Link{}, fmt.Errorf("link: %w: not in its one form", ErrInvalid)
	}
	return l, nil
}

// Open returns the whole grant and what it comes to, if the link is that of its
// holder. kept is what the cloud keeps of it. It fails as [Grant.Verify] does.
func (l Link) Open(kept Grant, rules Rules) (Grant, Rights, error) {
	g := append(kept[:len(kept):len(kept)], l.Behind...)
	rights, err := g.Verify(rules)
	if err != nil {
		return nil, Rights{}, err
	}
	if own := l.Keys().Public; subtle.ConstantTimeCompare(own[:], rights.Holder[:]) != 1 {
		return nil, Rights{}, fmt.Errorf("link: %w: it is not of %s", ErrDenied, rights.Holder)
	}
	return g, rights, nil
}

// Narrow returns a link for no more than c says of what this one is good for. The
// cloud need not be asked. It fails with [ErrDenied] if c is more.
func (l Link) Narrow(kept Grant, c Capability, random io.Reader) (Link, error) {
	next, err := NewLink(random)
	if err != nil {
		return Link{}, err
	}
	c.Holder = next.Keys().Public
	g, err := append(kept[:len(kept):len(kept)], l.Behind...).Delegate(l.Keys(), c)
	if err != nil {
		return Link{}, err
	}
	next.Behind = g[len(kept):]
	if n := len(next.Token()); n > MaxToken {
		return Link{}, fmt.Errorf("link: %w: it would have %d letters", ErrInvalid, n)
	}
	return next, nil
}
