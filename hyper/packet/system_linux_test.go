package packet_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudbevy/bevy/hyper/packet"
)

func TestSystemWithoutSegments(t *testing.T) {
	defer packet.Without(false, true)()
	runSystem(t)
}

// Machines that are not Linux work like this, and sandboxes that refuse calls.
func TestSystemWithoutBatches(t *testing.T) {
	defer packet.Without(true, true)()
	runSystem(t)
}

// forms are the ways a socket of this machine may work.
func forms(t *testing.T, test func(t *testing.T)) {
	for _, form := range []struct {
		name              string
		batches, segments bool
	}{{"all", false, false}, {"no segments", false, true}, {"no batches", true, true}} {
		t.Run(form.name, func(t *testing.T) {
			defer packet.Without(form.batches, form.segments)()
			test(t)
		})
	}
}

func bind(t testing.TB, addr string, receive packet.Handler) packet.Conn {
	t.Helper()
	conn, err := packet.System.Listen(netip.MustParseAddrPort(addr), receive)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestSystemSetsOptions(t *testing.T) {
	forms(t, func(t *testing.T) {
		for _, c := range []struct {
			addr                string
			level, name, expect int
		}{
			{"127.0.0.1:0", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
			{"[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
			{"[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		} {
			if got := packet.Option(t, bind(t, c.addr, nil), c.level, c.name); got != c.expect {
				t.Errorf("%s: option %d is %d, want %d", c.addr, c.name, got, c.expect)
			}
		}
		// The kernel doubles what it gives.
		got := packet.Option(t, bind(t, "127.0.0.1:0", nil), unix.SOL_SOCKET, unix.SO_RCVBUF)
		if most, err := limit("/proc/sys/net/core/rmem_max"); err == nil && got < 2*min(most, 4<<20) {
			t.Errorf("receive buffer of %d bytes, want %d", got, 2*min(most, 4<<20))
		}
	})
}

// What may be cut goes out, in its turn, and nothing else may be afterwards.
func TestSystemFragmentsForOnePacket(t *testing.T) {
	forms(t, func(t *testing.T) {
		for _, c := range []struct {
			addr                string
			level, name, expect int
		}{
			{"127.0.0.1:0", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
			{"[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
		} {
			got := make(chan string, 10)
			to := bind(t, c.addr, func(batch []packet.Packet) {
				for _, p := range batch {
					for data := range p.Datagrams() {
						got <- string(data)
					}
				}
			}).LocalAddr()
			from := bind(t, c.addr, nil)
			from.Write([]packet.Packet{{Addr: to, Data: []byte("1")}, {Addr: to, Data: []byte("23"), Segment: 1, Fragment: true}, {Addr: to, Data: []byte("4")}})
			for _, want := range []string{"1", "2", "3", "4"} {
				if p := <-got; p != want {
					t.Errorf("%q came, want %q", p, want)
				}
			}
			if got := packet.Option(t, from, c.level, c.name); got != c.expect {
				t.Errorf("%s: option %d is %d, want %d", c.addr, c.name, got, c.expect)
			}
		}
	})
}

// A TTL goes with its packet and with no other.
func TestSystemTTLIsForOnePacket(t *testing.T) {
	forms(t, func(t *testing.T) {
		for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
			if err != nil {
				t.Skip(err)
			}
			defer conn.Close()
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			v6 := strings.HasPrefix(addr, "[")
			raw.Control(func(fd uintptr) {
				if v6 {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
				} else {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			data := []byte("same size")
			out := bind(t, addr, nil)
			if err := out.Write([]packet.Packet{{Addr: to, Data: data}, {Addr: to, Data: data, TTL: 5}, {Addr: to, Data: data, TTL: 5}, {Addr: to, Data: data, TTL: 6}, {Addr: to, Data: data}}); err != nil {
				t.Fatal(err)
			}
			var got []int
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			for range 5 {
				control := make([]byte, 100)
				_, n, _, _, err := conn.ReadMsgUDP(make([]byte, 100), control)
				if err != nil {
					t.Fatal(err)
				}
				messages, err := unix.ParseSocketControlMessage(control[:n])
				if err != nil || len(messages) != 1 {
					t.Fatal(messages, err)
				}
				got = append(got, int(messages[0].Data[0]))
			}
			if fmt.Sprint(got) != "[64 5 5 6 64]" {
				t.Errorf("%s: TTLs %d", addr, got)
			}
		}
	})
}

// On a kernel that has segments they are used: many datagrams are one message
// on each side.
func TestSystemJoinsDatagrams(t *testing.T) {
	messages, datagrams := make(chan int, 100), 0
	in := bind(t, "127.0.0.1:0", func(batch []packet.Packet) {
		for _, p := range batch {
			n := 0
			for range p.Datagrams() {
				n++
			}
			messages <- n
		}
	})
	out := bind(t, "127.0.0.1:0", nil)
	if !packet.Segments(out) {
		t.Skip("this kernel has no segments")
	}
	var batch []packet.Packet
	for range 40 {
		batch = append(batch, packet.Packet{Addr: in.LocalAddr(), Data: make([]byte, 1400)})
	}
	if err := out.Write(batch); err != nil {
		t.Fatal(err)
	}
	got := 0
	for datagrams < 40 {
		datagrams += <-messages
		got++
	}
	if got != 1 {
		t.Errorf("40 datagrams came as %d messages, want 1", got)
	}
}

// A message of segments that the kernel refuses is sent in parts.
func TestSystemSplitsWhatIsRefused(t *testing.T) {
	got := make(chan string, 1000)
	in := bind(t, "127.0.0.1:0", func(batch []packet.Packet) {
		for _, p := range batch {
			for d := range p.Datagrams() {
				got <- string(d)
			}
		}
	})
	out := bind(t, "127.0.0.1:0", nil)
	// Without checksums it can't cut.
	packet.SetOption(t, out, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	var batch []packet.Packet
	var want []string
	for i := range 300 {
		data := strings.Repeat(string(rune('a'+i%26)), 1000-i/100)
		batch = append(batch, packet.Packet{Addr: in.LocalAddr(), Data: []byte(data)})
		want = append(want, data)
	}
	long := strings.Repeat("0123456789", 1000)
	batch = append(batch, packet.Packet{Addr: in.LocalAddr(), Data: []byte(long), Segment: 3000})
	want = append(want, long[:3000], long[3000:6000], long[6000:9000], long[9000:])
	if err := out.Write(batch); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if d := <-got; d != want[i] {
			t.Fatalf("datagram %d is of %d bytes, want %d", i, len(d), len(want[i]))
		}
	}
}

// A socket that is not used costs a goroutine and a descriptor, and no buffer.
func TestIdleSocketsCostLittle(t *testing.T) {
	const sockets, most = 256, 8 << 10
	out := bind(t, "127.0.0.1:0", nil)
	open := func() (conns []packet.Conn) {
		var in atomic.Int32
		var batch []packet.Packet
		for range sockets {
			conn := bind(t, "127.0.0.1:0", func(batch []packet.Packet) { in.Add(int32(len(batch))) })
			batch = append(batch, packet.Packet{Addr: conn.LocalAddr(), Data: []byte("hello")})
			conns = append(conns, conn)
		}
		out.Write(batch) // each has worked
		for in.Load() < sockets {
			runtime.Gosched()
		}
		return conns
	}
	measure := func() int64 {
		runtime.GC()
		runtime.GC() // pools are emptied by the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	goroutines := runtime.NumGoroutine()
	for _, conn := range open() { // what is made once is made now
		conn.Close()
	}
	for runtime.NumGoroutine() > goroutines {
		runtime.Gosched()
	}
	before := measure()
	open()
	each := (measure() - before) / sockets
	t.Logf("%d bytes for each of %d idle sockets", each, sockets)
	if each > most {
		t.Errorf("an idle socket costs %d bytes, want at most %d", each, most)
	}
	if n := runtime.NumGoroutine() - goroutines; n > sockets {
		t.Errorf("%d goroutines for %d sockets", n, sockets)
	}
}

// However many sockets have something to read while their handlers are busy,
// each gets it, the last ones with a small buffer.
func TestManySocketsRead(t *testing.T) {
	const sockets = 40
	var busy, done sync.WaitGroup
	busy.Add(sockets)
	done.Add(sockets)
	release := make(chan struct{})
	var batch []packet.Packet
	for range sockets {
		var in int
		conn := bind(t, "127.0.0.1:0", func(batch []packet.Packet) {
			if in == 0 {
				busy.Done()
				<-release
			}
			in += len(batch)
			if in == 5 {
				done.Done()
			}
		})
		for range 5 {
			batch = append(batch, packet.Packet{Addr: conn.LocalAddr(), Data: []byte("hello")})
		}
	}
	out := bind(t, "127.0.0.1:0", nil)
	for i := range 5 { // not side by side, so that they aren't joined
		for k := i; k < len(batch); k += 5 {
			out.Write(batch[k : k+1])
		}
	}
	busy.Wait()
	close(release)
	done.Wait()
}

func limit(path string) (n int, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(bytes.TrimSpace(data)), &n)
	return n, err
}
