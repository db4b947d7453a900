package interop_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// A source is the log of one signer of several, on both sides.
type source struct {
	handle string
	seed   byte
	log    *hypercore.Log
}

// A partialJSON is a signer's part as the peer writes it.
type partialJSON struct {
	Signer    uint64      `json:"signer"`
	Signature string      `json:"signature"`
	Patch     uint64      `json:"patch"`
	Nodes     *[]treeNode `json:"nodes"`
}

func (p partialJSON) ours(t testing.TB) hypercore.PartialSignature {
	t.Helper()
	out := hypercore.PartialSignature{Signer: p.Signer, Signature: [64]byte(unhex(t, p.Signature)), Patch: p.Patch}
	if p.Nodes != nil {
		for _, n := range *p.Nodes {
			out.Nodes = append(out.Nodes, merkle.Node{Index: n.Index, Size: n.Size, Hash: key32(t, n.Hash)})
		}
	}
	return out
}

func theirPartial(p hypercore.PartialSignature) partialJSON {
	out := partialJSON{Signer: p.Signer, Signature: hex.EncodeToString(p.Signature[:]), Patch: p.Patch}
	if p.Patch > 0 || len(p.Nodes) > 0 {
		nodes := []treeNode{}
		for _, n := range p.Nodes {
			nodes = append(nodes, treeNode{n.Index, n.Size, hex.EncodeToString(n.Hash[:])})
		}
		out.Nodes = &nodes
	}
	return out
}

func (n treeNode) MarshalJSON() ([]byte, error) {
	return json.Marshal(args{"index": n.Index, "size": n.Size, "hash": n.Hash})
}

// Signatures of a quorum, put together by one side from parts that the other made, are the same bytes on both and hold
// on both; what is not a quorum holds on neither.
func TestMultisigIsTheirsByteForByte(t *testing.T) {
	n := startNode(t)
	patched, refusedBoth, heldBoth := 0, 0, 0
	for _, c := range []struct{ version, quorum, signers int }{{1, 2, 3}, {1, 3, 3}, {1, 1, 2}, {0, 2, 3}, {0, 3, 3}, {2, 3, 5}} {
		for _, patch := range []bool{true, false} {
			t.Run(fmt.Sprintf("v%d %d of %d, patch %v", c.version, c.quorum, c.signers, patch), func(t *testing.T) {
				n := node{t, n.p}
				rng := random(t, 1)
				m := &hypercore.Manifest{Version: c.version, Quorum: uint64(c.quorum), AllowPatch: patch}
				sources := make([]*source, c.signers)
				for i := range sources {
					s := &source{handle: fmt.Sprint(t.Name(), " signer ", i), seed: byte(0x40 + i)}
					kp := keyPair(s.seed)
					k := kind{name: "v1", node: args{"seed": seed(s.seed)}, ours: hypercore.Options{KeyPair: &kp}}
					s.log = k.open(t, n, s.handle, nil)
					sources[i] = s
					m.Signers = append(m.Signers, hypercore.Signer{Namespace: hypercore.Namespace("interop", byte(i)), PublicKey: kp.Public})
				}
				k := kind{name: "multisig", node: args{"manifest": manifestArgs(m)}, ours: hypercore.Options{Manifest: m}}
				f := follow(t, n, k, "11", "11")
				var all [][]byte
				for range 5 * long(15) {
					for range 1 + rng.IntN(9) {
						all = append(all, randomBytes(rng, rng.IntN(30)))
					}
					length := uint64(len(all))
					// Each signer signs what it has: perhaps more than the log will get.
					more := all
					for _, i := range rng.Perm(len(sources)) {
						if patch && rng.IntN(2) == 0 {
							for range 1 + rng.IntN(5) {
								more = append(more[:len(more):len(more)], randomBytes(rng, rng.IntN(30)))
							}
						}
						s := sources[i]
						if have := int(s.log.Length()); have < len(more) {
							appendBoth(t, n, s.handle, s.log, more[have:]...)
						}
					}
					all = more[:max(len(all), 1)]
					var parts []hypercore.PartialSignature
					for _, i := range rng.Perm(len(sources))[:c.quorum] {
						p := part(t, n, sources[i], uint64(i), f.w, m, length)
						if p.Patch > 0 {
							patched++
						}
						parts = append(parts, p)
					}
					signature := assembleBoth(t, n, f.w, m.Version, parts)
					ok := true
					for _, p := range parts {
						ok = ok && (patch || p.Patch == 0)
					}
					blocks := all[f.w.Length():length]
					params := args{"handle": f.nw, "blocks": hexes(blocks), "signature": hex.EncodeToString(signature)}
					_, err := f.w.AppendWith(t.Context(), hypercore.AppendOptions{Signature: signature}, blocks...)
					if !ok {
						t.Fatal("a signature with a patch where there may be none")
					}
					if err != nil {
						t.Fatal(err)
					}
					sameHead(t, "append with a quorum", f.w, call[head](n, "appendSigned", params))
					held, refused := f.tamper(rng, sources, m, parts, signature)
					heldBoth, refusedBoth = heldBoth+held, refusedBoth+refused
					// Readers take it from both.
					from := f.r.Length()
					if !f.ask(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: from, Length: length - from}}, from == 0) {
						t.Fatalf("readers refuse the upgrade to %d", length)
					}
					// More blocks than the signers agree on by now stay theirs: they are the next that the log gets.
					all = longest(t, sources, all)
				}
				f.rest(rng)
			})
		}
	}
	if patched < 30 || refusedBoth < 300 || heldBoth < 10 {
		t.Errorf("%d parts with a patch; %d signatures that were changed held, %d did not", patched, heldBoth, refusedBoth)
	}
	t.Logf("%d parts with a patch; %d signatures that were changed held, %d did not", patched, heldBoth, refusedBoth)
}

