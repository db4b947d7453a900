package merkle

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// hexBytes is a byte string that JSON files carry as hex.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	*h, err = hex.DecodeString(s)
	return err
}

func (h *Hash) UnmarshalJSON(b []byte) error {
	var raw hexBytes
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if copy(h[:], raw) != HashSize {
		return fmt.Errorf("hash of %d bytes", len(raw))
	}
	return nil
}

type mapNodes map[uint64]Node

func (m mapNodes) Node(index uint64) (Node, error) {
	n, ok := m[index]
	if !ok {
		return Node{}, fmt.Errorf("node %d: %w", index, ErrNoNode)
	}
	return n, nil
}

func (m mapNodes) keep(b *Batch) {
	for _, n := range b.Nodes {
		m[n.Index] = n
	}
}

type treeFile struct {
	Blocks []hexBytes
	V1     struct {
		Lengths []struct {
			Length, ByteLength uint64
			Roots              []Node
			TreeHash           Hash
		}
		Nodes    []Node
		Truncate struct {
			Length, Fork uint64
			TreeHash     Hash
			Appended     struct {
				Blocks       []hexBytes
				Length, Fork uint64
				TreeHash     Hash
			}
		}
	}
	FlatTree []struct {
		Index, Offset, Parent, Sibling, CountLeaves uint64
		Depth                                       int
		Children                                    []uint64
		Spans                                       []uint64
	}
	FullRoots []struct {
		Length    uint64
		FullRoots []uint64
	}
}

func load(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatalf("load vectors: %v", err)
	}
}

func TestFlatTreeVectors(t *testing.T) {
	var f treeFile
	load(t, "tree.json", &f)
	for _, v := range f.FlatTree {
		var children []uint64
		if l, r, ok := Children(v.Index); ok {
			children = []uint64{l, r}
		}
		got := fmt.Sprint(Depth(v.Index), Offset(v.Index), Parent(v.Index), Sibling(v.Index), Leaves(v.Index), children, LeftSpan(v.Index), RightSpan(v.Index))
		want := fmt.Sprint(v.Depth, v.Offset, v.Parent, v.Sibling, v.CountLeaves, v.Children, v.Spans[0], v.Spans[1])
		if got != want {
			t.Errorf("node %d: got %s, want %s", v.Index, got, want)
		}
		if i := Index(v.Depth, v.Offset); i != v.Index {
			t.Errorf("Index(%d, %d) = %d, want %d", v.Depth, v.Offset, i, v.Index)
		}
	}
	for _, v := range f.FullRoots {
		got := AppendRoots([]uint64{}, v.Length)
		if !reflect.DeepEqual(got, v.FullRoots) {
			t.Errorf("roots of %d: got %v, want %v", v.Length, got, v.FullRoots)
		}
	}
}

func TestTreeVectors(t *testing.T) {
	var f treeFile
	load(t, "tree.json", &f)
	nodes := mapNodes{}
	var tree Tree
	for i, want := range f.V1.Lengths {
		if i > 0 {
			b := tree.Batch()
			b.Append(f.Blocks[i-1])
			nodes.keep(b)
			tree = b.Tree
		}
		if tree.Length != want.Length || tree.ByteLength() != want.ByteLength || tree.Hash() != want.TreeHash {
			t.Errorf("length %d: got %d blocks, %d bytes, hash %x", want.Length, tree.Length, tree.ByteLength(), tree.Hash())
		}
		if len(tree.Roots) != len(want.Roots) || len(want.Roots) > 0 && !reflect.DeepEqual(tree.Roots, want.Roots) {
			t.Errorf("length %d: roots %v, want %v", want.Length, tree.Roots, want.Roots)
		}
	}
	if len(nodes) != len(f.V1.Nodes) {
		t.Errorf("%d nodes, want %d", len(nodes), len(f.V1.Nodes))
	}
	for _, want := range f.V1.Nodes {
		if nodes[want.Index] != want {
			t.Errorf("node %d: got %v, want %v", want.Index, nodes[want.Index], want)
		}
	}
	for _, want := range f.V1.Lengths {
		at, err := tree.At(want.Length, nodes)
		if err != nil || at.Hash() != want.TreeHash {
			t.Errorf("At(%d): hash %x, %v", want.Length, at.Hash(), err)
		}
	}
	b := tree.Batch()
	want := f.V1.Truncate
	if err := b.Truncate(want.Length, want.Fork, nodes); err != nil || b.Tree.Hash() != want.TreeHash {
		t.Errorf("truncate: hash %x, %v", b.Tree.Hash(), err)
	}
	for _, block := range want.Appended.Blocks {
		b.Append(block)
	}
	if b.Tree.Hash() != want.Appended.TreeHash || b.Tree.Fork != want.Appended.Fork || b.Tree.Length != want.Appended.Length {
		t.Errorf("append after truncate: %+v", b.Tree)
	}
	if tree.Length != 40 || tree.Hash() != f.V1.Lengths[40].TreeHash {
		t.Error("the base tree changed under a batch")
	}
}

