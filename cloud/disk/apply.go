package disk

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cloudbevy/bevy/cloud/content"
)

const (
	writeFiles   = 256 // what is written at once, at most
	writeBytes   = 64 << 20
	writeWorkers = 16 // file systems put those who wait for them into one write
)

// An inbox is what is to be written to the disk, and the rows that are true once
// it is there for good.
type inbox struct {
	jobs  []*job
	bytes int64
	dirs  map[string]bool // whose names changed
	todo  []todo
}

// A job is a file or a link that is to be written.
type job struct {
	path   string
	e      *entry
	expect *stat // what is there now, or nil
	temp   string
	then   stat   // of the temporary file
	parent uint64 // inode of the folder that it is in
	err    error
}

func (j *job) row(now stat) *row { return &row{stat: now, hash: j.e.hash, stamp: j.e.stamp} }

// remote looks for what has changed in the folder. Conflicts become files of
// their own, which are changes, too.
func (r *round) remote(ctx context.Context) error {
	if r.behind {
		r.k.mu.Lock()
		r.k.apply.add(CodeBehind, "")
		r.k.mu.Unlock()
		return r.compareAll()
	}
	for range 3 {
		if err := r.changes(ctx); err != nil {
			return err
		}
		// From where there are conflicts that could not be resolved yet.
		since, err := r.x.meta("unresolved")
		if since == nil || err != nil {
			return err
		}
		r.clash = false
		if err := r.source.resolve(ctx, since); err != nil {
			return fmt.Errorf("resolve conflicts: %w", err)
		}
		left, err := r.conflicts(ctx, since)
		if err != nil {
			return err
		}
		if !left {
			r.x.unset(spaceMeta, "unresolved")
			if err := r.x.commit(false); err != nil {
				return err
			}
		}
	}
	return nil
}

// isBehind tells whether some of what the index knows of the folder is not here:
// it was lost, and others bring it again. Until then the folder looks older than
// it is, so nothing is written to the disk.
func (r *round) isBehind(ctx context.Context, cursor []byte) bool {
	if cursor == nil {
		return false
	}
	for _, err := range r.source.changes(ctx, cursor) {
		return errors.Is(err, errBehind)
	}
	return false
}

// compareAll has all of the folder be compared with the index, not only what has
// changed since the cursor.
func (r *round) compareAll() error {
	if all, err := r.x.meta("all"); all != nil || err != nil {
		return err
	}
	r.x.set(spaceMeta, "all", nil)
	return r.x.commit(true)
}

// conflicts tells whether there are any in what has changed since a version.
func (r *round) conflicts(ctx context.Context, since []byte) (bool, error) {
	for c, err := range r.source.changes(ctx, since) {
		if err != nil || c.now != nil && c.now.conflict {
			return true, err
		}
	}
	return false, nil
}

// changes writes what has changed since the cursor.
func (r *round) changes(ctx context.Context) error {
	version, err := r.source.version(ctx)
	if err != nil {
		return err
	}
	cursor, err := r.x.meta("cursor")
	if err != nil {
		return err
	}
	all, err := r.x.meta("all")
	if err != nil {
		return err
	}
	conflicts := false
	if all != nil || string(version) != string(cursor) {
		if conflicts, err = r.changesSince(ctx, cursor, all != nil); err != nil {
			return err
		}
		if err := r.source.sync(); err != nil {
			return fmt.Errorf("keep what was heard: %w", err)
		}
		r.x.set(spaceMeta, "cursor", version)
		if all != nil {
			r.x.unset(spaceMeta, "all")
		}
	} else if !r.clash {
		return nil
	}
	if unresolved, err := r.x.meta("unresolved"); err != nil {
		return err
	} else if (conflicts || r.clash) && unresolved == nil {
		r.x.set(spaceMeta, "unresolved", cursor)
	}
	return r.x.commit(true)
}

