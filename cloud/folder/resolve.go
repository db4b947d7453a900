package folder

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/cloud/tree"
)

// ResolveConflicts gives what was written at the same time at one path names of its
// own, and moves files away from where there is a folder as well. It looks at what
// has changed since a version, all when that is empty, and returns how many entries
// it gave new names.
//
// All devices choose the same names, so that any of them may do it, also two at
// once. What its device's name is not known of here is left for later.
func (f *Folder) ResolveConflicts(ctx context.Context, from tree.Version) (resolved int, err error) {
	if !f.Writable() {
		return 0, fmt.Errorf("resolve conflicts: %w", ErrReadOnly)
	}
	// A batch keeps others from writing, so first see whether there is anything.
	var paths []string
	found := finder{f: f, t: f.tree, all: len(from) == 0}
	for c, err := range f.Changes(ctx, from) {
		if err == nil && c.New != nil {
			paths, err = found.look(ctx, c.New, paths)
		}
		if err != nil {
			return 0, fmt.Errorf("resolve conflicts: %w", err)
		}
	}
	if len(paths) == 0 {
		return 0, nil
	}
	t, err := f.tree.Batch(ctx)
	if err != nil {
		return 0, fmt.Errorf("resolve conflicts: %w", err)
	}
	defer t.Close()
	w := &writing{f: f, t: t, folders: map[string]bool{}}
	for _, p := range paths {
		n, err := w.resolve(ctx, p)
		if err != nil {
			return 0, fmt.Errorf("resolve conflicts: %q: %w", p, err)
		}
		resolved += n
	}
	if t.Len() == 0 {
		return 0, nil
	}
	if err := t.Flush(ctx); err != nil {
		return 0, fmt.Errorf("resolve conflicts: %w", err)
	}
	return resolved, nil
}

// A finder finds paths with conflicts.
type finder struct {
	f    *Folder
	t    reader
	all  bool   // all paths are looked at
	last string // the folder that was looked at last, with all above it
}

// look appends the paths where an entry shows a conflict.
func (s *finder) look(ctx context.Context, e *Entry, paths []string) ([]string, error) {
	add := func(p string) {
		if len(paths) == 0 || paths[len(paths)-1] != p {
			paths = append(paths, p)
		}
	}
	for dir := parent(e.Path); dir != "/" && dir != s.last; dir = parent(dir) {
		above, err := s.f.stat(ctx, s.t, dir)
		if err != nil {
			return nil, err
		}
		if above.Kind != Dir {
			add(dir)
		}
	}
	s.last = parent(e.Path)
	if e.Kind != Dir && !s.all { // otherwise what is inside is looked at, too
		in, err := hasInside(ctx, s.t, e.Path)
		if err != nil {
			return nil, err
		}
		if in {
			add(e.Path)
			return paths, nil
		}
	}
	if _, others := e.sides(); len(others) > 0 {
		add(e.Path)
	}
	return paths, nil
}

// Conflicts returns how many of an entry and its Others have to get names of their
// own. What was deleted, or is the same, has not.
func (e Entry) Conflicts() int {
	_, others := e.sides()
	return len(others)
}

// sides returns what stays at an entry's path, and what stands beside it and has to
// go elsewhere.
func (e *Entry) sides() (stays *Entry, others []*Entry) {
	stays = e
	if e.Kind != Dir {
		for i := range e.Others {
			if e.Others[i].Kind == Dir {
				stays = &e.Others[i]
				break
			}
		}
	}
	for _, o := range append([]*Entry{e}, pointers(e.Others)...) {
		switch {
		case o == stays, o.Deleted, o.Err != nil, o.Kind == Dir, stays.Err == nil && o.same(stays):
		default:
			others = append(others, o)
		}
	}
	return stays, others
}

