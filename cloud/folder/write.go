package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
)

// PutOptions for one entry.
type PutOptions struct {
	// Mode has permission bits; 0 says nothing.
	Mode fs.FileMode
	// ModTime says when it was changed; the zero value says nothing.
	ModTime time.Time
	// Seen says that Over is what the writer had seen.
	Seen bool
	// Over is the Stamp of the entry that the writer had seen, empty when there was
	// none. What was said since then is left standing beside what is put. Without
	// Seen, all that is here counts as seen.
	Over []byte
	// Base is a content that a large file is a newer version of; that of the entry at
	// its path when zero.
	Base content.Ref
}

// RemoveOptions for Remove.
type RemoveOptions struct {
	// All removes what is in the folder, too.
	All bool
	// Seen and Over are as in PutOptions, for the one entry.
	Seen bool
	Over []byte
}

// Put writes a file. Its content and then its entry are on the disk when it
// returns.
func (f *Folder) Put(ctx context.Context, path string, r io.Reader, o PutOptions) error {
	return f.batch(ctx, func(b *Batch) error { return b.Put(ctx, path, r, o) })
}

// PutContent makes a file of a content that is stored already, such as that of
// another entry.
func (f *Folder) PutContent(ctx context.Context, path string, ref content.Ref, o PutOptions) error {
	return f.batch(ctx, func(b *Batch) error { return b.PutContent(ctx, path, ref, o) })
}

// Mkdir makes a folder, or says something else of one that is there.
func (f *Folder) Mkdir(ctx context.Context, path string, o PutOptions) error {
	return f.batch(ctx, func(b *Batch) error { return b.Mkdir(ctx, path, o) })
}

// Symlink makes a link to a target, which need not be there.
func (f *Folder) Symlink(ctx context.Context, path, target string, o PutOptions) error {
	return f.batch(ctx, func(b *Batch) error { return b.Symlink(ctx, path, target, o) })
}

// Remove removes what is at a path. Its contents stay for as long as they are kept:
// see Clear.
func (f *Folder) Remove(ctx context.Context, path string, o RemoveOptions) error {
	return f.batch(ctx, func(b *Batch) error { return b.Remove(ctx, path, o) })
}

// Move moves what is at a path, with all that is in it, to another one, where
// nothing may be but a file that a file replaces. No content is moved.
func (f *Folder) Move(ctx context.Context, from, to string) error {
	return f.batch(ctx, func(b *Batch) error { return b.Move(ctx, from, to) })
}

