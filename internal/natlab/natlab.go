// Package natlab is a laboratory of networks on one machine, for tests of
// finding and reaching each other: an internet, and sites of every kind that
// people are behind, from an open address to a hotel that lets nothing through
// but TCP port 443.
//
// A Lab is made of Linux network namespaces, virtual cables and nftables rules.
// It needs root and the commands ip and nft. It has no way out: nothing that is
// sent inside leaves the machine. Nothing of it has a name outside of the
// process either, so any number of labs can be up at once, and the kernel
// removes a lab with the process that made it, however that ended.
//
//	lab, err := natlab.New()
//	defer lab.Close()
//	server, err := lab.Host("server", natlab.Internet("9.9.0.1"))
//	site, err := lab.Site("home", natlab.Symmetric)
//	client, err := site.Host("client")
//	err = client.Do(func() error { … })  // sockets opened here are the client's
//
// A Matrix lets subjects on two sites of all pairs of kinds connect, and says
// which path they took and how long it took them. It knows subjects by an
// interface, so that those of Node.js, of Go, in a Lab or on a network in
// memory, all are asked and judged the same way.
//
// See docs/natlab.md for how to run and read it.
package natlab

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A Kind is a kind of site: what is between its hosts and the internet.
type Kind string

// The kinds of sites.
const (
	Open           Kind = "open"            // an address on the internet
	FullCone       Kind = "full-cone"       // anyone may send to a port that is mapped
	Restricted     Kind = "restricted"      // only addresses that were sent to
	PortRestricted Kind = "port-restricted" // only addresses and ports that were sent to; most homes
	Symmetric      Kind = "symmetric"       // and another port for each of them
	Double         Kind = "double"          // a NAT behind a NAT
	Carrier        Kind = "carrier"         // a home behind the NAT of a carrier, which has others behind it
	CarrierHairpin Kind = "carrier-hairpin" // the same, where those behind it can reach each other through it
	NoUDP          Kind = "no-udp"          // only TCP goes out
	OnlyTCP443     Kind = "tcp-443"         // only TCP to port 443 goes out
)

// Kinds are all kinds of sites.
var Kinds = []Kind{Open, FullCone, Restricted, PortRestricted, Symmetric, Double, Carrier, CarrierHairpin, NoUDP, OnlyTCP443}

// A Behavior says what of the other end a NAT looks at, in the words of RFC
// 4787.
type Behavior int

// The behaviors.
const (
	Independent    Behavior = iota // of nothing
	Address                        // of the address
	AddressAndPort                 // of the address and the port
)

func (b Behavior) String() string { return [...]string{"EI", "AD", "APD"}[b] }

// A Block is what a NAT does not let out.
type Block int

// The blocks.
const (
	Nothing      Block = iota
	UDP                // all UDP
	AllButTCP443       // all but TCP to port 443
)

// A NAT is how a router treats UDP.
type NAT struct {
	// Mapping says for whom a host's port gets a port of its own outside.
	// Address is not among what a lab can do.
	Mapping Behavior
	// Filtering says from whom packets are let in. With a mapping that is not
	// independent it is AddressAndPort.
	Filtering Behavior
	// Hairpin lets hosts inside reach each other by their addresses outside.
	Hairpin bool
	Block   Block
	// Timeout is how long a mapping lives without packets; zero is 120 s.
	Timeout time.Duration
}

// Carried tells whether sites of this kind share one router with all sites of
// the same kind, and NATs ends with that one.
func (k Kind) Carried() bool { return k == Carrier || k == CarrierHairpin }

// NATs are the routers of a site, from its hosts outwards.
func (k Kind) NATs() []NAT {
	home := NAT{Mapping: Independent, Filtering: AddressAndPort}
	switch k {
	case Open:
		return nil
	case FullCone:
		return []NAT{{Mapping: Independent, Filtering: Independent}}
	case Restricted:
		return []NAT{{Mapping: Independent, Filtering: Address}}
	case PortRestricted:
		return []NAT{home}
	case Symmetric:
		return []NAT{{Mapping: AddressAndPort, Filtering: AddressAndPort}}
	case Double:
		return []NAT{home, home}
	case Carrier, CarrierHairpin:
		// RFC 6888 asks carriers for independence of both, and for hairpins.
		return []NAT{home, {Mapping: Independent, Filtering: Independent, Hairpin: k == CarrierHairpin}}
	case NoUDP:
		return []NAT{{Filtering: AddressAndPort, Block: UDP}}
	case OnlyTCP443:
		return []NAT{{Filtering: AddressAndPort, Block: AllButTCP443}}
	}
	panic("natlab: no such kind: " + string(k))
}

