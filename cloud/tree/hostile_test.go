package tree

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A liar is a writer whose bee is written to as it pleases.
func liar(t *testing.T) (l, p *peer) {
	t.Helper()
	list, _ := peers(t, 2)
	return list[1], list[0]
}

// says puts raw bytes into the liar's bee.
func (p *peer) says(key string, raw []byte) {
	p.t.Helper()
	must(p.t, p.bee(p.n).Put(context.Background(), []byte(key), raw))
}

// said is a statement's bytes.
func said(at time.Time, value string, claims ...claim) []byte {
	r := record{time: uint64(at.UnixNano()), value: []byte(value)}
	if claims != nil {
		r.claims = appendClaims(nil, claims)
	}
	return r.append(nil)
}

func (p *peer) wantProblem(err error) {
	p.t.Helper()
	for _, pr := range p.bad {
		if errors.Is(pr.Err, err) {
			p.bad = nil
			return
		}
	}
	p.t.Errorf("problems are %v, want %v", p.bad, err)
}

func TestWhatMakesNoSenseIsLeftOut(t *testing.T) {
	ctx := context.Background()
	huge := append([]byte{formatV1 | flagClaims, 0, 0, 0, 0, 0, 0, 0, 0}, binary.AppendUvarint(nil, 1<<60)...)
	for _, c := range []struct {
		what string
		raw  []byte
		err  error
	}{
		{"nothing", []byte{}, ErrStatement},
		{"no value", nil, ErrStatement},
		{"text", []byte("hello, world"), ErrStatement},
		{"another format", append([]byte{2 << 4}, make([]byte, 8)...), errVersion},
		{"a table", appendTable(nil, 1, []Writer{keyOf(1)}), errFlags},
		{"a late time", append([]byte{formatV1}, bytes.Repeat([]byte{0xff}, 8)...), errTime},
		{"many claims", huge, errMany},
		{"no claims", append(slices.Clone(huge[:headSize]), 0), errMany},
		{"claims in no order", said(start, "", claim{2, 1}, claim{1, 1}), errOrder},
		{"a claim of block 0", said(start, "", claim{1, 0}), errOrder},
		{"a long number", append(slices.Clone(huge[:headSize]), 0x81, 0), errNumber},
		{"a deletion with a value", append([]byte{formatV1 | flagDeleted}, make([]byte, 9)...), errFlags},
		{"kept in kept", func() []byte {
			in := (&record{kept: appendKept(nil, []keptRecord{{1, said(start, "x")}})}).append(nil)
			return (&record{kept: appendKept(nil, []keptRecord{{1, in}})}).append(nil)
		}(), errFlags},
		{"kept in no order", (&record{kept: appendKept(nil, []keptRecord{{1, said(start, "x")}, {1, said(start, "x")}})}).append(nil), errOrder},
		{"kept of a size", append([]byte{formatV1 | flagKept, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}, binary.AppendUvarint(nil, 1<<50)...), errShort},
	} {
		l, p := liar(t)
		p.put("b", "mine")
		p.put("d", "mine")
		for _, key := range []string{"a", "b", "c"} {
			l.says(key, said(start.Add(-time.Hour), "theirs"))
			l.says(key, c.raw)
		}
		l.says("d", said(start.Add(-time.Hour), "theirs"))
		p.pull(l, 2)
		p.wantEntry("a", nil)
		p.wantProblem(c.err)
		p.wantEntry("b", "mine")
		p.wantEntry("d", "mine", "theirs")
		p.bad = nil
		if got := entries(t, p.tree, hyperbee.RangeOptions{}); len(got) != 2 {
			t.Errorf("%s: a range has %+v", c.what, got)
		}
		p.wantProblem(c.err)
		for _, key := range [][]byte{nil, []byte("a")} {
			for _, err := range p.tree.History(ctx, HistoryOptions{Key: key}) {
				must(t, err)
			}
			p.wantProblem(c.err)
		}
		for _, err := range p.tree.Changes(ctx, nil, hyperbee.RangeOptions{}) {
			must(t, err)
		}
		past, err := p.tree.At(ctx, start)
		must(t, err)
		must(t, past.Close())
		p.put("a", "over it")
		p.wantEntry("a", "over it")
	}
}

