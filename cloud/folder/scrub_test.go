package folder

import (
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

func TestAProblemIsToldOnOneLine(t *testing.T) {
	key := hypercore.Key{1}
	for _, c := range []struct {
		p    Problem
		want string
	}{
		{Problem{Path: "/a", Err: errors.New("bad")}, `"/a": bad`},
		{Problem{Log: key, Device: "oak", Blocks: hypercore.Range{Start: 3, End: 4}, Err: errors.Join(errors.New("one"), errors.New("two"))}, "log " + key.String() + " of oak, block 3: one"},
		{Problem{Log: key, Blocks: hypercore.Range{Start: 3, End: 9}, Err: errors.New("bad"), Repaired: true}, "log " + key.String() + ", blocks 3 to 8: bad (repaired)"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