type proofCase struct {
	Name    string
	Request struct {
		Block, Hash *NodeRequest
		Seek        *SeekRequest
		Upgrade     *UpgradeRequest
	}
	Proof *struct {
		Fork  uint64
		Block *struct {
			Index uint64
			Value hexBytes
			Nodes []Node
		}
		Hash    *HashProof
		Seek    *SeekProof
		Upgrade *struct {
			Start, Length          uint64
			Nodes, AdditionalNodes []Node
			Signature              hexBytes
		}
	}
	Error string
}

// grown returns the tree of the first n blocks of the vectors, with its nodes.
func grown(t testing.TB, n uint64) (Tree, mapNodes, [][]byte) {
	var f treeFile
	load(t, "tree.json", &f)
	nodes := mapNodes{}
	var blocks [][]byte
	b := Tree{}.Batch()
	for _, block := range f.Blocks[:n] {
		b.Append(block)
		blocks = append(blocks, block)
	}
	nodes.keep(b)
	return b.Tree, nodes, blocks
}

func TestProofVectors(t *testing.T) {
	var f struct {
		Length uint64
		Cases  []proofCase
	}
	load(t, "proofs.json", &f)
	tree, nodes, blocks := grown(t, f.Length)
	for _, c := range f.Cases {
		req := Request{Block: c.Request.Block, Hash: c.Request.Hash, Seek: c.Request.Seek, Upgrade: c.Request.Upgrade}
		got, err := tree.Prove(req, nil, nodes)
		if strings.HasPrefix(c.Error, "undefined:") {
			// The vectors' generator tripped over its own flush here, before it had
			// an answer: seeks are compared with the running package in interop.
			continue
		}
		if c.Error != "" {
			if !errors.Is(err, ErrRequest) {
				t.Errorf("%s: error %v, want one of %q", c.Name, err, c.Error)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		want := &Proof{Fork: c.Proof.Fork, Hash: c.Proof.Hash, Seek: c.Proof.Seek}
		if p := c.Proof.Block; p != nil {
			want.Block = &BlockProof{Index: p.Index, Value: p.Value, Nodes: p.Nodes}
			got.Block.Value = blocks[p.Index]
		}
		if p := c.Proof.Upgrade; p != nil {
			want.Upgrade = &UpgradeProof{Start: p.Start, Length: p.Length, Nodes: p.Nodes, Additional: p.AdditionalNodes, Signature: p.Signature}
			got.Upgrade.Signature = p.Signature
		}
		if g, w := describe(got), describe(want); g != w {
			t.Errorf("%s:\n got %s\nwant %s", c.Name, g, w)
			continue
		}

		// The other way: a reader who has what the request says accepts it.
		start := tree.Length
		if req.Upgrade != nil {
			start = req.Upgrade.Start
		}
		base, err := tree.At(start, nodes)
		if err != nil {
			t.Fatal(err)
		}
		held := mapNodes{}
		for _, n := range base.Roots {
			held[n.Index] = n
		}
		// The node that the request's level count ends at.
		if r := req.Block; r != nil && r.Index < start {
			top, err := up(2*r.Index, r.Nodes, 2*start)
			if err != nil {
				t.Fatal(err)
			}
			held[top] = nodes[top]
		}
		if r := req.Hash; r != nil && RightSpan(r.Index)/2 < start {
			top, err := up(r.Index, r.Nodes, 2*start)
			if err != nil {
				t.Fatal(err)
			}
			held[top] = nodes[top]
		}
		b, err := base.Verify(want, nil, held)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if req.Upgrade != nil && b.Tree.Hash() != tree.Hash() {
			t.Errorf("%s: verified hash %x, want %x", c.Name, b.Tree.Hash(), tree.Hash())
		}
		for _, n := range b.Nodes {
			if nodes[n.Index] != n {
				t.Errorf("%s: verified node %d is %v, want %v", c.Name, n.Index, n, nodes[n.Index])
			}
		}
	}
}

func describe(p *Proof) string {
	s := fmt.Sprintf("fork %d", p.Fork)
	if p.Block != nil {
		s += fmt.Sprintf(" block %d %x %v", p.Block.Index, p.Block.Value, p.Block.Nodes)
	}
	if p.Hash != nil {
		s += fmt.Sprintf(" hash %d %v", p.Hash.Index, p.Hash.Nodes)
	}
	if p.Seek != nil {
		s += fmt.Sprintf(" seek %d %v", p.Seek.Bytes, p.Seek.Nodes)
	}
	if u := p.Upgrade; u != nil {
		s += fmt.Sprintf(" upgrade %d+%d %v %v %x", u.Start, u.Length, u.Nodes, u.Additional, u.Signature)
	}
	return s
}
