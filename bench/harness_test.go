package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// testBenchmarks run in children of the test binary.
func testBenchmarks() []benchmark {
	size := work{block: 7}
	is := func(value float64) measure {
		return func(ctx context.Context, w work) (result, error) {
			return result{Value: value * float64(w.block), Extra: map[string]float64{"pid": float64(os.Getpid())}}, nil
		}
	}
	return []benchmark{
		{name: "test/ok", unit: "x/s", full: size, quick: work{block: 1},
			bevy: side{name: "bevy", run: is(6)}, peer: side{name: "other", run: is(2)}},
		{name: "test/broken", unit: "x/s", full: size,
			bevy: side{name: "bevy", run: func(context.Context, work) (result, error) { return result{}, errors.New("it broke") }},
			peer: side{name: "other", run: is(2)}},
		{name: "test/slow", unit: "x/s", full: size, maxRounds: 1,
			bevy: side{name: "bevy", run: func(ctx context.Context, w work) (result, error) { return result{}, wait(ctx, 3600) }},
			peer: side{name: "other", run: is(2)}},
		{name: "test/tidy", unit: "x/s", full: size, maxRounds: 1,
			bevy: side{name: "bevy", run: func(ctx context.Context, w work) (result, error) {
				<-ctx.Done()
				return result{}, os.WriteFile(w.dir+".ended", nil, 0o600)
			}}},
		{name: "test/patient", unit: "x/s", full: size, maxRounds: 1, patience: int(time.Hour),
			bevy: side{name: "bevy", run: countPrepared, prepare: prepareOnce}},
		{name: "test/dies", unit: "x/s", full: size, maxRounds: 1,
			bevy: side{name: "bevy", run: func(context.Context, work) (result, error) { panic("in the child") }},
			peer: side{name: "other", run: func(context.Context, work) (result, error) {
				fmt.Println("not JSON")
				os.Exit(0)
				return result{}, nil
			}}},
		{name: "test/prepared", unit: "x/s", full: work{logs: 3},
			bevy: side{name: "bevy", run: countPrepared, prepare: prepareOnce},
			peer: side{name: "other", run: countPrepared, prepare: prepareOnce}},
		{name: "test/prepared-too", unit: "x/s", full: work{logs: 3},
			bevy: side{name: "bevy", run: countPrepared, prepare: prepareOnce},
			peer: side{name: "fourth", run: countPrepared, prepare: prepareOnce}},
	}
}

// prepareOnce leaves one more file in the folder each time; countPrepared counts them.
func prepareOnce(ctx context.Context, w work) (result, error) {
	f, err := os.CreateTemp(w.dir, "made-")
	if err == nil {
		err = f.Close()
	}
	return result{}, err
}

func countPrepared(ctx context.Context, w work) (result, error) {
	files, err := os.ReadDir(w.dir)
	return result{Value: float64(len(files))}, err
}

// TestMain makes the test binary its own child process.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "-child" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		os.Exit(child(ctx, slices.Concat(testBenchmarks(), peerBenchmarks(), beeBenchmarks(), udxBenchmarks(), httpBenchmarks(), dynamoBenchmarks(), s3Benchmarks()), os.Args[2], os.Args[3:], os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func testHarness(t *testing.T) *harness {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &harness{scratch: t.TempDir(), self: []string{self}, rounds: 3, timeout: time.Minute, progress: io.Discard}
}

func runTest(t *testing.T, h *harness, name string) row {
	t.Helper()
	found, err := matching(testBenchmarks(), "^"+name+"$")
	if err != nil {
		t.Fatal(err)
	}
	return h.run(t.Context(), found[0])
}

func TestRoundsRunInChildrenAndBecomeARow(t *testing.T) {
	h := testHarness(t)
	r := runTest(t, h, "test/ok")
	if r.bevyGot.err != nil || r.bevyGot.median != 42 || r.peerGot.median != 14 || r.ratio != 3 || r.rounds != 3 {
		t.Errorf("row = %+v", r)
	}
	if r.bevyGot.extra["pid"] == float64(os.Getpid()) || r.bevyGot.extra["pid"] == 0 {
		t.Errorf("measured in process %v, the test's own", r.bevyGot.extra["pid"])
	}
	h.quick = true
	if r := runTest(t, h, "test/ok"); r.bevyGot.median != 6 {
		t.Errorf("quick: %+v", r.bevyGot)
	}
	left, err := os.ReadDir(h.scratch)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the scratch folder: %v, %v", left, err)
	}
}

