package interop_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// A side is one of the peers that replicate: Node's or ours. Its methods end the test when they do not go well, and
// those that need the other peers wait for them.
type side interface {
	String() string
	takes(k kind, write bool) bool
	// open opens the log of a kind under a name: to write it, or with a key to read it.
	open(name string, k kind, key string) string
	append(name string, blocks ...[]byte)
	// quorum appends with the signatures of several.
	quorum(name string, signature []byte, blocks ...[]byte)
	generate(name string, g generated)
	truncate(name string, length uint64)
	clear(name string, from, to uint64)
	// snapshot makes the log as it is now another one, to read.
	snapshot(name, as string)
	head(name string) head
	get(name string, index uint64) []byte
	// tryGet does not wait longer than a moment.
	tryGet(name string, index uint64) ([]byte, bool)
	// stored is a block as it is sent, and nil where it is not held.
	stored(name string, index uint64) []byte
	// gets asks for many at once, and returns their digest.
	gets(name string, indices []uint64) string
	// digest is that of the blocks below to, in order.
	digest(name string, to uint64) string
	held(name string) []hypercore.Range
	seek(name string, pos uint64) place
	// read is the digest of some bytes of the whole.
	read(name string, from, length uint64) string
	update(name string)
	download(name string, from, to uint64)
	// follow downloads all that there is and will be.
	follow(name string)
	await(name string, c condition)
	counted(name string) counters
	listen() int
	connect(port int)
	// connections counts all that were ever there.
	connections() int
	// cut ends all connections, without a word.
	cut()
}

type place struct{ Index, Offset uint64 }

// A condition is what a log is to be, at least.
type condition struct {
	Length           uint64
	Fork             uint64
	ContiguousLength uint64
	Downloaded       int // blocks
}

// counters are of blocks that came and went over connections.
type counters struct {
	peers, downloaded, uploaded int
}

// generated are blocks that a test can make on both sides, those of lib/blocks.js.
type generated struct {
	Seed  string `json:"seed"`
	Sizes []int  `json:"sizes"`
	From  int    `json:"from"`
	To    int    `json:"to"`
	Batch int    `json:"batch,omitempty"`
}

func (g generated) block(index int) []byte {
	key := sha256.Sum256([]byte(g.Seed))
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic(err)
	}
	var iv [16]byte
	binary.BigEndian.PutUint64(iv[:], uint64(index))
	b := make([]byte, g.Sizes[index%len(g.Sizes)])
	cipher.NewCTR(block, iv[:]).XORKeyStream(b, b)
	return b
}

// digest is what a side answers for all of them.
func (g generated) digest() string {
	d := newDigest()
	for i := g.From; i < g.To; i++ {
		d.add(g.block(i))
	}
	return d.String()
}

// A digest is the sum of many blocks, that of lib/blocks.js.
type digest struct{ hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

func (d digest) add(block []byte) {
	var length [4]byte
	binary.LittleEndian.PutUint32(length[:], uint32(len(block)))
	d.Write(length[:])
	d.Write(block)
}

func (d digest) String() string { return hex.EncodeToString(d.Sum(nil)) }

// nodeSide is a side of Node, with a corestore or, in package 10 and for cores of the old kind, with single cores.
type nodeSide struct {
	node
	pkg    string
	single bool
	cores  []string // single ones, by name
	next   int      // the number of the newest stream or listener
}

// patience is how long a side waits for another, at most.
const patience = 30 * time.Second

func startNodeSide(t *testing.T, pkg string, single bool) *nodeSide {
	t.Helper()
	nodepeer.Require(t)
	// It is to answer to the end, and longer than the context of the test lasts.
	p, err := nodepeer.Start(context.Background(), "replicate.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	n := &nodeSide{node: node{t, p}, pkg: pkg, single: single || pkg == "10"}
	if !n.single {
		ask[any](n, "store", args{"store": "store"})
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%v: streams %+v; it said: %s", n, n.all(), n.p.Stderr())
		}
	})
	return n
}

func (n *nodeSide) String() string {
	if n.single && n.pkg == "11" {
		return "Node 11 without a store"
	}
	return "Node " + n.pkg
}

