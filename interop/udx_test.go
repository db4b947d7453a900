package interop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// streamOfNode is what interop/node/udx.js knows of a stream.
type streamOfNode struct {
	Bytes                   int
	SHA256                  string
	Ended, Closed           bool
	Error                   *string
	Messages                []string
	MTU                     int
	Rtos, Retransmits       int
	Recoveries, PacketsSent int
	PacketsReceived         int
}

// A badLine is a path between a socket of Node and one of ours that loses, repeats and overtakes packets, and drops
// those that are too large. Each side sees the other at the line's own address.
type badLine struct {
	loss, duplicate, reorder float64
	delay                    time.Duration
	mtu                      int // of IP packets; 0 is none

	mu             sync.Mutex
	rng            *rand.Rand
	toNode, toUs   packet.Conn // sockets that Node and we talk to
	node, us       netip.AddrPort
	lost, tooLarge int
	closed         bool
	onItsWay       sync.WaitGroup
}

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// lay puts the line between two sockets.
func (l *badLine) lay(t *testing.T, nodePort int, us netip.AddrPort) *badLine {
	t.Helper()
	l.rng = random(t, 5)
	l.node, l.us = at(nodePort), us
	var err error
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.toNode, err = packet.System.Listen(anyPort, func(b []packet.Packet) { l.pass(b, true) }); err != nil {
		t.Fatal(err)
	}
	if l.toUs, err = packet.System.Listen(anyPort, func(b []packet.Packet) { l.pass(b, false) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.toNode.Close()
		l.toUs.Close()
		l.onItsWay.Wait()
	})
	return l
}

func at(port int) netip.AddrPort { return netip.AddrPortFrom(anyPort.Addr(), uint16(port)) }

func (l *badLine) nodeDials() int         { return int(l.toNode.LocalAddr().Port()) }
func (l *badLine) weDial() netip.AddrPort { return l.toUs.LocalAddr() }

func (l *badLine) pass(batch []packet.Packet, fromNode bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out, to := l.toNode, l.node
	if fromNode {
		out, to = l.toUs, l.us
	}
	for _, p := range batch {
		size := p.Segment
		if size == 0 {
			size = max(len(p.Data), 1)
		}
		for data := range slices.Chunk(p.Data, size) {
			if l.mtu > 0 && len(data)+28 > l.mtu {
				l.tooLarge++
				continue
			}
			if l.rng.Float64() < l.loss {
				l.lost++
				continue
			}
			times := 1
			if l.rng.Float64() < l.duplicate {
				times = 2
			}
			for range times {
				delay := l.delay
				if l.rng.Float64() < l.reorder {
					delay += time.Duration(l.rng.IntN(4000)) * time.Microsecond
				}
				l.send(out, to, bytes.Clone(data), delay)
			}
		}
	}
}

func (l *badLine) send(out packet.Conn, to netip.AddrPort, data []byte, delay time.Duration) {
	batch := []packet.Packet{{Addr: to, Data: data}}
	if delay == 0 {
		out.Write(batch)
		return
	}
	if l.closed {
		return
	}
	l.onItsWay.Add(1)
	time.AfterFunc(delay, func() {
		defer l.onItsWay.Done()
		out.Write(batch)
	})
}

// udxPair is a stream of ours and one of Node, named "s", over sockets of theirs.
type udxPair struct {
	t        *testing.T
	n        node
	udx      *udx.UDX
	socket   *udx.Socket
	nodePort int
	s        *udx.Stream
	messages chan string
}

const nodesID = 77

// startUDX starts Node with a socket "k" and a stream "s" of id 77, neither connected, and the same for us.
func startUDX(t *testing.T, stream args) *udxPair {
	t.Helper()
	p := &udxPair{t: t, n: startScript(t, "udx.js"), udx: udx.New(udx.Options{}), messages: make(chan string, 100)}
	p.nodePort = call[struct{ Port int }](p.n, "socket", args{"socket": "k"}).Port
	p.socket = p.listen()
	p.s = p.stream(udx.StreamOptions{
		Message:  func(b []byte) { p.messages <- string(b) },
		Firewall: func(*udx.Socket, netip.AddrPort) bool { return true },
	})
	if stream == nil {
		stream = args{}
	}
	stream["stream"], stream["id"], stream["remoteId"] = "s", nodesID, p.s.ID()
	call[any](p.n, "stream", stream)
	return p
}

func (p *udxPair) listen() *udx.Socket {
	p.t.Helper()
	k, err := p.udx.Listen(anyPort, udx.SocketOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { k.Close() })
	return k
}

