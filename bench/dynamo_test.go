package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

func TestTablesAreMeasured(t *testing.T) {
	root, err := nodepeer.Root()
	if err != nil {
		t.Fatal(err)
	}
	_, missing := os.Stat(filepath.Join(root, "interop", "node-doors", "node_modules", "dynalite"))
	built := builtBevy(t)
	for _, b := range dynamoBenchmarks() {
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				if as == asPeer && missing != nil {
					t.Skip(missing)
				}
				s, w := b.side(as), b.quick
				w.unit, w.dir = b.unit, t.TempDir()
				if s.prepare != nil {
					w.dir = built
				}
				r, err := s.run(t.Context(), w)
				if err != nil {
					t.Fatal(err)
				}
				if r.Value <= 0 {
					t.Errorf("measured %+v", r)
				}
			})
		}
	}
}
