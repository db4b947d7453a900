package merkle

import (
	"fmt"
	"math/bits"
)

// A Reorg finds how much of a tree is shared with one of a higher fork, whose
// roots are proven by Start, by asking for the nodes where they differ
// (hypercore lib/merkle-tree.js, ReorgBatch).
//
//	r, err := StartReorg(tree, proof, prologue, nodes) // then check r.Batch's signature
//	for !r.Done() {
//		// ask a peer for hash r.Want.Node with r.Want.Levels, get proof
//		ok, err := r.Update(proof, nodes)
//	}
//	// r.Batch.Ancestors blocks are kept
type Reorg struct {
	// Batch is the change; its tree and signature are complete from the start,
	// its Nodes and Ancestors when Done.
	Batch *Batch

	diff Node
	want Want
	done bool
}

// Want is what Update needs next: blocks Start to End are those still in
// question, and a proof of a node or block among them with Levels levels
// narrows them down.
type Want struct {
	Start, End uint64
	Levels     uint64
}

// StartReorg verifies a proof of the other fork's tree, which must start at 0.
func StartReorg(t Tree, p *Proof, prologue *Prologue, nodes Nodes) (*Reorg, error) {
	if p.Upgrade == nil {
		return nil, fmt.Errorf("reorg without an upgrade: %w", ErrProof)
	}
	b := &Batch{Base: t}
	unverified, err := b.verifyNodes(p)
	if err != nil {
		return nil, fmt.Errorf("reorg: %w", err)
	}
	used, err := b.verifyUpgrade(p, unverified, prologue)
	if err != nil {
		return nil, fmt.Errorf("reorg: %w", err)
	}
	if unverified != nil && !used {
		return nil, fmt.Errorf("reorg: node %d is not in the tree: %w", unverified.Index, ErrProof)
	}
	if err := b.keepSizes(nodes); err != nil {
		return nil, err
	}
	b.Upgraded = true
	r := &Reorg{Batch: b}
	for _, root := range b.Tree.Roots {
		kept, err := nodes.Node(root.Index)
		if err != nil && !isNoNode(err) {
			return nil, err
		}
		if err == nil && kept.Hash == root.Hash {
			continue
		}
		r.narrow(root)
		if r.done {
			return r, nil
		}
		return r, r.descend(b.Nodes, nodes)
	}
	b.Ancestors = min(b.Tree.Length, t.Length)
	r.done = true
	return r, nil
}

// Done reports whether the common blocks are known.
func (r *Reorg) Done() bool { return r.done }

// Want returns what to ask for while not Done.
func (r *Reorg) Want() Want { return r.want }

// Update takes the proof of a hash or block. It reports whether the proof was
// of use; one that is not under the node in question is not.
func (r *Reorg) Update(p *Proof, nodes Nodes) (bool, error) {
	if r.done {
		return true, nil
	}
	b := &Batch{}
	root, err := b.verifyNodes(p)
	if err != nil {
		return false, fmt.Errorf("reorg: %w", err)
	}
	if root == nil || root.Index != r.diff.Index || root.Hash != r.diff.Hash || len(b.Nodes) == 1 {
		return false, nil // a node alone tells nothing new, nor is its size proven
	}
	if err := b.keepSizes(nodes); err != nil {
		return false, err
	}
	r.Batch.Nodes = append(r.Batch.Nodes, b.Nodes...)
	return true, r.descend(b.Nodes, nodes)
}

// descend follows the given nodes down to the first that differs.
func (r *Reorg) descend(given []Node, nodes Nodes) error {
	byIndex := make(map[uint64]Node, len(given))
	for _, n := range given {
		byIndex[n.Index] = n
	}
	at := r.diff
	for {
		left, right, ok := Children(at.Index)
		if !ok {
			break
		}
		l, ok := byIndex[left]
		if !ok {
			break
		}
		kept, err := nodes.Node(left)
		if err != nil && !isNoNode(err) {
			return err
		}
		if err != nil || kept.Hash != l.Hash {
			at = l
			continue
		}
		rt, ok := byIndex[right]
		if !ok {
			break
		}
		at = rt
	}
	if at.Index != r.diff.Index {
		r.narrow(at)
	}
	return nil
}

// narrow takes n as the leftmost node known to differ.
func (r *Reorg) narrow(n Node) {
	start := LeftSpan(n.Index) / 2
	end := min(r.Batch.Base.Length, RightSpan(n.Index)/2+1)
	r.diff = n
	r.Batch.Ancestors = min(start, r.Batch.Base.Length)
	if n.Index&1 == 0 || start >= end {
		r.done = true
		return
	}
	r.want = Want{Start: start, End: end, Levels: uint64(bits.TrailingZeros64(Leaves(n.Index)))}
}
