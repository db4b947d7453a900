package interop_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// scenarios are what a writer and a reader do with each other, whichever is ours.
var scenarios = []struct {
	name string
	run  func(p pair)
	own  bool // it makes its own sides
}{
	{"lengths", lengths, false},
	{"block sizes", blockSizes, false},
	{"live appends", liveAppends, false},
	{"sparse gets", sparseGets, false},
	{"byte seeks", byteSeeks, false},
	{"truncations under a live reader", truncations, false},
	{"clear", clearing, false},
	{"snapshots", snapshots, false},
	{"encrypted", encrypted, true},
	{"manifests", manifests, true},
	{"several signers", severalSigners, true},
	{"several logs on one stream", severalLogs, false},
	{"reconnect in the middle", reconnect, false},
}

// lengths copies logs of the lengths where trees change their form.
func lengths(p pair) {
	sizes := []int{0, 1, 2, 3, 1000}
	for i, n := range sizes {
		name := fmt.Sprint("length ", n)
		g := generated{Seed: name, Sizes: []int{100}, To: n}
		key := p.w.open(name, p.kind("v1", i), "")
		p.w.generate(name, g)
		p.r.open(name, p.kind("v1", i), key)
		if i == 0 {
			p.join()
		}
		p.r.update(name)
		p.sameLog(name)
		if got := p.r.digest(name, uint64(n)); got != g.digest() {
			p.t.Errorf("%s: the digest is %s, want %s", name, got, g.digest())
		}
		p.overWire(name, n)
	}
}

// manyBlocks is lengths for one log that needs more than one page of everything.
func manyBlocks(p pair, n int) {
	g := generated{Seed: "many", Sizes: []int{100}, To: n, Batch: 1000}
	key := p.w.open("many", p.kind("v1", 1), "")
	p.w.generate("many", g)
	p.r.open("many", p.kind("v1", 1), key)
	p.join()
	p.r.update("many")
	p.sameLog("many")
	if got := p.r.digest("many", uint64(n)); got != g.digest() {
		p.t.Errorf("the digest is %s, want %s", got, g.digest())
	}
	p.overWire("many", n)
}

func blockSizes(p pair) {
	g := generated{Seed: "sizes", Sizes: []int{0, 1, 7, 0, 4095, 4096, 65535, 65536, 65537, 1 << 20, 15 << 20, 0, 3}, Batch: 1}
	g.To = len(g.Sizes)
	key := p.w.open("sizes", p.kind("v1", 1), "")
	p.w.generate("sizes", g)
	p.r.open("sizes", p.kind("v1", 1), key)
	p.join()
	p.r.update("sizes")
	p.sameLog("sizes")
	if got := p.r.digest("sizes", uint64(g.To)); got != g.digest() {
		p.t.Errorf("the digest is %s, want %s", got, g.digest())
	}
	p.overWire("sizes", g.To)
}

func liveAppends(p pair) {
	p.begin("live", p.kind("v1", 1))
	p.r.follow("live")
	rng := random(p.t, 1)
	total := uint64(0)
	for range 30 * long(10) {
		blocks := randomBlocks(rng)
		p.w.append("live", blocks...)
		total += uint64(len(blocks))
		if rng.IntN(3) > 0 {
			p.r.await("live", condition{Length: total, ContiguousLength: total})
		}
	}
	p.r.await("live", condition{Length: total, ContiguousLength: total})
	p.sameLog("live")
	p.overWire("live", int(total))
}

func sparseGets(p pair) {
	const n = 1000
	g := generated{Seed: "sparse", Sizes: []int{20, 0, 300}, To: n}
	key := p.w.open("sparse", p.kind("v1", 1), "")
	p.w.generate("sparse", g)
	p.r.open("sparse", p.kind("v1", 1), key)
	p.join()
	p.r.update("sparse")
	rng := random(p.t, 1)
	distinct := make(map[uint64]bool)
	for range 10 {
		want := newDigest()
		var indices []uint64
		for range 1 + rng.IntN(20) {
			i := rng.Uint64N(n)
			indices = append(indices, i)
			distinct[i] = true
			want.add(g.block(int(i)))
		}
		if got := p.r.gets("sparse", indices); got != want.String() {
			p.t.Errorf("blocks %v: digest %s, want %s", indices, got, want)
		}
	}
	held := uint64(0)
	for _, r := range p.r.held("sparse") {
		held += r.End - r.Start
	}
	if held != uint64(len(distinct)) {
		p.t.Errorf("%d blocks held, %d asked for", held, len(distinct))
	}
	p.overWire("sparse", len(distinct))
	p.sameLog("sparse")
	p.overWire("sparse", n)
}

