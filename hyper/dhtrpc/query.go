package dhtrpc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

const (
	queryRetries = 5
	lateAfter    = 2 // times that a question was sent in vain
	slowly       = 3 // concurrency while cached nodes are given a chance

	maxSeen   = 1024 // addresses that a query knows
	maxVisits = 512
	maxRefs   = 4 // nodes that are told that one they named is down

	// maxUnproven is how many nodes are visited at a time that were named by one
	// node that has not named any that answered. If so many are silent it is not
	// believed.
	maxUnproven = 3
)

// querySpec says what a query does.
type querySpec struct {
	target      ID
	call        Call
	concurrency int
	retries     int // -1 is none
	nodes       []netip.AddrPort
	onlyNodes   bool
	seeds       bool // ask the bootstrap nodes too, even if others are known
	commit      func(Reply) (Call, error)
	reply       func(Reply)
	done        func(error)
}

// A query asks nodes that are closer and closer to a target (lib/query.js).
type query struct {
	querySpec
	m *machine

	closest []Reply // the closest that answered, the closest first
	seen    map[netip.AddrPort]*visit
	pending []Peer // to be visited
	running []*request

	errors, successes, visits int
	hops                      int // by how many nodes the closest was found
	inflight, slow            int // slow are those of inflight that were sent again
	slowdown, fromTable       bool
	resolving                 bool
	committing, over          bool
}

// A visit is what is known of an address.
type visit struct {
	state  visitState
	refs   []Peer // who named it
	hops   int
	silent int // 1 if it did not answer in time

	// Of those that it named: how many are asked now, how many of them are silent,
	// and how many answered.
	asking, unheard, heard int
}

type visitState int

const (
	toVisit visitState = iota
	asked
	answered
	down
)

// query starts a query. done is called within, or later.
func (m *machine) query(spec querySpec) *query {
	spec.concurrency = cmp.Or(spec.concurrency, m.concurrency)
	spec.retries = cmp.Or(spec.retries, queryRetries)
	spec.call.Target = &spec.target
	q := &query{querySpec: spec, m: m, seen: map[netip.AddrPort]*visit{}}
	if err := m.available(); err != nil || len(m.queries) >= maxQueries {
		q.finish(cmp.Or(err, ErrBusy))
		return q
	}
	m.queries = append(m.queries, q)
	m.stats.Queries++
	for _, a := range spec.nodes {
		if reachable(a) {
			q.add(a, nil)
		}
	}
	if !q.onlyNodes {
		q.addFromTable()
		if len(q.pending) < K || q.querySpec.seeds {
			q.resolving = true
			m.bootstraps(q.enter, func() {
				q.resolving = false
				q.more()
			})
		}
	}
	q.more()
	return q
}

// enter notes a bootstrap node. One that is to be asked in any case is, however
// far it is from the target.
func (q *query) enter(p Peer) {
	if q.over {
		return // it was looked up too late
	}
	if q.querySpec.seeds && q.seen[p.Addr] == nil {
		q.seen[p.Addr] = &visit{hops: 1}
		if err := q.visit(p); err != nil {
			q.finish(err)
		}
		return
	}
	q.add(p.Addr, nil)
	q.more()
}

// available tells why nothing can be started.
func (m *machine) available() error {
	switch {
	case m.closed:
		return ErrClosed
	case m.suspended:
		return ErrSuspended
	}
	return nil
}

// addFromTable adds what is missing of K nodes to be visited.
func (q *query) addFromTable() {
	if len(q.pending) >= K {
		return
	}
	q.fromTable = true
	for _, n := range q.m.table.closest(q.target, K-len(q.pending)) {
		q.add(n.addr, nil)
	}
}

func (q *query) isCloser(id ID) bool {
	return len(q.closest) < K || closer(q.target, id, q.closest[len(q.closest)-1].From.ID) < 0
}

// add notes a node that may be visited; ref is who named it, or nil.
func (q *query) add(addr netip.AddrPort, ref *Peer) {
	v := q.seen[addr]
	switch {
	case v == nil:
		p := Peer{addr, NodeID(addr), true}
		if p.ID == q.m.table.id || !q.isCloser(p.ID) || len(q.seen) >= maxSeen {
			return
		}
		v = &visit{hops: 1}
		if ref != nil {
			v.hops += q.seen[ref.Addr].hops
		}
		q.seen[addr] = v
		q.pending = append(q.pending, p)
	case v.state == down && ref != nil:
		q.hint(*ref, addr)
		return
	case v.state > asked:
		return
	}
	if ref != nil && len(v.refs) < maxRefs {
		v.refs = append(v.refs, *ref)
		if v.state == asked {
			q.count(v.refs[len(v.refs)-1:], 1, v.silent, 0)
		}
	}
}

