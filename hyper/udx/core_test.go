package udx

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"
)

// random returns the nth generator of the run's seed, which is printed if the
// test fails.
func random(t testing.TB, n uint64) *rand.Rand {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("-seed %d", *seed)
		}
	})
	return rand.New(rand.NewPCG(*seed, 1000+n))
}

var long = os.Getenv("BEVY_LONG") == "1"

// A cable joins two cores. Its fields are of each direction.
type cable struct {
	delay, jitter   time.Duration
	rate            float64 // bytes a second; 0 is no limit
	queue           int     // bytes that wait for the rate
	loss, duplicate float64
	reorder         float64 // part of the packets that come later, by up to twice the delay
	mtu             int     // 0 is 1500
	// pass, if it is set, tells which packets to let through.
	pass func(from int, h header, size int) bool
}

// ends are two cores on a cable, in a time of their own.
type ends struct {
	t     testing.TB
	rng   *rand.Rand
	cable cable
	cores [2]*core
	ids   [2]uint32
	now   time.Duration

	free     [2]time.Duration // when the line is free again
	arrivals arrivals
	count    int
	log      []header // of all packets that were sent, if keep is set
	raw      [][]byte
	from     []int
	keep     bool
}

type arrival struct {
	at    time.Duration
	order int
	to    int
	data  []byte
}

type arrivals []arrival

func (e arrivals) Len() int { return len(e) }
func (e arrivals) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e arrivals) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *arrivals) Push(x any)   { *e = append(*e, x.(arrival)) }
func (e *arrivals) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

var addrs = [2]netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.2:2000")}

func newEnds(t testing.TB, rng *rand.Rand, c cable) *ends {
	e := &ends{t: t, rng: rng, cable: c, ids: [2]uint32{1, 2}, now: time.Second}
	for i := range e.cores {
		e.cores[i] = &core{}
		e.cores[i].init(e.now, rng.Uint64())
	}
	return e
}

// join connects both ends.
func (e *ends) join() *ends {
	for i := range e.cores {
		e.connect(i)
	}
	return e
}

func (e *ends) connect(i int) {
	e.with(i, func(out *outbox) {
		e.cores[i].connect(e.now, &path{id: e.ids[1-i], addr: addrs[1-i]}, out)
	})
}

// with calls a core and sends what it then has to send.
func (e *ends) with(i int, f func(out *outbox)) {
	out := newOutbox()
	defer out.free()
	if f != nil {
		f(out)
	}
	for {
		e.cores[i].fill(e.now, out)
		if len(out.packets) == 0 {
			return
		}
		for _, p := range out.packets {
			for data := range p.Datagrams() {
				e.send(i, data, p.Fragment)
			}
		}
		out.reset()
	}
}

