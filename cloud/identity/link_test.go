package identity

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// linked is a link to what device 1 gives.
func linked(t testing.TB, change func(*Capability)) (Link, Grant) {
	t.Helper()
	l := must[Link](t)(NewLink(bytes.NewReader(bytes.Repeat([]byte{7}, 32))))
	return l, shared(t, func(c *Capability) {
		c.Holder = l.Keys().Public
		if change != nil {
			change(c)
		}
	})
}

func narrow(t testing.TB, l Link, kept Grant, n byte, c Capability) Link {
	t.Helper()
	return must[Link](t)(l.Narrow(kept, c, bytes.NewReader(bytes.Repeat([]byte{n}, 32))))
}

func TestALinkOpensItsGrantAlone(t *testing.T) {
	l, kept := linked(t, nil)
	again := must[Link](t)(ParseLink(l.Token()))
	if again.Kept() != l.Keys().Public {
		t.Error("it is found by another key")
	}
	g, rights, err := again.Open(kept, rules(t))
	if err != nil || len(g) != 1 || !rights.Allows(Folder, "photos", "/2026/a.jpg", Read|Write) {
		t.Fatalf("%v, %v", rights, err)
	}
	if _, _, err := (Link{Seed: Seed{9}}).Open(kept, rules(t)); !errors.Is(err, ErrDenied) {
		t.Errorf("a guess: %v", err)
	}
	for _, text := range []string{fmt.Sprint(l), fmt.Sprintf("%+v %#v", l, l)} {
		if strings.Contains(text, "7") {
			t.Errorf("it prints as %q", text)
		}
	}
	late := rules(t)
	late.Now = noon.AddDate(0, 0, 7)
	early := rules(t)
	early.Now = noon.Add(-time.Millisecond)
	stopped := rules(t)
	stopped.Revoked = func(id CapabilityID) bool { return id == kept.ID() }
	for name, tt := range map[string]struct {
		rules Rules
		want  error
	}{
		"over": {late, ErrExpired}, "not yet": {early, ErrExpired}, "stopped": {stopped, ErrRevoked},
		"another cloud":           {Rules{Now: noon, Roster: NewRoster(NewOwner(Seed{9}).Cloud())}, ErrCloud},
		"its machine was removed": {rules(t, revocation(t, owner.KeyPair(), device(1), time.Minute)), ErrRevoked},
	} {
		if _, _, err := l.Open(kept, tt.rules); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALinkIsHandedOnForLess(t *testing.T) {
	l, kept := linked(t, nil)
	less := narrow(t, l, kept, 3, Capability{Prefix: "/2026/may", Actions: Read | Share, Until: noon.Add(time.Hour)})
	least := narrow(t, less, kept, 4, Capability{Prefix: "/2026/may/1.jpg", Actions: Read})
	for _, x := range []Link{less, least} {
		parsed := must[Link](t)(ParseLink(x.Token()))
		if parsed.Kept() != kept[0].Holder {
			t.Error("it is found by another key")
		}
		g, rights, err := parsed.Open(kept, rules(t))
		if err != nil || len(g) != len(kept)+len(x.Behind) {
			t.Fatal(err)
		}
		if rights.Actions.Has(Write) || !rights.Until.Equal(noon.Add(time.Hour)) || !rights.Allows(Folder, "photos", "/2026/may/1.jpg", Read) || rights.Allows(Folder, "photos", "/2026/june", Read) {
			t.Errorf("%+v", rights)
		}
	}
	// What is taken back takes what came of it.
	r := rules(t)
	r.Revoked = func(id CapabilityID) bool { return id == less.Behind[0].ID() }
	if _, _, err := least.Open(kept, r); !errors.Is(err, ErrRevoked) {
		t.Errorf("its parent was stopped: %v", err)
	}
	if _, _, err := l.Open(kept, r); err != nil {
		t.Errorf("what it came of: %v", err)
	}
	for name, c := range map[string]Capability{
		"more actions": {Actions: Read | Write | Share, Prefix: "/2026/may"}, "another folder": {Actions: Read, Prefix: "/2027"},
		"longer": {Actions: Read, Prefix: "/2026/may", Until: noon.AddDate(1, 0, 0)},
	} {
		if _, err := less.Narrow(kept, c, bytes.NewReader(make([]byte, 32))); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := least.Narrow(kept, Capability{Actions: Read}, bytes.NewReader(make([]byte, 32))); !errors.Is(err, ErrDenied) {
		t.Errorf("it may not be handed on: %v", err)
	}
	// A chain with another's secret, and a chain that was cut.
	stolen := least
	stolen.Seed = Seed{8}
	cut := least
	cut.Behind = least.Behind[1:]
	for _, x := range []Link{stolen, cut} {
		if _, _, err := x.Open(kept, rules(t)); !errors.Is(err, ErrDenied) {
			t.Errorf("forged: %v", err)
		}
	}
	forged := least
	forged.Behind = append([]Capability(nil), least.Behind...)
	forged.Behind[1].Prefix = "/2026/may"
	if _, _, err := forged.Open(kept, rules(t)); !errors.Is(err, ErrSignature) {
		t.Errorf("changed: %v", err)
	}
}

func TestTokensHaveOneForm(t *testing.T) {
	l, kept := linked(t, nil)
	token := l.Token()
	raw := must[[]byte](t)(base64.RawURLEncoding.DecodeString(token))
	encoded := func(b ...byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	long := narrow(t, l, kept, 3, Capability{Prefix: "/2026/" + strings.Repeat("x", 3000), Actions: Read | Share})
	if _, err := long.Narrow(kept, Capability{Actions: Read | Share}, bytes.NewReader(make([]byte, 32))); !errors.Is(err, ErrInvalid) {
		t.Errorf("a token that is too long: %v", err)
	}
	for _, text := range []string{
		"", "x", token + "=", token + "A", token[:len(token)-1], token + "\n", "\n" + token, strings.Repeat("A", MaxToken+1),
		encoded(append([]byte{2}, raw[1:]...)...), encoded(append(raw, 0)...), encoded(append(raw[:33:33], 8)...), encoded(append(raw[:33:33], 1, 0)...),
		strings.Replace(token, token[:1], "+", 1),
	} {
		if _, err := ParseLink(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.80q: %v", text, err)
		}
	}
}

func FuzzLink(f *testing.F) {
	l, kept := linked(f, nil)
	f.Add(l.Token())
	f.Add(narrow(f, l, kept, 3, Capability{Actions: Read}).Token())
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseLink(text)
		if err != nil {
			return
		}
		if got.Token() != text {
			t.Errorf("%q is written as %q", text, got.Token())
		}
		if _, rights, err := got.Open(kept, rules(t)); err == nil && rights.Holder != got.Keys().Public {
			t.Errorf("%q opens what is not its own", text)
		}
	})
}
