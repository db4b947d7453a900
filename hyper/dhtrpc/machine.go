package dhtrpc

import (
	"cmp"
	"container/heap"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

const (
	maxRequests = 8192 // under way or waiting
	maxDelayed  = 1024 // pings to be answered later
	maxHandling = 1024 // requests of others that the user has not seen yet
	maxQueries  = 1024

	maxRetries = 3 // of a request that is no query's
)

// A socket is what a machine knows of a *udx.Socket: values to compare, and
// where packets go.
type socket interface {
	SendTTL(to netip.AddrPort, data []byte, ttl int) error
}

// A parcel is a packet to be sent.
type parcel struct {
	socket socket
	to     netip.AddrPort
	data   []byte
	ttl    int
}

// config is what a machine is told once.
type config struct {
	seeds       []seed
	nodes       []netip.AddrPort
	public      netip.AddrPort
	ephemeral   Ephemeral
	open        bool // known to be reachable
	noProbe     bool
	noHints     bool
	concurrency int
	window      int

	filter func(netip.AddrPort) bool
	handle func(*incoming)                            // called by who takes calls
	notify func(Event)                                // as handle
	added  func(netip.AddrPort)                       // as handle
	lookup func(name string, done func([]netip.Addr)) // finds the addresses of a name; done is called in enter
	ticked func()                                     // as handle
	enter  func(func())                               // calls a function as the methods here are called
}

// A machine is a node without sockets, clock and locks. What happens is told to
// it by its methods, each with the time; what follows is in out, calls and
// deadline then. Functions that are handed in with a question are called within
// these methods.
type machine struct {
	config
	dice  *dice
	start time.Time
	now   time.Time // of what happens

	out   []parcel // to be sent
	calls []func() // to be made once nothing is locked

	// io
	client, server socket // nil while not bound
	serverPort     uint16
	timers         timers
	requests       map[uint16]*request
	waiting        []*request // for the window
	drain          *timer
	window         window
	times          times
	tokens         tokens
	budget         budget
	delayed        int
	handling       atomic.Int32 // as it changes when nothing is locked
	suspended      bool
	closed         bool
	stats          Stats
	health         health

	// The network as it is known.
	table     *table
	nodes     order
	nat       *NAT
	onceSeen  []netip.AddrPort // nodes without an id that were counted in nat
	queries   []*query
	repinging int
	checks    int
	hints     int // sent in this tick

	// What it is in the network.
	outside      bool // not in the tables of others
	firewalled   bool
	bootstrapped bool
	booting      bool
	probe        *probe

	tick, stableTicks, refreshTicks int
	refreshes                       int
	lastTick                        time.Time
	lastHost                        netip.Addr
	ticker                          *timer
}

// A probe waits for packets at the server socket.
type probe struct {
	asked, came map[netip.Addr]bool
}

func newMachine(c config, random io.Reader, now time.Time) (*machine, error) {
	var seeds struct{ dice, token, table [32]byte }
	for _, b := range [][]byte{seeds.dice[:], seeds.token[:], seeds.table[:]} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, err
		}
	}
	d, err := newDice(seeds.dice)
	if err != nil {
		return nil, err
	}
	c.concurrency = cmp.Or(c.concurrency, defaultConcurrency)
	c.window = cmp.Or(c.window, defaultWindow)
	m := &machine{
		config: c, dice: d, start: now, now: now,
		requests: map[uint16]*request{},
		window:   window{max: c.window}, tokens: tokens{seeds.token},
		table: &table{id: seeds.table}, nat: new(NAT),
		outside: true, firewalled: !c.open,
	}
	m.budget.seed = m.dice.number()
	m.tick = m.offset(100)
	m.refreshTicks = m.offset(refreshTicks)
	if c.ephemeral == Adaptive {
		m.stableTicks = stableTicks
	}
	if c.public.Port() != 0 {
		m.nat.Add(c.public)
	}
	for i := len(c.nodes) - 1; i >= 0; i-- {
		if reachable(c.nodes[i]) {
			m.insert(newNode(c.nodes[i]))
		}
	}
	return m, nil
}

// offset is a number of ticks at random, so that nodes don't tick together.
func (m *machine) offset(n int) int { return n - m.dice.below(n/2) }

// call makes a call of somebody else later, when nothing is locked.
func (m *machine) call(f func()) { m.calls = append(m.calls, f) }

func (m *machine) event(e Event) {
	if m.notify != nil {
		m.call(func() { m.notify(e) })
	}
}

