package dhtrpc

import "net/netip"

// A NAT concludes from what others see what the address of this machine is to
// them. It holds the last samples only. Its zero value knows nothing.
//
// It is the npm package nat-sampler.
type NAT struct {
	size       int
	threshold  int // hits that settle it
	a, b       *natSample
	top        int
	samples    [natSamples]*natSample // full addresses and addresses without a port, in turns
	host       netip.Addr
	port       uint16
	hasSamples int
}

const natSamples = 32

type natSample struct {
	addr netip.AddrPort
	hits int
}

// Host is the address that most others see, and not valid if they don't agree.
func (n *NAT) Host() netip.Addr { return n.host }

// Port is the port that most others see. It is zero if they don't agree, as
// behind a NAT that takes another port for each destination.
func (n *NAT) Port() uint16 { return n.port }

// Size is how many samples were counted, up to 16.
func (n *NAT) Size() int { return n.size }

// Add counts a sample: the address by which another knows this machine.
func (n *NAT) Add(addr netip.AddrPort) {
	a := n.bump(addr, 2)
	b := n.bump(netip.AddrPortFrom(addr.Addr(), 0), 1)
	if n.hasSamples < natSamples {
		n.size++
		n.threshold = n.size - min(n.size/4, 3)
		n.samples[n.top], n.samples[n.top+1] = a, b
		n.hasSamples += 2
		n.top += 2
	} else {
		if n.top == natSamples {
			n.top = 0
		}
		for _, s := range []*natSample{a, b} {
			n.samples[n.top].hits--
			n.samples[n.top] = s
			n.top++
		}
	}
	if n.a == nil || n.a.hits < a.hits {
		n.a = a
	}
	if n.b == nil || n.b.hits < b.hits {
		n.b = b
	}
	switch {
	case n.a.hits >= n.threshold:
		n.host, n.port = n.a.addr.Addr(), n.a.addr.Port()
	case n.b.hits >= n.threshold:
		n.host, n.port = n.b.addr.Addr(), 0
	default:
		n.host, n.port = netip.Addr{}, 0
	}
}

// bump finds a sample among the last four of its kind and counts it.
func (n *NAT) bump(addr netip.AddrPort, back int) *natSample {
	for i := range 4 {
		j := (n.top - back - 2*i) & (natSamples - 1)
		if j >= n.hasSamples {
			break
		}
		if s := n.samples[j]; s.addr == addr {
			s.hits++
			return s
		}
	}
	return &natSample{addr, 1}
}
