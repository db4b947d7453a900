package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// load reads the feeds of a state.
func load(s State) ([]Feed, error) {
	b, err := s.Load()
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var v saved
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	if v.Version != version {
		return nil, fmt.Errorf("they are of version %d, this program knows %d: use a newer one", v.Version, version)
	}
	if len(v.Feeds) > MaxFeeds {
		return nil, fmt.Errorf("%w: %d feeds", ErrInvalid, len(v.Feeds))
	}
	for i := range v.Feeds {
		if err := v.Feeds[i].check(); err != nil {
			return nil, fmt.Errorf("feed %q: %w", v.Feeds[i].Name, err)
		}
	}
	return v.Feeds, nil
}

// serve delivers what comes, until the context ends or it can't go on.
func (f *Feeds) serve(ctx context.Context, r *running, feed Feed, wake chan struct{}) {
	for failures := 0; ctx.Err() == nil; {
		err := f.follow(ctx, r, &feed, wake, func() { failures = 0 })
		if ctx.Err() != nil {
			return
		}
		f.o.Log.Warn("cannot deliver", "feed", feed.Name, "err", err)
		if errors.Is(err, ErrGone) {
			_ = f.note(r, true, func(s *Feed) { s.Stopped, s.Error = true, err.Error() }) // it stops either way
			return
		}
		wait := min(firstRetry<<min(failures, 16), lastRetry)
		failures++
		_ = f.note(r, false, func(s *Feed) {
			s.Failures, s.Error, s.NextTry = failures, err.Error(), f.o.Clock.Now().Add(wait).UTC()
		})
		f.sleep(ctx, wait)
	}
}

// follow opens a source and delivers what comes, until something fails.
func (f *Feeds) follow(ctx context.Context, r *running, feed *Feed, wake chan struct{}, worked func()) (err error) {
	source, err := f.o.Source(ctx, feed.App, feed.Source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	stop := source.Notify(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	defer stop()
	for {
		more := true
		for more {
			var batch []Change
			var cursor string
			if batch, cursor, more, err = collect(ctx, source, feed); err != nil {
				return err
			}
			if len(batch) == 0 {
				feed.Cursor = cursor // it is kept once there is something
				continue
			}
			if err := f.deliver(ctx, feed, batch); err != nil {
				return err
			}
			feed.Cursor = cursor
			err = f.note(r, true, func(s *Feed) {
				s.Cursor, s.Last, s.Delivered = feed.Cursor, f.o.Clock.Now().UTC(), s.Delivered+uint64(len(batch))
				s.Failures, s.Error, s.NextTry = 0, "", time.Time{}
			})
			if err != nil {
				return err
			}
			worked()
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// collect returns the next changes, the cursor behind them, and whether there may be
// more of them now.
func collect(ctx context.Context, source Source, feed *Feed) (batch []Change, cursor string, more bool, err error) {
	size := 0
	cursor = feed.Cursor
	for c, err := range source.Changes(ctx, feed.Cursor) {
		if err != nil {
			if len(batch) > 0 {
				return batch, cursor, true, nil // it comes again
			}
			return nil, cursor, false, err
		}
		if c.Data == nil {
			cursor = c.Cursor
			continue
		}
		if len(batch) > 0 && (len(batch) >= MaxEvents || size+len(c.Data) > MaxBytes) {
			return batch, cursor, true, nil
		}
		cursor, c.Source = c.Cursor, feed.Source
		batch = append(batch, c)
		size += len(c.Data)
	}
	return batch, cursor, false, nil
}

// sleep waits, or until the context ends.
func (f *Feeds) sleep(ctx context.Context, d time.Duration) {
	over := make(chan struct{})
	t := f.o.Clock.AfterFunc(d, func() { close(over) })
	defer t.Stop()
	select {
	case <-over:
	case <-ctx.Done():
	}
}
