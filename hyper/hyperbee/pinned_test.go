package hyperbee

import (
	"context"
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

func TestPinnedVersionsStayUntilATruncation(t *testing.T) {
	ctx := context.Background()
	tree := newTree(t, 1, Options{})
	put(t, tree, "a", "1")
	put(t, tree, "b", "2")
	pinned, err := tree.Pinned(3)
	must(t, err)
	put(t, tree, "a", "3")
	put(t, tree, "c", "4")
	earlier, err := pinned.Pinned(2)
	must(t, err)
	sub := earlier.SubWith(nil, []byte("a"))
	if got := list(t, pinned, RangeOptions{}); len(got) != 2 || string(got[0].Value) != "1" || string(got[1].Value) != "2" {
		t.Errorf("version 3 has %v", got)
	}
	if got := list(t, earlier, RangeOptions{}); len(got) != 1 || len(list(t, sub, RangeOptions{})) != 1 {
		t.Errorf("version 2 has %v", got)
	}
	n := 0
	for d, err := range pinned.Diff(ctx, 2, RangeOptions{}) {
		must(t, err)
		if string(d.Left.Key) != "b" || d.Right != nil {
			t.Errorf("difference %v, %v", d.Left, d.Right)
		}
		n++
	}
	for c, err := range pinned.History(ctx, HistoryOptions{}) {
		must(t, err)
		if c.Seq > 2 {
			t.Errorf("history has %v", c)
		}
		n++
	}
	if n != 1+2 {
		t.Errorf("%d differences and changes", n)
	}
	if err := pinned.Put(ctx, []byte("x"), nil); !errors.Is(err, ErrReadOnly) || pinned.Writable() || pinned.Version() != 3 {
		t.Errorf("put to version %d: %v", pinned.Version(), err)
	}
	for _, from := range []*Tree{tree, pinned} {
		if _, err := from.Pinned(from.Version() + 1); !errors.Is(err, hypercore.ErrLength) {
			t.Errorf("a version of the future: %v", err)
		}
	}
	must(t, sub.Close())
	must(t, earlier.Close())
	if _, err := earlier.Pinned(1); !errors.Is(err, ErrClosed) {
		t.Errorf("pinned from one that is closed: %v", err)
	}
	if _, err := pinned.Get(ctx, []byte("a")); err != nil {
		t.Errorf("get after another one was closed: %v", err)
	}
	must(t, tree.Log().Truncate(ctx, 4, hypercore.TruncateOptions{}))
	put(t, tree, "d", "5")
	if _, err := pinned.Get(ctx, []byte("b")); !errors.Is(err, ErrTruncated) {
		t.Errorf("get after a truncation: %v", err)
	}
	if _, err := earlier.SubWith(nil, nil).Get(ctx, []byte("a")); !errors.Is(err, ErrTruncated) {
		t.Errorf("get after a truncation: %v", err)
	}
}
