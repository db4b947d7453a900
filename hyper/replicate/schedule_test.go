package replicate

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// A desk is one machine whose peers are the test.
type desk struct {
	*network
	w *node // the writer, not connected
	x *node // whose machine it is
	m *machine
}

// newDesk returns a machine with the head of a log of so many blocks of size bytes
// and none of the blocks.
func newDesk(t *testing.T, blocks, size int) *desk {
	n := newNetwork(t, 1)
	n.o = Options{}
	kp := hypercore.NewKeyPair([32]byte{1})
	n.key = logKey(t, kp)
	w, x := n.node("writer", &kp), n.node("reader", nil)
	t.Cleanup(n.close)
	list := make([][]byte, blocks)
	for i := range list {
		list[i] = fmt.Appendf(bytes.Repeat([]byte("0"), size-8), "%08d", i)
	}
	if _, err := w.log.Append(t.Context(), list...); err != nil {
		t.Fatal(err)
	}
	d := &desk{n, w, x, x.m}
	d.upgrade()
	return d
}

// upgrade brings the reader's head to the writer's.
func (d *desk) upgrade() {
	from, to := d.x.log.Length(), d.w.log.Length()
	p, err := d.w.log.Prove(d.t.Context(), merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: from, Length: to - from}}, true)
	if err != nil {
		d.t.Fatal(err)
	}
	if errs, err := d.x.log.Apply(d.t.Context(), hypercore.Durable, p); err != nil || errs[0] != nil {
		d.t.Fatal(errs, err)
	}
	d.x.step(func() {})
	d.run(time.Second)
}

// peer adds a peer that has the given blocks of a log of the reader's length.
func (d *desk) peer(has ...runs.Range) *peer {
	p := &peer{access: Full}
	d.m.now = d.now
	d.m.addPeer(p)
	d.m.opened(p, true)
	head := d.x.log.Head()
	s := syncMessage{fork: head.Fork, length: head.Length, remoteLength: head.Length, canUpgrade: true, uploading: true, downloading: true, hasManifest: true}
	d.give(p, msgSync, s.append(nil))
	for _, r := range has {
		d.give(p, msgRange, appendRange(nil, false, r))
	}
	return p
}

// give lets the machine receive a message.
func (d *desk) give(p *peer, number int, b []byte) {
	d.t.Helper()
	d.m.now = d.now
	if err := d.m.receive(p, number, b); err != nil {
		d.t.Fatal(err)
	}
	d.m.received(p)
}

// asked takes the messages that the machine sends, and returns the requests.
func (d *desk) asked(p *peer) (out []requestMessage) {
	d.t.Helper()
	for _, o := range d.m.out {
		if o.peer == p && o.number == msgRequest {
			r, err := readRequest(d.m.buf[o.start:o.end])
			if err != nil {
				d.t.Fatal(err)
			}
			out = append(out, r)
		}
	}
	return out
}

// sent forgets what the machine has sent.
func (d *desk) sent() { d.m.out, d.m.buf = d.m.out[:0], d.m.buf[:0] }

func blocksOf(requests []requestMessage) (out []uint64) {
	for _, r := range requests {
		if r.want.Block != nil {
			out = append(out, r.want.Block.Index)
		}
	}
	return out
}

// answer gives the writer's answer to a request.
func (d *desk) answer(p *peer, r requestMessage) {
	d.t.Helper()
	number, b := d.w.reply(&peer{access: Full}, &r)
	d.give(p, number, b)
}

// pass lets time pass, and the jobs be done.
func (d *desk) pass(t time.Duration) {
	d.x.flushJobs()
	d.now = d.now.Add(t)
	d.m.now = d.now
	d.m.tick()
}

// flushJobs does the jobs that there are.
func (x *node) flushJobs() {
	for x.m.hasJob() || x.stale {
		j := x.m.job()
		if j != nil {
			j.run(x.net.t.Context(), x.log)
		}
		if x.stale {
			x.stale = false
			events := x.events
			x.events = nil
			head, err := x.log.Publish(x.net.t.Context())
			if err != nil {
				x.net.t.Fatal(err)
			}
			x.m.changed(head, events)
		}
		if j != nil {
			x.m.done(j)
		}
	}
}

