package merkle

import (
	"fmt"
	"slices"
)

// A Prologue is a prefix that a log's manifest pins by hash: a tree of Length
// blocks must hash to Hash, whoever signs it (hypercore lib/verifier.js).
type Prologue struct {
	Hash   Hash
	Length uint64
}

// A Tree is one state of a log's tree. Its zero value is the empty tree.
// Roots are never changed in place, so copies of a Tree may share them.
type Tree struct {
	Fork   uint64
	Length uint64 // blocks
	Roots  []Node // left to right, the roots of Length
}

// ByteLength returns the bytes of all blocks together.
func (t Tree) ByteLength() (n uint64) {
	for i := range t.Roots {
		n += t.Roots[i].Size
	}
	return n
}

// Hash returns the hash of the roots.
func (t Tree) Hash() Hash { return HashRoots(t.Roots) }

// Same reports whether two trees are over the same blocks. It does not look at
// the sizes of roots: a hash commits to what is under its node, and sizes from
// peers may be wrong (see Verify).
func (t Tree) Same(other Tree) bool {
	return t.Length == other.Length && slices.EqualFunc(t.Roots, other.Roots, func(a, b Node) bool {
		return a.Index == b.Index && a.Hash == b.Hash
	})
}

// At returns the tree of the first length blocks, with its roots read from
// nodes where t has none of them.
func (t Tree) At(length uint64, nodes Nodes) (Tree, error) {
	if length == t.Length {
		return t, nil
	}
	if length > t.Length {
		return Tree{}, fmt.Errorf("tree of %d blocks at %d: %w", t.Length, length, ErrRequest)
	}
	var buf [64]uint64
	indices := AppendRoots(buf[:0], length)
	out := Tree{Fork: t.Fork, Length: length, Roots: make([]Node, 0, len(indices))}
	for i, index := range indices {
		if i < len(t.Roots) && t.Roots[i].Index == index {
			out.Roots = append(out.Roots, t.Roots[i])
			continue
		}
		n, err := nodes.Node(index)
		if err != nil {
			return Tree{}, fmt.Errorf("tree at %d: %w", length, err)
		}
		out.Roots = append(out.Roots, n)
	}
	return out, nil
}

// A Batch is a change of a tree that is not kept yet: the tree after it, and
// the nodes that it adds. Make one with Tree.Batch, Tree.Verify or Reorg.
type Batch struct {
	// Tree is the tree after the change.
	Tree Tree
	// Nodes are the nodes to keep, in the order they were made.
	Nodes []Node
	// Base is the tree before the change.
	Base Tree
	// Ancestors is the number of leading blocks that Base and Tree share.
	Ancestors uint64
	// Upgraded is set when Tree differs from Base, and so needs a signature.
	Upgraded bool
	// Signature is the remote's, over Tree; nil when the change is local.
	Signature []byte

	loose []uint64 // nodes whose size nothing proves, nor that of the sibling
	given []uint64 // roots that an upgrade gave, and not their children
}

// Batch starts a change of the tree.
func (t Tree) Batch() *Batch {
	return &Batch{Tree: t, Base: t, Ancestors: t.Length}
}

// Grow makes room for the nodes of n more blocks.
func (b *Batch) Grow(n int) { b.Nodes = slices.Grow(b.Nodes, 2*n+8) }

// Append adds one block.
func (b *Batch) Append(block []byte) { b.AppendRoot(Leaf(b.Tree.Length, block)) }

// AppendRoot adds a whole subtree right of the last block, by its root.
func (b *Batch) AppendRoot(n Node) {
	if !b.Upgraded {
		// The base shares the roots: leave it its own.
		b.Tree.Roots = append(make([]Node, 0, len(b.Tree.Roots)+2), b.Tree.Roots...)
		b.Upgraded = true
	}
	b.Tree.Length += Leaves(n.Index)
	b.Nodes = append(b.Nodes, n)
	roots := b.Tree.Roots
	for len(roots) > 0 && roots[len(roots)-1].Index == Sibling(n.Index) {
		n = ParentNode(roots[len(roots)-1], n)
		roots = roots[:len(roots)-1]
		b.Nodes = append(b.Nodes, n)
	}
	b.Tree.Roots = append(roots, n)
}

