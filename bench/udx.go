package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// udxBenchmarks is the table of the benchmarks of streams over UDP. The targets are ratios to reach.
func udxBenchmarks() []benchmark {
	loopback := func(name, what string, target float64, noise int) benchmark {
		return benchmark{
			name: name, unit: "MiB/s", target: target, what: what,
			full: work{block: 64 << 10, count: 8_192, noise: noise}, quick: work{block: 64 << 10, count: 128, noise: noise},
			bevy: side{name: "bevy", run: measureUDX(name), serve: serveUDX}, peer: side{name: "node", script: "udx.js"},
		}
	}
	wan := func(loss int) benchmark {
		name := fmt.Sprintf("swarm/udx-wan-%d", loss)
		w := work{block: 64 << 10, count: 1_536, cap: 12_500_000, delay: 25, loss: loss}
		quick := w
		quick.count = 48
		return benchmark{
			name: name, unit: "Mbit/s", target: 1, maxRounds: 3,
			what: fmt.Sprintf("one UDX stream between two processes at %d %% loss each way; a third process, the same for both, carries each packet with 25 ms each way and 100 Mbit/s", loss),
			full: w, quick: quick,
			bevy: side{name: "bevy", run: measureWAN(name, asBevy), serve: serveUDX},
			peer: side{name: "node", run: measureWAN(name, asPeer), serve: serveWAN},
		}
	}
	return []benchmark{
		loopback("swarm/udx", "send 512 MiB over one UDX stream on loopback, in writes of 64 KiB", 2, 0),
		loopback("swarm/udx-noise", "send 512 MiB over a secret stream and UDX on loopback, in messages of 64 KiB", 2, 1),
		wan(0), wan(1), wan(5),
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

// serveUDX is the serving half of udx.js.
func serveUDX(ctx context.Context, w work, ready func(serving) error) (extra map[string]float64, err error) {
	u := udx.New(udx.Options{})
	stream, err := u.NewStream(udx.StreamOptions{})
	if err != nil {
		return nil, err
	}
	begun := make(chan error, 1)
	var once sync.Once
	// Connected at once, for packets of the stream follow this one.
	connect := func(socket *udx.Socket, from netip.AddrPort, data []byte) {
		once.Do(func() {
			var id uint32
			_, err := fmt.Sscanf(string(data), "go %d", &id)
			if err == nil {
				err = stream.Connect(socket, id, from)
			}
			begun <- err
		})
	}
	socket, err := u.Listen(netip.AddrPortFrom(loopback, 0), udx.SocketOptions{Receive: connect})
	if err != nil {
		return nil, err
	}
	defer func() {
		stream.Destroy()
		err = errors.Join(err, socket.Close())
	}()
	key := strconv.FormatUint(uint64(stream.ID()), 10)
	if err := ready(serving{int(socket.LocalAddr().Port()), key}); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, nil
	case err := <-begun:
		if err != nil {
			return nil, err
		}
	}
	// Whoever reads goes when it has all.
	defer context.AfterFunc(ctx, stream.Destroy)()
	send := func(p []byte) error { _, err := stream.Write(p); return err }
	if w.noise != 0 {
		noisy, err := secretstream.Server(ctx, stream, secretstream.Options{KeyPair: keyPair()})
		if err != nil {
			return nil, err
		}
		if _, err := noisy.Next(); err != nil { // the sign to begin
			return nil, err
		}
		send = noisy.WriteMessage
	}
	at := incompressible(w.block)
	for i := range w.count {
		if err := send(at(i)); err != nil && ctx.Err() == nil {
			return nil, err
		}
	}
	<-ctx.Done()
	s := stream.Stats()
	return map[string]float64{"packets": float64(s.PacketsSent), "again": float64(s.Resent)}, nil
}

// measureUDX is udx.js.
func measureUDX(name string) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		from, err := startBevy(ctx, name, w)
		if err != nil {
			return r, err
		}
		r, err = readUDX(ctx, w, from.Key, from.Port)
		extra, stopped := from.stop()
		if err := errors.Join(err, stopped); err != nil {
			return r, err
		}
		r.Extra["packets"], r.Extra["again"] = extra["packets"], extra["again"]
		return r, nil
	}
}

