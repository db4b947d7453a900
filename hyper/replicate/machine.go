package replicate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

const noBlock = ^uint64(0)

// A machine is the protocol for one log and all of its peers. It is a value
// without goroutines, clocks, sockets or writes: messages and what was learned
// go in; messages, and jobs to be done with the log, come out. Of the log it
// only reads what is held.
//
// Whoever runs it sets now before each call, sends what is in out afterwards,
// does the jobs that job returns one after the other, and answers what peers
// have in their queues.
type machine struct {
	log *hypercore.Log
	o   Options
	now time.Time

	head        hypercore.Head // what peers may know, see hypercore.Log.Publish
	ready       bool           // the head is known
	frozen      bool
	downloading bool // somebody here uses the log
	peers       []*peer
	connecting  int // connections that may turn into peers

	// What is wanted.
	ranges  []*rangeWant
	todo    runs.Set // blocks of ranges that are neither held nor in a claim or flight
	blocks  map[uint64]*blockWant
	urgent  []*blockWant // those not asked for, the most urgent first
	seeks   []*seekWant
	updates []*waiter // who waits for the newest head

	// What is under way.
	flights   map[uint64]*flight // blocks that were asked for
	tries     map[uint64]int     // of blocks that are wanted: proofs that did not fit
	order     []*flight          // the same, the oldest first; done ones are skipped
	upgrade   *request           // of the head
	coming    uint64             // length that a push brings, when it is applied
	fork      *forkChange
	arrived   []*answer // proofs that are not applied yet
	early     []*answer // and those that came before what they build on
	unapplied int       // their bytes
	inflight  int       // bytes asked for
	checks    []*conflictCheck
	unsure    []*conflictCheck // checks that lack nodes of our own tree
	fullUntil time.Time        // nothing can be stored before

	out  []outgoing
	buf  []byte
	gone []*peer // dropped, their channels to be closed
	seq  uint64
}

// An outgoing message is in the machine's buffer.
type outgoing struct {
	peer       *peer
	number     int
	start, end int
}

// A waiter waits for something that was asked of a machine.
type waiter struct {
	done    chan error // holds the result
	settled bool
	forget  func() // takes back what was asked
}

func newWaiter() *waiter { return &waiter{done: make(chan error, 1)} }

func (w *waiter) settle(err error) {
	if !w.settled {
		w.settled = true
		w.done <- err
	}
}

// A blockWant is a block that somebody waits for.
type blockWant struct {
	index    uint64
	deadline time.Time // zero is none
	seq      uint64
	waiters  []*waiter
	queued   bool // in urgent
}

// A rangeWant is a range of blocks to be downloaded.
type rangeWant struct {
	runs.Range // End is noBlock where it goes on with the log
	linear     bool
	next       uint64 // blocks of it before this one are held
	waiter     *waiter
}

// A seekWant looks for the block that has a byte.
type seekWant struct {
	bytes, padding uint64
	among          runs.Range
	request        *request
	waiter         *waiter
}

// A flight is a block on its way here.
type flight struct {
	index    uint64
	requests []*request  // more than one where a peer was slow
	first    [1]*request // memory for one of them
	arrived  bool        // waits to be applied
	done     bool
}

// A request of ours, to one peer.
type request struct {
	peer      *peer
	msg       requestMessage
	block     merkle.NodeRequest // memory for the one in msg
	size      int                // bytes expected
	sent      time.Time
	delivered uint64 // by the peer until then
	flight    *flight
	seek      *seekWant
	fork      *forkChange
	node      *nodeWant
	tick      uint64 // of the peer's requests
	planned   uint64 // levels of nodes that the answer brings, see plan
	leans     bool   // on nodes that answers to earlier requests bring
	cancelled bool
}

// An answer is a proof that waits to be applied.
type answer struct {
	req   *request // nil when it was pushed
	peer  *peer
	proof *hypercore.Proof
	buf   []byte // what the proof lies in
	size  int
	early int // how often it came before what it builds on
	err   error
}

