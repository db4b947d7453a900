package udx

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 1, "of the lines that are simulated")

// A line is a way between two ends with one bottleneck, that of the sending
// direction. It moves when it is told to, so that hours pass in a moment.
type line struct {
	rate   float64       // bytes a second
	queue  int           // bytes that may stand before the bottleneck
	rtt    time.Duration // without a queue
	loss   float64
	jitter time.Duration // at the most, added to the way back
	bunch  time.Duration // acks are held and let go together this often

	random *rand.Rand
	now    time.Duration
	events eventHeap
	free   time.Duration // when the bottleneck will be
	flows  []*sender

	standing, dropped, passed int           // bytes, packets, packets
	worst                     time.Duration // that a packet stood in the queue since it was last reset
}

type event struct {
	at   time.Duration
	n    int
	call func()
}

type eventHeap struct {
	list []event
	n    int
}

func (h *eventHeap) Len() int { return len(h.list) }
func (h *eventHeap) Less(i, j int) bool {
	a, b := h.list[i], h.list[j]
	return a.at < b.at || a.at == b.at && a.n < b.n
}
func (h *eventHeap) Swap(i, j int) { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *eventHeap) Push(x any)    { h.list = append(h.list, x.(event)) }
func (h *eventHeap) Pop() any {
	last := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return last
}

func (l *line) at(t time.Duration, call func()) {
	l.events.n++
	heap.Push(&l.events, event{t, l.events.n, call})
}

// run moves the line by d.
func (l *line) run(d time.Duration) {
	end := l.now + d
	for len(l.events.list) > 0 && l.events.list[0].at <= end {
		e := heap.Pop(&l.events).(event)
		l.now = e.at
		e.call()
	}
	l.now = end
}

// carry takes a packet to the other end, and calls back with the ack of it.
func (l *line) carry(size int, acked func()) {
	if l.random.Float64() < l.loss || l.standing+size > l.queue {
		l.dropped++
		return
	}
	l.passed++
	l.standing += size
	wait := max(0, l.free-l.now)
	l.worst = max(l.worst, wait)
	l.free = l.now + wait + time.Duration(float64(size)/l.rate*float64(time.Second))
	l.at(l.free, func() { l.standing -= size })
	back := l.free + l.rtt
	if l.jitter > 0 {
		back += time.Duration(l.random.Int64N(int64(l.jitter)))
	}
	if l.bunch > 0 {
		back = (back/l.bunch + 1) * l.bunch
	}
	l.at(back, acked)
}

// A sender sends over a line all it may, and finds loss as RACK does.
type sender struct {
	line  *line
	cc    *bbr
	pacer pacer
	size  int

	packets      []*sending // in the order they were sent in, from the first that is under way
	inFlight     int
	queue        []*sending // to be sent again
	next         int        // sequence number
	una          int
	acked        map[int]bool
	high         int // recovery ends here
	recovery     recovery
	srtt, minRTT time.Duration
	rackSent     time.Duration
	waiting      bool
	deadline     time.Duration
	offered      float64 // packets a second that the application has; 0 is no end of them
	given        int
	delivered    int
	timeouts     int
	off          bool
}

type sending struct {
	seq   int
	stamp rateStamp
	at    time.Duration
	times int
	done  bool
	lost  bool
}

func (l *line) sender(size int) *sender {
	f := &sender{line: l, size: size, acked: map[int]bool{}, cc: newBBR(l.now, l.random.Uint64())}
	l.flows = append(l.flows, f)
	l.at(l.now, f.send)
	return f
}

