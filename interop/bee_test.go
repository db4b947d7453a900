package interop_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// These are what bee.js takes and answers.
type (
	beeOp struct {
		Put   *string `json:"put,omitempty"`
		Del   *string `json:"del,omitempty"`
		Value *string `json:"value"`
		Cas   *bool   `json:"cas,omitempty"`
	}
	beeGroup struct {
		Batch bool     `json:"batch"`
		Sub   []string `json:"sub"`
		Ops   []beeOp  `json:"ops"`
	}
	beeEntry struct {
		Type  string `json:",omitempty"`
		Seq   uint64
		Key   string
		Value *string
	}
)

// startBees starts bee.js.
func startBees(t *testing.T) node {
	t.Helper()
	nodepeer.Require(t)
	p, err := nodepeer.Start(t.Context(), "bee.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return node{t, p}
}

// ourBee is a tree of ours, of the writer with a seed, or of a key.
func ourBee(t *testing.T, s *ourSide, name string, o corestore.LogOptions, b hyperbee.Options) *hyperbee.Tree {
	t.Helper()
	o.Durability = hypercore.Soon
	b.Durability, b.Store = hypercore.Soon, s.store
	log, err := s.store.Get(o)
	s.must(err)
	s.logs[name] = log
	tree, err := hyperbee.Open(log, b)
	s.must(err)
	return tree
}

func beeWriter(b byte) corestore.LogOptions {
	kp := hypercore.NewKeyPair(seedBytes(b))
	return corestore.LogOptions{KeyPair: &kp, Manifest: hypercore.SingleSigner(kp.Public)}
}

func seedBytes(b byte) (seed [32]byte) {
	for i := range seed {
		seed[i] = b
	}
	return seed
}

// randomGroups are changes of a tree that first grows and then shrinks, again and again.
func randomGroups(rng *rand.Rand, n int) (groups []beeGroup) {
	keys := 20 + rng.IntN(600)
	key := func() string {
		switch k := rng.IntN(keys); {
		case k == 0:
			return ""
		case k%7 == 0:
			return hex.EncodeToString([]byte{0xff, byte(k), byte(k >> 8)})
		default:
			return hex.EncodeToString([]byte(fmt.Sprint("key ", k)))
		}
	}
	subs := [][]string{{}, {}, {}, {"61"}, {"61", "62"}, {""}, {"ff"}}
	for done := 0; done < n; {
		g := beeGroup{Sub: subs[rng.IntN(len(subs))], Batch: rng.IntN(3) > 0}
		size := 1 + rng.IntN(20)
		if g.Batch && rng.IntN(5) == 0 {
			size = 1 + rng.IntN(400)
		}
		dels := 2
		if done*6/n%2 == 1 {
			dels = 7 // of 10
		}
		for range size {
			k := key()
			var op beeOp
			if rng.IntN(10) < dels {
				op.Del = &k
			} else {
				op.Put = &k
				switch rng.IntN(10) {
				case 0: // none
				case 1:
					op.Value = new(string)
				default:
					v := hex.EncodeToString(fmt.Append(nil, rng.IntN(4)))
					op.Value = &v
				}
			}
			if rng.IntN(8) == 0 {
				yes := rng.IntN(2) == 0
				op.Cas = &yes
			}
			g.Ops = append(g.Ops, op)
		}
		done += size
		groups = append(groups, g)
	}
	return groups
}

func beeBytes(s *string) []byte {
	if s == nil {
		return nil
	}
	b, err := hex.DecodeString(*s)
	if err != nil {
		panic(err)
	}
	return append([]byte{}, b...)
}

func subOf(tree *hyperbee.Tree, prefixes []string) *hyperbee.Tree {
	for _, p := range prefixes {
		tree = tree.Sub(beeBytes(&p))
	}
	return tree
}

// applyGroups makes the changes on our side, and says of each whether it made a block.
func applyGroups(t *testing.T, tree *hyperbee.Tree, groups []beeGroup) (written []bool) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range groups {
		db := subOf(tree, g.Sub)
		var batch *hyperbee.Batch
		if g.Batch {
			var err error
			batch, err = db.Batch(ctx)
			check(err)
		}
		for _, op := range g.Ops {
			// The package asks only where there is an entry.
			when := func(have *hyperbee.Entry) bool { return have == nil || op.Cas == nil || *op.Cas }
			putIf, deleteIf, size := db.PutIf, db.DeleteIf, func() int { return int(tree.Log().Length()) }
			if g.Batch {
				putIf, deleteIf, size = batch.PutIf, batch.DeleteIf, batch.Len
			}
			before := size()
			var done bool
			var err error
			if op.Put != nil {
				done, err = putIf(ctx, beeBytes(op.Put), beeBytes(op.Value), when)
			} else {
				done, err = deleteIf(ctx, beeBytes(op.Del), when)
			}
			check(err)
			if before > 0 && done != (size() > before) {
				t.Fatalf("it is said that a block was written: %v, but there are %d, and were %d before", done, size(), before)
			}
			written = append(written, size() > before)
		}
		if g.Batch {
			check(batch.Flush(ctx))
		}
	}
	return written
}