// readUDX takes all that is sent to it.
func readUDX(ctx context.Context, w work, key string, port int) (r result, err error) {
	id, err := strconv.ParseUint(key, 10, 32)
	if err != nil {
		return r, err
	}
	u := udx.New(udx.Options{})
	socket, err := u.Listen(netip.AddrPortFrom(loopback, 0), udx.SocketOptions{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	stream, err := u.NewStream(udx.StreamOptions{})
	if err != nil {
		return r, err
	}
	defer stream.Destroy()
	to := netip.AddrPortFrom(loopback, uint16(port))
	if err := stream.Connect(socket, uint32(id), to); err != nil {
		return r, err
	}
	begun, cancel := context.WithCancel(ctx)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	ask := func() error { return socket.Send(to, fmt.Appendf(nil, "go %d", stream.ID())) }
	took, err := timed(func() error {
		if err := ask(); err != nil {
			return err
		}
		asking.Go(func() {
			for until(begun, time.Now().Add(200*time.Millisecond)) == nil {
				_ = ask() // a datagram may be lost
			}
		})
		defer cancel()
		if w.noise == 0 {
			return readAll(stream, w, cancel)
		}
		noisy, err := secretstream.Client(ctx, stream, secretstream.Options{KeyPair: keyPair()})
		if err != nil {
			return err
		}
		cancel()
		if err := noisy.WriteMessage([]byte("go")); err != nil {
			return err
		}
		for i := range w.count {
			message, err := noisy.Next()
			if err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
			if len(message) != w.block {
				return fmt.Errorf("message %d has %d bytes", i, len(message))
			}
		}
		return nil
	})
	r = took.result(w)
	if w.unit == "Mbit/s" {
		r.Value = float64(w.count*w.block) * 8 / 1e6 / took.wall.Seconds()
	}
	return r, err
}

// readAll reads until all bytes are there, and calls begun when the first one is.
func readAll(from io.Reader, w work, begun func()) error {
	p := make([]byte, 256<<10)
	for left := w.count * w.block; left > 0; {
		n, err := from.Read(p)
		if left -= n; err != nil {
			return fmt.Errorf("%d bytes are missing: %w", left, err)
		}
		begun()
	}
	return nil
}

// measureWAN measures over a line that serveWAN makes, for Bevy or for Node.
func measureWAN(name string, as role) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		begin := func() (*server, error) { return startBevy(ctx, name, w) }
		if as == asPeer {
			begin = func() (*server, error) { return startNode(ctx, "udx.js", w) }
		}
		from, err := begin()
		if err != nil {
			return r, err
		}
		defer func() {
			extra, stopped := from.stop()
			if err = errors.Join(err, stopped); err == nil {
				r.Extra["packets"], r.Extra["again"] = extra["packets"], extra["again"]
			}
		}()
		to := w
		to.port = from.Port
		line, err := startServing(ctx, name, asPeer, to)
		if err != nil {
			return r, err
		}
		defer func() {
			extra, stopped := line.stop()
			if err = errors.Join(err, stopped); err == nil {
				r.Extra["overflowed"], r.Extra["queueMs"] = extra["overflowed"], extra["queueMs"]
			}
		}()
		if as == asPeer {
			r, err = readNode(ctx, "udx.js", w, from.Key, line.Port)
		} else {
			r, err = readUDX(ctx, w, from.Key, line.Port)
		}
		if err == nil {
			r.Extra["ofLine"] = r.Value * 1e6 / 8 / float64(w.cap)
		}
		return r, err
	}
}