func byteSeeks(p pair) {
	const n = 300
	for _, kind := range []string{"v1", "encrypted"} {
		name := "seeks " + kind
		g := generated{Seed: name, Sizes: []int{20, 0, 300, 1, 4000}, To: n}
		k := p.kind(kind, len(kind))
		key := p.w.open(name, k, "")
		p.w.generate(name, g)
		p.r.open(name, k, key)
		if kind == "v1" {
			p.join()
		}
		p.r.update(name)
		// An update by Node ends at once if no peer has said yet what it has, and then a
		// seek in an encrypted log whose manifest is not here counts the padding as data.
		p.r.await(name, condition{Length: n})
		total := uint64(0)
		for i := range n {
			total += uint64(len(g.block(i)))
		}
		rng := random(p.t, 1)
		for i := range 20 {
			pos := rng.Uint64N(total)
			if i == 0 {
				pos = 0
			}
			want := place{}
			for left := pos; ; want.Index++ {
				size := uint64(len(g.block(int(want.Index))))
				if left < size {
					want.Offset = left
					break
				}
				left -= size
			}
			if got := p.r.seek(name, pos); got != want {
				p.t.Errorf("%s: byte %d is at %+v, want %+v", kind, pos, got, want)
			}
		}
		if got := p.r.counted(name).downloaded; got > 40 {
			p.t.Errorf("%s: %d of %d blocks were fetched for 20 seeks", kind, got, n)
		}
		for range 5 {
			pos := rng.Uint64N(total)
			length := 1 + rng.Uint64N(min(10_000, total-pos))
			if got, want := p.r.read(name, pos, length), p.w.read(name, pos, length); got != want {
				p.t.Errorf("%s: %d bytes from %d differ", kind, length, pos)
			}
		}
		p.sameLog(name)
	}
}

// truncations come while the reader is at rest, for Node as a reader does not always recover from one that comes in the
// middle of its requests: it waits for ever, or the connection ends.
func truncations(p pair) {
	p.begin("cut", p.kind("v1", 1), []byte("first"))
	p.r.follow("cut")
	p.cutAndGrow(12*long(10), 1)
	p.sameLog("cut")
}

// cutAndGrow truncates and appends to the log "cut" in turns, and lets the reader come along one time in so many.
func (p pair) cutAndGrow(rounds, rest int) {
	p.t.Helper()
	rng := random(p.t, 1)
	length, fork := uint64(1), uint64(0)
	grow := func(n int) {
		blocks := make([][]byte, n)
		for i := range blocks {
			blocks[i] = randomBytes(rng, rng.IntN(50))
		}
		p.w.append("cut", blocks...)
		length += uint64(n)
	}
	await := func() {
		if p.again {
			eventually(func() bool {
				if p.r.counted("cut").peers == 0 {
					p.r.cut()
					p.join()
				}
				h := p.r.head("cut")
				return h.Length == length && h.Fork == fork
			})
		}
		p.r.await("cut", condition{Length: length, Fork: fork, ContiguousLength: length})
	}
	for range rounds {
		grow(1 + rng.IntN(40))
		if rng.IntN(rest) == 0 {
			await()
		}
		if rng.IntN(2) == 0 {
			length = 1 + rng.Uint64N(length)
			fork++
			p.w.truncate("cut", length)
			if rng.IntN(rest) == 0 {
				await()
			}
		}
	}
	grow(1)
	await()
	if fork == 0 {
		p.t.Error("no truncations")
	}
}