// changesSince handles all paths that have changed since the cursor; with all, those
// too that have not, and that the folder has no more.
func (r *round) changesSince(ctx context.Context, cursor []byte, all bool) (conflicts bool, err error) {
	since := cursor
	if all {
		// The cursor is of this folder, or what follows would remove what another has.
		for _, err := range r.source.changes(ctx, cursor) {
			if err != nil {
				return false, r.otherFolder(err)
			}
			break
		}
		since = nil
	}
	known := func() (string, []byte, bool) { return "", nil, false }
	if all && cursor != nil {
		var stop func()
		known, stop = iter.Pull2(r.x.scan(spaceFile, "", ""))
		defer stop()
	}
	path, _, more := known()
	for c, err := range r.source.changes(ctx, since) {
		if err != nil {
			return false, r.otherFolder(err)
		}
		for ; more && path <= c.path; path, _, more = known() {
			if path < c.path {
				if err := r.unnamed(ctx, path); err != nil {
					return false, err
				}
			}
		}
		conflicts = conflicts || c.now != nil && c.now.conflict
		if err := r.change(ctx, c.path, c.now); err != nil {
			return false, err
		}
	}
	for ; more; path, _, more = known() {
		if err := r.unnamed(ctx, path); err != nil {
			return false, err
		}
	}
	if err := r.flushOut(ctx); err != nil {
		return false, err
	}
	return conflicts, r.flushIn(ctx)
}

// unnamed handles a path that the index has, and all of the folder has not named. It
// may have come since, so the folder is asked.
func (r *round) unnamed(ctx context.Context, path string) error {
	e, err := r.source.stat(ctx, path)
	if err != nil {
		return err
	}
	return r.change(ctx, path, e)
}

// otherFolder has the next round begin anew if the cursor is of another folder.
func (r *round) otherFolder(err error) error {
	if errors.Is(err, errOther) {
		for _, name := range []string{"cursor", "unresolved", "all"} {
			r.x.unset(spaceMeta, name)
		}
		err = errors.Join(err, r.x.commit(true))
	}
	return fmt.Errorf("read changes: %w", err)
}

// change handles a path that may have changed in the folder.
func (r *round) change(ctx context.Context, path string, e *entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.x.waiting.Load() > 0 {
		if len(r.tried) >= batchFiles {
			if err := r.flushIn(ctx); err != nil {
				return err
			}
		}
		r.tried[path] = true
	}
	if r.rules.ignoresIn(path, e != nil && e.kind == kindDir) {
		return nil
	}
	known, err := r.x.row(path)
	if err != nil && !errors.Is(err, errIndex) {
		return err
	}
	if known != nil && e != nil && e.stamp == known.stamp && !r.x.p.doubted(known.young) {
		return nil // it is our own, or was written already
	}
	if known == nil && e == nil {
		return nil // what is on the disk is new, and local's to handle
	}
	if err := r.files.check(path); err != nil {
		return r.postpone(path, e, err)
	}
	disk, err := r.lstat(path)
	if err != nil {
		return r.postpone(path, e, err)
	}
	if done, err := r.doubt(ctx, path, disk, known); done || err != nil {
		return err
	}
	if r.gone > 0 && disk == nil && known != nil && known.stamp == "" {
		return nil
	}
	return r.do(ctx, path, plan(disk, known, e), disk, known, e)
}

// later tries again what could not be written: all of it now and then, and when
// something has made room; else that whose content was fetched.
func (r *round) later(ctx context.Context) error {
	if r.x.waiting.Load() == 0 && len(r.x.laters) == 0 {
		r.notes(notices{})
		return nil
	}
	r.k.mu.Lock()
	fetched := r.k.fetched
	r.k.fetched = nil
	all := r.full || r.moved || r.clash || len(fetched) > maxDirty || !r.now.Before(r.k.retry)
	r.k.mu.Unlock()
	slices.Sort(fetched) // a path may be fetched twice, but must be written once
	paths := slices.Values(slices.Compact(fetched))
	if all {
		paths = r.waiting()
	}
	for path := range paths {
		e, err := r.source.stat(ctx, path)
		if err != nil {
			return err
		}
		if err := r.change(ctx, path, e); err != nil {
			return err
		}
		if err := r.commitSome(); err != nil {
			return err
		}
	}
	if err := r.flushOut(ctx); err != nil {
		return err
	}
	if err := r.flushIn(ctx); err != nil {
		return err
	}
	if !all && r.k.noted == r.x.waiting.Load()-r.x.missing.Load() {
		return nil
	}
	left := notices{}
	for path, reason := range r.x.scan(spaceLater, "", "") {
		left.add(codeOf(reason), path)
		left.because(codeOf(reason), causeOf(reason))
	}
	r.notes(left)
	r.k.noted = r.x.waiting.Load() - r.x.missing.Load()
	return nil
}

