package interop_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/replicate"
)

// Two peers of Node and two of ours stand in a ring, so each has two that are not its like. Each writes a log, and all read
// all of them: half of what comes has been in the hands of another.
func TestAMeshOfBothConverges(t *testing.T) {
	sides := []side{
		startNodeSide(t, "11", false), startOurSide(t, replicate.Options{}),
		startNodeSide(t, "11", false), startOurSide(t, replicate.Options{}),
	}
	p := pair{t: t}
	name := func(i int) string { return fmt.Sprint("log of ", i) }
	keys := make([]string, len(sides))
	for i, s := range sides {
		keys[i] = s.open(name(i), p.kind("v1", i), "")
		s.generate(name(i), generated{Seed: name(i), Sizes: []int{10, 0, 400}, To: 200})
	}
	for i, s := range sides {
		for j := range sides {
			if i != j {
				s.open(name(j), p.kind("v1", j), keys[j])
			}
		}
	}
	for i, s := range sides {
		connect(t, s, sides[(i+1)%len(sides)])
	}
	for i, s := range sides {
		for j := range sides {
			if i != j {
				s.follow(name(j))
			}
		}
	}
	settle := func(what string) {
		t.Helper()
		for i, w := range sides {
			want := w.head(name(i))
			for j, r := range sides {
				if i == j {
					continue
				}
				r.await(name(i), condition{Length: want.Length, Fork: want.Fork, ContiguousLength: want.Length})
				if got := r.head(name(i)); got.String() != want.String() {
					t.Errorf("%s: log of %v %d: %v, at %v %d %v", what, w, i, want, r, j, got)
				}
				if got, want := r.digest(name(i), want.Length), w.digest(name(i), want.Length); got != want {
					t.Errorf("%s: blocks of %v %d differ at %v %d", what, w, i, r, j)
				}
			}
		}
	}
	settle("at first")
	rng := random(t, 1)
	for range 5 {
		for i, s := range sides {
			s.append(name(i), randomBlocks(rng)...)
		}
	}
	settle("after appends")
	for i, s := range sides {
		s.truncate(name(i), 100+rng.Uint64N(90))
		s.append(name(i), []byte("another way"))
	}
	settle("after truncations")
}

// A writer truncates while we are in the middle of things. Node's own readers do not always survive that, and as a writer
// it may end the connection, or answer with a proof that is half of the one tree and half of the other; then we come again.
func TestBevyFollowsTruncationsInTheMiddle(t *testing.T) {
	for name, fresh := range map[string]func(t *testing.T) side{
		"Node": func(t *testing.T) side { return startNodeSide(t, "11", false) },
		"Bevy": func(t *testing.T) side { return startOurSide(t, replicate.Options{}) },
	} {
		t.Run(name, func(t *testing.T) {
			p := pair{t: t, w: fresh(t), r: startOurSide(t, replicate.Options{}), again: name == "Node"}
			p.begin("cut", p.kind("v1", 1), []byte("first"))
			p.r.follow("cut")
			p.cutAndGrow(30*long(10), 4)
			p.sameLog("cut")
		})
	}
}

// bad is a peer of Node that speaks by hand to our side, which serves a log to an honest reader of Node, too.
type bad struct {
	*nodeSide
	ours   *ourSide
	honest *nodeSide
	key    string
	port   int
}

const badBlocks = 300

func startBad(t *testing.T) bad {
	t.Helper()
	p := pair{t: t}
	b := bad{startNodeSide(t, "11", true), startOurSide(t, replicate.Options{}), startNodeSide(t, "11", false), "", 0}
	b.key = b.ours.open("log", p.kind("v1", 1), "")
	b.ours.generate("log", generated{Seed: "bad", Sizes: []int{100}, To: badBlocks})
	b.honest.open("log", p.kind("v1", 1), b.key)
	b.port = b.ours.listen()
	b.honest.connect(b.port)
	b.honest.update("log")
	return b
}

// raw opens a channel by hand on a connection of its own, whose name it returns.
func (b bad) raw(name string, params args) string {
	b.t.Helper()
	ask[any](b.nodeSide, "connect", args{"stream": name, "port": b.port})
	ask[any](b.nodeSide, "raw", with(params, args{"raw": name, "stream": name, "key": b.key}))
	return name
}

