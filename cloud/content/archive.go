package content

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// An Archive has blocks that are on no device at hand. Any goroutine may call its
// methods.
type Archive interface {
	// Ready reports whether there is one to ask at all.
	Ready() bool
	// Bring adds blocks to a log. ErrNotFound says that it has not all of them.
	Bring(ctx context.Context, log *hypercore.Log, blocks *runs.Set) error
}

const (
	// peersPatience is how long peers may bring nothing of what is wanted before an
	// archive is asked.
	peersPatience = 2 * time.Second
	// archiveFirst is how long then an archive is asked before them.
	archiveFirst = time.Minute
)

// fetch brings blocks of a log here: from peers, else from the archive.
func (s *Store) fetch(ctx context.Context, src *source, linear bool, want *runs.Set) error {
	if s.o.Archive == nil || !s.o.Archive.Ready() {
		return src.download(ctx, linear, want)
	}
	s.mu.Lock()
	first := s.o.Clock.Now().Before(src.archiveUntil)
	s.mu.Unlock()
	if !first {
		err := s.patiently(ctx, src, linear, want)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	left := src.missing(want)
	if left.Runs() == 0 {
		return nil
	}
	err := s.o.Archive.Bring(ctx, src.log, &left)
	if err == nil {
		return src.log.Sync()
	}
	if ctx.Err() != nil || !errors.Is(err, ErrNotFound) {
		return err
	}
	// Nobody is known to have it: a peer may come that does.
	return src.download(ctx, linear, &left)
}

// patiently has peers bring blocks, for as long as they bring some.
func (s *Store) patiently(ctx context.Context, src *source, linear bool, want *runs.Set) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- src.download(ctx, linear, want) }()
	left := src.missing(want)
	for {
		late := make(chan struct{})
		timer := s.o.Clock.AfterFunc(peersPatience, func() { close(late) })
		select {
		case err := <-done:
			timer.Stop()
			return err
		case <-late:
		}
		now := src.missing(want)
		if count(&now) == count(&left) {
			cancel()
			s.mu.Lock()
			src.archiveUntil = s.o.Clock.Now().Add(archiveFirst)
			s.mu.Unlock()
			return <-done
		}
		left = now
	}
}

// download brings blocks here from peers.
func (src *source) download(ctx context.Context, linear bool, set *runs.Set) error {
	want := make([]hypercore.DownloadRange, 0, min(set.Runs(), maxRanges))
	for r := range set.All() {
		want = append(want, hypercore.DownloadRange{From: r.Start, To: r.End, Linear: linear})
		if len(want) < maxRanges {
			continue
		}
		if err := src.log.Download(ctx, want...); err != nil {
			return err
		}
		want = want[:0]
	}
	if len(want) == 0 {
		return nil
	}
	return src.log.Download(ctx, want...)
}

// missing returns what of a set is not held.
func (src *source) missing(set *runs.Set) runs.Set {
	left := set.Clone()
	for r := range set.All() {
		for held, ok := src.log.NextHeld(r.Start); ok && held.Start < r.End; held, ok = src.log.NextHeld(held.End) {
			left.Remove(held)
		}
	}
	return left
}

func count(s *runs.Set) (n uint64) {
	for r := range s.All() {
		n += r.Len()
	}
	return n
}

// A Check looks whether blocks of a log, which are all held here, are somewhere
// else, too.
type Check func(ctx context.Context, log *hypercore.Log, blocks *runs.Set) error

// Check calls check with the blocks of contents that are held here, log by log.
func (s *Store) Check(ctx context.Context, check Check, refs ...Ref) error {
	if err := s.each(ctx, check, nil, refs); err != nil {
		return fmt.Errorf("check contents: %w", err)
	}
	return nil
}

// ClearChecked is Clear, but of each log only what check is content with.
func (s *Store) ClearChecked(ctx context.Context, check Check, refs ...Ref) (freed int64, err error) {
	err = s.each(ctx, check, func(src *source, blocks *runs.Set) error {
		for r := range blocks.All() {
			n, err := src.clear(ctx, r)
			if freed += n; err != nil {
				return err
			}
		}
		return nil
	}, refs)
	if err != nil {
		return freed, fmt.Errorf("clear contents: %w", err)
	}
	return freed, nil
}

// each calls check, then do unless it is nil, with the blocks of contents that are
// held here, log by log.
func (s *Store) each(ctx context.Context, check Check, do func(*source, *runs.Set) error, refs []Ref) error {
	m := s.marker()
	for _, r := range refs {
		if err := m.ref(ctx, r); err != nil {
			return err
		}
	}
	for id, set := range m.sets {
		src, err := s.source(id)
		if err != nil {
			continue // nothing of it is here
		}
		missing := src.missing(set)
		for r := range missing.All() {
			set.Remove(r)
		}
		if set.Runs() == 0 {
			continue
		}
		if check != nil {
			err = check(ctx, src.log, set)
		}
		if err == nil && do != nil {
			err = do(src, set)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A Place has blocks of logs.
type Place interface {
	// Has reports whether a block is there.
	Has(log *hypercore.Log, block uint64) bool
	// Bring adds blocks from there to a log.
	Bring(ctx context.Context, log *hypercore.Log, blocks *runs.Set) error
}

// WholeIn reports whether all blocks of a content are in a place. Nodes that are not
// held here are brought from there: nobody else is waited for.
func (s *Store) WholeIn(ctx context.Context, r Ref, in Place) (bool, error) {
	whole := true
	err := s.walk(ctx, r, func(p pointer, depth int) error {
		src, err := s.source(p.log)
		if !whole || err != nil || !in.Has(src.log, p.index) {
			whole = false
			return errSkip
		}
		if depth == 0 || s.has(p) {
			return nil
		}
		var one runs.Set
		one.Add(runs.Range{Start: p.index, End: p.index + 1})
		return in.Bring(ctx, src.log, &one)
	})
	if err != nil {
		return false, fmt.Errorf("look for a content: %w", err)
	}
	return whole, nil
}
