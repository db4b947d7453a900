package hyperblobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

const (
	// groupBytes is about how much is appended at once.
	groupBytes = 4 << 20
	// heldBytes is how much a Writer keeps before it begins to append, and with
	// that to keep other writers waiting.
	heldBytes = 1 << 20
)

// lock makes this the only goroutine that appends.
func (b *Blobs) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case b.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Blobs) unlock() { <-b.writing }

// An end is where the log ends, as whoever writes sees it.
type end struct{ fork, blocks, bytes uint64 }

func (b *Blobs) end() end {
	// If somebody else appends between these, the append conflicts.
	return end{b.log.Fork(), b.log.Length(), b.log.ByteLength()}
}

// append appends blocks at the log's end, and moves it.
func (b *Blobs) append(ctx context.Context, at *end, d hypercore.Durability, blocks [][]byte) error {
	if len(blocks) == 0 {
		return nil
	}
	want := at.blocks + uint64(len(blocks))
	length, err := b.log.AppendWith(ctx, hypercore.AppendOptions{Durability: d, MaxLength: want}, blocks...)
	switch {
	case errors.Is(err, hypercore.ErrLength):
		return fmt.Errorf("%w: somebody else appends to the log: %w", ErrConflict, err)
	case err != nil:
		return err
	case length != want || b.log.Fork() != at.fork:
		return fmt.Errorf("%w: the log was truncated while a blob was written", ErrConflict)
	}
	at.blocks = want
	for _, block := range blocks {
		at.bytes += uint64(len(block))
	}
	return nil
}

// clear frees what was appended of a blob that is given up. Those who come next
// append after it, whether it could be freed or not.
func (b *Blobs) clear(ctx context.Context, first, at end) {
	// After a truncation, others' blocks may be there.
	if at.blocks > first.blocks && b.log.Fork() == first.fork {
		_, _ = b.log.Clear(context.WithoutCancel(ctx), first.blocks, at.blocks)
	}
}

// Put appends a blob. It does not keep data.
func (b *Blobs) Put(ctx context.Context, data []byte) (ID, error) {
	ids, err := b.PutAll(ctx, data)
	if err != nil {
		return ID{}, err
	}
	return ids[0], nil
}

// PutAll appends several blobs, together: small ones cost much less so. It does
// not keep their data.
func (b *Blobs) PutAll(ctx context.Context, data ...[]byte) ([]ID, error) {
	p := &put{ctx: ctx, data: data, ids: make([]ID, len(data)), done: make(chan struct{})}
	err := ctx.Err()
	if err == nil {
		b.puts.add(p)
		select {
		case b.writing <- struct{}{}:
			b.putAll(b.puts.take())
			b.unlock()
			<-p.done // in this turn or one before
		case <-p.done:
		case <-ctx.Done():
			if b.puts.forget(p) {
				p.err = ctx.Err()
			} else {
				<-p.done // its turn has come
			}
		}
		err = p.err
	}
	if err != nil {
		return nil, fmt.Errorf("put blobs: %w", err)
	}
	return p.ids, nil
}

// A put is a call of PutAll that waits for its turn.
type put struct {
	ctx  context.Context
	data [][]byte
	ids  []ID
	err  error
	done chan struct{} // closed when ids and err are set
}

// puts are those that wait. Whoever gets the turn appends the blobs of all.
type puts struct {
	mu   sync.Mutex
	list []*put
}

func (q *puts) add(p *put) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, p)
}

func (q *puts) take() []*put {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

// forget takes one out, and reports whether it was there.
func (q *puts) forget(p *put) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.list)
	q.list = slices.DeleteFunc(q.list, func(other *put) bool { return other == p })
	return len(q.list) < n
}

// putAll appends the blobs of puts in groups, each of which fails or not as one.
func (b *Blobs) putAll(list []*put) {
	for len(list) > 0 {
		n, size := 0, 0
		for ; n < len(list) && (n == 0 || size < groupBytes); n++ {
			for _, data := range list[n].data {
				size += len(data)
			}
		}
		group := list[:n]
		list = list[n:]
		err := b.putGroup(group)
		for _, p := range group {
			if p.err == nil {
				p.err = err
			}
			close(p.done)
		}
	}
}

