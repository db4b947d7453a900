package cloud

import (
	"slices"
	"testing"

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
