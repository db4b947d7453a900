package merkle

import (
	"errors"
	"fmt"
)

// A Request says what a proof shall prove. Block and Hash exclude each other.
type Request struct {
	Block   *NodeRequest
	Hash    *NodeRequest
	Seek    *SeekRequest
	Upgrade *UpgradeRequest
}

// Within reports whether all that is asked for surely lies in the first blocks of a
// tree, length of them: their tree answers it as well as a longer one does.
func (r Request) Within(length uint64) bool {
	b, h, u := r.Block, r.Hash, r.Upgrade
	return (b != nil || h != nil || u != nil) && r.Seek == nil &&
		(b == nil || b.Index < length) &&
		(h == nil || h.Index <= 2*MaxSize && RightSpan(h.Index) < 2*length) &&
		(u == nil || u.Length <= length && u.Start <= length-u.Length)
}

// A NodeRequest asks for block Index (in Request.Block) or tree node Index (in
// Request.Hash), with the siblings of Nodes levels above it.
type NodeRequest struct {
	Index, Nodes uint64
}

// A SeekRequest asks for the nodes that lead to byte Bytes, where Padding bytes
// of every block do not count.
type SeekRequest struct {
	Bytes, Padding uint64
}

// An UpgradeRequest asks for the nodes that lead from a tree of Start blocks to
// one of Start+Length.
type UpgradeRequest struct {
	Start, Length uint64
}

// A Proof is what a peer sends so that another can check blocks, nodes and
// longer trees against what it knows. It is as untrusted as its sender.
type Proof struct {
	Fork    uint64
	Block   *BlockProof
	Hash    *HashProof
	Seek    *SeekProof
	Upgrade *UpgradeProof
}

// A BlockProof proves a block: the siblings on the way up from it.
type BlockProof struct {
	Index uint64
	Value []byte
	Nodes []Node

	hash   Hash // of Value
	hashed bool
}

// HashNow hashes the blocks of proofs, which is most of what Verify does, in the
// caller's goroutine: all of them at once. The blocks must not be changed
// afterwards.
func HashNow(proofs ...*BlockProof) {
	blocks := make([][]byte, len(proofs))
	for i, p := range proofs {
		blocks[i] = p.Value
	}
	for i, hash := range LeafHashes(blocks) {
		proofs[i].hash, proofs[i].hashed = hash, true
	}
}

// leaf returns the block's node.
func (p *BlockProof) leaf() Node {
	if p.hashed {
		return Node{Index: 2 * p.Index, Size: uint64(len(p.Value)), Hash: p.hash}
	}
	return Leaf(p.Index, p.Value)
}

// A HashProof proves a tree node: itself, then the siblings on the way up.
type HashProof struct {
	Index uint64
	Nodes []Node
}

// A SeekProof proves where a byte lies: a node, then the siblings above it.
type SeekProof struct {
	Bytes uint64
	Nodes []Node
}

// An UpgradeProof proves a longer tree. Its signature covers the sender's whole
// tree, which Additional reaches from Start+Length.
type UpgradeProof struct {
	Start, Length     uint64
	Nodes, Additional []Node
	Signature         []byte
}

// TreeLength returns the length of the tree that the proof's signature covers.
func (u *UpgradeProof) TreeLength() uint64 {
	if len(u.Additional) > 0 {
		return RightSpan(u.Additional[len(u.Additional)-1].Index)/2 + 1
	}
	return u.Start + u.Length
}

// maxDepth bounds every walk up a tree: no node of a tree of MaxSize blocks
// lies higher.
const maxDepth = 53

func isNoNode(err error) bool { return errors.Is(err, ErrNoNode) }

// A prover collects the nodes of one proof (hypercore lib/merkle-tree.js,
// generateProof and the functions under it).
type prover struct {
	tree  Tree
	nodes Nodes
	req   Request

	first uint64 // the requested node, when indexed
	last  uint64 // the last block under it
	leaf  bool   // it is a block, whose own hash the verifier makes itself

	indexed, seeking    bool // the request has a block or hash; a seek
	proved, sought      bool // their nodes have been placed
	node, seek          []Node
	upgrade, additional []Node
}

