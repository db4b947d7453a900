package interop_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// shapes are what a request may ask for at once. Some are refused whatever the rest is.
var shapes = []string{
	"block", "hash", "upgrade", "seek", "block upgrade", "hash upgrade", "seek upgrade", "block seek", "hash seek",
	"block seek upgrade", "hash seek upgrade", "",
}

// randomRequest asks a log for something, mostly for what it can prove.
func randomRequest(t *testing.T, rng *rand.Rand, l *hypercore.Log, padding uint64) merkle.Request {
	t.Helper()
	shape := shapes[rng.IntN(len(shapes))]
	r, length := merkle.Request{}, l.Length()
	if strings.Contains(shape, "upgrade") {
		start := rng.Uint64N(length)
		if rng.IntN(3) == 0 {
			start = 0
		}
		r.Upgrade = &merkle.UpgradeRequest{Start: start, Length: 1 + rng.Uint64N(length-start)}
		if rng.IntN(20) == 0 {
			r.Upgrade.Length = rng.Uint64N(2) * (length + 1) // nothing, or too much
		}
	}
	// The levels to go up, which are as in a request for a node that the requester has when it is not in the upgrade.
	levels := func(index uint64) uint64 {
		if r.Upgrade != nil && index >= 2*r.Upgrade.Start && rng.IntN(4) > 0 {
			return 0
		}
		depth := uint64(0)
		for at := index; !merkle.Contains(merkle.Parent(at), 2*length); at = merkle.Parent(at) {
			depth++
		}
		return rng.Uint64N(depth + 1 + rng.Uint64N(2)*rng.Uint64N(2)*rng.Uint64N(2))
	}
	root, asked := uint64(0), false
	if strings.Contains(shape, "block") {
		i := rng.Uint64N(length)
		r.Block = &merkle.NodeRequest{Index: i, Nodes: levels(2 * i)}
		root, asked = up(2*i, r.Block.Nodes), true
	}
	if strings.Contains(shape, "hash") {
		i := rng.Uint64N(2 * length)
		r.Hash = &merkle.NodeRequest{Index: i, Nodes: levels(i)}
		root, asked = up(i, r.Hash.Nodes), true
	}
	if strings.Contains(shape, "seek") {
		r.Seek = &merkle.SeekRequest{Padding: padding * rng.Uint64N(2)}
		h := l.Head()
		r.Seek.Bytes = rng.Uint64N(h.Tree.ByteLength() - r.Seek.Padding*length + 2)
		if asked && merkle.RightSpan(root) < 2*length && rng.IntN(5) > 0 {
			// A byte under the node that the proof leads to.
			offset, err := h.Tree.ByteOffset(root, l)
			if err != nil {
				t.Fatal(err)
			}
			n, err := l.Node(root)
			if err != nil {
				t.Fatal(err)
			}
			pad := r.Seek.Padding
			r.Seek.Bytes = offset - pad*merkle.LeftSpan(root)/2 + rng.Uint64N(n.Size-pad*merkle.Leaves(root)+1)
		}
	}
	return r
}

func up(index, levels uint64) uint64 {
	for range levels {
		index = merkle.Parent(index)
	}
	return index
}

// proofOf says what is in a data message.
func proofOf(p *hypercore.Proof) string {
	var parts []string
	for _, part := range []struct {
		name string
		set  bool
	}{{"block", p.Block != nil}, {"hash", p.Hash != nil}, {"seek", p.Seek != nil}, {"upgrade", p.Upgrade != nil},
		{"additional", p.Upgrade != nil && len(p.Upgrade.Additional) > 0}, {"manifest", p.Manifest != nil}} {
		if part.set {
			parts = append(parts, part.name)
		}
	}
	return strings.Join(parts, " ")
}

// provers are the sorts of log that proofs are compared for, with each package that has them.
func provers(t *testing.T, run func(t *testing.T, k kind, pkg string)) {
	for _, k := range kinds() {
		pkgs := []string{"11"}
		if k.name == "v1" || k.name == "compat" || k.name == "encrypted" {
			pkgs = append(pkgs, "10")
		}
		for _, pkg := range pkgs {
			t.Run(k.name+" with package "+pkg, func(t *testing.T) { run(t, k, pkg) })
		}
	}
}

