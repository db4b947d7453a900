package hyperbee

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// What was acknowledged is there after any crash, and of a batch all or nothing.
func TestBatchesOutliveCrashesWholeOrNotAtAll(t *testing.T) {
	type crash struct {
		disk  *storagetest.Faulty
		acked uint64
		point uint64
	}
	ctx := context.Background()
	kp := keyPairN(1)
	open := func(disk *storagetest.Faulty) (*Tree, func()) {
		e, err := disk.Disk().Open()
		must(t, err)
		store, err := storage.Open(e, storage.Options{})
		must(t, err)
		log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
		must(t, err)
		tree, err := Open(log, Options{})
		must(t, err)
		return tree, func() {
			must(t, log.Close())
			must(t, store.Close())
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	disk := storagetest.NewFaulty()
	var mu sync.Mutex
	var crashes []crash
	acked := uint64(1)
	tree, done := open(disk)
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%9 == 0 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), acked, p.Number})
		}
	})
	now := map[string]Entry{}
	states := map[uint64]map[string]Entry{1: now}
	for range 120 {
		b, err := tree.Batch(ctx)
		must(t, err)
		now = maps.Clone(now)
		seq := tree.Version()
		for range 1 + rng.IntN(30) {
			key := fmt.Append(nil, "key ", rng.IntN(80))
			if _, ok := now[string(key)]; ok && rng.IntN(3) == 0 {
				must(t, b.Delete(ctx, key))
				delete(now, string(key))
			} else {
				value := fmt.Append(nil, rng.IntN(1000))
				must(t, b.Put(ctx, key, value))
				now[string(key)] = Entry{seq, key, value}
			}
			seq++
		}
		states[seq] = now
		must(t, b.Flush(ctx))
		mu.Lock()
		acked = tree.Version()
		mu.Unlock()
	}
	disk.Hook(nil)
	done()
	if len(crashes) < 20 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for _, c := range crashes {
		tree, done := open(c.disk)
		want, ok := states[tree.Version()]
		if !ok || tree.Version() < c.acked {
			t.Errorf("after a crash at write point %d the version is %d, and %d was acknowledged", c.point, tree.Version(), c.acked)
		} else if got := list(t, tree, RangeOptions{}); !slices.EqualFunc(got, wantRange(want, "", RangeOptions{}), same) {
			t.Errorf("after a crash at write point %d version %d has %d entries, want %d", c.point, tree.Version(), len(got), len(want))
		}
		done()
	}
}