func (b *Blobs) putGroup(list []*put) error {
	ctx := list[0].ctx
	if len(list) > 1 { // one that ends must not fail the others
		ctx = context.WithoutCancel(ctx)
	}
	first := b.end()
	at := first
	var group [][]byte
	size := 0
	for _, p := range list {
		if p.err = p.ctx.Err(); p.err != nil {
			continue
		}
		for i, data := range p.data {
			p.ids[i] = ID{
				BlockOffset: at.blocks + uint64(len(group)),
				BlockLength: uint64((len(data) + b.blockSize - 1) / b.blockSize),
				ByteOffset:  at.bytes + uint64(size),
				ByteLength:  uint64(len(data)),
			}
			for len(data) > 0 {
				if size >= groupBytes {
					if err := b.append(ctx, &at, hypercore.Soon, group); err != nil {
						b.clear(ctx, first, at)
						return err
					}
					group, size = group[:0], 0
				}
				n := min(len(data), b.blockSize)
				group = append(group, data[:n:n])
				size += n
				data = data[n:]
			}
		}
	}
	if err := b.append(ctx, &at, b.o.Durability, group); err != nil {
		b.clear(ctx, first, at)
		return err
	}
	return nil
}

// WriteOptions for one blob.
type WriteOptions struct {
	// Dedup cuts the blob where its content says, and does not store again what
	// Base, or the blob itself so far, has. The blob gets a block map.
	Dedup bool
	// Base is the blob that this one is a newer version of.
	Base *ID
	// Chunks makes each Write a block, of up to hypercore.MaxBlock bytes, as
	// hyperblobs' write streams do.
	Chunks bool
	// BlockMap gives the blob a block map.
	BlockMap bool
}

// A Writer writes one blob. What is small is kept in memory and appended by
// Close. A larger blob keeps other writers waiting from its first append until
// Close or Abort, one of which must be called. It is one goroutine's at a time.
type Writer struct {
	b   *Blobs
	ctx context.Context
	o   WriteOptions

	partial []byte   // of the next block, or with a cutter what is not cut yet
	full    [][]byte // blocks to append
	bytes   int      // in full
	spare   [][]byte // blocks to use again

	locked bool
	first  end // where the blob's blocks begin, once locked
	at     end // where the log ends
	err    error
	closed bool
	id     ID

	// Of a blob with a block map.
	chunks []ownChunk
	seen   map[chunkHash]ownChunk // with Dedup, once something was written
	cutter *Cutter                // with Dedup, unless the caller cuts
}

// An ownChunk is a chunk. One that is the blob's own counts from the blob's
// first block, whose number is not known from the start.
type ownChunk struct {
	Chunk
	own bool
}

var _ interface {
	io.WriteCloser
	io.ReaderFrom
} = (*Writer)(nil)

// NewWriter returns a writer of a new blob.
func (b *Blobs) NewWriter(ctx context.Context, o WriteOptions) *Writer {
	w := &Writer{b: b, ctx: ctx, o: o}
	if o.Dedup && !o.Chunks {
		c := NewCutter(b.blockSize)
		w.cutter = &c
	}
	return w
}

// errEnded is of writers that are used on.
var errEnded = errors.New("the writer was closed")

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (n int, err error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	if w.o.Chunks {
		if len(p) > hypercore.MaxBlock {
			return 0, fmt.Errorf("write blob: a chunk of %d bytes: %w", len(p), hypercore.ErrTooLarge)
		}
		if len(p) > 0 && !w.stored(p) {
			w.add(append(w.block(len(p)), p...))
		}
		return len(p), w.err
	}
	for len(p) > 0 && w.err == nil {
		room := w.room()
		k := copy(room, p)
		w.took(k)
		p = p[k:]
		n += k
	}
	return n, w.err
}

// ReadFrom implements io.ReaderFrom.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	if w.o.Chunks {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	for w.err == nil {
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
	return n, w.err
}

// begin returns why nothing can be written, or nil.
func (w *Writer) begin() error {
	if w.closed && w.err == nil {
		return fmt.Errorf("write blob: %w", errEnded)
	}
	w.learn()
	return w.err
}

// room returns where the next bytes go.
func (w *Writer) room() []byte {
	if w.partial == nil {
		if w.cutter != nil {
			w.partial = make([]byte, 0, 4*w.cutter.max)
		} else {
			w.partial = w.block(w.b.blockSize)
		}
	}
	return w.partial[len(w.partial):cap(w.partial)]
}