// A forkChange follows a peer to a higher fork.
type forkChange struct {
	fork    uint64
	peer    *peer
	moved   time.Time // when something was last under way
	request *request
	reorg   *hypercore.Reorg
	proof   *hypercore.Proof // arrived, to be worked on
	working bool
	err     error
	useful  bool
}

// idle reports whether nothing is under way for the change.
func (f *forkChange) idle() bool { return f.request == nil && f.proof == nil && !f.working }

// A conflictCheck is evidence to be looked at.
type conflictCheck struct {
	peer   *peer
	proof  *hypercore.Proof
	frozen bool
	err    error

	asked   bool        // that is its peer's answer to suspect
	missing []*nodeWant // nodes of our tree that it lacked
	until   time.Time
}

// A nodeWant is a node of our tree that a check needs, to be had from another
// peer than the one that is checked.
type nodeWant struct {
	index   uint64
	request *request
	asked   []*peer
}

func (m *machine) init(log *hypercore.Log, o Options) {
	m.log, m.o = log, o
	m.blocks, m.flights, m.tries = map[uint64]*blockWant{}, map[uint64]*flight{}, map[uint64]int{}
}

// send queues a message, whose payload was appended to m.buf.
func (m *machine) send(p *peer, number int, grown []byte) {
	start := len(m.buf)
	m.buf = grown
	m.out = append(m.out, outgoing{p, number, start, len(grown)})
	p.stats.Sent++
}

// active reports whether something is to be had from peers.
func (m *machine) active() bool {
	return m.downloading || len(m.blocks) > 0 || len(m.ranges) > 0 || len(m.seeks) > 0 || len(m.updates) > 0
}

// waiting reports whether an answer of a peer is awaited, so that time matters.
func (m *machine) waiting() bool {
	for _, p := range m.peers {
		if p.open > 0 || p.suspected != nil {
			return true
		}
	}
	return len(m.updates) > 0 || len(m.unsure) > 0 || m.fork != nil || m.now.Before(m.fullUntil)
}

// --- what is wanted ---

func (m *machine) wantBlock(index uint64, deadline time.Time, w *waiter) {
	if index < m.head.Length && m.log.Has(index) {
		w.settle(nil)
		return
	}
	b := m.blocks[index]
	if b == nil {
		m.seq++
		b = &blockWant{index: index, deadline: deadline, seq: m.seq}
		m.blocks[index] = b
		m.queueBlock(b)
	} else if !deadline.IsZero() && (b.deadline.IsZero() || deadline.Before(b.deadline)) {
		queued := b.queued
		m.unqueueBlock(b)
		if b.deadline = deadline; queued {
			m.queueBlock(b)
		}
	}
	b.waiters = append(b.waiters, w)
	w.forget = func() {
		if i := slices.Index(b.waiters, w); i >= 0 {
			b.waiters = slices.Delete(b.waiters, i, i+1)
		}
		if len(b.waiters) == 0 {
			m.forgetBlock(b)
		}
	}
	m.changedWants()
}

// queueBlock puts a block that somebody waits for among those to be asked for.
func (m *machine) queueBlock(b *blockWant) {
	if b.queued {
		return
	}
	if f := m.flights[b.index]; f != nil && !f.done {
		return // it is on its way
	}
	b.queued = true
	i, _ := slices.BinarySearchFunc(m.urgent, b, func(x, y *blockWant) int {
		if x.deadline.Equal(y.deadline) {
			return int(int64(x.seq - y.seq))
		}
		if x.deadline.IsZero() || !y.deadline.IsZero() && y.deadline.Before(x.deadline) {
			return 1
		}
		return -1
	})
	m.urgent = slices.Insert(m.urgent, i, b)
}

func (m *machine) unqueueBlock(b *blockWant) {
	if b.queued {
		b.queued = false
		m.urgent = slices.DeleteFunc(m.urgent, func(x *blockWant) bool { return x == b })
	}
}

