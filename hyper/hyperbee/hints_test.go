package hyperbee

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
)

func TestHintsAreThoseOfHyperbee(t *testing.T) {
	want := []hint{
		{get: &getHint{7, []byte("k")}},
		{iterator: &iteratorHint{version: 9, gte: []byte("a"), lt: []byte("z"), limit: 10, reverse: true, checkpoint: []uint64{1, 2, 300}}},
		{cache: []uint64{1, 5, 300}},
	}
	for i, m := range loadVectors(t).ExtensionMessages {
		raw := hexBytes(m.Hex)
		if got := want[i].append(nil); !bytes.Equal(got, raw) {
			t.Errorf("message %d:\n got %x\nwant %x", i, got, raw)
		}
		h, err := readHint(raw)
		if err != nil || !bytes.Equal(h.append(nil), raw) {
			t.Errorf("message %d read and written again: %x, %v", i, h.append(nil), err)
		}
	}
}

// answers is what a tree answers a message with, all together.
func answers(t testing.TB, tree *Tree, h *hints, m *hint) (blocks []uint64) {
	t.Helper()
	tree.answer(context.Background(), h, m.message(), func(b []byte) error {
		got, err := readMessage(b)
		must(t, err)
		if len(got.cache) == 0 || len(got.cache) > hintBlocks {
			t.Errorf("an answer has %d blocks", len(got.cache))
		}
		blocks = append(blocks, got.cache...)
		return nil
	})
	return blocks
}

func TestHintsNameTheBlocksThatLeadThere(t *testing.T) {
	ctx := context.Background()
	tree := filled(t, 3000, Options{})
	h := &hints{fetch: func([]uint64) { t.Error("what was not asked for is fetched") }}
	reads := func(get func(v *view)) (blocks []uint64) {
		v, err := tree.view(ctx)
		must(t, err)
		v.told = func(seq uint64) {
			if !slices.Contains(blocks, seq) {
				blocks = append(blocks, seq)
			}
		}
		get(&v)
		return blocks
	}
	key := benchKey(nil, 1234)
	want := reads(func(v *view) {
		if b, err := v.find(ctx, key); b == nil || err != nil {
			t.Fatalf("find: %v, %v", b, err)
		}
	})
	if got := answers(t, tree, h, &hint{get: &getHint{tree.Version(), key}}); !slices.Equal(got, want) || len(got) < 5 {
		t.Errorf("the way to a key is %v, want %v", got, want)
	}
	from, to := benchKey(nil, 1000), benchKey(nil, 1300)
	for _, down := range []bool{false, true} {
		want = reads(func(v *view) {
			c := cursor{v: *v, down: down, first: bound{from, true}, last: bound{to, false}}
			if down {
				c.first, c.last = c.last, c.first
			}
			must(t, c.open(ctx))
			for {
				b, err := c.next(ctx)
				must(t, err)
				if b == nil {
					return
				}
			}
		})
		got := answers(t, tree, h, &hint{iterator: &iteratorHint{version: tree.Version(), gte: from, lt: to, reverse: down}})
		if !slices.Equal(got, want) || len(got) < 300 {
			t.Errorf("the way of a range is %d blocks, want %d", len(got), len(want))
		}
	}
	if n := len(answers(t, tree, h, &hint{iterator: &iteratorHint{version: tree.Version()}})); n < hintWork/2 || n > hintWork+100 {
		t.Errorf("a question about everything is answered with %d blocks, want about %d at most", n, hintWork)
	}
	for what, m := range map[string]*hint{
		"no version":                  {get: &getHint{0, key}},
		"a version of the future":     {get: &getHint{tree.Version() + 1, key}},
		"an answer to nothing":        {cache: []uint64{1, 2, 3}},
		"a checkpoint of the future":  {iterator: &iteratorHint{version: 5, checkpoint: []uint64{5, 0, 0}}},
		"a checkpoint without an end": {iterator: &iteratorHint{version: 5, checkpoint: slices.Repeat([]uint64{4, 0, 0}, 500)}},
	} {
		if got := answers(t, tree, h, m); len(got) > 0 {
			t.Errorf("%s is answered with %v", what, got)
		}
	}
}

// FuzzHint gives a tree whatever messages: they cost a bounded amount.
func FuzzHint(f *testing.F) {
	for _, m := range loadVectors(f).ExtensionMessages {
		f.Add(compact.AppendBuffer(nil, hexBytes(m.Hex)))
	}
	f.Add((&hint{iterator: &iteratorHint{version: 300, checkpoint: []uint64{299, 0, 1, 280, 1, 3}}}).message())
	tree := filled(f, 500, Options{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := &hints{asking: 1, fetch: func(blocks []uint64) {
			if len(blocks) > hintWork {
				t.Fatalf("%d blocks are fetched", len(blocks))
			}
		}}
		total := 0
		tree.answer(t.Context(), h, raw, func(b []byte) error {
			total += len(b)
			return nil
		})
		if total > 20*hintWork {
			t.Fatalf("the answers have %d bytes", total)
		}
	})
}
