package hyperbee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A model is what a tree should be: a map for each version.
type model struct {
	t        *testing.T
	rng      *rand.Rand
	tree     *Tree
	keys     int
	now      map[string]Entry
	versions map[uint64]map[string]Entry // those that can be checked out: not in the middle of a batch
	changes  []Change                    // of the block of their place + 1
}

func (m *model) key() []byte {
	k := m.rng.IntN(m.keys)
	switch {
	case k == 0:
		return []byte{}
	case k%5 == 0:
		return []byte{byte(k), 0xff, byte(k >> 8)}
	case k%3 == 0:
		return []byte(fmt.Sprint("sub\x00", k))
	}
	return []byte(fmt.Sprint("key ", k))
}

func (m *model) value() []byte {
	switch m.rng.IntN(8) {
	case 0:
		return nil
	case 1:
		return []byte{}
	}
	return bytes.Repeat([]byte{byte(m.rng.IntN(256))}, 1+m.rng.IntN(30))
}

// note takes down a change that was made.
func (m *model) note(key, value []byte, deleted bool) {
	m.now = maps.Clone(m.now)
	c := Change{Entry{uint64(len(m.changes) + 1), key, value}, deleted}
	m.changes = append(m.changes, c)
	if deleted {
		delete(m.now, string(key))
	} else {
		m.now[string(key)] = c.Entry
	}
}

// same compares entries; nil and empty values differ.
func same(a, b Entry) bool {
	return a.Seq == b.Seq && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil)
}

// change makes one random change, with its condition.
func (m *model) change(ctx context.Context, del func(context.Context, []byte, func(*Entry) bool) (bool, error), put func(context.Context, []byte, []byte, func(*Entry) bool) (bool, error), dels int) {
	m.t.Helper()
	key := m.key()
	have, there := m.now[string(key)]
	want := m.rng.IntN(6) > 0
	when := func(e *Entry) bool {
		if (e != nil) != there || there && !same(*e, have) {
			m.t.Errorf("the condition of %q got %v, want %v, %v", key, e, have, there)
		}
		return want
	}
	if m.rng.IntN(10) < dels {
		done, err := del(ctx, key, when)
		must(m.t, err)
		if done != (there && want) {
			m.t.Fatalf("delete %q: %v", key, done)
		}
		if done {
			m.note(key, nil, true)
		}
		return
	}
	value := m.value()
	done, err := put(ctx, key, value, when)
	must(m.t, err)
	if done != want {
		m.t.Fatalf("put %q: %v", key, done)
	}
	if done {
		m.note(key, value, false)
	}
}

// want is what a range of a state should be.
func wantRange(state map[string]Entry, prefix string, o RangeOptions) (out []Entry) {
	for _, key := range slices.Sorted(maps.Keys(state)) {
		e := state[key]
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		e.Key = []byte(rest)
		switch {
		case o.Gt != nil && rest <= string(o.Gt), o.Gt == nil && o.Gte != nil && rest < string(o.Gte):
		case o.Lt != nil && rest >= string(o.Lt), o.Lt == nil && o.Lte != nil && rest > string(o.Lte):
		default:
			out = append(out, e)
		}
	}
	if o.Reverse {
		slices.Reverse(out)
	}
	if o.Limit > 0 && len(out) > o.Limit {
		out = out[:o.Limit]
	}
	return out
}

func (m *model) randomRange() (o RangeOptions) {
	if m.rng.IntN(2) == 0 {
		o.Gt = m.key()
	}
	if m.rng.IntN(2) == 0 {
		o.Gte = m.key()
	}
	if m.rng.IntN(3) == 0 {
		o.Lt = m.key()
	}
	if m.rng.IntN(3) == 0 {
		o.Lte = m.key()
	}
	if m.rng.IntN(4) == 0 {
		o.Limit = 1 + m.rng.IntN(10)
	}
	return o
}

// check compares a tree with a state of the model, by a random question.
func (m *model) check(tree *Tree, state map[string]Entry) {
	m.t.Helper()
	ctx := context.Background()
	key := m.key()
	got, err := tree.Get(ctx, key)
	if want, ok := state[string(key)]; ok != (err == nil) || !ok && !errors.Is(err, ErrNotFound) || ok && !same(got, want) {
		m.t.Fatalf("get %q of version %d: %v, %v, want %v, %v", key, tree.Version(), got, err, want, ok)
	}
	o := m.randomRange()
	o.Reverse = m.rng.IntN(2) == 0
	prefix := ""
	if m.rng.IntN(3) == 0 {
		prefix = "sub\x00"
		tree = tree.Sub([]byte("sub"))
		defer tree.Close()
	}
	all, want := list(m.t, tree, o), wantRange(state, prefix, o)
	if !slices.EqualFunc(all, want, same) {
		m.t.Fatalf("range %+v under %q:\n got %v\nwant %v", o, prefix, all, want)
	}
}