// crashes is true for a request that ends the process of package 11: a seek with a node that lies on both sides of the
// upgrade's start. It climbs from that node for ever, until a number is too large for its storage, in a promise that
// nobody waits for.
func crashes(r merkle.Request) bool {
	return r.Hash != nil && r.Seek != nil && r.Upgrade != nil && r.Hash.Index < 2*r.Upgrade.Start && merkle.RightSpan(r.Hash.Index) >= 2*r.Upgrade.Start
}

// theySeek is false for a request whose seek package 11 forgets: it works out the byte offset of a node outside of the
// tree's first root as NaN (lib/merkle-tree.js, getByteOffsetBatch), and then answers as if nothing was sought. Package 10
// does not, and our answers are as its.
func theySeek(pkg string, r merkle.Request, length uint64) bool {
	if pkg != "11" || r.Seek == nil {
		return true
	}
	var index, levels uint64
	switch {
	case r.Block != nil:
		index, levels = 2*r.Block.Index, r.Block.Nodes
	case r.Hash != nil:
		index, levels = r.Hash.Index, r.Hash.Nodes
	default:
		return true
	}
	if r.Upgrade != nil && merkle.RightSpan(index)/2 >= r.Upgrade.Start {
		return true
	}
	first := merkle.AppendRoots(nil, length)[0]
	return merkle.LeftSpan(up(index, levels)) <= merkle.RightSpan(first)
}

// unsought is a request without its seek where the peer forgets it.
func unsought(pkg string, r merkle.Request, length uint64) merkle.Request {
	if !theySeek(pkg, r, length) {
		r.Seek = nil
	}
	return r
}

// Whatever is asked for, both sides answer with the same bytes or both refuse.
func TestProofsAreTheirsByteForByte(t *testing.T) {
	n := startNode(t)
	total := map[string]int{}
	refusals := map[string]int{}
	forgotten := 0
	provers(t, func(t *testing.T, k kind, pkg string) {
		n := node{t, n.p}
		rng := random(t, 1)
		handle := t.Name()
		l := k.open(t, n, handle, args{"package": pkg})
		if k.prologue != nil {
			appendBoth(t, n, handle, l, k.prologue...)
		}
		for round := range 12 * long(20) {
			blocks := [][]byte{}
			for range 1 + rng.IntN(1+2*round) {
				blocks = append(blocks, randomBytes(rng, rng.IntN(9)*rng.IntN(9)))
			}
			if round == 6 && k.prologue == nil {
				truncateBoth(t, n, handle, l, l.Length()/2)
			}
			appendBoth(t, n, handle, l, blocks...)
			var requests []merkle.Request
			var theirs []args
			var manifests []bool
			for range 60 {
				r := randomRequest(t, rng, l, k.padding)
				if crashes(r) {
					if got := proveOurs(t, l, r, false); got.Code != "INVALID_OPERATION" {
						t.Errorf("request %s: %+v", requestString(r), got)
					}
					refusals["never sent to Node"]++
					continue
				}
				manifest := rng.IntN(4) == 0
				requests, manifests = append(requests, r), append(manifests, manifest)
				theirs = append(theirs, requestArgs(r, l.Fork(), manifest))
			}
			for i, want := range proveNode(n, handle, theirs) {
				r := unsought(pkg, requests[i], l.Length())
				got := proveOurs(t, l, r, manifests[i])
				if r.Seek != requests[i].Seek {
					forgotten++
				}
				if got.DataHex != want.DataHex || got.Code != want.Code {
					t.Fatalf("length %d, request %s:\nours   %+v\nNode's %+v", l.Length(), requestString(requests[i]), got, want)
				}
				if want.DataHex == "" {
					refusals[want.Code]++
					continue
				}
				what := proofOf(readProof(t, want.DataHex))
				if s := requests[i].Seek; s != nil && s.Padding > 0 && strings.Contains(what, "seek") {
					total["padding"]++
				}
				total[what]++
			}
		}
	})
	for _, what := range []string{"block", "hash", "upgrade", "upgrade additional", "block upgrade", "block upgrade additional", "hash upgrade additional",
		"seek upgrade", "seek upgrade additional", "block seek", "hash seek", "block seek manifest", "block seek upgrade", "padding"} {
		if total[what] < 10 {
			t.Errorf("only %d proofs of %s", total[what], what)
		}
	}
	if refusals["INVALID_OPERATION"] < 100 {
		t.Errorf("refused: %v", refusals)
	}
	t.Logf("proofs %v, refused %v, %d seeks forgotten", total, refusals, forgotten)
}