func (e *ends) send(from int, data []byte, fragment bool) {
	h, _, _, ok := parse(data)
	if !ok || h.id != e.ids[1-from] {
		e.t.Fatalf("end %d sends %x", from, data)
	}
	if e.keep {
		e.log, e.raw, e.from = append(e.log, h), append(e.raw, bytes.Clone(data)), append(e.from, from)
	}
	c := e.cable
	mtu := c.mtu
	if mtu == 0 {
		mtu = 1500
	}
	if c.pass != nil && !c.pass(from, h, len(data)) || len(data)+28 > mtu && !fragment || e.rng.Float64() < c.loss {
		return
	}
	for range 1 + b2i(e.rng.Float64() < c.duplicate) {
		at := e.now
		if c.rate > 0 {
			e.free[from] = max(e.free[from], e.now)
			if float64(c.queue) < (e.free[from]-e.now).Seconds()*c.rate {
				continue
			}
			e.free[from] += time.Duration(float64(len(data)+28) / c.rate * float64(time.Second))
			at = e.free[from]
		}
		at += c.delay
		if c.jitter > 0 {
			at += time.Duration(e.rng.Int64N(int64(c.jitter)))
		}
		if e.rng.Float64() < c.reorder {
			at += time.Duration(e.rng.Int64N(int64(2*c.delay) + 1))
		}
		e.count++
		heap.Push(&e.arrivals, arrival{at, e.count, 1 - from, bytes.Clone(data)})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// step lets the next thing happen, and reports whether there was one.
func (e *ends) step() bool {
	at, who := time.Duration(0), -1
	for i, c := range e.cores {
		if d := c.deadline(); d != 0 && c.status != gone && (who < 0 || d < at) {
			at, who = d, i
		}
	}
	if len(e.arrivals) > 0 && (who < 0 || e.arrivals[0].at <= at) {
		ev := heap.Pop(&e.arrivals).(arrival)
		e.now = ev.at
		e.arrive(ev.to, ev.data)
		return true
	}
	if who < 0 {
		return false
	}
	if at < e.now {
		at = e.now
	}
	e.now = at
	e.with(who, func(out *outbox) { e.cores[who].tick(e.now, out) })
	return true
}

// arrive gives a packet to a core, with all others that come at once.
func (e *ends) arrive(to int, data []byte) {
	e.with(to, func(out *outbox) {
		for {
			if h, blocks, body, ok := parse(data); ok {
				e.cores[to].receive(e.now, &h, blocks, body, out)
			}
			if len(e.arrivals) == 0 || e.arrivals[0].at != e.now || e.arrivals[0].to != to {
				break
			}
			data = heap.Pop(&e.arrivals).(arrival).data
		}
		e.cores[to].ackRest(out)
	})
}

// run goes on for d.
func (e *ends) run(d time.Duration) {
	end := e.now + d
	for {
		next := end + 1
		for _, c := range e.cores {
			if d := c.deadline(); d != 0 && c.status != gone {
				next = min(next, d)
			}
		}
		if len(e.arrivals) > 0 {
			next = min(next, e.arrivals[0].at)
		}
		if next > end {
			e.now = end
			return
		}
		e.step()
	}
}

// until runs till a condition holds, for a time at most.
func (e *ends) until(most time.Duration, what string, cond func() bool) {
	e.t.Helper()
	end := e.now + most
	for !cond() {
		if !e.step() || e.now > end {
			e.t.Fatalf("at %v: not %s: %v, %v", e.now, what, e.describe(0), e.describe(1))
		}
	}
}

func (e *ends) describe(i int) string {
	c := e.cores[i]
	return fmt.Sprintf("end %d: status %d err %v una %d seq %d ack %d in flight %d lost %d window %d of %d, unsent %d, spans %v, %+v",
		i, c.status, c.err, c.una, c.seq, c.ack, c.inFlight.n, c.lost.n, c.control.window(), c.window, c.unsent(), c.spans, c.stats)
}

// A flow writes bytes at one end and reads them at the other.
type flow struct {
	from        int
	size        int
	wrote, read int
	end         bool // the writer ends
	gen, check  *rand.ChaCha8
	bad         bool
}

func newFlow(from, size int, end bool) *flow {
	var seed [32]byte
	seed[0] = byte(from)
	return &flow{from: from, size: size, end: end, gen: rand.NewChaCha8(seed), check: rand.NewChaCha8(seed)}
}

func (f *flow) done() bool { return f.read == f.size }

// pump writes what there is room for, and reads what has come.
func (f *flow) pump(e *ends) {
	w := e.cores[f.from]
	wrote := false
	for f.wrote < f.size && w.status == living {
		n := min(w.room(), f.size-f.wrote, 1<<16)
		if n == 0 {
			break
		}
		p := make([]byte, n)
		f.gen.Read(p)
		if w.write(p) != n {
			e.t.Fatal("a write of what there is room for is cut short")
		}
		f.wrote += n
		wrote = true
	}
	if f.end && f.wrote == f.size && w.status == living && !w.ending {
		w.end()
		wrote = true
	}
	if wrote {
		e.with(f.from, nil)
	}
	r := e.cores[1-f.from]
	var buf [40000]byte
	for r.in.n > 0 {
		n, tell := r.read(buf[:])
		want := make([]byte, n)
		f.check.Read(want)
		f.bad = f.bad || !bytes.Equal(want, buf[:n])
		f.read += n
		e.with(1-f.from, func(out *outbox) {
			if tell {
				r.ackNow(out)
			}
		})
	}
	if f.bad || f.read > f.size {
		e.t.Fatalf("other bytes came than were sent, within the first %d", f.read)
	}
}

// carry runs flows to their ends.
func (e *ends) carry(most time.Duration, flows ...*flow) {
	e.t.Helper()
	e.until(most, "all carried", func() bool {
		done := true
		for _, f := range flows {
			f.pump(e)
			done = done && f.done()
		}
		return done
	})
}

var cables = map[string]cable{
	"loopback":       {delay: 30 * time.Microsecond, jitter: 10 * time.Microsecond},
	"no delay":       {},
	"wan":            {delay: 25 * time.Millisecond, rate: 12.5e6, queue: 400_000},
	"loss":           {delay: 10 * time.Millisecond, loss: 0.02},
	"heavy loss":     {delay: 5 * time.Millisecond, loss: 0.12},
	"reorder":        {delay: 10 * time.Millisecond, reorder: 0.1, jitter: time.Millisecond},
	"duplicate":      {delay: 5 * time.Millisecond, duplicate: 0.3},
	"small mtu":      {delay: 5 * time.Millisecond, mtu: 1300},
	"all at once":    {delay: 20 * time.Millisecond, jitter: 5 * time.Millisecond, loss: 0.05, duplicate: 0.05, reorder: 0.05, mtu: 1400, rate: 3e6, queue: 60_000},
	"shallow buffer": {delay: 20 * time.Millisecond, rate: 5e6, queue: 20_000},
}

func TestEverythingArrivesOverAnyLine(t *testing.T) {
	size := 600_000
	seeds := 2
	if long {
		size, seeds = 8<<20, 20
	}
	for name, c := range cables {
		t.Run(name, func(t *testing.T) {
			for i := range seeds {
				e := newEnds(t, random(t, uint64(i)), c).join()
				forth, back := newFlow(0, size, true), newFlow(1, size/3, true)
				e.carry(5*time.Minute, forth, back)
				e.until(time.Minute, "ended", func() bool { return e.cores[0].status >= ended && e.cores[1].status >= ended })
				for i, c := range e.cores {
					if c.err != nil {
						t.Errorf("end %d: %v", i, c.err)
					}
				}
				e.until(time.Minute, "gone", func() bool { return e.cores[0].status == gone && e.cores[1].status == gone })
			}
		})
	}
}

func TestMTUIsFoundInBand(t *testing.T) {
	for mtu, want := range map[int]int{0: 1500, 1500: 1500, 1499: 1488, 1300: 1296, 1231: 1200, 1200: 1200} {
		e := newEnds(t, random(t, 1), cable{delay: time.Millisecond, rate: 3e6, queue: 1e6, mtu: mtu}).join()
		e.carry(time.Minute, newFlow(0, 1_000_000, false))
		if got := e.cores[0].mtu; got != want {
			t.Errorf("over a path of %d bytes the MTU is %d, want %d", mtu, got, want)
		}
		if s := e.cores[0].stats; mtu == 1300 && (s.Lost != maxProbes || s.Recoveries != 0) {
			t.Errorf("the probes of the MTU count as loss: %+v", s)
		}
	}
}

func TestStreamOutlivesAnMTUThatShrinks(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: 20 * time.Millisecond, rate: 3e6, queue: 1e6}).join()
	c := e.cores[0]
	e.carry(time.Minute, newFlow(0, 2_000_000, false))
	if c.mtu != 1500 {
		t.Fatalf("the MTU is %d", c.mtu)
	}
	e.cable.mtu = 1300
	start := e.now
	e.cores[1].in.discard(e.cores[1].in.n)
	e.carry(time.Minute, newFlow(0, 1_000_000, false))
	if took := e.now - start; took > 10*time.Second || c.mtu != 1296 {
		t.Errorf("it took %v, and the MTU is %d", took, c.mtu)
	}
	// A line that is dead for a while is not taken for one with another MTU for long.
	e.cable.mtu = 0
	c.resetMTU()
	e.carry(time.Minute, newFlow(0, 2_000_000, false))
	e.cable.pass = func(int, header, int) bool { return e.now > start+5*time.Second }
	start = e.now
	e.carry(time.Minute, newFlow(0, 2_000_000, false))
	if c.mtu != 1500 || c.stats.Timeouts == 0 {
		t.Errorf("the MTU is %d, %+v", c.mtu, c.stats)
	}
}

