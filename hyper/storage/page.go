package storage

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/hyper/merkle"
)

// A log's tree and its small blocks are kept in pages. A page of level l holds
// the nodes of a subtree six levels high: of depths 6l to 6l+5, over 64 leaves.
// Pages of level 0 also hold the 64 blocks under them.
//
// A page's value is a version byte and a list of entries; appending entries
// adds to the page, which is what makes an append one small write. Nodes whose
// children are both in the page are left out: they follow from them.
// docs/formats/store.md has the bytes.

const (
	pageHeight = 6               // tree levels in a page
	pageBlocks = 1 << pageHeight // blocks under a page of level 0
	pageNodes  = 2*pageBlocks - 1
	pageTop    = pageBlocks - 1 // the node over the page: it is in the next level

	// pageInline is the size from which a block is not in its page but a blob.
	pageInline = 1 << 10

	// maxLevel bounds the levels: no node lies higher than depth 53.
	maxLevel = 53 / pageHeight

	entryNodes  = 1 // first node in page, count, then for each size, hash
	entryBlocks = 2 // first block in page, count, then for each length, bytes
	entryBlobs  = 3 // first block in page, count: they are blobs
)

// pageOf returns the page that holds a tree node, and the node's number in it:
// the flat-tree number within the page's subtree.
func pageOf(node uint64) (level int, page uint64, local int) {
	depth := merkle.Depth(node)
	level = depth / pageHeight
	// Number the nodes of the level's bottom depth as leaves.
	flat := merkle.Index(depth-level*pageHeight, merkle.Offset(node))
	page = flat >> (pageHeight + 1)
	return level, page, int(flat & (2*pageBlocks - 1))
}

// nodeOf is the inverse of pageOf.
func nodeOf(level int, page uint64, local int) uint64 {
	flat := page<<(pageHeight+1) | uint64(local)
	return merkle.Index(merkle.Depth(flat)+level*pageHeight, merkle.Offset(flat))
}

type blockKind uint8

const (
	blockNone blockKind = iota
	blockInline
	blockBlob
)

// A page in memory. Its fields are guarded by mu; the bytes of blocks are never
// changed, so they may be read after mu is released.
type page struct {
	mu     sync.RWMutex
	level  int
	number uint64

	known  nodeSet // which nodes are here
	nodes  []pageNode
	kinds  [pageBlocks]blockKind
	blocks [][]byte // those inline; they are parts of stored values
	bytes  int      // memory of these values
}

type pageNode struct {
	size uint64
	hash merkle.Hash
}

// A nodeSet is a set of nodes of one page, by their numbers in it.
type nodeSet [2]uint64

func (s *nodeSet) has(local int) bool { return s[local>>6]>>(local&63)&1 != 0 }
func (s *nodeSet) add(local int)      { s[local>>6] |= 1 << (local & 63) }

// follows reports whether a node's children are both in the set.
func (s *nodeSet) follows(local int) bool {
	depth := bits.TrailingZeros(^uint(local))
	if depth == 0 {
		return false
	}
	half := 1 << (depth - 1)
	return s.has(local-half) && s.has(local+half)
}

// setNode adds a node. A node that is there is replaced: proofs may correct
// sizes (see merkle.Verify).
func (p *page) setNode(local int, size uint64, hash *merkle.Hash) {
	for len(p.nodes) <= local {
		p.nodes = append(p.nodes, pageNode{})
	}
	p.nodes[local] = pageNode{size, *hash}
	p.known.add(local)
}

// grow makes room for about so many more nodes and blocks.
func (p *page) grow(nodes, blocks int) {
	p.nodes = slices.Grow(p.nodes, min(nodes, pageNodes-len(p.nodes)))
	p.blocks = slices.Grow(p.blocks, min(blocks, pageBlocks-len(p.blocks)))
}

func (p *page) setBlock(slot int, data []byte) {
	for len(p.blocks) <= slot {
		p.blocks = append(p.blocks, nil)
	}
	p.blocks[slot], p.kinds[slot] = data, blockInline
}

// derive computes the nodes that follow from others, bottom up.
func (p *page) derive() {
	for depth := 1; depth < pageHeight; depth++ {
		half := 1 << (depth - 1)
		for local := 1<<depth - 1; local < pageNodes; local += 2 << depth {
			if p.known.has(local) || !p.known.follows(local) {
				continue
			}
			n := merkle.ParentNode(p.node(local-half), p.node(local+half))
			p.setNode(local, n.Size, &n.Hash)
		}
	}
}

// holds reports whether the page has exactly this node.
func (p *page) holds(local int, n *merkle.Node) bool {
	return p.known.has(local) && p.nodes[local] == pageNode{n.Size, n.Hash}
}

