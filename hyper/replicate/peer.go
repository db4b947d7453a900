package replicate

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// Limits of what a peer may make us keep.
const (
	maxQueue   = 1 << 13 // requests that wait for their answers
	maxWants   = 512
	maxInvalid = 64  // requests that no log could answer
	maxRefused = 256 // requests in a row for what it said that it has
	maxUnasked = 1 << 10
	maxPushed  = 16 // blocks that are pushed at once
	pushBytes  = 64 << 10
	lastBlocks = 256 // peers hear of these without a want
	wantBatch  = 1 << 21
)

// A peer is the other side of one channel.
type peer struct {
	m      *machine
	access Access
	link   *link // the shell's; the machine does not look at it

	opened, closed bool
	closing        error // drop it with this once its queue is empty
	seeks          bool

	// What it says of itself.
	remote syncMessage
	synced bool
	heard  time.Time // when it last said something new of itself
	have   bitmap
	theirs map[runs.Range]struct{} // ranges it wants to hear of
	all    bool                    // it wants to hear of all

	// What we told it.
	told    syncMessage
	greeted bool
	toldAll uint64 // length up to which it knows that we have all
	pushed  uint64 // length up to which blocks were sent to it unasked
	pushing bool   // some are on their way, and a sync is due after them
	wanted  map[uint64]struct{}

	// Requests of ours, by their ids less one.
	requests  []*request
	free      []uint64
	lingering []lingering
	ticks     uint64
	open      int      // requests that are neither answered nor cancelled
	inflight  int      // their bytes
	alone     *request // may bring a huge block; nothing else is asked for meanwhile
	claim     runs.Range
	small     runs.Range     // of the last claim, if no block in it may be huge
	reaches   bool           // see machine.reaches
	planned   map[uint64]int // tree nodes that answers on their way bring

	// How it answers.
	progress   time.Time // of the last answer, or of the first request after none were open
	delivered  uint64    // bytes
	rate       float64   // bytes a second
	rtt        time.Duration
	minRTT     time.Duration
	stalled    bool
	forkFailed bool
	forksTried int       // forks that it told of and could not prove
	useless    int       // nodes of another fork that led nowhere
	manifest   bool      // it was asked for the manifest
	refused    int       // noData in a row
	misfits    int       // proofs that did not fit in a row
	unasked    int       // answers that nobody asked for
	wantsDone  time.Time // when the wants that were answered are paid for

	suspected   error
	suspectedAt time.Time
	checking    bool

	// Requests of theirs that wait to be answered.
	queue   []*requestMessage
	queued  map[uint64]*requestMessage // by their ids, for those that have one
	invalid int
	serving bool // they are being answered
	limited bool // they wait for Options.Upload

	extIn, extOut string

	stats Stats
}

// A lingering request was cancelled. Its id is used again only once the peer has
// answered a request that was sent after the cancel.
type lingering struct {
	id   uint64
	tick uint64
}

func (m *machine) addPeer(p *peer) {
	p.m = m
	p.heard = m.now
	p.planned, p.wanted, p.theirs = map[uint64]int{}, map[uint64]struct{}{}, map[runs.Range]struct{}{}
	p.queued = map[uint64]*requestMessage{}
	m.peers = append(m.peers, p)
}

// opened is told that the other side has opened the channel, too.
func (m *machine) opened(p *peer, seeks bool) {
	p.opened, p.seeks, p.heard = true, seeks, m.now
	if m.ready {
		m.hello(p)
	}
}

// hello says where we are.
func (m *machine) hello(p *peer) {
	m.sync(p, true)
	if n := m.contiguous(); n > 0 {
		m.send(p, msgRange, appendRange(m.buf, false, runs.Range{End: n}))
		if n == m.head.Length {
			p.toldAll = n
		}
	}
}

// contiguous returns up to where all blocks are held, of those that peers know.
func (m *machine) contiguous() uint64 { return min(m.log.Contiguous(), m.head.Length) }

