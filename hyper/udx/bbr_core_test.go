package udx

import (
	"fmt"
	"testing"
	"time"
)

// TestStreamsFillALongLine sends over two whole cores what a line of 50 ms there
// and back takes some seconds for; of 100 Mbit/s in the long form.
func TestStreamsFillALongLine(t *testing.T) {
	tests := []struct{ loss, share float64 }{{0.01, 0.84}, {0, 0.85}, {0.05, 0.8}}
	rate := 12.5e6
	if !long {
		tests, rate = tests[:1], 2e6
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%g%%", test.loss*100), func(t *testing.T) {
			c := cable{delay: 25 * time.Millisecond, rate: rate, queue: int(rate / 20), loss: test.loss}
			e := newEnds(t, random(t, 20), c).join()
			begun := e.now
			f := newFlow(0, int(3*rate), false)
			e.carry(time.Minute, f)
			got := float64(f.size) / (e.now - begun).Seconds() / c.rate
			s := e.cores[0].stats
			t.Logf("%.3f of the rate in %v, %+v", got, e.now-begun, s)
			if got < test.share || s.Timeouts > 0 {
				t.Errorf("%.3f of the rate and %d timeouts, want %.2f and none", got, s.Timeouts, test.share)
			}
		})
	}
}

// TestRateKnowsWhenThereIsLittleToSend writes whole packets, then more than the
// window holds.
func TestRateKnowsWhenThereIsLittleToSend(t *testing.T) {
	e := newEnds(t, random(t, 21), cable{delay: 5 * time.Millisecond}).join()
	c := e.cores[0]
	limited := func(n int) bool {
		c.write(make([]byte, n))
		e.with(0, nil)
		return c.control.(*bbr).meter.limitedUntil > 0
	}
	for _, n := range []int{1, c.payload(), 3 * c.payload(), 3*c.payload() + 1} {
		if !limited(n) {
			t.Errorf("%d bytes in packets of %d, and no word of it", n, c.payload())
		}
		e.run(time.Second)
	}
	e.run(time.Second)
	c.control.(*bbr).meter.limitedUntil = 0
	if limited(2 * initialWindow * baseMTU) {
		t.Error("a full window is called too little")
	}
}

// TestSmallPacketsFeignNoRate sends many more small packets a second than the
// line takes large ones, and then large ones.
func TestSmallPacketsFeignNoRate(t *testing.T) {
	c := cable{delay: 10 * time.Millisecond, rate: 1.25e6, queue: 25_000}
	e := newEnds(t, random(t, 22), c).join()
	from, to := e.cores[0], e.cores[1]
	var buf [1 << 16]byte
	for range 4000 {
		from.write(buf[:100])
		e.with(0, nil)
		e.run(500 * time.Microsecond)
		to.read(buf[:])
	}
	if s := from.stats; s.PacketsSent < 1000 || s.Lost > 0 {
		t.Fatalf("small packets: %+v", s)
	}
	if got := from.control.rate(); got > 1.5*c.rate {
		t.Errorf("paces at %.0f bytes a second, the line has %.0f", got, c.rate)
	}
}