func (d *desk) want(r runs.Range, linear bool) *waiter {
	w := newWaiter()
	d.m.now = d.now
	d.m.wantRange(&rangeWant{Range: r, linear: linear, waiter: w})
	return w
}

func TestRarestBlocksComeFirst(t *testing.T) {
	d := newDesk(t, 5000, 100)
	all := runs.Range{End: 5000}
	rare := runs.Range{Start: 2048, End: 3072}
	d.peer(runs.Range{End: 2048}, runs.Range{Start: 3072, End: 5000}).access.Download = false // it only has them
	d.peer(runs.Range{End: 2048}, runs.Range{Start: 3072, End: 5000}).access.Download = false
	p := d.peer(all)
	d.sent()
	d.want(all, false)
	first := blocksOf(d.asked(p))
	in := 0
	for _, i := range first[:min(len(first), 500)] {
		if rare.Contains(i) {
			in++
		}
	}
	if in < 250 {
		t.Errorf("of the first %d blocks asked for only %d are rare", len(first), in)
	}
}

func TestLinearRangesComeInOrder(t *testing.T) {
	d := newDesk(t, 3000, 100)
	all := runs.Range{End: 3000}
	p, q := d.peer(all), d.peer(all)
	d.sent()
	d.want(runs.Range{Start: 100, End: 2000}, true)
	got := append(blocksOf(d.asked(p)), blocksOf(d.asked(q))...)
	slices.Sort(got)
	if len(got) < 400 {
		t.Fatalf("%d blocks asked for", len(got))
	}
	for i, index := range got {
		if index != 100+uint64(i) {
			t.Fatalf("block %d is asked for before block %d", index, 100+i)
		}
	}
}

func TestUrgentBlocksComeBeforeAll(t *testing.T) {
	d := newDesk(t, 100, 100)
	p := d.peer()
	d.m.now = d.now
	for index, deadline := range map[uint64]time.Duration{10: 0, 20: time.Hour, 30: time.Minute, 40: 2 * time.Hour} {
		var at time.Time
		if deadline > 0 {
			at = d.now.Add(deadline)
		}
		d.m.wantBlock(index, at, newWaiter())
	}
	d.m.wantBlock(10, d.now.Add(time.Second), newWaiter()) // somebody else waits for it, too
	d.want(runs.Range{Start: 50, End: 60}, true)
	d.sent()
	d.give(p, msgRange, appendRange(nil, false, runs.Range{End: 100}))
	want := []uint64{10, 30, 20, 40, 50, 51, 52}
	if got := blocksOf(d.asked(p)); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("asked for %v, want %v…", got, want)
	}
}

func TestWindowsAreBounded(t *testing.T) {
	d := newDesk(t, 2000, 64<<10)
	all := runs.Range{End: 2000}
	var peers []*peer
	for range 60 {
		peers = append(peers, d.peer(all))
	}
	d.want(all, false)
	sum := 0
	for _, p := range peers {
		if sum += p.inflight; p.inflight > newWindow+d.m.blockSize() {
			t.Errorf("%d bytes are asked of a peer that has shown nothing", p.inflight)
		}
	}
	if sum != d.m.inflight || sum > d.m.o.MaxInFlight {
		t.Errorf("%d bytes are in flight, counted %d", sum, d.m.inflight)
	}
	// Those who are mute keep nobody from being asked.
	d.pass(20 * time.Second)
	good := d.peer(all)
	if good.open == 0 || d.m.inflight > d.m.o.MaxInFlight/2 {
		t.Errorf("%d bytes of mute peers count, %d requests to the one who has just come", d.m.inflight, good.open)
	}
}

