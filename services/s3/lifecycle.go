package s3

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// lifecycle is a bucket's, as it is in XML.
type lifecycle struct {
	Rule []lifecycleRule
}

type lifecycleRule struct {
	ID         string
	Status     string
	Prefix     *string          `xml:",omitempty"`
	Filter     *lifecycleFilter `xml:",omitempty"`
	Expiration *struct {
		Days                      *int    `xml:",omitempty"`
		Date                      *string `xml:",omitempty"`
		ExpiredObjectDeleteMarker *bool   `xml:",omitempty"`
	} `xml:",omitempty"`
	NoncurrentVersionExpiration *struct {
		NoncurrentDays          *int `xml:",omitempty"`
		NewerNoncurrentVersions *int `xml:",omitempty"`
	} `xml:",omitempty"`
	AbortIncompleteMultipartUpload *struct {
		DaysAfterInitiation int
	} `xml:",omitempty"`
	Transition                  []transition `xml:",omitempty"`
	NoncurrentVersionTransition []transition `xml:",omitempty"`
}

type transition struct {
	Date         *string
	StorageClass string
}

type lifecycleFilter struct {
	Prefix                *string `xml:",omitempty"`
	Tag                   *xmlTag `xml:",omitempty"`
	ObjectSizeGreaterThan *int64  `xml:",omitempty"`
	ObjectSizeLessThan    *int64  `xml:",omitempty"`
	And                   *struct {
		Prefix                *string  `xml:",omitempty"`
		Tag                   []xmlTag `xml:",omitempty"`
		ObjectSizeGreaterThan *int64   `xml:",omitempty"`
		ObjectSizeLessThan    *int64   `xml:",omitempty"`
	} `xml:",omitempty"`
}

const maxRules = 1000

