package mirrordrive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
)

func putFile(t testing.TB, f *localdrive.Folder, path, data string) {
	t.Helper()
	w, err := f.Create(t.Context(), path, localdrive.CreateOptions{ModTime: time.Unix(1e9, 1)})
	must(t, err)
	_, err = w.Write([]byte(data))
	must(t, err)
	must(t, w.Close())
}

func putDrive(t testing.TB, d *hyperdrive.Drive, path, data string) {
	t.Helper()
	must(t, d.Put(t.Context(), path, []byte(data), hyperdrive.PutOptions{}))
}

func TestOptions(t *testing.T) {
	from, d := openFolder(t, t.TempDir()), newDrive(t)
	for _, p := range []string{"/a", "/b/c", "/b/d/e", "/b2", "/x/y"} {
		putFile(t, from, p, p)
	}
	for _, p := range []string{"/b/old", "/old", "/x/old"} {
		putDrive(t, d, p, p)
	}
	src, dst := Folder(from), Drive(d)
	yes := func(paths ...string) func(string) bool {
		return func(p string) bool {
			for _, q := range paths {
				if p == q {
					return true
				}
			}
			return false
		}
	}
	dry := func(o Options, want ...string) {
		t.Helper()
		o.DryRun = true
		version := d.Version()
		got, _ := run(t, src, dst, o)
		wantOps(t, got, want...)
		if d.Version() != version {
			t.Error("a dry run changed the drive")
		}
	}
	dry(Options{}, "add /a", "add /b/c", "add /b/d/e", "remove /b/old", "add /b2", "remove /old", "remove /x/old", "add /x/y")
	dry(Options{NoPrune: true}, "add /a", "add /b/c", "add /b/d/e", "add /b2", "add /x/y")
	dry(Options{Ignore: yes("/b", "/x/old", "/a")}, "add /b2", "remove /old", "add /x/y")
	dry(Options{Filter: yes("/a", "/x/old")}, "add /a", "remove /b/old", "remove /old", "remove /x/old")
	dry(Options{Prefix: []string{"/b/d", "b", "/a", "/nothing", "/b/c"}}, "add /a", "add /b/c", "add /b/d/e", "remove /b/old")
	dry(Options{Prefix: []string{"/old", "/"}, NoPrune: true}, "add /a", "add /b/c", "add /b/d/e", "add /b2", "add /x/y")
	dry(Options{Prefix: []string{"/old"}}, "remove /old")
	dry(Options{Prefix: []string{"/a"}, Ignore: yes("/a")})
	for _, err := range Mirror(t.Context(), src, dst, Options{Prefix: []string{"/../x"}}) {
		if !errors.Is(err, hyperdrive.ErrPath) {
			t.Errorf("prefix /../x: %v", err)
		}
	}
	_, total := run(t, src, dst, Options{})
	if want := (Total{Add: 5, Remove: 3, BytesAdded: 19, BytesRemoved: 16}); total != want {
		t.Errorf("got %+v, want %+v", total, want)
	}
}

func TestWhatIsTheSameIsNotWritten(t *testing.T) {
	from, d := openFolder(t, t.TempDir()), newDrive(t)
	src, dst := Folder(from), Drive(d)
	putFile(t, from, "/a", "one")
	run(t, src, dst, Options{})
	blobs, err := d.Blobs(t.Context())
	must(t, err)
	length := blobs.Log().Length()

	must(t, from.SetMode(t.Context(), "/a", 0, time.Unix(2e9, 123456789)))
	ops, _ := run(t, src, dst, Options{})
	wantOps(t, ops, "metadata /a")
	if n := blobs.Log().Length(); n != length {
		t.Errorf("%d blocks were written for a time", n-length)
	}
	e, err := d.Entry(t.Context(), "/a")
	must(t, err)
	if !e.ModTime().Equal(time.Unix(2e9, 123456789)) {
		t.Errorf("time %v", e.ModTime())
	}

	// The same size and time is the same, unless one wants to know.
	must(t, os.WriteFile(filepath.Join(from.Dir(), "a"), []byte("two"), 0o600))
	must(t, from.SetMode(t.Context(), "/a", 0, time.Unix(2e9, 123456789)))
	ops, _ = run(t, src, dst, Options{})
	wantOps(t, ops)
	ops, _ = run(t, src, dst, Options{Checksum: true})
	wantOps(t, ops, "change /a")
	wantSame(t, src, dst)

	// Of a drive that knows no times only the contents count.
	other := newDrive(t)
	putDrive(t, other, "/a", "two")
	ops, _ = run(t, Drive(other), src, Options{})
	wantOps(t, ops)
	putDrive(t, other, "/a", "six")
	ops, _ = run(t, Drive(other), src, Options{})
	wantOps(t, ops, "change /a")
}

// rawPut puts an entry under a key that no drive would make.
func rawPut(t testing.TB, d *hyperdrive.Drive, key, value string) {
	t.Helper()
	must(t, d.Tree().Sub([]byte("files")).Put(t.Context(), []byte(key), []byte(value)))
}

