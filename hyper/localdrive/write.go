package localdrive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"
)

// A File is one that is being written.
type File struct {
	f          *Folder
	dir        *os.Root
	path       string
	name, temp string
	file       *os.File
	o          CreateOptions
	done       bool
}

var _ interface {
	io.WriteCloser
	io.ReaderFrom
} = (*File)(nil)

// Create begins to write a file. It is there, in place of what is at its path,
// once Close has returned nil; Abort leaves things as they are. An empty folder
// gives way, others are ErrFolder.
func (f *Folder) Create(ctx context.Context, path string, o CreateOptions) (*File, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	file, err := f.create(path, o)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return file, nil
}

func (f *Folder) create(path string, o CreateOptions) (*File, error) {
	dir, name, err := f.parent(path, true)
	if err != nil {
		return nil, err
	}
	out := &File{f: f, dir: dir, path: path, name: name, o: o}
	if err := makeRoom(dir, name, o.New); err != nil {
		dir.Close()
		return nil, err
	}
	perm := o.Mode.Perm()
	switch {
	case perm == 0 && o.Executable:
		perm = 0o777 // less the umask
	case perm == 0:
		perm = 0o666
	}
	out.temp = f.temp()
	out.file, err = dir.OpenFile(out.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		f.forget(out.temp)
		dir.Close()
		return nil, err
	}
	f.probe(dir, out.temp)
	return out, nil
}

// makeRoom looks whether a file can be put at a name.
func makeRoom(dir *os.Root, name string, isNew bool) error {
	switch info, err := dir.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		if err := removeEmpty(dir, name, info); err != nil {
			return ErrFolder
		}
	case isNew:
		return ErrExists
	}
	return nil
}

// removeEmpty removes a folder that has nothing in it but such folders.
func removeEmpty(dir *os.Root, name string, info fs.FileInfo) error {
	if !info.IsDir() {
		return ErrFolder
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := readNames(sub)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, "/") {
			return ErrFolder
		}
	}
	for _, name := range names {
		name = strings.TrimSuffix(name, "/")
		info, err := sub.Lstat(name)
		if err == nil {
			err = removeEmpty(sub, name, info)
		}
		if err != nil {
			return err
		}
	}
	return dir.Remove(name)
}

// probe looks once whether the file system knows a file by another name, too.
func (f *Folder) probe(dir *os.Root, temp string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.probed {
		f.probed = true
		_, err := dir.Lstat(strings.ToUpper(temp))
		f.folds = err == nil || runtime.GOOS == "darwin" // which knows letters by two codes
	}
}

// Folds reports whether the file system takes different names for one another,
// as far as was seen when the first file was created.
func (f *Folder) Folds() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.folds
}

// Write implements io.Writer.
func (w *File) Write(p []byte) (int, error) { return w.file.Write(p) }

// ReadFrom implements io.ReaderFrom.
func (w *File) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w.file}, struct{ io.Reader }{r}, make([]byte, 256<<10))
}

// Close puts the file in its place, once it is on the disk.
func (w *File) Close() error {
	if w.done {
		return os.ErrClosed
	}
	w.done = true
	err := w.finish()
	if err != nil {
		_ = w.dir.Remove(w.temp) // else the next List with Clean does
	}
	w.dir.Close()
	w.f.forget(w.temp)
	if err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	return nil
}

func (w *File) finish() error {
	var err error
	if perm := w.o.Mode.Perm(); perm != 0 && !windows {
		err = w.file.Chmod(perm)
	}
	if err == nil && !windows {
		err = w.setTime()
	}
	if err == nil {
		err = w.file.Sync()
	}
	err = errors.Join(err, w.file.Close())
	if err == nil && windows {
		err = w.setTime() // closing has set another
	}
	if err == nil {
		err = w.dir.Rename(w.temp, w.name)
	}
	w.f.changed(folderOf(w.path))
	return err
}

func (w *File) setTime() error {
	if w.o.ModTime.IsZero() {
		return nil
	}
	return w.dir.Chtimes(w.temp, time.Time{}, w.o.ModTime)
}

// Abort forgets what was written. After Close it does nothing.
func (w *File) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.file.Close()
	_ = w.dir.Remove(w.temp) // else the next List with Clean does
	w.dir.Close()
	w.f.forget(w.temp)
}

func folderOf(path string) string { return path[:strings.LastIndexByte(path, '/')] }

// SetMode changes the permissions, unless they are 0, and the time of a file,
// unless it is zero.
func (f *Folder) SetMode(_ context.Context, path string, mode fs.FileMode, modTime time.Time) error {
	fail := func(err error) error { return fmt.Errorf("change %s: %w", path, err) }
	dir, name, err := f.parent(path, false)
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	switch info, err := dir.Lstat(name); {
	case err != nil:
		return fail(err)
	case !info.Mode().IsRegular():
		return fail(errKind)
	}
	if perm := mode.Perm(); perm != 0 && !windows {
		if err := dir.Chmod(name, perm); err != nil {
			return fail(err)
		}
	}
	if !modTime.IsZero() {
		if err := dir.Chtimes(name, time.Time{}, modTime); err != nil {
			return fail(err)
		}
	}
	return nil
}

// Symlink writes a link, in place of what is at its path; with isNew that
// something is there is ErrExists. What it leads to need not be there, and is
// not looked at.
func (f *Folder) Symlink(ctx context.Context, path, target string, isNew bool) error {
	fail := func(err error) error { return fmt.Errorf("link %s: %w", path, err) }
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if target == "" || strings.ContainsRune(target, 0) {
		return fail(fmt.Errorf("%w: it is to lead to %q", ErrName, target))
	}
	dir, name, err := f.parent(path, true)
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	if err := makeRoom(dir, name, isNew); err != nil {
		return fail(err)
	}
	temp := f.temp()
	defer f.forget(temp)
	if err := dir.Symlink(f.toDisk(target), temp); err != nil {
		return fail(err)
	}
	if err := dir.Rename(temp, name); err != nil {
		_ = dir.Remove(temp) // else the next List with Clean does
		return fail(err)
	}
	f.changed(folderOf(path))
	return nil
}

// Delete removes a file or a link, if it is there, and the folders that are
// empty then.
func (f *Folder) Delete(_ context.Context, path string) error {
	if err := f.remove(path); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	for path = folderOf(path); path != ""; path = folderOf(path) {
		if !f.removeFolder(path) {
			break
		}
	}
	return nil
}

func (f *Folder) remove(path string) error {
	dir, name, err := f.parent(path, false)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFolder) {
			err = nil
		}
		return err
	}
	defer dir.Close()
	switch info, err := dir.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return ErrFolder
	}
	f.changed(folderOf(path))
	return dir.Remove(name)
}

// removeFolder removes a folder if it is empty.
func (f *Folder) removeFolder(path string) bool {
	dir, name, err := f.parent(path, false)
	if err != nil {
		return false
	}
	defer dir.Close()
	info, err := dir.Lstat(name)
	if err != nil || !info.IsDir() || dir.Remove(name) != nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.exact, path)
	f.dirty[folderOf(path)] = true
	return true
}
