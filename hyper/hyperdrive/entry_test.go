package hyperdrive

import (
	"encoding/json"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// What is read fast is read as any JSON is, and what was read is written as it was.
func FuzzEntry(f *testing.F) {
	for _, s := range []string{
		`{"executable":false,"linkname":null,"blob":{"blockOffset":1,"byteOffset":11,"blockLength":2,"byteLength":70000},"metadata":null}`,
		`{"executable":true,"linkname":"/a","blob":null,"metadata":{"x":[1,"}"]}}`,
		`{"executable":false,"linkname":"a\n\"","blob":null,"metadata":"null"}`,
		`{"executable":false,"linkname":null,"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":9,"blockMap":true},"metadata":null}`,
		`{"executable":false,"linkname":null,"blob":{"blockOffset":01,"byteOffset":0,"blockLength":1,"byteLength":99999999999999999999},"metadata":null}`,
		`{"metadata":null} `, `null`, `{}`, `{"executable":false,"linkname":null,"blob":null,"metadata":null}}`, ``,
		`{"executable":false,"linkname":null,"blob":null,"metadata":null }`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		var e Entry
		if e.parse(value) != nil {
			return
		}
		var usual Entry
		if usual.parseUsual(value) {
			if !json.Valid(value) {
				t.Fatalf("%q is no JSON", value)
			}
			// The long way must say the same: a space makes it take that.
			var long Entry
			if err := long.parse(append([]byte(" "), value...)); err != nil || !reflect.DeepEqual(long, usual) {
				t.Fatalf("%q: got %+v, and %+v with error %v the long way", value, usual, long, err)
			}
		}
		out, err := e.append(nil)
		if err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		var again Entry
		if err := again.parse(out); err != nil {
			t.Fatalf("%q was written as %q: %v", value, out, err)
		}
		twice, err := again.append(nil)
		if err != nil || string(twice) != string(out) {
			t.Fatalf("%q was written as %q and then as %q, %v", value, out, twice, err)
		}
		_, _ = e.Mode(), e.ModTime()
	})
}