// A belief says what comes of a node that others named.
type belief int

const (
	disbelieved belief = iota // all who named it named nodes only that are silent
	doubted                   // it can wait until others that they named answer
	believed
)

// belief is what to think of a node. Who lies can name any number of nodes that
// don't exist, each closer than all that do.
func (q *query) belief(p Peer) (b belief) {
	refs := q.seen[p.Addr].refs
	for _, ref := range refs {
		switch v := q.seen[ref.Addr]; {
		case v.heard == 0 && v.unheard >= maxUnproven:
		case v.heard > 0 || v.asking < maxUnproven:
			return believed
		default:
			b = doubted
		}
	}
	if len(refs) == 0 {
		return believed
	}
	return b
}

// next takes the node out of those to be visited that is closest, among those
// that are believed most. It returns none if they can wait.
func (q *query) next() (p Peer, ok bool) {
	best, most := -1, disbelieved
	for i := range q.pending {
		if b := q.belief(q.pending[i]); best < 0 || b > most || b == most && closer(q.target, q.pending[i].ID, q.pending[best].ID) < 0 {
			best, most = i, b
		}
	}
	if best < 0 || most == doubted {
		return p, false
	}
	if most == disbelieved && len(q.closest) >= K {
		q.pending = nil
		return p, false
	}
	p = q.pending[best]
	q.pending = slices.Delete(q.pending, best, best+1)
	return p, true
}

// count notes for those who named a node what comes of it.
func (q *query) count(refs []Peer, asking, unheard, heard int) {
	for _, ref := range refs {
		r := q.seen[ref.Addr]
		r.asking += asking
		r.unheard += unheard
		r.heard += heard
	}
}

// more visits nodes as far as it may now, and ends the query if none are left.
func (q *query) more() {
	if q.over || q.committing {
		return
	}
	concurrency := q.concurrency
	if q.slowdown {
		concurrency = slowly
	}
	for q.inflight < concurrency+q.slow {
		p, ok := q.next()
		if !ok {
			break
		}
		if !q.isCloser(p.ID) || q.visits >= maxVisits {
			continue
		}
		if err := q.visit(p); err != nil {
			q.finish(err)
			return
		}
	}
	if !q.fromTable && !q.onlyNodes && q.successes+q.errors == 0 {
		// Give the nodes that were known from before the chance to answer.
		q.slowdown = true
	}
	if len(q.pending) > 0 || q.resolving && q.successes == 0 {
		return
	}
	if q.inflight > 0 && (q.slow < q.inflight || len(q.closest) < K && !q.late()) {
		return
	}
	if !q.fromTable && !q.onlyNodes && q.successes < K/4 {
		q.addFromTable() // what was known from before is stale
		q.more()
		return
	}
	q.end()
}

// late reports whether nobody is waited for that may still be expected to
// answer, and some did. So a small network does not wait for a bootstrap node
// that is down.
func (q *query) late() bool {
	for _, r := range q.running {
		if r.sent < lateAfter {
			return false
		}
	}
	return len(q.closest) > 0
}

func (q *query) visit(p Peer) error {
	var r *request
	v := q.seen[p.Addr]
	settled := func() {
		q.running = slices.DeleteFunc(q.running, func(o *request) bool { return o == r })
		q.inflight--
		q.slow -= v.silent
	}
	r, err := q.m.request(p, q.call, func(reply Reply, err error) {
		settled()
		if q.over || q.committing {
			return
		}
		if err != nil {
			q.failed(p, err)
		} else {
			q.answer(reply)
		}
		q.more()
	})
	if err != nil {
		return err
	}
	r.retries = max(0, q.retries)
	r.cycle = func() {
		if v.silent == 0 {
			q.slow++
			v.silent = 1
			q.count(v.refs, 0, 1, 0)
		}
		q.more()
	}
	v.state = asked
	q.count(v.refs, 1, 0, 0)
	q.visits++
	q.inflight++
	q.running = append(q.running, r)
	r.send()
	return nil
}

func (q *query) failed(p Peer, err error) {
	q.errors++
	v := q.seen[p.Addr]
	q.count(v.refs, -1, 0, 0)
	if err != ErrTimeout {
		return
	}
	v.state = down
	q.hintAll(v.refs, p.Addr)
	v.refs = nil
}

