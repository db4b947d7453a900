package main

import "testing"

func TestLookupsAreMeasured(t *testing.T) {
	for _, b := range dhtBenchmarks() {
		measured := map[role]result{}
		for _, as := range []role{asBevy, asPeer} {
			w := b.quick
			w.peers, w.gets = 60, 5
			r, err := b.side(as).run(t.Context(), w)
			if err != nil {
				t.Fatal(err)
			}
			nodes := w.peers
			if as == asPeer {
				nodes /= fewer
			}
			if r.Value <= 0 || r.Extra["hops"] < 1 || r.Extra["asked"] < float64(min(nodes-1, 20)) || r.Extra["closest20"] < 0.98*float64(min(nodes-1, 20)) || r.Extra["ms"] <= 0 || r.Extra["idlePacketsPerMinute"] <= 0 {
				t.Errorf("%s, %s: measured %+v", b.name, as, r)
			}
			measured[as] = r
		}
		if measured[asBevy].Value <= measured[asPeer].Value || measured[asBevy].Value > fewer*measured[asPeer].Value {
			t.Errorf("%s: %v packets in a network and %v in a tenth of it", b.name, measured[asBevy].Value, measured[asPeer].Value)
		}
		again, err := b.bevy.run(t.Context(), func() work { w := b.quick; w.peers, w.gets = 60, 5; return w }())
		if err != nil || again.Value != measured[asBevy].Value {
			t.Errorf("%s: measured %v and then %v, %v", b.name, measured[asBevy].Value, again.Value, err)
		}
	}
}