func TestHostileDriveStaysInTheFolder(t *testing.T) {
	d := newDrive(t)
	putDrive(t, d, "/ok", "x")
	value := `{"executable":false,"linkname":null,"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":1},"metadata":null}`
	long := "/" + strings.Repeat("x", 256)
	for _, key := range []string{"/../up", "/a/../../up", "//abs", "/", "/a/", "/./dot", `/..\up`, "/nul\x00", "/bad\xff", "/.0123456789abcdef.localdrive.tmp", long, "/..", "/."} {
		rawPut(t, d, key, value)
	}
	rawPut(t, d, "up", value) // not under any folder
	rawPut(t, d, "/link", `{"executable":false,"linkname":"../outside","blob":null,"metadata":null}`)
	rawPut(t, d, "/link/evil", value)
	rawPut(t, d, "/file", value)
	rawPut(t, d, "/file/in-a-file", value)
	rawPut(t, d, "/lies1", `{"executable":false,"linkname":null,"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":7000},"metadata":null}`)
	rawPut(t, d, "/lies2", `{"executable":false,"linkname":null,"blob":{"blockOffset":900,"byteOffset":0,"blockLength":18446744073709551615,"byteLength":7},"metadata":null}`)
	rawPut(t, d, "/modes", `{"executable":true,"linkname":null,"blob":null,"metadata":{"mode":"7777","mtime":"never"}}`)
	rawPut(t, d, "/z", value)

	top := t.TempDir()
	outside, dir := filepath.Join(top, "outside"), filepath.Join(top, "dir")
	must(t, os.Mkdir(outside, 0o700))
	must(t, os.Mkdir(dir, 0o700))
	f := openFolder(t, dir)
	for range 2 {
		ops, total := run(t, Drive(d), Folder(f), Options{})
		if total.Skip != 16 {
			t.Errorf("%d skipped: %q", total.Skip, ops)
		}
		got := contents(t, Folder(f))
		for p := range got {
			switch p {
			case "/ok", "/link", "/file", "/modes", "/z":
			default:
				t.Errorf("%q was written", p)
			}
		}
		if len(got) != 5 {
			t.Errorf("got %q", got)
		}
		for where, want := range map[string]int{top: 2, outside: 0, dir: 5} {
			if names, err := os.ReadDir(where); err != nil || len(names) != want {
				t.Errorf("%s has %v, %v", where, names, err)
			}
		}
	}
	// Such keys in a target are left alone, and nothing else is taken for them.
	putFile(t, f, "/up", "x")
	ops, _ := run(t, Folder(f), Drive(d), Options{DryRun: true})
	for _, op := range ops {
		if kind, p, _ := strings.Cut(op, " "); kind == "remove" && p != "/file/in-a-file" && p != "/link/evil" && p != "/lies1" && p != "/lies2" && p != long && !strings.HasSuffix(p, ".tmp") {
			t.Errorf("it would %s", op)
		}
	}
}

func TestLinksInTheTargetAreNotFollowed(t *testing.T) {
	if !openFolder(t, t.TempDir()).Modes() {
		t.Skip("links need rights on Windows")
	}
	d := newDrive(t)
	putDrive(t, d, "/link/a", "new")
	putDrive(t, d, "/ok", "new")
	outside, f := t.TempDir(), openFolder(t, t.TempDir())
	must(t, os.WriteFile(filepath.Join(outside, "a"), []byte("old"), 0o600))
	link := filepath.Join(f.Dir(), "link")
	must(t, os.Symlink(outside, link))
	ops, _ := run(t, Drive(d), Folder(f), Options{NoPrune: true})
	wantOps(t, ops, "skip /link/a", "add /ok")
	ops, _ = run(t, Drive(d), Folder(f), Options{})
	wantOps(t, ops, "remove /link", "add /link/a")
	if data, err := os.ReadFile(filepath.Join(outside, "a")); err != nil || string(data) != "old" {
		t.Errorf("outside: %q, %v", data, err)
	}
}

func TestFilesAndFoldersChangePlaces(t *testing.T) {
	d, f := newDrive(t), openFolder(t, t.TempDir())
	for _, p := range []string{"/a", "/b/x", "/b/y/z", "/b-c"} {
		putFile(t, f, p, "old")
	}
	for _, p := range []string{"/a/x", "/a/y/z", "/b", "/b-c"} {
		putDrive(t, d, p, "new")
	}
	ops, _ := run(t, Drive(d), Folder(f), Options{NoPrune: true})
	wantOps(t, ops, "skip /a/x", "skip /a/y/z", "skip /b", "change /b-c")
	ops, _ = run(t, Drive(d), Folder(f), Options{})
	wantOps(t, ops, "add /a/x", "add /a/y/z", "add /b", "remove /a", "remove /b/x", "remove /b/y/z")
	ops, _ = run(t, Drive(d), Folder(f), Options{})
	wantOps(t, ops)
}

// broken is a side that can't read a folder.
type broken struct {
	Side
	path string
}

