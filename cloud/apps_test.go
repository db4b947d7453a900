package cloud

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

func (d *device) makeKey(k AppKey) AppKey {
	d.t.Helper()
	k, err := d.MakeAppKey(d.t.Context(), k)
	check(d.t, err)
	return k
}

// good tells whether a device knows a key that can be used.
func (d *device) good(id string) bool {
	_, err := d.FindAppKey(id)
	if err != nil && !errors.Is(err, ErrNoAppKey) {
		d.t.Errorf("%s: %v", d.name, err)
	}
	return err == nil
}

func TestAppsAndTheirKeysAreThoseOfTheCloud(t *testing.T) {
	a := first(t)
	check(t, a.MakeApp(t.Context(), "shop"))
	if err := a.MakeApp(t.Context(), "shop"); !errors.Is(err, ErrExists) {
		t.Errorf("an app made twice: %v", err)
	}
	rights := []AppRight{{Service: "dynamodb", Name: "orders-*", Write: true}, {Name: "logs"}}
	k := a.makeKey(AppKey{App: "shop", Rights: rights, Note: "CI"})
	own := a.makeKey(AppKey{Rights: AllRights()})
	if _, err := a.MakeAppKey(t.Context(), AppKey{App: "other", Rights: rights}); !errors.Is(err, ErrNoApp) {
		t.Errorf("a key of no app: %v", err)
	}
	b := a.admit("attic")
	defer link(t, a, b)()
	b.until("the keys", func() bool { return b.good(k.ID) && b.good(own.ID) })
	got, err := b.FindAppKey(k.ID)
	check(t, err)
	if got.Secret != k.Secret || got.App != "shop" || got.Note != "CI" || len(got.Rights) != 2 || got.Rights[0] != rights[0] {
		t.Errorf("the key is %+v there", got)
	}
	if text := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(text, string(k.Secret)) {
		t.Error("a secret prints")
	}
	if apps := b.Apps(); len(apps) != 2 || apps[0].Name != "" || apps[1].Name != "shop" || apps[1].Created.IsZero() {
		t.Errorf("the apps are %v there", apps)
	}
	// What is taken back on one is over there at once, and on the other soon.
	check(t, b.RevokeAppKey(t.Context(), k.ID))
	if b.good(k.ID) {
		t.Error("a revoked key is good")
	}
	if err := b.RevokeAppKey(t.Context(), k.ID); !errors.Is(err, ErrNoAppKey) {
		t.Errorf("revoked twice: %v", err)
	}
	a.until("it is revoked", func() bool { return !a.good(k.ID) })
	if !a.good(own.ID) || len(a.AppKeys("shop")) != 0 || len(a.AppKeys("")) != 1 {
		t.Error("another key went with it")
	}
	a.reopen(false)
	if a.good(k.ID) || !a.good(own.ID) {
		t.Error("it is different after a restart")
	}
}

func TestAnAppGoesWithItsKeysAndSpaces(t *testing.T) {
	a := first(t)
	check(t, a.MakeApp(t.Context(), "shop"))
	k := a.makeKey(AppKey{App: "shop", Rights: AllRights()})
	_, err := a.MakeNamed(t.Context(), SpaceInfo{Kind: Table, App: "shop", Name: "catalog"})
	check(t, err)
	if err := a.RemoveApp(t.Context(), ""); !errors.Is(err, ErrNoApp) {
		t.Errorf("the owner's own: %v", err)
	}
	check(t, a.RemoveApp(t.Context(), "shop"))
	if a.good(k.ID) || a.HasApp("shop") || len(a.Spaces(Table)) != 0 {
		t.Error("something of the app is left")
	}
	// One of the same name is another.
	check(t, a.MakeApp(t.Context(), "shop"))
	if a.good(k.ID) {
		t.Error("a key of the old app opens the new one")
	}
}

func TestAKeyEnds(t *testing.T) {
	c := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	d := newDevice(t, "laptop", func(o Options) (*Cloud, error) {
		o.Clock = c
		return Create(t.Context(), o, nil)
	})
	k := d.makeKey(AppKey{Rights: AllRights(), Until: c.Now().Add(time.Hour)})
	c.Advance(time.Hour - time.Second)
	if !d.good(k.ID) {
		t.Error("it ended early")
	}
	c.Advance(time.Second)
	if d.good(k.ID) {
		t.Error("it goes on")
	}
}

