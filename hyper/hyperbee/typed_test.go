package hyperbee

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
)

type fruit struct {
	Colour string `json:"colour"`
	Weight int    `json:"weight"`
}

// Every method of a typed tree does what that of the tree does.
func TestTypedTrees(t *testing.T) {
	ctx := t.Context()
	tree := newTree(t, 1, Options{})
	fruits := NewTyped(tree, UTF8, JSON[fruit]())
	must(t, fruits.Put(ctx, "apple", fruit{"red", 200}))
	must(t, fruits.Put(ctx, "", fruit{"none", 0}))
	must(t, fruits.Put(ctx, "pear", fruit{"<green>", 180}))
	before := fruits.Version()
	raw, err := tree.Get(ctx, []byte("pear"))
	if want := `{"colour":"<green>","weight":180}`; err != nil || string(raw.Value) != want {
		t.Errorf("the value is kept as %s, %v, want %s", raw.Value, err, want)
	}

	heavier := func(than int) func(*TypedEntry[string, fruit]) bool {
		return func(have *TypedEntry[string, fruit]) bool { return have != nil && have.Value.Weight > than }
	}
	for _, c := range []struct {
		key  string
		than int
		want bool
	}{{"apple", 300, false}, {"apple", 100, true}, {"fig", 0, false}} {
		if done, err := fruits.PutIf(ctx, c.key, fruit{"yellow", 250}, heavier(c.than)); done != c.want || err != nil {
			t.Errorf("put %s if it is heavier than %d: %v, %v", c.key, c.than, done, err)
		}
	}
	if done, err := fruits.DeleteIf(ctx, "pear", heavier(180)); done || err != nil {
		t.Errorf("delete what is not heavier: %v, %v", done, err)
	}
	must(t, fruits.Delete(ctx, "pear"))

	text := func(e *TypedEntry[string, fruit]) string {
		if e == nil {
			return "-"
		}
		return fmt.Sprintf("%d %s %s", e.Seq, e.Key, e.Value.Colour)
	}
	walk := func(tree *Typed[string, fruit], o TypedRange[string]) (out []string) {
		for e, err := range tree.Range(ctx, o) {
			must(t, err)
			out = append(out, text(&e))
		}
		return out
	}
	same := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	same("range", walk(fruits, TypedRange[string]{}), "2  none", "4 apple yellow")
	same("range after the empty key", walk(fruits, TypedRange[string]{Gt: new("")}), "4 apple yellow")
	same("range back", walk(fruits, TypedRange[string]{Lte: new("apple"), Reverse: true, Limit: 1}), "4 apple yellow")
	old, err := fruits.Checkout(before)
	must(t, err)
	defer old.Close()
	same("range of the past", walk(old, TypedRange[string]{Gte: new("a"), Lt: new("z")}), "1 apple red", "3 pear <green>")
	now, err := fruits.Snapshot()
	must(t, err)
	defer now.Close()
	var out []string
	for d, err := range now.Diff(ctx, before, TypedRange[string]{}) {
		must(t, err)
		out = append(out, text(d.Left)+" / "+text(d.Right))
	}
	same("diff", out, "4 apple yellow / 1 apple red", "- / 3 pear <green>")
	out = nil
	for d, err := range fruits.Watch(ctx, before, TypedRange[string]{Limit: 1}) {
		must(t, err)
		out = append(out, text(d.Left)+" / "+text(d.Right))
	}
	same("watch", out, "4 apple yellow / 1 apple red")
	out = nil
	for c, err := range fruits.History(ctx, HistoryOptions{From: 3}) {
		must(t, err)
		out = append(out, fmt.Sprint(text(&c.TypedEntry), " ", c.Deleted))
	}
	same("history", out, "3 pear <green> false", "4 apple yellow false", "5 pear  true")

	b, err := fruits.Batch(ctx)
	must(t, err)
	defer b.Close()
	must(t, b.Put(ctx, "kiwi", fruit{"brown", 70}))
	must(t, b.Delete(ctx, ""))
	if done, err := b.PutIf(ctx, "kiwi", fruit{}, heavier(100)); done || err != nil {
		t.Errorf("put what is not heavier: %v, %v", done, err)
	}
	if done, err := b.DeleteIf(ctx, "kiwi", heavier(100)); done || err != nil {
		t.Errorf("delete what is not heavier: %v, %v", done, err)
	}
	if e, err := b.Get(ctx, "kiwi"); err != nil || e.Value.Weight != 70 || b.Len() != 2 {
		t.Errorf("get from a batch: %v, %v", e, err)
	}
	out = nil
	for e, err := range b.Range(ctx, TypedRange[string]{}) {
		must(t, err)
		out = append(out, text(&e))
	}
	same("range of a batch", out, "4 apple yellow", "6 kiwi brown")
	must(t, b.Flush(ctx))
	same("range of what was flushed", walk(fruits, TypedRange[string]{}), "4 apple yellow", "6 kiwi brown")

	sub := fruits.Sub([]byte("kept"))
	must(t, sub.Put(ctx, "plum", fruit{Colour: "blue"}))
	same("range of a sub", walk(sub, TypedRange[string]{}), "8 plum blue")
	other := fruits.SubWith([]byte("kept"), []byte("/"))
	must(t, other.Put(ctx, "cherry", fruit{Colour: "black"}))
	same("range of another", walk(other, TypedRange[string]{}), "9 cherry black")
	if _, err := tree.Get(ctx, []byte("kept/cherry")); err != nil {
		t.Error(err)
	}
}