func (b broken) list(ctx context.Context, folder string, ignore func(string) bool, clean bool) iter.Seq2[hyperdrive.Entry, error] {
	return func(yield func(hyperdrive.Entry, error) bool) {
		told := false
		for e, err := range b.Side.list(ctx, folder, ignore, clean) {
			if strings.HasPrefix(e.Path, b.path+"/") {
				if told {
					continue
				}
				told, e, err = true, hyperdrive.Entry{}, &localdrive.Skipped{Path: b.path, Err: fs.ErrPermission}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func TestWhatCannotBeReadIsNotRemoved(t *testing.T) {
	f, d := openFolder(t, t.TempDir()), newDrive(t)
	for _, p := range []string{"/a", "/b/c", "/b/d/e", "/b-", "/z"} {
		putFile(t, f, p, p)
	}
	run(t, Folder(f), Drive(d), Options{})
	putDrive(t, d, "/b/only here", "x")
	putDrive(t, d, "/b-too", "x")
	putDrive(t, d, "/b0", "x")
	ops, _ := run(t, broken{Folder(f), "/b"}, Drive(d), Options{})
	wantOps(t, ops, "skip /b", "remove /b-too", "remove /b0")
	for _, p := range []string{"/b/c", "/b/d/e", "/b/only here"} {
		if _, err := d.Entry(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	ops, _ = run(t, Folder(f), Drive(d), Options{})
	wantOps(t, ops, "remove /b/only here")
}

// folding is a folder that takes upper for lower case.
type folding struct {
	Side
	names map[string]string // by the names in lower case
}

func (f folding) put(ctx context.Context, e hyperdrive.Entry, have *hyperdrive.Entry, size uint64, r io.Reader) error {
	lower := strings.ToLower(e.Path)
	if have == nil && f.names[lower] != "" {
		return localdrive.ErrExists
	}
	f.names[lower] = e.Path
	return f.Side.put(ctx, e, have, size, r)
}

func (f folding) remove(ctx context.Context, path string) error {
	delete(f.names, strings.ToLower(path))
	return f.Side.remove(ctx, path)
}

func TestNamesThatClashAreSkipped(t *testing.T) {
	d, f := newDrive(t), folding{Folder(openFolder(t, t.TempDir())), map[string]string{}}
	for _, p := range []string{"/A", "/a", "/b", "/Straße"} {
		putDrive(t, d, p, p)
	}
	for i := range 2 {
		ops, total := run(t, Drive(d), f, Options{})
		if total.Skip != 1 || i == 1 && len(ops) != 1 {
			t.Errorf("got %q", ops)
		}
		if got := contents(t, f); len(got) != 3 || got["/A"] == "" {
			t.Errorf("got %q", got)
		}
	}
	// A file that only changes the case of its name does so at once.
	must(t, d.Delete(t.Context(), "/A"))
	must(t, d.Delete(t.Context(), "/b"))
	putDrive(t, d, "/B", "/b")
	ops, _ := run(t, Drive(d), f, Options{})
	wantOps(t, ops, "remove /A", "add /a", "remove /b", "add /B")
}

func TestAFileThatChangesIsReadAgain(t *testing.T) {
	f, d := openFolder(t, t.TempDir()), newDrive(t)
	for _, p := range []string{"/a", "/b", "/c"} {
		putFile(t, f, p, strings.Repeat("x", 200<<10))
	}
	changes := 0
	ops, _ := run(t, Folder(f), Drive(d), Options{Progress: func(p Progress) {
		if p.Path == "/a" && changes == 0 || p.Path == "/b" {
			changes++
			must(t, os.WriteFile(filepath.Join(f.Dir(), p.Path), []byte(strings.Repeat("y", changes+300<<10)), 0o600))
		}
	}})
	wantOps(t, ops, "add /a", "skip /b", "add /c")
	if _, err := d.Entry(t.Context(), "/b"); !errors.Is(err, hyperdrive.ErrNotFound) {
		t.Errorf("/b: %v", err)
	}
	run(t, Folder(f), Drive(d), Options{})
	wantSame(t, Folder(f), Drive(d))
}

func TestMetadataOfDrivesIsKept(t *testing.T) {
	a, b := newDrive(t), newDrive(t)
	must(t, a.Put(t.Context(), "/a", []byte("x"), hyperdrive.PutOptions{Metadata: []byte(`{"of":"somebody else"}`)}))
	must(t, a.Symlink(t.Context(), "/l", "/a", []byte(`1`)))
	run(t, Drive(a), Drive(b), Options{})
	for _, p := range []string{"/a", "/l"} {
		x, err := a.Entry(t.Context(), p)
		must(t, err)
		y, err := b.Entry(t.Context(), p)
		must(t, err)
		if string(x.Metadata) != string(y.Metadata) || x.Linkname != y.Linkname {
			t.Errorf("%+v became %+v", x, y)
		}
	}
	must(t, a.Put(t.Context(), "/a", []byte("x"), hyperdrive.PutOptions{Executable: true}))
	ops, _ := run(t, Drive(a), Drive(b), Options{})
	wantOps(t, ops, "metadata /a")
}
