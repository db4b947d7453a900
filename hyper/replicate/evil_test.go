package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// An evil node runs the same machine as others, and changes what it says.
type evil struct {
	kind string
	says func(v *evil, e *wireEnd, m message) []message
	// always: whoever fetches from it alone drops it.
	always bool
	mostly bool     // or some do
	old    [][]byte // data that it has sent
	floods int
}

type message struct {
	number  int
	payload []byte
}

// kinds are the ways to be evil.
var kinds = []evil{
	{kind: "flips bits", says: flipBits, mostly: true},
	{kind: "sends wrong blocks", says: wrongBlocks, always: true},
	{kind: "sends wrong hashes", says: wrongNodes, always: true},
	{kind: "sends no nodes", says: noNodes, always: true},
	{kind: "lies about its length", says: lieAboutLength},
	{kind: "lies about its fork", says: lieAboutFork, always: true},
	{kind: "does not answer", says: stayMute, always: true},
	{kind: "has it all and gives nothing", says: refuse, always: true},
	{kind: "answers with manifests", says: manifests, always: true},
	{kind: "says nothing that makes sense", says: garbage, always: true},
	{kind: "floods with requests", says: flood(msgRequest)},
	{kind: "floods with wants", says: flood(msgWant), always: true},
	{kind: "floods with ranges", says: flood(msgRange)},
	{kind: "floods with bitfields", says: flood(msgBitfield)},
	{kind: "floods with cancels", says: flood(msgCancel)},
	{kind: "floods with answers", says: flood(msgData), always: true},
	{kind: "floods with refusals", says: flood(msgNoData), always: true},
	{kind: "repeats itself", says: replay, always: true},
	{kind: "sends what nobody asked for", says: push},
	{kind: "never says where it is", says: neverSync},
	{kind: "answers with huge blocks", says: hugeBlocks, always: true},
}

func newEvil(n *network, i int) *evil {
	v := kinds[i%len(kinds)]
	return &v
}

// messages returns what it sends in place of a message.
func (v *evil) messages(e *wireEnd, number int, payload []byte) []message {
	m := message{number, payload}
	if v == nil {
		return []message{m}
	}
	if number == msgData && len(v.old) < 200 {
		v.old = append(v.old, payload)
	}
	return v.says(v, e, m)
}

// changeProof changes the proof of a data message.
func changeProof(m message, f func(p *hypercore.Proof)) []message {
	if m.number != msgData {
		return []message{m}
	}
	p, id, err := hypercore.ReadData(bytes.Clone(m.payload))
	if err != nil {
		return nil
	}
	f(p)
	return []message{{msgData, p.AppendData(nil, id)}}
}

// changeSync changes a sync message.
func changeSync(m message, f func(s *syncMessage)) []message {
	if m.number != msgSync {
		return []message{m}
	}
	s, err := readSync(m.payload)
	if err != nil {
		return nil
	}
	f(&s)
	return []message{{msgSync, s.append(nil)}}
}

func flipBits(_ *evil, e *wireEnd, m message) []message {
	if rng := e.wire.net.rng; len(m.payload) > 0 && rng.IntN(4) == 0 {
		m.payload[rng.IntN(len(m.payload))] ^= 1 << rng.IntN(8)
	}
	return []message{m}
}

func wrongBlocks(_ *evil, e *wireEnd, m message) []message {
	return changeProof(m, func(p *hypercore.Proof) {
		if p.Block != nil {
			p.Block.Value = bytes.Repeat([]byte{byte(p.Block.Index)}, 1+e.wire.net.rng.IntN(100))
		}
	})
}

func wrongNodes(_ *evil, e *wireEnd, m message) []message {
	return changeProof(m, func(p *hypercore.Proof) {
		var nodes []merkle.Node
		if p.Block != nil {
			nodes = p.Block.Nodes
		}
		if p.Hash != nil {
			nodes = p.Hash.Nodes
		}
		if p.Upgrade != nil && e.wire.net.rng.IntN(2) == 0 {
			nodes = p.Upgrade.Nodes
		}
		if len(nodes) > 0 {
			nodes[e.wire.net.rng.IntN(len(nodes))].Hash[3] ^= 1
		}
	})
}

