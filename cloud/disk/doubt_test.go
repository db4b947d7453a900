package disk

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// poweredOff has a device start again on another boot. Without booted all that happens
// on its disk until then is from before.
func (d *device) poweredOff(booted int64) {
	d.t.Helper()
	d.c.boot += " and another"
	d.c.booted = booted
	d.again()
}

const nothingSince = math.MaxInt64

// lossy is what a power cut does to files, and what is there then.
var lossy = map[string]func(d *device, path string){
	"missing":  func(d *device, path string) { d.remove(path) },
	"empty":    func(d *device, path string) { d.write(path, "") },
	"cut off":  func(d *device, path string) { d.write(path, "what the cl") },
	"zeros":    func(d *device, path string) { d.write(path, strings.Repeat("\x00", len(cloudHas))) },
	"holes":    func(d *device, path string) { d.write(path, "what\x00\x00\x00\x00 cloud h\x00s") },
	"too long": func(d *device, path string) { d.write(path, cloudHas+"\x00\x00\x00") },
}

const cloudHas = "what the cloud has"

// TestWhatAPowerCutTookIsWrittenAgain: what the cloud has of a file that was new, or
// changed, is on the disk again, and nothing else goes to others.
func TestWhatAPowerCutTookIsWrittenAgain(t *testing.T) {
	for name, lose := range lossy {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, known=%v", name, known), func(t *testing.T) {
				a := newDevice(t, "a", onFaulty(&faulty{}))
				if known {
					a.write("/x", "older")
					a.sync()
					a.ripen()
				}
				a.write("/x", cloudHas)
				a.sync()
				said := a.cloud.order
				lose(a, "/x")
				a.poweredOff(nothingSince)
				a.sync()
				if a.read("/x") != cloudHas || len(a.cloud.order) != len(said) {
					t.Errorf("%d more said:\n%s", len(a.cloud.order)-len(said), a.tree())
				}
				a.wantNotice(CodeBack, "/x")
				a.again()
				a.sync()
				a.wantNotice(CodeBack, "/x")
				a.poweredOff(nothingSince)
				a.sync()
				a.wantCalm()
			})
		}
	}
}

// TestWhatIsOlderAfterAPowerCutIsWrittenAgain: files that were changed, moved and
// removed are as they were before, and one that came from elsewhere has its
// permissions of before.
func TestWhatIsOlderAfterAPowerCutIsWrittenAgain(t *testing.T) {
	a, b := newDevice(t, "a", onFaulty(&faulty{})), newDevice(t, "b", onFaulty(&faulty{}))
	for _, p := range []string{"/edited", "/moved", "/removed", "/mode"} {
		a.write(p, "old "+p)
	}
	must(t, os.Symlink("old", a.at("/link")))
	converge(t, a, b)
	a.ripen()
	must(t, os.Chmod(b.at("/mode"), 0o600))
	b.sync()
	meet(a.cloud, b.cloud, true)
	a.sync()
	for _, p := range []string{"/edited", "/removed"} {
		a.rename(p, p+".old") // is left alone
	}
	before, err := os.Stat(a.at("/mode"))
	must(t, err)
	if before.Mode().Perm() != 0o600 {
		t.Fatal(before.Mode())
	}
	a.write("/edited", "new")
	a.rename("/moved", "/there")
	a.remove("/link")
	must(t, os.Symlink("new", a.at("/link")))
	a.write("/"+IgnoreFile, "*.old\n")
	a.sync()
	want := a.tree()
	for _, p := range []string{"/edited", "/removed"} {
		a.rename(p+".old", p)
	}
	a.rename("/there", "/moved")
	a.remove("/link")
	must(t, os.Symlink("old", a.at("/link")))
	must(t, os.Chmod(a.at("/mode"), 0o644))
	a.poweredOff(nothingSince)
	a.sync()
	got := a.tree()
	for _, line := range strings.Split(want, "\n") {
		if !strings.Contains(line, ".old") && !strings.Contains(got, line) {
			t.Errorf("%s is not there:\n%s", line, got)
		}
	}
	for _, p := range []string{"/moved \"", "/removed \"", "conflict"} {
		if strings.Contains(got, p) {
			t.Errorf("%s is there:\n%s", p, got)
		}
	}
	if now, err := os.Stat(a.at("/mode")); err != nil || now.Mode().Perm() != 0o600 {
		t.Errorf("its permissions are %v, %v", now.Mode(), err)
	}
	converge(t, a, b)
	same(t, "the other", b.tree(), a.tree())
}

