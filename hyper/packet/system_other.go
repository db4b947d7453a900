//go:build !linux

package packet

import (
	"errors"
	"net"
	"net/netip"
)

func newSocket(conn *net.UDPConn, local netip.AddrPort, receive Handler) (runner, error) {
	return newPlainSocket(conn, local, receive), nil
}

// ipv4Of finds the address by which systems name an interface to a group.
func ipv4Of(ifi *net.Interface) ([4]byte, error) {
	addrs, err := ifi.Addrs()
	if err != nil {
		return [4]byte{}, err
	}
	for _, a := range addrs {
		if ipnet, ok := a.(*net.IPNet); ok && ipnet.IP.To4() != nil {
			return [4]byte(ipnet.IP.To4()), nil
		}
	}
	return [4]byte{}, errors.New("it has no IPv4 address")
}