func TestEachSecondPacketIsAcked(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	e.keep = true
	e.carry(time.Minute, newFlow(0, 2<<20, false))
	last := uint32(0)
	for i, h := range e.log {
		if e.from[i] == 1 {
			if n := h.ack - last; n > 2 {
				t.Fatalf("an ack for %d packets", n)
			}
			last = h.ack
		}
	}
	if last != e.cores[0].seq {
		t.Errorf("acked up to %d of %d", last, e.cores[0].seq)
	}
}

func TestLastAckThatIsLostIsAnswered(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond})
	drop := 0
	e.cable.pass = func(from int, h header, _ int) bool {
		// The acks of 1 for the end of 0 get lost for a while.
		if from == 1 && drop > 0 && h.kind == 0 && h.ack == 2 {
			drop--
			return false
		}
		return true
	}
	e.join()
	drop = 3
	e.carry(time.Second, newFlow(0, 1, false), newFlow(1, 1, true))
	e.run(time.Second)
	e.cores[0].end()
	e.with(0, nil)
	e.until(30*time.Second, "ended", func() bool { return e.cores[0].status == ended })
	if drop != 0 || e.cores[0].stats.Timeouts+e.cores[0].stats.Resent == 0 {
		t.Errorf("nothing was lost: %s", e.describe(0))
	}
}

