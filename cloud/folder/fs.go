package folder

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

	"github.com/cloudbevy/bevy/cloud/content"
)

// FS returns the folder as a file system of the standard library. It implements
// fs.StatFS, fs.ReadDirFS, fs.ReadFileFS and fs.ReadLinkFS, and its files are
// io.Seeker and io.ReaderAt, so that net/http can serve ranges of them. Links are
// followed within the folder. Entries that make no sense are left out.
//
// That of a Folder which changes may change between two calls; that of a version
// does not. The context is that of all calls.
func (f *Folder) FS(ctx context.Context) fs.FS { return fileSystem{f, ctx} }

type fileSystem struct {
	f   *Folder
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
	if errors.Is(err, ErrNotFound) {
		err = fs.ErrNotExist
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// maxLinks is how many links are followed for one name.
const maxLinks = 16

var errLoop = errors.New("too many links")

// find returns what a name leads to. Links in the middle of it are followed, and
// with follow the one at its end.
func (s fileSystem) find(name string, follow bool) (Entry, error) {
	if !fs.ValidPath(name) {
		return Entry{}, fs.ErrInvalid
	}
	p := path.Join("/", name)
	for range maxLinks + 1 {
		if checkFolder(p) != nil {
			return Entry{}, fs.ErrNotExist
		}
		e, err := s.f.Stat(s.ctx, p)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Entry{}, err
		}
		if err == nil && e.Kind == Unknown {
			return Entry{}, fs.ErrNotExist
		}
		if err == nil && (e.Kind != Symlink || !follow) {
			return e, nil
		}
		rest := ""
		if err != nil {
			// Perhaps one of the folders on the way is a link.
			if e, rest, err = s.linkAbove(p); err != nil {
				return Entry{}, err
			}
		}
		target, ok := resolve(e.Path, e.Link)
		if !ok {
			return Entry{}, fs.ErrNotExist // it leads out of the folder
		}
		p = path.Join(target, rest)
	}
	return Entry{}, errLoop
}

// resolve returns what a link at a path leads to, as file systems do: from the
// folder that the link is in. Links to absolute paths lead out of the folder.
func resolve(link, target string) (p string, ok bool) {
	if strings.HasPrefix(target, "/") {
		return "", false
	}
	p = parent(link)
	for _, name := range strings.Split(target, "/") {
		switch name {
		case "", ".":
		case "..":
			if p == "/" {
				return "", false
			}
			p = parent(p)
		default:
			p = join(p, "/"+name)
		}
	}
	return p, true
}

// linkAbove returns the first link among the folders above a path, and the rest of
// the path after it.
func (s fileSystem) linkAbove(p string) (Entry, string, error) {
	for i := 1; i < len(p); i++ {
		if p[i] != '/' {
			continue
		}
		switch e, err := s.f.Stat(s.ctx, p[:i]); {
		case errors.Is(err, ErrNotFound):
			return Entry{}, "", fs.ErrNotExist
		case err != nil:
			return Entry{}, "", err
		case e.Kind == Symlink:
			return e, p[i:], nil
		}
	}
	return Entry{}, "", fs.ErrNotExist
}

// Open implements fs.FS.
func (s fileSystem) Open(name string) (fs.File, error) {
	e, err := s.find(name, true)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	i := info{path.Base(name), e}
	if e.Kind == Dir {
		return &openDir{s: s, name: name, i: i}, nil
	}
	r, err := s.f.OpenEntry(s.ctx, e)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &openFile{Reader: r, i: i, name: name}, nil
}

// ReadFile implements fs.ReadFileFS.
func (s fileSystem) ReadFile(name string) ([]byte, error) {
	e, err := s.find(name, true)
	if err == nil && e.Kind == Dir {
		err = ErrIsFolder
	}
	if err != nil {
		return nil, pathError("read", name, err)
	}
	data, err := s.f.content.Get(s.ctx, e.Content, e.Size)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

// Stat implements fs.StatFS.
func (s fileSystem) Stat(name string) (fs.FileInfo, error) { return s.stat("stat", name, true) }

// Lstat implements fs.ReadLinkFS.
func (s fileSystem) Lstat(name string) (fs.FileInfo, error) { return s.stat("lstat", name, false) }

func (s fileSystem) stat(op, name string, follow bool) (fs.FileInfo, error) {
	e, err := s.find(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return info{path.Base(name), e}, nil
}

// ReadLink implements fs.ReadLinkFS.
func (s fileSystem) ReadLink(name string) (string, error) {
	e, err := s.find(name, false)
	if err == nil && e.Kind != Symlink {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return e.Link, nil
}

// ReadDir implements fs.ReadDirFS.
func (s fileSystem) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := s.find(name, true)
	if err == nil && e.Kind != Dir {
		err = fmt.Errorf("%w: it is no folder", fs.ErrInvalid)
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	var out []fs.DirEntry
	for e, err := range s.f.List(s.ctx, e.Path, ListOptions{}) {
		if err != nil {
			return nil, pathError("readdir", name, err)
		}
		if e.Kind != Unknown {
			out = append(out, dirEntry{info{path.Base(e.Path), e}})
		}
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

type dirEntry struct{ i info }

func (e dirEntry) Name() string               { return e.i.name }
func (e dirEntry) IsDir() bool                { return e.i.IsDir() }
func (e dirEntry) Type() fs.FileMode          { return e.i.Mode().Type() }
func (e dirEntry) Info() (fs.FileInfo, error) { return e.i, nil }
func (e dirEntry) String() string             { return fs.FormatDirEntry(e) }

// An info is what is known of a file; Sys returns its Entry.
type info struct {
	name string
	e    Entry
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.e.Size }
func (i info) Mode() fs.FileMode  { return i.e.FileMode() }
func (i info) ModTime() time.Time { return i.e.ModTime }
func (i info) IsDir() bool        { return i.e.Kind == Dir }
func (i info) Sys() any           { return i.e }
func (i info) String() string     { return fs.FormatFileInfo(i) }

// An openFile is a file that is being read.
type openFile struct {
	*content.Reader
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
	s       fileSystem
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
		entries, err := f.s.ReadDir(f.name)
		if err != nil {
			return nil, err
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
