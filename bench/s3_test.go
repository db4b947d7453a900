package main

import (
	"os"
	"testing"
)

func TestBucketsAreMeasured(t *testing.T) {
	program, _ := versitygwPath()
	_, missing := os.Stat(program)
	built := builtBevy(t)
	for _, b := range s3Benchmarks() {
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				s, w := b.side(as), b.quick
				w.unit, w.dir = b.unit, t.TempDir()
				switch {
				case s.none():
					return
				case as == asPeer && missing != nil:
					t.Skip("versitygw is built by the first run of the benchmark: ", missing)
				case s.prepare != nil:
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
