package objects

import (
	"fmt"
	"testing"
	"time"
)

const aDay = 24 * time.Hour

func TestRulesRemoveWhatIsDue(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.put("old/1", "")
	r.put("old/2", "12345")
	r.put("keep", "")
	_, err := r.SetTags(ctx, "old/1", "", []Tag{{"a", "b"}})
	must(t, err)
	u, _ := r.upload("forgotten", []int{1}, []byte("x"))
	expire := func(days int, rules ...Rule) Expired {
		t.Helper()
		e, err := r.Expire(ctx, rules, epoch.Add(time.Duration(days)*aDay))
		must(t, err)
		return e
	}
	want(t, "nothing", expire(300000/24/100, Rule{Prefix: "x", Days: 1, UploadDays: 1, Date: epoch}), Expired{Uploads: 1})
	_, err = r.Upload(ctx, "forgotten", u.ID)
	wantErr(t, "forgotten", err, ErrNoUpload)
	want(t, "not yet", expire(2, Rule{Prefix: "old/", Days: 2}), Expired{}) // until midnight
	want(t, "other tag", expire(9, Rule{Tags: []Tag{{"a", "c"}}, Days: 2}), Expired{})
	want(t, "tag", expire(9, Rule{Tags: []Tag{{"a", "b"}}, Days: 2}), Expired{Objects: 1})
	want(t, "size", expire(9, Rule{Days: 2, Larger: 5}, Rule{Days: 2, Smaller: 1, Prefix: "old"}), Expired{})
	want(t, "size", expire(9, Rule{Days: 2, Larger: 4, Smaller: 6}), Expired{Objects: 1})
	want(t, "date", expire(1, Rule{Date: epoch.Add(2 * aDay)}), Expired{})
	want(t, "left", fmt.Sprint(r.keys(ListOptions{})), "[keep]")
	want(t, "date", expire(3, Rule{Date: epoch.Add(2 * aDay)}), Expired{Objects: 1})
}

func TestRulesRemoveOldVersionsAndMarkers(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.versioned()
	for i := range 5 {
		r.put("k", fmt.Sprint(i))
		r.clock.Advance(aDay)
	}
	expire := func(rules ...Rule) Expired {
		t.Helper()
		e, err := r.Expire(ctx, rules, r.clock.Now())
		must(t, err)
		return e
	}
	// Numbers 3, 2, 1 and 0 were replaced 1, 2, 3 and 4 days ago, in the morning.
	want(t, "two days", expire(Rule{OldDays: 2}), Expired{Versions: 2})
	want(t, "left", fmt.Sprint(r.shown(ListOptions{})), "[k=4! k=3 k=2]")
	want(t, "keep one", expire(Rule{OldDays: 1, Keep: 1}), Expired{Versions: 1})
	want(t, "left", fmt.Sprint(r.shown(ListOptions{})), "[k=4! k=3]")
	r.clock.Advance(aDay)
	want(t, "current", expire(Rule{Days: 1}), Expired{Objects: 1})
	want(t, "left", fmt.Sprint(r.shown(ListOptions{})), "[k=marker! k=4 k=3]")
	want(t, "not alone", expire(Rule{Marker: true}), Expired{})
	r.clock.Advance(3 * aDay)
	want(t, "all old", expire(Rule{OldDays: 1, Marker: true}), Expired{Versions: 2})
	want(t, "alone", expire(Rule{Marker: true, OldDays: 1}), Expired{Markers: 1})
	want(t, "left", len(r.listed(ListOptions{})), 0)
	// Locks hold rules off.
	b, err := r.store.Make(ctx, "", "locked", true)
	must(t, err)
	defer b.Close()
	r = &rig{b, t, r.clock, r.store, r.spaces}
	r.state(func(s *State) { s.Default, s.Years = Compliance, 1 })
	r.put("k", "1")
	r.put("k", "2")
	r.clock.Advance(5 * aDay)
	want(t, "locked", expire(Rule{OldDays: 1}), Expired{})
}