func TestTailThatIsLostTwiceNeedsNoTimeout(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: 10 * time.Millisecond}).join()
	e.carry(time.Second, newFlow(0, 100_000, false))
	drop := 3
	e.cable.pass = func(from int, h header, _ int) bool {
		if from == 0 && h.kind&typeData != 0 && drop > 0 {
			drop--
			return false
		}
		return true
	}
	start := e.now
	e.cores[0].write([]byte("the last word"))
	e.with(0, nil)
	e.until(10*time.Second, "acked", func() bool { return e.cores[0].out.n == 0 })
	if took := e.now - start; drop != 0 || took > 500*time.Millisecond || e.cores[0].stats.Timeouts != 0 {
		t.Errorf("it took %v: %s", took, e.describe(0))
	}
}

func TestSilenceEndsAStream(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	e.carry(time.Second, newFlow(0, 1, false))
	e.run(time.Second)
	e.keep = true
	e.cable.pass = func(from int, _ header, _ int) bool { return false }
	start := e.now
	e.cores[0].write([]byte("anybody?"))
	e.with(0, nil)
	e.until(5*time.Minute, "closed", func() bool { return e.cores[0].status >= ended })
	if err := e.cores[0].err; !errors.Is(err, ErrTimeout) {
		t.Errorf("error %v", err)
	}
	// Timeouts after 1, 2, 4, 8, 16, 30 and 30 seconds, and probes of the tail
	// the first of which puts them off a little.
	if took := e.now - start; took < 91*time.Second || took > 92*time.Second {
		t.Errorf("it took %v", took)
	}
	if e.cores[0].stats.Timeouts != 7 || len(e.log) != 11 {
		t.Errorf("%d packets, %+v", len(e.log), e.cores[0].stats)
	}
}

func TestReaderThatStopsStopsTheWriter(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: 5 * time.Millisecond}).join()
	f := newFlow(0, 12<<20, true)
	w, r := e.cores[0], e.cores[1]
	fill := func() {
		for f.wrote < f.size && w.room() > 0 {
			p := make([]byte, min(w.room(), f.size-f.wrote))
			f.gen.Read(p)
			f.wrote += w.write(p)
		}
		e.with(0, nil)
	}
	for range 200 {
		fill()
		e.run(50 * time.Millisecond)
	}
	if held := r.in.n + r.earlyBytes; held > firstWindow+maxMTU || held < firstWindow-2*maxMTU || w.window != 0 {
		t.Fatalf("%d bytes wait to be read, the window is %d", held, w.window)
	}
	if w.unsent() == 0 || w.una != w.seq {
		t.Fatalf("the writer does not wait: %s", e.describe(0))
	}
	// It asks for room, but not often, and does not give up.
	sent := w.stats.PacketsSent
	e.run(10 * time.Minute)
	if n := w.stats.PacketsSent - sent; n < 5 || n > 40 {
		t.Errorf("%d packets in 10 minutes to ask for room", n)
	}
	if w.status != living {
		t.Fatal(w.err)
	}
	// All goes on when it is read, even if the news of that get lost.
	e.cable.loss = 0.3
	e.carry(5*time.Minute, f)
}

