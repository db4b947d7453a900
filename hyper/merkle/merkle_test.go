package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

func randomTree(rng *rand.Rand, n int) (Tree, mapNodes, [][]byte) {
	nodes := mapNodes{}
	b := Tree{}.Batch()
	var blocks [][]byte
	for range n {
		block := make([]byte, rng.IntN(40))
		for i := range block {
			block[i] = byte(rng.Uint32())
		}
		b.Append(block)
		blocks = append(blocks, block)
	}
	nodes.keep(b)
	return b.Tree, nodes, blocks
}

// signed stands for the signature check of the log: only trees that the writer
// had are accepted.
type signed map[Hash]bool

// A reader holds part of a log.
type reader struct {
	tree  Tree
	nodes mapNodes
	has   map[uint64][]byte
}

func (r *reader) apply(t *testing.T, p *Proof, ok signed) error {
	b, err := r.tree.Verify(p, nil, r.nodes)
	if err != nil {
		return err
	}
	if b.Upgraded && !ok[b.Tree.Hash()] {
		return fmt.Errorf("signature: %w", ErrProof)
	}
	r.nodes.keep(b)
	if b.Upgraded {
		r.tree = b.Tree
	}
	if p.Block != nil {
		r.has[p.Block.Index] = p.Block.Value
	}
	return nil
}

// TestSparseReaderConverges lets a reader fetch blocks, nodes, byte positions
// and upgrades in random order from a growing log: all proofs hold, every node
// it keeps is the writer's, and every seek finds the right byte.
func TestSparseReaderConverges(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rng.IntN(70)
		tree, nodes, blocks := randomTree(rng, n)
		ok := signed{}
		for i := range n + 1 {
			at, err := tree.At(uint64(i), nodes)
			if err != nil {
				t.Fatal(err)
			}
			ok[at.Hash()] = true
		}
		r := &reader{nodes: mapNodes{}, has: map[uint64][]byte{}}
		for range 4 * n {
			var req Request
			if r.tree.Length < tree.Length && (r.tree.Length == 0 || rng.IntN(4) == 0) {
				left := tree.Length - r.tree.Length
				req.Upgrade = &UpgradeRequest{Start: r.tree.Length, Length: 1 + rng.Uint64N(left)}
			}
			end := r.tree.Length
			if req.Upgrade != nil {
				end += req.Upgrade.Length
			}
			missing := func(index uint64) uint64 {
				m, err := r.tree.MissingNodes(index, r.nodes)
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			switch i := rng.Uint64N(end); rng.IntN(4) {
			case 0, 1:
				req.Block = &NodeRequest{Index: i, Nodes: missing(2 * i)}
			case 2:
				req.Hash = &NodeRequest{Index: 2 * i, Nodes: missing(2 * i)}
			default:
				req.Seek = &SeekRequest{Bytes: rng.Uint64N(tree.ByteLength() + 1)}
			}
			p, err := tree.Prove(req, nil, nodes)
			if errors.Is(err, ErrRequest) && req.Seek != nil {
				continue
			}
			if err != nil {
				t.Fatalf("seed %d: prove %+v: %v", seed, req, err)
			}
			if p.Block != nil {
				p.Block.Value = blocks[p.Block.Index]
			}
			if err := r.apply(t, p, ok); err != nil {
				t.Fatalf("seed %d: length %d: verify %+v: %v", seed, r.tree.Length, req, err)
			}
		}
		for index, got := range r.nodes {
			if got != nodes[index] {
				t.Fatalf("seed %d: reader keeps a wrong node %d", seed, index)
			}
		}
		for i, block := range r.has {
			if !bytes.Equal(block, blocks[i]) {
				t.Fatalf("seed %d: reader keeps a wrong block %d", seed, i)
			}
		}
		var at uint64
		for i, block := range blocks {
			if off, err := tree.ByteOffset(2*uint64(i), nodes); err != nil || off != at {
				t.Fatalf("byte offset of block %d: %d, %v, want %d", i, off, err, at)
			}
			for o := range block {
				s, err := tree.Seek(at+uint64(o), 0, nodes)
				// Empty blocks make a position belong to the first block that starts there.
				if err != nil || !s.Found || s.Offset != uint64(o) && s.Block > uint64(i) {
					t.Fatalf("seek to %d: %+v, %v, want block %d offset %d", at+uint64(o), s, err, i, o)
				}
			}
			at += uint64(len(block))
		}
	}
}

