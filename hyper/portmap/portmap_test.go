package portmap

import (
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A router is one on the loopback network, which speaks what it is told to.
type router struct {
	t    *testing.T
	pcp  *net.UDPConn // and NAT-PMP
	ssdp *net.UDPConn
	http *httptest.Server

	mu         sync.Mutex
	speaks     []string // PCP, NAT-PMP, UPnP
	address    netip.Addr
	maps       map[uint16]uint16 // outside to inside
	taken      []uint16
	permanent  bool
	refusePCP  byte
	life       uint32
	heard      []string
	drop       int    // of the next datagrams
	elsewhere  string // what SSDP says instead of where it is
	controlURL string
}

func newRouter(t *testing.T, speaks ...string) *router {
	r := &router{t: t, speaks: speaks, address: netip.MustParseAddr("203.0.113.5"), maps: map[uint16]uint16{}, life: 3600, controlURL: "/control"}
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	r.pcp, r.ssdp = listen(), listen()
	r.http = httptest.NewServer(http.HandlerFunc(r.serveHTTP))
	var wg sync.WaitGroup
	wg.Go(func() { r.serve(r.pcp, r.answer) })
	wg.Go(func() { r.serve(r.ssdp, r.search) })
	t.Cleanup(func() {
		r.pcp.Close()
		r.ssdp.Close()
		r.http.Close()
		wg.Wait()
	})
	return r
}

func (r *router) options(c clock.Clock) Options {
	return Options{
		Gateway: netip.MustParseAddr("127.0.0.1"), Clock: c,
		pcpPort: r.pcp.LocalAddr().(*net.UDPAddr).AddrPort().Port(),
		ssdp:    r.ssdp.LocalAddr().(*net.UDPAddr).AddrPort(),
	}
}

func (r *router) serve(c *net.UDPConn, answer func([]byte) []byte) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		reply := answer(buf[:n])
		if r.drop > 0 && reply != nil {
			r.drop--
			reply = nil
		}
		r.mu.Unlock()
		if reply != nil {
			c.WriteToUDPAddrPort(reply, from)
		}
	}
}

// with calls f with the lock.
func (r *router) with(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *router) note(format string, args ...any) {
	r.heard = append(r.heard, fmt.Sprintf(format, args...))
}

// free is the port that somebody gets who wants one.
func (r *router) free(want, inside uint16) uint16 {
	for slices.Contains(r.taken, want) || want == 0 {
		want++
	}
	r.maps[want] = inside
	return want
}

func (r *router) unmap(inside uint16) {
	for out, in := range r.maps {
		if in == inside {
			delete(r.maps, out)
		}
	}
}

func (r *router) answer(b []byte) []byte {
	be := binary.BigEndian
	switch {
	case b[0] == 0 && slices.Contains(r.speaks, "NAT-PMP"):
		if b[1] == 0 {
			a := r.address.As4()
			return append([]byte{0, 128, 0, 0, 0, 0, 0, 1}, a[:]...)
		}
		inside, want, life := be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint32(b[8:])
		r.note("NAT-PMP %d", life)
		out := []byte{0, b[1] | 128, 0, 0, 0, 0, 0, 1}
		if life == 0 {
			r.unmap(inside)
			out = be.AppendUint16(out, inside)
			return append(out, 0, 0, 0, 0, 0, 0)
		}
		out = be.AppendUint16(out, inside)
		out = be.AppendUint16(out, r.free(want, inside))
		return be.AppendUint32(out, min(life, r.life))
	case b[0] == 2 && slices.Contains(r.speaks, "PCP"):
		out := slices.Clone(b)
		out[1] |= 128
		out[3] = r.refusePCP
		if b[1] == pcpAnnounce {
			out[3] = 0
			return out
		}
		life := be.Uint32(b[4:])
		r.note("PCP %d", life)
		inside := be.Uint16(b[40:])
		be.PutUint32(out[4:], min(life, r.life))
		if life == 0 {
			r.unmap(inside)
			return out
		}
		be.PutUint16(out[42:], r.free(be.Uint16(b[42:]), inside))
		a := r.address.As16()
		copy(out[44:], a[:])
		return out
	case b[0] == 2 && slices.Contains(r.speaks, "NAT-PMP"):
		return []byte{0, b[1] | 128, 0, 1, 0, 0, 0, 1} // unsupported version
	}
	return nil
}