// TestZerosWithTheRightTimeAreSeen: some file systems have size and times of a file on
// the disk before its content.
func TestZerosWithTheRightTimeAreSeen(t *testing.T) {
	a := newDevice(t, "a", onFaulty(&faulty{}))
	a.write("/x", cloudHas)
	a.sync()
	lossy["zeros"](a, "/x")
	info, err := os.Lstat(a.at("/x"))
	must(t, err)
	known, err := a.k.x.row("/x")
	must(t, err)
	known.stat, known.racy = statOf(info), false
	a.k.x.put("/x", known)
	must(t, a.k.x.commit(true))
	a.poweredOff(nothingSince)
	a.sync()
	if got := a.read("/x"); got != cloudHas {
		t.Errorf("it is %q", got)
	}
}

// TestAMoveThatAPowerCutUndidBringsNoZeros: the old name has the file again, but not its
// content, and is no move of what is missing at the new one.
func TestAMoveThatAPowerCutUndidBringsNoZeros(t *testing.T) {
	a := newDevice(t, "a", onFaulty(&faulty{}))
	a.write("/x", cloudHas)
	a.sync()
	a.rename("/x", "/y")
	a.sync()
	info, err := os.Lstat(a.at("/y"))
	must(t, err)
	a.rename("/y", "/x")
	lossy["zeros"](a, "/x")
	must(t, os.Chtimes(a.at("/x"), time.Time{}, info.ModTime()))
	a.poweredOff(nothingSince)
	a.sync()
	a.sync()
	if got := a.read("/y"); got != cloudHas {
		t.Errorf("it is %q", got)
	}
	same(t, "cloud", a.cloud.tree(), a.tree())
}

// TestNoPowerCutIsNoLoss: on the same boot, and once the disk has it, all that people do
// is meant.
func TestNoPowerCutIsNoLoss(t *testing.T) {
	for _, c := range []struct {
		boot string
		ripe bool
	}{{"first", false}, {"second", true}} {
		for name, lose := range lossy {
			a := newDevice(t, "a", onFaulty(&faulty{}))
			a.write("/x", cloudHas)
			a.write("/stays", "stays")
			a.sync()
			if c.ripe {
				a.ripen()
			}
			lose(a, "/x")
			want := a.tree()
			a.c.boot = c.boot
			a.again()
			a.sync()
			same(t, name, a.tree(), want)
			same(t, name+" in the cloud", a.cloud.tree(), want)
			a.wantCalm()
		}
	}
}

// TestWhatIsUnclearAfterAPowerCutStays, and what the cloud has beside it, whatever the
// clock of the machine says.
func TestWhatIsUnclearAfterAPowerCutStays(t *testing.T) {
	for text, booted := range map[string]int64{
		"":                      0, // somebody may have it open by now
		"\x00":                  time.Now().Add(-time.Hour).UnixNano(),
		"something else":        nothingSince,
		"something else, too":   0,
		"xhat the cloud has":    nothingSince,
		"what the cloud\x00hat": nothingSince,
	} {
		a, b := newDevice(t, "a", onFaulty(&faulty{})), newDevice(t, "b", onFaulty(&faulty{}))
		a.write("/x", cloudHas)
		converge(t, a, b)
		a.write("/x", text)
		later(t, a.at("/x"))
		a.poweredOff(booted)
		a.sync()
		a.wantNotice(CodeTorn, "/x")
		converge(t, a, b)
		same(t, "the other", b.tree(), a.tree())
		for _, want := range []string{cloudHas, text} {
			if !strings.Contains(b.tree(), fmt.Sprintf(" %q\n", want)) {
				t.Errorf("%q is lost:\n%s", want, b.tree())
			}
		}
	}
}

// TestWrongClocksLoseNothing: that of the machine was wrong before the power cut or is
// now, and neither what the cloud had nor what somebody has written since is lost.
func TestWrongClocksLoseNothing(t *testing.T) {
	const year = 365 * 24 * time.Hour
	losses := maps.Clone(lossy)
	losses["written"] = func(d *device, path string) { d.write(path, "written since") }
	for name, lose := range losses {
		for _, before := range []time.Duration{-year, 0, year} {
			for _, now := range []time.Duration{-year, 0, year} {
				a, b := newDevice(t, "a", onFaulty(&faulty{})), newDevice(t, "b", onFaulty(&faulty{}))
				a.write("/x", cloudHas)
				converge(t, a, b)
				known, err := a.k.x.row("/x")
				must(t, err)
				known.ctime += int64(before)
				a.k.x.put("/x", known)
				must(t, a.k.x.commit(true))
				lose(a, "/x")
				a.c.clock = clock.NewFake(time.Now().Add(now))
				a.poweredOff(time.Now().Add(now).Add(-time.Minute).UnixNano())
				converge(t, a, b)
				same(t, "the other", b.tree(), a.tree())
				if got := b.tree(); !strings.Contains(got, cloudHas+"\"\n") || name == "written" && !strings.Contains(got, "written since") {
					t.Errorf("%s, clock %v and then %v:\n%s", name, before, now, got)
				}
			}
		}
	}
}

