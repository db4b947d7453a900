package content

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Hold keeps contents from being swept while nothing else names them yet: all
// that is written after it was taken, and what it is told to keep. Everything is
// written through one. Any goroutine may call its methods.
type Hold struct {
	s     *Store
	start uint64 // of the own log
	refs  []Ref  // guarded by the store's mu

}

// Hold returns a new hold, to be released once everything written through it is
// named by something that is kept, or given up.
func (s *Store) Hold() *Hold {
	s.clearing.RLock()
	defer s.clearing.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &Hold{s: s}
	if s.own != nil {
		h.start = s.own.log.Length()
	}
	s.holds[h] = true
	return h
}

// Keep keeps contents that are to be named again. They must be kept by something
// else now, or be written through this hold.
func (h *Hold) Keep(refs ...Ref) {
	s := h.s
	s.clearing.RLock()
	defer s.clearing.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range refs {
		if r.Size == 0 {
			continue
		}
		h.refs = append(h.refs, r)
		if s.sweep != nil {
			s.sweep.late = append(s.sweep.late, r)
		}
	}
}

// Release ends the hold. It may be called more than once.
func (h *Hold) Release() {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	delete(h.s.holds, h)
	h.refs = nil
}

// groupBytes is about how much a writer has at once: half of it is appended while the
// other half is read. Several writers share groupsBytes, as long as that is minGroup
// for each, so that many need not much more memory than a few.
const (
	groupBytes  = 8 << 20
	groupsBytes = 12 << 20
	minGroup    = 256 << 10
)

// group is how much of groupBytes a writer may have now.
func (s *Store) group() int {
	return max(minGroup, min(groupBytes, groupsBytes/max(1, int(s.writers.Load()))))
}

// append appends blocks to the own log, and returns the number of the first.
func (h *Hold) append(ctx context.Context, blocks [][]byte) (log LogID, first uint64, err error) {
	h.s.mu.Lock()
	own := h.s.own
	h.s.mu.Unlock()
	if own == nil {
		return LogID{}, 0, ErrReadOnly
	}
	length, err := own.log.AppendWith(ctx, hypercore.AppendOptions{Durability: hypercore.Soon}, blocks...)
	if err != nil {
		return LogID{}, 0, err
	}
	return own.id, length - uint64(len(blocks)), nil
}

// Put writes a content. It does not keep data.
func (h *Hold) Put(ctx context.Context, data []byte) (Ref, error) {
	refs, err := h.PutAll(ctx, data)
	if err != nil {
		return Ref{}, err
	}
	return refs[0], nil
}

// PutAll writes several contents together: small ones cost much less so. It does
// not keep their data.
func (h *Hold) PutAll(ctx context.Context, data ...[]byte) ([]Ref, error) {
	refs := make([]Ref, len(data))
	var group [][]byte
	var whose []int
	size := 0
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		log, first, err := h.append(ctx, group)
		if err != nil {
			return err
		}
		for i, n := range whose {
			refs[n] = Ref{Size: int64(len(data[n])), Hash: hashOf(data[n]), log: log, index: first + uint64(i)}
		}
		group, whose, size = group[:0], whose[:0], 0
		return nil
	}
	for i, p := range data {
		var err error
		switch {
		case len(p) == 0:
			refs[i] = Empty()
		case len(p) > h.s.o.ChunkSize:
			w := h.NewWriter(ctx, WriteOptions{})
			if _, err = w.Write(p); err == nil {
				err = w.Close()
			}
			w.Abort()
			refs[i] = w.Ref()
		default:
			group, whose = append(group, p), append(whose, i)
			if size += len(p); size >= groupBytes/2 {
				err = flush()
			}
		}
		if err != nil {
			return nil, fmt.Errorf("put contents: %w", err)
		}
	}
	if err := flush(); err != nil {
		return nil, fmt.Errorf("put contents: %w", err)
	}
	return refs, nil
}

// Empty returns the Ref of an empty content.
func Empty() Ref { return Ref{Hash: emptyHash} }

// WriteOptions for one content.
type WriteOptions struct {
	// Base is the content that this one is a newer version of: what they share, and
	// what of it is here, is not stored again. The zero value is none. It must be one
	// that is kept.
	Base Ref
}