func (p *udxPair) stream(o udx.StreamOptions) *udx.Stream {
	p.t.Helper()
	s, err := p.udx.NewStream(o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(s.Destroy)
	// What hangs is ended, so that the test fails with what it waited for.
	timer := time.AfterFunc(patience, func() { s.SetDeadline(time.Unix(1, 0)) })
	p.t.Cleanup(func() { timer.Stop() })
	return s
}

// connect joins the streams, over a line if that isn't nil.
func (p *udxPair) connect(l *badLine) *udxPair {
	p.t.Helper()
	nodeDials, weDial := int(p.socket.LocalAddr().Port()), at(p.nodePort)
	if l != nil {
		l.lay(p.t, p.nodePort, p.socket.LocalAddr())
		nodeDials, weDial = l.nodeDials(), l.weDial()
	}
	call[any](p.n, "connect", args{"stream": "s", "socket": "k", "remoteId": p.s.ID(), "port": nodeDials})
	if err := p.s.Connect(p.socket, nodesID, weDial); err != nil {
		p.t.Fatal(err)
	}
	return p
}

func udxData(seed string, size int) []byte {
	return generated{Seed: seed, Sizes: []int{size}}.block(0)
}

// carry sends so many bytes both ways at once, and both ends.
func (p *udxPair) carry(forth, back int, end bool) {
	p.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, 3)
	wg.Go(func() {
		_, errs[0] = p.s.Write(udxData("forth", forth))
		if end {
			errs[0] = errors.Join(errs[0], p.s.CloseWrite())
		}
	})
	wg.Go(func() {
		got := make([]byte, back)
		_, errs[1] = io.ReadFull(p.s, got)
		if errs[1] == nil && !bytes.Equal(got, udxData("back", back)) {
			errs[1] = errors.New("we read other bytes than Node wrote")
		}
		if !end || errs[1] != nil {
			return
		}
		if n, err := p.s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			errs[1] = fmt.Errorf("after the end: %d bytes, %v", n, err)
		}
	})
	wg.Go(func() {
		errs[2] = p.n.p.Call(p.t.Context(), "write", args{"stream": "s", "seed": "back", "size": back, "end": end}, nil)
	})
	state := call[streamOfNode](p.n, "until", args{"stream": "s", "bytes": forth, "ended": end})
	if state.Bytes != forth || state.SHA256 != sum(udxData("forth", forth)) {
		p.t.Errorf("Node read %d bytes, other than the %d we wrote", state.Bytes, forth)
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		p.t.Fatal(err)
	}
}

// over is when both sides are done with the streams, in order.
func (p *udxPair) over() streamOfNode {
	p.t.Helper()
	state := call[streamOfNode](p.n, "until", args{"stream": "s", "closed": true})
	if state.Error != nil {
		p.t.Errorf("Node's stream ends with %s", *state.Error)
	}
	select {
	case <-p.s.Done():
	case <-time.After(patience):
		p.t.Fatal("our stream isn't over")
	}
	if err := p.s.Err(); err != nil {
		p.t.Errorf("our stream ends with %v", err)
	}
	return state
}

func TestUDXCarriesBytesBothWays(t *testing.T) {
	p := startUDX(t, nil).connect(nil)
	p.carry(8<<20, 8<<20, true)
	state := p.over()
	if got := p.s.Stats(); got.MTU != 1500 || state.MTU != 1500 {
		t.Errorf("we found an MTU of %d, Node of %d", got.MTU, state.MTU)
	}
}

