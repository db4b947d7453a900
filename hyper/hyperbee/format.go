package hyperbee

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
)

// Blocks are protocol buffers, as lib/messages.js of hyperbee 2 says:
//
//	Header    1 protocol, 2 Metadata{1 contentFeed, 2 userData}
//	Node      1 index, 2 key, 3 value, which a deletion and a nil value lack
//	YoloIndex 1 Level{1 packed numbers of the keys' blocks, 2 packed children: block, level, …}, repeated
//
// What is read comes from peers: nothing of it is trusted.

const protocolName = "hyperbee"

const (
	maxKeys   = 8       // of a node: it is split when it gets one more
	minKeys   = 4       // of a node that is not the root
	maxDepth  = 32      // of a tree: one of 2^53 keys has fewer
	maxLevels = 1 << 16 // of a block; there is no more than one a node that an operation changed
	maxNumber = 1<<53 - 1
)

// Tags of the fields: their number, then 2 for bytes.
const (
	tag1 = 1<<3 | 2
	tag2 = 2<<3 | 2
	tag3 = 3<<3 | 2
)

var errCut = errors.New("it is cut off")

// Metadata is what the header of a tree says besides what it is.
type Metadata struct {
	// ContentFeed is the key of another log, which keeps what the entries speak
	// of, such as the blobs of a drive.
	ContentFeed []byte
	// UserData is anything.
	UserData []byte
}

// A Header is the first block of a tree's log.
type Header struct {
	// Protocol is "hyperbee" for a tree.
	Protocol string
	Metadata *Metadata
}

// Append appends the header's bytes.
func (h Header) Append(b []byte) []byte {
	b = appendField(b, tag1, []byte(h.Protocol))
	if m := h.Metadata; m != nil {
		var body []byte
		if m.ContentFeed != nil {
			body = appendField(body, tag1, m.ContentFeed)
		}
		if m.UserData != nil {
			body = appendField(body, tag2, m.UserData)
		}
		b = appendField(b, tag2, body)
	}
	return b
}

// ReadHeader reads a header, whatever its protocol. It aliases the input.
func ReadHeader(b []byte) (h Header, err error) {
	found := false
	err = fields(b, func(tag, _ uint64, body []byte) error {
		switch tag {
		case tag1:
			h.Protocol, found = string(body), true
		case tag2:
			m := &Metadata{}
			h.Metadata = m
			return fields(body, func(tag, _ uint64, body []byte) error {
				switch tag {
				case tag1:
					m.ContentFeed = body
				case tag2:
					m.UserData = body
				}
				return nil
			})
		}
		return nil
	})
	if err == nil && !found {
		err = errors.New("it names no protocol")
	}
	return h, err
}

// A format is how a log's blocks are written. This is the seam for the next one
// of hyperbee, whose blocks begin with another byte.
type format uint8

const formatV1 format = 0

// decode reads a block. It keeps raw.
func decode(seq uint64, raw []byte) (*block, error) {
	if len(raw) > 0 && raw[0] < 1<<3 { // no field of protocol buffers
		return nil, fmt.Errorf("it is of an unknown format, %d", raw[0])
	}
	return decodeV1(seq, raw)
}

// A block is one operation: an entry, and the nodes of the tree that were
// written with it. It never changes once it is made.
type block struct {
	seq    uint64
	raw    []byte // as stored; all else is a part of it
	key    []byte
	value  []byte // nil if there is none
	levels []span // of raw, a node each, as read by node
	few    [6]span
	format format
	brief  bool        // it is without its value
	used   atomic.Bool // for the cache
	of     *cache      // that keeps it; guarded, as is at, by its mu
	at     int         // where it is in the ring
}

// A span is a part of a block.
type span struct{ from, to uint32 }

// cost is about what the block takes in memory.
func (b *block) cost() int {
	n := 256 + len(b.raw) // with what the cache adds
	if len(b.levels) > len(b.few) {
		n += 8 * cap(b.levels)
	}
	return n
}

// without returns the block without its value, or nil if that is not worth it.
func (b *block) without() *block {
	if b.brief || len(b.value) < 256 {
		return nil
	}
	out := &block{seq: b.seq, format: b.format, brief: true}
	out.raw = append(make([]byte, 0, len(b.raw)-len(b.value)), b.key...)
	out.key = out.raw
	out.levels = out.few[:0]
	for _, l := range b.levels {
		from := uint32(len(out.raw))
		out.raw = append(out.raw, b.raw[l.from:l.to]...)
		out.levels = append(out.levels, span{from, uint32(len(out.raw))})
	}
	return out
}

func (b *block) level(i int) []byte { return b.raw[b.levels[i].from:b.levels[i].to] }

// A node is one of the tree, as a block has it.
type node struct {
	keys      [maxKeys]uint64 // numbers of the blocks that have the entries
	children  [maxKeys + 1]place
	nkeys     int
	nchildren int // none in a leaf
}

// A place is where a node is.
type place struct {
	seq   uint64
	level uint64
}

// node reads the node at a level. root says that it is one.
func (b *block) node(level uint64, root bool, n *node) error {
	if level >= uint64(len(b.levels)) {
		return fmt.Errorf("it has %d nodes, and number %d was wanted", len(b.levels), level)
	}
	if err := n.read(b.format, b.level(int(level))); err != nil {
		return fmt.Errorf("node %d: %w", level, err)
	}
	if err := n.check(b.seq, root); err != nil {
		return fmt.Errorf("node %d: %w", level, err)
	}
	return nil
}

