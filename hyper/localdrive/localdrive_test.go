package localdrive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openFolder(t testing.TB, dir string) *Folder {
	t.Helper()
	f, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func put(f *Folder, path, data string, o CreateOptions) error {
	w, err := f.Create(context.Background(), path, o)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, data); err != nil {
		w.Abort()
		return err
	}
	return w.Close()
}

func get(t testing.TB, f *Folder, path string) string {
	t.Helper()
	e, err := f.Entry(t.Context(), path)
	must(t, err)
	r, err := f.OpenFile(t.Context(), e)
	must(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	must(t, err)
	return string(data)
}

// paths lists a folder: what is skipped has a "!" before it.
func paths(t testing.TB, f *Folder, folder string, o ListOptions) (out []string) {
	t.Helper()
	for e, err := range f.List(t.Context(), folder, o) {
		var skipped *Skipped
		switch {
		case errors.As(err, &skipped):
			out = append(out, "!"+skipped.Path)
		case err != nil:
			t.Fatal(err)
		default:
			out = append(out, e.Path)
		}
	}
	return out
}

func wantPaths(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func unix(t testing.TB) {
	t.Helper()
	if windows {
		t.Skip("Windows has no such thing")
	}
}

func TestPaths(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, c := range []struct {
		path       string
		ok, onWins bool
	}{
		{"/a", true, true},
		{"/a/b.c/ä 日本", true, true},
		{"/..a/...b/c..d", true, true},
		{"/" + long, true, true},
		{"/" + strings.Repeat(long+"/", 15) + "x", true, true},
		{"/.hidden", true, true},
		{"/COM", true, true},
		{"/COM10", true, true},
		{"/NULL", true, true},
		{"/console", true, true},

		{"/con", true, false},
		{"/a/NUL.txt", true, false},
		{"/nul .tar.gz", true, false},
		{"/Com1", true, false},
		{"/LPT³", true, false},
		{"/conin$", true, false},
		{"/a./b", true, false},
		{"/a ", true, false},
		{"/...", true, false},
		{"/a:b", true, false},
		{"/C:/x", true, false},
		{"/a\nb", true, false},
		{`/a"b`, true, false},
		{"/a?", true, false},
		{"/<a>", true, false},
		{"/a|b*", true, false},

		{"", false, false},
		{"/", false, false},
		{"a", false, false},
		{"/..", false, false},
		{"/a/../b", false, false},
		{"/../../etc/passwd", false, false},
		{"/a/./b", false, false},
		{"//a", false, false},
		{"/a//b", false, false},
		{"/a/", false, false},
		{"/a\x00b", false, false},
		{"/a\xffb", false, false},
		{`/a\b`, false, false},
		{`/..\b`, false, false},
		{`C:\b`, false, false},
		{"C:/b", false, false},
		{"/" + long + "x", false, false},
		{"/" + strings.Repeat(long+"/", 16) + "x", false, false},
		{"/.0123456789abcdef.localdrive.tmp", false, false},
	} {
		for _, windows := range []bool{false, true} {
			want := c.ok
			if windows {
				want = c.onWins
			}
			err := checkPath(c.path, windows)
			if (err == nil) != want || err != nil && !errors.Is(err, ErrName) {
				t.Errorf("path %.80q, on Windows %v: %v", c.path, windows, err)
			}
		}
		if c.ok {
			continue
		}
		dir := t.TempDir()
		f := openFolder(t, dir)
		if err := put(f, c.path, "x", CreateOptions{}); !errors.Is(err, ErrName) {
			t.Errorf("create %.80q: %v", c.path, err)
		}
		if err := f.Symlink(t.Context(), c.path, "x", false); !errors.Is(err, ErrName) {
			t.Errorf("link %.80q: %v", c.path, err)
		}
		if err := f.Delete(t.Context(), c.path); !errors.Is(err, ErrName) {
			t.Errorf("delete %.80q: %v", c.path, err)
		}
		if _, err := f.Entry(t.Context(), c.path); !errors.Is(err, ErrName) {
			t.Errorf("entry %.80q: %v", c.path, err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Errorf("%.80q left %v, %v", c.path, names, err)
		}
	}
}

func FuzzPaths(f *testing.F) {
	for _, s := range []string{"/a", "/a/../b", `/a\b`, "/NUL.x", "/a//b", "C:/x", "/a."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if checkPath(path, true) == nil && checkPath(path, false) != nil {
			t.Errorf("%q can be on Windows only", path)
		}
		if checkPath(path, false) != nil {
			return
		}
		if !fs.ValidPath(path[1:]) {
			t.Errorf("%q is no path in a folder", path)
		}
		if checkPath(path, true) == nil && strings.ContainsAny(path, `\:`) {
			t.Errorf("%q means something else on Windows", path)
		}
	})
}

func TestFilesAreKept(t *testing.T) {
	f := openFolder(t, t.TempDir())
	at := time.Date(2001, 2, 3, 4, 5, 6, 700_000_100, time.UTC)
	must(t, put(f, "/a/b/c", "hello", CreateOptions{ModTime: at, Mode: 0o750}))
	e, err := f.Entry(t.Context(), "/a/b/c")
	must(t, err)
	if e.Blob.ByteLength != 5 || get(t, f, "/a/b/c") != "hello" {
		t.Errorf("got %+v", e)
	}
	if !windows && (e.Mode() != 0o750 || !e.Executable || !e.ModTime().Equal(at)) {
		t.Errorf("mode %v, time %v", e.Mode(), e.ModTime())
	}
	must(t, put(f, "/a/b/c", "", CreateOptions{Executable: true}))
	if e, err = f.Entry(t.Context(), "/a/b/c"); err != nil || e.Blob.ByteLength != 0 || !windows && !e.Executable {
		t.Errorf("got %+v, %v", e, err)
	}
	if err := put(f, "/a/b/c", "", CreateOptions{New: true}); !errors.Is(err, ErrExists) {
		t.Errorf("a file that is there: %v", err)
	}
	must(t, f.SetMode(t.Context(), "/a/b/c", 0o600, at))
	if e, err = f.Entry(t.Context(), "/a/b/c"); err != nil || !windows && (e.Mode() != 0o600 || !e.ModTime().Equal(at)) {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, missing := range []string{"/a", "/x", "/a/b/c/d"} {
		if _, err := f.Entry(t.Context(), missing); !errors.Is(err, hyperdrive.ErrNotFound) {
			t.Errorf("entry %s: %v", missing, err)
		}
	}
	must(t, f.Sync())
	must(t, f.Delete(t.Context(), "/a/b/c"))
	must(t, f.Delete(t.Context(), "/a/b/c"))
	must(t, f.Sync())
	if _, err := os.Stat(filepath.Join(f.Dir(), "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty folders are left: %v", err)
	}
}

func TestListIsInTheOrderOfPaths(t *testing.T) {
	f := openFolder(t, t.TempDir())
	all := []string{"/a/b/c", "/a-b", "/a.txt", "/a0", "/a/z", "/b/a.b", "/b/a/x", "/b/a0", "/A1/x"}
	for _, p := range all {
		must(t, put(f, p, p, CreateOptions{}))
	}
	slices.Sort(all)
	must(t, os.Mkdir(filepath.Join(f.Dir(), "empty"), 0o700))
	wantPaths(t, paths(t, f, "/", ListOptions{}), all...)
	wantPaths(t, paths(t, f, "/b", ListOptions{}), "/b/a.b", "/b/a/x", "/b/a0")
	wantPaths(t, paths(t, f, "/nothing", ListOptions{}))
	wantPaths(t, paths(t, f, "/a-b", ListOptions{}))
	wantPaths(t, paths(t, f, "/", ListOptions{Ignore: func(p string) bool { return p == "/a" || p == "/b/a" || p == "/A1/x" }}),
		"/a-b", "/a.txt", "/a0", "/b/a.b", "/b/a0")
	for _, err := range f.List(t.Context(), "/../x", ListOptions{}) {
		if !errors.Is(err, ErrName) {
			t.Errorf("list /../x: %v", err)
		}
	}
}

func TestNothingIsWrittenThroughLinks(t *testing.T) {
	unix(t)
	outside, dir := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	f := openFolder(t, dir)
	must(t, put(f, "/in/file", "inside", CreateOptions{}))
	for name, target := range map[string]string{
		"abs": outside, "rel": "../" + filepath.Base(outside), "in-link": "in", "loop": "loop", "up": "..", "dot": ".", "file-link": filepath.Join(outside, "secret"),
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	for _, name := range []string{"abs", "rel", "in-link", "loop", "up", "dot", "file-link"} {
		p := "/" + name + "/new"
		if err := put(f, p, "x", CreateOptions{}); !errors.Is(err, ErrNotFolder) {
			t.Errorf("create %s: %v", p, err)
		}
		if err := f.Symlink(t.Context(), p, "x", false); !errors.Is(err, ErrNotFolder) {
			t.Errorf("link %s: %v", p, err)
		}
		must(t, f.Delete(t.Context(), "/"+name+"/secret"))
		must(t, f.Delete(t.Context(), "/"+name+"/file"))
		for _, inner := range []string{"/secret", "/file"} {
			if _, err := f.Entry(t.Context(), "/"+name+inner); !errors.Is(err, ErrNotFound) {
				t.Errorf("entry /%s%s: %v", name, inner, err)
			}
			if _, err := f.OpenFile(t.Context(), hyperdrive.Entry{Path: "/" + name + inner}); err == nil {
				t.Errorf("/%s%s was opened", name, inner)
			}
		}
		if _, err := f.OpenFile(t.Context(), hyperdrive.Entry{Path: "/" + name}); err == nil {
			t.Errorf("/%s was opened", name)
		}
		if err := f.SetMode(t.Context(), "/"+name, 0o777, time.Time{}); err == nil {
			t.Errorf("the mode of what /%s leads to was changed", name)
		}
		wantPaths(t, paths(t, f, "/"+name, ListOptions{}))
	}
	wantPaths(t, paths(t, f, "/", ListOptions{}), "/abs", "/dot", "/file-link", "/in-link", "/in/file", "/loop", "/rel", "/up")
	// Links are replaced, not written through.
	for _, name := range []string{"abs", "file-link", "in-link", "loop"} {
		must(t, put(f, "/"+name, "new", CreateOptions{}))
		if got := get(t, f, "/"+name); got != "new" {
			t.Errorf("%s is %q", name, got)
		}
	}
	if data, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(data) != "secret" {
		t.Errorf("outside: %q, %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(outside, "secret")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("outside: %v, %v", info, err)
	}
	if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
		t.Errorf("outside: %v, %v", names, err)
	}
	if got := get(t, f, "/in/file"); got != "inside" {
		t.Errorf("/in/file is %q", got)
	}
}

func TestLinksSayWhatTheySaid(t *testing.T) {
	unix(t)
	f := openFolder(t, t.TempDir())
	for _, target := range []string{"x", "../x", "../../../etc/passwd", "/", "/a/b", "/a/../../b", "././/x", `back\slash`, "/etc/passwd"} {
		must(t, f.Symlink(t.Context(), "/d/link", target, false))
		e, err := f.Entry(t.Context(), "/d/link")
		if err != nil || e.Linkname != target || !e.IsLink() {
			t.Errorf("%q became %q, %v", target, e.Linkname, err)
		}
		onDisk, err := os.Readlink(filepath.Join(f.Dir(), "d", "link"))
		must(t, err)
		if target[0] == '/' && onDisk != f.Dir()+target {
			t.Errorf("%q is %q on the disk", target, onDisk)
		}
	}
	if err := f.Symlink(t.Context(), "/d/link", "x", true); !errors.Is(err, ErrExists) {
		t.Errorf("a link that is there: %v", err)
	}
	for _, target := range []string{"", "a\x00b"} {
		if err := f.Symlink(t.Context(), "/d/bad", target, false); !errors.Is(err, ErrName) {
			t.Errorf("link to %q: %v", target, err)
		}
	}
	// What leads elsewhere is not of this folder, also if it begins like it.
	must(t, os.Symlink(f.Dir()+"-other/x", filepath.Join(f.Dir(), "other")))
	if e, err := f.Entry(t.Context(), "/other"); err != nil || e.Linkname != f.Dir()+"-other/x" {
		t.Errorf("got %q, %v", e.Linkname, err)
	}
}

func TestFilesAndFoldersInEachOthersPlace(t *testing.T) {
	f := openFolder(t, t.TempDir())
	must(t, put(f, "/file", "x", CreateOptions{}))
	must(t, put(f, "/folder/file", "x", CreateOptions{}))
	must(t, os.MkdirAll(filepath.Join(f.Dir(), "empty", "a", "b"), 0o700))
	if err := put(f, "/file/x", "x", CreateOptions{}); !errors.Is(err, ErrNotFolder) {
		t.Errorf("a file in a file: %v", err)
	}
	if err := put(f, "/folder", "x", CreateOptions{}); !errors.Is(err, ErrFolder) {
		t.Errorf("a file for a folder: %v", err)
	}
	if err := f.Delete(t.Context(), "/folder"); !errors.Is(err, ErrFolder) {
		t.Errorf("delete a folder: %v", err)
	}
	must(t, put(f, "/empty", "x", CreateOptions{New: true}))
	wantPaths(t, paths(t, f, "/", ListOptions{}), "/empty", "/file", "/folder/file")
}

func TestWhatIsCutShortIsNotThere(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	must(t, put(f, "/a", "before", CreateOptions{}))
	w, err := f.Create(t.Context(), "/a", CreateOptions{})
	must(t, err)
	_, err = io.WriteString(w, "half")
	must(t, err)
	wantPaths(t, paths(t, f, "/", ListOptions{Clean: true}), "/a") // which must not touch what is being written
	if got := get(t, f, "/a"); got != "before" {
		t.Errorf("got %q", got)
	}
	// Another process finds it.
	other := openFolder(t, dir)
	wantPaths(t, paths(t, other, "/", ListOptions{}), "/a")
	count := func() int {
		names, err := os.ReadDir(dir)
		must(t, err)
		return len(names)
	}
	if n := count(); n != 2 {
		t.Fatalf("%d files", n)
	}
	w.Abort()
	w.Abort()
	if n := count(); n != 1 {
		t.Errorf("%d files after Abort", n)
	}
	if err := w.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close after Abort: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, ".0123456789abcdef.localdrive.tmp"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, ".mine.localdrive.tmp"), nil, 0o600))
	wantPaths(t, paths(t, other, "/", ListOptions{Clean: true}), "/.mine.localdrive.tmp", "/a")
	if n := count(); n != 2 {
		t.Errorf("%d files after Clean", n)
	}
}

func TestAFileThatChangesIsNotRead(t *testing.T) {
	f := openFolder(t, t.TempDir())
	at := time.Unix(1e9, 0)
	must(t, put(f, "/a", "before", CreateOptions{ModTime: at}))
	e, err := f.Entry(t.Context(), "/a")
	must(t, err)
	for _, change := range []func(name string){
		func(name string) { must(t, os.WriteFile(name, []byte("longer than before"), 0o600)) },
		func(name string) { must(t, os.Truncate(name, 1)) },
		func(name string) { must(t, os.Chtimes(name, time.Time{}, at.Add(1))) },
	} {
		must(t, put(f, "/a", "before", CreateOptions{ModTime: at}))
		r, err := f.OpenFile(t.Context(), e)
		must(t, err)
		change(filepath.Join(f.Dir(), "a"))
		if data, err := io.ReadAll(r); !errors.Is(err, ErrChanged) {
			t.Errorf("read %q, %v", data, err)
		}
		must(t, r.Close())
		if _, err := f.OpenFile(t.Context(), e); !errors.Is(err, ErrChanged) {
			t.Errorf("open: %v", err)
		}
	}
}

func TestWhatIsNoFileIsSkipped(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other file systems refuse such names")
	}
	f := openFolder(t, t.TempDir())
	must(t, put(f, "/ok", "x", CreateOptions{}))
	for _, name := range []string{"bad\xff", `back\slash`} {
		must(t, os.WriteFile(filepath.Join(f.Dir(), name), nil, 0o600))
	}
	pipe(t, filepath.Join(f.Dir(), "pipe"))
	wantPaths(t, paths(t, f, "/", ListOptions{}), `!/back\slash`, "!/bad\xff", "/ok", "!/pipe")
	if _, err := f.OpenFile(t.Context(), hyperdrive.Entry{Path: "/pipe"}); err == nil {
		t.Error("a pipe was opened")
	}
}

