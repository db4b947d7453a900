package packet

import (
	"net/netip"
	"time"
)

// A NATKind is how a NAT maps addresses and what it lets in, in the words of RFC
// 4787.
type NATKind int

const (
	// PortRestricted maps independent of the endpoint and filters by address and
	// port. Most homes have one: it is Linux' masquerade.
	PortRestricted NATKind = iota
	// Restricted maps independent of the endpoint and filters by address.
	Restricted
	// FullCone maps and filters independent of the endpoint.
	FullCone
	// Symmetric maps to a random port for each address and port, and filters by
	// them.
	Symmetric
	// Firewall does not map; it lets in answers, by address and port.
	Firewall
	// Router does not map and lets all in.
	Router
)

// A NAT is what a SimNAT does. It is about IPv4: IPv6 addresses behind it are
// routed, through a firewall as at home.
type NAT struct {
	Kind NATKind
	// Hairpin says that those behind it reach one another by their outer
	// addresses.
	Hairpin bool
	// Timeout is how long it remembers what nobody uses, by default two minutes.
	Timeout time.Duration
}

// A SimNAT is a NAT on one network of a Sim with another one behind it, on which
// there may be hosts and other NATs. A carrier's NAT is one with homes behind.
type SimNAT struct {
	*SimNet // what is behind it

	outer    *SimNet
	addr     netip.Addr
	nat      NAT
	up, down line
	out      map[flow]*mapping
	inside   map[netip.AddrPort]*mapping // by outer address
	sweepAt  int
}

// A flow is what a mapping is for: an address behind the NAT and, if it maps so,
// one outside.
type flow struct{ inner, remote netip.AddrPort }

type mapping struct {
	flow
	outer   netip.AddrPort
	used    time.Duration
	remotes map[netip.AddrPort]time.Duration // whom it lets in, and when it was used
	sweepAt int
}

func (r *SimNAT) in() *line { return &r.down }

// NAT puts a new NAT on the network, with nobody behind. With no address it gets
// the next one that is free.
func (n *SimNet) NAT(nat NAT, addr ...netip.Addr) *SimNAT {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	r := &SimNAT{outer: n, nat: nat}
	r.SimNet = n.sim.network(r, netip.AddrFrom4([4]byte{192, 168, 0, 1}), Link{Delay: 200 * time.Microsecond})
	r.flushLocked()
	if len(addr) == 0 {
		addr = []netip.Addr{n.freeLocked()}
	}
	r.addr = addr[0]
	n.learnLocked(r.addr, r)
	return r
}

// Addr returns the address of the NAT on the network it is on.
func (r *SimNAT) Addr() netip.Addr {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	return r.addr
}

// SetAddr gives the NAT another address, and lets it forget its mappings.
func (r *SimNAT) SetAddr(addr netip.Addr) {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	r.outer.forgetLocked(r.addr)
	r.addr = addr
	r.outer.learnLocked(addr, r)
	r.flushLocked()
}

// SetNAT makes the NAT another one, which has no mappings yet.
func (r *SimNAT) SetNAT(nat NAT) {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	for addr := range r.nodes {
		if r.routes(addr) {
			r.outer.forgetLocked(addr)
		}
	}
	r.nat = nat
	for addr := range r.nodes {
		if r.routes(addr) {
			r.outer.learnLocked(addr, r)
		}
	}
	r.flushLocked()
}

// SetLink sets the NAT's line to the network it is on, both ways.
func (r *SimNAT) SetLink(l Link) { r.SetLinks(l, l) }

// SetLinks sets the NAT's line to the network it is on for each way.
func (r *SimNAT) SetLinks(up, down Link) {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	r.up, r.down = line{Link: up}, line{Link: down}
}

// Flush lets the NAT forget its mappings, as a restart does.
func (r *SimNAT) Flush() {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	r.flushLocked()
}

func (r *SimNAT) flushLocked() {
	r.out = map[flow]*mapping{}
	r.inside = map[netip.AddrPort]*mapping{}
}