func (r *router) search(b []byte) []byte {
	if !strings.HasPrefix(string(b), "M-SEARCH * HTTP/1.1\r\n") || !strings.Contains(string(b), "ssdp:discover") || !slices.Contains(r.speaks, "UPnP") {
		return nil
	}
	where := r.http.URL + "/root.xml"
	if r.elsewhere != "" {
		where = r.elsewhere
	}
	return []byte("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nUSN: uuid:1\r\nLOCATION: " + where + "\r\n\r\n")
}

func (r *router) serveHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.URL.Path == "/root.xml" {
		fmt.Fprintf(w, `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<deviceList><device><deviceList><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>x</serviceId>
<SCPDURL>/scpd</SCPDURL><controlURL>%s</controlURL><eventSubURL>/e</eventSubURL></service></serviceList></device></deviceList></device></deviceList></device></root>`, r.controlURL)
		return
	}
	body, _ := io.ReadAll(req.Body)
	var in struct {
		Body struct {
			Action struct {
				XMLName                                                                                        xml.Name
				NewExternalPort, NewInternalPort                                                               uint16
				NewProtocol, NewInternalClient, NewEnabled, NewLeaseDuration, NewPortMappingDescription, Other string
			} `xml:",any"`
		}
	}
	if err := xml.Unmarshal(body, &in); err != nil {
		r.t.Errorf("request %s: %v", body, err)
	}
	fault := func(code int) {
		w.WriteHeader(500)
		fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
	}
	a := in.Body.Action
	result := ""
	switch a.XMLName.Local {
	case "GetExternalIPAddress":
		result = "<NewExternalIPAddress>" + r.address.String() + "</NewExternalIPAddress>"
	case "AddPortMapping":
		r.note("UPnP %s %s %s", a.NewProtocol, a.NewInternalClient, a.NewLeaseDuration)
		switch {
		case r.permanent && a.NewLeaseDuration != "0":
			fault(onlyPermanentError)
			return
		case slices.Contains(r.taken, a.NewExternalPort):
			fault(conflictError)
			return
		}
		r.maps[a.NewExternalPort] = a.NewInternalPort
	case "DeletePortMapping":
		r.note("UPnP delete")
		delete(r.maps, a.NewExternalPort)
	default:
		fault(401)
		return
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%sResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">%s</u:%sResponse></s:Body></s:Envelope>`, a.XMLName.Local, result, a.XMLName.Local)
}

func (r *router) requests() (n int) {
	r.with(func() { n = len(r.heard) })
	return n
}

func (r *router) mapped() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.maps)
}

