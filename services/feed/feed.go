// Package feed hands what changes in buckets and tables on to programs: to a
// web hook, a program that is run, or a file of JSON lines.
//
//	feeds, err := feed.Open(feed.Options{State: state, Source: open})
//	err = feeds.Add(feed.Feed{Name: "thumbs", Source: "bucket:photos", To: feed.Target{Program: []string{"make-thumbs"}}}, feed.FromStart)
//
// A feed is durable: it goes on where it was after a restart. What was taken is
// noted after it was taken, so that each change is delivered in order and at
// least once; its cursor names it, for those who want to see it exactly once.
// What can't be delivered is tried again, later and later, and nothing behind it
// is delivered meanwhile.
//
// A feed is of one device: what all devices of a cloud did comes to it as soon
// as that device has heard of it. docs/formats/feed.md has what is delivered and
// what is kept.
package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: there is no feed, or no source, of that name.
	ErrNotFound = errors.New("not found")
	// ErrExists: there is a feed of that name already.
	ErrExists = errors.New("exists")
	// ErrInvalid: a feed makes no sense.
	ErrInvalid = errors.New("invalid feed")
	// ErrGone: what came after a cursor is not kept any more, or it is none.
	ErrGone = errors.New("the source does not know where the feed was")
)

// A Source is what feeds are of.
type Source interface {
	// Changes returns what happened behind a cursor, in order, and ends at what is
	// known now. "" is the beginning.
	Changes(ctx context.Context, cursor string) iter.Seq2[Change, error]
	// Cursor returns the one behind all that is known now.
	Cursor(ctx context.Context) (string, error)
	// Notify calls f when there may be more, until stop is called. f returns soon.
	Notify(f func()) (stop func())
	Close() error
}

// A Change is one thing that happened. One without Data is not handed on: it only
// says how far a source was read.
type Change struct {
	Cursor string          `json:"cursor"` // goes on behind it; names it
	Source string          `json:"source"`
	Data   json.RawMessage `json:"change"`
}

// A Target says where changes go: one of the three.
type Target struct {
	URL     string   `json:"url,omitempty"`     // of a web hook
	Program []string `json:"program,omitempty"` // with its arguments, run for each delivery
	File    string   `json:"file,omitempty"`    // of JSON lines, absolute
	// Secret signs what goes to a web hook.
	Secret string `json:"secret,omitempty"`
}

// A Feed is a source and where its changes go.
type Feed struct {
	Name    string    `json:"name"`
	App     string    `json:"app,omitempty"` // whose source it is
	Source  string    `json:"source"`        // such as "bucket:photos" or "table:people"
	To      Target    `json:"to"`
	Created time.Time `json:"created"`
	Paused  bool      `json:"paused,omitempty"`
	Cursor  string    `json:"cursor,omitempty"` // behind all that was taken

	Delivered uint64    `json:"delivered"`          // changes
	Last      time.Time `json:"last,omitzero"`      // when some were taken
	Failures  int       `json:"failures,omitempty"` // since then
	Error     string    `json:"error,omitempty"`    // of the last of them
	NextTry   time.Time `json:"next_try,omitzero"`  // after that
	Stopped   bool      `json:"stopped,omitempty"`  // it can't go on by itself: see Error
}

// A State keeps the feeds. Save is durable when it returns.
type State interface {
	// Load returns what was saved last; nothing was when it is fs.ErrNotExist.
	Load() ([]byte, error)
	Save(b []byte) error
}

// Options for Open. State and Source are needed.
type Options struct {
	State State
	// Source opens a source: ErrNotFound if there is none (now).
	Source func(ctx context.Context, app, name string) (Source, error)
	// HTTP is who asks web hooks. Redirects are not followed.
	HTTP http.RoundTripper
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
	// Changed is called when something was delivered, or could not be. It returns
	// soon and does not use the feeds. It may be nil.
	Changed func(Feed)
	// Log is where failures go; nowhere when nil.
	Log *slog.Logger
}

// Bounds.
const (
	MaxFeeds  = 256
	MaxEvents = 100       // of one delivery
	MaxBytes  = 256 << 10 // of one delivery, if it is more than one change

	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	maxName    = 64
	maxText    = 4096 // of a URL, a path, an argument
	maxArgs    = 64
)

// Feeds are the feeds of one device. Any goroutine may call its methods.
type Feeds struct {
	o    Options
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup

	mu  sync.Mutex
	all map[string]*running
}

// running is a feed with the goroutine that serves it.
type running struct {
	Feed
	cancel context.CancelFunc // nil while it is paused
	done   chan struct{}
	wake   chan struct{}
}

// saved is what a State keeps.
type saved struct {
	Version int    `json:"version"`
	Feeds   []Feed `json:"feeds"`
}

const version = 1