// waiting are the paths that are to be written later.
func (r *round) waiting() iter.Seq[string] {
	return func(yield func(string) bool) {
		for path := range r.x.scan(spaceLater, "", "") {
			if !yield(path) {
				return
			}
		}
	}
}

// notes replaces the notices of what is to be written later.
func (r *round) notes(n notices) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	r.k.later = n
	r.k.failing = false
	for _, code := range []string{CodeDenied, CodeFailed, CodeDiskFull, CodeCorrupt} {
		r.k.failing = r.k.failing || n[code] != nil
	}
	r.k.retry = r.now.Add(retryDelay)
}

// postpone remembers that a path is to be written later, and why. Nil is for what
// has been said already.
func (r *round) postpone(path string, e *entry, err error) error {
	delete(r.tried, path)
	code := CodeFailed
	switch {
	case isFull(err):
		return errors.Join(r.stop(CodeDiskFull), err, r.x.setLater(path, CodeDiskFull, nil), r.x.commit(false))
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, errMissing):
		code = CodeMissing
	case errors.Is(err, errName):
		code = CodeName
	case errors.Is(err, errClash):
		code = CodeClash
	case errors.Is(err, errNotDir), errors.Is(err, errIsDir):
		code = CodeInTheWay
		r.clash = r.clash || e != nil
	case errors.Is(err, fs.ErrPermission), isReadOnly(err):
		code = CodeDenied
	case errors.Is(err, errDamaged):
		code = CodeCorrupt
	}
	cause := err
	switch code {
	case CodeFailed, CodeDenied:
	default:
		cause = nil // the code says it
	}
	if errors.Is(err, errEdited) || errors.Is(err, fs.ErrExist) {
		// Whoever did it is done soon. The path is dirty, so the next round comes then.
		r.k.mu.Lock()
		if len(r.k.fetched) <= maxDirty {
			r.k.fetched = append(r.k.fetched, path)
		}
		r.k.mu.Unlock()
	}
	if err := r.x.setLater(path, code, cause); err != nil {
		return err
	}
	return r.commitSome()
}

// Errors of writing.
var (
	errMissing = errors.New("its content is on other devices only")
	errDamaged = errors.New("its content is not that of its hash")
	errUnknown = errors.New("it was written by a newer version of this program")
	errEdited  = errors.New("it was changed meanwhile")
)

// write makes the disk have what the folder has. Nothing is written over but what
// was seen, which is in the folder.
func (r *round) write(ctx context.Context, path string, disk *stat, known *row, e *entry) error {
	if err := r.files.check(path); err != nil {
		return r.postpone(path, e, err)
	}
	if e == nil {
		r.x.put(path, nil) // it was to be restored, and is in no folder any more
		return r.commitSome()
	}
	if known == nil && disk == nil && r.k.c.sparse && !r.wanted(path) {
		return nil
	}
	if e.kind == 0 {
		return r.postpone(path, e, errUnknown)
	}
	if disk == nil {
		if _, err := r.files.lstat(path); errors.Is(err, errClash) {
			return r.postpone(path, e, err)
		}
	}
	if err := r.makeParents(path); err != nil {
		return r.postpone(path, e, err)
	}
	if disk != nil && disk.kind == e.kind && (e.kind == kindDir || known != nil && (e.kind == kindFile && known.hash == e.hash || e.kind == kindLink && known.link == e.link)) {
		if e.kind == kindFile && known.racy {
			return r.agree(ctx, path, disk, known, e)
		}
		return r.meta(path, &row{stat: *disk, hash: e.hash, stamp: e.stamp}, e)
	}
	if disk != nil && (disk.kind == kindDir || e.kind == kindDir) {
		// Neither can take the place of the other.
		err := r.removeSeen(path, disk)
		if err != nil {
			return r.postpone(path, e, err)
		}
		disk = nil
	}
	if e.kind == kindDir {
		return r.writeDir(path, e)
	}
	if n, err := r.source.missing(ctx, e); err != nil || n > 0 {
		return r.postpone(path, e, errors.Join(errMissing, err))
	}
	r.in.jobs = append(r.in.jobs, &job{path: path, e: e, expect: disk})
	r.in.bytes += e.size
	if len(r.in.jobs) >= writeFiles || r.in.bytes >= writeBytes {
		return r.flushIn(ctx)
	}
	return nil
}

