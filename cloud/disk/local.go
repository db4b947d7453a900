package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"
)

const (
	smallFile  = 128 << 10 // up to which a file is read as a whole
	batchFiles = 1000      // what is put at once, at most
	batchBytes = 8 << 20
	racyTime   = 50 * time.Millisecond // in which two changes may have the same time
)

// seen is a path that a walk comes to: what is there, or why that is not known.
type seen struct {
	path string
	stat stat
	err  error
}

// walk goes through a folder on the disk in the order of the bytes of the paths,
// without what is ignored. It needs memory for the names in one folder and those
// above it. An error about a folder counts for all that is in it.
func (r *round) walk(ctx context.Context, dir string) iter.Seq[seen] {
	return func(yield func(seen) bool) { r.walkDir(ctx, dir, yield) }
}

func (r *round) walkDir(ctx context.Context, dir string, yield func(seen) bool) bool {
	if !r.measure {
		r.k.watch(dir) // first, so that no change is missed
	}
	at, err := r.files.list(dir)
	if err != nil {
		return notThere(err) || yield(seen{path: dir, err: err})
	}
	defer at.close()
	names, err := at.names()
	if err != nil {
		return notThere(err) || yield(seen{path: dir, err: err})
	}
	// The place of a folder in the order is its name, that of what is in it is its
	// name and a slash.
	for _, name := range names {
		if name, ok := strings.CutSuffix(name, "/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	dirs := map[string]bool{}
	for _, name := range names {
		if ctx.Err() != nil {
			return false
		}
		if name, in := strings.CutSuffix(name, "/"); in {
			if dirs[name] && !r.walkDir(ctx, dir+"/"+name, yield) {
				return false
			}
			continue
		}
		path := dir + "/" + name
		if isTemp(name) {
			if !r.measure {
				_ = r.files.remove(path) // else the next walk does
			}
			continue
		}
		s, err := at.lstat(name)
		if errors.Is(err, fs.ErrNotExist) || r.rules.ignores(path, err == nil && s.kind == kindDir) {
			continue
		}
		if err == nil {
			err = checkPath(path, false)
		}
		if err == nil && s.kind == kindDir {
			dirs[name] = true
		}
		if !yield(seen{path, s, err}) {
			return false
		}
	}
	return true
}

// local looks for what has changed on the disk.
func (r *round) local(ctx context.Context) error {
	cursor, err := r.x.meta("cursor")
	if err != nil {
		return err
	}
	version, err := r.source.version(ctx)
	if err != nil {
		return err
	}
	if cursor == nil {
		if err := r.first(version); err != nil {
			return err
		}
	}
	all, err := r.x.meta("all")
	if err != nil {
		return err
	}
	// What is in the cloud and not in the index are changes since then, what could
	// not be written, and in a sparse folder anything.
	r.calm = !r.k.c.sparse && all == nil && r.x.waiting.Load() == 0 && string(version) == string(cursor)
	r.behind = string(version) != string(cursor) && r.isBehind(ctx, cursor)
	if r.full {
		r.x.clearSpace(spaceGone)
		if err := r.x.commit(false); err != nil {
			return err
		}
	}
	done := ""
	for _, target := range r.targets {
		if done != "" && strings.HasPrefix(target, done+"/") {
			continue
		}
		if err := r.compare(ctx, target); err != nil {
			return err
		}
		done = target
	}
	if err := r.flushOut(ctx); err != nil {
		return err
	}
	return r.flushIn(ctx)
}

// first has all that is put from now on be compared with the folder, too: what is
// removed elsewhere before there is a cursor would not be named. What the index has
// already may be of another folder.
func (r *round) first(version []byte) error {
	for range r.x.scan(spaceFile, "", "") {
		return nil
	}
	if err := r.source.sync(); err != nil {
		return fmt.Errorf("keep what was heard: %w", err)
	}
	r.x.set(spaceMeta, "cursor", version)
	r.x.set(spaceMeta, "all", nil)
	return r.x.commit(false)
}

// compare goes through the disk and the index side by side.
func (r *round) compare(ctx context.Context, target string) error {
	if target != "" {
		if parent, _ := split(target); r.rules.ignoresIn(parent, true) {
			return nil
		}
	}
	var blind []string // folders that could not be read: nothing is known of what is in them
	handle := func(path string, disk *stat, known *row) error {
		if disk == nil && known != nil {
			for _, dir := range blind {
				if path == dir || strings.HasPrefix(path, dir+"/") {
					return nil
				}
			}
			if r.rules.ignoresIn(path, known.kind == kindDir) {
				// From now on it is left alone, on both sides.
				r.x.put(path, nil)
				return r.commitSome()
			}
		}
		if disk != nil && known != nil && !known.racy && known.same(*disk) && !r.x.p.doubted(known.young) {
			return r.back(path)
		}
		return r.settle(ctx, path, disk, known)
	}
	disk, stopDisk := iter.Pull(r.subtree(ctx, target))
	defer stopDisk()
	index, stopIndex := iter.Pull2(r.rows(target))
	defer stopIndex()
	d, more := disk()
	path, value, rest := index()
	for more || rest {
		if err := ctx.Err(); err != nil {
			return err
		}
		order := strings.Compare(d.path, path)
		switch {
		case !more:
			order = 1
		case !rest:
			order = -1
		}
		var known *row
		if order >= 0 {
			var err error
			if known, err = readRow(value); err != nil {
				known = nil // as if it was new; what is put in its place is whole
			}
		}
		if order <= 0 {
			r.progress(func(p *Progress) { p.Looked++ })
			if d.err != nil {
				blind = append(blind, d.path)
				r.scanned(scanCode(d.err), d.path)
			} else if err := handle(d.path, &d.stat, known); err != nil {
				return err
			}
		} else if known != nil {
			if err := handle(path, nil, known); err != nil {
				return err
			}
		}
		if order <= 0 {
			d, more = disk()
		}
		if order >= 0 {
			path, value, rest = index()
		}
	}
	return ctx.Err()
}

func scanCode(err error) string {
	switch {
	case errors.Is(err, errKind):
		return CodeSpecial
	case errors.Is(err, errName):
		return CodeNameHere
	}
	return CodeUnreadable
}

// subtree is a path on the disk and what is in it.
func (r *round) subtree(ctx context.Context, path string) iter.Seq[seen] {
	return func(yield func(seen) bool) {
		if path == "" {
			r.walkDir(ctx, "", yield)
			return
		}
		if _, name := split(path); isTemp(name) {
			return
		}
		s, err := r.files.lstat(path)
		if notThere(err) || errors.Is(err, errClash) || r.rules.ignores(path, err == nil && s.kind == kindDir) {
			return
		}
		if err == nil {
			err = checkPath(path, false)
		}
		if yield(seen{path, s, err}) && err == nil && s.kind == kindDir {
			r.walkDir(ctx, path, yield)
		}
	}
}

// rows are those of a path and of what is in it.
func (r *round) rows(path string) iter.Seq2[string, []byte] {
	if path == "" {
		return r.x.scan(spaceFile, "", "")
	}
	return func(yield func(string, []byte) bool) {
		if value, err := r.x.get(spaceFile, path); err == nil && value != nil && !yield(path, value) {
			return
		}
		for path, value := range r.x.scan(spaceFile, path+"/", path+"0") {
			if !yield(path, value) {
				return
			}
		}
	}
}

// back notes that a path that was gone is there again.
func (r *round) back(path string) error {
	if r.k.gone == 0 { // only this goroutine writes it
		return nil
	}
	r.x.unset(spaceGone, path)
	return r.commitSome()
}

// commitSome bounds how much is not committed.
func (r *round) commitSome() error {
	if r.x.b.Len() < indexPage {
		return nil
	}
	return r.x.commit(false)
}

// settle makes a path the same on both sides.
func (r *round) settle(ctx context.Context, path string, disk *stat, known *row) error {
	if done, err := r.doubt(ctx, path, disk, known); done || err != nil {
		return err
	}
	e, err := r.inFolder(ctx, path, known)
	if err != nil {
		return err
	}
	return r.do(ctx, path, plan(disk, known, e), disk, known, e)
}

// inFolder returns what the folder has at a path.
func (r *round) inFolder(ctx context.Context, path string, known *row) (*entry, error) {
	if r.calm {
		if known == nil || known.stamp == "" {
			return nil, nil
		}
		return &entry{path: path, kind: known.kind, size: known.size, hash: known.hash, link: known.link, stamp: known.stamp}, nil
	}
	return r.source.stat(ctx, path)
}

// do does what was planned.
func (r *round) do(ctx context.Context, path string, a action, disk *stat, known *row, e *entry) error {
	if r.behind {
		switch a {
		case compare:
			a = put
		case write, erase, forget:
			return nil
		}
	}
	switch a {
	case put:
		return r.put(ctx, path, disk, known, e)
	case compare:
		return r.agree(ctx, path, disk, known, e)
	case write:
		return r.write(ctx, path, disk, known, e)
	case drop:
		if r.mute {
			r.scanned(CodeReadOnly, path)
			return nil
		}
		r.x.set(spaceGone, path, nil)
		return r.commitSome()
	case erase:
		return r.erase(ctx, path, disk, known)
	case forget:
		r.x.put(path, nil)
		return r.commitSome()
	}
	return nil
}

// An outbox is what is to be put, and the rows that are true once it is.
type outbox struct {
	b     batch
	todo  []todo
	bytes int64
}

// todo is what becomes of the row of a path when the batch is durable: now, with
// the stamp and hash of what was stated; if it is nil the row is removed.
type todo struct {
	path string
	now  *row
}

func (o *outbox) close() {
	if o.b != nil {
		o.b.close()
	}
	*o = outbox{}
}

// state adds a statement to the batch.
func (r *round) state(ctx context.Context, e entry, content io.Reader, over string, now *row) error {
	if err := r.openOut(ctx); err != nil {
		return err
	}
	if err := r.out.b.put(ctx, e, content, over); err != nil {
		return err
	}
	r.out.todo = append(r.out.todo, todo{e.path, now})
	r.out.bytes += now.size
	r.progress(func(p *Progress) {
		p.Sent++
		p.Path = e.path
	})
	if len(r.out.todo) >= batchFiles || r.out.bytes >= batchBytes {
		return r.flushOut(ctx)
	}
	return nil
}

func (r *round) openOut(ctx context.Context) (err error) {
	if r.out.b == nil {
		r.out.b, err = r.source.batch(ctx)
	}
	return err
}

// unstate adds a removal to the batch.
func (r *round) unstate(ctx context.Context, path string, old *row) error {
	r.moved = true
	if err := r.openOut(ctx); err != nil {
		return err
	}
	if err := r.out.b.remove(ctx, path, old.stamp); err != nil {
		return err
	}
	r.out.todo = append(r.out.todo, todo{path, nil})
	r.progress(func(p *Progress) { p.Removed++ })
	if len(r.out.todo) >= batchFiles {
		return r.flushOut(ctx)
	}
	return nil
}

// flushOut makes the batch durable, and only then the index say so: else after a
// crash what was not put would look like what is to be overwritten. What is about
// to be said is noted before, so that a crash in between makes no conflict of a
// device with itself: see recover.
func (r *round) flushOut(ctx context.Context) error {
	defer r.out.close()
	if r.out.b == nil {
		return r.x.commit(false)
	}
	for _, t := range r.out.todo {
		if t.now != nil {
			t.now.young = r.x.period
			r.x.set(spaceOut, t.path, appendRow(nil, t.now))
		}
	}
	r.x.p.last = r.x.period
	r.k.unsure = true
	if err := r.x.commit(true); err != nil {
		return err
	}
	stated, err := r.out.b.flush(ctx)
	if err != nil {
		if isFull(err) {
			return errors.Join(r.stop(CodeDiskFull), err)
		}
		return fmt.Errorf("put: %w", err)
	}
	if len(stated) != len(r.out.todo) {
		return fmt.Errorf("put: %d statements, not %d", len(stated), len(r.out.todo))
	}
	for i, t := range r.out.todo {
		if t.now != nil {
			t.now.stamp, t.now.hash = stated[i].stamp, stated[i].hash
			r.x.unset(spaceOut, t.path)
		} else {
			r.x.unset(spaceGone, t.path)
		}
		r.x.record(t.path, t.now)
	}
	if err := r.x.commit(false); err != nil {
		return err
	}
	r.k.unsure = false
	return nil
}

// recover finds out what of the last batch was put in its place, and what was said, if the index does not know:
// what is in the folder and was about to be said was on the disk then, also if the
// disk has changed since.
func (r *round) recover(ctx context.Context) error {
	if !r.k.unsure {
		return nil
	}
	if err := r.recoverIn(); err != nil {
		return err
	}
	for path, value := range r.x.scan(spaceOut, "", "") {
		r.x.unset(spaceOut, path)
		said, err := readRow(value)
		if err != nil {
			continue
		}
		e, err := r.source.stat(ctx, path)
		if err != nil {
			return err
		}
		if e != nil && said.isIn(e) {
			said.stamp, said.hash = e.stamp, e.hash
			r.x.remember(path)
			r.x.put(path, said)
		}
		if err := r.commitSome(); err != nil {
			return err
		}
	}
	if err := r.x.commit(false); err != nil {
		return err
	}
	r.k.unsure = false
	return nil
}

// isIn tells whether an entry is what was said of what is on the disk. The time of
// a file is that of its content.
func (r *row) isIn(e *entry) bool {
	if e.conflict || r.kind != e.kind || r.link != e.link || r.kind != kindLink && r.mode != e.mode {
		return false
	}
	return r.kind != kindFile || r.size == e.size && r.mtime == e.mtime
}

// put states in the folder what is on the disk.
func (r *round) put(ctx context.Context, path string, disk *stat, known *row, e *entry) error {
	if r.mute {
		r.scanned(CodeReadOnly, path)
		return nil
	}
	over := ""
	if known != nil {
		over = known.stamp
	}
	if e != nil && (known == nil || !known.knows(e)) {
		r.progress(func(p *Progress) { p.Conflicts++ })
	}
	now := entry{path: path, kind: disk.kind, size: disk.size, mode: disk.mode, mtime: disk.mtime, link: disk.link}
	if disk.kind != kindFile {
		err := r.state(ctx, now, nil, over, &row{stat: *disk})
		if errors.Is(err, errName) {
			r.scanned(CodeNameHere, path)
			err = nil
		}
		return err
	}
	if wait, err := r.resting(path); wait || err != nil {
		return err
	}
	if known == nil {
		if moved, err := r.isMoved(ctx, now, disk); moved || err != nil {
			return err
		}
	}
	// A large file that was written to is not read twice to find out whether it was
	// written to with what was there.
	edited := disk.size > smallFile && disk.mtime != known.at() && known != nil && e != nil && known.knows(e)
	if known != nil && known.kind == kindFile && known.size == disk.size && !edited {
		if done, err := r.touched(ctx, now, disk, known, e); done || err != nil {
			return err
		}
	}
	err := r.putContent(ctx, now, disk, over)
	return r.unread(path, err)
}

// unread turns an error of reading a file into a notice.
func (r *round) unread(path string, err error) error {
	var bad *readError
	switch {
	case err == nil:
		r.rested(path)
		return nil
	case !errors.As(err, &bad):
		return err
	case notThere(bad.err):
		return nil // since it was looked at
	case errors.Is(bad.err, errChanged):
		r.unrest(path)
		r.scanned(CodeUnstable, path)
		return nil
	}
	r.scanned(CodeUnreadable, path)
	return nil
}

// readError is of the disk, not of the folder.
type readError struct{ err error }

func (e *readError) Error() string { return "read: " + e.err.Error() }

func (e *readError) Unwrap() error { return e.err }

// reading opens a file that is to be read as it was seen.
func (r *round) reading(ctx context.Context, path string, disk *stat) (*reader, error) {
	f, now, err := r.files.open(path)
	if err != nil {
		return nil, &readError{err}
	}
	if disk.size != now.size || disk.mtime != now.mtime || disk.inode != now.inode {
		f.Close()
		return nil, &readError{errChanged}
	}
	return &reader{ctx: ctx, f: f, before: now, count: func(n int) {
		r.progress(func(p *Progress) { p.SentBytes += int64(n) })
	}}, nil
}

// putContent reads a file and puts it. A small one is read before it is put, a
// large one as it is put, in a batch of its own that is not flushed if the file
// changes meanwhile.
func (r *round) putContent(ctx context.Context, now entry, disk *stat, over string) error {
	in, err := r.reading(ctx, now.path, disk)
	if err != nil {
		return err
	}
	defer in.f.Close()
	then := &row{stat: in.before, racy: r.isRacy(in.before)}
	now.mode = in.before.mode
	if disk.size <= smallFile {
		content, err := io.ReadAll(in)
		if err != nil {
			return &readError{err}
		}
		return r.state(ctx, now, bytes.NewReader(content), over, then)
	}
	if err := r.flushOut(ctx); err != nil {
		return err
	}
	tee := &firstError{r: in}
	if err := r.state(ctx, now, tee, over, then); err != nil {
		r.out.close()
		if tee.err != nil {
			return &readError{tee.err}
		}
		return err
	}
	return r.flushOut(ctx)
}

// firstError remembers the error of a reader.
type firstError struct {
	r   io.Reader
	err error
}

func (f *firstError) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// isRacy tells whether a file was changed so lately that it may change again at
// the same time, as the file system counts it.
func (r *round) isRacy(s stat) bool {
	return max(s.mtime, s.ctime) > r.k.c.clock.Now().Add(-racyTime).UnixNano()
}

// isMoved puts a new file that is an old one with another path: nothing is read.
func (r *round) isMoved(ctx context.Context, now entry, disk *stat) (bool, error) {
	if disk.inode == 0 {
		return false, nil
	}
	from, err := r.x.pathOf(disk.inode)
	if from == "" || err != nil {
		return false, err
	}
	old, err := r.x.row(from)
	if err != nil && !errors.Is(err, errIndex) {
		return false, err
	}
	if err != nil || old == nil || old.racy || r.x.p.doubted(old.young) || old.kind != kindFile || old.inode != disk.inode || old.size != disk.size || old.mtime != disk.mtime {
		return false, nil
	}
	was, err := r.source.stat(ctx, from)
	if err != nil {
		return false, err
	}
	if was == nil || !old.knows(was) {
		return false, nil
	}
	there, err := r.lstat(from)
	if err != nil {
		return false, nil
	}
	now.own, now.hash = was.own, was.hash
	if err := r.state(ctx, now, nil, "", &row{stat: *disk, hash: was.hash}); err != nil {
		return true, err
	}
	if there == nil && !r.rules.ignoresIn(from, false) {
		return true, r.unstate(ctx, from, old)
	}
	return true, nil
}

// touched handles a file whose content is the same although its stat is not. If
// the folder has news, they count: permissions and times are no edit.
func (r *round) touched(ctx context.Context, now entry, disk *stat, known *row, e *entry) (bool, error) {
	in, err := r.reading(ctx, now.path, disk)
	if err != nil {
		return true, r.unread(now.path, err)
	}
	defer in.f.Close()
	in.count = func(int) {}
	hash, err := hashOf(in)
	if err != nil {
		return true, r.unread(now.path, &readError{err})
	}
	if hash != known.hash {
		return false, nil
	}
	r.rested(now.path)
	then := &row{stat: in.before, hash: hash, stamp: known.stamp, racy: r.isRacy(in.before), young: known.young}
	if !known.same(in.before) {
		then.young = r.x.period // somebody may have written the same once more
	}
	if e == nil || !known.knows(e) {
		sure := *then
		sure.racy = false
		return true, r.do(ctx, now.path, plan(&in.before, &sure, e), &in.before, &sure, e)
	}
	if in.before.mode == known.mode && in.before.mtime == known.mtime && known.stamp != "" {
		r.x.put(now.path, then)
		r.x.p.last = max(r.x.p.last, then.young)
		return true, r.commitSome()
	}
	was, err := r.source.stat(ctx, now.path)
	if err != nil {
		return true, err
	}
	if was == nil || was.kind != kindFile || was.hash != hash {
		return false, nil
	}
	now.own, now.hash, now.mode = was.own, was.hash, in.before.mode
	return true, r.state(ctx, now, nil, known.stamp, then)
}

// agree looks whether what is new on both sides is equal. If not, that of the
// disk is put beside the other.
func (r *round) agree(ctx context.Context, path string, disk *stat, known *row, e *entry) error {
	if disk.kind != e.kind || disk.kind == kindFile && disk.size != e.size || disk.link != e.link {
		return r.put(ctx, path, disk, known, e)
	}
	now := &row{stat: *disk, hash: e.hash, stamp: e.stamp}
	if disk.kind == kindFile {
		if wait, err := r.resting(path); wait || err != nil {
			return err
		}
		in, err := r.reading(ctx, path, disk)
		if err != nil {
			return r.unread(path, err)
		}
		defer in.f.Close()
		in.count = func(int) {}
		hash, err := hashOf(in)
		if err != nil {
			return r.unread(path, &readError{err})
		}
		if hash != e.hash {
			return r.put(ctx, path, disk, known, e)
		}
		r.rested(path)
		now.racy = r.isRacy(in.before)
	}
	return r.meta(path, now, e)
}

// resting tells whether a file that kept changing is still to be waited for.
func (r *round) resting(path string) (bool, error) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	u, ok := r.k.unstable[path]
	wait := ok && u.at.After(r.now)
	if wait {
		r.k.scan.add(CodeUnstable, path)
	}
	return wait, nil
}

// unrest has a file be looked at later, each time twice as late.
func (r *round) unrest(path string) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	if len(r.k.unstable) >= maxDirty {
		r.k.full = true
		return
	}
	u := r.k.unstable[path]
	d := min(unstableMin<<min(u.tries, 20), unstableMax)
	u.tries++
	u.at = r.now.Add(d)
	r.k.unstable[path] = u
}