func (m *machine) send(s socket, to netip.AddrPort, data []byte, ttl int) {
	if s != nil {
		m.out = append(m.out, parcel{s, to, data, ttl})
	}
}

// socket is what requests go out by.
func (m *machine) socket() socket {
	if m.firewalled {
		return m.client
	}
	return m.server
}

// id is what goes with packets sent by a socket: nil unless the node is
// persistent and it is the server's, which it has its id from.
func (m *machine) id(s socket) *ID {
	if m.outside || s != m.server {
		return nil
	}
	id := m.table.id
	return &id
}

// Timers.

// A timer is something to do later.
type timer struct {
	at    time.Time
	order uint64
	index int
	f     func()
}

// timers is a heap of timers.
type timers struct {
	heap  []*timer
	count uint64
}

func (t *timers) Len() int { return len(t.heap) }
func (t *timers) Less(i, j int) bool {
	a, b := t.heap[i], t.heap[j]
	if a.at.Equal(b.at) {
		return a.order < b.order
	}
	return a.at.Before(b.at)
}
func (t *timers) Swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.heap[i].index, t.heap[j].index = i, j
}
func (t *timers) Push(x any) {
	x.(*timer).index = len(t.heap)
	t.heap = append(t.heap, x.(*timer))
}
func (t *timers) Pop() any {
	last := t.heap[len(t.heap)-1]
	t.heap[len(t.heap)-1] = nil
	t.heap = t.heap[:len(t.heap)-1]
	last.index = -1
	return last
}

func (m *machine) after(d time.Duration, f func()) *timer {
	m.timers.count++
	t := &timer{at: m.now.Add(d), order: m.timers.count, f: f}
	heap.Push(&m.timers, t)
	return t
}

func (m *machine) stop(t *timer) {
	if t != nil && t.index >= 0 {
		heap.Remove(&m.timers, t.index)
	}
}

// deadline is when advance is to be called; never if it is zero.
func (m *machine) deadline() time.Time {
	if len(m.timers.heap) == 0 {
		return time.Time{}
	}
	return m.timers.heap[0].at
}

// advance does what has become due.
func (m *machine) advance(now time.Time) {
	m.now = now
	for len(m.timers.heap) > 0 && !m.timers.heap[0].at.After(now) {
		heap.Pop(&m.timers).(*timer).f()
	}
}

// Requests that go out.

// A request waits for an answer.
type request struct {
	m         *machine
	tid       uint16
	to        Peer
	call      Call
	socket    socket
	ttl       int
	retries   int
	timeout   time.Duration // fixed, if it is not zero
	firstSent time.Time
	sent      int
	data      []byte
	timer     *timer
	over      bool

	done  func(Reply, error)
	cycle func() // before it is sent again
}

// request makes a request; send is to follow.
func (m *machine) request(to Peer, call Call, done func(Reply, error)) (*request, error) {
	switch {
	case m.closed:
		return nil, ErrClosed
	case m.suspended:
		return nil, ErrSuspended
	case !reachable(to.Addr):
		return nil, ErrAddress
	case len(m.requests) >= maxRequests:
		return nil, ErrBusy
	}
	r := &request{m: m, to: to, call: call, socket: m.socket(), retries: maxRetries, done: done}
	for r.tid = uint16(m.dice.number()); m.requests[r.tid] != nil; {
		r.tid = uint16(m.dice.number())
	}
	m.requests[r.tid] = r
	m.stats.Requests++
	if call.Internal && call.Command < uint64(len(m.stats.Sent)) {
		m.stats.Sent[call.Command]++
	}
	return r, nil
}

// ask makes and sends a request. If that can't be, done is called at once.
func (m *machine) ask(to Peer, call Call, done func(Reply, error)) {
	r, err := m.request(to, call, done)
	if err != nil {
		done(Reply{}, err)
		return
	}
	r.send()
}

func internal(command uint64, value []byte) Call {
	return Call{Internal: true, Command: command, Value: value}
}

// send sends a request as soon as the window has room.
func (r *request) send() {
	m := r.m
	m.window.advance(m.now)
	if m.window.full() {
		if len(m.waiting) >= 2*maxRequests {
			m.waiting = slices.DeleteFunc(m.waiting, func(r *request) bool { return r.over })
		}
		m.waiting = append(m.waiting, r)
		m.drainLater()
		return
	}
	r.sendNow()
}

