package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// live is a device whose Keeper runs, on the real clock.
type live struct {
	*device
	changed chan struct{}
	stop    func()
}

func newLive(t *testing.T, name string, w *Watcher) *live {
	l := &live{changed: make(chan struct{}, 1)}
	l.device = newDevice(t, name, func(c *config) {
		c.watcher, c.clock = w, clock.System
		c.changed = func() {
			select {
			case l.changed <- struct{}{}:
			default:
			}
		}
	})
	l.start()
	return l
}

func (l *live) start() {
	ctx, cancel := context.WithCancel(l.t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := l.k.Run(ctx); err != nil {
			l.t.Error(err)
		}
	})
	l.stop = func() { cancel(); work.Wait() }
	l.t.Cleanup(l.stop)
}

// until waits for rounds until something is so.
func (l *live) until(what string, ok func() bool) {
	l.t.Helper()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-l.changed:
		case <-limit:
			l.t.Fatalf("%s does not come about:\n%s\ncloud\n%s\n%+v", what, l.tree(), l.cloud.tree(), l.k.Status())
		}
	}
}

func newTestWatcher(t *testing.T) *Watcher {
	w, err := NewWatcher(clock.System)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

func TestChangesAreSeenAsTheyHappen(t *testing.T) {
	w := newTestWatcher(t)
	a, b := newLive(t, "a", w), newLive(t, "b", w)
	first := func() bool { return a.k.Status().State == UpToDate }
	a.until("the first look", first)
	a.write("/x", "1")
	a.write("/new/deep/y", "2")
	inCloud := func(d *live, want ...string) func() bool {
		return func() bool {
			for _, s := range want {
				if !strings.Contains(d.cloud.tree(), s) {
					return false
				}
			}
			return true
		}
	}
	a.until("what was written", inCloud(a, `/x "1"`, `/new/deep/y "2"`))
	// What moves is watched under its new name.
	a.rename("/new", "/moved")
	a.until("a move", inCloud(a, `/moved/deep/y "2"`))
	a.write("/moved/deep/y", "3")
	a.until("a change after it", inCloud(a, `/moved/deep/y "3"`))
	a.write("/new/deep/y", "4")
	a.until("another of the old name", inCloud(a, `/new/deep/y "4"`, `/moved/deep/y "3"`))
	a.write("/new/deep/y", "5")
	a.until("a change of that", inCloud(a, `/new/deep/y "5"`, `/moved/deep/y "3"`))
	a.remove("/moved")
	a.until("a removal", func() bool { return !strings.Contains(a.cloud.tree(), "/moved") })
	// And what comes is written, with no scan.
	meet(a.cloud, b.cloud, true)
	b.until("what came", func() bool { return b.tree() == a.tree() })
	b.write("/x", "back")
	b.until("an answer", inCloud(b, `/x "back"`))
	meet(a.cloud, b.cloud, true)
	a.until("what came back", func() bool { return a.read("/x") == "back" })
	a.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir, k := range w.dirs {
		if k == a.k {
			t.Errorf("%s is still watched", dir)
		}
	}
}

// fsnotify tells of errors while it holds the lock that adding and removing need.
func TestErrorsOfWatchingAreTakenAtAnyTime(t *testing.T) {
	w := newTestWatcher(t)
	w.mu.Lock() // as while a folder is added, which waits for fsnotify
	defer w.mu.Unlock()
	for range 5 {
		select {
		case w.w.Errors <- errors.New("any"):
		case <-time.After(10 * time.Second):
			t.Fatal("nobody takes errors")
		}
	}
}

func TestLostEventsAreLookedFor(t *testing.T) {
	w := newTestWatcher(t)
	a := newLive(t, "a", w)
	a.until("the first look", func() bool { return a.k.Status().State == UpToDate })
	must(t, w.w.Remove(a.dir)) // nothing is heard from here
	a.write("/x", "1")
	w.w.Errors <- fsnotify.ErrEventOverflow
	a.until("what was missed", func() bool { return strings.Contains(a.cloud.tree(), "/x") })
}

// TestNothingIsWatchedThatIsNotKnownToBe: what is moved later would be watched under
// its old name for ever.
func TestNothingIsWatchedThatIsNotKnownToBe(t *testing.T) {
	w := newTestWatcher(t)
	d := newDevice(t, "a")
	d.write("/d/x", "1")
	must(t, w.add(d.k, d.at("/d")))
	// It is told late of one that was there before.
	w.event(fsnotify.Event{Name: d.at("/d"), Op: fsnotify.Remove})
	if list := w.w.WatchList(); len(list) > 0 {
		t.Errorf("%q are watched", list)
	}
}

func TestWithoutWatchesItLooksFromTimeToTime(t *testing.T) {
	d := newDevice(t, "a")
	rounds := make(chan struct{}, 100)
	d.k.c.changed = func() { rounds <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { _ = d.k.Run(ctx) })
	<-rounds
	waiting := func() { // for the timer that Run sets after a round
		for d.clock.Waiting() == 0 {
			runtime.Gosched()
			if ctx.Err() != nil {
				return
			}
		}
	}
	waiting()
	d.write("/x", "1")
	d.clock.Advance(scanUnwatched)
	<-rounds
	same(t, "cloud", d.cloud.tree(), d.tree())
	cancel()
	work.Wait()
}

func TestChangesAreWaitedForUntilTheyEnd(t *testing.T) {
	c := clock.NewFake(fakeStart)
	k := &Keeper{c: config{clock: c}, dirty: map[string]bool{}, signal: make(chan struct{}, 1)}
	woken := func() bool {
		select {
		case <-k.signal:
			return true
		default:
			return false
		}
	}
	k.touched("/a")
	c.Advance(settleDelay - 1)
	if woken() {
		t.Error("too soon")
	}
	c.Advance(1)
	if !woken() || !k.dirty["/a"] {
		t.Error("never")
	}
	// Each change makes it wait, but not for ever.
	began := c.Now()
	for !woken() {
		k.touched("/b")
		c.Advance(settleDelay / 2)
	}
	if took := c.Now().Sub(began); took < settleMax || took > settleMax+settleDelay {
		t.Errorf("it began after %v", took)
	}
	for i := range maxDirty + 1 {
		k.touched(fmt.Sprint("/", i))
	}
	if !k.full || len(k.dirty) > 0 {
		t.Errorf("%d changes are remembered", len(k.dirty))
	}
}

func TestOnlyWhatChangedIsLookedAt(t *testing.T) {
	looked := 0
	d := newDevice(t, "a", onFaulty(&faulty{hook: func(op, path string) error {
		if op == "list" {
			looked++
		}
		return nil
	}}))
	for i := range 20 {
		d.write(fmt.Sprintf("/d%d/x", i), "1")
	}
	d.sync()
	looked = 0
	d.write("/d3/x", "2")
	must(t, os.Remove(d.at("/d4/x")))
	d.k.touched("/d3/x")
	d.k.touched("/d4/x")
	d.k.touched("/d4")
	d.k.touched("/nothing")
	must(t, d.k.look(t.Context(), false))
	if looked != 1 {
		t.Errorf("%d folders were listed", looked)
	}
	same(t, "cloud", d.cloud.tree(), d.tree())
}

func TestOneChangedPathAndTheIgnoreRules(t *testing.T) {
	d := newDevice(t, "a")
	d.write("/.bevyignore", "build/\n*.tmp\n")
	d.write("/build", "a file of that name")
	d.write("/src/build/out", "ignored")
	d.sync()
	d.write("/build", "changed")
	d.write("/src/build/out", "changed too")
	d.write("/src/x.tmp", "ignored")
	for _, p := range []string{"/build", "/src/build/out", "/src/build", "/src/x.tmp"} {
		d.k.touched(p)
	}
	must(t, d.k.look(t.Context(), false))
	if got := d.cloud.tree(); !strings.Contains(got, `/build "changed"`) || strings.Contains(got, "out") || strings.Contains(got, "tmp\"") {
		t.Error(got)
	}
}
