// Package localdrive is a folder on the disk with the face of a drive (package
// hyperdrive): its files and links are entries, in the order of their paths.
//
//	folder, err := localdrive.Open("/home/lenka/photos")
//	for entry, err := range folder.List(ctx, "/", localdrive.ListOptions{}) {
//		…
//	}
//	file, err := folder.Create(ctx, "/2026/sea.jpg", localdrive.CreateOptions{})
//	_, err = file.ReadFrom(r)
//	err = file.Close()
//
// # What can't be reached
//
// Nothing outside of the folder is read or written, whatever paths and links
// say. No path leads through a link, also if that stays in the folder: to write
// "/a/b" when "/a" is a link is ErrNotFolder. Links themselves are read and
// written as what they say and are never followed; one may lead out of the
// folder, for programs that follow it. As in the npm package localdrive, a
// target that is absolute starts at the folder: "/a" of an entry is the file
// a of the folder on the disk, wherever that is.
//
// # Writing
//
// A file is written beside its place, under a name that List leaves out, and put
// there when it is whole. Its time and permissions are those in the entry. Close
// of a File returns when it is on the disk; Sync does the same for folders.
//
// # Concurrency
//
// All methods may be called by any goroutine, those of a File and a Reader by
// one at a time.
package localdrive

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrName: a path that names nothing, or nothing that this system can have.
	ErrName = errors.New("invalid name")
	// ErrFolder: a folder is where a file should be.
	ErrFolder = errors.New("is a folder")
	// ErrNotFolder: a file or a link is where a folder should be.
	ErrNotFolder = errors.New("is no folder")
	// ErrExists: something is there. It may have another name, that is the same to
	// this file system, as "A" and "a" are to many.
	ErrExists = fs.ErrExist
	// ErrChanged: the file was changed while it was read.
	ErrChanged = errors.New("file changed while it was read")
	// ErrNotFound: there is no such file.
	ErrNotFound = hyperdrive.ErrNotFound
	// errKind is of devices, pipes and sockets.
	errKind = errors.New("neither a file nor a link")
)

// A Skipped is an error about one path: a List goes on after it.
type Skipped struct {
	Path string
	Err  error
}

func (s *Skipped) Error() string { return s.Path + ": " + s.Err.Error() }

func (s *Skipped) Unwrap() error { return s.Err }

// windows is whether names and permissions are those of Windows.
const windows = runtime.GOOS == "windows"

// A Folder is a folder on the disk.
type Folder struct {
	root *os.Root
	dir  string // absolute, for the targets of links

	mu     sync.Mutex
	temps  map[string]bool // guarded by mu: the temporary files that are being written
	dirty  map[string]bool // guarded by mu: folders that were changed and not synced
	probed bool            // guarded by mu
	folds  bool            // guarded by mu: the file system takes names for one another
	exact  map[string]bool // guarded by mu: folders known to be called so, if it does
}

// Open opens a folder that is there. It must be closed.
func Open(dir string) (*Folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	return &Folder{root: root, dir: abs, temps: map[string]bool{}, dirty: map[string]bool{}, exact: map[string]bool{}}, nil
}

// Close ends the use of the folder.
func (f *Folder) Close() error { return f.root.Close() }

// Dir returns where the folder was when it was opened.
func (f *Folder) Dir() string { return f.dir }

// Modes reports whether files have permissions here.
func (f *Folder) Modes() bool { return !windows }

// Entry returns the entry of a path: of a link itself, not of what it leads to.
// ErrNotFound means that there is none, or a folder.
func (f *Folder) Entry(_ context.Context, path string) (hyperdrive.Entry, error) {
	e, err := f.find(path)
	if err != nil {
		return e, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

func (f *Folder) find(path string) (hyperdrive.Entry, error) {
	dir, name, err := f.parent(path, false)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFolder) {
			err = ErrNotFound
		}
		return hyperdrive.Entry{}, err
	}
	defer dir.Close()
	e, err := f.entry(dir, name, path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrFolder) {
		err = ErrNotFound
	}
	return e, err
}

