package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// session opens the store in a folder, writes to it, and closes it.
func session(dir string) error {
	e, err := Disk{Dir: dir}.Open()
	if err != nil {
		return err
	}
	var b Batch
	b.Set([]byte("key"), make([]byte, 100))
	return errors.Join(e.Apply(&b, Durable), e.Close())
}

// run runs a program that is on every machine of its kind.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there is no " + name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// rsync has a folder be what another one is, as rsync -a --delete does: what has
// the same size and time is left alone.
func rsync(t *testing.T, from, to string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := os.DirFS(from)
	check(fs.WalkDir(os.DirFS(to), ".", func(name string, e fs.DirEntry, err error) error {
		if _, gone := fs.Stat(in, name); gone != nil && !e.IsDir() {
			return os.Remove(filepath.Join(to, name))
		}
		return err
	}))
	check(fs.WalkDir(in, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return errors.Join(err, os.MkdirAll(filepath.Join(to, name), 0o700))
		}
		st, err := e.Info()
		check(err)
		path := filepath.Join(to, name)
		if have, err := os.Stat(path); err == nil && have.Size() == st.Size() && have.ModTime().Equal(st.ModTime()) {
			return nil
		}
		r, err := in.Open(name)
		check(err)
		w, err := os.Create(path + ".rsync")
		check(err)
		_, err = io.Copy(w, r)
		check(errors.Join(err, r.Close(), w.Close(), os.Chtimes(w.Name(), st.ModTime(), st.ModTime()), os.Rename(w.Name(), path)))
		return nil
	}))
}

// A store is the same one whatever is done to its folder, and another one as soon
// as it was copied or put back, by whatever program.
func TestAStoreKnowsThatItWasCopied(t *testing.T) {
	for _, c := range []struct {
		what   string
		do     func(t *testing.T, store, backup string) (then string)
		copied bool
	}{
		{"nothing", func(_ *testing.T, store, _ string) string { return store }, false},
		{"rename", func(t *testing.T, store, _ string) string {
			moved := filepath.Join(filepath.Dir(filepath.Dir(store)), "moved")
			if err := os.Rename(filepath.Dir(store), moved); err != nil { // the folder that it is in
				t.Fatal(err)
			}
			return filepath.Join(moved, "store")
		}, false},
		{"touch", func(t *testing.T, store, _ string) string {
			run(t, "touch", store, filepath.Join(store, "LOCK"))
			return store
		}, false},
		{"cp -a beside", func(_ *testing.T, _, backup string) string { return backup }, true},
		{"cp -a in its place", func(t *testing.T, store, backup string) string {
			run(t, "rm", "-rf", store)
			run(t, "cp", "-a", backup, store)
			return store
		}, true},
		{"cp -a over it", func(t *testing.T, store, backup string) string {
			clean(t, store, backup)
			run(t, "cp", "-a", backup+"/.", store)
			return store
		}, true},
		{"tar over it", func(t *testing.T, store, backup string) string {
			clean(t, store, backup)
			run(t, "tar", "-C", backup, "-cf", backup+".tar", ".")
			run(t, "tar", "-C", store, "-xpf", backup+".tar")
			return store
		}, true},
		{"rsync -a over it", func(t *testing.T, store, backup string) string {
			rsync(t, backup, store)
			return store
		}, true},
		{"to another disk", func(t *testing.T, store, _ string) string {
			other, err := os.MkdirTemp("/dev/shm", "store")
			if err != nil {
				t.Skip("there is no other disk")
			}
			t.Cleanup(func() { os.RemoveAll(other) })
			run(t, "mv", store, other)
			return filepath.Join(other, "store")
		}, true},
		{"another owner or mode", func(t *testing.T, store, _ string) string {
			run(t, "chmod", "-R", "g-r", store)
			return store
		}, runtime.GOOS != "windows"},
	} {
		t.Run(c.what, func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "home", "store")
			if err := session(store); err != nil {
				t.Fatal(err)
			}
			backup := filepath.Join(t.TempDir(), "store")
			run(t, "cp", "-a", store, backup)
			if err := session(store); err != nil {
				t.Fatal(err)
			}
			then := c.do(t, store, backup)
			err := session(then)
			var copied *CopiedError
			if got := errors.As(err, &copied); got != c.copied || err != nil && !got {
				t.Fatalf("opening it: %v", err)
			}
			if !c.copied {
				return
			}
			if err := session(then); !errors.As(err, &copied) {
				t.Errorf("opening it again: %v", err)
			}
			e, err := Disk{Dir: then, Adopt: true}.Open()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(e.Close(), session(then)); err != nil {
				t.Errorf("once it is adopted: %v", err)
			}
		})
	}
}