func TestABeeThatIsNoneIsLeftOut(t *testing.T) {
	ctx := context.Background()
	list, _ := peers(t, 3)
	p, l, honest := list[0], list[1], list[2]
	honest.put("b", "honest")
	p.put("a", "mine")
	header := hyperbee.Header{Protocol: "hyperbee"}.Append(nil)
	_, err := l.bee(2).Log().Append(ctx, header, []byte{10, 0, 18, 1, 'a'}, []byte("not a block of a tree at all"), []byte{})
	must(t, err)
	p.pull(honest, 3)
	p.pull(l, 2, 0, 1, 2)
	p.wantEntry("a", "mine") // while it is half here
	p.pull(l, 2)
	p.bad = nil
	p.wantEntry("a", "mine")
	p.wantProblem(hyperbee.ErrInvalid)
	p.wantEntry("b", "honest")
	for _, o := range []hyperbee.RangeOptions{{}, {Reverse: true}} {
		if got := entries(t, p.tree, o); len(got) != 2 {
			t.Errorf("a range has %+v", got)
		}
	}
	v, err := p.tree.Version(ctx)
	must(t, err)
	p.put("a", "more")
	n := 0
	for _, err := range p.tree.Changes(ctx, v, hyperbee.RangeOptions{}) {
		must(t, err)
		n++
	}
	for _, err := range p.tree.History(ctx, HistoryOptions{Reverse: true}) {
		must(t, err)
		n++
	}
	if n != 1+3 {
		t.Errorf("%d changes and statements", n)
	}
	past, err := p.tree.At(ctx, start.Add(time.Hour))
	must(t, err)
	defer past.Close()
	if e, err := past.Get(ctx, []byte("b")); err != nil || string(e.Value) != "honest" {
		t.Errorf("at a time: %+v, %v", e, err)
	}
}

