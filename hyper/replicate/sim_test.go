package replicate

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/hyper/storage"
)

var seedFlag = flag.Int64("seed", -1, "the only seed that the simulated networks run with")

// seeds runs a test with so many seeds, many more with BEVY_LONG, or with the one
// that -seed says.
func seeds(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	if *seedFlag >= 0 {
		f(t, uint64(*seedFlag))
		return
	}
	if os.Getenv("BEVY_LONG") != "" {
		n *= 50
	}
	start := time.Now()
	for seed := range uint64(n) {
		f(t, seed)
		if t.Failed() {
			t.Fatalf("repeat with: go test ./hyper/replicate -run '^%s$' -seed %d", t.Name(), seed)
		}
	}
	t.Logf("%d seeds, %.0f a minute", n, float64(n)/time.Since(start).Minutes())
}

// A network is machines with real logs, joined by links, on a time of its own.
// Everything that happens in it happens in one goroutine and follows from the
// seed.
type network struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	now    time.Time
	agenda agenda
	count  uint64 // of what happened
	nodes  []*node
	links  []*wire
	key    hypercore.Key
	truth  map[uint64][][]byte // blocks by fork, as the writer has appended them
	trace  bool
	o      Options
}

// What is to happen, by time.
type agenda []happening

type happening struct {
	at time.Time
	n  uint64
	f  func()
}

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].n < a[j].n
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(happening)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	*a = (*a)[:last]
	return x
}

func newNetwork(t *testing.T, seed uint64) *network {
	return &network{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1e9, 0), truth: map[uint64][][]byte{},
		o: Options{MaxInFlight: 1 << 20, NoPush: seed%3 == 2},
	}
}

func (n *network) fatalf(format string, args ...any) {
	n.t.Helper()
	n.t.Fatalf("seed %d (repeat with -run '^%s$' -seed %d), after %v: %s",
		n.seed, n.t.Name(), n.seed, n.now.Sub(time.Unix(1e9, 0)), fmt.Sprintf(format, args...))
}

// after makes something happen later.
func (n *network) after(d time.Duration, f func()) {
	n.count++
	heap.Push(&n.agenda, happening{n.now.Add(d), n.count, f})
}

// run lets time pass: until nothing is to happen any more, or for so long.
func (n *network) run(d time.Duration) {
	end := n.now.Add(d)
	for steps := 0; len(n.agenda) > 0 && !n.agenda[0].at.After(end); steps++ {
		h := heap.Pop(&n.agenda).(happening)
		n.now = h.at
		h.f()
		if steps > 3e6 {
			n.fatalf("it does not come to rest")
		}
	}
	if len(n.agenda) > 0 {
		n.now = end
	}
}

func (n *network) upTo(d time.Duration) time.Duration {
	return time.Duration(n.rng.Int64N(int64(d)) + 1)
}

// A node is a machine, its log and the shell around them.
type node struct {
	net    *network
	name   string
	store  *storage.Store
	log    *hypercore.Log
	m      *machine
	shell  *Replicator // for what of it needs no goroutines
	quiet  func()
	life   int // raised by a crash
	evil   *evil
	events []hypercore.Event

	stale, working, ticking bool
	waits                   []*wait
	dropped                 []verdict
	flights                 int  // most at a time
	cleared                 bool // nodes that led from a peer's length may have gone
}

// A verdict is why a node dropped another.
type verdict struct {
	whom   *node
	reason error
}

// A wait is what a node waits for.
type wait struct {
	what string
	w    *waiter
	live bool // it has no end
	seek uint64
	over bool
	err  error
}

func (n *network) node(name string, kp *hypercore.KeyPair) *node {
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	x := &node{net: n, name: name, store: store}
	o := hypercore.Options{KeyPair: kp}
	if kp == nil {
		o.Key = &n.key
	}
	x.open(o)
	n.nodes = append(n.nodes, x)
	return x
}

