package hyperdht

import (
	"fmt"
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// An Address is a key, and nodes through which its server may be found: what
// people hand on, in the form of the npm package hyperdht-address 1.1.
type Address struct {
	Key noise.Key
	// Nodes go into ConnectOptions.RelayAddresses.
	Nodes []netip.AddrPort
}

// Append appends the bytes of the address to b. Nodes that have no IPv4 address
// are left out.
func (a Address) Append(b []byte) []byte {
	nodes := only4(a.Nodes)
	b = compact.AppendFixed32(b, (*[32]byte)(&a.Key))
	b = compact.AppendUint(b, bit(0, len(nodes) > 0))
	if len(nodes) > 0 {
		b = appendAddrs(b, nodes)
	}
	return b
}

// ParseAddress reads an address, or the 32 bytes of a key alone.
func ParseAddress(b []byte) (a Address, err error) {
	d := compact.NewDecoder(b)
	a.Key = d.Fixed32()
	if d.Len() > 0 && has(d.Uint(), 0) {
		a.Nodes = readAddrs(&d)
	}
	if err := d.Err(); err != nil {
		return Address{}, fmt.Errorf("parse address of a peer: %w", err)
	}
	return a, nil
}