func (m *machine) forgetBlock(b *blockWant) {
	if m.blocks[b.index] != b {
		return
	}
	delete(m.blocks, b.index)
	m.unqueueBlock(b)
	f := m.flights[b.index]
	switch wanted := m.inRanges(b.index); {
	case wanted && f == nil:
		m.addTodo(runs.Range{Start: b.index, End: b.index + 1})
	case wanted || f == nil || f.arrived:
	default:
		m.endFlight(f)
	}
	if !m.inRanges(b.index) {
		delete(m.tries, b.index)
	}
	m.schedule()
}

func (m *machine) settleBlock(index uint64, err error) {
	b := m.blocks[index]
	if b == nil {
		return
	}
	delete(m.blocks, index)
	m.unqueueBlock(b)
	for _, w := range b.waiters {
		w.settle(err)
	}
}

func (m *machine) wantRange(r *rangeWant) {
	r.next = r.Start
	r.waiter.forget = func() {
		m.ranges = slices.DeleteFunc(m.ranges, func(x *rangeWant) bool { return x == r })
		m.makeTodo()
	}
	m.ranges = append(m.ranges, r)
	m.addTodo(r.Range)
	m.checkRanges()
	m.changedWants()
}

// addTodo adds the blocks of a range that are not here and not on their way.
func (m *machine) addTodo(r runs.Range) {
	r.End = min(r.End, m.head.Length)
	for i := r.Start; i < r.End; {
		held, ok := m.log.NextHeld(i)
		if !ok || held.Start > r.End {
			held = runs.Range{Start: r.End, End: r.End}
		}
		m.todo.Add(runs.Range{Start: i, End: held.Start})
		i = held.End
	}
	if r.Len() < uint64(len(m.flights)) {
		for index := r.Start; index < r.End; index++ {
			if m.flights[index] != nil {
				m.todo.Remove(runs.Range{Start: index, End: index + 1})
			}
		}
	} else {
		for index := range m.flights {
			if r.Contains(index) {
				m.todo.Remove(runs.Range{Start: index, End: index + 1})
			}
		}
	}
	for _, p := range m.peers {
		m.todo.Remove(p.claim)
	}
}

// makeTodo makes the set of blocks to be asked for anew.
func (m *machine) makeTodo() {
	m.todo = runs.Set{}
	for _, p := range m.peers {
		p.claim, p.small = runs.Range{}, runs.Range{}
	}
	maps.DeleteFunc(m.tries, func(index uint64, _ int) bool { return m.blocks[index] == nil && !m.inRanges(index) })
	for _, r := range m.ranges {
		m.addTodo(r.Range)
	}
}

func (m *machine) inRanges(index uint64) bool {
	return slices.ContainsFunc(m.ranges, func(r *rangeWant) bool { return r.Contains(index) })
}

// checkRanges settles the ranges that are complete.
func (m *machine) checkRanges() {
	for i := 0; i < len(m.ranges); {
		r := m.ranges[i]
		if held, ok := m.log.NextHeld(r.next); ok && held.Start == r.next {
			r.next = held.End
		}
		if r.next < r.End {
			i++
			continue
		}
		m.ranges = slices.Delete(m.ranges, i, i+1)
		r.waiter.settle(nil)
	}
}

func (m *machine) wantSeek(s *seekWant) {
	s.waiter.forget = func() {
		m.seeks = slices.DeleteFunc(m.seeks, func(x *seekWant) bool { return x == s })
	}
	m.seeks = append(m.seeks, s)
	m.changedWants()
}

func (m *machine) settleSeek(s *seekWant, err error) {
	if i := slices.Index(m.seeks, s); i >= 0 {
		m.seeks = slices.Delete(m.seeks, i, i+1)
		s.waiter.settle(err)
	}
}

func (m *machine) wantUpdate(w *waiter) {
	w.forget = func() {
		m.updates = slices.DeleteFunc(m.updates, func(x *waiter) bool { return x == w })
	}
	m.updates = append(m.updates, w)
	m.changedWants()
	m.checkUpdates()
}

