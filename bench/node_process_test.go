package main

import (
	"math"
	"os"
	"os/exec"
	"strings"
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

func TestARowCanHaveNobodyToCompareWith(t *testing.T) {
	h := testHarness(t)
	found, err := matching(testBenchmarks(), "^test/ok$")
	if err != nil {
		t.Fatal(err)
	}
	alone := found[0]
	alone.peer = side{}
	r := h.run(t.Context(), alone)
	if r.bevyGot.median != 42 || r.peerGot.err != nil || !math.IsNaN(r.ratio) {
		t.Fatalf("row = %+v", r)
	}
	line, err := r.jsonLine()
	if err != nil || !strings.Contains(string(line), `"bevy":42,"peer":null,"peer_name":"","ratio":null`) {
		t.Errorf("%s, %v", line, err)
	}
	if got := r.peerGot.columns(); got != "-\t-" {
		t.Errorf("the table says %q", got)
	}
}
