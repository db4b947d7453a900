package replicate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// What bounds how much is asked of a peer at a time.
const (
	minWindow = 64 << 10  // bytes
	newWindow = 256 << 10 // of a peer whose speed is not known
	maxWindow = 16 << 20
	maxOpen   = 4096 // requests
	// queueFor is how much longer than its round trip a peer is kept busy, so that
	// it does not run dry while we are busy ourselves.
	queueFor = 50 * time.Millisecond
	// claimBytes is about how much a peer is given of a range at once.
	claimBytes  = 256 << 10
	maxClaim    = 512 // blocks
	maxSearch   = 64  // runs that are looked at for a peer's next claim
	maxHotswaps = 64  // flights that are looked at for a peer without work
)

// schedule asks all peers for what is wanted.
func (m *machine) schedule() {
	if len(m.peers) == 0 {
		return
	}
	// Each peer is the first once: the first has the choice.
	m.seq++
	n := len(m.peers)
	for i := range n {
		if i < len(m.peers) {
			m.scheduleFor(m.peers[(int(m.seq%uint64(n))+i)%len(m.peers)])
		}
	}
}

// full reports whether as much is under way as may be.
func (m *machine) full() bool {
	return m.inflight+m.unapplied >= m.o.MaxInFlight || m.now.Before(m.fullUntil)
}

// scheduleFor asks one peer for what is wanted.
func (m *machine) scheduleFor(p *peer) {
	if !m.ready || m.frozen || !p.opened || !p.synced || p.closing != nil || p.suspected != nil || p.stalled || !p.access.Download || !p.remote.uploading || m.now.Before(m.fullUntil) {
		return
	}
	m.askFork(p)
	if m.fork != nil && m.fork.working {
		return // what is asked now would be of the old fork
	}
	m.askManifest(p)
	m.askUpgrade(p)
	if p.remote.fork != m.head.Fork || !m.reaches(p) {
		return
	}
	m.askRoots(p)
	for _, s := range m.seeks {
		m.askSeek(p, s)
	}
	window := p.window()
	for p.mayAsk() && p.inflight < window && !m.full() && p.alone == nil {
		index, again, ok := m.pick(p)
		if !ok || !m.askBlock(p, index, again) {
			break
		}
	}
	m.askWants(p)
}

// reaches reports whether a peer's proofs can end at nodes that are held here. Of a
// shorter log they end at its roots (hypercore lib/replicator.js, _canRequest).
func (m *machine) reaches(p *peer) bool {
	if p.remote.length >= m.head.Length {
		return true
	}
	if !p.reaches {
		for _, root := range merkle.AppendRoots(make([]uint64, 0, 64), p.remote.length) {
			if _, err := m.log.Node(root); err != nil {
				return false
			}
		}
		p.reaches = true // until one of the logs is another
	}
	return true
}

// mayAsk reports whether one more request may wait for its answer. Those that
// were cancelled count, as their ids are not free before others are answered.
func (p *peer) mayAsk() bool {
	return p.open == 0 || p.open+len(p.lingering) < maxOpen
}

// window returns how many bytes may be asked for before answers come.
func (p *peer) window() int {
	if p.rate == 0 {
		// All of those that have shown nothing yet get half of what may be on its
		// way: if none of them answers, others still can.
		return min(newWindow, p.m.o.MaxInFlight/(2*len(p.m.peers)))
	}
	w := p.rate * (2*p.minRTT + queueFor).Seconds()
	return int(min(max(w, minWindow), maxWindow))
}

// patience is how long a peer may be silent while answers are due.
func (p *peer) patience() time.Duration {
	due := time.Second + 4*p.rtt
	if p.rate > 0 {
		due += time.Duration(4 * float64(p.inflight) / p.rate * float64(time.Second))
	} else {
		due += 4 * time.Second
	}
	return min(due, p.m.o.StallLimit)
}

// answerAround is about what is around a block in its message.
const answerAround = 64