func TestOneBrokenSideLeavesTheOther(t *testing.T) {
	r := runTest(t, testHarness(t), "test/broken")
	if r.bevyGot.err == nil || r.bevyGot.err.Error() != "it broke" || r.peerGot.median != 14 || !math.IsNaN(r.ratio) {
		t.Errorf("row = %+v", r)
	}
}

func TestAChildThatHangsIsEnded(t *testing.T) {
	h := testHarness(t)
	h.timeout = 500 * time.Millisecond
	r := runTest(t, h, "test/slow")
	if r.bevyGot.err == nil || !strings.Contains(r.bevyGot.err.Error(), "not done within 500ms") {
		t.Errorf("error = %v", r.bevyGot.err)
	}
}

func TestAChildMayEndWhatItHasStarted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nobody can be asked to end there")
	}
	h := testHarness(t)
	h.timeout = 2 * time.Second
	r := runTest(t, h, "test/tidy")
	left, err := filepath.Glob(filepath.Join(h.scratch, "*.ended"))
	if r.bevyGot.err == nil || err != nil || len(left) != 1 {
		t.Errorf("error = %v, %v, %v", r.bevyGot.err, left, err)
	}
}

func TestMakingAStoreMayTakeLonger(t *testing.T) {
	h := testHarness(t)
	h.timeout = 1
	r := runTest(t, h, "test/patient")
	if r.bevyGot.err == nil || !strings.HasPrefix(r.bevyGot.err.Error(), "not done within 1ns") {
		t.Errorf("error = %v, want one of what is measured", r.bevyGot.err)
	}
}

func TestAChildThatDiesSaysWhy(t *testing.T) {
	r := runTest(t, testHarness(t), "test/dies")
	if r.bevyGot.err == nil || !strings.Contains(r.bevyGot.err.Error(), "in the child") {
		t.Errorf("error of a panic = %v", r.bevyGot.err)
	}
	if r.peerGot.err == nil || !strings.Contains(r.peerGot.err.Error(), `printed "not JSON\n"`) {
		t.Errorf("error of garbage = %v", r.peerGot.err)
	}
}

func TestAStoreIsPreparedOnceForEachSide(t *testing.T) {
	h := testHarness(t)
	for _, name := range []string{"test/prepared", "test/prepared-too"} {
		r := runTest(t, h, name)
		if r.bevyGot.err != nil || r.bevyGot.max != 1 || r.peerGot.max != 1 {
			t.Errorf("%s: %+v and %+v, want one preparation each", name, r.bevyGot, r.peerGot)
		}
	}
	left, err := filepath.Glob(filepath.Join(h.scratch, "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("folders = %v, %v, want one for each of three sides", left, err)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{5}, 5},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{100, 1, 1, 1}, 1},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v", got)
	}
}

var errNotMeasured = errors.New("not measured")

func TestRatioAboveOneIsAlwaysBetter(t *testing.T) {
	s := func(v float64) sample { return sample{median: v} }
	nan := math.NaN()
	for _, c := range []struct {
		bevy, peer    sample
		lowerIsBetter bool
		want          float64
	}{
		{s(300), s(100), false, 3},
		{s(50), s(100), false, 0.5},
		{s(50), s(100), true, 2},
		{s(400), s(100), true, 0.25},
		{s(0), s(100), true, nan},
		{s(100), s(0), false, nan},
		{sample{err: errNotMeasured}, s(100), false, nan},
		{s(100), sample{err: errNotMeasured}, true, nan},
	} {
		got := ratio(c.bevy, c.peer, c.lowerIsBetter)
		if got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("ratio(%v, %v, %v) = %v, want %v", c.bevy.median, c.peer.median, c.lowerIsBetter, got, c.want)
		}
	}
}

func TestSummary(t *testing.T) {
	got := summary("node", []result{
		{Name: "log 1.0", Value: 3, Extra: map[string]float64{"a": 1, "b": 10}},
		{Name: "log 1.0", Value: 1, Extra: map[string]float64{"a": 3}},
		{Name: "log 1.0", Value: 7, Extra: map[string]float64{"a": 2, "b": 20}},
	}, nil)
	if got.name != "log 1.0" || got.median != 3 || got.min != 1 || got.max != 7 || got.extra["a"] != 2 || got.extra["b"] != 15 {
		t.Errorf("summary = %+v", got)
	}
	if got := summary("node", nil, errNotMeasured); got.err != errNotMeasured || got.name != "node" {
		t.Errorf("summary of an error = %+v", got)
	}
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{0, "0"}, {0.012345, "0.0123"}, {0.5, "0.500"}, {4, "4.00"}, {27.94, "27.9"}, {100, "100"}, {999.6, "1,000"},
		{4557.2, "4,557"}, {123456, "123,456"}, {1234567, "1,234,567"}, {-123456, "-123,456"}, {0.000001, "0.0000"},
	} {
		if got := number(c.v); got != c.want {
			t.Errorf("number(%v) = %q, want %q", c.v, got, c.want)
		}
	}
}

