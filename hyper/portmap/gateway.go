package portmap

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
)

// maxGateways is how many routers are asked.
const maxGateways = 4

// findGateways returns the routers of the machine: those that the system names,
// where it has a file for that, and otherwise those that are likely.
func findGateways() []netip.Addr {
	if data, err := os.ReadFile("/proc/net/route"); err == nil {
		return routes(data)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p)
		}
	}
	return likely(own)
}

// routes reads the default routes of Linux.
func routes(data []byte) (list []netip.Addr) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() && len(list) < maxGateways {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		raw, err := hex.DecodeString(f[2])
		if err != nil || len(raw) != 4 {
			continue
		}
		// The file has numbers in the machine's byte order.
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], binary.BigEndian.Uint32(raw))
		if a := netip.AddrFrom4(b); !a.IsUnspecified() {
			list = append(list, a)
		}
	}
	return list
}

// likely guesses: home routers have the first address of their network.
func likely(own []netip.Prefix) (list []netip.Addr) {
	for _, p := range own {
		if p.Addr().Is4() && p.Addr().IsPrivate() && len(list) < maxGateways {
			list = append(list, p.Masked().Addr().Next())
		}
	}
	return list
}