// What a mute peer was asked for is asked of others long before it is dropped.
func TestMutePeersAreStalledThenDropped(t *testing.T) {
	d := newDesk(t, 50, 100)
	all := runs.Range{End: 50}
	p := d.peer(all)
	w := d.want(all, true)
	if p.open == 0 {
		t.Fatal("nothing is asked for")
	}
	q := d.peer(all)
	d.sent()
	d.pass(10 * time.Second)
	if !p.stalled || len(blocksOf(d.asked(q))) != 50 {
		t.Errorf("stalled %v, %d blocks are asked of the other", p.stalled, len(blocksOf(d.asked(q))))
	}
	for _, r := range d.asked(q) {
		d.answer(q, r)
	}
	d.pass(21 * time.Second)
	if !p.closed || !errors.Is(p.stats.Dropped, ErrPeer) || q.closed {
		t.Errorf("dropped %v for %v, the other: %v", p.closed, p.stats.Dropped, q.stats.Dropped)
	}
	if !w.settled || d.m.inflight != 0 {
		t.Errorf("range settled: %v, %d bytes in flight", w.settled, d.m.inflight)
	}
}

func TestSlowBlocksAreAskedOfOthersToo(t *testing.T) {
	d := newDesk(t, 4, 10000)
	slow, fast := d.peer(runs.Range{End: 4}), d.peer()
	w := d.want(runs.Range{End: 4}, true)
	if slow.open != 4 {
		t.Fatalf("%d requests", slow.open)
	}
	slow.rate, slow.rtt, slow.minRTT = 1000, time.Second, time.Second
	fast.rate, fast.rtt, fast.minRTT = 1e6, time.Millisecond, time.Millisecond
	d.sent()
	d.pass(20 * time.Millisecond)
	d.give(fast, msgRange, appendRange(nil, false, runs.Range{End: 4}))
	if n := len(d.asked(fast)); n > 0 {
		t.Errorf("%d blocks are asked for twice at once", n)
	}
	d.pass(500 * time.Millisecond)
	requests := d.asked(fast)
	if len(requests) != 4 || fast.stats.Hotswaps != 4 {
		t.Fatalf("%d requests, %d swaps", len(requests), fast.stats.Hotswaps)
	}
	d.sent()
	for _, r := range requests {
		d.answer(fast, r)
	}
	d.x.flushJobs()
	cancels := 0
	for _, o := range d.m.out {
		if o.peer == slow && o.number == msgCancel {
			cancels++
		}
	}
	if !w.settled || cancels != 4 || slow.open != 0 || len(slow.lingering) != 4 {
		t.Errorf("settled %v, %d cancels, %d requests are open, %d linger", w.settled, cancels, slow.open, len(slow.lingering))
	}
}

// The answer to what was cancelled may be on its way: its id must not mean
// something else before the peer has answered what it got later.
func TestIDsAreUsedAgainOnlyAfterARoundTrip(t *testing.T) {
	d := newDesk(t, 100, 100)
	p := d.peer(runs.Range{End: 100})
	get := func(index uint64) (requestMessage, *waiter) {
		d.sent()
		w := newWaiter()
		d.m.wantBlock(index, time.Time{}, w)
		got := d.asked(p)
		if len(got) != 1 {
			t.Fatalf("%d requests for block %d", len(got), index)
		}
		return got[0], w
	}
	first, w := get(1)
	second, _ := get(2)
	w.settled = true
	w.forget() // cancelled, after the second was sent
	third, _ := get(3)
	if third.id == first.id {
		t.Fatal("an id is used again at once")
	}
	d.answer(p, second)
	fourth, _ := get(4)
	if fourth.id == first.id {
		t.Error("an id is used again before a round trip")
	}
	d.answer(p, first) // comes late
	if p.misfits > 0 || p.stats.Misfits > 0 {
		t.Error("a late answer counts against a peer")
	}
	fifth, w := get(5)
	w.settled = true
	w.forget()
	d.answer(p, third)
	d.answer(p, fourth)
	if len(p.lingering) != 1 {
		t.Errorf("%d ids linger", len(p.lingering))
	}
	sixth, _ := get(6)
	d.answer(p, sixth) // sent after the fifth was cancelled
	if len(p.lingering) != 0 || p.requests[fifth.id-1] != nil {
		t.Errorf("after a round trip %d ids linger", len(p.lingering))
	}
}