func readLifecycle(_ *call, body []byte) (any, error) {
	var in lifecycle
	if err := decode(body, "LifecycleConfiguration", &in); err != nil {
		return nil, err
	}
	if len(in.Rule) == 0 || len(in.Rule) > maxRules {
		return nil, fail("MalformedXML")
	}
	seen := map[string]bool{}
	for i := range in.Rule {
		r := &in.Rule[i]
		if r.ID == "" {
			var b [8]byte
			rand.Read(b[:])
			r.ID = hex.EncodeToString(b[:])
		}
		if len(r.ID) > 255 {
			return nil, badArgument("ID", r.ID, "ID length should not exceed allowed limit of 255")
		}
		if seen[r.ID] {
			return nil, badArgument("ID", r.ID, "Rule ID must be unique. Found same ID for more than one rule")
		}
		seen[r.ID] = true
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// check refuses rules that make no sense, or that would move objects elsewhere, which
// there is not.
func (r *lifecycleRule) check() error {
	switch {
	case r.Status != "Enabled" && r.Status != "Disabled", r.Prefix == nil && r.Filter == nil, r.Prefix != nil && r.Filter != nil:
		return fail("MalformedXML")
	case len(r.Transition) > 0 || len(r.NoncurrentVersionTransition) > 0:
		for _, t := range r.Transition {
			if t.Date != nil {
				if _, err := midnight(*t.Date); err != nil {
					return err
				}
			}
		}
		return notImplemented("Transitions to other storage classes are not implemented")
	case r.Expiration == nil && r.NoncurrentVersionExpiration == nil && r.AbortIncompleteMultipartUpload == nil:
		return badRequest("At least one action needs to be specified in a rule")
	}
	if e := r.Expiration; e != nil {
		kinds := 0
		if e.Days != nil {
			kinds++
			if *e.Days < 1 {
				return badArgument("Days", "", "'Days' for Expiration action must be a positive integer")
			}
		}
		if e.Date != nil {
			kinds++
			if _, err := midnight(*e.Date); err != nil {
				return err
			}
		}
		if e.ExpiredObjectDeleteMarker != nil {
			kinds++
		}
		if kinds != 1 {
			return fail("MalformedXML")
		}
	}
	if n := r.NoncurrentVersionExpiration; n != nil {
		switch {
		case n.NoncurrentDays == nil:
			return fail("MalformedXML")
		case *n.NoncurrentDays < 1:
			return badArgument("NoncurrentDays", "", "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer")
		case n.NewerNoncurrentVersions != nil && (*n.NewerNoncurrentVersions < 1 || *n.NewerNoncurrentVersions > 100):
			return badArgument("NewerNoncurrentVersions", "", "'NewerNoncurrentVersions' must be a positive integer up to 100")
		}
	}
	if a := r.AbortIncompleteMultipartUpload; a != nil && a.DaysAfterInitiation < 1 {
		return badArgument("DaysAfterInitiation", "", "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer")
	}
	return r.checkFilter()
}

func (r *lifecycleRule) checkFilter() error {
	f := r.Filter
	if f == nil {
		return nil
	}
	kinds := 0
	for _, set := range []bool{f.Prefix != nil, f.Tag != nil, f.ObjectSizeGreaterThan != nil, f.ObjectSizeLessThan != nil, f.And != nil} {
		if set {
			kinds++
		}
	}
	tags := f.tags()
	if kinds > 1 || len(tags) > maxTags || checkTags(tags, maxTags) != nil {
		return fail("MalformedXML")
	}
	return nil
}

func (f *lifecycleFilter) tags() []objects.Tag {
	var out []objects.Tag
	if f.Tag != nil {
		out = append(out, objects.Tag(*f.Tag))
	}
	if f.And != nil {
		for _, t := range f.And.Tag {
			out = append(out, objects.Tag(t))
		}
	}
	return out
}

// midnight reads a date with or without a time, which has to be midnight.
func midnight(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02", "20060102"} {
		if at, err := time.Parse(layout, text); err == nil {
			at = at.UTC()
			if !at.Equal(at.Truncate(24 * time.Hour)) {
				return at, badArgument("Date", text, "'Date' must be at midnight GMT")
			}
			return at, nil
		}
	}
	return time.Time{}, fail("MalformedXML")
}

// rules are the rules that are in force, as objects has them.
func (l lifecycle) rules() []objects.Rule {
	var out []objects.Rule
	for _, r := range l.Rule {
		if r.Status == "Enabled" {
			out = append(out, r.rule())
		}
	}
	return out
}

func (r *lifecycleRule) rule() objects.Rule {
	out := objects.Rule{ID: r.ID}
	first := func(list ...*string) {
		for _, p := range list {
			if p != nil {
				out.Prefix = *p
			}
		}
	}
	first(r.Prefix)
	if f := r.Filter; f != nil {
		first(f.Prefix)
		out.Tags = f.tags()
		larger, smaller := f.ObjectSizeGreaterThan, f.ObjectSizeLessThan
		if a := f.And; a != nil {
			first(a.Prefix)
			larger, smaller = a.ObjectSizeGreaterThan, a.ObjectSizeLessThan
		}
		if larger != nil {
			out.Larger = *larger
		}
		if smaller != nil {
			out.Smaller = *smaller
		}
	}
	if e := r.Expiration; e != nil {
		switch {
		case e.Days != nil:
			out.Days = *e.Days
		case e.Date != nil:
			out.Date, _ = midnight(*e.Date)
		case e.ExpiredObjectDeleteMarker != nil:
			out.Marker = *e.ExpiredObjectDeleteMarker
		}
	}
	if n := r.NoncurrentVersionExpiration; n != nil {
		out.OldDays = *n.NoncurrentDays
		if n.NewerNoncurrentVersions != nil {
			out.Keep = *n.NewerNoncurrentVersions
		}
	}
	if a := r.AbortIncompleteMultipartUpload; a != nil {
		out.UploadDays = a.DaysAfterInitiation
	}
	return out
}

func lifecycleRules(ctx context.Context, b *objects.Bucket) ([]objects.Rule, error) {
	var l lifecycle
	_, err := config(ctx, b, "lifecycle", "LifecycleConfiguration", &l)
	return l.rules(), err
}

// setExpiration says in a header when an object expires.
func (c *call) setExpiration(o objects.Object) {
	rules, err := lifecycleRules(c.ctx, c.b)
	if err != nil {
		return
	}
	var at time.Time
	var id string
	for _, r := range rules {
		if !takes(r, o) {
			continue
		}
		due := r.Date
		if r.Days > 0 {
			// The midnight that follows, as S3 counts.
			due = o.Modified.UTC().AddDate(0, 0, r.Days).Truncate(24*time.Hour).AddDate(0, 0, 1)
		}
		if !due.IsZero() && (at.IsZero() || due.Before(at)) {
			at, id = due, r.ID
		}
	}
	if !at.IsZero() {
		c.h.Set("x-amz-expiration", `expiry-date="`+at.Format(http.TimeFormat)+`", rule-id="`+id+`"`)
	}
}

// takes reports whether a rule is about an object.
func takes(r objects.Rule, o objects.Object) bool {
	if !strings.HasPrefix(o.Key, r.Prefix) || r.Larger > 0 && o.Size <= r.Larger || r.Smaller > 0 && o.Size >= r.Smaller {
		return false
	}
	return !slices.ContainsFunc(r.Tags, func(t objects.Tag) bool { return !slices.Contains(o.Tags, t) })
}

// expireAll is called by the timer: it expires what is due in all buckets, one after
// the other.
func (d *Door) expireAll() {
	if !d.enter() {
		return
	}
	go func() {
		defer d.busy.Done()
		at := d.o.Clock.Now()
		err := d.Expire(d.ctx)
		if err != nil && d.ctx.Err() == nil {
			d.o.Log.Error("expire objects", "err", err)
		}
		if err == nil && d.o.Tidy != nil {
			d.o.Tidy(at)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.closed {
			d.timer = d.o.Clock.AfterFunc(expiryInterval, d.expireAll)
		}
	}()
}

// Expire does in all buckets what their lifecycles say is due, and forgets uploads
// that nobody ended. The door does so by itself from time to time.
func (d *Door) Expire(ctx context.Context) error {
	apps, err := d.o.Apps(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		list, err := d.store.List(ctx, app)
		if err != nil {
			return err
		}
		for _, i := range list {
			if d.o.Tidies != nil && !d.o.Tidies(ctx, app, i.Name) {
				continue
			}
			if err := d.expire(ctx, app, i.Name); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				d.o.Log.Error("expire objects", "app", app, "bucket", i.Name, "err", err)
			}
		}
	}
	return nil
}

func (d *Door) expire(ctx context.Context, app, name string) error {
	b, err := d.store.Open(ctx, app, name)
	if err != nil {
		return err
	}
	rules, err := lifecycleRules(ctx, b)
	if err == nil {
		_, err = b.Expire(ctx, rules, d.o.Clock.Now())
	}
	if also := b.Close(); err == nil {
		err = also
	}
	return err
}
