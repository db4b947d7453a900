package folder

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"strings"

	"github.com/cloudbevy/bevy/hyper/treefs"
)

// FS returns the folder as a file system of the standard library. It implements
// fs.StatFS, fs.ReadDirFS, fs.ReadFileFS and fs.ReadLinkFS, and its files are
// io.Seeker and io.ReaderAt, so that net/http can serve ranges of them. Links are
// followed within the folder. Entries that make no sense are left out.
//
// That of a Folder which changes may change between two calls; that of a version
// does not. The context is that of all calls.
func (f *Folder) FS(ctx context.Context) fs.FS { return treefs.New(ctx, fileTree{f}) }

// A fileTree is a folder for treefs; Sys of its nodes is their Entry.
type fileTree struct{ f *Folder }

func node(e Entry) treefs.Node {
	return treefs.Node{Path: e.Path, Mode: e.FileMode(), ModTime: e.ModTime, Link: e.Link, Sys: e}
}

// Lookup implements treefs.Tree.
func (t fileTree) Lookup(ctx context.Context, p string) (treefs.Node, error) {
	if checkFolder(p) != nil {
		return treefs.Node{}, fs.ErrNotExist
	}
	e, err := t.f.Stat(ctx, p)
	if errors.Is(err, ErrNotFound) || err == nil && e.Kind == Unknown {
		err = fs.ErrNotExist
	}
	return node(e), err
}

// List implements treefs.Tree.
func (t fileTree) List(ctx context.Context, dir string) iter.Seq2[treefs.Node, error] {
	return func(yield func(treefs.Node, error) bool) {
		for e, err := range t.f.List(ctx, dir, ListOptions{}) {
			if (err != nil || e.Kind != Unknown) && !yield(node(e), err) {
				return
			}
		}
	}
}

// Target implements treefs.Tree. As in file systems a link starts at the folder
// that it is in. Links to absolute paths lead out of the folder.
func (t fileTree) Target(link treefs.Node) (p string, ok bool) {
	if strings.HasPrefix(link.Link, "/") {
		return "", false
	}
	p = parent(link.Path)
	for _, name := range strings.Split(link.Link, "/") {
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

// Size implements treefs.Tree.
func (t fileTree) Size(_ context.Context, file treefs.Node) (int64, error) {
	return file.Sys.(Entry).Size, nil
}

// Open implements treefs.Tree.
func (t fileTree) Open(ctx context.Context, file treefs.Node) (treefs.Reader, error) {
	return t.f.OpenEntry(ctx, file.Sys.(Entry))
}