// TestReorgFindsCommonBlocks lets a reader of one fork move to another.
func TestReorgFindsCommonBlocks(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		tree, nodes, _ := randomTree(rng, 1+rng.IntN(40))
		shared := rng.Uint64N(tree.Length + 1)
		b := tree.Batch()
		if err := b.Truncate(shared, 1, nodes); err != nil {
			t.Fatal(err)
		}
		fork := mapNodes{}
		for i, n := range nodes {
			if RightSpan(i) < 2*shared {
				fork[i] = n
			}
		}
		for range 1 + rng.IntN(40) {
			b.Append([]byte(fmt.Sprint("fork ", rng.Uint64())))
		}
		fork.keep(b)
		other := b.Tree

		p, err := other.Prove(Request{Upgrade: &UpgradeRequest{Length: other.Length}}, nil, fork)
		if err != nil {
			t.Fatal(err)
		}
		r, err := StartReorg(tree, p, nil, nodes)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := 0; !r.Done(); i++ {
			if i > 64 {
				t.Fatalf("seed %d: reorg does not end", seed)
			}
			w := r.Want()
			p, err := other.Prove(Request{Hash: &NodeRequest{Index: 2 * w.Start, Nodes: w.Levels}}, nil, fork)
			if err != nil {
				t.Fatalf("seed %d: prove %+v: %v", seed, w, err)
			}
			if used, err := r.Update(p, nodes); err != nil || !used {
				t.Fatalf("seed %d: update %+v: %v, %v", seed, w, used, err)
			}
		}
		if r.Batch.Ancestors != shared {
			t.Fatalf("seed %d: %d common blocks, want %d of %d and %d", seed, r.Batch.Ancestors, shared, tree.Length, other.Length)
		}
		if r.Batch.Tree.Hash() != other.Hash() {
			t.Fatalf("seed %d: reorg ends at another tree", seed)
		}
		for _, n := range r.Batch.Nodes {
			if fork[n.Index] != n {
				t.Fatalf("seed %d: reorg keeps a wrong node %d", seed, n.Index)
			}
		}
	}
}

// TestMutatedProofsAreRefused changes one thing in honest proofs: nothing that
// the writer did not write is ever accepted.
func TestMutatedProofsAreRefused(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 3))
	tree, nodes, blocks := randomTree(rng, 23)
	ok := signed{}
	for i := range 24 {
		at, _ := tree.At(uint64(i), nodes)
		ok[at.Hash()] = true
	}
	accepted := 0
	for range 20000 {
		start := rng.Uint64N(24)
		base, _ := tree.At(start, nodes)
		r := &reader{tree: base, nodes: mapNodes{}, has: map[uint64][]byte{}}
		for _, n := range base.Roots {
			r.nodes[n.Index] = n
		}
		var req Request
		if start < 23 {
			req.Upgrade = &UpgradeRequest{Start: start, Length: 1 + rng.Uint64N(23-start)}
		}
		i := rng.Uint64N(23)
		if req.Upgrade == nil || i < start || i < start+req.Upgrade.Length {
			m, _ := base.MissingNodes(2*i, r.nodes)
			req.Block = &NodeRequest{Index: i, Nodes: m}
		}
		p, err := tree.Prove(req, nil, nodes)
		if err != nil {
			t.Fatal(err)
		}
		if p.Block != nil {
			p.Block.Value = bytes.Clone(blocks[p.Block.Index])
		}
		mutate(rng, p)
		if r.apply(t, p, ok) != nil {
			continue
		}
		accepted++
		for i, block := range r.has {
			if !bytes.Equal(block, blocks[i]) {
				t.Fatalf("accepted a wrong block %d: %s", i, describe(p))
			}
		}
		for index, n := range r.nodes {
			if n != nodes[index] {
				t.Fatalf("accepted a wrong node %d: %s", index, describe(p))
			}
		}
	}
	if accepted == 0 || accepted == 20000 {
		t.Errorf("%d of 20000 proofs accepted: the mutations test nothing", accepted)
	}
}

func mutate(rng *rand.Rand, p *Proof) {
	lists := []*[]Node{}
	if p.Block != nil {
		lists = append(lists, &p.Block.Nodes)
	}
	if p.Upgrade != nil {
		lists = append(lists, &p.Upgrade.Nodes, &p.Upgrade.Additional)
	}
	switch k := rng.IntN(8); {
	case k == 0 && p.Block != nil && len(p.Block.Value) > 0:
		p.Block.Value[rng.IntN(len(p.Block.Value))] ^= 1 << rng.IntN(8)
	case k == 1 && p.Block != nil:
		p.Block.Value = append(p.Block.Value, 0)
	case k == 2 && p.Block != nil:
		p.Block.Index ^= 1 << rng.IntN(6)
	case k == 3 && p.Upgrade != nil:
		p.Upgrade.Length += 1 + rng.Uint64N(3)
	case k == 4 && p.Upgrade != nil:
		p.Upgrade.Start ^= 1 << rng.IntN(5)
	case len(lists) > 0:
		list := lists[rng.IntN(len(lists))]
		*list = append([]Node(nil), *list...)
		if len(*list) == 0 {
			*list = append(*list, Node{Index: rng.Uint64N(50)})
			return
		}
		n := &(*list)[rng.IntN(len(*list))]
		switch k {
		case 5:
			n.Hash[rng.IntN(HashSize)] ^= 1
		case 6:
			n.Size++
		default:
			*list = (*list)[:len(*list)-1]
		}
	}
}