func TestLiesAboutWhatWasSeen(t *testing.T) {
	const far = 1 << 50
	ctx := context.Background()
	table := appendTable(nil, 0, []Writer{keyOf(1), keyOf(9), keyOf(1)})
	now := start.Add(time.Minute)
	setup := func(t *testing.T) (l, p *peer) {
		l, p = liar(t)
		l.says("", table)
		p.clock.Advance(time.Minute)
		return l, p
	}
	t.Run("a block that says nothing about the key", func(t *testing.T) {
		l, p := setup(t)
		p.put("k", "mine") // block 1
		p.put("x", "else")
		l.says("k", said(now, "theirs", claim{0, 2}))
		p.pull(l, 2)
		p.wantEntry("k", "mine", "theirs")
		p.wantProblem(errClaim)
	})
	t.Run("a block that is to come does not hide what is said later", func(t *testing.T) {
		l, p := setup(t)
		l.says("k", said(start, "theirs", claim{0, far}))
		p.put("k", "mine, before it was read")
		p.pull(l, 2)
		p.wantEntry("k", "mine, before it was read", "theirs")
		p.put("k", "mine")
		p.wantEntry("k", "mine")
	})
	t.Run("nor with a time in the future", func(t *testing.T) {
		l, p := setup(t)
		p.put("k", "mine")
		l.says("k", said(now.Add(time.Hour), "theirs", claim{0, far}))
		p.pull(l, 2)
		p.wantEntry("k", "theirs", "mine")
		p.put("k", "mine again")
		p.wantEntry("k", "mine again")
		if e, err := p.tree.Get(ctx, []byte("k")); err != nil || e.Time.After(now.Add(time.Minute)) {
			t.Errorf("the time of the liar is followed: %v, %v", e.Time, err)
		}
	})
	t.Run("each has seen the other", func(t *testing.T) {
		l, p := setup(t)
		l.says("k", said(start, "theirs", claim{0, 1}))
		p.pull(l, 2)
		p.put("k", "mine") // has seen theirs, and is block 1
		p.wantEntry("k", "mine", "theirs")
	})
	t.Run("writers that are not in the table, or not in the tree", func(t *testing.T) {
		l, p := setup(t)
		p.put("k", "mine")
		l.says("k", said(now.Add(time.Second), "theirs", claim{1, 5}, claim{2, 1}, claim{3, 1}))
		p.pull(l, 2)
		p.wantEntry("k", "theirs")
		p.wantProblem(errWriter)
	})
	t.Run("a table that is none", func(t *testing.T) {
		l, p := setup(t)
		p.put("k", "mine")
		l.says("", []byte("none"))
		l.says("k", said(now.Add(time.Second), "theirs", claim{0, 1}))
		p.pull(l, 2)
		p.wantEntry("k", "theirs", "mine")
		p.wantProblem(ErrStatement)
		if got := entries(t, p.tree, hyperbee.RangeOptions{}); len(got) != 1 {
			t.Errorf("a range has %+v", got)
		}
	})
	t.Run("kept statements of the future", func(t *testing.T) {
		l, p := setup(t)
		r := record{time: 5, value: []byte("x"), kept: appendKept(nil, []keptRecord{{far, said(start, "kept")}})}
		l.says("k", r.append(nil))
		p.pull(l, 2)
		p.wantEntry("k", "x")
		p.wantProblem(ErrStatement)
	})
	t.Run("times in no order", func(t *testing.T) {
		l, p := setup(t)
		for i := range 40 {
			l.says(fmt.Sprint("k", i), said(start.Add(time.Duration(i*7919%40)*time.Hour), "theirs"))
			p.pull(l, 2)
			past, err := p.tree.At(ctx, start.Add(20*time.Hour))
			must(t, err)
			entries(t, past, hyperbee.RangeOptions{})
			must(t, past.Close())
			for _, err := range p.tree.History(ctx, HistoryOptions{From: start.Add(time.Hour), Key: []byte("k3")}) {
				must(t, err)
			}
		}
		for block := range uint64(30) {
			other := newPeer(t, 3)
			must(t, other.tree.Add(other.bee(2), 0))
			var blocks []uint64
			for i := range block {
				blocks = append(blocks, i)
			}
			other.pull(l, 2, blocks...)
			entries(t, other.tree, hyperbee.RangeOptions{})
		}
	})
	t.Run("entries that were removed", func(t *testing.T) {
		l, p := setup(t)
		l.says("k", said(now, "theirs"))
		l.says("j", said(now, "theirs"))
		must(t, l.bee(2).Delete(ctx, []byte("k")))
		p.pull(l, 2)
		p.wantEntry("k", nil)
		p.wantEntry("j", "theirs")
		p.put("j", "mine")
		for _, err := range p.tree.History(ctx, HistoryOptions{}) {
			must(t, err)
		}
	})
	t.Run("a log that is cut back", func(t *testing.T) {
		l, _ := setup(t)
		l.says("a", said(now, "theirs"))
		l.says("b", said(now.Add(1), "theirs"))
		reader := New(Options{})
		defer reader.Close()
		must(t, reader.Add(l.bee(2), 0))
		v, err := reader.Version(ctx)
		must(t, err)
		past, err := reader.Checkout(ctx, v)
		must(t, err)
		defer past.Close()
		length := l.bee(2).Log().Length()
		must(t, l.bee(2).Log().Truncate(ctx, length-1, hypercore.TruncateOptions{}))
		l.says("c", said(now.Add(2), "theirs"))
		var got []string
		for e, err := range reader.Range(ctx, hyperbee.RangeOptions{}) {
			must(t, err)
			got = append(got, string(e.Key))
		}
		if want := []string{"a", "c"}; !slices.Equal(got, want) {
			t.Errorf("after the cut there are %q, want %q", got, want)
		}
		entries(t, past, hyperbee.RangeOptions{}) // what it said of the past is gone
	})
}
