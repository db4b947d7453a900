package hyperbee

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
)

// The tree is a B-tree, and changes it as hyperbee 2 does, step by step (Batch in
// index.js): where a node is split, which neighbour lends a key, which nodes are
// written again. Otherwise the blocks would be as good, but not the same.

var errUneven = errors.New("the leaves of its tree are not all as deep")

// A draftNode is a node that may be changed. It is read when it is come by.
type draftNode struct {
	keys     []draftKey
	children []*link
	changed  bool // to be written with the next operation
}

// A draftKey is a key of a node; key is nil until it is read.
type draftKey struct {
	seq uint64
	key []byte
}

// A link leads to a child; node is nil until it is read. Nodes that are written
// in a batch are found through the same link in their parent and in the block
// that has them, and a link whose number is no more that of the block leaves it.
type link struct {
	place
	node *draftNode
}

// Nodes as they are read, each in one piece, with room for one key more.
type (
	draftLeaf struct {
		node draftNode
		keys [maxKeys + 1]draftKey
	}
	draftInner struct {
		node     draftNode
		keys     [maxKeys + 1]draftKey
		children [maxKeys + 2]*link
		links    [maxKeys + 1]link
	}
)

// A draft is the tree in the middle of a batch.
type draft struct {
	v    view
	root *draftNode // nil until it is read
	base uint64     // number of the first block of ops
	ops  []draftOp
}

// A draftOp is a block to be.
type draftOp struct {
	key, value []byte
	nodes      []*link
}

// next is the number of the next block.
func (d *draft) next() uint64 { return d.base + uint64(len(d.ops)) }

// load makes a node of one in the log.
func (d *draft) load(ctx context.Context, at place, depth int) (*draftNode, error) {
	var n node
	if err := d.v.node(ctx, at, depth, &n); err != nil {
		return nil, err
	}
	var out *draftNode
	if n.nchildren == 0 {
		leaf := new(draftLeaf)
		out = &leaf.node
		out.keys = leaf.keys[:n.nkeys]
	} else {
		inner := new(draftInner)
		out = &inner.node
		out.keys = inner.keys[:n.nkeys]
		out.children = inner.children[:n.nchildren]
		for i := range out.children {
			inner.links[i].place = n.children[i]
			out.children[i] = &inner.links[i]
		}
	}
	for i := range out.keys {
		out.keys[i].seq = n.keys[i]
	}
	return out, nil
}

// getRoot returns the root, or nil of an empty tree.
func (d *draft) getRoot(ctx context.Context) (*draftNode, error) {
	at, ok := d.v.root()
	if d.root != nil || !ok {
		return d.root, nil
	}
	root, err := d.load(ctx, at, 0)
	if err != nil {
		return nil, err
	}
	d.root = root
	return root, nil
}

// child returns child i of a node at a depth.
func (d *draft) child(ctx context.Context, n *draftNode, i, depth int) (*draftNode, error) {
	l := n.children[i]
	if l.node == nil {
		loaded, err := d.load(ctx, l.place, depth+1)
		if err != nil {
			return nil, err
		}
		l.node = loaded
	}
	return l.node, nil
}

// key returns key i of a node.
func (d *draft) key(ctx context.Context, n *draftNode, i int) ([]byte, error) {
	k := &n.keys[i]
	if k.key == nil {
		key, err := d.v.key(ctx, k.seq)
		if err != nil {
			return nil, err
		}
		k.key = key
	}
	return k.key, nil
}

// search looks for a key in a node.
func (d *draft) search(ctx context.Context, n *draftNode, key []byte) (i int, found bool, err error) {
	return search(len(n.keys), key, func(i int) ([]byte, error) { return d.key(ctx, n, i) })
}

// content returns the key and the value of an entry.
func (d *draft) content(ctx context.Context, seq uint64) (key, value []byte, err error) {
	if seq >= d.base {
		op := &d.ops[seq-d.base]
		return op.key, op.value, nil
	}
	b, err := d.v.block(ctx, seq)
	if err != nil {
		return nil, nil, err
	}
	return b.key, b.value, nil
}