// A follower is a reader of ours and one of Node's, which both get what both writers prove.
type follower struct {
	t        *testing.T
	n        node
	w        *hypercore.Log // ours; Node's is the same log
	r        *hypercore.Log
	nw, nr   string
	pkg      string // of Node's writer
	stale    int    // nodes that Node's reader did not remove
	accepted map[string]int
	refused  map[string]int
}

// follow opens a writer on both sides, and readers who know its key alone.
func follow(t *testing.T, n node, k kind, writer, reader string) *follower {
	t.Helper()
	f := &follower{t: t, n: node{t, n.p}, nw: t.Name() + " writer", nr: t.Name() + " reader", pkg: writer, accepted: map[string]int{}, refused: map[string]int{}}
	f.w = k.open(t, f.n, f.nw, args{"package": writer})
	key := f.w.Key()
	f.r = openReader(t, key)
	params := args{"package": reader, "key": hex.EncodeToString(key[:])}
	if reader == "10" {
		params["compat"] = k.ours.Compat // it can't tell by itself
	}
	openNode(t, f.n, f.nr, params)
	return f
}

// ask lets both writers prove, which must give the same, and the readers take the other side's proof. It reports
// whether they took it, which must be the same, too.
func (f *follower) ask(r merkle.Request, manifest bool) bool {
	t := f.t
	t.Helper()
	ours := proveOurs(t, f.w, unsought(f.pkg, r, f.w.Length()), manifest)
	theirs := proveNode(f.n, f.nw, []args{requestArgs(r, f.w.Fork(), manifest)})[0]
	if ours.DataHex != theirs.DataHex || ours.Code != theirs.Code {
		t.Fatalf("length %d, request %s:\nours   %+v\nNode's %+v", f.w.Length(), requestString(r), ours, theirs)
	}
	if ours.DataHex == "" {
		f.refused[ours.Code]++
		return false
	}
	if !theySeek(f.pkg, r, f.w.Length()) {
		// Both readers get our proof, with the seek.
		ours = proveOurs(t, f.w, r, manifest)
		theirs = ours
		if ours.DataHex == "" {
			f.refused[ours.Code]++
			return false
		}
	}
	p := readProof(t, theirs.DataHex)
	err := apply(t, f.r, p)
	var took applied
	theirErr := f.n.p.Call(t.Context(), "applyProof", args{"handle": f.nr, "dataHex": ours.DataHex}, &took)
	if (err == nil) != took.Applied {
		t.Fatalf("reader of %d blocks, request %s, proof of %s: we say %v, Node %v, %v", f.r.Length(), requestString(r), proofOf(p), err, took.Applied, theirErr)
	}
	if err != nil {
		f.refused[fmt.Sprint(theirErr)]++
		return false
	}
	if took.Length != f.r.Length() {
		t.Fatalf("after request %s our reader has %d blocks, Node's %d", requestString(r), f.r.Length(), took.Length)
	}
	f.accepted[proofOf(p)]++
	return true
}

// missing is how many nodes above one the readers lack, as both of them say.
func (f *follower) missing(index uint64) uint64 {
	f.t.Helper()
	ours, err := f.r.Head().MissingNodes(index, f.r)
	if err != nil {
		f.t.Fatal(err)
	}
	theirs := call[struct{ Nodes []uint64 }](f.n, "missing", args{"handle": f.nr, "indices": []uint64{index}}).Nodes[0]
	if ours != theirs {
		f.t.Fatalf("nodes missing above %d of %d blocks: we say %d, Node %d", index, f.r.Length(), ours, theirs)
	}
	return ours
}

// compare compares all that the readers hold.
func (f *follower) compare(what string) (nodes, blocks int) {
	f.t.Helper()
	length := max(f.w.Length(), f.r.Length())
	return sameDump(f.t, what, dumpOurs(f.t, f.r, length), dumpNode(f.n, f.nr, length))
}