// A Writer writes one content, with memory that does not grow with it. Several
// may be used at the same time; each is one goroutine's at a time. It must be
// closed or aborted.
type Writer struct {
	h    *Hold
	ctx  context.Context
	hash hash.Hash
	size int64

	buf    []byte      // what is not cut yet
	hashed int         // of buf, how much is in hash
	chunks []chunk     // to be appended, or found already, in order
	group  []byte      // of chunks that are to be appended
	away   *group      // that is being appended meanwhile
	spare  group       // to be used again
	levels [][]pointer // of nodes that are not full, from those of chunks up
	base   *base

	ref     Ref
	err     error
	closed  bool
	counted bool // among the store's writers
}

// A group is chunks or nodes that are appended together.
type group struct {
	chunks []chunk
	data   []byte // that chunks lie in
	blocks [][]byte
	first  map[Hash]int // of blocks

	// What became of it, once done is closed.
	log   LogID
	index uint64
	err   error
	done  chan struct{}
}

// A chunk is bytes that were cut off, or a pointer to the same bytes.
type chunk struct {
	pointer
	data []byte // nil when they are stored
}

var _ interface {
	io.WriteCloser
	io.ReaderFrom
} = (*Writer)(nil)

// NewWriter returns a writer of a new content.
func (h *Hold) NewWriter(ctx context.Context, o WriteOptions) *Writer {
	w := &Writer{h: h, ctx: ctx, hash: sha256.New(), counted: true}
	h.s.writers.Add(1)
	h.Keep(o.Base)
	w.base = newBase(h.s, o.Base)
	return w
}

var errEnded = errors.New("the writer was closed")

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && w.usable() {
		room := w.room()
		k := copy(room, p)
		w.took(k)
		p = p[k:]
		n += k
	}
	return n, w.failure()
}

// ReadFrom implements io.ReaderFrom.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	for w.usable() {
		k, err := r.Read(w.room())
		w.took(k)
		n += int64(k)
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
	}
	return n, w.failure()
}

func (w *Writer) usable() bool { return w.err == nil && !w.closed }

func (w *Writer) failure() error {
	if w.err == nil && w.closed {
		return fmt.Errorf("write content: %w", errEnded)
	}
	return w.err
}

func (w *Writer) fail(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("write content: %w", err)
	}
}

// room returns where the next bytes go.
func (w *Writer) room() []byte {
	if len(w.buf) == cap(w.buf) {
		// Small contents need little, large ones are cut rarely.
		size := 4 * w.h.s.cutter.Max()
		if w.h.s.group() < groupBytes/8 {
			size = w.h.s.cutter.Max() * 3 / 2
		}
		if cap(w.buf) < w.h.s.o.ChunkSize {
			size = max(4<<10, min(4*cap(w.buf), w.h.s.o.ChunkSize))
		}
		w.buf = append(make([]byte, 0, max(size, cap(w.buf))), w.buf...)
	}
	return w.buf[len(w.buf):cap(w.buf)]
}

// took is told that n bytes were put there.
func (w *Writer) took(n int) {
	w.size += int64(n)
	w.buf = w.buf[:len(w.buf)+n]
	if len(w.buf) == cap(w.buf) && len(w.buf) > w.h.s.cutter.Max() {
		w.cut(false)
	}
}

// cut takes off the chunks that the buffer begins with, all when it is the end.
func (w *Writer) cut(end bool) {
	c := &w.h.s.cutter
	rest := w.buf
	whole := sync.WaitGroup{} // the hash of all of it is made beside those of chunks
	fresh := rest[w.hashed:]
	if len(fresh) > w.h.s.o.ChunkSize {
		whole.Go(func() { w.hash.Write(fresh) })
	} else {
		w.hash.Write(fresh)
	}
	for w.err == nil && (len(rest) >= c.Max() || end && len(rest) > 0) {
		n := c.Cut(rest)
		if end && w.size == int64(len(rest)) && len(rest) <= w.h.s.o.ChunkSize {
			n = len(rest) // all of it is small: one block
		}
		w.add(rest[:n])
		rest = rest[n:]
	}
	whole.Wait()
	w.buf = w.buf[:copy(w.buf, rest)]
	w.hashed = len(w.buf)
}