// Prove makes the proof that a request asks for from the tree and its nodes.
// The block's value and the signature of an upgrade are left for the caller to
// fill in. A log with a prologue passes it: an upgrade that starts inside must
// span it. A request that the tree cannot answer is an error that wraps
// ErrRequest or ErrNoNode.
func (t Tree) Prove(req Request, prologue *Prologue, nodes Nodes) (*Proof, error) {
	p := prover{tree: t, nodes: nodes, req: req}
	if u := req.Upgrade; prologue != nil && u != nil && u.Start < prologue.Length {
		p.req.Upgrade = &UpgradeRequest{Length: prologue.Length}
	}
	out, err := p.run()
	if err != nil {
		return nil, fmt.Errorf("prove in %d blocks: %w", t.Length, err)
	}
	return out, nil
}

func (p *prover) run() (*Proof, error) {
	out := &Proof{Fork: p.tree.Fork}
	head := 2 * p.tree.Length
	if head == 0 {
		return out, nil
	}
	from, to := uint64(0), head
	if u := p.req.Upgrade; u != nil {
		if u.Length == 0 || u.Length > p.tree.Length || u.Start > p.tree.Length-u.Length {
			return nil, fmt.Errorf("upgrade from %d by %d: %w", u.Start, u.Length, ErrRequest)
		}
		from, to = 2*u.Start, 2*(u.Start+u.Length)
	}
	levels := uint64(0)
	switch {
	case p.req.Block != nil && p.req.Hash != nil:
		return nil, fmt.Errorf("block and hash at once: %w", ErrRequest)
	case p.req.Block != nil:
		if p.req.Block.Index >= p.tree.Length {
			return nil, fmt.Errorf("block %d: %w", p.req.Block.Index, ErrRequest)
		}
		p.indexed, p.leaf = true, true
		p.first, p.last, levels = 2*p.req.Block.Index, p.req.Block.Index, p.req.Block.Nodes
	case p.req.Hash != nil:
		if p.req.Hash.Index > 2*MaxSize || RightSpan(p.req.Hash.Index) >= head {
			return nil, fmt.Errorf("node %d: %w", p.req.Hash.Index, ErrRequest)
		}
		p.indexed = true
		p.first, p.last, levels = p.req.Hash.Index, RightSpan(p.req.Hash.Index)/2, p.req.Hash.Nodes
	}
	p.seeking = p.req.Seek != nil
	if p.seeking && p.req.Upgrade != nil && p.indexed && p.first >= from {
		return nil, fmt.Errorf("seek and node inside an upgrade: %w", ErrRequest)
	}

	subTree := head
	switch {
	case p.indexed && (p.req.Upgrade == nil || p.last < p.req.Upgrade.Start):
		// Proven against a node that the verifier has.
		root, err := up(p.first, levels, to)
		if err != nil {
			return nil, err
		}
		target := head
		if p.seeking {
			if target, err = p.seekUnder(root); err != nil {
				return nil, err
			}
		}
		subTree = root
		if err := p.placeNode(target, root); err != nil {
			return nil, err
		}
	case p.req.Upgrade != nil && p.seeking:
		var err error
		if subTree, err = p.seekFromRoots(to); err != nil {
			return nil, err
		}
	case p.req.Upgrade != nil && p.indexed:
		subTree = p.first
	}
	if p.req.Upgrade != nil {
		var err error
		if p.upgrade, err = p.connect(from, to, subTree, true); err != nil {
			return nil, err
		}
		if head > to {
			if p.additional, err = p.connect(to, head, head, false); err != nil {
				return nil, err
			}
		}
	}

	if p.indexed && !p.proved {
		return nil, fmt.Errorf("node %d is in no part of the proof: %w", p.first, ErrRequest)
	}
	switch {
	case p.req.Block != nil:
		out.Block = &BlockProof{Index: p.req.Block.Index, Nodes: p.node}
	case p.req.Hash != nil:
		out.Hash = &HashProof{Index: p.req.Hash.Index, Nodes: p.node}
	}
	if p.seeking && p.sought {
		out.Seek = &SeekProof{Bytes: p.req.Seek.Bytes, Nodes: p.seek}
	}
	if u := p.req.Upgrade; u != nil {
		out.Upgrade = &UpgradeProof{Start: u.Start, Length: u.Length, Nodes: p.upgrade, Additional: p.additional}
	}
	return out, nil
}

// up climbs levels nodes from index, never above the tree that ends at head.
func up(index, levels, head uint64) (uint64, error) {
	for i := uint64(0); i < levels; i++ {
		index = Parent(index)
		if Contains(index, head) {
			return 0, fmt.Errorf("%d levels up is out of bounds: %w", levels, ErrRequest)
		}
	}
	return index, nil
}

