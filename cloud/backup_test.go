package cloud

import (
	"bytes"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
)

// All machines are gone, but for a copy of the logs.
func TestACloudIsRecoveredFromItsLogs(t *testing.T) {
	a := first(t)
	a.write(a.makeTable("notes"), "one", "by the first key")
	gone := a.makeTable("gone")
	a.write(gone, "x", "y")
	if err := a.Update(t.Context(), gone.Info().ID, func(i *SpaceInfo) { i.Removed = true }); err != nil {
		t.Fatal(err)
	}
	b, thief := a.admit("attic"), a.admit("phone")
	cutB, cutThief := link(t, a, b), link(t, a, thief)
	b.gets("notes", "one", "by the first key")
	b.write(b.space("notes"), "two", "by another device")
	a.gets("notes", "two", "by another device")
	cutThief()
	if err := a.Revoke(t.Context(), thief.Self()); err != nil {
		t.Fatal(err)
	}
	<-a.Stale()
	cutB()
	a.reopen(false)
	a.write(a.space("notes"), "three", "by the second key")

	seed, _, _ := a.Seed()
	root, err := a.Root()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := a.SealForOwner([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := UnsealAsOwner(seed, sealed); !ok || string(got) != "secret" {
		t.Errorf("unsealed %q", got)
	}
	if _, ok := UnsealAsOwner([32]byte{1}, sealed); ok {
		t.Error("somebody else unseals it")
	}

	c := newDevice(t, "new laptop", func(o Options) (*Cloud, error) {
		logs, err := a.Logs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range logs {
			if l.Removed != (l.Space == gone.Info().ID) {
				t.Errorf("%+v", l)
			}
			if l.Removed {
				continue
			}
			var buf bytes.Buffer
			if _, _, err := a.store.ExportPart(t.Context(), l.Key, &buf, wholeLog(t, a, l)); err != nil {
				t.Fatal(err)
			}
			if _, err := o.Store.Import(t.Context(), &buf); err != nil {
				t.Fatal(err)
			}
		}
		return Create(t.Context(), o, &seed)
	})
	if err := c.Learn(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"one": "by the first key", "two": "by another device", "three": "by the second key"} {
		c.gets("notes", key, want)
	}
	c.write(c.space("notes"), "four", "by the new one")
	if got := c.reads("notes", "four"); got != "by the new one" {
		t.Errorf("what it writes itself: %q", got)
	}
	c.reopen(false)
	c.gets("notes", "two", "by another device")
	// A machine that comes back after all is one of the same cloud.
	link(t, a, c)
	a.gets("notes", "four", "by the new one")

	for _, root := range []string{"", "{}", `{"control":[]}`, `{"control":[{"space":"control"}]}`} {
		if c.Learn(t.Context(), []byte(root)) == nil {
			t.Errorf("learned from the root %q", root)
		}
	}
}

// wholeLog is a part with all that a device holds of a log.
func wholeLog(t *testing.T, d *device, l Log) (p corestore.Part) {
	t.Helper()
	log, err := d.store.Get(corestore.LogOptions{Key: &l.Key, MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for r, ok := log.NextHeld(0); ok; r, ok = log.NextHeld(r.End) {
		p.Blocks = append(p.Blocks, r)
	}
	return p
}