// find returns the number of the block with the entry of a key, or 0.
func (d *draft) find(ctx context.Context, key []byte) (uint64, error) {
	n, err := d.getRoot(ctx)
	if n == nil || err != nil {
		return 0, err
	}
	for depth := 0; ; depth++ {
		i, found, err := d.search(ctx, n, key)
		if err != nil {
			return 0, err
		}
		if found {
			return n.keys[i].seq, nil
		}
		if len(n.children) == 0 {
			return 0, nil
		}
		if n, err = d.child(ctx, n, i, depth); err != nil {
			return 0, err
		}
	}
}

// A condition decides whether an operation takes place, by the number of the
// block with the entry there is, or 0.
type condition func(seq uint64) (bool, error)

// A turn is a node on the way down, with the number of the child gone to.
type turn struct {
	n *draftNode
	i int
}

// put adds an operation and reports true, unless the condition says no. After an
// error the draft is of no use.
func (d *draft) put(ctx context.Context, key, value []byte, when condition) (bool, error) {
	root, err := d.getRoot(ctx)
	if err != nil {
		return false, err
	}
	if root == nil {
		root = &draftNode{keys: make([]draftKey, 0, maxKeys+1)}
	}
	target := draftKey{d.next(), key}
	var path [maxDepth]turn
	depth := 0
	n := root
	for {
		i, found, err := d.search(ctx, n, key)
		if err != nil {
			return false, err
		}
		leaf := len(n.children) == 0
		if !leaf {
			// Also if nothing comes of it: the next operation of a batch writes it
			// then, as it does in hyperbee.
			n.changed = true
		}
		if found || leaf {
			prev := uint64(0)
			if found {
				prev = n.keys[i].seq
			}
			if ok, err := when(prev); !ok || err != nil {
				return false, err
			}
			n.changed = true
		}
		if found {
			n.keys[i] = target
			break
		}
		if leaf {
			n.keys = slices.Insert(n.keys, i, target)
			break
		}
		if depth == len(path) {
			return false, d.v.invalid(d.v.version-1, errDeep)
		}
		path[depth] = turn{n, i}
		if n, err = d.child(ctx, n, i, depth); err != nil {
			return false, err
		}
		depth++
	}
	for len(n.keys) > maxKeys {
		median, right := n.split()
		if depth == 0 {
			root = &draftNode{keys: []draftKey{median}, children: []*link{{node: n}, {node: right}}}
			break
		}
		depth--
		parent, i := path[depth].n, path[depth].i
		parent.keys = slices.Insert(parent.keys, i, median)
		parent.children = slices.Insert(parent.children, i+1, &link{node: right})
		n = parent
	}
	d.add(root, key, value)
	return true, nil
}

// split moves the upper half of a node to a new one, and takes out the key
// between the halves.
func (n *draftNode) split() (median draftKey, right *draftNode) {
	mid := len(n.keys) / 2
	median = n.keys[mid]
	right = &draftNode{changed: true, keys: append(make([]draftKey, 0, maxKeys+1), n.keys[mid+1:]...)}
	n.keys = n.keys[:mid]
	if len(n.children) > 0 {
		right.children = append(make([]*link, 0, maxKeys+2), n.children[mid+1:]...)
		n.children = n.children[:mid+1]
	}
	return median, right
}

// del adds the deletion of a key and reports true, unless there is no such key
// or the condition says no. After an error the draft is of no use.
func (d *draft) del(ctx context.Context, key []byte, when condition) (bool, error) {
	n, err := d.getRoot(ctx)
	if n == nil || err != nil {
		return false, err
	}
	var path []*draftNode
	for {
		path = append(path, n)
		i, found, err := d.search(ctx, n, key)
		if err != nil {
			return false, err
		}
		if !found && len(n.children) == 0 {
			return false, nil
		}
		if !found {
			if n, err = d.child(ctx, n, i, len(path)-1); err != nil {
				return false, err
			}
			continue
		}
		if ok, err := when(n.keys[i].seq); !ok || err != nil {
			return false, err
		}
		if len(n.children) == 0 {
			n.keys = slices.Delete(n.keys, i, i+1)
		} else if path, err = d.fillFromLeaf(ctx, path, i); err != nil {
			return false, err
		}
		break
	}
	for _, n := range path {
		n.changed = true
	}
	root, err := d.rebalance(ctx, path)
	if err != nil {
		return false, err
	}
	d.add(root, key, nil)
	return true, nil
}