func TestMatching(t *testing.T) {
	all := []benchmark{{name: "log/append-1"}, {name: "log/append-64"}, {name: "log/get"}}
	for _, c := range []struct{ expr, want string }{
		{"", "log/append-1 log/append-64 log/get"},
		{"append", "log/append-1 log/append-64"},
		{"^log/get$", "log/get"},
		{"get|-1", "log/append-1 log/get"},
	} {
		got, err := matching(all, c.expr)
		var names []string
		for _, b := range got {
			names = append(names, b.name)
		}
		if strings.Join(names, " ") != c.want || err != nil {
			t.Errorf("matching(%q) = %v, %v, want %s", c.expr, names, err, c.want)
		}
	}
	for _, expr := range []string{"nothing", "("} {
		if got, err := matching(all, expr); err == nil {
			t.Errorf("matching(%q) = %v", expr, got)
		}
	}
}

func TestWorkAsWords(t *testing.T) {
	w := work{dir: "/a=b c", unit: "MiB/s", block: 65536, count: 4096, batch: 64, settle: 1}
	words := w.words()
	if got, want := strings.Join(words, "|"), "dir=/a=b c|unit=MiB/s|batch=64|block=65536|count=4096|settle=1"; got != want {
		t.Errorf("words = %s, want %s", got, want)
	}
	if got, err := parseWork(words); err != nil || got != w {
		t.Errorf("parseWork = %+v, %v, want %+v", got, err, w)
	}
	for _, word := range []string{"block", "block=x", "colour=1"} {
		if _, err := parseWork([]string{word}); err == nil {
			t.Errorf("%q was taken", word)
		}
	}
}

