package node

import (
	"net"
	"net/netip"
	"strconv"
)

// Reach returns the address at which others reach the port, or else this machine
// itself does, and whether others can.
func (n *Node) Reach() (at string, others bool) {
	for _, l := range n.port {
		a := addrOf(l)
		if a.Addr().IsLoopback() {
			continue
		}
		host := a.Addr().String()
		switch {
		case len(n.hosts) > 0:
			host = n.hosts[0]
		case a.Addr().IsUnspecified():
			host = ownAddress().String()
		}
		return address(net.JoinHostPort(host, strconv.Itoa(int(a.Port())))), true
	}
	if len(n.hosts) > 0 { // somebody leads them here
		return address(net.JoinHostPort(n.hosts[0], strconv.Itoa(int(addrOf(n.port[0]).Port())))), true
	}
	return n.Address(), false
}

// ownAddress is an address of this machine in a network: one of IPv4, which people
// can type, if there is one.
func ownAddress() netip.Addr {
	best := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	all, err := net.InterfaceAddrs()
	if err != nil {
		return best
	}
	for _, one := range all {
		p, err := netip.ParsePrefix(one.String())
		if a := p.Addr().Unmap(); err == nil && a.IsGlobalUnicast() && (best.IsLoopback() || a.Is4() && !best.Is4()) {
			best = a
		}
	}
	return best
}