func (q *query) answer(r Reply) {
	v := q.seen[r.From.Addr]
	q.count(v.refs, -1, -v.silent, 1)
	v.state, v.refs = answered, nil
	if r.Code == 0 {
		q.successes++
		if r.From.HasID && q.isCloser(r.From.ID) {
			q.keep(r)
			if q.closest[0].From == r.From {
				q.hops = v.hops
			}
		}
	} else {
		q.errors++
	}
	if !q.onlyNodes {
		for _, a := range r.Closer {
			if !reachable(a) || !q.m.wanted(a) {
				continue
			}
			q.add(a, &r.From)
		}
	}
	if q.successes+q.errors >= q.concurrency {
		q.slowdown = false
	}
	if r.Code == 0 && q.reply != nil {
		q.reply(r)
	}
}

func (q *query) hintAll(refs []Peer, addr netip.AddrPort) {
	for _, ref := range refs {
		q.hint(ref, addr)
	}
}

// hint tells a node that one that it named is down, which it will find out.
func (q *query) hint(to Peer, addr netip.AddrPort) {
	m := q.m
	if m.noHints || m.hints >= maxHints {
		return
	}
	m.hints++
	ip := addr.Addr().As4()
	value := append(ip[:], byte(addr.Port()), byte(addr.Port()>>8))
	m.ask(to, internal(CommandDownHint, value), func(Reply, error) {})
}

// keep puts a reply among the closest.
func (q *query) keep(r Reply) {
	i, found := slices.BinarySearchFunc(q.closest, r, func(a, b Reply) int { return closer(q.target, a.From.ID, b.From.ID) })
	if found {
		return
	}
	q.closest = slices.Insert(q.closest, i, r)
	of, last := 0, 0
	net := networkOf(r.From.Addr.Addr())
	for i, c := range q.closest {
		if net != 0 && networkOf(c.From.Addr.Addr()) == net {
			of, last = of+1, i
		}
	}
	if of > maxPerNet {
		q.closest = slices.Delete(q.closest, last, last+1)
	}
	q.closest = q.closest[:min(K, len(q.closest))]
}

// end ends the search, and leaves at the closest nodes what is to be left.
func (q *query) end() {
	if q.commit == nil {
		q.finish(nil)
		return
	}
	q.committing = true
	if len(q.closest) == 0 {
		q.finish(ErrTooFew)
		return
	}
	left, done := len(q.closest), 0
	settled := func(err error) {
		if left--; err == nil {
			done++
		}
		if left == 0 && done == 0 {
			q.finish(fmt.Errorf("%w: %w", ErrTooFew, err))
		} else if left == 0 {
			q.finish(nil)
		}
	}
	for _, r := range q.closest {
		q.commitTo(r, true, settled)
	}
}

// commitTo leaves something at a node. The token that it gave may be too old,
// then it gives another one.
func (q *query) commitTo(r Reply, again bool, done func(error)) {
	m := q.m
	ask := func(call Call) {
		q.ask(r.From, call, func(reply Reply, err error) {
			switch {
			case err == nil && reply.Code == CodeInvalidToken && reply.Token != nil && again:
				r.Token = reply.Token
				q.commitTo(r, false, done)
			case err == nil && reply.Code != 0:
				done(fmt.Errorf("node %v answered with error %d", r.From.Addr, reply.Code))
			default:
				done(err)
			}
		})
	}
	m.call(func() {
		call, err := q.commit(r)
		m.enter(func() {
			switch {
			case q.over:
			case err != nil:
				done(err)
			default:
				ask(call)
			}
		})
	})
}

// ask is a request that ends with the query.
func (q *query) ask(to Peer, call Call, done func(Reply, error)) {
	r, err := q.m.request(to, call, done)
	if err != nil {
		done(Reply{}, err)
		return
	}
	q.running = append(q.running, r)
	r.send()
}

// finish ends the query and all that it has under way.
func (q *query) finish(err error) {
	if q.over {
		return
	}
	q.over = true
	for _, r := range q.running {
		if v := q.seen[r.to.Addr]; err == nil && v.state == asked && v.silent > 0 {
			q.hintAll(v.refs, r.to.Addr) // it isn't waited for: they are to look
		}
	}
	q.m.queries = slices.DeleteFunc(q.m.queries, func(o *query) bool { return o == q })
	for _, r := range q.running {
		r.cancel()
	}
	q.running, q.pending, q.seen = nil, nil, nil
	if q.done != nil {
		q.done(err)
	}
}
