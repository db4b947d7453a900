// Package treefs shows a tree of files, folders and symbolic links as a file system
// of the standard library.
//
// The tree says what is at a path, what is in a folder and where a link leads;
// everything that io/fs wants beside that is here. Links are followed within the
// tree, up to 16 for one name.
//
//	fsys := treefs.New(ctx, tree)
//	err := fs.WalkDir(fsys, ".", visit)
package treefs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"time"
)

// maxLinks is how many links are followed for one name, as in hyperdrive of npm.
const maxLinks = 16

var (
	// ErrLoop: too many links lead to one another.
	ErrLoop = errors.New("too many links")
	// ErrIsFolder: there is a folder where a file was to be read.
	ErrIsFolder = errors.New("is a folder")
)

// A Tree has nodes at clean paths. Those begin with a slash, and "/" is the root,
// which is a folder. Methods may be called at the same time.
type Tree interface {
	// Lookup returns the node at a path, also if it is a link. What there is not, or
	// what names nothing, is fs.ErrNotExist.
	Lookup(ctx context.Context, path string) (Node, error)
	// List returns what is in a folder, in any order. Of a file and a folder of one
	// name the folder is shown.
	List(ctx context.Context, folder string) iter.Seq2[Node, error]
	// Target returns the path that a link leads to, and false if that is none in the
	// tree.
	Target(link Node) (path string, ok bool)
	// Size returns the number of bytes of a file. It is not asked for until somebody
	// wants to know.
	Size(ctx context.Context, file Node) (int64, error)
	// Open reads a file.
	Open(ctx context.Context, file Node) (Reader, error)
}

// A Reader reads a file.
type Reader interface {
	io.ReadSeekCloser
	io.ReaderAt
	io.WriterTo
}

// A Node is a file, a folder or a link.
type Node struct {
	Path    string
	Mode    fs.FileMode // with the bits of its kind
	ModTime time.Time
	Link    string // what a link says
	Sys     any    // what Sys of its fs.FileInfo returns
}

// New returns the file system. It implements fs.StatFS, fs.ReadDirFS, fs.ReadFileFS
// and fs.ReadLinkFS, and its files are io.Seeker and io.ReaderAt, so that net/http
// can serve ranges of them. The context is that of all calls.
func New(ctx context.Context, t Tree) fs.FS { return fileSystem{ctx, t} }

type fileSystem struct {
	ctx context.Context
	t   Tree
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

// find returns what a name leads to. Links in the middle of it are followed, and
// with follow the one at its end.
func (f fileSystem) find(name string, follow bool) (Node, error) {
	if !fs.ValidPath(name) {
		return Node{}, fs.ErrInvalid
	}
	p := path.Join("/", name)
	for range maxLinks + 1 {
		n, err := f.t.Lookup(f.ctx, p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Node{}, err
		}
		if err == nil && (n.Mode.Type() != fs.ModeSymlink || !follow) {
			return n, nil
		}
		rest := ""
		if err != nil {
			// Perhaps one of the folders on the way is a link.
			if n, rest, err = f.linkAbove(p); err != nil {
				return Node{}, err
			}
		}
		target, ok := f.t.Target(n)
		if !ok {
			return Node{}, fs.ErrNotExist
		}
		p = path.Join(target, rest)
	}
	return Node{}, ErrLoop
}

// linkAbove returns the first link among the folders above a path, and the rest of
// the path after it.
func (f fileSystem) linkAbove(p string) (Node, string, error) {
	for i := 1; i < len(p); i++ {
		if p[i] != '/' {
			continue
		}
		n, err := f.t.Lookup(f.ctx, p[:i])
		if err != nil {
			return Node{}, "", err
		}
		if n.Mode.Type() == fs.ModeSymlink {
			return n, p[i:], nil
		}
	}
	return Node{}, "", fs.ErrNotExist
}

// Open implements fs.FS.
func (f fileSystem) Open(name string) (fs.File, error) {
	n, err := f.find(name, true)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	i, err := f.info(path.Base(name), n)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if n.Mode.IsDir() {
		return &openDir{f: f, n: n, name: name, i: i}, nil
	}
	r, err := f.t.Open(f.ctx, n)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &openFile{Reader: r, i: i, name: name}, nil
}

// ReadFile implements fs.ReadFileFS.
func (f fileSystem) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	i, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if i.IsDir() {
		return nil, pathError("read", name, ErrIsFolder)
	}
	data := make([]byte, i.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

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
	if err == nil && n.Mode.Type() != fs.ModeSymlink {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return n.Link, nil
}

// ReadDir implements fs.ReadDirFS.
func (f fileSystem) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find(name, true)
	if err == nil && !n.Mode.IsDir() {
		err = fmt.Errorf("%w: it is no folder", fs.ErrInvalid)
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	out, err := f.readDir(n)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	return out, nil
}

func (f fileSystem) readDir(folder Node) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	for n, err := range f.t.List(f.ctx, folder.Path) {
		if err != nil {
			return nil, err
		}
		out = append(out, dirEntry{f, n})
	}
	// Folders come before files of the same name.
	slices.SortStableFunc(out, func(a, b fs.DirEntry) int {
		return cmp.Or(strings.Compare(a.Name(), b.Name()), cmp.Compare(b.Type()&fs.ModeDir, a.Type()&fs.ModeDir))
	})
	return slices.CompactFunc(out, func(a, b fs.DirEntry) bool { return a.Name() == b.Name() }), nil
}

type dirEntry struct {
	f fileSystem
	n Node
}

func (e dirEntry) Name() string               { return path.Base(e.n.Path) }
func (e dirEntry) IsDir() bool                { return e.n.Mode.IsDir() }
func (e dirEntry) Type() fs.FileMode          { return e.n.Mode.Type() }
func (e dirEntry) Info() (fs.FileInfo, error) { return e.f.info(e.Name(), e.n) }
func (e dirEntry) String() string             { return fs.FormatDirEntry(e) }

// An info is what is known of a node by a name: a link's target has that of the link.
type info struct {
	name string
	size int64
	n    Node
}

func (f fileSystem) info(name string, n Node) (i info, err error) {
	i = info{name: name, n: n}
	if n.Mode.IsRegular() {
		i.size, err = f.t.Size(f.ctx, n)
	}
	return i, err
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.n.Mode }
func (i info) ModTime() time.Time { return i.n.ModTime }
func (i info) IsDir() bool        { return i.n.Mode.IsDir() }
func (i info) Sys() any           { return i.n.Sys }
func (i info) String() string     { return fs.FormatFileInfo(i) }

// An openFile is a file that is being read.
type openFile struct {
	Reader
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
	n       Node
	name    string
	i       info
	entries []fs.DirEntry // what is left of them
	read    bool
}

func (f *openDir) Stat() (fs.FileInfo, error) { return f.i, nil }
func (f *openDir) Close() error               { return nil }
func (f *openDir) Read([]byte) (int, error)   { return 0, pathError("read", f.name, ErrIsFolder) }

// ReadDir implements fs.ReadDirFile.
func (f *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !f.read {
		entries, err := f.f.readDir(f.n)
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