func noNodes(_ *evil, _ *wireEnd, m message) []message {
	return changeProof(m, func(p *hypercore.Proof) {
		if p.Block != nil {
			p.Block.Nodes = nil
		}
		if p.Hash != nil {
			p.Hash.Nodes = p.Hash.Nodes[:1]
		}
	})
}

func lieAboutLength(_ *evil, e *wireEnd, m message) []message {
	return changeSync(m, func(s *syncMessage) {
		s.length += e.wire.net.rng.Uint64N(1 << 40)
		s.remoteLength, s.canUpgrade = e.other.node.log.Length(), true
	})
}

func lieAboutFork(_ *evil, e *wireEnd, m message) []message {
	return changeSync(m, func(s *syncMessage) {
		s.fork += 1 + e.wire.net.rng.Uint64N(3)
		e.node.later(time.Second, func() {
			if e.peer != nil {
				e.send(msgSync, s.append(nil)) // a higher one
			}
		})
	})
}

func stayMute(_ *evil, _ *wireEnd, m message) []message {
	if m.number == msgData || m.number == msgNoData {
		return nil
	}
	return []message{m}
}

func refuse(_ *evil, e *wireEnd, m message) []message {
	if m.number != msgData {
		return []message{m}
	}
	p, id, err := hypercore.ReadData(m.payload)
	if err != nil || p.Upgrade != nil {
		return []message{m}
	}
	return []message{
		{msgNoData, appendNoData(nil, id, notAvailable)},
		{msgRange, appendRange(nil, false, runs.Range{End: e.node.log.Length()})},
	}
}

func manifests(_ *evil, _ *wireEnd, m message) []message {
	return append(changeProof(m, func(p *hypercore.Proof) {
		if p.Block != nil {
			p.Block, p.Manifest = nil, hypercore.SingleSigner(hypercore.Key{})
		}
	}), message{msgRange, appendRange(nil, false, runs.Range{End: 1000})})
}

func garbage(_ *evil, e *wireEnd, m message) []message {
	rng := e.wire.net.rng
	b := make([]byte, rng.IntN(60))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return []message{m, {rng.IntN(messages), b}}
}

// flood adds very many messages of a kind.
func flood(number int) func(*evil, *wireEnd, message) []message {
	return func(v *evil, e *wireEnd, m message) []message {
		out := []message{m}
		rng := e.wire.net.rng
		if rng.IntN(4) > 0 || v.floods > 2 {
			return out
		}
		v.floods++
		id := rng.Uint64N(1 << 20)
		for i := range uint64(1200) {
			var b []byte
			switch number {
			case msgRequest:
				r := requestMessage{id: 1 + rng.Uint64N(1<<40), want: merkle.Request{Block: &merkle.NodeRequest{Index: i}}}
				b = r.append(nil)
				for range 10 {
					out = append(out, message{msgRequest, b})
					r.id++
					b = r.append(nil)
				}
			case msgWant:
				w := wantMessage{start: (id + i) * 64, length: 64}
				b = w.append(nil)
			case msgRange:
				b = appendRange(nil, rng.IntN(2) == 0, runs.Range{Start: (id + i) * pageBits, End: (id+i)*pageBits + 1 + rng.Uint64N(100)})
			case msgBitfield:
				b = appendBitfield(nil, (id+i)*pageBits, []uint32{1, 2, 3})
			case msgCancel:
				b = compact.AppendUint(nil, id+i)
			case msgData:
				if len(v.old) == 0 {
					return out
				}
				p, _, err := hypercore.ReadData(bytes.Clone(v.old[0]))
				if err != nil {
					return out
				}
				b = p.AppendData(nil, 1e6+i)
			case msgNoData:
				b = appendNoData(nil, 1e6+i, notAvailable)
			}
			out = append(out, message{number, b})
		}
		return out
	}
}