func (f *Folder) batch(ctx context.Context, do func(*Batch) error) error {
	b, err := f.Batch(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := do(b); err != nil {
		return err
	}
	_, err = b.Flush(ctx)
	return err
}

// A Batch is several changes that become visible together, in their order. Their
// contents are stored as they come; nobody is kept waiting until Flush. It is one
// goroutine's at a time, and must be flushed or closed.
type Batch struct {
	f    *Folder
	hold *content.Hold
	ops  []op

	buf   []byte   // where files are read to
	small [][]byte // contents to be stored
	whose []int    // their operations
	bytes int

	done bool
}

// An op is a change that is made by Flush.
type op struct {
	name string // for errors
	path string
	run  func(ctx context.Context, w *writing, e *Entry) error
	e    Entry // what it puts
}

// smallBytes is about how much of small files is stored at once.
const smallBytes = 4 << 20

// maxSmall is the size of a small file: one that is read before it is stored.
const maxSmall = 64 << 10

// Batch begins a batch.
func (f *Folder) Batch(ctx context.Context) (*Batch, error) {
	if !f.Writable() {
		return nil, fmt.Errorf("begin batch: %w", ErrReadOnly)
	}
	return &Batch{f: f, hold: f.content.Hold()}, ctx.Err()
}

// Close ends the batch. What was not flushed is forgotten.
func (b *Batch) Close() {
	if !b.done {
		b.done = true
		b.hold.Release()
		b.ops, b.small, b.whose = nil, nil, nil
	}
}

var errEnded = errors.New("the batch has ended")

func (b *Batch) add(name string, e Entry, run func(context.Context, *writing, *Entry) error) error {
	err := CheckPath(e.Path)
	if b.done {
		err = errEnded
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", name, e.Path, err)
	}
	b.ops = append(b.ops, op{name: name, path: e.Path, e: e, run: run})
	return nil
}

func newEntry(path string, kind Kind, o PutOptions) Entry {
	e := Entry{Path: path, Kind: kind, Mode: o.Mode & modeBits}
	// The times that 64 bits of nanoseconds have.
	if s := o.ModTime.Unix(); !o.ModTime.IsZero() && s > math.MinInt64/1_000_000_000 && s < math.MaxInt64/1_000_000_000 {
		e.ModTime = o.ModTime.UTC()
	}
	return e
}

func putting(o PutOptions) func(context.Context, *writing, *Entry) error {
	return func(ctx context.Context, w *writing, e *Entry) error { return w.put(ctx, e, o.Seen, o.Over) }
}

// Put adds a file, whose content is stored at once.
func (b *Batch) Put(ctx context.Context, path string, r io.Reader, o PutOptions) error {
	e := newEntry(path, File, o)
	if err := b.add("put", e, putting(o)); err != nil {
		return err
	}
	n := len(b.ops) - 1
	err := b.store(ctx, n, r, o)
	if err != nil {
		b.ops = b.ops[:n]
		return fmt.Errorf("put %q: %w", path, err)
	}
	return nil
}

// store stores a content for an operation.
func (b *Batch) store(ctx context.Context, n int, r io.Reader, o PutOptions) error {
	if b.buf == nil {
		b.buf = make([]byte, maxSmall+1)
	}
	k, err := io.ReadFull(r, b.buf)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		b.small, b.whose = append(b.small, bytes.Clone(b.buf[:k])), append(b.whose, n)
		if b.bytes += k; b.bytes >= smallBytes {
			return b.flushSmall(ctx)
		}
		return nil
	case err != nil:
		return err
	}
	base := o.Base
	if base.IsZero() {
		raw, err := b.f.tree.Get(ctx, []byte(b.ops[n].path))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil {
			base = readOne(raw).Content
		}
	}
	w := b.hold.NewWriter(ctx, content.WriteOptions{Base: base})
	defer w.Abort()
	if _, err := w.ReadFrom(io.MultiReader(bytes.NewReader(b.buf[:k]), r)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	b.ops[n].e.Content = w.Ref()
	return nil
}

func (b *Batch) flushSmall(ctx context.Context) error {
	refs, err := b.hold.PutAll(ctx, b.small...)
	if err != nil {
		return err
	}
	for i, n := range b.whose {
		b.ops[n].e.Content = refs[i]
	}
	b.small, b.whose, b.bytes = nil, nil, 0
	return nil
}

// PutContent adds a file whose content is stored already.
func (b *Batch) PutContent(ctx context.Context, path string, ref content.Ref, o PutOptions) error {
	e := newEntry(path, File, o)
	if ref.IsZero() {
		return fmt.Errorf("put %q: %w: there is no content", path, ErrInvalid)
	}
	b.hold.Keep(ref)
	e.Content = ref
	return b.add("put", e, putting(o))
}

// Mkdir adds a folder.
func (b *Batch) Mkdir(ctx context.Context, path string, o PutOptions) error {
	return b.add("make folder", newEntry(path, Dir, o), putting(o))
}

// Symlink adds a link.
func (b *Batch) Symlink(ctx context.Context, path, target string, o PutOptions) error {
	e := newEntry(path, Symlink, o)
	e.Link = target
	if err := checkLink(target); err != nil {
		return fmt.Errorf("link %q: %w", path, err)
	}
	return b.add("link", e, putting(o))
}

// Remove removes what is at a path.
func (b *Batch) Remove(ctx context.Context, path string, o RemoveOptions) error {
	return b.add("remove", Entry{Path: path}, func(ctx context.Context, w *writing, e *Entry) error {
		return w.remove(ctx, e, o)
	})
}

// Move moves what is at a path.
func (b *Batch) Move(ctx context.Context, from, to string) error {
	if err := CheckPath(to); err != nil {
		return fmt.Errorf("move %q: %w", from, err)
	}
	return b.add("move", Entry{Path: from}, func(ctx context.Context, w *writing, e *Entry) error {
		return w.move(ctx, from, to, e)
	})
}

// Flush makes the changes, with one append to this device's log of entries, and
// ends the batch. They are on the disk when it returns, as is what they name. It
// returns what was put, one entry for each change in their order, as this device
// said it; for what was removed one that is Deleted, for a move the one at its new
// path. An entry's Stamp is that of this one statement.
//
// A change that can't be made fails the whole batch.
func (b *Batch) Flush(ctx context.Context) ([]Entry, error) {
	if b.done {
		return nil, errEnded
	}
	defer b.Close()
	if err := b.flushSmall(ctx); err != nil {
		return nil, fmt.Errorf("store contents: %w", err)
	}
	if len(b.ops) == 0 {
		return nil, nil
	}
	t, err := b.f.tree.Batch(ctx)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	w := &writing{f: b.f, t: t, hold: b.hold, folders: map[string]bool{}}
	out := make([]Entry, len(b.ops))
	for i := range b.ops {
		o := &b.ops[i]
		if err := o.run(ctx, w, &o.e); err != nil {
			return nil, fmt.Errorf("%s %q: %w", o.name, o.path, err)
		}
		out[i] = o.e
	}
	if err := t.Flush(ctx); err != nil {
		return nil, err
	}
	return out, nil
}

// A writing is a tree's batch while changes are made in it.
type writing struct {
	f       *Folder
	t       *tree.Batch
	hold    *content.Hold   // only where contents are put
	folders map[string]bool // that can have something in them

	elsewhere func(context.Context, Entry) (bool, error) // see Txn.KeptElsewhere
}

// get returns the entry at a path, with ok when there is one.
func (w *writing) get(ctx context.Context, path string) (raw tree.Entry, e Entry, ok bool, err error) {
	raw, err = w.t.Get(ctx, []byte(path))
	if errors.Is(err, ErrNotFound) {
		return raw, Entry{}, false, nil
	}
	if err != nil {
		return raw, Entry{}, false, err
	}
	return raw, read(raw), true, nil
}

// above checks that no file is where a folder has to be.
func (w *writing) above(ctx context.Context, path string) error {
	dir := parent(path)
	if dir == "/" || w.folders[dir] {
		return nil
	}
	_, e, ok, err := w.get(ctx, dir)
	if err != nil {
		return err
	}
	if ok && e.Kind != Dir {
		return fmt.Errorf("%q %w", dir, ErrNotFolder)
	}
	if !ok || e.Implicit {
		if err := w.above(ctx, dir); err != nil {
			return err
		}
	}
	w.folders[dir] = true
	return nil
}

// put makes an entry.
func (w *writing) put(ctx context.Context, e *Entry, seen bool, over []byte) error {
	if len(e.Attributes) > MaxAttributes {
		return fmt.Errorf("%w: attributes of %d bytes", ErrInvalid, len(e.Attributes))
	}
	if seen {
		// What was not seen may be anything: it is for ResolveConflicts.
		raw, old, ok, err := w.get(ctx, e.Path)
		if err != nil {
			return err
		}
		if ok && bytes.Equal(stampOf(raw), over) {
			if err := w.saveOthers(ctx, old); err != nil {
				return err
			}
		}
		if ok {
			e.keepOf(&old)
		}
		return w.say(ctx, e, seen, over)
	}
	if err := w.above(ctx, e.Path); err != nil {
		return err
	}
	_, old, ok, err := w.get(ctx, e.Path)
	if err != nil {
		return err
	}
	switch {
	case ok && old.Kind == Dir && e.Kind != Dir:
		return ErrIsFolder
	case ok && old.Kind != Dir && e.Kind == Dir:
		return ErrNotFolder
	case !ok && e.Kind != Dir:
		in, err := hasInside(ctx, w.t, e.Path)
		if err != nil {
			return err
		}
		if in {
			return ErrIsFolder
		}
	}
	if ok {
		e.keepOf(&old)
		if e.Kind == File && old.Kind == File && e.Content != old.Content && e.Content.Same(old.Content) {
			if n, err := w.f.content.Missing(ctx, old.Content); err == nil && n == 0 {
				w.hold.Keep(old.Content)
				e.Content = old.Content // it is stored twice; the new one will be swept
			}
		}
	}
	if err := w.saveOthers(ctx, old); err != nil {
		return err
	}
	delete(w.folders, e.Path)
	return w.say(ctx, e, false, nil)
}

// keepOf has an entry say what the one before it said and its writer knows nothing of.
func (e *Entry) keepOf(old *Entry) {
	if old.Kind != e.Kind {
		return
	}
	e.extra = old.extra
	if e.Attributes == nil && e.Kind == File && e.Content.Same(old.Content) {
		e.Attributes = old.Attributes
	}
}

// say makes a statement, and completes the entry with what it is.
func (w *writing) say(ctx context.Context, e *Entry, seen bool, over []byte) error {
	key := []byte(e.Path)
	e.value = e.encode()
	e.Size = e.Content.Size
	last, same, err := tree.Entry{}, true, error(nil)
	if seen {
		last, same, err = w.over(ctx, key, over)
	}
	switch {
	case err != nil:
	case same:
		err = w.t.Put(ctx, key, e.value)
	default:
		err = w.t.PutOver(ctx, key, e.value, last)
	}
	if err != nil {
		return err
	}
	return w.stated(ctx, e)
}

// remove removes what is at a path.
func (w *writing) remove(ctx context.Context, e *Entry, o RemoveOptions) error {
	_, old, ok, err := w.get(ctx, e.Path)
	if err != nil {
		return err
	}
	*e = Entry{Path: e.Path, Kind: old.Kind, Deleted: true}
	if o.Seen {
		seen, same, err := w.over(ctx, []byte(e.Path), o.Over)
		switch {
		case err != nil:
		case same:
			err = w.delete(ctx, e.Path)
		default:
			err = w.t.DeleteOver(ctx, []byte(e.Path), seen)
		}
		if err != nil {
			return err
		}
		return w.stated(ctx, e)
	}
	in, err := hasInside(ctx, w.t, e.Path)
	if err != nil {
		return err
	}
	if in && !o.All {
		return ErrNotEmpty
	}
	if !in && !ok {
		return ErrNotFound
	}
	if in {
		e.Kind = Dir
		keys, err := w.keys(ctx, e.Path)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := w.delete(ctx, key); err != nil {
				return err
			}
		}
	}
	if !ok {
		return nil
	}
	if err := w.delete(ctx, e.Path); err != nil {
		return err
	}
	return w.stated(ctx, e)
}