// took is told that n bytes were put there.
func (w *Writer) took(n int) {
	w.partial = w.partial[:len(w.partial)+n]
	if len(w.partial) < cap(w.partial) {
		return
	}
	if w.cutter != nil {
		w.cut(false)
		return
	}
	block := w.partial
	w.partial = nil
	w.add(block)
}

// block returns an empty block with room for size bytes.
func (w *Writer) block(size int) []byte {
	if n := len(w.spare); n > 0 && cap(w.spare[n-1]) >= size {
		block := w.spare[n-1]
		w.spare = w.spare[:n-1]
		return block[:0:size]
	}
	return make([]byte, 0, size)
}

// add takes the next block. What it can't append is in err.
func (w *Writer) add(block []byte) {
	if w.err != nil {
		return
	}
	limit := heldBytes
	if w.locked {
		limit = groupBytes
	}
	if w.bytes+len(block) > limit && len(w.full) > 0 {
		if w.append(hypercore.Soon); w.err != nil {
			return
		}
	}
	if w.o.Dedup || w.o.BlockMap {
		w.name(w.next(len(block)))
	}
	w.full = append(w.full, block)
	w.bytes += len(block)
}

// next returns the next block as a chunk.
func (w *Writer) next(size int) ownChunk {
	return ownChunk{Chunk{w.at.blocks - w.first.blocks + uint64(len(w.full)), uint64(size)}, true}
}

// name adds a chunk to the block map.
func (w *Writer) name(c ownChunk) {
	if len(w.chunks) == maxChunks {
		w.err = fmt.Errorf("write blob: a block map of more than %d chunks: %w", maxChunks, hypercore.ErrTooLarge)
		return
	}
	w.chunks = append(w.chunks, c)
}

// append appends the blocks that are full, and those of last after them.
func (w *Writer) append(d hypercore.Durability, last ...[]byte) {
	if w.err != nil {
		return
	}
	if w.err = w.lock(); w.err != nil {
		return
	}
	if err := w.b.append(w.ctx, &w.at, d, append(w.full, last...)); err != nil {
		w.err = fmt.Errorf("write blob: %w", err)
		return
	}
	w.spare = append(w.spare[:0], w.full...)
	w.full, w.bytes = w.full[:0], 0
}

// lock keeps other writers waiting.
func (w *Writer) lock() error {
	if w.locked {
		return nil
	}
	if err := w.b.lock(w.ctx); err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	w.locked = true
	w.first = w.b.end()
	w.at = w.first
	return nil
}

// Close appends what is left. The blob is in the log then, and on the disk if
// the blobs are Durable. After an error nothing of it is.
func (w *Writer) Close() error {
	if w.closed {
		return w.err
	}
	w.finish()
	if w.err != nil {
		w.Abort()
		return w.err
	}
	w.closed = true
	w.b.unlock()
	return nil
}

func (w *Writer) finish() {
	switch {
	case w.cutter != nil:
		w.cut(true)
	case len(w.partial) > 0:
		w.add(w.partial)
	}
	w.partial = nil
	if w.err == nil {
		w.err = w.lock()
	}
	if w.err != nil {
		return
	}
	var blocks [][]byte
	if len(w.chunks) > 0 { // the reference can't read an empty map
		chunks := make([]Chunk, len(w.chunks))
		for i, c := range w.chunks {
			if chunks[i] = c.Chunk; c.own {
				chunks[i].Index += w.first.blocks
			}
		}
		blocks = AppendMap(nil, chunks)
		w.id = ID{BlockOffset: w.at.blocks + uint64(len(w.full)), ByteOffset: w.at.bytes + uint64(w.bytes), BlockMap: true}
	} else {
		w.id = ID{BlockOffset: w.first.blocks, ByteOffset: w.first.bytes}
	}
	w.append(w.b.o.Durability, blocks...)
	w.id.BlockLength = w.at.blocks - w.id.BlockOffset
	w.id.ByteLength = w.at.bytes - w.id.ByteOffset
}

// Abort gives up the blob and frees the space that it took. After Close it does
// nothing.
func (w *Writer) Abort() {
	if w.closed {
		return
	}
	w.closed = true
	if w.err == nil {
		w.err = errors.New("the writer was aborted")
	}
	if w.locked {
		w.b.clear(w.ctx, w.first, w.at)
		w.b.unlock()
	}
	w.partial, w.full, w.spare = nil, nil, nil
}

// ID returns the blob's id, once Close has returned nil.
func (w *Writer) ID() ID { return w.id }