// entry returns that of a name in a folder.
func (f *Folder) entry(dir *os.Root, name, path string) (hyperdrive.Entry, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return hyperdrive.Entry{}, err
	}
	return f.entryOf(dir, info, name, path)
}

func (f *Folder) entryOf(dir *os.Root, info fs.FileInfo, name, path string) (hyperdrive.Entry, error) {
	e := hyperdrive.Entry{Path: path}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return e, ErrFolder
	case mode&fs.ModeSymlink != 0:
		target, err := dir.Readlink(name)
		if err != nil {
			return e, err
		}
		e.Linkname = f.fromDisk(target)
		return e, nil
	case !mode.IsRegular():
		return e, errKind
	}
	size := uint64(info.Size())
	e.Blob = &hyperblobs.ID{ByteLength: size, BlockLength: (size + hyperblobs.DefaultBlockSize - 1) / hyperblobs.DefaultBlockSize}
	var mode fs.FileMode
	if !windows {
		mode = info.Mode().Perm()
		e.Executable = mode&0o100 != 0
	}
	e.Metadata = hyperdrive.NewMetadata(info.ModTime(), mode)
	return e, nil
}

// fromDisk returns the target of a link as drives have it.
func (f *Folder) fromDisk(target string) string {
	if rest, ok := strings.CutPrefix(target, f.dir); ok && rest != "" && os.IsPathSeparator(rest[0]) {
		target = rest
	}
	return filepath.ToSlash(target)
}

// toDisk undoes fromDisk.
func (f *Folder) toDisk(target string) string {
	target = filepath.FromSlash(target)
	if target != "" && os.IsPathSeparator(target[0]) {
		target = f.dir + target
	}
	return target
}

// parent opens the folder that a path is in, to be closed, and returns the
// path's last name. With create it makes the folders that are not there.
func (f *Folder) parent(path string, create bool) (*os.Root, string, error) {
	if err := f.Check(path); err != nil {
		return nil, "", err
	}
	i := strings.LastIndexByte(path, '/')
	dir, err := f.open(path[:i], create)
	return dir, path[i+1:], err
}

// open opens a folder, step by step so that no link is followed. "" is the
// whole.
func (f *Folder) open(path string, create bool) (*os.Root, error) {
	dir, err := f.root.OpenRoot(".")
	if err != nil {
		return nil, err
	}
	for at := 0; at < len(path); {
		end := len(path)
		if i := strings.IndexByte(path[at+1:], '/'); i >= 0 {
			end = at + 1 + i
		}
		next, made, err := step(dir, path[at+1:end], create)
		if err == nil && made {
			f.changed(path[:at])
		}
		if err == nil && !made && create {
			err = f.checkExact(dir, path[at+1:end], path[:end])
		}
		dir.Close()
		if err != nil {
			if next != nil {
				next.Close()
			}
			return nil, fmt.Errorf("%s: %w", path[:end], err)
		}
		dir, at = next, end
	}
	return dir, nil
}

// step opens a folder in a folder.
func step(dir *os.Root, name string, create bool) (next *os.Root, made bool, err error) {
	info, err := dir.Lstat(name)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err = dir.Mkdir(name, 0o777); err == nil || errors.Is(err, fs.ErrExist) {
			made = err == nil
			info, err = dir.Lstat(name)
		}
	}
	if err != nil {
		return nil, made, err
	}
	if !info.IsDir() {
		return nil, made, ErrNotFolder
	}
	if next, err = dir.OpenRoot(name); err != nil {
		return nil, made, err
	}
	// Nobody may have put a link there meanwhile.
	if now, err := next.Stat("."); err != nil || !os.SameFile(info, now) {
		return next, made, errors.Join(ErrNotFolder, err)
	}
	return next, made, nil
}

