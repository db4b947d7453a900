// Package folder is a tree of files that several devices of one owner write at the
// same time: their entries in a tree.Tree, their contents in a content.Store.
//
//	f := folder.New(entries, contents, folder.Options{Device: nameOf})
//	err := f.Put(ctx, "/notes/today.txt", strings.NewReader("hello"), folder.PutOptions{})
//	r, err := f.Open(ctx, "/notes/today.txt")
//	for e, err := range f.List(ctx, "/notes", folder.ListOptions{}) {
//		…
//	}
//	old, err := f.At(ctx, yesterday)
//	err = f.Restore(ctx, old, "/notes")
//
// It knows of no folder on a disk: that is what package disk keeps the same as one
// of these.
//
// # Paths
//
// A path is absolute, with slashes, clean, valid UTF-8 and up to 4 KiB: see
// [CheckPath]. Entries are in the order of the bytes of their paths: "/a", "/a-b",
// "/a/b". A folder is there while something is in it, or for itself once [Folder.Mkdir]
// made it.
//
// # Many writers
//
// What one device wrote having seen what others did replaces it. What was written
// at the same time stands beside the winner, in Entry.Others, until ResolveConflicts
// gives each a name of its own, the same on every device. An edit wins over a
// deletion, a folder over a file of the same name. Nothing that somebody wrote is
// lost by what somebody else wrote without having seen it.
//
// # Entries of others
//
// An entry may say anything. One that makes no sense is listed with Entry.Err, and
// ends no list; a path that makes no sense is left out.
//
// The format is docs/formats/folder.md.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/treefs"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: there is nothing at the path, no such tag, or a content is not
	// here and nobody has it to give.
	ErrNotFound = tree.ErrNotFound
	// ErrReadOnly: the folder is one of the past, or this device has no logs in it.
	ErrReadOnly = tree.ErrReadOnly
	// ErrPath: a path is none.
	ErrPath = errors.New("invalid path")
	// ErrInvalid: an entry or a content makes no sense.
	ErrInvalid = content.ErrInvalid
	// ErrIsFolder: there is a folder where a file was asked for or put.
	ErrIsFolder = treefs.ErrIsFolder
	// ErrNotFile: what was asked for is no file.
	ErrNotFile = errors.New("is no file")
	// ErrNotFolder: a file is where a folder would have to be.
	ErrNotFolder = errors.New("is no folder")
	// ErrExists: there is something already.
	ErrExists = errors.New("exists")
	// ErrNotEmpty: something is in the folder.
	ErrNotEmpty = errors.New("folder is not empty")
)

// Options for New.
type Options struct {
	// Device returns what people call the device that writes a log, for the names of
	// conflict copies. It must be the same on all devices, so it returns "" for one
	// whose name is not known here yet: its conflicts are resolved later then. The
	// first digits of the log's key when nil.
	Device func(tree.Writer) string
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
}

// A Folder is a tree of files, as it is or as it was. Any goroutine may call its
// methods.
type Folder struct {
	tree    *tree.Tree
	content *content.Store
	o       Options
	past    bool // the tree is a checkout of this folder's own
	refetch calls
}

