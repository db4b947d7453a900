package packet

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

const (
	// internetHops is how many routers the internet has between any two.
	internetHops = 8
	// usualHops is how many a packet may take.
	usualHops = 64
	// mostData is what fits into an IP packet.
	mostData = 65507
	// loopbackDelay is the time from a host to itself.
	loopbackDelay = 20 * time.Microsecond
	// simBatch is the most packets that are given to a handler at once.
	simBatch = 64
)

// A Sim is a network in memory: an internet, hosts on it, and NATs with hosts
// behind them. It runs on a clock and has no goroutine. On a fake clock, and
// with one goroutine that uses it, all comes out the same for the same seed.
//
//	sim := packet.NewSim(clk, 1)
//	server := sim.Host()
//	home := sim.NAT(packet.NAT{Kind: packet.Symmetric})
//	laptop := home.Host()                        // a packet.Network, as server is
//	home.SetLink(packet.Link{Delay: 20 * time.Millisecond, Loss: 0.01})
//
// Its methods, and those of all its parts, may be called by any goroutine and by
// handlers.
type Sim struct {
	*SimNet // the internet; from one host to another it takes 10 ms

	clock clock.Clock
	start time.Time

	mu      sync.Mutex
	now     time.Duration // since start
	random  uint64
	flights flights
	turn    uint64
	timer   clock.Timer
	armed   time.Duration // when the timer goes off
	running bool
	cuts    []*cut
	filter  func(from, to netip.AddrPort, data []byte) bool
	free    []*flight
	batch   []*flight // empty, memory for run
	packets []Packet  // and for what it gives to handlers
	traffic Traffic
	lost    map[string]int
}

// NewSim returns a network with nothing on it.
func NewSim(c clock.Clock, seed uint64) *Sim {
	s := &Sim{clock: c, start: c.Now(), random: seed, lost: map[string]int{}}
	s.SimNet = s.network(nil, netip.AddrFrom4([4]byte{24, 0, 0, 0}), Link{Delay: 10 * time.Millisecond})
	s.SimNet.hops = internetHops
	return s
}

// LAN returns a new network that leads nowhere.
func (s *Sim) LAN() *SimNet {
	return s.network(nil, netip.AddrFrom4([4]byte{192, 168, 0, 1}), Link{Delay: 200 * time.Microsecond})
}

// SetFilter sets a function that is asked for each datagram that is sent, and
// that loses it by answering false. It must not use the network. Nil lets all
// pass.
func (s *Sim) SetFilter(pass func(from, to netip.AddrPort, data []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filter = pass
}

// Cut takes away the way between each host of a and each of b, until heal is
// called.
func (s *Sim) Cut(a, b []*SimHost) (heal func()) {
	c := &cut{map[*SimHost]bool{}, map[*SimHost]bool{}}
	for _, h := range a {
		c.a[h] = true
	}
	for _, h := range b {
		c.b[h] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts = append(s.cuts, c)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cuts = slices.DeleteFunc(s.cuts, func(other *cut) bool { return other == c })
	}
}

type cut struct{ a, b map[*SimHost]bool }

func (c *cut) between(x, y *SimHost) bool { return c.a[x] && c.b[y] || c.b[x] && c.a[y] }

// Traffic counts datagrams and the bytes in them.
type Traffic struct {
	Sent, SentBytes         int64
	Received, ReceivedBytes int64 // by sockets
}

// Traffic returns what all hosts together sent and received.
func (s *Sim) Traffic() Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic
}

// Lost returns how many datagrams were lost, by cause.
func (s *Sim) Lost() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.lost)
}

// A SimNet is what hosts and NATs are on: the internet, or what lies behind a
// NAT.
type SimNet struct {
	sim    *Sim
	router *SimNAT // the way out
	nodes  map[netip.Addr]node
	groups map[netip.AddrPort][]*simConn
	last   netip.Addr // that was given by itself
	hops   int
	line   line
}

// A node is something with an address on a network.
type node interface {
	in() *line
}

func (s *Sim) network(router *SimNAT, before netip.Addr, l Link) *SimNet {
	return &SimNet{sim: s, router: router, nodes: map[netip.Addr]node{}, groups: map[netip.AddrPort][]*simConn{}, last: before, line: line{Link: l}}
}

// SetDistance sets what lies between any two on the network.
func (n *SimNet) SetDistance(l Link) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	n.line = line{Link: l}
}

