package interop_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// These are what blobs.js takes and answers.
type (
	blobID struct {
		BlockOffset uint64 `json:"blockOffset"`
		BlockLength uint64 `json:"blockLength"`
		ByteOffset  uint64 `json:"byteOffset"`
		ByteLength  uint64 `json:"byteLength"`
		BlockMap    bool   `json:"blockMap,omitempty"`
	}
	blobData struct {
		Size   int
		SHA256 string
	}
	blobHead struct {
		Length, ByteLength uint64
		TreeHash           string
	}
)

// startBlobs starts blobs.js.
func startBlobs(t *testing.T) node {
	t.Helper()
	nodepeer.Require(t)
	p, err := nodepeer.Start(t.Context(), "blobs.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return node{t, p}
}

// ourBlobs are blobs of ours, of the writer with a seed, or of a key.
func ourBlobs(s *ourSide, name string, o corestore.LogOptions, b hyperblobs.Options) *hyperblobs.Blobs {
	s.t.Helper()
	o.Durability, b.Durability = hypercore.Soon, hypercore.Soon
	log, err := s.store.Get(o)
	s.must(err)
	s.logs[name] = log
	return hyperblobs.New(log, b)
}

func sumOf(data []byte) blobData {
	sum := sha256.Sum256(data)
	return blobData{len(data), hex.EncodeToString(sum[:])}
}

func hexAll(list [][]byte) []string {
	out := []string{}
	for _, b := range list {
		out = append(out, hex.EncodeToString(b))
	}
	return out
}

// sameBlobs compares the logs, and finds the first block that differs if they do.
func sameBlobs(t *testing.T, n node, handle string, b *hyperblobs.Blobs) {
	t.Helper()
	h := b.Log().Head()
	hash := h.Hash()
	got := blobHead{h.Length, b.Log().ByteLength(), hex.EncodeToString(hash[:])}
	want := call[blobHead](n, "head", args{"handle": handle})
	if got == want {
		return
	}
	blocks := call[struct{ Blocks []string }](n, "blocks", args{"handle": handle, "start": 0, "end": want.Length}).Blocks
	for i, want := range blocks {
		got, err := b.Log().Get(t.Context(), uint64(i))
		if err != nil || hex.EncodeToString(got) != want {
			t.Fatalf("block %d:\n got %x, %v\nwant %s", i, got, err, want)
		}
	}
	t.Fatalf("head %+v, want %+v", got, want)
}

// A blob and what is in it.
type sample struct {
	id   hyperblobs.ID
	data []byte
}

func TestNodeAndBevyWriteTheSameBlobs(t *testing.T) {
	n := startBlobs(t)
	s := startOurSide(t, replicate.Options{})
	rng := random(t, 1)
	for round := range 4 * long(10) {
		handle, size := fmt.Sprint("blobs ", round), []int{100, 1 << 10, 64 << 10, 777}[round%4]
		open := args{"handle": handle, "seed": seed(byte(round + 1)), "blockSize": size}
		o := beeWriter(byte(round + 1))
		if round%4 == 3 {
			open["encryptionKey"] = seed(9)
			key := seedBytes(9)
			o.Session.EncryptionKey = &key
		}
		call[any](n, "open", open)
		b := ourBlobs(s, handle, o, hyperblobs.Options{BlockSize: size})
		var all []sample
		keep := func(what string, data []byte, got hyperblobs.ID, want blobID, err error) {
			t.Helper()
			if err != nil || blobID(got) != want {
				t.Fatalf("%s %d bytes: %+v, %v, want %+v", what, len(data), got, err, want)
			}
			all = append(all, sample{got, data})
		}
		type answer struct {
			ID  blobID
			IDs []blobID
		}
		for range 30 * long(4) {
			data := func() []byte { return randomBytes(rng, rng.IntN([]int{2, 2 * size, 8 * size}[rng.IntN(3)])) }
			switch rng.IntN(3) {
			case 0:
				p := data()
				got, err := b.Put(t.Context(), p)
				keep("put", p, got, call[answer](n, "put", args{"handle": handle, "data": hex.EncodeToString(p)}).ID, err)
			case 1:
				parts := [][]byte{data(), data(), data()}
				got, err := b.PutAll(t.Context(), parts...)
				s.must(err)
				want := call[answer](n, "batch", args{"handle": handle, "data": hexAll(parts)}).IDs
				for i := range parts {
					keep("put together", parts[i], got[i], want[i], nil)
				}
			default:
				o := hyperblobs.WriteOptions{Chunks: true, Dedup: rng.IntN(2) == 0, BlockMap: rng.IntN(2) == 0}
				a := args{"handle": handle, "dedup": o.Dedup, "blockMap": o.BlockMap}
				var chunks [][]byte
				for range 1 + rng.IntN(20) {
					chunks = append(chunks, randomBytes(rng, 1+rng.IntN(3))) // so that some are the same
				}
				if len(all) > 0 && rng.IntN(2) == 0 {
					base := all[rng.IntN(len(all))]
					o.Base, a["base"] = &base.id, blobID(base.id)
					if len(base.data) > 0 {
						cs, err := b.Map(t.Context(), base.id)
						s.must(err)
						for pos := 0; len(cs) > 0; cs = cs[1:] { // its chunks, with others before and after
							chunks = append(chunks, base.data[pos:pos+int(cs[0].Length)])
							pos += int(cs[0].Length)
						}
					}
				}
				a["chunks"] = hexAll(chunks)
				w := b.NewWriter(t.Context(), o)
				for _, c := range chunks {
					_, err := w.Write(c)
					s.must(err)
				}
				s.must(w.Close())
				keep("write", slices.Concat(chunks...), w.ID(), call[answer](n, "write", a).ID, nil)
			}
		}
		sameBlobs(t, n, handle, b)
		sameReads(t, rng, n, handle, b, all)
		call[any](n, "close", args{"handle": handle})
	}
}

// sameReads reads blobs on both sides.
func sameReads(t *testing.T, rng *rand.Rand, n node, handle string, b *hyperblobs.Blobs, all []sample) {
	t.Helper()
	for _, x := range all {
		if len(x.data) == 0 {
			continue // the package's ranges can't be empty
		}
		want := sumOf(x.data)
		got, err := b.Get(t.Context(), x.id)
		if err != nil || !bytes.Equal(got, x.data) {
			t.Errorf("get %+v: %d bytes, %v, want %d", x.id, len(got), err, len(x.data))
		}
		if got := call[blobData](n, "get", args{"handle": handle, "id": blobID(x.id)}); got != want {
			t.Errorf("Node gets %+v as %+v, want %+v", x.id, got, want)
		}
		size := call[struct{ Size int }](n, "size", args{"handle": handle, "id": blobID(x.id)}).Size
		if ours, err := b.Size(t.Context(), x.id); err != nil || size != len(x.data) || ours != uint64(size) {
			t.Errorf("size of %+v: %d, %v, in Node %d, want %d", x.id, ours, err, size, len(x.data))
		}
		off := rng.IntN(len(x.data))
		part := x.data[off : off+1+rng.IntN(len(x.data)-off)]
		r, err := b.NewRangeReader(t.Context(), x.id, int64(off), int64(len(part)))
		if err != nil {
			t.Fatal(err)
		}
		got, err = io.ReadAll(r)
		if err != nil || !bytes.Equal(got, part) {
			t.Errorf("range %d+%d of %+v: %d bytes, %v", off, len(part), x.id, len(got), err)
		}
		if got := call[blobData](n, "get", args{"handle": handle, "id": blobID(x.id), "start": off, "length": len(part)}); got != sumOf(part) {
			t.Errorf("Node reads %d+%d of %+v as %+v", off, len(part), x.id, got)
		}
		if x.id.BlockMap {
			type chunk struct{ Index, ByteLength uint64 }
			var ours []chunk
			chunks, err := b.Map(t.Context(), x.id)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range chunks {
				ours = append(ours, chunk{c.Index, c.Length})
			}
			if theirs := call[struct{ Blocks []chunk }](n, "map", args{"handle": handle, "id": blobID(x.id)}).Blocks; !slices.Equal(ours, theirs) {
				t.Errorf("the map of %+v is %v, in Node %v", x.id, ours, theirs)
			}
		}
	}
	// And cleared, the same blocks are gone.
	for _, i := range rng.Perm(len(all))[:len(all)/2] {
		if _, err := b.Clear(t.Context(), all[i].id); err != nil {
			t.Fatal(err)
		}
		call[any](n, "clear", args{"handle": handle, "id": blobID(all[i].id)})
		if got, want := heldBlocks(b.Log()), heldByNode(n, handle); got != want {
			t.Fatalf("with %+v cleared, %d blocks are held, in Node %d", all[i].id, got, want)
		}
	}
}

func heldBlocks(l *hypercore.Log) (blocks int) {
	for from := uint64(0); ; {
		r, ok := l.NextHeld(from)
		if !ok {
			return blocks
		}
		blocks += int(r.End - r.Start)
		from = r.End
	}
}

func heldByNode(n node, handle string) int {
	return call[struct{ Blocks int }](n, "held", args{"handle": handle}).Blocks
}

// large are blobs of more than 4 GiB: one whose map names one block again and again, and in the long form one with
// blocks of its own.
const (
	largeBlock  = 64 << 10
	largeBlocks = 5<<30/largeBlock + 3
)

// plainBlocks is how many blocks the large blob without a map has.
func plainBlocks() int { return 500 * long(largeBlocks/500) }

func largeData() generated { return generated{Seed: "large", Sizes: []int{largeBlock}} }

// A span is a range of a large blob, and how many of its blocks are needed.
type span struct{ off, length, needs int }

// spans are ranges all over a blob of that many blocks, in blocks that no two of them share.
func spans(rng *rand.Rand, blocks int) (out []span) {
	out = append(out, span{0, 10, 1}, span{blocks*largeBlock - 1, 1, 1})
	for at := 1; ; {
		at += 1 + rng.IntN(blocks/8)
		needs := 1 + rng.IntN(4)
		if at+needs >= blocks-1 {
			return out
		}
		from, to := at*largeBlock, (at+needs)*largeBlock
		if rng.IntN(3) > 0 {
			from += rng.IntN(largeBlock)
			to -= rng.IntN(largeBlock)
		}
		if from < to {
			out = append(out, span{from, to - from, needs})
		}
		at += needs
	}
}

// bytes are those of a span; same says that all blocks are the first.
func (x span) bytes(same bool) []byte {
	g, data := largeData(), []byte(nil)
	first := x.off / largeBlock
	for i := range x.needs {
		if same {
			data = append(data, g.block(0)...)
		} else {
			data = append(data, g.block(first+i)...)
		}
	}
	return data[x.off-first*largeBlock:][:x.length]
}

func TestBevyReadsLargeBlobsOfNodeHereAndThere(t *testing.T) {
	n := startBlobs(t)
	s := startOurSide(t, replicate.Options{})
	rng := random(t, 1)
	key := hypercore.Key(key32(t, call[struct{ Key string }](n, "open", args{"handle": "theirs", "seed": seed(1)}).Key))
	fill := func(blocks int, same bool) hyperblobs.ID {
		a := args{"handle": "theirs", "seed": "large", "size": largeBlock, "blocks": blocks, "same": same}
		return hyperblobs.ID(call[struct{ ID blobID }](n, "fill", a).ID)
	}
	plain, mapped := fill(plainBlocks(), false), fill(largeBlocks, true)
	b := ourBlobs(s, "theirs", corestore.LogOptions{Key: &key}, hyperblobs.Options{})
	done := s.store.FindingPeers()
	s.connect(call[struct{ Port int }](n, "listen", args{"handle": "theirs"}).Port)
	done()
	ctx, cancel := s.patient()
	defer cancel()
	held := 0
	for _, x := range spans(rng, plainBlocks()) {
		r, err := b.NewRangeReader(ctx, plain, int64(x.off), int64(x.length))
		s.must(err)
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, x.bytes(false)) {
			t.Fatalf("%+v: %d bytes, %v", x, len(got), err)
		}
		s.must(r.Close())
		held += x.needs
		if n := heldBlocks(b.Log()); n != held {
			t.Fatalf("with %+v, %d blocks are held, want %d", x, n, held)
		}
	}
	held += int(mapped.BlockLength) + 1
	for _, x := range spans(rng, largeBlocks) {
		r, err := b.NewReader(ctx, mapped)
		s.must(err)
		if r.Size() != largeBlocks*largeBlock {
			t.Fatalf("size %d", r.Size())
		}
		got := make([]byte, x.length)
		if _, err := r.ReadAt(got, int64(x.off)); err != nil || !bytes.Equal(got, x.bytes(true)) {
			t.Fatalf("%+v through the map: %v", x, err)
		}
	}
	if n := heldBlocks(b.Log()); n != held {
		t.Errorf("%d blocks are held in the end, want %d", n, held)
	}
}