func (p *page) node(local int) merkle.Node {
	return merkle.Node{Index: nodeOf(p.level, p.number, local), Size: p.nodes[local].size, Hash: p.nodes[local].hash}
}

// memory is about what the page takes.
func (p *page) memory() int {
	return 320 + cap(p.nodes)*40 + cap(p.blocks)*24 + p.bytes
}

// decode adds the entries of a stored value. The page keeps parts of it.
func (p *page) decode(value []byte) error {
	p.bytes += len(value)
	bad := func(what string) error {
		return fmt.Errorf("page %d of level %d: %s: %w", p.number, p.level, what, ErrCorrupt)
	}
	for len(value) > 0 {
		// A run of entries, written at once, begins with the version.
		if value[0] > pageVersion {
			return fmt.Errorf("page %d of level %d: entry version %d: %w", p.number, p.level, value[0], ErrVersion)
		}
		if value[0] != pageVersion {
			return bad(fmt.Sprintf("entry version %d", value[0]))
		}
		run, n := binary.Uvarint(value[1:])
		if n <= 0 || run > uint64(len(value)-1-n) {
			return bad("run length")
		}
		b := value[1+n : 1+n+int(run)]
		value = value[1+n+int(run):]
		for len(b) > 0 {
			kind := b[0]
			b = b[1:]
			var first, count uint64
			var ok bool
			if first, b, ok = uvarint(b); !ok {
				return bad("first")
			}
			if count, b, ok = uvarint(b); !ok || count == 0 {
				return bad("count")
			}
			limit, step := uint64(pageBlocks), uint64(1)
			if kind == entryNodes {
				limit, step = pageNodes, 2
			}
			if first >= limit || count > limit || first+(count-1)*step >= limit {
				return bad("range")
			}
			if p.level > 0 && kind != entryNodes {
				return bad("blocks above level 0")
			}
			switch kind {
			case entryNodes:
				for i := range count {
					var size uint64
					if size, b, ok = uvarint(b); !ok || len(b) < merkle.HashSize || first+i*step == pageTop {
						return bad("node")
					}
					p.setNode(int(first+i*step), size, (*merkle.Hash)(b))
					b = b[merkle.HashSize:]
				}
			case entryBlocks:
				for i := range count {
					var size uint64
					if size, b, ok = uvarint(b); !ok || size > uint64(len(b)) {
						return bad("block")
					}
					p.setBlock(int(first+i), b[:size:size])
					b = b[size:]
				}
			case entryBlobs:
				for i := range count {
					p.kinds[first+i] = blockBlob
				}
			default:
				return bad(fmt.Sprintf("entry kind %d", kind))
			}
		}
	}
	p.derive()
	return nil
}

const pageVersion = 1

func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// A pageChange is what one transaction does to one page.
type pageChange struct {
	log    ID
	level  int
	number uint64

	// The page after the change is with, unless it is nil, and what is added.
	// When whole is set, with is a copy of the page that has all of that and is
	// written anew.
	with    *page
	whole   bool
	drop    bool // the page goes, before anything is added
	added   nodeSet
	nodes   []merkle.Node
	blocks  []Block
	value   []byte // the encoded change
	offsets []int  // where in value the inline blocks are
}

// encode sets value to the bytes that make the change.
func (c *pageChange) encode() {
	if c.whole {
		c.value = c.with.encodeWhole()
		return
	}
	if c.with != nil {
		known := c.added
		known[0] |= c.with.known[0]
		known[1] |= c.with.known[1]
		c.encodeWith(func(n *merkle.Node, local int) bool {
			return known.follows(local) && (!c.with.known.has(local) || c.with.holds(local, n))
		})
		return
	}
	c.encodeWith(func(_ *merkle.Node, local int) bool { return c.added.follows(local) })
}