// thrown expects that the connection ends.
func (b bad) thrown(name, what string) {
	b.t.Helper()
	var s nodeStream
	if err := b.try("untilStream", args{"stream": name, "closed": true, "timeout": 5000}, &s); err != nil {
		b.t.Errorf("%s: the connection goes on: %v", what, err)
	}
}

// serves expects that the honest reader has not noticed anything.
func (b bad) serves(index uint64) {
	b.t.Helper()
	g := generated{Seed: "bad", Sizes: []int{100}}
	if got := b.honest.get("log", index%badBlocks); !bytes.Equal(got, g.block(int(index%badBlocks))) {
		b.t.Errorf("block %d is %x", index, got)
	}
	if got := b.honest.all(); len(got) != 1 || got[0].Closed {
		b.t.Errorf("the honest reader's connection: %v", got)
	}
}

func TestWrongCapabilitiesAreRefused(t *testing.T) {
	b := startBad(t)
	for i, capability := range []string{"wrong", "reflected", strings.Repeat("00", 32)} {
		name := b.raw("capability "+capability, args{"capability": capability, "messages": []args{
			{"type": 0, "fields": args{"fork": 0, "length": 0, "remoteLength": 0, "canUpgrade": true, "uploading": true, "downloading": true, "hasManifest": false}},
			{"type": 1, "fields": args{"id": 1, "fork": 0, "block": args{"index": 0, "nodes": 0}, "upgrade": args{"start": 0, "length": badBlocks}, "manifest": true, "priority": 0}},
		}})
		b.thrown(name, capability)
		// What was asked for before it was checked was not answered.
		events := ask[rawEvents](b.nodeSide, "rawEvents", args{"raw": name}).Events
		if slices.ContainsFunc(events, func(e rawEvent) bool { return e.Type == 3 }) {
			t.Errorf("%s: data was sent: %v", capability, events)
		}
		b.serves(uint64(i))
	}
	// The right one, by hand, has its answer.
	name := b.raw("right", args{"messages": []args{
		{"type": 1, "fields": args{"id": 7, "fork": 0, "block": args{"index": 5, "nodes": 0}, "upgrade": args{"start": 0, "length": badBlocks}, "manifest": true, "priority": 0}},
	}})
	state := ask[rawEvents](b.nodeSide, "untilRaw", args{"raw": name, "type": 3})
	i := slices.IndexFunc(state.Events, func(e rawEvent) bool { return e.Type == 3 })
	g := generated{Seed: "bad", Sizes: []int{100}}
	if got := state.Events[i].Fields; got.Request != 7 || got.Block == nil || got.Block.Value != hex.EncodeToString(g.block(5)) {
		t.Errorf("answered %+v", got)
	}
}

type rawEvents struct {
	Opened, Closed bool
	Events         []rawEvent
}

type rawEvent struct {
	Type, Length int
	Payload      *string
	Fields       struct {
		Request int
		Block   *struct {
			Index uint64
			Value string
		}
	}
}

// Garbage in each message, behind the opening of the channel and after it was answered, ends that connection and no other.
func TestGarbageInEachMessageEndsTheConnection(t *testing.T) {
	b := startBad(t)
	for number := range 10 {
		for _, when := range []string{"before", "after"} {
			for i, payload := range []string{"", "ff", "fdff", "ffffffffffffffffff"} {
				what := fmt.Sprintf("message %d of %q %s the answer", number, payload, when)
				messages := []args{{"type": number, "payload": payload}}
				name := what
				if when == "before" {
					b.raw(name, args{"messages": messages})
				} else {
					b.raw(name, nil)
					ask[any](b.nodeSide, "untilRaw", args{"raw": name, "opened": true})
					ask[any](b.nodeSide, "rawSend", args{"raw": name, "messages": messages})
				}
				b.thrown(name, what)
				b.serves(uint64(number*20 + i))
			}
		}
	}
	// Numbers that nobody knows are of a newer version.
	name := b.raw("newer", nil)
	ask[any](b.nodeSide, "untilRaw", args{"raw": name, "opened": true})
	ask[any](b.nodeSide, "rawSend", args{"raw": name, "messages": []args{{"type": 10, "payload": "ff"}, {"type": 15, "payload": ""}, {
		"type": 1, "fields": args{"id": 3, "fork": 0, "block": args{"index": 1, "nodes": 0}, "manifest": false, "priority": 0},
	}}})
	ask[any](b.nodeSide, "untilRaw", args{"raw": name, "type": 3})
}