type beeHints struct{ Gets, Iterators, Blocks int }

type beeHead struct {
	Length, Version     uint64
	TreeHash, Signature string
}

func ourBeeHead(t *testing.T, tree *hyperbee.Tree) beeHead {
	t.Helper()
	h := tree.Log().Head()
	hash := h.Hash()
	return beeHead{h.Length, tree.Version(), hex.EncodeToString(hash[:]), hex.EncodeToString(h.Signature)}
}

// sameBees compares the heads, and finds the first block that differs if they do.
func sameBees(t *testing.T, n node, handle string, tree *hyperbee.Tree) {
	t.Helper()
	want, got := call[beeHead](n, "head", args{"handle": handle}), ourBeeHead(t, tree)
	if got == want {
		return
	}
	blocks := call[struct{ Blocks []string }](n, "blocks", args{"handle": handle}).Blocks
	for i, want := range blocks {
		got, err := tree.Log().Get(t.Context(), uint64(i))
		if err != nil || hex.EncodeToString(got) != want {
			t.Fatalf("block %d:\n got %x, %v\nwant %s", i, got, err, want)
		}
	}
	t.Fatalf("head %+v, want %+v", got, want)
}

func TestNodeAndBevyWriteTheSameTrees(t *testing.T) {
	n := startBees(t)
	s := startOurSide(t, replicate.Options{})
	rng := random(t, 1)
	for round := range 4 * long(10) {
		handle := fmt.Sprint("bee ", round)
		open := args{"handle": handle, "seed": seed(byte(round + 1))}
		var o hyperbee.Options
		if round%2 == 1 {
			open["skipEqual"], o.SkipEqual = true, true
			open["metadata"] = args{"contentFeed": seed(7)}
			feed := seedBytes(7)
			o.Metadata = &hyperbee.Metadata{ContentFeed: feed[:]}
		}
		call[any](n, "open", open)
		tree := ourBee(t, s, handle, beeWriter(byte(round+1)), o)
		for part := range 4 {
			groups := randomGroups(rng, 700*long(3))
			for i := range groups {
				if o.SkipEqual {
					groups[i].Sub = []string{} // databases in one do not know that option in the package
				}
			}
			want := call[struct{ Written []bool }](n, "apply", args{"handle": handle, "groups": groups}).Written
			got := applyGroups(t, tree, groups)
			if !slices.Equal(got, want) {
				t.Fatalf("round %d, part %d: the changes that were made are not the same", round, part)
			}
			sameBees(t, n, handle, tree)
		}
		call[any](n, "close", args{"handle": handle})
	}
}

// theirs is an entry of ours as Node tells it.
func theirs(kind string, e hyperbee.Entry) beeEntry {
	out := beeEntry{Type: kind, Seq: e.Seq, Key: hex.EncodeToString(e.Key)}
	if e.Value != nil {
		v := hex.EncodeToString(e.Value)
		out.Value = &v
	}
	return out
}

func sameEntries(t *testing.T, what string, got, want []beeEntry) {
	t.Helper()
	text := func(list []beeEntry) (out []string) {
		for _, e := range list {
			value := "none"
			if e.Value != nil {
				value = *e.Value
			}
			out = append(out, fmt.Sprintf("%s %d %s=%s", e.Type, e.Seq, e.Key, value))
		}
		return out
	}
	if g, w := text(got), text(want); !slices.Equal(g, w) {
		t.Fatalf("%s: %d and %d entries:\n got %v\nwant %v", what, len(g), len(w), g, w)
	}
}

func listOf(t *testing.T, tree *hyperbee.Tree, o hyperbee.RangeOptions) (out []beeEntry) {
	t.Helper()
	for e, err := range tree.Range(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, theirs("", e))
	}
	return out
}

