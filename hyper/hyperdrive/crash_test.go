package hyperdrive

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// What was acknowledged is there after any crash with all its contents, of a batch
// all or nothing, and never an entry whose contents are not there.
func TestFilesOutliveCrashesWholeOrNotAtAll(t *testing.T) {
	type crash struct {
		disk  *storagetest.Faulty
		acked uint64
		point uint64
	}
	ctx := t.Context()
	open := func(disk *storagetest.Faulty) (*Drive, func()) {
		e, err := disk.Disk().Open()
		must(t, err)
		primary := [32]byte{9}
		store, err := corestore.Open(e, corestore.Options{PrimaryKey: &primary})
		must(t, err)
		d, err := Open(store, Options{})
		must(t, err)
		return d, func() {
			must(t, d.Close())
			must(t, store.Close())
		}
	}
	disk := storagetest.NewFaulty()
	var mu sync.Mutex
	var crashes []crash
	acked := uint64(1)
	d, done := open(disk)
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%23 == 0 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), acked, p.Number})
		}
	})
	rng := rand.New(rand.NewPCG(3, 4))
	now := map[string]string{}
	states := map[uint64]map[string]string{1: now}
	data := func() string {
		return strings.Repeat(fmt.Sprint(rng.IntN(1000), " "), []int{0, 1, 50, 5000, 60_000}[rng.IntN(5)])
	}
	seq := uint64(1)
	set := func(path, data string) {
		now = maps.Clone(now)
		now[path] = data
		seq++
	}
	for range 60 {
		path, data1 := fmt.Sprint("/", rng.IntN(30)), data()
		// The state is known before the entry can be on the disk.
		switch rng.IntN(3) {
		case 0:
			set(path, data1)
			mu.Lock()
			states[seq] = now
			mu.Unlock()
			must(t, d.Put(ctx, path, []byte(data1), PutOptions{}))
		case 1:
			f, err := d.Create(ctx, path, PutOptions{})
			must(t, err)
			_, err = io.Copy(f, strings.NewReader(data1))
			must(t, err)
			set(path, data1)
			mu.Lock()
			states[seq] = now
			mu.Unlock()
			must(t, f.Close())
		case 2:
			b, err := d.Batch(ctx)
			must(t, err)
			for range 1 + rng.IntN(10) {
				path, data := fmt.Sprint("/", rng.IntN(30)), data()
				must(t, b.Put(ctx, path, []byte(data), PutOptions{}))
				set(path, data)
			}
			mu.Lock()
			states[seq] = now
			mu.Unlock()
			must(t, b.Flush(ctx))
		}
		mu.Lock()
		acked = d.Version()
		mu.Unlock()
	}
	disk.Hook(nil)
	done()
	if len(crashes) < 20 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for _, c := range crashes {
		d, done := open(c.disk)
		want, ok := states[d.Version()]
		if !ok || d.Version() < c.acked {
			t.Errorf("after a crash at write point %d the version is %d, and %d was acknowledged", c.point, d.Version(), c.acked)
			done()
			continue
		}
		if got := paths(t, d, "", ListOptions{}); len(got) != len(want) {
			t.Errorf("after a crash at write point %d there are %d files, want %d", c.point, len(got), len(want))
		}
		for path, data := range want {
			if got, err := d.ReadFile(ctx, path); err != nil || string(got) != data {
				t.Errorf("after a crash at write point %d: %s: got %d bytes and error %v, want %d", c.point, path, len(got), err, len(data))
			}
		}
		// It goes on.
		must(t, d.Put(ctx, "/after", []byte("after"), PutOptions{}))
		if got, err := d.ReadFile(ctx, "/after"); err != nil || string(got) != "after" {
			t.Errorf("after a crash at write point %d: got %q and error %v of what was put then", c.point, got, err)
		}
		done()
	}
}
