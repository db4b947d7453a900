package cloud

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/clock"
)

const mayRead = identity.Read

// photos makes a folder of that name.
func (d *device) photos() string {
	d.t.Helper()
	s, err := d.Make(d.t.Context(), SpaceInfo{Kind: Folder, Name: "photos"})
	check(d.t, err)
	return s.Info().ID
}

func (d *device) share(space, prefix string, actions identity.Actions, until time.Time) (identity.Link, Share) {
	d.t.Helper()
	l, s, err := d.MakeShare(d.t.Context(), NewShare{Space: space, Prefix: prefix, Actions: actions, Until: until, Name: "for Mum"})
	check(d.t, err)
	return l, s
}

// opens tells whether a link is good, and for reading what.
func (d *device) opens(l identity.Link, path string) bool {
	s, rights, err := d.OpenShare(l)
	return err == nil && s.Name == "for Mum" && rights.Allows(identity.Folder, s.Rights().Resource, path, mayRead)
}

func TestASharedLinkIsThatOfTheWholeCloud(t *testing.T) {
	a := first(t)
	space := a.photos()
	l, s := a.share(space, "/2026", mayRead, time.Time{})
	other, _ := a.share(space, "/2027", mayRead, time.Time{})
	b := a.admit("attic")
	defer link(t, a, b)()
	b.until("the link is good there", func() bool { return b.opens(l, "/2026/a.jpg") && b.opens(other, "/2027/x") })
	if b.opens(l, "/2027/x") || b.opens(l, "/20266") || b.opens(l, "/2026/../2027/x") {
		t.Error("it opens more than that")
	}
	if _, _, err := b.OpenShare(identity.Link{Seed: [32]byte{1}}); !errors.Is(err, ErrNoShare) {
		t.Errorf("a guess: %v", err)
	}
	// What is stopped on one is over there at once, and on the other soon.
	check(t, b.StopShare(t.Context(), s.ID()))
	if _, _, err := b.OpenShare(l); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("a stopped link: %v", err)
	}
	if err := b.StopShare(t.Context(), s.ID()); !errors.Is(err, ErrNoShare) {
		t.Errorf("stopped twice: %v", err)
	}
	a.until("it is over here, too", func() bool { return !a.opens(l, "/2026/a.jpg") })
	if shares := a.Shares(); len(shares) != 1 || shares[0].Rights().Prefix != "/2027" || !a.opens(other, "/2027/x") {
		t.Errorf("left are %v", shares)
	}
	a.reopen(false)
	if a.opens(l, "/2026/a.jpg") || !a.opens(other, "/2027/x") {
		t.Error("it is different after a restart")
	}
	if _, _, err := a.MakeShare(t.Context(), NewShare{Space: "none", Actions: mayRead}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a share of nothing: %v", err)
	}
	if _, _, err := a.MakeShare(t.Context(), NewShare{Space: space, Prefix: "/a/../b", Actions: mayRead}); !errors.Is(err, identity.ErrInvalid) {
		t.Errorf("a wrong path: %v", err)
	}
	if _, _, err := a.MakeShare(t.Context(), NewShare{Space: space, Actions: mayRead, Name: "\x1b[2J"}); !errors.Is(err, ErrName) {
		t.Errorf("a wrong name: %v", err)
	}
}

// What a machine has given falls with it.
func TestSharesOfARevokedMachineAreOver(t *testing.T) {
	a := first(t)
	space := a.photos()
	b := a.admit("attic")
	cut := link(t, a, b)
	b.until("the folder", func() bool { return len(b.Spaces(Folder)) == 1 })
	theirs, _ := b.share(space, "", mayRead, time.Time{})
	ours, _ := a.share(space, "", mayRead, time.Time{})
	a.until("its link", func() bool { return a.opens(theirs, "/x") })
	cut()
	check(t, a.Revoke(t.Context(), b.Self()))
	if _, _, err := a.OpenShare(theirs); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("the link of a machine that was revoked: %v", err)
	}
	if !a.opens(ours, "/x") || len(a.Shares()) != 1 {
		t.Error("another one went with it")
	}
}