func TestLongFatLineGetsALargerWindow(t *testing.T) {
	// 2 MB are on their way if it is filled; with the first window it is a quarter.
	e := newEnds(t, random(t, 1), cable{delay: 100 * time.Millisecond, rate: 10e6, queue: 1 << 20}).join()
	first := 512 << 10
	w, r := e.cores[0], e.cores[1]
	w.window, r.most = uint32(first), first
	e.carry(time.Minute, newFlow(0, 1, false), newFlow(1, 1, false)) // so that both know the round trip time
	e.carry(time.Minute, newFlow(0, 8<<20, false))
	start, size := e.now, 6<<20
	e.carry(time.Minute, newFlow(0, size, false))
	if rate := float64(size) / (e.now - start).Seconds(); rate < 6e6 {
		t.Errorf("%.1f MB/s with a window of %d", rate/1e6, r.most)
	}
	// The reader stops.
	for range 100 {
		w.write(make([]byte, w.room()))
		e.with(0, nil)
		e.run(10 * time.Millisecond)
	}
	e.run(10 * time.Second)
	if held := r.in.n + r.earlyBytes; held <= first || held > r.most || r.most > maxWindow {
		t.Errorf("%d bytes wait to be read of %d", held, r.most)
	}

	// A line that is short needs no more.
	e = newEnds(t, random(t, 1), cable{delay: time.Millisecond, rate: 60e6, queue: 4 << 20}).join()
	e.cores[0].window, e.cores[1].most = uint32(first), first
	e.carry(time.Minute, newFlow(0, 1, false), newFlow(1, 1, false))
	e.carry(time.Minute, newFlow(0, 2<<20, false))
	if r := e.cores[1]; r.most != first {
		t.Errorf("a window of %d", r.most)
	}
}

func TestWindowProbesWithoutAnswerEndAStream(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	w := e.cores[0]
	e.arrive(0, packetOf(header{id: 1, window: 0}, nil)) // nothing is in flight
	w.write([]byte("x"))
	e.with(0, nil)
	if w.seq != 0 {
		t.Fatal("it sends without a window")
	}
	e.cable.pass = func(int, header, int) bool { return false }
	e.until(10*time.Minute, "closed", func() bool { return w.status >= ended })
	if !errors.Is(w.err, ErrTimeout) {
		t.Error(w.err)
	}
}

func TestDataBeforeConnectingIsKeptAndAckedLater(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond})
	e.connect(0)
	f := newFlow(0, 1<<20, true)
	var p [1 << 16]byte
	f.gen.Read(p[:])
	f.wrote += e.cores[0].write(p[:])
	e.with(0, nil)
	e.run(100 * time.Millisecond)
	r := e.cores[1]
	if r.in.n == 0 || r.in.n+r.earlyBytes > maxEarly || r.stats.PacketsSent != 0 {
		t.Fatalf("%d bytes are here: %s", r.in.n, e.describe(1))
	}
	e.connect(1)
	before := e.cores[0].stats.Timeouts
	e.carry(time.Minute, f)
	if e.cores[0].stats.Timeouts != before {
		t.Errorf("connecting did not ack: %s", e.describe(0))
	}
}

func TestDestroyEndsTheOtherSide(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	e.carry(time.Second, newFlow(0, 1000, false), newFlow(1, 1000, false))
	e.with(0, func(out *outbox) { e.cores[0].destroy(e.now, out) })
	e.run(10 * time.Millisecond)
	if c := e.cores[1]; c.status != gone || !errors.Is(c.err, ErrReset) {
		t.Errorf("%v, %v", c.status, c.err)
	}
	// If that gets lost, whoever goes on is told again.
	e = newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	e.cable.pass = func(from int, h header, _ int) bool { return h.kind&typeDestroy == 0 }
	e.with(0, func(out *outbox) { e.cores[0].destroy(e.now, out) })
	e.cable.pass = nil
	e.run(time.Second)
	if e.cores[1].status != living {
		t.Fatal("it was not lost")
	}
	e.cores[1].write([]byte("hello?"))
	e.with(1, nil)
	e.run(10 * time.Millisecond)
	if c := e.cores[1]; c.status != gone || !errors.Is(c.err, ErrReset) {
		t.Errorf("%v, %v", c.status, c.err)
	}
}