// blockSize returns about how many bytes the answer with a block has.
func (m *machine) blockSize() int {
	if m.head.Length == 0 {
		return answerAround
	}
	return answerAround + int(min(m.head.ByteLength()/m.head.Length, hypercore.MaxBlock))
}

// request sends a request.
func (m *machine) request(p *peer, r *request) {
	if n := len(p.free); n > 0 {
		r.msg.id = p.free[n-1]
		p.free = p.free[:n-1]
		p.requests[r.msg.id-1] = r
	} else {
		p.requests = append(p.requests, r)
		r.msg.id = uint64(len(p.requests))
	}
	r.peer, r.sent, r.delivered = p, m.now, p.delivered
	p.ticks++
	r.tick = p.ticks
	if r.msg.fork == m.head.Fork && !r.msg.manifest {
		r.msg.manifest = m.log.Manifest() == nil && p.remote.hasManifest
	}
	if p.open == 0 {
		p.progress = m.now
	}
	p.open++
	p.inflight += r.size
	m.inflight += r.size
	m.send(p, msgRequest, r.msg.append(m.buf))
}

// askManifest asks for the manifest of a log that is empty; else it comes with
// the first upgrade.
func (m *machine) askManifest(p *peer) {
	if p.remote.hasManifest && p.remote.length == 0 && p.remote.fork == m.head.Fork && m.log.Manifest() == nil && !p.manifest {
		p.manifest = true
		m.request(p, &request{msg: requestMessage{fork: m.head.Fork, manifest: true}, size: minWindow / 64})
	}
}

// askUpgrade asks for a newer head. One peer at a time is asked.
func (m *machine) askUpgrade(p *peer) {
	s := &p.remote
	if m.upgrade != nil || s.length <= m.coming || s.fork != m.head.Fork || s.length <= m.head.Length || !s.canUpgrade || s.remoteLength != m.head.Length || !m.active() {
		return
	}
	r := &request{msg: requestMessage{fork: s.fork}, size: minWindow / 16}
	r.msg.want.Upgrade = &merkle.UpgradeRequest{Start: m.head.Length, Length: s.length - m.head.Length}
	if last := s.length - 1; m.wantsLatest(last) && p.have.has(last) && m.flights[last] == nil {
		// It saves whoever follows the log a round trip.
		r.msg.want.Block = &merkle.NodeRequest{Index: last}
		r.size += m.blockSize()
		m.fly(r, last)
	}
	m.upgrade = r
	m.request(p, r)
}

// wantsLatest reports whether somebody waits for a block that is to come.
func (m *machine) wantsLatest(index uint64) bool {
	for _, r := range m.ranges {
		if r.End == noBlock && r.Start <= index {
			return true
		}
	}
	return m.blocks[index] != nil
}

// fly notes that a request is to bring a block.
func (m *machine) fly(r *request, index uint64) {
	f := m.flights[index]
	if f == nil {
		f = &flight{index: index}
		f.requests = f.first[:0]
		m.flights[index] = f
		if len(m.order) > 64+2*len(m.flights) {
			m.order = slices.DeleteFunc(m.order, func(f *flight) bool { return f.done })
		}
		m.order = append(m.order, f)
	}
	f.requests = append(f.requests, r)
	r.flight = f
	if b := m.blocks[index]; b != nil {
		m.unqueueBlock(b)
	}
}

// Peers in Node.js put answers into one frame as long as they have less than 8 MiB,
// and fail when it gets over 16 MiB (protomux index.js, _pushBatch).
const (
	hugeBlock   = 8 << 20
	hugeAverage = 256 << 10
)

// mayBeHuge reports whether blocks of a range may be huge, as far as is known from
// the lowest node held that is over all of them. It returns that node, too.
func (m *machine) mayBeHuge(r runs.Range) (over merkle.Node, huge bool) {
	at := 2 * r.Start
	for merkle.RightSpan(at) < 2*(r.End-1) {
		at = merkle.Parent(at)
	}
	for ; !merkle.Contains(at, 2*m.head.Length); at = merkle.Parent(at) {
		if n, err := m.log.Node(at); err == nil {
			return n, n.Size >= hugeBlock && n.Size/merkle.Leaves(at) >= hugeAverage
		}
	}
	return over, false
}