// sameAnswers asks both sides the same random questions.
func sameAnswers(t *testing.T, rng *rand.Rand, n node, handle string, tree *hyperbee.Tree, versions []uint64) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	type entries struct{ Entries []beeEntry }
	for range 15 * long(10) {
		v := versions[rng.IntN(len(versions))]
		old, err := tree.Checkout(v)
		check(err)
		db := args{"handle": handle, "version": v}

		key := fmt.Append(nil, "key ", rng.IntN(100))
		got, err := old.Get(ctx, key)
		want := call[struct{ Entry *beeEntry }](n, "get", args{"database": db, "key": hex.EncodeToString(key)}).Entry
		if (err == nil) != (want != nil) {
			t.Fatalf("get %q of version %d: %v, %v, want %v", key, v, got, err, want)
		}
		if want != nil {
			sameEntries(t, "get", []beeEntry{theirs("", got)}, []beeEntry{*want})
		}

		from, to := fmt.Append(nil, "key ", rng.IntN(100)), fmt.Append(nil, "key ", rng.IntN(100))
		o := hyperbee.RangeOptions{Reverse: rng.IntN(2) == 0, Limit: rng.IntN(30)}
		r := args{"reverse": o.Reverse, "limit": o.Limit}
		switch rng.IntN(3) {
		case 0:
			o.Gt, r["gt"] = from, hex.EncodeToString(from)
		case 1:
			o.Gte, r["gte"] = from, hex.EncodeToString(from)
		}
		switch rng.IntN(3) {
		case 0:
			o.Lt, r["lt"] = to, hex.EncodeToString(to)
		case 1:
			o.Lte, r["lte"] = to, hex.EncodeToString(to)
		}
		sameEntries(t, fmt.Sprintf("range %v of version %d", r, v), listOf(t, old, o), call[entries](n, "range", args{"database": db, "range": r}).Entries)

		other := versions[rng.IntN(len(versions))]
		type pair struct{ Left, Right *beeEntry }
		var diff []pair
		delete(r, "reverse")
		delete(r, "limit")
		o.Reverse, o.Limit = false, 0
		for d, err := range old.Diff(ctx, other, o) {
			check(err)
			var p pair
			if d.Left != nil {
				e := theirs("", *d.Left)
				p.Left = &e
			}
			if d.Right != nil {
				e := theirs("", *d.Right)
				p.Right = &e
			}
			diff = append(diff, p)
		}
		wantDiff := call[struct{ Diff []pair }](n, "diff", args{"database": db, "other": other, "range": r}).Diff
		side := func(list []pair, right bool) (out []beeEntry) {
			for _, p := range list {
				e := p.Left
				if right {
					e = p.Right
				}
				if e == nil {
					e = &beeEntry{}
				}
				out = append(out, *e)
			}
			return out
		}
		what := fmt.Sprintf("diff of %d with %d in %v", v, other, r)
		sameEntries(t, what, side(diff, false), side(wantDiff, false))
		sameEntries(t, what, side(diff, true), side(wantDiff, true))
		check(old.Close())
	}
	var history []beeEntry
	for c, err := range tree.History(ctx, hyperbee.HistoryOptions{}) {
		check(err)
		kind := "put"
		if c.Deleted {
			kind = "del"
		}
		history = append(history, theirs(kind, c.Entry))
	}
	sameEntries(t, "history", history, call[entries](n, "history", args{"database": args{"handle": handle}}).Entries)
}

// versionsOf are the lengths after groups: in the middle of a batch is no version.
func versionsOf(groups []beeGroup, written []bool) []uint64 {
	versions, length := []uint64{1}, uint64(1)
	for _, g := range groups {
		for _, w := range written[:len(g.Ops)] {
			if w {
				length++
			}
			if !g.Batch {
				versions = append(versions, length)
			}
		}
		written = written[len(g.Ops):]
		versions = append(versions, length)
	}
	return versions
}

