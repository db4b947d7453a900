package dhtrpc

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Times of a node's life, in ticks (index.js).
const (
	tickTime = 5 * time.Second
	// asleepAfter is the time between two ticks that means that the machine slept.
	asleepAfter = 3 * tickTime

	stableTicks     = 240 // 20 minutes until a node may be called stable
	moreStableTicks = 3 * stableTicks
	refreshTicks    = 60  // an idle node looks around every 5 minutes
	seedEvery       = 6   // of refreshes, one asks the bootstrap nodes
	recentTicks     = 12  // a node that was heard in the last minute needs no ping
	oldTicks        = 360 // a node that was here for half an hour is likely to stay
)

const (
	defaultConcurrency = 10
	defaultWindow      = 80

	maxRepinging = 3
	maxChecks    = 10
	maxHints     = 50 // down hints to send in a tick
	probeNodes   = 5  // nodes that are asked whether they reach the server socket
)

// bind tells by which sockets packets go, and starts the node, or lets it go on.
func (m *machine) bind(now time.Time, client, server socket, serverPort uint16) {
	m.now = now
	m.client, m.server, m.serverPort = client, server, serverPort
	m.lastTick = now
	if m.public.IsValid() && m.nat.Size() == 0 {
		m.nat.Add(netip.AddrPortFrom(m.public.Addr(), cmp.Or(m.public.Port(), serverPort)))
	}
	m.ticker = m.after(tickTime, m.onTick)
	if m.suspended {
		m.suspended = false
		m.wakeUp()
		if m.bootstrapped {
			m.refresh()
		}
	}
	if !m.bootstrapped && !m.booting {
		m.booting = true
		m.bootstrap(0, m.firewalled && !m.noProbe && m.ephemeral != Never)
	}
}

// suspend ends what is under way and stops the clock. The sockets are gone.
func (m *machine) suspend(now time.Time) {
	m.now = now
	m.suspended = true
	m.stopAll(ErrSuspended)
}

func (m *machine) close(now time.Time) {
	m.now = now
	m.closed = true
	m.stopAll(ErrClosed)
}

func (m *machine) stopAll(err error) {
	for len(m.queries) > 0 {
		m.queries[0].finish(err)
	}
	for _, tid := range slices.Sorted(maps.Keys(m.requests)) {
		if r := m.requests[tid]; r != nil {
			r.end(Reply{}, err)
		}
	}
	m.waiting = nil
	m.timers.heap = nil // what is left are ticks and delayed answers
	m.ticker, m.drain, m.delayed = nil, nil, 0
	m.window = window{max: m.window.max}
	m.client, m.server = nil, nil
}

// Nodes.

// heard notes that a node answered.
func (m *machine) heard(from Peer, to netip.AddrPort, sample bool) {
	if !m.wanted(from.Addr) {
		return
	}
	if !from.HasID {
		m.sampleOnce(from.Addr, to)
		return
	}
	if old := m.table.get(from.ID); old != nil {
		m.seen(old, to, sample)
		return
	}
	n := newNode(from.Addr)
	n.to = to
	if crowd := m.table.crowd(n.id, n.addr.Addr()); crowd != nil {
		m.replaceOldest(crowd, func() { m.insert(n) })
		return
	}
	m.insert(n)
}

// meet notes that a node asked. It has not proven that it is where it says, so
// it must answer before it is put into the table, and what it tells of our
// address is not counted. Nor does it keep its place by asking: who is gone
// might be kept by others in its name.
func (m *machine) meet(from Peer) {
	if !m.wanted(from.Addr) || from.ID == m.table.id || m.table.get(from.ID) != nil {
		return
	}
	ping := func() {
		// The ping and the answer to the request may be more than came.
		if m.checks < maxChecks && m.budget.take(m.now.Sub(m.start), from.Addr.Addr(), fixedSize+1+idSize) {
			m.checks++
			r, err := m.request(Peer{Addr: from.Addr}, internal(CommandPing, nil), func(Reply, error) { m.checks-- })
			if err != nil {
				m.checks--
				return
			}
			r.retries = 0
			r.send()
		}
	}
	if crowd := m.table.crowd(from.ID, from.Addr.Addr()); crowd != nil {
		m.replaceOldest(crowd, ping)
		return
	}
	ping()
}