// add takes the next chunk. It does not keep data.
func (w *Writer) add(data []byte) {
	hash := hashOf(data)
	c, ok, err := w.base.find(w.ctx, hash, data, 0, w.size)
	if err != nil {
		w.fail(err)
		return
	}
	if !ok {
		// When the group has to grow, chunks before stay where they were.
		n := len(w.group)
		if group := w.h.s.group() / 2; cap(w.group) < group && n >= group/4 {
			w.group = append(make([]byte, 0, group+w.h.s.o.ChunkSize), w.group...)
		}
		w.group = append(w.group, data...)
		w.chunks = append(w.chunks, chunk{pointer{size: int64(len(data)), hash: hash}, w.group[n:len(w.group):len(w.group)]})
	} else {
		w.chunks = append(w.chunks, chunk{pointer: c})
	}
	// There are two groups: this one, and the one before.
	if len(w.group) >= w.h.s.group()/2 || len(w.chunks) >= 4*maxPointers {
		w.send()
	}
}

// settle appends the chunks that wait, and the nodes that are full with them.
func (w *Writer) settle() {
	w.send()
	w.arrive()
}

// send begins to append the chunks that wait, when those before are there.
func (w *Writer) send() {
	w.arrive()
	if w.err != nil || len(w.chunks) == 0 {
		return
	}
	for i, c := range w.chunks { // that came with those before, too
		if p, ok := w.base.mine(c.hash, 0); c.data != nil && ok {
			w.chunks[i] = chunk{pointer: p}
		}
	}
	g := newGroup(w.chunks)
	g.data = w.group
	w.away, w.chunks, w.group, w.spare = g, w.spare.chunks, w.spare.data, group{}
	go g.append(w.ctx, w.h)
}

// arrive waits for the chunks that are being appended, and makes nodes of them.
func (w *Writer) arrive() {
	g := w.away
	if g == nil {
		return
	}
	w.away = nil
	for depth := 0; ; depth++ {
		<-g.done
		pointers, err := w.pointers(depth, g)
		if err != nil {
			w.fail(err)
			return
		}
		if depth == 0 && w.err == nil {
			clear(g.chunks)
			w.spare = group{chunks: g.chunks[:0], data: g.data[:0]}
			if cap(g.data) > w.h.s.group() {
				w.spare.data = nil
			}
		}
		if depth == len(w.levels) {
			w.levels = append(w.levels, nil)
		}
		var nodes []chunk
		for _, p := range pointers {
			w.levels[depth] = append(w.levels[depth], p)
			if closes(len(w.levels[depth]), p) {
				node, err := w.node(depth+1, w.levels[depth])
				if err != nil {
					w.fail(err)
					return
				}
				nodes = append(nodes, node)
				w.levels[depth] = w.levels[depth][:0]
			}
		}
		if len(nodes) == 0 {
			return
		}
		g = newGroup(nodes)
		g.append(w.ctx, w.h)
	}
}

// newGroup returns what is not stored yet of chunks or nodes, once each.
func newGroup(chunks []chunk) *group {
	g := &group{chunks: chunks, first: map[Hash]int{}, done: make(chan struct{})}
	for _, c := range chunks {
		if c.data == nil {
			continue
		}
		if _, ok := g.first[c.hash]; !ok {
			g.first[c.hash] = len(g.blocks)
			g.blocks = append(g.blocks, c.data)
		}
	}
	return g
}

// append appends the blocks of a group.
func (g *group) append(ctx context.Context, h *Hold) {
	defer close(g.done)
	if len(g.blocks) > 0 {
		g.log, g.index, g.err = h.append(ctx, g.blocks)
	}
}

// pointers returns where the chunks of a group are, which is done.
func (w *Writer) pointers(depth int, g *group) ([]pointer, error) {
	if g.err != nil {
		return nil, g.err
	}
	out := make([]pointer, len(g.chunks))
	for i, c := range g.chunks {
		out[i] = c.pointer
		if c.data != nil {
			out[i].log, out[i].index = g.log, g.index+uint64(g.first[c.hash])
			w.base.learn(out[i], depth, true)
		}
	}
	return out, nil
}