// read reads a node as a block of a format has it.
func (n *node) read(f format, b []byte) error {
	switch f {
	case formatV1:
		return n.readV1(b)
	}
	panic("hyperbee: a block of no format")
}

// check refuses nodes that no tree has. What is left can still lie, but each
// node on the way down has a key, and leads to no block that came later.
func (n *node) check(seq uint64, root bool) error {
	if n.nkeys == 0 && (!root || n.nchildren > 0) {
		return errors.New("it has no keys")
	}
	if n.nchildren != 0 && n.nchildren != n.nkeys+1 {
		return fmt.Errorf("it has %d keys and %d children", n.nkeys, n.nchildren)
	}
	for _, s := range n.keys[:n.nkeys] {
		if s == 0 || s > seq {
			return fmt.Errorf("a key of it is said to be in block %d", s)
		}
	}
	for _, c := range n.children[:n.nchildren] {
		if c.seq == 0 || c.seq > seq {
			return fmt.Errorf("a child of it is said to be in block %d", c.seq)
		}
	}
	return nil
}

// has tells whether a node of the block has the entry of a block as its key.
func (b *block) has(seq uint64) (bool, error) {
	for i := range b.levels {
		var n node
		if err := n.read(b.format, b.level(i)); err != nil {
			return false, fmt.Errorf("node %d: %w", i, err)
		}
		for _, s := range n.keys[:n.nkeys] {
			if s == seq {
				return true, nil
			}
		}
	}
	return false, nil
}

func decodeV1(seq uint64, raw []byte) (*block, error) {
	b := &block{seq: seq, format: formatV1, raw: raw}
	var index []byte
	start := 0 // of the index in raw
	for rest := raw; len(rest) > 0; {
		tag, _, body, after, err := field(rest)
		if err != nil {
			return nil, err
		}
		rest = after
		switch tag {
		case tag1:
			index, start = body, len(raw)-len(rest)-len(body)
		case tag2:
			b.key = body
		case tag3:
			b.value = body
		}
	}
	if index == nil || b.key == nil {
		return nil, errors.New("it has no index, or no key")
	}
	b.levels = b.few[:0]
	for rest := index; len(rest) > 0; {
		tag, _, body, after, err := field(rest)
		if err != nil {
			return nil, fmt.Errorf("its index: %w", err)
		}
		rest = after
		if tag != tag1 {
			continue
		}
		if len(b.levels) == maxLevels {
			return nil, fmt.Errorf("it has more than %d nodes", maxLevels)
		}
		end := start + len(index) - len(rest)
		b.levels = append(b.levels, span{uint32(end - len(body)), uint32(end)})
	}
	return b, nil
}

func (n *node) readV1(b []byte) error {
	n.nkeys, n.nchildren = 0, 0
	var odd bool
	for len(b) > 0 {
		tag, _, body, after, err := field(b)
		if err != nil {
			return err
		}
		b = after
		if tag != tag1 && tag != tag2 {
			continue
		}
		for len(body) > 0 {
			v, rest, err := number(body)
			if err != nil {
				return err
			}
			body = rest
			switch {
			case tag == tag1 && n.nkeys < maxKeys:
				n.keys[n.nkeys] = v
				n.nkeys++
			case tag == tag2 && odd:
				n.children[n.nchildren-1].level = v
				odd = false
			case tag == tag2 && n.nchildren <= maxKeys:
				n.children[n.nchildren] = place{seq: v}
				n.nchildren++
				odd = true
			default:
				return fmt.Errorf("it has more than %d keys or children", maxKeys)
			}
		}
	}
	if odd {
		return errors.New("a child of it is cut off")
	}
	return nil
}

// number reads one number.
func number(b []byte) (v uint64, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || v > maxNumber {
		return 0, nil, errors.New("a number of it is cut off or too large")
	}
	return v, b[n:], nil
}

// field reads one field: v is a number, body is bytes and nil for a number.
func field(b []byte) (tag, v uint64, body, rest []byte, err error) {
	tag, b, err = number(b)
	if err != nil {
		return 0, 0, nil, nil, err
	}
	switch tag & 7 {
	case 0:
		v, rest, err = number(b)
		return tag, v, nil, rest, err
	case 1, 5:
		size := 8
		if tag&7 == 5 {
			size = 4
		}
		if len(b) < size {
			return 0, 0, nil, nil, errCut
		}
		return tag, 0, nil, b[size:], nil
	case 2:
		size, b, err := number(b)
		if err != nil {
			return 0, 0, nil, nil, err
		}
		if size > uint64(len(b)) {
			return 0, 0, nil, nil, errCut
		}
		return tag, 0, b[:size:size], b[size:], nil
	}
	return 0, 0, nil, nil, fmt.Errorf("it has a field of the unknown type %d", tag&7)
}

// fields calls f with each field.
func fields(b []byte, f func(tag, v uint64, body []byte) error) error {
	for len(b) > 0 {
		tag, v, body, rest, err := field(b)
		if err != nil {
			return err
		}
		if err := f(tag, v, body); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func appendField(b []byte, tag byte, body []byte) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

// sizeNumber is how many bytes a number takes.
func sizeNumber(v uint64) (n int) {
	for n = 1; v >= 0x80; n++ {
		v >>= 7
	}
	return n
}
