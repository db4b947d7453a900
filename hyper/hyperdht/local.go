package hyperdht

import (
	"net/netip"
)

// Networks that are not on the internet (npm bogon).
var (
	privateNets  = prefixes("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
	reservedNets = prefixes("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4")
	carrierNet   = netip.MustParsePrefix("100.64.0.0/10")
)

func prefixes(l ...string) (out []netip.Prefix) {
	for _, s := range l {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func within(a netip.Addr, nets []netip.Prefix) bool {
	for _, p := range nets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func isPrivate(a netip.Addr) bool  { return within(a, privateNets) }
func isReserved(a netip.Addr) bool { return within(a, reservedNets) }

// isNear tells an address of the local network or the machine itself from one
// that a carrier gives to many.
func isNear(a netip.Addr) bool {
	if a.Is4() {
		return isPrivate(a) && !carrierNet.Contains(a)
	}
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsPrivate()
}

// isGlobal6 tells an address that others on the internet can send to over IPv6.
func isGlobal6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && a.IsGlobalUnicast() && !a.IsPrivate()
}

// firstPublic returns the first address that is on the internet, or other.
func firstPublic(l []netip.AddrPort, other netip.AddrPort) netip.AddrPort {
	for _, a := range l {
		if a.Port() != 0 && !isPrivate(a.Addr()) && !isReserved(a.Addr()) {
			return a
		}
	}
	return other
}

// matchAddr returns the address of theirs that has most of its first three
// bytes in common with one of ours; none if they have nothing in common.
func matchAddr(ours, theirs []netip.AddrPort) netip.AddrPort {
	best, found := 0, none
	for _, o := range ours {
		for _, t := range theirs {
			if !o.Addr().Is4() || !t.Addr().Is4() {
				continue
			}
			a, b := o.Addr().As4(), t.Addr().As4()
			n := 0
			for n < 3 && a[n] == b[n] {
				n++
			}
			if n > best {
				best, found = n, t
			}
		}
	}
	return found
}