// node makes a node at a depth.
func (w *Writer) node(depth int, pointers []pointer) (chunk, error) {
	if depth > maxDepth {
		return chunk{}, fmt.Errorf("%d bytes: %w", w.size, hypercore.ErrTooLarge)
	}
	data := appendNode(nil, depth, pointers)
	c := chunk{pointer{hash: hashOf(data)}, data}
	for _, p := range pointers {
		c.size += p.size
	}
	found, ok, err := w.base.find(w.ctx, c.hash, data, depth, 0)
	if ok {
		found.size = c.size
		c = chunk{pointer: found}
	}
	return c, err
}

// finish closes the nodes that are not full yet, without changing the levels, and
// returns the pointer to all of it.
func (w *Writer) finish() (root pointer, depth int, err error) {
	var up []pointer
	for depth = 0; ; depth++ {
		var level []pointer
		if depth < len(w.levels) {
			level = w.levels[depth]
		}
		level = append(slices.Clip(level), up...)
		// Nothing but what is here is above it.
		if len(level) == 1 && depth >= len(w.levels)-1 {
			return level[0], depth, nil
		}
		up = nil
		if len(level) == 0 {
			continue
		}
		node, err := w.node(depth+1, level)
		if err != nil {
			return pointer{}, 0, err
		}
		g := newGroup([]chunk{node})
		g.append(w.ctx, w.h)
		if up, err = w.pointers(depth+1, g); err != nil {
			return pointer{}, 0, err
		}
	}
}

// Flush stores what was written so far and returns a Ref of it, for those who
// follow a content that is still being written. Some of it is stored again later:
// up to about 300 KiB for each Flush.
func (w *Writer) Flush() (Ref, error) {
	if !w.usable() {
		return Ref{}, w.failure()
	}
	if w.size == 0 {
		return Empty(), nil
	}
	// The rest is stored as if it were the end, in copies of all that changes.
	w.cut(false)
	w.settle()
	buf, levels := slices.Clone(w.buf), make([][]pointer, len(w.levels))
	for i, level := range w.levels {
		levels[i] = slices.Clone(level)
	}
	ref, err := w.end()
	w.buf, w.hashed, w.levels = append(w.buf[:0], buf...), len(buf), levels
	w.fail(err)
	return ref, w.err
}

// end stores all that is left.
func (w *Writer) end() (Ref, error) {
	if w.size == 0 {
		return Empty(), w.err
	}
	w.cut(true)
	w.settle()
	if w.err != nil {
		return Ref{}, w.err
	}
	root, depth, err := w.finish()
	if err != nil {
		return Ref{}, err
	}
	return Ref{Size: w.size, Hash: Hash(w.hash.Sum(nil)), log: root.log, index: root.index, depth: uint8(depth)}, nil
}

// Close stores what is left. Ref returns the content then.
func (w *Writer) Close() error {
	if w.closed || w.err != nil {
		w.Abort()
		return w.err
	}
	ref, err := w.end()
	w.fail(err)
	w.ref = ref
	w.Abort()
	return w.err
}

// Abort gives up the content, after Close nothing. What was stored of it is freed
// by the next sweep after the hold is released.
func (w *Writer) Abort() {
	if !w.closed && w.err == nil && w.ref.IsZero() {
		w.err = errors.New("write content: the writer was aborted")
	}
	w.closed = true
	if w.away != nil {
		<-w.away.done
	}
	if w.counted {
		w.counted = false
		w.h.s.writers.Add(-1)
	}
	w.buf, w.chunks, w.group, w.away, w.spare, w.levels, w.base = nil, nil, nil, nil, group{}, nil, nil
}

// Ref returns the content, once Close has returned nil.
func (w *Writer) Ref() Ref { return w.ref }

