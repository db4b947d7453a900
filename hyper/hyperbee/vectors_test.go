package hyperbee

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

// vectors is testdata/hyperbee.json, written by hyperbee 2. What differs from
// scenario to scenario is left raw.
type vectors struct {
	Scenarios []struct {
		Name     string
		Ops      []vectorOp
		Blocks   []struct{ Hex string }
		TreeHash string
		History  []struct {
			Type       string
			Seq        uint64
			Key, Value *string
		}
		Range       []vectorEntry `json:"range c..i"`
		Reverse     []vectorEntry `json:"reverse limit 3"`
		Checkout    []vectorEntry `json:"checkout(6)"`
		Diff        []vectorDiff  `json:"diff(6)"`
		Keys        []string
		Checkpoints []struct {
			After, TreeHash string
			Length          uint64
		}
		Remaining int
		Last3     []struct {
			Seq uint64
			Hex string
		}
	}
	ExtensionMessages []struct {
		Hex string
	}
}

type vectorOp struct {
	Batch          int
	Op, Key, Value string
}

type vectorEntry struct {
	Seq        uint64
	Key, Value string
}

type vectorDiff struct{ Left, Right *vectorEntry }

func (e *vectorEntry) String() string {
	if e == nil {
		return "-"
	}
	return fmt.Sprintf("%d:%s=%s", e.Seq, e.Key, e.Value)
}

func changeText(c Change) string {
	if c.Value == nil {
		return fmt.Sprintf("%d:%s deleted %v", c.Seq, c.Key, c.Deleted)
	}
	return fmt.Sprintf("%d:%s=%s deleted %v", c.Seq, c.Key, c.Value, c.Deleted)
}

func diffText(d Difference) string {
	side := func(e *Entry) string {
		if e == nil {
			return "-"
		}
		return fmt.Sprintf("%d:%s=%s", e.Seq, e.Key, e.Value)
	}
	return side(d.Left) + " " + side(d.Right)
}

func loadVectors(t testing.TB) (v vectors) {
	t.Helper()
	raw, err := os.ReadFile("testdata/hyperbee.json")
	must(t, err)
	must(t, json.Unmarshal(raw, &v))
	return v
}

func checkBlock(t *testing.T, tree *Tree, seq uint64, want string) {
	t.Helper()
	got, err := tree.Log().Get(context.Background(), seq)
	must(t, err)
	if hex.EncodeToString(got) != want {
		t.Errorf("block %d:\n got %x\nwant %s", seq, got, want)
	}
}

func checkHash(t *testing.T, tree *Tree, after string, length uint64, want string) {
	t.Helper()
	hash, err := tree.Log().TreeHash(tree.Log().Length())
	must(t, err)
	if got := hex.EncodeToString(hash[:]); tree.Log().Length() != length || got != want {
		t.Fatalf("after %s: length %d, tree hash %s, want %d, %s", after, tree.Log().Length(), got, length, want)
	}
}

func checkEntries(t *testing.T, what string, got []Entry, want []vectorEntry) {
	t.Helper()
	var g, w []string
	for _, e := range got {
		g = append(g, (&vectorEntry{e.Seq, string(e.Key), string(e.Value)}).String())
	}
	for _, e := range want {
		w = append(w, e.String())
	}
	if fmt.Sprint(g) != fmt.Sprint(w) {
		t.Errorf("%s:\n got %v\nwant %v", what, g, w)
	}
}