func pointers(list []Entry) []*Entry {
	out := make([]*Entry, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}

// same reports whether two entries differ in nothing that would be lost with one.
func (e *Entry) same(o *Entry) bool {
	if e.Kind != o.Kind {
		return false
	}
	return e.Kind == Symlink && e.Link == o.Link || e.Kind == File && e.Content.Same(o.Content)
}

// resolve resolves what conflicts at a path.
func (w *writing) resolve(ctx context.Context, p string) (resolved int, err error) {
	_, e, ok, err := w.get(ctx, p)
	if err != nil || !ok {
		return 0, err
	}
	stays, others := e.sides()
	moved := false
	if stays.Kind != Dir {
		in, err := hasInside(ctx, w.t, p)
		if err != nil {
			return 0, err
		}
		if in && stays.Err == nil {
			moved = true
			others = append(others, stays)
		}
	}
	if len(others) == 0 {
		return 0, nil
	}
	for _, o := range others {
		if w.f.o.Device(o.Writer) == "" {
			return 0, nil
		}
	}
	for _, o := range others {
		if err := w.save(ctx, p, o); err != nil {
			return 0, err
		}
	}
	if moved {
		return len(others), w.t.Delete(ctx, []byte(p))
	}
	return len(others), w.t.Put(ctx, []byte(p), withOrigin(stays.value, stays.Writer, stays.Time))
}

// saveOthers saves what stands beside an entry that is about to be replaced.
func (w *writing) saveOthers(ctx context.Context, e Entry) error {
	for i := range e.Others {
		o := &e.Others[i]
		if o.Deleted || o.Err != nil || o.Kind == Dir || o.same(&e) {
			continue
		}
		if w.elsewhere != nil {
			if kept, err := w.elsewhere(ctx, *o); kept || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
		if err := w.save(ctx, e.Path, o); err != nil {
			return err
		}
	}
	return nil
}

// save puts an entry at a path of its own beside another path.
func (w *writing) save(ctx context.Context, p string, e *Entry) error {
	device := w.f.o.Device(e.Writer)
	if device == "" {
		device = e.Writer.String()[:8]
	}
	value := withoutOrigin(e.value)
	for n := 1; ; n++ {
		name := ConflictName(p, device, e.Time, n)
		if err := CheckPath(name); err != nil {
			return err
		}
		raw, have, ok, err := w.get(ctx, name)
		if err != nil {
			return err
		}
		if ok && (bytes.Equal(raw.Value, value) || have.Err == nil && have.same(e)) {
			return nil
		}
		if !ok {
			in, err := hasInside(ctx, w.t, name)
			if err != nil {
				return err
			}
			if !in {
				return w.t.Put(ctx, []byte(name), value)
			}
		}
	}
}

// maxName is the most bytes that the name of a conflict copy has, which is what
// most file systems allow.
const maxName = 255

// ConflictName returns the path where what a device wrote at a time goes, when
// something else stays at its own path: "/dir/name (conflict from DEVICE 2026-11-23
// 151203).ext", the time in UTC. The n-th of several that would be named the same,
// from 2 on, gets a number. Where a path would be too long it is one in a folder
// above.
func ConflictName(p, device string, at time.Time, n int) string {
	dir, name := path.Split(p)
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	if stem == "" || len(ext) > 32 { // .profile
		stem, ext = name, ""
	}
	device = strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '-'
		}
		return r
	}, strings.ToValidUTF8(device, "-"))
	mark := " (conflict from " + clip(device, 64) + " " + at.UTC().Format("2006-01-02 150405") + ")"
	if n > 1 {
		mark = mark[:len(mark)-1] + " " + strconv.Itoa(n) + ")"
	}
	stem = clip(stem, maxName-len(mark)-len(ext))
	for len(dir)+maxName > MaxPath {
		dir, _ = path.Split(dir[:len(dir)-1])
	}
	return dir + stem + mark + ext
}

// clip cuts text to some bytes, between two characters.
func clip(s string, n int) string {
	n = max(n, 0)
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
