package merkle

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzVerify asks a tree of 23 blocks for a proof, changes it as the input says
// and gives it to a reader with a shorter tree and some nodes. What is accepted
// has the writer's blocks and hashes, and sizes that add up.
func FuzzVerify(f *testing.F) {
	tree, nodes, blocks := randomTree(rand.New(rand.NewPCG(7, 3)), 23)
	writers := signed{}
	for i := range uint64(24) {
		at, err := tree.At(i, nodes)
		if err != nil {
			f.Fatal(err)
		}
		writers[at.Hash()] = true
	}
	for kind := range byte(8) {
		f.Add(byte(0), byte(23), kind, byte(5), []byte{})
		f.Add(byte(13), byte(4), kind, byte(3), []byte{0, 3, 1, 7, 0, 1})
		f.Add(byte(23), byte(0), kind, byte(20), []byte{1, 0, 2, 9, 3, 3})
	}
	f.Fuzz(func(t *testing.T, start, grow, kind, index byte, edits []byte) {
		base, err := tree.At(uint64(start%24), nodes)
		if err != nil {
			t.Fatal(err)
		}
		held := mapNodes{}
		for _, n := range base.Roots {
			held[n.Index] = n
		}
		var req Request
		if kind&4 != 0 {
			req.Upgrade = &UpgradeRequest{Start: base.Length, Length: uint64(grow)}
		}
		missing, err := base.MissingNodes(2*uint64(index), held)
		if err != nil {
			t.Fatal(err)
		}
		switch kind & 3 {
		case 1:
			req.Block = &NodeRequest{Index: uint64(index), Nodes: missing}
		case 2:
			req.Hash = &NodeRequest{Index: 2 * uint64(index), Nodes: missing}
		case 3:
			req.Seek = &SeekRequest{Bytes: uint64(index)}
			req.Hash = &NodeRequest{Nodes: missing}
		}
		p, err := tree.Prove(req, nil, nodes)
		if err != nil {
			return
		}
		if p.Block != nil {
			p.Block.Value = bytes.Clone(blocks[p.Block.Index])
		}
		edit(p, edits)
		b, err := base.Verify(p, nil, held)
		if err != nil {
			return
		}
		if b.Upgraded && !writers[b.Tree.Hash()] {
			return // not signed
		}
		if p.Block != nil && (p.Block.Index >= 23 || !bytes.Equal(p.Block.Value, blocks[p.Block.Index])) {
			t.Errorf("accepted a wrong block %d: %s", p.Block.Index, describe(p))
		}
		held.keep(b)
		for i, n := range held {
			if n.Hash != nodes[i].Hash {
				t.Errorf("accepted a wrong node %d: %s", i, describe(p))
			}
			if left, right, ok := Children(i); ok {
				l, okL := held[left]
				r, okR := held[right]
				if okL && okR && ParentNode(l, r) != n {
					t.Errorf("nodes %d and %d do not make up node %d", left, right, i)
				}
			}
		}
		for _, root := range b.Tree.Roots {
			if held[root.Index] != root || root != nodes[root.Index] {
				t.Errorf("root %d is not the writer's", root.Index)
			}
		}
	})
}

// edit changes a proof: one thing for each two bytes.
func edit(p *Proof, edits []byte) {
	var lists []*[]Node
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
	for op := range slices.Chunk(edits, 2) {
		if len(op) < 2 || len(lists) == 0 {
			return
		}
		what, arg := op[0], int(op[1])
		list := lists[arg%len(lists)]
		arg /= len(lists)
		*list = slices.Clone(*list)
		if len(*list) == 0 {
			*list = append(*list, Node{Index: uint64(arg)})
			continue
		}
		n := &(*list)[arg%len(*list)]
		switch what % 9 {
		case 0:
			n.Size += uint64(arg)
		case 1:
			n.Hash[arg%HashSize] ^= 1
		case 2:
			n.Index = uint64(arg)
		case 3:
			*list = (*list)[:arg%len(*list)]
		case 4:
			*list = append(*list, *n)
		case 5: // sizes of the same sum
			if len(*list) > 1 {
				(*list)[0].Size, (*list)[1].Size = (*list)[1].Size, (*list)[0].Size
			}
		case 6:
			switch {
			case p.Block != nil:
				p.Block.Index = uint64(arg)
			case p.Hash != nil:
				p.Hash.Index = uint64(arg)
			}
		case 7:
			if p.Upgrade != nil {
				p.Upgrade.Start, p.Upgrade.Length = uint64(arg%24), uint64(what)
			}
		case 8:
			if p.Block != nil {
				p.Block.Value = append(p.Block.Value, what)
			}
		}
	}
}
