package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// tinyPeers is enough to run every benchmark of peers once.
var tinyPeers = work{block: 100, count: 300, batch: 64, logs: 1, cap: 64 << 10}

// Each runs in as many processes as it does in earnest: this binary is the one that serves, too.
func TestPeersDoTheirWork(t *testing.T) {
	nodepeer.Require(t)
	for _, b := range peerBenchmarks() {
		for _, as := range []role{asBevy, asPeer} {
			t.Run(b.name+" "+string(as), func(t *testing.T) {
				s := b.side(as)
				w := tinyPeers
				w.unit, w.dir = b.unit, t.TempDir()
				if b.name == "peer/append-to-visible" {
					w.count = 20
				}
				if s.prepare != nil {
					if _, err := s.prepare(t.Context(), w); err != nil {
						t.Fatal(err)
					}
				}
				r := result{}
				var err error
				if s.run != nil {
					r, err = s.run(t.Context(), w)
				} else {
					r, err = runScript(t, s, w)
				}
				if err != nil {
					t.Fatal(err)
				}
				if r.Value <= 0 && b.unit != "MiB" {
					t.Errorf("measured %+v", r)
				}
				if left, err := os.ReadDir(w.dir); err != nil || b.name == "peer/memory" && len(left) != 1 {
					t.Errorf("%v left, %v, want the log that is served", left, err)
				}
			})
		}
	}
}

// runScript is what the harness does with the script of a side.
func runScript(t *testing.T, s side, w work) (r result, err error) {
	t.Helper()
	h := testHarness(t)
	root, err := nodepeer.Root()
	if err != nil {
		t.Fatal(err)
	}
	h.scripts = root + "/bench/node"
	if s.prepareScript != "" {
		if _, err := h.process(t.Context(), "", asPeer, toPrepare, s.prepareScript, w); err != nil {
			return r, err
		}
	}
	return h.process(t.Context(), "", asPeer, toMeasure, s.script, w)
}

func TestPeersAreListedOnceWithSizes(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range peerBenchmarks() {
		if seen[b.name] || b.unit == "" || b.what == "" || b.full == (work{}) || b.quick == (work{}) || b.bevy.name != "bevy" || b.bevy.serve == nil {
			t.Errorf("bad row: %+v", b)
		}
		seen[b.name] = true
	}
}

func TestAProcessThatCannotServeSaysWhy(t *testing.T) {
	w := tinyPeers
	w.dir = t.TempDir() + "/file"
	if err := os.WriteFile(w.dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := measureCopy("peer/memory")(t.Context(), w); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("in the place of a folder: %v", err)
	}
	if _, err := startBevy(t.Context(), "peer/none", w); err == nil || !strings.Contains(err.Error(), "no such child") {
		t.Errorf("a benchmark that does not exist: %v", err)
	}
}

func TestServingEndsWithItsInput(t *testing.T) {
	broken := errors.New("it broke")
	in, end := io.Pipe()
	var out bytes.Buffer
	serving := serveUntilEnd(func(ctx context.Context, w work, ready func(serving) error) (map[string]float64, error) {
		if err := ready(serving{Port: 7, Key: "k"}); err != nil {
			return nil, err
		}
		end.Close()
		<-ctx.Done()
		return map[string]float64{"x": 1}, broken
	}, in, &out)
	r, err := serving(t.Context(), work{})
	if want := "{\"port\":7,\"key\":\"k\"}\n"; !errors.Is(err, broken) || r.Extra["x"] != 1 || out.String() != want {
		t.Errorf("%v, %v, printed %q", r, err, out.String())
	}
}

// A line carries everything, no faster than it may, and stalls when it is told to.
func TestALineIsAsSlowAsItSays(t *testing.T) {
	const size = 200 << 10
	for _, stall := range []int{0, 50 << 10} {
		far, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := far.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write(bytes.Repeat([]byte("x"), size)) // the other side counts them
			_ = conn.Close()
		}()
		ctx, cancel := context.WithCancel(t.Context())
		var copies sync.WaitGroup
		l := line{to: far.Addr().(*net.TCPAddr).Port, rate: 1 << 20, stallAfter: stall}
		port, err := l.listen(ctx, &copies)
		if err != nil {
			t.Fatal(err)
		}
		near, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if stall > 0 {
			// It may take no longer than all would have taken, and the rest does not come.
			if err := near.SetReadDeadline(start.Add(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := io.Copy(io.Discard, near)
		took := time.Since(start)
		if stall == 0 && (err != nil || got != size || took < 150*time.Millisecond) {
			t.Errorf("%d bytes in %v, %v, want %d in 195 ms", got, took, err, size)
		}
		if stall > 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || got < int64(stall) || got > int64(stall)+32<<10) {
			t.Errorf("%d bytes, %v, want it to stall after %d", got, err, stall)
		}
		cancel()
		near.Close()
		far.Close()
		copies.Wait()
	}
}

func TestALimitIsWhatIsWanted(t *testing.T) {
	r := row{benchmark: benchmark{unit: "MiB", limit: 64}, bevyGot: sample{median: 50}, peerGot: sample{median: 100}, ratio: 2}
	if got, want := r.verdict(), "2.00\t<= 64.0 MiB"; got != want {
		t.Errorf("below the limit: %q, want %q", got, want)
	}
	r.bevyGot.median = 65
	if got := r.verdict(); !strings.HasSuffix(got, "missed") {
		t.Errorf("above the limit: %q", got)
	}
}