func clearing(p pair) {
	g := generated{Seed: "clear", Sizes: []int{30}, To: 40}
	key := p.w.open("clear", p.kind("v1", 1), "")
	p.w.generate("clear", g)
	p.r.open("clear", p.kind("v1", 1), key)
	p.join()
	p.r.update("clear")
	// What the reader drops it can have again.
	p.sameLog("clear")
	p.r.clear("clear", 5, 12)
	if got := ranges(p.r.held("clear")); got != "0-5 12-40" {
		p.t.Errorf("after clearing the reader holds %s", got)
	}
	if got := p.r.get("clear", 7); !bytes.Equal(got, g.block(7)) {
		p.t.Errorf("block 7 is %x after clearing", got)
	}
	p.overWire("clear", 41)
	// What the writer drops nobody can have, and the rest goes on.
	p.w.generate("clear", generated{Seed: "clear", Sizes: []int{30}, From: 40, To: 80})
	p.w.clear("clear", 50, 60)
	p.r.await("clear", condition{Length: 80})
	for _, i := range []uint64{49, 60, 79} {
		if got := p.r.get("clear", i); !bytes.Equal(got, g.block(int(i))) {
			p.t.Errorf("block %d is %x", i, got)
		}
	}
	// Node may ask for nothing more after such a one, so it is the last.
	if got, ok := p.r.tryGet("clear", 55); ok {
		p.t.Errorf("block 55, which the writer has cleared, is %x", got)
	}
}

func snapshots(p pair) {
	g := generated{Seed: "snap", Sizes: []int{30}, To: 20}
	key := p.w.open("snap", p.kind("v1", 1), "")
	p.w.generate("snap", g)
	p.r.open("snap", p.kind("v1", 1), key)
	p.join()
	p.r.update("snap")
	p.r.await("snap", condition{Length: 20})
	p.r.snapshot("snap", "then")
	p.w.generate("snap", generated{Seed: "snap", Sizes: []int{30}, From: 20, To: 35})
	p.r.await("snap", condition{Length: 35})
	if got := p.r.digest("then", 20); got != g.digest() {
		p.t.Errorf("the snapshot's digest is %s, want %s", got, g.digest())
	}
	if got := ranges(p.r.held("snap")); got != "0-20" {
		p.t.Errorf("the reader holds %s", got)
	}
	p.sameLog("snap")
}

func encrypted(p pair) {
	plain := [][]byte{[]byte("secret"), {}, bytes.Repeat([]byte("long "), 500)}
	for _, name := range []string{"encrypted", "encrypted with a block key", "encrypted compat"} {
		k := p.kind(name, 0)
		// With the key, and as one who only keeps it for others.
		for _, blind := range []bool{false, true} {
			p.sub(fmt.Sprintf("%s, blind %v", name, blind), k.compat(), func(p pair) {
				if !p.takes(k) {
					p.t.Skip("not all can have these")
				}
				key := p.w.open(name, k, "")
				p.w.append(name, plain...)
				reads := k
				if blind {
					reads = kind{name: name, node: with(k.node, nil), ours: k.ours}
					delete(reads.node, "encryptionKey")
					reads.ours.Session = hypercore.SessionOptions{}
				}
				p.r.open(name, reads, key)
				p.join()
				p.r.update(name)
				p.r.await(name, condition{Length: 3})
				p.r.download(name, 0, 3)
				for i, want := range plain {
					got, sent := p.r.stored(name, uint64(i)), p.w.stored(name, uint64(i))
					if !bytes.Equal(got, sent) || len(sent) < len(want)+8 || len(want) > 4 && bytes.Contains(got, want) {
						p.t.Errorf("block %d is stored as %x, at the writer as %x", i, got, sent)
					}
					if got := p.r.get(name, uint64(i)); !blind && !bytes.Equal(got, want) {
						p.t.Errorf("block %d is %q, want %q", i, got, want)
					}
				}
				if !blind {
					p.sameLog(name)
				}
				p.overWire(name, len(plain))
			})
		}
	}
}

func manifests(p pair) {
	for _, k := range kindsOf(0x60) {
		if k.padding > 0 {
			continue
		}
		p.sub(k.name, k.compat(), func(p pair) {
			if !p.takes(k) {
				p.t.Skip("not all can have these")
			}
			p.begin(k.name, k, []byte("one"), []byte("two"), []byte("three"))
			p.r.update(k.name)
			p.sameLog(k.name)
			p.w.append(k.name, []byte("four"))
			p.r.await(k.name, condition{Length: uint64(len(k.prologue)) + 4})
			p.sameLog(k.name)
			p.overWire(k.name, len(k.prologue)+4)
		})
	}
}