// askBlock asks for a block, for a second time if again is set. It reports false
// if that has to wait until the peer has answered all else.
func (m *machine) askBlock(p *peer, index uint64, again bool) bool {
	nodes := logNodes{log: m.log, planned: p.planned, leans: new(bool)}
	if again || m.tries[index] > 0 {
		nodes.planned = nil
	}
	n, err := m.head.MissingNodes(2*index, nodes)
	if err != nil {
		m.fail(fmt.Errorf("read tree of log %s: %w", m.log.Key(), err))
		return false
	}
	size, huge := m.blockSize(), false
	if !p.small.Contains(index) {
		var over merkle.Node
		over, huge = m.mayBeHuge(runs.Range{Start: index, End: index + 1})
		if over.Size > 0 && over.Index == 2*index {
			size = answerAround + int(min(over.Size, hypercore.MaxBlock))
		}
	}
	if huge && p.open > 0 {
		if m.blocks[index] == nil && !again {
			m.todo.Add(runs.Range{Start: index, End: index + 1})
		}
		return false
	}
	r := &request{msg: requestMessage{fork: m.head.Fork}, size: size}
	if huge {
		p.alone = r
	}
	r.block = merkle.NodeRequest{Index: index, Nodes: n}
	r.msg.want.Block = &r.block
	r.leans = *nodes.leans
	m.fly(r, index)
	m.plan(p, r, n)
	m.request(p, r)
	return true
}

// plan notes which nodes the answer to a request for a block will bring. A peer
// answers in order, so what is asked of it next need not bring them again: a
// run of blocks takes one node each, and not a whole path.
func (m *machine) plan(p *peer, r *request, levels uint64) {
	r.planned = levels
	at := 2 * r.msg.want.Block.Index
	for range levels {
		p.planned[at]++
		p.planned[merkle.Sibling(at)]++
		at = merkle.Parent(at)
	}
}

// unplan takes back what plan noted.
func (m *machine) unplan(r *request) {
	if r.planned == 0 {
		return
	}
	planned := r.peer.planned
	drop := func(node uint64) {
		if n := planned[node]; n > 1 {
			planned[node] = n - 1
		} else {
			delete(planned, node)
		}
	}
	at := 2 * r.msg.want.Block.Index
	for range r.planned {
		drop(at)
		drop(merkle.Sibling(at))
		at = merkle.Parent(at)
	}
	r.planned = 0
}

// logNodes is the nodes that a log has or will have.
type logNodes struct {
	log     *hypercore.Log
	planned map[uint64]int
	leans   *bool // set when a planned node was of use
}

func (n logNodes) Node(index uint64) (merkle.Node, error) {
	if _, ok := n.planned[index]; ok {
		*n.leans = true
		return merkle.Node{}, nil
	}
	if n.log == nil {
		return merkle.Node{}, merkle.ErrNoNode
	}
	return n.log.Node(index)
}

// askSeek asks for the nodes that lead to a byte.
func (m *machine) askSeek(p *peer, s *seekWant) {
	if s.request != nil {
		return
	}
	seek := &merkle.SeekRequest{Bytes: s.bytes, Padding: s.padding}
	if !p.seeks {
		seek = nil
	}
	r := &request{msg: requestMessage{fork: m.head.Fork}, size: minWindow / 16, seek: s}
	r.msg.want.Seek = seek
	if s.among.Start >= m.head.Length {
		// Beyond the log: a newer head may have it.
		if m.upgrade != nil || p.remote.length <= m.head.Length || !p.remote.canUpgrade || p.remote.remoteLength != m.head.Length {
			return
		}
		r.msg.want.Upgrade = &merkle.UpgradeRequest{Start: m.head.Length, Length: p.remote.length - m.head.Length}
		m.upgrade = r
	} else {
		index, ok := m.hashAmong(p, s.among)
		if !ok {
			return
		}
		r.msg.want.Hash = &merkle.NodeRequest{Index: 2 * index, Nodes: uint64(merkle.Depth(s.among.Start + s.among.End - 1))}
	}
	s.request = r
	m.request(p, r)
}