// next makes a request as a reader would, and sometimes a wrong one.
func (f *follower) next(rng *rand.Rand, padding uint64) (merkle.Request, bool) {
	f.t.Helper()
	from, to := f.r.Length(), f.w.Length()
	r := merkle.Request{}
	manifest := from == 0
	// Seeks with padding: the sizes that count.
	bytesOf := func(size, leaves, pad uint64) uint64 { return size - leaves*pad }
	pad := padding * rng.Uint64N(2)
	if from < to && rng.IntN(3) == 0 || from == 0 {
		r.Upgrade = &merkle.UpgradeRequest{Start: from, Length: to - from}
		if rng.IntN(3) == 0 {
			r.Upgrade.Length = 1 + rng.Uint64N(to-from)
		}
		if rng.IntN(12) == 0 {
			// From where the reader is not yet. One from where it was once is another thing: we take it, Node seldom does.
			r.Upgrade.Start = from + rng.Uint64N(to-from)
			r.Upgrade.Length = 1 + rng.Uint64N(to-r.Upgrade.Start)
		}
		switch rng.IntN(5) {
		case 0:
			r.Block = &merkle.NodeRequest{Index: r.Upgrade.Start + rng.Uint64N(r.Upgrade.Length)}
		case 1:
			r.Hash = &merkle.NodeRequest{Index: 2*r.Upgrade.Start + rng.Uint64N(2*r.Upgrade.Length)}
		case 2:
			r.Seek = &merkle.SeekRequest{Bytes: rng.Uint64N(bytesOf(f.w.Head().Tree.ByteLength(), to, pad) + 1), Padding: pad}
		case 3:
			if from > 0 {
				i := rng.Uint64N(from)
				r.Block = &merkle.NodeRequest{Index: i, Nodes: f.missing(2 * i)}
			}
		}
		return r, manifest
	}
	i := rng.Uint64N(2 * from)
	switch rng.IntN(5) {
	case 0:
		i /= 2
		r.Block = &merkle.NodeRequest{Index: i, Nodes: f.missing(2 * i)}
		if rng.IntN(8) == 0 {
			r.Block.Nodes = rng.Uint64N(6)
		}
		return r, manifest
	case 1:
		r.Hash = &merkle.NodeRequest{Index: i, Nodes: f.missing(i)}
		return r, manifest
	}
	// A byte, by way of a block that may hold it.
	head := f.r.Head()
	pos := rng.Uint64N(bytesOf(head.Tree.ByteLength(), from, pad) + 1)
	s, err := head.Tree.Seek(pos, pad, f.r)
	if err != nil {
		f.t.Fatal(err)
	}
	if !s.Found && s.Start < s.End {
		i = 2 * (s.Start + rng.Uint64N(s.End-s.Start))
	}
	nodes := f.missing(i)
	if rng.IntN(2) == 0 {
		r.Hash = &merkle.NodeRequest{Index: i, Nodes: nodes}
	} else {
		r.Block = &merkle.NodeRequest{Index: i / 2, Nodes: f.missing(i &^ 1)}
	}
	r.Seek = &merkle.SeekRequest{Bytes: pos, Padding: pad}
	return r, manifest
}

// Readers who know a key and nothing else take the other side's proofs, keep the same nodes and blocks of them, refuse
// the same ones, and end with all of the log.
func TestReadersTakeEachOthersProofs(t *testing.T) {
	n := startNode(t)
	total := map[string]int{}
	run := func(t *testing.T, k kind, writer, reader string) {
		rng := random(t, 1)
		f := follow(t, n, k, writer, reader)
		grow := func(n int) {
			if k.prologue != nil && f.w.Length() == 0 {
				appendBoth(t, f.n, f.nw, f.w, k.prologue...)
			}
			var blocks [][]byte
			for range n {
				blocks = append(blocks, randomBytes(rng, rng.IntN(9)*rng.IntN(9)))
			}
			appendBoth(t, f.n, f.nw, f.w, blocks...)
		}
		grow(1 + rng.IntN(100))
		for step := range 65 * long(20) {
			if rng.IntN(8) == 0 {
				grow(1 + rng.IntN(20))
			}
			r, manifest := f.next(rng, k.padding)
			f.ask(r, manifest)
			if step%15 == 14 {
				f.compare(fmt.Sprintf("step %d", step))
			}
		}
		f.rest(rng)
		for what, times := range f.accepted {
			total[what] += times
		}
		for what, times := range f.refused {
			total["refused: "+what] += times
		}
	}
	provers(t, func(t *testing.T, k kind, pkg string) {
		run(t, k, pkg, "11")
		if pkg == "10" {
			t.Run("to package 10", func(t *testing.T) { run(t, k, "11", "10") })
		}
	})
	for _, what := range []string{"block", "hash", "upgrade", "upgrade additional", "block upgrade", "block upgrade additional", "hash upgrade",
		"seek upgrade", "block seek", "hash seek"} {
		if total[what] < 1 {
			t.Errorf("only %d proofs of %s were taken", total[what], what)
		}
	}
	refused := 0
	for what, times := range total {
		if strings.HasPrefix(what, "refused: ") {
			refused += times
		}
	}
	if refused < 30 {
		t.Errorf("%d refusals", refused)
	}
	t.Logf("%v", total)
}

