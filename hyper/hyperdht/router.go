package hyperdht

import (
	"net/netip"
	"time"
)

// A hop is what to do with a message that peers send each other through nodes:
// send it on as a request, or give it back as the reply of the whole way
// (lib/router.js). Its zero value is to drop it.
type hop struct {
	to     netip.AddrPort
	reply  bool
	closer bool // tell of closer nodes: the peer is not known here
	value  []byte
}

// handshakeHop tells where a handshake goes at a node that is not its server,
// but may know at which address that is.
func handshakeHop(m handshakeMsg, from, relay netip.AddrPort) hop {
	if m.noise == nil && m.mode != modeReply {
		return hop{}
	}
	switch m.mode {
	case fromClient:
		to := m.relay
		if !to.IsValid() {
			to = relay
		}
		if !to.IsValid() {
			return hop{to: from, reply: true, closer: true}
		}
		return hop{to: to, value: handshakeMsg{mode: fromRelay, noise: m.noise, peer: from}.append(nil)}
	case fromRelay:
		if relay.IsValid() {
			return hop{to: relay, value: handshakeMsg{fromSecondRelay, m.noise, m.peer, from}.append(nil)}
		}
	case fromServer:
		if m.peer.IsValid() {
			return hop{to: m.peer, reply: true, value: handshakeMsg{mode: modeReply, noise: m.noise, peer: from}.append(nil)}
		}
	}
	return hop{}
}

// handshakeReply tells where the answer of a server goes that got m from an
// address.
func handshakeReply(m handshakeMsg, from netip.AddrPort, noise []byte) hop {
	back := handshakeMsg{mode: fromServer, noise: noise, peer: m.peer}
	switch m.mode {
	case fromClient:
		return hop{to: from, reply: true, value: handshakeMsg{mode: modeReply, noise: noise}.append(nil)}
	case fromRelay:
		return hop{to: from, value: back.append(nil)}
	case fromSecondRelay:
		if m.relay.IsValid() {
			return hop{to: m.relay, value: back.append(nil)}
		}
	}
	return hop{}
}

// holepunchHop tells where a message of hole punching goes at a node that may
// know at which address its server is. A server is asked before, for messages
// from relays.
func holepunchHop(m holepunchMsg, from, relay netip.AddrPort) hop {
	switch m.mode {
	case fromClient:
		to := m.peer
		if !to.IsValid() {
			to = relay
		}
		if to.IsValid() {
			return hop{to: to, value: holepunchMsg{fromRelay, m.id, m.payload, from}.append(nil)}
		}
	case fromServer:
		if m.peer.IsValid() {
			return hop{to: m.peer, reply: true, value: holepunchMsg{modeReply, m.id, m.payload, from}.append(nil)}
		}
	}
	return hop{}
}

// holepunchReply is what a server sends back through the relay it got m from.
func holepunchReply(m holepunchMsg, from netip.AddrPort, payload []byte) hop {
	return hop{to: from, value: holepunchMsg{fromServer, 0, payload, m.peer}.append(nil)}
}

const (
	// relayRate is how many messages a second a node relays for one address.
	relayRate = 1000
	// relaySources is how many addresses are counted at a time. Those that don't
	// fit in share one count.
	relaySources = 4096
)

// A meter bounds what is relayed for each source, within one second at a time.
type meter struct {
	second time.Time
	counts map[netip.Addr]int
}

// take reports whether one more message of a source may pass.
func (m *meter) take(now time.Time, from netip.Addr) bool {
	if s := now.Truncate(time.Second); s != m.second || m.counts == nil {
		m.second, m.counts = s, map[netip.Addr]int{}
	}
	if _, ok := m.counts[from]; !ok && len(m.counts) >= relaySources {
		from = netip.Addr{}
	}
	m.counts[from]++
	return m.counts[from] <= relayRate
}
