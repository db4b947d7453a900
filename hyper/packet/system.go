package packet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
)

// System is the machine's network.
var System Network = system{}

type system struct{}

const (
	// readBuffer is how much the kernel is asked to hold of what came in. A burst
	// of a fast sender fits into it.
	readBuffer = 4 << 20
	// writeBuffer is how much it is asked to hold of what is to go out. More would
	// only wait longer before a slow line.
	writeBuffer = 512 << 10
)

// multicastTTL is what RFC 6762 §11 wants of packets to a group.
const multicastTTL = 255

// Listen implements Network.
func (system) Listen(addr netip.AddrPort, receive Handler) (Conn, error) {
	return listen(addr, receive, setOptions)
}

// ListenMulticast implements Network.
func (system) ListenMulticast(group netip.AddrPort, ifname string, receive Handler) (Conn, error) {
	if !group.Addr().IsMulticast() {
		return nil, fmt.Errorf("listen on %s: not a group", group)
	}
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: interface %s: %w", group, ifname, err)
	}
	// The net package binds the wildcard address for a group's, and shares the port.
	return listen(group, receive, func(fd uintptr, v6 bool) error {
		setOptions(fd, v6)
		if err := joinGroup(fd, group.Addr(), ifi); err != nil {
			return fmt.Errorf("join on %s: %w", ifname, err)
		}
		return nil
	})
}

// A runner is a Conn that has to be run.
type runner interface {
	Conn
	read()
}

func listen(addr netip.AddrPort, receive Handler, options func(fd uintptr, v6 bool) error) (Conn, error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	v6 := addr.Addr().Is6()
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if err2 := raw.Control(func(fd uintptr) { err = options(fd, v6) }); err2 != nil {
			return err2
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, err // it says what was tried
	}
	udp := conn.(*net.UDPConn)
	local := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	s, err := newSocket(udp, netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), receive)
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	go s.read()
	return s, nil
}

// LocalAddrs implements Network.
func (system) LocalAddrs() ([]netip.Addr, error) {
	all, err := interfaces()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, ifi := range all {
		if ifi.Loopback {
			continue
		}
		for _, p := range ifi.Addrs {
			addrs = append(addrs, p.Addr())
		}
	}
	return addrs, nil
}

// Interfaces implements Network.
func (system) Interfaces() ([]Interface, error) {
	all, err := interfaces()
	if err != nil {
		return nil, err
	}
	var outer, loopback []Interface
	for _, ifi := range all {
		switch {
		case ifi.Loopback:
			loopback = append(loopback, ifi.Interface)
		case ifi.multicast:
			outer = append(outer, ifi.Interface)
		}
	}
	return append(outer, loopback...), nil
}

// Lookup returns the IPv4 and IPv6 addresses that the machine's resolver has for
// a name.
func Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

type systemInterface struct {
	Interface
	multicast bool
}

func interfaces() ([]systemInterface, error) {
	zones.Clear()
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var all []systemInterface
	for _, ifi := range list {
		if ifi.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		one := systemInterface{Interface{Name: ifi.Name, Loopback: ifi.Flags&net.FlagLoopback != 0}, ifi.Flags&net.FlagMulticast != 0}
		for _, a := range addrs {
			ipnet, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(ipnet.IP)
			if !ok {
				continue
			}
			bits, _ := ipnet.Mask.Size()
			one.Addrs = append(one.Addrs, netip.PrefixFrom(ip.Unmap(), bits))
		}
		all = append(all, one)
	}
	return all, nil
}

// zones are the names of interfaces by their numbers, and the numbers by the
// names: an address on a link carries the one in Go and the other in the kernel.
// To ask the kernel each time takes too long. An interface that goes away and
// comes back has another number, so they are forgotten when somebody looks what
// interfaces there are, which who lives long does now and then.
var zones sync.Map

func zoneName(index uint32) string {
	if name, ok := zones.Load(index); ok {
		return name.(string)
	}
	name := strconv.FormatUint(uint64(index), 10)
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		name = ifi.Name
	}
	zones.Store(index, name)
	return name
}

func zoneIndex(name string) uint32 {
	if index, ok := zones.Load(name); ok {
		return index.(uint32)
	}
	var index uint32
	if ifi, err := net.InterfaceByName(name); err == nil {
		index = uint32(ifi.Index)
	} else if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		index = uint32(n)
	}
	if index != 0 { // names come from anywhere: keep those that exist
		zones.Store(name, index)
	}
	return index
}