func TestVerifyBoundsWork(t *testing.T) {
	tree, nodes, _ := randomTree(rand.New(rand.NewPCG(1, 1)), 8)
	huge := func() []Node {
		var out []Node
		index := uint64(0)
		for range 100 {
			out = append(out, Node{Index: Sibling(index), Size: MaxSize})
			if Depth(index) > 60 {
				break
			}
			index = Parent(index)
		}
		return out
	}()
	for name, p := range map[string]*Proof{
		"deep block":       {Block: &BlockProof{Index: 0, Nodes: huge}},
		"huge block index": {Block: &BlockProof{Index: 1 << 63}},
		"huge hash index":  {Hash: &HashProof{Index: 1<<64 - 1, Nodes: []Node{{Index: 1<<64 - 1}}}},
		"hash, no nodes":   {Hash: &HashProof{Index: 3}},
		"huge upgrade":     {Upgrade: &UpgradeProof{Start: 1 << 63, Length: 1 << 63}},
		"upgrade overflow": {Upgrade: &UpgradeProof{Start: MaxSize, Length: MaxSize}},
		"both":             {Block: &BlockProof{}, Hash: &HashProof{}},
		"foreign extra":    {Upgrade: &UpgradeProof{Start: 0, Length: 8, Additional: []Node{{Index: 7}}}},
	} {
		if _, err := tree.Verify(p, nil, nodes); !errors.Is(err, ErrProof) {
			t.Errorf("%s: error %v, want ErrProof", name, err)
		}
	}
	empty := &Proof{Upgrade: &UpgradeProof{Additional: []Node{{Index: 0}}}}
	if _, err := (Tree{}).Verify(empty, nil, mapNodes{}); !errors.Is(err, ErrProof) {
		t.Errorf("additional nodes on nothing: %v", err)
	}
}

func TestPrologue(t *testing.T) {
	tree, nodes, _ := randomTree(rand.New(rand.NewPCG(1, 4)), 20)
	at, err := tree.At(8, nodes)
	if err != nil {
		t.Fatal(err)
	}
	good := &Prologue{Hash: at.Hash(), Length: 8}
	p, err := tree.Prove(Request{Upgrade: &UpgradeRequest{Start: 3, Length: 2}}, good, nodes)
	if err != nil || p.Upgrade.Start != 0 || p.Upgrade.Length != 8 {
		t.Fatalf("an upgrade inside the prologue proves %+v, %v, want 0+8", p.Upgrade, err)
	}
	if _, err := (Tree{}).Verify(p, good, mapNodes{}); err != nil {
		t.Errorf("honest prologue: %v", err)
	}
	bad := *good
	bad.Hash[3] ^= 4
	if _, err := (Tree{}).Verify(p, &bad, mapNodes{}); !errors.Is(err, ErrProof) {
		t.Errorf("other prologue hash: %v", err)
	}
	short, err := tree.Prove(Request{Upgrade: &UpgradeRequest{Start: 0, Length: 5}}, nil, nodes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Tree{}).Verify(short, good, mapNodes{}); !errors.Is(err, ErrProof) {
		t.Errorf("upgrade that ends inside the prologue: %v", err)
	}
}

func ExampleTree_Verify() {
	// A writer's tree of three blocks.
	kept := mapNodes{}
	b := Tree{}.Batch()
	for _, block := range []string{"a", "b", "c"} {
		b.Append([]byte(block))
	}
	kept.keep(b)

	// It proves its tree and block 1 to a reader who has nothing.
	p, _ := b.Tree.Prove(Request{Block: &NodeRequest{Index: 1}, Upgrade: &UpgradeRequest{Length: 3}}, nil, kept)
	p.Block.Value = []byte("b")

	got, err := Tree{}.Verify(p, nil, mapNodes{})
	fmt.Println(err, got.Tree.Length, got.Tree.Hash() == b.Tree.Hash())
	// Output: <nil> 3 true
}

func BenchmarkAppend(b *testing.B) {
	block := make([]byte, 100)
	var tree Tree
	b.ReportAllocs()
	for range b.N {
		batch := tree.Batch()
		batch.Append(block)
		tree = batch.Tree
	}
}

func BenchmarkLeafHash(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			block := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for range b.N {
				LeafHash(block)
			}
		})
	}
}
