package hyperblobs

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// Bounds of block maps, as in the reference.
const (
	mapChunks    = 8192 // in one block of the map
	maxMapBlocks = 64
	maxChunks    = mapChunks * maxMapBlocks
)

// A Chunk is a part of a blob: a whole block.
type Chunk struct {
	Index  uint64 // of the block
	Length uint64 // of the block, in bytes
}

// AppendMap appends the blocks of a block map to blocks.
func AppendMap(blocks [][]byte, chunks []Chunk) [][]byte {
	for len(chunks) > 0 {
		part := chunks[:min(len(chunks), mapChunks)]
		chunks = chunks[len(part):]
		size := 1 + compact.SizeUint(uint64(len(part)))
		for _, c := range part {
			size += compact.SizeUint(c.Index) + compact.SizeUint(c.Length)
		}
		block := compact.AppendUint(make([]byte, 0, size), 0) // the version
		block = compact.AppendUint(block, uint64(len(part)))
		for _, c := range part {
			block = compact.AppendUint(compact.AppendUint(block, c.Index), c.Length)
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// ReadMap appends the chunks that one block of a block map names to chunks. Each
// must be a block before the block numbered end, where the map begins.
func ReadMap(chunks []Chunk, block []byte, end uint64) ([]Chunk, error) {
	d := compact.NewDecoder(block)
	if v := d.Uint(); v != 0 {
		return nil, fmt.Errorf("%w: block map version %d", ErrInvalid, v)
	}
	n := d.Uint()
	if n > mapChunks {
		return nil, fmt.Errorf("%w: %d chunks in a block of the block map, %d are allowed", ErrInvalid, n, mapChunks)
	}
	for range n {
		c := Chunk{Index: d.Uint(), Length: d.Uint()}
		if d.Err() != nil {
			break
		}
		if c.Index >= end || c.Length > hypercore.MaxBlock {
			return nil, fmt.Errorf("%w: the block map, at %d, names block %d of %d bytes", ErrInvalid, end, c.Index, c.Length)
		}
		chunks = append(chunks, c)
	}
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("%w: block map: %w", ErrInvalid, err)
	}
	return chunks, nil
}

// Map returns the blocks that a blob is made of. Without a block map it has to
// read them all.
func (b *Blobs) Map(ctx context.Context, id ID) ([]Chunk, error) {
	fail := func(err error) ([]Chunk, error) { return nil, fmt.Errorf("map of a blob: %w", err) }
	if err := b.check(ctx, id); err != nil {
		return fail(err)
	}
	if id.BlockMap {
		chunks, err := b.chunks(ctx, id)
		if err != nil {
			return fail(err)
		}
		return chunks, nil
	}
	var chunks []Chunk
	for n, i := uint64(0), id.BlockOffset; n < id.ByteLength; i++ {
		if i == id.BlockOffset+id.BlockLength {
			return fail(errShort)
		}
		block, err := b.log.Get(ctx, i)
		if err != nil {
			return fail(err)
		}
		c := Chunk{Index: i, Length: uint64(len(block))}
		chunks = append(chunks, c)
		n += c.Length
	}
	return chunks, nil
}

// chunks reads a block map. The id was checked.
func (b *Blobs) chunks(ctx context.Context, id ID) ([]Chunk, error) {
	ahead := ahead{b: b, id: &ID{BlockOffset: id.BlockOffset, BlockLength: id.BlockLength}}
	defer ahead.stop()
	var chunks []Chunk
	for i := range id.BlockLength {
		ahead.at(ctx, i, id.BlockLength)
		block, err := b.log.Get(ctx, id.BlockOffset+i)
		if err != nil {
			return nil, err
		}
		if chunks, err = ReadMap(chunks, block, id.BlockOffset); err != nil {
			return nil, err
		}
	}
	return chunks, nil
}

func bytesOf(chunks []Chunk) (n uint64) {
	for _, c := range chunks {
		n += c.Length
	}
	return n
}
