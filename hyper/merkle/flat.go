package merkle

import "math/bits"

// The functions below number the nodes of a binary tree in order ("flat tree",
// npm flat-tree): block i is node 2i, and the node above nodes a and b lies
// halfway between them.
//
//	depth 2:        3
//	depth 1:    1       5
//	depth 0:  0   2   4   6
//
// They are defined for indices below 2^63.

// Depth returns how many levels above the blocks the node is: 0 for a block.
func Depth(index uint64) int { return bits.TrailingZeros64(^index) }

// Offset returns the node's place among the nodes of its depth.
func Offset(index uint64) uint64 { return index >> (Depth(index) + 1) }

// Index returns the node at a depth and an offset.
func Index(depth int, offset uint64) uint64 { return offset<<(depth+1) | (1<<depth - 1) }

// Parent returns the node above.
func Parent(index uint64) uint64 {
	d := Depth(index)
	return Index(d+1, index>>(d+2))
}

// Sibling returns the other child of the node's parent.
func Sibling(index uint64) uint64 { return index ^ (1 << (Depth(index) + 1)) }

// Children returns the two nodes below. A block has none: ok is false.
func Children(index uint64) (left, right uint64, ok bool) {
	d := Depth(index)
	if d == 0 {
		return 0, 0, false
	}
	half := uint64(1) << (d - 1)
	return index - half, index + half, true
}

// LeftSpan returns the node of the first block under the node.
func LeftSpan(index uint64) uint64 { return index + 1 - 1<<Depth(index) }

// RightSpan returns the node of the last block under the node.
func RightSpan(index uint64) uint64 { return index - 1 + 1<<Depth(index) }

// Leaves returns how many blocks are under the node.
func Leaves(index uint64) uint64 { return 1 << Depth(index) }

// Contains reports whether other lies in the tree under index.
func Contains(index, other uint64) bool {
	return LeftSpan(index) <= other && other <= RightSpan(index)
}

// AppendRoots appends the root nodes of a tree of length blocks to dst, left to
// right: one full tree for each bit of length.
func AppendRoots(dst []uint64, length uint64) []uint64 {
	var first uint64 // blocks to the left
	for length != 0 {
		d := bits.Len64(length) - 1
		dst = append(dst, Index(d, first>>d))
		first += 1 << d
		length -= 1 << d
	}
	return dst
}
