package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// Files that a door keeps for programs, and that no path can name, are kept aside:
// in the same tree, under keys of any bytes. They are in no list of the folder, and
// on no disk; their contents are kept, fetched and freed as those of files are.
const (
	asidePrefix = "aside:"
	asideEnd    = "aside;"
)

// where are the keys of files: in paths, and aside.
var (
	inPaths = hyperbee.RangeOptions{Gt: []byte("/"), Lt: []byte("0")}
	inAside = hyperbee.RangeOptions{Gt: []byte(asidePrefix), Lt: []byte(asideEnd)}
)

// isFile reports whether a key is one of an entry: a path, or one of those aside.
func isFile(key string) bool {
	return len(key) > len(asidePrefix) && key[:len(asidePrefix)] == asidePrefix || CheckPath(key) == nil
}

// Range returns entries whose paths are in a range, in the order of the bytes of the
// paths. Folders that are there only because something is in them are not among
// them. An entry's Stamp and Others are left out: see Stat.
func (f *Folder) Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if bytes.Compare(o.Gt, inPaths.Gt) < 0 && bytes.Compare(o.Gte, inPaths.Gt) < 0 {
			o.Gt, o.Gte = inPaths.Gt, nil
		}
		if o.Lte == nil && o.Lt == nil || o.Lt != nil && bytes.Compare(o.Lt, inPaths.Lt) > 0 {
			o.Lt = inPaths.Lt
		}
		for raw, err := range f.tree.Range(ctx, o) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("range: %w", err))
				return
			}
			if e := readOne(raw); CheckPath(e.Path) == nil && !yield(e, nil) {
				return
			}
		}
	}
}

// Get returns the entry at a path, or ErrNotFound, also for a folder that is there only
// because something is in it. Its Stamp and Others are left out: see Stat.
func (f *Folder) Get(ctx context.Context, path string) (Entry, error) {
	raw, err := f.tree.Get(ctx, []byte(path))
	if err != nil {
		return Entry{}, fmt.Errorf("get %q: %w", path, err)
	}
	return readOne(raw), nil
}

// Aside returns what is kept aside under a name. Its Path is the name.
func (f *Folder) Aside(ctx context.Context, name string) (Entry, error) {
	return aside(ctx, f.tree, name)
}

// Asides returns what is kept aside under names in a range, in their order.
func (f *Folder) Asides(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return asides(ctx, f.tree, o)
}

func asideKey(name string) []byte { return append([]byte(asidePrefix), name...) }

func aside(ctx context.Context, t reader, name string) (Entry, error) {
	raw, err := t.Get(ctx, asideKey(name))
	if err != nil {
		return Entry{}, fmt.Errorf("get what is aside: %w", err)
	}
	return readAside(raw), nil
}

func readAside(raw tree.Entry) Entry {
	e := readOne(raw)
	e.Path = strings.TrimPrefix(e.Path, asidePrefix)
	return e
}

func asides(ctx context.Context, t reader, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if o.Gt == nil && o.Gte == nil {
			o.Gt = []byte{}
		}
		if o.Lt == nil && o.Lte == nil {
			o.Lt = []byte(asideEnd)
		} else {
			o.Lt = prefixed(o.Lt)
		}
		o.Gt, o.Gte, o.Lte = prefixed(o.Gt), prefixed(o.Gte), prefixed(o.Lte)
		for raw, err := range t.Range(ctx, o) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("range of what is aside: %w", err))
				return
			}
			if !yield(readAside(raw), nil) {
				return
			}
		}
	}
}

// prefixed returns a bound of names as one of keys.
func prefixed(bound []byte) []byte {
	if bound == nil || string(bound) == asideEnd {
		return bound
	}
	return append([]byte(asidePrefix), bound...)
}

// A Saying is one statement about a file.
type Saying struct {
	Entry
	Aside bool   // it is about what is kept aside under Path
	Seq   uint64 // its block in the writer's log
}

// Said returns what was said since a version, which need not be one that the folder
// had: it has of each writer the first block to begin with. It is in the order of
// time; what one writer said together follows one another in the order in which it
// was said. Writer and Time are those of the statement itself.
func (f *Folder) Said(ctx context.Context, since tree.Version) iter.Seq2[Saying, error] {
	return func(yield func(Saying, error) bool) {
		for raw, err := range f.tree.History(ctx, tree.HistoryOptions{Since: since}) {
			if err != nil {
				yield(Saying{}, fmt.Errorf("what was said: %w", err))
				return
			}
			if !isFile(string(raw.Key)) {
				continue
			}
			s := Saying{Entry: readOne(raw), Seq: raw.Seq}
			s.Path, s.Aside = strings.CutPrefix(s.Path, asidePrefix)
			s.Time, s.Writer = raw.Time, raw.Writer
			if !yield(s, nil) {
				return
			}
		}
	}
}