func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"a", "/a//b/", `C:\x\..\..`, "http://host/x/y", "file:/x", "..", "/", "a:b/c", "\x00", "é:/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		clean, err := CleanPath(p)
		if err != nil {
			if !errors.Is(err, ErrPath) {
				t.Fatalf("%q: %v", p, err)
			}
			return
		}
		again, err := CleanPath(clean)
		if err != nil || again != clean || !isClean(clean) || !utf8.ValidString(clean) {
			t.Fatalf("%q is %q, and that is %q, %v", p, clean, again, err)
		}
		if !fs.ValidPath(clean[1:]) || strings.Contains(clean, `\`) {
			t.Fatalf("%q is %q, which is no path", p, clean)
		}
	})
}

func TestPathsThatNameNothing(t *testing.T) {
	for _, p := range []string{"", "/", ".", "..", "a/..", "/../a", "a/../../b", "\xff", "a\x00b", `\`} {
		if got, err := CleanPath(p); !errors.Is(err, ErrPath) {
			t.Errorf("%q: got %q and error %v", p, got, err)
		}
	}
	// As unix-path-resolve 1.0.2 says.
	for in, want := range map[string]string{`C:\x`: "/x", "C:/x/../y": "/y", "file:/x/y": "/x/y", "http://host/x/y": "/x/y", "x:y/z": "/x:y/z", "...": "/..."} {
		if got, err := CleanPath(in); err != nil || got != want {
			t.Errorf("%q: got %q and error %v, want %q", in, got, err, want)
		}
	}
}

// Whoever wrote a drive, reading it ends: with an error for what makes no sense.
func TestEntriesThatMakeNoSense(t *testing.T) {
	ctx := t.Context()
	for _, value := range []string{``, `null`, `[]`, `"x"`, `{"blob":{"blockOffset":-1}}`, `{"blob":{"byteLength":1.5}}`, `{"executable":1}`, `{"linkname":{}}`, `{"blob":[]}`, strings.Repeat("[", 20_000)} {
		d := newDrive(t, Options{})
		write(t, d, "/good", "good")
		must(t, d.files.Put(ctx, []byte("/bad"), []byte(value)))
		if _, err := d.Entry(ctx, "/bad"); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.40q: got %v", value, err)
		}
		for _, err := range d.List(ctx, "/", ListOptions{}) {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%.40q: list: got %v", value, err)
			}
			break
		}
		if got, err := d.ReadFile(ctx, "/good"); err != nil || string(got) != "good" {
			t.Errorf("%.40q: the file beside it: got %q and error %v", value, got, err)
		}
	}
	// Contents where there are none.
	d := newDrive(t, Options{})
	write(t, d, "/good", "good")
	for _, id := range []hyperblobs.ID{
		{BlockOffset: 1, BlockLength: 1, ByteOffset: 4, ByteLength: 1},
		{BlockLength: 1, ByteLength: 1 << 62},
		{BlockLength: 1 << 62, ByteLength: 1 << 62},
		{BlockOffset: ^uint64(0), BlockLength: 2, ByteLength: 4},
		{BlockLength: 1, ByteLength: 4, BlockMap: true},
	} {
		must(t, d.PutEntry(ctx, Entry{Path: "/bad", Blob: &id}))
		if got, err := d.ReadFile(ctx, "/bad"); err == nil {
			t.Errorf("%+v: got %q", id, got)
		}
		if err := d.Download(ctx, "/bad", nil); err == nil && id.BlockLength > 1 {
			t.Errorf("%+v: it was downloaded", id)
		}
		e, err := d.Entry(ctx, "/bad")
		must(t, err)
		if r, err := d.OpenFile(ctx, e); err == nil {
			if n, err := r.ReadAt(make([]byte, 10), 0); err == nil {
				t.Errorf("%+v: read %d bytes", id, n)
			}
			r.Close()
		}
	}
}

func TestLinksAreFollowed(t *testing.T) {
	ctx := t.Context()
	d := newDrive(t, Options{})
	write(t, d, "/dir/file", "x")
	for link, target := range map[string]string{"/abs": "/dir/file", "/rel": "dir/file", "/dir/up": "../dir/./file", "/dir/chain": "up",
		"/dangling": "nothing", "/out": "../../x", "/root": "/", "/loop1": "loop2", "/loop2": "loop1"} {
		must(t, d.Symlink(ctx, link, target, nil))
	}
	for _, link := range []string{"/abs", "/rel", "/dir/up", "/dir/chain", "/dir/file"} {
		if e, err := d.Follow(ctx, link); err != nil || e.Path != "/dir/file" {
			t.Errorf("%s: got %s and error %v", link, e.Path, err)
		}
	}
	for link, want := range map[string]error{"/dangling": ErrNotFound, "/out": ErrPath, "/root": ErrNotFound, "/loop1": ErrLoop, "/no": ErrNotFound} {
		if _, err := d.Follow(ctx, link); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", link, err, want)
		}
	}
}

func TestContentsAreClearedAndCounted(t *testing.T) {
	ctx := t.Context()
	d := newDrive(t, Options{})
	write(t, d, "/a", strings.Repeat("a", 100_000))
	write(t, d, "/dir/b", strings.Repeat("b", 10))
	write(t, d, "/dir/c", "")
	has := func(path string, want bool) {
		t.Helper()
		if got, err := d.Has(ctx, path); err != nil || got != want {
			t.Errorf("%s: got %v and error %v, want %v", path, got, err, want)
		}
	}
	has("/a", true)
	has("/", true)
	if got, err := d.Clear(ctx, "/a"); err != nil || got != (Freed{2, 100_000}) {
		t.Errorf("got %+v and error %v", got, err)
	}
	has("/a", false)
	has("/dir", true)
	has("/", false)
	if _, err := d.ReadFile(ctx, "/a"); !errors.Is(err, hypercore.ErrNotFound) {
		t.Errorf("read what was cleared: got %v", err)
	}
	if got, err := d.Clear(ctx, "/a"); err != nil || got != (Freed{}) {
		t.Errorf("again: got %+v and error %v", got, err)
	}
	if got, err := d.ClearAll(ctx); err != nil || got != (Freed{1, 10}) {
		t.Errorf("all: got %+v and error %v", got, err)
	}
	if _, err := d.Clear(ctx, "/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nothing: got %v", err)
	}
	if _, err := d.Has(ctx, "/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nothing: got %v", err)
	}
}

func TestKindsOfDrives(t *testing.T) {
	ctx := t.Context()
	store := openStore(t, storage.NewMemory(), 'k')
	for name, o := range map[string]Options{"new": {Name: "new"}, "old": {Name: "old", Compat: true}} {
		d, err := Open(store, o)
		must(t, err)
		write(t, d, "/x", name)
		key, content := d.Key(), hypercore.Key{}
		content, err = d.ContentKey(ctx)
		must(t, err)
		if content == key || d.Tree().Log().Compat() != o.Compat {
			t.Errorf("%s: got the keys %s and %s", name, key, content)
		}
		must(t, d.Close())
		must(t, d.Close()) // again is fine
		// By its key alone.
		d, err = Open(store, Options{Key: &key})
		must(t, err)
		if got, err := d.ContentKey(ctx); err != nil || got != content {
			t.Errorf("%s: got content key %s and error %v, want %s", name, got, err, content)
		}
		if got, err := d.ReadFile(ctx, "/x"); err != nil || string(got) != name {
			t.Errorf("%s: got %q and error %v", name, got, err)
		}
		past, err := d.Checkout(1)
		must(t, err)
		if err := past.Put(ctx, "/y", nil, PutOptions{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: put into the past: got %v", name, err)
		}
		if _, err := past.Batch(ctx); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: batch in the past: got %v", name, err)
		}
		must(t, past.Close())
		must(t, d.Close())
		if _, err := d.Entry(ctx, "/x"); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: read after Close: got %v", name, err)
		}
	}
}
