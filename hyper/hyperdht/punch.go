package hyperdht

import (
	"net/netip"
	"time"
)

const (
	// birthdaySockets is how many sockets the side with random ports opens, for
	// the other to find one of.
	birthdaySockets = 256
	// lowTTL is how many routers a packet may pass that only is to open the NAT
	// on this side.
	lowTTL = 5
	// consistentTries and randomTries are how often is tried, with the time
	// between that follows.
	consistentTries = 10
	randomTries     = 1750
	consistentPause = time.Second
	randomPause     = 20 * time.Millisecond
	openPause       = 100 * time.Millisecond
)

// A strategy is how two NATs are punched.
type strategy uint8

const (
	// strategyNone: there is no way.
	strategyNone strategy = iota
	// strategyConsistent: both sides send to the address that the other has.
	strategyConsistent
	// strategyProbe: the other side's ports are random, so try any.
	strategyProbe
	// strategyBirthday: our ports are random, so open many.
	strategyBirthday
)

// chooseStrategy tells how to punch. A verified address is one that the other
// side has proven to get packets at.
func chooseStrategy(local, remote Firewall, verified bool) strategy {
	switch {
	case local.consistent() && remote.consistent():
		return strategyConsistent
	case !verified:
		return strategyNone // hundreds of packets to who never asked for them
	case local.consistent() && remote >= FirewallRandom:
		return strategyProbe
	case local >= FirewallRandom && remote.consistent():
		return strategyBirthday
	}
	return strategyNone
}

// A remoteAddr is where the other side may be.
type remoteAddr struct {
	addr     netip.AddrPort
	verified bool
}

// A probe is a packet of one byte to be sent.
type probe struct {
	socket int // 0 is the one that the other side was told of, others are opened
	to     netip.AddrPort
	low    bool // with lowTTL
}

// A punch is one attempt to punch: it says what to send and when. It has no
// clock and no socket (lib/holepuncher.js).
type punch struct {
	strategy strategy
	addrs    []remoteAddr // for strategyConsistent
	target   netip.AddrPort
	wait     bool // for the other side's first packet; a server was quick already
	tries    int
	begun    bool
	socket   int
	round    int
}

// newPunch begins an attempt from what both sides know.
func newPunch(local, remote Firewall, addrs []remoteAddr, initiator bool) punch {
	p := punch{addrs: addrs, wait: !initiator}
	for _, a := range addrs {
		if a.verified {
			p.target = a.addr
			break
		}
	}
	if len(addrs) > 0 {
		p.strategy = chooseStrategy(local, remote, p.target.IsValid())
	}
	return p
}

// step returns what to send now and how long to wait for the next step. After
// the last there is nothing to send and nothing to wait for.
func (p *punch) step(rnd *random) (out []probe, wait time.Duration, done bool) {
	switch p.strategy {
	case strategyConsistent:
		if p.wait {
			p.wait = false
			return nil, consistentPause, false
		}
		if p.tries == consistentTries {
			return nil, 0, true
		}
		p.tries++
		for _, a := range p.addrs {
			// An address that is not proven may be anybody's: seldom.
			if a.verified || p.tries&3 == 0 {
				out = append(out, probe{to: a.addr})
			}
		}
		return out, consistentPause, false
	case strategyProbe:
		if p.tries == randomTries {
			return nil, 0, true
		}
		p.tries++
		port := uint16(1000 + rnd.below(64536))
		return []probe{{to: netip.AddrPortFrom(p.target.Addr(), port)}}, randomPause, false
	case strategyBirthday:
		if !p.begun {
			p.begun = true
			for i := 1; i < birthdaySockets; i++ {
				out = append(out, probe{socket: i, to: p.target, low: true})
			}
			return out, openPause, false
		}
		if p.tries == randomTries {
			return nil, 0, true
		}
		p.tries++
		if p.socket == birthdaySockets {
			p.socket = 0
			p.round++
		}
		out = []probe{{socket: p.socket, to: p.target, low: p.round == 0}}
		p.socket++
		return out, randomPause, false
	}
	return nil, 0, true
}