// drop ends a peer, for a reason or because it is not needed.
func (m *machine) drop(p *peer, reason error) {
	if p.closed {
		return
	}
	p.stats.Dropped = reason
	m.gone = append(m.gone, p)
	m.removePeer(p)
}

// removePeer forgets a peer whose channel is closed.
func (m *machine) removePeer(p *peer) {
	if p.closed {
		return
	}
	p.closed, p.opened = true, false
	p.queue = nil
	m.peers = slices.DeleteFunc(m.peers, func(x *peer) bool { return x == p })
	m.releaseAll(p)
	for _, r := range p.requests {
		if r != nil && !r.cancelled {
			m.inflight -= r.size
			r.cancelled = true
		}
	}
	p.requests, p.free, p.lingering, p.open, p.inflight = nil, nil, nil, 0, 0
	m.checkFork()
	m.schedule()
	m.checkUpdates()
}

// releaseAll gives back what a peer was to bring. What it brings nevertheless is
// taken.
func (m *machine) releaseAll(p *peer) {
	m.unclaim(p)
	for _, r := range p.requests {
		if r != nil && !r.cancelled {
			m.release(r)
		}
	}
	clear(p.planned)
}

// unclaim gives back blocks that a peer was to be asked for.
func (m *machine) unclaim(p *peer) {
	claim := p.claim
	p.claim = runs.Range{}
	m.todo.Add(claim)
}

// sync tells a peer where we are, if it does not know that yet.
func (m *machine) sync(p *peer, force bool) {
	if !p.opened || !m.ready || p.closing != nil {
		return
	}
	s := syncMessage{
		fork: m.head.Fork, length: m.head.Length,
		canUpgrade: m.canUpgrade(p), uploading: p.access.Upload, downloading: m.active() && p.access.Download,
		hasManifest: m.hasManifest(), allowPush: m.live() && p.access.Download,
	}
	if p.remote.fork == s.fork {
		s.remoteLength = p.remote.length
	}
	if !force && p.greeted {
		same := p.told
		if m.head.Length <= p.remote.length {
			same.remoteLength = s.remoteLength // it does not wait for that
		}
		if same == s {
			return
		}
	}
	p.told, p.greeted = s, true
	m.send(p, msgSync, s.append(m.buf))
}

func (m *machine) hasManifest() bool { return m.log.Manifest() != nil && !m.log.Compat() }

// canUpgrade reports whether we could prove our length from the peer's.
func (m *machine) canUpgrade(p *peer) bool {
	if !p.synced {
		return true
	}
	if p.remote.fork != m.head.Fork {
		return false
	}
	if p.remote.length == 0 {
		return true
	}
	if p.remote.length >= m.head.Length {
		return false
	}
	if p.told.canUpgrade && p.told.length == m.head.Length && p.told.fork == m.head.Fork && p.told.remoteLength == p.remote.length {
		return true
	}
	return m.log.CanUpgrade(p.remote.length)
}

// receive takes a message of a peer. An error means that it broke the protocol.
func (m *machine) receive(p *peer, number int, payload []byte) (err error) {
	if p.closed {
		return nil
	}
	if number == msgData {
		d, err := readData(payload)
		return m.receiveData(p, d, err)
	}
	p.stats.Received++
	switch number {
	case msgSync:
		var s syncMessage
		if s, err = readSync(payload); err == nil {
			m.onSync(p, s)
		}
	case msgRequest:
		var r requestMessage
		if r, err = readRequest(payload); err == nil {
			err = m.onRequest(p, &r)
		}
	case msgCancel:
		var id uint64
		if id, err = readCancel(payload); err == nil {
			m.takeBack(p, id)
		}
	case msgNoData:
		var id, reason uint64
		if id, reason, err = readNoData(payload); err == nil {
			err = m.onNoData(p, id, reason)
		}
	case msgWant:
		var w wantMessage
		if w, err = readWant(payload); err == nil {
			err = m.onWant(p, w)
		}
	case msgUnwant:
		var w wantMessage
		if w, err = readWant(payload); err == nil {
			delete(p.theirs, runs.Range{Start: w.start, End: w.start + w.length})
		}
	case msgBitfield:
		var start uint64
		var words []uint32
		if start, words, err = readBitfield(payload); err == nil {
			p.have.setWords(start, words)
			p.forkFailed = false
		}
	case msgRange:
		var drop bool
		var r runs.Range
		if drop, r, err = readRange(payload); err == nil {
			p.have.set(r, !drop)
			p.forkFailed = p.forkFailed && drop
		}
	}
	return m.violation(p, err)
}