// kind is what the NAT is for addresses of a family.
func (r *SimNAT) kind(addr netip.Addr) NATKind {
	if addr.Is6() && r.nat.Kind != Router {
		return Firewall
	}
	return r.nat.Kind
}

// routes tells whether an address behind the NAT is one outside too.
func (r *SimNAT) routes(addr netip.Addr) bool {
	k := r.kind(addr)
	return k == Firewall || k == Router
}

// outwardLocked maps the source of a packet that leaves.
func (r *SimNAT) outwardLocked(from, to netip.AddrPort) (netip.AddrPort, bool) {
	kind := r.kind(from.Addr())
	if kind == Router {
		return from, true
	}
	key := flow{inner: from}
	if kind == Symmetric {
		key.remote = to
	}
	m := r.out[key]
	if m != nil && r.expired(m.used) {
		r.removeLocked(m)
		m = nil
	}
	if m == nil {
		outer, ok := r.outerLocked(kind, from)
		if !ok {
			return outer, false
		}
		m = &mapping{flow: key, outer: outer, remotes: map[netip.AddrPort]time.Duration{}}
		r.out[key], r.inside[outer] = m, m
	}
	m.used = r.sim.now
	if kind != FullCone {
		m.remotes[filtered(kind, to)] = r.sim.now
	}
	r.sweepLocked(m)
	return m.outer, true
}

// outerLocked chooses the outer address for an inner one.
func (r *SimNAT) outerLocked(kind NATKind, inner netip.AddrPort) (netip.AddrPort, bool) {
	if kind == Firewall {
		return inner, true
	}
	port := inner.Port()
	if kind == Symmetric {
		port = r.randomPort()
	}
	for range 1 << 17 {
		outer := netip.AddrPortFrom(r.addr, port)
		m := r.inside[outer]
		if m != nil && r.expired(m.used) {
			r.removeLocked(m)
			m = nil
		}
		if m == nil {
			return outer, true
		}
		port = r.randomPort()
	}
	return netip.AddrPort{}, false
}

func (r *SimNAT) randomPort() uint16 { return uint16(1024 + r.sim.below(1<<16-1024)) }

// inwardLocked finds whom behind the NAT a packet is for.
func (r *SimNAT) inwardLocked(from, to netip.AddrPort, fromInside bool) (netip.AddrPort, bool) {
	if fromInside && !r.nat.Hairpin {
		return to, false
	}
	kind := r.kind(to.Addr())
	if kind == Router {
		return to, true
	}
	m := r.inside[to]
	if m == nil || r.expired(m.used) {
		return to, false
	}
	if kind != FullCone {
		key := filtered(kind, from)
		used, known := m.remotes[key]
		if !known || r.expired(used) {
			return to, false
		}
		m.remotes[key] = r.sim.now
	}
	m.used = r.sim.now
	return m.inner, true
}

// filtered is what of a remote address matters to the filter.
func filtered(kind NATKind, remote netip.AddrPort) netip.AddrPort {
	if kind == Restricted {
		return netip.AddrPortFrom(remote.Addr(), 0)
	}
	return remote
}

func (r *SimNAT) expired(used time.Duration) bool {
	timeout := r.nat.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	return r.sim.now-used >= timeout
}

func (r *SimNAT) removeLocked(m *mapping) {
	delete(r.out, m.flow)
	delete(r.inside, m.outer)
}

// sweepLocked drops what has expired, once there is twice as much as the last
// time.
func (r *SimNAT) sweepLocked(m *mapping) {
	if len(m.remotes) > m.sweepAt {
		for remote, used := range m.remotes {
			if r.expired(used) {
				delete(m.remotes, remote)
			}
		}
		m.sweepAt = 64 + 2*len(m.remotes)
	}
	if len(r.out) > r.sweepAt {
		for _, m := range r.out {
			if r.expired(m.used) {
				r.removeLocked(m)
			}
		}
		r.sweepAt = 64 + 2*len(r.out)
	}
}
