package folder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Retention says how long contents that are not current any more are kept. Tagged
// versions and what is current are kept in any case. Entries, without their contents,
// are kept for ever.
type Retention struct {
	// All is how far back every version is kept; 30 days when 0, nothing when
	// negative.
	All time.Duration
	// Daily is how far back what there was at the end of each day, in UTC, is kept; a
	// year when 0, nothing when negative.
	Daily time.Duration
}

const day = 24 * time.Hour

func (r Retention) defaults() Retention {
	if r.All == 0 {
		r.All = 30 * day
	}
	if r.Daily == 0 {
		r.Daily = 365 * day
	}
	return r
}

// Clear frees the contents here that are older than a retention keeps, of all
// devices' logs. Nothing that is current, or being written, goes.
func (f *Folder) Clear(ctx context.Context, r Retention) (content.Swept, error) {
	swept, err := f.content.Sweep(ctx, f.kept(ctx, r.defaults()))
	if err != nil {
		return swept, fmt.Errorf("clear old versions: %w", err)
	}
	return swept, nil
}

// Clearable says what Clear would free, and frees nothing.
func (f *Folder) Clearable(ctx context.Context, r Retention) (content.Swept, error) {
	swept, err := f.content.Sweepable(ctx, f.kept(ctx, r.defaults()))
	if err != nil {
		return swept, fmt.Errorf("look for old versions: %w", err)
	}
	return swept, nil
}

// kept returns the contents that a retention keeps, some of them several times.
func (f *Folder) kept(ctx context.Context, r Retention) iter.Seq2[content.Ref, error] {
	return func(yield func(content.Ref, error) bool) {
		if err := f.eachKept(ctx, r, func(e *Entry) bool {
			for _, o := range append([]*Entry{e}, pointers(e.Others)...) {
				if o.Kind == File && !yield(o.Content, nil) {
					return false
				}
			}
			return true
		}); err != nil && !errors.Is(err, errStop) {
			yield(content.Ref{}, err)
		}
	}
}

func (f *Folder) eachKept(ctx context.Context, r Retention, give func(*Entry) bool) error {
	begin, err := f.Version(ctx)
	if err != nil {
		return err
	}
	// What is current, and what there is of tags.
	if err := f.eachOf(ctx, f, give); err != nil {
		return err
	}
	for t, err := range f.Tags(ctx) {
		if err != nil {
			return err
		}
		old, err := f.Checkout(ctx, t.Version)
		if errors.Is(err, tree.ErrWriter) || errors.Is(err, hypercore.ErrLength) {
			continue // of a log that is not here, or not so far: neither are its contents
		}
		if err != nil {
			return err
		}
		err = errors.Join(f.eachOf(ctx, old, give), old.Close())
		if err != nil {
			return err
		}
	}
	now := f.o.Clock.Now()
	since := now
	if r.All > 0 {
		// What was there at the beginning, and all that was said since.
		since = now.Add(-r.All)
		for e, err := range f.saidSince(ctx, since) {
			if err != nil {
				return err
			}
			if e.Growing {
				continue // what follows it has all that it has
			}
			if !give(&e) {
				return errStop
			}
		}
	}
	first := since
	if r.Daily > 0 {
		first = now.Add(-r.Daily).Truncate(day).Add(day)
	}
	if !first.Before(since) {
		first = since
	}
	if err := f.eachDay(ctx, first, since, give); err != nil {
		return err
	}
	// What others said meanwhile.
	for c, err := range f.changesAll(ctx, begin) {
		if err != nil {
			return err
		}
		if c.New != nil && !give(c.New) {
			return errStop
		}
	}
	return nil
}

// eachDay gives what there was at a time, at the end of each day after it, and at
// the last time.
func (f *Folder) eachDay(ctx context.Context, first, last time.Time, give func(*Entry) bool) (err error) {
	all := give
	give = func(e *Entry) bool { return e.Growing || all(e) }
	before, err := f.At(ctx, first)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, before.Close()) }()
	if err := f.eachOf(ctx, before, give); err != nil {
		return err
	}
	for t := first; t.Before(last); {
		t = t.Truncate(day).Add(day)
		if t.After(last) {
			t = last
		}
		next, err := f.At(ctx, t)
		if err != nil {
			return err
		}
		v, err := before.Version(ctx)
		if err == nil {
			for c, err2 := range next.changesAll(ctx, v) {
				if err2 != nil {
					err = err2
					break
				}
				if c.New != nil && !give(c.New) {
					err = errStop
					break
				}
			}
		}
		if err != nil {
			return errors.Join(err, next.Close())
		}
		if err := before.Close(); err != nil {
			return errors.Join(err, next.Close())
		}
		before = next
	}
	return nil
}