// received is told that a peer has nothing more to say for now.
func (m *machine) received(p *peer) {
	if p.closed {
		return
	}
	m.scheduleFor(p)
	m.checkUpdates()
}

func (m *machine) onSync(p *peer, s syncMessage) {
	if s.fork != p.remote.fork {
		p.forkFailed = false
		clear(p.planned)
		if p.suspected != nil {
			// It was cut while it answered, and may have mixed two trees.
			p.suspected = nil
			m.misfit(p, hypercore.ErrFork)
		}
		if s.fork > p.remote.fork && p.synced {
			p.have.set(runs.Range{Start: s.length, End: merkle.MaxSize}, false)
		}
	}
	if s != p.remote {
		p.heard = m.now
	}
	if s.length != p.remote.length || s.fork != p.remote.fork {
		p.reaches = false
	}
	first := !p.synced
	p.remote, p.synced = s, true
	if !m.ready {
		return
	}
	m.checkFork()
	if !first || s.length < m.head.Length || s.fork != m.head.Fork {
		m.sync(p, false)
	}
	m.closeIdle()
}

func (m *machine) onRequest(p *peer, r *requestMessage) error {
	if len(p.queue) >= maxQueue {
		return fmt.Errorf("more than %d requests wait for their answers", maxQueue)
	}
	i := len(p.queue)
	if r.id != 0 {
		m.takeBack(p, r.id)
		p.queued[r.id] = r
		for i = len(p.queue); r.priority > 0 && i > 0 && p.queue[i-1].priority < r.priority; i-- {
		}
	}
	p.queue = slices.Insert(p.queue, i, r)
	return nil
}

// takeBack forgets a request of the peer's that is not answered yet.
func (m *machine) takeBack(p *peer, id uint64) {
	r := p.queued[id]
	if r == nil {
		return
	}
	delete(p.queued, id)
	if i := slices.Index(p.queue, r); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
}

// unqueue takes up to n requests of the peer's to be answered now.
func (p *peer) unqueue(n int) []*requestMessage {
	n = min(n, len(p.queue))
	out := slices.Clone(p.queue[:n])
	p.queue = p.queue[n:]
	for _, r := range out {
		delete(p.queued, r.id)
	}
	return out
}

// requeue puts back what could not be answered yet.
func (p *peer) requeue(rest []*requestMessage) {
	if p.closed {
		return
	}
	rest = slices.DeleteFunc(slices.Clone(rest), func(r *requestMessage) bool {
		return r.id != 0 && p.queued[r.id] != nil // it has asked anew meanwhile
	})
	p.queue = slices.Insert(p.queue, 0, rest...)
	for _, r := range rest {
		if r.id != 0 {
			p.queued[r.id] = r
		}
	}
}