// New returns the folder of a tree and a store, which stay the caller's to close,
// after the folder's last use. Writing goes to the logs that the two were given as
// this device's own, which must be in one storage.
func New(t *tree.Tree, c *content.Store, o Options) *Folder {
	if o.Device == nil {
		o.Device = func(w tree.Writer) string { return w.String()[:8] }
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	return &Folder{tree: t, content: c, o: o}
}

// Tree returns the tree of the entries.
func (f *Folder) Tree() *tree.Tree { return f.tree }

// Contents returns the store of the contents.
func (f *Folder) Contents() *content.Store { return f.content }

// Writable reports whether this device can write to the folder.
func (f *Folder) Writable() bool { return !f.past && f.tree.Writable() }

// Close frees what a folder of the past keeps. One that New returned need not be
// closed.
func (f *Folder) Close() error {
	if !f.past {
		return nil
	}
	return f.tree.Close()
}

// Version returns the version of the folder.
func (f *Folder) Version(ctx context.Context) (tree.Version, error) { return f.tree.Version(ctx) }

// Notify calls f when something may have changed, here or elsewhere, until stop is
// called. f must return soon, and must not use the folder.
func (f *Folder) Notify(call func()) (stop func()) { return f.tree.Notify(call) }

func (f *Folder) view(t *tree.Tree, err error) (*Folder, error) {
	if err != nil {
		return nil, err
	}
	return &Folder{tree: t, content: f.content, o: f.o, past: true}, nil
}

// At returns the folder as it was at a time, read-only. It must be closed.
func (f *Folder) At(ctx context.Context, at time.Time) (*Folder, error) {
	return f.view(f.tree.At(ctx, at))
}

// Checkout returns the folder as it was at a version, read-only. It must be closed.
func (f *Folder) Checkout(ctx context.Context, v tree.Version) (*Folder, error) {
	return f.view(f.tree.Checkout(ctx, v))
}

// Stat returns the entry at a path. A folder that is there only because something
// is in it has no more than a path.
func (f *Folder) Stat(ctx context.Context, path string) (Entry, error) {
	e, err := f.stat(ctx, f.tree, path)
	if err != nil {
		return Entry{}, fmt.Errorf("stat %q: %w", path, err)
	}
	return e, nil
}

// A reader is a tree, or a batch of one.
type reader interface {
	Get(ctx context.Context, key []byte) (tree.Entry, error)
	Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[tree.Entry, error]
}

// Entry is Stat, but ErrNotFound also for a folder that is there only because
// something is in it: that takes longer to find out.
func (f *Folder) Entry(ctx context.Context, path string) (Entry, error) {
	e, err := entryAt(ctx, f.tree, path)
	if err != nil {
		return Entry{}, fmt.Errorf("entry %q: %w", path, err)
	}
	return e, nil
}

func entryAt(ctx context.Context, t reader, path string) (Entry, error) {
	if err := CheckPath(path); err != nil {
		return Entry{}, err
	}
	raw, err := t.Get(ctx, []byte(path))
	if err != nil {
		return Entry{}, err
	}
	return read(raw), nil
}

func (f *Folder) stat(ctx context.Context, t reader, path string) (Entry, error) {
	if path == "/" {
		return Entry{Path: "/", Kind: Dir, Implicit: true}, nil
	}
	e, err := entryAt(ctx, t, path)
	if !errors.Is(err, ErrNotFound) {
		return e, err
	}
	inside, err := hasInside(ctx, t, path)
	if err != nil {
		return Entry{}, err
	}
	if !inside {
		return Entry{}, ErrNotFound
	}
	return Entry{Path: path, Kind: Dir, Implicit: true}, nil
}

// inside returns the keys of what is in a folder, at any depth.
func inside(path string) hyperbee.RangeOptions {
	if path == "/" {
		path = ""
	}
	return hyperbee.RangeOptions{Gt: []byte(path + "/"), Lt: []byte(path + "0")}
}

// hasInside reports whether something is below a path.
func hasInside(ctx context.Context, t reader, path string) (bool, error) {
	o := inside(path)
	o.Limit = 1
	for _, err := range t.Range(ctx, o) {
		return err == nil, err
	}
	return false, nil
}

// Open returns a reader of the file at a path. What is not held here is fetched
// while the context lasts. The reader must be closed.
func (f *Folder) Open(ctx context.Context, path string) (*content.Reader, error) {
	e, err := f.Stat(ctx, path)
	if err != nil {
		return nil, err
	}
	return f.OpenEntry(ctx, e)
}

// OpenEntry is Open of what an entry names, also if the path has changed since.
func (f *Folder) OpenEntry(ctx context.Context, e Entry) (*content.Reader, error) {
	err := e.Err
	switch {
	case err != nil:
	case e.Kind == Dir:
		err = ErrIsFolder
	case e.Kind != File:
		err = ErrNotFile
	}
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", e.Path, err)
	}
	r, err := f.content.NewReader(ctx, e.Content)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", e.Path, err)
	}
	return r, nil
}

// ReadFile returns the content of a file of up to limit bytes.
func (f *Folder) ReadFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	r, err := f.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, fmt.Errorf("read %q: it has %d bytes, %d are allowed", path, r.Size(), limit)
	}
	data, err := f.content.Get(ctx, r.Ref(), limit)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return data, nil
}

var _ io.ReadSeekCloser = (*content.Reader)(nil)

// ListOptions say which entries of a folder.
type ListOptions struct {
	// Recursive lists what is in folders in it, too. Folders that are there only
	// because something is in them are left out then.
	Recursive bool
	// Prefix is what names in the folder begin with, those in folders below it not.
	Prefix string
	// After is the path of an entry that was listed: the list goes on behind it.
	After string
	// Limit is the most entries to return; 0 is all.
	Limit int
}

// manyInside is how many entries of a folder in a list are passed by one by one,
// before it is jumped over.
const manyInside = 8

// List returns what is in a folder, in the order of the bytes of the paths; folders
// that are there only because something is in them come where the first of that
// would. It ends with the first error, which is never that of an entry.
func (f *Folder) List(ctx context.Context, dir string, o ListOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		l := lister{ctx: ctx, t: f.tree, o: o, yield: yield}
		if err := l.run(dir); err != nil && !errors.Is(err, errStop) {
			yield(Entry{}, fmt.Errorf("list %q: %w", dir, err))
		}
	}
}