// checkUpdates settles who waits for the newest head, once no peer has a newer
// one or may be about to tell of one.
func (m *machine) checkUpdates() {
	if len(m.updates) == 0 || !m.ready || m.connecting > 0 || m.upgrade != nil || m.fork != nil && !m.fork.idle() || len(m.arrived)+len(m.early) > 0 {
		return
	}
	for _, p := range m.peers {
		if !p.mayHaveNews() {
			continue
		}
		return
	}
	for _, w := range m.updates {
		w.settle(nil)
	}
	m.updates = nil
}

// newsFor is how long a peer may be about to say something: one that never does
// keeps nobody waiting.
const newsFor = 5 * time.Second

// mayHaveNews reports whether a peer may have a newer head than ours.
func (p *peer) mayHaveNews() bool {
	m := p.m
	if !p.access.Download || p.stalled || p.suspected != nil || p.closing != nil || m.now.Sub(p.heard) > newsFor {
		return false
	}
	if !p.opened || !p.synced {
		return true
	}
	if p.remote.fork != m.head.Fork {
		return p.remote.fork > m.head.Fork && p.remote.length > 0 && !p.forkFailed
	}
	if p.remote.length <= m.head.Length {
		return false
	}
	return p.remote.canUpgrade || p.remote.remoteLength != m.head.Length
}

// changedWants lets peers know that something is wanted, and asks for it.
func (m *machine) changedWants() {
	for _, p := range m.peers {
		m.sync(p, false)
	}
	m.schedule()
}

// --- what has changed ---

// setDownloading says whether somebody uses the log.
func (m *machine) setDownloading(on bool) {
	m.downloading = on
	m.changedWants()
	m.closeIdle()
}

// closeIdle closes channels that neither side needs.
func (m *machine) closeIdle() {
	if m.active() {
		return
	}
	for _, p := range slices.Clone(m.peers) {
		if p.opened && p.synced && !p.remote.downloading && p.open == 0 && len(p.queue) == 0 {
			m.drop(p, nil)
		}
	}
}

// changed tells what has happened to the log. Peers may know the head.
func (m *machine) changed(head hypercore.Head, events []hypercore.Event) {
	old := m.head
	m.head = head
	if !m.ready {
		m.ready = true
		for _, p := range m.peers {
			if p.opened {
				m.hello(p)
			}
		}
		for _, r := range m.ranges {
			m.addTodo(r.Range)
		}
	}
	if head.Fork != old.Fork {
		m.forkChanged(old)
	}
	from := min(old.Length, head.Length)
	if head.Fork != old.Fork {
		from = 0
	}
	if head.Length > from {
		m.lengthChanged(runs.Range{Start: from, End: head.Length})
	}
	var held, lost runs.Set
	froze := false
	for _, e := range events {
		switch e.Kind {
		case hypercore.Received:
			held.Add(e.Range)
		case hypercore.Cleared:
			lost.Add(e.Range)
			held.Add(e.Range) // it may be here again
		case hypercore.Truncated:
			lost.Add(runs.Range{Start: e.Length, End: max(e.Length, old.Length)})
			held.Add(runs.Range{End: head.Length})
		case hypercore.Lagged:
			lost.Add(runs.Range{End: max(old.Length, head.Length)})
			held.Add(runs.Range{End: head.Length})
		case hypercore.Froze:
			froze = true
		}
	}
	// The head may be newer than the events, so that is asked and not they.
	held.Add(runs.Range{Start: from, End: max(from, head.Length)})
	for r := range lost.All() { // before peers hear of another fork, and ask for it
		for _, p := range m.peers {
			m.tellDropped(p, r)
		}
		for _, w := range m.ranges {
			m.addTodo(runs.Range{Start: max(w.Start, w.next), End: w.End}.Intersect(r))
		}
	}
	if head.Length != old.Length || head.Fork != old.Fork {
		for _, p := range m.peers {
			if !m.push(p, old) {
				m.sync(p, true)
			}
		}
	}
	if lost.Runs() > 0 {
		// Nodes may have gone with the blocks.
		for _, p := range m.peers {
			p.reaches, p.told.canUpgrade = false, false
			m.sync(p, false)
		}
	}
	for r := range held.All() {
		m.nowHeld(r)
	}
	m.checkRanges()
	if froze && !m.frozen {
		m.freeze()
	}
	if len(m.updates) > 0 && (head.Length != old.Length || head.Fork != old.Fork) {
		m.checkUpdates()
	}
	m.schedule()
}

