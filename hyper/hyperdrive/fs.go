package hyperdrive

import (
	"context"
	"io/fs"
	"iter"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/treefs"
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
func (d *Drive) FS(ctx context.Context) fs.FS { return treefs.New(ctx, tree{d}) }

// A tree is a drive for treefs; Sys of its nodes is their Entry.
type tree struct{ d *Drive }

// Lookup implements treefs.Tree. What a file system has is a folder where there is
// something below it, also if there is a file of that name.
func (t tree) Lookup(ctx context.Context, p string) (treefs.Node, error) {
	if p == "/" {
		return dirNode(p), nil
	}
	if !isClean(p) {
		return treefs.Node{}, fs.ErrNotExist
	}
	for _, err := range t.d.files.Range(ctx, hyperbee.RangeOptions{Gt: []byte(p + "/"), Lt: []byte(p + "0"), Limit: 1}) {
		return dirNode(p), err
	}
	e, err := t.d.entry(ctx, p)
	if err != nil {
		return treefs.Node{}, err
	}
	return fileNode(e), nil
}

func dirNode(p string) treefs.Node {
	return treefs.Node{Path: p, Mode: fs.ModeDir | 0o755, Sys: Entry{}}
}

func fileNode(e Entry) treefs.Node {
	return treefs.Node{Path: e.Path, Mode: e.Mode(), ModTime: e.ModTime(), Link: e.Linkname, Sys: e}
}

// List implements treefs.Tree.
func (t tree) List(ctx context.Context, folder string) iter.Seq2[treefs.Node, error] {
	return func(yield func(treefs.Node, error) bool) {
		if folder == "/" {
			folder = ""
		}
		for e, err := range t.d.ReadDir(ctx, folder) {
			p := folder + "/" + e.Name
			if err == nil && !isClean(p) {
				continue // in a drive of somebody who makes such paths
			}
			n := fileNode(e.Entry)
			if e.Dir {
				n = dirNode(p)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

// Target implements treefs.Tree.
func (t tree) Target(link treefs.Node) (string, bool) {
	p, err := resolve(link.Path, link.Link)
	if p == "" {
		p = "/"
	}
	return p, err == nil
}

// Size implements treefs.Tree.
func (t tree) Size(ctx context.Context, file treefs.Node) (int64, error) {
	size, err := t.d.Size(ctx, file.Sys.(Entry))
	return int64(size), err
}

// Open implements treefs.Tree.
func (t tree) Open(ctx context.Context, file treefs.Node) (treefs.Reader, error) {
	return t.d.OpenFile(ctx, file.Sys.(Entry))
}
