package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// Each runs as it does in earnest, with few files.
func TestDrivesDoTheirWork(t *testing.T) {
	nodepeer.Require(t)
	seen := make(map[string]bool)
	for _, b := range driveBenchmarks() {
		if seen[b.name] || b.unit == "" || b.what == "" || b.full == (work{}) || b.quick == (work{}) {
			t.Errorf("bad row: %+v", b)
		}
		seen[b.name] = true
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				s := b.side(as)
				w := b.quick
				w.unit, w.block, w.count, w.gets = b.unit, 5000, 50, min(w.gets, 1)*50
				w.dir = filepath.Join(t.TempDir(), "drive")
				if err := os.Mkdir(w.dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if s.prepare != nil {
					if _, err := s.prepare(t.Context(), w); err != nil {
						t.Fatal(err)
					}
				}
				var r result
				var err error
				if s.run != nil {
					r, err = s.run(t.Context(), w)
				} else {
					r, err = runScript(t, s, w)
				}
				if err != nil || r.Value <= 0 {
					t.Fatalf("measured %+v, %v", r, err)
				}
				if w.logs > 0 && r.Extra["firstPerSecond"] <= 0 {
					t.Errorf("measured %+v", r)
				}
			})
		}
	}
}