// Internet returns addresses on the internet, from text such as "9.9.0.1". It
// panics if they are not.
func Internet(texts ...string) []netip.Addr {
	addrs := make([]netip.Addr, len(texts))
	for i, text := range texts {
		addrs[i] = netip.MustParseAddr(text)
	}
	return addrs
}

// rules are a router's nftables. Its interfaces are wan, which has the address
// outside, and lan.
func (n NAT) rules(outside string) string {
	timeout := fmt.Sprintf("%ds", n.seconds())
	var pre, post, forward, learn []string

	switch n.Block {
	case UDP:
		forward = append(forward, `meta l4proto udp drop`)
	case AllButTCP443:
		forward = append(forward, `oifname "wan" meta l4proto != tcp drop`, `oifname "wan" tcp dport != 443 drop`)
	}
	post = append(post, `oifname "wan" masquerade`)
	if n.Mapping != Independent {
		post = []string{`oifname "wan" masquerade fully-random`}
	}

	// The kernel's NAT filters by address and port. To be more open, a router
	// remembers which port outside belongs to whom, and who was sent to from it.
	const known = `udp dport map @cone`
	switch n.Filtering {
	case Independent:
		pre = append(pre, `iifname "wan" meta l4proto udp dnat ip addr . port to `+known)
	case Address:
		pre = append(pre, `iifname "wan" meta l4proto udp ip saddr . udp dport @peers dnat ip addr . port to `+known)
	}
	if n.Hairpin {
		pre = append(pre, `iifname "lan" ip daddr `+outside+` meta l4proto udp dnat ip addr . port to `+known)
		post = append(post, `iifname "lan" oifname "lan" meta l4proto udp ct status & dnat == dnat snat to `+outside)
	}
	if n.Filtering != AddressAndPort || n.Hairpin {
		out := `meta l4proto udp ct direction original ct status & snat == snat update `
		back := `oifname "wan" meta l4proto udp ct direction reply ct status & dnat == dnat update `
		learn = append(learn,
			out+`@cone { ct reply proto-dst timeout `+timeout+` : ct original ip saddr . ct original proto-src }`,
			out+`@peers { ip daddr . ct reply proto-dst timeout `+timeout+` }`,
			back+`@cone { ct original proto-dst timeout `+timeout+` : ct reply ip saddr . ct reply proto-src }`,
			back+`@peers { ip daddr . ct original proto-dst timeout `+timeout+` }`)
	}
	forward = append(forward, `iifname "wan" ct state new ct status & dnat == 0 drop`)

	chain := func(name, hook string, rules []string) string {
		return "chain " + name + " {\ntype " + hook + ";\n" + strings.Join(rules, "\n") + "\n}\n"
	}
	return "table ip nat {\n" +
		"map cone { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; size 65535; }\n" +
		"set peers { type ipv4_addr . inet_service; flags dynamic,timeout; size 65535; }\n" +
		chain("pre", "nat hook prerouting priority dstnat", pre) +
		chain("post", "nat hook postrouting priority srcnat", post) +
		chain("forward", "filter hook forward priority filter", forward) +
		chain("learn", "filter hook postrouting priority srcnat + 10", learn) +
		// What nobody asked for must be dropped before the kernel remembers it:
		// else it holds the port, and a host's own mapping moves to another.
		chain("incoming", "filter hook input priority filter",
			[]string{`iifname "wan" ct state new drop`, `ip daddr ` + outside + ` ct state new drop`}) +
		"}\n"
}

// seconds is the life of a mapping as the kernel takes it.
func (n NAT) seconds() int {
	if n.Timeout == 0 {
		return 120
	}
	return max(1, int(n.Timeout/time.Second))
}