func (r *round) rested(path string) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	delete(r.k.unstable, path)
}

// removals takes what is gone from the disk out of the folder, unless it is so
// much that the guard asks first.
func (r *round) removals(ctx context.Context) error {
	gone := int64(0)
	for path := range r.x.scan(spaceGone, "", "") {
		// What was moved has no row any more.
		if known, err := r.x.row(path); err == nil && known != nil && known.kind == kindFile {
			gone++
		}
	}
	asked, err := r.x.meta("asked")
	if err != nil {
		return err
	}
	answered := r.k.confirm || r.k.restore
	// The question stays until it is answered, also if more files come meanwhile.
	if gone > 0 && !answered && (asked != nil || r.guard(gone)) {
		r.gone = gone
		r.pause = CodeMassDelete
		r.x.set(spaceMeta, "asked", nil)
		return r.x.commit(asked == nil)
	}
	if asked != nil {
		r.x.unset(spaceMeta, "asked")
	}
	restore := r.k.restore
	r.k.confirm, r.k.restore = false, false
	for path := range r.x.scan(spaceGone, "", "") {
		if err := r.removal(ctx, path, restore); err != nil {
			return err
		}
	}
	r.k.removed.n += gone
	if err := r.flushOut(ctx); err != nil {
		return err
	}
	if err := r.flushIn(ctx); err != nil {
		return err
	}
	r.x.clearSpace(spaceGone)
	return r.x.commit(false)
}

// guard tells whether so many removals have to be asked for.
func (r *round) guard(gone int64) bool {
	w := &r.k.removed
	if r.now.Sub(w.since) >= guardWindow || w.since.IsZero() {
		w.since, w.n, w.of = r.now, 0, 0
	}
	w.of = max(w.of, r.x.files.Load()+w.n)
	n := w.n + gone
	return gone > 0 && (n > guardFiles && 2*n > w.of || n >= guardFew && 10*n >= 9*w.of)
}

func (r *round) removal(ctx context.Context, path string, restore bool) error {
	known, err := r.x.row(path)
	if err != nil || known == nil {
		return err
	}
	disk, err := r.lstat(path)
	if err != nil || disk != nil {
		return nil // it is there again, or that is not known
	}
	e, err := r.source.stat(ctx, path)
	if err != nil {
		return err
	}
	a := plan(nil, known, e)
	if a == drop && restore {
		a = write
	}
	if a == drop {
		return r.unstate(ctx, path, known)
	}
	return r.do(ctx, path, a, nil, known, e)
}
