package cloud

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

func onDisk(t *testing.T, f *storagetest.Faulty) *corestore.Store {
	t.Helper()
	s, err := corestore.OpenDisk(f.Disk(), corestore.Options{})
	check(t, err)
	return s
}

// rolledBack makes a cloud of two devices, and returns a third one, which is the
// first as it was before it wrote "two".
func rolledBack(t *testing.T) (back, other *device) {
	t.Helper()
	disk, vault := storagetest.NewFaulty(), &MemoryVault{}
	a := newDeviceOn(t, "laptop", onDisk(t, disk), vault, func(o Options) (*Cloud, error) { return Create(t.Context(), o, nil) })
	b := a.admit("attic")
	cut := link(t, a, b)
	a.write(a.makeTable("notes"), "one", "1")
	b.gets("notes", "one", "1")
	check(t, a.store.Sync())
	image, secrets := disk.PowerCut(1), slices.Clone(vault.Bytes)
	a.write(a.space("notes"), "two", "2")
	b.gets("notes", "two", "2")
	cut()
	check(t, a.Close())
	back = newDeviceOn(t, "laptop", onDisk(t, image), &MemoryVault{Bytes: secrets}, func(o Options) (*Cloud, error) { return Open(t.Context(), o) })
	if back.reads("notes", "two") != "" || back.reads("notes", "one") != "1" {
		t.Fatal("it was not put back")
	}
	return back, b
}

// A device whose disk was put back hears from its peers that it had written more.
// It goes on as another device, and gets what it had lost.
func TestADeviceThatWasPutBackGoesOnAsAnother(t *testing.T) {
	back, other := rolledBack(t)
	was := back.Self()
	cut := link(t, back, other)
	<-back.Stale()
	cut()
	back.reopen(false)
	if f := back.Former(); back.Self() == was || len(f) != 1 || f[0].Device != [32]byte(was) || !f[0].Behind {
		t.Errorf("it was %v", f)
	}
	link(t, back, other)
	back.gets("notes", "two", "2")
	back.write(back.space("notes"), "three", "3")
	other.gets("notes", "three", "3")
	if other.reads("notes", "one") != "1" || other.reads("notes", "two") != "2" {
		t.Error("the other one has lost something")
	}
	for _, d := range []*device{back, other} {
		for key, l := range d.logsOf(func(*writer) bool { return true }) {
			if l.Frozen() != nil {
				t.Errorf("%s: log %s has forked", d.name, key)
			}
		}
	}
}

// files opens a folder of the cloud, as a node does.
func (d *device) files(name string) *folder.Folder {
	d.t.Helper()
	info, err := d.Find(Folder, "", name)
	check(d.t, err)
	s, err := d.Space(info.ID)
	check(d.t, err)
	check(d.t, s.Write(d.t.Context()))
	contents := content.New(content.Options{})
	s.Writers(func(w Writer) {
		if w.Own {
			check(d.t, contents.Own(w.Content))
		} else {
			check(d.t, contents.Add(w.Content, 0))
		}
	})
	return folder.New(s.Tree(), contents, folder.Options{})
}

// reading waits until a device reads a file.
func (d *device) reading(f *folder.Folder, path, text string) {
	d.t.Helper()
	defer f.Notify(d.options().Changed)()
	d.until(path, func() bool {
		e, err := f.Stat(d.t.Context(), path)
		return err == nil && e.Kind == folder.File
	})
	b, err := f.ReadFile(d.t.Context(), path, 1<<20)
	if err != nil || string(b) != text {
		d.t.Errorf("%s reads %s: %d bytes, %v", d.name, path, len(b), err)
	}
}

