package hyperdrive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
)

// FS returns the drive as a file system of the standard library. It implements
// fs.StatFS, fs.ReadDirFS, fs.ReadFileFS and fs.ReadLinkFS, and its files are
// io.Seeker and io.ReaderAt, so that net/http can serve ranges of them. Links are
// followed within the drive.
//
// That of a Drive which changes may change between two calls; that of a Snapshot
// does not. Paths that are none for an fs.FS are left out, and so is a file where
// there is a folder of that name. Folders have no times. The context is that of
// all calls.
func (d *Drive) FS(ctx context.Context) fs.FS { return fileSystem{d, ctx} }

type fileSystem struct {
	d   *Drive
	ctx context.Context
}

var (
	_ fs.StatFS     = fileSystem{}
	_ fs.ReadDirFS  = fileSystem{}
	_ fs.ReadFileFS = fileSystem{}
	_ fs.ReadLinkFS = fileSystem{}
)

// pathError wraps an error as io/fs has them.
func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// A node is what a name leads to.
type node struct {
	path string // in the drive; "" for the drive itself
	dir  bool
	e    Entry // of what is no folder
}

// find returns what a name leads to. Links in the middle of it are followed, and
// with follow the one at its end.
func (f fileSystem) find(name string, follow bool) (node, error) {
	if !fs.ValidPath(name) {
		return node{}, fs.ErrInvalid
	}
	if name == "." {
		return node{dir: true}, nil
	}
	p := "/" + name
	if !isClean(p) {
		return node{}, fs.ErrNotExist // it has backslashes
	}
	for range maxLinks + 1 {
		n, err := f.lookup(p)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return node{}, err
		}
		if err == nil && (!n.e.IsLink() || !follow) {
			return n, nil
		}
		rest := ""
		if err != nil {
			// Perhaps one of the folders on the way is a link.
			if n, rest, err = f.linkAbove(p); err != nil {
				return node{}, err
			}
		}
		target, err := resolve(n.e.Path, n.e.Linkname)
		if err != nil {
			return node{}, fs.ErrNotExist // it leads nowhere in the drive
		}
		if p = target + rest; p == "" {
			return node{dir: true}, nil
		}
	}
	return node{}, ErrLoop
}

// lookup returns the folder or the entry at a path.
func (f fileSystem) lookup(p string) (node, error) {
	for _, err := range f.d.files.Range(f.ctx, hyperbee.RangeOptions{Gt: []byte(p + "/"), Lt: []byte(p + "0"), Limit: 1}) {
		return node{path: p, dir: true}, err
	}
	e, err := f.d.entry(f.ctx, p)
	return node{path: p, e: e}, err
}

// linkAbove returns the first link among the folders above a path, and the rest
// of the path after it.
func (f fileSystem) linkAbove(p string) (node, string, error) {
	for i := 1; i < len(p); i++ {
		if p[i] != '/' {
			continue
		}
		switch e, err := f.d.entry(f.ctx, p[:i]); {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return node{}, "", err
		case e.IsLink():
			return node{path: p[:i], e: e}, p[i:], nil
		}
	}
	return node{}, "", fs.ErrNotExist
}

// Open implements fs.FS.
func (f fileSystem) Open(name string) (fs.File, error) {
	n, err := f.find(name, true)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	info, err := f.info(path.Base(name), n)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if n.dir {
		return &openDir{f: f, n: n, name: name, i: info}, nil
	}
	r, err := f.d.OpenFile(f.ctx, n.e)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &openFile{Reader: r, i: info, name: name}, nil
}