func (f *sender) send() {
	now := f.line.now
	for !f.off {
		if f.inFlight >= f.cc.window() {
			return
		}
		if len(f.queue) == 0 && f.offered > 0 && f.given >= int(f.offered*now.Seconds()) {
			if !f.waiting {
				f.waiting = true
				f.line.at(now+time.Duration(float64(time.Second)/f.offered), f.wake)
			}
			return
		}
		if !f.pacer.ready(now, f.cc.rate(), f.size) {
			if !f.waiting {
				f.waiting = true
				f.line.at(f.pacer.wait, f.wake)
			}
			return
		}
		var p *sending
		if len(f.queue) > 0 {
			p, f.queue = f.queue[0], f.queue[1:]
			if p.done {
				continue
			}
			p.lost = false
		} else {
			p = &sending{seq: f.next}
			f.next++
			f.given++
		}
		p.times++
		p.at = now
		f.cc.sent(f.flight(), &p.stamp)
		f.pacer.spend(f.size)
		f.packets = append(f.packets, p)
		f.inFlight++
		f.line.carry(f.size, func() { f.ack(p) })
		if f.deadline == 0 {
			f.arm()
		}
	}
}

// flight is what the controller may know.
func (f *sender) flight() *flight {
	queued := 1 << 20
	if f.offered > 0 && f.given >= int(f.offered*f.line.now.Seconds()) {
		queued = 0
	}
	return &flight{
		now: f.line.now, inFlight: f.inFlight, lost: len(f.queue), queued: queued, recovery: f.recovery,
		srtt: f.srtt, minRTT: f.minRTT, payload: f.size - headerSize,
	}
}

func (f *sender) wake() {
	f.waiting = false
	f.send()
}

func (f *sender) arm() {
	if f.inFlight == 0 {
		f.deadline = 0
		return
	}
	f.deadline = f.line.now + max(time.Second, 2*f.srtt)
	at := f.deadline
	f.line.at(at, func() {
		if f.deadline == at {
			f.timeout()
		}
	})
}

func (f *sender) timeout() {
	f.timeouts++
	for _, p := range f.packets {
		if !p.done {
			p.lost = true
			f.queue = append(f.queue, p)
		}
	}
	f.packets, f.inFlight = nil, 0
	f.recovery, f.high = losing, f.next
	f.srtt *= 2
	f.cc.timedOut(f.flight())
	f.deadline = 0
	f.send()
	f.arm()
}

func (f *sender) ack(p *sending) {
	if p.done {
		return
	}
	now := f.line.now
	p.done = true
	if !p.lost {
		f.inFlight--
	}
	f.delivered++
	lost := 0
	d := delivery{sentAt: p.at, size: f.size, again: p.times > 1, rtt: -1}
	if p.times == 1 {
		d.rtt = now - p.at
		f.srtt = d.rtt
		if f.minRTT == 0 || d.rtt < f.minRTT {
			f.minRTT = d.rtt
		}
	}
	f.cc.delivered(f.flight(), &p.stamp, d)
	f.acked[p.seq] = true
	for f.acked[f.una] {
		delete(f.acked, f.una)
		f.una++
	}
	if f.una >= f.high {
		f.recovery = open
	}
	if p.times == 1 || now-p.at >= f.minRTT {
		f.rackSent = max(f.rackSent, p.at)
	}
	// Those that left earlier and have had a quarter more of time are lost.
	for ; len(f.packets) > 0; f.packets = f.packets[1:] {
		q := f.packets[0]
		if q.done {
			continue
		}
		if q.at >= f.rackSent || now-q.at <= f.srtt+f.minRTT/4+f.line.jitter {
			break
		}
		q.lost = true
		f.inFlight--
		lost++
		f.queue = append(f.queue, q)
	}
	if lost > 0 && f.recovery == open {
		f.recovery, f.high = recovering, f.next
	}
	f.cc.acked(f.flight(), 1, lost)
	f.send()
	f.arm()
}

func newLine(t *testing.T, mbit float64, rtt time.Duration, loss float64) *line {
	t.Helper()
	rate := mbit * 1e6 / 8
	return &line{
		rate: rate, rtt: rtt, loss: loss, queue: int(rate * rtt.Seconds()),
		random: random(t, 5),
	}
}

// share runs the line and returns what each flow got of its rate meanwhile.
func (l *line) share(d time.Duration) []float64 {
	l.worst = 0
	before := make([]int, len(l.flows))
	for i, f := range l.flows {
		before[i] = f.delivered
	}
	l.run(d)
	out := make([]float64, len(l.flows))
	for i, f := range l.flows {
		out[i] = float64((f.delivered-before[i])*f.size) / d.Seconds() / l.rate
	}
	return out
}

