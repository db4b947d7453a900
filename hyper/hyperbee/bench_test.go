package hyperbee

import (
	"context"
	"fmt"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

func benchKey(b []byte, i int) []byte { return fmt.Appendf(b[:0], "key-%08d", i) }

// filled is a tree of n entries.
func filled(b testing.TB, n int, o Options) *Tree {
	b.Helper()
	ctx := context.Background()
	tree := newTree(b, 1, o)
	for i := 0; i < n; {
		batch, err := tree.Batch(ctx)
		must(b, err)
		for end := min(n, i+10_000); i < end; i++ {
			// In no order, as 7919 has no divisor in common with n.
			must(b, batch.Put(ctx, benchKey(nil, i*7919%n), fmt.Append(nil, "value ", i)))
		}
		must(b, batch.Flush(ctx))
	}
	return tree
}

func BenchmarkPut(b *testing.B) {
	ctx := context.Background()
	tree := newTree(b, 1, Options{Durability: hypercore.Soon})
	var key []byte
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		key = benchKey(key, i*7919%1_000_003)
		must(b, tree.Put(ctx, key, []byte("value")))
		i++
	}
}

func BenchmarkBatchOf1000(b *testing.B) {
	ctx := context.Background()
	tree := newTree(b, 1, Options{Durability: hypercore.Soon})
	var key []byte
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		batch, err := tree.Batch(ctx)
		must(b, err)
		for range 1000 {
			key = benchKey(key, i*7919%1_000_003)
			must(b, batch.Put(ctx, key, []byte("value")))
			i++
		}
		must(b, batch.Flush(ctx))
	}
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "puts/s")
}

func BenchmarkGet(b *testing.B) {
	for _, c := range []struct {
		name  string
		cache int
	}{{"Warm", 256 << 20}, {"Default", 0}} {
		b.Run(c.name, func(b *testing.B) {
			ctx := context.Background()
			const n = 100_000
			tree := filled(b, n, Options{Cache: NewCache(c.cache)})
			var key []byte
			for i := range n {
				key = benchKey(key, i)
				_, err := tree.Get(ctx, key)
				must(b, err)
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				key = benchKey(key, i*104_729%n)
				_, err := tree.Get(ctx, key)
				must(b, err)
				i++
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	ctx := context.Background()
	const n = 100_000
	tree := filled(b, n, Options{})
	b.ReportAllocs()
	for b.Loop() {
		count := 0
		for _, err := range tree.Range(ctx, RangeOptions{}) {
			must(b, err)
			count++
		}
		if count != n {
			b.Fatal(count)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "entries/s")
}

// A walk over much keeps what the store reads with each block, if there is room
// for the whole tree, and a short one does not.
func TestWalksTakeWhatTheStoreReadsAtOnce(t *testing.T) {
	const n = 2000
	log := filled(t, n, Options{}).Log()
	for _, c := range []struct {
		what         string
		cache, limit int
		low, high    int // blocks that are kept afterwards
	}{
		{"a long walk", 1 << 20, 100, 1500, n},
		{"a short walk", 1 << 20, 10, 10, 100},
		{"a small cache", 200 << 10, 100, 100, 300},
		{"all", 1 << 20, 0, n, n},
	} {
		tree, err := Open(log, Options{Cache: NewCache(c.cache)})
		must(t, err)
		entries := list(t, tree, RangeOptions{Limit: c.limit})
		for i, e := range entries {
			if string(e.Key) != string(benchKey(nil, i)) {
				t.Fatalf("%s: entry %d is %s", c.what, i, e.Key)
			}
		}
		if got := len(tree.s.cache.ring); got < c.low || got > c.high {
			t.Errorf("%s kept %d blocks, want %d to %d", c.what, got, c.low, c.high)
		}
	}
}
