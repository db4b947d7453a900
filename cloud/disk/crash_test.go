package disk

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// crashWorld is two devices that have met, and have different news: a is the one
// that will crash.
func crashWorld(t *testing.T, b *bomb, engine storage.Engine, contents bool) (w *world, before string) {
	w = &world{t: t}
	for _, name := range []string{"a", "b"} {
		d := newDevice(t, name, func(c *config) {
			c.clock = clock.NewFake(fakeStart) // all is racy, and so compared once more
			onFaulty(&faulty{})(c)
			if name == "a" {
				onFaulty(&faulty{bomb: b})(c)
				c.engine = shaky{engine, b}
			}
		})
		if name == "a" {
			d.cloud.bomb = b
			d.engine = engine
		}
		w.fakes = append(w.fakes, d.cloud)
		w.devices = append(w.devices, d)
	}
	x, y := w.devices[0], w.devices[1]
	for _, p := range []string{"/same", "/edit a", "/edit b", "/edit both", "/gone a", "/gone b", "/dir a/x", "/dir b/x", "/move a", "/move b", "/gone a, edit b", "/gone b, edit a", "/kind", "/deep/er/x"} {
		x.write(p, "old "+p)
	}
	w.rest()
	x.ripen()
	x.write("/edit a", "new of a")
	x.write("/edit both", "new of a, both")
	x.write("/gone b, edit a", "edited by a")
	x.write("/new a/deep/x", "made by a")
	x.write("/big a", strings.Repeat("big of a", 50_000))
	x.remove("/gone a")
	x.remove("/gone a, edit b")
	x.remove("/dir a")
	x.rename("/move a", "/moved/a")
	y.write("/edit b", "new of b")
	y.write("/edit both", "new of b, both the same time")
	y.write("/gone a, edit b", "edited by b")
	y.write("/new b/deep/x", "made by b")
	y.remove("/gone b")
	y.remove("/gone b, edit a")
	y.remove("/dir b")
	y.rename("/move b", "/moved too/b")
	y.remove("/kind")
	y.write("/kind/in/x", "in a folder now")
	must(t, os.Symlink("nowhere", y.at("/link")))
	y.sync()
	// It has reached a, which has not looked since.
	b.mu.Lock()
	b.left = 1 << 30
	b.mu.Unlock()
	meet(x.cloud, y.cloud, contents)
	return w, x.tree()
}

var crashWant = []string{
	"old /same", "new of a", "new of a, both", "new of b", "new of b, both the same time", "edited by a", "edited by b",
	"made by a", "made by b", "old /move a", "old /move b", "big of a", "in a folder now", "old /deep/er/x", "-> nowhere",
}

var crashGone = []string{"/gone a \"", "/gone b \"", "/dir a", "/dir b", "/move a \"", "/move b \"", "old /kind"}

// TestACrashAtAnyStepLosesNothing stops device a at each step of a round: each
// change of the disk, each write of a log or of the index. Then it starts again,
// with the index as it was, as a power cut may leave it, or with none.
func TestACrashAtAnyStepLosesNothing(t *testing.T) {
	for index, step := range map[string]int{"kept": 8, "power cut": 11, "none": 17} {
		t.Run(index, func(t *testing.T) { crashAll(t, step, index, false) })
	}
}

// TestACrashLosesNothingThatCameLate does so in the round that writes what was not
// here yet when the one before heard of it.
func TestACrashLosesNothingThatCameLate(t *testing.T) {
	for index, step := range map[string]int{"kept": 3, "power cut": 5} {
		t.Run(index, func(t *testing.T) { crashAll(t, step, index, true) })
	}
}

func crashAll(t *testing.T, step int, index string, late bool) {
	if long {
		step = 1
	}
	crashed := 0
	for n := 0; !crashAt(t, n, index, late); n += step {
		crashed++
		if t.Failed() {
			t.Fatalf("at step %d", n)
		}
	}
	if crashed < 4 {
		t.Errorf("it crashed at %d steps only", crashed)
	}
}