func (m *machine) onWant(p *peer, w wantMessage) error {
	if w.start > merkle.MaxSize || w.length > wantBatch && !w.any {
		return nil
	}
	// The answer may be far larger than the question.
	if p.wantsDone.Before(m.now) {
		p.wantsDone = m.now
	}
	if p.wantsDone = p.wantsDone.Add(wantEvery); p.wantsDone.Sub(m.now) > 2*maxWants*wantEvery {
		return fmt.Errorf("more than %d wants at a time", 2*maxWants)
	}
	r := runs.Range{Start: w.start, End: w.start + min(w.length, merkle.MaxSize)}
	if len(p.theirs) < maxWants {
		p.theirs[r] = struct{}{}
	} else {
		p.all = true
	}
	if !m.ready || !p.opened || p.closing != nil {
		return nil
	}
	n := m.contiguous()
	switch {
	case n == 0 && m.head.Length == 0:
	case r.End < n || n == m.head.Length || w.any && w.start < n:
		m.send(p, msgRange, appendRange(m.buf, false, runs.Range{End: n}))
	case w.any:
		held, ok := m.log.NextHeld(r.Start)
		if ok && held.Start < r.End {
			m.send(p, msgRange, appendRange(m.buf, false, runs.Range{Start: held.Start, End: held.Start + 1}))
		}
	default:
		m.sendBitfield(p, r)
	}
	return nil
}

// wantEvery is how often a peer may want to hear of a range in the long run.
const wantEvery = 50 * time.Millisecond

// sendBitfield tells which blocks of a range are held, if any is.
func (m *machine) sendBitfield(p *peer, r runs.Range) {
	r.Start -= r.Start % 32
	r.End = min(r.End, m.head.Length)
	held, ok := m.log.NextHeld(r.Start)
	if !ok || held.Start >= r.End {
		return
	}
	start := held.Start - held.Start%32
	var words []uint32
	for ; ok && held.Start < r.End; held, ok = m.log.NextHeld(held.End) {
		held.End = min(held.End, r.End)
		for uint64(len(words))*32 < held.End-start {
			words = append(words, 0)
		}
		for i := held.Start; i < held.End; {
			n := min(32-i%32, held.End-i)
			words[(i-start)/32] |= ^uint32(0) >> (32 - n) << (i % 32)
			i += n
		}
	}
	m.send(p, msgBitfield, appendBitfield(m.buf, start, words))
}

// tellHeld tells a peer of blocks that are held now, if it is likely to care.
func (m *machine) tellHeld(p *peer, r runs.Range) {
	if !p.greeted || p.closing != nil || p.pushing {
		return
	}
	if n := m.contiguous(); n == m.head.Length {
		if p.toldAll < n {
			p.toldAll = n
			m.send(p, msgRange, appendRange(m.buf, false, runs.Range{End: n}))
		}
		return
	}
	if r.Start+lastBlocks < m.head.Length && !p.wants(r) || p.have.hasAll(r) {
		return
	}
	m.send(p, msgRange, appendRange(m.buf, false, r))
}

func (m *machine) tellDropped(p *peer, r runs.Range) {
	p.toldAll = min(p.toldAll, r.Start)
	if p.greeted && r.Len() > 0 {
		m.send(p, msgRange, appendRange(m.buf, true, r))
	}
}

// wants reports whether the peer wants to hear of a range.
func (p *peer) wants(r runs.Range) bool {
	if p.all {
		return true
	}
	for w := range p.theirs {
		if w.Intersect(r).Len() > 0 {
			return true
		}
	}
	return false
}

// finish ends a request of ours and returns it; nil if there is none of that id,
// or it was cancelled.
func (p *peer) finish(id uint64) *request {
	if id == 0 || id > uint64(len(p.requests)) || p.requests[id-1] == nil {
		p.unasked++
		return nil
	}
	p.unasked = 0
	m, r := p.m, p.requests[id-1]
	if p.alone == r {
		p.alone = nil
	}
	p.requests[id-1] = nil
	p.free = append(p.free, id)
	p.progress, p.stalled = m.now, false
	if r.cancelled {
		p.lingering = slices.DeleteFunc(p.lingering, func(l lingering) bool { return l.id == id })
		return nil
	}
	// Of what was cancelled before it was sent nothing comes any more.
	for len(p.lingering) > 0 && p.lingering[0].tick < r.tick {
		l := p.lingering[0]
		p.lingering = p.lingering[1:]
		p.requests[l.id-1] = nil
		p.free = append(p.free, l.id)
	}
	p.open--
	p.inflight -= r.size
	m.inflight -= r.size
	return r
}

