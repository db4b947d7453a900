package interop_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// A writer truncates its log and goes on in another way; readers of both sides find what they share with it by the same
// requests, and end with the same log.
func TestReadersFollowEachOthersForks(t *testing.T) {
	n := startNode(t)
	asked, kept, stale := 0, 0, 0
	for _, k := range kinds() {
		for _, pkg := range []string{"11", "10"} {
			if pkg == "10" && k.name != "v1" && k.name != "compat" {
				continue
			}
			t.Run(k.name+" with package "+pkg, func(t *testing.T) {
				rng := random(t, 1)
				f := follow(t, n, k, pkg, pkg)
				least := uint64(len(k.prologue))
				if pkg == "10" {
					least = 1 // it signs no empty tree
				}
				if k.prologue != nil {
					appendBoth(t, f.n, f.nw, f.w, k.prologue...)
				}
				for range 4 * long(20) {
					f.grow(rng, 1+rng.IntN(50))
					f.catchUp(rng)
					before := f.r.Length()
					f.fork(rng, least)
					a, s := f.reorg(rng)
					asked += s
					if a > 0 && a < before {
						kept++
					}
				}
				f.rest(rng)
				stale += f.stale
			})
		}
	}
	if asked < 50 || kept < 20 {
		t.Errorf("%d hashes asked for, %d logs that kept a part", asked, kept)
	}
	t.Logf("%d hashes asked for, %d logs that kept a part, %d nodes left over in Node", asked, kept, stale)
}

// grow appends n small blocks.
func (f *follower) grow(rng *rand.Rand, n int) {
	f.t.Helper()
	var blocks [][]byte
	for range n {
		blocks = append(blocks, randomBytes(rng, rng.IntN(30)))
	}
	appendBoth(f.t, f.n, f.nw, f.w, blocks...)
}

// catchUp gives the readers the writer's head, or a little less, and some blocks.
func (f *follower) catchUp(rng *rand.Rand) {
	t := f.t
	t.Helper()
	from, to := f.r.Length(), f.w.Length()
	if from < to && !f.ask(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: from, Length: to - from}}, from == 0) {
		t.Fatalf("the upgrade from %d to %d was refused", from, to)
	}
	for range rng.IntN(2 * int(to)) {
		i := rng.Uint64N(to)
		f.ask(merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: f.missing(2 * i)}}, false)
	}
	f.grow(rng, 1+rng.IntN(3)) // which the readers don't hear of
}

// fork truncates the writers, perhaps more than once, and appends; perhaps some of what was there before. They
// never cut below least.
func (f *follower) fork(rng *rand.Rand, least uint64) {
	t := f.t
	t.Helper()
	for range 1 + rng.IntN(3) {
		cut := least + rng.Uint64N(f.w.Length()-least+1)
		if rng.IntN(2) == 0 {
			cut = max(f.w.Length(), least+4) - 4
		}
		var same [][]byte
		for i := range rng.Uint64N(6) {
			if block, err := f.w.Get(t.Context(), cut+i); err == nil {
				same = append(same, block)
			}
		}
		truncateBoth(t, f.n, f.nw, f.w, cut)
		if len(same) > 0 && rng.IntN(2) == 0 && f.w.Length() > 0 {
			appendBoth(t, f.n, f.nw, f.w, same...)
		}
		if rng.IntN(4) > 0 {
			f.grow(rng, 1+rng.IntN(40))
		}
	}
	if f.w.Length() == 0 {
		f.grow(rng, 1)
	}
}

