package identity

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// shared is what the device 1 of a cloud gives to 8, for a week.
func shared(t testing.TB, change func(*Capability)) Grant {
	t.Helper()
	c := Capability{
		Cloud: owner.Cloud(), Kind: Folder, Resource: "photos", Prefix: "/2026", Actions: Read | Write | Share,
		NotBefore: noon, Until: noon.AddDate(0, 0, 7), Holder: device(8).Public,
	}
	if change != nil {
		change(&c)
	}
	return must[Grant](t)(NewGrant(device(1), c))
}

// rules are those of a cloud in which 1 may admit and 2 may not.
func rules(t testing.TB, more ...any) Rules {
	return Rules{Now: noon, Roster: feed(t, nil, append([]any{
		certificate(t, owner.KeyPair(), device(1), true, 0), certificate(t, owner.KeyPair(), device(2), false, 0),
	}, more...)...)}
}

func TestGrantsHoldInTheirTimeAndCloud(t *testing.T) {
	g := shared(t, nil)
	always := shared(t, func(c *Capability) { c.NotBefore, c.Until = time.Time{}, time.Time{} })
	byOwner := must[Grant](t)(NewGrant(owner.KeyPair(), g[0]))
	byOther := must[Grant](t)(NewGrant(device(2), g[0]))
	byStranger := must[Grant](t)(NewGrant(device(7), g[0]))
	stranger := NewOwner(Seed{9})
	foreign := must[Grant](t)(NewGrant(stranger.KeyPair(), shared(t, func(c *Capability) { c.Cloud = stranger.Cloud() })[0]))
	at := func(d time.Duration) Rules { r := rules(t); r.Now = noon.Add(d); return r }
	revoked := func(id CapabilityID) Rules {
		r := rules(t)
		r.Revoked = func(other CapabilityID) bool { return other == id }
		return r
	}
	for _, tt := range []struct {
		name  string
		g     Grant
		rules Rules
		want  error
	}{
		{"now", g, rules(t), nil},
		{"for ever", always, Rules{Roster: rules(t).Roster}, nil},
		{"by the owner", byOwner, rules(t), nil},
		{"by a device that may not admit", byOther, rules(t), ErrDenied},
		{"by a stranger", byStranger, rules(t), ErrDenied},
		{"of another cloud", foreign, rules(t), ErrCloud},
		{"too early", g, at(-time.Millisecond), ErrExpired},
		{"in its last moment", g, at(7*24*time.Hour - time.Millisecond), nil},
		{"too late", g, at(7 * 24 * time.Hour), ErrExpired},
		{"without a time", g, Rules{Roster: rules(t).Roster}, ErrExpired},
		{"revoked", g, revoked(g.ID()), ErrRevoked},
		{"another revoked", g, revoked(always.ID()), nil},
		{"by a device that was revoked", g, rules(t, revocation(t, owner.KeyPair(), device(1), 0)), ErrRevoked},
		{"for a device that was revoked", g, rules(t, revocation(t, owner.KeyPair(), device(8), 0)), ErrRevoked},
		{"nothing", nil, rules(t), ErrDenied},
	} {
		rights, err := tt.g.Verify(tt.rules)
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil && rights.Holder != device(8).Public || err != nil && rights != (Rights{}) {
			t.Errorf("%s: %+v", tt.name, rights)
		}
	}
}

func TestDelegationOnlyNarrows(t *testing.T) {
	g := shared(t, nil)
	narrow := Capability{Actions: Read, Holder: device(9).Public}
	for _, tt := range []struct {
		name   string
		change func(*Capability)
		want   error
	}{
		{"less to do", func(*Capability) {}, nil},
		{"all of it", func(c *Capability) { c.Actions = Read | Write | Share }, nil},
		{"a folder in it", func(c *Capability) { c.Prefix = "/2026/11" }, nil},
		{"a shorter time", func(c *Capability) { c.NotBefore, c.Until = noon.Add(time.Hour), noon.Add(2*time.Hour) }, nil},
		{"a folder beside it", func(c *Capability) { c.Prefix = "/2025" }, ErrDenied},
		{"a folder with a longer name", func(c *Capability) { c.Prefix = "/20266" }, ErrDenied},
		{"a folder above it", func(c *Capability) { c.Prefix = "/2" }, ErrDenied},
		{"a way out", func(c *Capability) { c.Prefix = "/2026/../2025" }, ErrInvalid},
		{"the root", func(c *Capability) { c.Prefix = "/" }, ErrInvalid},
		{"longer", func(c *Capability) { c.Until = noon.AddDate(0, 0, 8) }, ErrDenied},
		{"earlier", func(c *Capability) { c.NotBefore = noon.Add(-time.Hour) }, ErrDenied},
		{"nothing to do", func(c *Capability) { c.Actions = 0 }, ErrInvalid},
		{"an unknown action", func(c *Capability) { c.Actions = 8 }, ErrInvalid},
	} {
		c := narrow
		tt.change(&c)
		longer, err := g.Delegate(device(8), c)
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil {
			rights, err := longer.Verify(Rules{Roster: rules(t).Roster, Now: noon.Add(time.Hour)})
			if err != nil || rights.Holder != device(9).Public || !g[0].Actions.Has(rights.Actions) {
				t.Errorf("%s: %+v, %v", tt.name, rights, err)
			}
			if len(g) != 1 {
				t.Fatal("Delegate has changed the grant")
			}
		}
	}
	if _, err := g.Delegate(device(9), narrow); !errors.Is(err, ErrDenied) {
		t.Errorf("by somebody else: %v", err)
	}
	mine := shared(t, func(c *Capability) { c.Actions = Read })
	if _, err := mine.Delegate(device(8), narrow); !errors.Is(err, ErrDenied) {
		t.Errorf("without the right to share: %v", err)
	}
	if _, err := (Grant{}).Delegate(device(8), narrow); !errors.Is(err, ErrDenied) {
		t.Errorf("of nothing: %v", err)
	}
}