// A dataMessage is a proof that came, and was read.
type dataMessage struct {
	id    uint64
	proof *hypercore.Proof
	size  int
	buf   []byte // what the proof lies in
}

func readData(payload []byte) (d dataMessage, err error) {
	d.size = len(payload)
	d.buf = appendPooled(payload) // the payload is the stream's
	d.proof, d.id, err = hypercore.ReadData(d.buf)
	return d, err
}

// Buffers of blocks from pooledMin bytes on are used again once the block is
// stored.
const pooledMin, pooledMax = 16 << 10, 1 << 20

var pooled sync.Pool // of *[]byte

func appendPooled(payload []byte) []byte {
	if len(payload) >= pooledMin {
		if b, ok := pooled.Get().(*[]byte); ok && cap(*b) >= len(payload) {
			return append((*b)[:0], payload...)
		}
	}
	return append(make([]byte, 0, len(payload)), payload...)
}

// recycle gives back the buffer of an answer that was applied. What else than the
// block a proof brings may lie in it as well and be kept.
func (a *answer) recycle() {
	if a.err == nil && cap(a.buf) >= pooledMin && cap(a.buf) <= pooledMax && a.proof.Upgrade == nil && a.proof.Manifest == nil {
		buf := a.buf
		a.buf, a.proof = nil, nil
		pooled.Put(&buf)
	}
}

// receiveData is receive of a data message that was read.
func (m *machine) receiveData(p *peer, d dataMessage, err error) error {
	if p.closed {
		return nil
	}
	p.stats.Received++
	if err == nil {
		err = m.onData(p, d)
	}
	return m.violation(p, err)
}

func (m *machine) violation(p *peer, err error) error {
	if err == nil {
		return nil
	}
	p.stats.Violations++
	return fmt.Errorf("%w: %w", ErrPeer, err)
}

func (m *machine) onData(p *peer, d dataMessage) error {
	proof, id := d.proof, d.id
	a := &answer{peer: p, proof: proof, size: d.size, buf: d.buf}
	if id == 0 {
		m.onPush(p, a)
		return nil
	}
	r := p.finish(id)
	if r == nil {
		return p.tooMuchUnasked() // cancelled
	}
	a.req = r
	p.measure(r, a.size)
	if !r.matches(proof) {
		p.stats.Misfits++
		m.release(r)
		m.misfit(p, errors.New("the data is not what was asked for"))
		return nil
	}
	if !r.answered(proof) {
		m.onRefused(r, notAvailable)
		return nil
	}
	p.refused = 0
	if r.fork != nil {
		m.forkArrived(r, proof)
		return nil
	}
	if m.unapplied > m.o.MaxInFlight+2*hypercore.MaxBlock {
		m.release(r) // blocks are far larger than expected: it is asked for again
		return nil
	}
	if f := r.flight; f != nil && proof.Block != nil && !f.done {
		f.arrived = true
	}
	m.queueAnswer(a)
	return nil
}

// tooMuchUnasked is an error when a peer floods us with answers to nothing.
func (p *peer) tooMuchUnasked() error {
	if p.unasked > maxUnasked {
		return fmt.Errorf("%d answers in a row that nobody asked for", p.unasked)
	}
	return nil
}

func (m *machine) queueAnswer(a *answer) {
	m.arrived = append(m.arrived, a)
	m.unapplied += a.size
}

// matches reports whether data is of what the request asks for. Parts may be
// missing.
func (r *request) matches(p *hypercore.Proof) bool {
	w := &r.msg.want
	return p.Fork == r.msg.fork &&
		(p.Block == nil || w.Block != nil && w.Block.Index == p.Block.Index) &&
		(p.Hash == nil || w.Hash != nil && w.Hash.Index == p.Hash.Index) &&
		(p.Seek == nil || w.Seek != nil && w.Seek.Bytes == p.Seek.Bytes) &&
		(p.Upgrade == nil || w.Upgrade != nil && p.Upgrade.TreeLength() >= w.Upgrade.Start+w.Upgrade.Length)
}