func TestUDXCarriesManyStreamsOverOneSocket(t *testing.T) {
	p := startUDX(t, nil)
	const streams, size = 40, 100_000
	var wg sync.WaitGroup
	for i := range streams {
		name, id := strconv.Itoa(i), 1000+i
		s := p.stream(udx.StreamOptions{})
		call[any](p.n, "stream", args{"stream": name, "id": id})
		call[any](p.n, "connect", args{"stream": name, "socket": "k", "remoteId": s.ID(), "port": p.socket.LocalAddr().Port()})
		if err := s.Connect(p.socket, uint32(id), at(p.nodePort)); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { sendsAll(t, s, udxData("ours "+name, size)) })
		wg.Go(func() {
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, udxData("theirs "+name, size)) {
				t.Errorf("stream %d: %d bytes, %v", i, len(got), err)
			}
		})
		wg.Go(func() {
			if err := p.n.p.Call(t.Context(), "write", args{"stream": name, "seed": "theirs " + name, "size": size, "end": true}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range streams {
		name := strconv.Itoa(i)
		state := call[streamOfNode](p.n, "until", args{"stream": name, "closed": true})
		if state.Error != nil || state.SHA256 != sum(udxData("ours "+name, size)) {
			t.Errorf("stream %d: %+v", i, state)
		}
	}
	waitFor(t, func() bool { return p.socket.Streams() == 0 })
}

func sendsAll(t *testing.T, s *udx.Stream, data []byte) {
	_, err := s.Write(data)
	if err := errors.Join(err, s.CloseWrite()); err != nil {
		t.Error(err)
	}
}

func TestUDXCrossesBadLines(t *testing.T) {
	size := (1 << 20) * long(8)
	for name, l := range map[string]*badLine{
		"loss":      {loss: 0.02, delay: 5 * time.Millisecond},
		"duplicate": {duplicate: 0.2, delay: 2 * time.Millisecond},
		"reorder":   {reorder: 0.1, delay: 3 * time.Millisecond},
		"mtu hole":  {mtu: 1320, delay: time.Millisecond},
		"all":       {loss: 0.01, duplicate: 0.02, reorder: 0.02, mtu: 1400, delay: 3 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startUDX(t, nil).connect(l)
			p.carry(size, size, true)
			state := p.over()
			l.mu.Lock()
			defer l.mu.Unlock()
			ours := p.s.Stats()
			if l.loss > 0 && (l.lost == 0 || ours.Resent == 0 || state.Retransmits == 0) {
				t.Errorf("nothing was lost and sent again: %d, %d, %d", l.lost, ours.Resent, state.Retransmits)
			}
			if l.mtu > 0 && (ours.MTU > l.mtu || state.MTU > l.mtu || l.loss == 0 && l.tooLarge == 0) {
				t.Errorf("of a path of %d bytes we found %d, Node %d", l.mtu, ours.MTU, state.MTU)
			}
			if l.loss == 0 && ours.Timeouts > 0 {
				t.Errorf("we waited for a timeout %d times", ours.Timeouts)
			}
		})
	}
}

func TestUDXEndsOneDirectionAfterTheOther(t *testing.T) {
	// We end first.
	p := startUDX(t, nil).connect(nil)
	if _, err := p.s.Write([]byte("all I have")); err != nil {
		t.Fatal(err)
	}
	if err := p.s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	call[streamOfNode](p.n, "until", args{"stream": "s", "bytes": 10, "ended": true})
	go p.n.p.Call(t.Context(), "write", args{"stream": "s", "seed": "back", "size": 300_000, "end": true}, nil)
	got, err := io.ReadAll(p.s)
	if err != nil || !bytes.Equal(got, udxData("back", 300_000)) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	p.over()

	// Node ends first.
	p = startUDX(t, nil).connect(nil)
	call[any](p.n, "write", args{"stream": "s", "seed": "back", "size": 10, "end": true})
	if got, err = io.ReadAll(p.s); err != nil || len(got) != 10 {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	p.s.Write(udxData("forth", 300_000))
	p.s.Close()
	state := call[streamOfNode](p.n, "until", args{"stream": "s", "ended": true})
	if state.SHA256 != sum(udxData("forth", 300_000)) {
		t.Errorf("Node read %d other bytes", state.Bytes)
	}
	p.over()
}

func TestUDXDestroyEndsBothSides(t *testing.T) {
	p := startUDX(t, nil).connect(nil)
	p.carry(1000, 1000, false)
	p.s.Destroy()
	if state := call[streamOfNode](p.n, "until", args{"stream": "s", "closed": true}); state.Error == nil || *state.Error != "ECONNRESET" {
		t.Errorf("Node's stream: %+v", state)
	}
	p = startUDX(t, nil).connect(nil)
	p.carry(1000, 1000, false)
	call[any](p.n, "destroy", args{"stream": "s"})
	<-p.s.Done()
	if err := p.s.Err(); !errors.Is(err, udx.ErrReset) {
		t.Errorf("our stream: %v", err)
	}
}

func TestUDXMessagesGoBesideTheBytes(t *testing.T) {
	p := startUDX(t, nil).connect(nil)
	var want []string
	for i := range 20 {
		want = append(want, "message "+strconv.Itoa(i))
	}
	for _, text := range want {
		if err := p.s.SendMessage([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if state := call[streamOfNode](p.n, "until", args{"stream": "s", "messages": 20}); !slices.Equal(state.Messages, want) {
		t.Errorf("Node got %q", state.Messages)
	}
	call[any](p.n, "send", args{"stream": "s", "texts": want})
	for _, text := range want {
		if got := <-p.messages; got != text {
			t.Errorf("we got %q, want %q", got, text)
		}
	}
	p.carry(1000, 1000, true)
	p.over()
}

func TestUDXConnectsToWhereThePacketsComeFrom(t *testing.T) {
	// Node's stream is told by its firewall where we are.
	p := startUDX(t, args{"firewall": "follow"})
	if err := p.s.Connect(p.socket, nodesID, at(p.nodePort)); err != nil {
		t.Fatal(err)
	}
	p.carry(300_000, 0, false)
	p.carryBack(300_000)

	// Ours is told by ours.
	p = startUDX(t, nil)
	k := p.socket
	var s *udx.Stream
	s = p.stream(udx.StreamOptions{Firewall: func(on *udx.Socket, from netip.AddrPort) bool {
		if err := s.Connect(on, nodesID, from); err != nil {
			t.Error(err)
		}
		return on == k
	}})
	p.s = s
	call[any](p.n, "connect", args{"stream": "s", "socket": "k", "remoteId": s.ID(), "port": k.LocalAddr().Port()})
	p.carryBack(300_000)
	p.carry(300_000, 0, true)
}

// carryBack sends from Node to us.
func (p *udxPair) carryBack(size int) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() {
		done <- p.n.p.Call(p.t.Context(), "write", args{"stream": "s", "seed": "back", "size": size}, nil)
	}()
	got := make([]byte, size)
	if _, err := io.ReadFull(p.s, got); err != nil || !bytes.Equal(got, udxData("back", size)) {
		p.t.Fatalf("read: %v", err)
	}
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
}

func TestUDXDataBeforeConnectingIsKept(t *testing.T) {
	// Node writes before we connect, and then the other way round.
	p := startUDX(t, args{"firewall": "open"})
	call[any](p.n, "connect", args{"stream": "s", "socket": "k", "remoteId": p.s.ID(), "port": p.socket.LocalAddr().Port()})
	done := make(chan error, 1)
	go func() {
		done <- p.n.p.Call(t.Context(), "write", args{"stream": "s", "seed": "back", "size": 100_000}, nil)
	}()
	waitFor(t, func() bool { return p.s.Stats().PacketsReceived > 0 })
	if err := p.s.Connect(p.socket, nodesID, at(p.nodePort)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100_000)
	if _, err := io.ReadFull(p.s, got); err != nil || !bytes.Equal(got, udxData("back", 100_000)) {
		t.Errorf("read: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}

	p = startUDX(t, args{"firewall": "open"})
	if err := p.s.Connect(p.socket, nodesID, at(p.nodePort)); err != nil {
		t.Fatal(err)
	}
	p.s.Write(udxData("forth", 5000))
	call[streamOfNode](p.n, "until", args{"stream": "s", "bytes": 5000})
	if ours := p.s.Stats(); ours.PacketsReceived != 0 {
		t.Errorf("Node answers before it is connected: %+v", ours)
	}
	call[any](p.n, "connect", args{"stream": "s", "socket": "k", "remoteId": p.s.ID(), "port": p.socket.LocalAddr().Port()})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.s.Flush(ctx); err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it takes too long")
		}
	}
}

func TestUDXHeartbeatsAreAnswered(t *testing.T) {
	p := startUDX(t, nil).connect(nil)
	call[any](p.n, "keepalive", args{"stream": "s", "ms": 20})
	call[streamOfNode](p.n, "until", args{"stream": "s", "packetsReceived": 5})
	call[any](p.n, "keepalive", args{"stream": "s", "ms": 0})
	before := p.s.Stats().PacketsReceived
	p.s.SetKeepAlive(20 * time.Millisecond)
	waitFor(t, func() bool { return p.s.Stats().PacketsReceived >= before+5 })
}

func TestUDXMovesAndLosesNothing(t *testing.T) {
	for name, moves := range map[string]func(p *udxPair, second *udx.Socket, other int) error{
		"we go to another socket": func(p *udxPair, second *udx.Socket, _ int) error {
			return p.move(second, at(p.nodePort))
		},
		"Node goes to another socket": func(p *udxPair, _ *udx.Socket, _ int) error {
			return p.n.p.Call(p.t.Context(), "change", args{"stream": "s", "socket": "k2", "remoteId": p.s.ID(), "port": p.socket.LocalAddr().Port()}, nil)
		},
		"both do": func(p *udxPair, second *udx.Socket, other int) error {
			theirs := make(chan error, 1)
			go func() {
				theirs <- p.n.p.Call(p.t.Context(), "change", args{"stream": "s", "socket": "k2", "remoteId": p.s.ID(), "port": second.LocalAddr().Port()}, nil)
			}()
			return errors.Join(p.move(second, at(other)), <-theirs)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startUDX(t, args{"firewall": "open"})
			second := p.listen()
			other := call[struct{ Port int }](p.n, "socket", args{"socket": "k2"}).Port
			p.connect(nil)
			const size = 24 << 20
			done := make(chan error, 1)
			go func() {
				done <- p.n.p.Call(t.Context(), "write", args{"stream": "s", "seed": "back", "size": size}, nil)
			}()
			go p.s.Write(udxData("forth", size))
			got := make([]byte, size)
			if _, err := io.ReadFull(p.s, got[:size/8]); err != nil {
				t.Fatal(err)
			}
			if err := moves(p, second, other); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p.s, got[size/8:]); err != nil || !bytes.Equal(got, udxData("back", size)) {
				t.Errorf("read: %v", err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			state := call[streamOfNode](p.n, "until", args{"stream": "s", "bytes": size})
			if state.SHA256 != sum(udxData("forth", size)) {
				t.Error("Node read other bytes than we wrote")
			}
		})
	}
}

// move changes our end's path, and waits until that is done.
func (p *udxPair) move(k *udx.Socket, to netip.AddrPort) error {
	done := make(chan bool)
	if err := p.s.ChangeRemote(k, nodesID, to, func() { close(done) }); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		return errors.New("the old path is never done")
	}
}

func TestUDXIsRelayedThroughNode(t *testing.T) {
	p := startUDX(t, nil)
	a, b := p.s, p.stream(udx.StreamOptions{})
	second := p.listen()
	for i, end := range []struct {
		name string
		s    *udx.Stream
		k    *udx.Socket
	}{{"a", a, p.socket}, {"b", b, second}} {
		id := 200 + i
		call[any](p.n, "stream", args{"stream": end.name, "id": id})
		call[any](p.n, "connect", args{"stream": end.name, "socket": "k", "remoteId": end.s.ID(), "port": end.k.LocalAddr().Port()})
		if err := end.s.Connect(end.k, uint32(id), at(p.nodePort)); err != nil {
			t.Fatal(err)
		}
	}
	call[any](p.n, "relay", args{"stream": "a", "to": "b"})
	call[any](p.n, "relay", args{"stream": "b", "to": "a"})
	data := udxData("forth", 4<<20)
	go func() {
		a.Write(data)
		a.CloseWrite()
	}()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	b.Destroy()
	<-a.Done()
	// Node's other stream is gone as well, but it does not say so.
	call[streamOfNode](p.n, "until", args{"stream": "b", "closed": true})
	if err := a.Err(); !errors.Is(err, udx.ErrReset) {
		t.Errorf("our other stream: %v", err)
	}
}

func TestUDXRelaysForNode(t *testing.T) {
	p := startUDX(t, nil)
	toUs, toThem := p.stream(udx.StreamOptions{}), p.stream(udx.StreamOptions{})
	port := p.socket.LocalAddr().Port()
	farPort := call[struct{ Port int }](p.n, "socket", args{"socket": "k2"}).Port
	call[any](p.n, "stream", args{"stream": "far", "id": 88})
	call[any](p.n, "connect", args{"stream": "s", "socket": "k", "remoteId": toUs.ID(), "port": port})
	call[any](p.n, "connect", args{"stream": "far", "socket": "k2", "remoteId": toThem.ID(), "port": port})
	for _, err := range []error{
		toUs.Connect(p.socket, nodesID, at(p.nodePort)),
		toThem.Connect(p.socket, 88, at(farPort)),
		toUs.RelayTo(toThem),
		toThem.RelayTo(toUs),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	call[any](p.n, "write", args{"stream": "s", "seed": "back", "size": 4 << 20, "end": true})
	call[any](p.n, "write", args{"stream": "far", "seed": "far", "size": 4 << 20, "end": true})
	for name, seed := range map[string]string{"s": "far", "far": "back"} {
		state := call[streamOfNode](p.n, "until", args{"stream": name, "bytes": 4 << 20, "closed": true})
		if state.SHA256 != sum(udxData(seed, 4<<20)) || state.Error != nil {
			t.Errorf("%s read %d other bytes", name, state.Bytes)
		}
	}
	if n := toUs.Stats().BytesReceived; n < 4<<20 {
		t.Errorf("%d bytes were passed on", n)
	}
}
