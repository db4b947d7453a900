package folder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// A Tag is a version with a name, kept with all its contents until it is removed.
type Tag struct {
	Name string
	Note string
	Time time.Time // when it was given
	// Version is what it names.
	Version tree.Version
	Writer  tree.Writer // who gave it
}

// Tags are kept in the tree of the entries, under keys that are no paths.
const (
	tagPrefix  = "tag:"
	tagVersion = 1
	maxTagName = 255
	maxNote    = 4096
)

// Tag names a version, the newest when it is nil. A tag of the same name is
// replaced.
func (f *Folder) Tag(ctx context.Context, name, note string, v tree.Version) error {
	fail := func(err error) error { return fmt.Errorf("tag %q: %w", name, err) }
	if name == "" || len(name) > maxTagName || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n") || len(note) > maxNote {
		return fail(errors.New("invalid name or note"))
	}
	if !f.Writable() {
		return fail(ErrReadOnly)
	}
	if v == nil {
		var err error
		if v, err = f.Version(ctx); err != nil {
			return fail(err)
		}
	}
	value := []byte{tagVersion}
	value = compact.AppendString(value, note)
	value = v.AppendTo(value)
	return wrap(fail, f.change(ctx, func(b *tree.Batch) error { return b.Put(ctx, []byte(tagPrefix+name), value) }))
}

// Untag removes a tag. What only it kept goes with the next Clear.
func (f *Folder) Untag(ctx context.Context, name string) error {
	fail := func(err error) error { return fmt.Errorf("remove tag %q: %w", name, err) }
	if !f.Writable() {
		return fail(ErrReadOnly)
	}
	return wrap(fail, f.change(ctx, func(b *tree.Batch) error {
		if _, err := b.Get(ctx, []byte(tagPrefix+name)); err != nil {
			return err
		}
		return b.Delete(ctx, []byte(tagPrefix+name))
	}))
}

func wrap(fail func(error) error, err error) error {
	if err != nil {
		return fail(err)
	}
	return nil
}

// change makes changes of the tree.
func (f *Folder) change(ctx context.Context, do func(*tree.Batch) error) error {
	b, err := f.tree.Batch(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := do(b); err != nil {
		return err
	}
	return b.Flush(ctx)
}

// Tags returns the tags, in the order of their names. Those that make no sense are
// left out.
func (f *Folder) Tags(ctx context.Context) iter.Seq2[Tag, error] {
	return func(yield func(Tag, error) bool) {
		for raw, err := range f.tree.Range(ctx, hyperbee.RangeOptions{Gte: []byte(tagPrefix), Lt: []byte("tag;")}) {
			if err != nil {
				yield(Tag{}, fmt.Errorf("tags: %w", err))
				return
			}
			if t, err := readTag(raw); err == nil && !yield(t, nil) {
				return
			}
		}
	}
}

func readTag(raw tree.Entry) (Tag, error) {
	d := compact.NewDecoder(raw.Value)
	version := d.Uint8()
	note := d.String(maxNote)
	rest := d.Rest()
	if err := d.Err(); err != nil || version != tagVersion {
		return Tag{}, fmt.Errorf("%w: tag: version %d: %w", ErrInvalid, version, errors.Join(err))
	}
	v, err := tree.ReadVersion(rest)
	if err != nil {
		return Tag{}, fmt.Errorf("%w: tag: %w", ErrInvalid, err)
	}
	name := strings.TrimPrefix(string(raw.Key), tagPrefix)
	return Tag{Name: name, Note: note, Time: raw.Time, Version: v, Writer: raw.Writer}, nil
}

// Tagged returns the folder as it was when it was given a tag, read-only. It must
// be closed.
func (f *Folder) Tagged(ctx context.Context, name string) (*Folder, error) {
	fail := func(err error) (*Folder, error) { return nil, fmt.Errorf("tag %q: %w", name, err) }
	raw, err := f.tree.Get(ctx, []byte(tagPrefix+name))
	if err != nil {
		return fail(err)
	}
	t, err := readTag(raw)
	if err != nil {
		return fail(err)
	}
	v, err := f.Checkout(ctx, t.Version)
	if err != nil {
		return fail(err)
	}
	return v, nil
}

// Restore makes what is at a path, and in it, what it is in an older or another
// version of the folder, "/" for all. What is not in that goes away; all of it stays
// in the history. Contents that nobody has any more come back as entries that can't
// be read: Missing of the older version tells.
func (f *Folder) Restore(ctx context.Context, from *Folder, path string) (changed int, err error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("restore %q: %w", path, err) }
	if err := checkFolder(path); err != nil {
		return fail(err)
	}
	return f.copy(ctx, from, path, path, fail)
}

