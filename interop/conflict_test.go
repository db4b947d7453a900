package interop_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// A writer that signs two histories, one in Go and one in Node, is caught by readers of either, and nobody else is.
func TestSecondHistoriesFreezeOnBothSides(t *testing.T) {
	n := startNode(t)
	conflicts, honest, lies, unknown := 0, 0, 0, 0
	for _, k := range kinds() {
		if !slices.Contains([]string{"v1", "v0", "compat", "encrypted"}, k.name) {
			continue
		}
		for round := range 6 * long(20) {
			t.Run(fmt.Sprintf("%s %d", k.name, round), func(t *testing.T) {
				n := node{t, n.p}
				rng := random(t, 1)
				// The first history is known to readers of both sides; each has a part of its blocks.
				f := follow(t, n, k, "11", "11")
				f.grow(rng, 1+rng.IntN(20))
				f.catchUp(rng)
				length := f.r.Length()
				// The second one shares some blocks, and is longer, shorter or as long.
				second := t.Name() + " second"
				other := k.open(t, n, second, nil)
				shared := rng.Uint64N(length + 1)
				var blocks [][]byte
				for i := range shared {
					b, err := f.w.Get(t.Context(), i)
					if err != nil {
						t.Fatal(err)
					}
					blocks = append(blocks, b)
				}
				for len(blocks) == 0 || rng.IntN(5) > 0 {
					blocks = append(blocks, randomBytes(rng, 1+rng.IntN(9)))
				}
				appendBoth(t, n, second, other, blocks...)

				p, dataHex := wholeProof(t, n, second, other)
				differ := false
				if theirs := uint64(len(blocks)); theirs <= length {
					hash, err := f.w.TreeHash(theirs)
					if err != nil {
						t.Fatal(err)
					}
					differ = hash != other.Head().Hash()
				}
				// A lie about it is none.
				lie := readProof(t, dataHex)
				spoil(rng, lie)
				f.checkConflict(lie, false)
				lies++
				// The first history, as far as it goes, is none.
				p2, _ := wholeProof(t, n, f.nw, f.w)
				f.checkConflict(p2, false)
				honest++

				if _, err := f.r.Head().At(p.Upgrade.TreeLength(), f.r); errors.Is(err, merkle.ErrNoNode) {
					// They have too little of the first history to tell. Then neither says a thing, until they have more.
					unknown++
					_, err := f.r.CheckConflict(t.Context(), p)
					theirs := call[struct{ Frozen bool }](n, "checkConflict", args{"handle": f.nr, "dataHex": dataHex})
					if !errors.Is(err, merkle.ErrNoNode) || theirs.Frozen || f.r.Frozen() != nil {
						t.Fatalf("a conflict that can't be told: we say %v, Node %+v", err, theirs)
					}
					f.rest(rng)
				}
				caught := f.checkConflict(p, differ)
				if !caught {
					honest++
					f.rest(rng) // goes on as ever
					return
				}
				conflicts++
				c := f.r.Frozen()
				if c == nil {
					t.Fatal("there is no evidence")
				}
				for _, tree := range []hypercore.SignedTree{c.Ours, c.Theirs} {
					if tree.Length == 0 || len(tree.Signature) == 0 {
						t.Errorf("evidence %+v", c)
					}
				}
				if c.Theirs.Hash != other.Head().Hash() || c.Ours.Hash != f.r.Head().Hash() || c.Fork != f.r.Fork() {
					t.Errorf("evidence %+v", c)
				}
				if _, err := f.r.Apply(t.Context(), hypercore.Soon, p2); !errors.Is(err, hypercore.ErrFrozen) {
					t.Errorf("apply to a frozen log: %v", err)
				}
			})
		}
	}
	if conflicts < 3 || honest < 10 {
		t.Errorf("%d conflicts, %d honest proofs, %d lies, %d at first untold", conflicts, honest, lies, unknown)
	}
	t.Logf("%d conflicts, %d honest proofs, %d lies, %d at first untold", conflicts, honest, lies, unknown)
}

// wholeProof is the proof of a whole log, made by Node for us and by us for Node.
func wholeProof(t *testing.T, n node, handle string, l *hypercore.Log) (*hypercore.Proof, string) {
	t.Helper()
	r := merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: l.Length()}}
	ours := proveOurs(t, l, r, true)
	theirs := proveNode(n, handle, []args{requestArgs(r, l.Fork(), true)})[0]
	if ours.DataHex == "" || ours.DataHex != theirs.DataHex {
		t.Fatalf("ours   %+v\nNode's %+v", ours, theirs)
	}
	return readProof(t, theirs.DataHex), ours.DataHex
}

// spoil makes a proof one that its writer did not sign.
func spoil(rng *rand.Rand, p *hypercore.Proof) {
	switch u := p.Upgrade; rng.IntN(3) {
	case 0:
		u.Signature[8+rng.IntN(40)]++
	case 1:
		u.Nodes[rng.IntN(len(u.Nodes))].Hash[rng.IntN(32)]++
	case 2:
		u.Nodes[rng.IntN(len(u.Nodes))].Size++
	}
}

// checkConflict lets both readers look at a proof. Node answers "conflict" to a lie as well, and so its log tells.
func (f *follower) checkConflict(p *hypercore.Proof, want bool) bool {
	t := f.t
	t.Helper()
	got, err := f.r.CheckConflict(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	theirs := call[struct{ Conflict, Frozen bool }](f.n, "checkConflict", args{"handle": f.nr, "dataHex": hex.EncodeToString(p.AppendData(nil, 1))})
	if got != want || theirs.Frozen != want || (f.r.Frozen() != nil) != want {
		t.Fatalf("a history of %d blocks beside one of %d: we say %v, Node %+v, want %v", p.Upgrade.TreeLength(), f.r.Length(), got, theirs, want)
	}
	return got
}
