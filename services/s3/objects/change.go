package objects

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
)

// SetTags replaces the tags of an object or a version.
func (b *Bucket) SetTags(ctx context.Context, key, version string, tags []Tag) (Object, error) {
	return b.change(ctx, key, version, Tagged, func(_ *tx, a *attributes) error {
		a.tags = slices.Clone(tags)
		return nil
	})
}

// SetACL replaces the ACL of an object or a version.
func (b *Bucket) SetACL(ctx context.Context, key, version, acl string) (Object, error) {
	return b.change(ctx, key, version, ACLChanged, func(_ *tx, a *attributes) error {
		a.acl = acl
		return nil
	})
}

// SetRetention sets the mode of a version's lock and until when. It can be made
// longer by anybody; shorter, or taken away with an empty mode, only in mode
// Governance with bypass.
func (b *Bucket) SetRetention(ctx context.Context, key, version, mode string, until time.Time, bypass bool) (Object, error) {
	return b.change(ctx, key, version, RetentionChanged, func(x *tx, a *attributes) error {
		l := &a.lock
		locked := l.Mode != "" && x.t.Time().Before(l.Until) && (l.Mode == Compliance || !bypass)
		stronger := mode == Compliance || mode == l.Mode
		if !slices.Contains(modes, mode) {
			return ErrState
		}
		if locked && (!stronger || until.Before(l.Until)) {
			return ErrLocked
		}
		if mode == "" {
			until = time.Time{}
		}
		if until.After(latestTime) {
			until = latestTime
		}
		l.Mode, l.Until = mode, until.UTC()
		return nil
	})
}

// SetHold sets or takes away a version's legal hold.
func (b *Bucket) SetHold(ctx context.Context, key, version string, hold bool) (Object, error) {
	return b.change(ctx, key, version, RetentionChanged, func(_ *tx, a *attributes) error {
		a.lock.Hold, a.lock.NoHold = hold, !hold
		return nil
	})
}

// change changes what is said of a version.
func (b *Bucket) change(ctx context.Context, key, name, event string, do func(*tx, *attributes) error) (out Object, err error) {
	err = checkKey(key)
	if err == nil {
		err = b.write(ctx, &job{run: func(x *tx) (err error) {
			out, err = x.change(key, name, event, do)
			return err
		}})
	}
	if err != nil {
		return Object{}, fmt.Errorf("change object %q: %w", key, err)
	}
	return out, nil
}

func (x *tx) change(key, name, event string, do func(*tx, *attributes) error) (Object, error) {
	s, err := x.getState()
	if err != nil {
		return Object{}, err
	}
	v, ok, err := x.now().current(x.ctx, key)
	if err != nil {
		return Object{}, err
	}
	id := v.id
	if name != "" {
		var known bool
		if id, known = readVersion(name); !known {
			return Object{}, ErrNoVersion
		}
	} else if !ok {
		return Object{}, ErrNoKey
	}
	current := ok && v.id == id
	row := rowOf(rowVersion, key, id)
	kept, there, err := x.now().row(x.ctx, row)
	if err != nil {
		return Object{}, err
	}
	switch {
	case current && id == nullID:
		there = false // the row is of an earlier one
	case !current && !there:
		return Object{}, ErrNoVersion
	case !current:
		v = kept
	}
	if v.a.marker {
		return v.object(key, s, false), ErrMarker
	}
	if event == RetentionChanged && !s.Locks {
		return Object{}, ErrNoLock
	}
	if v.plain {
		v.ModTime, v.plain = v.Time, false
	}
	if err := do(x, &v.a); err != nil {
		return Object{}, err
	}
	if len(v.a.encode()) > folder.MaxAttributes-512 {
		return Object{}, fmt.Errorf("metadata: %w", ErrTooLarge)
	}
	v.a.event, v.a.by = event, ""
	if current {
		if err := x.putCurrent(key, &v); err != nil {
			return Object{}, err
		}
		v.a.event = "" // it is told of once
	}
	if there {
		if err := x.putRow(row, &v); err != nil {
			return Object{}, err
		}
	}
	return v.object(key, s, current), nil
}
