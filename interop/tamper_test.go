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

// Data messages that were changed on the way: what Node refuses we refuse, and whatever we take leaves nothing with us
// that is not the writer's.
func TestTamperedProofsLeaveNothingWrong(t *testing.T) {
	n := startNode(t)
	tampered, taken, late, stricter, sizes := 0, 0, 0, 0, 0
	reasons := map[string]int{}
	for _, k := range kinds() {
		if !slices.Contains([]string{"v1", "v0", "compat", "encrypted", "v1 with a prologue"}, k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			rng := random(t, 1)
			for range 4 * long(50) {
				v := newVictim(t, n, k, rng)
				for range 60 {
					good := v.message(rng, k.padding)
					var messages []tampering
					var dataHexes []string
					for range 5 {
						m := tamper(rng, v, good)
						messages, dataHexes = append(messages, m), append(dataHexes, hex.EncodeToString(m.data))
					}
					type verdict struct {
						Accepted      bool
						Code, Message string
					}
					theirs := call[struct{ Verdicts []verdict }](v.f.n, "judge", args{"handle": v.f.nr, "dataHexes": dataHexes}).Verdicts
					for i, m := range messages {
						tampered++
						accepted, wrongSizes := v.try(m)
						sizes += wrongSizes
						if accepted && !theirs[i].Accepted && v.late(m) {
							late++ // it is true, as try has checked, and of use to us alone
							continue
						}
						if accepted && !theirs[i].Accepted {
							t.Fatalf("%s: we take what Node refuses with %+v:\n%x\nit was\n%x", m.what, theirs[i], m.data, good)
						}
						if accepted {
							taken++
						}
						if !accepted && theirs[i].Accepted {
							stricter++
							reasons[m.what+": "+v.last]++
						}
					}
				}
				if d := dumpOurs(t, v.r, v.f.w.Length()); v.before != asJSON(d) {
					t.Fatal("refused messages changed the log")
				}
			}
		})
	}
	if tampered < 1000 || taken < 50 || taken > tampered/2 {
		t.Errorf("%d messages, %d were taken", tampered, taken)
	}
	t.Logf("%d messages, %d were taken, %d late ones by us alone, %d refused by us alone, %d sizes of the first pair wrong; %v", tampered, taken, late, stricter, sizes, reasons)
}

// The same for the messages of a reorg: whatever comes between the right ones, it ends with the writer's log.
func TestTamperedForksLeaveNothingWrong(t *testing.T) {
	n := startNode(t)
	started, updated, ignored, done := 0, 0, 0, 0
	for _, k := range kinds() {
		if !slices.Contains([]string{"v1", "compat"}, k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			rng := random(t, 1)
			for range 5 * long(20) {
				v := newVictim(t, n, k, rng)
				v.f.fork(rng, 0)
				v.truth = dumpOurs(t, v.f.w, v.f.w.Length())
				prove := func(r merkle.Request) []byte {
					t.Helper()
					s := proveOurs(t, v.f.w, r, true)
					if s.DataHex == "" {
						t.Fatalf("request %s: %s", requestString(r), s.Message)
					}
					return unhex(t, s.DataHex)
				}
				start := prove(merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: v.f.w.Length()}})
				for range 30 {
					v.reset()
					m := tampering{"nothing", start}
					r := startReorg(v.r, m.data)
					if rng.IntN(2) == 0 {
						m = tamper(rng, v, start)
						if changed := startReorg(v.r, m.data); changed != nil {
							r = changed
							started++
						}
					}
					for steps := 0; !r.Done(); steps++ {
						if steps > 200 {
							t.Fatalf("%s: the reorg does not end", m.what)
						}
						w := r.Want()
						index := 2 * (w.Start + rng.Uint64N(w.End-w.Start))
						good := prove(merkle.Request{Hash: &merkle.NodeRequest{Index: index, Nodes: w.Levels}})
						for range rng.IntN(4) {
							m = tamper(rng, v, good)
							if p, _, err := hypercore.ReadData(m.data); err == nil {
								ok, err := r.Update(p)
								if ok && err == nil {
									updated++
								} else {
									ignored++
								}
							}
						}
						if r.Done() || r.Want() != w {
							continue
						}
						p, _, err := hypercore.ReadData(good)
						if err != nil {
							t.Fatal(err)
						}
						if ok, err := r.Update(p); !ok || err != nil {
							t.Fatalf("%s, then a hash of blocks %d to %d: %v, %v", m.what, w.Start, w.End, ok, err)
						}
					}
					if err := r.Commit(t.Context(), hypercore.Soon); err != nil {
						t.Fatal(err)
					}
					v.check(m)
					done++
				}
			}
		})
	}
	if done < 200 || updated < 50 || ignored < 100 {
		t.Errorf("%d reorgs, %d changed messages began one, %d were of use, %d were not", done, started, updated, ignored)
	}
	t.Logf("%d reorgs, %d changed messages began one, %d were of use, %d were not", done, started, updated, ignored)
}