// A Txn changes files, and what is kept aside, by what it reads: nobody else of this
// process writes meanwhile. All of it becomes visible together. It is one
// goroutine's, and must be flushed or closed.
type Txn struct {
	w    *writing
	hold *content.Hold
}

// Begin begins a transaction, once nobody else writes. The contents that it is given
// must be kept by a hold of the caller's, or by something that is there, until it was
// flushed.
func (f *Folder) Begin(ctx context.Context) (*Txn, error) {
	if !f.Writable() {
		return nil, fmt.Errorf("begin: %w", ErrReadOnly)
	}
	t, err := f.tree.Batch(ctx)
	if err != nil {
		return nil, err
	}
	hold := f.content.Hold()
	return &Txn{w: &writing{f: f, t: t, hold: hold, folders: map[string]bool{}}, hold: hold}, nil
}

// KeptElsewhere sets what is asked of what stands beside a file that is put or removed:
// what is kept elsewhere gets no name of its own.
func (x *Txn) KeptElsewhere(f func(context.Context, Entry) (bool, error)) { x.w.elsewhere = f }

// Close ends the transaction. What was not flushed is forgotten.
func (x *Txn) Close() {
	x.w.t.Close()
	x.hold.Release()
}

// Flush writes the changes with one append, and ends the transaction. They are on the
// disk when it returns.
func (x *Txn) Flush(ctx context.Context) error {
	defer x.Close()
	return x.w.t.Flush(ctx)
}

// Len returns how many changes there are.
func (x *Txn) Len() int { return x.w.t.Len() }

// Time returns when the changes will have been made. It is later than that of all that
// can be read.
func (x *Txn) Time() time.Time { return x.w.t.Time() }

// Get is Folder.Get, with the changes of the transaction.
func (x *Txn) Get(ctx context.Context, path string) (Entry, error) {
	raw, err := x.w.t.Get(ctx, []byte(path))
	if err != nil {
		return Entry{}, fmt.Errorf("get %q: %w", path, err)
	}
	return readOne(raw), nil
}

// Put makes a file, of the entry's content, times, mode and attributes, or returns
// ErrIsFolder, ErrNotFolder or ErrPath with nothing changed.
func (x *Txn) Put(ctx context.Context, e Entry) error {
	err := CheckPath(e.Path)
	if err == nil && (e.Kind != File || e.Content.IsZero()) {
		err = ErrNotFile
	}
	if err == nil {
		x.hold.Keep(e.Content)
		err = x.w.put(ctx, &e, false, nil)
	}
	if err != nil {
		return fmt.Errorf("put %q: %w", e.Path, err)
	}
	return nil
}

// Remove removes the file at a path. One that is not there is no error.
func (x *Txn) Remove(ctx context.Context, path string) error {
	if err := x.w.delete(ctx, path); err != nil {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	return nil
}

// Aside is Folder.Aside, with the changes of the transaction.
func (x *Txn) Aside(ctx context.Context, name string) (Entry, error) { return aside(ctx, x.w.t, name) }

// Asides is Folder.Asides, with the changes of the transaction, which must not be
// changed meanwhile.
func (x *Txn) Asides(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return asides(ctx, x.w.t, o)
}

// PutAside keeps a file aside, under its Path as its name: any bytes, at least one.
// What somebody else put there at the same time is replaced. The content of one that
// is Growing is kept only as long as it is there.
func (x *Txn) PutAside(ctx context.Context, e Entry) error {
	err := errors.ErrUnsupported
	if e.Kind == File && !e.Content.IsZero() && e.Path != "" {
		if e.Growing && e.live == [8]byte{} {
			e.live = [8]byte{1}
		}
		x.hold.Keep(e.Content)
		err = x.w.t.Put(ctx, asideKey(e.Path), e.encode())
	}
	if err != nil {
		return fmt.Errorf("put aside %q: %w", e.Path, err)
	}
	return nil
}

// RemoveAside removes what is kept aside under a name. What is not there is no error.
func (x *Txn) RemoveAside(ctx context.Context, name string) error {
	if err := x.w.t.Delete(ctx, asideKey(name)); err != nil {
		return fmt.Errorf("remove what is aside %q: %w", name, err)
	}
	return nil
}
