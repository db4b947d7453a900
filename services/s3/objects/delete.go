package objects

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// DeleteOptions for Delete.
type DeleteOptions struct {
	// Version is the one to remove for good. Without it, a bucket with versions gets a
	// marker.
	Version string
	If      Conditions
	// Bypass goes past locks of mode Governance.
	Bypass bool
	By     string

	seen  time.Time // when what is to be removed was said; zero if that is no matter
	event string    // what Changes calls it
}

// Deleted is what Delete did.
type Deleted struct {
	Key     string
	Version string // that was removed, or of the marker that was made
	Marker  bool   // a marker was made, or removed
	Err     error  // of DeleteMany
}

// Delete removes an object or a version. What is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string, o DeleteOptions) (Deleted, error) {
	list, err := b.DeleteMany(ctx, []DeleteOne{{key, o}})
	if err == nil {
		err = list[0].Err
	}
	if err != nil {
		return Deleted{}, fmt.Errorf("delete object %q: %w", key, err)
	}
	return list[0], nil
}

// DeleteOne is one of those that DeleteMany removes.
type DeleteOne struct {
	Key string
	DeleteOptions
}

// DeleteMany removes objects in one append, each as Delete does. The error is that of
// the whole.
func (b *Bucket) DeleteMany(ctx context.Context, list []DeleteOne) ([]Deleted, error) {
	out := make([]Deleted, len(list))
	err := b.write(ctx, &job{run: func(x *tx) error {
		for i, o := range list {
			d, err := x.delete(o.Key, o.DeleteOptions)
			if x.err != nil {
				return err
			}
			d.Key, d.Err = o.Key, err
			out[i] = d
		}
		return nil
	}})
	if err != nil {
		return nil, fmt.Errorf("delete objects: %w", err)
	}
	return out, nil
}

func (x *tx) delete(key string, o DeleteOptions) (Deleted, error) {
	if err := checkKey(key); err != nil {
		return Deleted{}, err
	}
	s, err := x.getState()
	if err != nil {
		return Deleted{}, err
	}
	old, ok, err := x.now().current(x.ctx, key)
	if err != nil {
		return Deleted{}, err
	}
	if o.Version != "" {
		return x.deleteVersion(key, old, ok, o)
	}
	if err := o.If.check(&old, ok); err != nil {
		return Deleted{}, err
	}
	if !o.expected(&old, ok) {
		return Deleted{}, ErrPrecondition
	}
	if s.Versioning == Unversioned {
		if ok {
			err = x.removeCurrent(key)
		}
		return Deleted{}, err
	}
	if err := x.replace(key, s, old, ok); err != nil {
		return Deleted{}, err
	}
	// First the object, then the marker: Changes knows by it that they are one.
	if ok {
		if err := x.removeCurrent(key); err != nil {
			return Deleted{}, err
		}
	}
	event := MarkerMade
	if o.event != "" {
		event = o.event
	}
	v := version{Entry: folder.Entry{Content: content.Empty(), ModTime: x.t.Time()}, a: attributes{marker: true, event: event, by: o.By}, id: nullID}
	if s.Versioning == Enabled {
		v.id = x.newID()
		v.a.version = []byte(v.id)
	}
	if err := x.putRow(rowOf(rowVersion, key, v.id), &v); err != nil {
		return Deleted{}, err
	}
	return Deleted{Version: versionName(v.id), Marker: true}, nil
}

// expected reports whether what is there is what was seen, if that counts.
func (o *DeleteOptions) expected(v *version, ok bool) bool {
	return o.seen.IsZero() || ok && v.Time.Equal(o.seen)
}

// deleteVersion removes a version for good.
func (x *tx) deleteVersion(key string, old version, current bool, o DeleteOptions) (Deleted, error) {
	out := Deleted{Version: o.Version}
	id, ok := readVersion(o.Version)
	if !ok {
		return out, nil
	}
	name := rowOf(rowVersion, key, id)
	row, there, err := x.now().row(x.ctx, name)
	if err != nil {
		return Deleted{}, err
	}
	isCurrent := current && old.id == id
	if isCurrent && id == nullID {
		there = false // the row is of an earlier one
	}
	target := row
	if isCurrent {
		target = old
	}
	found := isCurrent || there
	if err := o.If.check(&target, found && !target.a.marker); err != nil {
		return Deleted{}, err
	}
	if !found {
		return out, nil
	}
	if !o.expected(&target, found) {
		return Deleted{}, ErrPrecondition
	}
	for _, v := range []*version{&row, &old} {
		if (v == &row && there || v == &old && isCurrent) && v.locked(x.t.Time(), o.Bypass) {
			return Deleted{}, ErrLocked
		}
	}
	out.Marker = target.a.marker
	promote := isCurrent
	if !current && target.a.marker {
		newest, ok, err := x.newestRow(key)
		if err != nil {
			return Deleted{}, err
		}
		promote = ok && newest.id == id
	}
	// First the object, then the row: Changes knows by it that they are one.
	if isCurrent {
		if err := x.removeCurrent(key); err != nil {
			return Deleted{}, err
		}
	}
	if there {
		if err := x.removeRow(name); err != nil {
			return Deleted{}, err
		}
	}
	if promote {
		if err := x.promote(key); err != nil {
			return Deleted{}, x.broke(err)
		}
	}
	return out, nil
}

func (x *tx) newestRow(key string) (version, bool, error) {
	return newestRow(key, func(o hyperbee.RangeOptions) iter.Seq2[folder.Entry, error] { return x.t.Asides(x.ctx, o) })
}

// promote makes the newest version of a key the latest.
func (x *tx) promote(key string) error {
	v, ok, err := x.newestRow(key)
	if err != nil || !ok || v.a.marker {
		return err
	}
	if v.id == nullID {
		if err := x.removeRow(rowOf(rowVersion, key, nullID)); err != nil {
			return err
		}
	}
	v.a.event, v.a.by = "", ""
	return x.putCurrent(key, &v)
}

// locked reports whether a version can't be removed.
func (v *version) locked(now time.Time, bypass bool) bool {
	l := v.a.lock
	return l.Hold || l.Mode != "" && now.Before(l.Until) && (l.Mode == Compliance || !bypass)
}