// wanted tells whether a path of a sparse folder was asked for, or is in what was.
func (r *round) wanted(path string) bool {
	for {
		if v, err := r.x.get(spaceWant, path); err == nil && v != nil {
			return true
		}
		if path == "" {
			return false
		}
		path, _ = split(path)
	}
}

// makeParents makes the folders that a path is in. They have no rows: if the
// cloud does not have them, the next round puts them there.
func (r *round) makeParents(path string) error {
	parent, _ := split(path)
	if parent == "" {
		return nil
	}
	s, err := r.files.lstat(parent)
	switch {
	case err == nil && s.kind == kindDir:
		return nil
	case err == nil || errors.Is(err, errKind):
		return errNotDir
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := r.makeParents(parent); err != nil {
		return err
	}
	if err := r.files.mkdir(parent); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	r.renamed(parent)
	r.noteDirty(parent)
	return nil
}

// renamed notes that the name of a path is to be synced.
func (r *round) renamed(path string) {
	if r.in.dirs == nil {
		r.in.dirs = map[string]bool{}
	}
	parent, _ := split(path)
	r.in.dirs[parent] = true
}

// noteDirty has the next round look at a path.
func (r *round) noteDirty(path string) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	r.k.noteLocked(path)
}

// meta gives what is on the disk the permissions and time of an entry whose
// content it has, and then the index the row.
func (r *round) meta(path string, now *row, e *entry) error {
	if e.kind != kindLink {
		mode := e.mode
		if e.kind == kindDir && mode != 0 {
			mode |= 0o700 // or it could not be kept
		}
		mtime := e.mtime
		if e.kind == kindDir {
			mtime = 0
		}
		if err := r.files.finish(path, mode, mtime); err != nil && !errors.Is(err, fs.ErrPermission) {
			return r.postpone(path, e, err)
		}
		then, err := r.files.lstat(path)
		if err != nil || then.kind != now.kind || then.size != now.size || then.inode != now.inode || mtime == 0 && then.mtime != now.mtime {
			r.noteDirty(path)
			return r.postpone(path, e, errors.Join(errEdited, err))
		}
		now.stat = then
		now.racy = now.racy || now.kind == kindFile && r.isRacy(then)
	}
	now.young = r.x.period // what somebody else wrote, and what was just set, is not synced
	r.in.todo = append(r.in.todo, todo{path, now})
	r.progress(func(p *Progress) { p.Written++ })
	return nil
}

func (r *round) writeDir(path string, e *entry) error {
	err := r.files.mkdir(path)
	if err == nil && e.mode != 0 {
		err = r.files.finish(path, e.mode|0o700, 0)
	}
	if err != nil {
		return r.postpone(path, e, err)
	}
	r.renamed(path)
	return r.wrote(path, e)
}

// wrote gives the index the row of what was written.
func (r *round) wrote(path string, e *entry) error {
	then, err := r.files.lstat(path)
	if err != nil || then.kind != e.kind || then.link != e.link {
		r.noteDirty(path)
		return r.postpone(path, e, errors.Join(errEdited, err))
	}
	r.in.todo = append(r.in.todo, todo{path, &row{stat: then, hash: e.hash, stamp: e.stamp, young: r.x.period}})
	r.progress(func(p *Progress) {
		p.Written++
		p.Path = path
	})
	return nil
}

// expect returns errEdited unless a path is as it was seen.
func (r *round) expect(path string, want *stat) error {
	now, err := r.lstat(path)
	if err != nil {
		return err
	}
	if (now == nil) != (want == nil) || now != nil && !want.same(*now) {
		return errEdited
	}
	return nil
}

// erase removes from the disk what was removed from the folder. Folders go once
// what was in them has.
func (r *round) erase(ctx context.Context, path string, disk *stat, known *row) error {
	if disk.kind == kindDir {
		r.x.set(spacePrune, pruneKey(path), nil)
		return r.commitSome()
	}
	if err := r.removeSeen(path, disk); err != nil {
		return r.postpone(path, nil, err)
	}
	r.in.todo = append(r.in.todo, todo{path, nil})
	r.moved = true
	r.progress(func(p *Progress) { p.Erased++ })
	if len(r.in.todo) >= batchFiles {
		return r.flushIn(ctx)
	}
	return nil
}