func TestBBRFillsTheLine(t *testing.T) {
	tests := []struct {
		mbit        float64
		rtt, jitter time.Duration
		bunch       time.Duration
		loss        float64
		queue       float64 // of the product of rate and round trip
		share       float64 // of the rate, at least
		standing    float64 // of the round trip, at most, once it runs
	}{
		{15, 50 * time.Millisecond, 0, 0, 0.01, 1, 0.92, 0.5},
		{20, 50 * time.Millisecond, 10 * time.Millisecond, 0, 0.05, 1, 0.85, 1},
		{2, 200 * time.Millisecond, 0, 0, 0.01, 1, 0.85, 0.5},
		{10, 20 * time.Millisecond, 0, 0, 0, 20, 0.9, 1.5},
		// With BEVY_LONG=1.
		{100, 50 * time.Millisecond, 0, 0, 0.01, 1, 0.92, 0.5},
		{100, 50 * time.Millisecond, 0, 0, 0, 1, 0.92, 0.5},
		{100, 50 * time.Millisecond, 0, 0, 0.05, 1, 0.85, 0.5},
		{100, 50 * time.Millisecond, 0, 8 * time.Millisecond, 0.01, 1, 0.85, 1},
		{100, 50 * time.Millisecond, 0, 0, 0, 0.1, 0.85, 0.2},
		{300, 5 * time.Millisecond, 0, 0, 0.001, 1, 0.9, 0.8},
	}
	if !long {
		tests = tests[:4]
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%gMbit-%v-j%v-b%v-%g%%", test.mbit, test.rtt, test.jitter, test.bunch, test.loss*100), func(t *testing.T) {
			l := newLine(t, test.mbit, test.rtt, test.loss)
			l.jitter, l.bunch = test.jitter, test.bunch
			l.queue = int(float64(l.queue) * test.queue)
			f := l.sender(1472)
			begins := l.share(3 * time.Second)
			got := l.share(12 * time.Second)
			t.Logf("%.3f of the rate, %.3f at first; worst queue %v; %d passed, %d dropped, %d timeouts, cwnd %d, min %v", got[0], begins[0], l.worst, l.passed, l.dropped, f.timeouts, f.cc.cwnd, f.minRTT)
			if got[0] < test.share {
				t.Errorf("%.3f of the rate, want %.2f", got[0], test.share)
			}
			if most := time.Duration(float64(test.rtt) * test.standing); l.worst > most {
				t.Errorf("packets stood %v in the queue, want %v at the most", l.worst, most)
			}
		})
	}
}

func TestBBRSharesFairly(t *testing.T) {
	for _, loss := range []float64{0, 0.01} {
		l := newLine(t, 10, 40*time.Millisecond, loss)
		l.sender(1472)
		l.run(5 * time.Second)
		l.sender(1472)
		l.run(25 * time.Second)
		got := l.share(20 * time.Second)
		t.Logf("shares %.3f at a loss of %g, worst queue %v, dropped %d of %d", got, loss, l.worst, l.dropped, l.passed)
		if got[0]+got[1] < 0.9 || min(got[0], got[1]) < 0.2 {
			t.Errorf("flows got %.3f of the rate at a loss of %g, want 0.2 each at least and 0.9 together", got, loss)
		}
		if l.worst > 45*time.Millisecond {
			t.Errorf("packets stood %v in the queue, want a round trip at the most", l.worst)
		}
	}
}