func TestShutDropsWhatComesAndLosesNothingWritten(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	f := newFlow(0, 200_000, false)
	for f.wrote < f.size {
		f.pump(e)
		e.step()
	}
	e.cores[0].shut(e.now)
	e.with(0, nil)
	back := newFlow(1, 100_000, false)
	e.carry(time.Second, f)
	for range 100 {
		var p [1000]byte
		e.cores[1].write(p[:])
		e.with(1, nil)
		e.run(time.Millisecond)
	}
	_ = back
	if e.cores[0].in.n != 0 || e.cores[0].dropped != 100_000 {
		t.Errorf("%d bytes were dropped, %d kept", e.cores[0].dropped, e.cores[0].in.n)
	}
	if !e.cores[1].remoteEnded {
		t.Error("the end did not come")
	}
	e.until(lingerTime+time.Second, "refused", func() bool { return e.cores[1].status >= ended })
	if e.cores[0].status != broken || !errors.Is(e.cores[1].err, ErrReset) {
		t.Errorf("%s, %s", e.describe(0), e.describe(1))
	}
}

func TestShutWaitsAsLongAsThereIsProgress(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: 10 * time.Millisecond, rate: 20e3, queue: 30_000}).join()
	f := newFlow(0, 200_000, false) // takes ten seconds
	for f.wrote < f.size {
		f.pump(e)
		e.step()
	}
	e.cores[0].shut(e.now)
	e.with(0, nil)
	e.carry(time.Minute, f)
	if e.cores[0].status != closing {
		t.Error(e.describe(0))
	}
	e.until(lingerTime+time.Second, "refused", func() bool { return e.cores[1].status >= ended })
}

func TestReaderThatHasNoRoomIsNotGivenUp(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	w, r := e.cores[0], e.cores[1]
	e.carry(time.Second, newFlow(0, 1000, false))
	r.in.append(make([]byte, firstWindow)) // and the writer believes in its window
	w.write([]byte("one more"))
	e.with(0, nil)
	e.run(20 * time.Minute)
	if w.status != living || w.una == w.seq || w.stats.Timeouts < 7 {
		t.Fatalf("%s", e.describe(0))
	}
	e.with(1, func(out *outbox) {
		r.read(make([]byte, firstWindow))
		r.ackNow(out)
	})
	e.until(time.Minute, "acked", func() bool { return w.una == w.seq })
}

func TestTailIsProbedWhenThereIsNoRoomYet(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	c := e.cores[0]
	e.carry(time.Second, newFlow(0, 1000, false))
	e.cable.pass = func(int, header, int) bool { return false }
	c.write([]byte("the last word"))
	e.with(0, nil)
	e.until(time.Second, "probed", func() bool { return c.tailNow || c.stats.Resent > 0 })
	c.tailNow = true
	sent := c.stats.Resent
	full := newOutbox()
	defer full.free()
	for full.fits(c.path, headerSize) {
		full.add(c.path, headerSize, false)
	}
	c.fill(e.now, full)
	if c.stats.Resent != sent {
		t.Fatal("there was room")
	}
	e.with(0, nil)
	if c.stats.Resent != sent+1 {
		t.Error("the probe was forgotten")
	}
}

// TestNumbersWrapAround lets the seqs of both directions pass their highest
// value while packets are lost and overtake one another.
func TestNumbersWrapAround(t *testing.T) {
	c := cables["all at once"]
	c.mtu = 0
	e := newEnds(t, random(t, 1), c)
	for i := range e.cores {
		mine, other := e.cores[i], e.cores[1-i]
		start := -uint32(50 + 100*i)
		mine.una, mine.seq, mine.highest, mine.rackSeq = start, start, start, start
		other.ack, other.wl1, mine.wl2 = start, start, start
	}
	e.join()
	forth, back := newFlow(0, 600_000, true), newFlow(1, 600_000, true)
	e.carry(time.Minute, forth, back)
	e.until(time.Minute, "ended", func() bool { return e.cores[0].status >= ended && e.cores[1].status >= ended })
	for i, c := range e.cores {
		if c.seq > 1<<31 || c.err != nil {
			t.Error(e.describe(i))
		}
	}
}