// serveWAN is a line to a port of this machine: it carries datagrams there and back, each with the delay, the loss and
// the rate of the work. What is sent faster stands in a queue of the line's rate times its round trip, and what finds
// no room there is lost too.
func serveWAN(ctx context.Context, w work, ready func(serving) error) (map[string]float64, error) {
	near, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice()})
	if err != nil {
		return nil, err
	}
	far, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: loopback.AsSlice(), Port: w.port})
	if err != nil {
		return nil, errors.Join(err, near.Close())
	}
	defer context.AfterFunc(ctx, func() {
		near.Close()
		far.Close()
	})()
	for _, c := range []*net.UDPConn{near, far} {
		if err := errors.Join(c.SetReadBuffer(4<<20), c.SetWriteBuffer(4<<20)); err != nil {
			return nil, err
		}
	}
	if err := ready(serving{Port: near.LocalAddr().(*net.UDPAddr).Port}); err != nil {
		return nil, err
	}
	there, back := newWANWay(w, 1), newWANWay(w, 2)
	var reader netip.AddrPort
	var ways sync.WaitGroup
	ways.Go(func() { there.carry(func(p []byte) { _, _ = far.Write(p) }) })
	ways.Go(func() { back.carry(func(p []byte) { _, _ = near.WriteToUDPAddrPort(p, back.reader()) }) })
	ways.Go(func() {
		p := make([]byte, 1<<16)
		for ctx.Err() == nil {
			n, err := far.Read(p)
			if err == nil {
				back.take(p[:n])
			}
		}
	})
	p := make([]byte, 1<<16)
	for ctx.Err() == nil {
		n, from, err := near.ReadFromUDPAddrPort(p)
		if err != nil {
			continue
		}
		if from != reader {
			reader = from
			back.leadTo(from)
		}
		there.take(p[:n])
	}
	there.end()
	back.end()
	ways.Wait()
	return map[string]float64{
		"overflowed": float64(there.overflowed + back.overflowed),
		"queueMs":    milliseconds(max(there.longest, back.longest)),
	}, nil
}

// wanWay is one direction of a line.
type wanWay struct {
	rate   float64 // bytes a second
	delay  time.Duration
	loss   float64
	longer time.Duration // that a packet may stand in the queue
	random *rand.Rand

	mu         sync.Mutex
	more       *sync.Cond
	under      []wanPacket // way, in the order of their arrival
	free       time.Time   // when the bottleneck is
	to         netip.AddrPort
	ended      bool
	overflowed int
	longest    time.Duration
}

type wanPacket struct {
	due  time.Time
	data []byte
}

func newWANWay(w work, seed uint64) *wanWay {
	delay := time.Duration(w.delay) * time.Millisecond
	way := &wanWay{
		rate: float64(w.cap), delay: delay, loss: float64(w.loss) / 100, longer: 2 * delay,
		random: rand.New(rand.NewPCG(seed, uint64(w.loss))),
	}
	way.more = sync.NewCond(&way.mu)
	return way
}

// headers is what IP and UDP add to a datagram.
const headers = 28

// take lets a datagram enter, or not.
func (way *wanWay) take(p []byte) {
	way.mu.Lock()
	defer way.mu.Unlock()
	if way.random.Float64() < way.loss {
		return
	}
	now := time.Now()
	if way.free.Before(now) {
		way.free = now
	}
	wait := way.free.Sub(now)
	if wait > way.longer {
		way.overflowed++
		return
	}
	way.longest = max(way.longest, wait)
	way.free = way.free.Add(time.Duration(float64(len(p)+headers) / way.rate * float64(time.Second)))
	way.under = append(way.under, wanPacket{way.free.Add(way.delay), append([]byte(nil), p...)})
	way.more.Signal()
}

// carry sends each datagram when it is due.
func (way *wanWay) carry(send func([]byte)) {
	for {
		way.mu.Lock()
		for len(way.under) == 0 && !way.ended {
			way.more.Wait()
		}
		if way.ended {
			way.mu.Unlock()
			return
		}
		next := way.under[0]
		way.under = way.under[1:]
		way.mu.Unlock()
		if wait := time.Until(next.due); wait > 0 {
			time.Sleep(wait)
		}
		send(next.data)
	}
}

func (way *wanWay) end() {
	way.mu.Lock()
	defer way.mu.Unlock()
	way.ended = true
	way.more.Signal()
}

func (way *wanWay) leadTo(to netip.AddrPort) {
	way.mu.Lock()
	defer way.mu.Unlock()
	way.to = to
}

func (way *wanWay) reader() netip.AddrPort {
	way.mu.Lock()
	defer way.mu.Unlock()
	return way.to
}