// lengthChanged adds new blocks to what is wanted.
func (m *machine) lengthChanged(r runs.Range) {
	for _, w := range m.ranges {
		m.addTodo(w.Intersect(r))
	}
	for _, s := range slices.Clone(m.seeks) {
		if s.among.Start >= r.Start {
			m.settleSeek(s, nil) // there are nodes to look at
		}
	}
}

// nowHeld is told of a range in which blocks are held that were not.
func (m *machine) nowHeld(r runs.Range) {
	for i := r.Start; i < r.End; {
		held, ok := m.log.NextHeld(i)
		held = held.Intersect(r)
		if !ok || held.Len() == 0 {
			return
		}
		i = held.End
		m.todo.Remove(held)
		m.landed(held)
		for _, s := range slices.Clone(m.seeks) {
			if s.among.Intersect(held).Len() > 0 {
				m.settleSeek(s, nil) // the nodes above the block narrow it down
			}
		}
		if uint64(len(m.blocks)) < held.Len() {
			for index := range m.blocks {
				if held.Contains(index) {
					m.settleBlock(index, nil)
				}
			}
		} else {
			for index := held.Start; index < held.End; index++ {
				m.settleBlock(index, nil)
			}
		}
		for _, p := range m.peers {
			m.tellHeld(p, held)
		}
	}
}

// landed ends the flights of blocks that are held by now, however they came.
func (m *machine) landed(held runs.Range) {
	if len(m.tries) > 0 {
		maps.DeleteFunc(m.tries, func(index uint64, _ int) bool { return held.Contains(index) })
	}
	if uint64(len(m.flights)) < held.Len() {
		for _, f := range m.order {
			if held.Contains(f.index) && !f.arrived && !f.done {
				m.endFlight(f)
			}
		}
		return
	}
	for index := held.Start; index < held.End; index++ {
		if f := m.flights[index]; f != nil && !f.arrived {
			m.endFlight(f)
		}
	}
}

// forkChanged forgets what was under way in another fork.
func (m *machine) forkChanged(old hypercore.Head) {
	for _, f := range m.order {
		if !f.done && !f.arrived {
			m.endFlight(f)
		}
	}
	if m.upgrade != nil {
		m.cancel(m.upgrade)
	}
	if f := m.fork; f != nil && f.fork <= m.head.Fork {
		if r := f.request; r != nil {
			f.request = nil
			m.cancel(r)
		}
		if !f.working {
			m.fork = nil // otherwise it ends when the work does
		}
	}
	clear(m.tries)
	m.unsure = nil
	for _, p := range m.peers {
		clear(p.planned)
		p.reaches = false
		p.toldAll, p.pushed, p.misfits = 0, 0, 0
		p.forkFailed = false
	}
	for _, r := range m.ranges {
		r.next = r.Start
	}
	m.makeTodo()
	for _, b := range m.blocks {
		m.queueBlock(b)
	}
}

// freeze ends everything: the log's writer signed two histories. Peers get the
// evidence first.
func (m *machine) freeze() {
	m.frozen = true
	err := fmt.Errorf("log %s: %w", m.log.Key(), hypercore.ErrFrozen)
	m.fail(err)
	for _, p := range slices.Clone(m.peers) {
		if p.opened && p.synced && p.remote.fork == m.head.Fork && min(p.remote.length, m.head.Length) > 0 {
			p.queue = append(p.queue, &requestMessage{fork: m.head.Fork, want: merkle.Request{
				Upgrade: &merkle.UpgradeRequest{Length: min(p.remote.length, m.head.Length)}}})
			p.closing = err
			continue
		}
		m.drop(p, err)
	}
}

