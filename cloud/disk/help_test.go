package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A device is a folder on the disk, one in the cloud, and what keeps them.
type device struct {
	t      testing.TB
	dir    string
	cloud  *fakeFolder
	engine storage.Engine
	clock  *clock.Fake
	c      config
	k      *Keeper
}

func newDevice(t testing.TB, name string, change ...func(*config)) *device {
	t.Helper()
	d := &device{t: t, dir: t.TempDir(), cloud: newFake(name), engine: storage.NewMemory(), clock: clock.NewFake(time.Now().Add(time.Hour))}
	d.c = config{dir: d.dir, id: "photos", source: d.cloud, engine: d.engine, clock: d.clock, boot: "first", open: opener()}
	for _, f := range change {
		f(&d.c)
	}
	d.open()
	t.Cleanup(func() { must(t, d.k.Close()) })
	return d
}

func (d *device) open() {
	d.t.Helper()
	k, err := newKeeper(d.c)
	must(d.t, err)
	d.k = k
}

// again is what a new start of the program does.
func (d *device) again() {
	d.t.Helper()
	must(d.t, d.k.Close())
	d.open()
}

func (d *device) sync() {
	d.t.Helper()
	must(d.t, d.k.Sync(d.t.Context()))
}

// ripen has the disk have for sure what the index says.
func (d *device) ripen() {
	d.t.Helper()
	d.k.ripen()
	d.k.ripen()
	must(d.t, d.k.x.commit(true))
}

func (d *device) at(p string) string { return filepath.Join(d.dir, filepath.FromSlash(p)) }

func (d *device) write(p, text string) {
	d.t.Helper()
	must(d.t, os.MkdirAll(filepath.Dir(d.at(p)), 0o755))
	must(d.t, os.WriteFile(d.at(p), []byte(text), 0o644))
}

func (d *device) read(p string) string {
	b, err := os.ReadFile(d.at(p))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (d *device) remove(p string) {
	d.t.Helper()
	must(d.t, os.RemoveAll(d.at(p)))
}

func (d *device) rename(from, to string) {
	d.t.Helper()
	must(d.t, os.MkdirAll(filepath.Dir(d.at(to)), 0o755))
	must(d.t, os.Rename(d.at(from), d.at(to)))
}

// tree is all that is on the disk, as text.
func (d *device) tree() string { return treeOf(d.t, d.dir) }

func treeOf(t testing.TB, dir string) string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == dir {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := clean(dir, p)
		switch {
		case rel == "":
		case e.IsDir():
			out[rel] = "/"
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			out[rel] = "-> " + to
			return err
		case !e.Type().IsRegular():
		default:
			b, err := os.ReadFile(p)
			out[rel] = string(b)
			return err
		}
		return nil
	}))
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(out)) {
		fmt.Fprintf(&b, "%s %.60q\n", p, out[p])
	}
	return b.String()
}

// entries is all that is in the cloud, as text of the same form.
func (f *fakeFolder) tree() string {
	var b strings.Builder
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(f.at)) {
		e := f.statLocked(p)
		if e == nil {
			continue
		}
		text := "/"
		switch e.kind {
		case kindFile:
			text = string(f.contents[e.hash])
		case kindLink:
			text = "-> " + e.link
		}
		fmt.Fprintf(&b, "%s %.60q\n", p, text)
	}
	return b.String()
}

func same(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\ngot\n%s\nwant\n%s", what, got, want)
	}
}

func (d *device) wantNotice(code string, paths ...string) Notice {
	d.t.Helper()
	for _, n := range d.k.Status().Notices {
		if n.Code == code {
			if len(paths) > 0 && !slices.Equal(n.Paths, paths) {
				d.t.Errorf("notice %s is about %q, not %q", code, n.Paths, paths)
			}
			return n
		}
	}
	d.t.Errorf("there is no notice %s: %+v", code, d.k.Status().Notices)
	return Notice{}
}

func (d *device) wantCalm() {
	d.t.Helper()
	if s := d.k.Status(); s.State != UpToDate || len(s.Notices) > 0 {
		d.t.Errorf("status %+v", s)
	}
}

// converge lets devices meet until nothing changes any more.
func converge(t testing.TB, devices ...*device) {
	t.Helper()
	before := ""
	for range 12 {
		for _, d := range devices {
			d.sync()
		}
		for i, a := range devices {
			for _, b := range devices[i+1:] {
				meet(a.cloud, b.cloud, true)
			}
		}
		now := ""
		for _, d := range devices {
			v, _ := d.cloud.version(t.Context())
			now += string(v) + "\n" + d.tree()
		}
		if now == before {
			return
		}
		before = now
	}
	t.Fatal("it does not come to rest")
}