func TestNodeReadsLargeBlobsOfBevyHereAndThere(t *testing.T) {
	n := startBlobs(t)
	s := startOurSide(t, replicate.Options{})
	rng := random(t, 1)
	b := ourBlobs(s, "ours", beeWriter(1), hyperblobs.Options{})
	g := largeData()
	w := b.NewWriter(t.Context(), hyperblobs.WriteOptions{})
	for i := range plainBlocks() {
		_, err := w.Write(g.block(i))
		s.must(err)
	}
	s.must(w.Close())
	plain := w.ID()
	one, err := b.Put(t.Context(), g.block(0))
	s.must(err)
	maps := hyperblobs.AppendMap(nil, slices.Repeat([]hyperblobs.Chunk{{Index: one.BlockOffset, Length: largeBlock}}, largeBlocks))
	mapped := hyperblobs.ID{BlockOffset: b.Log().Length(), BlockLength: uint64(len(maps)), BlockMap: true}
	_, err = b.Log().Append(t.Context(), maps...)
	s.must(err)
	cut := randomBytes(rng, 3<<20)
	base := write(s, b, hyperblobs.WriteOptions{Dedup: true}, cut)
	edited := slices.Concat(cut[:1<<20], []byte("something"), cut[1<<20:])
	newer := write(s, b, hyperblobs.WriteOptions{Dedup: true, Base: &base}, edited)

	key := b.Log().Key()
	call[any](n, "open", args{"handle": "ours", "key": hex.EncodeToString(key[:])})
	call[any](n, "connect", args{"handle": "ours", "port": s.listen()})
	call[any](n, "update", args{"handle": "ours", "length": b.Log().Length()})
	read := func(id hyperblobs.ID, x span, same bool) {
		t.Helper()
		a := args{"handle": "ours", "id": blobID(id), "start": x.off, "length": x.length}
		if got, want := call[blobData](n, "get", a), sumOf(x.bytes(same)); got != want {
			t.Fatalf("Node reads %+v as %+v, want %+v", x, got, want)
		}
	}
	held := 0
	for _, x := range spans(rng, plainBlocks()) {
		read(plain, x, false)
		held += x.needs
		if n := heldByNode(n, "ours"); n != held {
			t.Fatalf("with %+v, Node holds %d blocks, want %d", x, n, held)
		}
	}
	for _, x := range spans(rng, largeBlocks) {
		read(mapped, x, true)
	}
	if n, want := heldByNode(n, "ours"), held+int(mapped.BlockLength)+1; n != want {
		t.Errorf("Node holds %d blocks in the end, want %d", n, want)
	}
	for _, x := range []sample{{base, cut}, {newer, edited}} {
		if got, want := call[blobData](n, "get", args{"handle": "ours", "id": blobID(x.id)}), sumOf(x.data); got != want {
			t.Errorf("Node gets %+v as %+v, want %+v", x.id, got, want)
		}
	}
}

func write(s *ourSide, b *hyperblobs.Blobs, o hyperblobs.WriteOptions, data []byte) hyperblobs.ID {
	s.t.Helper()
	w := b.NewWriter(s.ctx, o)
	_, err := w.ReadFrom(bytes.NewReader(data))
	s.must(err)
	s.must(w.Close())
	return w.ID()
}
