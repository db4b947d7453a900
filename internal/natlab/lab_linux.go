package natlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// A Lab is an internet with what hangs on it. Its methods, and those of what is
// made of it, may be called by any goroutine.
type Lab struct {
	internet *segment

	mu       sync.Mutex
	numbers  int              // guarded by mu: the last number given to a router, and so to its networks
	open     int              // guarded by mu: how many open sites there are
	carriers map[Kind]*Router // guarded by mu
	spaces   []*namespace     // guarded by mu
	ends     []func() error   // guarded by mu: what Close calls, last first
}

// A segment is a cable that all ends of are equal: a bridge.
type segment struct {
	space  *namespace
	bridge string
	net    netip.Prefix
	router netip.Addr // the way to the rest; the zero Addr if there is none
	hosts  int        // how many there are, the router too; guarded by Lab.mu
}

// A Router is a NAT between two segments.
type Router struct {
	lab   *Lab
	space *namespace
	cable cable
	inner *segment
	wan   netip.Addr

	mu  sync.Mutex
	nat NAT // guarded by mu
}

// A Host is a machine of the lab.
type Host struct {
	lab   *Lab
	space *namespace
	cable cable
	addrs []netip.Addr
}

// A Site is a place of some kind where hosts are. All are on one LAN.
type Site struct {
	lab     *Lab
	kind    Kind
	lan     *segment  // nil if it is open
	routers []*Router // from the hosts outwards
}

// Check says why there can be no lab here, nil if there can.
func Check() error { return check() }

var check = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root")
	}
	for _, name := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("a lab needs iproute2 and nftables: %w", err)
		}
	}
	lab, err := New()
	if err != nil {
		return err
	}
	_, err = lab.Site("check", CarrierHairpin)
	return errors.Join(err, lab.Close())
})

// New builds an internet with nothing on it: 9.9.0.0/16, because the real
// private ranges are not what a NAT has on its outer side.
func New() (*Lab, error) {
	l := &Lab{carriers: make(map[Kind]*Router)}
	space, err := l.namespace("internet")
	if err != nil {
		return nil, err
	}
	l.internet = &segment{space: space, bridge: "internet", net: netip.MustParsePrefix("9.9.0.0/16")}
	err = l.internet.build()
	if err == nil {
		// It is wide: a packet that is to open a NAT and get no further does not
		// arrive.
		err = space.nft("table bridge wide { chain hops { type filter hook forward priority 0; ip ttl < 32 drop; }; }")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build the internet: %w", err), l.Close())
	}
	return l, nil
}

// Close ends the processes that were started in the lab, and removes it.
func (l *Lab) Close() error {
	l.mu.Lock()
	ends, spaces := l.ends, l.spaces
	l.ends, l.spaces = nil, nil
	l.mu.Unlock()
	var errs []error
	for i := len(ends) - 1; i >= 0; i-- {
		errs = append(errs, ends[i]())
	}
	for _, space := range spaces {
		errs = append(errs, space.file.Close())
	}
	return errors.Join(errs...)
}

// atClose has Close call f.
func (l *Lab) atClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, f)
}

// Host adds a machine to the internet, with one or more of its addresses.
func (l *Lab) Host(name string, addrs ...netip.Addr) (*Host, error) {
	return l.host(name, l.internet, addrs)
}

// Site adds a site.
func (l *Lab) Site(name string, kind Kind) (*Site, error) {
	s := &Site{lab: l, kind: kind}
	nats := kind.NATs()
	outer := l.internet
	for i := len(nats) - 1; i >= 0; i-- {
		r, err := l.routerOf(kind, i, fmt.Sprintf("%s-%d", name, i), nats[i], outer)
		if err != nil {
			return nil, fmt.Errorf("build site %s: %w", name, err)
		}
		s.routers = append([]*Router{r}, s.routers...)
		outer, s.lan = r.inner, r.inner
	}
	return s, nil
}

// Island adds a LAN with no router: its hosts have no way to anywhere else.
func (l *Lab) Island(name string) (*Site, error) {
	space, err := l.namespace(name)
	if err != nil {
		return nil, err
	}
	s := &Site{lab: l, lan: &segment{space: space, bridge: "lan", net: netip.MustParsePrefix("192.168.1.0/24")}}
	return s, s.lan.build()
}

// routerOf is the i-th router of a new site: a new one, but that of a carrier is
// there once.
func (l *Lab) routerOf(kind Kind, i int, name string, nat NAT, outer *segment) (*Router, error) {
	last := i == len(kind.NATs())-1
	if !kind.Carried() || !last {
		return l.router(name, nat, outer, i)
	}
	l.mu.Lock()
	r := l.carriers[kind]
	l.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := l.router(string(kind), nat, outer, i)
	if err == nil {
		l.mu.Lock()
		l.carriers[kind] = r
		l.mu.Unlock()
	}
	return r, err
}