// Random bytes, in messages and below them, do no harm to others.
func TestRandomGarbageDoesNoHarm(t *testing.T) {
	b := startBad(t)
	rng := random(t, 1)
	for i := range 60 * long(20) {
		name := fmt.Sprint("garbage ", i)
		b.raw(name, nil)
		ask[any](b.nodeSide, "untilRaw", args{"raw": name, "opened": true})
		for range 5 {
			if rng.IntN(4) == 0 {
				frame := append([]byte{byte(rng.IntN(3))}, randomBytes(rng, rng.IntN(40))...)
				ask[any](b.nodeSide, "rawFrame", args{"stream": name, "payload": hex.EncodeToString(frame)})
				continue
			}
			message := args{"type": rng.IntN(10), "payload": hex.EncodeToString(garbage(rng))}
			ask[any](b.nodeSide, "rawSend", args{"raw": name, "messages": []args{message}})
		}
		if i%10 == 0 {
			b.serves(rng.Uint64N(badBlocks))
		}
		ask[any](b.nodeSide, "destroy", args{"stream": name})
	}
	b.honest.download("log", 0, badBlocks)
	if got, want := b.honest.digest("log", badBlocks), b.ours.digest("log", badBlocks); got != want {
		t.Errorf("the honest reader has %s, want %s", got, want)
	}
}

// garbage has small numbers at its beginning more often than chance would have it.
func garbage(rng *rand.Rand) []byte {
	p := randomBytes(rng, rng.IntN(60))
	for i := range min(len(p), rng.IntN(20)) {
		p[i] = byte(rng.IntN(40))
	}
	return p
}

// One of two writers' peers lies. We have everything from the other, and name the liar.
func TestLiarsOfNodeAreDropped(t *testing.T) {
	for what, named := range map[string]bool{
		"value": true, "node": true, "signature": true, "index": true,
		"upgrade": true, "length": false, "fork": false, "silence": false,
	} {
		t.Run(what, func(t *testing.T) {
			p := pair{t: t}
			liar, honest, reader := startNodeSide(t, "11", false), startNodeSide(t, "11", false), startOurSide(t, replicate.Options{})
			g := generated{Seed: "lies", Sizes: []int{200}, To: 500}
			key := ""
			for _, w := range []*nodeSide{liar, honest} {
				key = w.open("log", p.kind("v1", 1), "")
				w.generate("log", g)
			}
			ask[any](liar, "lie", args{"core": "log", "what": what})
			reader.open("log", p.kind("v1", 1), key)
			connect(t, reader, liar)
			reader.follow("log")
			if named && !eventually(func() bool { return reader.named() != nil }) {
				t.Errorf("nobody was dropped: %s", reader.trouble())
			}
			connect(t, reader, honest)
			reader.await("log", condition{Length: 500, ContiguousLength: 500})
			if got := reader.digest("log", 500); got != g.digest() {
				t.Errorf("the digest is %s, want %s", got, g.digest())
			}
			for p := range reader.log("log").Audit(t.Context()) {
				t.Errorf("stored with problems: %v", p)
			}
			if err := reader.named(); named && !errors.Is(err, replicate.ErrPeer) {
				t.Errorf("dropped for %v", err)
			}
		})
	}
}

// named is why the first peer was dropped.
func (s *ourSide) named() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.dropped {
		if p.Key != (noise.Key{}) && p.Dropped != nil {
			return p.Dropped
		}
	}
	return nil
}

// Two that have the writer's key write in different ways. Every reader that hears of both stops and keeps the evidence.
func TestTwoHistoriesFreezeReadersOfBothSides(t *testing.T) {
	for _, reads := range []string{"Bevy", "Node"} {
		t.Run(reads, func(t *testing.T) {
			p := pair{t: t}
			k := p.kind("v1", 1)
			node, ours := startNodeSide(t, "11", false), startOurSide(t, replicate.Options{})
			key := node.open("log", k, "")
			ours.open("log", k, "")
			node.append("log", []byte("same"), []byte("one"))
			ours.append("log", []byte("same"), []byte("two"), []byte("three"))
			if reads == "Bevy" {
				r := startOurSide(t, replicate.Options{})
				r.open("log", k, key)
				connect(t, r, node)
				r.await("log", condition{Length: 2})
				connect(t, r, ours)
				if !eventually(func() bool { return r.log("log").Frozen() != nil }) {
					t.Fatalf("not frozen: %s", r.trouble())
				}
				if c := r.log("log").Frozen(); c.Ours.Length == 0 || c.Theirs.Length == 0 || bytes.Equal(c.Ours.Signature, c.Theirs.Signature) {
					t.Errorf("the evidence is %+v", c)
				}
				return
			}
			r := startNodeSide(t, "11", false)
			r.open("log", k, key)
			connect(t, r, node)
			r.await("log", condition{Length: 2})
			connect(t, r, ours)
			ask[any](r, "until", args{"core": "log", "events": args{"conflict": 1}})
		})
	}
}