// fillFromLeaf replaces key i of the last node of a path by its neighbour, from
// the fuller of the two leaves next to it, and returns the path to that leaf.
func (d *draft) fillFromLeaf(ctx context.Context, path []*draftNode, i int) ([]*draftNode, error) {
	n := path[len(path)-1]
	left, err := d.leaf(ctx, path, i, true)
	if err != nil {
		return nil, err
	}
	right, err := d.leaf(ctx, path, i+1, false)
	if err != nil {
		return nil, err
	}
	l, r := left[len(left)-1], right[len(right)-1]
	if len(l.keys) < len(r.keys) {
		n.keys[i] = r.keys[0]
		r.keys = slices.Delete(r.keys, 0, 1)
		return right, nil
	}
	last := len(l.keys) - 1
	n.keys[i] = l.keys[last]
	l.keys = l.keys[:last]
	return left, nil
}

// leaf continues a path through child i to the last or the first leaf below it.
func (d *draft) leaf(ctx context.Context, path []*draftNode, i int, last bool) ([]*draftNode, error) {
	path = slices.Clone(path)
	for {
		n, err := d.child(ctx, path[len(path)-1], i, len(path)-1)
		if err != nil {
			return nil, err
		}
		path = append(path, n)
		if len(n.children) == 0 {
			return path, nil
		}
		if i = 0; last {
			i = len(n.children) - 1
		}
	}
}

// rebalance gives the nodes of a path enough keys again, from the last one up,
// and returns the root.
func (d *draft) rebalance(ctx context.Context, path []*draftNode) (*draftNode, error) {
	root := path[0]
	for depth := len(path) - 1; depth > 0; depth-- {
		n, parent := path[depth], path[depth-1]
		if len(n.keys) >= minKeys {
			return root, nil
		}
		i := slices.IndexFunc(parent.children, func(l *link) bool { return l.node == n })
		var left, right *draftNode
		var err error
		if i > 0 {
			if left, err = d.child(ctx, parent, i-1, depth-1); err != nil {
				return nil, err
			}
		}
		if i+1 < len(parent.children) {
			if right, err = d.child(ctx, parent, i+1, depth-1); err != nil {
				return nil, err
			}
		}
		for _, other := range []*draftNode{left, right} {
			if other != nil && (len(other.children) > 0) != (len(n.children) > 0) {
				return nil, d.v.invalid(d.v.version-1, errUneven)
			}
		}
		switch {
		case left != nil && len(left.keys) > minKeys:
			left.changed = true
			n.keys = slices.Insert(n.keys, 0, parent.keys[i-1])
			if last := len(left.children) - 1; last >= 0 {
				n.children = slices.Insert(n.children, 0, left.children[last])
				left.children = left.children[:last]
			}
			last := len(left.keys) - 1
			parent.keys[i-1] = left.keys[last]
			left.keys = left.keys[:last]
			return root, nil
		case right != nil && len(right.keys) > minKeys:
			right.changed = true
			n.keys = append(n.keys, parent.keys[i])
			if len(right.children) > 0 {
				n.children = append(n.children, right.children[0])
				right.children = slices.Delete(right.children, 0, 1)
			}
			parent.keys[i] = right.keys[0]
			right.keys = slices.Delete(right.keys, 0, 1)
			return root, nil
		case left != nil:
			parent.merge(i-1, left, n)
		case right != nil:
			parent.merge(i, n, right)
		default:
			return nil, d.v.invalid(d.v.version-1, errUneven)
		}
	}
	if len(root.keys) == 0 && len(root.children) > 0 {
		return d.child(ctx, root, 0, 0)
	}
	return root, nil
}