func TestHeartbeatsOnlyWhileIdle(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	e.keep = true
	e.cores[0].keepAlive = time.Second
	e.cores[0].restKeepAlive(e.now)
	e.run(10*time.Second + 100*time.Millisecond)
	if len(e.log) != 20 || e.log[0].kind != typeHeartbeat || e.log[1].kind != 0 {
		t.Errorf("%d packets: %+v", len(e.log), e.log[:2])
	}
	e.log, e.from = nil, nil
	f := newFlow(0, 4<<20, false)
	e.cable.rate, e.cable.queue = 1e6, 1e6
	e.carry(time.Minute, f)
	for _, h := range e.log {
		if h.kind == typeHeartbeat {
			t.Error("a heartbeat while data is on its way")
		}
	}
}

func TestPathChangesAndNothingIsLost(t *testing.T) {
	for _, dead := range []bool{false, true} {
		e := newEnds(t, random(t, 1), cable{delay: 10 * time.Millisecond, loss: 0.01, rate: 5e6, queue: 100_000}).join()
		f := newFlow(0, 3<<20, true)
		for f.read < f.size/2 {
			f.pump(e)
			e.step()
		}
		c := e.cores[0]
		e.with(0, func(*outbox) {
			if c.changePath(e.now, &path{id: 2, addr: netip.MustParseAddrPort("10.0.0.9:9")}) {
				t.Error("nothing was on its way")
			}
		})
		if dead { // what is on its way never comes
			at := c.moveAt
			first := map[uint32]bool{}
			e.cable.pass = func(from int, h header, _ int) bool {
				if from == 0 && diff(h.seq, at) < 0 && c.stats.Timeouts == 0 {
					first[h.seq] = true
					return false
				}
				return true
			}
			e.arrivals = nil
		}
		if c.mtu != baseMTU {
			t.Errorf("MTU %d on a new path", c.mtu)
		}
		e.until(30*time.Second, "moved", func() bool { f.pump(e); return !c.moved })
		e.carry(time.Minute, f)
	}
}

// packetOf is a packet as it goes over the wire.
func packetOf(h header, body []byte) []byte {
	p := make([]byte, headerSize+len(body))
	h.put(p)
	copy(p[headerSize:], body)
	return p
}