func (x *node) open(o hypercore.Options) {
	var err error
	if x.log, err = hypercore.Open(x.store, o); err != nil {
		x.net.t.Fatal(err)
	}
	opts := x.net.o
	opts.Clock = clock.NewFake(x.net.now)
	opts.fill()
	x.m = new(machine)
	x.m.init(x.log, opts)
	x.m.now = x.net.now
	x.shell = &Replicator{log: x.log, o: opts, ctx: context.Background()}
	life := x.life
	if x.quiet, err = x.log.Notify(func(e hypercore.Event) {
		if x.life == life {
			x.events = append(x.events, e)
			x.stale = true
		}
	}); err != nil {
		x.net.t.Fatal(err)
	}
	x.stale, x.working, x.ticking = true, false, false
	x.step(func() { x.m.setDownloading(true) })
}

// crash loses all that is not in the store, or even that, and starts again.
func (x *node) crash() {
	for _, l := range x.net.links {
		if l.ends[0].node == x || l.ends[1].node == x {
			l.cut()
		}
	}
	for _, w := range x.waits {
		w.over = true
	}
	x.waits = nil
	x.quiet()
	x.life++
	x.events = nil
	if err := x.log.Close(); err != nil {
		x.net.t.Fatal(err)
	}
	if x.net.rng.IntN(2) == 0 {
		// All of the store is lost, too.
		err := x.store.Close()
		if err == nil {
			x.store, err = storage.Open(storage.NewMemory(), storage.Options{})
		}
		if err != nil {
			x.net.t.Fatal(err)
		}
	}
	x.open(hypercore.Options{Key: &x.net.key})
}

func (x *node) close() {
	x.quiet()
	x.life++
	if err := errors.Join(x.log.Close(), x.store.Close()); err != nil {
		x.net.t.Error(err)
	}
}

// later is after, unless the node crashes before.
func (x *node) later(d time.Duration, f func()) {
	life := x.life
	x.net.after(d, func() {
		if x.life == life {
			f()
		}
	})
}

// step does something with the machine, and what it asks for.
func (x *node) step(f func()) {
	x.m.now = x.net.now
	f()
	x.flush()
	x.books()
}

func (x *node) flush() {
	m := x.m
	for _, o := range m.out {
		if e := x.end(o.peer); e != nil {
			e.send(o.number, m.buf[o.start:o.end])
		}
	}
	m.out, m.buf = m.out[:0], m.buf[:0]
	for len(m.gone) > 0 {
		p := m.gone[0]
		m.gone = m.gone[1:]
		if e := x.end(p); e != nil {
			if reason := p.stats.Dropped; reason != nil {
				x.dropped = append(x.dropped, verdict{e.other.node, reason})
			}
			e.peer = nil
			e.banned = e.banned || p.stats.Dropped != nil
			e.close()
		}
	}
	for _, p := range m.peers {
		if len(p.queue) > 0 && !p.serving {
			p.serving = true
			x.later(x.net.upTo(2*time.Millisecond), func() { x.answer(p) })
		}
	}
	x.work()
	if m.waiting() && !x.ticking {
		x.ticking = true
		x.later(tickEvery, func() {
			x.ticking = false
			x.step(m.tick)
		})
	}
	for _, l := range x.net.links {
		l.open()
	}
	x.settle()
}

// work does the next job, like Replicator.work.
func (x *node) work() {
	if x.working || !x.stale && !x.m.hasJob() {
		return
	}
	x.working = true
	x.later(x.net.upTo(3*time.Millisecond), func() {
		x.m.now = x.net.now
		j := x.m.job()
		if j != nil {
			j.run(context.Background(), x.log)
			if j.stored != nil && !errors.Is(j.stored, hypercore.ErrFrozen) {
				x.net.fatalf("%s can't store: %v", x.name, j.stored)
			}
		}
		changed := x.stale
		var head hypercore.Head
		var events []hypercore.Event
		if changed {
			x.stale = false
			events, x.events = x.events, nil
			var err error
			if head, err = x.log.Publish(context.Background()); err != nil {
				x.net.t.Fatal(err)
			}
		}
		x.later(x.net.upTo(time.Millisecond), func() {
			x.working = false
			x.step(func() {
				if changed {
					x.m.changed(head, events)
				}
				if j != nil {
					x.m.done(j)
				}
			})
		})
	})
}

