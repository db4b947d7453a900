package hyperdrive

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"
	"time"
)

func TestDriveIsAFileSystem(t *testing.T) {
	ctx := t.Context()
	d := newDrive(t, Options{})
	for _, p := range []string{"/a", "/a.txt", "/b/c", "/b/d/e", "/b/d.x", "/b0", "/z/z/z", "/empty"} {
		data := "contents of " + p
		if p == "/empty" {
			data = ""
		}
		write(t, d, p, data)
	}
	must(t, d.Symlink(ctx, "/link", "b/d", nil))
	must(t, d.Symlink(ctx, "/b/up", "../a.txt", nil))
	must(t, d.PutEntry(ctx, Entry{Path: "/no contents"}))
	// What another program may have in a drive, and no file system has.
	for _, p := range []string{"/../evil", "//double", "/dot/.", "evil", `/back\slash`, "/a/below a file"} {
		must(t, d.files.Put(ctx, []byte(p), []byte(`{"executable":false,"linkname":null,"blob":null,"metadata":null}`)))
	}
	fsys := d.FS(ctx)
	if err := fstest.TestFS(fsys, "a/below a file", "a.txt", "b/c", "b/d/e", "b/d.x", "b0", "z/z/z", "empty", "link", "b/up", "no contents"); err != nil {
		t.Error(err)
	}
	// TestFS opens links, and these can't be.
	must(t, d.Symlink(ctx, "/away", "../../x", nil))
	must(t, d.Symlink(ctx, "/round", "/round", nil))
	for name, want := range map[string]string{"link/e": "contents of /b/d/e", "b/up": "contents of /a.txt", "empty": "", "no contents": ""} {
		if got, err := fs.ReadFile(fsys, name); err != nil || string(got) != want {
			t.Errorf("%s: got %q and error %v, want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]error{"away": fs.ErrNotExist, "round": ErrLoop, "nothing": fs.ErrNotExist,
		"a.txt/x": fs.ErrNotExist, "../evil": fs.ErrInvalid, "/a": fs.ErrInvalid, `back\slash`: fs.ErrNotExist, "dot": nil} {
		if _, err := fs.Stat(fsys, name); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	if entries, err := fs.ReadDir(fsys, "dot"); err != nil || len(entries) != 0 {
		t.Errorf("folder of what is no path: got %v and error %v, want nothing", entries, err)
	}
}

func TestFilesKeepTimesAndModes(t *testing.T) {
	ctx := t.Context()
	d := newDrive(t, Options{})
	when := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.FixedZone("", 3600))
	must(t, d.Put(ctx, "/x", []byte("x"), PutOptions{Executable: true, Metadata: NewMetadata(when, 0o750)}))
	i, err := fs.Stat(d.FS(ctx), "x")
	must(t, err)
	if i.Mode() != 0o750 || !i.ModTime().Equal(when) || i.Size() != 1 {
		t.Errorf("got %v, want what was put", fs.FormatFileInfo(i))
	}
	// Peers that know nothing of modes make a file no program by the flag alone.
	e, err := d.Entry(ctx, "/x")
	must(t, err)
	if e.Executable = false; e.Mode() != 0o650 {
		t.Errorf("got mode %o of what is no program any more, want 650", e.Mode())
	}
	for _, m := range []string{`{"mode":"rwx","mtime":"yesterday"}`, `{"mode":420,"mtime":1}`, `[1]`, `7`, `{"mode":"77777"}`} {
		e := Entry{Metadata: []byte(m)}
		if e.Mode() != 0o644 || !e.ModTime().IsZero() {
			t.Errorf("metadata %s: got %v and %v, want what is usual", m, e.Mode(), e.ModTime())
		}
	}
	if NewMetadata(time.Time{}, os.ModeDir) != nil {
		t.Error("got metadata of nothing")
	}
}
