package hyperbee

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

func TestGettingDoesNotAllocateForEachLevel(t *testing.T) {
	tree := filled(t, 20_000, Options{Cache: NewCache(64 << 20)})
	ctx := context.Background()
	keys := make([][]byte, 100)
	for i := range keys {
		keys[i] = benchKey(nil, i*173)
	}
	get := func() {
		for _, key := range keys {
			_, err := tree.Get(ctx, key)
			must(t, err)
		}
	}
	get()
	// The entry is one allocation: its key and value.
	if n := testing.AllocsPerRun(10, get) / float64(len(keys)); n > 1 {
		t.Errorf("a get allocates %.2f times, want once", n)
	}
}

func TestTheCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	c := NewCache(20_000).newLog()
	c.turn(1)
	one := func(seq uint64) *block {
		b, err := decode(seq, rawBlock("key", make([]byte, 100), leaf(1)))
		must(t, err)
		return b
	}
	c.add(1, one(7))
	for seq := uint64(100); seq < 2000; seq++ {
		if c.get(1, 7, false) == nil {
			t.Fatalf("a block that is always used is gone after %d others", seq-100)
		}
		c.add(1, one(seq))
		c.add(1, one(seq))
		sum := 0
		for _, b := range c.blocks {
			sum += b.cost()
		}
		if c.bytes > c.max || sum != c.bytes || len(c.ring) != len(c.blocks) {
			t.Fatalf("%d bytes of %d in %d blocks, which cost %d", c.bytes, c.max, len(c.blocks), sum)
		}
	}
	if len(c.blocks) < 20 {
		t.Errorf("it keeps %d blocks only", len(c.blocks))
	}
	big, err := decode(5, rawBlock("key", make([]byte, 10_000), leaf(1)))
	must(t, err)
	if c.add(1, big); c.get(1, 5, false) != nil {
		t.Error("a block that is half of it is kept")
	}
	if c.get(2, 7, false) != nil {
		t.Error("another fork has the block")
	}
	if !c.turn(2) || len(c.blocks) != 0 || c.bytes != 0 || c.turn(1) {
		t.Error("it does not turn to a new fork, or turns back")
	}
	c.add(1, one(8))
	if c.add(2, one(9)); c.get(2, 8, false) != nil || c.get(2, 9, false) == nil {
		t.Error("it keeps what is of another fork")
	}
}

// What a search needs of blocks with large values stays longer than the values.
func TestTheCacheKeepsKeysAndNodesLongerThanValues(t *testing.T) {
	c := NewCache(100_000).newLog()
	c.turn(1)
	const n = 200
	one := func(seq uint64) *block {
		b, err := decode(seq, rawBlock(fmt.Sprint("key ", seq), make([]byte, 1000), leaf(1)))
		must(t, err)
		return b
	}
	for seq := uint64(100); seq < 100+n; seq++ {
		c.add(1, one(seq))
	}
	full, brief := 0, 0
	for seq := uint64(100); seq < 100+n; seq++ {
		b := c.get(1, seq, true)
		if b == nil {
			continue
		}
		brief++
		if string(b.key) != fmt.Sprint("key ", seq) {
			t.Fatalf("block %d has the key %q", seq, b.key)
		}
		var have, want node
		must(t, b.node(0, false, &have))
		must(t, one(seq).node(0, false, &want))
		if have != want {
			t.Fatalf("block %d has another node", seq)
		}
		if b := c.get(1, seq, false); b != nil {
			full++
			if len(b.value) != 1000 {
				t.Fatalf("block %d has a value of %d bytes", seq, len(b.value))
			}
		}
	}
	if brief < n*9/10 || full > 80 || full < 5 {
		t.Errorf("of %d blocks it has %d keys and %d values", n, brief, full)
	}
	// A value that is wanted again is there afterwards, in place of the key alone.
	for seq := uint64(100); seq < 100+n; seq++ {
		if c.get(1, seq, true) != nil && c.get(1, seq, false) == nil {
			c.add(1, one(seq))
			if b := c.get(1, seq, false); b == nil || len(b.value) != 1000 {
				t.Fatalf("block %d has no value", seq)
			}
			break
		}
	}
	sum := 0
	for i, b := range c.ring {
		if sum += b.cost(); b.at != i || c.blocks[b.seq] != b {
			t.Fatalf("block %d is not where it is", b.seq)
		}
	}
	if sum != c.bytes || sum > c.max || len(c.ring) != len(c.blocks) {
		t.Errorf("%d bytes of %d in %d blocks, which cost %d", c.bytes, c.max, len(c.blocks), sum)
	}
}

