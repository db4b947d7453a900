package merkle

import (
	"fmt"
	"slices"
)

// A queue hands out the nodes of a proof in the order the verifier needs them,
// with one node from elsewhere that may stand in for any of them.
type queue struct {
	nodes []Node
	extra *Node
}

// computed reports whether the next node, which has that index, was computed and
// so has a size that is proven when its hash is.
func (q *queue) computed(index uint64, b *Batch) bool {
	return q.extra != nil && q.extra.Index == index && !slices.Contains(b.loose, index)
}

func (q *queue) empty() bool { return len(q.nodes) == 0 && q.extra == nil }

func (q *queue) shift(index uint64) (Node, error) {
	if q.extra != nil && q.extra.Index == index {
		n := *q.extra
		q.extra = nil
		return n, nil
	}
	if len(q.nodes) == 0 {
		return Node{}, fmt.Errorf("node %d is missing: %w", index, ErrProof)
	}
	n := q.nodes[0]
	if n.Index != index {
		return Node{}, fmt.Errorf("node %d where %d belongs: %w", n.Index, index, ErrProof)
	}
	if n.Size > MaxSize {
		return Node{}, fmt.Errorf("node %d has size %d: %w", n.Index, n.Size, ErrProof)
	}
	q.nodes = q.nodes[1:]
	return n, nil
}

// climb joins the node with siblings from the queue until it is empty. A node
// that was not computed from a block or from others has the size that the peer
// says.
func (b *Batch) climb(n Node, q *queue, computed bool) (Node, error) {
	b.Nodes = append(b.Nodes, n)
	for first := true; !q.empty(); first = false {
		proven := computed || !first || q.computed(Sibling(n.Index), b)
		if Depth(n.Index) >= maxDepth {
			return Node{}, fmt.Errorf("too many nodes above: %w", ErrProof)
		}
		sibling, err := q.shift(Sibling(n.Index))
		if err != nil {
			return Node{}, err
		}
		b.loose = slices.DeleteFunc(b.loose, func(i uint64) bool { return i == sibling.Index })
		if !proven {
			b.loose = append(b.loose, n.Index)
		}
		n = ParentNode(n, sibling)
		if n.Size > MaxSize {
			return Node{}, fmt.Errorf("node %d has size %d: %w", n.Index, n.Size, ErrProof)
		}
		b.Nodes = append(b.Nodes, sibling, n)
		computed = true
	}
	if !computed {
		b.loose = append(b.loose, n.Index)
	}
	return n, nil
}

// verifyNodes computes the topmost node that the proof's seek, block or hash
// lead to. It is unverified: nothing says yet that it is in the tree. It is nil
// when there is nothing to verify.
func (b *Batch) verifyNodes(p *Proof) (*Node, error) {
	if p.Block != nil && p.Hash != nil {
		return nil, fmt.Errorf("block and hash at once: %w", ErrProof)
	}
	var sought *Node
	if p.Seek != nil && len(p.Seek.Nodes) > 0 {
		q := queue{nodes: p.Seek.Nodes}
		first := p.Seek.Nodes[0].Index
		if first > 2*MaxSize {
			return nil, fmt.Errorf("seek to node %d: %w", first, ErrProof)
		}
		n, err := q.shift(first)
		if err != nil {
			return nil, err
		}
		if n, err = b.climb(n, &q, false); err != nil {
			return nil, fmt.Errorf("seek: %w", err)
		}
		sought = &n
	}
	switch {
	case p.Block != nil:
		if p.Block.Index > MaxSize {
			return nil, fmt.Errorf("block %d: %w", p.Block.Index, ErrProof)
		}
		q := queue{nodes: p.Block.Nodes, extra: sought}
		n, err := b.climb(p.Block.leaf(), &q, true)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", p.Block.Index, err)
		}
		return &n, nil
	case p.Hash != nil:
		if p.Hash.Index > 2*MaxSize {
			return nil, fmt.Errorf("node %d: %w", p.Hash.Index, ErrProof)
		}
		q := queue{nodes: p.Hash.Nodes, extra: sought}
		computed := q.computed(p.Hash.Index, b)
		n, err := q.shift(p.Hash.Index)
		if err != nil {
			return nil, fmt.Errorf("hash: %w", err)
		}
		if n, err = b.climb(n, &q, computed); err != nil {
			return nil, fmt.Errorf("hash: %w", err)
		}
		return &n, nil
	}
	return sought, nil
}

