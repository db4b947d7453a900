package natlab

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Line is how bad the way between a router or host and the internet is. What
// it says holds in each direction. The zero value is a perfect one.
type Line struct {
	Delay  time.Duration // that every packet takes
	Jitter time.Duration // and up to this much more, so that packets overtake each other
	Loss   float64       // the part of packets that are lost, from 0 to 1
	Rate   float64       // bits a second; zero is without limit
	Queue  int           // how many packets wait for their turn at most; zero is 1000
	Seed   uint64        // of what is random
}

// Line makes the way between the router and the internet like this.
func (r *Router) Line(line Line) error { return r.cable.set(line) }

// Line makes the way between the host and the others on its network like this.
func (h *Host) Line(line Line) error { return h.cable.set(line) }

// set takes the cable's port off its bridge, and puts an emulator with a second
// cable between the two.
func (c *cable) set(line Line) error {
	near, far := c.port+"n", c.port+"f"
	if c.emulator != nil {
		if err := c.emulator.Close(); err != nil {
			return err
		}
		c.emulator = nil
		if err := c.on.space.ip("link del "+near, "link set "+c.port+" master "+c.on.bridge); err != nil {
			return err
		}
	}
	if line == (Line{}) {
		return nil
	}
	// The kernel hands over large packets that are to be cut by whoever can't take
	// them. The emulator is to see what a line would.
	if err := c.space.ip("link set dev " + c.dev + " gso_max_segs 1"); err != nil {
		return err
	}
	err := c.on.space.ip(
		"link add name "+near+" type veth peer name "+far,
		"link set dev "+far+" gso_max_segs 1 master "+c.on.bridge+" up",
		"link set dev "+near+" up",
		"link set dev "+c.port+" nomaster")
	if err != nil {
		return err
	}
	for _, dev := range []string{near, far} {
		if err := c.on.space.await(dev); err != nil {
			return err
		}
	}
	err = c.on.space.do(func() (err error) {
		c.emulator, err = emulate(c.port, near, line)
		return err
	})
	if err != nil {
		return fmt.Errorf("emulate a line: %w", err)
	}
	c.lab.atClose(c.emulator.Close)
	return nil
}

// An emulator carries frames between two interfaces, late and not all.
type emulator struct {
	ends   [2]*os.File
	routes sync.WaitGroup
	once   sync.Once
	err    error // of Close
}

// emulate starts an emulator in the namespace of the caller's thread.
func emulate(a, b string, line Line) (*emulator, error) {
	e := &emulator{}
	for i, name := range []string{a, b} {
		end, err := openInterface(name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), e.Close())
		}
		e.ends[i] = end
	}
	for i := range e.ends {
		q := &queue{line: line, random: rand.New(rand.NewPCG(line.Seed, uint64(i))), wake: make(chan struct{}, 1)}
		e.routes.Go(func() { q.take(e.ends[i]) })
		e.routes.Go(func() { q.give(e.ends[1-i]) })
	}
	return e, nil
}

// Close ends the emulator; what is on its way is lost.
func (e *emulator) Close() error {
	e.once.Do(func() {
		for _, end := range e.ends {
			if end != nil {
				e.err = errors.Join(e.err, end.Close())
			}
		}
	})
	e.routes.Wait()
	return e.err
}

// maxFrame is the most bytes of a frame with what the kernel says of it.
const maxFrame = 128 << 10

// openInterface opens an interface for frames. Before each stands what the
// kernel knows of it, such as that its checksum is still to be made, and is to
// be told again.
func openInterface(name string) (*os.File, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the order of the network
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(dev.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// A queue is one direction of an emulator.
type queue struct {
	line   Line
	random *rand.Rand    // of take
	wake   chan struct{} // has something when the first frame is another, or take is over

	mu     sync.Mutex
	frames frames // guarded by mu
	over   bool   // guarded by mu: take has ended
}

// take reads frames and says when each is to go on.
func (q *queue) take(from *os.File) {
	var order uint64
	var free time.Time // when the line is free again
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		if q.random.Float64() < q.line.Loss {
			continue
		}
		now := time.Now()
		at := now.Add(q.line.Delay)
		if q.line.Jitter > 0 {
			at = at.Add(time.Duration(q.random.Int64N(int64(q.line.Jitter))))
		}
		q.mu.Lock()
		if limit := q.line.Queue; len(q.frames) >= limit && limit > 0 || len(q.frames) >= 1000 && limit == 0 {
			q.mu.Unlock()
			continue
		}
		if q.line.Rate > 0 {
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(float64(n-virtioHeader) * 8 / q.line.Rate * float64(time.Second)))
			at = at.Add(free.Sub(now))
		}
		order++
		heap.Push(&q.frames, frame{at, order, append([]byte(nil), buf[:n]...)})
		q.mu.Unlock()
		q.tell()
	}
	q.mu.Lock()
	q.over = true
	q.mu.Unlock()
	q.tell()
}

// virtioHeader is the size of what the kernel knows of a frame.
const virtioHeader = 10

func (q *queue) tell() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// give writes frames when they are due.
func (q *queue) give(to *os.File) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-q.wake:
		case <-timer.C:
		}
		for {
			q.mu.Lock()
			if q.over {
				q.mu.Unlock()
				return
			}
			if len(q.frames) == 0 {
				q.mu.Unlock()
				break
			}
			if wait := time.Until(q.frames[0].at); wait > 0 {
				q.mu.Unlock()
				timer.Reset(wait)
				break
			}
			f := heap.Pop(&q.frames).(frame)
			q.mu.Unlock()
			_, _ = to.Write(f.data) // the other side may be down, as cables can be
		}
	}
}

// A frame is on its way.
type frame struct {
	at    time.Time
	order uint64
	data  []byte
}

// frames is a heap, what is due first on top.
type frames []frame

func (f frames) Len() int { return len(f) }
func (f frames) Less(i, j int) bool {
	return f[i].at.Before(f[j].at) || f[i].at.Equal(f[j].at) && f[i].order < f[j].order
}
func (f frames) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *frames) Push(x any)   { *f = append(*f, x.(frame)) }
func (f *frames) Pop() any {
	old := *f
	last := old[len(old)-1]
	old[len(old)-1] = frame{}
	*f = old[:len(old)-1]
	return last
}