// A device whose disk was put back writes before it meets anybody who knows better.
// Nothing is lost: neither what it has written since, nor what it had before, and no
// log forks for anybody.
func TestADeviceThatWasPutBackAndWroteLosesNothing(t *testing.T) {
	long := func(s string) string { return strings.Repeat(s, 3000) } // of several blocks
	disk, vault := storagetest.NewFaulty(), &MemoryVault{}
	a := newDeviceOn(t, "laptop", onDisk(t, disk), vault, func(o Options) (*Cloud, error) { return Create(t.Context(), o, nil) })
	b := a.admit("attic")
	c := a.admit("phone")
	cut, cutC := link(t, a, b), link(t, a, c)
	a.write(a.makeTable("notes"), "one", "1")
	_, err := a.Make(t.Context(), SpaceInfo{Kind: Folder, Name: "Photos"})
	check(t, err)
	fa := a.files("Photos")
	for _, name := range []string{"/a", "/b", "/c"} {
		check(t, fa.Put(t.Context(), name, strings.NewReader(long("old "+name)), folder.PutOptions{}))
	}
	batch, err := a.space("notes").Tree().Batch(t.Context())
	check(t, err)
	for i := range 50 {
		check(t, batch.Put(t.Context(), fmt.Append(nil, "many", i), []byte("x")))
	}
	check(t, batch.Flush(t.Context()))
	a.write(a.space("notes"), "ready", "yes")
	b.gets("notes", "ready", "yes")
	c.gets("notes", "ready", "yes")
	cutC()
	check(t, a.store.Sync())
	image, secrets := disk.PowerCut(1), slices.Clone(vault.Bytes)

	a.write(a.space("notes"), "two", "2")
	a.write(a.space("notes"), "both", "before")
	check(t, fa.Put(t.Context(), "/b", strings.NewReader(long("lost /b")), folder.PutOptions{}))
	check(t, fa.Put(t.Context(), "/lost", strings.NewReader(long("lost")), folder.PutOptions{}))
	b.gets("notes", "both", "before")
	fb := b.files("Photos")
	b.reading(fb, "/lost", long("lost"))
	b.reading(fb, "/b", long("lost /b"))
	cut()
	check(t, a.Close())

	back := newDeviceOn(t, "laptop", onDisk(t, image), &MemoryVault{Bytes: secrets}, func(o Options) (*Cloud, error) { return Open(t.Context(), o) })
	fback := back.files("Photos")
	for i := range 20 {
		back.write(back.space("notes"), fmt.Sprint("three", i), "3")
	}
	back.write(back.space("notes"), "both", "after")
	batch, err = back.space("notes").Tree().Batch(t.Context())
	check(t, err)
	for i := range 50 {
		check(t, batch.Put(t.Context(), fmt.Append(nil, "later", i), []byte("x")))
	}
	check(t, batch.Flush(t.Context()))
	back.write(back.makeTable("more"), "k", "v")
	check(t, fback.Put(t.Context(), "/c", strings.NewReader(long("new /c")), folder.PutOptions{}))
	check(t, fback.Put(t.Context(), "/new", strings.NewReader(long("new")), folder.PutOptions{}))
	check(t, fback.Remove(t.Context(), "/a", folder.RemoveOptions{}))

	cut = link(t, back, b)
	<-back.Stale()
	cut()
	back.reopen(false)
	if n := len(back.secrets.Lost); n != 0 {
		t.Fatalf("%d logs are still lost", n)
	}
	link(t, back, b)
	link(t, b, c)
	for _, d := range []*device{back, b, c} {
		d.gets("notes", "one", "1")
		d.gets("notes", "two", "2")
		d.gets("notes", "three0", "3")
		d.gets("notes", "three19", "3")
		d.gets("more", "k", "v")
		d.gets("notes", "later49", "x")
		both := func() (values []string) {
			e, err := d.space("notes").Tree().Get(t.Context(), []byte("both"))
			if err != nil {
				return nil
			}
			for _, x := range append(e.Others, e) {
				values = append(values, string(x.Value))
			}
			slices.Sort(values)
			return values
		}
		d.until("both values", func() bool { return slices.Equal(both(), []string{"after", "before"}) })
		f := d.files("Photos")
		d.reading(f, "/lost", long("lost"))
		d.reading(f, "/b", long("lost /b"))
		d.reading(f, "/new", long("new"))
		d.reading(f, "/c", long("new /c"))
		if _, err := f.Stat(t.Context(), "/a"); !errors.Is(err, folder.ErrNotFound) {
			t.Errorf("%s: what was removed is there: %v", d.name, err)
		}
		for key, l := range d.logsOf(func(*writer) bool { return true }) {
			if l.Frozen() != nil {
				t.Errorf("%s: log %s has forked", d.name, key)
			}
		}
	}
}

// Who lies about what it has of another device's logs is not believed, and nobody
// begins anew for it.
func TestLiesAboutLogsMakeNobodyBeginAnew(t *testing.T) {
	a := first(t)
	b := a.admit("attic")
	link(t, a, b)
	a.write(a.makeTable("notes"), "one", "1")
	b.gets("notes", "one", "1")
	log := a.space("notes").own.Tree
	good := headOf(log, log.Length())
	differs, err := good.differs(log)
	if differs || err != nil || good.common(log) != log.Length() {
		t.Fatalf("what is true differs: %v, %v, %d in common", differs, err, good.common(log))
	}
	a.write(a.space("notes"), "two", "2")
	if n := good.common(log); n != good.Length || log.Length() == n {
		t.Errorf("%d blocks in common, want %d", n, good.Length)
	}
	longer, other, noRoots, noSignature, fork := good, good, good, good, good
	longer.Length = log.Length() + 5
	other.Roots = slices.Clone(good.Roots)
	other.Roots[len(other.Roots)-1] ^= 1
	noRoots.Roots = nil
	noSignature.Length, noSignature.Signature = log.Length()+1, nil
	fork.Fork++
	for what, h := range map[string]signedHead{"longer": longer, "another": other, "without roots": noRoots, "without a signature": noSignature, "of another fork": fork} {
		if behind, err := a.compare([]signedHead{h}); err == nil || len(behind) > 0 {
			t.Errorf("%s: %d logs are behind, %v", what, len(behind), err)
		}
	}
	select {
	case <-a.Stale():
		t.Error("it begins anew")
	default:
	}
}