// answer answers some requests of a peer, like Replicator.answer.
func (x *node) answer(p *peer) {
	e := x.end(p)
	if p.closed || e == nil || len(p.queue) == 0 || e.queued > 256<<10 {
		p.serving = false
		if e != nil && len(p.queue) > 0 {
			p.serving = true
			x.later(10*time.Millisecond, func() { x.answer(p) }) // it does not read fast enough
		} else if p.closing != nil && !p.closed {
			x.step(func() { x.m.drop(p, p.closing) })
		} else if p.pushing {
			x.step(func() { x.m.pushDone(p) })
		}
		return
	}
	batch := p.unqueue(1 + x.net.rng.IntN(32))
	if half := len(batch) / 2; half > 0 && x.net.rng.IntN(4) == 0 {
		p.requeue(batch[half:])
		batch = batch[:half]
	}
	for _, q := range batch {
		number, payload := x.reply(p, q)
		if payload != nil {
			e.send(number, payload)
		}
	}
	x.later(x.net.upTo(time.Millisecond), func() { x.answer(p) })
}

// reply makes the answer to a request, like Replicator.answerOne.
func (x *node) reply(p *peer, q *requestMessage) (int, []byte) {
	proof, err := x.shell.prove(p, q, nil)
	if err == nil {
		return msgData, proof.AppendData(nil, q.id)
	}
	if q.id == 0 {
		return 0, nil
	}
	reason := uint64(notAvailable)
	if errors.Is(err, merkle.ErrRequest) {
		reason = invalidRequest
		other := x.end(p).other.node
		if p.invalid++; other.evil == nil && x.evil == nil && (p.invalid >= maxInvalid || q.want.Hash == nil || len(other.m.unsure) == 0) && !x.cleared {
			x.net.fatalf("%s makes a request of %s that can't be answered: %+v: %v", other.name, x.name, q.want, err)
		}
	}
	return msgNoData, appendNoData(nil, q.id, reason)
}

func (x *node) end(p *peer) *wireEnd {
	for _, l := range x.net.links {
		for i := range l.ends {
			if e := &l.ends[i]; e.node == x && e.peer == p {
				return e
			}
		}
	}
	return nil
}

// A wire is a link between two nodes with at most one channel on it.
type wire struct {
	net   *network
	ends  [2]wireEnd
	up    bool
	life  int // raised when the channel ends
	delay time.Duration
	rate  float64 // bytes a second
}

// A wireEnd is one end, which carries what its node sends.
type wireEnd struct {
	wire   *wire
	node   *node
	other  *wireEnd
	peer   *peer // of node; nil while there is no channel
	free   time.Time
	queued int
	banned bool
}

func (n *network) link(a, b *node) *wire {
	l := &wire{net: n, up: true, delay: n.upTo(40 * time.Millisecond), rate: 1e4 * float64(1+n.rng.IntN(1000))}
	l.ends = [2]wireEnd{{wire: l, node: a, other: &l.ends[1]}, {wire: l, node: b, other: &l.ends[0]}}
	n.links = append(n.links, l)
	l.open()
	return l
}

// open opens a channel if there is none and one of the nodes wants one.
func (l *wire) open() {
	a, b := &l.ends[0], &l.ends[1]
	if !l.up || a.peer != nil || b.peer != nil || a.banned || b.banned || !a.node.wantsChannel() && !b.node.wantsChannel() {
		return
	}
	l.life++
	for i := range l.ends {
		e := &l.ends[i]
		e.queued, e.free = 0, l.net.now
		e.peer = &peer{access: Full}
		e.node.m.now = l.net.now
		e.node.m.addPeer(e.peer)
		e.deliver(40, func(other *wireEnd) {
			if p := other.peer; p != nil {
				other.node.step(func() { other.node.m.opened(p, true) })
			}
		})
	}
}

func (x *node) wantsChannel() bool {
	return !x.m.frozen && x.m.active()
}

