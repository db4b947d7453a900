package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// Results that routers refuse with (RFC 6887 §7.4, RFC 6886 §3.5).
var pcpResults = map[byte]string{
	1: "unsupported version", 2: "not authorized", 3: "malformed request", 4: "unsupported operation",
	7: "network failure", 8: "no resources", 9: "unsupported protocol", 10: "quota exceeded",
	11: "can't provide that port", 12: "address mismatch", 13: "excessive remote peers",
}

var natpmpResults = map[uint16]string{1: "unsupported version", 2: "not authorized", 3: "network failure", 4: "out of resources", 5: "unsupported operation"}

// resends are when a request is sent again, if there is no answer. Routers are
// near, so it is sooner than the standards say.
var resends = []time.Duration{250 * time.Millisecond, 750 * time.Millisecond, 1750 * time.Millisecond}

// A wire leads to a router.
type wire struct {
	clock   clock.Clock
	gateway netip.AddrPort
}

// exchange sends a request until accept takes an answer, or ctx ends. The
// request is made for the address that this machine has towards the router.
func (w wire) exchange(ctx context.Context, request func(local netip.Addr) []byte, accept func(answer []byte) bool) error {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(w.gateway)) // hears that router only
	if err != nil {
		return err
	}
	defer conn.Close()
	data := request(conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
	past := time.Unix(1, 0)
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(past) })()
	for _, d := range resends {
		defer w.clock.AfterFunc(d, func() { conn.Write(data) }).Stop()
	}
	if _, err := conn.Write(data); err != nil {
		return err
	}
	var buf [1100]byte // the most that PCP allows (RFC 6887 §7)
	for {
		n, err := conn.Read(buf[:])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err // such as that nobody listens
		}
		if accept(buf[:n]) {
			return nil
		}
	}
}

// pcp is the Port Control Protocol.
type pcp struct {
	wire
	protocol Protocol
	port     uint16
	nonce    [12]byte
}

func newPCP(w wire, p Protocol, port uint16, random io.Reader) (*pcp, error) {
	c := &pcp{wire: w, protocol: p, port: port}
	_, err := io.ReadFull(random, c.nonce[:])
	return c, err
}

func (c *pcp) name() string { return "PCP" }

const (
	pcpVersion  = 2
	pcpAnnounce = 0
	pcpMap      = 1
	pcpHead     = 24
	pcpMapSize  = 60
	response    = 0x80
)

// header is that of a request (RFC 6887 §7.1).
func (c *pcp) header(op byte, life time.Duration, local netip.Addr) []byte {
	b := make([]byte, 8, pcpMapSize)
	b[0], b[1] = pcpVersion, op
	binary.BigEndian.PutUint32(b[4:], uint32(life/time.Second))
	a := local.As16()
	return append(b, a[:]...)
}

// checkPCP checks the header of a response (§7.2), which is said to be one for
// that operation.
func checkPCP(b []byte, op byte) (ours bool, err error) {
	if len(b) < 4 {
		return false, nil
	}
	if b[0] != pcpVersion {
		// A router that knows only NAT-PMP (§9).
		return b[1]&response != 0, fmt.Errorf("version %d", b[0])
	}
	if len(b) < pcpHead || len(b)%4 != 0 || b[1] != op|response {
		return false, nil
	}
	if b[3] != 0 {
		return true, refusal(pcpResults[b[3]], int(b[3]))
	}
	return true, nil
}

func refusal(text string, code int) error {
	if text == "" {
		text = "no reason"
	}
	return fmt.Errorf("the router refuses: %s (%d)", text, code)
}

func (c *pcp) probe(ctx context.Context) error {
	var result error
	err := c.exchange(ctx,
		func(local netip.Addr) []byte { return c.header(pcpAnnounce, 0, local) },
		func(b []byte) (ok bool) {
			ok, result = checkPCP(b, pcpAnnounce)
			return ok
		})
	return errors.Join(err, result)
}

func (c *pcp) mapPort(ctx context.Context, suggest netip.AddrPort, life time.Duration) (external netip.AddrPort, got time.Duration, err error) {
	var result error
	err = c.exchange(ctx, func(local netip.Addr) []byte {
		b := c.header(pcpMap, life, local)
		b = append(b, c.nonce[:]...)
		b = append(b, byte(c.protocol), 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, c.port)
		b = binary.BigEndian.AppendUint16(b, suggest.Port())
		a := netip.IPv4Unspecified()
		if suggest.Addr().Is4() {
			a = suggest.Addr()
		}
		a16 := a.As16()
		return append(b, a16[:]...)
	}, func(b []byte) (ok bool) {
		external, got, ok, result = c.parseMap(b)
		return ok
	})
	return external, got, errors.Join(err, result)
}

// parseMap reads the response to a MAP request (§11.1).
func (c *pcp) parseMap(b []byte) (external netip.AddrPort, life time.Duration, ours bool, err error) {
	if ours, err = checkPCP(b, pcpMap); !ours || err != nil {
		return external, 0, ours, err
	}
	if len(b) < pcpMapSize || !bytes.Equal(b[24:36], c.nonce[:]) || b[36] != byte(c.protocol) || binary.BigEndian.Uint16(b[40:]) != c.port {
		return external, 0, false, nil
	}
	life = time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second
	external = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[44:60])).Unmap(), binary.BigEndian.Uint16(b[42:]))
	return external, life, true, nil
}

// natpmp is the NAT Port Mapping Protocol.
type natpmp struct {
	wire
	protocol Protocol
	port     uint16
}

func (c *natpmp) name() string { return "NAT-PMP" }

func (c *natpmp) probe(ctx context.Context) error {
	_, err := c.address(ctx)
	return err
}

// address asks for the address outside (RFC 6886 §3.2).
func (c *natpmp) address(ctx context.Context) (addr netip.Addr, err error) {
	var result error
	err = c.exchange(ctx, func(netip.Addr) []byte { return []byte{0, 0} }, func(b []byte) (ok bool) {
		if ok, result = checkNATPMP(b, 0, 12); ok && result == nil {
			addr = netip.AddrFrom4([4]byte(b[8:12]))
		}
		return ok
	})
	return addr, errors.Join(err, result)
}

func checkNATPMP(b []byte, op byte, size int) (ours bool, err error) {
	if len(b) < 4 || b[0] != 0 || b[1] != op|response {
		return false, nil
	}
	if code := binary.BigEndian.Uint16(b[2:]); code != 0 {
		return true, refusal(natpmpResults[code], int(code))
	}
	return len(b) >= size, nil
}

func (c *natpmp) mapPort(ctx context.Context, suggest netip.AddrPort, life time.Duration) (external netip.AddrPort, got time.Duration, err error) {
	op := byte(1)
	if c.protocol == TCP {
		op = 2
	}
	want := suggest.Port()
	if life == 0 {
		want = 0 // §3.4
	}
	var addr netip.Addr
	if life > 0 {
		if addr, err = c.address(ctx); err != nil {
			return external, 0, err
		}
	}
	var result error
	err = c.exchange(ctx, func(netip.Addr) []byte {
		b := []byte{0, op, 0, 0}
		b = binary.BigEndian.AppendUint16(b, c.port)
		b = binary.BigEndian.AppendUint16(b, want)
		return binary.BigEndian.AppendUint32(b, uint32(life/time.Second))
	}, func(b []byte) (ok bool) {
		if ok, result = checkNATPMP(b, op, 16); !ok || result != nil {
			return ok
		}
		if binary.BigEndian.Uint16(b[8:]) != c.port {
			return false
		}
		external = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[10:]))
		got = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second
		return true
	})
	return external, got, errors.Join(err, result)
}