func TestTypedTreesRefuseWhatIsNotOfTheirTypes(t *testing.T) {
	ctx := t.Context()
	tree := newTree(t, 1, Options{})
	put(t, tree, "a", "not JSON")
	typed := NewTyped(tree, UTF8, JSON[int]())
	always := func(*TypedEntry[string, int]) bool { return true }
	errs := map[string]error{}
	_, errs["get"] = typed.Get(ctx, "a")
	_, errs["put"] = typed.PutIf(ctx, "a", 1, always)
	_, errs["delete"] = typed.DeleteIf(ctx, "a", always)
	for _, err := range typed.Range(ctx, TypedRange[string]{}) {
		errs["range"] = err
	}
	for _, err := range typed.History(ctx, HistoryOptions{}) {
		errs["history"] = err
	}
	for _, err := range typed.Diff(ctx, 1, TypedRange[string]{}) {
		errs["diff"] = err
	}
	for what, err := range errs {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	if len(errs) != 6 || tree.Version() != 2 {
		t.Errorf("version %d after %v", tree.Version(), errs)
	}
	numbers := NewTyped(tree, Uint, Binary)
	for what, err := range map[string]error{
		"put":    numbers.Put(ctx, 1<<53, nil),
		"delete": numbers.Delete(ctx, math.MaxUint64),
		"value":  NewTyped(tree, UTF8, JSON[any]()).Put(ctx, "a", func() {}),
	} {
		if err == nil {
			t.Errorf("%s: what can't be encoded is", what)
		}
	}
	for _, err := range numbers.Range(ctx, TypedRange[uint64]{Lt: new(uint64(1 << 60))}) {
		if err == nil || errors.Is(err, ErrInvalid) {
			t.Errorf("a range up to what is no number: %v", err)
		}
	}
}

func TestUintsAreInTheirOrder(t *testing.T) {
	var numbers []uint64
	for shift := range 54 {
		for _, d := range []uint64{0, 1, 2, 3, 4, 5} {
			if v := 1<<shift - d; v <= maxNumber {
				numbers = append(numbers, v)
			}
		}
	}
	slices.Sort(numbers)
	var last []byte
	for _, v := range slices.Compact(numbers) {
		b, err := Uint.Encode(v)
		must(t, err)
		if got, err := Uint.Decode(b); got != v || err != nil {
			t.Errorf("%d is read again as %d, %v", v, got, err)
		}
		if bytes.Compare(last, b) >= 0 {
			t.Errorf("%d is before the number before it", v)
		}
		last = b
	}
	for _, b := range [][]byte{nil, {}, {1, 2}, {0xfc}, {0xfc, 1}, {0xfd, 1, 2, 3}, {0xfe, 1}, {0xff}, {0xfe, 255, 0, 0, 0, 0, 0, 0, 0}} {
		if v, err := Uint.Decode(b); err == nil {
			t.Errorf("%x is read as %d", b, v)
		}
	}
}

// All keys with a prefix are in a sub, whatever is between them and its keys.
func TestSubsHaveTheirKeysWhateverSeparatesThem(t *testing.T) {
	ctx := t.Context()
	for _, separator := range []string{"\x00", "/", "\xff", "\xff\xff", "::", ""} {
		for _, prefix := range []string{"a", "\xff", ""} {
			tree := newTree(t, 1, Options{})
			sub := tree.SubWith([]byte(prefix), []byte(separator))
			full := prefix + separator
			want := []string{"", "\x00", "a", "\xff", "\xff\xff\xff"}
			for _, k := range want {
				put(t, sub, k, "value")
			}
			if full != "" {
				put(t, tree, full[:len(full)-1], "before")
				put(t, tree, "zzz", "elsewhere")
			}
			for _, reverse := range []bool{false, true} {
				var got []string
				for _, e := range list(t, sub, RangeOptions{Reverse: reverse}) {
					got = append(got, string(e.Key))
				}
				if reverse {
					slices.Reverse(got)
				}
				if !slices.Equal(got, want) {
					t.Errorf("after %q and %q: %q, want %q", prefix, separator, got, want)
				}
			}
			if _, err := tree.Get(ctx, []byte(full+"a")); err != nil {
				t.Error(err)
			}
		}
	}
}

// FuzzEncodings reads bytes: what is a number is written as it was.
func FuzzEncodings(f *testing.F) {
	for _, v := range []uint64{0, 0xfb, 0xfc, 1 << 16, 1 << 32, maxNumber} {
		b, err := Uint.Encode(v)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Uint.Decode(b)
		if err != nil {
			return
		}
		again, err := Uint.Encode(v)
		must(t, err)
		if got, err := Uint.Decode(again); got != v || err != nil {
			t.Fatalf("%x is %d, and then %d, %v", b, v, got, err)
		}
	})
}