func TestDatabasesInATreeAreApart(t *testing.T) {
	tree := newTree(t, 1, Options{})
	a, b := tree.Sub([]byte("a")), tree.Sub([]byte("b"))
	aa := a.Sub([]byte("a"))
	for _, db := range []*Tree{tree, a, b, aa} {
		for _, key := range []string{"", "k", "\x00", "\xff\xff"} {
			put(t, db, key, string(db.prefix)+"!"+key)
		}
	}
	for _, db := range []*Tree{a, b, aa} {
		var got []string
		for _, e := range list(t, db, RangeOptions{}) {
			if !strings.HasPrefix(string(e.Key), "a\x00") { // of the one in it
				got = append(got, string(e.Key))
			}
			if want := string(db.prefix) + string(e.Key); strings.ReplaceAll(string(e.Value), "!", "") != want {
				t.Errorf("%q has %q", want, e.Value)
			}
		}
		if fmt.Sprintf("%q", got) != `["" "\x00" "k" "\xff\xff"]` {
			t.Errorf("the database %q has %q", db.prefix, got)
		}
	}
	if got := list(t, a, RangeOptions{Reverse: true, Limit: 1}); len(got) != 1 || string(got[0].Key) != "\xff\xff" {
		t.Errorf("the last of it is %v", got)
	}
	del(t, b, "k")
	if _, err := a.Get(context.Background(), []byte("k")); err != nil {
		t.Errorf("what was deleted in another is gone here: %v", err)
	}
	n := 0
	for c, err := range b.History(context.Background(), HistoryOptions{}) {
		must(t, err)
		if n++; n == 5 && (string(c.Key) != "k" || !c.Deleted) {
			t.Errorf("the last change is %+v", c)
		}
	}
	if n != 5 {
		t.Errorf("its history has %d changes, want 5", n)
	}
}

func TestVersionsOfThePastStay(t *testing.T) {
	ctx := context.Background()
	tree := newTree(t, 1, Options{})
	put(t, tree, "a", "1")
	put(t, tree, "b", "2")
	snapshot, err := tree.Snapshot()
	must(t, err)
	defer snapshot.Close()
	sub := snapshot.Sub([]byte("none"))
	defer sub.Close()
	earlier, err := snapshot.Checkout(2)
	must(t, err)
	must(t, tree.Log().Truncate(ctx, 1, hypercore.TruncateOptions{}))
	put(t, tree, "c", "3")
	if got := list(t, snapshot, RangeOptions{}); len(got) != 2 || string(got[1].Value) != "2" {
		t.Errorf("after the truncation the snapshot has %v", got)
	}
	if got := list(t, earlier, RangeOptions{}); len(got) != 1 || string(got[0].Key) != "a" {
		t.Errorf("after the truncation the checkout has %v", got)
	}
	if got := list(t, tree, RangeOptions{}); len(got) != 1 || string(got[0].Key) != "c" {
		t.Errorf("after the truncation the tree has %v", got)
	}
	must(t, earlier.Close())
	must(t, earlier.Close())
	if _, err := earlier.Get(ctx, []byte("a")); !errors.Is(err, ErrClosed) {
		t.Errorf("get from a closed checkout: %v", err)
	}
	if _, err := snapshot.Get(ctx, []byte("a")); err != nil {
		t.Errorf("get from the snapshot that it was of: %v", err)
	}
	if err := snapshot.Put(ctx, []byte("a"), nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("put to a snapshot: %v", err)
	}
	if _, err := tree.Checkout(99); !errors.Is(err, hypercore.ErrLength) {
		t.Errorf("checkout of the future: %v", err)
	}
}

