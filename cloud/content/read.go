package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Reader reads a content. What is not held is fetched while the context lasts,
// when reading in order also ahead of it. It is one goroutine's at a time, but for
// ReadAt, which is any's.
type Reader struct {
	s   *Store
	ctx context.Context
	ref Ref

	pos   int64
	here  spot
	ahead ahead

	mu   sync.Mutex
	last spot // of ReadAt
}

var (
	_ io.ReadSeekCloser = (*Reader)(nil)
	_ io.ReaderAt       = (*Reader)(nil)
	_ io.WriterTo       = (*Reader)(nil)
)

// A spot is a chunk that was read, with the way to it. It is never changed.
type spot struct {
	path  []step // from the root's node down
	data  []byte
	start int64 // of the chunk in the content
}

// A step is a pointer of a node.
type step struct {
	n     *node
	i     int
	start int64 // of the node in the content
}

// NewReader returns a reader of a content.
func (s *Store) NewReader(ctx context.Context, ref Ref) (*Reader, error) {
	if err := ref.check(); err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	return &Reader{s: s, ctx: ctx, ref: ref, ahead: ahead{s: s}}, nil
}

// Get returns a whole content of up to limit bytes; a larger one is ErrInvalid.
func (s *Store) Get(ctx context.Context, ref Ref, limit int64) ([]byte, error) {
	if ref.Size > limit {
		return nil, fmt.Errorf("read content: %w: it has %d bytes, %d are allowed", ErrInvalid, ref.Size, limit)
	}
	r, err := s.NewReader(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if ref.Size == 0 {
		return []byte{}, nil
	}
	if ref.depth == 0 {
		at, err := r.find(spot{}, 0)
		return at.data, err
	}
	return io.ReadAll(r)
}

// Ref returns what is read.
func (r *Reader) Ref() Ref { return r.ref }

// Size returns the number of bytes.
func (r *Reader) Size() int64 { return r.ref.Size }

// Close stops what is being fetched ahead. It need not be called if the context
// ends anyhow.
func (r *Reader) Close() error {
	r.ahead.stop()
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	part, err := r.part()
	n := copy(p, part)
	r.pos += int64(n)
	return n, err
}

// WriteTo implements io.WriterTo: it writes whole chunks, and reads those that
// follow meanwhile.
func (r *Reader) WriteTo(w io.Writer) (int64, error) { return r.writeTo(w, r.ref.Size) }

// CopyN writes the next n bytes, as WriteTo does all. What is missing at the end is
// io.EOF.
func (r *Reader) CopyN(w io.Writer, n int64) (int64, error) {
	total, err := r.writeTo(w, min(r.pos+n, r.ref.Size))
	if err == nil && total < n {
		err = io.EOF
	}
	return total, err
}

// writeTo writes what there is up to a byte.
func (r *Reader) writeTo(w io.Writer, end int64) (total int64, err error) {
	ctx, cancel := context.WithCancel(r.ctx)
	next, at := r.pos, r.here
	var loads []*loader // that are reading, in order
	var bytes int64     // that they bring
	var all, spare []*loader
	defer func() {
		cancel()
		for _, l := range all {
			close(l.todo)
		}
		for _, l := range all {
			for range l.done {
				// until it has ended
			}
		}
	}()
	for {
		for len(loads) < loadAhead && bytes < aheadBytes && next < end && err == nil {
			if at, err = r.way(at, next); err != nil {
				break // for when what comes before is written
			}
			r.ahead.at(r.ctx, at, next)
			var l *loader
			if n := len(spare); n > 0 {
				l, spare = spare[n-1], spare[:n-1]
			} else {
				l = r.newLoader(ctx)
				all = append(all, l)
			}
			l.begin(at, r.chunk(at))
			loads = append(loads, l)
			bytes += l.p.size
			next = at.start + l.p.size
		}
		if len(loads) == 0 {
			break
		}
		l := loads[0]
		<-l.done
		if l.err != nil {
			return total, r.fail(l.err)
		}
		loads, bytes = loads[1:], bytes-l.p.size
		part := l.data[r.pos-l.at.start : min(l.p.size, end-l.at.start)]
		n, err := w.Write(part)
		r.pos += int64(n)
		total += int64(n)
		if err == nil && n < len(part) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
		r.here = spot{path: l.at.path}
		spare = append(spare, l)
	}
	if err != nil {
		return total, r.fail(err)
	}
	return total, nil
}

// loadAhead is how many chunks are read at once by who reads all of them, at most.
const loadAhead = 8

// A loader reads one chunk after the other, in the same memory.
type loader struct {
	s    *Store
	at   spot
	p    pointer
	buf  []byte // that it lies in, if it is large enough
	data []byte
	err  error

	todo chan struct{} // closed when there is no more
	done chan struct{} // closed when it has ended
}

// newLoader returns a loader that ends when its todo is closed.
func (r *Reader) newLoader(ctx context.Context) *loader {
	l := &loader{s: r.s, todo: make(chan struct{}, 1), done: make(chan struct{}, 1)}
	go func() {
		defer close(l.done)
		for range l.todo {
			l.data, l.err = l.s.chunk(ctx, l.p, l.buf)
			l.done <- struct{}{}
		}
	}()
	return l
}

// begin begins to read the chunk of a spot.
func (l *loader) begin(at spot, p pointer) {
	l.at, l.p = at, p
	if need := int(p.size) + blockRoom; cap(l.buf) < need && p.size <= int64(4*l.s.o.ChunkSize) {
		if len(at.path) > 0 { // others follow, of other sizes
			need = max(need, 2*l.s.o.ChunkSize)
		}
		l.buf = make([]byte, 0, need)
	}
	l.todo <- struct{}{}
}

// blockRoom is more than what is read with a block.
const blockRoom = 128

// part returns what is left of the chunk at pos.
func (r *Reader) part() ([]byte, error) {
	if r.pos >= r.ref.Size {
		return nil, io.EOF
	}
	if r.here.data == nil || r.pos < r.here.start || r.pos >= r.here.start+int64(len(r.here.data)) {
		at, err := r.way(r.here, r.pos)
		if err != nil {
			return nil, r.fail(err)
		}
		r.ahead.at(r.ctx, at, r.pos)
		if r.here, err = r.load(at); err != nil {
			return nil, r.fail(err)
		}
	}
	return r.here.data[r.pos-r.here.start:], nil
}

func (r *Reader) fail(err error) error { return fmt.Errorf("read content: %w", err) }

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read content: negative offset")
	}
	r.mu.Lock()
	at := r.last
	r.mu.Unlock()
	for n < len(p) && off < r.ref.Size {
		if at, err = r.find(at, off); err != nil {
			return n, err
		}
		k := copy(p[n:], at.data[off-at.start:])
		n += k
		off += int64(k)
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
		offset += r.pos
	case io.SeekEnd:
		offset += r.ref.Size
	case io.SeekStart:
	default:
		return 0, fmt.Errorf("seek in content: whence %d", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek in content: before the start")
	}
	r.pos = offset
	return offset, nil
}

