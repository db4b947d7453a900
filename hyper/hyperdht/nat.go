package hyperdht

import (
	"net/netip"
	"slices"
)

// natSamples is how many nodes are asked what address they see.
const natSamples = 4

// A nat makes out what kind of NAT a socket is behind, from what nodes see as
// its address (lib/nat.js). It is a value without clock or socket.
type nat struct {
	open     bool // the machine is known to be reachable
	firewall Firewall
	addrs    []netip.AddrPort // what to tell the other side; nil is not known

	hosts, full []sample // most hits first
	seen, asked map[netip.AddrPort]bool
	sampled     int
	frozen      bool
}

type sample struct {
	addr netip.AddrPort
	hits int
}

func newNAT(open bool) *nat {
	n := &nat{open: open, seen: map[netip.AddrPort]bool{}, asked: map[netip.AddrPort]bool{}}
	if open {
		n.firewall = FirewallOpen
	}
	return n
}

// add tells that a node at from sees the socket at addr.
func (n *nat) add(addr, from netip.AddrPort) {
	if n.seen[from] || len(n.seen) >= 64 {
		return
	}
	n.seen[from] = true
	n.hosts = addSample(n.hosts, netip.AddrPortFrom(addr.Addr(), 0))
	n.full = addSample(n.full, addr)
	n.sampled++
	if (n.sampled >= 3 || n.open) && !n.frozen {
		n.update()
	}
}

// known reports whether more samples would change nothing.
func (n *nat) known() bool { return n.firewall.consistent() || n.sampled >= natSamples }

// update draws the conclusion.
func (n *nat) update() {
	if n.open {
		n.firewall = FirewallOpen
		return
	}
	if n.firewall == FirewallOpen {
		n.firewall = FirewallUnknown
	}
	if n.sampled >= 3 {
		n.conclude()
	}
	switch n.firewall {
	case FirewallUnknown:
		n.addrs = nil
	case FirewallRandom:
		n.addrs = []netip.AddrPort{n.hosts[0].addr}
	case FirewallConsistent:
		n.addrs = []netip.AddrPort{}
		for _, s := range n.full {
			if s.hits >= 2 || len(n.addrs) < 2 {
				n.addrs = append(n.addrs, s.addr)
			}
		}
	}
}

func (n *nat) conclude() {
	switch most := n.full[0].hits; {
	case most >= 3:
		n.firewall = FirewallConsistent
	case most == 1:
		n.firewall = FirewallRandom
	case len(n.hosts) == 1 && n.sampled > 3: // two of one host saw something else
		n.firewall = FirewallRandom
	case len(n.hosts) > 1 && n.full[1].hits > 1: // two ways out, each consistent
		n.firewall = FirewallConsistent
	case n.sampled > 4:
		n.firewall = FirewallRandom
	}
}

// freeze keeps the conclusion as it is, once the other side was told.
func (n *nat) freeze() { n.frozen = true }

func addSample(l []sample, addr netip.AddrPort) []sample {
	i := slices.IndexFunc(l, func(s sample) bool { return s.addr == addr })
	if i < 0 {
		return append(l, sample{addr, 1})
	}
	l[i].hits++
	for ; i > 0 && l[i-1].hits < l[i].hits; i-- {
		l[i-1], l[i] = l[i], l[i-1]
	}
	return l
}
