package tree

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// The model knows of each statement which others its writer had seen, one by one,
// and asks nothing else.

var modelSeed = flag.Uint64("seed", 0, "of the model test; at random when 0")

type modelDot struct {
	writer byte
	seq    uint64
}

type modelStatement struct {
	modelDot
	key     string
	value   string
	deleted bool
	time    uint64
	seen    map[modelDot]bool
}

type model struct {
	said   map[byte][]*modelStatement // of each writer, in order
	starts map[byte][]uint64          // versions that a batch began at
	known  map[string]string          // what merged returned
	whole  map[byte]cut               // what a peer has had whole when it looked
}

// A cut says how much of each writer there is.
type cut map[byte]uint64

func (m *model) about(key string, at cut) (list []*modelStatement) {
	for w, end := range at {
		for _, s := range m.said[w] {
			if s.seq < end && s.key == key {
				list = append(list, s)
			}
		}
	}
	return list
}

func (m *model) keys(at cut) []string {
	keys := map[string]bool{}
	for w, end := range at {
		for _, s := range m.said[w] {
			if s.seq < end {
				keys[s.key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// merged is what Get returns, in a form to be compared; "" if nothing was said.
func (m *model) merged(key string, at cut) string {
	id := fmt.Sprint(key, at)
	out, ok := m.known[id]
	if !ok {
		out = m.merge(key, at)
		m.known[id] = out
	}
	return out
}

func (m *model) merge(key string, at cut) string {
	all := m.about(key, at)
	standing := slices.Clone(all)
	standing = slices.DeleteFunc(standing, func(s *modelStatement) bool {
		return slices.ContainsFunc(all, func(by *modelStatement) bool { return by.seen[s.modelDot] })
	})
	slices.SortFunc(standing, func(a, b *modelStatement) int {
		if a.deleted != b.deleted {
			if b.deleted {
				return -1
			}
			return 1
		}
		aw, bw := keyOf(a.writer), keyOf(b.writer)
		return cmp.Or(cmp.Compare(b.time, a.time), bytes.Compare(bw[:], aw[:]), cmp.Compare(b.seq, a.seq))
	})
	out := ""
	said := map[string]bool{}
	for _, s := range standing {
		what := fmt.Sprintf("%q", s.value)
		if s.deleted {
			what = "deleted"
		}
		if said[what] {
			continue
		}
		said[what] = true
		out += fmt.Sprintf("%s=%s by %d in %d at %d; ", key, what, s.writer, s.seq, s.time)
	}
	return out
}

// show is an entry in the form of merged.
func show(e Entry) string {
	if e.Seq == 0 {
		return ""
	}
	out := ""
	for _, e := range append([]Entry{e}, e.Others...) {
		what := fmt.Sprintf("%q", e.Value)
		if e.Value == nil {
			what = "deleted"
		}
		out += fmt.Sprintf("%s=%s by %d in %d at %d; ", e.Key, what, writerN(e.Writer), e.Seq, e.Time.UnixNano())
	}
	return out
}

func writerN(w Writer) byte {
	keys := testKeys()
	return byte(slices.Index(keys[:], w))
}

// cutOf is what a peer has whole, as the model sees it, each time that it looks. What
// was whole once stays so, whatever comes in after it.
func (m *model) cutOf(p *peer) cut {
	out := cut{}
	for n, log := range p.logs {
		here := log.Contiguous()
		if n != p.n && here < log.Length() {
			// The batch that the last block is in may have more.
			for _, start := range slices.Backward(m.starts[n]) {
				if start < here {
					here = start
					break
				}
			}
		}
		if here = max(here, m.whole[p.n][n]); here > 1 {
			out[n] = here
		}
	}
	m.whole[p.n] = maps.Clone(out)
	return out
}

// A remembered entry is one that a peer got earlier.
type remembered struct {
	entry Entry
	seen  map[modelDot]bool
}

func (m *model) seenOf(key string, at cut) map[modelDot]bool {
	seen := map[modelDot]bool{}
	for _, s := range m.about(key, at) {
		seen[s.modelDot] = true
	}
	return seen
}

func TestAllDevicesDeriveTheModelsTree(t *testing.T) {
	seeds, steps := 5, 100
	if os.Getenv("BEVY_LONG") != "" {
		seeds, steps = 30, 600
	}
	first := cmp.Or(*modelSeed, rand.Uint64N(1e9))
	for i := range seeds {
		seed := first + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runModel(t, seed, steps, 2*time.Minute) })
		// With clocks that are not followed, what is half here may look concurrent; in
		// the end it must not.
		t.Run(fmt.Sprint("wrong clocks, seed ", seed), func(t *testing.T) { runModel(t, seed, steps, 1000*time.Hour) })
	}
}

// runModel does as a seed says, on devices whose clocks are so far apart at most.
func runModel(t *testing.T, seed uint64, steps int, skew time.Duration) {
	followed := skew < maxDrift
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 1))
	n := 1 + rng.IntN(5)
	list, writers := peers(t, n)
	m := &model{said: map[byte][]*modelStatement{}, starts: map[byte][]uint64{}, known: map[string]string{}, whole: map[byte]cut{}}
	memory := make([]map[string]remembered, n)
	for i, p := range list {
		memory[i] = map[string]remembered{}
		p.clock.Advance(time.Duration(rng.Int64N(int64(skew))))
	}
	type kept struct {
		p       *peer
		version Version
		at      cut
	}
	var versions []kept
	keyName := func() string { return fmt.Sprint("k", rng.IntN(10)) }
	value := 0
	write := func(i int) {
		p := list[i]
		at := m.cutOf(p)
		b, err := p.tree.Batch(ctx)
		must(t, err)
		base := p.bees[p.n].Version()
		at[p.n] = base
		var said []*modelStatement
		var before []uint64
		for w, end := range at {
			for _, s := range m.said[w] {
				if s.seq < end {
					before = append(before, s.time)
				}
			}
		}
		now := uint64(b.Time().UnixNano())
		if now < uint64(p.clock.Now().UnixNano()) || followed && len(before) > 0 && now <= slices.Max(before) {
			t.Fatalf("time %d is not after %d and all that was read", now, p.clock.Now().UnixNano())
		}
		for range 1 + rng.IntN(4) {
			key := keyName()
			here := m.merged(key, at)
			if e, err := b.Get(ctx, []byte(key)); err != nil && !errors.Is(err, ErrNotFound) || followed && show(e) != here {
				t.Fatalf("batch of %d has %s, want %s (%v)", p.n, show(e), here, err)
			}
			s := &modelStatement{key: key, time: now, seen: m.seenOf(key, at)}
			s.writer, s.seq = p.n, b.next()
			value++
			s.value = fmt.Sprint("v", value/3)
			old := memory[i][key]
			over := rng.IntN(3) == 0
			if over {
				s.seen = old.seen
			}
			if s.deleted = rng.IntN(4) == 0; s.deleted {
				s.value = ""
			}
			switch {
			case s.deleted && over:
				must(t, b.DeleteOver(ctx, []byte(key), old.entry))
			case s.deleted:
				must(t, b.Delete(ctx, []byte(key)))
			case over:
				must(t, b.PutOver(ctx, []byte(key), []byte(s.value), old.entry))
			default:
				must(t, b.Put(ctx, []byte(key), []byte(s.value)))
			}
			if b.next() == s.seq {
				if alive := m.alive(key, at); !s.deleted || followed && alive {
					t.Fatalf("nothing was written about %s, and it is there: %v", key, alive)
				}
				continue
			}
			said = append(said, s)
			m.said[p.n] = append(m.said[p.n], s)
			at[p.n] = b.next()
		}
		if rng.IntN(8) == 0 { // nothing happens
			m.said[p.n] = m.said[p.n][:len(m.said[p.n])-len(said)]
			clear(m.known)
			b.Close()
			return
		}
		must(t, b.Flush(ctx))
		if len(said) > 0 {
			m.starts[p.n] = append(m.starts[p.n], base)
		}
	}
	for range steps {
		i := rng.IntN(n)
		p := list[i]
		p.clock.Advance(time.Duration(rng.IntN(3000)) * time.Millisecond)
		switch rng.IntN(7) {
		case 0, 1, 2:
			write(i)
		case 3:
			key := keyName()
			e, err := p.tree.Get(ctx, []byte(key))
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			memory[i][key] = remembered{e, m.seenOf(key, m.cutOf(p))}
		case 4: // some blocks of somebody's bee
			q, w := list[rng.IntN(n)], writers[rng.IntN(n)]
			if q == p || w == p.n {
				break
			}
			length := q.bee(w).Log().Length()
			blocks := []uint64{}
			from := p.bee(w).Log().Contiguous()
			for b := from; b < length && b < from+uint64(rng.IntN(9)); b++ {
				blocks = append(blocks, b)
			}
			if length > 0 && rng.IntN(3) == 0 {
				blocks = append(blocks, rng.Uint64N(length))
			}
			if length > 0 {
				p.pull(q, w, blocks...)
			}
		case 5:
			q := list[rng.IntN(n)]
			if q != p {
				w := writers[rng.IntN(n)]
				if w != p.n && q.bee(w).Log().Length() > 0 {
					p.pull(q, w)
				}
			}
		case 6:
			if !followed {
				break
			}
			checkTree(t, m, p.tree, m.cutOf(p), rng)
			v, err := p.tree.Version(ctx)
			must(t, err)
			versions = append(versions, kept{p, v, m.cutOf(p)})
		}
	}
	for range 2 {
		for _, p := range list {
			for _, q := range list {
				if p != q {
					meet(p, q, writers...)
				}
			}
		}
	}
	want := m.cutOf(list[0])
	for _, p := range list {
		checkTree(t, m, p.tree, want, rng)
		if len(p.bad) > 0 {
			t.Errorf("problems: %v", p.bad)
		}
	}
	for _, k := range versions {
		b, err := ReadVersion(k.version.AppendTo(nil))
		must(t, err)
		past, err := k.p.tree.Checkout(ctx, b)
		must(t, err)
		checkTree(t, m, past, k.at, rng)
		other := versions[rng.IntN(len(versions))]
		if other.p == k.p {
			checkChanges(t, m, past, k.at, other.version, other.at)
		}
		checkChanges(t, m, k.p.tree, want, k.version, k.at)
		must(t, past.Close())
	}
	checkChanges(t, m, list[0].tree, want, nil, cut{})
	checkHistory(t, m, list[n-1].tree, want, rng)
	if !followed {
		return
	}
	checkTimes(t, m, list[0].tree, want, rng)
}

// alive reports whether a key has a value: one wins over deletions.
func (m *model) alive(key string, at cut) bool {
	return strings.HasPrefix(m.merged(key, at), key+"=\"")
}

// checkTree reads a tree in all ways.
func checkTree(t *testing.T, m *model, tree *Tree, at cut, rng *rand.Rand) {
	t.Helper()
	ctx := context.Background()
	v, err := tree.Version(ctx)
	must(t, err)
	got := cut{}
	for w, seq := range v {
		got[writerN(w)] = seq
	}
	if !maps.Equal(got, at) {
		t.Fatalf("version is %v, want %v", got, at)
	}
	keys := m.keys(at)
	for _, key := range append(keys, "none") {
		e, err := tree.Get(ctx, []byte(key))
		if got, want := show(e), m.merged(key, at); got != want || m.alive(key, at) != (err == nil) {
			t.Fatalf("get: %s, %v\nwant %s", got, err, want)
		}
	}
	low, high := fmt.Sprint("k", rng.IntN(10)), fmt.Sprint("k", rng.IntN(10))
	for _, o := range []hyperbee.RangeOptions{
		{}, {Reverse: true}, {Limit: 3}, {Gte: []byte(low), Lt: []byte(high)},
		{Gt: []byte(low), Lte: []byte(high), Reverse: true, Limit: 2}, {Gte: []byte{}},
	} {
		for _, deleted := range []bool{false, true} {
			var want []string
			for _, key := range keys {
				if o.Gte != nil && key < string(o.Gte) || o.Gt != nil && key <= string(o.Gt) ||
					o.Lt != nil && key >= string(o.Lt) || o.Lte != nil && key > string(o.Lte) {
					continue
				}
				if deleted || m.alive(key, at) {
					want = append(want, m.merged(key, at))
				}
			}
			if o.Reverse {
				slices.Reverse(want)
			}
			if o.Limit > 0 {
				want = want[:min(len(want), o.Limit)]
			}
			var got []string
			read := tree.Range
			if deleted {
				read = tree.RangeAll
			}
			for e, err := range read(ctx, o) {
				must(t, err)
				got = append(got, show(e))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("range %+v, deleted %v:\n%q\nwant\n%q", o, deleted, got, want)
			}
		}
	}
}

func checkChanges(t *testing.T, m *model, tree *Tree, at cut, from Version, before cut) {
	t.Helper()
	var want, got []string
	all := maps.Clone(at)
	for w, end := range before {
		all[w] = max(all[w], end)
	}
	for _, key := range m.keys(all) {
		if a, b := m.merged(key, before), m.merged(key, at); a != b {
			want = append(want, key+": "+a+" -> "+b)
		}
	}
	for c, err := range tree.Changes(context.Background(), from, hyperbee.RangeOptions{}) {
		must(t, err)
		got = append(got, string(c.Key)+": "+show(c.Old)+" -> "+show(c.New))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("changes from %v to %v:\n%q\nwant\n%q", before, at, got, want)
	}
}

func checkTimes(t *testing.T, m *model, tree *Tree, at cut, rng *rand.Rand) {
	t.Helper()
	var times []uint64
	for _, list := range m.said {
		for _, s := range list {
			times = append(times, s.time)
		}
	}
	if len(times) == 0 {
		return
	}
	for range 10 {
		when := times[rng.IntN(len(times))] + rng.Uint64N(3) - 1
		then := cut{}
		for w, end := range at {
			seq := uint64(1)
			for _, s := range m.said[w] {
				if s.seq < end && s.time <= when {
					seq = s.seq + 1
				}
			}
			// The table of a batch comes after its statements.
			for _, start := range m.starts[w] {
				if start >= seq {
					seq = start
					break
				}
			}
			if start := m.starts[w][len(m.starts[w])-1]; seq > start {
				seq = end
			}
			if seq > 1 {
				then[w] = seq
			}
		}
		past, err := tree.At(context.Background(), timeOf(when))
		must(t, err)
		checkTree(t, m, past, then, rng)
		must(t, past.Close())
	}
}

func checkHistory(t *testing.T, m *model, tree *Tree, at cut, rng *rand.Rand) {
	t.Helper()
	var all []*modelStatement
	for w, list := range m.said {
		for _, s := range list {
			if s.seq < at[w] {
				all = append(all, s)
			}
		}
	}
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b *modelStatement) int {
		aw, bw := keyOf(a.writer), keyOf(b.writer)
		return cmp.Or(cmp.Compare(a.time, b.time), bytes.Compare(aw[:], bw[:]), cmp.Compare(a.seq, b.seq))
	})
	someTime := func() time.Time {
		if rng.IntN(3) == 0 {
			return time.Time{}
		}
		return timeOf(all[rng.IntN(len(all))].time)
	}
	for range 20 {
		o := HistoryOptions{From: someTime(), To: someTime(), Reverse: rng.IntN(2) == 0, Limit: rng.IntN(5)}
		switch rng.IntN(3) {
		case 0:
			o.Key = []byte(all[rng.IntN(len(all))].key)
		case 1:
			o.Prefix = []byte(all[rng.IntN(len(all))].key)
		}
		var want []string
		for i, s := range all {
			if o.Key != nil && (s.key != string(o.Key) || slices.ContainsFunc(all[i+1:], func(next *modelStatement) bool {
				return next.writer == s.writer && next.time == s.time && next.key == s.key
			})) || o.Prefix != nil && s.key != string(o.Prefix) {
				continue
			}
			if !o.From.IsZero() && s.time < uint64(o.From.UnixNano()) || !o.To.IsZero() && s.time >= uint64(o.To.UnixNano()) {
				continue
			}
			want = append(want, show(Entry{
				Key: []byte(s.key), Value: valueOf(s), Time: timeOf(s.time), Writer: keyOf(s.writer), Seq: s.seq,
			}))
		}
		if o.Reverse {
			slices.Reverse(want)
		}
		if o.Limit > 0 {
			want = want[:min(len(want), o.Limit)]
		}
		var got []string
		for e, err := range tree.History(context.Background(), o) {
			must(t, err)
			got = append(got, show(e))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("history %+v:\n%q\nwant\n%q", o, got, want)
		}
	}
}

func valueOf(s *modelStatement) []byte {
	if s.deleted {
		return nil
	}
	return []byte(s.value)
}
