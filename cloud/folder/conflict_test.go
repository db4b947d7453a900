package folder

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

func (d *device) resolve() int {
	d.t.Helper()
	n, err := d.ResolveConflicts(d.t.Context(), nil)
	must(d.t, err)
	return n
}

const at = "2026-01-02 030405"

func TestConcurrentEditsAreBothKept(t *testing.T) {
	list := newDevices(t, 3, 0)
	a, b, c := list[0], list[1], list[2]
	a.write("/notes.txt", "first")
	meet(a, b, c)
	a.write("/notes.txt", "of a")
	b.clock.Advance(time.Second)
	b.write("/notes.txt", "of b")
	meet(a, b, c)
	e, err := c.Stat(t.Context(), "/notes.txt")
	must(t, err)
	if len(e.Others) != 1 || nameOf(e.Writer) != "device2" || nameOf(e.Others[0].Writer) != "device1" {
		t.Errorf("got %+v", e)
	}
	// Two devices resolve it at once, in the same way.
	want(t, "resolved by a", a.resolve(), 1)
	want(t, "resolved by b", b.resolve(), 1)
	meet(a, b, c)
	for _, d := range list {
		want(t, "resolved again", d.resolve(), 0)
		want(t, "files", files(t, d.Folder), map[string]string{
			"/notes.txt": "of b",
			"/notes (conflict from device1 " + at + ").txt": "of a",
		})
	}
	e, err = c.Stat(t.Context(), "/notes.txt")
	must(t, err)
	if nameOf(e.Writer) != "device2" || !e.Time.Equal(start.Add(time.Second)) {
		t.Errorf("it is said to be of %s at %v", nameOf(e.Writer), e.Time)
	}
}

// What was deleted, or is the same, stands beside for ever and is nobody's worry.
func TestOnlyWhatDiffersIsAConflict(t *testing.T) {
	list := newDevices(t, 2, 0)
	a, b := list[0], list[1]
	for _, p := range []string{"/same", "/deleted", "/differs"} {
		a.write(p, "first")
	}
	meet(a, b)
	a.write("/same", "equal")
	b.write("/same", "equal")
	a.write("/deleted", "edited")
	must(t, b.Remove(t.Context(), "/deleted", RemoveOptions{}))
	a.write("/differs", "of a")
	b.write("/differs", "of b")
	meet(a, b)
	for p, n := range map[string]int{"/same": 0, "/deleted": 0, "/differs": 1} {
		e, err := a.Stat(t.Context(), p)
		must(t, err)
		if len(e.Others) == 0 {
			t.Errorf("nothing stands beside %s: this proves nothing", p)
		}
		want(t, p, e.Conflicts(), n)
	}
}

// A third edit that meets a resolved conflict makes no second copy of the others.
func TestResolvedConflictsMeetFurtherEdits(t *testing.T) {
	list := newDevices(t, 3, 0)
	a, b, c := list[0], list[1], list[2]
	a.write("/x", "first")
	meet(a, b, c)
	for i, d := range list {
		d.clock.Advance(time.Duration(i) * time.Minute)
		d.write("/x", "of "+nameOf(writerOf(d.n)))
	}
	meet(a, b)
	a.resolve()
	meet(b, c)
	c.resolve()
	meet(a, b, c)
	for _, d := range list {
		d.resolve()
	}
	meet(a, b, c)
	for _, d := range list {
		want(t, "resolved again", d.resolve(), 0)
		want(t, "files", files(t, d.Folder), map[string]string{
			"/x": "of device3",
			"/x (conflict from device1 2026-01-02 030405)": "of device1",
			"/x (conflict from device2 2026-01-02 030505)": "of device2",
		})
	}
}

func TestEditsWinOverDeletionsAndFoldersOverFiles(t *testing.T) {
	list := newDevices(t, 2, 0)
	a, b := list[0], list[1]
	ctx := t.Context()
	a.write("/edited", "first")
	a.write("/gone/x", "x")
	meet(a, b)
	must(t, a.Remove(ctx, "/edited", RemoveOptions{}))
	b.write("/edited", "second")
	must(t, a.Remove(ctx, "/gone", RemoveOptions{All: true}))
	b.write("/gone/y", "y")
	a.write("/name.d", "a file")
	b.write("/name.d/inside", "b inside")
	a.write("/made", "a file, too")
	must(t, b.Mkdir(ctx, "/made", PutOptions{}))
	must(t, a.Mkdir(ctx, "/both", PutOptions{Mode: 0o700}))
	must(t, b.Mkdir(ctx, "/both", PutOptions{}))
	meet(a, b)
	a.resolve()
	b.resolve()
	meet(a, b)
	for _, d := range list {
		want(t, "files", files(t, d.Folder), map[string]string{
			"/edited":        "second",
			"/gone/y":        "y",
			"/name.d/inside": "b inside",
			"/name (conflict from device1 " + at + ").d": "a file",
			"/made": "(folder)",
			"/made (conflict from device1 " + at + ")": "a file, too",
			"/both": "(folder)",
		})
		want(t, "resolved again", d.resolve(), 0)
	}
}