// later has the times of a file be later than they were, as the system counts in steps.
func later(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	_, was := identity(info)
	for now := was; now <= was; {
		must(t, os.Chmod(path, info.Mode()))
		info, err = os.Stat(path)
		must(t, err)
		_, now = identity(info)
	}
}

// TestMoreAfterAPowerCutIsAnEdit, as of a file that was being appended to.
func TestMoreAfterAPowerCutIsAnEdit(t *testing.T) {
	a := newDevice(t, "a", onFaulty(&faulty{}))
	a.write("/x", cloudHas)
	a.sync()
	a.write("/x", cloudHas+", and more")
	a.poweredOff(0)
	a.sync()
	want := fmt.Sprintf("/x %q\n", cloudHas+", and more")
	same(t, "disk", a.tree(), want)
	same(t, "cloud", a.cloud.tree(), want)
	a.wantCalm()
}

// TestAnEmptyFileAfterAPowerCutStandsBesideWhatWasThere, although the disk had that for
// sure: the new content never reached the cloud.
func TestAnEmptyFileAfterAPowerCutStandsBesideWhatWasThere(t *testing.T) {
	for text, want := range map[string]int{"": 2, "\x00\x00": 2, "\x00x": 1} {
		a := newDevice(t, "a", onFaulty(&faulty{}))
		a.write("/x", cloudHas)
		a.sync()
		a.ripen()
		a.write("/x", text)
		a.poweredOff(nothingSince)
		a.sync()
		a.sync()
		got := a.tree()
		if strings.Count(got, "\n") != want || strings.Contains(got, cloudHas) != (want == 2) {
			t.Errorf("%q:\n%s", text, got)
		}
		a.write("/x", "")
		a.sync()
		if got := a.tree(); strings.Count(got, "\n") != want {
			t.Errorf("%q, and then emptied:\n%s", text, got)
		}
	}
}

// TestWhatCantBeWrittenAgainIsNotTakenForRemoved: it is tried until it is there.
func TestWhatCantBeWrittenAgainIsNotTakenForRemoved(t *testing.T) {
	f := &faulty{}
	a := newDevice(t, "a", onFaulty(f))
	for _, p := range []string{"/full", "/d/in"} {
		a.write(p, cloudHas)
	}
	a.sync()
	want := a.tree()
	a.remove("/full")
	a.remove("/d")
	f.hook = func(op, _ string) error {
		if op == "create" || op == "mkdir" {
			return syscall.EACCES
		}
		return nil
	}
	a.poweredOff(nothingSince)
	a.sync()
	a.sync()
	a.wantNotice(CodeDenied)
	same(t, "cloud", a.cloud.tree(), want)
	a.again() // and not even then
	a.sync()
	same(t, "cloud", a.cloud.tree(), want)
	f.hook = nil
	a.again()
	a.sync()
	a.sync()
	same(t, "disk", a.tree(), want)
	same(t, "cloud", a.cloud.tree(), want)
	a.wantNotice(CodeBack)
	a.remove("/full")
	a.sync()
	if strings.Contains(a.cloud.tree(), "/full") {
		t.Error("it can't be removed")
	}
}

// TestAPowerCutBeforeAllIsWrittenAgain, and one after it.
func TestAPowerCutBeforeAllIsWrittenAgain(t *testing.T) {
	f := &faulty{}
	a := newDevice(t, "a", onFaulty(f))
	for i := range 5 {
		a.write(fmt.Sprint("/", i), cloudHas)
	}
	a.sync()
	want := a.tree()
	for i := range 5 {
		a.remove(fmt.Sprint("/", i))
	}
	for left := range 12 {
		f.bomb = &bomb{left: left}
		a.poweredOff(nothingSince)
		_ = a.k.Sync(t.Context())
	}
	f.bomb = nil
	a.poweredOff(nothingSince)
	a.sync()
	same(t, "disk", a.tree(), want)
	same(t, "cloud", a.cloud.tree(), want)
}

// TestSparseFoldersGetBackWhatAPowerCutTook, and nothing else.
func TestSparseFoldersGetBackWhatAPowerCutTook(t *testing.T) {
	a := newDevice(t, "a", onFaulty(&faulty{}))
	b := newDevice(t, "b", onFaulty(&faulty{}), func(c *config) { c.sparse = true })
	a.write("/there", "elsewhere")
	converge(t, a, b)
	b.write("/made", cloudHas)
	b.sync()
	b.remove("/made")
	b.poweredOff(nothingSince)
	b.sync()
	same(t, "disk", b.tree(), fmt.Sprintf("/made %q\n", cloudHas))
}