// longest is all blocks that the signers have.
func longest(t *testing.T, sources []*source, all [][]byte) [][]byte {
	t.Helper()
	for _, s := range sources {
		for i := uint64(len(all)); i < s.log.Length(); i++ {
			b, err := s.log.Get(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
	}
	return all
}

// part is what one signer signs for the log w, at the length of its own one. Both sides make the same of it.
func part(t *testing.T, n node, s *source, signer uint64, w *hypercore.Log, m *hypercore.Manifest, length uint64) hypercore.PartialSignature {
	t.Helper()
	ours, err := w.Verifier().Sign(s.log.Head().Tree, keyPair(s.seed))
	if err != nil {
		t.Fatal(err)
	}
	signable := call[struct{ Signable string }](n, "signable", args{"handle": s.handle, "manifest": manifestArgs(m), "signer": signer}).Signable
	theirs := call[struct{ Signature string }](n, "sign", args{"seed": seed(s.seed), "messageHex": signable}).Signature
	if theirs != hex.EncodeToString(ours) {
		t.Fatalf("signer %d at length %d signs %x, in Node %s", signer, s.log.Length(), ours, theirs)
	}
	p, err := s.log.Partial(signer, [64]byte(ours), length)
	if err != nil {
		t.Fatal(err)
	}
	got := call[partialJSON](n, "partialSignature", args{"handle": s.handle, "signer": signer, "from": length, "signature": theirs})
	if g, w := asJSON(got), asJSON(theirPartial(p)); g != w {
		t.Fatalf("part of signer %d of %d blocks, who has %d:\nours   %s\nNode's %s", signer, length, s.log.Length(), w, g)
	}
	return got.ours(t) // ours goes to Node in assembleBoth
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// assembleBoth puts parts together on both sides, to the same bytes.
func assembleBoth(t *testing.T, n node, w *hypercore.Log, version int, parts []hypercore.PartialSignature) []byte {
	t.Helper()
	ours, err := w.Verifier().Assemble(parts)
	if err != nil {
		t.Fatal(err)
	}
	inputs := []partialJSON{}
	for _, p := range parts {
		inputs = append(inputs, theirPartial(p))
	}
	theirs := call[struct{ Signature string }](n, "assemble", args{"inputs": inputs, "version": version}).Signature
	if theirs != hex.EncodeToString(ours) {
		t.Fatalf("assembled:\nours   %x\nNode's %s", ours, theirs)
	}
	return ours
}

// tamper changes the signature of the writers' head in many ways, and compares what both sides say of each. It returns
// how many held and how many did not.
func (f *follower) tamper(rng *rand.Rand, sources []*source, m *hypercore.Manifest, parts []hypercore.PartialSignature, good []byte) (held, refused int) {
	t := f.t
	t.Helper()
	try := func(what string, signature []byte, want string) {
		t.Helper()
		h := f.w.Head()
		err := f.w.Verifier().Verify(h.Tree.Batch(), signature)
		if err != nil && !errors.Is(err, hypercore.ErrSignature) {
			t.Fatalf("%s: %v", what, err)
		}
		var theirs struct{ Valid bool }
		theirErr := f.n.p.Call(t.Context(), "verifyBatch", args{"handle": f.nw, "signature": hex.EncodeToString(signature)}, &theirs)
		if (err == nil) != theirs.Valid || want == "held" && err != nil || want == "refused" && err == nil {
			t.Fatalf("%s: want it %s; ours %v, Node's %v, %v\n%x", what, want, err, theirs.Valid, theirErr, signature)
		}
		if err == nil {
			held++
		} else {
			refused++
		}
	}
	assemble := func(parts []hypercore.PartialSignature) []byte { return assembleBoth(t, f.n, f.w, m.Version, parts) }
	try("as it is", good, "held")
	try("none of the quorum", assemble(nil), "refused")
	if len(parts) > 1 {
		try("one too few", assemble(parts[1:]), "refused")
		try("one signer twice", assemble(append(slices.Clone(parts[1:]), parts[1])), "refused")
		other := slices.Clone(parts)
		other[0].Signer, other[1].Signer = parts[1].Signer, parts[0].Signer
		if m.Signers[0] != m.Signers[1] {
			try("signers in each other's place", assemble(other), "refused")
		}
		slices.Reverse(other)
		try("in another order", assemble([]hypercore.PartialSignature{parts[1], parts[0]}), either(len(parts) == 2, "held", "refused"))
	}
	nobody := slices.Clone(parts)
	nobody[0].Signer = uint64(len(m.Signers))
	try("a signer that does not exist", assemble(nobody), "refused")
	for i := range parts {
		for change, p := range map[string]func(*hypercore.PartialSignature){
			"a longer patch":  func(p *hypercore.PartialSignature) { p.Patch++ },
			"a shorter patch": func(p *hypercore.PartialSignature) { p.Patch-- },
			"no patch":        func(p *hypercore.PartialSignature) { p.Patch, p.Nodes = 0, nil },
			"a wrong size":    func(p *hypercore.PartialSignature) { p.Nodes[0].Size++ },
			"a wrong hash":    func(p *hypercore.PartialSignature) { p.Nodes[0].Hash[7]++ },
			"a wrong node":    func(p *hypercore.PartialSignature) { p.Nodes[0].Index += 2 },
			"a missing node":  func(p *hypercore.PartialSignature) { p.Nodes = p.Nodes[1:] },
		} {
			changed := slices.Clone(parts)
			if changed[i].Patch == 0 {
				continue
			}
			changed[i].Nodes = slices.Clone(changed[i].Nodes)
			if p(&changed[i]); m.Version == 0 && (changed[i].Patch == 0) != (len(changed[i].Nodes) == 0) {
				continue // can't be written
			}
			// Another part may bring the nodes that this one has not: then it holds.
			try(change, assemble(changed), "")
		}
	}
	for range 20 {
		flipped := slices.Clone(good)
		flipped[rng.IntN(len(flipped))] ^= 1 << rng.IntN(8)
		try("a flipped bit", flipped, "")
		try("cut off", good[:rng.IntN(len(good))], "")
	}
	return held, refused
}

func either[T any](c bool, a, b T) T {
	if c {
		return a
	}
	return b
}

// A log without signers is its prologue: whoever has the blocks has the log, and nobody can change it.
func TestStaticLogsAreTheirs(t *testing.T) {
	n := startNode(t)
	for _, version := range []int{1, 2} {
		for _, length := range []int{1, 2, 7, 32, 45} {
			t.Run(fmt.Sprintf("v%d of %d blocks", version, length), func(t *testing.T) {
				rng := random(t, 1)
				var blocks [][]byte
				for range length {
					blocks = append(blocks, randomBytes(rng, rng.IntN(20)))
				}
				m := &hypercore.Manifest{Version: version, Prologue: &merkle.Prologue{Hash: treeOf(blocks).Hash(), Length: uint64(length)}}
				k := kind{name: "static", node: args{"manifest": manifestArgs(m)}, ours: hypercore.Options{Manifest: m}}
				f := follow(t, n, k, "11", "11")
				none := []byte{}
				for what, wrong := range map[string][][]byte{"less": blocks[:length-1], "more": append(blocks[:length:length], none), "other blocks": append([][]byte{[]byte("x")}, blocks[1:]...)} {
					if len(wrong) == 0 {
						continue
					}
					if _, err := f.w.AppendWith(t.Context(), hypercore.AppendOptions{Signature: none}, wrong...); err == nil {
						t.Errorf("append of %s is taken", what)
					}
					if code := refused(f.n, "appendSigned", args{"handle": f.nw, "blocks": hexes(wrong), "signature": ""}); code == "" {
						t.Errorf("Node: append of %s: no code", what)
					}
				}
				if _, err := f.w.AppendWith(t.Context(), hypercore.AppendOptions{Signature: none}, blocks...); err != nil {
					t.Fatal(err)
				}
				theirs := call[head](f.n, "appendSigned", args{"handle": f.nw, "blocks": hexes(blocks), "signature": ""})
				if s := theirs.Signature; s != nil && *s == "" {
					theirs.Signature = nil
				}
				ours := headOf(f.w)
				if s := ours.Signature; s != nil && *s == "" {
					ours.Signature = nil
				}
				if ours.String() != theirs.String() {
					t.Fatalf("heads differ:\nours   %v\nNode's %v", ours, theirs)
				}
				// Whatever part of it is asked for, the whole prologue is proven.
				start := rng.Uint64N(uint64(length))
				if !f.ask(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: start, Length: 1}}, true) {
					t.Fatal("the upgrade was refused")
				}
				if f.r.Length() != uint64(length) {
					t.Fatalf("the reader has %d blocks", f.r.Length())
				}
				for _, i := range rng.Perm(length) {
					if !f.ask(merkle.Request{Block: &merkle.NodeRequest{Index: uint64(i), Nodes: f.missing(2 * uint64(i))}}, false) {
						t.Fatalf("block %d was refused", i)
					}
				}
				ours, theirs = headOf(f.r), call[head](f.n, "info", args{"handle": f.nr})
				a, b := dumpOurs(t, f.r, uint64(length)), dumpNode(f.n, f.nr, uint64(length))
				a.head, b.head = head{TreeHash: ours.TreeHash}, head{TreeHash: theirs.TreeHash}
				if _, got := sameDump(t, "readers", a, b); got != length {
					t.Errorf("%d blocks", got)
				}
			})
		}
	}
}