// find returns the spot of a byte, from another spot.
func (r *Reader) find(from spot, pos int64) (spot, error) {
	if from.data != nil && pos >= from.start && pos < from.start+int64(len(from.data)) {
		return from, nil
	}
	at, err := r.way(from, pos)
	if err == nil {
		at, err = r.load(at)
	}
	if err != nil {
		return spot{}, r.fail(err)
	}
	return at, nil
}

// way returns the way to the chunk of a byte, without its data.
func (r *Reader) way(from spot, pos int64) (spot, error) {
	var path []step
	for _, st := range from.path { // the nodes that lead there, too
		if pos < st.start || pos >= st.start+st.n.ends[len(st.n.ends)-1] {
			break
		}
		path = append(path, st)
	}
	if len(path) == 0 && r.ref.depth > 0 {
		n, err := r.s.node(r.ctx, r.ref.root(), int(r.ref.depth))
		if err != nil {
			return spot{}, err
		}
		path = append(path, step{n: n})
	}
	for i := 0; i < len(path); i++ {
		st := &path[i]
		var start int64
		st.i, start = st.n.find(pos - st.start)
		start += st.start
		depth := int(r.ref.depth) - i
		if depth == 1 {
			return spot{path: path[:i+1], start: start}, nil
		}
		if i+1 < len(path) {
			if path[i+1].start == start {
				continue
			}
			path = path[:i+1]
		}
		n, err := r.s.node(r.ctx, st.n.pointers[st.i], depth-1)
		if err != nil {
			return spot{}, err
		}
		path = append(path, step{n: n, start: start})
	}
	return spot{}, nil
}

// load reads the chunk of a spot.
func (r *Reader) load(at spot) (spot, error) {
	var err error
	at.data, err = r.s.chunk(r.ctx, r.chunk(at), nil)
	if err != nil {
		return spot{}, err
	}
	return at, nil
}

// chunk returns the pointer to the chunk of a spot.
func (r *Reader) chunk(at spot) pointer {
	if len(at.path) == 0 {
		return r.ref.root()
	}
	return at.chunk()
}

func (at spot) chunk() pointer {
	st := at.path[len(at.path)-1]
	return st.n.pointers[st.i]
}

// aheadBytes is about how much of what is read in order is fetched ahead.
const aheadBytes = 4 << 20

// An ahead has chunks fetched before they are read.
type ahead struct {
	s *Store

	first  int64 // what was asked for, in the content
	next   int64
	fetch  context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// at is told that pos is to be read next, and then what follows.
func (a *ahead) at(ctx context.Context, at spot, pos int64) {
	if len(at.path) == 0 {
		return
	}
	if pos < a.first || pos > a.next { // the reader jumped
		a.first, a.next = pos, pos
	}
	if a.next-pos > aheadBytes/2 {
		return
	}
	var want []pointer
	st := at.path[len(at.path)-1]
	i, end := st.i, at.start
	for ; i < len(st.n.pointers) && end < pos+aheadBytes; i++ {
		p := st.n.pointers[i]
		end += p.size
		if end > a.next && !a.s.has(p) {
			want = append(want, p)
		}
	}
	if i == len(st.n.pointers) && len(at.path) > 1 { // the node after this one
		up := at.path[len(at.path)-2]
		if up.i+1 < len(up.n.pointers) && !a.s.has(up.n.pointers[up.i+1]) {
			want = append(want, up.n.pointers[up.i+1])
		}
	}
	a.next = max(a.next, end)
	if len(want) == 0 {
		return
	}
	if a.fetch == nil {
		a.fetch, a.cancel = context.WithCancel(ctx)
	}
	a.done.Go(func() { _ = a.s.download(a.fetch, true, want) }) // reading tells what fails
}

// stop takes back what was asked for.
func (a *ahead) stop() {
	if a.cancel != nil {
		a.cancel()
		a.done.Wait()
	}
}