// crashAt crashes at step n of a round; with late, in one that writes what was not
// here when the round before heard of it.
func crashAt(t *testing.T, n int, index string, late bool) (done bool) {
	b := &bomb{left: 1 << 30}
	faulty := storagetest.NewFaulty()
	engine, err := faulty.Disk().Open()
	must(t, err)
	w, _ := crashWorld(t, b, engine, !late)
	a := w.devices[0]
	if late {
		a.sync()
		w.meet(0, 1)
		fetched, err := a.k.Fetch(t.Context())
		must(t, err)
		if fetched == 0 {
			t.Fatal("nothing came late")
		}
	}
	b.left = n
	err = a.k.Sync(t.Context())
	if err == nil && !b.dead {
		must(t, engine.Close())
		return true
	}
	if err != nil && !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	_ = a.k.Close()
	a.cloud.crash()
	switch index {
	case "power cut":
		faulty = faulty.PowerCut(uint64(n))
		a.c.boot = "second"
	case "none":
		faulty = storagetest.NewFaulty()
	}
	if index != "kept" {
		_ = engine.Close()
		engine, err = storage.Disk{Dir: "store", FS: faulty.FS(), Adopt: true}.Open()
		must(t, err)
	}
	b.mu.Lock()
	b.left, b.dead = 1<<30, false
	b.mu.Unlock()
	a.c.engine = shaky{engine, b}
	a.open()
	a.sync()
	for _, note := range a.k.Status().Notices {
		if note.Code == CodeBehind {
			t.Errorf("the index knows what the crash took: %+v", note)
		}
	}
	meet(a.cloud, w.devices[1].cloud, true)
	w.rest()
	got := a.tree()
	same(t, "both", w.devices[1].tree(), got)
	if t.Failed() {
		t.Logf("%+v", a.k.Status())
	}
	for _, want := range crashWant {
		if !strings.Contains(got, want) {
			t.Errorf("%q is lost:\n%s", want, got)
		}
	}
	conflicts := strings.Count(got, "conflict from")
	if strings.Contains(got, tempPrefix) {
		t.Errorf("a temporary file is left:\n%s", got)
	}
	if index == "none" {
		// Without what was known, all that is different is kept.
		return false
	}
	for _, gone := range crashGone {
		if strings.Contains(got, gone) {
			t.Errorf("%q is back:\n%s", gone, got)
		}
	}
	if conflicts != 1 {
		t.Errorf("%d conflicts:\n%s", conflicts, got)
	}
	must(t, a.k.Close())
	must(t, engine.Close())
	return false
}

// TestACrashAfterAPutMakesNoConflict: what was put, and changed before the next
// start, is an edit of what was put, and what was removed is gone.
func TestACrashAfterAPutMakesNoConflict(t *testing.T) {
	for _, said := range []bool{true, false} {
		a := newDevice(t, "a")
		a.write("/edited", "1")
		a.write("/moved", "moved")
		a.write("/stays", "stays")
		a.sync()
		a.write("/edited", "22")
		a.write("/removed", "removed")
		a.rename("/moved", "/to")
		a.cloud.bomb = &bomb{left: 0}
		if said {
			a.cloud.bomb.left = 1
		}
		if err := a.k.Sync(t.Context()); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		a.cloud.bomb = nil
		if is := strings.Contains(a.cloud.tree(), "/removed"); is != said {
			t.Fatalf("said is %v", is)
		}
		a.write("/edited", "333")
		a.remove("/removed")
		a.remove("/to")
		a.again()
		a.sync()
		a.sync()
		want := "/edited \"333\"\n/stays \"stays\"\n"
		same(t, "disk", a.tree(), want)
		same(t, "cloud", a.cloud.tree(), want)
	}
}