func TestBBRFollowsTheRate(t *testing.T) {
	l := newLine(t, 20, 40*time.Millisecond, 0.005)
	full := l.rate
	f := l.sender(1472)
	l.run(4 * time.Second)
	l.rate = full / 5
	l.run(4 * time.Second)
	if got := l.share(3 * time.Second); got[0] < 0.85 || l.worst > 100*time.Millisecond {
		t.Errorf("%.3f of the rate after it fell, and packets stood %v", got[0], l.worst)
	}
	l.rate = full * 2
	l.run(4 * time.Second)
	if got := l.share(3 * time.Second); got[0] < 0.85 {
		t.Errorf("%.3f of the rate after it rose", got[0])
	}
	l.rtt *= 3
	l.queue *= 6
	f.minRTT = 0
	f.cc.moved(f.flight())
	l.run(2 * time.Second)
	if got := l.share(3 * time.Second); got[0] < 0.85 {
		t.Errorf("%.3f of the rate on a longer way", got[0])
	}
	l.rtt /= 10
	l.run(time.Second)
	if got := l.share(3 * time.Second); got[0] < 0.85 {
		t.Errorf("%.3f of the rate on a shorter way", got[0])
	}
}

func TestBBRComesBackAfterTheLineWasDead(t *testing.T) {
	l := newLine(t, 20, 40*time.Millisecond, 0)
	f := l.sender(1472)
	l.run(3 * time.Second)
	l.loss = 1
	l.run(5 * time.Second)
	if f.timeouts == 0 {
		t.Error("no timeout on a dead line")
	}
	// Little was sent into the void.
	if f.cc.window() > 2*leastWindow {
		t.Errorf("the window is %d packets on a dead line", f.cc.window())
	}
	l.loss = 0
	l.run(2 * time.Second)
	if got := l.share(2 * time.Second); got[0] < 0.9 {
		t.Errorf("%.3f of the rate after the line came back", got[0])
	}
}

func TestBBRLearnsNothingFromAnIdleApplication(t *testing.T) {
	l := newLine(t, 20, 40*time.Millisecond, 0)
	f := l.sender(1472)
	l.run(3 * time.Second)
	rate := f.cc.delivers()
	f.offered = 100 // packets a second, of about 1700
	f.given = int(f.offered * l.now.Seconds())
	l.run(8 * time.Second)
	if got := f.cc.delivers(); got < rate*0.9 {
		t.Errorf("the rate fell from %.0f to %.0f bytes a second as the application sent little", rate, got)
	}
	f.offered = 0
	if got := l.share(time.Second); got[0] < 0.85 {
		t.Errorf("%.3f of the rate in the first second after", got[0])
	}
}

// TestBBRStopsOnlyToSeeALineWithoutAQueue looks for pauses, which a flow that is
// alone needs none of.
func TestBBRStopsOnlyToSeeALineWithoutAQueue(t *testing.T) {
	for flows, want := range []bool{1: false, 2: true} {
		if flows == 0 {
			continue
		}
		l := newLine(t, 10, 40*time.Millisecond, 0)
		l.jitter = time.Millisecond
		for range flows {
			l.sender(1472)
		}
		stopped := false
		for range 500 {
			l.run(50 * time.Millisecond)
			stopped = stopped || l.flows[0].cc.mode == probeRTT
		}
		if stopped != want {
			t.Errorf("with %d flows, one stopped: %t", flows, stopped)
		}
	}
}

func TestBBRStartsFast(t *testing.T) {
	l := newLine(t, 100, 50*time.Millisecond, 0)
	f := l.sender(1472)
	l.run(500 * time.Millisecond)
	if f.cc.delivers() < 0.95*l.rate {
		t.Errorf("found %.0f bytes a second after ten round trips, the line has %.0f", f.cc.delivers(), l.rate)
	}
	l.run(500 * time.Millisecond)
	if f.cc.mode != probeBW {
		t.Errorf("in mode %d after twenty round trips", f.cc.mode)
	}
	if l.dropped*2 > l.passed {
		t.Errorf("%d of %d packets were dropped", l.dropped, l.dropped+l.passed)
	}
}