// What Delegate refuses, Verify must refuse too: a liar doesn't call Delegate.
func TestForgedChainsAreRefused(t *testing.T) {
	g := shared(t, nil)
	forge := func(parent Grant, holder noise.KeyPair, change func(*Capability)) Grant {
		last := parent[len(parent)-1]
		c := last
		c.Holder, c.Parent = device(9).Public, last.ID()
		change(&c)
		return append(slices.Clone(parent), must[Capability](t)(c.sign(holder)))
	}
	if _, err := forge(g, device(8), func(*Capability) {}).Verify(rules(t)); err != nil {
		t.Fatalf("an honest chain: %v", err)
	}
	other := shared(t, func(c *Capability) { c.Resource = "letters" })
	readOnly := shared(t, func(c *Capability) { c.Actions = Read })
	long := g
	for n := byte(0); len(long) <= MaxChain; n++ {
		long = forge(long, device(8), func(c *Capability) { c.Holder = device(8).Public })
	}
	if _, err := long[:MaxChain].Verify(rules(t)); err != nil {
		t.Errorf("the longest chain there may be: %v", err)
	}
	if len(must[Grant](t)(DecodeGrant(long[:MaxChain].Encode()))) != MaxChain {
		t.Error("the longest chain is not read")
	}
	if _, err := DecodeGrant(long.Encode()); !errors.Is(err, ErrInvalid) {
		t.Errorf("a chain that is too long is read: %v", err)
	}
	if _, err := long[:MaxChain].Delegate(device(8), Capability{Actions: Read}); !errors.Is(err, ErrDenied) {
		t.Errorf("a chain is made too long: %v", err)
	}
	changed := slices.Clone(g)
	changed[0].Actions = Read
	for name, forged := range map[string]Grant{
		"more actions":          forge(readOnly, device(8), func(c *Capability) { c.Actions = Read | Write }),
		"not to be shared":      forge(readOnly, device(8), func(*Capability) {}),
		"another folder":        forge(g, device(8), func(c *Capability) { c.Resource = "letters" }),
		"another kind":          forge(g, device(8), func(c *Capability) { c.Kind = Drive }),
		"wider":                 forge(g, device(8), func(c *Capability) { c.Prefix = "" }),
		"longer":                forge(g, device(8), func(c *Capability) { c.Until = time.Time{} }),
		"signed by another":     forge(g, device(7), func(*Capability) {}),
		"under another parent":  append(slices.Clone(other), forge(g, device(8), func(*Capability) {})[1]),
		"the parent left out":   forge(g, device(8), func(*Capability) {})[1:],
		"too long":              long,
		"changed after it":      changed,
		"the first one twice":   append(slices.Clone(g), g[0]),
		"first, with a parent":  {must[Capability](t)(func() (Capability, error) { c := g[0]; c.Parent = g.ID(); return c.sign(device(1)) }())},
		"fields that cannot be": {Capability{Cloud: owner.Cloud()}},
	} {
		if rights, err := forged.Verify(rules(t)); err == nil {
			t.Errorf("%s: taken as %+v", name, rights)
		}
	}
	// Who revokes one takes away all that came of it.
	chain := forge(g, device(8), func(*Capability) {})
	r := rules(t)
	r.Revoked = func(id CapabilityID) bool { return id == g.ID() }
	if _, err := chain.Verify(r); !errors.Is(err, ErrRevoked) {
		t.Errorf("derived from one that is revoked: %v", err)
	}
}

