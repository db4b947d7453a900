package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// maxWatches bounds how many folders are watched in all, and so the memory that
// it takes: about half a KiB each. What is not watched is looked through from
// time to time.
const maxWatches = 50_000

// errWatches: no more folders can be watched.
var errWatches = errors.New("watches ran out")

// A Watcher tells Keepers what changes on the disk. One is enough for all folders
// of a node. It costs a few goroutines, and nothing while nothing changes.
type Watcher struct {
	w      *fsnotify.Watcher
	work   sync.WaitGroup
	missed chan struct{} // events were lost, or may have been

	mu   sync.Mutex
	dirs map[string]*Keeper // guarded by mu: what is watched, and for whom
}

// NewWatcher begins to watch nothing. It must be closed, after the Keepers that
// use it.
func NewWatcher(clock.Clock) (*Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch folders: %w", err)
	}
	out := &Watcher{w: w, missed: make(chan struct{}, 1), dirs: map[string]*Keeper{}}
	out.work.Go(out.run)
	out.work.Go(out.errors)
	return out, nil
}

// Close ends the watching.
func (w *Watcher) Close() error {
	err := w.w.Close()
	w.work.Wait()
	return err
}

func (w *Watcher) run() {
	for {
		select {
		case e, ok := <-w.w.Events:
			if !ok {
				return
			}
			w.event(e)
		case <-w.missed:
			w.lost()
		}
	}
}

// errors takes errors and waits for nothing: fsnotify tells some of them while it
// holds the lock that run may be waiting for.
func (w *Watcher) errors() {
	for err := range w.w.Errors {
		if errors.Is(err, fsnotify.ErrNonExistentWatch) {
			continue
		}
		select {
		case w.missed <- struct{}{}:
		default:
		}
	}
}

func (w *Watcher) lost() {
	w.mu.Lock()
	all := map[*Keeper]bool{}
	for _, k := range w.dirs {
		all[k] = true
	}
	w.mu.Unlock()
	for k := range all {
		k.touched("")
	}
}

func (w *Watcher) event(e fsnotify.Event) {
	if e.Name == "" || isTemp(filepath.Base(e.Name)) {
		return // our own
	}
	w.mu.Lock()
	k, self := w.dirs[e.Name]
	if !self {
		k = w.dirs[filepath.Dir(e.Name)]
	}
	w.mu.Unlock()
	if k == nil {
		return
	}
	switch {
	case self && e.Has(fsnotify.Rename):
		w.moved(k, e.Name)
	case self && e.Has(fsnotify.Remove):
		w.mu.Lock()
		delete(w.dirs, e.Name)
		w.mu.Unlock()
		// The system has ended the watching, unless it is of another folder of that name
		// by now: else it would go on under this name when that one is moved.
		_ = w.w.Remove(e.Name)
	}
	if path, ok := clean(k.c.dir, e.Name); ok {
		k.touched(path)
	}
}

// moved ends the watching of a folder that has another name now, and of what is
// in it: else its watches would go on under the old names. A look that was faster
// may have taken these for new ones, so what is not watched any more is looked at
// again.
func (w *Watcher) moved(k *Keeper, dir string) {
	inside := dir + string(filepath.Separator)
	w.mu.Lock()
	var old []string
	for d := range w.dirs {
		if d == dir || strings.HasPrefix(d, inside) {
			old = append(old, d)
			delete(w.dirs, d)
		}
	}
	w.mu.Unlock()
	for _, d := range old {
		_ = w.w.Remove(d) // it may be gone already
	}
	there := map[string]bool{}
	for _, d := range w.w.WatchList() {
		there[d] = true
	}
	w.mu.Lock()
	var lost []string
	for d, whose := range w.dirs {
		if whose == k && !there[d] {
			lost = append(lost, d)
			delete(w.dirs, d)
		}
	}
	w.mu.Unlock()
	for _, d := range lost {
		_ = w.w.Remove(d) // it may have come meanwhile
		if path, ok := clean(k.c.dir, d); ok {
			k.touched(path)
		}
	}
}

// add watches a folder.
func (w *Watcher) add(k *Keeper, dir string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirs[dir] == k {
		return nil
	}
	if len(w.dirs) >= maxWatches {
		return errWatches
	}
	if err := w.w.Add(dir); err != nil {
		return err
	}
	w.dirs[dir] = k
	return nil
}

// leave ends the watching for a Keeper.
func (w *Watcher) leave(k *Keeper) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir, whose := range w.dirs {
		if whose == k {
			_ = w.w.Remove(dir) // it may be gone, or the Watcher closed
			delete(w.dirs, dir)
		}
	}
}

// watch has a folder be watched. What can't be is looked through from time to
// time.
func (k *Keeper) watch(path string) {
	if k.c.watcher == nil || !k.isRunning() {
		return
	}
	err := k.c.watcher.add(k, filepath.Join(k.c.dir, filepath.FromSlash(path)))
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return
	}
	k.mu.Lock()
	k.unwatch = true
	k.mu.Unlock()
}