// fail ends all that somebody waits for.
func (m *machine) fail(err error) {
	for index := range m.blocks {
		m.settleBlock(index, err)
	}
	for _, r := range m.ranges {
		r.waiter.settle(err)
	}
	for _, s := range m.seeks {
		s.waiter.settle(err)
	}
	for _, w := range m.updates {
		w.settle(err)
	}
	m.ranges, m.seeks, m.updates = nil, nil, nil
	m.makeTodo()
}

// --- jobs ---

// A job is work with the log. Only one of its parts is set.
type job struct {
	answers []*answer
	stored  error // why nothing could be stored
	fork    *forkChange
	check   *conflictCheck
}

// maxEarly is how often a proof is tried that came before what it builds on.
const maxEarly = 4

// ripe reports whether the early proofs should be tried again: others came, or
// none will.
func (m *machine) ripe() bool {
	return len(m.early) > 0 && (len(m.arrived) > 0 || slices.ContainsFunc(m.early, func(a *answer) bool {
		return a.peer.open == 0 || a.peer.stalled
	}))
}

// maxApply bounds the bytes of proofs that are applied at once.
const maxApply = 4 << 20

// job returns what is to be done next, or nil.
func (m *machine) job() *job {
	if f := m.fork; f != nil && f.proof != nil && !f.working {
		f.working = true
		return &job{fork: f}
	}
	if len(m.checks) > 0 {
		c := m.checks[0]
		m.checks = m.checks[1:]
		return &job{check: c}
	}
	if m.ripe() {
		m.arrived, m.early = append(m.arrived, m.early...), nil
	}
	if len(m.arrived) == 0 {
		return nil
	}
	n, size := 0, 0
	for n < len(m.arrived) && (n == 0 || size+m.arrived[n].size <= maxApply) {
		size += m.arrived[n].size
		n++
	}
	j := &job{answers: m.arrived[:n:n]}
	m.arrived = m.arrived[n:]
	if len(m.arrived) == 0 {
		m.arrived = nil
	}
	return j
}

// done takes what became of a job. What it changed in the log is told before,
// with changed.
func (m *machine) done(j *job) {
	switch {
	case j.fork != nil:
		m.forkDone(j.fork)
	case j.check != nil:
		m.checkDone(j.check)
	default:
		for _, a := range j.answers {
			m.unapplied -= a.size
			m.applied(a, j.stored)
		}
		if j.stored != nil {
			m.notStored(j.stored)
		}
		for _, p := range m.peers {
			// There may be the nodes by now that lead from its length to ours.
			if p.synced && !p.told.canUpgrade && p.remote.fork == m.head.Fork && p.remote.length < m.head.Length {
				m.sync(p, false)
			}
		}
	}
	m.schedule()
	m.checkUpdates()
	m.closeIdle()
}

// retryStore is how long nothing is asked for when nothing can be stored.
const retryStore = 2 * time.Second

// notStored ends what is waited for, as there is no place for it.
func (m *machine) notStored(err error) {
	m.fullUntil = m.now.Add(retryStore)
	m.fail(fmt.Errorf("store what peers sent: %w", err))
}

