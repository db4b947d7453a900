package hypercore

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// A writer that went on from an earlier state gives up what it wrote since, and has
// its readers' history.
func TestReplaceTakesTheOtherHistory(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ common, here, there, first uint64 }{
		{6, 3, 5, 6}, {6, 5, 3, 6}, {6, 4, 4, 5}, {8, 1, 1, 8}, {8, 7, 2, 0}, {5, 0, 3, 5}, {0, 3, 2, 0},
	} {
		kp := keyPairN(1)
		here, there := testLog(t, Options{KeyPair: &kp}), testLog(t, Options{KeyPair: &kp})
		appendNumbers(t, here, int(c.common))
		appendNumbers(t, there, int(c.common))
		for i := range c.here {
			if _, err := here.Append(ctx, fmt.Append(nil, "here ", i)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range c.there {
			if _, err := there.Append(ctx, fmt.Append(nil, "there ", i)); err != nil {
				t.Fatal(err)
			}
		}
		before, head := here.Head(), there.Head()
		bad := head
		bad.Signature = before.Signature
		otherFork := head
		otherFork.Fork++
		for _, err := range []error{here.Replace(ctx, bad, c.first), here.Replace(ctx, otherFork, c.first), here.Replace(ctx, head, 100)} {
			if err == nil || !errors.Is(err, ErrSignature) && !errors.Is(err, ErrConflict) {
				t.Errorf("%v: what is wrong: %v", c, err)
			}
		}
		if here.Head().Hash() != before.Hash() {
			t.Fatalf("%v: it was changed by what is wrong", c)
		}
		if err := here.Replace(ctx, head, c.first); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		if got := here.Head(); got.Length != head.Length || got.Hash() != head.Hash() || here.Contiguous() != c.first {
			t.Errorf("%v: %d blocks, of which %d are here", c, got.Length, here.Contiguous())
		}
		for i := range head.Length {
			if i >= c.first {
				mustApply(t, here, prove(t, there, blockRequest(t, here, i)))
			}
			got, err := here.Stored(ctx, i)
			want, _ := there.Stored(ctx, i)
			if err != nil || string(got) != string(want) {
				t.Errorf("%v: block %d is %q, %v, want %q", c, i, got, err, want)
			}
		}
		// A reader of the one gets on with the other.
		r := readerOf(t, there)
		upgradeTo(t, r, here)
		if frozen, err := r.CheckConflict(ctx, prove(t, there, upgradeRequest(0, head.Length))); frozen || err != nil {
			t.Errorf("%v: a reader sees two histories: %v", c, err)
		}
	}
}