// hashAmong returns a block of a range whose node a peer can prove. It need not
// have the others.
func (m *machine) hashAmong(p *peer, r runs.Range) (uint64, bool) {
	r.End = min(r.End, p.remote.length)
	index := p.have.next(r.Start, true)
	for tries := 0; index < r.End && tries < maxSearch; tries++ {
		held, ok := m.log.NextHeld(index)
		if !ok || held.Start > index {
			return index, true
		}
		index = p.have.next(held.End, true)
	}
	m.want(p, r.Start)
	return 0, false
}

// pick returns the next block to ask a peer for. again tells that it was asked
// for elsewhere.
func (m *machine) pick(p *peer) (index uint64, again, ok bool) {
	for _, b := range m.urgent {
		if b.index < min(m.head.Length, p.remote.length) && p.have.has(b.index) {
			return b.index, false, true
		}
	}
	for {
		for p.claim.Len() > 0 {
			index := p.claim.Start
			p.claim.Start++
			if m.flights[index] != nil || m.log.Has(index) {
				continue
			}
			if !p.have.has(index) {
				m.todo.Add(runs.Range{Start: index, End: index + 1})
				continue
			}
			return index, false, true
		}
		if !m.claim(p) {
			break
		}
	}
	index, ok = m.hotswap(p)
	return index, true, ok
}

// claim gives a peer some blocks of the ranges that are wanted: of those that are
// read in order the next ones, of others those that the fewest peers have.
func (m *machine) claim(p *peer) bool {
	if m.todo.Runs() == 0 {
		return false
	}
	size := uint64(min(max(min(claimBytes, p.window()/2)/m.blockSize(), 1), maxClaim))
	best := runs.Range{}
	for _, r := range m.ranges {
		if r.linear {
			if best = m.claimable(p, max(r.Start, r.next), r.End); best.Len() > 0 {
				break
			}
		}
	}
	for _, r := range m.ranges {
		if best.Len() > 0 {
			break
		}
		if !r.linear {
			best = m.rarest(p, r, size)
		}
	}
	if best.Len() == 0 {
		return false
	}
	// Claims end at multiples of their size, so that proofs share nodes.
	best.End = min(best.End, best.Start-best.Start%size+size)
	m.todo.Remove(best)
	p.claim, p.small = best, runs.Range{}
	if _, huge := m.mayBeHuge(best); !huge {
		p.small = best
	}
	return true
}

// claimable returns the first blocks of a range that are to be asked for and that
// the peer has.
func (m *machine) claimable(p *peer, from, to uint64) runs.Range {
	to = min(to, m.head.Length, p.remote.length)
	for range maxSearch {
		run, ok := m.todo.Next(from)
		if !ok || run.Start >= to {
			break
		}
		start := p.have.next(run.Start, true)
		if start < min(run.End, to) {
			return runs.Range{Start: start, End: min(run.End, to, p.have.next(start, false))}
		}
		from = start
	}
	return runs.Range{}
}

// samples is how many places of a range are compared for the rarest.
const samples = 6

// rarest returns blocks of a range that the peer has and few others do.
func (m *machine) rarest(p *peer, r *rangeWant, size uint64) runs.Range {
	best := m.claimable(p, r.next, r.End)
	end := min(r.End, m.head.Length)
	if best.Len() == 0 || len(m.peers) == 1 || best.Start+size >= end {
		return best
	}
	fewest := m.copies(best.Start)
	if fewest <= 1 {
		return best
	}
	for range samples {
		// Places spread by the golden ratio, each time others.
		m.seq++
		part := float64(m.seq) * math.Phi
		part -= math.Floor(part)
		at := best.Start + uint64(part*float64(end-best.Start))
		c := m.claimable(p, at-at%size, end)
		if c.Len() == 0 {
			continue
		}
		if n := m.copies(c.Start); n < fewest {
			best, fewest = c, n
		}
	}
	return best
}

