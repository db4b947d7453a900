package tree

import (
	"context"
	"fmt"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// What a tree of one bee costs beside the bee alone, and what more bees cost.

const benchEntries = 100_000

func benchKey(b []byte, i int) []byte { return fmt.Appendf(b[:0], "key-%08d", i) }

// benchBee has the entries that benchTree has.
func benchBee(b *testing.B) *hyperbee.Tree {
	b.Helper()
	ctx := context.Background()
	bee := newPeer(b, 1).bee(1)
	for i := 0; i < benchEntries; {
		batch, err := bee.Batch(ctx)
		must(b, err)
		for end := i + 10_000; i < end; i++ {
			must(b, batch.Put(ctx, benchKey(nil, i*7919%benchEntries), fmt.Append(nil, "value ", i)))
		}
		must(b, batch.Flush(ctx))
	}
	return bee
}

// benchTree is a tree of n bees, that each have a part of the entries. Those that are
// written one after the other are stride apart.
func benchTree(b testing.TB, n, entries, stride int) *peer {
	b.Helper()
	ctx := context.Background()
	list, writers := peers(b, n)
	for i, p := range list {
		for at := 0; at < entries; {
			p.change(func(batch *Batch) {
				for end := min(at+10_000, entries); at < end; at++ {
					if k := at * stride % entries; k%n == i {
						must(b, batch.Put(ctx, benchKey(nil, k), fmt.Append(nil, "value ", at)))
					}
				}
			})
		}
	}
	for i, w := range writers[1:] {
		list[0].pull(list[i+1], w)
	}
	return list[0]
}

func BenchmarkGet(b *testing.B) {
	ctx := context.Background()
	run := func(b *testing.B, get func(key []byte) error) {
		var key []byte
		for i := range benchEntries {
			key = benchKey(key, i)
			must(b, get(key))
		}
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			key = benchKey(key, i*104_729%benchEntries)
			must(b, get(key))
			i++
		}
	}
	b.Run("Bee", func(b *testing.B) {
		bee := benchBee(b)
		run(b, func(key []byte) error { _, err := bee.Get(ctx, key); return err })
	})
	for _, n := range []int{1, 3, 10} {
		b.Run(fmt.Sprint("Writers", n), func(b *testing.B) {
			p := benchTree(b, n, benchEntries, 7919)
			run(b, func(key []byte) error { _, err := p.tree.Get(ctx, key); return err })
		})
	}
}

func BenchmarkScan(b *testing.B) {
	ctx := context.Background()
	rate := func(b *testing.B) { b.ReportMetric(float64(benchEntries*b.N)/b.Elapsed().Seconds(), "entries/s") }
	b.Run("Bee", func(b *testing.B) {
		bee := benchBee(b)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for _, err := range bee.Range(ctx, hyperbee.RangeOptions{}) {
				must(b, err)
				n++
			}
			if n != benchEntries {
				b.Fatal(n)
			}
		}
		rate(b)
	})
	for _, n := range []int{1, 3, 10} {
		b.Run(fmt.Sprint("Writers", n), func(b *testing.B) {
			p := benchTree(b, n, benchEntries, 7919)
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for _, err := range p.tree.Range(ctx, hyperbee.RangeOptions{}) {
					must(b, err)
					n++
				}
				if n != benchEntries {
					b.Fatal(n)
				}
			}
			rate(b)
		})
	}
}

func BenchmarkBatchOf1000(b *testing.B) {
	ctx := context.Background()
	run := func(b *testing.B, batch func(put func(put func(key, value []byte) error))) {
		var key []byte
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			batch(func(put func(key, value []byte) error) {
				for range 1000 {
					key = benchKey(key, i*7919%1_000_003)
					must(b, put(key, []byte("value")))
					i++
				}
			})
		}
		b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "puts/s")
	}
	b.Run("Bee", func(b *testing.B) {
		bee := newPeer(b, 1).bee(1)
		run(b, func(f func(func(key, value []byte) error)) {
			batch, err := bee.Batch(ctx)
			must(b, err)
			f(func(key, value []byte) error { return batch.Put(ctx, key, value) })
			must(b, batch.Flush(ctx))
		})
	})
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprint("Writers", n), func(b *testing.B) {
			p := benchTree(b, n, 10_000, 7919)
			run(b, func(f func(func(key, value []byte) error)) {
				p.change(func(batch *Batch) {
					f(func(key, value []byte) error { return batch.Put(ctx, key, value) })
				})
			})
		})
	}
}

func BenchmarkPut(b *testing.B) {
	ctx := context.Background()
	b.Run("Bee", func(b *testing.B) {
		bee := newPeer(b, 1).bee(1)
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			must(b, bee.Put(ctx, benchKey(nil, i*7919%1_000_003), []byte("value")))
			i++
		}
	})
	b.Run("Writers1", func(b *testing.B) {
		p := newPeer(b, 1)
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			p.change(func(batch *Batch) {
				must(b, batch.Put(ctx, benchKey(nil, i*7919%1_000_003), []byte("value")))
			})
			i++
		}
	})
}