func TestBevyReadsTreesOfNode(t *testing.T) {
	n := startBees(t)
	s := startOurSide(t, replicate.Options{})
	rng := random(t, 1)
	o := call[struct{ Key string }](n, "open", args{"handle": "theirs", "seed": seed(1)})
	groups := randomGroups(rng, 1500)
	written := call[struct{ Written []bool }](n, "apply", args{"handle": "theirs", "groups": groups}).Written
	key := hypercore.Key(key32(t, o.Key))
	tree := ourBee(t, s, "theirs", corestore.LogOptions{Key: &key}, hyperbee.Options{})
	done := s.store.FindingPeers()
	s.connect(call[struct{ Port int }](n, "listen", args{"handle": "theirs"}).Port)
	done()

	ctx, cancel := s.patient()
	defer cancel()
	// Nothing is known yet: the first read asks.
	if _, err := tree.Get(ctx, []byte("none")); !errors.Is(err, hyperbee.ErrNotFound) {
		t.Fatalf("get what is not there: %v", err)
	}
	want := call[beeHead](n, "head", args{"handle": "theirs"})
	if tree.Version() != want.Version {
		t.Fatalf("version %d, want %d", tree.Version(), want.Version)
	}
	held := 0
	for _, r := range s.held("theirs") {
		held += int(r.End - r.Start)
	}
	if h := call[beeHints](n, "hints", args{"handle": "theirs"}); h.Gets != 1 {
		t.Errorf("Node was asked %+v, want one get", h)
	}
	if held > 120 {
		t.Errorf("one get brought %d blocks of %d", held, want.Length)
	}
	sameAnswers(t, rng, n, "theirs", tree, versionsOf(groups, written))

	// It goes on as the writer does.
	changes := make(chan hyperbee.Difference, 1)
	watched, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	from := tree.Version()
	watching.Go(func() {
		for d, err := range tree.Watch(watched, from, hyperbee.RangeOptions{Gte: []byte("news"), Lte: []byte("news")}) {
			if err != nil {
				return
			}
			changes <- d
		}
	})
	news, value := hex.EncodeToString([]byte("news")), "01"
	call[any](n, "apply", args{"handle": "theirs", "groups": []beeGroup{{Sub: []string{}, Ops: []beeOp{{Put: &news, Value: &value}}}}})
	select {
	case d := <-changes:
		if d.Left == nil || d.Right != nil || !bytes.Equal(d.Left.Value, []byte{1}) {
			t.Errorf("the change is told as %+v", d)
		}
	case <-ctx.Done():
		t.Fatal("the change did not come")
	}
}

// Who does not know of hints is not troubled by ours.
func TestHintsTroubleNobodyWhoDoesNotKnowThem(t *testing.T) {
	n := startBees(t)
	s := startOurSide(t, replicate.Options{})
	o := call[struct{ Key string }](n, "open", args{"handle": "theirs", "seed": seed(1), "noHints": true})
	call[any](n, "apply", args{"handle": "theirs", "groups": randomGroups(random(t, 1), 300)})
	key := hypercore.Key(key32(t, o.Key))
	tree := ourBee(t, s, "theirs", corestore.LogOptions{Key: &key}, hyperbee.Options{})
	done := s.store.FindingPeers()
	s.connect(call[struct{ Port int }](n, "listen", args{"handle": "theirs"}).Port)
	done()
	ctx, cancel := s.patient()
	defer cancel()
	if _, err := tree.Get(ctx, []byte("none")); !errors.Is(err, hyperbee.ErrNotFound) {
		t.Fatal(err)
	}
	want := call[struct{ Entries []beeEntry }](n, "range", args{"database": args{"handle": "theirs"}, "range": args{}}).Entries
	sameEntries(t, "range", listOf(t, tree, hyperbee.RangeOptions{}), want)
	peers := s.store.Peers()
	if len(peers) != 1 || !peers[0].Open || peers[0].Dropped != nil || peers[0].Violations > 0 {
		t.Errorf("the peers are %+v", peers)
	}
}

func TestNodeReadsTreesOfBevy(t *testing.T) {
	n := startBees(t)
	s := startOurSide(t, replicate.Options{})
	rng := random(t, 1)
	tree := ourBee(t, s, "ours", beeWriter(1), hyperbee.Options{})
	groups := randomGroups(rng, 1500)
	written := applyGroups(t, tree, groups)
	key := tree.Log().Key()
	call[any](n, "open", args{"handle": "ours", "key": hex.EncodeToString(key[:])})
	call[any](n, "connect", args{"handle": "ours", "port": s.listen()})
	call[any](n, "update", args{"handle": "ours", "length": tree.Log().Length()})
	sameAnswers(t, rng, n, "ours", tree, versionsOf(groups, written))
	if h := call[beeHints](n, "hints", args{"handle": "ours"}); h.Blocks == 0 {
		t.Error("Node's questions got no answer")
	}
}

// typedBee is what both sides do with a tree of types.
type typedBee[K, V any] struct {
	keys, values string // as Node calls them
	sub, sep     *string
	put          []typedPair[K, V]
	del          []K
	gt, gte, lte *K
}

// typedPair is a key and a value.
type typedPair[K, V any] struct {
	Key   K
	Value V
}

func (p typedPair[K, V]) MarshalJSON() ([]byte, error) { return json.Marshal([]any{p.Key, p.Value}) }

func (p *typedPair[K, V]) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&p.Key, &p.Value})
}

// hexBytes are bytes that are hex in JSON.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// asHex is Binary of hexBytes.
type asHex struct{}