// maxExact bounds what is remembered of folders' names.
const maxExact = 4096

// checkExact returns ErrExists if a folder that is there is called otherwise.
func (f *Folder) checkExact(dir *os.Root, name, path string) error {
	f.mu.Lock()
	known := !f.folds || f.exact[path]
	f.mu.Unlock()
	if known {
		return nil
	}
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	if !slices.Contains(names, name+"/") {
		return fmt.Errorf("%w, and has another name", ErrExists)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.exact) >= maxExact {
		clear(f.exact)
	}
	f.exact[path] = true
	return nil
}

// changed remembers that a folder's names are to be synced.
func (f *Folder) changed(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty[path] = true
}

// Sync returns when all that was written before is on the disk.
func (f *Folder) Sync() error {
	f.mu.Lock()
	dirty := f.dirty
	f.dirty = map[string]bool{}
	f.mu.Unlock()
	if windows {
		return nil // which has no such thing
	}
	for path := range dirty {
		if err := f.syncFolder(path); err != nil {
			f.changed(path)
			return fmt.Errorf("sync folder %s: %w", path, err)
		}
	}
	return nil
}

func (f *Folder) syncFolder(path string) error {
	dir, err := f.open(path, false)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFolder) {
		return nil // it was removed, and that is in the folder above it
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	file, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

// ListOptions say which entries List returns. The zero value is all of them.
type ListOptions struct {
	// Ignore leaves out the entries whose path it says yes to, and all in folders
	// whose path it does.
	Ignore func(path string) bool
	// Clean removes the temporary files that writes have left that were cut short.
	// No other process may be writing to the folder.
	Clean bool
}

// List returns the entries in a folder and the folders in it, in the order of
// the bytes of their paths. What can't be read is a *Skipped error, after which
// it goes on; with others it ends. It needs memory for the names in one folder
// and those above it.
func (f *Folder) List(ctx context.Context, folder string, o ListOptions) iter.Seq2[hyperdrive.Entry, error] {
	return func(yield func(hyperdrive.Entry, error) bool) {
		path := strings.TrimSuffix(folder, "/")
		var err error
		if path != "" {
			err = f.Check(path)
		}
		var dir *os.Root
		if err == nil {
			dir, err = f.open(path, false)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFolder):
			return
		case errors.Is(err, fs.ErrPermission):
			yield(hyperdrive.Entry{}, &Skipped{folder, err})
			return
		case err != nil:
			yield(hyperdrive.Entry{}, fmt.Errorf("list %q: %w", folder, err))
			return
		}
		defer dir.Close()
		w := walk{ctx, f, o, yield}
		w.folder(dir, path)
	}
}

type walk struct {
	ctx   context.Context
	f     *Folder
	o     ListOptions
	yield func(hyperdrive.Entry, error) bool
}

// folder goes through a folder, and reports whether to go on.
func (w *walk) folder(dir *os.Root, path string) bool {
	names, err := readNames(dir)
	if err != nil {
		where := path
		if where == "" {
			where = "/"
		}
		return w.yield(hyperdrive.Entry{}, &Skipped{where, err})
	}
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			w.yield(hyperdrive.Entry{}, fmt.Errorf("list: %w", err))
			return false
		}
		name, isDir := strings.CutSuffix(name, "/")
		if !isDir && isTemp(name) {
			if w.o.Clean {
				w.f.clean(dir, name)
			}
			continue
		}
		at := path + "/" + name
		if w.o.Ignore != nil && w.o.Ignore(at) {
			continue
		}
		if !w.one(dir, name, at, isDir) {
			return false
		}
	}
	return true
}

