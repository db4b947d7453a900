package main

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// Each runs as it does in earnest, with few entries.
func TestBeesDoTheirWork(t *testing.T) {
	nodepeer.Require(t)
	for _, b := range beeBenchmarks() {
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				s := b.side(as)
				w := b.quick
				w.unit, w.count, w.batch = b.unit, 300, min(w.batch, 50)
				w.gets = min(w.gets, 3)
				w.dir = filepath.Join(t.TempDir(), "tree")
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
				if b.name == "bee/remote-get" && (r.Value < 1 || r.Extra["blocksEach"] < 3 || r.Extra["blocksEach"] > 100 || r.Extra["wireBytesEach"] < 300) {
					t.Errorf("measured %+v", r)
				}
				if left, err := os.ReadDir(filepath.Dir(w.dir)); err != nil || len(left) != 1 {
					t.Errorf("%v left, %v", left, err)
				}
			})
		}
	}
}

func TestBeesAreListedOnceWithSizes(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range beeBenchmarks() {
		if seen[b.name] || b.unit == "" || b.what == "" || b.full == (work{}) || b.quick == (work{}) {
			t.Errorf("bad row: %+v", b)
		}
		for _, w := range []work{b.full, b.quick} {
			if w.count%7919 == 0 {
				t.Errorf("%s does not put all of %d entries", b.name, w.count)
			}
		}
		seen[b.name] = true
	}
}

// What goes over a far line comes whole, and no sooner than it says.
func TestAFarLineIsAsFarAsItSays(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var copies sync.WaitGroup
	defer copies.Wait()
	defer cancel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	copies.Go(func() {
		conn, err := echo.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	})
	l := farLine{to: echo.Addr().(*net.TCPAddr).Port}
	port, err := l.listen(ctx, &copies)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		start := time.Now()
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if took := time.Since(start); took < 2*oneWay {
			t.Errorf("there and back took %v, want %v at least", took, 2*oneWay)
		}
	}
	if n := l.passed.Load(); n != 15 {
		t.Errorf("%d bytes came from there, want 15", n)
	}
}
