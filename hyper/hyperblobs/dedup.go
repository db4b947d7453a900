package hyperblobs

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"golang.org/x/crypto/blake2b"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Cutter cuts bytes into chunks where the content says, so that what was
// inserted or removed changes only the chunks around it. It is the FastCDC of Xia
// et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for
// Data Deduplication" (2016). Where it cuts is no part of any format.
type Cutter struct {
	min, normal, max int
	early, late      uint64 // what must be zero to cut before normal, and after
}

// NewCutter returns a Cutter for chunks of about size bytes.
func NewCutter(size int) Cutter {
	n := bits.Len(uint(max(size, 64))) - 1
	normal := min(1<<n, hypercore.MaxBlock/4)
	return Cutter{
		min: normal / 4, normal: normal, max: 4 * normal,
		// The upper bits, which depend on the most bytes.
		early: ^uint64(0) << (64 - (n + 2)), late: ^uint64(0) << (64 - (n - 2)),
	}
}

// gear has a random number for each byte.
var gear = sync.OnceValue(func() *[256]uint64 {
	var table [256]uint64
	for i := range table {
		sum := blake2b.Sum256([]byte{byte(i)})
		table[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return &table
})

// Max returns how many bytes the largest chunk has.
func (c *Cutter) Max() int { return c.max }

// Cut returns the length of the chunk that p begins with. p has Max bytes, or
// all that are left.
func (c *Cutter) Cut(p []byte) int {
	table, sum := gear(), uint64(0)
	p = p[:min(len(p), c.max)]
	from, normal := min(c.min, len(p)), min(c.normal, len(p))
	for i, b := range p[from:normal] {
		if sum = sum<<1 + table[b]; sum&c.early == 0 {
			return from + i + 1
		}
	}
	for i, b := range p[normal:] {
		if sum = sum<<1 + table[b]; sum&c.late == 0 {
			return normal + i + 1
		}
	}
	return len(p)
}

type chunkHash = [blake2b.Size256]byte

// learn notes the chunks of the blob that this is a newer version of. Those that
// are not held here it leaves alone.
func (w *Writer) learn() {
	if !w.o.Dedup || w.seen != nil || w.err != nil {
		return
	}
	w.seen = map[chunkHash]ownChunk{}
	if w.o.Base == nil {
		return
	}
	b, base := w.b, *w.o.Base
	fail := func(err error) { w.err = fmt.Errorf("write blob: base: %w", err) }
	if err := b.check(w.ctx, base); err != nil {
		fail(err)
		return
	}
	chunks, n := []Chunk(nil), min(base.BlockLength, maxChunks)
	if base.BlockMap {
		if missing(b.log, base.run()) > 0 {
			return
		}
		var err error
		if chunks, err = b.chunks(w.ctx, base); err != nil {
			fail(err)
			return
		}
		n = uint64(len(chunks))
	}
	for i := range n {
		c := Chunk{Index: base.BlockOffset + i}
		if chunks != nil {
			c = chunks[i]
		}
		if !b.log.Has(c.Index) {
			continue
		}
		block, err := b.log.Get(w.ctx, c.Index)
		if err != nil {
			fail(err)
			return
		}
		if chunks != nil && uint64(len(block)) != c.Length {
			continue // the map lies
		}
		c.Length = uint64(len(block))
		w.seen[blake2b.Sum256(block)] = ownChunk{Chunk: c}
	}
}

// stored adds a chunk that is stored already, and reports whether it is. If not,
// it will be the next block.
func (w *Writer) stored(data []byte) bool {
	if w.seen == nil {
		return false
	}
	hash := blake2b.Sum256(data)
	c, ok := w.seen[hash]
	if ok {
		w.name(c)
	} else {
		w.seen[hash] = w.next(len(data))
	}
	return ok
}

// cut adds the chunks that partial begins with, all when it is the end.
func (w *Writer) cut(end bool) {
	rest := w.partial
	for w.err == nil && (len(rest) >= w.cutter.max || end && len(rest) > 0) {
		n := w.cutter.Cut(rest)
		if !w.stored(rest[:n]) {
			w.add(append(make([]byte, 0, n), rest[:n]...))
		}
		rest = rest[n:]
	}
	w.partial = w.partial[:copy(w.partial, rest)]
}
