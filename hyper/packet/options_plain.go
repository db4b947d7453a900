//go:build windows || (unix && !linux)

package packet

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// setOptions sets what can be set; nothing of it has to be.
func setOptions(fd uintptr, v6 bool) error {
	setFragment(fd, v6, false)
	return nil
}

// setFragment tells whether what is sent from now on may be cut on its way.
func setFragment(fd uintptr, v6, may bool) {
	dont := 1
	if may {
		dont = 0
	}
	if v6 && dontFragment6 != 0 {
		syscall.SetsockoptInt(descriptor(fd), syscall.IPPROTO_IPV6, dontFragment6, dont)
	} else if !v6 && dontFragment != 0 {
		syscall.SetsockoptInt(descriptor(fd), syscall.IPPROTO_IP, dontFragment, dont)
	}
}

func joinGroup(fd uintptr, group netip.Addr, ifi *net.Interface) error {
	s := descriptor(fd)
	if group.Is6() {
		return errors.Join(
			syscall.SetsockoptInt(s, syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_IF, ifi.Index),
			syscall.SetsockoptInt(s, syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, multicastTTL),
			syscall.SetsockoptInt(s, syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_LOOP, 1),
			syscall.SetsockoptIPv6Mreq(s, syscall.IPPROTO_IPV6, syscall.IPV6_JOIN_GROUP, &syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(ifi.Index)}),
		)
	}
	addr, err := ipv4Of(ifi)
	if err != nil {
		return err
	}
	return errors.Join(
		syscall.SetsockoptInet4Addr(s, syscall.IPPROTO_IP, syscall.IP_MULTICAST_IF, addr),
		setByte(s, syscall.IPPROTO_IP, syscall.IP_MULTICAST_TTL, multicastTTL),
		setByte(s, syscall.IPPROTO_IP, syscall.IP_MULTICAST_LOOP, 1),
		syscall.SetsockoptIPMreq(s, syscall.IPPROTO_IP, syscall.IP_ADD_MEMBERSHIP, &syscall.IPMreq{Multiaddr: group.As4(), Interface: addr}),
	)
}

func setTTL(fd uintptr, v6 bool, ttl int) error {
	if v6 {
		return syscall.SetsockoptInt(descriptor(fd), syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS, ttl)
	}
	return syscall.SetsockoptInt(descriptor(fd), syscall.IPPROTO_IP, syscall.IP_TTL, ttl)
}
