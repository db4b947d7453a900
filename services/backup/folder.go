package backup

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
)

// A Folder is a Remote in a folder, such as that of a disk which is not always
// there. The folder itself has to exist: else it is not.
type Folder string

// partPrefix begins the names of files that are not written to their end.
const partPrefix = ".part-"

// Put implements [Remote].
func (f Folder) Put(ctx context.Context, name string, body []byte) (err error) {
	if _, err := os.Stat(string(f)); err != nil {
		return err
	}
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), partPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name()) // what went wrong first is what counts
		}
	}()
	_, err = temp.Write(body)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close(), ctx.Err()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := syncDir(dir); err != nil {
			return err
		}
		if len(dir) <= len(filepath.Clean(string(f))) {
			return nil
		}
	}
}

// syncDir has the names in a folder reach the disk, where a system knows how.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f Folder) path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

// Get implements [Remote].
func (f Folder) Get(_ context.Context, name string, limit int64) ([]byte, error) {
	info, err := os.Stat(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(string(f)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d: %w", name, info.Size(), limit, ErrKey)
	}
	return os.ReadFile(f.path(name))
}

// GetRange implements [Remote].
func (f Folder) GetRange(_ context.Context, name string, at, n int64) (b []byte, err error) {
	file, err := os.Open(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(string(f)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return io.ReadAll(io.NewSectionReader(file, at, n))
}

// List implements [Remote].
func (f Folder) List(ctx context.Context, prefix string) ([]Item, error) {
	return f.list(ctx, prefix, func(name string) bool { return !strings.HasPrefix(name, ".") })
}

// Parts returns what was not put to its end: its program was killed, or is at it.
func (f Folder) Parts(ctx context.Context) ([]Item, error) {
	return f.list(ctx, "", func(name string) bool { return strings.HasPrefix(name, partPrefix) })
}

func (f Folder) list(ctx context.Context, prefix string, wanted func(name string) bool) (items []Item, err error) {
	root := f.path(prefix)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path == root:
			_, err := os.Stat(string(f)) // there is nothing yet, or no disk
			return err
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir() || !wanted(d.Name()):
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(string(f), path)
		if err != nil {
			return err
		}
		items = append(items, Item{filepath.ToSlash(name), info.Size(), info.ModTime()})
		return nil
	})
	return items, err
}

// Delete implements [Remote].
func (f Folder) Delete(_ context.Context, name string) error {
	if err := os.Remove(f.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