// exampleRows are one good row, one missed target and one row without Bevy.
func exampleRows() []row {
	got := func(name string, median, min, max float64, extra map[string]float64) sample {
		return sample{name: name, median: median, min: min, max: max, extra: extra}
	}
	a := row{benchmark: benchmark{name: "log/append-1", unit: "blocks/s", target: 4}, rounds: 5,
		bevyGot: got("bevy", 29527, 28000, 31000.4, map[string]float64{"cpuSeconds": 0.61, "maxRssMiB": 40}),
		peerGot: got("hypercore 11", 4000, 2798, 6508, map[string]float64{"cpuSeconds": 3.92})}
	b := row{benchmark: benchmark{name: "log/disk", unit: "bytes/block", lowerIsBetter: true, target: 2}, rounds: 5,
		bevyGot: got("bevy", 200, 200, 200, nil), peerGot: got("hypercore 11", 278, 278, 278, nil)}
	c := row{benchmark: benchmark{name: "log/get", unit: "gets/s"}, rounds: 1,
		bevyGot: sample{name: "bevy", err: errNotMeasured}, peerGot: got("hypercore 11", 22705, 14427, 37946, nil)}
	rows := []row{a, b, c}
	for i, r := range rows {
		rows[i].ratio = ratio(r.bevyGot, r.peerGot, r.lowerIsBetter)
	}
	return rows
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := printTable(&out, exampleRows()); err != nil {
		t.Fatal(err)
	}
	want := `benchmark      unit                          bevy     min..max         peer     min..max         ratio   target            peer is
log/append-1   blocks/s                      29,527   28,000..31,000   4,000    2,798..6,508     7.38    >= 4.00           hypercore 11
log/disk       bytes/block, less is better   200      200..200         278      278..278         1.39    >= 2.00, missed   hypercore 11
log/get        gets/s                        -        -                22,705   14,427..37,946   -       -                 hypercore 11

A ratio above 1 means that Bevy is better. Figures are medians of the rounds.

also measured
log/append-1   bevy           cpuSeconds 0.610, maxRssMiB 40.0
log/append-1   hypercore 11   cpuSeconds 3.92

not measured
log/get, bevy: not measured
`
	if got := out.String(); got != want {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
}

func TestJSONLines(t *testing.T) {
	want := []string{
		`{"name":"log/append-1","unit":"blocks/s","bevy":29527,"peer":4000,"peer_name":"hypercore 11","ratio":7.38175,"rounds":5,` +
			`"extra":{"bevy":{"cpuSeconds":0.61,"maxRssMiB":40},"bevyMax":31000.4,"bevyMin":28000,` +
			`"peer":{"cpuSeconds":3.92},"peerMax":6508,"peerMin":2798,"target":4}}`,
		`{"name":"log/disk","unit":"bytes/block","bevy":200,"peer":278,"peer_name":"hypercore 11","ratio":1.39,"rounds":5,` +
			`"extra":{"bevy":null,"bevyMax":200,"bevyMin":200,"peer":null,"peerMax":278,"peerMin":278,"target":2}}`,
		`{"name":"log/get","unit":"gets/s","bevy":null,"peer":22705,"peer_name":"hypercore 11","ratio":null,"rounds":1,` +
			`"extra":{"bevyError":"not measured","peer":null,"peerMax":37946,"peerMin":14427,"target":0}}`,
	}
	for i, r := range exampleRows() {
		got, err := r.jsonLine()
		if err != nil || string(got) != want[i] {
			t.Errorf("line %d:\n%s, %v\nwant:\n%s", i, got, err, want[i])
		}
	}
}

func TestCommandRefusesWhatItCannotDo(t *testing.T) {
	for _, args := range [][]string{{"-run", "nothing"}, {"-rounds", "0"}, {"stray"}, {"-unknown"}} {
		var out, errs strings.Builder
		if code := command(t.Context(), args, &out, &errs); code != 2 || errs.Len() == 0 {
			t.Errorf("bench %q: exit code %d, said %q", args, code, errs.String())
		}
	}
	var out, errs strings.Builder
	if code := command(t.Context(), []string{"-h"}, &out, &errs); code != 0 || strings.Contains(errs.String(), "child") {
		t.Errorf("bench -h: exit code %d, said\n%s", code, errs.String())
	}
}

func TestListNamesEveryBenchmark(t *testing.T) {
	var out, errs strings.Builder
	if code := command(t.Context(), []string{"-list"}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for _, name := range []string{
		"log/append-1 ", "log/append-durable ", "log/append-64 ", "log/append-64KiB ", "log/get ", "log/disk ",
		"log/open-10000 ", "log/idle ", "bee/put ", "bee/batch ", "bee/get ", "bee/scan ", "bee/remote-get ",
	} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("%s is not in\n%s", name, out.String())
		}
	}
}

// The peer's scripts measure and report; how fast does not matter.
func TestPeerScripts(t *testing.T) {
	nodepeer.Require(t)
	h := testHarness(t)
	root, err := nodepeer.Root()
	if err != nil {
		t.Fatal(err)
	}
	h.scripts = filepath.Join(root, "bench", "node")
	for _, b := range logBenchmarks(openStore) {
		if b.peer.script == "" {
			continue
		}
		w := tiny
		w.unit = b.unit
		r, err := h.once(t.Context(), b, asPeer, w)
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
			continue
		}
		checkResult(t, b, r)
		if !strings.Contains(r.Name, ", node ") {
			t.Errorf("%s: the peer calls itself %q", b.name, r.Name)
		}
	}
}

// checkResult checks the shape of what either side measured.
func checkResult(t *testing.T, b benchmark, r result) {
	t.Helper()
	if r.Value <= 0 && b.name != "log/idle" {
		t.Errorf("%s: value %v", b.name, r.Value)
	}
	var keys []string
	switch b.name {
	case "log/append-1", "log/append-64", "log/append-64KiB":
		keys = []string{"seconds", "cpuSeconds"}
	case "log/append-durable":
		keys = []string{"seconds", "cpuSeconds", "fsyncs"}
	case "log/get":
		keys = []string{"seconds", "cpuSeconds", "p50us", "p99us"}
	case "log/disk":
		keys = []string{"diskMiB"}
	case "log/open-10000":
		keys = []string{"cpuSeconds", "sinceStartMs", "rssMiB", "allMs", "allCpuSeconds", "allRssMiB"}
	case "log/idle":
		keys = []string{"cpuSeconds", "cpuPercent", "threads", "rssMiB"}
	}
	for _, key := range keys {
		if _, ok := r.Extra[key]; !ok {
			t.Errorf("%s: no %s in %v", b.name, key, r.Extra)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("%s: %v", b.name, err)
	}
}