func (m *machine) wanted(addr netip.AddrPort) bool { return m.filter == nil || m.filter(addr) }

// seen notes that a node of the table was heard.
func (m *machine) seen(n *node, to netip.AddrPort, sample bool) {
	if sample && (n.sampled == 0 || m.tick-n.sampled >= oldTicks) {
		n.to, n.sampled = to, m.tick
		m.sample(to)
	}
	n.pinged, n.seen = m.tick, m.tick
	m.nodes.add(n)
}

func (m *machine) insert(n *node) {
	n.added, n.pinged, n.seen = m.tick, m.tick, m.tick
	if !m.table.add(n) {
		return
	}
	m.nodes.add(n)
	if n.to.IsValid() {
		n.sampled = m.tick
		m.sample(n.to)
	}
	if m.added != nil {
		m.call(func() { m.added(n.addr) })
	}
}

func (m *machine) removeNode(n *node) {
	if m.nodes.has(n) {
		m.table.remove(n)
		m.nodes.remove(n)
	}
}

// sample counts an address of ours that a node told.
func (m *machine) sample(to netip.AddrPort) {
	host, port := m.nat.Host(), m.nat.Port()
	m.nat.Add(to)
	if host != m.nat.Host() || port != m.nat.Port() {
		m.event(NATChanged)
	}
}

// sampleOnce counts what a node without an id told, as bootstrap nodes may be.
// Those are few.
func (m *machine) sampleOnce(from, to netip.AddrPort) {
	if len(m.onceSeen) >= max(1, len(m.seeds)) {
		return
	}
	for _, a := range m.onceSeen {
		if a == from {
			return
		}
	}
	m.onceSeen = append(m.onceSeen, from)
	m.sample(to)
}

// replaceOldest pings the node of a crowd that was not asked for longest, unless
// it is a good one, and if it does not answer takes it out and goes on.
func (m *machine) replaceOldest(crowd []*node, then func()) {
	if !m.bootstrapped || m.repinging >= maxRepinging {
		return
	}
	var oldest *node
	for _, n := range crowd {
		if n.pinged != m.tick && (oldest == nil || n.pinged < oldest.pinged || n.pinged == oldest.pinged && n.added < oldest.added) {
			oldest = n
		}
	}
	// The reference passes over only nodes that are both recent and old. To ping
	// for each stranger that comes by was a third of what idle nodes send.
	if oldest == nil || m.tick-oldest.pinged < recentTicks || m.tick-oldest.pinged < refreshTicks && m.tick-oldest.added > oldTicks {
		return
	}
	seen := oldest.seen
	oldest.pinged = m.tick
	m.repinging++
	m.ask(Peer{Addr: oldest.addr}, internal(CommandPing, nil), func(_ Reply, err error) {
		m.repinging--
		if err != nil || oldest.seen <= seen {
			m.removeNode(oldest)
			then()
		}
	})
}

// check pings a node, and takes it out of the table if it does not answer.
func (m *machine) check(n *node) {
	n.pinged = m.tick
	seen := n.seen
	m.checks++
	m.ask(Peer{Addr: n.addr}, internal(CommandPing, nil), func(_ Reply, err error) {
		m.checks--
		if err != nil || n.seen <= seen {
			m.removeNode(n)
		}
	})
}

// hinted notes that somebody says that a node is down.
func (m *machine) hinted(id ID) {
	n := m.table.get(id)
	if n != nil && m.checks < maxChecks && (n.pinged < m.tick || !n.hinted) {
		n.hinted = true
		m.check(n)
	}
}

// Ticks.

func (m *machine) onTick() {
	m.ticker = m.after(tickTime, m.onTick)
	if m.now.Sub(m.lastTick) > asleepAfter {
		m.wakeUp()
	} else {
		m.tick++
	}
	m.lastTick = m.now
	m.hints = 0
	if m.ticked != nil {
		m.call(m.ticked)
	}
	if !m.bootstrapped {
		return
	}
	if m.ephemeral == Adaptive && m.outside {
		if m.stableTicks--; m.stableTicks <= 0 {
			if m.lastHost.IsValid() && m.lastHost == m.nat.Host() {
				m.stableTicks = moreStableTicks // the same network was looked at before
			} else {
				m.updateNetwork(false, func(bool) {})
			}
		}
	}
	if m.tick&7 == 0 {
		m.pingSome()
	}
	m.refreshTicks--
	if m.tick&63 == 0 && m.nodes.length < K || m.refreshTicks <= 0 {
		m.refresh()
	}
	m.updateHealth()
}