// verifyUpgrade grows the batch's tree by the proof's upgrade. It reports
// whether the unverified node became part of it.
func (b *Batch) verifyUpgrade(p *Proof, unverified *Node, prologue *Prologue) (bool, error) {
	u := p.Upgrade
	if u.Start > MaxSize || u.Length > MaxSize-u.Start {
		return false, fmt.Errorf("upgrade from %d by %d: %w", u.Start, u.Length, ErrProof)
	}
	if prologue != nil && u.Start < prologue.Length && (u.Start != 0 || u.Length < prologue.Length) {
		return false, fmt.Errorf("upgrade does not span the prologue: %w", ErrProof)
	}
	q := queue{nodes: u.Nodes, extra: unverified}
	grow := len(b.Tree.Roots) > 0
	var buf [64]uint64
	for i, root := range AppendRoots(buf[:0], u.Start+u.Length) {
		if i < len(b.Tree.Roots) && b.Tree.Roots[i].Index == root {
			continue
		}
		if grow {
			grow = false
			if i < len(b.Tree.Roots) {
				for b.lastRoot() != root {
					if err := b.shiftRoot(&q, Sibling(b.lastRoot())); err != nil {
						return false, err
					}
				}
				continue
			}
		}
		if err := b.shiftRoot(&q, root); err != nil {
			return false, err
		}
	}
	if prologue != nil && b.Tree.Length == prologue.Length && b.Tree.Hash() != prologue.Hash {
		return false, fmt.Errorf("prologue: wrong tree hash: %w", ErrProof)
	}

	q2 := queue{nodes: u.Additional}
	if len(b.Tree.Roots) == 0 {
		return false, fmt.Errorf("upgrade to an empty tree: %w", ErrProof)
	}
	for len(q2.nodes) > 0 && q2.nodes[0].Index == Sibling(b.lastRoot()) {
		if err := b.shiftRoot(&q2, q2.nodes[0].Index); err != nil {
			return false, err
		}
	}
	for len(q2.nodes) > 0 {
		// The next root lies down the left edge of the tree right of the last.
		at := Sibling(b.lastRoot())
		for at != q2.nodes[0].Index {
			left, _, ok := Children(at)
			if !ok {
				return false, fmt.Errorf("unexpected node %d: %w", q2.nodes[0].Index, ErrProof)
			}
			at = left
		}
		if err := b.shiftRoot(&q2, at); err != nil {
			return false, err
		}
	}
	b.Tree.Fork = p.Fork
	b.Signature = u.Signature
	return q.extra == nil, nil
}

func (b *Batch) lastRoot() uint64 { return b.Tree.Roots[len(b.Tree.Roots)-1].Index }

func (b *Batch) shiftRoot(q *queue, index uint64) error {
	computed := q.computed(index, b)
	n, err := q.shift(index)
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	if len(b.Tree.Roots) > 0 && LeftSpan(index) != 2*b.Tree.Length || len(b.Tree.Roots) == 0 && LeftSpan(index) != 0 {
		return fmt.Errorf("upgrade: node %d does not continue %d blocks: %w", index, b.Tree.Length, ErrProof)
	}
	if len(b.Tree.Roots) > 0 && !computed && b.lastRoot() == Sibling(index) && slices.Contains(b.given, b.lastRoot()) {
		b.loose = append(b.loose, index)
	}
	b.AppendRoot(n)
	if !computed && b.lastRoot() == index {
		b.given = append(b.given, index)
	}
	if b.Tree.Length > MaxSize || b.Tree.ByteLength() > MaxSize {
		return fmt.Errorf("upgrade: tree is too large: %w", ErrProof)
	}
	return nil
}

// Verify checks a proof against the tree and the nodes held of it, and returns
// the change it makes: nodes to keep and, when Upgraded is set, a longer tree
// whose signature the caller must check before it trusts any of it. The tree in
// the proof must be of the same fork; see Reorg for others.
//
// Every hash that it returns is right, but not every size: a hash commits to the
// size of an inner node's children together, so what a hash or a seek begins
// with, and its sibling, may have other sizes of the same sum, and so may the
// two nodes where an upgrade's nodes and additional nodes meet. Such sizes never
// replace those of nodes that are held, and a block below corrects them. They can
// mislead Seek and ByteOffset, but never make a wrong block right: compare trees
// with Same.
//
// The errors of a proof that does not hold wrap ErrProof. ErrNoNode means that
// a node to compare with is not held: the proof may be right, but is not for
// this tree.
func (t Tree) Verify(p *Proof, prologue *Prologue, nodes Nodes) (*Batch, error) {
	b := t.Batch()
	unverified, err := b.verifyNodes(p)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if p.Upgrade != nil {
		used, err := b.verifyUpgrade(p, unverified, prologue)
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		if used {
			unverified = nil
		}
	}
	if unverified != nil {
		kept, err := nodes.Node(unverified.Index)
		if err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		if kept.Hash != unverified.Hash {
			return nil, fmt.Errorf("verify: wrong hash at node %d: %w", unverified.Index, ErrProof)
		}
		if kept.Size != unverified.Size {
			if err := b.correctSizes(*unverified, nodes); err != nil {
				return nil, fmt.Errorf("verify: %w", err)
			}
		}
	}
	return b, b.keepSizes(nodes)
}