// Host puts a new host on the network. With no address it gets the next one that
// is free.
func (n *SimNet) Host(addrs ...netip.Addr) *SimHost {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	h := &SimHost{sim: n.sim, conns: map[netip.AddrPort]*simConn{}}
	h.joinLocked(n, addrs)
	return h
}

// freeLocked returns an address that nobody has.
func (n *SimNet) freeLocked() netip.Addr {
	for {
		n.last = n.last.Next()
		if end := n.last.As4()[3]; end != 0 && end != 255 && n.nodes[n.last] == nil {
			return n.last
		}
	}
}

// learnLocked puts an address on the network, and on those to which it is
// routed.
func (n *SimNet) learnLocked(addr netip.Addr, what node) {
	if n.nodes[addr] != nil {
		panic(fmt.Sprintf("packet: %s is on the network twice", addr))
	}
	n.nodes[addr] = what
	if r := n.router; r != nil && r.routes(addr) {
		r.outer.learnLocked(addr, r)
	}
}

func (n *SimNet) forgetLocked(addr netip.Addr) {
	delete(n.nodes, addr)
	if r := n.router; r != nil && r.routes(addr) {
		r.outer.forgetLocked(addr)
	}
}

// A SimHost is a machine on a Sim, and a Network. It has two interfaces: eth0,
// and lo that leads to itself.
type SimHost struct {
	sim      *Sim
	net      *SimNet
	addrs    []netip.Addr
	conns    map[netip.AddrPort]*simConn
	shared   []*simConn // sockets for multicast
	up, down line
	traffic  Traffic
}

func (h *SimHost) in() *line { return &h.down }

// Addr returns the host's first address.
func (h *SimHost) Addr() netip.Addr {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	if len(h.addrs) == 0 {
		return netip.Addr{}
	}
	return h.addrs[0]
}

// SetLink sets the host's line to its network, both ways.
func (h *SimHost) SetLink(l Link) { h.SetLinks(l, l) }

// SetLinks sets the host's line to its network for each way.
func (h *SimHost) SetLinks(up, down Link) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	h.up, h.down = line{Link: up}, line{Link: down}
}

// Move takes the host to a network, perhaps the one it is on, with other
// addresses; to none if it is nil. Sockets stay, as those of a phone that leaves
// home.
func (h *SimHost) Move(to *SimNet, addrs ...netip.Addr) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	if h.net != nil {
		for _, a := range h.addrs {
			h.net.forgetLocked(a)
		}
		for _, c := range h.shared {
			c.leaveLocked()
		}
	}
	h.net, h.addrs = nil, nil
	if to != nil {
		h.joinLocked(to, addrs)
	}
}

func (h *SimHost) joinLocked(n *SimNet, addrs []netip.Addr) {
	if len(addrs) == 0 {
		addrs = []netip.Addr{n.freeLocked()}
	}
	h.net = n
	for _, a := range addrs {
		a = a.Unmap()
		n.learnLocked(a, h)
		h.addrs = append(h.addrs, a)
	}
	for _, c := range h.shared {
		c.joinLocked()
	}
}

// Traffic returns what the host's sockets sent and received.
func (h *SimHost) Traffic() Traffic {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	return h.traffic
}

// LocalAddrs implements Network.
func (h *SimHost) LocalAddrs() ([]netip.Addr, error) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	return slices.Clone(h.addrs), nil
}

// Interfaces implements Network.
func (h *SimHost) Interfaces() ([]Interface, error) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	lo := Interface{Name: "lo", Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}}
	if h.net == nil {
		return []Interface{lo}, nil
	}
	eth := Interface{Name: "eth0"}
	for _, a := range h.addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		eth.Addrs = append(eth.Addrs, netip.PrefixFrom(a, bits))
	}
	return []Interface{eth, lo}, nil
}

// Listen implements Network.
func (h *SimHost) Listen(addr netip.AddrPort, receive Handler) (Conn, error) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	ip, port := addr.Addr().Unmap(), addr.Port()
	if !ip.IsUnspecified() && !h.owns(ip) {
		return nil, fmt.Errorf("listen on %s: not an address of this machine", addr)
	}
	for port == 0 {
		if p := uint16(32768 + h.sim.below(28232)); !h.takenLocked(netip.AddrPortFrom(ip, p)) {
			port = p
		}
	}
	local := netip.AddrPortFrom(ip, port)
	if h.takenLocked(local) {
		return nil, fmt.Errorf("listen on %s: address already in use", addr)
	}
	c := &simConn{host: h, local: local, receive: receive}
	h.conns[local] = c
	return c, nil
}