// startReorg begins a reorg with a message, or returns nil.
func startReorg(l *hypercore.Log, data []byte) *hypercore.Reorg {
	p, _, err := hypercore.ReadData(data)
	if err != nil {
		return nil
	}
	r, err := l.StartReorg(p)
	if err != nil {
		return nil
	}
	return r
}

// A victim is a reader of both sides with a part of a log, that messages are tried on.
type victim struct {
	t      *testing.T
	f      *follower
	state  []*hypercore.Proof // what the readers took so far
	r      *hypercore.Log     // a reader of ours in that state
	before string             // all that it holds
	truth  dump               // all that the writer holds
	old    [][]byte           // signatures of earlier heads
	last   string             // why the last message was refused
}

func newVictim(t *testing.T, n node, k kind, rng *rand.Rand) *victim {
	t.Helper()
	v := &victim{t: t, f: &follower{t: t, n: node{t, n.p}, accepted: map[string]int{}, refused: map[string]int{}, pkg: "11"}}
	f := v.f
	name := fmt.Sprint(t.Name(), rng.Uint64())
	f.nw, f.nr = name+" writer", name+" reader"
	f.w = k.open(t, f.n, f.nw, nil)
	if k.prologue != nil {
		appendBoth(t, f.n, f.nw, f.w, k.prologue...)
	}
	f.grow(rng, 1+rng.IntN(30))
	v.old = append(v.old, f.w.Head().Signature)
	f.r = openReader(t, f.w.Key())
	key := f.w.Key()
	openNode(t, f.n, f.nr, args{"key": hex.EncodeToString(key[:])})
	take := func(r merkle.Request) {
		t.Helper()
		if f.ask(r, true) {
			v.state = append(v.state, readProof(t, proveOurs(t, f.w, r, true).DataHex))
		}
	}
	if rng.IntN(4) > 0 { // else the readers know the key alone
		take(merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: f.w.Length()}})
		for range rng.IntN(8) {
			i := rng.Uint64N(f.r.Length())
			take(merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: f.missing(2 * i)}})
		}
	}
	for range rng.IntN(3) {
		f.grow(rng, 1+rng.IntN(20))
		v.old = append(v.old, f.w.Head().Signature)
	}
	v.truth = dumpOurs(t, f.w, f.w.Length())
	v.reset()
	sameDump(t, "readers", dumpOurs(t, v.r, f.w.Length()), dumpNode(f.n, f.nr, f.w.Length()))
	return v
}

// reset makes the reader anew.
func (v *victim) reset() {
	v.t.Helper()
	v.r = openReader(v.t, v.f.w.Key())
	for _, p := range v.state {
		if err := apply(v.t, v.r, p); err != nil {
			v.t.Fatal(err)
		}
	}
	v.before = asJSON(dumpOurs(v.t, v.r, v.f.w.Length()))
}

// message is a valid one that the reader could ask for.
func (v *victim) message(rng *rand.Rand, padding uint64) []byte {
	v.t.Helper()
	for {
		r, manifest := v.f.next(rng, padding)
		if s := proveOurs(v.t, v.f.w, r, manifest); s.DataHex != "" {
			return unhex(v.t, s.DataHex)
		}
	}
}

// try gives the reader a message. It fails the test when the reader keeps something wrong of it. A size can be wrong
// in one place: a hash commits to the size of its two children together and not to each one's, so that the first
// pair of nodes that a proof begins with, where it does not begin with a block, can share their sum in any way. Neither
// side can see it. It misleads a search for a byte until the block comes, whose proof has the right sizes.
func (v *victim) try(m tampering) (accepted bool, wrongSizes int) {
	t := v.t
	t.Helper()
	p, _, err := hypercore.ReadData(m.data)
	if err == nil {
		err = apply(t, v.r, p)
	}
	if err != nil {
		v.last = err.Error()
		if !errors.Is(err, merkle.ErrProof) && !errors.Is(err, hypercore.ErrSignature) && !errors.Is(err, merkle.ErrNoNode) &&
			!errors.Is(err, hypercore.ErrFork) && !errors.Is(err, hypercore.ErrConflict) && p != nil {
			t.Fatalf("%s: an error without a kind: %v", m.what, err)
		}
		return false, 0
	}
	wrongSizes = v.check(m)
	v.reset()
	return true, wrongSizes
}