func (f *Folder) eachOf(ctx context.Context, v *Folder, give func(*Entry) bool) error {
	for raw, err := range v.all(ctx, "/") {
		if err != nil {
			return err
		}
		e := read(raw)
		if !give(&e) {
			return errStop
		}
	}
	return nil
}

// refs returns the contents of what is at a path and in it, and of what stands
// beside that, in parts of about n.
func (f *Folder) refs(ctx context.Context, path string, n int) iter.Seq2[[]content.Ref, error] {
	return func(yield func([]content.Ref, error) bool) {
		if err := checkFolder(path); err != nil {
			yield(nil, err)
			return
		}
		var list []content.Ref
		for raw, err := range f.all(ctx, path) {
			if err != nil {
				yield(nil, err)
				return
			}
			e := read(raw)
			for _, o := range append([]*Entry{&e}, pointers(e.Others)...) {
				if o.Kind == File {
					list = append(list, o.Content)
				}
			}
			if len(list) >= n {
				if !yield(list, nil) {
					return
				}
				list = nil
			}
		}
		if len(list) > 0 {
			yield(list, nil)
		}
	}
}

// refsAtOnce is how many contents are asked for at once.
const refsAtOnce = 1024

// Missing returns how many bytes of the files at a path and in it are not held here.
func (f *Folder) Missing(ctx context.Context, path string) (int64, error) {
	var total int64
	for refs, err := range f.refs(ctx, path, refsAtOnce) {
		if err != nil {
			return 0, fmt.Errorf("missing contents in %q: %w", path, err)
		}
		for _, r := range refs {
			n, err := f.content.Missing(ctx, r)
			if errors.Is(err, ErrInvalid) {
				n = r.Size
			} else if err != nil {
				return 0, fmt.Errorf("missing contents in %q: %w", path, err)
			}
			total += n
		}
	}
	return total, nil
}

// MissingEntry returns how many bytes of an entry's content are not held here: with
// none, reading it waits for nobody.
func (f *Folder) MissingEntry(ctx context.Context, e Entry) (int64, error) {
	if e.Kind != File {
		return 0, nil
	}
	return f.content.Missing(ctx, e.Content)
}

// WholeIn reports whether all of an entry's content is in a place.
func (f *Folder) WholeIn(ctx context.Context, e Entry, in content.Place) (bool, error) {
	if e.Kind != File {
		return true, nil
	}
	return f.content.WholeIn(ctx, e.Content, in)
}

// Download brings the files at some paths and in them here, and returns when all are
// held. What makes no sense is left out.
func (f *Folder) Download(ctx context.Context, paths ...string) error {
	for _, path := range paths {
		if _, err := f.Stat(ctx, path); err != nil {
			return fmt.Errorf("download: %w", err)
		}
		for refs, err := range f.refs(ctx, path, refsAtOnce) {
			if err == nil {
				err = f.download(ctx, refs)
			}
			if err != nil {
				return fmt.Errorf("download %q: %w", path, err)
			}
		}
	}
	return nil
}

// download brings contents here, and leaves out those that make no sense.
func (f *Folder) download(ctx context.Context, refs []content.Ref) error {
	err := f.content.Download(ctx, refs...)
	if !errors.Is(err, ErrInvalid) || ctx.Err() != nil {
		return err
	}
	for _, r := range refs {
		if err := f.content.Download(ctx, r); err != nil && !errors.Is(err, ErrInvalid) {
			return err
		}
	}
	return nil
}

// Evict frees the contents of what is at a path and in it here, also what of it other
// files share, and returns how many bytes that were. They can be had again from
// others: who has made sure that these have them may call it.
func (f *Folder) Evict(ctx context.Context, path string) (freed int64, err error) {
	return f.EvictChecked(ctx, path, nil)
}

// EvictChecked is Evict, but of what check is content with.
func (f *Folder) EvictChecked(ctx context.Context, path string, check content.Check) (freed int64, err error) {
	for refs, err := range f.refs(ctx, path, refsAtOnce) {
		if err != nil {
			return freed, fmt.Errorf("evict %q: %w", path, err)
		}
		n, err := f.content.ClearChecked(ctx, check, refs...)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("evict %q: %w", path, err)
		}
	}
	return freed, nil
}

// Check calls check with all that EvictChecked would free.
func (f *Folder) Check(ctx context.Context, path string, check content.Check) error {
	for refs, err := range f.refs(ctx, path, refsAtOnce) {
		if err == nil {
			err = f.content.Check(ctx, check, refs...)
		}
		if err != nil {
			return fmt.Errorf("check contents of %q: %w", path, err)
		}
	}
	return nil
}