func TestMapping(t *testing.T) {
	all := []string{"PCP", "NAT-PMP", "UPnP"}
	for _, c := range []struct {
		name   string
		speaks []string
		want   string
		change func(*router)
		port   uint16 // outside, if it is known
	}{
		{"PCP", all[:1], "PCP", nil, 4000},
		{"NAT-PMP", all[1:2], "NAT-PMP", nil, 4000},
		{"UPnP", all[2:], "UPnP", nil, 4000},
		{"all", all, "PCP", nil, 4000},
		{"not PCP", all[1:], "NAT-PMP", nil, 4000},
		{"PCP that refuses", all, "NAT-PMP", func(r *router) { r.refusePCP = 2 }, 4000},
		{"PCP that refuses, and UPnP", []string{"PCP", "UPnP"}, "UPnP", func(r *router) { r.refusePCP = 2 }, 4000},
		{"taken, PCP", all, "PCP", func(r *router) { r.taken = []uint16{4000} }, 4001},
		{"taken, UPnP", all[2:], "UPnP", func(r *router) { r.taken = []uint16{4000} }, 0},
		{"permanent only", all[2:], "UPnP", func(r *router) { r.permanent = true }, 4000},
		{"lost packets", all[:2], "", func(r *router) { r.drop = 2 }, 4000},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRouter(t, c.speaks...)
			if c.change != nil {
				r.with(func() { c.change(r) })
			}
			m, err := Map(t.Context(), UDP, 4000, r.options(nil))
			if err != nil {
				t.Fatal(err)
			}
			if c.want != "" && m.Method() != c.want {
				t.Errorf("mapped by %s", m.Method())
			}
			at := m.External()
			if at.Addr() != r.address || c.port != 0 && at.Port() != c.port || at.Port() == 4000 && len(r.taken) > 0 {
				t.Errorf("mapped to %v", at)
			}
			if got, want := r.mapped(), fmt.Sprint(map[uint16]uint16{at.Port(): 4000}); got != want {
				t.Errorf("the router maps %s, want %s", got, want)
			}
			if m.Lifetime() != time.Hour {
				t.Errorf("for %v", m.Lifetime())
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if got := r.mapped(); got != "map[]" {
				t.Errorf("after Close, the router maps %s", got)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNoRouter(t *testing.T) {
	r := newRouter(t) // one that says nothing
	c := clock.NewFake(time.Unix(1_800_000_000, 0))
	done := make(chan error)
	go func() {
		_, err := Map(context.Background(), TCP, 80, r.options(c))
		done <- err
	}()
	for waited := time.Duration(0); ; waited += 10 * time.Millisecond {
		select {
		case err := <-done:
			if !errors.Is(err, ErrNone) {
				t.Errorf("error %v", err)
			}
			if waited > 2*probeTime {
				t.Errorf("after %v of the clock", waited)
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := Map(ctx, TCP, 80, r.options(c)); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			return
		case <-time.After(time.Millisecond):
			c.Advance(10 * time.Millisecond)
		}
	}
}

// mapOn is Map on a clock that goes on meanwhile.
func mapOn(t *testing.T, c *clock.Fake, p Protocol, r *router) *Mapping {
	t.Helper()
	done := make(chan struct{})
	var m *Mapping
	var err error
	go func() {
		defer close(done)
		m, err = Map(t.Context(), p, 4000, r.options(c))
	}()
	for {
		select {
		case <-done:
			if err != nil {
				t.Fatal(err)
			}
			return m
		case <-time.After(time.Millisecond):
			c.Advance(10 * time.Millisecond)
		}
	}
}

func TestMappingsAreRenewed(t *testing.T) {
	for _, speaks := range []string{"PCP", "NAT-PMP", "UPnP"} {
		t.Run(speaks, func(t *testing.T) {
			r := newRouter(t, speaks)
			c := clock.NewFake(time.Unix(1_800_000_000, 0))
			m := mapOn(t, c, TCP, r)
			var changes []netip.AddrPort
			m.OnChange(func(a netip.AddrPort) { changes = append(changes, a) })
			c.Advance(lifetime/2 - time.Second)
			heard := r.requests()
			c.Advance(2 * time.Second)
			if r.requests() == heard || len(changes) != 0 {
				t.Errorf("heard %d requests, changes %v", r.requests(), changes)
			}
			// The router gets another address.
			r.mu.Lock()
			r.address = netip.MustParseAddr("203.0.113.99")
			r.mu.Unlock()
			c.Advance(lifetime / 2)
			if len(changes) != 1 || changes[0] != netip.AddrPortFrom(r.address, 4000) || m.External() != changes[0] {
				t.Errorf("changes %v", changes)
			}
			if !m.Public() {
				t.Error("not public")
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if c.Waiting() != 0 {
				t.Errorf("%d timers are left", c.Waiting())
			}
		})
	}
}

func TestAMappingThatIsGoneIsTold(t *testing.T) {
	r := newRouter(t, "PCP")
	c := clock.NewFake(time.Unix(1_800_000_000, 0))
	m := mapOn(t, c, UDP, r)
	var changes []netip.AddrPort
	m.OnChange(func(a netip.AddrPort) { changes = append(changes, a) })
	r.mu.Lock()
	r.refusePCP = 8
	r.mu.Unlock()
	c.Advance(lifetime + retryTime)
	if len(changes) != 1 || changes[0].IsValid() || m.External().IsValid() {
		t.Errorf("changes %v", changes)
	}
	r.mu.Lock()
	r.refusePCP = 0
	r.mu.Unlock()
	c.Advance(retryTime)
	if len(changes) != 2 || !changes[1].IsValid() {
		t.Errorf("changes %v", changes)
	}
}

func TestAddressesBehindAnotherRouterAreNotPublic(t *testing.T) {
	for addr, public := range map[string]bool{"203.0.113.5": true, "192.168.1.2": false, "100.64.3.4": false, "10.0.0.1": false} {
		m := &Mapping{external: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)}
		if m.Public() != public {
			t.Errorf("%s: public %v", addr, m.Public())
		}
	}
}

// A device sends us nowhere else, and its description is only read so far.
func TestHostileDevices(t *testing.T) {
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer other.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(other.URL, "http://"))
	for name, change := range map[string]func(*router){
		"another host":         func(r *router) { r.elsewhere = "http://localhost:" + port + "/root.xml" },
		"another scheme":       func(r *router) { r.elsewhere = "file:///etc/passwd" },
		"control elsewhere":    func(r *router) { r.controlURL = "http://127.0.0.2:" + port + "/" },
		"an answer of nothing": func(r *router) { r.elsewhere = " " },
	} {
		r := newRouter(t, "UPnP")
		r.with(func() { change(r) })
		o := r.options(nil)
		u := &upnp{clock: clock.System, protocol: UDP, port: 1, group: o.ssdp}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := u.probe(ctx); err == nil {
			t.Errorf("%s: taken", name)
		}
		cancel()
	}
	if asked {
		t.Error("another host was asked")
	}
	body, err := limited{fixed(strings.Repeat("<x>", maxDescription))}.RoundTrip(nil)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(body.Body); err != nil || len(data) != maxDescription {
		t.Errorf("read %d bytes, %v", len(data), err)
	}
}

type fixed string

func (f fixed) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{Body: io.NopCloser(strings.NewReader(string(f)))}, nil
}

func TestGateways(t *testing.T) {
	table := "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\nbad\n"
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		if got := routes([]byte(table)); len(got) != 1 || got[0] != netip.MustParseAddr("192.168.1.1") {
			t.Errorf("routes %v", got)
		}
	}
	own := []netip.Prefix{netip.MustParsePrefix("10.1.2.3/16"), netip.MustParsePrefix("203.0.113.4/24"), netip.MustParsePrefix("fd00::1/64")}
	if got := likely(own); len(got) != 1 || got[0] != netip.MustParseAddr("10.1.0.1") {
		t.Errorf("likely %v", got)
	}
}

// FuzzAnswers hands any datagram to the readers of answers.
func FuzzAnswers(f *testing.F) {
	c := &pcp{protocol: UDP, port: 4000}
	good := append(c.header(pcpMap|response, time.Hour, netip.MustParseAddr("10.0.0.1")), make([]byte, 36)...)
	good[36] = byte(UDP)
	binary.BigEndian.PutUint16(good[40:], 4000)
	f.Add(good)
	f.Add([]byte{0, 129, 0, 0, 0, 0, 0, 1, 15, 160, 15, 160, 0, 0, 14, 16})
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://127.0.0.1:1/x\r\n\r\n"))
	f.Add([]byte("Iface\tx\neth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, _, ours, err := c.parseMap(b); ours && err == nil && len(b) < pcpMapSize {
			t.Fatalf("%v from %x", a, b)
		}
		checkNATPMP(b, 1, 16)
		device := netip.MustParseAddr("127.0.0.1")
		if u, err := location(b, device); err == nil && u.Hostname() != "127.0.0.1" && u.Hostname() != "::ffff:127.0.0.1" {
			t.Fatalf("sent to %s", u)
		}
		if got := routes(b); len(got) > maxGateways {
			t.Fatal("too many routers")
		}
	})
}
