package storage

import (
	"runtime"
	"sync"
)

// A syncGroup lets all who wait for a sync at the same time share one. Pebble
// does so too, but begins with the first who comes; with many writers on few
// processors most come just after, and each sync serves a few of them.
type syncGroup struct {
	syncing sync.Mutex // held while a sync runs; taken before mu

	mu   sync.Mutex
	next *syncRound // those who wait for a sync that has not begun; nil when none do
}

type syncRound struct {
	done chan struct{}
	err  error // set when done is closed
}

// sync returns when a call of f has succeeded that began after sync was called.
func (g *syncGroup) sync(f func() error) error {
	g.mu.Lock()
	r := g.next
	leads := r == nil
	if leads {
		r = &syncRound{done: make(chan struct{})}
		g.next = r
	}
	g.mu.Unlock()
	if !leads {
		<-r.done
		return r.err
	}
	// Whoever is ready to run goes first: a writer joins this round. When nobody
	// is, this costs nothing.
	runtime.Gosched()
	g.syncing.Lock()
	g.mu.Lock()
	g.next = nil
	g.mu.Unlock()
	r.err = f()
	g.syncing.Unlock()
	close(r.done)
	return r.err
}