// deliver brings something to the other end after what was sent before.
func (e *wireEnd) deliver(size int, f func(other *wireEnd)) {
	l := e.wire
	life := l.life
	if e.free.Before(l.net.now) {
		e.free = l.net.now
	}
	e.free = e.free.Add(time.Duration(float64(size) / l.rate * float64(time.Second)))
	e.queued += size
	l.net.after(e.free.Add(l.delay).Sub(l.net.now), func() {
		if l.life == life {
			e.queued -= size
			f(e.other)
		}
	})
}

func (e *wireEnd) send(number int, payload []byte) {
	for _, m := range e.node.evil.messages(e, number, bytes.Clone(payload)) {
		e.post(m.number, m.payload)
	}
}

func (e *wireEnd) post(number int, payload []byte) {
	if e.wire.net.trace {
		e.wire.net.t.Logf("%v %s to %s: %s", e.wire.net.now.Sub(time.Unix(1e9, 0)), e.node.name, e.other.node.name, describe(number, payload))
	}
	e.deliver(10+len(payload), func(other *wireEnd) {
		p := other.peer
		if p == nil {
			return
		}
		other.node.step(func() {
			m := other.node.m
			if err := m.receive(p, number, payload); err != nil {
				m.drop(p, err) // the shell ends the connection
				return
			}
			m.received(p)
		})
	})
}

func describe(number int, b []byte) string {
	var v any
	switch number {
	case msgSync:
		s, _ := readSync(b)
		v = fmt.Sprintf("%+v", s)
	case msgRequest:
		r, _ := readRequest(b)
		v = fmt.Sprintf("id %d fork %d block %v hash %v upgrade %v", r.id, r.fork, r.want.Block, r.want.Hash, r.want.Upgrade)
	case msgData:
		d, err := readData(b)
		if err != nil {
			return err.Error()
		}
		v = fmt.Sprintf("id %d", d.id)
		if p := d.proof; p.Block != nil {
			v = fmt.Sprintf("id %d block %d with %d nodes", d.id, p.Block.Index, len(p.Block.Nodes))
		} else if p.Upgrade != nil {
			v = fmt.Sprintf("id %d upgrade %d+%d to %d of fork %d", d.id, p.Upgrade.Start, p.Upgrade.Length, p.Upgrade.TreeLength(), p.Fork)
		}
	case msgRange:
		drop, r, _ := readRange(b)
		v = fmt.Sprint(drop, r)
	case msgBitfield:
		start, words, _ := readBitfield(b)
		v = fmt.Sprintf("%d %x", start, words[:min(len(words), 8)])
	default:
		v = fmt.Sprintf("%x", b[:min(len(b), 40)])
	}
	return fmt.Sprint(messageNames[number], " ", v)
}

// close tells the other end that the channel is closed.
func (e *wireEnd) close() {
	if e.peer == nil && e.other.peer == nil {
		e.wire.life++
		return
	}
	e.deliver(4, func(other *wireEnd) {
		p := other.peer
		other.peer = nil
		e.wire.life++
		if p != nil {
			other.node.step(func() { other.node.m.removePeer(p) })
		}
		e.wire.open()
	})
}

// cut ends the link, with all that is on its way.
func (l *wire) cut() {
	l.life++
	l.up = false
	for i := range l.ends {
		e := &l.ends[i]
		p := e.peer
		e.peer = nil
		if p != nil {
			e.node.step(func() { e.node.m.removePeer(p) })
		}
	}
}

func (l *wire) restore() {
	l.up = true
	l.open()
}

