package main

import (
	"os/exec"
	"testing"
)

func TestFilesAreServed(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range httpBenchmarks() {
		if seen[b.name] || b.unit == "" || b.what == "" || b.full == (work{}) || b.quick == (work{}) {
			t.Errorf("bad row: %+v", b)
		}
		seen[b.name] = true
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				if as == asPeer {
					if _, err := exec.LookPath("nginx"); err != nil {
						t.Skip(err)
					}
				}
				s, w := b.side(as), b.quick
				w.unit, w.dir = b.unit, t.TempDir()
				if _, err := s.prepare(t.Context(), w); err != nil {
					t.Fatal(err)
				}
				r, err := s.run(t.Context(), w)
				if err != nil {
					t.Fatal(err)
				}
				if r.Value <= 0 || r.Extra["serverCPUSeconds"] <= 0 {
					t.Errorf("measured %+v", r)
				}
			})
		}
	}
}

func TestOtherAnswersAreNoMeasurement(t *testing.T) {
	for head, ok := range map[string]bool{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n":                  true,
		"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\nC: d\r\n":  true,
		"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n":                 false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n":         false,
		"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n":           false,
		"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\n": false,
	} {
		if err := checkHead([]byte(head), 5); (err == nil) != ok {
			t.Errorf("%q: got %v, want %v", head, err, ok)
		}
	}
}
