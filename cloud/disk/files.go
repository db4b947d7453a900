package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/localdrive"
)

// windows is whether names and permissions are those of Windows.
const windows = runtime.GOOS == "windows"

// Errors about one path.
var (
	errKind    = errors.New("neither a file, a folder nor a link")
	errName    = errors.New("this system can't have the name")
	errClash   = errors.New("this file system takes the name for that of another file")
	errChanged = errors.New("file changed while it was read")
	errNotDir  = errors.New("a file or a link is where a folder should be")
	errIsDir   = errors.New("a folder that is not empty is there")
)

// files is the disk as a Keeper sees it: paths begin with a slash, that of the
// folder itself is "". No path leads through a link, and links are not followed.
// It is a seam, so that tests can have other file systems and let them fail.
type files interface {
	// root returns what the folder itself is.
	root() (stat, error)
	// list opens a folder, to be closed.
	list(dir string) (listing, error)
	// lstat returns errClash if there is something, but under another name.
	lstat(path string) (stat, error)
	// open opens a file to be read, and returns what it is.
	open(path string) (file, stat, error)
	// create begins to write a file that is not there.
	create(path string) (file, error)
	// finish sets what a file has besides its content, 0 meaning as it is.
	finish(path string, mode fs.FileMode, mtime int64) error
	mkdir(path string) error
	symlink(target, path string) error
	// rename moves a file or a link. With isNew it fails with fs.ErrExist if
	// something is at the target, else it takes its place.
	rename(from, to string, isNew bool) error
	// remove removes a file, a link or an empty folder.
	remove(path string) error
	// syncDir returns when the names in a folder are on the disk.
	syncDir(path string) error
	// sync returns when all that anybody has written in the folder is on the disk, as
	// far as the system tells.
	sync() error
	// free returns how many bytes there is room for.
	free() (uint64, error)
	// check returns errName if the path can't be here.
	check(path string) error
	close() error
}

// A listing is what is in a folder.
type listing interface {
	// names returns the names in no order, with a slash after those of folders.
	names() ([]string, error)
	lstat(name string) (stat, error)
	close() error
}

// A file is one that is read or written.
type file interface {
	io.Reader
	io.Writer
	stat() (stat, error)
	Sync() error
	Close() error
}

// rooted is the folder on the real disk. It goes to each path step by step
// through folders that are no links, and so never leaves the folder.
type rooted struct {
	r     *os.Root
	folds bool // the file system takes different names for one another

	mu     sync.Mutex      // guards the fields below
	cached string          // the folder whose names those are
	exact  map[string]bool // names, where the file system folds them
	last   *way            // that was used last
}

// folds finds out whether names are taken for one another.
func folds(r *os.Root) bool {
	if windows || runtime.GOOS == "darwin" {
		return true // also for letters that have two codes
	}
	name := newTemp()
	f, err := r.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false // nothing will be written here either
	}
	f.Close()
	_, err = r.Lstat(strings.ToUpper(name))
	_ = r.Remove(name) // else a scan does
	return err == nil
}

func (f *rooted) close() error {
	f.mu.Lock()
	f.forgetLocked()
	f.mu.Unlock()
	return f.r.Close()
}

func (f *rooted) root() (stat, error) {
	info, err := f.r.Stat(".")
	if err != nil {
		return stat{}, err
	}
	return statOf(info), nil
}

// dir opens a folder, to be closed.
func (f *rooted) dir(path string) (*os.Root, error) {
	at, err := f.r.OpenRoot(".")
	if err != nil || path == "" {
		return at, err
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		next, _, err := step(at, name)
		at.Close()
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

// step opens a folder that is in another, and returns what it is.
func step(at *os.Root, name string) (*os.Root, fs.FileInfo, error) {
	info, err := at.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		return nil, nil, errNotDir
	}
	next, err := at.OpenRoot(name)
	if err != nil {
		return nil, nil, err
	}
	// Nobody may have put a link there meanwhile.
	if now, err := next.Stat("."); err != nil || !os.SameFile(info, now) {
		next.Close()
		return nil, nil, errors.Join(errNotDir, err)
	}
	return next, info, nil
}

// in calls do with the folder that a path is in, and the path's last name.
func (f *rooted) in(path string, do func(dir *os.Root, name string) error) error {
	parent, name := split(path)
	if canKeep(parent) {
		w, err := f.way(parent)
		if err != nil {
			return err
		}
		defer f.leave(w)
		return do(w.end(f.r), name)
	}
	dir, err := f.dir(parent)
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir, name)
}

