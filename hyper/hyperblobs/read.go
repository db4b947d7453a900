package hyperblobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Reader reads a blob, or a range of one. What is not held is fetched while
// the context lasts, when reading in order also ahead of it. It is one
// goroutine's at a time, but for ReadAt, which is any's.
type Reader struct {
	b      *Blobs
	ctx    context.Context
	id     ID
	chunks []Chunk // of a blob with a block map
	starts []int64 // where each chunk begins in the blob, and where the last ends

	from, end int64 // the range of the blob's bytes that is read
	pos       int64 // in the blob
	here      place
	ahead     ahead

	mu      sync.Mutex // guards the fields below
	last    place      // of ReadAt
	checked bool       // the log agrees with the id's ByteOffset
}

// A place is a block of a blob that was read.
type place struct {
	ok    bool
	n     uint64 // its number among the blob's blocks
	start int64  // where it begins in the blob
	data  []byte

	reuse bool   // data is nobody else's: the next block may take its place
	buf   []byte // for that
}

// slack is what the storage needs beside a block, at most.
const slack = 256

// room returns where the next block may lie.
func (p *place) room() []byte {
	if p.reuse && len(p.data) > 0 && cap(p.buf) < len(p.data)+slack {
		p.buf = make([]byte, 0, len(p.data)+slack) // most blocks of a blob are of one size
	}
	return p.buf
}

var (
	_ io.ReadSeekCloser = (*Reader)(nil)
	_ io.ReaderAt       = (*Reader)(nil)
	_ io.WriterTo       = (*Reader)(nil)
)

// NewReader returns a reader of a blob.
func (b *Blobs) NewReader(ctx context.Context, id ID) (*Reader, error) {
	return b.NewRangeReader(ctx, id, 0, -1)
}

// NewRangeReader returns a reader of n bytes of a blob from off on, or of all
// that there are from there on when n is negative. Nothing else is fetched.
func (b *Blobs) NewRangeReader(ctx context.Context, id ID, off, n int64) (*Reader, error) {
	fail := func(err error) (*Reader, error) { return nil, fmt.Errorf("read blob: %w", err) }
	if off < 0 {
		return fail(errors.New("negative offset"))
	}
	if err := b.check(ctx, id); err != nil {
		return fail(err)
	}
	r := &Reader{b: b, ctx: ctx, id: id, end: int64(id.ByteLength)}
	if id.BlockMap {
		chunks, err := b.chunks(ctx, id)
		if err != nil {
			return fail(err)
		}
		r.chunks, r.starts = chunks, make([]int64, len(chunks)+1)
		for i, c := range chunks {
			r.starts[i+1] = r.starts[i] + int64(c.Length)
		}
		r.end = r.starts[len(chunks)]
	}
	r.from = min(off, r.end)
	if n >= 0 && n < r.end-r.from {
		r.end = r.from + n
	}
	r.pos = r.from
	r.ahead = ahead{b: b, id: &r.id, chunks: r.chunks}
	return r, nil
}

// Size returns the number of bytes.
func (r *Reader) Size() int64 { return r.end - r.from }

// Close stops what is being fetched ahead. It need not be called if the
// context ends anyhow.
func (r *Reader) Close() error {
	r.ahead.stop()
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.pos >= r.end {
		return 0, io.EOF
	}
	r.here.reuse = true
	part, err := r.part(&r.here, r.pos, r.end, &r.ahead)
	if err != nil {
		return 0, err
	}
	n := copy(p, part)
	r.pos += int64(n)
	return n, nil
}