// late reports whether a message upgrades from a length that the reader has outgrown.
func (v *victim) late(m tampering) bool {
	p, _, err := hypercore.ReadData(m.data)
	return err == nil && p.Upgrade != nil && p.Upgrade.Start < v.r.Length()
}

// check compares all that the reader holds with the writer's log, and returns how many sizes are wrong.
func (v *victim) check(m tampering) (wrongSizes int) {
	t := v.t
	t.Helper()
	d := dumpOurs(t, v.r, v.f.w.Length())
	if d.Length > v.truth.Length || d.Fork != v.truth.Fork {
		t.Fatalf("%s: the log has %d blocks of fork %d", m.what, d.Length, d.Fork)
	}
	hash, err := v.f.w.TreeHash(d.Length)
	if err != nil {
		t.Fatal(err)
	}
	if d.Length > 0 && d.TreeHash != hex.EncodeToString(hash[:]) {
		t.Fatalf("%s: another tree of %d blocks:\n%x", m.what, d.Length, m.data)
	}
	for i, n := range d.Nodes {
		if n == nil {
			continue
		}
		want := v.truth.Nodes[i]
		if want == nil || n.Hash != want.Hash || n.Index != want.Index {
			t.Fatalf("%s: node %d is %+v, the writer's %+v:\n%x", m.what, i, n, want, m.data)
		}
		if n.Size == want.Size {
			continue
		}
		var sibling *treeNode
		if at := merkle.Sibling(uint64(i)); at < uint64(len(d.Nodes)) {
			sibling = d.Nodes[at]
		}
		if sibling == nil || n.Size+sibling.Size != want.Size+v.truth.Nodes[sibling.Index].Size {
			t.Fatalf("%s: node %d has size %d, the writer's %d:\n%x", m.what, i, n.Size, want.Size, m.data)
		}
		wrongSizes++
	}
	for i, b := range d.Blocks {
		if b != nil && *b != *v.truth.Blocks[i] {
			t.Fatalf("%s: block %d is %s, the writer's %s", m.what, i, *b, *v.truth.Blocks[i])
		}
	}
	return wrongSizes
}

// A tampering is a message that was changed.
type tampering struct {
	what string
	data []byte
}

// tamper changes a message in one way or two.
func tamper(rng *rand.Rand, v *victim, good []byte) tampering {
	if rng.IntN(3) == 0 {
		return tamperBytes(rng, good)
	}
	p, _, err := hypercore.ReadData(slices.Clone(good))
	if err != nil {
		v.t.Fatal(err)
	}
	what := tamperFields(rng, v, p)
	if rng.IntN(6) == 0 {
		what += ", " + tamperFields(rng, v, p)
	}
	return tampering{what, p.AppendData(nil, 1)}
}

func tamperBytes(rng *rand.Rand, good []byte) tampering {
	b := slices.Clone(good)
	at := rng.IntN(len(b))
	switch rng.IntN(5) {
	case 0:
		return tampering{"cut off", b[:at]}
	case 1:
		return tampering{"bytes at the end", append(b, randomBytes(rng, 1+rng.IntN(5))...)}
	case 2:
		b[at] = byte(rng.Uint32())
		return tampering{"a byte", b}
	case 3:
		return tampering{"a byte more", slices.Insert(b, at, byte(rng.Uint32()))}
	}
	b[at] ^= 1 << rng.IntN(8)
	return tampering{"a bit", b}
}