// placeNode puts the requested node's siblings up to root in p.node, and those
// of the seek, when it branches off on the way, in p.seek. Without a requested
// node the seek alone is placed.
func (p *prover) placeNode(target, root uint64) error {
	if !p.indexed {
		return p.placeSeek(target, root)
	}
	p.proved = true
	if !p.leaf {
		if err := p.add(&p.node, p.first); err != nil {
			return err
		}
	}
	for at := p.first; at != root; at = Parent(at) {
		sibling := Sibling(at)
		var err error
		if p.seeking && sibling != target && Contains(sibling, target) {
			err = p.placeSeek(target, sibling)
		} else {
			err = p.add(&p.node, sibling)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *prover) placeSeek(target, root uint64) error {
	p.sought = true
	p.seek = nil
	if err := p.add(&p.seek, target); err != nil {
		return err
	}
	for at := target; at != root; at = Parent(at) {
		if err := p.add(&p.seek, Sibling(at)); err != nil {
			return err
		}
	}
	return nil
}

// connect returns the nodes that grow a tree ending at node from to one ending
// at to. When share is set, the part that holds subTree is replaced by the
// proof of what was requested in it.
func (p *prover) connect(from, to, subTree uint64, share bool) ([]Node, error) {
	var out []Node
	place := func(index uint64) error {
		if share && !p.proved && !p.sought && Contains(index, subTree) {
			return p.placeNode(subTree, index)
		}
		return p.add(&out, index)
	}
	connected := from == 0
	var buf [64]uint64
	for _, root := range AppendRoots(buf[:0], to/2) {
		if RightSpan(root)+1 < from {
			continue // the verifier has it
		}
		if !connected && Contains(root, from-2) {
			// The old tree ends inside this root: the right siblings on the way up.
			for at := from - 2; at != root; at = Parent(at) {
				if sibling := Sibling(at); sibling > from-2 {
					if err := place(sibling); err != nil {
						return nil, err
					}
				}
			}
			connected = true
			continue
		}
		connected = true
		if err := place(root); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p *prover) add(dst *[]Node, index uint64) error {
	n, err := p.nodes.Node(index)
	if err != nil {
		return err
	}
	*dst = append(*dst, n)
	return nil
}

// seekUnder finds the deepest node held that has the wanted byte, under a root
// that the requester chose.
func (p *prover) seekUnder(root uint64) (uint64, error) {
	pos, padding := p.req.Seek.Bytes, p.req.Seek.Padding
	offset, err := p.tree.ByteOffset(root, p.nodes)
	if err != nil {
		return 0, err
	}
	if pad := padding * (LeftSpan(root) / 2); pad <= offset {
		offset -= pad
	} else {
		return 0, fmt.Errorf("seek padding %d: %w", padding, ErrRequest)
	}
	if offset == pos {
		return root, nil
	}
	n, err := p.nodes.Node(root)
	if err != nil {
		return 0, err
	}
	size, err := unpadded(n, padding)
	if err != nil || offset > pos || pos-offset >= size {
		return 0, fmt.Errorf("seek to %d under node %d: %w", pos, root, ErrRequest)
	}
	return p.seekDown(root, pos-offset)
}

// seekFromRoots finds the deepest node held that has the wanted byte, in a
// tree that ends at head; head itself when the byte lies beyond.
func (p *prover) seekFromRoots(head uint64) (uint64, error) {
	pos := p.req.Seek.Bytes
	var buf [64]uint64
	for _, root := range AppendRoots(buf[:0], head/2) {
		n, err := p.nodes.Node(root)
		if err != nil {
			return 0, err
		}
		size, err := unpadded(n, p.req.Seek.Padding)
		if err != nil {
			return 0, fmt.Errorf("seek padding: %w", ErrRequest)
		}
		if pos == size {
			return root, nil
		}
		if pos > size {
			pos -= size
			continue
		}
		return p.seekDown(root, pos)
	}
	return head, nil
}

func (p *prover) seekDown(at, pos uint64) (uint64, error) {
	if pos == 0 {
		return at, nil
	}
	for {
		left, right, ok := Children(at)
		if !ok {
			return at, nil
		}
		n, err := p.nodes.Node(left)
		if isNoNode(err) {
			return at, nil
		}
		if err != nil {
			return 0, err
		}
		size, err := unpadded(n, p.req.Seek.Padding)
		if err != nil {
			return 0, fmt.Errorf("seek padding: %w", ErrRequest)
		}
		switch {
		case size == pos:
			return left, nil
		case size > pos:
			at = left
		default:
			pos -= size
			at = right
		}
	}
}