// try calls a method of the script.
func (n *nodeSide) try(method string, params args, result any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.t.Context()), patience+10*time.Second)
	defer cancel()
	return n.p.Call(ctx, method, params, result)
}

// ask is a call that must go well.
func ask[T any](n *nodeSide, method string, params args) (result T) {
	n.t.Helper()
	if err := n.try(method, params, &result); err != nil {
		n.t.Fatalf("%v: %v; its streams: %+v", n, err, n.all())
	}
	return result
}

// nodeStream is what Node tells of a stream.
type nodeStream struct {
	Stream                   string
	Connected, Ended, Closed bool
	Error, ErrorCode         *string
	BytesRead, BytesWritten  uint64
}

func (s nodeStream) String() string {
	return fmt.Sprintf("%s connected %v, closed %v, error %s, %d bytes in, %d out", s.Stream, s.Connected, s.Closed, deref(s.Error), s.BytesRead, s.BytesWritten)
}

// all are the streams that there are and were.
func (n *nodeSide) all() []nodeStream {
	var result struct{ Streams []nodeStream }
	_ = n.try("streams", nil, &result) // it is to explain another error
	return result.Streams
}

func (n *nodeSide) open(name string, k kind, key string) string {
	n.t.Helper()
	params := with(k.node, args{"core": name, "package": n.pkg})
	if key != "" {
		delete(params, "seed")
		delete(params, "manifest")
		params["key"] = key
	}
	if n.single {
		n.cores = append(n.cores, name)
	} else {
		params["store"] = "store"
	}
	o := ask[opened](n, "core", params)
	if n.single {
		for _, s := range n.all() {
			if !s.Closed {
				ask[any](n, "attach", args{"stream": s.Stream, "core": name})
			}
		}
	}
	return o.Key
}

func (n *nodeSide) append(name string, blocks ...[]byte) {
	n.t.Helper()
	ask[head](n, "append", args{"core": name, "blocks": hexes(blocks)})
}

func (n *nodeSide) quorum(name string, signature []byte, blocks ...[]byte) {
	n.t.Helper()
	ask[head](n, "append", args{"core": name, "blocks": hexes(blocks), "signature": hex.EncodeToString(signature)})
}

func (n *nodeSide) generate(name string, g generated) {
	n.t.Helper()
	ask[head](n, "append", args{"core": name, "generate": g})
}

func (n *nodeSide) truncate(name string, length uint64) {
	n.t.Helper()
	ask[head](n, "truncate", args{"core": name, "length": length})
}

func (n *nodeSide) clear(name string, from, to uint64) {
	n.t.Helper()
	ask[any](n, "clear", args{"core": name, "start": from, "end": to})
}

func (n *nodeSide) snapshot(name, as string) {
	n.t.Helper()
	ask[any](n, "snapshot", args{"core": name, "as": as})
}

// coreInfo is what Node tells of a core.
type coreInfo struct {
	head
	ContiguousLength, PlainLength uint64
	Peers                         int
	ManifestHex                   *string
	Events                        map[string]int
}

func (n *nodeSide) head(name string) head {
	n.t.Helper()
	return ask[coreInfo](n, "info", args{"core": name}).head
}

// nodeBlock is a block, or that it is missing.
type nodeBlock struct {
	Missing bool
	Length  int
	SHA256  string
	Value   *string
}

func (b nodeBlock) bytes(t *testing.T) []byte {
	t.Helper()
	if b.Missing || b.Value == nil {
		t.Fatalf("a block without its value: %+v", b)
	}
	return unhex(t, *b.Value)
}

func (n *nodeSide) get(name string, index uint64) []byte {
	n.t.Helper()
	return ask[nodeBlock](n, "get", args{"core": name, "index": index}).bytes(n.t)
}

func (n *nodeSide) tryGet(name string, index uint64) ([]byte, bool) {
	n.t.Helper()
	var b nodeBlock
	if err := n.try("get", args{"core": name, "index": index, "timeout": 300}, &b); err != nil {
		return nil, false
	}
	return b.bytes(n.t), true
}

func (n *nodeSide) stored(name string, index uint64) []byte {
	n.t.Helper()
	b := ask[nodeBlock](n, "get", args{"core": name, "index": index, "wait": false, "raw": true})
	if b.Missing {
		return nil
	}
	return b.bytes(n.t)
}