// removeSeen removes what is as it was seen.
func (r *round) removeSeen(path string, disk *stat) error {
	if err := r.expect(path, disk); err != nil {
		r.noteDirty(path)
		return err
	}
	if err := r.files.remove(path); err != nil && !notThere(err) {
		if disk.kind == kindDir && !errors.Is(err, fs.ErrPermission) {
			return errors.Join(errIsDir, err)
		}
		return err
	}
	r.renamed(path)
	return nil
}

// prune removes folders that were removed from the folder of the cloud, the
// deepest first. One that holds something stays: with files of its own it is put
// again, with such that are ignored it is left alone.
func (r *round) prune(ctx context.Context) error {
	for key := range r.x.scan(spacePrune, "", "") {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(key) >= 2 {
			if err := r.pruneOne(ctx, key[2:]); err != nil {
				return err
			}
		}
		r.x.unset(spacePrune, key)
	}
	return r.flushIn(ctx)
}

func (r *round) pruneOne(ctx context.Context, path string) error {
	known, err := r.x.row(path)
	if err != nil || known == nil || known.kind != kindDir {
		return err
	}
	if e, err := r.source.stat(ctx, path); err != nil || e != nil {
		return err // it has come back
	}
	left, err := r.left(path)
	switch {
	case notThere(err):
	case err != nil:
		return r.postpone(path, nil, err)
	case left == holdsOurs:
		r.in.todo = append(r.in.todo, todo{path, nil})
		r.noteDirty(path)
		return nil
	case left == holdsIgnored:
		stay := *known
		stay.stamp = ""
		r.in.todo = append(r.in.todo, todo{path, &stay})
		return nil
	default:
		if err := r.files.remove(path); err != nil && !notThere(err) {
			return r.postpone(path, nil, err)
		}
	}
	r.renamed(path)
	r.in.todo = append(r.in.todo, todo{path, nil})
	r.moved = true
	r.progress(func(p *Progress) { p.Erased++ })
	return nil
}

// What a folder holds.
const (
	holdsNothing = iota
	holdsIgnored
	holdsOurs
)

func (r *round) left(path string) (int, error) {
	at, err := r.files.list(path)
	if err != nil {
		return 0, err
	}
	defer at.close()
	names, err := at.names()
	left := holdsNothing
	for _, name := range names {
		name, isDir := strings.CutSuffix(name, "/")
		switch {
		case isTemp(name):
			_ = r.files.remove(path + "/" + name)
		case r.rules.ignores(path+"/"+name, isDir):
			left = max(left, holdsIgnored)
		default:
			left = holdsOurs
		}
	}
	return left, err
}

// flushIn writes the files that are to be written, waits until all is on the
// disk, and only then has the index say so: else a power cut could make what is
// older than the index says look like an edit.
func (r *round) flushIn(ctx context.Context) error {
	in := r.in
	r.in = inbox{}
	each(in.jobs, func(j *job) { j.err = r.prepare(ctx, j) })
	if len(in.jobs)+len(in.todo) > 0 {
		// Rows must not speak of what a power cut may take away.
		if err := r.source.sync(); err != nil {
			return fmt.Errorf("keep what was heard: %w", err)
		}
	}
	said, err := r.announce(in.jobs)
	if err != nil {
		return err
	}
	var full error
	for _, j := range in.jobs {
		if j.err == nil && full == nil {
			j.err = r.place(j)
		}
		if j.err == nil && full == nil {
			r.progress(func(p *Progress) {
				p.Written++
				p.WroteBytes += j.then.size
				p.Path = j.path
			})
			continue
		}
		if j.err == nil {
			j.err = full
		}
		if err := r.postpone(j.path, j.e, j.err); err != nil {
			full = err
		}
	}
	said.placed(r, in.jobs)
	// place and postpone have noted more.
	in.todo = append(in.todo, r.in.todo...)
	dirs := slices.Collect(maps.Keys(in.dirs))
	for dir := range r.in.dirs {
		if !in.dirs[dir] {
			dirs = append(dirs, dir)
		}
	}
	r.in = inbox{}
	if err := r.syncDirs(dirs); err != nil {
		return errors.Join(full, err)
	}
	for _, t := range in.todo {
		r.written(t)
	}
	// Not sooner: that a path is to be written must not be forgotten before it was.
	for path := range r.tried {
		if err := r.x.setLater(path, "", nil); err != nil {
			return errors.Join(full, err)
		}
	}
	clear(r.tried)
	said.forget(r)
	if err := r.x.commit(len(in.todo) > 0 || len(said.paths) > 0); err != nil {
		return errors.Join(full, err)
	}
	said.end(r, in.jobs)
	return full
}