// books checks what must hold of a machine at any time.
func (x *node) books() {
	m, fail := x.m, x.net.fatalf
	inflight := 0
	for _, p := range m.peers {
		open, bytes, cancelled := 0, 0, 0
		for _, r := range p.requests {
			switch {
			case r == nil:
			case r.cancelled:
				cancelled++
			default:
				open++
				bytes += r.size
			}
		}
		inflight += bytes
		if open != p.open || bytes != p.inflight || cancelled != len(p.lingering) {
			fail("%s counts %d open requests of %d bytes and %d lingering, has %d of %d and %d", x.name, p.open, p.inflight, len(p.lingering), open, bytes, cancelled)
		}
		if len(p.free)+open+cancelled != len(p.requests) {
			fail("%s lost ids: %d free, %d open, %d lingering of %d", x.name, len(p.free), open, cancelled, len(p.requests))
		}
		if len(p.requests) > maxOpen+maxSearch || len(p.queue) > maxQueue+maxPushed || len(p.queued) > len(p.queue) ||
			len(p.theirs) > maxWants || len(p.wanted) > maxWants || len(p.have.pages) > maxPages {
			fail("%s keeps too much: %d requests, %d queued, %d (%d) wants, %d pages", x.name, len(p.requests), len(p.queue), len(p.theirs), len(p.wanted), len(p.have.pages))
		}
		if len(p.planned) > 2*64*maxOpen {
			fail("%s keeps %d planned nodes", x.name, len(p.planned))
		}
	}
	x.flights = max(x.flights, len(m.flights))
	size := 0
	for _, a := range m.arrived {
		size += a.size
	}
	switch {
	case inflight != m.inflight:
		fail("%s counts %d bytes in flight, has %d", x.name, m.inflight, inflight)
	case size > m.unapplied:
		fail("%s counts %d bytes to be applied, has %d", x.name, m.unapplied, size)
	case m.unapplied > m.o.MaxInFlight+3*hypercore.MaxBlock:
		fail("%s keeps %d bytes to be applied", x.name, m.unapplied)
	case len(m.order) > 2*x.flights+maxSearch+1:
		fail("%s keeps %d flights, had %d at a time", x.name, len(m.order), x.flights)
	case len(m.checks) > len(m.peers)+len(x.net.links):
		fail("%s keeps %d checks", x.name, len(m.checks))
	}
	for index, f := range m.flights {
		if f.index != index || f.done || len(f.requests) == 0 && !f.arrived {
			fail("%s has a flight of block %d that nobody is on: %+v", x.name, index, *f)
		}
	}
	if len(m.peers) == 0 && len(m.flights) > 0 && len(m.arrived) == 0 && !x.working {
		fail("%s has %d flights without peers", x.name, len(m.flights))
	}
	for _, b := range m.blocks {
		if f := m.flights[b.index]; b.queued == (f != nil) {
			fail("%s waits for block %d: queued %v, in flight %v", x.name, b.index, b.queued, f != nil)
		}
	}
}

// --- what nodes want ---

func (x *node) want(what string, f func(*waiter)) *wait {
	w := &wait{what: what, w: newWaiter()}
	x.waits = append(x.waits, w)
	x.step(func() { f(w.w) })
	return w
}

func (x *node) wantBlock(index uint64) {
	var deadline time.Time
	if x.net.rng.IntN(2) == 0 {
		deadline = x.net.now.Add(x.net.upTo(time.Minute))
	}
	x.want(fmt.Sprintf("block %d", index), func(w *waiter) { x.m.wantBlock(index, deadline, w) })
}

func (x *node) wantRange(start, end uint64, linear bool) *wait {
	w := x.want(fmt.Sprintf("blocks %d to %d", start, end), func(w *waiter) {
		x.m.wantRange(&rangeWant{Range: runs.Range{Start: start, End: end}, linear: linear, waiter: w})
	})
	w.live = end == noBlock
	return w
}

func (x *node) wantSeek(pos uint64) {
	head := x.log.Head()
	s, err := head.Seek(pos, 0, logNodes{log: x.log})
	if err != nil {
		x.net.fatalf("seek %d: %v", pos, err)
	}
	if s.Found {
		if blocks := x.net.truth[head.Fork]; head.Fork == x.net.nodes[0].log.Fork() {
			at := uint64(0)
			for _, b := range blocks[:s.Block] {
				at += uint64(len(b))
			}
			if at+s.Offset != pos {
				x.net.fatalf("%s: byte %d is said to be byte %d of block %d", x.name, pos, s.Offset, s.Block)
			}
		}
		return
	}
	w := x.want(fmt.Sprintf("byte %d", pos), func(w *waiter) {
		x.m.wantSeek(&seekWant{bytes: pos, among: runs.Range{Start: s.Start, End: s.End}, waiter: w})
	})
	w.seek = pos
}