// router adds a router behind a segment. Depth says how many NATs are between it
// and the hosts.
func (l *Lab) router(name string, nat NAT, outer *segment, depth int) (*Router, error) {
	l.mu.Lock()
	l.numbers++
	n := l.numbers
	outer.hosts++
	wan := netip.AddrFrom4([4]byte{9, 9, byte(9 + n), 1})
	if outer != l.internet {
		wan = nth(outer.net, outer.hosts)
	}
	l.mu.Unlock()
	if n > 200 {
		return nil, errors.New("a lab has at most 200 routers")
	}

	space, err := l.namespace(name)
	if err != nil {
		return nil, err
	}
	inside := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(9 + n), 0}), 24)
	if depth > 0 {
		inside = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(9 + n), 0}), 24)
	}
	inner := &segment{space: space, bridge: "lan", net: inside, router: nth(inside, 1), hosts: 1}
	r := &Router{lab: l, space: space, inner: inner, wan: wan, nat: nat}
	if err := inner.build(); err != nil {
		return nil, err
	}
	if err := space.ip(fmt.Sprintf("addr add %s/24 dev lan", inner.router)); err != nil {
		return nil, err
	}
	if r.cable, err = l.plug(space, "wan", outer, wan); err != nil {
		return nil, err
	}
	if err := space.sysctl("net/ipv4/ip_forward", 1); err != nil {
		return nil, err
	}
	return r, r.apply()
}

// Host adds a machine to the LAN of the site; on an open site, to the internet.
func (s *Site) Host(name string) (*Host, error) {
	l := s.lab
	if s.lan == nil {
		l.mu.Lock()
		l.open++
		addr := netip.AddrFrom4([4]byte{9, 9, 2, byte(l.open)})
		l.mu.Unlock()
		return l.host(name, l.internet, []netip.Addr{addr})
	}
	l.mu.Lock()
	s.lan.hosts++
	addr := nth(s.lan.net, s.lan.hosts)
	l.mu.Unlock()
	return l.host(name, s.lan, []netip.Addr{addr})
}

// Kind is what the site was made as; that of an island is empty.
func (s *Site) Kind() Kind { return s.kind }

// Routers are those of the site, from its hosts outwards. The last may be a
// carrier's, and others' too.
func (s *Site) Routers() []*Router { return s.routers }

// Flush has the routers of the site alone forget all mappings, as after a cut of
// power.
func (s *Site) Flush() error {
	for i, r := range s.routers {
		if s.kind.Carried() && i == len(s.routers)-1 {
			continue
		}
		if err := r.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) host(name string, on *segment, addrs []netip.Addr) (*Host, error) {
	space, err := l.namespace(name)
	if err != nil {
		return nil, err
	}
	h := &Host{lab: l, space: space, addrs: addrs}
	if h.cable, err = l.plug(space, "eth0", on, addrs...); err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	return h, nil
}

// Addr is the host's address, the first of them if there are many.
func (h *Host) Addr() netip.Addr { return h.addrs[0] }

// Name is what the host was added as.
func (h *Host) Name() string { return h.space.name }

// Do runs f in the host: sockets that it opens and processes that it starts, by
// the goroutine that calls it, are there for as long as they live.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// Unplug pulls the host's cable out. The host keeps its addresses.
func (h *Host) Unplug() error { return h.cable.on.space.ip("link set " + h.cable.port + " down") }

// Plug puts the cable back.
func (h *Host) Plug() error {
	if err := h.cable.on.space.ip("link set " + h.cable.port + " up"); err != nil {
		return err
	}
	return h.cable.on.space.await(h.cable.port)
}

// Start starts a command in the host that takes calls as those of nodepeer do.
// It ends with the lab, with this process, or by its Close.
func (h *Host) Start(ctx context.Context, cmd *exec.Cmd) (*nodepeer.Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var p *nodepeer.Process
	err := h.Do(func() (err error) {
		p, err = nodepeer.StartCommand(ctx, cmd)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", h.Name(), err)
	}
	h.lab.atClose(p.Close)
	return p, nil
}

// Wan is the router's address outside.
func (r *Router) Wan() netip.Addr { return r.wan }

// Set makes the router another NAT, with no mappings.
func (r *Router) Set(nat NAT) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nat = nat
	return r.apply()
}

// NAT is how the router treats UDP.
func (r *Router) NAT() NAT {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nat
}

// Flush forgets all mappings.
func (r *Router) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.apply()
}

// apply makes the router what nat says, with no mappings.
func (r *Router) apply() error {
	// A table that was not there can't be deleted, so it is made before.
	err := r.space.nft("table ip nat\ndelete table ip nat\n" + r.nat.rules(r.wan.String()))
	for _, of := range []string{"udp_timeout", "udp_timeout_stream"} {
		if err == nil {
			err = r.space.sysctl("net/netfilter/nf_conntrack_"+of, r.nat.seconds())
		}
	}
	if err == nil {
		err = r.space.do(forget)
	}
	if err != nil {
		return fmt.Errorf("set up the router %s: %w", r.space.name, err)
	}
	return nil
}