// Who writes over what stands beside another entry saves it, resolved or not.
func TestNothingUnseenIsLostByWritingOverIt(t *testing.T) {
	for _, how := range []string{"put", "remove", "move", "restore"} {
		list := newDevices(t, 2, 0)
		a, b := list[0], list[1]
		ctx := t.Context()
		a.write("/d/x", "of a")
		b.clock.Advance(time.Second)
		b.write("/d/x", "of b")
		meet(a, b)
		copied := "/d/x (conflict from device1 " + at + ")"
		result := map[string]string{copied: "of a"}
		switch how {
		case "put":
			a.write("/d/x", "third")
			result["/d/x"] = "third"
		case "remove":
			must(t, a.Remove(ctx, "/d/x", RemoveOptions{}))
		case "move":
			must(t, a.Move(ctx, "/d", "/e"))
			result = map[string]string{"/e/x": "of b", "/e" + strings.TrimPrefix(copied, "/d"): "of a"}
		case "restore":
			old, err := a.Checkout(ctx, nil)
			must(t, err)
			_, err = a.Restore(ctx, old, "/d/x")
			must(t, err)
			must(t, old.Close())
		}
		meet(a, b)
		b.resolve()
		want(t, how, files(t, b.Folder), result)
	}
}

// A device that says what it had seen loses nothing that came meanwhile.
func TestWhoWasLateMakesAConflict(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	put := func(path, data string, over []byte) Entry {
		t.Helper()
		b, err := d.Batch(ctx)
		must(t, err)
		defer b.Close()
		must(t, b.Put(ctx, path, strings.NewReader(data), PutOptions{Seen: true, Over: over}))
		out, err := b.Flush(ctx)
		must(t, err)
		return out[0]
	}
	first := put("/x", "first", nil)
	stat := func() Entry {
		t.Helper()
		e, err := d.Stat(ctx, "/x")
		must(t, err)
		return e
	}
	want(t, "stamp", stat().Stamp, first.Stamp)
	d.clock.Advance(time.Second)
	second := put("/x", "second", first.Stamp)
	want(t, "stamp", stat().Stamp, second.Stamp)
	want(t, "others", len(stat().Others), 0)
	d.clock.Advance(time.Second)
	third := put("/x", "late", first.Stamp) // it has not seen the second
	if e := stat(); len(e.Others) != 1 || slices.Equal(e.Stamp, third.Stamp) {
		t.Errorf("got %+v", e)
	}
	d.resolve()
	want(t, "files", files(t, d.Folder), map[string]string{"/x": "late", "/x (conflict from device1 2026-01-02 030406)": "second"})
	d.clock.Advance(time.Second)
	put("/x", "sees nothing", nil)
	d.resolve()
	want(t, "how many", len(files(t, d.Folder)), 3)
	b, err := d.Batch(ctx)
	must(t, err)
	must(t, b.Remove(ctx, "/x", RemoveOptions{Seen: true, Over: third.Stamp}))
	_, err = b.Flush(ctx)
	must(t, err)
	want(t, "what was not seen", d.read("/x"), "sees nothing")
	now := stat().Stamp
	b, err = d.Batch(ctx)
	must(t, err)
	must(t, b.Remove(ctx, "/x", RemoveOptions{Seen: true, Over: now}))
	_, err = b.Flush(ctx)
	must(t, err)
	if _, err := d.Stat(ctx, "/x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got error %v", err)
	}
}

// The name of a device comes from elsewhere: until it is known, its conflicts wait.
func TestConflictsOfUnknownDevicesWait(t *testing.T) {
	list := newDevices(t, 2, 0)
	a, b := list[0], list[1]
	a.write("/x", "of a")
	b.clock.Advance(time.Second)
	b.write("/x", "of b")
	meet(a, b)
	known := false
	a.o.Device = func(w tree.Writer) string {
		if !known {
			return ""
		}
		return nameOf(w)
	}
	want(t, "unknown", a.resolve(), 0)
	want(t, "unknown", files(t, a.Folder), map[string]string{"/x": "of b"})
	known = true
	want(t, "known", a.resolve(), 1)
	want(t, "known", len(files(t, a.Folder)), 2)
}

func TestConflictNames(t *testing.T) {
	long := strings.Repeat("é", 200)
	for _, c := range []struct{ path, device, want string }{
		{"/a/b.txt", "laptop", "/a/b (conflict from laptop 2026-01-02 030405).txt"},
		{"/.profile", "laptop", "/.profile (conflict from laptop 2026-01-02 030405)"},
		{"/a.b/c", "my/lap:top\x00", "/a.b/c (conflict from my-lap-top- 2026-01-02 030405)"},
		{"/" + long + ".c", "x", "/" + strings.Repeat("é", 108) + " (conflict from x 2026-01-02 030405).c"},
		{strings.Repeat("/long", 800) + "/" + strings.Repeat("x", 90), "x", strings.Repeat("/long", 768) + "/" + strings.Repeat("x", 90) + " (conflict from x 2026-01-02 030405)"},
	} {
		if got := ConflictName(c.path, c.device, start, 1); got != c.want || CheckPath(got) != nil {
			t.Errorf("%q: got %q, want %q", c.path, got, c.want)
		}
	}
	want(t, "the second", ConflictName("/a.b", "x", start, 2), "/a (conflict from x 2026-01-02 030405 2).b")
}