// clean removes from a store what is not in its backup, as who restores has to do:
// a mix of both is refused.
func clean(t *testing.T, store, backup string) {
	t.Helper()
	list, err := os.ReadDir(store)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if _, err := os.Stat(filepath.Join(backup, e.Name())); err != nil && !e.IsDir() {
			if err := os.Remove(filepath.Join(store, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A process that is killed at any time leaves a store that is where it was, with
// one mark.
func TestAKilledStoreIsWhereItWas(t *testing.T) {
	if dir := os.Getenv("BEVY_KILLED_STORE"); dir != "" {
		e, err := Disk{Dir: dir}.Open()
		if err == nil {
			var b Batch
			b.Set([]byte("key"), make([]byte, 100))
			err = e.Apply(&b, Durable)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		os.Exit(0) // nothing is closed
	}
	dir := filepath.Join(t.TempDir(), "store")
	for range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAKilledStoreIsWhereItWas$")
		cmd.Env = append(os.Environ(), "BEVY_KILLED_STORE="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := session(dir); err != nil {
		t.Fatal(err)
	}
	if n := len(marks(t, dir)); n != 1 {
		t.Errorf("there are %d marks", n)
	}
}

func marks(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, markPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A store from before there were marks is no copy, and gets one.
func TestAnOldStoreGetsAMark(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := session(dir); err != nil {
		t.Fatal(err)
	}
	set := func(place string) {
		t.Helper()
		for _, m := range append(marks(t, dir), filepath.Join(dir, sealName)) {
			if err := os.Remove(m); err != nil {
				t.Fatal(err)
			}
		}
		d := newDisk(Disk{Dir: dir, FS: vfs.Default, Clock: clock.System, MinFree: 1})
		db, err := pebble.Open(dir, d.pebbleOptions())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Set([]byte("mplace"), []byte(place), pebble.Sync), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	d := newDisk(Disk{Dir: dir, FS: vfs.Default})
	set(d.firstPlace())
	if err := session(dir); err != nil {
		t.Fatal(err)
	}
	if n := len(marks(t, dir)); n != 1 {
		t.Errorf("there are %d marks", n)
	}
	for _, other := range []string{"machine x folder 1", "machine " + machineID() + " file ../LOCK changed 1.0", "machine " + machineID() + " file " + markPrefix + "0 changed 1.0", "machine", "", noPlace} {
		set(other)
		var copied *CopiedError
		if err := session(dir); !errors.As(err, &copied) {
			t.Errorf("at %q: %v", other, err)
		}
		if e, err := (Disk{Dir: dir, Adopt: true}).Open(); err != nil {
			t.Fatal(err)
		} else if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Some file systems forget parts of a second when they have to.
func TestMarksWithoutPartsOfASecond(t *testing.T) {
	for _, c := range []struct {
		was, now string
		same     bool
	}{
		{"changed 5.123456789", "changed 5.123456789", true},
		{"changed 5.123456789", "changed 5.000000000", true},
		{"changed 5.123456789", "changed 6.000000000", false},
		{"changed 5.000000000", "changed 5.123456789", false},
		{"number 1 2 3", "number 1 2 3", true},
		{"number 1 2 3", "number 1 2 4", false},
	} {
		if got := sameMark(c.was, c.now); got != c.same {
			t.Errorf("%q and %q are the same: %v", c.was, c.now, got)
		}
	}
}
