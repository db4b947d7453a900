// Package mirrordrive makes a drive or a folder the same as another, as the npm
// package mirror-drive does.
//
//	var total mirrordrive.Total
//	for op, err := range mirrordrive.Mirror(ctx, mirrordrive.Folder(photos), mirrordrive.Drive(drive), mirrordrive.Options{}) {
//		if err != nil {
//			return err
//		}
//		total.Count(op)
//	}
//
// # What is the same
//
// Files of the same size and time are taken to be the same, as rsync does. If a
// time is not known or is another, the contents are compared: what is the same
// is not written again. Links are the same if they say the same.
//
// # What can't be mirrored
//
// What can't be read or written is skipped, with the reason, and nothing is
// removed on account of it. So are paths that the other side can't have, a file
// whose place others' folder takes, and names that its file system takes for one
// another.
//
// # Going on
//
// Both sides are read once, together, in the order of their paths, so that the
// number of files does not matter. What was done is on the disk when the
// sequence ends without an error. When it is cut short, most of it is, no file
// is there by half, and the next Mirror does what is left.
package mirrordrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
)

// Options of a mirror. The zero value makes the target all that the source is.
type Options struct {
	// Prefix are the files and folders to mirror; all when empty.
	Prefix []string
	// Filter, if it is not nil, says yes to what is to be written. What it says no
	// to is only removed when the source does not have it.
	Filter func(path string) bool
	// Ignore, if it is not nil, says yes to files and folders that are left alone on
	// both sides.
	Ignore func(path string) bool
	// NoPrune leaves what the source does not have.
	NoPrune bool
	// DryRun changes nothing, and tells what would be done. It does not foresee all
	// that can't be written.
	DryRun bool
	// Checksum compares the contents of files of the same size and time, too.
	Checksum bool
	// Dedup has a drive store of changed files only what it does not have, in pieces
	// that are cut where the contents say.
	Dedup bool
	// Progress, if it is not nil, is called while contents are copied.
	Progress func(Progress)
}

// Progress is how much of a file was copied.
type Progress struct {
	Path        string
	Bytes, Size uint64
}

// A Kind says what was done to a path.
type Kind uint8

// The kinds of operations.
const (
	Equal Kind = iota
	Add
	Change
	Remove
	Skip // it was left as it is, see Op.Reason
)

// String returns the kind as mirror-drive has it.
func (k Kind) String() string {
	if names := []string{"equal", "add", "change", "remove", "skip"}; int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", k)
}

// An Op is what was done to a path.
type Op struct {
	Kind Kind
	Path string
	// Metadata says that a change was none of the contents.
	Metadata                 bool
	BytesAdded, BytesRemoved uint64
	// Reason is why it was skipped.
	Reason error
}

// A Total sums up operations.
type Total struct {
	Add, Change, Remove, Equal, Skip uint64
	BytesAdded, BytesRemoved         uint64
}

// Count counts an operation.
func (c *Total) Count(op Op) {
	switch op.Kind {
	case Add:
		c.Add++
	case Change:
		c.Change++
	case Remove:
		c.Remove++
	case Equal:
		c.Equal++
	case Skip:
		c.Skip++
	}
	c.BytesAdded += op.BytesAdded
	c.BytesRemoved += op.BytesRemoved
}

