package main

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// Each runs in as many processes as it does in earnest, with little to send.
func TestUDXDoesItsWork(t *testing.T) {
	nodepeer.Require(t)
	seen := make(map[string]bool)
	for _, b := range udxBenchmarks() {
		if seen[b.name] || b.unit == "" || b.what == "" || b.full == (work{}) || b.quick == (work{}) {
			t.Errorf("bad row: %+v", b)
		}
		seen[b.name] = true
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				s := b.side(as)
				w := b.quick
				w.unit, w.dir, w.count, w.delay = b.unit, t.TempDir(), 6, min(w.delay, 2)
				var r result
				var err error
				if s.run != nil {
					r, err = s.run(t.Context(), w)
				} else {
					r, err = runScript(t, s, w)
				}
				// 6 blocks are more packets than that.
				if err != nil || r.Value <= 0 || r.Extra["packets"] < 200 {
					t.Fatalf("measured %+v, %v", r, err)
				}
				if w.cap > 0 && (r.Extra["ofLine"] <= 0 || r.Extra["ofLine"] > 1) {
					t.Errorf("measured %+v", r)
				}
			})
		}
	}
}

func TestAWANIsAsSlowAsItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		way := newWANWay(work{cap: 125_000, delay: 40, loss: 10}, 1)
		start := time.Now()
		var at []time.Duration
		done := make(chan bool)
		go func() {
			defer close(done)
			way.carry(func([]byte) { at = append(at, time.Since(start)) })
		}()
		// Twice its rate, so that half must overflow: 125 packets a second pass.
		const sent = 1000
		for range sent {
			way.take(make([]byte, 1000-headers))
			time.Sleep(4 * time.Millisecond)
		}
		time.Sleep(time.Second)
		way.end()
		<-done
		lost := sent - len(at) - way.overflowed
		if lost < 70 || lost > 130 {
			t.Errorf("%d of %d were lost, want a tenth", lost, sent)
		}
		if want := 510; math.Abs(float64(len(at)-want)) > 10 {
			t.Errorf("%d passed, want about %d", len(at), want)
		}
		if at[0] != 48*time.Millisecond {
			t.Errorf("the first took %v, want the delay and its own time", at[0])
		}
		if way.longest > 80*time.Millisecond || way.longest < 70*time.Millisecond {
			t.Errorf("a packet stood %v in the queue, want the round trip at the most", way.longest)
		}
	})
}
