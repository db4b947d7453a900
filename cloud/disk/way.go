package disk

import (
	"io/fs"
	"os"
	"strings"
)

// A way leads to a folder in steps, each an open folder. The one that was used last
// is kept, as paths in one folder mostly come together: then each step is only
// looked at, and not gone again.
type way struct {
	path  string
	steps []wayStep
	users int  // guarded by rooted.mu
	old   bool // guarded by rooted.mu: it is closed after its last use
}

type wayStep struct {
	name string
	dir  *os.Root
	info fs.FileInfo
}

// maxWay bounds the steps of a way: each is an open file.
const maxWay = 16

// canKeep tells whether the way to a folder may be kept. On Windows nobody could
// move what is open.
func canKeep(path string) bool { return !windows && strings.Count(path, "/") <= maxWay }

// way returns that to a folder, to be left.
func (f *rooted) way(path string) (*way, error) {
	if w := f.lastWay(path); w != nil {
		if w.leads(f.r) {
			return w, nil
		}
		f.leave(w)
	}
	w := &way{path: path, users: 1}
	at := f.r
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		dir, info, err := step(at, name)
		if err != nil {
			w.close()
			return nil, err
		}
		w.steps = append(w.steps, wayStep{name, dir, info})
		at = dir
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked()
	f.last = w
	return w, nil
}

// lastWay returns the one that was used last if it leads to a path.
func (f *rooted) lastWay(path string) *way {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil || f.last.path != path {
		return nil
	}
	f.last.users++
	return f.last
}

// leads tells whether a way still does: nobody has moved a folder of it, or put
// something in its place.
func (w *way) leads(from *os.Root) bool {
	for _, s := range w.steps {
		now, err := from.Lstat(s.name)
		if err != nil || !os.SameFile(s.info, now) {
			return false
		}
		from = s.dir
	}
	return true
}

// end returns the folder that a way leads to.
func (w *way) end(from *os.Root) *os.Root {
	if len(w.steps) == 0 {
		return from
	}
	return w.steps[len(w.steps)-1].dir
}

func (f *rooted) leave(w *way) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.users--; w.users == 0 && w.old {
		w.close()
	}
}

// forgetLocked keeps no way any more.
func (f *rooted) forgetLocked() {
	if w := f.last; w != nil {
		f.last, w.old = nil, true
		if w.users == 0 {
			w.close()
		}
	}
}

func (w *way) close() {
	for _, s := range w.steps {
		s.dir.Close()
	}
	w.steps = nil
}