// split returns the folder that a path is in, and its last name.
func split(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i], path[i+1:]
}

func (f *rooted) list(path string) (listing, error) {
	dir, err := f.dir(path)
	return rootedDir{dir}, err
}

type rootedDir struct{ r *os.Root }

func (d rootedDir) close() error                    { return d.r.Close() }
func (d rootedDir) lstat(name string) (stat, error) { return lstatIn(d.r, name) }

func (d rootedDir) names() ([]string, error) {
	open, err := d.r.Open(".")
	if err != nil {
		return nil, err
	}
	defer open.Close()
	var names []string
	for {
		some, err := open.ReadDir(1024)
		for _, e := range some {
			name := e.Name()
			if e.IsDir() {
				name += "/"
			}
			names = append(names, name)
		}
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (f *rooted) lstat(path string) (s stat, err error) {
	err = f.in(path, func(dir *os.Root, name string) error {
		s, err = lstatIn(dir, name)
		if err == nil && f.folds {
			err = f.checkExact(dir, path)
		}
		return err
	})
	return s, err
}

// checkExact returns errClash if a file that is there has another name.
func (f *rooted) checkExact(dir *os.Root, path string) error {
	parent, name := split(path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.exact == nil || f.cached != parent || !f.exact[name] {
		names, err := rootedDir{dir}.names()
		if err != nil {
			return err
		}
		f.cached, f.exact = parent, make(map[string]bool, len(names))
		for _, n := range names {
			f.exact[strings.TrimSuffix(n, "/")] = true
		}
	}
	if !f.exact[name] {
		return errClash
	}
	return nil
}

// renamed forgets names that were cached.
func (f *rooted) renamed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exact = nil
}

func lstatIn(dir *os.Root, name string) (stat, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return stat{}, err
	}
	s := statOf(info)
	switch s.kind {
	case 0:
		return s, errKind
	case kindLink:
		target, err := dir.Readlink(name)
		if err != nil {
			return s, err
		}
		s.link = filepath.ToSlash(target)
	}
	return s, nil
}

func statOf(info fs.FileInfo) stat {
	s := stat{}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		s.kind, s.size = kindFile, info.Size()
	case mode.IsDir():
		s.kind = kindDir
	case mode&fs.ModeSymlink != 0:
		s.kind = kindLink
	}
	s.inode, s.ctime = identity(info)
	if s.kind == kindFile {
		s.mtime = info.ModTime().UnixNano()
	} else {
		s.ctime = 0
	}
	if s.kind != kindLink && !windows {
		s.mode = info.Mode().Perm()
	}
	return s
}

func (f *rooted) open(path string) (out file, s stat, err error) {
	err = f.in(path, func(dir *os.Root, name string) error {
		before, err := dir.Lstat(name)
		if err != nil {
			return err
		}
		if !before.Mode().IsRegular() {
			return errKind
		}
		flag := os.O_RDONLY
		if !windows {
			flag |= syscall.O_NONBLOCK // in case it is a pipe by now
		}
		opened, err := dir.OpenFile(name, flag, 0)
		if err != nil {
			return err
		}
		info, err := opened.Stat()
		if err == nil && !os.SameFile(before, info) {
			err = errChanged
		}
		if err != nil {
			opened.Close()
			return err
		}
		out, s = &osFile{File: opened}, statOf(info)
		return nil
	})
	return out, s, err
}

func (f *rooted) create(path string) (out file, err error) {
	err = f.in(path, func(dir *os.Root, name string) error {
		created, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		out = &osFile{File: created}
		return err
	})
	return out, err
}

func (f *rooted) finish(path string, mode fs.FileMode, mtime int64) error {
	return f.in(path, func(dir *os.Root, name string) error {
		info, err := dir.Lstat(name)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return errKind
		}
		if mode != 0 && !windows && info.Mode().Perm() != mode {
			// What the owner could not read again would be lost to the folder.
			if err := dir.Chmod(name, mode); err != nil {
				return err
			}
		}
		if mtime != 0 && info.ModTime().UnixNano() != mtime {
			return dir.Chtimes(name, time.Time{}, time.Unix(0, mtime))
		}
		return nil
	})
}

func (f *rooted) free() (uint64, error) {
	u, err := vfs.Default.GetDiskUsage(f.r.Name())
	return u.AvailBytes, err
}

