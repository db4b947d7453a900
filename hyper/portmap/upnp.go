package portmap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/soap"

	"github.com/cloudbevy/bevy/hyper/clock"
)

const (
	// maxDescription is how long what a router sends may be.
	maxDescription = 256 << 10
	// maxAnswers is how many devices are looked at.
	maxAnswers = 16
	// Errors of AddPortMapping (WANIPConnection:1 §2.4.16).
	conflictError      = 718
	samePortsError     = 724
	onlyPermanentError = 725
)

var ssdpGroup = netip.MustParseAddrPort("239.255.255.250:1900")

// connections are the services that map ports, best first.
var connections = []string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

// upnp is an Internet Gateway Device.
type upnp struct {
	clock    clock.Clock
	gateways []netip.Addr
	protocol Protocol
	port     uint16
	group    netip.AddrPort
	random   io.Reader

	// After probe.
	service string
	client  *soap.SOAPClient
	local   netip.Addr // of this machine towards the router
}

func (u *upnp) name() string { return "UPnP" }

// probe looks for a router that knows UPnP, by multicast and by asking the
// gateways.
func (u *upnp) probe(ctx context.Context) error {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	past := time.Unix(1, 0)
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(past) })()
	group := u.group
	if !group.IsValid() {
		group = ssdpGroup
	}
	to := []netip.AddrPort{group}
	for _, g := range u.gateways {
		to = append(to, netip.AddrPortFrom(g, group.Port()))
	}
	ask := func() {
		for _, target := range []string{"urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"} {
			// UPnP Device Architecture 1.1 §1.3.2.
			request := "M-SEARCH * HTTP/1.1\r\nHOST: " + group.String() + "\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + target + "\r\n\r\n"
			for _, a := range to {
				conn.WriteToUDPAddrPort([]byte(request), a) // others may go
			}
		}
	}
	ask()
	defer u.clock.AfterFunc(resends[0], ask).Stop()
	var seen []string
	var errs []error
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			if len(errs) > 0 {
				return errors.New(oneLine(errs))
			}
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		where, err := location(buf[:n], from.Addr().Unmap())
		if err != nil || slices.Contains(seen, where.String()) || len(seen) == maxAnswers {
			continue
		}
		seen = append(seen, where.String())
		if err := u.describe(ctx, where); err != nil {
			errs = append(errs, err)
			continue
		}
		return nil
	}
}

// location reads the answer of a device: where it describes itself. That has
// to be the device itself; it does not send us elsewhere.
func location(answer []byte, from netip.Addr) (*url.URL, error) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	where, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil, err
	}
	return where, itself(where, from)
}

func itself(where *url.URL, device netip.Addr) error {
	host, err := netip.ParseAddr(where.Hostname())
	if err != nil || where.Scheme != "http" || host.Unmap() != device {
		return fmt.Errorf("%s is not at %s", where.Redacted(), device)
	}
	return nil
}

// describe reads the description of a device, and finds the service in it.
func (u *upnp) describe(ctx context.Context, where *url.URL) error {
	client := httpClient()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("describe router: status %s", resp.Status)
	}
	root := &goupnp.RootDevice{}
	d := xml.NewDecoder(resp.Body)
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := d.Decode(root); err != nil {
		return fmt.Errorf("describe router: %w", err)
	}
	base := where
	if root.URLBaseStr != "" {
		if base, err = url.Parse(root.URLBaseStr); err != nil {
			return fmt.Errorf("describe router: %w", err)
		}
	}
	root.SetURLBase(base)
	best := len(connections)
	var control url.URL
	root.Device.VisitServices(func(s *goupnp.Service) {
		if i := slices.Index(connections, s.ServiceType); i >= 0 && i < best && s.ControlURL.Ok {
			best, control = i, s.ControlURL.URL
		}
	})
	if best == len(connections) {
		return errors.New("the router maps no ports")
	}
	device, err := netip.ParseAddr(where.Hostname())
	if err == nil {
		err = itself(&control, device.Unmap())
	}
	if err != nil {
		return err
	}
	if u.local, err = localTowards(device); err != nil {
		return err
	}
	u.service = connections[best]
	u.client = soap.NewSOAPClient(control)
	u.client.HTTPClient = *client
	return nil
}

// localTowards is the address that this machine has towards another.
func localTowards(a netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// httpClient talks to routers: it goes nowhere else, through no proxy, and
// reads little.
func httpClient() *http.Client {
	return &http.Client{
		Transport:     limited{&http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the router sends us elsewhere") },
	}
}

type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxDescription), resp.Body}
	}
	return resp, err
}

// call has the router do something. Arguments and results are structs with
// strings, named as the service names them.
func (u *upnp) call(ctx context.Context, action string, in, out any) error {
	err := u.client.PerformActionCtx(ctx, u.service, action, in, out)
	var fault *soap.SOAPFaultError
	if errors.As(err, &fault) && fault.Detail.UPnPError.Errorcode != 0 {
		return upnpError(fault.Detail.UPnPError.Errorcode)
	}
	return err
}

// upnpError is the code of an error of a router.
type upnpError int

func (e upnpError) Error() string { return fmt.Sprintf("the router refuses: error %d", int(e)) }

// addPortMapping are the arguments of AddPortMapping, in their order.
type addPortMapping struct {
	NewRemoteHost             string
	NewExternalPort           string
	NewProtocol               string
	NewInternalPort           string
	NewInternalClient         string
	NewEnabled                string
	NewPortMappingDescription string
	NewLeaseDuration          string
}

type deletePortMapping struct{ NewRemoteHost, NewExternalPort, NewProtocol string }

func (u *upnp) mapPort(ctx context.Context, suggest netip.AddrPort, life time.Duration) (external netip.AddrPort, got time.Duration, err error) {
	outside := suggest.Port()
	if life == 0 {
		return external, 0, u.call(ctx, "DeletePortMapping", &deletePortMapping{"", strconv.Itoa(int(outside)), u.protocol.String()}, nil)
	}
	var address struct{ NewExternalIPAddress string }
	if err := u.call(ctx, "GetExternalIPAddress", nil, &address); err != nil {
		return external, 0, err
	}
	addr, err := netip.ParseAddr(address.NewExternalIPAddress)
	if err != nil {
		return external, 0, fmt.Errorf("the router does not know its address: %w", err)
	}
	const tries = 4
	for try := 0; ; try++ {
		err = u.call(ctx, "AddPortMapping", &addPortMapping{
			NewExternalPort: strconv.Itoa(int(outside)), NewProtocol: u.protocol.String(),
			NewInternalPort: strconv.Itoa(int(u.port)), NewInternalClient: u.local.String(),
			NewEnabled: "1", NewPortMappingDescription: "hyper", NewLeaseDuration: strconv.Itoa(int(life / time.Second)),
		}, nil)
		var code upnpError
		errors.As(err, &code)
		switch {
		case err == nil:
			if life == 0 {
				life = lifetime // it is for ever, and renewed nevertheless
			}
			return netip.AddrPortFrom(addr, outside), life, nil
		case try == tries:
			return external, 0, err
		case code == onlyPermanentError && life != 0:
			life = 0
		case code == samePortsError && outside != u.port:
			outside = u.port
		case code == conflictError:
			// Somebody else has the port.
			var b [2]byte
			if _, err := io.ReadFull(u.random, b[:]); err != nil {
				return external, 0, err
			}
			outside = 49152 + (uint16(b[0])<<8|uint16(b[1]))%16384
		default:
			return external, 0, err
		}
	}
}