func (r *request) sendNow() {
	m := r.m
	if r.data == nil {
		w := message{tid: r.tid, to: r.to.Addr, id: m.id(r.socket), token: r.call.Token, internal: r.call.Internal,
			command: r.call.Command, target: r.call.Target, value: r.call.Value}
		r.data = w.append(nil)
	}
	if r.sent == 0 {
		r.firstSent = m.now
	}
	r.sent++
	m.window.sent()
	m.send(r.socket, r.to.Addr, r.data, r.ttl)
	wait := cmp.Or(r.timeout, m.times.timeout(r.to.Addr, r.sent, m.dice))
	r.timer = m.after(wait, r.expired)
}

// expired is called when no answer came in time.
func (r *request) expired() {
	m := r.m
	if r.sent > r.retries {
		m.stats.Timeouts++
		r.end(Reply{}, ErrTimeout)
		if r.to.HasID {
			if n := m.table.get(r.to.ID); n != nil {
				m.removeNode(n)
			}
		}
		return
	}
	m.stats.Repeats++
	if r.cycle != nil {
		r.cycle()
	}
	if !r.over {
		r.send()
	}
}

// end takes a request out and tells how it went.
func (r *request) end(reply Reply, err error) {
	if !r.cancel() {
		return
	}
	r.done(reply, err)
	r.m.drainNow()
}

// cancel takes a request out without a word.
func (r *request) cancel() bool {
	if r.over {
		return false
	}
	r.over = true
	m := r.m
	m.stop(r.timer)
	delete(m.requests, r.tid)
	m.window.advance(m.now)
	m.window.done()
	return true
}

// drainLater has waiting requests sent when the window moves.
func (m *machine) drainLater() {
	if m.drain == nil && len(m.waiting) > 0 {
		m.drain = m.after(max(m.window.next.Sub(m.now), time.Millisecond), func() {
			m.drain = nil
			m.drainNow()
		})
	}
}

func (m *machine) drainNow() {
	m.window.advance(m.now)
	for len(m.waiting) > 0 && !m.window.full() {
		r := m.waiting[0]
		m.waiting[0] = nil
		m.waiting = m.waiting[1:]
		if !r.over {
			r.sendNow()
		}
	}
	if len(m.waiting) == 0 {
		m.waiting = nil
	}
	m.drainLater()
}

// What comes in.

// incoming is a request of another node.
type incoming struct {
	message
	from   Peer
	socket socket
	size   int
	proven bool // that it came from where it says
}

// receive takes a packet. It keeps none of data.
func (m *machine) receive(now time.Time, s socket, from netip.AddrPort, data []byte) {
	m.now = now
	if m.suspended || m.closed || !reachable(from) {
		return
	}
	p, err := parse(data)
	if err != nil {
		return
	}
	if p.value != nil {
		p.value = append([]byte{}, p.value...)
	}
	if s == m.server && m.probe != nil && m.probe.asked[from.Addr()] {
		m.probe.came[from.Addr()] = true
	}
	peer := Peer{Addr: from}
	if p.id != nil {
		known := m.table.get(*p.id)
		if known != nil && known.addr == from || NodeID(from) == *p.id {
			peer.ID, peer.HasID = *p.id, true
		}
	}
	if p.reply {
		m.answered(&p, peer, s != m.socket())
		return
	}
	in := &incoming{message: p, from: peer, socket: s, size: len(data)}
	m.stats.Served++
	if p.token != nil {
		if in.proven = m.tokens.valid(now, *p.token, from.Addr()); !in.proven {
			m.reply(in, answer{code: CodeInvalidToken, token: true, closer: true})
			return
		}
	}
	m.asked(in)
}

// answered takes a reply.
func (m *machine) answered(p *message, from Peer, foreign bool) {
	r := m.requests[p.tid]
	if r == nil || r.sent == 0 || r.to.Addr != from.Addr {
		return
	}
	reply := Reply{From: from, To: p.to, Token: p.token, Closer: p.closer, Code: p.code, Value: p.value, RTT: m.now.Sub(r.firstSent)}
	if r.sent == 1 && r.timeout == 0 {
		m.times.measured(from.Addr, reply.RTT)
	}
	if r.call.Internal && r.call.Command < uint64(len(m.stats.Answered)) {
		m.stats.Answered[r.call.Command]++
	}
	m.stats.Responses++
	m.heard(from, p.to, !foreign)
	r.end(reply, nil)
}