// giveUp takes back what is waited for.
func (x *node) giveUp(w *wait) {
	if !w.w.settled {
		x.step(func() {
			w.w.settled = true
			w.w.forget()
		})
		w.over, w.err = true, context.Canceled
	}
}

// settle looks which waits are over.
func (x *node) settle() {
	for i := 0; i < len(x.waits); i++ {
		w := x.waits[i]
		select {
		case w.err = <-w.w.done:
			w.over = true
		default:
		}
		if !w.over {
			continue
		}
		x.waits = slices.Delete(x.waits, i, i+1)
		i--
		if w.seek > 0 && w.err == nil {
			x.later(0, func() { x.wantSeek(w.seek) })
		}
	}
}

// --- the writer ---

// content is a block that tells which it is.
func content(fork, index uint64, rng *rand.Rand) []byte {
	b := make([]byte, 16+rng.IntN(200))
	binary.BigEndian.PutUint64(b, fork)
	binary.BigEndian.PutUint64(b[8:], index)
	for i := range b[16:] {
		b[16+i] = byte(rng.Uint32())
	}
	return b
}

func (x *node) append(blocks int) {
	n := x.net
	fork := x.log.Fork()
	var list [][]byte
	for i := range blocks {
		list = append(list, content(fork, x.log.Length()+uint64(i), n.rng))
	}
	if _, err := x.log.Append(context.Background(), list...); err != nil {
		n.fatalf("append: %v", err)
	}
	n.truth[fork] = append(n.truth[fork], list...)
	x.step(func() {})
}

func (x *node) truncate(length uint64) {
	n := x.net
	old := x.log.Fork()
	if err := x.log.Truncate(context.Background(), length, hypercore.TruncateOptions{}); err != nil {
		n.fatalf("truncate: %v", err)
	}
	n.truth[x.log.Fork()] = slices.Clone(n.truth[old][:length])
	x.step(func() {})
}

func (x *node) clear(from, to uint64) {
	if _, err := x.log.Clear(context.Background(), from, to); err != nil {
		x.net.fatalf("clear: %v", err)
	}
	x.cleared = true
	x.step(func() {})
}

// right checks that all a node has stored is what the writer has signed.
func (x *node) right() {
	n := x.net
	for problem, err := range x.log.Audit(context.Background()) {
		n.fatalf("%s stores what is wrong: %v, %v", x.name, problem, err)
	}
	blocks := n.truth[x.log.Fork()]
	if uint64(len(blocks)) < x.log.Length() {
		n.fatalf("%s has %d blocks in fork %d, the writer has appended %d", x.name, x.log.Length(), x.log.Fork(), len(blocks))
	}
	for r, ok := x.log.NextHeld(0); ok; r, ok = x.log.NextHeld(r.End) {
		for i := r.Start; i < r.End; i++ {
			b, err := x.log.Stored(context.Background(), i)
			if err != nil || !bytes.Equal(b, blocks[i]) {
				n.fatalf("%s stores a wrong block %d: %v", x.name, i, err)
			}
		}
	}
}

// rest checks that a machine has nothing under way.
func (x *node) rest() {
	m := x.m
	if len(m.flights) > 0 || m.inflight != 0 || m.unapplied != 0 || m.upgrade != nil || m.fork != nil || len(m.arrived) > 0 ||
		len(m.checks) > 0 || len(m.unsure) > 0 || len(m.tries) > 0 || x.working || m.hasJob() {
		x.net.fatalf("%s is not at rest: %d flights, %d bytes in flight, %d to be applied, upgrade %v, fork %+v, %d tries, %d unsure",
			x.name, len(m.flights), m.inflight, m.unapplied, m.upgrade, m.fork, len(m.tries), len(m.unsure))
	}
	for _, p := range m.peers {
		if p.open > 0 || len(p.queue) > 0 || len(p.planned) > 0 {
			x.net.fatalf("%s has a peer with %d requests, %d queued, %d planned", x.name, p.open, len(p.queue), len(p.planned))
		}
	}
}