// rest fetches what the readers do not have, in random order, and compares them with each other and with the writer.
func (f *follower) rest(rng *rand.Rand) {
	t := f.t
	t.Helper()
	if from, to := f.r.Length(), f.w.Length(); from < to {
		if !f.ask(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: from, Length: to - from}}, from == 0) {
			t.Fatalf("the upgrade from %d to %d was refused", from, to)
		}
	}
	order := rng.Perm(int(f.w.Length()))
	for _, i := range order {
		if f.r.Has(uint64(i)) {
			continue
		}
		if !f.ask(merkle.Request{Block: &merkle.NodeRequest{Index: uint64(i), Nodes: f.missing(2 * uint64(i))}}, false) {
			t.Fatalf("block %d was refused", i)
		}
	}
	nodes, blocks := f.compare("with all blocks")
	sameDump(t, "our reader and Node's writer", dumpOurs(t, f.r, f.w.Length()), dumpNode(f.n, f.nw, f.w.Length()))
	if uint64(blocks) != f.w.Length() || nodes < blocks {
		t.Fatalf("%d nodes and %d blocks of %d", nodes, blocks, f.w.Length())
	}
}

// A reader that fetches blocks here and there asks for no node that it can do without, as Node's does not, and one that
// looks for a byte finds it where Node does.
func TestSparseReadersAskForTheSame(t *testing.T) {
	n := startNode(t)
	names := []string{"v1", "compat", "encrypted"}
	for _, k := range kinds() {
		if !slices.Contains(names, k.name) {
			continue
		}
		for _, pkg := range []string{"11", "10"} {
			t.Run(k.name+" with package "+pkg, func(t *testing.T) {
				rng := random(t, 1)
				f := follow(t, n, k, pkg, pkg)
				var blocks [][]byte
				for range 150 * long(8) {
					blocks = append(blocks, randomBytes(rng, rng.IntN(30)))
				}
				appendBoth(t, f.n, f.nw, f.w, blocks...)
				length := uint64(len(blocks))
				f.ask(merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: length}}, true)
				sought := 0
				for range 20 {
					sought += f.seek(rng, k.padding)
					i := rng.Uint64N(length)
					f.ask(merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: f.missing(2 * i)}}, false)
				}
				if sought < 5 {
					t.Errorf("%d proofs of seeks", sought)
				}
				f.compare("sparse")
				f.rest(rng)
			})
		}
	}
}

// seek looks for a byte as a reader does, until it is found, and returns how many proofs it took.
func (f *follower) seek(rng *rand.Rand, padding uint64) (proofs int) {
	t := f.t
	t.Helper()
	head := f.r.Head()
	pos := rng.Uint64N(head.Tree.ByteLength() - padding*head.Length)
	for ; ; proofs++ {
		s, err := head.Tree.Seek(pos, padding, f.r)
		if err != nil {
			t.Fatal(err)
		}
		if s.Found {
			at := call[struct {
				Found struct{ Index, Offset uint64 }
			}](f.n, "seek", args{"handle": f.nw, "bytes": pos}).Found
			if at.Index != s.Block || at.Offset != s.Offset {
				t.Fatalf("byte %d: we find it in block %d at %d, Node in block %d at %d", pos, s.Block, s.Offset, at.Index, at.Offset)
			}
			return proofs
		}
		i := 2 * (s.Start + rng.Uint64N(s.End-s.Start))
		r := merkle.Request{Hash: &merkle.NodeRequest{Index: i, Nodes: f.missing(i)}, Seek: &merkle.SeekRequest{Bytes: pos, Padding: padding}}
		if !f.ask(r, false) || proofs > 20 {
			t.Fatalf("seek to byte %d was refused, or has no end: %s", pos, requestString(r))
		}
	}
}
