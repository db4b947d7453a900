package tree

import (
	"context"
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

func TestOneWriter(t *testing.T) {
	ctx := context.Background()
	p := newPeer(t, 1)
	p.put("a", "1")
	p.put("b", "2")
	p.put("a", "3")
	e, err := p.tree.Get(ctx, []byte("a"))
	must(t, err)
	if string(e.Value) != "3" || e.Writer != keyOf(1) || e.Seq != 3 {
		t.Fatalf("%+v", e)
	}
	p.del("a")
	if e, err := p.tree.Get(ctx, []byte("a")); !errors.Is(err, ErrNotFound) || e.Seq != 4 {
		t.Fatalf("%+v, %v", e, err)
	}
	got := entries(t, p.tree, hyperbee.RangeOptions{})
	if len(got) != 2 || got[0].Value != nil || string(got[1].Value) != "2" {
		t.Fatalf("%+v", got)
	}
}