// Fetch brings the contents of all files here, then those of what changes, until the
// context ends. It is for a device that keeps a whole copy. What nobody has does not
// keep it from the rest, and is looked for again every few minutes, when a log is
// added, and after Refetch.
func (f *Folder) Fetch(ctx context.Context) error {
	changed, again := make(chan struct{}, 1), make(chan struct{}, 1)
	wake := func(c chan struct{}) func() {
		return func() {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	defer f.Notify(wake(changed))()
	defer f.content.Notify(wake(again))()
	defer f.refetch.add(wake(again))()
	ahead := f.content.Follow(ctx) // of the entries
	defer ahead.Close()
	var done, left tree.Version // left is from where on not all could be had
	missed := false
	for {
		ahead.Look()
		now, err := f.Version(ctx)
		if err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		whole, err := f.fetch(ctx, done)
		if err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		if !whole && !missed {
			left, missed = done, true
		}
		done = now
		timer := f.o.Clock.AfterFunc(fetchAgain, wake(again))
		select {
		case <-changed:
		case <-again:
			if missed {
				done, missed = left, false
			}
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// Refetch makes Fetch look again for what nobody had: somebody may have come who
// does.
func (f *Folder) Refetch() { f.refetch.call() }

// calls are functions to be called.
type calls struct {
	mu   sync.Mutex
	list map[*func()]bool
}

func (c *calls) add(f func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = map[*func()]bool{}
	}
	c.list[&f] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.list, &f)
	}
}

func (c *calls) call() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for f := range c.list {
		(*f)()
	}
}

const (
	// fetchAgain is after what time is tried again what nobody had.
	fetchAgain = 5 * time.Minute
	// fetchPatience is how long a download may bring nothing before it is given up.
	fetchPatience = 30 * time.Second
	// fetchesAtOnce is how many downloads there are at once, each of up to refsAtOnce
	// contents: some wait for what nobody has.
	fetchesAtOnce = 4
)

// fetch brings the contents here of what changed since a version, and reports whether
// all could be had.
func (f *Folder) fetch(ctx context.Context, from tree.Version) (whole bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	results := make(chan error, fetchesAtOnce)
	running, missed := 0, false
	wait := func() {
		running--
		missed = <-results != nil || missed
	}
	var refs []content.Ref
	start := func() {
		if running == fetchesAtOnce {
			wait()
		}
		part := refs
		refs = nil
		running++
		group.Go(func() { results <- f.fetchSome(ctx, part) })
	}
	for c, err := range f.changesAll(ctx, from) {
		if err != nil {
			return false, err
		}
		if c.New == nil {
			continue
		}
		for _, e := range append([]*Entry{c.New}, pointers(c.New.Others)...) {
			if e.Kind != File {
				continue
			}
			if n, err := f.content.Missing(ctx, e.Content); err == nil && n == 0 {
				continue
			}
			if refs = append(refs, e.Content); len(refs) == refsAtOnce {
				start()
			}
		}
	}
	if len(refs) > 0 {
		start()
	}
	for running > 0 {
		wait()
	}
	return !missed, ctx.Err()
}

// fetchSome downloads contents for as long as some of them come.
func (f *Folder) fetchSome(ctx context.Context, refs []content.Ref) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f.download(ctx, refs) }()
	left := int64(-1)
	for {
		late := make(chan struct{})
		timer := f.o.Clock.AfterFunc(fetchPatience, func() { close(late) })
		select {
		case err := <-done:
			timer.Stop()
			return err
		case <-late:
		}
		now := int64(0)
		for _, r := range refs {
			n, err := f.content.Missing(ctx, r)
			if err == nil {
				now += n
			}
		}
		if now == left {
			cancel()
			return <-done
		}
		left = now
	}
}

// Stats say how much there is.
type Stats struct {
	Files, Folders, Links, Invalid int
	Bytes                          int64 // of files
	Missing                        int64 // of these, not held here
}

// Stats counts what is at a path and in it. Folders that are there only because
// something is in them do not count.
func (f *Folder) Stats(ctx context.Context, path string) (Stats, error) {
	var s Stats
	fail := func(err error) (Stats, error) { return Stats{}, fmt.Errorf("stats of %q: %w", path, err) }
	if err := checkFolder(path); err != nil {
		return fail(err)
	}
	for raw, err := range f.under(ctx, path) {
		if err != nil {
			return fail(err)
		}
		e := read(raw)
		switch e.Kind {
		case Dir:
			s.Folders++
			continue
		case Symlink:
			s.Links++
			continue
		case Unknown:
			s.Invalid++
			continue
		}
		s.Files++
		s.Bytes += e.Size
		n, err := f.content.Missing(ctx, e.Content)
		if errors.Is(err, ErrInvalid) {
			n = e.Size
		} else if err != nil {
			return fail(err)
		}
		s.Missing += n
	}
	return s, nil
}