// checkDiff compares the difference of two versions.
func (m *model) checkDiff(a, b uint64) {
	m.t.Helper()
	tree, err := m.tree.Checkout(a)
	must(m.t, err)
	defer tree.Close()
	o := m.randomRange()
	limit := o.Limit
	o.Limit = 0
	var want []string
	left, right := m.versions[a], m.versions[b]
	both := maps.Clone(left)
	maps.Copy(both, right)
	for _, e := range wantRange(both, "", o) {
		var d Difference
		if e, ok := left[string(e.Key)]; ok {
			d.Left = &e
		}
		if e, ok := right[string(e.Key)]; ok {
			d.Right = &e
		}
		if d.Left == nil || d.Right == nil || !same(*d.Left, *d.Right) {
			want = append(want, diffText(d))
		}
	}
	if o.Limit = limit; limit > 0 && len(want) > limit {
		want = want[:limit]
	}
	var got []string
	for d, err := range tree.Diff(context.Background(), b, o) {
		must(m.t, err)
		got = append(got, diffText(d))
	}
	if !slices.Equal(got, want) {
		m.t.Fatalf("diff of %d with %d in %+v:\n got %v\nwant %v", a, b, o, got, want)
	}
}

func (m *model) checkHistory() {
	m.t.Helper()
	from, to := uint64(m.rng.IntN(len(m.changes)+1)), uint64(m.rng.IntN(len(m.changes)+2))
	o := HistoryOptions{From: from, To: to, Reverse: m.rng.IntN(2) == 0, Limit: m.rng.IntN(20)}
	var want []Change
	for _, c := range m.changes {
		if c.Seq >= from && (to == 0 || c.Seq < to) {
			want = append(want, c)
		}
	}
	if o.Reverse {
		slices.Reverse(want)
	}
	if o.Limit > 0 && len(want) > o.Limit {
		want = want[:o.Limit]
	}
	at := 0
	for c, err := range m.tree.History(context.Background(), o) {
		must(m.t, err)
		if at >= len(want) || !same(c.Entry, want[at].Entry) || c.Value != nil && c.Deleted {
			m.t.Fatalf("history %+v: change %d is %v, want %v", o, at, c, want[min(at, len(want)-1)])
		}
		if want[at].Deleted && !c.Deleted {
			m.t.Fatalf("history: %v is told to be a put", c)
		}
		at++
	}
	if at != len(want) {
		m.t.Fatalf("history %+v: %d changes, want %d", o, at, len(want))
	}
}

func TestTreesAreOrderedMaps(t *testing.T) {
	seeds := uint64(3)
	if os.Getenv("BEVY_LONG") != "" {
		seeds = 60
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			ctx := context.Background()
			store := memoryStore(t)
			// A small cache, so that much is read again.
			o := Options{Cache: NewCache(20_000), Durability: hypercore.Soon}
			kp := keyPairN(1)
			reopen := func() *Tree {
				log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
				must(t, err)
				tree, err := Open(log, o)
				must(t, err)
				return tree
			}
			rng := rand.New(rand.NewPCG(seed, 1))
			m := &model{t: t, rng: rng, tree: reopen(), keys: 10 + rng.IntN(400), now: map[string]Entry{}}
			m.versions = map[uint64]map[string]Entry{1: m.now}
			for step := range 700 {
				dels := 2
				if step/100%2 == 1 {
					dels = 7
				}
				switch p := rng.IntN(100); {
				case p < 40:
					m.change(ctx, m.tree.DeleteIf, m.tree.PutIf, dels)
				case p < 60:
					b, err := m.tree.Batch(ctx)
					must(t, err)
					before, n := m.now, len(m.changes)
					for range rng.IntN(60) {
						m.change(ctx, b.DeleteIf, b.PutIf, dels)
						key := m.key()
						got, err := b.Get(ctx, key)
						if want, ok := m.now[string(key)]; ok != (err == nil) || ok && !same(got, want) {
							t.Fatalf("get %q in a batch: %v, %v, want %v", key, got, err, want)
						}
					}
					r := m.randomRange()
					r.Reverse = rng.IntN(2) == 0
					var all []Entry
					for e, err := range b.Range(ctx, r) {
						must(t, err)
						all = append(all, e)
					}
					if want := wantRange(m.now, "", r); !slices.EqualFunc(all, want, same) {
						t.Fatalf("range %+v of a batch:\n got %v\nwant %v", r, all, want)
					}
					if rng.IntN(5) == 0 { // forget it
						b.Close()
						m.now, m.changes = before, m.changes[:n]
					} else {
						must(t, b.Flush(ctx))
					}
				case p < 62:
					must(t, m.tree.Log().Close())
					m.tree = reopen()
				case p < 63 && len(m.versions) > 2:
					// Back to a version that was.
					old := slices.Sorted(maps.Keys(m.versions))
					to := old[1+rng.IntN(len(old)-1)]
					must(t, m.tree.Log().Truncate(ctx, to, hypercore.TruncateOptions{}))
					m.now, m.changes = m.versions[to], m.changes[:to-1]
					maps.DeleteFunc(m.versions, func(v uint64, _ map[string]Entry) bool { return v > to })
				default:
					all := slices.Sorted(maps.Keys(m.versions))
					v, w := all[rng.IntN(len(all))], all[rng.IntN(len(all))]
					old, err := m.tree.Checkout(v)
					must(t, err)
					m.check(old, m.versions[v])
					must(t, old.Close())
					m.checkDiff(v, w)
					if len(m.changes) > 0 {
						m.checkHistory()
					}
				}
				if got, want := m.tree.Version(), uint64(len(m.changes)+1); got != want {
					t.Fatalf("version %d, want %d", got, want)
				}
				m.versions[m.tree.Version()] = m.now
				m.check(m.tree, m.now)
				if c := m.tree.s.cache; c.bytes > c.max {
					t.Fatalf("the cache has %d bytes, more than %d", c.bytes, c.max)
				}
			}
			must(t, m.tree.Log().Close())
		})
	}
}