// answered reports whether the parts of the data are there that a peer leaves out
// only if it does not have them.
func (r *request) answered(p *hypercore.Proof) bool {
	w := &r.msg.want
	return (p.Block != nil || w.Block == nil) && (p.Hash != nil || w.Hash == nil) && (p.Upgrade != nil || w.Upgrade == nil) &&
		(p.Manifest != nil || w.Block != nil || w.Hash != nil || w.Upgrade != nil)
}

// onPush takes data that was not asked for.
func (m *machine) onPush(p *peer, a *answer) {
	proof := a.proof
	if proof.Upgrade != nil && proof.Upgrade.Start == 0 && (p.suspected != nil || proof.Block == nil) {
		// Its side of a story.
		if !p.checking && proof.Fork == m.head.Fork && m.head.Length > 0 {
			p.checking = true
			m.checks = append(m.checks, &conflictCheck{peer: p, proof: proof, asked: p.suspected != nil})
			return
		}
	}
	if !m.live() || !p.access.Download || p.suspected != nil || proof.Fork != m.head.Fork || m.full() {
		return
	}
	p.delivered += uint64(a.size)
	if u := proof.Upgrade; u != nil && u.Start == m.head.Length {
		m.coming = max(m.coming, u.TreeLength())
	}
	m.queueAnswer(a)
}

// live reports whether somebody follows the log, so that what is new is welcome.
func (m *machine) live() bool {
	return !m.o.NoPush && slices.ContainsFunc(m.ranges, func(r *rangeWant) bool { return r.End == noBlock })
}

func (m *machine) onNoData(p *peer, id, reason uint64) error {
	r := p.finish(id)
	if r == nil {
		return p.tooMuchUnasked()
	}
	m.onRefused(r, reason)
	return nil
}

// onRefused takes a peer's no to a request.
func (m *machine) onRefused(r *request, reason uint64) {
	p := r.peer
	p.stats.Refused++
	if r.msg.fork != p.remote.fork {
		m.release(r)
		return // it is somewhere else by now
	}
	index := noBlock
	if b := r.msg.want.Block; b != nil {
		index = b.Index
	}
	if h := r.msg.want.Hash; h != nil && h.Index&1 == 0 {
		index = h.Index / 2
	}
	// What it has dropped since, it may refuse.
	promised := index != noBlock && p.have.has(index) || r.msg.want.Upgrade != nil && p.remote.canUpgrade
	if index != noBlock {
		p.have.set(runs.Range{Start: index, End: index + 1}, false)
	}
	if r.msg.want.Upgrade != nil && r.fork == nil {
		p.remote.canUpgrade = false // until it says so again
	}
	m.release(r)
	if !promised {
		return
	}
	if p.refused++; p.refused > maxRefused {
		m.drop(p, fmt.Errorf("%w: it has refused %d requests in a row, the last for reason %d", ErrPeer, p.refused, reason))
	}
}

// release gives back what a request was to bring, so that others can be asked. If
// the request is not over, it goes on, and what it brings is taken.
func (m *machine) release(r *request) {
	m.unplan(r)
	if m.upgrade == r {
		m.upgrade = nil
	}
	if s := r.seek; s != nil && s.request == r {
		s.request = nil
	}
	if w := r.node; w != nil && w.request == r {
		w.request = nil
	}
	if f := r.fork; f != nil && f == m.fork && f.request == r {
		m.forkRefused(f)
	}
	f := r.flight
	if f == nil || f.done {
		return
	}
	r.flight = nil
	f.requests = slices.DeleteFunc(f.requests, func(x *request) bool { return x == r })
	if len(f.requests) == 0 && !f.arrived {
		m.lost(f)
	}
}

