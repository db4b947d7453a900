// Package merkle is the Merkle tree under a log, as pure values: numbering,
// hashing, growing, truncating, proving and verifying. It does no I/O: nodes
// that are kept somewhere come in through the Nodes interface.
//
// The tree and its proofs are those of the npm package hypercore 11
// (lib/merkle-tree.js), to the byte. Signatures are not checked here: a batch
// that Verify returns with Upgraded set must not be trusted before its
// signature over SignedHash has been checked by the caller.
//
//	b := tree.Batch()
//	b.Append([]byte("hello"))
//	hash := b.Tree.Hash() // what the writer signs
package merkle

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/blake2b"

	"github.com/cloudbevy/bevy/hyper/internal/lanes"
)

// HashSize is the size of every hash in the tree: BLAKE2b with 32 bytes.
const HashSize = 32

// MaxSize is the largest byte count or length the tree takes, 2^53-1: the
// JavaScript peers count in float64.
const MaxSize = 1<<53 - 1

// A Hash is a BLAKE2b-256 hash.
type Hash [HashSize]byte

// A Node is one node of the tree.
type Node struct {
	Index uint64 // flat-tree number
	Size  uint64 // bytes of all blocks under the node
	Hash  Hash
}

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNoNode: a node that is needed is not held here.
	ErrNoNode = errors.New("tree node not held")
	// ErrRequest: a proof was asked for that no tree of this length has.
	ErrRequest = errors.New("invalid proof request")
	// ErrProof: a proof is malformed or proves something else.
	ErrProof = errors.New("invalid proof")
)

// Nodes reads kept nodes of one tree.
type Nodes interface {
	// Node returns the node with that index, or an error that wraps ErrNoNode
	// when it is not held.
	Node(index uint64) (Node, error)
}

// directHash is the block size from which copying the block next to its prefix
// costs more than the two allocations of a streaming hash.
const directHash = 4 << 10

var scratch = sync.Pool{New: func() any {
	b := make([]byte, 0, 9+directHash)
	return &b
}}

// LeafHash hashes a block: BLAKE2b(00 || uint64(len) || block).
func LeafHash(block []byte) (h Hash) {
	var prefix [9]byte
	binary.LittleEndian.PutUint64(prefix[1:], uint64(len(block)))
	if len(block) > directHash {
		d, err := blake2b.New256(nil)
		if err != nil {
			panic("merkle: " + err.Error()) // no key, so it can't fail
		}
		d.Write(prefix[:])
		d.Write(block)
		d.Sum(h[:0])
		return h
	}
	p := scratch.Get().(*[]byte)
	b := append(append((*p)[:0], prefix[:]...), block...)
	h = blake2b.Sum256(b)
	*p = b
	scratch.Put(p)
	return h
}

const (
	// sideBySide is the size from which hashing several blocks at once is faster.
	sideBySide = 1 << 10
	// parallelHash is the size from which several goroutines do it.
	parallelHash = 256 << 10
)

// LeafHashes hashes blocks as LeafHash does: several at once, and many large ones
// on all processors.
func LeafHashes(blocks [][]byte) []Hash {
	out := make([]Hash, len(blocks))
	size := 0
	for _, b := range blocks {
		size += len(b)
	}
	if len(blocks) == 1 || size < sideBySide {
		for i, b := range blocks {
			out[i] = LeafHash(b)
		}
		return out
	}
	var next atomic.Int64
	work := func() {
		var prefix [9]byte
		lanes.Sum(func() (m lanes.Message, ok bool) {
			i := int(next.Add(1)) - 1
			if i >= len(blocks) {
				return m, false
			}
			binary.LittleEndian.PutUint64(prefix[1:], uint64(len(blocks[i])))
			return lanes.Message{Prefix: prefix[:], Data: blocks[i], Hash: (*[HashSize]byte)(&out[i])}, true
		})
	}
	if size < parallelHash {
		work()
		return out
	}
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(blocks)+lanes.Count-1)/lanes.Count) - 1 {
		all.Go(work)
	}
	work()
	all.Wait()
	return out
}

// Leaf returns the node of block number i.
func Leaf(i uint64, block []byte) Node {
	return Node{Index: 2 * i, Size: uint64(len(block)), Hash: LeafHash(block)}
}

// ParentNode returns the node above a left and a right child:
// BLAKE2b(01 || uint64(size) || left || right).
func ParentNode(left, right Node) Node {
	if left.Index > right.Index {
		left, right = right, left
	}
	n := Node{Index: Parent(left.Index), Size: left.Size + right.Size}
	var b [1 + 8 + 2*HashSize]byte
	b[0] = 1
	binary.LittleEndian.PutUint64(b[1:], n.Size)
	copy(b[9:], left.Hash[:])
	copy(b[9+HashSize:], right.Hash[:])
	n.Hash = blake2b.Sum256(b[:])
	return n
}

// HashRoots hashes the roots of a tree, left to right: BLAKE2b(02 || for each
// root: hash || uint64(index) || uint64(size)). It is what a writer signs.
func HashRoots(roots []Node) Hash {
	var buf [1 + 24*(HashSize+16)]byte // enough for most, without an allocation
	b := append(buf[:0], 2)
	for i := range roots {
		b = append(b, roots[i].Hash[:]...)
		b = binary.LittleEndian.AppendUint64(b, roots[i].Index)
		b = binary.LittleEndian.AppendUint64(b, roots[i].Size)
	}
	return blake2b.Sum256(b)
}