// copies returns how many peers have a block.
func (m *machine) copies(index uint64) (n int) {
	for _, p := range m.peers {
		if p.opened && p.have.has(index) {
			n++
		}
	}
	return n
}

// hotswap returns a block that another peer was asked for and that this one would
// bring sooner.
func (m *machine) hotswap(p *peer) (uint64, bool) {
	for len(m.order) > 0 && m.order[0].done {
		m.order = m.order[1:]
	}
	if len(m.peers) == 1 || len(m.order) == 0 {
		return 0, false
	}
	looked := 0
	for _, f := range m.order {
		if f.done || f.arrived {
			continue
		}
		if looked++; looked > maxHotswaps {
			break
		}
		if len(f.requests) == 0 || len(f.requests) > 2 || f.index >= min(m.head.Length, p.remote.length) || !p.have.has(f.index) {
			continue
		}
		last := f.requests[len(f.requests)-1]
		if f.requests[0].peer == p || last.peer == p {
			continue
		}
		if age := m.now.Sub(last.sent); age > hotswapAfter+2*p.rtt && last.peer.ends() > 2*p.ends() {
			p.stats.Hotswaps++
			return f.index, true
		}
	}
	return 0, false
}

// hotswapAfter is how long a request may take before another peer is asked too.
const hotswapAfter = 50 * time.Millisecond

// ends returns how long the peer takes for what it was asked for.
func (p *peer) ends() time.Duration {
	if p.rate == 0 {
		return p.rtt + time.Second
	}
	return p.minRTT + time.Duration(float64(p.inflight+p.m.blockSize())/p.rate*float64(time.Second))
}

// askWants asks a peer what it has of what is wanted, where that is not known.
func (m *machine) askWants(p *peer) {
	for _, b := range m.urgent {
		if b.index < m.head.Length && !p.have.has(b.index) {
			m.want(p, b.index)
		}
	}
	if m.todo.Runs() == 0 || p.have.prefix >= m.head.Length {
		return
	}
	at := p.have.prefix
	for range 4 {
		run, ok := m.todo.Next(at)
		if !ok {
			return
		}
		m.want(p, run.Start)
		at = (run.Start/wantBatch + 1) * wantBatch
	}
}

// want asks a peer to tell what it has around a block.
func (m *machine) want(p *peer, index uint64) {
	batch := index / wantBatch
	if _, ok := p.wanted[batch]; ok || index < p.have.prefix {
		return
	}
	if len(p.wanted) >= maxWants {
		for other := range p.wanted {
			delete(p.wanted, other)
			w := wantMessage{start: other * wantBatch, length: wantBatch}
			m.send(p, msgUnwant, w.append(m.buf))
			break
		}
	}
	p.wanted[batch] = struct{}{}
	w := wantMessage{start: batch * wantBatch, length: wantBatch}
	m.send(p, msgWant, w.append(m.buf))
}

// --- forks ---

// askFork follows a peer to a higher fork.
func (m *machine) askFork(p *peer) {
	if p.remote.fork <= m.head.Fork || p.remote.length == 0 || p.forkFailed || !m.active() {
		return
	}
	f := m.fork
	if f == nil || f.idle() && f.fork < p.remote.fork && m.now.Sub(f.moved) > forkWaits {
		f = &forkChange{fork: p.remote.fork, peer: p}
		m.fork = f
		r := &request{msg: requestMessage{fork: f.fork, manifest: m.log.Manifest() == nil}, size: minWindow / 16, fork: f}
		r.msg.want.Upgrade = &merkle.UpgradeRequest{Length: p.remote.length}
		f.request, f.moved = r, m.now
		m.request(p, r)
		return
	}
	if f.fork == p.remote.fork {
		m.askForkHash(p, f)
	}
}