// keepSizes gives the two nodes that a hash or a seek begins with the sizes
// they are held with, if they are. Their parent's hash commits to the sum of
// their sizes alone, and a single node's to none, so a peer can make them up.
// Where neither is held, what the peer says stays until a block proves better.
func (b *Batch) keepSizes(nodes Nodes) error {
	for _, start := range b.loose {
		pair := [2]*Node{b.added(start), b.added(Sibling(start))}
		parent := b.added(Parent(start)) // which may come from another part
		for i, n := range pair {
			if n == nil {
				continue
			}
			kept, err := nodes.Node(n.Index)
			if isNoNode(err) || err == nil && (kept.Hash != n.Hash || kept.Size == n.Size) {
				continue
			}
			if err != nil {
				return err
			}
			if other := pair[1-i]; other != nil && parent != nil && kept.Size <= parent.Size {
				b.resize(other.Index, parent.Size-kept.Size)
			}
			b.resize(n.Index, kept.Size)
			break
		}
	}
	return nil
}

// correctSizes is for a node above all others of a proof that is held with
// another size. If the proof computes it, its size is right and the one held was
// made up, as was that of its sibling, which is corrected too. Without the
// sibling and the parent both stay, so that they keep to their sum.
func (b *Batch) correctSizes(n Node, nodes Nodes) error {
	if slices.Contains(b.loose, n.Index) {
		return nil // see keepSizes
	}
	sibling, err := nodes.Node(Sibling(n.Index))
	if err == nil {
		var parent Node
		if parent, err = nodes.Node(Parent(n.Index)); err == nil {
			sibling.Size = parent.Size - n.Size
			if ParentNode(n, sibling) == parent {
				b.Nodes = append(b.Nodes, sibling)
				return nil
			}
		}
	}
	if err != nil && !isNoNode(err) {
		return err
	}
	b.Nodes = slices.DeleteFunc(b.Nodes, func(m Node) bool { return m.Index == n.Index })
	return nil
}

// added returns the node of that index that the batch adds last, or nil.
func (b *Batch) added(index uint64) *Node {
	for i := len(b.Nodes) - 1; i >= 0; i-- {
		if b.Nodes[i].Index == index {
			return &b.Nodes[i]
		}
	}
	return nil
}

func (b *Batch) resize(index, size uint64) {
	for i := range b.Nodes {
		if b.Nodes[i].Index == index {
			b.Nodes[i].Size = size
		}
	}
}

// VerifyUpgrade grows a copy of the batch by an upgrade proof alone: multisig
// signatures may cover a tree a little longer than the batch's.
func (b *Batch) VerifyUpgrade(u *UpgradeProof) (*Batch, error) {
	c := *b
	c.Tree.Roots = append([]Node(nil), b.Tree.Roots...)
	c.Nodes = nil
	if _, err := c.verifyUpgrade(&Proof{Fork: b.Tree.Fork, Upgrade: u}, nil, nil); err != nil {
		return nil, err
	}
	return &c, nil
}

// Downgrade turns a batch that verified an upgrade into one that only adds
// nodes, if its tree is part of the one held (current) by now. It reports
// whether it is.
func (b *Batch) Downgrade(nodes Nodes) (bool, error) {
	if !b.Upgraded {
		return true, nil
	}
	for _, root := range b.Tree.Roots {
		kept, err := nodes.Node(root.Index)
		if isNoNode(err) || err == nil && kept.Hash != root.Hash {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	// Nobody checks a signature now, which would prove the sizes.
	for _, root := range b.Tree.Roots {
		kept, err := nodes.Node(root.Index)
		switch {
		case err != nil:
			return false, err
		case kept.Size == root.Size:
		case slices.Contains(b.given, root.Index):
			b.resize(root.Index, kept.Size)
		default:
			if err := b.correctSizes(root, nodes); err != nil {
				return false, err
			}
		}
	}
	b.Upgraded = false
	return true, nil
}
