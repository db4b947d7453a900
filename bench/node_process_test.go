package main

import (
	"os"
	"os/exec"
	"testing"
)

// The rows of the node run in small. They build the command and start it many times.
func TestNodesAreMeasured(t *testing.T) {
	if os.Getenv("BEVY_LONG") == "" {
		t.Skip("builds bevy and starts it many times: with BEVY_LONG=1")
	}
	for _, b := range nodeBenchmarks() {
		for _, as := range []role{asBevy, asPeer} {
			s, w := b.side(as), b.quick
			if s.run == nil {
				continue
			}
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				if as == asPeer {
					if _, err := exec.LookPath("syncthing"); err != nil {
						t.Skip(err)
					}
				}
				w.unit, w.dir = b.unit, t.TempDir()
				if s.prepare != nil {
					if _, err := s.prepare(t.Context(), w); err != nil {
						t.Fatal(err)
					}
				}
				r, err := s.run(t.Context(), w)
				if err != nil {
					t.Fatal(err)
				}
				if r.Value <= 0 && b.name != "node/idle-cpu" {
					t.Errorf("measured %+v", r)
				}
			})
		}
	}
}