// applied takes what became of one answer.
func (m *machine) applied(a *answer, stored error) {
	p, r := a.peer, a.req
	if stored == nil && errors.Is(a.err, merkle.ErrNoNode) && r != nil && r.flight != nil && a.early < maxEarly && p.open > 0 {
		// The peer answers in another order than it was asked in.
		a.early++
		m.unapplied += a.size
		m.early = append(m.early, a)
		return
	}
	if r == nil {
		m.coming = 0
	}
	if r != nil {
		m.unplan(r)
		if m.upgrade == r {
			m.upgrade = nil
		}
	}
	err := a.err
	if stored != nil {
		err = stored
	}
	if r != nil && r.flight != nil {
		m.blockApplied(r, a, err)
	}
	if r != nil && r.seek != nil {
		r.seek.request = nil
		if err == nil {
			m.settleSeek(r.seek, nil)
		}
	}
	if r != nil && r.node != nil {
		r.node.request = nil
		m.checkAgain()
	}
	switch {
	case stored != nil:
	case err == nil:
		p.misfits = 0
		p.stats.Proofs++
		if b := a.proof.Block; r == nil && b != nil {
			p.stats.Blocks++
			p.stats.Bytes += uint64(len(b.Value))
		}
	case errors.Is(err, hypercore.ErrConflict), errors.Is(err, hypercore.ErrFork), errors.Is(err, merkle.ErrNoNode):
		// The log has changed since it was asked for, or another proof that it
		// was to build on did not come.
		p.stats.Misfits++
		if errors.Is(err, hypercore.ErrFork) || errors.Is(err, merkle.ErrNoNode) && r != nil && r.leans {
			return // that's not the peer's doing
		}
		m.misfit(p, err)
	case errors.Is(err, merkle.ErrProof), errors.Is(err, hypercore.ErrSignature), errors.Is(err, hypercore.ErrManifest):
		if r != nil && r.msg.fork != p.remote.fork {
			p.stats.Misfits++ // it was cut while it answered, and may have mixed two trees
			m.misfit(p, err)
			return
		}
		if r == nil { // pushed: it may be older than what came in between
			p.stats.Misfits++
			if p.misfits++; p.misfits > maxMisfits {
				m.suspect(p, err)
			}
			return
		}
		p.stats.Lies++
		m.suspect(p, err)
	case errors.Is(err, hypercore.ErrFrozen):
	default:
		m.notStored(err)
	}
}

// maxMisfits is how many proofs in a row of a peer may not fit.
const maxMisfits = 64

// misfit counts a proof that was not what the peer should have sent, and may be
// so by no fault of its own.
func (m *machine) misfit(p *peer, err error) {
	if p.misfits++; p.misfits > maxMisfits {
		m.drop(p, fmt.Errorf("%w: its proofs don't fit: %w", ErrPeer, err))
	}
}

// blockApplied settles the flight of a block.
func (m *machine) blockApplied(r *request, a *answer, err error) {
	f := r.flight
	if f.done {
		return
	}
	f.arrived = false
	if err == nil && a.proof.Block != nil {
		delete(m.tries, f.index)
		m.endFlight(f)
		a.peer.stats.Blocks++
		a.peer.stats.Bytes += uint64(len(a.proof.Block.Value))
		return
	}
	if m.blocks[f.index] != nil || m.inRanges(f.index) {
		m.tries[f.index]++
	}
	m.release(r)
}

// suspect asks a peer that sent something wrong for its side of the story: the
// log's writer may have signed two histories. If that's not it, the peer lies.
func (m *machine) suspect(p *peer, err error) {
	if p.suspected != nil || p.closed {
		return
	}
	p.suspected, p.suspectedAt = fmt.Errorf("%w: it lies: %w", ErrPeer, err), m.now
	length := min(m.head.Length, p.remote.length)
	if !p.opened || length == 0 || p.remote.fork != m.head.Fork {
		m.drop(p, p.suspected)
		return
	}
	m.discount(p)
	m.releaseAll(p)
	r := requestMessage{fork: p.remote.fork, want: merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: length}}}
	m.send(p, msgRequest, r.append(m.buf))
}

func (m *machine) checkDone(c *conflictCheck) {
	p := c.peer
	switch {
	case c.frozen:
		p.checking = false
		if !m.frozen {
			m.freeze()
		}
		return
	case errors.Is(c.err, merkle.ErrNoNode) && c.missing == nil && m.wantRoots(c):
		return // checked again when they are here
	}
	p.checking = false
	switch {
	case c.asked && p.suspected != nil:
		m.drop(p, p.suspected)
	case !c.asked:
		m.misfit(p, errors.New("its evidence shows nothing"))
	}
}