// severalSigners lets two of three sign.
func severalSigners(p pair) {
	for _, version := range []int{0, 1} {
		p.sub(fmt.Sprint("v", version), false, func(p pair) {
			m := &hypercore.Manifest{Version: version, Quorum: 2}
			var sources []*hypercore.Log
			for i := range 3 {
				kp := keyPair(byte(0x50 + i))
				sources = append(sources, openLog(p.t, hypercore.Options{KeyPair: &kp}))
				m.Signers = append(m.Signers, hypercore.Signer{Namespace: hypercore.Namespace("several", byte(i)), PublicKey: kp.Public})
			}
			all := openLog(p.t, hypercore.Options{Manifest: m})
			k := kind{name: "multisig", node: args{"manifest": manifestArgs(m)}, ours: hypercore.Options{Manifest: m}}
			p.r.open("all", k, p.w.open("all", k, ""))
			p.join()
			for round := range 3 {
				blocks := [][]byte{[]byte(fmt.Sprint("round ", round)), []byte("and more")}
				var parts []hypercore.PartialSignature
				for i, s := range sources {
					if _, err := s.Append(p.t.Context(), blocks...); err != nil {
						p.t.Fatal(err)
					}
					signature, err := all.Verifier().Sign(s.Head().Tree, keyPair(byte(0x50+i)))
					if err != nil {
						p.t.Fatal(err)
					}
					part, err := s.Partial(uint64(i), [64]byte(signature), s.Length())
					if err != nil {
						p.t.Fatal(err)
					}
					parts = append(parts, part)
				}
				signature, err := all.Verifier().Assemble(parts[round%2 : round%2+2])
				if err != nil {
					p.t.Fatal(err)
				}
				p.w.quorum("all", signature, blocks...)
				p.r.await("all", condition{Length: sources[0].Length()})
			}
			p.sameLog("all")
			p.overWire("all", 6)
		})
	}
}

func severalLogs(p pair) {
	const logs = 6
	var names []string
	rng := random(p.t, 1)
	for i := range 2 * logs {
		name := fmt.Sprint("log ", i)
		names = append(names, name)
		k := p.kind("v1", i)
		// Both write, and both read.
		w, r := p.w, p.r
		if i%2 == 1 {
			w, r = r, w
		}
		key := w.open(name, k, "")
		w.generate(name, generated{Seed: name, Sizes: []int{10, 200}, To: 1 + rng.IntN(100)})
		r.open(name, k, key)
	}
	p.join()
	for i, name := range names {
		one := p
		if i%2 == 1 {
			one.w, one.r = p.r, p.w
		}
		one.r.update(name)
		one.sameLog(name)
		one.overWire(name, int(one.w.head(name).Length))
	}
}

func reconnect(p pair) {
	const n = 3000
	g := generated{Seed: "again", Sizes: []int{1000}, To: n}
	key := p.w.open("again", p.kind("v1", 1), "")
	p.w.generate("again", g)
	p.r.open("again", p.kind("v1", 1), key)
	p.join()
	p.r.follow("again")
	for i := range 3 {
		p.r.await("again", condition{Downloaded: 1 + i*500})
		// Either may be the one that goes.
		if i%2 == 0 {
			p.w.cut()
		} else {
			p.r.cut()
		}
		p.join()
	}
	p.r.await("again", condition{Length: n, ContiguousLength: n})
	p.sameLog("again")
	if got := p.r.digest("again", n); got != g.digest() {
		p.t.Errorf("the digest is %s, want %s", got, g.digest())
	}
	// What was here before the cut did not come again. What a cut catches on its way
	// is sent twice, and how much that is depends on how fast the machine is.
	const cuts, onTheWay = 3, 1000
	if w, r := p.w.counted("again"), p.r.counted("again"); r.downloaded > n || r.downloaded < n/2 || w.uploaded > n+cuts*onTheWay {
		p.t.Errorf("%d of %d blocks were stored, %d sent", r.downloaded, n, w.uploaded)
	}
}

// replicateAll runs all scenarios with each pair; many is the length of the longest log.
func replicateAll(t *testing.T, many int, pairs map[string]func(t *testing.T, single bool) (w, r side)) {
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		t.Run(name, func(t *testing.T) {
			for i, s := range scenarios {
				p := pair{t: t, fresh: pairs[name], back: (i+len(name))%2 == 0}
				if s.own {
					t.Run(s.name, func(t *testing.T) { p.t = t; s.run(p) })
					continue
				}
				p.sub(s.name, false, s.run)
			}
			p := pair{fresh: pairs[name], t: t}
			p.sub(fmt.Sprint(many, " blocks"), false, func(p pair) { manyBlocks(p, many) })
		})
	}
}