func (asHex) Encode(b hexBytes) ([]byte, error) { return b, nil }
func (asHex) Decode(b []byte) (hexBytes, error) { return b, nil }

// sameTyped does the same on both sides: the logs become the same, and so is what a range of them says.
func sameTyped[K, V any](t *testing.T, n node, tree *hyperbee.Tree, keys hyperbee.Encoding[K], values hyperbee.Encoding[V], c typedBee[K, V]) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db := tree
	if c.sub != nil && c.sep != nil {
		db = tree.SubWith([]byte(*c.sub), []byte(*c.sep))
	} else if c.sub != nil {
		db = tree.Sub([]byte(*c.sub))
	}
	typed := hyperbee.NewTyped(db, keys, values)
	for _, p := range c.put {
		check(typed.Put(ctx, p.Key, p.Value))
	}
	for _, k := range c.del {
		check(typed.Delete(ctx, k))
	}
	var got []typedPair[K, V]
	for e, err := range typed.Range(ctx, hyperbee.TypedRange[K]{Gt: c.gt, Gte: c.gte, Lte: c.lte}) {
		check(err)
		got = append(got, typedPair[K, V]{e.Key, e.Value})
	}
	words := args{"handle": "bee", "keys": c.keys, "values": c.values, "put": c.put, "del": append([]K{}, c.del...)}
	if c.sub != nil {
		words["sub"] = *c.sub
	}
	if c.sep != nil {
		words["sep"] = *c.sep
	}
	bounds := map[string]K{}
	for name, bound := range map[string]*K{"gt": c.gt, "gte": c.gte, "lte": c.lte} {
		if bound != nil {
			bounds[name] = *bound
		}
	}
	words["range"] = bounds
	want := call[struct{ Entries []typedPair[K, V] }](n, "typed", words).Entries
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w || len(got) == 0 {
		t.Errorf("keys %s and values %s:\n got %s\nwant %s", c.keys, c.values, g, w)
	}
	sameBees(t, n, "bee", tree)
}

func TestNodeAndBevyEncodeTheSame(t *testing.T) {
	n := startBees(t)
	s := startOurSide(t, replicate.Options{})
	call[any](n, "open", args{"handle": "bee", "seed": seed(1)})
	tree := ourBee(t, s, "bee", beeWriter(1), hyperbee.Options{})

	type thing struct {
		Name  string         `json:"name"`
		Sizes []int          `json:"sizes"`
		More  map[string]any `json:"more,omitempty"`
	}
	texts := []typedPair[string, thing]{
		{"", thing{"nothing", []int{}, nil}},
		{"b", thing{"<a & b>", []int{1, -2}, map[string]any{"x": nil, "y": 0.5}}},
		{"Größe 🍐", thing{"\"\n\u0001é", nil, nil}},
	}
	sameTyped(t, n, tree, hyperbee.UTF8, hyperbee.JSON[thing](), typedBee[string, thing]{
		keys: "utf-8", values: "json", put: texts, del: []string{"b", "c"},
		gte: new(""),
	})
	sub, sep := "sub", "::"
	sameTyped(t, n, tree, hyperbee.UTF8, hyperbee.JSON[thing](), typedBee[string, thing]{
		keys: "utf-8", values: "json", sub: &sub, sep: &sep, put: texts,
		gt: new("a"),
	})
	sameTyped(t, n, tree, hyperbee.UTF8, hyperbee.UTF8, typedBee[string, string]{
		keys: "ascii", values: "utf-8", sub: &sub, put: []typedPair[string, string]{{"a", "ä"}, {"z", ""}},
	})
	numbers := []typedPair[uint64, hexBytes]{}
	for _, v := range []uint64{1, 0xfb, 0xfc, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, 1<<53 - 1} {
		numbers = append(numbers, typedPair[uint64, hexBytes]{v, fmt.Append(nil, v)})
	}
	sub = "numbers"
	sameTyped(t, n, tree, hyperbee.Uint, asHex{}, typedBee[uint64, hexBytes]{
		keys: "uint", values: "binary", sub: &sub, put: numbers,
		gt: new(uint64(0xfb)), lte: new(uint64(0x1_0000_0000)),
	})
	// What is text in a program of Node is bytes in the log.
	sub = "bytes"
	sameTyped(t, n, tree, asHex{}, asHex{}, typedBee[hexBytes, hexBytes]{
		keys: "hex", values: "hex", sub: &sub, put: []typedPair[hexBytes, hexBytes]{{hexBytes{0xff, 0}, hexBytes{1}}, {hexBytes("a"), hexBytes{}}},
	})
}
