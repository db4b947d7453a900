package main

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

func TestSwarmsDoTheirWork(t *testing.T) {
	nodepeer.Require(t)
	seen := make(map[string]bool)
	for _, b := range swarmBenchmarks() {
		if seen[b.name] || b.what == "" || b.full == (work{}) || b.quick == (work{}) || !b.lowerIsBetter {
			t.Errorf("bad row: %+v", b)
		}
		seen[b.name] = true
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				t.Parallel() // the most of it is waiting
				s := b.side(as)
				w := b.quick
				w.unit, w.dir = b.unit, t.TempDir()
				w.seconds = min(w.seconds, 2)
				var r result
				var err error
				if s.run != nil {
					r, err = s.run(t.Context(), w)
				} else {
					r, err = runScript(t, s, w)
				}
				if err != nil {
					t.Fatal(err)
				}
				if b.unit == "ms" && (r.Value <= 0 || r.Extra["bestMs"] > r.Value || r.Extra["p95Ms"] < r.Value) {
					t.Errorf("measured %+v", r)
				}
				if b.unit != "ms" && (r.Extra["cpuMsPerMinute"] <= 0 || r.Extra["wakeupsPerSecond"] <= 0) {
					t.Errorf("measured %+v", r)
				}
			})
		}
	}
}

func TestTheMedianIsOfAllTimes(t *testing.T) {
	times := []time.Duration{5, 1, 9, 3, 7}
	i := 0
	r, err := medianOf(len(times), func() (time.Duration, error) {
		i++
		return times[i-1] * time.Millisecond, nil
	})
	if err != nil || r.Value != 5 || r.Extra["bestMs"] != 1 || r.Extra["p95Ms"] != 9 {
		t.Errorf("measured %+v, %v", r, err)
	}
	broken := errors.New("it broke")
	if _, err := medianOf(2, func() (time.Duration, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// A packet counts once where it leaves and once where it arrives, also as one of several in one.
func TestPacketsAreCountedBothWays(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	sim := packet.NewSim(fake, 1)
	near, far := sim.Host(), sim.Host()
	counted := &countingNetwork{Network: near}
	in, err := counted.Listen(netip.AddrPortFrom(near.Addr(), 0), func([]packet.Packet) {})
	if err != nil {
		t.Fatal(err)
	}
	out, err := far.Listen(netip.AddrPortFrom(far.Addr(), 0), func([]packet.Packet) {})
	if err != nil {
		t.Fatal(err)
	}
	batch := func(to packet.Conn) []packet.Packet {
		return []packet.Packet{{Addr: to.LocalAddr(), Data: make([]byte, 25), Segment: 10}, {Addr: to.LocalAddr(), Data: []byte("x")}}
	}
	if err := errors.Join(in.Write(batch(out)), out.Write(batch(in))); err != nil {
		t.Fatal(err)
	}
	fake.Advance(time.Second)
	if n := counted.packets.Load(); n != 8 {
		t.Errorf("counted %d packets, want 4 each way", n)
	}
}