// TestTheFolderIsOlderThanTheIndex: what the index and the disk have of others is not
// in the logs any more, as when these were put back to an older state.
func TestTheFolderIsOlderThanTheIndex(t *testing.T) {
	a := newDevice(t, "a")
	b := newDevice(t, "b", func(c *config) {
		c.clock = clock.NewFake(fakeStart) // all is racy, and so compared once more
	})
	for _, p := range []string{"/changed", "/gone", "/edited", "/removed"} {
		a.write(p, "old "+p)
	}
	converge(t, a, b)
	kept := b.cloud.synced
	for _, p := range []string{"/changed", "/edited", "/removed", "/new"} {
		a.write(p, "newer "+p)
	}
	a.remove("/gone")
	a.sync()
	meet(a.cloud, b.cloud, true)
	b.sync()
	a.write("/late", "its content comes later")
	a.sync()
	meet(a.cloud, b.cloud, false)
	b.sync()
	if b.k.Status().Waiting != 1 || b.read("/new") != "newer /new" {
		t.Fatalf("%+v\n%s", b.k.Status(), b.tree())
	}
	b.cloud.synced = kept
	b.cloud.crash()
	b.again()
	b.write("/edited", "edited while it was behind")
	b.remove("/removed")
	want := b.tree()
	b.sync()
	b.sync()
	b.wantNotice(CodeBehind)
	same(t, "while it is behind", b.tree(), want)
	meet(a.cloud, b.cloud, true)
	converge(t, a, b)
	b.wantCalm()
	same(t, "the other", a.tree(), b.tree())
	same(t, "both", b.tree(), `/changed "newer /changed"
/edited "edited while it was behind"
/late "its content comes later"
/new "newer /new"
`)
}

// TestAConflictOutlivesAnErrorOfResolvingIt, and a crash, which is one.
func TestAConflictOutlivesAnErrorOfResolvingIt(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	a.write("/x", "of a")
	b.write("/x", "of b, too")
	b.sync()
	a.sync()
	a.cloud.bomb = &bomb{left: 2} // what was heard is synced before rows, and before the cursor
	meet(b.cloud, a.cloud, true)
	if err := a.k.Sync(t.Context()); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	a.cloud.bomb = nil
	if cursor, err := a.k.x.meta("cursor"); err != nil || string(cursor) != "2" {
		t.Fatalf("it crashed too early: %q, %v", cursor, err)
	}
	a.again()
	a.sync()
	a.sync()
	if !strings.Contains(a.tree(), "of a") || !strings.Contains(a.tree(), "of b, too") {
		t.Errorf("the conflict was forgotten:\n%s", a.tree())
	}
}

// TestWhatWasRemovedIsRemovedAlsoIfAllIsCompared: with other rules everything is
// compared, also what the folder has no more.
func TestWhatWasRemovedIsRemovedAlsoIfAllIsCompared(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	for _, p := range []string{"/a", "/d/b", "/d/c", "/stays", "/z.tmp"} {
		a.write(p, p)
	}
	converge(t, a, b)
	for _, p := range []string{"/a", "/d", "/z.tmp"} {
		a.remove(p)
	}
	a.write("/e", "/e")
	a.sync()
	meet(a.cloud, b.cloud, true)
	b.write("/"+IgnoreFile, "*.tmp\n")
	b.sync()
	b.sync()
	b.remove("/" + IgnoreFile)
	b.sync()
	same(t, "b", b.tree(), "/e \"/e\"\n/stays \"/stays\"\n/z.tmp \"/z.tmp\"\n")
}

// TestARoundFollowsOnOneThatFoundMore: without a Watcher, and not only when all is
// looked through again.
func TestARoundFollowsOnOneThatFoundMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDevice(t, "b", func(c *config) { c.clock = clock.System })
		ctx, stop := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			if err := b.k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		other := newFake("other")
		out, err := other.batch(ctx)
		must(t, err)
		must(t, out.put(ctx, entry{path: "/d/x", kind: kindFile, mode: 0o600}, strings.NewReader("not from a disk"), ""))
		_, err = out.flush(ctx)
		must(t, err)
		meet(other, b.cloud, true)
		time.Sleep(time.Second)
		synctest.Wait()
		b.wantCalm()
		same(t, "cloud", b.cloud.tree(), b.tree())
		stop()
		work.Wait()
		must(t, b.k.Close())
	})
}
