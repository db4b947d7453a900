package hypercore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/cloudbevy/bevy/hyper/merkle"
)

// A Source brings what is not held here, from peers. The replicator of a log is
// one. Its methods return when the thing was added to the log, or why it could
// not be had; they are called by many goroutines.
type Source interface {
	// FetchBlock brings a block.
	FetchBlock(ctx context.Context, index uint64) error
	// FetchSeek brings nodes that say more about where byte pos is, which is among
	// the blocks of r as far as is known here. padding bytes of a block don't count.
	FetchSeek(ctx context.Context, pos, padding uint64, r Range) error
	// FetchRange brings all blocks of a range.
	FetchRange(ctx context.Context, r DownloadRange) error
	// FetchHead brings the latest head that peers have, if it is newer.
	FetchHead(ctx context.Context) error
}

// A DownloadRange says which blocks to bring.
type DownloadRange struct {
	From uint64
	To   uint64 // without it; 0 is the length now, or with Live no end
	// Live goes on with the blocks that are yet to be appended.
	Live bool
	// Linear brings the first blocks first, for one who reads them in order;
	// otherwise those that the fewest peers have.
	Linear bool
}

// Download brings the blocks of the ranges here and returns when all are held, and
// on the disk.
// One that is live goes on until the context ends. What is missing without a
// source is ErrNotFound.
func (l *Log) Download(ctx context.Context, ranges ...DownloadRange) error {
	fail := func(err error) error { return fmt.Errorf("download log %s: %w", l.c.key, err) }
	if err := l.check(); err != nil {
		return fail(err)
	}
	if l.snap != nil || l.c.parent != nil {
		return fail(fmt.Errorf("%w: it is a draft or a snapshot", ErrNotWritable))
	}
	s := l.source()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var fetches sync.WaitGroup
	for _, r := range ranges {
		if r.To == 0 && !r.Live {
			r.To = l.Length()
		}
		if r.From >= r.To && !r.Live {
			continue
		}
		if held, ok := l.NextHeld(r.From); !r.Live && ok && held.Start == r.From && held.End >= r.To {
			continue
		}
		if s == nil {
			cancel(fmt.Errorf("there is no source of what is not held: %w", ErrNotFound))
			break
		}
		fetches.Go(func() {
			if err := s.FetchRange(ctx, r); err != nil {
				cancel(err)
			}
		})
	}
	fetches.Wait()
	if err := context.Cause(ctx); err != nil {
		return fail(err)
	}
	return l.Sync()
}

// SetSource gives the log a source of what it has not; nil takes it away.
func (l *Log) SetSource(s Source) {
	if s == nil {
		l.c.source.Store(nil)
		return
	}
	l.c.source.Store(&s)
}

// HasSource reports whether there is somebody to bring what is not held here.
func (l *Log) HasSource() bool { return l.source() != nil }

func (l *Log) source() Source {
	if s := l.c.source.Load(); s != nil {
		return *s
	}
	return nil
}

// Get returns a block, owned by the caller. A block that is not held is fetched
// if the log has a source, and ErrNotFound otherwise.
func (l *Log) Get(ctx context.Context, index uint64) ([]byte, error) {
	return l.GetIn(ctx, index, nil)
}

// GetIn is Get, but a large block may lie in buf, if that has room for it and a
// little more.
func (l *Log) GetIn(ctx context.Context, index uint64, buf []byte) ([]byte, error) {
	block, err := l.get(ctx, index, buf)
	if err != nil {
		return nil, fmt.Errorf("get block %d of log %s: %w", index, l.c.key, err)
	}
	return block, nil
}

func (l *Log) get(ctx context.Context, index uint64, buf []byte) ([]byte, error) {
	stored, err := l.storedIn(ctx, index, buf)
	if err != nil || l.encryption == nil {
		return stored, err
	}
	cipher, err := l.blockCipher()
	if err != nil {
		return nil, err
	}
	return cipher.open(index, stored)
}

// Stored is Get without decrypting.
func (l *Log) Stored(ctx context.Context, index uint64) ([]byte, error) {
	return l.storedIn(ctx, index, nil)
}

func (l *Log) storedIn(ctx context.Context, index uint64, buf []byte) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.snap != nil {
		return l.storedInSnapshot(ctx, index, buf)
	}
	for range 2 {
		l.c.mu.RLock()
		length, r, stale, closed := l.c.tree.Length, l.c.reader(), l.c.stale, l.c.closed
		l.c.mu.RUnlock()
		if closed {
			return nil, ErrClosed // the draft was thrown away
		}
		if stale && index < r.base {
			return nil, fmt.Errorf("%w below this draft", ErrTruncated)
		}
		if index < length {
			block, err := r.BlockIn(index, buf)
			if !isMissing(err) {
				return block, err
			}
		}
		s := l.source()
		if s == nil || l.c.parent != nil {
			break
		}
		if err := s.FetchBlock(ctx, index); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("it is not stored here: %w", ErrNotFound)
}