// Mirror makes dst the same as src, and returns what it has done. It ends with
// the first error that is not about one file. A Side is for one Mirror at a
// time.
func Mirror(ctx context.Context, src, dst Side, o Options) iter.Seq2[Op, error] {
	return func(yield func(Op, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		m := &mirror{src: src, dst: dst, o: o}
		if d, ok := dst.(*drive); ok {
			d.dedup = o.Dedup
		}
		err := m.run(ctx, func(op Op) bool { return yield(op, nil) })
		if errors.Is(err, errStop) {
			// What was reported is kept. There is nobody left to tell if it can't be.
			_ = dst.flush(context.WithoutCancel(ctx))
			return
		}
		err = errors.Join(err, dst.flush(context.WithoutCancel(ctx)))
		if err != nil {
			yield(Op{}, fmt.Errorf("mirror: %w", err))
		}
	}
}

// errStop ends a mirror whose caller wants no more.
var errStop = errors.New("stopped")

// maxLater bounds how many files wait for others to go.
const maxLater = 1 << 16

type mirror struct {
	src, dst Side
	o        Options
	kept     []string // paths that the source could not read: not to be removed
	later    []task
}

// A task is a path that is on one side or on both.
type task struct {
	path     string
	src, dst *hyperdrive.Entry
	reason   error // why there is nothing to be done
}

func (m *mirror) run(ctx context.Context, yield func(Op) bool) error {
	prefixes, err := m.prefixes()
	if err != nil {
		return err
	}
	do := func(t task, last bool) error {
		op, ok, err := m.do(ctx, t, last)
		if err == nil && ok && !yield(op) {
			err = errStop
		}
		return err
	}
	for _, prefix := range prefixes {
		for t, err := range m.ahead(ctx, m.plan(ctx, prefix)) {
			if err == nil {
				err = do(t, false)
			}
			if err != nil {
				return err
			}
		}
	}
	if len(m.later) == 0 {
		return nil
	}
	if err := m.dst.flush(ctx); err != nil {
		return err
	}
	for _, t := range m.later {
		if err := do(t, true); err != nil {
			return err
		}
	}
	return nil
}

// prefixes returns those to mirror, none of which is in another.
func (m *mirror) prefixes() ([]string, error) {
	var out []string
	for _, p := range m.o.Prefix {
		if strings.Trim(p, "/") == "" {
			return []string{""}, nil
		}
		p, err := hyperdrive.CleanPath(p)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return []string{""}, nil
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(a+"/", b+"/") })
	kept := out[:1]
	for _, p := range out[1:] {
		if !strings.HasPrefix(p+"/", kept[len(kept)-1]+"/") {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// plan returns the paths of both sides under a prefix, in order.
func (m *mirror) plan(ctx context.Context, prefix string) iter.Seq2[task, error] {
	return func(yield func(task, error) bool) {
		if prefix != "" {
			t, err := m.at(ctx, prefix)
			if (err != nil || t.src != nil || t.dst != nil) && !yield(t, err) || err != nil {
				return
			}
		}
		src := newCursor(m.src.list(ctx, prefix+"/", m.o.Ignore, false))
		defer src.stop()
		dst := newCursor(m.dst.list(ctx, prefix+"/", m.o.Ignore, !m.o.DryRun))
		defer dst.stop()
		for {
			t, err := m.next(src, dst)
			if err != nil {
				yield(task{}, err)
				return
			}
			if t == nil {
				return
			}
			if !yield(*t, nil) {
				return
			}
		}
	}
}

// at returns the task of a path that was asked for.
func (m *mirror) at(ctx context.Context, path string) (task, error) {
	t := task{path: path}
	if m.o.Ignore != nil && m.o.Ignore(path) {
		return t, nil
	}
	look := func(side Side) (*hyperdrive.Entry, error) {
		switch e, err := side.entry(ctx, path); {
		case err == nil:
			return &e, nil
		case errors.Is(err, hyperdrive.ErrNotFound):
			return nil, nil
		default:
			return nil, err
		}
	}
	var err error
	if t.src, err = look(m.src); err == nil {
		t.dst, err = look(m.dst)
	}
	if err != nil && ctx.Err() == nil && m.dst.only(err) {
		m.kept = append(m.kept, path)
		t.reason, err = err, nil
	}
	return t, err
}

// next returns the task that comes next, nil at the end.
func (m *mirror) next(src, dst *cursor) (*task, error) {
	if err := src.load(); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	// What could not be read is known before what is in it is looked for.
	if skipped := src.skipped; skipped != nil {
		src.used()
		m.kept = append(m.kept, strings.TrimSuffix(skipped.Path, "/"))
		return &task{path: skipped.Path, reason: skipped.Err}, nil
	}
	if err := dst.load(); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	if skipped := dst.skipped; skipped != nil {
		dst.used()
		return &task{path: skipped.Path, reason: skipped.Err}, nil
	}
	var t task
	switch s, d := src.e, dst.e; {
	case s == nil && d == nil:
		return nil, nil
	case d == nil || s != nil && s.Path < d.Path:
		t = task{path: s.Path, src: s}
	case s == nil || d.Path < s.Path:
		t = task{path: d.Path, dst: d}
	default:
		t = task{path: s.Path, src: s, dst: d}
	}
	if t.src != nil {
		src.used()
	}
	if t.dst != nil {
		dst.used()
	}
	if clean, err := hyperdrive.CleanPath(t.path); err != nil || clean != t.path {
		t.reason = fmt.Errorf("%w: %q", hyperdrive.ErrPath, t.path)
	}
	return &t, nil
}

// isKept reports whether the source may have a path that it could not read.
func (m *mirror) isKept(path string) bool {
	m.kept = slices.DeleteFunc(m.kept, func(p string) bool { return path > p+"0" }) // '0' comes after '/'
	return slices.ContainsFunc(m.kept, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

// A cursor is where a side's list is.
type cursor struct {
	pull    func() (hyperdrive.Entry, error, bool)
	stop    func()
	e       *hyperdrive.Entry   // nil at the end
	skipped *localdrive.Skipped // instead of e
	loaded  bool
	last    string
}

func newCursor(list iter.Seq2[hyperdrive.Entry, error]) *cursor {
	pull, stop := iter.Pull2(list)
	return &cursor{pull: pull, stop: stop}
}

func (c *cursor) used() { c.loaded = false }

// load makes e or skipped what comes next.
func (c *cursor) load() error {
	if c.loaded {
		return nil
	}
	c.e, c.skipped, c.loaded = nil, nil, true
	e, err, ok := c.pull()
	switch {
	case !ok:
	case errors.As(err, &c.skipped):
	case err != nil:
		return err
	case e.Path <= c.last:
		return fmt.Errorf("%q comes after %q", e.Path, c.last) // else it would look as if one were missing
	default:
		c.e, c.last = &e, e.Path
	}
	return nil
}

// What is fetched before it is needed: no more files, and about as many bytes.
const (
	aheadFiles = 256
	aheadBytes = 32 << 20
)

// ahead has the contents fetched that the tasks after one need.
func (m *mirror) ahead(ctx context.Context, tasks iter.Seq2[task, error]) iter.Seq2[task, error] {
	if _, ok := m.src.(*drive); !ok {
		return tasks
	}
	return func(yield func(task, error) bool) {
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type waiting struct {
			t    task
			err  error
			size uint64
		}
		var queue []waiting
		var bytes uint64
		pop := func() bool {
			w := queue[0]
			queue = queue[1:]
			bytes -= w.size
			return yield(w.t, w.err)
		}
		for t, err := range tasks {
			w := waiting{t: t, err: err}
			if err == nil && m.needsContents(t) {
				if fetch := m.src.ahead(*t.src); fetch != nil {
					w.size = t.src.Blob.ByteLength
					wg.Go(func() { fetch(ctx) })
				}
			}
			queue = append(queue, w)
			bytes += w.size
			for len(queue) > aheadFiles || bytes > aheadBytes && len(queue) > 0 {
				if !pop() {
					return
				}
			}
		}
		for len(queue) > 0 {
			if !pop() {
				return
			}
		}
	}
}

// needsContents reports whether a task is likely to read the source's file.
func (m *mirror) needsContents(t task) bool {
	switch {
	case t.src == nil || t.src.IsLink() || t.reason != nil || m.o.Filter != nil && !m.o.Filter(t.path):
		return false
	case t.dst == nil:
		return !m.o.DryRun
	}
	return !m.sameTime(t.src, t.dst)
}

// do does a task. ok says whether there is anything to tell.
func (m *mirror) do(ctx context.Context, t task, last bool) (op Op, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return Op{}, false, err
	}
	skip := func(err error) (Op, bool, error) { return Op{Kind: Skip, Path: t.path, Reason: err}, true, nil }
	switch {
	case t.reason != nil:
		return skip(t.reason)
	case t.src == nil && t.dst == nil:
		return Op{}, false, nil
	case t.src == nil:
		return m.prune(ctx, t)
	case m.o.Filter != nil && !m.o.Filter(t.path):
		return Op{}, false, nil
	}
	for again := false; ; again = true {
		op, err := m.write(ctx, t)
		switch {
		case err == nil:
			return op, true, nil
		case ctx.Err() != nil:
			return Op{}, false, ctx.Err()
		case errors.Is(err, localdrive.ErrChanged) && !again:
			now, err := m.src.entry(ctx, t.path)
			if err != nil {
				return skip(err)
			}
			t.src = &now
			continue
		case later(err) && !last && len(m.later) < maxLater && !isSource(err):
			m.later = append(m.later, t)
			return Op{}, false, nil
		case isSource(err) || m.dst.only(err):
			return skip(err)
		}
		return Op{}, false, err
	}
}

// prune removes what the source does not have.
func (m *mirror) prune(ctx context.Context, t task) (Op, bool, error) {
	if m.o.NoPrune || m.isKept(t.path) {
		return Op{}, false, nil
	}
	size, err := m.dst.size(ctx, *t.dst)
	if err == nil && !m.o.DryRun {
		err = m.dst.remove(ctx, t.path)
	}
	switch {
	case err == nil:
		return Op{Kind: Remove, Path: t.path, BytesRemoved: size}, true, nil
	case m.dst.only(err):
		return Op{Kind: Skip, Path: t.path, Reason: err}, true, nil
	}
	return Op{}, false, err
}

// A sourceError is one of reading the source.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

func isSource(err error) bool {
	var s sourceError
	return errors.As(err, &s)
}

// write makes the target have what the source has at a path.
func (m *mirror) write(ctx context.Context, t task) (Op, error) {
	src := *t.src
	op := Op{Kind: Add, Path: t.path}
	if err := m.dst.check(t.path); err != nil {
		return op, err
	}
	size, err := m.src.size(ctx, src)
	if err != nil {
		return op, sourceError{err}
	}
	op.BytesAdded = size
	if t.dst != nil {
		op.Kind = Change
		if op.BytesRemoved, err = m.dst.size(ctx, *t.dst); err != nil {
			return op, err
		}
		m.keepModes(&src, t.dst)
		same, err := m.sameContents(ctx, src, *t.dst, size == op.BytesRemoved)
		if err != nil {
			return op, err
		}
		if same {
			op.BytesAdded, op.BytesRemoved = 0, 0
			if op.Kind = Equal; src.IsLink() || m.sameMetadata(&src, t.dst) {
				return op, nil
			}
			op.Kind, op.Metadata = Change, true
			if m.o.DryRun {
				return op, nil
			}
			return op, m.dst.putMetadata(ctx, src, *t.dst)
		}
	}
	if m.o.DryRun {
		return op, nil
	}
	if src.IsLink() {
		return op, m.dst.put(ctx, src, t.dst, 0, nil)
	}
	r, err := m.read(ctx, src, size)
	if err != nil {
		return op, err
	}
	defer r.Close()
	return op, m.dst.put(ctx, src, t.dst, size, r)
}

// keepModes leaves the permissions as they are when the source has none.
func (m *mirror) keepModes(src, dst *hyperdrive.Entry) {
	if m.src.modes() || src.IsLink() || dst.IsLink() {
		return
	}
	src.Executable = dst.Executable
	if knowsMode(dst) {
		src.Metadata = hyperdrive.NewMetadata(src.ModTime(), dst.Mode())
	}
}

func (m *mirror) sameTime(src, dst *hyperdrive.Entry) bool {
	at := src.ModTime()
	return !m.o.Checksum && !at.IsZero() && at.Equal(dst.ModTime())
}

func (m *mirror) sameContents(ctx context.Context, src, dst hyperdrive.Entry, sameSize bool) (bool, error) {
	switch {
	case src.IsLink() || dst.IsLink():
		return src.Linkname == dst.Linkname, nil
	case !sameSize:
		return false, nil
	case m.sameTime(&src, &dst):
		return true, nil
	}
	a, err := m.src.open(ctx, src)
	if err != nil {
		return false, sourceError{err}
	}
	defer a.Close()
	b, err := m.dst.open(ctx, dst)
	if err != nil {
		return false, err
	}
	defer b.Close()
	return equal(ctx, a, b)
}

// equal compares two files.
func equal(ctx context.Context, src, dst io.Reader) (bool, error) {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := io.ReadFull(src, a)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, sourceError{err}
		}
		k, dstErr := io.ReadFull(dst, b)
		if dstErr != nil && dstErr != io.EOF && dstErr != io.ErrUnexpectedEOF {
			return false, dstErr
		}
		if !bytes.Equal(a[:n], b[:k]) {
			return false, nil
		}
		if err != nil {
			return dstErr != nil, nil
		}
	}
}

// sameMetadata reports whether the target has all that the source knows of a
// file besides its contents.
func (m *mirror) sameMetadata(src, dst *hyperdrive.Entry) bool {
	if m.dst.modes() && src.Executable != dst.Executable {
		return false
	}
	_, fromDrive := m.src.(*drive)
	_, toDrive := m.dst.(*drive)
	if fromDrive && toDrive {
		return sameJSON(src.Metadata, dst.Metadata)
	}
	if at := src.ModTime(); !at.IsZero() && !at.Equal(dst.ModTime()) {
		return false
	}
	if !m.dst.modes() || !knowsMode(src) {
		return true
	}
	return knowsMode(dst) && src.Mode() == dst.Mode()
}

// read opens a file of the source.
func (m *mirror) read(ctx context.Context, e hyperdrive.Entry, size uint64) (io.ReadCloser, error) {
	r, err := m.src.open(ctx, e)
	if err != nil {
		return nil, sourceError{err}
	}
	return &reader{ReadCloser: r, ctx: ctx, at: Progress{Path: e.Path, Size: size}, tell: m.o.Progress}, nil
}

// A reader reads a file of the source, and tells how far it is.
type reader struct {
	io.ReadCloser
	ctx  context.Context
	at   Progress
	tell func(Progress)
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, sourceError{err}
	}
	n, err := r.ReadCloser.Read(p)
	if n > 0 && r.tell != nil {
		r.at.Bytes += uint64(n)
		r.tell(r.at)
	}
	if err != nil && err != io.EOF {
		err = sourceError{err}
	}
	return n, err
}