// ReadFile implements fs.ReadFileFS.
func (f fileSystem) ReadFile(name string) ([]byte, error) {
	n, err := f.find(name, true)
	if err == nil && n.dir {
		err = errIsFolder
	}
	if err != nil {
		return nil, pathError("read", name, err)
	}
	if n.e.Blob == nil {
		return []byte{}, nil
	}
	data, err := f.d.ReadFile(f.ctx, n.path)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

var errIsFolder = errors.New("is a folder")

// Stat implements fs.StatFS.
func (f fileSystem) Stat(name string) (fs.FileInfo, error) { return f.stat("stat", name, true) }

// Lstat implements fs.ReadLinkFS.
func (f fileSystem) Lstat(name string) (fs.FileInfo, error) { return f.stat("lstat", name, false) }

func (f fileSystem) stat(op, name string, follow bool) (fs.FileInfo, error) {
	n, err := f.find(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	i, err := f.info(path.Base(name), n)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return i, nil
}

// ReadLink implements fs.ReadLinkFS.
func (f fileSystem) ReadLink(name string) (string, error) {
	n, err := f.find(name, false)
	if err == nil && !n.e.IsLink() {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return n.e.Linkname, nil
}

// ReadDir implements fs.ReadDirFS.
func (f fileSystem) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find(name, true)
	if err == nil && !n.dir {
		err = fmt.Errorf("%w: it is no folder", fs.ErrInvalid)
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	out, err := f.readDir(n.path)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	return out, nil
}

func (f fileSystem) readDir(folder string) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	for e, err := range f.d.ReadDir(f.ctx, folder) {
		if err != nil {
			return nil, err
		}
		if !isClean(folder + "/" + e.Name) {
			continue // in a drive of somebody who makes such paths
		}
		out = append(out, dirEntry{f, e.Name, node{path: folder + "/" + e.Name, dir: e.Dir, e: e.Entry}})
	}
	// By name, and folders before files of the same one.
	slices.SortFunc(out, func(a, b fs.DirEntry) int {
		if c := strings.Compare(a.Name(), b.Name()); c != 0 || a.IsDir() == b.IsDir() {
			return c
		}
		if a.IsDir() {
			return -1
		}
		return 1
	})
	return slices.CompactFunc(out, func(a, b fs.DirEntry) bool { return a.Name() == b.Name() }), nil
}

type dirEntry struct {
	f    fileSystem
	name string
	n    node
}

func (e dirEntry) Name() string               { return e.name }
func (e dirEntry) IsDir() bool                { return e.n.dir }
func (e dirEntry) Type() fs.FileMode          { return e.n.mode().Type() }
func (e dirEntry) Info() (fs.FileInfo, error) { return e.f.info(e.name, e.n) }
func (e dirEntry) String() string             { return fs.FormatDirEntry(e) }

func (n *node) mode() fs.FileMode {
	if n.dir {
		return fs.ModeDir | 0o755
	}
	return n.e.Mode()
}

// An info is what is known of a file; Sys returns its Entry.
type info struct {
	name string
	size int64
	n    node
}

func (f fileSystem) info(name string, n node) (info, error) {
	size, err := f.d.Size(f.ctx, n.e)
	return info{name, int64(size), n}, err
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.n.mode() }
func (i info) ModTime() time.Time { return i.n.e.ModTime() }
func (i info) IsDir() bool        { return i.n.dir }
func (i info) Sys() any           { return i.n.e }
func (i info) String() string     { return fs.FormatFileInfo(i) }

// An openFile is a file that is being read.
type openFile struct {
	*hyperblobs.Reader
	i      info
	name   string
	closed bool
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.i, nil }

func (f *openFile) Read(p []byte) (int, error) {
	if f.closed {
		return 0, pathError("read", f.name, fs.ErrClosed)
	}
	return f.Reader.Read(p)
}

func (f *openFile) Close() error {
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return f.Reader.Close()
}

// An openDir is a folder that is being read.
type openDir struct {
	f       fileSystem
	n       node
	name    string
	i       info
	entries []fs.DirEntry // what is left of them
	read    bool
}

func (f *openDir) Stat() (fs.FileInfo, error) { return f.i, nil }
func (f *openDir) Close() error               { return nil }
func (f *openDir) Read([]byte) (int, error)   { return 0, pathError("read", f.name, errIsFolder) }

// ReadDir implements fs.ReadDirFile.
func (f *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !f.read {
		entries, err := f.f.readDir(f.n.path)
		if err != nil {
			return nil, pathError("readdir", f.name, err)
		}
		f.entries, f.read = entries, true
	}
	if n <= 0 {
		n = len(f.entries)
	} else if len(f.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.entries))
	out := f.entries[:n:n]
	f.entries = f.entries[n:]
	return out, nil
}