// TestBBRKeepsItsBounds drives the controller in no order that makes sense.
func TestBBRKeepsItsBounds(t *testing.T) {
	random := random(t, 6)
	c := newBBR(0, 1)
	var stamps [64]rateStamp
	f := &flight{payload: 1452}
	for range 200_000 {
		f.now += time.Duration(random.Int64N(int64(3 * time.Millisecond)))
		f.recovery = recovery(random.IntN(3))
		f.queued = random.IntN(3) * 1000
		f.minRTT = time.Duration(random.Int64N(int64(time.Second)))
		switch random.IntN(20) {
		case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:
			if f.inFlight < c.window() {
				c.sent(f, &stamps[random.IntN(len(stamps))])
				f.inFlight++
			}
		case 10:
			c.timedOut(f)
		case 11:
			if random.IntN(100) == 0 {
				c.moved(f)
			}
		default:
			n := random.IntN(f.inFlight + 1)
			f.inFlight -= n
			for range n {
				c.delivered(f, &stamps[random.IntN(len(stamps))], delivery{sentAt: f.now - f.minRTT/8, size: random.IntN(1500), rtt: time.Duration(random.Int64N(int64(time.Second))) - 10})
			}
			lost := random.IntN(f.inFlight + 1)
			f.inFlight -= lost
			c.acked(f, n, lost)
		}
		if c.window() < 1 || c.window() > 1<<24 || !(c.rate() >= 1000) || c.rate() > 1e13 {
			t.Fatalf("window %d, rate %g at %v", c.window(), c.rate(), f.now)
		}
	}
}

func TestMaxFilterHoldsForItsWindow(t *testing.T) {
	random := random(t, 7)
	var f maxFilter
	var all []float64
	for at := range uint64(2000) {
		v := float64(random.IntN(1000))
		if at%50 == 0 {
			v = 2000
		}
		all = append(all, v)
		f.add(at, 10, v)
		// The filter may forget a second best, but never holds one that is too old
		// or misses the best.
		got := f.value()
		held := false
		for _, v := range all[max(0, len(all)-11):] {
			held = held || v == got
		}
		if !held || got < v || at%50 < 10 && got != 2000 {
			t.Fatalf("at %d the largest is %g, last %v", at, got, all[max(0, len(all)-11):])
		}
	}
}

func TestRateIsTheSlowerOfLeavingAndArriving(t *testing.T) {
	ms := time.Millisecond
	tests := []struct {
		name       string
		sent, back [4]time.Duration
		want       float64
	}{
		{"a packet each ms", [4]time.Duration{0, ms, 2 * ms, 3 * ms}, [4]time.Duration{10 * ms, 11 * ms, 12 * ms, 13 * ms}, 1000 * 4 / 13.0},
		{"acks in a bunch", [4]time.Duration{0, 5 * ms, 10 * ms, 15 * ms}, [4]time.Duration{16 * ms, 16 * ms, 16 * ms, 16 * ms}, 1000 * 4 / 16.0},
	}
	for _, test := range tests {
		var r rateMeter
		var stamps [4]rateStamp
		for i, at := range test.sent {
			r.sent(at, i, &stamps[i])
		}
		var s sample
		for i, at := range test.back {
			r.delivered(at, &stamps[i], delivery{sentAt: test.sent[i], size: 1})
			s, _ = r.sample(at, 0)
		}
		if got := s.rate(); got < test.want*0.999 || got > test.want*1.001 || s.limited {
			t.Errorf("%s: %.1f packets a second, want %.1f", test.name, got, test.want)
		}
	}
	var r rateMeter
	var p rateStamp
	r.limited(0)
	r.sent(0, 0, &p)
	r.delivered(ms, &p, delivery{})
	if s, ok := r.sample(ms, 0); !ok || !s.limited {
		t.Errorf("%+v, %t: an idle application must not count", s, ok)
	}
	if _, ok := r.sample(ms, 0); ok {
		t.Error("a sample of an ack that acked nothing")
	}
	// It was sent again just before the ack of its first sending came.
	r.sent(2*ms, 0, &p)
	r.delivered(3*ms, &p, delivery{sentAt: 2 * ms})
	r.sample(3*ms, ms)
	r.sent(40*ms, 0, &p)
	r.delivered(41*ms, &p, delivery{sentAt: 40 * ms, again: true})
	if s, _ := r.sample(41*ms, 20*ms); s.rate() != 0 {
		t.Errorf("a rate of %g from an ack that is too early", s.rate())
	}
}