func (l *Log) storedInSnapshot(ctx context.Context, index uint64, buf []byte) ([]byte, error) {
	if index >= l.snap.tree.Length {
		return nil, fmt.Errorf("%w: the snapshot has %d blocks", ErrLength, l.snap.tree.Length)
	}
	block, err := l.snap.r.BlockIn(index, buf)
	if !isMissing(err) {
		return block, err
	}
	// The log may have it by now, if it is still the same one there.
	live := &Log{c: l.c}
	t := live.tree()
	if t.Length < l.snap.tree.Length {
		return nil, ErrTruncated
	}
	same, err := t.At(l.snap.tree.Length, live.reader())
	if err != nil || !same.Same(l.snap.tree) {
		return nil, errors.Join(ErrTruncated, err)
	}
	return live.storedIn(ctx, index, buf)
}

// Update asks the log's source for the latest head. Without a source it does
// nothing.
func (l *Log) Update(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	s := l.source()
	if s == nil || l.snap != nil {
		return nil
	}
	return s.FetchHead(ctx)
}

// Seek returns the block that holds byte number pos, and the byte's place in it.
// The end of the log is block Length, offset 0.
func (l *Log) Seek(ctx context.Context, pos uint64) (block, offset uint64, err error) {
	if err := l.check(); err != nil {
		return 0, 0, err
	}
	fail := func(err error) (uint64, uint64, error) {
		return 0, 0, fmt.Errorf("seek to byte %d of log %s: %w", pos, l.c.key, err)
	}
	for {
		t, padding := l.tree(), l.padding()
		s, err := t.Seek(pos, padding, l.reader())
		if err != nil {
			return fail(err)
		}
		if s.Found {
			return s.Block, s.Offset, nil
		}
		src := l.source()
		if src == nil || l.c.parent != nil {
			if s.Start == t.Length {
				return fail(fmt.Errorf("%w: it has %d bytes", ErrLength, t.ByteLength()-t.Length*padding))
			}
			return fail(fmt.Errorf("the tree of blocks %d to %d is not stored here: %w", s.Start, s.End, ErrNotFound))
		}
		if err := src.FetchSeek(ctx, pos, padding, Range{Start: s.Start, End: s.End}); err != nil {
			return fail(err)
		}
	}
}

// ByteOffset returns how many bytes lie before a block.
func (l *Log) ByteOffset(index uint64) (uint64, error) {
	t := l.tree()
	if index > t.Length {
		return 0, fmt.Errorf("byte offset of block %d: %w", index, ErrLength)
	}
	n, err := t.ByteOffset(2*index, l.reader())
	if err != nil {
		return 0, fmt.Errorf("byte offset of block %d: %w", index, err)
	}
	return n - index*l.padding(), nil
}

// noEnd is the end of a range without one.
const noEnd = ^uint64(0)

// readAheadBytes is about how much of what is read in order is fetched ahead.
const readAheadBytes = 4 << 20

// A readAhead has a log's source bring blocks before they are read.
type readAhead struct {
	l      *Log
	end    uint64 // of what will be read
	until  uint64 // what was asked for
	fetch  context.Context
	cancel context.CancelFunc
}

// at is told that block i is to be read next.
func (a *readAhead) at(ctx context.Context, i uint64) {
	s := a.l.source()
	if s == nil || a.l.c.parent != nil {
		return
	}
	t := a.l.tree()
	n := uint64(readAheadBytes)
	if size := t.ByteLength(); size > t.Length {
		n /= size / t.Length
	}
	n = min(max(n, 16), 1<<14)
	if a.until > i+n/2 || i >= t.Length {
		return
	}
	r := DownloadRange{From: max(i, a.until), To: min(i+n, a.end, t.Length), Linear: true}
	if held, ok := a.l.NextHeld(r.From); ok && held.Start == r.From {
		r.From = held.End
	}
	a.until = max(a.until, r.From, r.To)
	if r.From >= r.To {
		return
	}
	if a.fetch == nil {
		a.fetch, a.cancel = context.WithCancel(ctx)
	}
	fetch := a.fetch
	go func() { _ = s.FetchRange(fetch, r) }() // Get tells what fails
}

// stop takes back what was asked for.
func (a *readAhead) stop() {
	if a.cancel != nil {
		a.cancel()
	}
}

