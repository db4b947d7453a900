// Package mdns finds peers on the local network, and reaches them there, with
// no server, no internet and no default route: DNS-SD over multicast DNS (RFC
// 6762 and 6763) under names that change and tell nothing to those who don't
// know the topic. The format is in docs/formats/mdns.md.
//
// It is not a resolver of names, and it takes no notice of other services.
package mdns

import "net/netip"

// A Peer is somebody on the local network who has a topic. Who it is shows the
// handshake.
type Peer struct {
	Topic Topic
	// Addrs are where it may be reached.
	Addrs []netip.AddrPort

	salt salt
}

// ID tells peers apart for as long as they keep their names, which is not for
// long.
func (p Peer) ID() string { return p.salt.label() }

// Options say how to use the local network.
type Options struct{}