func replay(v *evil, e *wireEnd, m message) []message {
	if m.number != msgData || len(v.old) < 2 {
		return []message{m}
	}
	_, id, err := hypercore.ReadData(bytes.Clone(m.payload))
	old, _, err2 := hypercore.ReadData(bytes.Clone(v.old[e.wire.net.rng.IntN(2)]))
	if err != nil || err2 != nil {
		return nil
	}
	return []message{{msgData, old.AppendData(nil, id)}}
}

func push(v *evil, e *wireEnd, m message) []message {
	out := []message{m}
	if len(v.old) > 0 {
		p, _, err := hypercore.ReadData(bytes.Clone(v.old[e.wire.net.rng.IntN(len(v.old))]))
		if err == nil {
			out = append(out, message{msgData, p.AppendData(nil, 0)})
		}
	}
	return out
}

func neverSync(_ *evil, _ *wireEnd, m message) []message {
	if m.number == msgSync {
		return nil
	}
	return []message{m}
}

var huge = make([]byte, 1<<20)

func hugeBlocks(_ *evil, _ *wireEnd, m message) []message {
	return changeProof(m, func(p *hypercore.Proof) {
		if p.Block != nil {
			p.Block.Value = huge
		}
	})
}

// Whatever liars do in a network, honest peers end with the same log, hold nothing
// that is not proven, and don't take each other for liars.
func TestHonestPeersConvergeAmongLiars(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		n := newNetwork(t, seed)
		n.trace = os.Getenv("TRACE") != ""
		size := 3 + n.rng.IntN(5)
		defer n.close()
		n.mesh(size, 1+n.rng.IntN(5))
		for _, x := range n.nodes[size:] {
			x.wantRange(0, noBlock, false)
		}
		n.live(size, 40)
		n.calm(size)
		n.equal(size)
		n.judged(size)
	})
}

// judged checks that honest nodes dropped no other, and liars for a reason.
func (n *network) judged(size int) {
	for _, x := range n.nodes[:size] {
		for _, d := range x.dropped {
			if d.whom.evil == nil {
				n.fatalf("%s dropped %s: %v", x.name, d.whom.name, d.reason)
			}
			if !errors.Is(d.reason, ErrPeer) {
				n.fatalf("%s dropped %s: %v", x.name, d.whom.name, d.reason)
			}
		}
	}
}

// Who fetches from a liar alone drops it, keeps nothing of what it made up, and
// gets all from the next who is honest.
func TestLiarsAreDroppedWithAReason(t *testing.T) {
	for i, v := range kinds {
		t.Run(v.kind, func(t *testing.T) {
			reasons := map[string]bool{}
			seeds(t, 3, func(t *testing.T, seed uint64) {
				n := newNetwork(t, seed)
				defer n.close()
				n.o.NoPush, n.trace = true, os.Getenv("TRACE") != ""
				n.mesh(2, 0)
				w, x := n.nodes[0], n.node("liar", nil)
				x.wantRange(0, noBlock, false)
				n.link(w, x)
				w.append(400)
				n.run(time.Minute)
				if x.log.Contiguous() != w.log.Length() {
					t.Fatal("the liar has not got all")
				}
				w.step(func() { w.m.setDownloading(true) })
				r := n.node("victim", nil)
				x.evil = newEvil(n, i)
				victims := n.link(x, r)
				range1 := r.wantRange(0, 300, n.rng.IntN(2) == 0)
				for range 3 {
					r.wantBlock(n.rng.Uint64N(300))
				}
				update := r.want("the newest head", r.m.wantUpdate)
				for range 20 {
					n.run(3 * time.Second)
					if w.log.Length() < 600 {
						w.append(20) // so that there are more heads
					}
				}
				if len(r.dropped) == 0 && v.always {
					n.fatalf("it is not dropped: %+v", victims.ends[1].peer)
				}
				for _, d := range r.dropped {
					if !errors.Is(d.reason, ErrPeer) {
						n.fatalf("dropped for %v", d.reason)
					}
					reasons[d.reason.Error()] = true
				}
				if !update.over {
					n.fatalf("a liar keeps who asks for the newest head waiting")
				}
				r.right()
				n.link(w, r)
				n.run(time.Minute)
				if !range1.over || range1.err != nil {
					n.fatalf("the honest peer can't help: %v", range1.err)
				}
				for _, w := range slices.Clone(r.waits) {
					n.fatalf("it still waits for %s", w.what)
				}
				r.right()
				r.step(func() { r.m.setDownloading(true) })
				n.run(time.Minute)
				r.rest()
			})
			if len(reasons) == 0 && v.mostly && *seedFlag < 0 {
				t.Error("it is never dropped")
			}
			for _, reason := range slices.Sorted(maps.Keys(reasons)) {
				t.Log(reason)
			}
		})
	}
}