// WriteTo implements io.WriterTo: it writes whole blocks.
func (r *Reader) WriteTo(w io.Writer) (total int64, err error) {
	r.here.reuse = true
	for r.pos < r.end {
		part, err := r.part(&r.here, r.pos, r.end, &r.ahead)
		if err != nil {
			return total, err
		}
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

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read blob: negative offset")
	}
	if off > r.Size() {
		return 0, io.EOF
	}
	pos := r.from + off
	end := min(r.end-pos, int64(len(p))) + pos
	r.mu.Lock()
	at := r.last
	r.mu.Unlock()
	ahead := ahead{b: r.b, id: &r.id, chunks: r.chunks}
	defer ahead.stop()
	for pos < end {
		part, err := r.part(&at, pos, end, &ahead)
		if err != nil {
			return n, err
		}
		k := copy(p[n:], part)
		n += k
		pos += int64(k)
	}
	r.mu.Lock()
	r.last = at
	r.mu.Unlock()
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Seek implements io.Seeker.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos - r.from
	case io.SeekEnd:
		offset += r.Size()
	case io.SeekStart:
	default:
		return 0, fmt.Errorf("seek in blob: whence %d", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek in blob: before the start")
	}
	r.pos = r.from + offset
	if r.pos < r.from { // more than there are numbers
		r.pos = r.end
	}
	return offset, nil
}

// all returns what there is from pos on.
func (r *Reader) all() ([]byte, error) {
	part, err := []byte(nil), error(nil)
	if r.pos < r.end {
		part, err = r.part(&r.here, r.pos, r.end, &r.ahead)
	}
	if err != nil || int64(len(part)) == r.end-r.pos {
		r.pos = r.end
		return part, err
	}
	room := int64(2 * len(part))
	if start, err := r.b.log.ByteOffset(r.id.BlockOffset); err == nil && r.chunks == nil {
		if end, err := r.b.log.ByteOffset(r.id.BlockOffset + r.id.BlockLength); err == nil && end >= start {
			room = int64(min(end-start, 1<<62))
		}
	}
	data := make([]byte, 0, min(room, r.end-r.pos))
	for {
		data = append(data, part...)
		if r.pos += int64(len(part)); r.pos == r.end {
			return data, nil
		}
		if part, err = r.part(&r.here, r.pos, r.end, &r.ahead); err != nil {
			return nil, err
		}
	}
}

// part returns the bytes from pos on that are in one block, not those after
// end, and makes at that block. pos is before end.
func (r *Reader) part(at *place, pos, end int64, ahead *ahead) ([]byte, error) {
	for {
		n, start := at.n+1, at.start+int64(len(at.data))
		if at.ok && pos >= at.start && pos < start {
			part := at.data[pos-at.start:]
			return part[:min(int64(len(part)), end-pos)], nil
		}
		if !at.ok || pos != start {
			var err error
			if n, start, err = r.find(pos); err != nil {
				return nil, fmt.Errorf("read blob at %d: %w", pos, err)
			}
		}
		ahead.at(r.ctx, n, r.until(n, start, end))
		buf := at.room()
		at.ok = false
		data, err := r.block(n, buf)
		if err != nil {
			return nil, fmt.Errorf("read blob at %d: %w", pos, err)
		}
		at.ok, at.n, at.start, at.data = true, n, start, data
	}
}

// block returns block n of the blob, perhaps in buf.
func (r *Reader) block(n uint64, buf []byte) ([]byte, error) {
	if !r.id.BlockMap {
		if n >= r.id.BlockLength {
			return nil, errShort
		}
		return r.b.log.GetIn(r.ctx, r.id.BlockOffset+n, buf)
	}
	c := r.chunks[n] // there is one: the sum of their lengths is the end
	data, err := r.b.log.GetIn(r.ctx, c.Index, buf)
	if err == nil && uint64(len(data)) != c.Length {
		err = fmt.Errorf("%w: block %d has %d bytes, %d in the block map", ErrInvalid, c.Index, len(data), c.Length)
	}
	return data, err
}

// find returns which of the blob's blocks holds byte pos, and where it begins.
func (r *Reader) find(pos int64) (n uint64, start int64, err error) {
	if r.id.BlockMap {
		i := sort.Search(len(r.chunks), func(i int) bool { return r.starts[i+1] > pos })
		return uint64(i), r.starts[i], nil
	}
	if pos == 0 {
		return 0, 0, nil
	}
	block, offset, err := r.b.log.Seek(r.ctx, r.id.ByteOffset+uint64(pos))
	if err != nil {
		return 0, 0, err
	}
	if block < r.id.BlockOffset || block-r.id.BlockOffset >= r.id.BlockLength || offset > uint64(pos) {
		return 0, 0, fmt.Errorf("%w: that is in block %d, and its blocks are %d to %d", ErrInvalid, block, r.id.BlockOffset, r.id.BlockOffset+r.id.BlockLength)
	}
	if err := r.checkStart(); err != nil {
		return 0, 0, err
	}
	return block - r.id.BlockOffset, pos - int64(offset), nil
}