func TestExtensionsGoBothWays(t *testing.T) {
	p := pair{t: t, w: startNodeSide(t, "11", false), r: startOurSide(t, replicate.Options{})}
	key := p.begin("log", p.kind("v1", 1), []byte("block"))
	p.r.update("log")
	node, ours := p.w.(*nodeSide), p.r.(*ourSide)
	r := ours.store.Replicator(hypercore.Key(key32(t, key)))
	got := newLogged()
	for _, name := range []string{"chat", "other"} {
		ask[any](node, "extension", args{"core": "log", "name": name})
		if err := r.Extension(name, func(m replicate.Message) { got.add("%s %s", name, m.Payload) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range [][2]string{{"chat", "one"}, {"chat", "two"}, {"other", ""}, {"chat", "three"}} {
		ask[any](node, "extend", args{"core": "log", "name": m[0], "value": hexOf(m[1])})
		if n, err := r.Broadcast(m[0], []byte(m[1])); n != 1 || err != nil {
			t.Errorf("sent to %d peers, %v", n, err)
		}
	}
	if _, err := r.Broadcast("nobody knows it", []byte("x")); err != nil {
		t.Error(err)
	}
	want := "chat one; chat two; other ; chat three"
	same(t, "ours", got.until(t, 4), want)
	ask[any](node, "until", args{"core": "log", "events": args{"extension": 4}})
	var theirs []string
	for _, m := range ask[struct {
		Messages []struct{ Name, Value string }
	}](node, "extensions", args{"core": "log"}).Messages {
		theirs = append(theirs, m.Name+" "+string(unhex(t, m.Value)))
	}
	same(t, "Node", strings.Join(theirs, "; "), want)
}

// What is pushed comes without being asked for.
func TestPushesGoBothWays(t *testing.T) {
	t.Run("to Node", func(t *testing.T) {
		p := pair{t: t, w: startOurSide(t, replicate.Options{}), r: startNodeSide(t, "11", false)}
		node := p.r.(*nodeSide)
		k := p.kind("v1", 1)
		k.node = with(k.node, args{"allowPush": true})
		p.begin("log", k, []byte("first"))
		p.r.follow("log")
		p.r.await("log", condition{Length: 1, ContiguousLength: 1})
		for i := range uint64(20) {
			p.w.append("log", fmt.Appendf(nil, "block %d", i))
			p.r.await("log", condition{Length: i + 2, ContiguousLength: i + 2})
		}
		if got := ask[coreInfo](node, "info", args{"core": "log"}).Events["pushed"]; got < 10 {
			t.Errorf("%d of 20 blocks came without being asked for", got)
		}
		p.sameLog("log")
	})
	t.Run("to Bevy", func(t *testing.T) {
		p := pair{t: t, w: startNodeSide(t, "11", false), r: startOurSide(t, replicate.Options{})}
		node := p.w.(*nodeSide)
		p.begin("log", p.kind("v1", 1), []byte("first"))
		p.r.follow("log")
		p.r.await("log", condition{Length: 1, ContiguousLength: 1})
		var info struct {
			Remotes []struct{ AllowPush bool }
		}
		if !eventually(func() bool {
			info = ask[struct {
				Remotes []struct{ AllowPush bool }
			}](node, "info", args{"core": "log"})
			return len(info.Remotes) == 1 && info.Remotes[0].AllowPush
		}) {
			t.Fatalf("Node does not know that we take pushes: %+v", info)
		}
		for i := range uint64(20) {
			p.w.append("log", fmt.Appendf(nil, "block %d", i))
			ask[any](node, "push", args{"core": "log", "index": i + 1})
			p.r.await("log", condition{Length: i + 2, ContiguousLength: i + 2})
		}
		p.sameLog("log")
	})
}
