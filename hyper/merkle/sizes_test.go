package merkle

import (
	"errors"
	"maps"
	"math/rand/v2"
	"testing"
)

// A hash commits to the sum of two sizes, and a node alone to nothing: what a peer says of nodes that are held does not
// replace their sizes.
func TestSizesOfHeldNodesStay(t *testing.T) {
	tree, nodes, _ := randomTree(rand.New(rand.NewPCG(1, 9)), 11)
	for _, c := range []struct {
		index, levels uint64
		missing       []uint64 // nodes that are not held
	}{
		{7, 0, nil}, {5, 0, nil}, {4, 3, nil}, {4, 3, []uint64{4}}, {4, 3, []uint64{6}}, {9, 1, nil}, {9, 1, []uint64{13}},
	} {
		p, err := tree.Prove(Request{Hash: &NodeRequest{Index: c.index, Nodes: c.levels}}, nil, nodes)
		if err != nil {
			t.Fatal(err)
		}
		p.Hash.Nodes[0].Size++
		if c.levels > 0 { // all of their sum for the first
			p.Hash.Nodes[0].Size += p.Hash.Nodes[1].Size - 1
			p.Hash.Nodes[1].Size = 0
		}
		held := maps.Clone(nodes)
		for _, i := range c.missing {
			delete(held, i)
		}
		b, err := tree.Verify(p, nil, held)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		for _, n := range b.Nodes {
			if n != nodes[n.Index] {
				t.Errorf("%+v: node %d is given size %d, its is %d", c, n.Index, n.Size, nodes[n.Index].Size)
			}
		}
	}
}

// A proof that leads to no tree at all is none.
func TestUpgradeToNothingIsRefused(t *testing.T) {
	for _, nodes := range [][]Node{nil, {Leaf(0, []byte("a"))}} {
		if _, err := (Tree{}).Verify(&Proof{Upgrade: &UpgradeProof{Nodes: nodes}}, nil, mapNodes{}); !errors.Is(err, ErrProof) {
			t.Errorf("%d nodes: %v", len(nodes), err)
		}
	}
}

// The node in question, sent alone with another size, is of no use to a reorg and does not replace the signed one.
func TestReorgKeepsSignedSizes(t *testing.T) {
	tree, nodes, _ := randomTree(rand.New(rand.NewPCG(2, 9)), 16)
	other, theirs, _ := randomTree(rand.New(rand.NewPCG(3, 9)), 16)
	other.Fork = 1
	p, err := other.Prove(Request{Upgrade: &UpgradeRequest{Length: 16}}, nil, theirs)
	if err != nil {
		t.Fatal(err)
	}
	r, err := StartReorg(tree, p, nil, nodes)
	if err != nil {
		t.Fatal(err)
	}
	root := theirs[15]
	root.Size++
	if ok, err := r.Update(&Proof{Fork: 1, Hash: &HashProof{Index: 15, Nodes: []Node{root}}}, nodes); ok || err != nil {
		t.Errorf("update: %v, %v", ok, err)
	}
	for _, n := range r.Batch.Nodes {
		if n != theirs[n.Index] {
			t.Errorf("node %d with size %d is kept, %d is signed", n.Index, n.Size, theirs[n.Index].Size)
		}
	}
}