// asked takes a request.
func (m *machine) asked(in *incoming) {
	if in.from.HasID {
		m.meet(in.from)
	}
	if !in.internal {
		if m.handle == nil {
			m.reply(in, answer{code: CodeUnknownCommand, closer: true})
			return
		}
		if m.handling.Load() >= maxHandling {
			return // as if it was lost on the way
		}
		m.handling.Add(1)
		m.call(func() {
			m.handling.Add(-1)
			m.handle(in)
		})
		return
	}
	switch in.command {
	case CommandPing:
		m.reply(in, answer{})
	case CommandPingNAT:
		// Can the sender be reached at another port of its?
		if len(in.value) >= 2 {
			port := uint16(in.value[0]) | uint16(in.value[1])<<8
			if port != 0 {
				m.reply(in, answer{addr: netip.AddrPortFrom(in.from.Addr.Addr(), port)})
			}
		}
	case CommandFindNode:
		if in.target != nil {
			m.reply(in, answer{closer: true})
		}
	case CommandDownHint:
		if len(in.value) >= addrSize {
			m.hinted(NodeID(netip.AddrPortFrom(netip.AddrFrom4([4]byte(in.value)), uint16(in.value[4])|uint16(in.value[5])<<8)))
			m.reply(in, answer{})
		}
	case CommandDelayedPing:
		m.pingLater(in)
	default:
		m.reply(in, answer{code: CodeUnknownCommand, closer: true})
	}
}

func (m *machine) pingLater(in *incoming) {
	if len(in.value) < 4 || m.delayed >= maxDelayed {
		return
	}
	ms := uint32(in.value[0]) | uint32(in.value[1])<<8 | uint32(in.value[2])<<16 | uint32(in.value[3])<<24
	delay := time.Duration(ms) * time.Millisecond
	if delay > MaxPingDelay {
		return
	}
	m.delayed++
	m.after(delay, func() {
		m.delayed--
		m.reply(in, answer{})
	})
}

// An answer says how a request is answered.
type answer struct {
	code          uint64
	value         []byte
	token, closer bool
	addr          netip.AddrPort // of who asked, if not where it came from
	socket        socket         // if not by which it came
}

// reply answers a request, with less if it must be (see the package comment).
func (m *machine) reply(in *incoming, a answer) {
	if m.suspended || m.closed {
		return
	}
	if !a.addr.IsValid() {
		a.addr = in.from.Addr
	}
	if a.socket == nil {
		a.socket = in.socket
	}
	if !reachable(a.addr) {
		return
	}
	w := message{reply: true, tid: in.tid, to: a.addr, id: m.id(a.socket), code: a.code, value: a.value}
	if a.token {
		token := m.tokens.at(m.now, 0, a.addr.Addr())
		w.token = &token
	}
	if a.closer && in.target != nil {
		for _, n := range m.table.closest(*in.target, K) {
			w.closer = append(w.closer, n.addr)
		}
	}
	data := w.append(nil)
	if !m.mayReply(in, a.addr, len(data)) {
		m.stats.Trimmed++
		id, closer := w.id, w.closer
		w.id, w.closer = nil, nil
		room := in.size - len(w.append(nil))
		if n := (room - 1) / addrSize; len(closer) > 0 && n > 0 {
			w.closer = closer[:min(n, len(closer))]
			room -= 1 + addrSize*len(w.closer)
		}
		if room >= idSize {
			w.id = id
		}
		if data = w.append(nil); len(data) > in.size {
			return
		}
	}
	m.send(a.socket, a.addr, data, 0)
}

// mayReply reports whether that many bytes may go out to an address because of
// a request, and counts them.
func (m *machine) mayReply(in *incoming, to netip.AddrPort, size int) bool {
	return in.proven && to.Addr() == in.from.Addr.Addr() || m.budget.take(m.now.Sub(m.start), to.Addr(), size-in.size)
}

// relay passes a request on, with another value.
func (m *machine) relay(in *incoming, value []byte, to netip.AddrPort, s socket) {
	if m.suspended || m.closed || !reachable(to) {
		return
	}
	if s == nil {
		s = in.socket
	}
	w := message{tid: in.tid, to: to, id: m.id(s), internal: in.internal, command: in.command, target: in.target, value: value}
	data := w.append(nil)
	if !m.mayReply(in, to, len(data)) {
		m.stats.Trimmed++
		w.id = nil
		if data = w.append(nil); !m.mayReply(in, to, len(data)) {
			return
		}
	}
	m.send(s, to, data, 0)
}