func TestRightsAreForPathsUnderTheirs(t *testing.T) {
	rights := shared(t, func(c *Capability) { c.Actions = Read })[0].Rights()
	all := rights
	all.Prefix = ""
	for _, tt := range []struct {
		path      string
		want, any bool
	}{
		{"/2026", true, true},
		{"/2026/a.jpg", true, true},
		{"/2026/11/a.jpg", true, true},
		{"/20261", false, true},
		{"/2025/a.jpg", false, true},
		{"/", false, true},
		{"", false, true},
		{"2026/a.jpg", false, true},
		{"/2026/../2025/a.jpg", false, true},
		{"/2026/", false, true},
		{"/2026//a", false, true},
		{"/2026/a\x00", false, true},
		{"/2026/\xff", false, true},
	} {
		if got := rights.Allows(Folder, "photos", tt.path, Read); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.path, got, tt.want)
		}
		if got := all.Allows(Folder, "photos", tt.path, Read); got != tt.any {
			t.Errorf("%q, of everything: %v, want %v", tt.path, got, tt.any)
		}
	}
	if rights.Allows(Folder, "letters", "/2026", Read) || rights.Allows(Drive, "photos", "/2026", Read) || rights.Allows(Folder, "photos", "/2026", Read|Write) || rights.Allows(Folder, "photos", "/2026", 0) {
		t.Error("another thing or action is allowed")
	}
	if got := fmt.Sprint(Folder, Drive, Kind(9), Read|Share, Actions(8|1), In, Outside); got != "folder drive Kind(9) read,share read,Actions(8) in outside" {
		t.Errorf("printed as %s", got)
	}
}

func TestProofsAreForOneChallenge(t *testing.T) {
	g := shared(t, nil)
	one, two := bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64)
	proof := g.Prove(device(8), one)
	if _, err := g.Authorize(rules(t), one, proof); err != nil {
		t.Fatal(err)
	}
	wider := shared(t, func(c *Capability) { c.Prefix = "" })
	late := rules(t)
	late.Now = noon.AddDate(1, 0, 0)
	for name, test := range map[string]struct {
		g         Grant
		rules     Rules
		challenge []byte
		proof     Proof
		want      error
	}{
		"replayed elsewhere":     {g, rules(t), two, proof, ErrSignature},
		"for another grant":      {wider, rules(t), one, proof, ErrSignature},
		"by somebody else":       {g, rules(t), one, g.Prove(device(9), one), ErrSignature},
		"none":                   {g, rules(t), one, Proof{}, ErrSignature},
		"of an expired grant":    {g, late, one, proof, ErrExpired},
		"with a short challenge": {g, rules(t), one[:15], g.Prove(device(8), one[:15]), ErrInvalid},
	} {
		if rights, err := test.g.Authorize(test.rules, test.challenge, test.proof); !errors.Is(err, test.want) || rights != (Rights{}) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestChallengesCountOnce(t *testing.T) {
	clk := clock.NewFake(noon)
	s := must[*Challenges](t)(NewChallenges(clk, rand.Reader))
	other := must[*Challenges](t)(NewChallenges(clk, rand.Reader))
	c := must[Challenge](t)(s.New())
	if err := s.Take(c); err != nil {
		t.Fatal(err)
	}
	if err := s.Take(c); !errors.Is(err, ErrReplayed) {
		t.Errorf("taken twice: %v", err)
	}
	for name, c := range map[string]Challenge{"made up": {}, "of others": must[Challenge](t)(other.New())} {
		if err := s.Take(c); !errors.Is(err, ErrReplayed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c = must[Challenge](t)(s.New())
	later := c
	later[6]++ // so that it would last longer
	if err := s.Take(later); !errors.Is(err, ErrReplayed) {
		t.Errorf("with another time: %v", err)
	}
	clk.Advance(ChallengeLife)
	if err := s.Take(c); !errors.Is(err, ErrReplayed) {
		t.Errorf("too old: %v", err)
	}

	// However often one is tried at once, it counts once.
	c = must[Challenge](t)(s.New())
	var took atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if s.Take(c) == nil {
				took.Add(1)
			}
		})
	}
	all.Wait()
	if took.Load() != 1 {
		t.Errorf("taken %d times", took.Load())
	}

	// Memory is bounded, and given back.
	for i := range maxUsed {
		s.used[Challenge{1, byte(i), byte(i >> 8), byte(i >> 16)}] = clk.Now().Add(time.Second)
	}
	c = must[Challenge](t)(s.New())
	if err := s.Take(c); !errors.Is(err, ErrFull) {
		t.Errorf("too many: %v", err)
	}
	clk.Advance(time.Second)
	if err := s.Take(c); err != nil || len(s.used) > 2 {
		t.Errorf("when the others are over: %v, %d are kept", err, len(s.used))
	}
	if _, err := NewChallenges(clk, strings.NewReader("x")); err == nil {
		t.Error("a set without randomness")
	}
}
