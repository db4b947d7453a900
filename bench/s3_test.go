package main

import (
	"os"
	"testing"
)

func TestBucketsAreMeasured(t *testing.T) {
	program, _ := versitygwPath()
	_, missing := os.Stat(program)
	for _, b := range s3Benchmarks() {
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				switch {
				case b.side(as).none():
					return
				case as == asPeer && missing != nil:
					t.Skip("versitygw is built by the first run of the benchmark: ", missing)
				}
				w := b.quick
				w.unit, w.dir = b.unit, t.TempDir()
				r, err := b.side(as).run(t.Context(), w)
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
