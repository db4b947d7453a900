package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/noise"
	"golang.org/x/crypto/blake2b"
)

// Bounds of capabilities.
const (
	// MaxChain is the most capabilities in a grant.
	MaxChain = 8
	// MaxResource is the most bytes of what a right is about.
	MaxResource = 128
	// MaxPrefix is the most bytes of a path.
	MaxPrefix = 4096
)

// A Kind is a kind of thing in a cloud.
type Kind uint8

// The kinds of things that rights are about.
const (
	Folder Kind = iota + 1
	Table
	App
	Drive
	kinds // one more than there are
)

func (k Kind) String() string {
	switch k {
	case Folder:
		return "folder"
	case Table:
		return "table"
	case App:
		return "app"
	case Drive:
		return "drive"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Actions are what may be done, any of these together.
type Actions uint8

// What may be done with a thing.
const (
	Read  Actions = 1 << iota
	Write         // put, change and delete
	Share         // hand on these rights, or less

	allActions = Read | Write | Share
)

// Has reports whether all of other are among the actions.
func (a Actions) Has(other Actions) bool { return a&other == other }

func (a Actions) String() string {
	var names []string
	for i, name := range []string{"read", "write", "share"} {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := a &^ allActions; rest != 0 {
		names = append(names, fmt.Sprintf("Actions(%d)", uint8(rest)))
	}
	return strings.Join(names, ",")
}

// A CapabilityID names a capability, to revoke it.
type CapabilityID [32]byte

// String returns the id in z-base-32.
func (id CapabilityID) String() string { return compact.FormatKey(id) }

// A Capability says that whoever has the secret half of Holder may do something.
// The first of a [Grant] is signed by the owner or a device that may admit, each
// other by the holder of the one before.
type Capability struct {
	Cloud CloudID
	// Kind, Resource and Prefix say with what: everything of a resource if Prefix
	// is empty, else the path "/a/b" and what is under it. Resource is 1 to
	// MaxResource bytes.
	Kind     Kind
	Resource string
	Prefix   string
	Actions  Actions
	// NotBefore and Until, to the millisecond, say when: from the first, and no
	// more at the second. Zero times are no bounds.
	NotBefore, Until time.Time
	// Holder may be a device or a person, or a key made for a link: then whoever
	// has the link has the secret half.
	Holder Key
	// Parent is the id of the capability before it in the grant, zero for the
	// first.
	Parent    CapabilityID
	Issuer    Key
	Signature [64]byte
}

// ID returns the id. Other bytes, signature included, have another.
func (c Capability) ID() CapabilityID {
	return CapabilityID(blake2b.Sum256(append([]byte("bevy/identity/1/capability-id\x00"), c.Encode()...)))
}

// Rights returns what the capability says, for whoever may say so.
func (c Capability) Rights() Rights {
	return Rights{c.Cloud, c.Kind, c.Resource, c.Prefix, c.Actions, c.NotBefore, c.Until, c.Holder}
}

func (c Capability) check() error {
	invalid := func(what string, v any) error {
		return fmt.Errorf("capability: %w: the %s %.100v", ErrInvalid, what, v)
	}
	switch {
	case c.Kind == 0 || c.Kind >= kinds:
		return invalid("kind", uint8(c.Kind))
	case c.Resource == "" || len(c.Resource) > MaxResource || !utf8.ValidString(c.Resource):
		return invalid("resource", fmt.Sprintf("%q", c.Resource))
	case c.Prefix != "" && (c.Prefix == "/" || !goodPath(c.Prefix)):
		return invalid("prefix", fmt.Sprintf("%q", c.Prefix))
	case c.Actions == 0 || c.Actions&^allActions != 0:
		return invalid("actions", uint8(c.Actions))
	}
	for _, t := range []time.Time{c.NotBefore, c.Until} {
		if !t.IsZero() && (!goodTime(t) || t.UnixMilli() == 0) {
			return invalid("time", t)
		}
	}
	return nil
}

func (c Capability) body() []byte {
	b := append([]byte{version, kindCapability}, c.Cloud[:]...)
	b = append(b, c.Parent[:]...)
	b = append(b, c.Issuer[:]...)
	b = append(b, c.Holder[:]...)
	b = append(b, byte(c.Kind), byte(c.Actions))
	b = appendBound(b, c.NotBefore)
	b = appendBound(b, c.Until)
	b = compact.AppendString(b, c.Resource)
	return compact.AppendString(b, c.Prefix)
}

func (c Capability) sign(issuer noise.KeyPair) (Capability, error) {
	c.Issuer = issuer.Public
	c.NotBefore, c.Until = bound(c.NotBefore), bound(c.Until)
	if err := c.check(); err != nil {
		return Capability{}, err
	}
	c.Signature = sign(issuer, kindCapability, c.body())
	return c, nil
}

// Encode returns the capability's bytes.
func (c Capability) Encode() []byte { return append(c.body(), c.Signature[:]...) }

// DecodeCapability reads what Encode wrote. It checks no signature.
func DecodeCapability(b []byte) (c Capability, err error) {
	d := begin(b, kindCapability)
	c.Cloud, c.Parent, c.Issuer, c.Holder = d.Fixed32(), d.Fixed32(), d.Fixed32(), d.Fixed32()
	c.Kind, c.Actions = Kind(d.Uint8()), Actions(d.Uint8())
	c.NotBefore, c.Until = readBound(&d), readBound(&d)
	c.Resource, c.Prefix = d.String(MaxResource), d.String(MaxPrefix)
	c.Signature = d.Fixed64()
	if err := d.Finish(); err != nil {
		return Capability{}, fmt.Errorf("capability: %w: %w", ErrInvalid, err)
	}
	if err := c.check(); err != nil {
		return Capability{}, err
	}
	return c, oneForm("capability", b, c.Encode())
}

func bound(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return milliseconds(t)
}

func appendBound(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return compact.AppendUint(b, 0)
	}
	return appendTime(b, t)
}

func readBound(d *compact.Decoder) time.Time {
	ms := d.Uint()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// goodPath tells whether a path has the one form "/a/b".
func goodPath(p string) bool {
	return len(p) <= MaxPrefix && strings.HasPrefix(p, "/") && path.Clean(p) == p && utf8.ValidString(p) && !strings.ContainsRune(p, 0)
}

// Rights are what a grant comes to.
type Rights struct {
	Cloud            CloudID
	Kind             Kind
	Resource         string
	Prefix           string
	Actions          Actions
	NotBefore, Until time.Time
	Holder           Key
}

// Allows reports whether the rights are about a thing and a path of it, and
// enough for the actions. A path has the form "/a/b", or it is not under any
// prefix. Times are not looked at: [Grant.Verify] did that.
func (r Rights) Allows(kind Kind, resource, p string, actions Actions) bool {
	return r.Kind == kind && r.Resource == resource && actions != 0 && r.Actions.Has(actions) && under(r.Prefix, p)
}

// under tells whether a path is that of a prefix or below.
func under(prefix, p string) bool {
	if prefix == "" {
		return true
	}
	rest, ok := strings.CutPrefix(p, prefix)
	return ok && (rest == "" || rest[0] == '/') && goodPath(p)
}

// within tells why the rights are more than those of another, or nothing.
func (r Rights) within(other Rights) error {
	switch {
	case !other.Actions.Has(Share):
		return errors.New("the one before may not be shared")
	case r.Cloud != other.Cloud || r.Kind != other.Kind || r.Resource != other.Resource:
		return errors.New("it is about something else than the one before")
	case !other.Actions.Has(r.Actions):
		return fmt.Errorf("it gives %s, the one before %s", r.Actions, other.Actions)
	case !under(other.Prefix, r.Prefix):
		return fmt.Errorf("it gives %.100q, the one before %.100q", r.Prefix, other.Prefix)
	case r.NotBefore.Before(other.NotBefore):
		return errors.New("it begins before the one before")
	case !other.Until.IsZero() && (r.Until.IsZero() || r.Until.After(other.Until)):
		return errors.New("it lasts longer than the one before")
	}
	return nil
}

// A Grant is a chain of capabilities, each signed by the holder of the one before
// and no wider. The last one says what may be done and by whom.
type Grant []Capability

// NewGrant begins a chain. The issuer is the owner or a device that may admit.
// Issuer, Parent and Signature of c are filled in.
func NewGrant(issuer noise.KeyPair, c Capability) (Grant, error) {
	c.Parent = CapabilityID{}
	c, err := c.sign(issuer)
	if err != nil {
		return nil, err
	}
	return Grant{c}, nil
}

// Delegate returns a grant that is one longer: the holder hands on its rights, or
// less. It fails with [ErrDenied] if c would be more than there is. Cloud, Kind and
// Resource of c may be left out; an empty Prefix, and zero times, are those of the
// grant.
func (g Grant) Delegate(holder noise.KeyPair, c Capability) (Grant, error) {
	if len(g) == 0 || len(g) >= MaxChain {
		return nil, fmt.Errorf("delegate: %w: a chain of %d", ErrDenied, len(g))
	}
	last := g[len(g)-1]
	if holder.Public != last.Holder {
		return nil, fmt.Errorf("delegate: %w: %s is not the holder", ErrDenied, holder.Public)
	}
	c.Cloud, c.Kind, c.Resource, c.Parent = last.Cloud, last.Kind, last.Resource, last.ID()
	if c.Prefix == "" {
		c.Prefix = last.Prefix
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = last.NotBefore
	}
	if c.Until.IsZero() {
		c.Until = last.Until
	}
	c, err := c.sign(holder)
	if err != nil {
		return nil, err
	}
	if err := c.Rights().within(last.Rights()); err != nil {
		return nil, fmt.Errorf("delegate: %w: %w", ErrDenied, err)
	}
	return append(g[:len(g):len(g)], c), nil
}

// ID returns the id of the last capability, by which the grant is revoked. Its
// zero value is that of an empty grant.
func (g Grant) ID() CapabilityID {
	if len(g) == 0 {
		return CapabilityID{}
	}
	return g[len(g)-1].ID()
}

// Encode returns the grant's bytes.
func (g Grant) Encode() []byte {
	return compact.AppendArray([]byte{version}, g, func(b []byte, c Capability) []byte {
		return compact.AppendBuffer(b, c.Encode())
	})
}

// DecodeGrant reads what Encode wrote. It checks no signature.
func DecodeGrant(b []byte) (Grant, error) {
	d := compact.NewDecoder(b)
	if v := d.Uint8(); d.Err() == nil && v != version {
		d.Fail("version", compact.ErrInvalid)
	}
	parts := compact.DecodeArray(&d, MaxChain, func(d *compact.Decoder) []byte {
		return d.Buffer(MaxPrefix + 1024)
	})
	if err := d.Finish(); err != nil {
		return nil, fmt.Errorf("grant: %w: %w", ErrInvalid, err)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("grant: %w: it is empty", ErrInvalid)
	}
	g := make(Grant, len(parts))
	for i, part := range parts {
		c, err := DecodeCapability(part)
		if err != nil {
			return nil, fmt.Errorf("grant: %w", err)
		}
		g[i] = c
	}
	return g, oneForm("grant", b, g.Encode())
}

// Rules are what a grant is held against.
type Rules struct {
	// Roster says who may begin a grant, and which devices were revoked: these
	// neither hold nor hand on any. It is of the cloud that the grant has to be
	// about. It is needed.
	Roster *Roster
	// Now is the time. A zero time is before everything.
	Now time.Time
	// Revoked reports whether a capability was taken back, and with it all that
	// was derived from it. Nil: none was.
	Revoked func(CapabilityID) bool
}

// Verify returns the rights that a grant comes to. It fails with [ErrDenied],
// [ErrCloud], [ErrSignature], [ErrExpired], [ErrRevoked] or [ErrInvalid]. Whoever
// shows the grant has yet to prove that it is the holder: see [Grant.Authorize].
func (g Grant) Verify(rules Rules) (Rights, error) {
	if len(g) == 0 || len(g) > MaxChain {
		return Rights{}, fmt.Errorf("grant: %w: a chain of %d", ErrDenied, len(g))
	}
	for i, c := range g {
		if err := g.verify(i, c, rules); err != nil {
			return Rights{}, fmt.Errorf("capability %d of %d: %w", i+1, len(g), err)
		}
	}
	return g[len(g)-1].Rights(), nil
}

func (g Grant) verify(i int, c Capability, rules Rules) error {
	if err := c.check(); err != nil {
		return err
	}
	switch {
	case c.Cloud != rules.Roster.Cloud():
		return ErrCloud
	case rules.Now.Before(c.NotBefore) || !c.Until.IsZero() && !rules.Now.Before(c.Until):
		return fmt.Errorf("%w: %s", ErrExpired, rules.Now.UTC().Format(time.RFC3339))
	case rules.Revoked != nil && rules.Revoked(c.ID()):
		return ErrRevoked
	}
	for _, key := range []Key{c.Issuer, c.Holder} { // what a revoked device handed on is void, too
		if d, ok := rules.Roster.Device(key); ok && d.Status == Revoked {
			return fmt.Errorf("%w: the device %s", ErrRevoked, key)
		}
	}
	if i == 0 {
		if c.Parent != (CapabilityID{}) {
			return fmt.Errorf("%w: the chain does not begin here", ErrDenied)
		}
		if !rules.Roster.MayAdmit(c.Issuer) {
			return fmt.Errorf("%w: %s may not give rights", ErrDenied, c.Issuer)
		}
	} else {
		last := g[i-1]
		if c.Issuer != last.Holder || c.Parent != last.ID() {
			return fmt.Errorf("%w: it does not belong to the one before", ErrDenied)
		}
		if err := c.Rights().within(last.Rights()); err != nil {
			return fmt.Errorf("%w: %w", ErrDenied, err)
		}
	}
	return verify(c.Issuer, kindCapability, c.body(), c.Signature)
}

// A Proof shows that who shows a grant is its holder.
type Proof [64]byte

// Prove answers a challenge as the holder of a grant. The challenge is at least
// 16 bytes that whoever asks knows to be fresh: the hash of a connection's
// handshake, or one of [Challenges]. A proof is good for this grant and this
// challenge, whoever shows it: one of Challenges says nothing of who asked, so
// that whoever looks like a node could have taken it from the real one. To the
// holder it has to be known by other means who asks.
func (g Grant) Prove(holder noise.KeyPair, challenge []byte) Proof {
	return Proof(holder.Sign(g.proofMessage(challenge)))
}

// Authorize is Verify, and checks the proof that was given for a challenge. If
// that is not the hash of the connection's own handshake, it has to be taken from
// [Challenges] then, or the proof could be one that was overheard.
func (g Grant) Authorize(rules Rules, challenge []byte, proof Proof) (Rights, error) {
	rights, err := g.Verify(rules)
	if err != nil {
		return Rights{}, err
	}
	if len(challenge) < 16 {
		return Rights{}, fmt.Errorf("proof: %w: the challenge is too short", ErrInvalid)
	}
	if !ed25519.Verify(rights.Holder[:], g.proofMessage(challenge), proof[:]) {
		return Rights{}, fmt.Errorf("proof: %w of %s", ErrSignature, rights.Holder)
	}
	return rights, nil
}

func (g Grant) proofMessage(challenge []byte) []byte {
	id := g.ID()
	return append(append([]byte(domainProof), id[:]...), challenge...)
}