// askForkHash asks for the node that tells how much the two forks share.
func (m *machine) askForkHash(p *peer, f *forkChange) {
	if f.working || f.request != nil || f.proof != nil || f.reorg == nil || f.reorg.Done() {
		return // whoever works on it has it for himself
	}
	w := f.reorg.Want()
	index := p.have.next(w.Start, true)
	if index >= min(w.End, p.remote.length) {
		m.want(p, w.Start)
		return
	}
	if top := merkle.Index(int(w.Levels), index>>w.Levels); merkle.RightSpan(top) >= 2*p.remote.length {
		return // its log is shorter than the one of the proof
	}
	r := &request{msg: requestMessage{fork: f.fork}, size: minWindow / 16, fork: f}
	r.msg.want.Hash = &merkle.NodeRequest{Index: 2 * index, Nodes: w.Levels}
	f.peer, f.request, f.moved = p, r, m.now
	m.request(p, r)
}

func (m *machine) forkArrived(r *request, proof *hypercore.Proof) {
	f := r.fork
	if f != m.fork || f.request != r {
		return
	}
	f.request, f.proof, f.moved = nil, proof, m.now
}

// forkWaits is how long a change waits for a peer to go on with, before a higher
// fork is tried.
const forkWaits = time.Second

// stuckFork gives a change up that has waited for long.
func (m *machine) stuckFork() {
	f := m.fork
	if f == nil || !f.idle() || m.now.Sub(f.moved) < newsFor {
		return
	}
	m.fork = nil
	for _, p := range m.peers {
		if p.remote.fork == f.fork {
			p.forkFailed = true // until it has more
		}
	}
}

// forkRefused is told that the peer did not prove the fork that it tells of, or
// not a node of it.
func (m *machine) forkRefused(f *forkChange) {
	f.request = nil
	if f.reorg == nil {
		m.fork = nil
		m.forkNot(f.peer, f.fork)
	}
}

// maxForks is how many forks a peer may tell of that it does not prove.
const maxForks = 16

// forkNot notes that a fork can't be had of a peer, if it still tells of it.
func (m *machine) forkNot(p *peer, fork uint64) {
	if p.remote.fork != fork {
		return
	}
	p.forkFailed = true
	if p.forksTried++; p.forksTried > maxForks {
		m.drop(p, fmt.Errorf("%w: it told of %d forks and did not prove them", ErrPeer, p.forksTried))
	}
}

// checkFork gives a change up that no peer can go on with.
func (m *machine) checkFork() {
	f := m.fork
	if f == nil || !f.idle() {
		return
	}
	for _, p := range m.peers {
		if p.opened && p.synced && p.remote.fork == f.fork && !p.forkFailed {
			return
		}
	}
	m.fork = nil
}

// forkDone takes what became of the work on a proof of a fork.
func (m *machine) forkDone(f *forkChange) {
	f.working, f.proof, f.moved = false, nil, m.now
	if f != m.fork {
		return
	}
	defer m.checkFork()
	switch err := f.err; {
	case f.fork <= m.head.Fork:
		m.fork = nil // done, or overtaken
	case err == nil && f.reorg != nil && !f.reorg.Done():
		if f.useful {
			f.peer.useless = 0
			break
		}
		if f.peer.useless++; f.peer.useless > maxForks {
			f.peer.stats.Lies++
			m.drop(f.peer, fmt.Errorf("%w: its nodes of fork %d lead nowhere", ErrPeer, f.fork))
		}
	case err == nil, isConflict(err):
		m.fork = nil // done, or to be started again
	case isLie(err):
		f.peer.stats.Lies++
		m.fork = nil
		m.drop(f.peer, fmt.Errorf("%w: it lies about fork %d: %w", ErrPeer, f.fork, err))
	case errors.Is(err, merkle.ErrNoNode):
		m.fork = nil
		m.forkNot(f.peer, f.fork)
	default:
		m.fork = nil
		m.notStored(err)
	}
}
