package hypercore

import (
	"context"
	"fmt"
	"iter"
	"sync"
)

// An EventKind says what happened to a log.
type EventKind uint8

// The kinds of events.
const (
	Appended  EventKind = iota // the log is Length blocks long
	Truncated                  // it was cut to Length and has the fork number Fork
	Cleared                    // the blocks of Range were removed from this store
	Received                   // the blocks of Range were added from a peer
	Froze                      // two histories were found: see Log.Frozen
	Lagged                     // events were dropped: look at the log itself
)

// String names the kind.
func (k EventKind) String() string {
	names := [...]string{"append", "truncate", "clear", "receive", "freeze", "lag"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// An Event is one thing that happened to a log. Only the fields that its kind
// names are set.
type Event struct {
	Kind   EventKind
	Length uint64
	Fork   uint64
	Range  Range
}

// maxEvents bounds what waits for a watcher that does not keep up.
const maxEvents = 256

// A Watcher gets the events of a log from when it was made. Appends that follow
// one another may come as one event. It must be closed.
type Watcher struct {
	c *core
	f func(Event) // gets the events instead; nil if they are kept

	mu     sync.Mutex
	events []Event
	more   chan struct{} // holds a token when there are events or the end
	err    error
}

// Watch returns a watcher of the log.
func (l *Log) Watch() (*Watcher, error) { return l.watch(nil) }

// Notify calls f with each event of the log, in order, until stop is called. f
// must return soon, and must not use the log.
func (l *Log) Notify(f func(Event)) (stop func(), err error) {
	w, err := l.watch(f)
	if err != nil {
		return nil, err
	}
	return func() { w.Close() }, nil
}

func (l *Log) watch(f func(Event)) (*Watcher, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	w := &Watcher{c: l.c, f: f, more: make(chan struct{}, 1)}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.c.closed {
		return nil, ErrClosed
	}
	if l.c.watchers == nil {
		l.c.watchers = map[*Watcher]struct{}{}
	}
	l.c.watchers[w] = struct{}{}
	return w, nil
}

// Next waits for the next event. It returns ErrClosed when the watcher or the
// log was closed and all events were returned.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	for {
		w.mu.Lock()
		if len(w.events) > 0 {
			e := w.events[0]
			w.events = w.events[1:]
			w.mu.Unlock()
			return e, nil
		}
		err := w.err
		w.mu.Unlock()
		if err != nil {
			return Event{}, err
		}
		select {
		case <-w.more:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// All returns the events until the context ends or the log is closed.
func (w *Watcher) All(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			e, err := w.Next(ctx)
			if err != nil || !yield(e) {
				return
			}
		}
	}
}

// Close ends the watcher.
func (w *Watcher) Close() error {
	w.c.mu.Lock()
	delete(w.c.watchers, w)
	w.c.mu.Unlock()
	w.end(ErrClosed)
	return nil
}

func (w *Watcher) end(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
	w.wake()
}

func (w *Watcher) wake() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *Watcher) add(e Event) {
	if w.f != nil {
		w.f(e)
		return
	}
	w.mu.Lock()
	last := len(w.events) - 1
	switch {
	case last >= 0 && e.Kind == Appended && w.events[last].Kind == Appended:
		w.events[last].Length = max(w.events[last].Length, e.Length)
	case last >= 0 && e.Kind == w.events[last].Kind && (e.Kind == Received || e.Kind == Cleared) && e.Range.Start == w.events[last].Range.End:
		w.events[last].Range.End = e.Range.End
	case last >= maxEvents-1:
		w.events = append(w.events[:0], Event{Kind: Lagged})
	default:
		w.events = append(w.events, e)
	}
	w.mu.Unlock()
	w.wake()
}

// notify tells the watchers.
func (c *core) notify(e Event) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for w := range c.watchers {
		w.add(e)
	}
}

// endWatchers ends the watchers of a core that is closed: no more are added.
func (c *core) endWatchers() {
	c.mu.Lock()
	watchers := c.watchers
	c.watchers = nil
	c.mu.Unlock()
	for w := range watchers {
		w.end(ErrClosed)
	}
}
