package natlab

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"net"
	"testing"
	"time"
)

// linked are sockets of two hosts with a bad line between them.
func linked(t *testing.T, line Line) (socks [2]*net.UDPConn) {
	t.Helper()
	lab := newLab(t)
	for i, text := range []string{"9.9.3.1", "9.9.3.2"} {
		h := must(lab.Host(text, Internet(text)...))(t)
		err := h.Do(func() (err error) {
			socks[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(text)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socks[i].Close() })
		if i == 0 {
			if err := h.Line(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The machines ask for each other's address before the first packet.
	for {
		if _, err := socks[0].WriteTo([]byte("first"), socks[1].LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := socks[1].SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := socks[1].Read(make([]byte, 16)); err == nil {
			return socks
		}
	}
}

// An arrival is a packet with a number that came.
type arrival struct {
	number int
	after  time.Duration // since the first was sent
}

// burst sends so many packets of so many bytes, and returns what arrives.
func burst(t *testing.T, socks [2]*net.UDPConn, packets, size int) (came []arrival) {
	t.Helper()
	if err := socks[1].SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	data := make([]byte, size)
	for i := range packets {
		binary.BigEndian.PutUint32(data, uint32(i))
		if _, err := socks[0].WriteTo(data, socks[1].LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if err := socks[1].SetReadDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := socks[1].Read(data)
		if err != nil {
			return came
		}
		if string(data[:n]) == "first" {
			continue // that was thought to be lost
		}
		if n != size {
			t.Fatalf("a packet of %d bytes came, want %d", n, size)
		}
		came = append(came, arrival{int(binary.BigEndian.Uint32(data)), time.Since(start)})
	}
}

func overtaken(came []arrival) (n int) {
	for i := 1; i < len(came); i++ {
		if came[i].number < came[i-1].number {
			n++
		}
	}
	return n
}

func TestLinesDelay(t *testing.T) {
	t.Parallel()
	socks := linked(t, Line{Delay: 50 * time.Millisecond})
	came := burst(t, socks, 20, 100)
	if len(came) != 20 || overtaken(came) != 0 {
		t.Errorf("%d of 20 packets came, %d of them overtook", len(came), overtaken(came))
	}
	if first := came[0].after; first < 50*time.Millisecond || first > 100*time.Millisecond {
		t.Errorf("the first packet took %v, want 50 ms", first)
	}
}

func TestLinesJitterAndLose(t *testing.T) {
	t.Parallel()
	const packets = 2000
	socks := linked(t, Line{Delay: 10 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.1, Queue: packets, Seed: 2})
	came := burst(t, socks, packets, 100)
	if lost := packets - len(came); math.Abs(float64(lost)-packets/10) > packets/25 {
		t.Errorf("%d of %d packets were lost, want about a tenth", lost, packets)
	}
	if overtaken(came) < packets/100 {
		t.Errorf("%d packets overtook, want many", overtaken(came))
	}
}

func TestLinesAreNarrow(t *testing.T) {
	t.Parallel()
	const rate, queue = 10e6, 100
	socks := linked(t, Line{Rate: rate, Queue: queue})
	came := burst(t, socks, 400, 1208) // 1250 with the headers: one each millisecond
	if len(came) < queue || len(came) > 2*queue {
		t.Fatalf("%d packets came, want the %d of the queue and some", len(came), queue)
	}
	took := came[len(came)-1].after - came[0].after
	want := time.Duration(len(came)-1) * time.Millisecond
	if math.Abs(float64(took-want)) > float64(want)/5 {
		t.Errorf("%d packets took %v, want %v", len(came), took, want)
	}
}

// The kernel gives TCP large packets without checksums to cables. What comes out
// of a line is what a network card would have sent.
func TestLinesCarryTCP(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	server := must(lab.Host("server", Internet("9.9.3.1")...))(t)
	site := must(lab.Site("home", PortRestricted))(t)
	client := must(site.Host("client"))(t)
	for _, line := range []Line{{Delay: 5 * time.Millisecond}, {}, {Delay: time.Millisecond, Loss: 0.01}} {
		if err := site.Routers()[0].Line(line); err != nil {
			t.Fatal(err)
		}
		var l net.Listener
		err := server.Do(func() (err error) {
			l, err = net.Listen("tcp4", "9.9.3.1:0")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("0123456789"), 50_000)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = conn.Write(sent)
				conn.Close()
			}
		}()
		var got []byte
		err = client.Do(func() error {
			conn, err := net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				return err
			}
			got, err = io.ReadAll(conn)
			return err
		})
		l.Close()
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%+v: %d of %d bytes came, %v", line, len(got), len(sent), err)
		}
	}
}