// ListenMulticast implements Network.
func (h *SimHost) ListenMulticast(group netip.AddrPort, ifname string, receive Handler) (Conn, error) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	switch {
	case !group.Addr().IsMulticast():
		return nil, fmt.Errorf("listen on %s: not a group", group)
	case ifname != "eth0" && ifname != "lo":
		return nil, fmt.Errorf("listen on %s: interface %s: no such interface", group, ifname)
	}
	group = netip.AddrPortFrom(group.Addr().WithZone(""), group.Port())
	c := &simConn{host: h, local: netip.AddrPortFrom(unspecified(group.Addr()), group.Port()), group: group, loopback: ifname == "lo", receive: receive}
	h.shared = append(h.shared, c)
	c.joinLocked()
	return c, nil
}

func (h *SimHost) owns(addr netip.Addr) bool {
	return addr.IsLoopback() || slices.Contains(h.addrs, addr)
}

// takenLocked tells whether a socket can't be bound beside those there are.
func (h *SimHost) takenLocked(addr netip.AddrPort) bool {
	if !addr.Addr().IsUnspecified() {
		return h.conns[addr] != nil || h.conns[netip.AddrPortFrom(unspecified(addr.Addr()), addr.Port())] != nil
	}
	for other := range h.conns {
		if other.Port() == addr.Port() && other.Addr().Is4() == addr.Addr().Is4() {
			return true
		}
	}
	return false
}

// connLocked finds the socket for what comes to an address.
func (h *SimHost) connLocked(to netip.AddrPort) *simConn {
	if c := h.conns[to]; c != nil {
		return c
	}
	wildcard := netip.AddrPortFrom(unspecified(to.Addr()), to.Port())
	if c := h.conns[wildcard]; c != nil {
		return c
	}
	for _, c := range slices.Backward(h.shared) {
		if c.local == wildcard {
			return c
		}
	}
	return nil
}