// BlockRange says which blocks Blocks returns. The zero value is all there are.
type BlockRange struct {
	From uint64
	To   uint64 // without it; 0 is the length at the start, or with Live no end
	// Live waits for blocks that are yet to be appended.
	Live bool
	// Reverse goes from the last to the first.
	Reverse bool
}

// Blocks returns blocks in order. It ends with the first error. A live range
// ends when the context does, with its error, and with ErrTruncated when a block
// that it returned was cut off.
func (l *Log) Blocks(ctx context.Context, r BlockRange) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		if err := l.blocks(ctx, r, yield); err != nil {
			yield(Block{}, err)
		}
	}
}

func (l *Log) blocks(ctx context.Context, r BlockRange, yield func(Block, error) bool) error {
	if r.Live && l.snap == nil { // a snapshot has no blocks to wait for
		return l.liveBlocks(ctx, r, yield)
	}
	end := r.To
	if end == 0 || r.Reverse {
		length := l.Length()
		if end == 0 || end > length {
			end = length
		}
	}
	if r.Reverse {
		for i := end; i > r.From; i-- {
			data, err := l.Get(ctx, i-1)
			if err != nil {
				return err
			}
			if !yield(Block{Index: i - 1, Data: data}, nil) {
				return nil
			}
		}
		return nil
	}
	ahead := readAhead{l: l, end: end}
	defer ahead.stop()
	for i := r.From; i < end; i++ {
		ahead.at(ctx, i)
		data, err := l.Get(ctx, i)
		if err != nil {
			return err
		}
		if !yield(Block{Index: i, Data: data}, nil) {
			return nil
		}
	}
	return nil
}

func (l *Log) liveBlocks(ctx context.Context, r BlockRange, yield func(Block, error) bool) error {
	if r.Reverse {
		return errors.New("blocks: a live range has no last block to begin with")
	}
	w, err := l.Watch()
	if err != nil {
		return err
	}
	defer w.Close()
	ahead := readAhead{l: l, end: cmp.Or(r.To, noEnd)}
	defer ahead.stop()
	fork, following := l.Fork(), false
	for i := r.From; r.To == 0 || i < r.To; {
		var data []byte
		var err error
		ready := i < l.Length()
		if ready {
			ahead.at(ctx, i)
			data, err = l.Get(ctx, i)
		}
		if l.Fork() == fork && ready {
			if err != nil || !yield(Block{Index: i, Data: data}, nil) {
				return err
			}
			i++
			continue
		}
		if s := l.source(); s != nil && !ready && !following && l.c.parent == nil {
			// What is to come is brought as soon as it is there.
			following = true
			follow, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() { _ = s.FetchRange(follow, DownloadRange{From: i, Live: true, Linear: true}) }()
		}
		// The event is there, or on its way when the log was cut.
		e, err := w.Next(ctx)
		switch {
		case err != nil:
			return err
		case e.Kind == Truncated && e.Fork > fork:
			if fork = e.Fork; e.Length < i {
				return fmt.Errorf("blocks: %w to %d, block %d was next", ErrTruncated, e.Length, i)
			}
		case e.Kind == Lagged && l.Fork() != fork:
			return fmt.Errorf("blocks: %w, block %d was next", ErrTruncated, i)
		}
	}
	return nil
}

// A Reader reads the bytes that a log had when it was made, block after block.
// One of a snapshot reads them also when the log is truncated. It is one
// goroutine's at a time, but for ReadAt, which is any's.
type Reader struct {
	l   *Log
	ctx context.Context

	pos, size int64
	block     Block // the one that pos is in, when data is not nil
	start     int64 // where it begins
	ahead     readAhead

	mu   sync.Mutex // guards last
	last struct {
		Block
		start int64
	}
}

var (
	_ io.ReadSeeker = (*Reader)(nil)
	_ io.ReaderAt   = (*Reader)(nil)
	_ io.WriterTo   = (*Reader)(nil)
)

// NewReader returns a reader of the log's bytes. What is not held is fetched
// while the context lasts.
func (l *Log) NewReader(ctx context.Context) *Reader {
	return &Reader{l: l, ctx: ctx, size: int64(l.ByteLength()), ahead: readAhead{l: l, end: l.Length()}}
}

// Size returns the number of bytes.
func (r *Reader) Size() int64 { return r.size }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.pos >= r.size {
		return 0, io.EOF
	}
	if err := r.load(); err != nil {
		return 0, err
	}
	n := copy(p, r.block.Data[r.pos-r.start:])
	r.pos += int64(n)
	return n, nil
}

