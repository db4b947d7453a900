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

func (p Probe) String() string {
	port := "kept"
	if !p.Kept {
		port = "changed"
	}
	return fmt.Sprintf("mapping %v, filtering %v, port %s", p.Mapping, p.Filtering, port)
}

// errBlocked is what a probe finds if nothing comes back.
var errBlocked = errors.New("no answer")

// The sockets of a Prober: an address and a port, another port of that address,
// and another address.
const (
	main = iota
	otherPort
	otherAddr
)

// A Prober answers probes on the internet. It has two addresses.
type Prober struct {
	socks    [3]*net.UDPConn
	routines sync.WaitGroup
}

// NewProber starts a Prober on two addresses of this machine. To be in a host,
// it is called by Host.Do.
func NewProber(a, b netip.Addr) (*Prober, error) {
	p := &Prober{}
	for i, addr := range []netip.Addr{a, a, b} {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
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
func (p *Prober) answer(conn *net.UDPConn) {
	buf := make([]byte, 16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 1 || int(buf[0]) >= len(p.socks) {
			continue
		}
		seen, _ := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()).MarshalText()
		_, _ = p.socks[buf[0]].WriteToUDPAddrPort(append(buf[:1:1], seen...), from)
	}
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
func (p *Prober) Seen(conn *net.UDPConn) (netip.AddrPort, error) {
	seen, ok := p.ask(conn, main, main)
	if !ok {
		return seen, fmt.Errorf("probe: %w", errBlocked)
	}
	return seen, nil
}

// Probe finds out what is between this machine, or the host whose Do calls it,
// and the Prober. It fails if UDP is blocked.
func (p *Prober) Probe() (Probe, error) {
	conn, err := net.ListenUDP("udp4", nil)
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
		return Probe{}, fmt.Errorf("probe: %w of a second address", errBlocked)
	case first == second && first == third:
		result.Mapping = Independent
	case first == second:
		result.Mapping = Address
	}
	result.Kept = int(first.Port()) == conn.LocalAddr().(*net.UDPAddr).Port
	return result, nil
}

// ask sends to a socket of the prober, and returns as whom it saw us once it has
// answered by another one.
func (p *Prober) ask(conn *net.UDPConn, to, by int) (seen netip.AddrPort, ok bool) {
	addr := p.socks[to].LocalAddr().(*net.UDPAddr).AddrPort()
	buf := make([]byte, 64)
	for range 2 {
		if _, err := conn.WriteToUDPAddrPort([]byte{byte(by)}, addr); err != nil {
			return seen, false
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return seen, false
		}
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
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
