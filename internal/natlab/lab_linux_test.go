package natlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newLab is a lab that ends with the test.
func newLab(t *testing.T) *Lab {
	t.Helper()
	if err := Check(); err != nil {
		t.Skip(err)
	}
	lab, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// prober is a Prober on the lab's internet.
func prober(t *testing.T, lab *Lab) *Prober {
	t.Helper()
	addrs := Internet("9.9.0.1", "9.9.0.2")
	h := must(lab.Host("prober", addrs...))(t)
	var p *Prober
	err := h.Do(func() (err error) {
		p, err = NewProber(ListenUDP, addrs[0], addrs[1])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func probe(h *Host, p *Prober) (found Probe, err error) {
	err = h.Do(func() (err error) {
		found, err = p.Probe(ListenUDP)
		return err
	})
	return found, err
}

func TestSitesAreOfTheirKind(t *testing.T) {
	t.Parallel()
	lab := newLab(t) // ends after the parallel tests
	p := prober(t, lab)
	for _, kind := range Kinds {
		h := must(must(lab.Site(string(kind), kind))(t).Host("host"))(t)
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			found, err := probe(h, p)
			want, udp := kind.Probed()
			if !udp {
				if !errors.Is(err, ErrBlocked) {
					t.Errorf("got %v, %v, want no UDP", found, err)
				}
				return
			}
			if err != nil || found.String() != want.String() {
				t.Errorf("got %v, %v, want %v", found, err, want)
			}
		})
	}
}

// pair are two hosts with a socket each, and how others see those.
type pair struct {
	socks [2]*net.UDPConn
	seen  [2]netip.AddrPort
}

func newPair(t *testing.T, p *Prober, hosts [2]*Host) (made pair) {
	t.Helper()
	for i, h := range hosts {
		err := h.Do(func() (err error) {
			if made.socks[i], err = net.ListenUDP("udp4", nil); err != nil {
				return err
			}
			made.seen[i], err = p.Seen(made.socks[i])
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { made.socks[i].Close() })
	}
	return made
}

// meets tells whether what the second sends to the first arrives, once the first
// has sent to the second.
func (p pair) meets(t *testing.T) bool {
	t.Helper()
	if _, err := p.socks[0].WriteToUDPAddrPort([]byte("open"), p.seen[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.socks[1].WriteToUDPAddrPort([]byte("hello"), p.seen[0]); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if err := p.socks[0].SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, from, err := p.socks[0].ReadFromUDPAddrPort(buf)
	if err != nil {
		return false
	}
	if string(buf[:n]) != "hello" || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != p.seen[1] {
		t.Errorf("got %q from %v, want it from %v", buf[:n], from, p.seen[1])
	}
	return true
}

func TestThoseBehindOneCarrierMeetByHairpinOnly(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	p := prober(t, lab)
	for kind, want := range map[Kind]bool{Carrier: false, CarrierHairpin: true} {
		var hosts [2]*Host
		for i := range hosts {
			hosts[i] = must(must(lab.Site(fmt.Sprint(kind, i), kind))(t).Host(fmt.Sprint(kind, i)))(t)
		}
		pair := newPair(t, p, hosts)
		if pair.seen[0].Addr() != pair.seen[1].Addr() {
			t.Errorf("%s: seen as %v, want one address", kind, pair.seen)
		}
		if got := pair.meets(t); got != want {
			t.Errorf("%s: they meet: %v, want %v", kind, got, want)
		}
	}
}

func TestMappingsAreForgotten(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	p := prober(t, lab)
	site := must(lab.Site("home", FullCone))(t)
	hosts := [2]*Host{must(site.Host("a"))(t), must(lab.Host("open", Internet("9.9.3.1")...))(t)}
	arrives := func(pair pair) bool {
		t.Helper()
		if _, err := pair.socks[1].WriteToUDPAddrPort([]byte("hello"), pair.seen[0]); err != nil {
			t.Fatal(err)
		}
		if err := pair.socks[0].SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, _, err := pair.socks[0].ReadFromUDPAddrPort(make([]byte, 16))
		return err == nil
	}

	flushed := newPair(t, p, hosts)
	if !arrives(flushed) {
		t.Fatal("a full cone let nobody in")
	}
	if err := site.Flush(); err != nil {
		t.Fatal(err)
	}
	if arrives(flushed) {
		t.Error("what was flushed lets others in")
	}

	nat := site.Routers()[0].NAT()
	nat.Timeout = time.Second
	if err := site.Routers()[0].Set(nat); err != nil {
		t.Fatal(err)
	}
	old := newPair(t, p, hosts)
	if !arrives(old) {
		t.Fatal("a full cone let nobody in")
	}
	for start := time.Now(); arrivesLater(t, old); {
		if time.Since(start) > 10*time.Second {
			t.Fatal("a mapping outlives its time")
		}
	}
}

// arrivesLater tells whether a packet is let in that comes after a time without
// any that is longer than a second.
func arrivesLater(t *testing.T, pair pair) bool {
	t.Helper()
	buf := make([]byte, 16)
	if err := pair.socks[0].SetReadDeadline(time.Now().Add(1500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := pair.socks[0].ReadFromUDPAddrPort(buf); err == nil {
		return true // a late one
	}
	if _, err := pair.socks[1].WriteToUDPAddrPort([]byte("hello"), pair.seen[0]); err != nil {
		t.Fatal(err)
	}
	if err := pair.socks[0].SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _, err := pair.socks[0].ReadFromUDPAddrPort(buf)
	return err == nil
}

func TestOnlyWhatIsAllowedGoesOut(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	server := must(lab.Host("server", Internet("9.9.3.1")...))(t)
	var listeners [2]net.Listener
	for i, port := range []int{443, 80} {
		err := server.Do(func() (err error) {
			listeners[i], err = net.Listen("tcp4", fmt.Sprint("9.9.3.1:", port))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer listeners[i].Close()
	}
	for kind, want := range map[Kind][2]bool{PortRestricted: {true, true}, NoUDP: {true, true}, OnlyTCP443: {true, false}} {
		host := must(must(lab.Site(string(kind), kind))(t).Host(string(kind)))(t)
		for i, l := range listeners {
			err := host.Do(func() error {
				conn, err := net.DialTimeout("tcp4", l.Addr().String(), 300*time.Millisecond)
				if err == nil {
					conn.Close()
				}
				return err
			})
			if got := err == nil; got != want[i] {
				t.Errorf("%s: TCP to %v: %v, want it to work: %v", kind, l.Addr(), err, want[i])
			}
		}
	}
}

// A carrier's customers, and the hosts of a home, may use the same port: each
// gets one of its own outside, the same for all.
func TestHostsShareAnAddress(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	p := prober(t, lab)
	site := must(lab.Site("home", FullCone))(t)
	var seen [2]netip.AddrPort
	for i := range seen {
		h := must(site.Host(fmt.Sprint(i)))(t)
		err := h.Do(func() error {
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 49737})
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			if seen[i], err = p.Seen(conn); err != nil {
				return err
			}
			if again, ok := p.ask(conn, otherAddr, otherAddr); !ok || again != seen[i] {
				t.Errorf("host %d is seen as %v, then as %v", i, seen[i], again)
			}
			if again, ok := p.ask(conn, main, otherPort); !ok || again != seen[i] {
				t.Errorf("host %d is not reached at %v", i, seen[i])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen[0] == seen[1] {
		t.Errorf("both are seen as %v", seen[0])
	}
}

// A process that dies without a word takes its lab with it, and what runs there.
func TestLabsEndWithTheirProcess(t *testing.T) {
	const child = "NATLAB_TEST_CHILD"
	if os.Getenv(child) != "" {
		lab := newLab(t)
		h := must(lab.Host("host", Internet("9.9.3.1")...))(t)
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := h.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		fmt.Println("sleeps", cmd.Process.Pid)
		select {}
	}
	newLab(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestLabsEndWithTheirProcess$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "sleeps %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	space := must(os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)))(t)
	if users(t, space) < 1 {
		t.Fatal("nobody is in the lab")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for range 1000 {
		if users(t, space) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d processes are still in the lab", users(t, space))
}

// users counts the processes that are in a network namespace or have it open.
func users(t *testing.T, space string) (n int) {
	t.Helper()
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		for _, link := range must(filepath.Glob(pattern))(t) {
			if to, err := os.Readlink(link); err == nil && to == space {
				n++
			}
		}
	}
	return n
}

func TestLabsStandBesideEachOther(t *testing.T) {
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			lab := newLab(t)
			p := prober(t, lab)
			h := must(must(lab.Site("home", Symmetric))(t).Host("host"))(t)
			if found, err := probe(h, p); err != nil || found.Mapping != AddressAndPort {
				t.Errorf("got %v, %v", found, err)
			}
		})
	}
}

func TestIslandsHaveNoWayOut(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	p := prober(t, lab)
	island := must(lab.Island("island"))(t)
	a, b := must(island.Host("a"))(t), must(island.Host("b"))(t)
	if found, err := probe(a, p); err == nil {
		t.Errorf("the internet was reached: %v", found)
	}
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	var ear *net.UDPConn
	err := b.Do(func() (err error) {
		dev, err := net.InterfaceByName("eth0")
		if err == nil {
			ear, err = net.ListenMulticastUDP("udp4", dev, group)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	err = a.Do(func() error {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP(a.Addr().AsSlice())})
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		// There is no route, so the interface has to be named.
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Address: a.Addr().As4()})
		}), err)
		if err == nil {
			_, err = conn.WriteTo([]byte("hello"), group)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ear.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, from, err := ear.ReadFrom(buf); err != nil || string(buf[:n]) != "hello" || addrPort(from).Addr() != a.Addr() {
		t.Errorf("heard %q of %v, %v", buf[:n], from, err)
	}
}
