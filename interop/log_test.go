package interop_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 is the fixed one")

// long is how many times more the random tests do in the long form.
func long(times int) int {
	if os.Getenv("BEVY_LONG") != "" {
		return times
	}
	return 1
}

// random is the generator of a test, of its name and of the fixed seed or that of -seed, which is printed when it fails.
func random(t *testing.T, fixed uint64) *rand.Rand {
	t.Helper()
	if *seedFlag != 0 {
		fixed = *seedFlag
	}
	t.Logf("-seed %d", fixed)
	name := fnv.New64a()
	name.Write([]byte(t.Name()))
	return rand.New(rand.NewPCG(fixed, name.Sum64()))
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// randomBlocks are one block, or a few, mostly small.
func randomBlocks(rng *rand.Rand) [][]byte {
	n := 1
	if rng.IntN(2) == 0 {
		n = 1 + rng.IntN(12)
	}
	blocks := make([][]byte, n)
	for i := range blocks {
		size := rng.IntN(40)
		switch rng.IntN(20) {
		case 0, 1:
			size = 0
		case 2:
			size = rng.IntN(3000)
		case 3:
			size = 1 + rng.IntN(64<<10)
		}
		blocks[i] = randomBytes(rng, size)
	}
	return blocks
}

func hexes(blocks [][]byte) []string {
	out := make([]string, len(blocks))
	for i, b := range blocks {
		out[i] = hex.EncodeToString(b)
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key32(t testing.TB, s string) (k [32]byte) {
	t.Helper()
	if copy(k[:], unhex(t, s)) != 32 {
		t.Fatalf("key %q has not 32 bytes", s)
	}
	return k
}

// keyPair is the key pair of seed(b).
func keyPair(b byte) hypercore.KeyPair {
	return hypercore.NewKeyPair([32]byte(bytes.Repeat([]byte{b}, 32)))
}

// openLog opens a log of ours in a store of its own.
func openLog(t testing.TB, o hypercore.Options) *hypercore.Log {
	t.Helper()
	o.Durability = hypercore.Soon
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := hypercore.Open(store, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// openReader opens an empty log of which only the key is known.
func openReader(t testing.TB, key hypercore.Key) *hypercore.Log {
	t.Helper()
	return openLog(t, hypercore.Options{Key: &key})
}

// with is params and more.
func with(params args, more args) args {
	out := args{}
	for k, v := range params {
		out[k] = v
	}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// manifestArgs is a manifest as the peer takes it.
func manifestArgs(m *hypercore.Manifest) string { return hex.EncodeToString(m.Encode()) }

// A kind is one sort of log, and how each side opens it.
type kind struct {
	name string
	node args
	ours hypercore.Options
	// prologue is what the log must begin with.
	prologue [][]byte
	// padding is what encryption adds to a block.
	padding uint64
}

// compat says whether it is of the old kind, whose key is that of its writer.
func (k kind) compat() bool { return k.ours.Compat }

// kinds are all sorts of log of one writer.
func kinds() []kind { return kindsOf(0x21) }

func kindsOf(writer byte) []kind {
	kp := keyPair(writer)
	sd := seed(writer)
	secret := [32]byte(bytes.Repeat([]byte{0x77}, 32))
	single := func(version int) *hypercore.Manifest {
		m := hypercore.SingleSigner(kp.Public)
		m.Version = version
		return m
	}
	of := func(name string, m *hypercore.Manifest) kind {
		return kind{name: name, node: args{"seed": sd, "manifest": manifestArgs(m)}, ours: hypercore.Options{KeyPair: &kp, Manifest: m}}
	}
	encrypted := func(k kind, blockKey bool) kind {
		k.node = with(k.node, args{"encryptionKey": hex.EncodeToString(secret[:]), "blockKey": blockKey})
		k.ours.Session = hypercore.SessionOptions{EncryptionKey: &secret, BlockKey: blockKey}
		k.padding = hypercore.EncryptionPadding
		return k
	}
	named := single(1)
	named.Signers[0].Namespace = [32]byte(bytes.Repeat([]byte{0x15}, 32))
	v0 := single(0)
	v0.Signers[0].Namespace = named.Signers[0].Namespace
	v2 := single(2)
	v2.UserData, v2.Linked = []byte("user data"), []hypercore.Key{keyPair(1).Public, keyPair(2).Public}
	v3 := single(3)
	v3.UserData = []byte{}
	v3.AllowPatch = true
	prologue := [][]byte{[]byte("it begins"), {}, []byte("with"), []byte("these"), []byte("five blocks")}
	pinned := single(1)
	pinned.Prologue = &merkle.Prologue{Hash: treeOf(prologue).Hash(), Length: uint64(len(prologue))}
	pinnedKind := of("v1 with a prologue", pinned)
	pinnedKind.prologue = prologue
	plain := kind{name: "v1", node: args{"seed": sd}, ours: hypercore.Options{KeyPair: &kp}}
	compat := kind{name: "compat", node: args{"seed": sd, "compat": true}, ours: hypercore.Options{KeyPair: &kp, Compat: true}}
	encryptedV1, encryptedCompat, blockKey := encrypted(plain, false), encrypted(compat, false), encrypted(plain, true)
	encryptedV1.name, encryptedCompat.name, blockKey.name = "encrypted", "encrypted compat", "encrypted with a block key"
	return []kind{plain, of("v1 with a namespace", named), of("v0", v0), of("v2", v2), of("v3", v3), compat, pinnedKind, encryptedV1, encryptedCompat, blockKey}
}

// treeOf is the tree of blocks.
func treeOf(blocks [][]byte) merkle.Tree {
	b := merkle.Tree{}.Batch()
	for _, block := range blocks {
		b.Append(block)
	}
	return b.Tree
}

// open opens the same new log on both sides.
func (k kind) open(t testing.TB, n node, handle string, node args) *hypercore.Log {
	t.Helper()
	l := openLog(t, k.ours)
	o := openNode(t, n, handle, with(k.node, node))
	if key := l.Key(); o.Key != hex.EncodeToString(key[:]) {
		t.Fatalf("%s: our key is %x, Node's %s", k.name, key, o.Key)
	}
	if d := l.Discovery(); o.DiscoveryKey != hex.EncodeToString(d[:]) {
		t.Fatalf("%s: our discovery key is %x, Node's %s", k.name, d, o.DiscoveryKey)
	}
	return l
}

// openNode opens a core on the Node side, until the test ends.
func openNode(t testing.TB, n node, handle string, params args) opened {
	t.Helper()
	o := call[opened](n, "open", with(params, args{"handle": handle}))
	t.Cleanup(func() {
		// One that froze is closed already; what its files take is what matters.
		_ = n.p.Call(context.Background(), "close", args{"handle": handle}, nil)
	})
	return o
}

// headOf is our head as the peer writes one.
func headOf(l *hypercore.Log) head {
	h := l.Head()
	hash := h.Hash()
	out := head{Length: h.Length, Fork: h.Fork, ByteLength: h.Tree.ByteLength(), TreeHash: hex.EncodeToString(hash[:])}
	if h.Signature != nil {
		s := hex.EncodeToString(h.Signature)
		out.Signature = &s
	}
	return out
}

func (h head) String() string {
	return fmt.Sprintf("length %d, fork %d, %d bytes, hash %s, signature %s", h.Length, h.Fork, h.ByteLength, h.TreeHash, deref(h.Signature))
}

// sameHead compares our head with Node's, byte for byte.
func sameHead(t testing.TB, what string, l *hypercore.Log, theirs head) {
	t.Helper()
	if ours := headOf(l); ours.String() != theirs.String() {
		t.Fatalf("%s: heads differ:\nours   %v\nNode's %v", what, ours, theirs)
	}
}

// A dump is all that a side holds of a log.
type dump struct {
	head
	Nodes  []*treeNode
	Blocks []*string
}

// dumpNode reads all that the peer holds below a length.
func dumpNode(n node, handle string, length uint64) dump {
	n.t.Helper()
	return call[dump](n, "dump", args{"handle": handle, "nodes": 2 * length, "blocks": length})
}

// dumpOurs reads all that we hold below a length.
func dumpOurs(t testing.TB, l *hypercore.Log, length uint64) dump {
	t.Helper()
	d := dump{head: headOf(l)}
	for i := range 2 * length {
		n, err := l.Node(i)
		switch {
		case err == nil:
			d.Nodes = append(d.Nodes, &treeNode{n.Index, n.Size, hex.EncodeToString(n.Hash[:])})
		case errors.Is(err, merkle.ErrNoNode):
			d.Nodes = append(d.Nodes, nil)
		default:
			t.Fatal(err)
		}
	}
	for i := range length {
		b, err := l.Stored(context.Background(), i)
		switch {
		case err == nil:
			s := hex.EncodeToString(b)
			d.Blocks = append(d.Blocks, &s)
		case errors.Is(err, hypercore.ErrNotFound):
			d.Blocks = append(d.Blocks, nil)
		default:
			t.Fatal(err)
		}
		if l.Has(i) != (err == nil) {
			t.Fatalf("Has(%d) = %v, and reading it: %v", i, l.Has(i), err)
		}
	}
	return d
}

// sameDump compares all that two sides hold, and returns how much it is.
func sameDump(t testing.TB, what string, ours, theirs dump) (nodes, blocks int) {
	t.Helper()
	if ours.head.String() != theirs.head.String() {
		t.Fatalf("%s: heads differ:\nours   %v\nNode's %v", what, ours.head, theirs.head)
	}
	if len(ours.Nodes) != len(theirs.Nodes) || len(ours.Blocks) != len(theirs.Blocks) {
		t.Fatalf("%s: dumps of %d and %d blocks", what, len(ours.Blocks), len(theirs.Blocks))
	}
	for i, n := range ours.Nodes {
		m := theirs.Nodes[i]
		if (n == nil) != (m == nil) || n != nil && *n != *m {
			t.Fatalf("%s: node %d: ours %+v, Node's %+v", what, i, n, m)
		}
		if n != nil {
			nodes++
		}
	}
	for i, b := range ours.Blocks {
		if c := theirs.Blocks[i]; deref(b) != deref(c) {
			t.Fatalf("%s: block %d: ours %.100s, Node's %.100s", what, i, deref(b), deref(c))
		}
		if b != nil {
			blocks++
		}
	}
	return nodes, blocks
}

// appendBoth appends the same blocks on both sides and compares the heads.
func appendBoth(t testing.TB, n node, handle string, l *hypercore.Log, blocks ...[]byte) {
	t.Helper()
	if _, err := l.Append(t.Context(), blocks...); err != nil {
		t.Fatal(err)
	}
	sameHead(t, "append", l, call[head](n, "append", args{"handle": handle, "blocks": hexes(blocks)}))
}

// truncateBoth is appendBoth for a truncation.
func truncateBoth(t testing.TB, n node, handle string, l *hypercore.Log, length uint64) {
	t.Helper()
	if err := l.Truncate(t.Context(), length, hypercore.TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	sameHead(t, "truncate", l, call[head](n, "truncate", args{"handle": handle, "length": length}))
}

// requestArgs is a request as the peer takes it.
func requestArgs(r merkle.Request, fork uint64, manifest bool) args {
	a := args{"fork": fork, "manifest": manifest}
	if r.Block != nil {
		a["block"] = args{"index": r.Block.Index, "nodes": r.Block.Nodes}
	}
	if r.Hash != nil {
		a["hash"] = args{"index": r.Hash.Index, "nodes": r.Hash.Nodes}
	}
	if r.Seek != nil {
		a["seek"] = args{"bytes": r.Seek.Bytes, "padding": r.Seek.Padding}
	}
	if r.Upgrade != nil {
		a["upgrade"] = upgrade{r.Upgrade.Start, r.Upgrade.Length}
	}
	return a
}

func requestString(r merkle.Request) string {
	b, err := json.Marshal(requestArgs(r, 0, false))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// refusal sorts why a side refuses to prove, so that both can be compared.
func refusal(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, hypercore.ErrNotFound):
		return "NO_DATA"
	case errors.Is(err, merkle.ErrRequest), errors.Is(err, merkle.ErrNoNode):
		return "INVALID_OPERATION"
	}
	return err.Error()
}

// A said is what a side answers to a request.
type said struct{ DataHex, Code, Message string }

// proveNode lets the peer answer requests.
func proveNode(n node, handle string, requests []args) []said {
	n.t.Helper()
	out := call[struct{ Proofs []said }](n, "proofs", args{"handle": handle, "requests": requests}).Proofs
	for i := range out {
		// Package 10 has other words for what it can't prove.
		if c := out[i].Code; c == "EPARTIALREAD" || c == "BAD_ARGUMENT" || strings.HasPrefix(out[i].Message, "Could not load node") {
			out[i].Code = "INVALID_OPERATION"
		}
	}
	return out
}

// proveOurs answers a request with the bytes of a data message.
func proveOurs(t testing.TB, l *hypercore.Log, r merkle.Request, manifest bool) said {
	t.Helper()
	p, err := l.Prove(t.Context(), r, manifest)
	if err != nil {
		return said{Code: refusal(err), Message: err.Error()}
	}
	return said{DataHex: hex.EncodeToString(p.AppendData(nil, 1))}
}

// readProof reads a data message, and checks that writing it again gives the same bytes.
func readProof(t testing.TB, dataHex string) *hypercore.Proof {
	t.Helper()
	data := unhex(t, dataHex)
	p, request, err := hypercore.ReadData(data)
	if err != nil {
		t.Fatalf("read %s: %v", dataHex, err)
	}
	if again := p.AppendData(nil, request); !bytes.Equal(again, data) {
		t.Fatalf("a data message changes when it is read and written:\n %x\n %x", data, again)
	}
	return p
}

// apply takes one proof, and fails the test when nothing can be stored.
func apply(t testing.TB, l *hypercore.Log, p *hypercore.Proof) error {
	t.Helper()
	errs, err := l.Apply(t.Context(), hypercore.Soon, p)
	if err != nil {
		t.Fatal(err)
	}
	return errs[0]
}
