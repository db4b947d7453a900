package natlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Probe is what was found out about the NATs before a host.
type Probe struct {
	Mapping, Filtering Behavior
	// Kept tells that the port outside is the one inside.
	Kept bool
	// Seen is the host's address outside.
	Seen netip.AddrPort
}

// Probed is what a probe of a site of this kind must find, but for Seen; nothing, if no UDP goes out.
func (k Kind) Probed() (p Probe, udp bool) {
	p.Kept = true
	for _, nat := range k.NATs() {
		p.Mapping, p.Filtering = max(p.Mapping, nat.Mapping), max(p.Filtering, nat.Filtering)
		p.Kept = p.Kept && nat.Mapping == Independent
	}
	return p, !k.NoUDP()
}

func (p Probe) String() string {
	port := "kept"
	if !p.Kept {
		port = "changed"
	}
	return fmt.Sprintf("mapping %v, filtering %v, port %s", p.Mapping, p.Filtering, port)
}

// ErrBlocked is what a probe finds if nothing comes back.
var ErrBlocked = errors.New("no answer")

// The sockets of a Prober: an address and a port, another port of that address,
// and another address.
const (
	main = iota
	otherPort
	otherAddr
)

// Listen opens a socket. Those of a network in memory can be probed as well.
type Listen func(addr netip.AddrPort) (net.PacketConn, error)

// ListenUDP opens a socket of this machine, or of the host whose Do calls it.
func ListenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
}

// A Prober answers probes on the internet. It has two addresses.
type Prober struct {
	socks    [3]net.PacketConn
	routines sync.WaitGroup
}

// NewProber starts a Prober on two addresses.
func NewProber(listen Listen, a, b netip.Addr) (*Prober, error) {
	p := &Prober{}
	for i, addr := range []netip.Addr{a, a, b} {
		conn, err := listen(netip.AddrPortFrom(addr, 0))
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("answer probes: %w", err)
		}
		p.socks[i] = conn
	}
	for i := range p.socks {
		p.routines.Go(func() { p.answer(p.socks[i]) })
	}
	return p, nil
}

// answer sends what a packet asks for: by the socket that it names.
func (p *Prober) answer(conn net.PacketConn) {
	buf := make([]byte, 16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 1 || int(buf[0]) >= len(p.socks) {
			continue
		}
		seen, _ := addrPort(from).MarshalText()
		_, _ = p.socks[buf[0]].WriteTo(append(buf[:1:1], seen...), from)
	}
}

// addrPort is the address of a socket in its short form.
func addrPort(a net.Addr) netip.AddrPort {
	addr := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// Close ends it.
func (p *Prober) Close() {
	for _, conn := range p.socks {
		if conn != nil {
			conn.Close()
		}
	}
	p.routines.Wait()
}

// Seen returns as whom the Prober sees a socket.
func (p *Prober) Seen(conn net.PacketConn) (netip.AddrPort, error) {
	seen, ok := p.ask(conn, main, main)
	if !ok {
		return seen, fmt.Errorf("probe: %w", ErrBlocked)
	}
	return seen, nil
}

// Probe finds out what is between a new socket and the Prober. It fails if UDP
// is blocked.
func (p *Prober) Probe(listen Listen) (Probe, error) {
	conn, err := listen(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return Probe{}, fmt.Errorf("probe: %w", err)
	}
	defer conn.Close()
	first, err := p.Seen(conn)
	if err != nil {
		return Probe{}, err
	}
	result := Probe{Seen: first, Filtering: AddressAndPort, Mapping: AddressAndPort}
	// Filtering comes first: nothing was sent to the other two so far.
	if _, ok := p.ask(conn, main, otherAddr); ok {
		result.Filtering = Independent
	} else if _, ok := p.ask(conn, main, otherPort); ok {
		result.Filtering = Address
	}
	second, ok2 := p.ask(conn, otherPort, otherPort)
	third, ok3 := p.ask(conn, otherAddr, otherAddr)
	switch {
	case !ok2 || !ok3:
		return Probe{}, fmt.Errorf("probe: %w of a second address", ErrBlocked)
	case first == second && first == third:
		result.Mapping = Independent
	case first == second:
		result.Mapping = Address
	}
	result.Kept = first.Port() == addrPort(conn.LocalAddr()).Port()
	return result, nil
}

// ask sends to a socket of the prober, and returns as whom it saw us once it has
// answered by another one.
func (p *Prober) ask(conn net.PacketConn, to, by int) (seen netip.AddrPort, ok bool) {
	addr := p.socks[to].LocalAddr()
	buf := make([]byte, 64)
	for range 2 {
		if _, err := conn.WriteTo([]byte{byte(by)}, addr); err != nil {
			return seen, false
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return seen, false
		}
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				break
			}
			if n > 1 && int(buf[0]) == by && seen.UnmarshalText(buf[1:n]) == nil {
				return seen, true
			}
		}
	}
	return seen, false
}

// patience is how long a probe waits for an answer in the lab.
const patience = 150 * time.Millisecond
