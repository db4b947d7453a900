package storage

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
)

func TestEveryNodeHasItsPlace(t *testing.T) {
	seen := map[[3]uint64]uint64{}
	for index := range uint64(1 << 16) {
		level, number, local := pageOf(index)
		if local == pageTop || local >= pageNodes || level > maxLevel {
			t.Fatalf("node %d is %d in page %d of level %d", index, local, number, level)
		}
		if got := nodeOf(level, number, local); got != index {
			t.Fatalf("node %d comes back as %d", index, got)
		}
		at := [3]uint64{uint64(level), number, uint64(local)}
		if other, ok := seen[at]; ok {
			t.Fatalf("nodes %d and %d are both %v", index, other, at)
		}
		seen[at] = index
		if first := merkle.LeftSpan(index) / 2 / pageSpan(level); first != number {
			t.Fatalf("node %d begins under page %d, not %d", index, first, number)
		}
	}
	for _, index := range []uint64{1<<53 - 1, 1<<53 - 2, 1<<52 - 1} {
		level, number, local := pageOf(index)
		if got := nodeOf(level, number, local); got != index || level > maxLevel {
			t.Errorf("node %d: level %d, comes back as %d", index, level, got)
		}
	}
}

// same compares what two pages hold.
func same(a, b *page) error {
	if a.kinds != b.kinds {
		return fmt.Errorf("kinds %v and %v", a.kinds, b.kinds)
	}
	if a.known != b.known {
		return fmt.Errorf("nodes %x and %x", a.known, b.known)
	}
	for local := range pageNodes {
		if a.known.has(local) && a.node(local) != b.node(local) {
			return fmt.Errorf("node %d: %v and %v", local, a.node(local), b.node(local))
		}
	}
	for slot, kind := range a.kinds {
		if kind == blockInline && !bytes.Equal(a.blocks[slot], b.blocks[slot]) {
			return fmt.Errorf("block %d: %x and %x", slot, a.blocks[slot], b.blocks[slot])
		}
	}
	return nil
}

func TestPagesAreReadAsWritten(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		n := rng.IntN(65)
		b := merkle.Tree{}.Batch()
		blocks := make([]Block, n)
		for i := range blocks {
			blocks[i] = Block{uint64(i), make([]byte, rng.IntN(20))}
			if rng.IntN(10) == 0 {
				blocks[i].Data = make([]byte, pageInline-1+rng.IntN(2))
			}
			b.Append(blocks[i].Data)
		}
		var value []byte
		want := &page{}
		nodes := slices.DeleteFunc(b.Nodes, func(n merkle.Node) bool {
			level, _, _ := pageOf(n.Index)
			return level > 0 || rng.IntN(5) == 0
		})
		blocks = slices.DeleteFunc(blocks, func(Block) bool { return rng.IntN(5) == 0 })
		if rng.IntN(2) == 0 {
			rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		}
		for len(nodes) > 0 || len(blocks) > 0 {
			i, j := rng.IntN(len(nodes)+1), rng.IntN(len(blocks)+1)
			c := &pageChange{with: want, nodes: nodes[:i], blocks: blocks[:j]}
			for _, n := range c.nodes {
				_, _, local := pageOf(n.Index)
				c.added.add(local)
			}
			nodes, blocks = nodes[i:], blocks[j:]
			c.encode()
			value = append(value, c.value...)
			c.apply(want)
		}
		want.derive()
		got := &page{}
		if err := got.decode(value); err != nil {
			t.Fatal(err)
		}
		if err := same(want, got); err != nil {
			t.Fatalf("read again: %v", err)
		}
		again := &page{}
		if err := again.decode(got.encodeWhole()); err != nil {
			t.Fatal(err)
		}
		if err := same(got, again); err != nil {
			t.Fatalf("written whole: %v", err)
		}
	}
}