// keys returns what is in a folder.
func (w *writing) keys(ctx context.Context, dir string) (keys []string, err error) {
	for raw, err := range w.t.Range(ctx, inside(dir)) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, string(raw.Key))
	}
	return keys, nil
}

// delete deletes the entry at a path, and saves what stands beside it.
func (w *writing) delete(ctx context.Context, path string) error {
	_, e, ok, err := w.get(ctx, path)
	if err != nil || !ok {
		return err
	}
	delete(w.folders, path)
	if CheckPath(path) == nil {
		if err := w.saveOthers(ctx, e); err != nil {
			return err
		}
	}
	return w.t.Delete(ctx, []byte(path))
}

// move moves what is at a path.
func (w *writing) move(ctx context.Context, from, to string, e *Entry) error {
	if within(to, from) {
		return fmt.Errorf("to %q: %w: it leads into itself", to, ErrPath)
	}
	_, old, ok, err := w.get(ctx, from)
	if err != nil {
		return err
	}
	keys, err := w.keys(ctx, from)
	if err != nil {
		return err
	}
	if !ok && len(keys) == 0 {
		return ErrNotFound
	}
	if err := w.above(ctx, to); err != nil {
		return fmt.Errorf("to %q: %w", to, err)
	}
	_, there, taken, err := w.get(ctx, to)
	if err != nil {
		return err
	}
	in, err := hasInside(ctx, w.t, to)
	if err != nil {
		return err
	}
	file := len(keys) == 0 && old.Kind != Dir
	if in || taken && (!file || there.Kind == Dir) {
		return fmt.Errorf("to %q: %w", to, ErrExists)
	}
	if taken {
		if err := w.saveOthers(ctx, there); err != nil {
			return err
		}
	}
	*e = Entry{Path: to, Kind: Dir, Implicit: true}
	if ok {
		keys = append(keys, from)
	}
	for _, key := range keys {
		raw, err := w.t.Get(ctx, []byte(key))
		if err != nil {
			return err
		}
		target := to + key[len(from):]
		if err := CheckPath(target); err != nil {
			return err
		}
		moved := read(raw)
		moved.Path = target
		if err := w.t.Put(ctx, []byte(target), withoutOrigin(raw.Value)); err != nil {
			return err
		}
		if key == from {
			*e = moved
			if err := w.stated(ctx, e); err != nil {
				return err
			}
			e.Others = nil
		}
		// What stands beside it goes along, to its own name.
		if err := w.saveOthers(ctx, moved); err != nil {
			return err
		}
		if err := w.t.Delete(ctx, []byte(key)); err != nil {
			return err
		}
		delete(w.folders, key)
		delete(w.folders, target)
	}
	return nil
}