// encodeWith sets value without the nodes that follow from others.
func (c *pageChange) encodeWith(follows func(n *merkle.Node, local int) bool) {
	size := 16
	for i := range c.blocks {
		if len(c.blocks[i].Data) < pageInline {
			size += len(c.blocks[i].Data) + 3
		}
	}
	size += len(c.nodes) * (merkle.HashSize + 4)
	b := make([]byte, runHeader, size)

	// Leaves that follow one another make one entry.
	for i := 0; i < len(c.nodes); {
		_, _, local := pageOf(c.nodes[i].Index)
		if follows(&c.nodes[i], local) {
			i++
			continue
		}
		end, next := i+1, local
		for j := i + 1; j < len(c.nodes); j++ {
			_, _, l := pageOf(c.nodes[j].Index)
			if follows(&c.nodes[j], l) {
				continue
			}
			if l != next+2 {
				break
			}
			next, end = l, j+1
		}
		b = append(b, entryNodes)
		b = binary.AppendUvarint(b, uint64(local))
		b = binary.AppendUvarint(b, uint64(next-local)/2+1)
		for ; i < end; i++ {
			n := &c.nodes[i]
			if _, _, l := pageOf(n.Index); !follows(n, l) {
				b = binary.AppendUvarint(b, n.Size)
				b = append(b, n.Hash[:]...)
			}
		}
	}
	c.offsets = c.offsets[:0]
	for i := 0; i < len(c.blocks); {
		inline := len(c.blocks[i].Data) < pageInline
		end := i + 1
		for end < len(c.blocks) && c.blocks[end].Index == c.blocks[end-1].Index+1 && (len(c.blocks[end].Data) < pageInline) == inline {
			end++
		}
		kind := byte(entryBlobs)
		if inline {
			kind = entryBlocks
		}
		b = append(b, kind)
		b = binary.AppendUvarint(b, c.blocks[i].Index%pageBlocks)
		b = binary.AppendUvarint(b, uint64(end-i))
		for ; i < end; i++ {
			if inline {
				b = binary.AppendUvarint(b, uint64(len(c.blocks[i].Data)))
				b = append(b, c.blocks[i].Data...)
			}
			c.offsets = append(c.offsets, len(b))
		}
	}
	c.value = closeRun(b)
}

// A run of entries begins with the version and its length, which is written
// last: as a varint of fixed width.
const runHeader = 1 + 4

func closeRun(b []byte) []byte {
	n := len(b) - runHeader
	if n >= 1<<28 {
		panic("storage: page run of 256 MiB")
	}
	b[0] = pageVersion
	for i := 1; i <= 4; i++ {
		b[i] = byte(n) | 0x80
		n >>= 7
	}
	b[4] &^= 0x80
	return b
}

// encodeWhole returns the value of the page as it is.
func (p *page) encodeWhole() []byte {
	c := pageChange{}
	for local := range p.nodes {
		if p.known.has(local) {
			c.nodes = append(c.nodes, p.node(local))
			c.added.add(local)
		}
	}
	first := p.number * pageBlocks
	for slot, kind := range p.kinds {
		switch kind {
		case blockInline:
			c.blocks = append(c.blocks, Block{first + uint64(slot), p.blocks[slot]})
		case blockBlob:
			c.blocks = append(c.blocks, Block{first + uint64(slot), blobPlaceholder})
		}
	}
	c.encodeWith(func(n *merkle.Node, local int) bool {
		// Nodes that were replaced need not follow any more.
		half := (local&^(local+1) + 1) / 2
		return c.added.follows(local) && merkle.ParentNode(p.node(local-half), p.node(local+half)) == *n
	})
	return c.value
}

// blobPlaceholder stands for a blob where only its being one matters.
var blobPlaceholder = make([]byte, pageInline)

// apply makes a committed change of a page that is in memory.
func (c *pageChange) apply(p *page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += len(c.value)
	p.grow(len(c.nodes), len(c.blocks))
	for i := range c.nodes {
		_, _, local := pageOf(c.nodes[i].Index)
		p.setNode(local, c.nodes[i].Size, &c.nodes[i].Hash)
	}
	for i := range c.blocks {
		slot := int(c.blocks[i].Index % pageBlocks)
		if n := len(c.blocks[i].Data); n < pageInline {
			end := c.offsets[i]
			p.setBlock(slot, c.value[end-n:end:end])
		} else {
			p.kinds[slot] = blockBlob
		}
	}
}

// cut returns a copy of the page without what lies at or beyond a tree of
// length blocks.
func (p *page) cut(length uint64) *page {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := &page{level: p.level, number: p.number}
	for local := range p.nodes {
		if n := p.nodes[local]; p.known.has(local) && merkle.RightSpan(nodeOf(p.level, p.number, local)) < 2*length {
			out.setNode(local, n.size, &n.hash)
		}
	}
	p.copyBlocks(out, func(i uint64) bool { return i < length })
	return out
}

// without returns a copy of the page without the blocks of a range.
func (p *page) without(r Range) *page {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := &page{level: p.level, number: p.number, known: p.known}
	out.nodes = append(out.nodes, p.nodes...)
	p.copyBlocks(out, func(i uint64) bool { return i < r.Start || i >= r.End })
	return out
}

func (p *page) copyBlocks(out *page, keep func(index uint64) bool) {
	if p.level != 0 {
		return
	}
	for slot, kind := range p.kinds {
		switch {
		case !keep(p.number*pageBlocks + uint64(slot)):
		case kind == blockInline:
			out.setBlock(slot, p.blocks[slot])
			out.bytes += len(p.blocks[slot])
		default:
			out.kinds[slot] = kind
		}
	}
}

// hasBlocks reports whether any block is in the page.
func (p *page) hasBlocks() bool { return p.kinds != [pageBlocks]blockKind{} }