// load makes block the one that holds pos, which is before the end.
func (r *Reader) load() error {
	for {
		if r.block.Data != nil && r.pos >= r.start {
			end := r.start + int64(len(r.block.Data))
			if r.pos < end {
				return nil
			}
			if r.pos == end {
				// The next block, without a seek.
				r.ahead.at(r.ctx, r.block.Index+1)
				data, err := r.l.Get(r.ctx, r.block.Index+1)
				if err != nil {
					return err
				}
				r.block, r.start = Block{Index: r.block.Index + 1, Data: data}, end
				continue
			}
		}
		b, start, err := r.find(r.pos)
		if err != nil {
			return err
		}
		r.block, r.start = b, start
	}
}

func (r *Reader) find(pos int64) (Block, int64, error) {
	index, offset, err := r.l.Seek(r.ctx, uint64(pos))
	if err != nil {
		return Block{}, 0, err
	}
	data, err := r.l.Get(r.ctx, index)
	if err != nil {
		return Block{}, 0, err
	}
	return Block{Index: index, Data: data}, pos - int64(offset), nil
}

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read at: negative offset")
	}
	r.mu.Lock()
	b, start := r.last.Block, r.last.start
	r.mu.Unlock()
	for n < len(p) {
		pos := off + int64(n)
		if pos >= r.size {
			return n, io.EOF
		}
		switch end := start + int64(len(b.Data)); {
		case b.Data != nil && pos >= start && pos < end:
		case b.Data != nil && pos == end:
			data, err := r.l.Get(r.ctx, b.Index+1)
			if err != nil {
				return n, err
			}
			b, start = Block{Index: b.Index + 1, Data: data}, end
			continue // it may be empty
		default:
			if b, start, err = r.find(pos); err != nil {
				return n, err
			}
		}
		n += copy(p[n:], b.Data[pos-start:])
	}
	r.mu.Lock()
	r.last.Block, r.last.start = b, start
	r.mu.Unlock()
	return n, nil
}

// Seek implements io.Seeker.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	case io.SeekStart:
	default:
		return 0, fmt.Errorf("seek: whence %d", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek: before the start")
	}
	r.pos = offset
	return offset, nil
}

// WriteTo implements io.WriterTo: it writes whole blocks.
func (r *Reader) WriteTo(w io.Writer) (total int64, err error) {
	for r.pos < r.size {
		if err := r.load(); err != nil {
			return total, err
		}
		part := r.block.Data[r.pos-r.start:]
		part = part[:min(int64(len(part)), r.size-r.pos)]
		n, err := w.Write(part)
		r.pos += int64(n)
		total += int64(n)
		if err == nil && n < len(part) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// A Writer appends bytes as blocks of one size, the last of which may be
// smaller. It is one goroutine's at a time.
type Writer struct {
	l       *Log
	ctx     context.Context
	o       AppendOptions
	size    int
	partial []byte
	full    [][]byte
	err     error
}

// writerBatch is about how many bytes a Writer appends at once.
const writerBatch = 4 << 20

// NewWriter returns a writer of blocks of blockSize bytes, 64 KiB when 0. What
// was written is in the log after Flush or Close.
func (l *Log) NewWriter(ctx context.Context, blockSize int, o AppendOptions) *Writer {
	if blockSize <= 0 {
		blockSize = 64 << 10
	}
	return &Writer{l: l, ctx: ctx, o: o, size: min(blockSize, MaxBlock)}
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.err != nil {
			return n, w.err
		}
		if w.partial == nil {
			w.partial = make([]byte, 0, w.size)
		}
		k := min(w.size-len(w.partial), len(p))
		w.partial = append(w.partial, p[:k]...)
		p = p[k:]
		n += k
		if len(w.partial) == w.size {
			w.full, w.partial = append(w.full, w.partial), nil
			if len(w.full)*w.size >= writerBatch {
				w.flushFull()
			}
		}
	}
	return n, w.err
}

func (w *Writer) flushFull() {
	if w.err == nil && len(w.full) > 0 {
		_, w.err = w.l.AppendWith(w.ctx, w.o, w.full...)
		w.full = nil
	}
}

// Flush appends what was written, the last block as long as it is.
func (w *Writer) Flush() error {
	if len(w.partial) > 0 {
		w.full, w.partial = append(w.full, w.partial), nil
	}
	w.flushFull()
	return w.err
}

// Close flushes. It does not close the log.
func (w *Writer) Close() error { return w.Flush() }

// Node returns a node of the log's tree, or an error that wraps merkle.ErrNoNode.
func (l *Log) Node(index uint64) (merkle.Node, error) { return l.reader().Node(index) }
