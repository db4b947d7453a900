package home

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/dynamodb"
)

// A past is a door to an app's tables as they were. It stays a while for who reads
// page by page: the version of each tree is chosen once, so that what comes from other
// machines meanwhile, with earlier times, does not show on later pages.
type past struct {
	app   string
	at    time.Time
	door  *dynamodb.Door
	users int         // guarded by the doors
	timer clock.Timer // ends it, while nobody uses it; guarded by the doors
}

const (
	// pastTime is how long one stays that nobody uses.
	pastTime = time.Minute
	// maxPasts is how many stay.
	maxPasts = 8
)

func (p *past) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// tablesAt returns the door for the tables of an app, as they were at a time if one is
// named, until done is called.
func (d *doors) tablesAt(ctx context.Context, app, at string) (door *dynamodb.Door, done func(), err error) {
	if at == "" {
		door, err = d.tables(ctx, app)
		return door, func() {}, err
	}
	when, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return nil, nil, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q is no time", at), Cause: "it is as in RFC 3339", Try: "2026-11-24T09:00:00Z"}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, errClosing
	}
	i := slices.IndexFunc(d.pasts, func(p *past) bool { return p.app == app && p.at.Equal(when) })
	if i < 0 {
		if err := d.openPast(ctx, app, when); err != nil {
			return nil, nil, err
		}
		i = len(d.pasts) - 1
	}
	p := d.pasts[i]
	p.stop()
	p.users++
	return p.door, func() { d.leavePast(p) }, nil
}

// openPast adds a past, in place of one that nobody uses if there are many. d.mu is
// held.
func (d *doors) openPast(ctx context.Context, app string, at time.Time) error {
	if len(d.pasts) >= maxPasts {
		i := slices.IndexFunc(d.pasts, func(p *past) bool { return p.users == 0 })
		if i < 0 {
			return &client.Error{Code: client.CodeConflict, Message: "cannot read tables as they were", Cause: fmt.Sprintf("that is being done at %d times already", maxPasts), Try: "the same in a minute"}
		}
		p := d.pasts[i]
		d.pasts = slices.Delete(d.pasts, i, i+1)
		p.stop()
		if err := p.door.Close(); err != nil {
			return err
		}
	}
	h := d.session.home
	door, err := dynamodb.NewPast(ctx, dynamodb.PastOptions{Past: appPast{d.session.cloud, app, at}, Clock: h.node.Clock(), Log: h.node.Log, Region: region})
	if errors.Is(err, dynamodb.ErrNotFound) {
		return &client.Error{Code: client.CodeNotFound, Message: "there are no tables", Cause: "none were made yet", Try: "bevy table ls"}
	}
	if err != nil {
		return err
	}
	d.pasts = append(d.pasts, &past{app: app, at: at, door: door})
	return nil
}

// leavePast ends a use of a past.
func (d *doors) leavePast(p *past) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.users--; p.users > 0 || d.closed {
		return
	}
	p.timer = d.session.home.node.Clock().AfterFunc(pastTime, func() {
		d.mu.Lock()
		i := slices.Index(d.pasts, p)
		if i < 0 || p.users > 0 {
			d.mu.Unlock()
			return
		}
		d.pasts = slices.Delete(d.pasts, i, i+1)
		d.mu.Unlock()
		if err := p.door.Close(); err != nil {
			d.session.home.node.Log.Error("a door did not close", "app", p.app, "err", err)
		}
	})
}

// appPast has the trees of an app as they were.
type appPast struct {
	cloud *cloud.Cloud
	app   string
	at    time.Time
}

// Open implements dynamodb.Past. It does not begin to write to the tree.
func (a appPast) Open(ctx context.Context, name string) (dynamodb.View, error) {
	info, err := a.cloud.Find(cloud.Table, a.app, name)
	if err != nil {
		return nil, fmt.Errorf("open tree %s as it was: %w", name, dynamodb.ErrNotFound)
	}
	space, err := a.cloud.Space(info.ID)
	if err != nil {
		return nil, err
	}
	return dynamodb.ViewOnCloud(ctx, space.Tree(), a.at)
}