// What another device says that makes no sense harms nothing but itself.
func TestHostileEntriesHarmNothingElse(t *testing.T) {
	list := newDevices(t, 2, 0)
	a, evil := list[0], list[1]
	ctx := t.Context()
	evil.write("/good", "good")
	good, err := evil.tree.Get(ctx, []byte("/good"))
	must(t, err)
	b, err := evil.tree.Batch(ctx)
	must(t, err)
	bad := map[string]string{
		"/a/../b": string(good.Value), "/a//b": string(good.Value), "/zero\x00": string(good.Value), "/\xff": string(good.Value), "/end/": string(good.Value),
		"/" + strings.Repeat("x", 5000): string(good.Value), "//": string(good.Value), "/": string(good.Value), "x": string(good.Value),
		"/empty": "", "/version": "\x09\x01", "/kind": "\x01\x09", "/short": "\x01\x01\x03\xff", "/nofile": "\x01\x01", "/order": "\x01\x02\x02\x00\x01\x00",
		"/elsewhere": string((&Entry{Kind: File, Content: func() Entry { e, _ := decode(good.Value); return e }().Content}).encode()[:20]),
		"tag:bad":    "\x01\x00\xff", "tag:worse": "", "/huge": strings.Repeat("x", 100_000),
	}
	for i, v := range []tree.Version{{writerOf(2): 1 << 40}, {writerOf(9): 1}, {writerOf(1): 1, writerOf(2): 2}} {
		bad[fmt.Sprint("tag:version", i)] = string(v.AppendTo([]byte{tagVersion, 0}))
	}
	for _, key := range slices.Sorted(maps.Keys(bad)) {
		must(t, b.Put(ctx, []byte(key), []byte(bad[key])))
	}
	must(t, b.Flush(ctx))
	a.write("/mine", "mine")
	meet(a, evil)
	invalid := 0
	for e, err := range a.List(ctx, "/", ListOptions{Recursive: true}) {
		must(t, err)
		if e.Err != nil {
			invalid++
			if _, err := a.Open(ctx, e.Path); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrPath) {
				t.Errorf("open %q: %v", e.Path, err)
			}
		}
	}
	want(t, "invalid", invalid, 8)
	want(t, "good", a.read("/good"), "good")
	for e, err := range a.List(ctx, "/", ListOptions{}) {
		must(t, err)
		must(t, CheckPath(e.Path))
	}
	for c, err := range a.Changes(ctx, nil) {
		must(t, err)
		must(t, CheckPath(c.Path))
	}
	for _, err := range a.Tags(ctx) {
		must(t, err)
	}
	a.resolve()
	must(t, a.Download(ctx, "/"))
	if _, err := a.Clear(ctx, Retention{}); err != nil {
		t.Error(err)
	}
	s, err := a.Scrub(ctx, ScrubOptions{})
	must(t, err)
	if s.Problems < 10 || s.Files != 2 {
		t.Errorf("the scrub found %+v", s)
	}
	stats, err := a.Stats(ctx, "/")
	must(t, err)
	want(t, "stats", stats, Stats{Files: 2, Invalid: invalid, Bytes: 8})
	// It can be put right.
	a.write("/kind", "mine now")
	must(t, a.Remove(ctx, "/version", RemoveOptions{}))
	must(t, a.Move(ctx, "/short", "/moved"))
	want(t, "put right", a.read("/kind"), "mine now")
}

// Fields that this version does not know outlive what it changes.
func TestFieldsOfLaterVersionsAreKept(t *testing.T) {
	d := newDevice(t)
	ctx := t.Context()
	d.write("/x", "x")
	raw, err := d.tree.Get(ctx, []byte("/x"))
	must(t, err)
	value := append(raw.Value, "\x20\x05later\x21\x00"...)
	must(t, d.change(ctx, func(b *tree.Batch) error { return b.Put(ctx, []byte("/x"), value) }))
	d.write("/x", "changed")
	must(t, d.Move(ctx, "/x", "/y"))
	for raw, err := range d.tree.Range(ctx, hyperbee.RangeOptions{Gte: []byte("/"), Lt: []byte("0")}) {
		must(t, err)
		if !strings.HasSuffix(string(raw.Value), "\x20\x05later\x21\x00") {
			t.Errorf("%s is %q", raw.Key, raw.Value)
		}
	}
	want(t, "/y", d.read("/y"), "changed")
}