var errStop = errors.New("stop")

type lister struct {
	ctx   context.Context
	t     reader
	o     ListOptions
	yield func(Entry, error) bool
	n     int
}

func (l *lister) give(e Entry) error {
	if !l.yield(e, nil) {
		return errStop
	}
	if l.n++; l.n == l.o.Limit {
		return errStop
	}
	return nil
}

func (l *lister) run(dir string) error {
	if err := checkFolder(dir); err != nil {
		return err
	}
	where := inside(dir)
	if l.o.Prefix != "" {
		if strings.ContainsAny(l.o.Prefix, "/\x00") || !utf8.ValidString(l.o.Prefix) {
			return fmt.Errorf("%w: %q does not begin a name", ErrPath, l.o.Prefix)
		}
		from := join(dir, "/"+l.o.Prefix)
		to := []byte(from)
		to[len(to)-1]++ // text never has a byte of 255
		where = hyperbee.RangeOptions{Gte: []byte(from), Lt: to}
	}
	if l.o.After != "" {
		if err := CheckPath(l.o.After); err != nil {
			return err
		}
		after := []byte(l.o.After)
		if !l.o.Recursive {
			// An implicit folder was listed where what is in it is.
			switch _, err := l.t.Get(l.ctx, after); {
			case errors.Is(err, ErrNotFound):
				if in, err := hasInside(l.ctx, l.t, l.o.After); err != nil {
					return err
				} else if in {
					after = []byte(l.o.After + "0")
				}
			case err != nil:
				return err
			}
		}
		if string(after) > string(where.Gt) && string(after) >= string(where.Gte) {
			where.Gt, where.Gte = after, nil
			if len(after) > len(l.o.After) {
				where.Gt, where.Gte = nil, after
			}
		}
	}
	if l.o.Recursive {
		for raw, err := range l.t.Range(l.ctx, where) {
			if err != nil {
				return err
			}
			if CheckPath(string(raw.Key)) == nil {
				if err := l.give(read(raw)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	first := len(dir) + 1 // of a name
	if dir == "/" {
		first = 1
	}
	for {
		next, err := l.level(where, first)
		if err != nil || next == nil {
			return err
		}
		where.Gt, where.Gte = nil, next
	}
}

// level lists one level until there is so much in a folder that it should go on
// from next. It returns nil at the end.
func (l *lister) level(where hyperbee.RangeOptions, first int) (next []byte, err error) {
	folder, passed := "", 0 // the one that is passed by
	for raw, err := range l.t.Range(l.ctx, where) {
		if err != nil {
			return nil, err
		}
		path := string(raw.Key)
		if len(path) < first {
			continue
		}
		cut := indexSlash(path[first:])
		if cut < 0 {
			if CheckPath(path) == nil {
				if err := l.give(read(raw)); err != nil {
					return nil, err
				}
			}
			continue
		}
		child := path[:first+cut]
		if child != folder {
			folder, passed = child, 0
			if CheckPath(child) == nil {
				_, err := l.t.Get(l.ctx, []byte(child))
				if errors.Is(err, ErrNotFound) {
					err = l.give(Entry{Path: child, Kind: Dir, Implicit: true})
				}
				if err != nil {
					return nil, err
				}
			}
		}
		if passed++; passed == manyInside {
			return []byte(child + "0"), nil
		}
	}
	return nil, nil
}

func indexSlash(s string) int {
	for i := range len(s) {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}

// A Change is a path whose entry is not what it was.
type Change struct {
	Path string
	// Old and New are the entries before and after, nil where there was or is none.
	Old, New *Entry
}

// Changes returns what has changed since a version, each path once, in the order of
// their bytes. With an empty version that is everything. Folders that are there
// only because something is in them are not in it.
func (f *Folder) Changes(ctx context.Context, from tree.Version) iter.Seq2[Change, error] {
	return f.changes(ctx, from, "/")
}

// AllChanges is Changes with the paths where something came and went again, which have
// neither Old nor New. With an empty version it is Changes.
func (f *Folder) AllChanges(ctx context.Context, from tree.Version) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		f.saidIn(ctx, from, inPaths, func(c Change, err error) bool {
			return err == nil && CheckPath(c.Path) != nil || yield(c, err)
		})
	}
}

func (f *Folder) changes(ctx context.Context, from tree.Version, dir string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		where := inPaths
		if dir != "/" {
			where = hyperbee.RangeOptions{Gte: []byte(dir), Lt: []byte(dir + "0")}
		}
		f.changesIn(ctx, from, where, func(c Change, err error) bool {
			if err == nil && (CheckPath(c.Path) != nil || !within(c.Path, dir)) {
				return true
			}
			return yield(c, err)
		})
	}
}

// changesAll is Changes with what is kept aside, whose paths are its keys.
func (f *Folder) changesAll(ctx context.Context, from tree.Version) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		more := true
		for _, where := range []hyperbee.RangeOptions{inPaths, inAside} {
			f.changesIn(ctx, from, where, func(c Change, err error) bool {
				if err != nil || isFile(c.Path) {
					more = yield(c, err) && err == nil
				}
				return more
			})
			if !more {
				return
			}
		}
	}
}

