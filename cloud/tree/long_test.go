package tree

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// A tree of many entries, by three writers: the work is in proportion to what is
// asked for. A million with BEVY_LONG.
func TestLargeTrees(t *testing.T) {
	ctx := context.Background()
	entries := 10_000
	if os.Getenv("BEVY_LONG") != "" {
		entries = 1_000_000
	}
	took := func(what string, f func()) {
		begin := time.Now()
		f()
		t.Logf("%s: %v", what, time.Since(begin).Round(time.Millisecond))
	}
	var p *peer
	took("write and replicate", func() { p = benchTree(t, 3, entries, 1) })
	count := func(o hyperbee.RangeOptions) (n int) {
		for _, err := range p.tree.Range(ctx, o) {
			must(t, err)
			n++
		}
		return n
	}
	took("scan", func() {
		if n := count(hyperbee.RangeOptions{}); n != entries {
			t.Errorf("%d entries", n)
		}
	})
	before, err := p.tree.Version(ctx)
	must(t, err)
	changed := 0
	p.change(func(b *Batch) {
		for i := 0; i < entries; i += entries / 50 {
			must(t, b.Put(ctx, benchKey(nil, i), []byte("new")))
			changed++
		}
	})
	// Work is counted in allocations: a scan makes at least one for each entry.
	mallocs := func() uint64 {
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		return mem.Mallocs
	}
	begin := mallocs()
	took("changes", func() {
		n := 0
		for c, err := range p.tree.Changes(ctx, before, hyperbee.RangeOptions{}) {
			must(t, err)
			if string(c.New.Value) != "new" || c.Old.Value == nil {
				t.Fatalf("change %+v", c)
			}
			n++
		}
		if n != changed {
			t.Errorf("%d changes, want %d", n, changed)
		}
	})
	if n := mallocs() - begin; n > uint64(entries)/2 {
		t.Errorf("%d changes made %d allocations among %d entries", changed, n, entries)
	}
	took("a page", func() {
		if n := count(hyperbee.RangeOptions{Gte: benchKey(nil, entries/2), Limit: 100}); n != 100 {
			t.Errorf("%d entries", n)
		}
	})
	took("at a time", func() {
		past, err := p.tree.At(ctx, start.Add(time.Second))
		must(t, err)
		defer past.Close()
		if _, err := past.Get(ctx, benchKey(nil, entries-1)); err != nil {
			t.Error(err)
		}
	})
	took("history of a key", func() {
		n := 0
		for _, err := range p.tree.History(ctx, HistoryOptions{Key: benchKey(nil, 0)}) {
			must(t, err)
			n++
		}
		if n != 2 {
			t.Errorf("%d statements", n)
		}
	})
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("%d MiB in use", mem.HeapAlloc>>20)
}