func TestOthersWhoAppendAreNoticed(t *testing.T) {
	ctx := context.Background()
	tree := newTree(t, 1, Options{})
	put(t, tree, "a", "1")
	b, err := tree.Batch(ctx)
	must(t, err)
	must(t, b.Put(ctx, []byte("b"), nil))
	_, err = tree.Log().Append(ctx, []byte("not of the tree"))
	must(t, err)
	if err := b.Flush(ctx); !errors.Is(err, ErrConflict) {
		t.Errorf("flush: %v, want ErrConflict", err)
	}
	must(t, tree.Log().Truncate(ctx, 2, hypercore.TruncateOptions{}))
	put(t, tree, "b", "2")
	if n := len(list(t, tree, RangeOptions{})); n != 2 {
		t.Errorf("there are %d entries, want 2", n)
	}
	if err := b.Put(ctx, []byte("b"), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("put to a flushed batch: %v", err)
	}
}

func TestReadingGoesOnWhileSomebodyWrites(t *testing.T) {
	ctx := context.Background()
	tree := newTree(t, 1, Options{Cache: NewCache(30_000)})
	const n, rounds = 200, 30
	write := func(round int) error {
		b, err := tree.Batch(ctx)
		if err != nil {
			return err
		}
		defer b.Close()
		for i := range n {
			if err := b.Put(ctx, benchKey(nil, i), fmt.Append(nil, round)); err != nil {
				return err
			}
		}
		return b.Flush(ctx)
	}
	must(t, write(0))
	var writing, reading sync.WaitGroup
	stop := make(chan bool)
	writing.Go(func() {
		for round := range rounds {
			if err := write(round); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A range is of one version: all values are of one batch.
				seen := map[string]int{}
				for e, err := range tree.Range(ctx, RangeOptions{}) {
					if err != nil {
						t.Error(err)
						return
					}
					seen[string(e.Value)]++
				}
				if len(seen) != 1 {
					t.Errorf("a range has entries of %d batches", len(seen))
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
}

func TestWatchTellsWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		store := memoryStore(t)
		log := openLog(t, store, 1)
		tree, err := Open(log, Options{})
		must(t, err)
		put(t, tree, "a", "1")
		put(t, tree, "b", "1")
		put(t, tree, "z", "1")
		var mu sync.Mutex
		var told []string
		var watching sync.WaitGroup
		watching.Go(func() {
			for d, err := range tree.Watch(ctx, 0, RangeOptions{Lt: []byte("m")}) {
				mu.Lock()
				if err != nil {
					told = append(told, errors.Unwrap(err).Error())
				} else {
					told = append(told, diffText(d))
				}
				mu.Unlock()
			}
		})
		want := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprintf("%q", told) != fmt.Sprintf("%q", want) {
				t.Errorf("told %q, want %q", told, want)
			}
			told = nil
		}
		want()
		put(t, tree, "a", "2")
		want("4:a=2 1:a=1")
		put(t, tree, "z", "2") // out of the range
		del(t, tree, "b")
		want("- 2:b=1")
		b, err := tree.Batch(ctx)
		must(t, err)
		for _, key := range []string{"c", "d", "c"} {
			must(t, b.Put(ctx, []byte(key), []byte("3")))
		}
		must(t, b.Flush(ctx))
		want("9:c=3 -", "8:d=3 -")
		// Back to where b was there, and on with what has the numbers of blocks that
		// were others.
		must(t, log.Truncate(ctx, 4, hypercore.TruncateOptions{}))
		want("1:a=1 4:a=2", "2:b=1 -", "- 9:c=3", "- 8:d=3")
		for _, key := range []string{"a", "b"} {
			put(t, tree, key, "5")
			want(fmt.Sprintf("%d:%s=5 %d:%s=1", tree.Version()-1, key, map[string]int{"a": 1, "b": 2}[key], key))
		}
		cancel()
		want("context canceled")
		watching.Wait()
	})
}

func TestHistoryFollowsTheTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := newTree(t, 1, Options{})
		put(t, tree, "a", "1")
		var mu sync.Mutex
		var got []string
		var following sync.WaitGroup
		following.Go(func() {
			for c, err := range tree.History(context.Background(), HistoryOptions{Live: true, Limit: 3}) {
				must(t, err)
				mu.Lock()
				got = append(got, changeText(c))
				mu.Unlock()
			}
		})
		synctest.Wait()
		del(t, tree, "a")
		put(t, tree, "b", "2")
		following.Wait()
		if fmt.Sprint(got) != "[1:a=1 deleted false 2:a deleted true 3:b=2 deleted false]" {
			t.Errorf("history %q", got)
		}
	})
}

func TestWhatIsNotHereIsNotTakenForMissing(t *testing.T) {
	ctx := context.Background()
	tree := filled(t, 500, Options{})
	_, err := tree.Log().Clear(ctx, 1, 400)
	must(t, err)
	again, err := Open(tree.Log(), Options{})
	must(t, err)
	_, err = again.Get(ctx, benchKey(nil, 3))
	if !errors.Is(err, hypercore.ErrNotFound) || errors.Is(err, ErrNotFound) {
		t.Errorf("get what may be in blocks that are not here: %v, want hypercore.ErrNotFound", err)
	}
}

func TestEncryptedLogsAreTrees(t *testing.T) {
	ctx := context.Background()
	kp, key := keyPairN(1), [32]byte{7}
	log, err := hypercore.Open(memoryStore(t), hypercore.Options{KeyPair: &kp, Session: hypercore.SessionOptions{EncryptionKey: &key}})
	must(t, err)
	defer log.Close()
	tree, err := Open(log, Options{})
	must(t, err)
	put(t, tree, "secret", "value")
	stored, err := log.Stored(ctx, 1)
	must(t, err)
	if strings.Contains(string(stored), "secret") {
		t.Error("the key is stored as it is")
	}
	if again, err := Open(log, Options{}); err != nil || len(list(t, again, RangeOptions{})) != 1 {
		t.Errorf("opened again: %v", err)
	}
}

// Trees share one bound of memory, and leave nothing when they are closed.
func TestTreesShareACache(t *testing.T) {
	shared := NewCache(40_000)
	trees := []*Tree{filled(t, 300, Options{Cache: shared}), filled(t, 300, Options{Cache: shared})}
	whole := func() {
		t.Helper()
		sum, n := 0, 0
		for _, tree := range trees {
			n += len(tree.s.cache.blocks)
			for _, b := range tree.s.cache.blocks {
				sum += b.cost()
			}
		}
		if shared.bytes > shared.max || sum != shared.bytes || n != len(shared.ring) {
			t.Fatalf("%d bytes of %d in %d blocks; the trees have %d that cost %d", shared.bytes, shared.max, len(shared.ring), n, sum)
		}
	}
	whole()
	for i := range 300 { // each finds its own, whatever the other one has
		for _, tree := range trees {
			if e, err := tree.Get(t.Context(), benchKey(nil, i)); err != nil || string(e.Key) != string(benchKey(nil, i)) {
				t.Fatal(e, err)
			}
		}
	}
	whole()
	if shared.Forget(); len(shared.ring) != 0 || shared.bytes != 0 {
		t.Error("it forgets nothing")
	}
	whole()
	list(t, trees[0], RangeOptions{})
	list(t, trees[1], RangeOptions{})
	whole()
	if len(trees[0].s.cache.blocks) == 0 || len(trees[1].s.cache.blocks) == 0 {
		t.Error("one of the trees has nothing in the cache")
	}
	must(t, trees[0].Close())
	if whole(); len(trees[0].s.cache.blocks) != 0 {
		t.Error("a tree that was closed has blocks in the cache")
	}
	if _, err := trees[0].Get(t.Context(), benchKey(nil, 0)); !errors.Is(err, ErrClosed) {
		t.Errorf("a tree that was closed is read: %v", err)
	}
}
