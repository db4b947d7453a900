package tree

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// retryAfter is how long Download waits before it looks again for somebody who has
// what is missing. Peers that have something new are heard of at once.
const retryAfter = 5 * time.Second

// Download brings all bees here and keeps them so as they grow, also those that
// are added meanwhile, until the context ends, with its error, or the tree is
// closed.
func (t *Tree) Download(ctx context.Context) error {
	if t.past != nil {
		return fmt.Errorf("download: %w", ErrReadOnly)
	}
	type bring struct {
		upTo uint64
		stop context.CancelFunc
	}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := t.s
	brings := map[*writer]bring{}
	for {
		s.mu.Lock()
		closed, more := s.closed, s.more
		for _, w := range s.writers {
			b, ok := brings[w]
			if w.own || closed || ok && b.upTo == w.upTo {
				continue
			}
			if ok {
				b.stop()
			}
			one, stop := context.WithCancel(ctx)
			b = bring{w.upTo, stop}
			brings[w] = b
			running.Go(func() { s.bring(one, w, b.upTo) })
		}
		s.mu.Unlock()
		if closed {
			return fmt.Errorf("download: %w", ErrClosed)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("download: %w", ctx.Err())
		}
	}
}

// bring brings a bee here, up to a version if that is not 0.
func (s *shared) bring(ctx context.Context, w *writer, upTo uint64) {
	log := w.bee.Log()
	again := make(chan struct{}, 1)
	wake := func() {
		select {
		case again <- struct{}{}:
		default:
		}
	}
	stop, err := log.Notify(func(hypercore.Event) { wake() })
	if err != nil {
		return // it was closed
	}
	defer stop()
	for {
		err := log.Download(ctx, hypercore.DownloadRange{To: upTo, Live: upTo == 0, Linear: true})
		if ctx.Err() != nil || errors.Is(err, hypercore.ErrClosed) || err == nil && upTo > 0 {
			return
		}
		wait := func() bool { return true }
		if log.Contiguous() < max(log.Length(), upTo) {
			wait = s.o.Clock.AfterFunc(retryAfter, wake).Stop
		}
		select {
		case <-again:
		case <-ctx.Done():
		}
		wait()
		if ctx.Err() != nil {
			return
		}
	}
}

// Missing returns how many blocks of the bees are known of and are not here.
func (t *Tree) Missing() (n uint64) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.writers {
		length := w.bee.Log().Length()
		if w.upTo > 0 {
			length = min(length, w.upTo)
		}
		n += length - min(length, w.bee.Log().Contiguous())
	}
	return n
}