// A base knows what is stored already of contents that are alike: of the content
// before, which it reads as the writer goes on, and of what was written so far.
type base struct {
	s      *Store
	todo   []todo         // nodes of the base that were not read yet, the next one last
	bytes  int64          // of the base that were
	seen   map[place]bool // nodes of it that were
	known  map[known]stored
	order  []known // in the order in which they came, to be forgotten
	oldest int
}

// A stored is where a chunk or node is. It is sure when this writer stored it.
type stored struct {
	pointer
	sure bool
}

type todo struct {
	pointer
	depth int
}

// known is the beginning of a hash, and the depth of what has it.
type known struct {
	hash  [16]byte
	depth uint8
}

const (
	// maxKnown bounds what a base knows, to some 30 MiB: the chunks of about 16 GiB.
	maxKnown = 1 << 18
	// baseAhead is how far the base is read beyond what was written.
	baseAhead = 8 << 30
)

func newBase(s *Store, r Ref) *base {
	b := &base{s: s, known: map[known]stored{}}
	if r.Size > 0 && r.depth == 0 {
		b.learn(r.root(), 0, false)
	} else if r.Size > 0 {
		root := r.root()
		root.hash = Hash{} // of the node, which is not known
		b.todo = append(b.todo, todo{root, int(r.depth)})
	}
	return b
}

// learn notes where a chunk or node is.
func (b *base) learn(p pointer, depth int, sure bool) {
	k := known{[16]byte(p.hash[:16]), uint8(depth)}
	if have, ok := b.known[k]; ok {
		if sure && !have.sure {
			b.known[k] = stored{p, sure}
		}
		return
	}
	b.known[k] = stored{p, sure}
	if len(b.order) < maxKnown {
		b.order = append(b.order, k)
		return
	}
	delete(b.known, b.order[b.oldest])
	b.order[b.oldest] = k
	b.oldest = (b.oldest + 1) % maxKnown
}

// read reads the base up to some bytes. Nodes that are not here or make no sense
// have nothing to share.
func (b *base) read(ctx context.Context, upTo int64) error {
	for len(b.todo) > 0 && b.bytes < upTo {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := b.todo[len(b.todo)-1]
		b.todo = b.todo[:len(b.todo)-1]
		if next.depth == 0 {
			b.learn(next.pointer, 0, false)
			b.bytes += next.size
			continue
		}
		at := place{next.log, next.index, uint8(next.depth)}
		if b.seen[at] || !b.s.has(next.pointer) {
			b.bytes += next.size
			continue
		}
		if b.seen == nil {
			b.seen = map[place]bool{}
		}
		b.seen[at] = true
		block, err := b.s.block(ctx, next.pointer)
		if err != nil {
			return err
		}
		n, err := readNode(block, next.depth, next.size)
		if err != nil {
			b.bytes += next.size
			continue
		}
		next.hash = hashOf(block)
		b.learn(next.pointer, next.depth, false)
		for _, p := range slices.Backward(n.pointers) {
			b.todo = append(b.todo, todo{p, next.depth - 1})
		}
	}
	return nil
}

// mine returns where this writer has stored a chunk or node, if it is still there.
func (b *base) mine(hash Hash, depth int) (pointer, bool) {
	p, ok := b.known[known{[16]byte(hash[:16]), uint8(depth)}]
	return p.pointer, ok && p.sure && p.hash == hash && b.s.has(p.pointer)
}

// find returns where the same bytes are. Those that this writer did not store must
// be here and the same: nobody's word for it is taken, nor that others will keep
// what this device has in its hands. pos is about where they are in the content.
func (b *base) find(ctx context.Context, hash Hash, data []byte, depth int, pos int64) (pointer, bool, error) {
	if err := b.read(ctx, pos+baseAhead); err != nil {
		return pointer{}, false, err
	}
	p, ok := b.known[known{[16]byte(hash[:16]), uint8(depth)}]
	if !ok || p.hash != hash || depth == 0 && p.size != int64(len(data)) || !b.s.has(p.pointer) {
		return pointer{}, false, nil
	}
	if p.sure {
		return p.pointer, true, nil
	}
	block, err := b.s.block(ctx, p.pointer)
	if err != nil || !bytes.Equal(block, data) {
		return pointer{}, false, ctx.Err()
	}
	return p.pointer, true, nil
}