func (w *walk) one(dir *os.Root, name, at string, isDir bool) bool {
	err := w.f.Check(at)
	var e hyperdrive.Entry
	switch {
	case err != nil:
	case isDir:
		var sub *os.Root
		if sub, _, err = step(dir, name, false); sub != nil {
			defer sub.Close()
		}
		if err == nil {
			return w.folder(sub, at)
		}
	default:
		if e, err = w.f.entry(dir, name, at); err == nil {
			return w.yield(e, nil)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return true // since the names were read
	}
	return w.yield(hyperdrive.Entry{}, &Skipped{at, err})
}

// readNames returns the names in a folder, with a slash after those of folders:
// so the order of the names is that of the paths.
func readNames(dir *os.Root) ([]string, error) {
	file, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var names []string
	for {
		some, err := file.ReadDir(1024)
		for _, e := range some {
			name := e.Name()
			if e.IsDir() {
				name += "/"
			}
			names = append(names, name)
		}
		if len(some) == 0 || err != nil {
			if err != nil && err != io.EOF {
				return nil, err
			}
			break
		}
	}
	slices.Sort(names)
	return names, nil
}

// clean removes a temporary file, unless this process is writing it.
func (f *Folder) clean(dir *os.Root, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.temps[name] {
		_ = dir.Remove(name) // else the next one does
	}
}

// A Reader reads a file.
type Reader struct {
	file *os.File
	info fs.FileInfo
	n    int64
}

// OpenFile opens the file that an entry is of. ErrChanged means that it has
// another size or time than the entry says.
func (f *Folder) OpenFile(_ context.Context, e hyperdrive.Entry) (*Reader, error) {
	r, err := f.openFile(e)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Path, err)
	}
	return r, nil
}

func (f *Folder) openFile(e hyperdrive.Entry) (*Reader, error) {
	dir, name, err := f.parent(e.Path, false)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	before, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, errKind
	}
	flag := os.O_RDONLY
	if !windows {
		flag |= syscall.O_NONBLOCK // in case it is a pipe by now
	}
	file, err := dir.OpenFile(name, flag, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && (!os.SameFile(before, info) || e.Blob != nil && uint64(info.Size()) != e.Blob.ByteLength || !info.ModTime().Equal(e.ModTime()) && !e.ModTime().IsZero()) {
		err = ErrChanged
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Reader{file: file, info: info}, nil
}

// Read implements io.Reader. At the end it returns ErrChanged instead of io.EOF
// if what was read may be of no one time.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	if r.n += int64(n); r.n > r.info.Size() {
		return 0, fmt.Errorf("read %s: %w", r.info.Name(), ErrChanged) // it may grow as fast as it is read
	}
	if n == 0 && err == io.EOF {
		now, statErr := r.file.Stat()
		if statErr != nil {
			return 0, statErr
		}
		if r.n != r.info.Size() || now.Size() != r.info.Size() || !now.ModTime().Equal(r.info.ModTime()) {
			return 0, fmt.Errorf("read %s: %w", r.info.Name(), ErrChanged)
		}
	}
	return n, err
}

// Close ends reading.
func (r *Reader) Close() error { return r.file.Close() }

// CreateOptions say what is known of a file besides its contents.
type CreateOptions struct {
	Executable bool
	// Mode is the file's permissions; those that are usual when zero.
	Mode fs.FileMode
	// ModTime is when the file was changed; now when zero.
	ModTime time.Time
	// New is for a file that is not there: if it is, that is ErrExists.
	New bool
}

// tempEnd is the end of the names of temporary files, as of those of the npm
// package localdrive.
const tempEnd = ".localdrive.tmp"

func isTemp(name string) bool {
	id, ok := strings.CutSuffix(name, tempEnd)
	if !ok || len(id) != 17 || id[0] != '.' {
		return false
	}
	_, err := hex.DecodeString(id[1:])
	return err == nil
}

// temp returns a name for a temporary file, to be given to forget.
func (f *Folder) temp() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	name := "." + hex.EncodeToString(id[:]) + tempEnd
	f.mu.Lock()
	defer f.mu.Unlock()
	f.temps[name] = true
	return name
}

func (f *Folder) forget(temp string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.temps, temp)
}