// A proof can bring nodes whose sizes are wrong, as long as they add up; a later
// one puts them right. What was left out of the page must not change by that.
func TestReplacedNodesDoNotChangeOthers(t *testing.T) {
	for _, cache := range []int{1, 1 << 20} {
		engine := NewMemory()
		s, err := Open(engine, Options{CacheBytes: cache})
		if err != nil {
			t.Fatal(err)
		}
		b := merkle.Tree{}.Batch()
		for i := range 8 {
			b.Append(make([]byte, 10+i))
		}
		inner := slices.DeleteFunc(b.Nodes, func(n merkle.Node) bool { return merkle.Depth(n.Index) == 0 })
		wrong := slices.Clone(inner)
		for i := range wrong {
			switch wrong[i].Index {
			case 1:
				wrong[i].Size += 3
			case 5:
				wrong[i].Size -= 3
			}
		}
		if err := s.Commit(Durable, &Tx{Log: 1, Base: 8, Nodes: wrong}); err != nil {
			t.Fatal(err)
		}
		for _, n := range inner {
			if n.Index == 1 {
				if err := s.Commit(Durable, &Tx{Log: 1, Base: 8, Nodes: []merkle.Node{n}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if s, err = Open(engine, Options{}); err != nil {
			t.Fatal(err)
		}
		for i, n := range inner {
			want := n
			if n.Index == 5 {
				want = wrong[i] // nobody has put it right yet
			}
			if got, err := s.Log(1).Node(n.Index); err != nil || got != want {
				t.Errorf("node %d is %v, %v, want %v", n.Index, got, err, want)
			}
		}
	}
}

// The example of docs/formats/store.md.
func TestPageOfTheFormatPage(t *testing.T) {
	b := merkle.Tree{}.Batch()
	first := &pageChange{blocks: []Block{{0, []byte("hello")}}}
	b.Append([]byte("hello"))
	first.nodes = b.Nodes
	first.added.add(0)
	first.encode()
	p := &page{}
	first.apply(p)

	second := &pageChange{with: p, blocks: []Block{{1, []byte("world")}, {2, make([]byte, 4<<10)}}}
	b.Append(second.blocks[0].Data)
	b.Append(second.blocks[1].Data)
	second.nodes = b.Nodes[1:] // blocks 1 and 2, and node 1 between them
	for _, n := range second.nodes {
		_, _, local := pageOf(n.Index)
		second.added.add(local)
	}
	second.encode()
	value := append(slices.Clone(first.value), second.value...)

	want := "01ad808000" + // a run of 45 bytes
		"01000105" + // nodes: from 0, 1 of them, of size 5
		"f2391083cfaa8043205fed76cdff843902146ca92aebcd7a196814ec45d8c8f8" +
		"02000105" + hex.EncodeToString([]byte("hello")) + // blocks: from 0, 1 of them, of 5 bytes
		"01d2808000" + // a run of 82 bytes
		"01020205" + // nodes: from 2, 2 of them; the first of size 5
		"993ec5ef8bbc7f1d174f00e650b8d51599124a9bf93885f33cec5b9060b75c1c" +
		"8020" + // the second of size 4096
		"98f31537c45718fc9aa685f2230bcdaa1ed8c820fa3ee693e8c277fcb99a589f" +
		"02010105" + hex.EncodeToString([]byte("world")) +
		"030201" // blobs: from 2, 1 of them
	if got := hex.EncodeToString(value); got != want {
		t.Errorf("the page is\n%s\nwant\n%s", got, want)
	}
}

func FuzzPage(f *testing.F) {
	f.Add(0, []byte{})
	f.Add(0, (&page{}).encodeWhole())
	c := &pageChange{blocks: []Block{{3, []byte("x")}, {4, make([]byte, 4<<10)}}, nodes: []merkle.Node{{Index: 6}, {Index: 8}, {Index: 7}}}
	c.encode()
	f.Add(0, c.value)
	f.Add(1, c.value)
	f.Fuzz(func(t *testing.T, level int, value []byte) {
		if level < 0 || level > maxLevel {
			return
		}
		p := &page{level: level}
		if err := p.decode(value); err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("%v does not say that it is corrupt", err)
			}
			return
		}
		again := &page{level: level}
		if err := again.decode(p.encodeWhole()); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if err := same(p, again); err != nil {
			t.Fatalf("written again: %v", err)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add(encodeAuth(&Auth{Manifest: []byte("m"), PublicKey: []byte("p"), Seed: []byte("s"), Frozen: []byte("f")}))
	f.Add(appendHead(nil, &Head{Fork: 1, Length: 2, Signature: []byte("s"), Tail: Range{Start: 3, End: 4}}))
	f.Add(pointer{1, 2, 3}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := decodeAuth(b); err == nil {
			again, err := decodeAuth(encodeAuth(&a))
			if err != nil || !bytes.Equal(again.Manifest, a.Manifest) || !bytes.Equal(again.Frozen, a.Frozen) || again.Key != a.Key {
				t.Errorf("auth %v becomes %v, %v", a, again, err)
			}
		}
		if h, err := decodeHead(b); err == nil {
			again, err := decodeHead(appendHead(nil, &h))
			if err != nil || again.Length != h.Length || again.Tail != h.Tail || !bytes.Equal(again.Signature, h.Signature) {
				t.Errorf("head %v becomes %v, %v", h, again, err)
			}
		}
		if p, ok := parsePointer(b); ok && !bytes.Equal(p.append(nil), b) {
			t.Errorf("pointer %v", p)
		}
	})
}

func FuzzSegment(f *testing.F) {
	record := append(make([]byte, 4), 1, 0, 2, 0, 0, 0, 'k', 'v', 'v')
	f.Add(append([]byte(segmentMagic), record...), uint32(8), uint32(2))
	f.Add([]byte(segmentMagic), uint32(0), uint32(1<<31))
	f.Fuzz(func(t *testing.T, data []byte, offset, length uint32) {
		fsys := memFile(t, "blobs/00000001.seg", data)
		s, err := openSegments(fsys, "blobs", true)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := s.records(1, func(key []byte, p pointer) error {
			n++
			if p.offset < uint32(len(segmentMagic)) || int(p.offset)+p.recordSize(len(key)) > len(data) {
				t.Errorf("record %v of %q in %d bytes", p, key, len(data))
			}
			_, err := s.read(p, key, nil)
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n*segmentHeader > len(data) {
			t.Errorf("%d records in %d bytes", n, len(data))
		}
		_, err = s.read(pointer{1, offset, length}, []byte("k"), nil)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRecordsOfNewerVersionsAreTold(t *testing.T) {
	for _, b := range [][]byte{append([]byte{recordVersion + 1}, make([]byte, 100)...)} {
		if _, err := decodeHead(b); !errors.Is(err, ErrVersion) {
			t.Errorf("head: %v", err)
		}
		if _, err := decodeAuth(b); !errors.Is(err, ErrVersion) {
			t.Errorf("auth: %v", err)
		}
		if err := new(page).decode(b); !errors.Is(err, ErrVersion) {
			t.Errorf("page: %v", err)
		}
	}
	if _, err := decodeHead(binary.AppendUvarint(nil, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("head of no version: %v", err)
	}
}