// lost ends a flight that nobody is on any more, and lets the block be asked for
// again.
func (m *machine) lost(f *flight) {
	m.endFlight(f)
	if b := m.blocks[f.index]; b != nil {
		m.queueBlock(b)
	} else if m.inRanges(f.index) && f.index < m.head.Length {
		m.todo.Add(runs.Range{Start: f.index, End: f.index + 1})
	}
}

// endFlight ends a flight: the block is here, or nobody wants it.
func (m *machine) endFlight(f *flight) {
	f.done = true
	if m.flights[f.index] == f {
		delete(m.flights, f.index)
	}
	requests := f.requests
	f.requests = nil
	for _, r := range requests {
		r.flight = nil
		m.cancel(r)
	}
}

// cancel takes a request back.
func (m *machine) cancel(r *request) {
	p := r.peer
	if r.cancelled || r.msg.id == 0 || r.msg.id > uint64(len(p.requests)) || p.requests[r.msg.id-1] != r {
		return
	}
	r.cancelled = true
	if p.alone == r {
		p.alone = nil
	}
	p.open--
	p.stalled = p.stalled && p.open > 0
	p.inflight -= r.size
	m.inflight -= r.size
	p.lingering = append(p.lingering, lingering{r.msg.id, p.ticks})
	m.release(r)
	m.send(p, msgCancel, compact.AppendUint(m.buf, r.msg.id))
}

// push queues the blocks after old for a peer that follows the log, if they are
// few and written here. The peer hears of the new head with them, and by a sync
// once they are sent.
func (m *machine) push(p *peer, old hypercore.Head) bool {
	n := m.head.Length - old.Length
	if m.o.NoPush || !p.greeted || p.closing != nil || !p.remote.allowPush || !p.remote.downloading || !p.access.Upload ||
		len(p.queue) > 0 && !p.pushing || p.remote.fork != m.head.Fork || old.Fork != m.head.Fork ||
		m.head.Length <= old.Length || n > maxPushed || m.head.ByteLength()-old.ByteLength() > pushBytes ||
		max(p.remote.length, p.pushed) != old.Length || !m.log.Writable() {
		return false
	}
	for i := old.Length; i < m.head.Length; i++ {
		q := &requestMessage{fork: m.head.Fork, manifest: p.remote.length == 0, want: merkle.Request{Block: &merkle.NodeRequest{Index: i}}}
		if i == old.Length {
			q.want.Upgrade = &merkle.UpgradeRequest{Start: i, Length: n}
		} else {
			// All levels below the roots that the peer has then.
			levels, _ := merkle.Tree{Length: m.head.Length}.MissingNodes(2*i, logNodes{})
			q.want.Block.Nodes = max(levels, 1) - 1
		}
		p.queue = append(p.queue, q)
	}
	p.pushed, p.pushing = m.head.Length, true
	return true
}

// pushDone is told that nothing is to be sent to a peer any more.
func (m *machine) pushDone(p *peer) {
	if p.pushing && !p.closed && len(p.queue) == 0 {
		p.pushing = false
		m.sync(p, true)
		m.tellHeld(p, runs.Range{Start: min(p.remote.length, m.head.Length), End: m.head.Length})
	}
}

// measure learns from an answer how fast the peer is.
func (p *peer) measure(r *request, size int) {
	took := max(p.m.now.Sub(r.sent), 50*time.Microsecond)
	p.delivered += uint64(size)
	p.stats.Down += uint64(size)
	if p.rtt == 0 {
		p.rtt, p.minRTT = took, took
	}
	p.rtt += (took - p.rtt) / 8
	// A path can change: what was the shortest time is forgotten slowly.
	p.minRTT = min(took, p.minRTT+(took-p.minRTT)/512)
	// What arrived while the request was under way, as in BBR's delivery rate.
	rate := float64(p.delivered-r.delivered) / took.Seconds()
	if rate > p.rate {
		p.rate = rate
	} else {
		p.rate += (rate - p.rate) / 64
	}
}