func TestWhatCannotBeReadIsSkipped(t *testing.T) {
	unix(t)
	if os.Getuid() == 0 {
		t.Skip("root can read everything")
	}
	f := openFolder(t, t.TempDir())
	for _, p := range []string{"/a", "/dir/x", "/dir/y/z", "/e"} {
		must(t, put(f, p, "x", CreateOptions{}))
	}
	closed := filepath.Join(f.Dir(), "dir")
	must(t, os.Chmod(closed, 0))
	defer os.Chmod(closed, 0o700)
	wantPaths(t, paths(t, f, "/", ListOptions{}), "/a", "!/dir", "/e")
	wantPaths(t, paths(t, f, "/dir/y", ListOptions{}), "!/dir/y")
	if err := put(f, "/dir/new", "x", CreateOptions{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("create: %v", err)
	}
}

// TestNamesThatAreTheSame is of file systems that take them for one another, and
// of those that don't.
func TestNamesThatAreTheSame(t *testing.T) {
	f := openFolder(t, t.TempDir())
	must(t, put(f, "/Folder/File", "x", CreateOptions{New: true}))
	_, err := os.Stat(filepath.Join(f.Dir(), "fOLDER"))
	folds := err == nil
	if f.Folds() != folds && runtime.GOOS != "darwin" {
		t.Errorf("folds %v, want %v", f.Folds(), folds)
	}
	for _, p := range []string{"/Folder/fILE", "/fOLDER/new", "/fOLDER"} {
		err := put(f, p, "y", CreateOptions{New: true})
		if folds && !errors.Is(err, ErrExists) && !errors.Is(err, ErrFolder) {
			t.Errorf("create %s: %v", p, err)
		}
		if !folds && p != "/fOLDER" && err != nil {
			t.Errorf("create %s: %v", p, err)
		}
	}
	if got := get(t, f, "/Folder/File"); got != "x" {
		t.Errorf("it is %q", got)
	}
	// A folder that is known by another name than it has.
	f.folds = true
	must(t, put(f, "/Folder/other", "y", CreateOptions{New: true}))
	must(t, put(f, "/Folder/other2", "y", CreateOptions{New: true}))
}