// Copy copies what is at a path in a version of the folder to another path, where
// nothing may be. It moves no content. It is how to restore beside what is there,
// and to make a branch of a folder.
func (f *Folder) Copy(ctx context.Context, from *Folder, path, to string) (copied int, err error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("copy %q to %q: %w", path, to, err) }
	if err := checkFolder(path); err != nil {
		return fail(err)
	}
	if err := CheckPath(to); err != nil {
		return fail(err)
	}
	switch _, err := f.Stat(ctx, to); {
	case err == nil:
		return fail(ErrExists)
	case !errors.Is(err, ErrNotFound):
		return fail(err)
	}
	return f.copy(ctx, from, path, to, fail)
}

// copy makes all at a path what it is at another one elsewhere.
func (f *Folder) copy(ctx context.Context, from *Folder, path, to string, fail func(error) (int, error)) (int, error) {
	if !f.Writable() {
		return fail(ErrReadOnly)
	}
	hold := f.content.Hold()
	defer hold.Release()
	found := path == "/"
	if _, err := from.Stat(ctx, path); err == nil {
		found = true
	} else if !errors.Is(err, ErrNotFound) {
		return fail(err)
	}
	if !found && path != to {
		return fail(ErrNotFound)
	}
	t, err := f.tree.Batch(ctx)
	if err != nil {
		return fail(err)
	}
	defer t.Close()
	w := &writing{f: f, t: t, folders: map[string]bool{}}
	if to != "/" && found {
		if err := w.above(ctx, to); err != nil {
			return fail(err)
		}
	}
	n, wanted := 0, map[string]bool{}
	for raw, err := range from.under(ctx, path) {
		if err != nil {
			return fail(err)
		}
		e := read(raw)
		if e.Err != nil {
			continue // nothing can be done with it
		}
		target := join(to, e.Path[rootLen(path):])
		if err := CheckPath(target); err != nil {
			return fail(err)
		}
		wanted[target] = true
		value := withoutOrigin(raw.Value)
		have, old, ok, err := w.get(ctx, target)
		if err != nil {
			return fail(err)
		}
		if ok && string(withoutOrigin(have.Value)) == string(value) {
			continue
		}
		if err := w.saveOthers(ctx, old); err != nil {
			return fail(err)
		}
		hold.Keep(e.Content)
		if err := t.Put(ctx, []byte(target), value); err != nil {
			return fail(err)
		}
		n++
	}
	if path == to { // what is not there is to go
		keys, err := w.keys(ctx, to)
		if err != nil {
			return fail(err)
		}
		if to != "/" {
			keys = append(keys, to)
		}
		for _, key := range keys {
			_, _, ok, err := w.get(ctx, key)
			if err != nil {
				return fail(err)
			}
			if ok && !wanted[key] && CheckPath(key) == nil {
				if err := w.delete(ctx, key); err != nil {
					return fail(err)
				}
				n++
			}
		}
	}
	if t.Len() == 0 {
		return 0, nil
	}
	if err := t.Flush(ctx); err != nil {
		return fail(err)
	}
	return n, nil
}

func rootLen(path string) int {
	if path == "/" {
		return 0
	}
	return len(path)
}

// join puts what is below a path below another one.
func join(to, rest string) string {
	if to == "/" {
		return rest
	}
	return to + rest
}

// all is under; of the whole folder with what is kept aside.
func (f *Folder) all(ctx context.Context, path string) iter.Seq2[tree.Entry, error] {
	if path != "/" {
		return f.under(ctx, path)
	}
	return both(f.under(ctx, path), f.tree.Range(ctx, inAside))
}

// both returns what two sequences have, until the first error.
func both(a, b iter.Seq2[tree.Entry, error]) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		for _, seq := range []iter.Seq2[tree.Entry, error]{a, b} {
			for e, err := range seq {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// under returns the entries at a path and in it. Paths that are none are left out.
func (f *Folder) under(ctx context.Context, path string) iter.Seq2[tree.Entry, error] {
	return func(yield func(tree.Entry, error) bool) {
		if path != "/" {
			switch raw, err := f.tree.Get(ctx, []byte(path)); {
			case err == nil:
				if !yield(raw, nil) {
					return
				}
			case !errors.Is(err, ErrNotFound):
				yield(tree.Entry{}, err)
				return
			}
		}
		for raw, err := range f.tree.Range(ctx, inside(path)) {
			if err == nil && CheckPath(string(raw.Key)) != nil {
				continue
			}
			if !yield(raw, err) || err != nil {
				return
			}
		}
	}
}
