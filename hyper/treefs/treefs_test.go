package treefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"
	"testing"
	"testing/fstest"
)

// A memory is a tree whose files are text; "-> x" is a link to x, and what ends in
// a slash a folder.
type memory map[string]string

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func (m memory) node(p string) Node {
	n := Node{Path: p, Mode: 0o644}
	if target, ok := strings.CutPrefix(m[p], "-> "); ok {
		n.Mode, n.Link = fs.ModeSymlink|0o777, target
	}
	return n
}

func (m memory) Lookup(_ context.Context, p string) (Node, error) {
	if _, ok := m[p+"/"]; ok || p == "/" {
		return Node{Path: p, Mode: fs.ModeDir | 0o755}, nil
	}
	if _, ok := m[p]; ok {
		return m.node(p), nil
	}
	return Node{}, fs.ErrNotExist
}

func (m memory) List(_ context.Context, folder string) iter.Seq2[Node, error] {
	return func(yield func(Node, error) bool) {
		for p := range m {
			n := m.node(p)
			if dir, ok := strings.CutSuffix(p, "/"); ok {
				n = Node{Path: dir, Mode: fs.ModeDir | 0o755}
			}
			if path.Dir(n.Path) == folder && !yield(n, nil) {
				return
			}
		}
	}
}

func (m memory) Target(link Node) (string, bool) {
	p := path.Join(path.Dir(link.Path), link.Link)
	return p, !strings.HasPrefix(link.Link, "/")
}

func (m memory) Size(_ context.Context, file Node) (int64, error) {
	return int64(len(m[file.Path])), nil
}

func (m memory) Open(_ context.Context, file Node) (Reader, error) {
	return reader{bytes.NewReader([]byte(m[file.Path]))}, nil
}

func TestATreeIsAFileSystem(t *testing.T) {
	m := memory{
		"/a": "in a", "/b/": "", "/b/c": "in c", "/b/d/": "", "/b/d/e": "", "/b.txt": "x",
		"/both": "hidden", "/both/": "", "/both/x": "shown",
		"/link": "-> b/d", "/b/up": "-> ../a",
	}
	fsys := New(t.Context(), m)
	if err := fstest.TestFS(fsys, "a", "b/c", "b/d/e", "b.txt", "both/x", "link", "b/up"); err != nil {
		t.Error(err)
	}
	// TestFS opens links, and these can't be.
	m["/round"], m["/away"], m["/b/chain"] = "-> round", "-> /etc", "-> ../link/e"
	for i := range maxLinks + 1 {
		m[fmt.Sprintf("/l%d", i)] = fmt.Sprintf("-> l%d", i+1)
	}
	m[fmt.Sprintf("/l%d", maxLinks+1)] = "the end"
	for name, want := range map[string]error{
		"round": ErrLoop, "away": fs.ErrNotExist, "away/passwd": fs.ErrNotExist, "b/chain": nil, "link/e": nil, "l0": ErrLoop, "l1": nil,
		"nothing": fs.ErrNotExist, "a/x": fs.ErrNotExist, "../a": fs.ErrInvalid, "/a": fs.ErrInvalid,
	} {
		if _, err := fs.Stat(fsys, name); !errors.Is(err, want) {
			t.Errorf("%s: got error %v, want %v", name, err, want)
		}
	}
	if _, err := fs.ReadFile(fsys, "b"); !errors.Is(err, ErrIsFolder) {
		t.Errorf("reading a folder: got error %v, want %v", err, ErrIsFolder)
	}
	if _, err := fs.ReadDir(fsys, "a"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("reading a file as a folder: got error %v, want %v", err, fs.ErrInvalid)
	}
}

func TestAClosedFileIsNotRead(t *testing.T) {
	f, err := New(t.Context(), memory{"/a": "in a"}).Open("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(f); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("reading: got error %v, want %v", err, fs.ErrClosed)
	}
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closing again: got error %v, want %v", err, fs.ErrClosed)
	}
}

func Example() {
	tree := memory{"/2026/": "", "/2026/sea.jpg": "waves", "/newest": "-> 2026/sea.jpg"}
	data, err := fs.ReadFile(New(context.Background(), tree), "newest")
	fmt.Printf("%s %v\n", data, err)
	// Output: waves <nil>
}
