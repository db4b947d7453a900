package hyperdht

import (
	"net/netip"

	"github.com/cloudbevy/bevy/hyper/dhtrpc"
)

// A Mapping is a port of the router that leads to this machine, as those of
// hyper/portmap.
type Mapping interface {
	// External is where the port is outside.
	External() netip.AddrPort
	// OnChange calls f when that is elsewhere, or nowhere. f does not block.
	OnChange(f func(netip.AddrPort))
	// Close gives the port back.
	Close() error
}

// witnesses is how many nodes are asked whether a mapped port leads here.
const witnesses = 3

// mapPort has the router map the port of the server socket if others can't
// reach it as it is. It ends with the DHT.
func (d *DHT) mapPort() {
	if err := d.node.Bootstrapped(d.ctx); err != nil || !d.node.Firewalled() {
		return
	}
	server := d.node.ServerSocket()
	if server == nil {
		return // suspended
	}
	m, err := d.o.MapPort(d.ctx, server.LocalAddr().Port())
	if err != nil {
		return // then holes are punched, as everywhere
	}
	defer m.Close()
	changed := make(chan struct{}, 1)
	m.OnChange(func(netip.AddrPort) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	for {
		addr := d.proven(m.External())
		d.mapped.Store(&addr)
		select {
		case <-changed:
		case <-d.ctx.Done():
			return
		}
	}
}

// proven returns the address if another node reaches us there, and none
// otherwise: the router may lie, or have another behind it.
func (d *DHT) proven(addr netip.AddrPort) netip.AddrPort {
	if !addr.Addr().Is4() || addr.Port() == 0 {
		return netip.AddrPort{}
	}
	for _, n := range d.node.Nodes(witnesses) {
		if _, err := d.node.PingNAT(d.ctx, n.Addr, addr.Port(), dhtrpc.CallOptions{NoRetry: true}); err == nil {
			return addr
		}
	}
	return netip.AddrPort{}
}

// serverAddr is where everyone can reach the server socket, if there is such an
// address.
func (d *DHT) serverAddr() (netip.AddrPort, bool) {
	if addr, ok := d.node.RemoteAddr(); ok {
		return addr, true
	}
	if addr := d.mapped.Load(); addr != nil && addr.IsValid() {
		return *addr, true
	}
	return netip.AddrPort{}, false
}
