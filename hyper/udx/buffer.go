package udx

import "sync"

// A buffer is a queue of bytes. It holds memory only for what is in it.
type buffer struct {
	chunks []*chunk
	few    [2]*chunk // is mostly all that chunks needs
	head   int       // where the first byte is in the first chunk
	n      int
}

type chunk [16 << 10]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// append adds p at the end.
func (b *buffer) append(p []byte) {
	for len(p) > 0 {
		end := b.head + b.n
		if end == len(b.chunks)*len(chunk{}) {
			if b.n == 0 {
				b.chunks = b.few[:0]
			}
			b.chunks = append(b.chunks, chunks.Get().(*chunk))
		}
		n := copy(b.chunks[end/len(chunk{})][end%len(chunk{}):], p)
		b.n += n
		p = p[n:]
	}
}

// copyAt copies the bytes from off on to p, which must be there.
func (b *buffer) copyAt(p []byte, off int) {
	for at := b.head + off; len(p) > 0; {
		n := copy(p, b.chunks[at/len(chunk{})][at%len(chunk{}):])
		at += n
		p = p[n:]
	}
}

// discard takes the first n bytes out.
func (b *buffer) discard(n int) {
	b.head += n
	b.n -= n
	for b.head >= len(chunk{}) || b.n == 0 && len(b.chunks) > 0 {
		chunks.Put(b.chunks[0])
		b.chunks[0] = nil
		b.chunks = b.chunks[1:]
		b.head -= len(chunk{})
	}
	if b.n == 0 {
		b.head = 0
		b.chunks = nil
	}
}

// read moves bytes into p, and returns how many.
func (b *buffer) read(p []byte) int {
	n := min(len(p), b.n)
	b.copyAt(p[:n], 0)
	b.discard(n)
	return n
}

// A ring holds values for a run of seqs. Its length is a power of two.
type ring[T any] struct{ slots []T }

func (r *ring[T]) at(seq uint32) *T { return &r.slots[int(seq)&(len(r.slots)-1)] }

// grow makes room for the seqs from start up to end, and keeps those from start
// up to old.
func (r *ring[T]) grow(start, old, end uint32) {
	need := diff(end, start)
	if need <= len(r.slots) {
		return
	}
	size := max(16, 2*len(r.slots))
	for size < need {
		size *= 2
	}
	next := ring[T]{make([]T, size)}
	for seq := start; seq != old; seq++ {
		*next.at(seq) = *r.at(seq)
	}
	*r = next
}

// A queue is an order of packets in a ring of sent ones, by the links in them.
type queue struct {
	head, tail uint32 // only if n > 0
	n          int
}

func (q *queue) push(r *ring[sent], seq uint32) {
	r.at(seq).prev = q.tail
	if q.n == 0 {
		q.head = seq
	} else {
		r.at(q.tail).next = seq
	}
	q.tail = seq
	q.n++
}

func (q *queue) remove(r *ring[sent], seq uint32) {
	p := r.at(seq)
	if seq == q.head {
		q.head = p.next
	} else {
		r.at(p.prev).next = p.next
	}
	if seq == q.tail {
		q.tail = p.prev
	} else {
		r.at(p.next).prev = p.prev
	}
	q.n--
}