// checkStart returns an error unless the blob's first block begins at its byte
// offset, so that the blob is the same bytes however it is read.
func (r *Reader) checkStart() error {
	r.mu.Lock()
	checked := r.checked
	r.mu.Unlock()
	if checked {
		return nil
	}
	n, err := r.b.log.ByteOffset(r.id.BlockOffset)
	if err != nil {
		// The tree there is not here: ask for it.
		block, offset, err := r.b.log.Seek(r.ctx, r.id.ByteOffset)
		if err != nil {
			return err
		}
		n = r.id.ByteOffset - offset
		for i := r.id.BlockOffset; i != block; i++ { // blocks between must be empty ones
			data, err := r.b.log.Get(r.ctx, i)
			if err != nil {
				return err
			}
			if block < i || len(data) > 0 {
				return fmt.Errorf("%w: byte %d is in block %d, not %d", ErrInvalid, r.id.ByteOffset, block, r.id.BlockOffset)
			}
		}
	}
	if n != r.id.ByteOffset {
		return fmt.Errorf("%w: block %d begins at byte %d, not %d", ErrInvalid, r.id.BlockOffset, n, r.id.ByteOffset)
	}
	r.mu.Lock()
	r.checked = true
	r.mu.Unlock()
	return nil
}

// until returns about which of the blob's blocks holds the last byte before
// end, plus one, when block n begins at start.
func (r *Reader) until(n uint64, start, end int64) uint64 {
	if r.id.BlockMap {
		return uint64(sort.Search(len(r.chunks), func(i int) bool { return r.starts[i] >= end }))
	}
	if end == int64(r.id.ByteLength) {
		return r.id.BlockLength
	}
	// All but the last are most likely of one size.
	size := r.id.ByteLength / r.id.BlockLength
	if uniform := uint64(r.b.blockSize); (r.id.ByteLength+uniform-1)/uniform == r.id.BlockLength {
		size = uniform
	}
	size = max(size, 1)
	return min(r.id.BlockLength, n+(uint64(end-start)+size-1)/size)
}

// aheadBytes is about how much of what is read in order is fetched ahead.
const aheadBytes = 4 << 20

// An ahead has blocks of a blob fetched before they are read.
type ahead struct {
	b      *Blobs
	id     *ID
	chunks []Chunk

	first   uint64 // block that was asked for
	next    uint64 // block that was not
	fetch   context.Context
	cancel  context.CancelFunc
	fetches sync.WaitGroup
}

// at is told that block n is to be read next, and then those before end.
func (a *ahead) at(ctx context.Context, n, end uint64) {
	window := uint64(64)
	if a.chunks == nil {
		size := a.id.ByteLength / max(a.id.BlockLength, 1)
		window = min(max(aheadBytes/max(size, 1), 16), 1<<10)
	}
	if n < a.first || n > a.next { // the reader jumped
		a.first, a.next = n, n
	}
	from, to := a.next, min(n+window, end)
	if from >= to || from-n > window/2 {
		return
	}
	a.next = to
	var want []hypercore.DownloadRange
	add := func(r hypercore.Range) {
		for r := range gaps(a.b.live, r) {
			want = append(want, hypercore.DownloadRange{From: r.Start, To: r.End, Linear: true})
		}
	}
	if a.chunks == nil {
		add(hypercore.Range{Start: a.id.BlockOffset + from, End: a.id.BlockOffset + to})
	} else {
		for _, r := range runs(a.chunks[from:to]) {
			add(r)
		}
	}
	if len(want) == 0 {
		return
	}
	if a.fetch == nil {
		a.fetch, a.cancel = context.WithCancel(ctx)
	}
	a.fetches.Go(func() { _ = a.b.live.Download(a.fetch, want...) }) // Get tells what fails
}

// stop takes back what was asked for.
func (a *ahead) stop() {
	if a.cancel != nil {
		a.cancel()
		a.fetches.Wait()
	}
}