// wantRoots wants the nodes that a check lacked: a sparse log does not have the
// roots of each length that it had. It reports whether there are any.
func (m *machine) wantRoots(c *conflictCheck) bool {
	length := c.proof.Upgrade.TreeLength()
	if length > m.head.Length {
		length = c.proof.Upgrade.Start + c.proof.Upgrade.Length
	}
	if length > m.head.Length {
		return false
	}
	for _, index := range merkle.AppendRoots(nil, length) {
		if _, err := m.log.Node(index); errors.Is(err, merkle.ErrNoNode) {
			c.missing = append(c.missing, &nodeWant{index: index})
		}
	}
	if len(c.missing) == 0 {
		return false
	}
	c.until = m.now.Add(suspectFor)
	c.peer.suspectedAt = m.now
	m.unsure = append(m.unsure, c)
	return true
}

// checkAgain repeats the checks whose nodes are here by now.
func (m *machine) checkAgain() {
	m.unsure = slices.DeleteFunc(m.unsure, func(c *conflictCheck) bool {
		for _, w := range c.missing {
			if _, err := m.log.Node(w.index); err != nil {
				return false
			}
		}
		m.checks = append(m.checks, c)
		return true
	})
}

// askRoots asks a peer for nodes that checks of others need.
func (m *machine) askRoots(p *peer) {
	for _, c := range m.unsure {
		for _, w := range c.missing {
			if c.peer == p || w.request != nil || slices.Contains(w.asked, p) || merkle.RightSpan(w.index) >= 2*p.remote.length {
				continue
			}
			n, err := m.head.MissingNodes(w.index, logNodes{log: m.log})
			if err != nil || n == 0 {
				continue
			}
			r := &request{msg: requestMessage{fork: m.head.Fork}, size: minWindow / 16, node: w}
			r.msg.want.Hash = &merkle.NodeRequest{Index: w.index, Nodes: n}
			w.request, w.asked = r, append(w.asked, p)
			m.request(p, r)
		}
	}
}

// tick looks for peers that do not answer.
func (m *machine) tick() {
	m.unsure = slices.DeleteFunc(m.unsure, func(c *conflictCheck) bool {
		over := m.now.After(c.until)
		if over {
			c.peer.checking = false
			for _, w := range c.missing {
				w.request = nil
			}
		}
		return over
	})
	m.stuckFork()
	for _, p := range slices.Clone(m.peers) {
		switch {
		case p.suspected != nil && m.now.Sub(p.suspectedAt) > suspectFor:
			m.drop(p, p.suspected)
		case p.open == 0:
		case m.now.Sub(p.progress) > m.o.StallLimit:
			m.drop(p, fmt.Errorf("%w: it has not answered for %v", ErrPeer, m.o.StallLimit))
		case !p.stalled && m.now.Sub(p.progress) > p.patience():
			m.stall(p)
		}
	}
	m.schedule()
	m.checkUpdates()
}

// suspectFor is how long a peer has for its side of the story.
const suspectFor = 5 * time.Second

// stall gives what a peer was asked for to others too.
func (m *machine) stall(p *peer) {
	p.stalled = true
	p.stats.Stalls++
	m.discount(p)
	m.releaseAll(p)
}

// discount stops counting what a peer was asked for as on its way: who does not
// answer must not keep others from being asked.
func (m *machine) discount(p *peer) {
	for _, r := range p.requests {
		if r != nil && !r.cancelled {
			m.inflight -= r.size
			p.inflight -= r.size
			r.size = 0
		}
	}
}

// hasJob reports whether job would return one.
func (m *machine) hasJob() bool {
	return m.fork != nil && m.fork.proof != nil && !m.fork.working || len(m.checks) > 0 || len(m.arrived) > 0 || m.ripe()
}