func (f *Folder) changesIn(ctx context.Context, from tree.Version, where hyperbee.RangeOptions, yield func(Change, error) bool) {
	f.saidIn(ctx, from, where, func(c Change, err error) bool {
		return err == nil && c.Old == nil && c.New == nil || yield(c, err)
	})
}

func (f *Folder) saidIn(ctx context.Context, from tree.Version, where hyperbee.RangeOptions, yield func(Change, error) bool) {
	all := f.tree.Changes(ctx, from, where)
	if len(from) == 0 {
		all = f.everything(ctx, where)
	}
	for c, err := range all {
		if err != nil {
			yield(Change{}, fmt.Errorf("changes: %w", err))
			return
		}
		out := Change{Path: string(c.Key), Old: readThere(c.Old), New: readThere(c.New)}
		if !yield(out, nil) {
			return
		}
	}
}

// everything is what has changed since there was nothing, which is faster to find.
func (f *Folder) everything(ctx context.Context, where hyperbee.RangeOptions) iter.Seq2[tree.Change, error] {
	return func(yield func(tree.Change, error) bool) {
		for raw, err := range f.tree.Range(ctx, where) {
			if !yield(tree.Change{Key: raw.Key, New: raw}, err) || err != nil {
				return
			}
		}
	}
}

func readThere(raw tree.Entry) *Entry {
	if raw.Value == nil {
		return nil
	}
	e := read(raw)
	return &e
}

// Diff returns what is different in this folder from an older one of its versions,
// in a folder of it, "/" for all. With an older one that is newer, it says what
// would have to be changed to get back.
func (f *Folder) Diff(ctx context.Context, old *Folder, dir string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		fail := func(err error) { yield(Change{}, fmt.Errorf("diff: %w", err)) }
		if err := checkFolder(dir); err != nil {
			fail(err)
			return
		}
		ours, err := f.Version(ctx)
		if err != nil {
			fail(err)
			return
		}
		theirs, err := old.Version(ctx)
		if err != nil {
			fail(err)
			return
		}
		newer, from, swap := f, theirs, false
		if !ours.Covers(theirs) {
			if !theirs.Covers(ours) {
				fail(errors.New("neither is a later version of the other"))
				return
			}
			newer, from, swap = old, ours, true
		}
		for c, err := range newer.changes(ctx, from, dir) {
			if swap {
				c.Old, c.New = c.New, c.Old
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// HistoryOptions say which statements.
type HistoryOptions struct {
	// Inside also returns what was said of all that was ever in the folder.
	Inside bool
	// From and To are times, the second one exclusive; zero is no bound.
	From, To time.Time
	// Reverse goes from the last to the first.
	Reverse bool
	// Limit is the most to return; 0 is all.
	Limit int
}

// History returns what was said of a path by all devices, in the order of time. An
// entry that says that there is nothing any more has Deleted set.
func (f *Folder) History(ctx context.Context, path string, o HistoryOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		fail := func(err error) { yield(Entry{}, fmt.Errorf("history of %q: %w", path, err)) }
		if err := checkFolder(path); err != nil {
			fail(err)
			return
		}
		for e, err := range f.history(ctx, path, o) {
			if err != nil {
				fail(err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (f *Folder) history(ctx context.Context, path string, o HistoryOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		where := tree.HistoryOptions{Key: []byte(path), From: o.From, To: o.To, Reverse: o.Reverse, Limit: o.Limit}
		if o.Inside {
			where.Key, where.Prefix, where.Limit = nil, []byte(path), 0
		}
		n := 0
		for raw, err := range f.tree.History(ctx, where) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			p := string(raw.Key)
			if CheckPath(p) != nil || !within(p, path) {
				continue
			}
			if !yield(read(raw), nil) {
				return
			}
			if n++; n == o.Limit {
				return
			}
		}
	}
}

// saidSince returns all that was said since a time, also of what is kept aside.
func (f *Folder) saidSince(ctx context.Context, from time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for raw, err := range f.tree.History(ctx, tree.HistoryOptions{From: from}) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if isFile(string(raw.Key)) && !yield(read(raw), nil) {
				return
			}
		}
	}
}
