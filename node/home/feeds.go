package home

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/services/dynamodb"
	"github.com/cloudbevy/bevy/services/feed"
	"github.com/cloudbevy/bevy/services/s3"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// feedRoutes hangs into the node what it can be asked about changes.
func (h *Home) feedRoutes() {
	h.node.Route(
		node.Call("GET", "/feeds", "List who gets changes from this machine", h.getFeeds),
		node.Call("POST", "/feeds", "Hand the changes of a bucket or a table on", h.addFeed),
		node.Call("PATCH", "/feeds/{feed}", "Pause a feed, or have it go on at once", h.changeFeed),
		node.Call("DELETE", "/feeds/{feed}", "End a feed", h.dropFeed),
		node.Call("GET", "/changes", "Read what has changed in a bucket or a table", h.readChanges),
	)
}

// feedFile, in the folder of the cloud, has the feeds of this machine.
const feedFile = "feeds.json"

// loudFailures is after how many deliveries that failed the owner is told.
const loudFailures = 3

// openFeeds begins to serve the feeds of this machine, until the session ends.
func (s *session) openFeeds() (err error) {
	h := s.home
	s.feeds, err = feed.Open(feed.Options{
		State: cloud.FileVault(filepath.Join(h.dir, feedFile)), Source: s.source, HTTP: http.DefaultTransport, Clock: h.node.Clock(), Log: h.node.Log,
		Changed: func(f feed.Feed) {
			if f.Failures < loudFailures && !f.Stopped {
				h.node.Notices.Clear("feed-failed", f.Name)
				return
			}
			h.node.Notices.Raise(client.Notice{Code: "feed-failed", Subject: f.Name, Severity: client.Warning,
				Text: fmt.Sprintf("the feed %s of %s can't be delivered: %s", f.Name, f.Source, f.Error), Fix: "bevy feed resume " + f.Name})
		},
	})
	if err != nil {
		return err
	}
	s.work.Go(func() {
		<-s.ctx.Done()
		_ = s.feeds.Close() // it has no error
	})
	return nil
}