func TestFloodsBreakTheProtocol(t *testing.T) {
	d := newDesk(t, 10, 10)
	d.m.now = d.now
	for what, f := range map[string]func(p *peer, i int) error{
		"requests": func(p *peer, i int) error {
			return d.m.receive(p, msgRequest, (&requestMessage{id: uint64(i + 1), want: merkle.Request{Block: &merkle.NodeRequest{}}}).append(nil))
		},
		"requests without ids": func(p *peer, i int) error {
			return d.m.receive(p, msgRequest, (&requestMessage{want: merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 1}}}).append(nil))
		},
		"wants": func(p *peer, i int) error {
			return d.m.receive(p, msgWant, (&wantMessage{start: uint64(i) * 64, length: 64}).append(nil))
		},
		"refusals": func(p *peer, i int) error {
			return d.m.receive(p, msgNoData, appendNoData(nil, uint64(i+1), notAvailable))
		},
	} {
		p := d.peer()
		var err error
		for i := 0; i <= maxQueue && err == nil; i++ {
			err = f(p, i)
		}
		if !errors.Is(err, ErrPeer) || p.stats.Violations != 1 {
			t.Errorf("%s: %v, %d violations", what, err, p.stats.Violations)
		}
		if len(p.queue) > maxQueue || len(p.theirs) > maxWants {
			t.Errorf("%s: %d requests and %d wants are kept", what, len(p.queue), len(p.theirs))
		}
	}
}

// A sparse log does not have the roots of each length: it gets them from others to
// look at what a suspect has.
func TestSparseLogsFetchTheRootsThatACheckNeeds(t *testing.T) {
	for _, helped := range []bool{true, false} {
		d := newDesk(t, 7, 10)
		twin := newNetwork(t, 2)
		kp := hypercore.NewKeyPair([32]byte{1})
		twin.key = d.key
		e := twin.node("its twin", &kp)
		t.Cleanup(twin.close)
		for range 5 {
			if _, err := e.log.Append(t.Context(), []byte("another")); err != nil {
				t.Fatal(err)
			}
		}
		// The reader knows the roots of 16 blocks only.
		if _, err := d.w.log.Append(t.Context(), make([][]byte, 9)...); err != nil {
			t.Fatal(err)
		}
		d.x.log.Close()
		d.x.quiet()
		d.x = d.node("fresh", nil)
		d.m = d.x.m
		d.upgrade()
		p := &peer{access: Full}
		d.m.addPeer(p)
		d.m.opened(p, true)
		d.give(p, msgSync, (&syncMessage{length: 5, uploading: true, canUpgrade: true}).append(nil))
		q := d.peer(runs.Range{End: 16})
		d.sent()
		d.m.suspect(p, merkle.ErrProof)
		proof, err := e.log.Prove(t.Context(), merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 5}}, false)
		if err != nil {
			t.Fatal(err)
		}
		d.give(p, msgData, proof.AppendData(nil, 0))
		d.x.flushJobs()
		requests := d.asked(q)
		if len(requests) == 0 || p.closed || d.m.frozen {
			t.Fatalf("%d requests for roots; dropped %v, frozen %v", len(requests), p.closed, d.m.frozen)
		}
		if !helped {
			d.pass(suspectFor + time.Second)
			if !p.closed || len(d.m.unsure) > 0 {
				t.Errorf("a suspect is kept: %d checks wait", len(d.m.unsure))
			}
			continue
		}
		for _, r := range requests {
			d.answer(q, r)
		}
		d.x.flushJobs()
		if !d.m.frozen || d.x.log.Frozen() == nil {
			t.Error("the second history is not found")
		}
	}
}

// A peer that is shorter proves by its own roots.
func TestShorterPeersAreAskedForWhatTheyCanProve(t *testing.T) {
	d := newDesk(t, 12, 10)
	p := &peer{access: Full}
	d.m.addPeer(p)
	d.m.opened(p, true)
	d.give(p, msgSync, (&syncMessage{length: 4, uploading: true}).append(nil))
	d.give(p, msgRange, appendRange(nil, false, runs.Range{End: 12}))
	d.sent()
	d.want(runs.Range{End: 12}, true)
	if n := len(d.asked(p)); n > 0 {
		t.Errorf("%d requests whose proofs would end nowhere", n)
	}
	proof, err := d.w.log.Prove(t.Context(), merkle.Request{Hash: &merkle.NodeRequest{Index: 3, Nodes: 1}}, false)
	if err != nil {
		t.Fatal(err)
	}
	if errs, err := d.x.log.Apply(t.Context(), hypercore.Durable, proof); err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	d.m.received(p)
	if got := blocksOf(d.asked(p)); !slices.Equal(got, []uint64{0, 1, 2, 3}) {
		t.Errorf("asked for %v", got)
	}
}