// forget removes the connections that the kernel tracks in this namespace.
func forget() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	defer unix.Close(fd)
	const deleteAll = 1<<8 | 2 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
	msg := make([]byte, unix.NLMSG_HDRLEN+4)
	binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], deleteAll)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	if n < unix.NLMSG_HDRLEN+4 {
		return errors.New("forget connections: a short answer of the kernel")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
		return fmt.Errorf("forget connections: %w", unix.Errno(-code))
	}
	return nil
}

// nth is an address of a network.
func nth(of netip.Prefix, n int) netip.Addr {
	a := of.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n))
	return netip.AddrFrom4(a)
}

func (s *segment) build() error {
	err := s.space.ip(
		// With an address of its own a bridge does not take that of a new port,
		// which would be one that the hosts don't know.
		"link add name "+s.bridge+" address 02:00:00:00:00:01 type bridge mcast_snooping 0",
		"link set "+s.bridge+" up")
	if err != nil {
		return err
	}
	// Some kernels have bridges obey the rules of routers too: packets that are
	// sent back where they came from would go another way.
	err = s.space.sysctl("net/bridge/bridge-nf-call-iptables", 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// A cable goes from an interface of a namespace to a segment.
type cable struct {
	lab   *Lab
	space *namespace
	dev   string
	on    *segment
	port  string // its end in the segment's namespace

	emulator *emulator // if the line is not perfect
}

// plug gives a namespace an interface on a segment.
func (l *Lab) plug(space *namespace, dev string, on *segment, addrs ...netip.Addr) (cable, error) {
	if len(addrs) == 0 {
		return cable{}, errors.New("a host needs an address")
	}
	on.space.mu.Lock()
	on.space.ports++
	number := on.space.ports
	port := "port" + strconv.Itoa(number)
	on.space.mu.Unlock()
	err := on.space.ip(
		// The kernel is slow to bring up a cable whose ends have one number.
		fmt.Sprintf("link add name %s index %d type veth peer name %s netns %s", port, 1000+number, dev, space.path()),
		fmt.Sprintf("link set %s master %s up", port, on.bridge))
	if err != nil {
		return cable{}, err
	}
	var lines []string
	for _, a := range addrs {
		lines = append(lines, fmt.Sprintf("addr add %s/%d dev %s", a, on.net.Bits(), dev))
	}
	lines = append(lines, "link set "+dev+" up")
	if on.router.IsValid() {
		lines = append(lines, "route add default via "+on.router.String())
	}
	if err := space.ip(lines...); err != nil {
		return cable{}, err
	}
	return cable{lab: l, space: space, dev: dev, on: on, port: port}, on.space.await(port)
}

// A namespace is a network stack of its own. It is there for as long as its file
// is open, or a process or socket is in it.
type namespace struct {
	name string
	file *os.File

	mu    sync.Mutex
	ports int // guarded by mu: how many ends of cables were named
}

// namespace makes one.
func (l *Lab) namespace(name string) (*namespace, error) {
	n := &namespace{name: name}
	err := onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() (err error) {
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	l.mu.Lock()
	l.spaces = append(l.spaces, n)
	l.mu.Unlock()
	return n, n.ip("link set lo up")
}

// do runs f in the namespace.
func (n *namespace) do(f func() error) error {
	return onThread(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, f)
}

// onThread enters another network namespace, calls f, and comes back.
func onThread(enter, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := enter(); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	defer func() {
		// A thread that can't come back stays locked, and ends with its goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// path names the namespace for other processes.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// ip runs lines of the command ip.
func (n *namespace) ip(lines ...string) error {
	return n.run(strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

// nft runs a script of nftables.
func (n *namespace) nft(script string) error { return n.run(script, "nft", "-f", "-") }

func (n *namespace) run(stdin, name string, args ...string) error {
	return n.do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s of %s: %w: %s\n%s", name, n.name, err, out, stdin)
		}
		return nil
	})
}

// await waits until an interface carries packets.
func (n *namespace) await(dev string) error {
	return n.do(func() error {
		for range 2000 {
			i, err := net.InterfaceByName(dev)
			if err != nil {
				return err
			}
			if i.Flags&net.FlagRunning != 0 {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
		return fmt.Errorf("%s of %s does not come up", dev, n.name)
	})
}

func (n *namespace) sysctl(name string, value int) error {
	return n.do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(strconv.Itoa(value)), 0) })
}

// Places adds a site of each kind, with a host on it. Start starts what is to be
// there, for all at the same time. Role is for names.
func (l *Lab) Places(role string, kinds []Kind, start func(*Host, *Place) error) (map[Kind]*Place, error) {
	var all sync.WaitGroup
	places := make(map[Kind]*Place)
	errs := make([]error, len(kinds))
	for i, kind := range kinds {
		site, err := l.Site(role+"-"+string(kind), kind)
		if err != nil {
			return nil, err
		}
		host, err := site.Host(role + "-at-" + string(kind))
		if err != nil {
			return nil, err
		}
		place := &Place{Kind: kind, Flush: site.Flush}
		places[kind] = place
		all.Go(func() { errs[i] = start(host, place) })
	}
	all.Wait()
	return places, errors.Join(errs...)
}
