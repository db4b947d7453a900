package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sort"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A pointer says where a block is, how many of the content's bytes are in it or
// below it, and what it hashes to.
type pointer struct {
	log   LogID
	index uint64
	size  int64
	hash  Hash
}

// A node is a block that names the blocks below it, in the order of the content.
type node struct {
	pointers []pointer
	ends     []int64 // where each ends, counted from where the node begins
}

// How many pointers nodes have. They end where the pointers' hashes say, as
// chunks do, so that what changes in one node does not move the others' ends.
const (
	nodeVersion  = 1
	minPointers  = 32
	meanPointers = 128
	maxPointers  = 512
	maxNodeLogs  = 256
)

// closes reports whether a node of n pointers ends with p.
func closes(n int, p pointer) bool {
	return n >= maxPointers || n >= minPointers && p.hash[31]%meanPointers == 0
}

// appendNode appends the bytes of a node.
func appendNode(b []byte, depth int, pointers []pointer) []byte {
	var logs []LogID
	number := map[LogID]uint64{}
	for _, p := range pointers {
		if _, ok := number[p.log]; !ok {
			number[p.log] = uint64(len(logs))
			logs = append(logs, p.log)
		}
	}
	b = append(b, nodeVersion, byte(depth))
	b = compact.AppendArray(b, logs, func(b []byte, id LogID) []byte { return append(b, id[:]...) })
	next := uint64(0)
	return compact.AppendArray(b, pointers, func(b []byte, p pointer) []byte {
		b = compact.AppendUint(b, number[p.log])
		b = compact.AppendInt(b, int64(p.index)-int64(next))
		next = p.index + 1
		b = compact.AppendUint(b, uint64(p.size))
		return append(b, p.hash[:]...)
	})
}

// readNode reads a node of a depth, which must have size bytes below it.
func readNode(b []byte, depth int, size int64) (*node, error) {
	fail := func(err error) (*node, error) { return nil, fmt.Errorf("%w: node: %w", ErrInvalid, err) }
	d := compact.NewDecoder(b)
	if v := d.Uint8(); d.Err() == nil && v != nodeVersion {
		return fail(fmt.Errorf("version %d", v))
	}
	if n := int(d.Uint8()); d.Err() == nil && n != depth {
		return fail(fmt.Errorf("it is %d above the chunks, not %d", n, depth))
	}
	logs := compact.DecodeArray(&d, maxNodeLogs, func(d *compact.Decoder) (id LogID) {
		copy(id[:], d.Fixed(len(id)))
		return id
	})
	var sum, next int64
	bad := false
	n := &node{}
	n.pointers = compact.DecodeArray(&d, maxPointers, func(d *compact.Decoder) (p pointer) {
		log := d.Uint()
		next += d.Int()
		length := d.Uint()
		p = pointer{index: uint64(next), size: int64(length), hash: d.Fixed32()}
		// At every step, so that the sums stay far from the end of the numbers.
		bad = bad || log >= uint64(len(logs)) || next < 0 || next > maxSize || length == 0 || length > uint64(size) ||
			depth == 1 && length > hypercore.MaxBlock
		if bad {
			d.Fail("pointer", errors.New("its numbers make no sense"))
			return p
		}
		p.log = logs[log]
		next++
		sum += p.size
		return p
	})
	if err := d.Finish(); err != nil {
		return fail(err)
	}
	if sum != size {
		return fail(fmt.Errorf("there are %d bytes below it, not %d", sum, size))
	}
	n.ends = make([]int64, len(n.pointers))
	sum = 0
	for i, p := range n.pointers {
		sum += p.size
		n.ends[i] = sum
	}
	return n, nil
}

// find returns which pointer leads to a byte, and where its part begins.
func (n *node) find(pos int64) (i int, start int64) {
	i = sort.Search(len(n.ends), func(i int) bool { return n.ends[i] > pos })
	return i, n.ends[i] - n.pointers[i].size
}

func (r Ref) root() pointer {
	return pointer{log: r.log, index: r.index, size: r.Size, hash: r.Hash}
}

// check returns an error if a Ref that a program made or read makes no sense.
func (r Ref) check() error {
	if r.IsZero() {
		return fmt.Errorf("%w: there is none", ErrInvalid)
	}
	return nil
}

// node returns the node that a pointer leads to.
func (s *Store) node(ctx context.Context, p pointer, depth int) (*node, error) {
	b, err := s.block(ctx, p)
	if err != nil {
		return nil, err
	}
	return readNode(b, depth, p.size)
}

// errSkip tells a walk not to go below a pointer.
var errSkip = errors.New("skip")

// A walk goes through contents.
type walk struct {
	s *Store
	// visit is called with each pointer from the top down, in order, with how many
	// levels of nodes are below it: 0 for chunks.
	visit func(p pointer, depth int) error
	// broken is called with what is wrong with a node, and goes on if that is nil.
	// When it is not set, the walk ends.
	broken func(error) error
	// enter, when it is set, is called with what is in a node before that is visited.
	enter func(n *node, depth int) error
	// seen are nodes that were visited. They are not visited again, also not when
	// a content names one a thousand times at each level.
	seen   map[place]bool
	repeat bool // something was not visited again
	// again has nodes visited as often as they are named.
	again bool
}

// A place is where a node is. The same one at another depth is another thing.
type place struct {
	log   LogID
	index uint64
	depth uint8
}

// walk visits each pointer of a content.
func (s *Store) walk(ctx context.Context, r Ref, visit func(p pointer, depth int) error) error {
	w := walk{s: s, visit: visit}
	return w.ref(ctx, r)
}

func (w *walk) ref(ctx context.Context, r Ref) error {
	if err := r.check(); err != nil || r.Size == 0 {
		return err
	}
	if w.seen == nil && r.depth > 0 {
		w.seen = map[place]bool{}
	}
	return w.from(ctx, r.root(), int(r.depth))
}

func (w *walk) from(ctx context.Context, p pointer, depth int) error {
	if depth > 0 && !w.again {
		at := place{p.log, p.index, uint8(depth)}
		if w.seen[at] {
			w.repeat = true
			return nil
		}
		w.seen[at] = true
	}
	if err := w.visit(p, depth); err != nil || depth == 0 {
		if errors.Is(err, errSkip) {
			return nil
		}
		return err
	}
	n, err := w.s.node(ctx, p, depth)
	if err != nil && w.broken != nil && ctx.Err() == nil {
		return w.broken(err)
	}
	if err != nil {
		return err
	}
	if w.enter != nil {
		if err := w.enter(n, depth); err != nil {
			return err
		}
	}
	for _, child := range n.pointers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.from(ctx, child, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func hashOf(b []byte) Hash { return sha256.Sum256(b) }