// Nodes that don't lead to where two forks part are of no use, and who sends many
// is no help.
func TestUselessNodesOfAForkEndAPeer(t *testing.T) {
	d := newDesk(t, 64, 10)
	if err := d.w.log.Truncate(t.Context(), 37, hypercore.TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.w.log.Append(t.Context(), make([][]byte, 30)...); err != nil {
		t.Fatal(err)
	}
	p := d.peer(runs.Range{End: 67})
	d.sent()
	d.give(p, msgSync, (&syncMessage{fork: 1, length: 67, uploading: true, canUpgrade: true}).append(nil))
	d.give(p, msgRange, appendRange(nil, false, runs.Range{End: 67}))
	hashes := 0
	for range 50 {
		requests := d.asked(p)
		d.sent()
		for _, r := range requests {
			if r.want.Hash == nil {
				d.answer(p, r)
				continue
			}
			hashes++
			proof := hypercore.Proof{Proof: merkle.Proof{Fork: 1, Hash: &merkle.HashProof{Index: r.want.Hash.Index, Nodes: []merkle.Node{{Index: r.want.Hash.Index}}}}}
			d.give(p, msgData, proof.AppendData(nil, r.id))
		}
		d.x.flushJobs()
	}
	if !p.closed || !errors.Is(p.stats.Dropped, ErrPeer) || hashes < 2 {
		t.Errorf("dropped %v for %v after %d nodes", p.closed, p.stats.Dropped, hashes)
	}
	if d.m.fork != nil {
		t.Error("the change is not given up")
	}
}

func TestClearedBlocksOfARangeComeAgain(t *testing.T) {
	d := newDesk(t, 20, 10)
	p := d.peer(runs.Range{End: 20})
	d.sent()
	w := d.want(runs.Range{End: 20}, true)
	requests := d.asked(p)
	d.sent()
	for i, r := range requests {
		if i != 5 {
			d.answer(p, r)
		}
	}
	d.x.flushJobs()
	if !d.x.log.Has(15) || d.x.log.Has(5) {
		t.Fatal("it is not that block 5 alone is missing")
	}
	if _, err := d.x.log.Clear(t.Context(), 15, 16); err != nil {
		t.Fatal(err)
	}
	d.x.flushJobs()
	for _, r := range append(requests[5:6], d.asked(p)...) {
		d.answer(p, r)
	}
	d.x.flushJobs()
	if !w.settled || d.x.log.Contiguous() != 20 {
		t.Errorf("settled %v, %d blocks are here", w.settled, d.x.log.Contiguous())
	}
}

// Who gives up waiting for a block of a range leaves the range its block.
func TestABlockThatIsGivenUpStaysInItsRange(t *testing.T) {
	d := newDesk(t, 10, 10)
	block, all := newWaiter(), d.want(runs.Range{End: 10}, true)
	p := d.peer()
	d.m.wantBlock(4, time.Time{}, block)
	d.give(p, msgRange, appendRange(nil, false, runs.Range{Start: 4, End: 5}))
	request := d.asked(p)
	if len(request) != 1 {
		t.Fatalf("%d requests", len(request))
	}
	d.sent()
	d.give(p, msgNoData, appendNoData(nil, request[0].id, notAvailable))
	block.settled = true
	block.forget()
	d.give(p, msgRange, appendRange(nil, false, runs.Range{End: 10}))
	for _, r := range d.asked(p) {
		d.answer(p, r)
	}
	d.x.flushJobs()
	if !all.settled {
		t.Error("the range waits for ever")
	}
}

// A refusal of what was asked for in another fork says nothing of this one.
func TestRefusalsOfAnotherForkSayNothing(t *testing.T) {
	d := newDesk(t, 10, 10)
	p := d.peer(runs.Range{End: 10})
	d.sent()
	d.want(runs.Range{End: 10}, true)
	requests := d.asked(p)
	d.give(p, msgSync, (&syncMessage{fork: 1, length: 10, uploading: true}).append(nil))
	d.give(p, msgRange, appendRange(nil, false, runs.Range{End: 10}))
	for _, r := range requests {
		d.give(p, msgNoData, appendNoData(nil, r.id, notAvailable))
	}
	if !p.have.has(3) || p.refused > 0 {
		t.Errorf("has block 3: %v, %d refusals count", p.have.has(3), p.refused)
	}
}

// When an answer fails to come, those that leaned on its nodes are of no use, and
// the peer is not to blame.
func TestAnswersThatLeanOnOneThatFailedAreNoMisfits(t *testing.T) {
	d := newDesk(t, 1024, 10)
	p := d.peer(runs.Range{End: 1024})
	d.sent()
	w := d.want(runs.Range{End: 1024}, true)
	if _, err := d.w.log.Clear(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		requests := d.asked(p)
		d.sent()
		if len(requests) == 0 {
			break
		}
		for _, r := range requests {
			d.answer(p, r) // all but for block 0, which brings the nodes of many
		}
		d.x.flushJobs()
		d.m.received(p)
	}
	if p.closed || w.settled || d.x.log.Has(0) {
		t.Fatalf("dropped for %v", p.stats.Dropped)
	}
	if held, _ := d.x.log.NextHeld(1); held.Start != 1 || held.End != 1024 {
		t.Errorf("blocks %v are here, %d misfits", held, p.stats.Misfits)
	}
}

// A search for a byte goes on when blocks come by another way.
func TestASearchGoesOnWithBlocksThatCome(t *testing.T) {
	d := newDesk(t, 16, 10)
	p := d.peer(runs.Range{Start: 8, End: 9})
	d.want(runs.Range{Start: 8, End: 9}, true)
	requests := d.asked(p)
	d.sent()
	w := newWaiter()
	// The only block that a peer has is on its way, and then here.
	d.m.wantSeek(&seekWant{bytes: 100, among: runs.Range{Start: 8, End: 16}, waiter: w})
	for _, r := range d.asked(p) {
		d.give(p, msgNoData, appendNoData(nil, r.id, notAvailable))
	}
	for _, r := range requests {
		d.answer(p, r)
	}
	d.x.flushJobs()
	if !w.settled {
		t.Error("it waits, with the nodes at hand")
	}
}

// A fork that nobody helps with keeps nobody waiting, and another one is followed.
func TestAForkWithoutHelpIsGivenUp(t *testing.T) {
	d := newDesk(t, 64, 10)
	if err := d.w.log.Truncate(t.Context(), 37, hypercore.TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.w.log.Append(t.Context(), make([][]byte, 30)...); err != nil {
		t.Fatal(err)
	}
	p := d.peer()
	d.give(p, msgRange, appendRange(nil, true, runs.Range{End: 64}))
	d.sent()
	// It proves the fork, and has no block of it.
	d.give(p, msgSync, (&syncMessage{fork: 1, length: 67, uploading: true}).append(nil))
	for _, r := range d.asked(p) {
		d.answer(p, r)
	}
	d.x.flushJobs()
	if d.m.fork == nil || d.m.fork.reorg == nil {
		t.Fatal("the fork is not followed")
	}
	w := newWaiter()
	d.m.wantUpdate(w)
	for range 3 {
		d.pass(newsFor)
	}
	if d.m.fork != nil || !w.settled || d.m.waiting() {
		t.Errorf("given up: %v, an update ends: %v, time matters still: %v", d.m.fork == nil, w.settled, d.m.waiting())
	}
	// Once it has something, it goes on.
	d.sent()
	d.give(p, msgRange, appendRange(nil, false, runs.Range{End: 67}))
	for range 20 {
		requests := d.asked(p)
		d.sent()
		for _, r := range requests {
			d.answer(p, r)
		}
		d.x.flushJobs()
	}
	if d.x.log.Fork() != 1 || d.x.log.Length() != 67 {
		t.Errorf("fork %d, length %d", d.x.log.Fork(), d.x.log.Length())
	}
}

// Answers that are right and not what was asked for are told from help: a peer that
// gives nothing else ends.
func TestAnswersWithoutWhatWasAskedForAreRefusals(t *testing.T) {
	for what, change := range map[string]func(p *hypercore.Proof){
		"a manifest":    func(p *hypercore.Proof) { *p = hypercore.Proof{Manifest: p.Manifest} },
		"nothing":       func(p *hypercore.Proof) { *p = hypercore.Proof{} },
		"an older head": func(*hypercore.Proof) {},
	} {
		d := newDesk(t, 10, 10)
		old, err := d.w.log.Prove(t.Context(), merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 10}}, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.w.log.Append(t.Context(), make([][]byte, 10)...); err != nil {
			t.Fatal(err)
		}
		p := d.peer()
		rounds := 0
		for ; rounds < 2*maxRefused && !p.closed; rounds++ {
			d.give(p, msgSync, (&syncMessage{length: 20 + uint64(rounds), remoteLength: 10, canUpgrade: true, uploading: true}).append(nil))
			requests := d.asked(p)
			d.sent()
			for _, r := range requests {
				proof := *old
				change(&proof)
				d.give(p, msgData, proof.AppendData(nil, r.id))
			}
			d.x.flushJobs()
		}
		if !p.closed || !errors.Is(p.stats.Dropped, ErrPeer) || p.stats.Proofs > 0 {
			t.Errorf("%s: after %d rounds it is not dropped; %d proofs count", what, rounds, p.stats.Proofs)
		}
	}
}

// Two answers of over 8 MiB in one frame are more than a peer in Node.js can send.
func TestHugeBlocksAreAskedForOneAtATime(t *testing.T) {
	d := newDesk(t, 8, 3<<20) // 12 MiB under each half
	p := d.peer(runs.Range{End: 8})
	d.sent()
	w := d.want(runs.Range{End: 8}, true)
	var got []uint64
	for round := 0; len(got) < 8 && round < 100; round++ {
		asked := d.asked(p)
		d.sent()
		huge := 0
		for _, r := range asked {
			// What is known of the size of the block is that of the node over it.
			at := 2 * r.want.Block.Index
			n, err := d.x.log.Node(at)
			for err != nil {
				at = merkle.Parent(at)
				n, err = d.x.log.Node(at)
			}
			if n.Size >= hugeBlock {
				huge++
			}
		}
		if huge > 0 && p.open > 1 {
			t.Fatalf("%d requests are open, and a block of %v may be huge", p.open, blocksOf(asked))
		}
		got = append(got, blocksOf(asked)...)
		for _, r := range asked {
			d.answer(p, r)
		}
		d.pass(time.Millisecond)
	}
	if !w.settled || !slices.Equal(got, []uint64{0, 1, 2, 3, 4, 5, 6, 7}) || p.alone != nil {
		t.Errorf("asked for %v, all are here: %v", got, w.settled)
	}
}

// The head can be newer than the events that are told with it.
func TestBlocksOfANewHeadAreToldWhateverTheEvents(t *testing.T) {
	d := newDesk(t, 3, 10)
	d.m, d.x = d.w.m, d.w
	d.w.step(func() {})
	d.x.flushJobs()
	p := d.peer()
	d.sent()
	if _, err := d.w.log.Append(t.Context(), []byte("new")); err != nil {
		t.Fatal(err)
	}
	d.m.changed(d.w.log.Head(), []hypercore.Event{{Kind: hypercore.Cleared}})
	told := false
	for _, o := range d.m.out {
		if o.peer == p && o.number == msgRange {
			drop, r, err := readRange(d.m.buf[o.start:o.end])
			told = told || err == nil && !drop && r.Contains(3)
		}
	}
	if !told {
		t.Errorf("the peer hears nothing of block 3: %d messages", len(d.m.out))
	}
}
