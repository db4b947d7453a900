package tree

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// What was acknowledged is there after any power cut, of a batch all or nothing,
// and the device goes on with later times.
func TestBatchesOutlivePowerCuts(t *testing.T) {
	type crash struct {
		disk  *storagetest.Faulty
		acked int // batches
	}
	ctx := context.Background()
	kp := keyPairN(1)
	other := newPeer(t, 2)
	other.put("k 3", "theirs")
	now := clock.NewFake(start)
	open := func(disk *storagetest.Faulty) (*Tree, func()) {
		e, err := disk.Disk().Open()
		must(t, err)
		store, err := storage.Open(e, storage.Options{})
		must(t, err)
		log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
		must(t, err)
		bee, err := hyperbee.Open(log, hyperbee.Options{})
		must(t, err)
		tree := New(Options{Clock: now})
		must(t, tree.Own(bee))
		must(t, tree.Add(other.bee(2), 0))
		return tree, func() {
			must(t, tree.Close())
			must(t, log.Close())
			must(t, store.Close())
		}
	}
	shown := func(tree *Tree) (out []string) {
		for _, e := range entries(t, tree, hyperbee.RangeOptions{}) {
			out = append(out, show(e))
		}
		return out
	}
	rng := rand.New(rand.NewPCG(1, 2))
	disk := storagetest.NewFaulty()
	var mu sync.Mutex
	var crashes []crash
	acked := 0
	tree, done := open(disk)
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%4 == 0 {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), acked})
		}
	})
	states := [][]string{shown(tree)}
	for range 60 {
		b, err := tree.Batch(ctx)
		must(t, err)
		for range 1 + rng.IntN(20) {
			key := fmt.Append(nil, "k ", rng.IntN(30))
			if rng.IntN(3) == 0 {
				must(t, b.Delete(ctx, key))
			} else {
				must(t, b.Put(ctx, key, fmt.Append(nil, rng.IntN(1000))))
			}
		}
		if b.Len() == 0 {
			b.Close()
			continue
		}
		must(t, b.Flush(ctx))
		states = append(states, shown(tree))
		mu.Lock()
		acked++
		mu.Unlock()
	}
	disk.Hook(nil)
	done()
	if len(crashes) < 20 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for i, c := range crashes {
		tree, done := open(c.disk)
		got := shown(tree)
		n := slices.IndexFunc(states, func(s []string) bool { return slices.Equal(s, got) })
		if n < c.acked {
			t.Errorf("after crash %d there is state %d, and %d was acknowledged", i, n, c.acked)
		}
		b, err := tree.Batch(ctx)
		must(t, err)
		for _, e := range entries(t, tree, hyperbee.RangeOptions{}) {
			if !e.Time.Before(b.Time()) {
				t.Errorf("after crash %d the time is %v, and %s was said at %v", i, b.Time(), e.Key, e.Time)
			}
		}
		must(t, b.Put(ctx, []byte("after"), nil))
		must(t, b.Flush(ctx))
		done()
	}
}