// TestTheDiskIsSyncedOnce after a change, and then there is quiet.
func TestTheDiskIsSyncedOnce(t *testing.T) {
	syncs := 0
	var fails error
	a := newDevice(t, "a", onFaulty(&faulty{hook: func(op, _ string) error {
		if op != "sync all" {
			return nil
		}
		syncs++
		return fails
	}}))
	ripen := func() {
		a.clock.Advance(youngTime)
		a.k.work.Wait()
	}
	a.write("/x", "1")
	a.sync()
	ripen()
	a.write("/y", "2") // in the period that follows
	a.sync()
	if syncs != 0 {
		t.Fatal("it was synced before it had time to rest")
	}
	fails = syscall.EIO
	ripen()
	if a.k.x.p.synced != 0 || syncs != 1 {
		t.Fatalf("%+v after %d syncs", a.k.x.p, syncs)
	}
	fails = nil
	ripen()
	if a.k.x.p.synced != 2 || syncs != 2 {
		t.Fatalf("%+v after %d syncs", a.k.x.p, syncs)
	}
	for range 5 {
		ripen()
		a.sync()
	}
	if syncs != 2 || a.clock.Waiting() != 0 {
		t.Errorf("%d syncs, %d timers", syncs, a.clock.Waiting())
	}
	a.again()
	a.sync()
	if a.clock.Waiting() != 0 {
		t.Error("it waits for a disk that has all")
	}
	a.write("/x", "3")
	a.sync()
	a.again()
	a.sync() // who starts again on the same boot goes on
	ripen()
	ripen()
	if p := a.k.x.p; syncs != 3 || p.synced != p.last {
		t.Errorf("%+v after %d syncs", p, syncs)
	}
	if _, before := a.k.x.before("/x"); len(before) > 0 {
		t.Errorf("what was before is still known: %d", len(before))
	}
}

// TestRowsOfOlderVersionsAreRead: they are of what the disk has for sure.
func TestRowsOfOlderVersionsAreRead(t *testing.T) {
	b, err := hex.DecodeString("010100a40305aab4aed8c7bfce972f09acb4aed8c7bfce972f" + strings.Repeat("ab", 32) + "73")
	must(t, err)
	r, err := readRow(b)
	must(t, err)
	if r.size != 5 || r.mode != 0o644 || r.inode != 9 || r.stamp != "s" || r.hash[31] != 0xab || r.young != 0 {
		t.Errorf("%+v", r)
	}
	r.young = 7
	again, err := readRow(appendRow(nil, r))
	must(t, err)
	if !reflect.DeepEqual(r, again) {
		t.Errorf("%+v is %+v", r, again)
	}
}

func FuzzReadBefore(f *testing.F) {
	f.Add(appendBefore(nil, 3, []*row{{stat: stat{kind: kindFile, size: 5}, stamp: "s"}, {stat: stat{kind: kindDir}}}))
	f.Add([]byte{1, 1, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		period, rows := readBefore(b)
		again, same := readBefore(appendBefore(nil, period, rows))
		if again != period || !reflect.DeepEqual(rows, same) {
			t.Errorf("%d, %+v is %d, %+v", period, rows, again, same)
		}
		p := readPeriods(b)
		if readPeriods([]byte(p.String())) != p {
			t.Errorf("%+v", p)
		}
	})
}

// TestComparing holds what is said of contents, also of those that are longer than what
// is read at once.
func TestComparing(t *testing.T) {
	const n = 300_000
	text := strings.Repeat("0123456789", n/10)
	hole := text[:n/2] + strings.Repeat("\x00", n/2)
	for name, c := range map[string]struct {
		now               string
		zeros, less, more bool
	}{
		"same":     {text, false, true, true},
		"empty":    {"", true, true, false},
		"prefix":   {text[:n-1], false, true, false},
		"hole":     {hole, false, true, false},
		"zeros":    {strings.Repeat("\x00", n+1), true, true, false},
		"longer":   {text + "x", false, false, true},
		"zeros on": {text + "\x00", false, true, true},
		"other":    {text[:n-1] + "x", false, false, false},
	} {
		a := newDevice(t, "a", onFaulty(&faulty{}))
		a.write("/x", text)
		a.sync()
		a.write("/x", c.now)
		f, err := a.c.open(a.dir)
		must(t, err)
		r := &round{k: a.k, x: a.k.x, source: a.cloud, files: f}
		now, err := f.lstat("/x")
		must(t, err)
		e, err := a.cloud.stat(context.Background(), "/x")
		must(t, err)
		got, err := r.comparing(t.Context(), "/x", &now, e)
		must(t, err)
		hash, err := hashOf(bytes.NewReader([]byte(c.now)))
		must(t, err)
		if got.zeros != c.zeros || got.less != c.less || got.more != c.more || got.hash != hash {
			t.Errorf("%s: %+v", name, got)
		}
		must(t, f.close())
	}
}