// A writer who signs two histories can't make one reader hold parts of both, and
// readers of both find out.
func TestTwoHistoriesNeverMix(t *testing.T) {
	seeds(t, 40, func(t *testing.T, seed uint64) {
		n := newNetwork(t, seed)
		n.trace = os.Getenv("TRACE") != ""
		defer n.close()
		kp := hypercore.NewKeyPair([32]byte{1})
		n.key = logKey(t, kp)
		a, b := n.node("writer", &kp), n.node("its twin", &kp)
		common := 1 + n.rng.IntN(30)
		a.append(common)
		blocks := slices.Clone(n.truth[0])
		if _, err := b.log.Append(context.Background(), blocks...); err != nil {
			t.Fatal(err)
		}
		histories := map[*node][][]byte{}
		for _, x := range []*node{a, b} {
			var more [][]byte
			for range 1 + n.rng.IntN(30) {
				more = append(more, content(uint64(len(histories)), 0, n.rng))
			}
			if _, err := x.log.Append(context.Background(), more...); err != nil {
				t.Fatal(err)
			}
			histories[x] = append(slices.Clone(blocks), more...)
			x.step(func() {})
		}
		size := 2 + n.rng.IntN(5)
		for i := range size {
			x := n.node(fmt.Sprintf("reader %d", i), nil)
			for _, y := range n.nodes[2 : len(n.nodes)-1] {
				if n.rng.IntN(2) == 0 {
					n.link(x, y)
				}
			}
			if i < 2 || n.rng.IntN(2) == 0 {
				n.link(x, n.nodes[i%2])
			}
		}
		for _, x := range n.nodes[2:] {
			if n.rng.IntN(4) > 0 {
				x.wantRange(0, noBlock, n.rng.IntN(2) == 0)
			} else {
				x.wantBlock(n.rng.Uint64N(uint64(common) + 5))
			}
			n.run(n.upTo(200 * time.Millisecond))
		}
		n.run(time.Minute)
		n.link(n.nodes[2], n.nodes[3])
		for _, x := range n.nodes[2:] {
			x.wantRange(0, noBlock, false)
		}
		n.run(5 * time.Minute)
		frozen := 0
		for _, x := range n.nodes[2:] {
			for problem, err := range x.log.Audit(context.Background()) {
				n.fatalf("%s: %v, %v", x.name, problem, err)
			}
			of := map[*node]bool{a: true, b: true}
			for i := range x.log.Length() {
				if got, err := x.log.Stored(context.Background(), i); err == nil {
					for w, h := range histories {
						of[w] = of[w] && i < uint64(len(h)) && bytes.Equal(got, h[i])
					}
				}
			}
			if !of[a] && !of[b] {
				n.fatalf("%s holds blocks of both histories", x.name)
			}
			if c := x.log.Frozen(); c != nil {
				frozen++
				if !x.m.frozen {
					n.fatalf("%s goes on with a frozen log", x.name)
				}
			}
		}
		if frozen == 0 && n.nodes[2].log.Head().Hash() != n.nodes[3].log.Head().Hash() && n.nodes[2].log.Length() != n.nodes[3].log.Length() {
			for _, x := range n.nodes {
				t.Logf("%s: %d blocks, hash %x, dropped %v", x.name, x.log.Length(), x.log.Head().Hash(), x.dropped)
			}
			n.fatalf("nobody has noticed; %d in common", common)
		}
	})
}