// Open begins to serve the feeds of a state.
func Open(o Options) (*Feeds, error) {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Changed == nil {
		o.Changed = func(Feed) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Feeds{o: o, all: map[string]*running{}}
	list, err := load(o.State)
	if err != nil {
		return nil, fmt.Errorf("read the feeds: %w", err)
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, feed := range list {
		r := &running{Feed: feed}
		f.all[feed.Name] = r
		f.startLocked(r)
	}
	return f, nil
}

// Close ends all deliveries. What was not taken is delivered after the next Open.
func (f *Feeds) Close() error {
	f.stop()
	f.work.Wait()
	return nil
}

// FromStart is the cursor of a feed that begins with all that ever happened.
const FromStart = ""

// FromNow is that of one that begins with what comes.
const FromNow = "now"

// Add adds a feed that begins behind a cursor, FromStart or FromNow. It returns
// it as it is then.
func (f *Feeds) Add(ctx context.Context, feed Feed, from string) (Feed, error) {
	if err := feed.check(); err != nil {
		return Feed{}, err
	}
	source, err := f.o.Source(ctx, feed.App, feed.Source)
	if err != nil {
		return Feed{}, fmt.Errorf("feed of %s: %w", feed.Source, err)
	}
	if from == FromNow {
		from, err = source.Cursor(ctx)
	} else if from != FromStart {
		for _, e := range source.Changes(ctx, from) { // whether it is a cursor
			err = e
			break
		}
	}
	if err = errors.Join(err, source.Close()); err != nil {
		return Feed{}, fmt.Errorf("feed of %s: %w", feed.Source, err)
	}
	r := &running{Feed: Feed{Name: feed.Name, App: feed.App, Source: feed.Source, To: feed.To, Created: f.o.Clock.Now().UTC(), Cursor: from}}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.ctx.Err() != nil:
		return Feed{}, f.ctx.Err()
	case f.all[feed.Name] != nil:
		return Feed{}, fmt.Errorf("feed %q: %w", feed.Name, ErrExists)
	case len(f.all) >= MaxFeeds:
		return Feed{}, fmt.Errorf("%w: there are %d feeds, the most", ErrInvalid, MaxFeeds)
	}
	f.all[feed.Name] = r
	if err := f.saveLocked(); err != nil {
		delete(f.all, feed.Name)
		return Feed{}, err
	}
	f.startLocked(r)
	return r.Feed, nil
}

// Remove ends a feed and forgets where it was.
func (f *Feeds) Remove(name string) error {
	r, err := f.halt(name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[name] != r {
		return nil
	}
	delete(f.all, name)
	return f.saveLocked()
}

// Pause has a feed wait until Resume.
func (f *Feeds) Pause(name string) error {
	r, err := f.halt(name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Paused = true
	return f.saveLocked()
}

// Resume has a feed go on, also one that stopped; and try again at once.
func (f *Feeds) Resume(name string) error {
	r, err := f.halt(name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[name] != r {
		return fmt.Errorf("feed %q: %w", name, ErrNotFound)
	}
	r.Paused, r.Stopped, r.Failures, r.Error, r.NextTry = false, false, 0, "", time.Time{}
	f.startLocked(r)
	return f.saveLocked()
}

// List returns all feeds, in the order of their names.
func (f *Feeds) List() (list []Feed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.all)) {
		list = append(list, f.all[name].Feed)
	}
	return list
}

// halt ends the goroutine of a feed.
func (f *Feeds) halt(name string) (*running, error) {
	f.mu.Lock()
	r := f.all[name]
	if r == nil {
		f.mu.Unlock()
		return nil, fmt.Errorf("feed %q: %w", name, ErrNotFound)
	}
	cancel, done := r.cancel, r.done
	r.cancel = nil
	f.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if done != nil {
		<-done
	}
	return r, nil
}

// startLocked begins to serve a feed that is not being served.
func (f *Feeds) startLocked(r *running) {
	if r.Paused || r.Stopped || r.cancel != nil || f.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	r.cancel, r.done, r.wake = cancel, make(chan struct{}), make(chan struct{}, 1)
	done, wake, feed := r.done, r.wake, r.Feed
	f.work.Go(func() {
		defer close(done)
		defer cancel()
		f.serve(ctx, r, feed, wake)
	})
}

// note changes what is known of a feed, and keeps it if it is to last.
func (f *Feeds) note(r *running, durable bool, change func(*Feed)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&r.Feed)
	f.o.Changed(r.Feed)
	if !durable {
		return nil
	}
	return f.saveLocked()
}

func (f *Feeds) saveLocked() error {
	s := saved{Version: version}
	for _, name := range slices.Sorted(maps.Keys(f.all)) {
		s.Feeds = append(s.Feeds, f.all[name].Feed)
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = f.o.State.Save(b)
	}
	if err != nil {
		return fmt.Errorf("keep the feeds: %w", err)
	}
	return nil
}

// check returns why a feed makes no sense.
func (f *Feed) check() error {
	to := 0
	for _, has := range []bool{f.To.URL != "", len(f.To.Program) > 0, f.To.File != ""} {
		if has {
			to++
		}
	}
	switch {
	case !plain(f.Name, maxName):
		return fmt.Errorf("%w: the name %q is none", ErrInvalid, f.Name)
	case !plain(f.Source, maxText):
		return fmt.Errorf("%w: the source %q is none", ErrInvalid, f.Source)
	case to != 1:
		return fmt.Errorf("%w: it goes to one of a URL, a program and a file", ErrInvalid)
	case len(f.To.Program) > maxArgs || slices.ContainsFunc(f.To.Program, func(a string) bool { return len(a) > maxText }):
		return fmt.Errorf("%w: the program's arguments are too long", ErrInvalid)
	}
	if f.To.URL != "" {
		if err := checkURL(f.To.URL); err != nil {
			return err
		}
	}
	return checkFile(f.To.File)
}

// plain reports whether a text is a short one that can be printed.
func plain(s string, most int) bool {
	return s != "" && len(s) <= most && strings.TrimSpace(s) == s && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
