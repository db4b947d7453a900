package hyperbee

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A rawNode is a node of a block, whatever is in it.
type rawNode struct {
	keys     []uint64
	children []uint64 // block, level, …
}

// rawBlock is a block of a liar.
func rawBlock(key string, value []byte, nodes ...rawNode) []byte {
	var index []byte
	for _, n := range nodes {
		var level []byte
		for i, numbers := range [][]uint64{n.keys, n.children} {
			var packed []byte
			for _, v := range numbers {
				packed = binary.AppendUvarint(packed, v)
			}
			if len(packed) > 0 {
				level = appendField(level, byte(i+1)<<3|2, packed)
			}
		}
		index = appendField(index, tag1, level)
	}
	b := appendField(nil, tag1, index)
	b = appendField(b, tag2, []byte(key))
	if value != nil {
		b = appendField(b, tag3, value)
	}
	return b
}

// leaf is a node without children.
func leaf(keys ...uint64) rawNode { return rawNode{keys: keys} }

func inner(keys []uint64, children ...uint64) rawNode { return rawNode{keys, children} }

// rawTree is a tree of these blocks after a header.
func rawTree(t testing.TB, log *hypercore.Log, blocks ...[]byte) *Tree {
	t.Helper()
	header := Header{Protocol: protocolName}.Append(nil)
	_, err := log.AppendWith(context.Background(), hypercore.AppendOptions{Durability: hypercore.Soon}, append([][]byte{header}, blocks...)...)
	must(t, err)
	tree, err := Open(log, Options{Durability: hypercore.Soon})
	must(t, err)
	return tree
}

// useAll does everything that reads with a tree, and returns the errors, by what
// was done.
func useAll(ctx context.Context, tree *Tree, keys ...string) map[string]error {
	errs := map[string]error{}
	for _, key := range keys {
		if _, err := tree.Get(ctx, []byte(key)); err != nil && !errors.Is(err, ErrNotFound) {
			errs["get "+key] = err
		}
	}
	for _, o := range []RangeOptions{{}, {Reverse: true}, {Gt: []byte("b")}, {Lte: []byte("m"), Reverse: true}} {
		last := ""
		n := 0
		for e, err := range tree.Range(ctx, o) {
			if err != nil {
				errs[fmt.Sprintf("range %+v", o)] = err
				break
			}
			if n++; n > 1 && string(e.Key) == last {
				errs["range"] = errors.New("a key came twice")
				break
			}
			last = string(e.Key)
		}
	}
	for v := uint64(1); v < tree.Version(); v++ {
		for _, err := range tree.Diff(ctx, v, RangeOptions{}) {
			if err != nil {
				errs[fmt.Sprint("diff ", v)] = err
			}
		}
	}
	for _, err := range tree.History(ctx, HistoryOptions{}) {
		if err != nil {
			errs["history"] = err
		}
	}
	return errs
}

// trouble are trees that make no sense: the last block is what is wrong.
var trouble = []struct {
	name   string
	want   string // in the errors
	blocks [][]byte
}{
	{"a child that is its parent", "deeper", [][]byte{rawBlock("k", nil, inner([]uint64{1}, 1, 0, 1, 0))}},
	{"children in a circle", "deeper", [][]byte{
		rawBlock("a", nil, leaf(1)),
		rawBlock("k", nil, inner([]uint64{2}, 2, 1, 2, 1), inner([]uint64{2}, 2, 0, 2, 0)),
	}},
	{"a child of the future", "child", [][]byte{rawBlock("k", nil, inner([]uint64{1}, 9, 0, 9, 0))}},
	{"a child in the header", "child", [][]byte{rawBlock("k", nil, inner([]uint64{1}, 0, 0, 0, 0))}},
	{"a child that there is not", "number 7 was wanted", [][]byte{rawBlock("k", nil, inner([]uint64{1}, 1, 7, 1, 7))}},
	{"a key of the future", "key", [][]byte{rawBlock("k", nil, leaf(9))}},
	{"a key in the header", "key", [][]byte{rawBlock("k", nil, leaf(0))}},
	{"a giant node", "more than 8", [][]byte{rawBlock("k", nil, leaf(make([]uint64, 1_000_000)...))}},
	{"many children", "more than 8", [][]byte{rawBlock("k", nil, inner([]uint64{1}, make([]uint64, 100)...))}},
	{"a child too few", "1 keys and 1 children", [][]byte{rawBlock("k", nil, inner([]uint64{1}, 1, 0))}},
	{"half a child", "cut off", [][]byte{rawBlock("k", nil, inner([]uint64{1}, 1, 0, 1))}},
	{"an inner node without keys", "no keys", [][]byte{rawBlock("k", nil, inner(nil, 1, 0))}},
	{"a leaf without keys", "no keys", [][]byte{rawBlock("k", nil, inner([]uint64{1}, 1, 1, 1, 1), leaf())}},
	{"no nodes", "0 nodes", [][]byte{rawBlock("k", nil)}},
	{"more nodes than there are", "nodes", [][]byte{rawBlock("k", nil, make([]rawNode, maxLevels+1)...)}},
	{"another kind of block", "unknown format", [][]byte{{1, 2, 3, 4}}},
	{"nothing", "no index", [][]byte{{}}},
	{"no key", "no key", [][]byte{appendField(nil, tag1, nil)}},
	{"a field that is cut off", "cut off", [][]byte{{tag1, 200, 1, 0}}},
	{"a number too large", "too large", [][]byte{{tag1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}}},
	{"a field of no type", "unknown type", [][]byte{{tag1, 0, 1<<3 | 3}}},
	{"keys out of order", "order", [][]byte{rawBlock("m", nil, leaf(1)), rawBlock("k", nil, leaf(1, 2))}},
	{"a key twice", "order", [][]byte{rawBlock("m", nil, leaf(1)), rawBlock("n", nil, leaf(1, 1))}},
}

