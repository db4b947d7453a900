package cloudlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudbevy/bevy/internal/natlab"
)

var (
	attic  = place{"attic", natlab.Open}
	laptop = place{"laptop", natlab.PortRestricted}
	oak    = place{"oak", natlab.Open}
)

// copyAll copies a folder as a backup does.
func copyAll(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// holds waits until files have a content on the disks of machines.
func (l *lab) holds(files map[string]string, all ...*machine) {
	l.t.Helper()
	l.await("files arrive", time.Minute, func() string {
		for _, m := range all {
			for path, text := range files {
				if !m.has(path, text) {
					return fmt.Sprintf("%s has no %s", m.name, path)
				}
			}
		}
		return ""
	})
}

// A machine that is lost for good takes nothing with it, and one that was taken
// out of the cloud gets nothing new.
func TestLostAndRemovedMachines(t *testing.T) {
	l := newLab(t)
	all := l.family(attic, laptop, oak)
	attic, laptop, oak := all[0], all[1], all[2]
	files := map[string]string{}
	for i := range 9 {
		name, text := fmt.Sprintf("d/%d.txt", i), strings.Repeat(fmt.Sprint("text ", i), 1<<(2*i))
		all[i%3].write(name, text)
		files[name] = text
	}
	l.settle(all, time.Minute)
	oak.kill()
	for _, dir := range []string{oak.home, oak.folder} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	laptop.write("later.txt", "later")
	files["later.txt"] = "later"
	l.holds(files, laptop, attic)
	l.sound([]*machine{laptop, attic})

	attic.must("machines", "rm", "oak", "--yes")
	attic.must("machines", "rm", "laptop", "--yes")
	attic.write("secret.txt", "secret")
	l.await("attic has kept it", 20*time.Second, func() string {
		if f, err := attic.things(); err != nil || f.State != "safe" || f.Files != 11 {
			return text(f)
		}
		return ""
	})
	time.Sleep(2 * time.Second) // it would come within this
	if laptop.has("secret.txt", "secret") {
		t.Error("laptop has got what was written after it was removed")
	}
	for path, text := range files {
		if !laptop.has(path, text) {
			t.Errorf("laptop has lost %s", path)
		}
	}
}

// A store that was copied and started beside the first goes on in logs of its own,
// and one that was put back from a backup, too: no log forks, and nothing is lost.
func TestCopiesAndBackups(t *testing.T) {
	l := newLab(t)
	all := l.family(attic, oak)
	attic, oak := all[0], all[1]
	files := map[string]string{}
	put := func(m *machine, name string) {
		t.Helper()
		if err := m.put("/"+name, []byte(name)); err != nil {
			t.Fatal(err)
		}
		files[name] = name
	}

	// A machine that has the folder in its store alone.
	laptop := l.machine(laptop)
	laptop.up()
	laptop.joins(attic)
	l.await("laptop knows the folder", 30*time.Second, func() string {
		_, err := laptop.things()
		if err != nil {
			return err.Error()
		}
		return ""
	})
	put(laptop, "one")
	l.holds(files, attic, oak)
	laptop.kill()
	twin := l.machine(place{"twin", natlab.Open})
	if err := os.Remove(twin.home); err != nil {
		t.Fatal(err)
	}
	copyAll(t, laptop.home, twin.home)
	laptop.up()
	twin.up()
	put(laptop, "two")
	put(twin, "three")
	l.holds(files, attic, oak)
	twin.kill()

	// A backup of one that others know the future of.
	oak.kill()
	backup := oak.home + ".backup"
	copyAll(t, oak.home, backup)
	oak.up()
	put(oak, "four")
	oak.write("five", "five")
	files["five"] = "five"
	l.holds(files, attic, oak)
	oak.kill()
	// What is put back must not get the number that the file system has given to
	// what was there: that is what a copy is known by.
	if err := os.Rename(oak.home, oak.home+".broken"); err != nil {
		t.Fatal(err)
	}
	copyAll(t, backup, oak.home)
	oak.up()
	oak.must("add", "--no-wait", oak.folder) // it is another device now, which keeps nothing by itself
	put(oak, "six")
	put(attic, "seven")
	l.holds(files, attic, oak)
	l.sound([]*machine{attic, oak, laptop})
}

// A folder that was deleted by mistake is asked about; a second node on one home
// is the first.
func TestMistakes(t *testing.T) {
	l := newLab(t)
	all := l.family(attic, oak)
	attic, oak := all[0], all[1]
	files := map[string]string{}
	for i := range 12 {
		name := fmt.Sprintf("d/%d.txt", i)
		files[name] = name
		attic.write(name, name)
	}
	l.settle(all, time.Minute)

	if err := os.RemoveAll(filepath.Join(oak.folder, "d")); err != nil {
		t.Fatal(err)
	}
	l.await("oak asks", 20*time.Second, func() string {
		st, err := oak.status()
		if err != nil {
			return err.Error()
		}
		for _, n := range st.Notices {
			if n.Code == "mass-delete" {
				return ""
			}
		}
		return text(st.Notices)
	})
	oak.must("folder", "restore", "Things")
	l.holds(files, attic, oak)
	l.settle(all, time.Minute)

	if out := oak.must("up", "--json"); !strings.Contains(out, `"event":"running"`) {
		t.Errorf("a second node says %s", out)
	}
	if _, err := oak.status(); err != nil {
		t.Error(err)
	}
}

// A folder whose disk is full says so, and goes on when there is room.
func TestDiskFull(t *testing.T) {
	l := newLab(t)
	m := l.machine(oak)
	if err := unix.Mount("cloudlab", m.folder, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("NOTHING IS PROVED HERE: mount: %v", err)
	}
	t.Cleanup(func() {
		m.kill()
		if err := unix.Unmount(m.folder, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	m.up()
	attic := l.machine(attic)
	attic.up()
	m.joins(attic)
	files := map[string]string{"big": strings.Repeat("big ", 1<<17), "small": "small"}
	for name, text := range files {
		attic.write(name, text)
	}
	attic.must("add", attic.folder)
	l.await("oak knows the folder", 30*time.Second, func() string {
		_, err := m.things()
		if err != nil {
			return err.Error()
		}
		return ""
	})
	m.must("add", "--no-wait", m.folder)
	l.await("oak says that its disk is full", 30*time.Second, func() string {
		st, err := m.status()
		if err != nil {
			return err.Error()
		}
		for _, n := range st.Notices {
			if n.Code == "disk-full" {
				return ""
			}
		}
		return text(st.Notices)
	})
	if err := unix.Mount("", m.folder, "", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	l.holds(files, attic, m)
	l.settle([]*machine{attic, m}, time.Minute)
}