// --- honest networks ---

// mesh makes a writer and readers, joined so that each is reached.
func (n *network) mesh(size, evil int) {
	kp := hypercore.NewKeyPair([32]byte{1})
	n.key = logKey(n.t, kp)
	w := n.node("writer", &kp)
	for i := 1; i < size; i++ {
		n.node(fmt.Sprintf("reader %d", i), nil)
	}
	for i := range evil {
		x := n.node(fmt.Sprintf("liar %d", i), nil)
		x.evil = newEvil(n, int(n.seed)+i)
		x.name = fmt.Sprintf("liar %d (%s)", i, x.evil.kind)
		n.link(x, n.nodes[n.rng.IntN(size)])
		n.link(x, n.nodes[n.rng.IntN(size)])
	}
	for i := 1; i < size; i++ {
		n.link(n.nodes[i], n.nodes[n.rng.IntN(i)])
		if n.rng.IntN(2) == 0 {
			if other := n.nodes[n.rng.IntN(size)]; other != n.nodes[i] {
				n.link(n.nodes[i], other)
			}
		}
	}
	w.append(1 + n.rng.IntN(100))
}

// live lets things happen at random.
func (n *network) live(size, steps int) {
	w := n.nodes[0]
	for range steps {
		n.run(n.upTo(400 * time.Millisecond))
		x := n.nodes[1+n.rng.IntN(size-1)]
		length := max(w.log.Length(), 1)
		switch k := n.rng.IntN(20); {
		case k < 4:
			w.append(1 + n.rng.IntN(60))
		case k == 4 && n.rng.IntN(2) == 0:
			w.truncate(n.rng.Uint64N(w.log.Length() + 1))
			if n.rng.IntN(2) == 0 {
				w.append(1 + n.rng.IntN(30))
			}
		case k == 5:
			from := n.rng.Uint64N(x.log.Length() + 1)
			x.clear(from, min(from+n.rng.Uint64N(20), x.log.Length()))
		case k == 6:
			x.wantRange(0, noBlock, n.rng.IntN(2) == 0)
		case k < 9:
			from := n.rng.Uint64N(length)
			x.wantRange(from, from+n.rng.Uint64N(length-from+1), n.rng.IntN(2) == 0)
		case k < 12:
			x.wantBlock(n.rng.Uint64N(length + 5))
		case k == 12:
			x.wantSeek(n.rng.Uint64N(w.log.ByteLength() + 1))
		case k == 13:
			x.want("the newest head", x.m.wantUpdate)
		case k == 14 && len(x.waits) > 0:
			x.giveUp(x.waits[n.rng.IntN(len(x.waits))])
		case k < 17:
			l := n.links[n.rng.IntN(len(n.links))]
			l.cut()
			n.after(n.upTo(2*time.Second), l.restore)
		case k == 17 && n.rng.IntN(2) == 0:
			x.crash()
			for _, l := range n.links {
				if !l.up {
					n.after(n.upTo(time.Second), l.restore)
				}
			}
		case k == 18:
			on := n.rng.IntN(2) == 0
			x.step(func() { x.m.setDownloading(on) })
		}
	}
}

// calm ends all that is random, and lets the network come to rest.
func (n *network) calm(size int) {
	if n.nodes[0].log.Length() == 0 {
		n.nodes[0].append(1) // a tree of nothing proves nothing, in the reference too
	}
	for i, a := range n.nodes[:size] {
		a.step(func() { a.m.setDownloading(true) })
		for _, b := range n.nodes[:i] {
			n.link(a, b)
		}
	}
	for _, l := range n.links {
		l.up = true
		l.open()
	}
	n.run(10 * time.Minute)
}