func TestBlocksAreThoseOfHyperbee(t *testing.T) {
	ctx := context.Background()
	v := loadVectors(t)

	t.Run("one by one", func(t *testing.T) {
		s := v.Scenarios[0]
		tree := newTree(t, 1, Options{})
		for _, op := range s.Ops {
			if op.Op == "put" {
				put(t, tree, op.Key, op.Value)
			} else {
				del(t, tree, op.Key)
			}
		}
		for i, b := range s.Blocks {
			checkBlock(t, tree, uint64(i), b.Hex)
		}
		checkHash(t, tree, "all", uint64(len(s.Blocks)), s.TreeHash)
		checkEntries(t, "range", list(t, tree, RangeOptions{Gte: []byte("c"), Lt: []byte("i")}), s.Range)
		checkEntries(t, "reverse", list(t, tree, RangeOptions{Reverse: true, Limit: 3}), s.Reverse)
		old, err := tree.Checkout(6)
		must(t, err)
		defer old.Close()
		checkEntries(t, "checkout", list(t, old, RangeOptions{}), s.Checkout)

		var history []string
		for c, err := range tree.History(ctx, HistoryOptions{}) {
			must(t, err)
			history = append(history, changeText(c))
		}
		var want []string
		for _, c := range s.History {
			e := Entry{Seq: c.Seq, Key: []byte(*c.Key)}
			if c.Value != nil {
				e.Value = []byte(*c.Value)
			}
			want = append(want, changeText(Change{e, c.Type == "del"}))
		}
		if fmt.Sprint(history) != fmt.Sprint(want) {
			t.Errorf("history:\n got %v\nwant %v", history, want)
		}
		var diff, wantDiff []string
		for d, err := range tree.Diff(ctx, 6, RangeOptions{}) {
			must(t, err)
			diff = append(diff, diffText(d))
		}
		for _, d := range s.Diff {
			wantDiff = append(wantDiff, d.Left.String()+" "+d.Right.String())
		}
		if fmt.Sprint(diff) != fmt.Sprint(wantDiff) {
			t.Errorf("diff:\n got %v\nwant %v", diff, wantDiff)
		}
	})

	t.Run("batches", func(t *testing.T) {
		s := v.Scenarios[1]
		tree := newTree(t, 2, Options{})
		for n := 1; n <= 2; n++ {
			b, err := tree.Batch(ctx)
			must(t, err)
			for _, op := range s.Ops {
				key, _ := hex.DecodeString(op.Key)
				value, _ := hex.DecodeString(op.Value)
				switch {
				case op.Batch != n:
				case op.Op == "put":
					must(t, b.Put(ctx, key, value))
				default:
					must(t, b.Delete(ctx, key))
				}
			}
			must(t, b.Flush(ctx))
		}
		for i, b := range s.Blocks {
			checkBlock(t, tree, uint64(i), b.Hex)
		}
		checkHash(t, tree, "all", uint64(len(s.Blocks)), s.TreeHash)
	})

	t.Run("many", func(t *testing.T) {
		s := v.Scenarios[2]
		tree := newTree(t, 3, Options{})
		at := 0
		check := func(after string) {
			t.Helper()
			if at < len(s.Checkpoints) && s.Checkpoints[at].After == after {
				checkHash(t, tree, after, s.Checkpoints[at].Length, s.Checkpoints[at].TreeHash)
				at++
			}
		}
		for i, key := range s.Keys {
			put(t, tree, key, fmt.Sprint("value ", i))
			check(fmt.Sprint("put ", i+1))
		}
		for i, key := range s.Keys[:200] {
			del(t, tree, key)
			check(fmt.Sprint("del ", i+1))
		}
		if at != len(s.Checkpoints) {
			t.Errorf("came by %d of %d checkpoints", at, len(s.Checkpoints))
		}
		if got := len(list(t, tree, RangeOptions{})); got != s.Remaining {
			t.Errorf("%d entries remain, want %d", got, s.Remaining)
		}
		for _, b := range s.Last3 {
			checkBlock(t, tree, b.Seq, b.Hex)
		}
	})

	t.Run("databases in it, and a header", func(t *testing.T) {
		s := v.Scenarios[3]
		tree := newTree(t, 4, Options{Metadata: &Metadata{ContentFeed: bytes.Repeat([]byte{9}, 32), UserData: []byte("ud")}})
		sub := tree.Sub([]byte("sub"))
		put(t, sub, "x", `{"a":1}`)
		put(t, sub.Sub([]byte("deeper")), "y", `[1,2]`)
		for range 2 {
			must(t, tree.Put(ctx, []byte("plain"), nil))
		}
		for i, b := range s.Blocks {
			checkBlock(t, tree, uint64(i), b.Hex)
		}
		if got := list(t, sub, RangeOptions{}); len(got) != 2 || string(got[0].Key) != "deeper\x00y" || string(got[1].Key) != "x" {
			t.Errorf("the sub database has %v", got)
		}
		h, err := tree.Header(ctx)
		if err != nil || h.Protocol != "hyperbee" || string(h.Metadata.UserData) != "ud" || !bytes.Equal(h.Metadata.ContentFeed, bytes.Repeat([]byte{9}, 32)) {
			t.Errorf("header %+v, %v", h, err)
		}
	})
}

func hexBytes(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