// Two devices that don't know of each other make what has one name.
func TestNamedSpacesAreMadeAlike(t *testing.T) {
	a := first(t)
	b := a.admit("attic")
	info := SpaceInfo{Kind: Table, App: "shop", Name: "catalog"}
	x, err := a.MakeNamed(t.Context(), info)
	check(t, err)
	y, err := b.MakeNamed(t.Context(), info)
	check(t, err)
	if x.Info().ID != y.Info().ID {
		t.Fatal("they are two")
	}
	for key, s := range map[string]*Space{"a": x, "b": y} {
		batch, err := s.Tree().Batch(t.Context())
		check(t, err)
		check(t, batch.Put(t.Context(), []byte(key), []byte("1")))
		check(t, batch.Flush(t.Context()))
	}
	cut := link(t, a, b)
	both := func(s *Space) bool {
		n := 0
		for _, key := range []string{"a", "b"} {
			if _, err := s.Tree().Get(t.Context(), []byte(key)); err == nil {
				n++
			}
		}
		return n == 2
	}
	for d, s := range map[*device]*Space{a: x, b: y} {
		defer s.Tree().Notify(d.options().Changed)()
		d.until("what both have written", func() bool { return both(s) })
	}
	cut()
	if _, err := a.MakeNamed(t.Context(), info); !errors.Is(err, ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	check(t, a.Update(t.Context(), x.Info().ID, func(i *SpaceInfo) { i.Removed = true }))
	z, err := a.MakeNamed(t.Context(), info)
	check(t, err)
	if z.Info().ID == x.Info().ID {
		t.Error("what was removed is back")
	}
}

// A device says of apps and keys what can't be.
func TestHostileAppsAndKeysAreLeftOut(t *testing.T) {
	a := first(t)
	k := a.makeKey(AppKey{Rights: AllRights()})
	check(t, a.RevokeAppKey(t.Context(), k.ID))
	h := a.admit("thief")
	defer link(t, a, h)()
	h.until("the key", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.appKeys[k.ID].Revoked
	})
	secret := strings.Repeat("A", 40)
	row := func(rights, more string) []byte {
		return fmt.Appendf(nil, `{"version":1,"secret":%q,"rights":%s%s}`, secret, rights, more)
	}
	id := func(n int) string { return fmt.Sprintf("BVAAAAAAAAAAAAAAAA%c%c", 'A'+n/26, 'A'+n%26) }
	bad := [][]byte{
		nil, []byte("{"), []byte(`{}`), []byte(`null`),
		row(`null`, ""), row(`[]`, ""), row(`[{"name":""}]`, ""), row(`[{"name":"*","service":"ssh"}]`, ""), row(`[{"name":"\u001b[2J"}]`, ""),
		row(`[`+strings.Repeat(`{"name":"x"},`, maxRights)+`{"name":"x"}]`, ""),
		row(`[{"name":"*"}]`, `,"app":"a/b"`), row(`[{"name":"*"}]`, `,"note":"\u202e"`), row(`[{"name":"*"}]`, `,"until":"soon"`),
		[]byte(`{"version":2,"secret":"` + secret + `","rights":[{"name":"*"}]}`),
		[]byte(`{"version":1,"secret":"short","rights":[{"name":"*"}]}`),
		row(`[{"name":"*"}]`, `,"x":"`+strings.Repeat("x", maxAppRow)+`"`),
	}
	entries := map[string][]byte{
		appRows + "a/b": []byte(`{"version":1}`), appRows + "ok": []byte(`{"version":2}`), appRows: []byte(`{"version":1}`),
		appKeyRows + "AKIAAAAAAAAAAAAAAAAA": row(`[{"name":"*"}]`, ""), appKeyRows + strings.ToLower(id(0)): row(`[{"name":"*"}]`, ""),
		// A key can't be made good again, neither by saying so nor by forgetting it.
		revokedKeyRows + k.ID: nil, appKeyRows + k.ID: row(`[{"name":"*","write":true}]`, ""),
		appKeyRows + id(300): row(`[{"name":"x"}]`, ""), // which is as it must be
	}
	for i, b := range bad {
		entries[appKeyRows+id(i)] = b
	}
	check(t, h.putAll(t.Context(), entries))
	a.until("the good one", func() bool { return a.good(id(300)) })
	for i, b := range bad {
		if a.good(id(i)) {
			t.Errorf("%.100q was taken for a key", b)
		}
	}
	if a.good(k.ID) || len(a.Apps()) != 1 || len(a.AppKeys("")) != 1 {
		t.Errorf("apps %v, keys %v", a.Apps(), a.AppKeys(""))
	}
}

func TestRights(t *testing.T) {
	k := AppKey{Rights: []AppRight{{Service: "s3", Name: "photos-*-raw"}, {Service: "dynamodb", Name: "orders", Write: true}, {Name: "*x*y"}}}
	for _, c := range []struct {
		service, name string
		write, want   bool
	}{
		{"s3", "photos-2026-raw", false, true},
		{"s3", "photos--raw", false, true},
		{"s3", "photos-raw", false, false},
		{"s3", "photos-2026-raw", true, false},
		{"dynamodb", "photos-2026-raw", false, false},
		{"dynamodb", "orders", true, true},
		{"dynamodb", "orders", false, true},
		{"dynamodb", "orders2", false, false},
		{"dynamodb", "2orders", false, false},
		{"s3", "orders", false, false},
		{"s3", "axby", false, true},
		{"s3", "xy", false, true},
		{"s3", "yx", false, false},
		{"s3", "*", false, false},
		{"s3", "", false, false},
	} {
		if got := k.May(c.service, c.name, c.write); got != c.want {
			t.Errorf("%s %q, write %v: %v, want %v", c.service, c.name, c.write, got, c.want)
		}
	}
	all := AppKey{Rights: AllRights()}
	if none := (&AppKey{}); !all.May("s3", "*", true) || none.May("s3", "a", false) {
		t.Error("all and nothing are different from that")
	}
}