// equal checks that honest nodes have the same log, and what they wanted.
func (n *network) equal(size int) {
	head := n.nodes[0].log.Head()
	for _, x := range n.nodes[:size] {
		if h := x.log.Head(); h.Fork != head.Fork || h.Length != head.Length || h.Hash() != head.Hash() {
			n.fatalf("%s has fork %d and length %d, the writer %d and %d; %+v", x.name, h.Fork, h.Length, head.Fork, head.Length, *x.m)
		}
		x.right()
		for _, w := range slices.Clone(x.waits) {
			if !w.live && n.available(w, x, size) {
				n.missing(x, size)
				for _, s := range x.m.seeks {
					for _, p := range x.m.peers {
						i, ok := x.m.hashAmong(p, s.among)
						n.t.Logf("%s among %v, request %v: %v %v open %v synced %v length %d reaches %v; %+v", x.end(p).other.node.name, s.among, s.request, i, ok, p.opened, p.synced, p.remote.length, x.m.reaches(p), x.m.head.Length)
					}
				}
				n.fatalf("%s still waits for %s", x.name, w.what)
			}
			if w.live && n.available(w, x, size) {
				n.missing(x, size)
			}
			x.giveUp(w)
		}
	}
	n.run(time.Minute)
	for _, x := range n.nodes[:size] {
		x.rest()
		if len(x.m.ranges)+len(x.m.blocks)+len(x.m.seeks)+len(x.m.updates)+len(x.m.urgent)+x.m.todo.Runs() > 0 {
			n.fatalf("%s still wants something: %d ranges, %d blocks, %d seeks, %d updates, %d urgent, %d to do", x.name,
				len(x.m.ranges), len(x.m.blocks), len(x.m.seeks), len(x.m.updates), len(x.m.urgent), x.m.todo.Runs())
		}
	}
}

// missing checks that a node has all that others have.
func (n *network) missing(x *node, size int) {
	for _, w := range x.m.ranges {
		for i := w.next; i < min(w.End, x.log.Length()); i++ { // who clears what a range has passed does not get it again
			if !x.log.Has(i) && n.held(i, size) {
				told := ""
				for _, p := range x.m.peers {
					e := x.end(p)
					told += fmt.Sprintf("; %s told %v, has %v", e.other.node.name, p.have.has(i), e.other.node.log.Has(i))
				}
				n.fatalf("%s lacks block %d of its range: to do %v, tries %d%s", x.name, i, x.m.todo.Has(i), x.m.tries[i], told)
			}
		}
	}
}

func (n *network) held(index uint64, size int) bool {
	return slices.ContainsFunc(n.nodes[:size], func(x *node) bool { return x.log.Has(index) })
}

// available reports whether what is waited for can be had from somebody.
func (n *network) available(w *wait, x *node, size int) bool {
	for _, b := range x.m.blocks {
		if slices.Contains(b.waiters, w.w) {
			return n.held(b.index, size)
		}
	}
	for _, r := range x.m.ranges {
		if r.waiter == w.w {
			if r.End > x.log.Length() && r.End != noBlock {
				return false
			}
			for i := r.next; i < min(r.End, x.log.Length()); i++ {
				if !n.held(i, size) {
					return false
				}
			}
			return true
		}
	}
	for _, s := range x.m.seeks {
		if s.waiter == w.w {
			for i := s.among.Start; i < s.among.End; i++ {
				if n.held(i, size) {
					return true // who has a block has the nodes above it
				}
			}
			return false
		}
	}
	return true
}

func TestHonestPeersConverge(t *testing.T) {
	seeds(t, 60, func(t *testing.T, seed uint64) {
		n := newNetwork(t, seed)
		n.trace = *seedFlag >= 0 && os.Getenv("TRACE") != ""
		size := 3 + n.rng.IntN(8)
		defer n.close()
		n.mesh(size, 0)
		n.live(size, 60)
		n.calm(size)
		n.equal(size)
		n.judged(size)
	})
}

func (n *network) close() {
	for _, x := range n.nodes {
		x.close()
	}
}

func logKey(t testing.TB, kp hypercore.KeyPair) hypercore.Key {
	key, err := (&hypercore.Options{KeyPair: &kp}).LogKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
