package interop_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
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
	b.Durability = hypercore.Soon
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