// merge moves key i of a node, and all of the child to its right, to the child
// to its left.
func (n *draftNode) merge(i int, left, right *draftNode) {
	left.changed = true
	left.keys = append(append(left.keys, n.keys[i]), right.keys...)
	left.children = append(left.children, right.children...)
	n.keys = slices.Delete(n.keys, i, i+1)
	n.children[i+1].seq = 0 // no block has it any more
	n.children = slices.Delete(n.children, i+1, i+2)
}

// add makes a block of an operation: it has all nodes that have changed.
func (d *draft) add(root *draftNode, key, value []byte) {
	seq := d.next()
	nodes := root.collect(make([]*link, 0, 8), seq)
	nodes[0] = &link{place{seq: seq}, root}
	d.ops = append(d.ops, draftOp{key, value, nodes})
	d.root = root
}

// collect appends the changed nodes from n down, n with a nil for its link.
func (n *draftNode) collect(nodes []*link, seq uint64) []*link {
	nodes = append(nodes, nil)
	n.changed = false
	for _, l := range n.children {
		if l.node == nil || !l.node.changed {
			continue
		}
		at := len(nodes)
		nodes = l.node.collect(nodes, seq)
		l.place = place{seq, uint64(at)}
		nodes[at] = l
	}
	return nodes
}

// blocks returns the blocks of all operations. The draft is over then.
func (d *draft) blocks() [][]byte {
	blocks := make([][]byte, 0, len(d.ops)+1)
	for i := range d.ops {
		op := &d.ops[i]
		if i+1 < len(d.ops) {
			op.prune(d.base + uint64(i))
		}
		blocks = append(blocks, op.encodeV1())
	}
	return blocks
}

// prune drops the nodes of a block that a later one of the batch has too: the
// root, and what was changed again. The order of the others is hyperbee's.
func (op *draftOp) prune(seq uint64) {
	nodes := op.nodes
	nodes[0] = nil
	for i := 0; i < len(nodes); {
		if l := nodes[i]; l != nil && l.seq == seq {
			l.level = uint64(i)
			i++
			continue
		}
		last := len(nodes) - 1
		nodes[i] = nodes[last]
		nodes = nodes[:last]
	}
	op.nodes = nodes
}

// encodeV1 writes the block.
func (op *draftOp) encodeV1() []byte {
	index := 0
	for _, l := range op.nodes {
		keys, children := l.node.sizesV1()
		n := sizePacked(keys) + sizePacked(children)
		index += 1 + sizeNumber(uint64(n)) + n
	}
	size := 2 + sizeNumber(uint64(index)) + index + sizeNumber(uint64(len(op.key))) + len(op.key)
	if op.value != nil {
		size += 1 + sizeNumber(uint64(len(op.value))) + len(op.value)
	}
	b := make([]byte, 0, size)
	b = binary.AppendUvarint(append(b, tag1), uint64(index))
	for _, l := range op.nodes {
		keys, children := l.node.sizesV1()
		b = binary.AppendUvarint(append(b, tag1), uint64(sizePacked(keys)+sizePacked(children)))
		if keys > 0 {
			b = binary.AppendUvarint(append(b, tag1), uint64(keys))
		}
		for i := range l.node.keys {
			b = binary.AppendUvarint(b, l.node.keys[i].seq)
		}
		if children > 0 {
			b = binary.AppendUvarint(append(b, tag2), uint64(children))
		}
		for _, c := range l.node.children {
			b = binary.AppendUvarint(binary.AppendUvarint(b, c.seq), c.level)
		}
	}
	b = appendField(b, tag2, op.key)
	if op.value != nil {
		b = appendField(b, tag3, op.value)
	}
	return b
}

// sizesV1 returns how many bytes the numbers of a node take.
func (n *draftNode) sizesV1() (keys, children int) {
	for i := range n.keys {
		keys += sizeNumber(n.keys[i].seq)
	}
	for _, c := range n.children {
		children += sizeNumber(c.seq) + sizeNumber(c.level)
	}
	return keys, children
}

// sizePacked is the size of a field of numbers, which is left out when there are
// none.
func sizePacked(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + sizeNumber(uint64(n)) + n
}