// reorg moves the readers to the writers' fork, each with the other side's proofs. It returns how many blocks were
// shared, and how many hashes it took to know.
func (f *follower) reorg(rng *rand.Rand) (ancestors uint64, asked int) {
	t := f.t
	t.Helper()
	// prove is one request answered by both writers.
	prove := func(r merkle.Request) (*hypercore.Proof, string) {
		t.Helper()
		ours := proveOurs(t, f.w, r, false)
		theirs := proveNode(f.n, f.nw, []args{requestArgs(r, f.w.Fork(), false)})[0]
		if ours.DataHex == "" || ours.DataHex != theirs.DataHex {
			t.Fatalf("fork %d of %d blocks, request %s:\nours   %+v\nNode's %+v", f.w.Fork(), f.w.Length(), requestString(r), ours, theirs)
		}
		return readProof(t, theirs.DataHex), ours.DataHex
	}
	upgrade := merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: f.w.Length()}}
	p, dataHex := prove(upgrade)

	// A proof of another fork is for a reorg alone.
	if err := apply(t, f.r, p); !errors.Is(err, hypercore.ErrFork) {
		t.Fatalf("apply a proof of fork %d to one of %d: %v", p.Fork, f.r.Fork(), err)
	}
	// A wrong signature is refused from the start, by both.
	bad := readProof(t, dataHex)
	bad.Upgrade.Signature[len(bad.Upgrade.Signature)/2] ^= 1
	if _, err := f.r.StartReorg(bad); !errors.Is(err, hypercore.ErrSignature) {
		t.Fatalf("start a reorg with a wrong signature: %v", err)
	}
	if code := refused(f.n, "reorgStart", args{"handle": f.nr, "dataHex": hex.EncodeToString(bad.AppendData(nil, 1))}); code != "INVALID_SIGNATURE" {
		t.Fatalf("Node: start a reorg with a wrong signature: code %q", code)
	}

	ours, err := f.r.StartReorg(p)
	if err != nil {
		t.Fatal(err)
	}
	theirs := call[reorg](f.n, "reorgStart", args{"handle": f.nr, "dataHex": dataHex})
	for ; ; asked++ {
		f.sameWant(ours, theirs)
		if ours.Done() {
			break
		}
		want := ours.Want()
		index := 2 * (want.Start + rng.Uint64N(want.End-want.Start))
		p, dataHex := prove(merkle.Request{Hash: &merkle.NodeRequest{Index: index, Nodes: want.Levels}})
		if ok, err := ours.Update(p); err != nil || !ok || asked > 100 {
			t.Fatalf("a hash of blocks %d to %d was of no use: %v", want.Start, want.End, err)
		}
		theirs = call[reorg](f.n, "reorgUpdate", args{"handle": f.nr, "dataHex": dataHex})
	}
	if err := ours.Commit(t.Context(), hypercore.Soon); err != nil {
		t.Fatal(err)
	}
	if took := call[applied](f.n, "reorgCommit", args{"handle": f.nr}); !took.Applied {
		t.Fatalf("Node did not commit: %+v", took)
	}
	sameHead(t, "after the reorg", f.r, call[head](f.n, "info", args{"handle": f.nw}))
	for r, ok := f.r.NextHeld(theirs.Ancestors); ok; {
		t.Fatalf("blocks %d to %d are held, %d are shared", r.Start, r.End, theirs.Ancestors)
	}
	f.unstale(theirs.Ancestors)
	f.compare(fmt.Sprintf("fork %d", f.r.Fork()))
	return theirs.Ancestors, asked
}

// unstale gives Node's reader a node right that package 11 does not remove when a reorg keeps a power of two of blocks
// (lib/merkle-tree.js, _commitUpgrade, stops climbing one node too early): the one above the kept ones is of the old fork.
func (f *follower) unstale(ancestors uint64) {
	f.t.Helper()
	above := 2*ancestors - 1
	if f.pkg != "11" || ancestors&(ancestors-1) != 0 || ancestors == 0 {
		return
	}
	if _, err := f.r.Node(above); err == nil {
		return
	}
	if n := call[struct{ Nodes []*treeNode }](f.n, "nodes", args{"handle": f.nr, "indices": []uint64{above}}).Nodes[0]; n != nil {
		f.stale++
		call[any](f.n, "dropNode", args{"handle": f.nr, "index": above})
	}
}

// sameWant compares what two reorgs ask for next.
func (f *follower) sameWant(ours *hypercore.Reorg, theirs reorg) {
	f.t.Helper()
	if ours.Done() != theirs.Finished {
		f.t.Fatalf("finished: ours %v, Node's %v; ours wants %+v, Node's %+v", ours.Done(), theirs.Finished, ours.Want(), theirs.Want)
	}
	if ours.Done() {
		return
	}
	w := ours.Want()
	if got := (struct{ Start, End, Nodes uint64 }{w.Start, w.End, w.Levels}); theirs.Want == nil || got != *theirs.Want {
		f.t.Fatalf("ours wants %+v, Node's %+v", got, theirs.Want)
	}
}
