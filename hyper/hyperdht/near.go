package hyperdht

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/udx"
)

const (
	// validateTime is how long a packet to oneself may take.
	validateTime = 500 * time.Millisecond
	// maxAddrs6 is how many addresses of IPv6 are told and tried.
	maxAddrs6 = 4
	// tries6 and pause6 are how often and how quickly the other side's IPv6
	// addresses are tried, which opens the firewalls on the way.
	tries6 = 8
	pause6 = 250 * time.Millisecond
)

// local is what a DHT knows of its own addresses, and its socket for IPv6, if
// the machine has that.
type local struct {
	mu      sync.Mutex
	closed  bool
	socket6 *udx.Socket
	waiting map[netip.AddrPort]*link // who may come by IPv6, from where
	valid   map[netip.Addr]*validation
}

// A validation tells whether the machine can send to itself at an address,
// which those of some virtual interfaces can't.
type validation struct {
	done chan struct{}
	ok   bool
}

func (l *local) open(d *DHT) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.valid, l.waiting = false, map[netip.Addr]*validation{}, map[netip.AddrPort]*link{}
	if !d.o.NoIPv6 && d.bind.IsUnspecified() && len(global6(d)) > 0 {
		// Without one there is IPv4.
		l.socket6, _ = d.udx.Listen(netip.AddrPortFrom(netip.IPv6Unspecified(), 0), udx.SocketOptions{Receive: l.receive6})
	}
}

// changed is called when the machine has other addresses.
func (l *local) changed(d *DHT) {
	l.mu.Lock()
	l.valid = map[netip.Addr]*validation{}
	again := l.socket6 == nil && !l.closed
	l.mu.Unlock()
	if again {
		l.open(d)
	}
}

func (l *local) close() {
	l.mu.Lock()
	socket := l.socket6
	l.socket6, l.closed = nil, true
	l.mu.Unlock()
	if socket != nil {
		socket.Close()
	}
}

func global6(d *DHT) (out []netip.Addr) {
	all, err := d.udx.LocalAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if isGlobal6(a) && len(out) < maxAddrs6 {
			out = append(out, a)
		}
	}
	return out
}

// addrs6 returns the addresses at which the machine may be reached by IPv6.
func (d *DHT) addrs6() (out []netip.AddrPort) {
	d.local.mu.Lock()
	socket := d.local.socket6
	d.local.mu.Unlock()
	if socket == nil {
		return nil
	}
	for _, a := range global6(d) {
		out = append(out, netip.AddrPortFrom(a, socket.LocalAddr().Port()))
	}
	return out
}

// localAddrs returns the addresses of the server socket on the networks the
// machine is in.
func (d *DHT) localAddrs() (out []netip.AddrPort) {
	socket := d.node.ServerSocket()
	if socket == nil {
		return nil
	}
	bound := socket.LocalAddr()
	if bound.Addr().IsLoopback() {
		return []netip.AddrPort{bound}
	}
	all, err := d.udx.LocalAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if a.Is4() {
			out = append(out, netip.AddrPortFrom(a, bound.Port()))
		}
	}
	if len(out) == 0 {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), bound.Port()))
	}
	return out
}

// validLocalAddrs returns those of localAddrs that the machine can send to
// itself at. The first call for an address may take half a second.
func (d *DHT) validLocalAddrs(ctx context.Context) (out []netip.AddrPort) {
	addrs := d.localAddrs()
	checks := make([]*validation, len(addrs))
	for i, a := range addrs {
		checks[i] = d.validate(a.Addr())
	}
	for i, c := range checks {
		select {
		case <-c.done:
			if c.ok {
				out = append(out, addrs[i])
			}
		case <-ctx.Done():
			return nil
		}
	}
	return out
}

// validate begins to check an address, unless that was done.
func (d *DHT) validate(addr netip.Addr) *validation {
	l := &d.local
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.valid[addr]; v != nil {
		return v
	}
	v := &validation{done: make(chan struct{})}
	l.valid[addr] = v
	var once sync.Once
	settle := func(ok bool) {
		once.Do(func() {
			v.ok = ok
			close(v.done)
		})
	}
	socket, err := d.udx.Listen(netip.AddrPortFrom(addr, 0), udx.SocketOptions{
		Receive: func(*udx.Socket, netip.AddrPort, []byte) { settle(true) },
	})
	if err != nil {
		settle(false)
		return v
	}
	timer := d.clock.AfterFunc(validateTime, func() { settle(false) })
	if !d.spawn(func() {
		socket.Send(socket.LocalAddr(), holepunchByte)
		<-v.done
		timer.Stop()
		socket.Close()
	}) {
		timer.Stop()
		settle(false)
		socket.Close()
	}
	return v
}

// try6 tries the other side's addresses of IPv6, while it does the same. The
// client takes the one that answers first.
func (d *DHT) try6(l *link, addrs []netip.AddrPort) {
	d.local.mu.Lock()
	defer d.local.mu.Unlock()
	var to []netip.AddrPort
	for _, a := range addrs {
		if d.local.socket6 != nil && isGlobal6(a.Addr()) && a.Port() != 0 && len(to) < maxAddrs6 {
			to = append(to, a)
			d.local.waiting[a] = l
		}
	}
	if len(to) > 0 {
		d.send6Locked(l, to, tries6)
	}
}

func (d *DHT) send6Locked(l *link, to []netip.AddrPort, tries int) {
	if d.local.socket6 == nil || tries == 0 || l.isDirect() {
		for _, a := range to {
			if d.local.waiting[a] == l {
				delete(d.local.waiting, a)
			}
		}
		return
	}
	for _, a := range to {
		sendByte(d.local.socket6, a, false)
	}
	d.clock.AfterFunc(pause6, func() {
		d.local.mu.Lock()
		defer d.local.mu.Unlock()
		d.send6Locked(l, to, tries-1)
	})
}

// receive6 gets what is no stream's.
func (l *local) receive6(s *udx.Socket, from netip.AddrPort, data []byte) {
	if len(data) != 1 {
		return
	}
	l.mu.Lock()
	link := l.waiting[from]
	l.mu.Unlock()
	switch {
	case link == nil:
	case link.initiator:
		link.useDirect(s, from)
	default:
		sendByte(s, from, false)
	}
}