// source opens what is called "bucket:NAME", "notices:NAME" or "table:NAME".
func (s *session) source(ctx context.Context, app, name string) (feed.Source, error) {
	doors := s.home.doorsOf(s)
	kind, name, _ := strings.Cut(name, ":")
	switch kind {
	case "bucket", "notices":
		door, err := doors.buckets(ctx)
		if err != nil {
			return nil, err
		}
		b, err := door.Store().Open(ctx, app, name)
		if errors.Is(err, objects.ErrNoBucket) {
			err = fmt.Errorf("bucket %s: %w", name, feed.ErrNotFound)
		}
		switch {
		case err != nil:
			return nil, err
		case kind == "notices":
			return noticeSource{b, door, app}, nil
		}
		return bucketSource{b}, nil
	case "table":
		door, err := doors.tables(ctx, app)
		if err != nil {
			return nil, err
		}
		if _, err = door.Cursor(ctx, name); errors.Is(err, dynamodb.ErrNotFound) {
			err = fmt.Errorf("table %s: %w", name, feed.ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		return tableSource{door, name}, nil
	}
	return nil, fmt.Errorf("%w: a source is bucket:NAME, notices:NAME or table:NAME, not of the kind %q", feed.ErrInvalid, kind)
}

// A bucketSource is the changes of a bucket.
type bucketSource struct{ *objects.Bucket }

// A bucketChange is what docs/formats/feed.md says of one.
type bucketChange struct {
	Event     string    `json:"event"`
	Key       string    `json:"key"`
	Version   string    `json:"versionId,omitempty"`
	Size      int64     `json:"size,omitempty"`
	ETag      string    `json:"eTag,omitempty"`
	Time      time.Time `json:"time"`
	By        string    `json:"by,omitempty"`
	Sequencer string    `json:"sequencer"`
}

func (b bucketSource) Changes(ctx context.Context, cursor string) iter.Seq2[feed.Change, error] {
	return func(yield func(feed.Change, error) bool) {
		for e, err := range b.Bucket.Changes(ctx, cursor) {
			var data []byte
			if err == nil {
				data, err = json.Marshal(bucketChange{"s3:" + e.Name, e.Object.Key, e.Object.Version, e.Object.Size, e.Object.ETag, e.Time, e.By, e.Sequence})
			}
			if errors.Is(err, objects.ErrCursor) {
				err = fmt.Errorf("%w: %w", feed.ErrGone, err)
			}
			if !yield(feed.Change{Cursor: e.Cursor, Data: data}, err) || err != nil {
				return
			}
		}
	}
}

// A noticeSource is what the notification configuration of a bucket asks for, as
// S3 tells it.
type noticeSource struct {
	*objects.Bucket
	door *s3.Door
	app  string
}

// A notice is what docs/formats/feed.md says of one.
type notice struct {
	Target  string          `json:"target"`
	Message json.RawMessage `json:"message"`
}

func (n noticeSource) Changes(ctx context.Context, cursor string) iter.Seq2[feed.Change, error] {
	return func(yield func(feed.Change, error) bool) {
		// Of several about one event only the last goes on behind it.
		var held *feed.Change
		last := cursor
		for e, err := range n.door.Notices(ctx, n.app, n.Name(), cursor) {
			if err == nil && held != nil {
				if held.Cursor == e.Cursor {
					held.Cursor = last
				}
				last = held.Cursor
				if !yield(*held, nil) {
					return
				}
				held = nil
			}
			var data []byte
			if err == nil && e.Target != "" {
				data, err = json.Marshal(notice{e.Target, e.Body})
			}
			if errors.Is(err, objects.ErrCursor) {
				err = fmt.Errorf("%w: %w", feed.ErrGone, err)
			}
			if err != nil {
				yield(feed.Change{}, err)
				return
			}
			held = &feed.Change{Cursor: e.Cursor, Data: data}
		}
		if held != nil {
			yield(*held, nil)
		}
	}
}

// A tableSource is the changes of a table.
type tableSource struct {
	door *dynamodb.Door
	name string
}

func (t tableSource) Changes(ctx context.Context, cursor string) iter.Seq2[feed.Change, error] {
	return func(yield func(feed.Change, error) bool) {
		for c, err := range t.door.Changes(ctx, t.name, cursor) {
			var data []byte
			if err == nil {
				data, err = json.Marshal(c)
			}
			if errors.Is(err, dynamodb.ErrCursor) {
				err = fmt.Errorf("%w: %w", feed.ErrGone, err)
			}
			if !yield(feed.Change{Cursor: c.Cursor, Data: data}, err) || err != nil {
				return
			}
		}
	}
}

func (t tableSource) Cursor(ctx context.Context) (string, error) { return t.door.Cursor(ctx, t.name) }
func (t tableSource) Close() error                               { return nil }

func (t tableSource) Notify(f func()) (stop func()) {
	stop, err := t.door.NotifyChanges(context.Background(), t.name, f)
	if err != nil {
		f() // who looks finds out why
		return func() {}
	}
	return stop
}

// toldByFeeds gives errors of feeds their codes.
func toldByFeeds(err error, what string) error {
	for _, k := range []struct {
		err        error
		code       client.Code
		cause, try string
	}{
		{feed.ErrNotFound, client.CodeNotFound, "there is none of that name", "bevy feed ls"},
		{feed.ErrExists, client.CodeConflict, "there is one of that name already", "another name"},
		{feed.ErrInvalid, client.CodeUsage, "", "bevy feed add --help"},
		{feed.ErrGone, client.CodeUsage, "the cursor is none of it", "--from now"},
	} {
		if errors.Is(err, k.err) {
			e := &client.Error{Code: k.code, Message: "cannot use " + what, Cause: k.cause, Try: k.try}
			if e.Cause == "" {
				e.Cause = err.Error()
			}
			switch kind, _, source := strings.Cut(what, ":"); {
			case !source || k.err != feed.ErrNotFound:
			case kind == "table":
				e.Try = "bevy table ls"
			default:
				e.Try = "bevy ls"
			}
			return e.Because(err)
		}
	}
	return err
}

func describeFeed(f feed.Feed) client.Feed {
	f.To.Secret = ""
	return client.Feed{Name: f.Name, App: f.App, Source: f.Source, To: client.FeedTarget(f.To), Created: f.Created, Paused: f.Paused, Stopped: f.Stopped,
		Cursor: f.Cursor, Delivered: f.Delivered, Last: f.Last, Failures: f.Failures, Error: f.Error, NextTry: f.NextTry}
}

func (h *Home) getFeeds(ctx context.Context, _ node.None) (out client.Feeds, err error) {
	err = h.use(ctx, func(s *session) error {
		for _, f := range s.feeds.List() {
			out.Feeds = append(out.Feeds, describeFeed(f))
		}
		return nil
	})
	return out, err
}

func (h *Home) addFeed(ctx context.Context, in client.AddFeed) (out client.Feed, err error) {
	if err := onlyHere(ctx); err != nil { // it may run a program, and there is a secret
		return out, err
	}
	err = h.use(ctx, func(s *session) error {
		if !s.cloud.HasApp(in.App) {
			return noApp(in.App)
		}
		to := feed.Target(in.To)
		if to.URL != "" && to.Secret == "" {
			to.Secret = rand.Text()
		}
		f, err := s.feeds.Add(ctx, feed.Feed{Name: in.Name, App: in.App, Source: in.Source, To: to}, in.From)
		if err != nil {
			return toldByFeeds(err, in.Source)
		}
		out = describeFeed(f)
		out.To.Secret = to.Secret
		h.node.Say("the changes of %s are handed on by the feed %s", f.Source, f.Name)
		return nil
	})
	return out, err
}

func (h *Home) changeFeed(ctx context.Context, in client.ChangeFeed) (node.None, error) {
	return node.None{}, h.use(ctx, func(s *session) error {
		if in.Paused {
			return toldByFeeds(s.feeds.Pause(in.Name), "the feed "+in.Name)
		}
		h.node.Notices.Clear("feed-failed", in.Name)
		return toldByFeeds(s.feeds.Resume(in.Name), "the feed "+in.Name)
	})
}

func (h *Home) dropFeed(ctx context.Context, in client.FeedName) (node.None, error) {
	return node.None{}, h.use(ctx, func(s *session) error {
		if err := s.feeds.Remove(in.Name); err != nil {
			return toldByFeeds(err, "the feed "+in.Name)
		}
		h.node.Notices.Clear("feed-failed", in.Name)
		h.node.Say("the feed %s has ended", in.Name)
		return nil
	})
}

const (
	maxChangesWait = 60 // seconds
	maxChanges     = 500
	maxChangeBytes = 4 << 20
)

func (h *Home) readChanges(ctx context.Context, in client.ReadChanges) (out client.SourceChanges, err error) {
	err = h.use(ctx, func(s *session) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		if !s.cloud.HasApp(in.App) {
			return noApp(in.App)
		}
		source, err := s.source(ctx, in.App, in.Source)
		if err != nil {
			return toldByFeeds(err, in.Source)
		}
		defer source.Close()
		out.Cursor = in.From
		if in.From == feed.FromNow {
			if out.Cursor, err = source.Cursor(ctx); err != nil {
				return err
			}
		}
		more := make(chan struct{}, 1)
		defer source.Notify(func() {
			select {
			case more <- struct{}{}:
			default:
			}
		})()
		over := make(chan struct{})
		defer h.node.Clock().AfterFunc(time.Duration(min(max(in.Wait, 0), maxChangesWait))*time.Second, func() { close(over) }).Stop()
		for {
			size := 0
			for c, err := range source.Changes(ctx, out.Cursor) {
				if err != nil {
					return toldByFeeds(err, in.Source)
				}
				if out.Cursor = c.Cursor; c.Data == nil {
					continue
				}
				out.Changes = append(out.Changes, client.SourceChange{Cursor: c.Cursor, Source: in.Source, Change: c.Data})
				if size += len(c.Data); len(out.Changes) == maxChanges || size > maxChangeBytes {
					break
				}
			}
			if len(out.Changes) > 0 || in.Wait <= 0 {
				return nil
			}
			select {
			case <-more:
			case <-over:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
	})
	return out, err
}