func (n *nodeSide) gets(name string, indices []uint64) string {
	n.t.Helper()
	return ask[struct{ SHA256 string }](n, "gets", args{"core": name, "indices": indices}).SHA256
}

func (n *nodeSide) digest(name string, to uint64) string {
	n.t.Helper()
	return ask[struct{ SHA256 string }](n, "digest", args{"core": name, "end": to}).SHA256
}

func (n *nodeSide) held(name string) (out []hypercore.Range) {
	n.t.Helper()
	for _, r := range ask[struct{ Ranges [][2]uint64 }](n, "held", args{"core": name}).Ranges {
		out = append(out, hypercore.Range{Start: r[0], End: r[1]})
	}
	return out
}

func (n *nodeSide) seek(name string, pos uint64) place {
	n.t.Helper()
	return ask[place](n, "seek", args{"core": name, "bytes": pos})
}

func (n *nodeSide) read(name string, from, length uint64) string {
	n.t.Helper()
	return ask[struct{ SHA256 string }](n, "read", args{"core": name, "from": from, "length": length}).SHA256
}

func (n *nodeSide) update(name string) {
	n.t.Helper()
	ask[any](n, "update", args{"core": name})
}

func (n *nodeSide) download(name string, from, to uint64) {
	n.t.Helper()
	ask[any](n, "download", args{"core": name, "start": from, "end": to})
}

func (n *nodeSide) follow(name string) {
	n.t.Helper()
	ask[any](n, "download", args{"core": name, "start": 0, "end": -1, "name": "all of " + name})
}

func (n *nodeSide) await(name string, c condition) {
	n.t.Helper()
	params := args{"core": name, "timeout": patience.Milliseconds(), "length": c.Length, "fork": c.Fork, "contiguousLength": c.ContiguousLength}
	if c.Downloaded > 0 {
		params["events"] = args{"download": c.Downloaded}
	}
	ask[coreInfo](n, "until", params)
}

func (n *nodeSide) counted(name string) counters {
	n.t.Helper()
	i := ask[coreInfo](n, "info", args{"core": name})
	return counters{i.Peers, i.Events["download"], i.Events["upload"]}
}

// carried is what streams of this side replicate.
func (n *nodeSide) carried(params args) args {
	n.next++
	params["seed"] = fmt.Sprintf("%064x", n.next+1000*n.p.Pid())
	if n.single {
		return with(params, args{"cores": append([]string{}, n.cores...)})
	}
	return with(params, args{"stores": []string{"store"}})
}

func (n *nodeSide) listen() int {
	n.t.Helper()
	name := fmt.Sprint("listener ", n.next)
	return ask[struct{ Port int }](n, "listen", n.carried(args{"listener": name})).Port
}

func (n *nodeSide) connect(port int) {
	n.t.Helper()
	name := fmt.Sprint("stream ", n.next)
	ask[any](n, "connect", n.carried(args{"stream": name, "port": port}))
	ask[any](n, "untilStream", args{"stream": name, "connected": true})
}

func (n *nodeSide) connections() (count int) {
	for _, s := range n.all() {
		if s.Connected {
			count++
		}
	}
	return count
}

func (n *nodeSide) cut() {
	n.t.Helper()
	for _, s := range n.all() {
		ask[any](n, "destroy", args{"stream": s.Stream})
	}
}

// takes says whether the side can have a log of that kind.
func (n *nodeSide) takes(k kind, write bool) bool {
	switch {
	case n.pkg == "10":
		// It knows nothing of what came after it, and its writer and a reader of 11 do not agree on this one.
		return k.name != "v2" && k.name != "v3" && k.name != "encrypted compat" && k.prologue == nil
	case !n.single:
		return k.node["compat"] == nil // a corestore has none
	}
	return true
}

// A pair is a writer and a reader; either may be the one that connects.
type pair struct {
	t    *testing.T
	w, r side
	// fresh makes the sides, for cores without a store if single.
	fresh func(t *testing.T, single bool) (w, r side)
	back  bool // the reader connects to the writer
	again bool // and both do so whenever they are apart
}