// Truncate cuts the tree to length blocks and gives it a fork number. It must
// be the first change of the batch.
func (b *Batch) Truncate(length, fork uint64, nodes Nodes) error {
	t, err := b.Base.At(length, nodes)
	if err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	t.Fork = fork
	b.Tree = t
	b.Tree.Roots = slices.Clone(t.Roots)
	b.Ancestors = length
	b.Nodes = b.Nodes[:0]
	b.Upgraded = true
	return nil
}

// ByteOffset returns how many bytes lie left of the node.
func (t Tree) ByteOffset(index uint64, nodes Nodes) (uint64, error) {
	first := LeftSpan(index)
	if first == 2*t.Length {
		return t.ByteLength(), nil
	}
	var offset uint64
	for i := range t.Roots {
		root := &t.Roots[i]
		if first > RightSpan(root.Index) {
			offset += root.Size
			continue
		}
		at := root.Index
		for at != first {
			left, right, ok := Children(at)
			if !ok {
				break
			}
			if first <= RightSpan(left) {
				at = left
				continue
			}
			n, err := nodes.Node(left)
			if err != nil {
				return 0, fmt.Errorf("byte offset of node %d: %w", index, err)
			}
			offset += n.Size
			at = right
		}
		return offset, nil
	}
	return 0, fmt.Errorf("byte offset of node %d in %d blocks: %w", index, t.Length, ErrRequest)
}

// A Seek is the answer to "which block holds this byte?".
type Seek struct {
	// Found: the byte is byte Offset of block Block. A position at the very end
	// of the log is block Length, offset 0.
	Found         bool
	Block, Offset uint64
	// Start and End, when not Found, are the blocks it must be among, as far as
	// the nodes held here tell.
	Start, End uint64
}

// Seek finds the block that holds byte number pos, when padding bytes at the
// head of every block do not count (they are encryption's).
func (t Tree) Seek(pos, padding uint64, nodes Nodes) (Seek, error) {
	if pos == 0 {
		return Seek{Found: true}, nil
	}
	for i := range t.Roots {
		root := t.Roots[i].Index
		size, err := unpadded(t.Roots[i], padding)
		if err != nil {
			return Seek{}, err
		}
		if pos >= size {
			pos -= size
			if pos == 0 {
				return Seek{Found: true, Block: RightSpan(root)/2 + 1}, nil
			}
			continue
		}
		at := root
		for {
			left, right, ok := Children(at)
			if !ok {
				return Seek{Found: true, Block: at / 2, Offset: pos}, nil
			}
			n, err := nodes.Node(left)
			if isNoNode(err) {
				return Seek{Start: LeftSpan(at) / 2, End: RightSpan(at)/2 + 1}, nil
			}
			if err != nil {
				return Seek{}, err
			}
			size, err := unpadded(n, padding)
			if err != nil {
				return Seek{}, err
			}
			if pos < size {
				at = left
				continue
			}
			pos -= size
			if pos == 0 {
				return Seek{Found: true, Block: RightSpan(left)/2 + 1}, nil
			}
			at = right
		}
	}
	// Beyond the end: it can only be in blocks that are not known yet.
	return Seek{Start: t.Length, End: t.Length}, nil
}

// unpadded returns the node's bytes without the padding of its blocks.
func unpadded(n Node, padding uint64) (uint64, error) {
	pad := padding * Leaves(n.Index)
	if pad > n.Size {
		return 0, fmt.Errorf("node %d has %d bytes, less than its padding: %w", n.Index, n.Size, ErrProof)
	}
	return n.Size - pad, nil
}

// MissingNodes returns how many nodes a peer must send above index, itself
// included, until one that is held here (or above the tree's roots, 0 when
// index is outside the tree): the count that requests carry.
func (t Tree) MissingNodes(index uint64, nodes Nodes) (uint64, error) {
	head := 2 * t.Length
	if RightSpan(index) >= head {
		return 0, nil
	}
	var n uint64
	for at := index; !Contains(at, head); at = Parent(at) {
		_, err := nodes.Node(at)
		if err == nil {
			break
		}
		if !isNoNode(err) {
			return 0, err
		}
		n++
	}
	return n, nil
}
