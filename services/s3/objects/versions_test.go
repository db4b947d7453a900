package objects

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
)

func TestVersionsAreKept(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.put("k", "before")
	r.versioned()
	one, two := r.put("k", "one"), r.put("k", "two")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=two! k=one k=before0]")
	want(t, "one", r.get("k", one.Version), "one")
	want(t, "null", r.get("k", Null), "before")
	d := r.remove("k", "")
	want(t, "marker", d.Marker, true)
	want(t, "latest", r.get("k", ""), "removed")
	want(t, "marker itself", r.get("k", d.Version), "marker")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=marker! k=two k=one k=before0]")
	want(t, "keys", len(r.keys(ListOptions{})), 0)
	_, err := r.f.Stat(ctx, "/k")
	wantErr(t, "file behind a marker", err, folder.ErrNotFound)
	// Without the marker the newest is the latest again.
	want(t, "removed marker", r.remove("k", d.Version).Marker, true)
	want(t, "latest", r.get("k", ""), "two")
	r.remove("k", two.Version)
	want(t, "latest", r.get("k", ""), "one")
	r.remove("k", one.Version)
	want(t, "latest", r.get("k", ""), "before")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=before!0]")
	// A marker where nothing was.
	r.remove("none", "")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{Prefix: "n"})), "[none=marker!]")
	for _, id := range []string{"x", strings.Repeat("0", 32), "0"} {
		want(t, "removed what is not there", r.remove("k", id), Deleted{Key: "k", Version: id})
		want(t, "other version", func() error { _, err := r.Head(ctx, "k", id); return errors.Unwrap(err) }(), ErrNoVersion)
	}
	r.remove("k", Null)
	want(t, "null gone", r.get("k", ""), "no key")
}

func TestSuspendedVersionsReplaceTheNullVersion(t *testing.T) {
	r := newRig(t)
	r.versioned()
	r.put("k", "one")
	r.state(func(s *State) { s.Versioning = Suspended })
	r.put("k", "null 1")
	r.put("k", "null 2")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=null 2!0 k=one]")
	want(t, "null marker", r.remove("k", "").Version, Null)
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=marker!0 k=one]")
	r.put("k", "null 3")
	r.versioned()
	r.put("k", "two")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=two! k=null 30 k=one]")
	for _, limit := range []int{1, 2} {
		want(t, "versions", fmt.Sprint(r.shown(ListOptions{Limit: limit})), "[k=two! k=null 30 k=one]")
	}
	wantErr(t, "back to none", r.SetState(t.Context(), func(s *State) { s.Versioning = Unversioned }), ErrState)
}

func TestWhatIsSavedOutsideOfS3LeavesVersions(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.versioned()
	one := r.put("k", "one")
	must(t, r.f.Put(ctx, "/k", strings.NewReader("disk 1"), folder.PutOptions{}))
	want(t, "latest", r.get("k", ""), "disk 1")
	want(t, "one", r.get("k", one.Version), "one")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=disk 1!0 k=one]")
	r.put("k", "two")
	must(t, r.f.Put(ctx, "/k", strings.NewReader("disk 2"), folder.PutOptions{}))
	r.put("k", "three")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=three! k=disk 2 k=two k=disk 10 k=one]")
	want(t, "two at a time", fmt.Sprint(r.shown(ListOptions{Limit: 2})), "[k=three! k=disk 2 k=two k=disk 10 k=one]")
	must(t, r.f.Remove(ctx, "/k", folder.RemoveOptions{}))
	want(t, "removed", r.get("k", ""), "no key")
	want(t, "versions", fmt.Sprint(r.shown(ListOptions{})), "[k=three k=disk 2 k=two k=disk 10 k=one]")
	r.remove("k", one.Version) // brings nothing back
	want(t, "removed", r.get("k", ""), "no key")
	// A version that was moved on a disk is one where it is now.
	moved := r.put("from", "moved")
	must(t, r.f.Move(ctx, "/from", "/to"))
	want(t, "moved", r.get("to", moved.Version), "moved")
	r.put("to", "over")
	want(t, "moved and replaced", r.get("to", moved.Version), "moved")
	want(t, "where it was", r.get("from", moved.Version), "moved")
}

func TestLocksHold(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, err := r.Put(ctx, "k", strings.NewReader(""), PutOptions{Lock: Lock{Hold: true}})
	wantErr(t, "lock without locks", err, ErrNoLock)
	b, err := r.store.Make(ctx, "", "locked", true)
	must(t, err)
	defer b.Close()
	r = &rig{b, t, r.clock, r.store, r.spaces}
	wantErr(t, "suspend", r.SetState(ctx, func(s *State) { s.Versioning = Suspended }), ErrState)
	r.state(func(s *State) { s.Default, s.Days = Governance, 2 })
	o := r.put("k", "one")
	until := o.Modified.AddDate(0, 0, 2)
	want(t, "default", o.Lock, Lock{Mode: Governance, Until: until})
	tryRemove := func(bypass bool) error {
		_, err := r.Delete(ctx, "k", DeleteOptions{Version: o.Version, Bypass: bypass})
		return err
	}
	wantErr(t, "locked", tryRemove(false), ErrLocked)
	r.remove("k", "") // a marker is no removal
	wantErr(t, "locked behind a marker", tryRemove(false), ErrLocked)
	retain := func(mode string, until time.Time, bypass bool) error {
		_, err := r.SetRetention(ctx, "k", o.Version, mode, until, bypass)
		return err
	}
	wantErr(t, "shorter", retain(Governance, until.Add(-time.Hour), false), ErrLocked)
	must(t, retain(Governance, until.Add(time.Hour), false))
	must(t, retain(Governance, until.Add(-time.Hour), true))
	must(t, retain(Compliance, until, false))
	wantErr(t, "compliance past", tryRemove(true), ErrLocked)
	wantErr(t, "compliance away", retain("", time.Time{}, true), ErrLocked)
	wantErr(t, "compliance to governance", retain(Governance, until.Add(time.Hour), true), ErrLocked)
	_, err = r.SetHold(ctx, "k", o.Version, true)
	must(t, err)
	r.clock.Advance(72 * time.Hour)
	wantErr(t, "held", tryRemove(true), ErrLocked)
	_, err = r.SetHold(ctx, "k", o.Version, false)
	must(t, err)
	// Tags can be changed at any time.
	_, err = r.SetTags(ctx, "k", o.Version, []Tag{{"a", "b"}})
	must(t, err)
	must(t, tryRemove(false))
	want(t, "gone", r.get("k", o.Version), "no version")
	// Neither does what happens to the file take the lock from the version.
	o = r.put("k", "two")
	must(t, r.f.Remove(ctx, "/k", folder.RemoveOptions{}))
	want(t, "version", r.get("k", o.Version), "two")
	wantErr(t, "locked without its file", tryRemove(false), ErrLocked)
}