// sub runs a test with sides of its own.
func (p pair) sub(name string, single bool, f func(p pair)) {
	p.t.Helper()
	p.t.Run(name, func(t *testing.T) {
		p.t = t
		p.w, p.r = p.fresh(t, single)
		f(p)
	})
}

// kind is that of the name, with a writer of its own for each number.
func (p pair) kind(name string, number int) kind {
	p.t.Helper()
	list := kindsOf(0x60 + byte(number))
	return list[slices.IndexFunc(list, func(k kind) bool { return k.name == name })]
}

// takes says whether both can have a log of that kind.
func (p pair) takes(k kind) bool { return p.w.takes(k, true) && p.r.takes(k, false) }

// join connects both.
func (p pair) join() {
	p.t.Helper()
	from, to := p.w, p.r
	if p.back {
		from, to = to, from
	}
	connect(p.t, from, to)
}

// connect returns when both sides have the connection.
func connect(t *testing.T, from, to side) {
	t.Helper()
	a, b := from.connections(), to.connections()
	from.connect(to.listen())
	if !eventually(func() bool { return from.connections() > a && to.connections() > b }) {
		t.Fatalf("%v and %v are not connected", from, to)
	}
}

// begin opens a log on both sides, the writer's with blocks, and connects.
func (p pair) begin(name string, k kind, blocks ...[]byte) string {
	p.t.Helper()
	key := p.w.open(name, k, "")
	blocks = append(slices.Clone(k.prologue), blocks...)
	if len(blocks) > 0 {
		p.w.append(name, blocks...)
	}
	p.r.open(name, k, key)
	p.join()
	return key
}

// sameLog is the end of most tests: both have the same head, and the reader has every block.
func (p pair) sameLog(name string) {
	p.t.Helper()
	want := p.w.head(name)
	p.r.await(name, condition{Length: want.Length, Fork: want.Fork})
	p.r.download(name, 0, want.Length)
	if got := p.r.head(name); got.String() != want.String() {
		p.t.Fatalf("heads differ:\n%v: %v\n%v: %v", p.w, want, p.r, got)
	}
	if got, want := p.r.digest(name, want.Length), p.w.digest(name, want.Length); got != want {
		p.t.Errorf("blocks differ: %s, want %s", got, want)
	}
	if got := ranges(p.r.held(name)); want.Length > 0 && got != fmt.Sprintf("0-%d", want.Length) {
		p.t.Errorf("%v holds %s of %d blocks", p.r, got, want.Length)
	}
}

// overWire expects that the blocks went over the connection, and each once.
func (p pair) overWire(name string, blocks int) {
	p.t.Helper()
	// Of what comes without being asked for, some may have been asked for already: the more the slower the machine.
	var w, r counters
	right := func() bool {
		w, r = p.w.counted(name), p.r.counted(name)
		return w.uploaded >= blocks && w.uploaded <= blocks+blocks/4 && r.downloaded == blocks && w.peers == 1 && r.peers == 1
	}
	if !eventually(right) {
		p.t.Errorf("%v sent %d blocks to %d peers, %v received %d from %d, want %d", p.w, w.uploaded, w.peers, p.r, r.downloaded, r.peers, blocks)
	}
}

func ranges(list []hypercore.Range) string {
	var out []string
	for _, r := range list {
		out = append(out, fmt.Sprintf("%d-%d", r.Start, r.End))
	}
	return strings.Join(out, " ")
}

// nodePairs are pairs of Node alone: what they do is what the tests expect of us, and of themselves.
func nodePairs() map[string]func(t *testing.T, single bool) (w, r side) {
	of := func(writer, reader string) func(t *testing.T, single bool) (w, r side) {
		return func(t *testing.T, single bool) (w, r side) {
			return startNodeSide(t, writer, single), startNodeSide(t, reader, single)
		}
	}
	pairs := map[string]func(t *testing.T, single bool) (w, r side){"Node 11 to Node 11": of("11", "11")}
	if long(2) > 1 {
		pairs["Node 10 to Node 11"] = of("10", "11")
		pairs["Node 11 to Node 10"] = of("11", "10")
	}
	return pairs
}

func TestNodeReplicatesWithNode(t *testing.T) {
	replicateAll(t, 3000*long(30), nodePairs())
}
