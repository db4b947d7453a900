package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Rule of a lifecycle says what goes when. It is about all that its filter takes.
type Rule struct {
	ID     string
	Prefix string
	Tags   []Tag
	// Larger and Smaller are exclusive; 0 is no bound.
	Larger, Smaller int64

	// Days after which a current version is deleted, or Date from when on.
	Days int
	Date time.Time
	// Marker removes markers that are the only version of their key.
	Marker bool
	// OldDays after a version was replaced it goes, if Keep newer ones of those there are.
	OldDays, Keep int
	// UploadDays after it was begun an upload is aborted.
	UploadDays int
}

// Expired is what Expire did.
type Expired struct{ Objects, Versions, Markers, Uploads int }

// forgotten is after what time an upload is aborted that no rule names.
const forgotten = 7 * 24 * time.Hour

// expireAtOnce is how many objects are removed with one append.
const expireAtOnce = 500

// Expire does what rules say is due at a time, and aborts uploads that are older than
// a week and that no rule names. Locked versions stay, and what has changed meanwhile.
func (b *Bucket) Expire(ctx context.Context, rules []Rule, now time.Time) (Expired, error) {
	e := expiry{b: b, ctx: ctx, rules: rules, now: now}
	err := e.objects()
	if err == nil {
		err = e.uploads()
	}
	if err != nil {
		return e.done, fmt.Errorf("expire in bucket %q: %w", b.Name(), err)
	}
	return e.done, nil
}

// An expiry is one that is going on.
type expiry struct {
	b     *Bucket
	ctx   context.Context
	rules []Rule
	now   time.Time
	done  Expired
	err   error

	list   []DeleteOne
	counts []*int // what each of them counts as

	last  Object    // of the key that is looked at
	since time.Time // when what comes next was replaced
	n     int       // versions of the key so far
	old   int       // those that were replaced
}

// due reports whether days have passed, and the day that they ended on.
func (e *expiry) due(since time.Time, days int) bool {
	t := since.UTC().AddDate(0, 0, days)
	if midnight := t.Truncate(24 * time.Hour); t.After(midnight) {
		t = midnight.AddDate(0, 0, 1)
	}
	return !e.now.Before(t)
}

func (e *expiry) objects() error {
	if !slices.ContainsFunc(e.rules, func(r Rule) bool { return r.Days > 0 || !r.Date.IsZero() || r.Marker || r.OldDays > 0 }) {
		return nil
	}
	s, err := e.b.State(e.ctx)
	if err != nil {
		return err
	}
	err = e.b.versions(e.ctx, ListOptions{}, s, func(o Object) bool {
		e.look(o, s)
		return e.err == nil
	}, nil)
	if err == nil {
		err = e.err
	}
	if err != nil {
		return err
	}
	e.alone()
	e.flush()
	return e.err
}

// look looks at the next version.
func (e *expiry) look(o Object, s State) {
	if o.Key != e.last.Key || e.n == 0 {
		e.alone()
		e.n, e.old = 0, 0
	}
	e.n++
	since := e.since // when it was replaced
	e.last, e.since = o, o.v.when()
	if o.Latest {
		for i := range e.rules {
			r := &e.rules[i]
			if !o.Marker && (r.Days > 0 && e.due(o.Modified, r.Days) || !r.Date.IsZero() && !e.now.Before(r.Date)) && e.takes(r, o) {
				e.remove(o, DeleteOptions{event: ExpiredMarker}, &e.done.Objects)
				return
			}
		}
		return
	}
	if e.n == 1 || s.Versioning == Unversioned {
		since = o.Modified // what replaced it is not known: it was removed outside of S3
	}
	e.old++
	for i := range e.rules {
		r := &e.rules[i]
		if r.OldDays > 0 && e.old > r.Keep && e.due(since, r.OldDays) && e.takes(r, o) {
			e.remove(o, DeleteOptions{Version: o.Version}, &e.done.Versions)
			return
		}
	}
}

// alone removes a marker that is all that there is of its key.
func (e *expiry) alone() {
	if e.n != 1 || !e.last.Marker || !e.last.Latest {
		return
	}
	for i := range e.rules {
		if r := &e.rules[i]; r.Marker && strings.HasPrefix(e.last.Key, r.Prefix) && len(r.Tags) == 0 {
			e.remove(e.last, DeleteOptions{Version: e.last.Version}, &e.done.Markers)
			return
		}
	}
}

// takes reports whether a rule is about an object.
func (e *expiry) takes(r *Rule, o Object) bool {
	if !strings.HasPrefix(o.Key, r.Prefix) || r.Larger > 0 && o.Size <= r.Larger || r.Smaller > 0 && o.Size >= r.Smaller {
		return false
	}
	if len(r.Tags) == 0 {
		return true
	}
	var a attributes // with the tags, which lists leave out
	if a.decode(o.v.Attributes, false) != nil {
		return false
	}
	for _, t := range r.Tags {
		if !slices.Contains(a.tags, t) {
			return false
		}
	}
	return true
}

func (e *expiry) remove(o Object, how DeleteOptions, count *int) {
	how.seen = o.v.Time
	e.list, e.counts = append(e.list, DeleteOne{o.Key, how}), append(e.counts, count)
	if len(e.list) >= expireAtOnce {
		e.flush()
	}
}

func (e *expiry) flush() {
	if len(e.list) == 0 || e.err != nil {
		return
	}
	var out []Deleted
	out, e.err = e.b.DeleteMany(e.ctx, e.list)
	for i, d := range out {
		if d.Err == nil {
			*e.counts[i]++
		}
	}
	e.list, e.counts = nil, nil
}

func (e *expiry) uploads() error {
	for o := (ListOptions{}); ; {
		page, err := e.b.ListUploads(e.ctx, o)
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			due, named := false, false
			for i := range e.rules {
				if r := &e.rules[i]; r.UploadDays > 0 && strings.HasPrefix(u.Key, r.Prefix) && len(r.Tags) == 0 {
					named = true
					due = due || e.due(u.Created, r.UploadDays)
				}
			}
			if due || !named && !e.now.Before(u.Created.Add(forgotten)) {
				if err := e.b.Abort(e.ctx, u.Key, u.ID); err != nil && !errors.Is(err, ErrNoUpload) {
					return err
				}
				e.done.Uploads++
			}
		}
		if !page.More {
			return nil
		}
		o.After, o.AfterUpload = page.Next, page.NextUpload
	}
}