// tamperFields changes something in a proof, and says what.
func tamperFields(rng *rand.Rand, v *victim, p *hypercore.Proof) string {
	var lists []*[]merkle.Node
	if p.Block != nil {
		lists = append(lists, &p.Block.Nodes)
	}
	if p.Hash != nil {
		lists = append(lists, &p.Hash.Nodes)
	}
	if p.Seek != nil {
		lists = append(lists, &p.Seek.Nodes)
	}
	if p.Upgrade != nil {
		lists = append(lists, &p.Upgrade.Nodes, &p.Upgrade.Additional)
	}
	change := func(n *uint64) {
		switch rng.IntN(5) {
		case 0:
			*n++
		case 1:
			*n += 2
		case 2:
			*n = max(*n, 1) - 1
		case 3:
			*n ^= 1 << rng.IntN(53)
		case 4:
			*n = rng.Uint64N(2 * v.f.w.Length())
		}
	}
	for {
		switch rng.IntN(16) {
		case 0, 1, 2: // a node
			if len(lists) == 0 {
				continue
			}
			list := *lists[rng.IntN(len(lists))]
			if len(list) == 0 {
				continue
			}
			n := &list[rng.IntN(len(list))]
			switch rng.IntN(3) {
			case 0:
				change(&n.Index)
				return "the index of a node"
			case 1:
				change(&n.Size)
				return "the size of a node"
			}
			n.Hash[rng.IntN(32)] ^= 1 << rng.IntN(8)
			return "the hash of a node"
		case 3, 4: // sizes shared in another way
			if len(lists) == 0 {
				continue
			}
			a, b := *lists[rng.IntN(len(lists))], *lists[rng.IntN(len(lists))]
			if len(a) < 2 || len(b) < 1 {
				continue
			}
			from, to := &a[rng.IntN(min(len(a), 2))], &b[rng.IntN(min(len(b), 2))]
			if from == to || from.Size == 0 {
				continue
			}
			moved := 1 + rng.Uint64N(from.Size)
			from.Size -= moved
			to.Size += moved
			return "the sizes of two nodes"
		case 5: // a node too few, too many, or elsewhere
			if len(lists) == 0 {
				continue
			}
			list := lists[rng.IntN(len(lists))]
			if len(*list) == 0 {
				continue
			}
			at := rng.IntN(len(*list))
			n := (*list)[at]
			switch rng.IntN(4) {
			case 0:
				*list = slices.Delete(*list, at, at+1)
				return "a node too few"
			case 1:
				*list = slices.Insert(*list, at, n)
				return "a node twice"
			case 2:
				*list = slices.Delete(*list, at, at+1)
				other := lists[rng.IntN(len(lists))]
				*other = append(*other, n)
				return "a node in another place"
			}
			i := rng.Uint64N(uint64(len(v.truth.Nodes)))
			if t := v.truth.Nodes[i]; t != nil {
				*list = slices.Insert(*list, at, merkle.Node{Index: t.Index, Size: t.Size, Hash: key32(v.t, t.Hash)})
				return "a true node too many"
			}
		case 6:
			change(&p.Fork)
			return "the fork"
		case 7:
			if p.Block != nil {
				change(&p.Block.Index)
				return "the block's index"
			}
			if p.Hash != nil {
				change(&p.Hash.Index)
				return "the hash's index"
			}
		case 8, 9:
			if p.Block == nil {
				continue
			}
			switch rng.IntN(3) {
			case 0:
				p.Block.Value = append(slices.Clone(p.Block.Value), 0)
			case 1:
				p.Block.Value = nil
			case 2:
				if len(p.Block.Value) > 0 {
					p.Block.Value = slices.Clone(p.Block.Value)
					p.Block.Value[rng.IntN(len(p.Block.Value))]++
				}
			}
			return "the block"
		case 10:
			if p.Upgrade != nil {
				change(either(rng.IntN(2) == 0, &p.Upgrade.Start, &p.Upgrade.Length))
				return "the upgrade's range"
			}
		case 11:
			if p.Upgrade != nil {
				p.Upgrade.Signature = v.old[rng.IntN(len(v.old))]
				return "the signature of an earlier head"
			}
		case 12:
			if u := p.Upgrade; u != nil && len(u.Additional) > 0 {
				u.Additional = u.Additional[:len(u.Additional)-1]
				u.Signature = v.old[rng.IntN(len(v.old))]
				return "the signature of an earlier head on fewer nodes"
			}
		case 13: // a part too few
			switch {
			case p.Seek != nil:
				p.Seek = nil
				return "no seek"
			case p.Upgrade != nil && (p.Block != nil || p.Hash != nil):
				p.Upgrade = nil
				return "no upgrade"
			case p.Upgrade != nil && p.Manifest != nil:
				p.Manifest = nil
				return "no manifest"
			}
		case 14: // a part too many
			switch {
			case p.Block == nil:
				i := rng.Uint64N(uint64(len(v.truth.Blocks)))
				p.Block = &merkle.BlockProof{Index: i, Value: unhex(v.t, *v.truth.Blocks[i])}
				if rng.IntN(2) == 0 {
					p.Block.Value = []byte("another")
				}
				return "a block more"
			case p.Seek == nil:
				t := v.truth.Nodes[2*rng.Uint64N(uint64(len(v.truth.Blocks)))]
				p.Seek = &merkle.SeekProof{Nodes: []merkle.Node{{Index: t.Index, Size: t.Size, Hash: key32(v.t, t.Hash)}}}
				return "a seek more"
			}
		case 15:
			p.Manifest = hypercore.SingleSigner(keyPair(byte(0x21 + rng.IntN(2))).Public)
			if rng.IntN(2) == 0 {
				p.Manifest.Version = rng.IntN(4)
			}
			return "another manifest"
		}
	}
}
