package hyperblobs

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// badMap is a block of a block map with any entries.
func badMap(version, n uint64, entries ...uint64) []byte {
	block := compact.AppendUint(compact.AppendUint(nil, version), n)
	for _, e := range entries {
		block = compact.AppendUint(block, e)
	}
	return block
}

func TestIDsThatMakeNoSenseAreInvalid(t *testing.T) {
	ctx := t.Context()
	b := newBlobs(t, 256)
	data := randomBytes(rand.New(rand.NewPCG(1, 2)), 5*256+7)
	first, err := b.Put(ctx, data[:300])
	must(t, err)
	good, err := b.Put(ctx, data)
	must(t, err)
	// raw appends a block and returns it as if it were a block map.
	raw := func(block []byte) ID {
		n, err := b.log.Append(ctx, block)
		must(t, err)
		return ID{BlockOffset: n - 1, BlockLength: 1, ByteLength: uint64(len(block)), BlockMap: true}
	}
	with := func(change func(*ID)) ID {
		id := good
		change(&id)
		return id
	}
	for _, c := range []struct {
		name string
		id   ID
		size bool // only reading shows it
	}{
		{"blocks overflow", with(func(id *ID) { id.BlockLength = math.MaxUint64 - 1 }), false},
		{"offset overflows", with(func(id *ID) { id.BlockOffset = math.MaxUint64 }), false},
		{"bytes overflow", with(func(id *ID) { id.ByteLength = math.MaxUint64 }), false},
		{"byte offset overflows", with(func(id *ID) { id.ByteOffset = math.MaxUint64 }), false},
		{"past the end", with(func(id *ID) { id.BlockOffset += 1000 }), false},
		{"one block past the end", with(func(id *ID) { id.BlockLength = 1000 }), false},
		{"bytes without blocks", with(func(id *ID) { id.BlockLength = 0 }), false},
		{"more bytes than blocks hold", with(func(id *ID) { id.BlockLength, id.ByteLength = 1, 1<<40 }), false},
		{"a byte more", with(func(id *ID) { id.ByteLength++ }), true},
		{"a byte more than the blocks hold", ID{BlockLength: 2, ByteLength: 301}, true},
		{"fewer blocks", with(func(id *ID) { id.BlockLength-- }), true},
		{"bytes past the end", with(func(id *ID) { id.ByteOffset = 1 << 40 }), false},
		{"an exabyte", ID{BlockLength: 1, ByteLength: 1 << 60}, false},
		{"a map that is data", with(func(id *ID) { id.BlockMap = true }), true},
		{"a map of too many blocks", ID{BlockLength: 65, BlockMap: true}, false},
		{"an empty map block", raw([]byte{}), true},
		{"a map of another version", raw(badMap(1, 1, 0, 256)), true},
		{"a map of too many chunks", raw(badMap(0, 8193)), true},
		{"a map that ends early", raw(badMap(0, 3, 0, 256)), true},
		{"a map that names itself", raw(badMap(0, 1, b.log.Length(), 1)), true},
		{"a map past the end", raw(badMap(0, 1, 1<<50, 1)), true},
		{"a map of a huge block", raw(badMap(0, 1, 0, 1<<50)), true},
		{"a map of a longer block", raw(badMap(0, 1, 0, 257)), true},
		{"a map of a shorter block", raw(badMap(0, 1, 0, 255)), true},
	} {
		if data, err := b.Get(ctx, c.id); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: get: %d bytes, %v", c.name, len(data), err)
		}
		if r, err := b.NewReader(ctx, c.id); err == nil {
			if n, err := io.Copy(io.Discard, r); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: read: %d bytes, %v", c.name, n, err)
			}
		}
		w := b.NewWriter(ctx, WriteOptions{Dedup: true, Base: &c.id})
		if _, err := w.Write(data); !c.size && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: as base: %v", c.name, err)
		}
		w.Abort()
		if !c.size {
			_, hasErr := b.Has(ctx, c.id)
			_, missErr := b.Missing(ctx, c.id)
			_, mapErr := b.Map(ctx, c.id)
			_, clearErr := b.Clear(ctx, c.id)
			for _, err := range []error{hasErr, missErr, mapErr, clearErr, b.Download(ctx, c.id)} {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("%s: %v", c.name, err)
				}
			}
		}
		wantBlob(t, b, good, data)
	}

	// A byte offset that lies is found when a seek builds on it, and never
	// changes what the bytes are.
	for _, off := range []uint64{0, 299, 301} {
		id := with(func(id *ID) { id.ByteOffset = off })
		wantBlob(t, b, id, data)
		r, err := b.NewReader(ctx, id)
		must(t, err)
		if n, err := r.ReadAt(make([]byte, 100), 700); err == nil {
			t.Errorf("byte offset %d: read %d bytes", off, n)
		}
	}
	// One that is short of its blocks is cut.
	wantBlob(t, b, with(func(id *ID) { id.ByteLength = 300 }), data[:300])
	wantBlob(t, b, ID{}, nil)
	wantBlob(t, b, ID{BlockMap: true}, nil)
	wantBlob(t, b, first, data[:300])
}

