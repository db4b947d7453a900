package disk

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// killedWhilePlacing returns two devices: b was killed right after it had put what
// came from a in its place, or with left only some of it.
func killedWhilePlacing(t *testing.T, left int, change ...func(*config)) (a, b *device) {
	bomb := &bomb{left: 1 << 30}
	a = newDevice(t, "a")
	faulty := &faulty{}
	b = newDevice(t, "b", append(change, onFaulty(faulty), func(c *config) { c.engine = shaky{c.engine, bomb} })...)
	a.write("/d/stays", "stays")
	a.write("/e/stays", "stays")
	a.write("/edited", "old")
	converge(t, a, b)
	for i := range 2 {
		a.write(fmt.Sprintf("/d/new%d", i), "new")
		a.write(fmt.Sprintf("/e/new%d", i), "new")
	}
	a.write("/edited", "newer")
	must(t, os.Symlink("nowhere", a.at("/d/link")))
	a.sync()
	meet(a.cloud, b.cloud, true)
	faulty.hook = func(op, _ string) error {
		bomb.mu.Lock() // folders are synced at the same time
		if op == "rename" {
			left--
		}
		bomb.dead = bomb.dead || left < 0 || op == "sync"
		bomb.mu.Unlock()
		return bomb.point()
	}
	if err := b.k.Sync(t.Context()); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	faulty.hook = nil
	bomb.dead = false
	return a, b
}

// all is more than there is to be put in its place.
const all = 100

// TestWhatIsRemovedAfterAKillStaysSo: what was put in its place in the moment of the
// kill, and was removed, moved or edited before the next start, is not new.
func TestWhatIsRemovedAfterAKillStaysSo(t *testing.T) {
	a, b := killedWhilePlacing(t, all)
	b.remove("/d/new0")
	b.remove("/d/link")
	b.rename("/d/new1", "/d/moved")
	b.remove("/e") // and with it what says that its files were there
	b.write("/edited", "edited")
	b.again()
	converge(t, a, b)
	b.wantCalm()
	same(t, "the other", a.tree(), b.tree())
	same(t, "both", b.tree(), `/d "/"
/d/moved "new"
/d/stays "stays"
/edited "edited"
`)
}

// TestWhatWasNotPutInItsPlaceBeforeAKillIsWritten, although its folder was removed.
func TestWhatWasNotPutInItsPlaceBeforeAKillIsWritten(t *testing.T) {
	for left := range 6 {
		a, b := killedWhilePlacing(t, left)
		b.remove("/d")
		b.remove("/e")
		b.again()
		converge(t, a, b)
		b.wantCalm()
		same(t, "the other", a.tree(), b.tree())
		for _, p := range []string{"/d/new0", "/d/new1", "/e/new0", "/e/new1"} {
			if b.read(p) != "new" {
				t.Errorf("killed after %d: nobody has seen %s:\n%s", left, p, b.tree())
			}
		}
		if strings.Contains(b.tree(), tempPrefix) || strings.Contains(b.tree(), "/stays") || b.read("/edited") != "newer" {
			t.Errorf("killed after %d:\n%s", left, b.tree())
		}
	}
}

// TestWhatIsMissingAfterAPowerCutIsWritten: the disk may have forgotten its name.
func TestWhatIsMissingAfterAPowerCutIsWritten(t *testing.T) {
	for _, boot := range []string{"second", ""} {
		a, b := killedWhilePlacing(t, all)
		b.remove("/d/new0")
		b.c.boot = boot
		b.again()
		converge(t, a, b)
		same(t, "the other", a.tree(), b.tree())
		if b.read("/d/new0") != "new" {
			t.Errorf("it is lost:\n%s", b.tree())
		}
	}
}

// TestWhatComesAndGoesAtOnceStaysAway: somebody removes a file before its row is made.
// If its folder is gone, the file may never have been seen.
func TestWhatComesAndGoesAtOnceStaysAway(t *testing.T) {
	for gone, want := range map[string]string{"/d/x": "/d \"/\"\n", "/d": "/d \"/\"\n/d/x \"1\"\n"} {
		var b *device
		done := false
		b = newDevice(t, "b", onFaulty(&faulty{hook: func(op, path string) error {
			if op != "lstat" || path != "/d/x" || done {
				return nil
			}
			if _, err := os.Lstat(b.at(path)); err == nil {
				b.remove(gone)
				done = true
			}
			return nil
		}}))
		a := newDevice(t, "a")
		a.write("/d/x", "1")
		a.sync()
		meet(a.cloud, b.cloud, true)
		b.sync()
		if !done {
			t.Fatal("nothing was removed")
		}
		converge(t, a, b)
		same(t, "the other", a.tree(), b.tree())
		same(t, "both", b.tree(), want)
	}
}