func TestAShareEnds(t *testing.T) {
	c := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	d := newDevice(t, "laptop", func(o Options) (*Cloud, error) {
		o.Clock = c
		return Create(t.Context(), o, nil)
	})
	space := d.photos()
	l, s := d.share(space, "", mayRead, c.Now().Add(time.Hour))
	c.Advance(time.Hour - time.Millisecond)
	if !d.opens(l, "/x") || s.Over(c.Now()) {
		t.Error("it ended early")
	}
	c.Advance(time.Millisecond)
	if _, _, err := d.OpenShare(l); !errors.Is(err, identity.ErrExpired) {
		t.Errorf("it goes on: %v", err)
	}
	if all := d.Shares(); len(all) != 1 || !all[0].Over(c.Now()) {
		t.Errorf("it is listed as %v", all)
	}
	// It is forgotten when there is another one much later.
	c.Advance(keepOver)
	d.share(space, "", mayRead, time.Time{})
	if all := d.Shares(); len(all) != 1 || all[0].ID() == s.ID() {
		t.Errorf("left are %v", all)
	}
}

// A link, with the grant it was made for, is worth nothing on another cloud.
func TestAShareIsOfOneCloud(t *testing.T) {
	a, x := first(t), first(t)
	l, s := a.share(a.photos(), "", mayRead, time.Time{})
	x.photos()
	row := fmt.Appendf(nil, `{"version":1,"grant":%q,"created":"2026-11-23T00:00:00Z"}`, base64.StdEncoding.EncodeToString(s.Grant.Encode()))
	check(t, x.putAll(t.Context(), map[string][]byte{shareRows + s.ID().String(): row}))
	check(t, x.refresh(t.Context()))
	if _, _, err := x.OpenShare(l); !errors.Is(err, identity.ErrCloud) {
		t.Errorf("replayed: %v", err)
	}
	if len(x.Shares()) != 0 {
		t.Error("it is listed")
	}
}

// A device says of shares what can't be, and what is another's.
func TestHostileSharesAreLeftOut(t *testing.T) {
	a := first(t)
	space := a.photos()
	l, s := a.share(space, "", mayRead, time.Time{})
	gone, g := a.share(space, "", mayRead, time.Time{})
	check(t, a.StopShare(t.Context(), g.ID()))
	h := a.admit("thief")
	defer link(t, a, h)()
	h.until("the shares", func() bool { return h.opens(l, "/x") && len(h.Shares()) == 1 })
	row := func(grant identity.Grant, more string) []byte {
		return fmt.Appendf(nil, `{"version":1,"grant":%q,"created":"2026-11-23T00:00:00Z"%s}`, base64.StdEncoding.EncodeToString(grant.Encode()), more)
	}
	forged, err := identity.NewGrant(h.KeyPair(), s.Grant[0])
	check(t, err)
	forged[0].Issuer = s.Grant[0].Issuer
	sameKey, err := identity.NewGrant(h.KeyPair(), s.Grant[0]) // it may, but is not in the way of the other
	check(t, err)
	last, err := identity.NewGrant(h.KeyPair(), identity.Capability{Cloud: h.ID(), Kind: identity.Folder, Resource: space, Actions: mayRead, Holder: identity.Link{Seed: [32]byte{2}}.Keys().Public})
	check(t, err)
	check(t, h.putAll(t.Context(), map[string][]byte{
		shareRows: []byte("{"), shareRows + "x": row(s.Grant, ""), shareRows + s.ID().String(): row(s.Grant, `,"name":"\u202e"`),
		shareRows + forged.ID().String(): row(forged, ""), shareRows + sameKey.ID().String(): bytes.Replace(row(sameKey, ""), []byte(`:"2026-`), []byte(`:"2126-`), 1),
		shareRows + g.ID().String(): row(g.Grant, ""), stoppedShareRows + g.ID().String(): nil, stoppedShareRows + "x": []byte("{}"),
		shareRows + last.ID().String(): row(last, `,"name":"for Mum"`),
	}))
	check(t, h.refresh(t.Context()))
	a.until("the last of it", func() bool { return a.opens(identity.Link{Seed: [32]byte{2}}, "/x") })
	if !a.opens(l, "/x") {
		t.Error("the link is not good any more")
	}
	if _, _, err := a.OpenShare(gone); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("a stopped link is back: %v", err)
	}
	big := []byte(`{"version":1,"grant":"` + strings.Repeat("A", maxShareRow) + `"}`)
	for name, b := range map[string][]byte{
		"no JSON": []byte("{"), "nothing": []byte("null"), "another version": []byte(`{"version":2}`), "no grant": row(nil, ""), "too long": big,
	} {
		if _, err := readShare(s.ID().String(), b); err == nil {
			t.Errorf("%s is a share", name)
		}
	}
}