func TestTreesOfLiarsEndInErrors(t *testing.T) {
	store := memoryStore(t)
	for i, c := range trouble {
		t.Run(c.name, func(t *testing.T) {
			tree := rawTree(t, openLog(t, store, byte(i+1)), c.blocks...)
			errs := useAll(context.Background(), tree, "", "a", "k", "m", "z")
			if len(errs) == 0 {
				t.Fatal("nothing is wrong with it")
			}
			told := false
			for what, err := range errs {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tree.Log().Key().String()) || !strings.Contains(err.Error(), fmt.Sprint("block ", len(c.blocks))) {
					t.Errorf("%s: %v, want ErrInvalid, the log and block %d", what, err, len(c.blocks))
				}
				told = told || strings.Contains(err.Error(), c.want)
			}
			if !told {
				t.Errorf("no error says %q: %v", c.want, errs)
			}
			// Whoever can write may still do so where that does not come by what is wrong.
			ctx := context.Background()
			if err := tree.Put(ctx, []byte("k"), nil); err != nil && !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
			if err := tree.Delete(ctx, []byte("m")); err != nil && !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
		})
	}
}

func TestALogOfSomethingElseIsNoTree(t *testing.T) {
	for i, block := range [][]byte{{}, []byte("hello"), Header{Protocol: "hyperdrive"}.Append(nil), {0x0a, 50}, {0x12, 0}} {
		log := openLog(t, memoryStore(t), byte(i+1))
		_, err := log.Append(context.Background(), block)
		must(t, err)
		if _, err := Open(log, Options{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "block 0") {
			t.Errorf("open a log that begins with %q: %v, want ErrInvalid", block, err)
		}
	}
}

// A walk over a tree whose paths are many and keys few comes to its end soon.
func TestATreeOfCopiesOfItselfCostsLittle(t *testing.T) {
	tree := rawTree(t, openLog(t, memoryStore(t), 1), copies()...)
	for what, err := range useAll(context.Background(), tree, "k001", "k015", "k100") {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzDecode reads bytes as a block and as a header: nothing of it panics, and
// what is read is part of the input.
func FuzzDecode(f *testing.F) {
	for _, s := range loadVectors(f).Scenarios {
		for _, b := range s.Blocks[:min(len(s.Blocks), 20)] {
			f.Add(hexBytes(b.Hex))
		}
	}
	for _, c := range trouble {
		if last := c.blocks[len(c.blocks)-1]; len(last) < 1000 {
			f.Add(last)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if h, err := ReadHeader(raw); err == nil && h.Metadata != nil {
			if len(h.Metadata.ContentFeed)+len(h.Metadata.UserData) > len(raw) {
				t.Fatal("more metadata than bytes")
			}
			again, err := ReadHeader(h.Append(nil))
			if err != nil || again.Protocol != h.Protocol || string(again.Metadata.UserData) != string(h.Metadata.UserData) {
				t.Fatalf("%+v read again is %+v, %v", h, again, err)
			}
		}
		b, err := decode(1<<40, raw)
		if err != nil {
			return
		}
		if len(b.key)+len(b.value) > len(raw) || b.cost() > 1000+10*len(raw) {
			t.Fatalf("%d bytes cost %d", len(raw), b.cost())
		}
		for i := range b.levels {
			var n node
			if err := b.node(uint64(i), i == 0, &n); err == nil && (n.nkeys > maxKeys || n.nchildren > maxKeys+1) {
				t.Fatalf("node %d has %d keys", i, n.nkeys)
			}
		}
		_, _ = b.has(1)
	})
}

// FuzzTree reads and changes a tree of whatever blocks. Nothing panics or goes on
// for ever, and every error is one that says so.
func FuzzTree(f *testing.F) {
	for _, c := range trouble {
		var in []byte
		for _, b := range c.blocks {
			if len(b) < 1000 {
				in = append(append(in, byte(len(b))), b...)
			}
		}
		f.Add(in)
	}
	for _, s := range loadVectors(f).Scenarios {
		var in []byte
		for _, b := range s.Blocks[:min(len(s.Blocks), 40)] {
			if raw := hexBytes(b.Hex); len(raw) < 256 && b.Hex != s.Blocks[0].Hex {
				in = append(append(in, byte(len(raw))), raw...)
			}
		}
		f.Add(in)
	}
	store := memoryStore(f)
	kp := keyPairN(1)
	f.Fuzz(func(t *testing.T, in []byte) {
		log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp, Durability: hypercore.Soon})
		must(t, err)
		defer log.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		must(t, log.Truncate(ctx, 0, hypercore.TruncateOptions{Durability: hypercore.Soon}))
		var blocks [][]byte
		for len(in) > 0 && len(blocks) < 40 {
			n := min(int(in[0]), len(in)-1)
			blocks = append(blocks, in[1:1+n])
			in = in[1+n:]
		}
		tree := rawTree(t, log, blocks...)
		for what, err := range useAll(ctx, tree, "", "k", "key-05") {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		b, err := tree.Batch(ctx)
		must(t, err)
		defer b.Close()
		for i := range 30 {
			err := b.Put(ctx, fmt.Append(nil, "key-", i*7%30), []byte("v"))
			if i%3 == 2 && err == nil {
				err = b.Delete(ctx, fmt.Append(nil, "key-", i*5%30))
			}
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, o := range []RangeOptions{{}, {Gt: []byte("k"), Reverse: true}} {
			for _, err := range b.Range(ctx, o) {
				if err != nil && !errors.Is(err, ErrInvalid) {
					t.Fatal(err)
				}
			}
		}
		must(t, b.Flush(ctx))
	})
}