// written gives the index the row of what was written.
func (r *round) written(t todo) {
	if t.now == nil || t.now.young == 0 {
		r.x.put(t.path, t.now)
	} else {
		r.x.record(t.path, t.now)
	}
	if r.brought[t.path] {
		delete(r.brought, t.path)
		r.power(CodeBack, t.path)
	}
}

func (r *round) syncDirs(dirs []string) (failed error) {
	var mu sync.Mutex
	each(dirs, func(dir string) {
		if err := r.files.syncDir(dir); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = fmt.Errorf("sync folder %s: %w", dir, err)
		}
	})
	return failed
}

// each calls f for all of them, some at a time.
func each[T any](all []T, f func(T)) {
	var group sync.WaitGroup
	next := make(chan T)
	for range min(writeWorkers, len(all)) {
		group.Go(func() {
			for one := range next {
				f(one)
			}
		})
	}
	for _, one := range all {
		next <- one
	}
	close(next)
	group.Wait()
}

// prepare writes a file or a link beside its place.
func (r *round) prepare(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if j.e.kind == kindLink {
		return r.prepareLink(j)
	}
	in, err := r.source.open(ctx, j.e)
	if err != nil {
		return err
	}
	defer in.Close()
	parent, _ := split(j.path)
	temp := parent + "/" + newTemp()
	f, err := r.files.create(temp)
	if err != nil {
		return err
	}
	j.temp = temp
	w := &hashedFile{f, content.NewHash()}
	_, err = io.Copy(w, in)
	if err == nil && [32]byte(w.hash.Sum(nil)) != j.e.hash {
		err = errDamaged
	}
	if err == nil {
		err = r.files.finish(temp, j.e.mode, j.e.mtime)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		j.then, err = f.stat()
	}
	return errors.Join(err, f.Close())
}

// A hashedFile hashes what is written to a file.
type hashedFile struct {
	file file
	hash hash.Hash
}

// hashBeside is from where on something is hashed while it is written.
const hashBeside = 32 << 10

func (w *hashedFile) Write(p []byte) (int, error) {
	var hashed sync.WaitGroup
	if len(p) >= hashBeside {
		hashed.Go(func() { w.hash.Write(p) })
	} else {
		w.hash.Write(p)
	}
	n, err := w.file.Write(p)
	hashed.Wait()
	return n, err
}

func (r *round) prepareLink(j *job) error {
	parent, _ := split(j.path)
	temp := parent + "/" + newTemp()
	if err := r.files.symlink(j.e.link, temp); err != nil {
		return err
	}
	j.temp = temp
	var err error
	j.then, err = r.files.lstat(temp)
	return err
}

// place puts a file that is on the disk in its place.
func (r *round) place(j *job) error {
	err := r.expect(j.path, j.expect)
	if err == nil {
		err = r.files.rename(j.temp, j.path, j.expect == nil)
	}
	if errors.Is(err, errEdited) || errors.Is(err, fs.ErrExist) {
		r.noteDirty(j.path)
	}
	if err != nil {
		return err
	}
	j.temp = ""
	r.renamed(j.path)
	then, err := r.files.lstat(j.path)
	if err != nil || !j.then.isOf(then) {
		r.noteDirty(j.path)
		parent, _ := split(j.path)
		if s, err := r.dir(parent); err != nil || s.inode != j.parent || s.inode == 0 {
			return errors.Join(errEdited, err) // it may be elsewhere, where nobody has seen it
		}
		// It was there, and was changed, moved or removed since: that is for the next round.
		then = j.then
	}
	r.in.todo = append(r.in.todo, todo{j.path, j.row(then)})
	return nil
}

func hashOf(r io.Reader) (out [32]byte, err error) {
	h := content.NewHash()
	_, err = io.Copy(h, r)
	copy(out[:], h.Sum(nil))
	return out, err
}