func (f *rooted) mkdir(path string) error {
	defer f.renamed()
	return f.in(path, func(dir *os.Root, name string) error { return dir.Mkdir(name, 0o777) })
}

func (f *rooted) symlink(target, path string) error {
	return f.in(path, func(dir *os.Root, name string) error { return dir.Symlink(filepath.FromSlash(target), name) })
}

func (f *rooted) rename(from, to string, isNew bool) error {
	defer f.renamed()
	return f.in(to, func(dir *os.Root, name string) error {
		parent, old := split(from)
		if toParent, _ := split(to); parent != toParent {
			return fmt.Errorf("rename %s to %s: not in one folder", from, to)
		}
		if isNew {
			if done, err := renameNew(dir, old, name); done {
				return err
			}
			// Only a link can be made without taking the place of a file. Not every
			// file system has them.
			if err := dir.Link(old, name); err == nil || errors.Is(err, fs.ErrExist) {
				return errors.Join(err, dir.Remove(old))
			}
			if _, err := dir.Lstat(name); err == nil {
				return fs.ErrExist
			}
		}
		return dir.Rename(old, name)
	})
}

func (f *rooted) remove(path string) error {
	defer f.renamed()
	return f.in(path, func(dir *os.Root, name string) error { return dir.Remove(name) })
}

func (f *rooted) syncDir(path string) error {
	if windows {
		return nil // which has no such thing
	}
	dir, err := f.dir(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
		return nil // it was removed, and that is in the folder above it
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *rooted) check(path string) error { return checkPath(path, windows) }

type osFile struct {
	*os.File
	wrote, hurried int64
}

const (
	// hurryBytes is how much of a file is written before the disk is told to begin.
	hurryBytes = 4 << 20
	// keepBytes is how much of what is written the system keeps in memory.
	keepBytes = 32 << 20
)

// Write has the disk begin with what is written of a large file, so that there is
// less left for the sync at its end; and has the system use the memory of what is
// on the disk again, which costs less than to find more, and keeps what others
// have there.
func (f *osFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if f.wrote += int64(n); f.wrote-f.hurried >= hurryBytes {
		hurry(f.File, f.hurried, f.wrote)
		if f.wrote > keepBytes && err == nil {
			err = letGo(f.File, f.hurried-keepBytes, f.wrote-keepBytes)
		}
		f.hurried = f.wrote
	}
	return n, err
}

func (f *osFile) stat() (stat, error) {
	info, err := f.File.Stat()
	if err != nil {
		return stat{}, err
	}
	return statOf(info), nil
}

// maxName is the most bytes that a name on a disk has.
const maxName = 255

// checkPath returns errName unless a path of a folder can be on a disk.
func checkPath(path string, windows bool) error {
	if path == "" || path[0] != '/' || !utf8.ValidString(path) || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%w: it is no text", errName)
	}
	if len(path) > folder.MaxPath {
		return fmt.Errorf("%w: its path has %d bytes, %d are allowed", errName, len(path), folder.MaxPath)
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		switch {
		case name == "" || name == "." || name == "..":
			return fmt.Errorf("%w: %q names nothing", errName, name)
		case len(name) > maxName:
			return fmt.Errorf("%w: it has %d bytes, %d are allowed", errName, len(name), maxName)
		case isTemp(name):
			return fmt.Errorf("%w: it is that of a temporary file", errName)
		}
		if why := localdrive.BadOnWindows(name); windows && why != "" {
			return fmt.Errorf("%w: %q %s", errName, name, why)
		}
	}
	return nil
}

// reader reads a file to its end, and gives errChanged there if what was read
// may be of no one time.
type reader struct {
	ctx    context.Context
	f      file
	before stat
	n      int64
	count  func(n int)
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.f.Read(p)
	r.count(n)
	if r.n += int64(n); r.n > r.before.size {
		return 0, errChanged // it may grow as fast as it is read
	}
	if err == io.EOF {
		now, statErr := r.f.stat()
		if statErr != nil {
			return n, statErr
		}
		if r.n != r.before.size || !r.before.same(now) {
			return n, errChanged
		}
	}
	return n, err
}

// opener returns what opens folders on the real disk. It finds out once how that
// takes names, as it has to make a file for that.
func opener() func(dir string) (files, error) {
	var once sync.Once
	var folding bool
	return func(dir string) (files, error) {
		r, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		once.Do(func() { folding = folds(r) })
		return &rooted{r: r, folds: folding}, nil
	}
}