// wakeUp is called when time was lost: all that is known may have changed.
func (m *machine) wakeUp() {
	m.tick += 2 * oldTicks         // all nodes are old
	m.tick += 8 - (m.tick & 7) - 2 // and are pinged in two ticks
	m.stableTicks = moreStableTicks
	m.refreshTicks = 1
	m.lastHost = netip.Addr{}
	m.health.reset(m.stats.Responses, m.stats.Timeouts)
	if m.ephemeral == Adaptive && !m.outside {
		m.outside = true
		m.event(BackOutside)
	}
	m.event(WokeUp)
}

func (m *machine) updateHealth() {
	offline, degraded := m.health.offline, m.health.degraded
	m.health.update(m.stats.Responses, m.stats.Timeouts)
	if offline != m.health.offline || degraded != m.health.degraded {
		m.event(HealthChanged)
	}
}

// pingSome pings those of the table that were not heard for longest.
func (m *machine) pingSome() {
	n := m.nodes.oldest
	if n == nil {
		m.refresh() // a tiny network: ask the bootstrap nodes again
		return
	}
	count := 5
	if len(m.requests) > 2 {
		count = 3
	}
	if m.tick-n.pinged < recentTicks {
		count = 2
	}
	for ; count > 0 && n != nil; count-- {
		next := n.next
		if n.pinged != m.tick {
			m.check(n)
		}
		n = next
	}
}

// refresh looks for a node at random, to meet others. Every now and then it
// begins at the bootstrap nodes: if the network was in two parts for so long
// that they forgot each other, those bring them together.
func (m *machine) refresh() {
	id := m.table.id
	if m.table.size > 0 {
		id = m.table.pick(m.dice.below(m.table.size)).id
	}
	m.refreshes++
	m.background(id, m.refreshes%seedEvery == 0, nil, func(error) {})
}

// background is a query that leaves room for others.
func (m *machine) background(target ID, seeds bool, reply func(Reply), done func(error)) {
	m.refreshTicks = refreshTicks
	few := min(m.concurrency, max(2, m.concurrency/8))
	var q *query
	q = m.query(querySpec{
		target: target, call: Call{Internal: true, Command: CommandFindNode}, concurrency: few, seeds: seeds, done: done,
		reply: func(r Reply) {
			q.concurrency = few
			if len(m.requests) < 3 {
				q.concurrency = m.concurrency
			}
			if reply != nil {
				reply(r)
			}
		},
	})
}

// Finding out what we are.

// bootstrap finds the place of the node in the network; round is 0 or 1. With
// probe it asks the first node that answers whether it reaches the server
// socket: if so it is worth finding out more at once.
func (m *machine) bootstrap(round int, probe bool) {
	reached := false
	m.background(m.table.id, false, func(r Reply) {
		if !probe {
			return
		}
		probe = false
		m.ask(r.From, internal(CommandPingNAT, m.portValue()), func(_ Reply, err error) { reached = reached || err == nil })
	}, func(err error) {
		done := func() {
			m.booting = false
			if !m.bootstrapped && !m.suspended && !m.closed {
				m.bootstrapped = true
				m.event(Ready)
			}
		}
		if m.suspended || m.closed || m.bootstrapped || !reached && m.ephemeral != Never {
			done()
			return
		}
		m.updateNetwork(m.ephemeral != Never, func(changed bool) {
			if changed && round == 0 {
				m.bootstrap(1, false)
				return
			}
			done()
		})
	})
}

func (m *machine) portValue() []byte { return []byte{byte(m.serverPort), byte(m.serverPort >> 8)} }