// sourceLocked chooses the address that packets to another one come from.
func (h *SimHost) sourceLocked(to netip.Addr) netip.Addr {
	if to.IsLoopback() {
		return to
	}
	for _, a := range h.addrs {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

func loopback(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// A simConn is a socket of a host.
type simConn struct {
	host     *SimHost
	local    netip.AddrPort
	group    netip.AddrPort // that it is in
	loopback bool           // in the group of the host alone
	receive  Handler
	closed   bool
}

// LocalAddr implements Conn.
func (c *simConn) LocalAddr() netip.AddrPort { return c.local }

// Close implements Conn.
func (c *simConn) Close() error {
	c.host.sim.mu.Lock()
	defer c.host.sim.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if !c.group.IsValid() {
		delete(c.host.conns, c.local)
		return nil
	}
	c.leaveLocked()
	c.host.shared = slices.DeleteFunc(c.host.shared, func(other *simConn) bool { return other == c })
	return nil
}

func (c *simConn) joinLocked() {
	if n := c.host.net; n != nil && !c.loopback {
		n.groups[c.group] = append(n.groups[c.group], c)
	}
}

func (c *simConn) leaveLocked() {
	if n := c.host.net; n != nil && !c.loopback {
		n.groups[c.group] = slices.DeleteFunc(n.groups[c.group], func(other *simConn) bool { return other == c })
	}
}

// Write implements Conn.
func (c *simConn) Write(batch []Packet) error {
	s := c.host.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	s.tickLocked()
	for i := range batch {
		p := &batch[i]
		to := netip.AddrPortFrom(p.Addr.Addr().Unmap().WithZone(""), p.Addr.Port())
		if to.Addr().Is4() != c.local.Addr().Is4() {
			continue
		}
		for data := range p.Datagrams() {
			s.sendLocked(c, to, p, data)
		}
	}
	s.armLocked()
	return nil
}

// A flight is a datagram on its way.
type flight struct {
	at       time.Duration // when it is where it is
	source   *SimHost
	from, to netip.AddrPort
	data     []byte
	hops     int // left
	fragment bool

	line   *line // to cross first
	stage  stage
	net    *SimNet
	node   node
	conn   *simConn // a member of the group it goes to
	via    *SimNAT  // that it came up through
	inward bool     // it came in through a NAT
}

// A stage is where a datagram comes next.
type stage int8

const (
	toNet  stage = iota // to the network, where its next node is looked for
	toOut               // to the network's router, on the way out
	toLine              // to the line of a node
	toNode              // to a node
)

func (s *Sim) sendLocked(c *simConn, to netip.AddrPort, p *Packet, data []byte) {
	h, ttl := c.host, p.TTL
	h.traffic.Sent++
	h.traffic.SentBytes += int64(len(data))
	s.traffic.Sent++
	s.traffic.SentBytes += int64(len(data))
	source := c.local.Addr()
	if c.loopback {
		source = loopback(source)
	} else if source.IsUnspecified() {
		source = h.sourceLocked(to.Addr())
	} else if !h.owns(source) {
		source = netip.Addr{}
	}
	if ttl == 0 {
		ttl = usualHops
	}
	f := s.flightLocked()
	f.at, f.source, f.from, f.to, f.hops, f.fragment = s.now, h, netip.AddrPortFrom(source, c.local.Port()), to, ttl, p.Fragment
	f.data = append(f.data, data...)
	switch {
	case len(data) > mostData:
		s.dropLocked(f, "mtu")
	case s.filter != nil && !s.filter(f.from, to, data):
		s.dropLocked(f, "filter")
	case !source.IsValid():
		s.dropLocked(f, "no address")
	case to.Addr().IsMulticast() && c.loopback:
		s.spreadLocked(f, h.shared, true)
	case to.Addr().IsMulticast() && h.net != nil && h.net.hops == 0:
		s.spreadLocked(f, h.net.groups[to], false)
	case h.owns(to.Addr()):
		f.at += loopbackDelay
		f.node, f.stage = h, toNode
		s.goLocked(f)
	case h.net == nil || source.IsLoopback():
		s.dropLocked(f, "no network")
	default:
		f.line, f.net, f.stage = &h.up, h.net, toNet
		s.goLocked(f)
	}
}

// spreadLocked sends a copy of f to each member of its group.
func (s *Sim) spreadLocked(f *flight, members []*simConn, loopback bool) {
	for _, c := range members {
		if c.group != f.to || c.loopback != loopback {
			continue
		}
		one := s.copyLocked(f)
		one.conn, one.node = c, c.host
		if c.host == f.source {
			one.at += loopbackDelay
			one.stage = toNode
		} else {
			one.net, one.line, one.stage = f.source.net, &f.source.up, toLine
		}
		s.goLocked(one)
	}
	s.recycleLocked(f)
}

// goLocked lets f go as far as it gets without the time of its arrival.
func (s *Sim) goLocked(f *flight) {
	if c := s.moveLocked(f); c != nil {
		s.pushLocked(f)
	}
}

// moveLocked lets f go on until it is at a socket, which is returned; or has to
// wait for its time, or is lost.
func (s *Sim) moveLocked(f *flight) *simConn {
	for {
		if l := f.line; l != nil {
			if l.timed() && f.at > s.now {
				return s.pushLocked(f)
			}
			f.line = nil
			if cause := s.crossLocked(l, f); cause != "" {
				return s.dropLocked(f, cause)
			}
		}
		if f.at > s.now && (f.stage == toOut || f.stage == toNode) {
			return s.pushLocked(f)
		}
		switch f.stage {
		case toNet:
			n := f.net
			f.hops -= n.hops
			f.node = n.nodes[f.to.Addr()]
			switch {
			case f.hops <= 0:
				return s.dropLocked(f, "hops")
			case f.node != nil:
				f.stage = toLine
			case n.router == nil || f.inward:
				return s.dropLocked(f, "no such host")
			default:
				f.stage = toOut
			}
			f.line = &n.line
		case toLine:
			f.line = f.node.in()
			f.stage = toNode
		case toOut:
			r := f.net.router
			f.hops--
			if f.hops <= 0 {
				return s.dropLocked(f, "hops")
			}
			from, ok := r.outwardLocked(f.from, f.to)
			if !ok {
				return s.dropLocked(f, "nat")
			}
			f.from = from
			f.via, f.net, f.line, f.stage = r, r.outer, &r.up, toNet
		case toNode:
			r, ok := f.node.(*SimNAT)
			if !ok {
				return s.arriveLocked(f, f.node.(*SimHost))
			}
			f.hops--
			if f.hops <= 0 {
				return s.dropLocked(f, "hops")
			}
			to, ok := r.inwardLocked(f.from, f.to, f.via == r)
			if !ok {
				return s.dropLocked(f, "nat")
			}
			f.to = to
			f.net, f.inward, f.stage = r.SimNet, true, toNet
		}
	}
}

func (s *Sim) arriveLocked(f *flight, h *SimHost) *simConn {
	for _, c := range s.cuts {
		if c.between(f.source, h) {
			return s.dropLocked(f, "cut")
		}
	}
	c := f.conn
	if c == nil {
		if !h.owns(f.to.Addr()) { // it has moved
			return s.dropLocked(f, "no such host")
		}
		c = h.connLocked(f.to)
	}
	if c == nil || c.closed {
		return s.dropLocked(f, "no socket")
	}
	return c
}

// tickLocked looks at the clock.
func (s *Sim) tickLocked() { s.now = max(s.now, s.clock.Now().Sub(s.start)) }

// armLocked sees to it that run is called when the next flight is due.
func (s *Sim) armLocked() {
	if s.running || len(s.flights) == 0 {
		return
	}
	at := s.flights[0].at
	if s.timer != nil {
		if s.armed <= at {
			return
		}
		s.timer.Stop()
	}
	s.armed = at
	s.timer = s.clock.AfterFunc(at-s.now, s.run)
}

// run delivers what is due. Only one call does so at a time, so that nothing
// overtakes.
func (s *Sim) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	if s.running {
		return
	}
	s.running = true
	batch := s.batch
	var to *simConn
	for s.tickLocked(); len(s.flights) > 0 && s.flights[0].at <= s.now; s.tickLocked() {
		f := s.flights.pop()
		c := s.moveLocked(f)
		if c == nil {
			continue
		}
		if len(batch) == simBatch || c != to {
			batch = s.deliverLocked(to, batch)
			to = c
		}
		batch = append(batch, f)
	}
	s.batch = s.deliverLocked(to, batch)
	s.running = false
	s.armLocked()
}

// deliverLocked gives datagrams to a socket's handler, and returns the emptied
// slice. The lock is open meanwhile.
func (s *Sim) deliverLocked(c *simConn, batch []*flight) []*flight {
	if len(batch) > 0 && !c.closed {
		s.packets = s.packets[:0]
		for _, f := range batch {
			s.packets = append(s.packets, Packet{Addr: f.from, Data: f.data})
			for _, t := range []*Traffic{&s.traffic, &c.host.traffic} {
				t.Received++
				t.ReceivedBytes += int64(len(f.data))
			}
		}
		func() {
			s.mu.Unlock()
			defer s.mu.Lock() // also when a test ends in there
			c.receive(s.packets)
		}()
		clear(s.packets)
	}
	for _, f := range batch {
		s.recycleLocked(f)
	}
	return batch[:0]
}

// pushLocked keeps f until it is due.
func (s *Sim) pushLocked(f *flight) *simConn {
	s.turn++
	s.flights.push(due{f.at, s.turn, f})
	return nil
}

func (s *Sim) dropLocked(f *flight, cause string) *simConn {
	s.lost[cause]++
	s.recycleLocked(f)
	return nil
}

func (s *Sim) flightLocked() *flight {
	if len(s.free) == 0 {
		return &flight{}
	}
	f := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return f
}

func (s *Sim) copyLocked(f *flight) *flight {
	c := s.flightLocked()
	data := append(c.data, f.data...)
	*c = *f
	c.data = data
	return c
}

func (s *Sim) recycleLocked(f *flight) {
	clear(f.data) // who keeps data that isn't his shall notice
	*f = flight{data: f.data[:0]}
	s.free = append(s.free, f)
}

// flights is a heap by time, and by turn where that is equal. It is written out
// because it is most of what a packet costs.
type flights []due

type due struct {
	at   time.Duration
	turn uint64
	f    *flight
}

func (d *due) before(other *due) bool {
	return d.at < other.at || d.at == other.at && d.turn < other.turn
}

func (h *flights) push(d due) {
	q := append(*h, d)
	*h = q
	i := len(q) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !d.before(&q[parent]) {
			break
		}
		q[i] = q[parent]
		i = parent
	}
	q[i] = d
}

func (h *flights) pop() *flight {
	first := (*h)[0].f
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = due{}
	q := (*h)[:last]
	*h = q
	i := 0
	for {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && q[child+1].before(&q[child]) {
			child++
		}
		if !q[child].before(&d) {
			break
		}
		q[i] = q[child]
		i = child
	}
	if last > 0 {
		q[i] = d
	}
	return first
}

// below returns a number from 0 to n-1 (splitmix64). It is to be the same for
// the same seed, and nothing has to be kept secret here.
func (s *Sim) below(n int64) int64 {
	s.random += 0x9e3779b97f4a7c15
	z := s.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int64((z ^ z>>31) % uint64(n))
}

// chance is true in a share p of cases.
func (s *Sim) chance(p float64) bool {
	return p > 0 && float64(s.below(1<<53)) < p*(1<<53)
}