// Blocks of other writers need not have one size, and may be empty.
func TestBlocksOfAnySizeAreRead(t *testing.T) {
	b := newBlobs(t, 100)
	r := rand.New(rand.NewPCG(1, 2))
	_, err := b.log.Append(t.Context(), randomBytes(r, 50))
	must(t, err)
	id := ID{BlockOffset: 1, ByteOffset: 50}
	var data []byte
	for _, n := range []int{0, 0, 3, 100, 0, 1, 500, 0} {
		p := randomBytes(r, n)
		_, err := b.log.Append(t.Context(), p)
		must(t, err)
		data = append(data, p...)
		id.BlockLength++
	}
	id.ByteLength = uint64(len(data))
	wantBlob(t, b, id, data)
	for range 50 {
		readModel(t, r, b, id, data)
	}
	chunks, err := b.Map(t.Context(), id)
	if err != nil || bytesOf(chunks) != id.ByteLength {
		t.Errorf("map %v, %v", chunks, err)
	}
}

// What an id claims costs nothing.
func TestMemoryFollowsRealData(t *testing.T) {
	b := newBlobs(t, 100)
	for range 50 {
		_, err := b.Put(t.Context(), []byte("small"))
		must(t, err)
	}
	_, err := b.Put(t.Context(), make([]byte, 8<<20))
	must(t, err)
	id := ID{BlockLength: 50, ByteLength: 8 << 20}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := b.Get(t.Context(), id); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	got := after.TotalAlloc - before.TotalAlloc
	if got > 100<<10 {
		t.Errorf("a blob of 50 small blocks that claims %d bytes takes %d to refuse", id.ByteLength, got)
	}
}

func FuzzReadMap(f *testing.F) {
	f.Add(badMap(0, 2, 0, 5, 300, 65536), uint64(301))
	f.Add(badMap(0, 0), uint64(0))
	f.Add(badMap(0, 8193, 1, 1), uint64(2))
	f.Add(badMap(1, 1, 0, 1), uint64(10))
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint64(1))
	f.Fuzz(func(t *testing.T, block []byte, end uint64) {
		chunks, err := ReadMap(nil, block, end)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if len(chunks) > len(block)/2 {
			t.Fatalf("%d chunks in %d bytes", len(chunks), len(block))
		}
		for _, c := range chunks {
			if c.Index >= end || c.Length > hypercore.MaxBlock {
				t.Fatalf("chunk %+v, end %d", c, end)
			}
		}
		var again []Chunk
		for _, block := range AppendMap(nil, chunks) {
			if again, err = ReadMap(again, block, end); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(chunks, again) && len(chunks) > 0 {
			t.Fatalf("%v written and read again is %v", chunks, again)
		}
	})
}

func TestLargeMapsAreManyBlocks(t *testing.T) {
	chunks := make([]Chunk, 2*mapChunks+1)
	for i := range chunks {
		chunks[i] = Chunk{uint64(i), 1}
	}
	blocks := AppendMap(nil, chunks)
	if len(blocks) != 3 {
		t.Fatalf("%d chunks are %d blocks, want 3", len(chunks), len(blocks))
	}
	var got []Chunk
	for _, block := range blocks {
		var err error
		got, err = ReadMap(got, block, 1<<20)
		must(t, err)
	}
	if !reflect.DeepEqual(got, chunks) {
		t.Error("read otherwise than written")
	}
	b := newBlobs(t, 1)
	data := bytes.Repeat([]byte{1}, mapChunks+2)
	id := write(t, b, WriteOptions{BlockMap: true}, data, len(data))
	if id.BlockLength != 2 {
		t.Errorf("the map has %d blocks, want 2", id.BlockLength)
	}
	wantBlob(t, b, id, data)

	w := b.NewWriter(t.Context(), WriteOptions{Dedup: true, Chunks: true})
	w.chunks = make([]ownChunk, maxChunks)
	if _, err := w.Write([]byte("one more")); !errors.Is(err, hypercore.ErrTooLarge) {
		t.Errorf("a chunk more than a map may have: %v", err)
	}
	w.Abort()
}