// updateNetwork finds out whether others reach this node uninvited, and if so
// makes it persistent, unless only that was to be found out.
func (m *machine) updateNetwork(onlyFirewall bool, done func(changed bool)) {
	if !m.outside || onlyFirewall && !m.firewalled {
		done(false)
		return
	}
	host, port := m.nat.Host(), m.nat.Port()
	if !onlyFirewall {
		m.stableTicks = moreStableTicks
		m.lastHost = host
	}
	if !host.IsValid() || port == 0 {
		done(false)
		return
	}
	settle := func(nat *NAT) {
		m.firewalled = false
		if !m.outside || host != m.nat.Host() || port != m.nat.Port() || nat.Host() != host || nat.Port() == 0 {
			done(false)
			return
		}
		m.outside = onlyFirewall
		if nat != m.nat {
			m.onceSeen = nil
			m.nat = nat
			if nat.Port() != port {
				m.event(NATChanged)
			}
		}
		m.moveTo(NodeID(netip.AddrPortFrom(nat.Host(), nat.Port())))
		if !m.outside {
			m.event(Persistent)
		}
		if m.bootstrapped {
			m.refresh() // the others are to know
		}
		done(true)
	}
	if !m.firewalled {
		settle(m.nat)
		return
	}
	m.probeServer(func(nat *NAT) {
		if nat == nil {
			done(false)
			return
		}
		settle(nat)
	})
}

// moveTo makes the table that of another id.
func (m *machine) moveTo(id ID) {
	if m.table.id == id {
		return
	}
	old := m.table
	m.table = &table{id: id}
	for _, row := range old.rows {
		for _, n := range row {
			if !m.table.add(n) {
				m.nodes.remove(n)
			}
		}
	}
}

// probeServer asks some nodes to send to the server socket, and tells what they
// saw if enough of that came; nil if not.
func (m *machine) probeServer(done func(*NAT)) {
	var nodes []Peer
	for n := m.nodes.latest; n != nil && len(nodes) < probeNodes; n = n.prev {
		nodes = append(nodes, Peer{n.addr, n.id, true})
	}
	ask := func() {
		if len(nodes) == 0 || m.probe != nil || m.suspended || m.closed {
			done(nil)
			return
		}
		p := &probe{asked: map[netip.Addr]bool{}, came: map[netip.Addr]bool{}}
		for _, n := range nodes {
			p.asked[n.Addr.Addr()] = true
		}
		m.probe = p
		missing := len(nodes)
		var pongs []Reply
		for _, n := range nodes {
			m.ask(n, internal(CommandPingNAT, m.portValue()), func(r Reply, err error) {
				if err == nil {
					pongs = append(pongs, r)
				}
				if missing--; missing == 0 {
					m.probe = nil
					done(m.probed(p, pongs, len(nodes)))
				}
			})
		}
	}
	if len(nodes) >= probeNodes {
		ask()
		return
	}
	m.bootstraps(func(p Peer) { nodes = append(nodes, p) }, ask)
}

// probed concludes from the answers of a probe.
func (m *machine) probed(p *probe, pongs []Reply, asked int) *NAT {
	nat := new(NAT)
	count := 0
	for _, r := range pongs {
		if p.came[r.From.Addr.Addr()] {
			count++
			nat.Add(r.To)
		}
	}
	enough := 1
	if asked >= probeNodes {
		enough = 3
	}
	// The server socket must be seen at the address of the client socket, and at
	// the port that it has here.
	if count < enough || !nat.Host().IsValid() || nat.Host() != m.nat.Host() || nat.Port() != m.serverPort {
		return nil
	}
	return nat
}

// bootstraps finds the addresses of the bootstrap nodes.
func (m *machine) bootstraps(found func(Peer), done func()) {
	missing := 1
	end := func() {
		if missing--; missing == 0 {
			done()
		}
	}
	peer := func(addr netip.Addr, port uint16) Peer {
		a := netip.AddrPortFrom(addr, port)
		return Peer{a, NodeID(a), true}
	}
	for _, s := range m.seeds {
		resolve := func() {
			m.lookup(s.name, func(addrs []netip.Addr) {
				for _, a := range addrs {
					if a = a.Unmap(); a.Is4() {
						found(peer(a, s.port))
						break
					}
				}
				end()
			})
		}
		switch {
		case s.name == "":
			found(peer(s.addr, s.port))
		case !s.addr.IsValid():
			missing++
			resolve()
		default:
			missing++
			p := peer(s.addr, s.port)
			m.ask(p, internal(CommandPing, nil), func(_ Reply, err error) {
				if err != nil {
					resolve()
					return
				}
				found(p)
				end()
			})
		}
	}
	end()
}