func TestHostilePacketsTakeNoMemoryAndChangeNothing(t *testing.T) {
	e := newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	c := e.cores[1]
	// Data far ahead of what is awaited.
	big := make([]byte, 1400)
	for seq := uint32(1); seq < maxAhead+2000; seq++ {
		e.arrive(1, packetOf(header{kind: typeData, id: 2, window: 1000, seq: seq}, big))
	}
	if held := c.earlyBytes + c.in.n; held > firstWindow || len(c.early.slots) > maxAhead {
		t.Errorf("%d bytes, %d slots", held, len(c.early.slots))
	}
	// Data in order has its own bound.
	for range 3 * firstWindow / len(big) {
		e.arrive(1, packetOf(header{kind: typeData, id: 2, window: 1000, seq: c.ack}, big))
	}
	if held := c.earlyBytes + c.in.n; held > 2*firstWindow {
		t.Errorf("%d bytes", held)
	}
	// What can't be from the other side does nothing.
	e = newEnds(t, random(t, 1), cable{delay: time.Millisecond}).join()
	e.carry(time.Second, newFlow(0, 5000, false), newFlow(1, 5000, false))
	c = e.cores[1]
	for name, h := range map[string]header{
		"an ack of what was not sent": {kind: typeData, id: 2, seq: c.ack, ack: c.seq + 1},
		"data from nowhere":           {kind: typeData, id: 2, seq: c.ack + 1<<30, ack: c.seq},
		"an end from nowhere":         {kind: typeEnd, id: 2, seq: c.ack - 1<<30, ack: c.seq},
		"a destroy from nowhere":      {kind: typeDestroy, id: 2, seq: c.ack + 1<<30, ack: c.seq},
		"a destroy of the past":       {kind: typeDestroy, id: 2, seq: c.ack - 1, ack: c.seq},
	} {
		before := *c
		e.arrive(1, packetOf(h, []byte("x")))
		if c.status != living || c.ack != before.ack || c.in.n != before.in.n || c.window != before.window {
			t.Errorf("%s: %s", name, e.describe(1))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packetOf(header{kind: typeData | typeSACK, offset: 8, id: 1, seq: 2}, make([]byte, 20)))
	f.Add(packetOf(header{kind: typeSACK, id: 1}, make([]byte, 500)))
	f.Add([]byte{magic, version})
	f.Fuzz(func(t *testing.T, p []byte) {
		h, blocks, data, ok := parse(p)
		if !ok {
			return
		}
		again := make([]byte, headerSize)
		h.put(again)
		if !bytes.Equal(again, p[:headerSize]) {
			t.Errorf("%x is written as %x", p[:headerSize], again)
		}
		if len(blocks)%8 != 0 || len(blocks) > 8*maxBlocks || len(data)+int(h.offset)+headerSize != len(p) {
			t.Errorf("%d bytes: blocks of %d, data of %d", len(p), len(blocks), len(data))
		}
	})
}

// FuzzCore feeds a core, that has sent and received something, with packets of
// all kinds whose numbers are near those that fit.
func FuzzCore(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"))
	f.Add(bytes.Repeat([]byte{1, 0, 1, 0, 1, 3}, 50))
	f.Add(bytes.Repeat([]byte{5, 0, 3, 0, 9, 1}, 50))
	f.Fuzz(func(t *testing.T, script []byte) {
		e := newEnds(t, rand.New(rand.NewPCG(1, 1)), cable{delay: time.Millisecond}).join()
		c := e.cores[1]
		c.write(make([]byte, 30_000))
		e.with(1, nil)
		for ; len(script) >= 6 && c.status != gone; script = script[6:] {
			s := script[:6]
			switch s[0] >> 6 {
			case 1:
				e.run(time.Duration(s[1]) * 20 * time.Millisecond)
				continue
			case 2:
				var buf [5000]byte
				c.read(buf[:])
				c.write(buf[:int(s[1])*10])
				e.with(1, nil)
				continue
			}
			body := make([]byte, 8*int(s[5]&7)+int(s[5]>>3))
			for i := 0; i+8 <= len(body); i += 8 {
				start := c.una + uint32(i/4)*uint32(s[4]&3)
				putBlock(body[i:], span{start, start + uint32(int8(s[4])>>2)})
			}
			h := header{
				kind: s[0] & 63, offset: s[1] & 31, id: 2, window: uint32(s[1]) << 8,
				seq: c.ack + uint32(int8(s[2])), ack: c.una + uint32(int8(s[3])),
			}
			e.arrive(1, packetOf(h, body))
			c.mustHold(t)
		}
	})
}

// mustHold fails the test unless the core's counts are right.
func (c *core) mustHold(t *testing.T) {
	t.Helper()
	if c.status >= ended {
		return
	}
	flying, n, gone, sacked := 0, 0, 0, 0
	start := c.outStart
	for seq := c.una; seq != c.seq; seq++ {
		p := c.packets.at(seq)
		switch p.state {
		case inFlight:
			flying += int(p.size)
			n++
		case lost:
			gone++
		case delivered:
			sacked++
		}
		if p.start != start {
			t.Fatalf("seq %d starts at %d, want %d", seq, p.start, start)
		}
		start += uint64(p.size)
	}
	if n != c.inFlight.n || flying != c.flying || gone != c.lost.n || sacked != c.sacked || start != c.outSent {
		t.Fatalf("in flight %d of %d bytes, want %d of %d; lost %d, want %d; sacked %d, want %d; sent to %d, want %d",
			c.inFlight.n, c.flying, n, flying, c.lost.n, gone, c.sacked, sacked, c.outSent, start)
	}
	early := 0
	last := c.ack
	for _, s := range c.spans {
		if diff(s.start, last) <= 0 || diff(s.end, s.start) <= 0 {
			t.Fatalf("spans %v after %d", c.spans, c.ack)
		}
		last = s.end
		for seq := s.start; seq != s.end; seq++ {
			if !c.early.at(seq).here {
				t.Fatalf("seq %d is not here", seq)
			}
			early += len(c.early.at(seq).data)
		}
	}
	if early != c.earlyBytes {
		t.Fatalf("%d bytes came early, want %d", c.earlyBytes, early)
	}
}
