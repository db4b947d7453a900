package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// work is the size of a benchmark's work. Both sides get it as the same words, key=value.
type work struct {
	dir     string // an empty folder, or the prepared one
	unit    string // the unit of the result
	block   int    // bytes a block
	count   int    // blocks in all
	batch   int    // blocks an append
	logs    int    // logs in the store
	gets    int    // blocks to get
	warm    int    // blocks to get before time is taken
	settle  int    // seconds to wait before
	seconds int    // seconds to measure
	peers   int    // processes that serve
	cap     int    // bytes a second that each of them may send
	stalled int    // peers that stop in the middle
	noise   int    // 1: with a secret stream
	delay   int    // milliseconds each way
	loss    int    // percent each way
	port    int    // of what serves already
	nodes   int    // of the DHT
}

func (w *work) numbers() map[string]*int {
	return map[string]*int{
		"block": &w.block, "count": &w.count, "batch": &w.batch, "logs": &w.logs, "gets": &w.gets, "warm": &w.warm,
		"settle": &w.settle, "seconds": &w.seconds, "peers": &w.peers, "cap": &w.cap, "stalled": &w.stalled,
		"noise": &w.noise, "delay": &w.delay, "loss": &w.loss, "port": &w.port, "nodes": &w.nodes,
	}
}

// words is w for a command line; zeros are left out.
func (w work) words() []string {
	out := []string{"dir=" + w.dir, "unit=" + w.unit}
	numbers := w.numbers()
	for _, key := range slices.Sorted(maps.Keys(numbers)) {
		if n := *numbers[key]; n != 0 {
			out = append(out, fmt.Sprintf("%s=%d", key, n))
		}
	}
	return out
}

func parseWork(words []string) (w work, err error) {
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		switch n := w.numbers()[key]; {
		case !ok:
			return w, fmt.Errorf("%q is not key=value", word)
		case key == "dir":
			w.dir = value
		case key == "unit":
			w.unit = value
		case n == nil:
			return w, fmt.Errorf("%q: no such size", word)
		default:
			if *n, err = strconv.Atoi(value); err != nil {
				return w, fmt.Errorf("%q: %w", word, err)
			}
		}
	}
	return w, nil
}

// result is what a measurement prints, as one JSON line.
type result struct {
	Name  string             `json:"name,omitempty"` // what was measured, with its version
	Value float64            `json:"value"`
	Unit  string             `json:"unit"`
	Extra map[string]float64 `json:"extra,omitempty"`
	Error string             `json:"error,omitempty"`
}

// measure takes one measurement, in a process of its own.
type measure func(ctx context.Context, w work) (result, error)

// side is one of the two that a benchmark compares. It is a Go function or a script of bench/node; the zero side is none.
type side struct {
	name   string // until the result tells a better one
	run    measure
	script string

	// What makes the store that is measured, beforehand and not timed. It is made once for all rounds and all
	// benchmarks whose sides have the same name and the same number of logs.
	prepare       measure
	prepareScript string

	// The other process of a Go side that needs two.
	serve serve
}

// none reports whether there is nothing to compare with.
func (s side) none() bool { return s.run == nil && s.script == "" }

// role says which of the two a side is.
type role string

const (
	asBevy role = "bevy"
	asPeer role = "peer"
)

func (b benchmark) side(r role) side {
	if r == asBevy {
		return b.bevy
	}
	return b.peer
}

// benchmark is one row of the table in log.go.
type benchmark struct {
	name          string
	unit          string
	lowerIsBetter bool
	what          string  // the work, in a sentence
	target        float64 // the ratio that we want to reach
	limit         float64 // the value that Bevy's is to stay below, whatever the peer's is
	full, quick   work
	maxRounds     int // 0 is as many as asked for
	patience      int // how many times the longest time making a store may take; 0 is once
	bevy, peer    side
}

// matching returns the benchmarks whose names match the regular expression.
func matching(all []benchmark, expr string) ([]benchmark, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	var out []benchmark
	for _, b := range all {
		if re.MatchString(b.name) {
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("-run: no benchmark is named like %q", expr)
	}
	return out, nil
}

// harness runs benchmarks. Every measurement has a process and a folder of its own, one at a time.
type harness struct {
	scratch  string        // an existing folder, for everything that is written
	self     []string      // the command that is this program; "-child NAME words…" is put behind it
	scripts  string        // the folder of the peer's scripts
	noPeer   error         // why the scripts cannot run, nil when they can
	rounds   int           // for each side
	timeout  time.Duration // for each process
	quick    bool
	progress io.Writer
	prepared map[string]error // by folder name under scratch
}

// sample is what the rounds of one side came to.
type sample struct {
	name             string
	median, min, max float64
	extra            map[string]float64 // medians
	err              error              // then nothing else is set, except for the name
}

// row is one finished benchmark.
type row struct {
	benchmark
	rounds           int
	bevyGot, peerGot sample
	ratio            float64 // above 1 Bevy is better; NaN when one side is missing or zero
}

// run measures both sides in turns, so that what disturbs the machine disturbs both.
func (h *harness) run(ctx context.Context, b benchmark) row {
	w := b.full
	if h.quick {
		w = b.quick
	}
	w.unit = b.unit
	rounds := h.rounds
	if b.maxRounds > 0 {
		rounds = min(rounds, b.maxRounds)
	}
	got := make(map[role][]result)
	errs := make(map[role]error)
	for round := range rounds {
		for _, as := range []role{asBevy, asPeer} {
			if errs[as] != nil || b.side(as).none() {
				continue
			}
			fmt.Fprintf(h.progress, "%s: %s, round %d of %d\n", b.name, b.side(as).name, round+1, rounds)
			r, err := h.once(ctx, b, as, w)
			if err != nil {
				errs[as] = err
				continue
			}
			got[as] = append(got[as], r)
		}
	}
	out := row{benchmark: b, rounds: rounds}
	out.bevyGot = summary(b.bevy.name, got[asBevy], errs[asBevy])
	out.peerGot = summary(b.peer.name, got[asPeer], errs[asPeer])
	out.ratio = ratio(out.bevyGot, out.peerGot, b.lowerIsBetter)
	return out
}

// once takes one measurement of one side.
func (h *harness) once(ctx context.Context, b benchmark, as role, w work) (_ result, err error) {
	s := b.side(as)
	if s.prepare != nil || s.prepareScript != "" {
		if w.dir, err = h.prepare(ctx, b, as, w); err != nil {
			return result{}, fmt.Errorf("prepare: %w", err)
		}
		return h.process(ctx, b.name, as, toMeasure, s.script, w)
	}
	if w.dir, err = os.MkdirTemp(h.scratch, "run-"); err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	return h.process(ctx, b.name, as, toMeasure, s.script, w)
}

// prepare makes the store for a side, or finds it made, and returns its folder.
func (h *harness) prepare(ctx context.Context, b benchmark, as role, w work) (string, error) {
	s := b.side(as)
	name := fmt.Sprintf("prepared-%s-%d-logs", s.name, w.logs)
	dir := filepath.Join(h.scratch, name)
	if err, done := h.prepared[name]; done {
		return dir, err
	}
	fmt.Fprintf(h.progress, "%s: %s, making %d logs\n", b.name, s.name, w.logs)
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		w.dir = dir
		patient := *h
		patient.timeout *= time.Duration(max(1, b.patience))
		_, err = patient.process(ctx, b.name, as, toPrepare, s.prepareScript, w)
	}
	if h.prepared == nil {
		h.prepared = make(map[string]error)
	}
	h.prepared[name] = err
	return dir, err
}

// What a child process is for.
const (
	toMeasure = "measure"
	toPrepare = "prepare"
	toServe   = "serve"
)

// process runs one stage of a side in a child process and reads the line that it prints.
func (h *harness) process(ctx context.Context, name string, as role, stage, script string, w work) (result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.timeout, fmt.Errorf("not done within %v", h.timeout))
	defer cancel()
	var cmd *exec.Cmd
	if script == "" {
		argv := append(slices.Clone(h.self), "-child", name, string(as), stage)
		argv = append(argv, w.words()...)
		cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it ends what it has started
		cmd.WaitDelay = 5 * time.Second
	} else {
		if h.noPeer != nil {
			return result{}, h.noPeer
		}
		var err error
		if cmd, err = nodepeer.Command(ctx, filepath.Join(h.scripts, script), w.words()...); err != nil {
			return result{}, err
		}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ran := cmd.Run()
	if cause := context.Cause(ctx); ran != nil && cause != nil {
		return result{}, cause
	}
	var r result
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || (ran != nil && r.Error == "") {
		if ran == nil {
			ran = fmt.Errorf("printed %.200q: %w", stdout.String(), err)
		}
		return result{}, fmt.Errorf("%w\n%s", ran, lastLines(stderr.String(), 20))
	}
	if r.Error != "" {
		return result{}, errors.New(r.Error)
	}
	if r.Unit != w.unit {
		return result{}, fmt.Errorf("measured %q, want %q", r.Unit, w.unit)
	}
	return r, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// child is the other end of process for a Go side: it measures and prints the line. The exit code says how it went.
func child(ctx context.Context, all []benchmark, name string, args []string, in io.Reader, out io.Writer) int {
	r, err := measureChild(ctx, all, name, args, in, out)
	if err != nil {
		r = result{Error: err.Error()}
	}
	if printed := json.NewEncoder(out).Encode(r); printed != nil || err != nil {
		return 1
	}
	return 0
}

func measureChild(ctx context.Context, all []benchmark, name string, args []string, in io.Reader, out io.Writer) (result, error) {
	i := slices.IndexFunc(all, func(b benchmark) bool { return b.name == name })
	if i < 0 || len(args) < 2 {
		return result{}, fmt.Errorf("no such child: %s %q", name, args)
	}
	s := all[i].side(role(args[0]))
	run := s.run
	switch {
	case args[1] == toPrepare:
		run = s.prepare
	case args[1] == toServe && s.serve != nil:
		run = serveUntilEnd(s.serve, in, out)
	}
	if run == nil {
		return result{}, fmt.Errorf("no such child: %s %q", name, args)
	}
	w, err := parseWork(args[2:])
	if err != nil {
		return result{}, err
	}
	r, err := run(ctx, w)
	if err != nil {
		return result{}, err
	}
	r.Unit = w.unit
	if rss, ok := maxResidentMiB(); ok {
		if r.Extra == nil {
			r.Extra = make(map[string]float64)
		}
		r.Extra["maxRssMiB"] = rss
	}
	return r, nil
}

// summary is the median of results, the extremes, and the median of every extra figure.
func summary(name string, results []result, err error) sample {
	if err != nil || len(results) == 0 {
		return sample{name: name, err: err}
	}
	s := sample{name: name, extra: make(map[string]float64)}
	var values []float64
	extra := make(map[string][]float64)
	for _, r := range results {
		values = append(values, r.Value)
		for key, value := range r.Extra {
			extra[key] = append(extra[key], value)
		}
		if r.Name != "" {
			s.name = r.Name
		}
	}
	s.median, s.min, s.max = median(values), slices.Min(values), slices.Max(values)
	for key, values := range extra {
		s.extra[key] = median(values)
	}
	return s
}

// median returns the middle value, or the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio says how many times better Bevy is: above 1 is better, whichever way the unit counts.
func ratio(bevy, peer sample, lowerIsBetter bool) float64 {
	if bevy.err != nil || peer.err != nil || bevy.median <= 0 || peer.median <= 0 {
		return math.NaN()
	}
	if lowerIsBetter {
		return peer.median / bevy.median
	}
	return bevy.median / peer.median
}

// jsonLine is a row for programs.
func (r row) jsonLine() ([]byte, error) {
	extra := map[string]any{"target": r.target}
	if r.limit > 0 {
		extra["limit"] = r.limit
	}
	value := func(which string, s sample) any {
		if s.err != nil {
			extra[which+"Error"] = s.err.Error()
			return nil
		}
		if s.name == "" {
			return nil // there is no such side
		}
		extra[which+"Min"], extra[which+"Max"], extra[which] = s.min, s.max, s.extra
		return s.median
	}
	line := struct {
		Name     string         `json:"name"`
		Unit     string         `json:"unit"`
		Bevy     any            `json:"bevy"`
		Peer     any            `json:"peer"`
		PeerName string         `json:"peer_name"`
		Ratio    any            `json:"ratio"`
		Rounds   int            `json:"rounds"`
		Extra    map[string]any `json:"extra"`
	}{r.name, r.unit, value("bevy", r.bevyGot), value("peer", r.peerGot), r.peerGot.name, nil, r.rounds, extra}
	if !math.IsNaN(r.ratio) {
		line.Ratio = r.ratio
	}
	return json.Marshal(line)
}

// printTable writes rows for people: the figures, then what else was measured, then what went wrong.
func printTable(out io.Writer, rows []row) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "benchmark\tunit\tbevy\tmin..max\tpeer\tmin..max\tratio\ttarget\tpeer is")
	for _, r := range rows {
		better := ""
		if r.lowerIsBetter {
			better = ", less is better"
		}
		fmt.Fprintf(t, "%s\t%s%s\t%s\t%s\t%s\t%s\n", r.name, r.unit, better,
			r.bevyGot.columns(), r.peerGot.columns(), r.verdict(), r.peerGot.name)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nA ratio above 1 means that Bevy is better. Figures are medians of the rounds.")

	t = tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	header := "\nalso measured\n"
	for _, r := range rows {
		for _, s := range []sample{r.bevyGot, r.peerGot} {
			if s.err != nil || len(s.extra) == 0 {
				continue
			}
			var figures []string
			for _, key := range slices.Sorted(maps.Keys(s.extra)) {
				figures = append(figures, key+" "+number(s.extra[key]))
			}
			fmt.Fprintf(t, "%s%s\t%s\t%s\n", header, r.name, s.name, strings.Join(figures, ", "))
			header = ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	header = "\nnot measured\n"
	for _, r := range rows {
		for _, s := range []sample{r.bevyGot, r.peerGot} {
			if s.err == nil {
				continue
			}
			if _, err := fmt.Fprintf(out, "%s%s, %s: %v\n", header, r.name, s.name, s.err); err != nil {
				return err
			}
			header = ""
		}
	}
	return nil
}

// columns is the median and the extremes, for the table.
func (s sample) columns() string {
	if s.err != nil || s.name == "" {
		return "-\t-"
	}
	return number(s.median) + "\t" + number(s.min) + ".." + number(s.max)
}

// verdict is the ratio and what is wanted, for the table.
func (r row) verdict() string {
	if r.limit == 0 {
		return verdict(r.ratio, r.target)
	}
	ratio, _, _ := strings.Cut(verdict(r.ratio, 0), "\t")
	wanted := "<= " + number(r.limit) + " " + r.unit
	if r.bevyGot.err == nil && r.bevyGot.median > r.limit {
		wanted += ", missed"
	}
	return ratio + "\t" + wanted
}

// verdict is the ratio and the target, for the table.
func verdict(ratio, target float64) string {
	wanted := "-"
	if target > 0 {
		wanted = ">= " + number(target)
	}
	if math.IsNaN(ratio) {
		return "-\t" + wanted
	}
	if target > 0 && ratio < target {
		wanted += ", missed"
	}
	return number(ratio) + "\t" + wanted
}

// number prints three digits, and all those before the point, in groups of three.
func number(v float64) string {
	digits := 0
	for limit := 100.0; digits < 4 && math.Abs(v) < limit && v != 0; limit /= 10 {
		digits++
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	whole, rest, point := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if point {
		rest = "." + rest
	}
	return whole + rest
}
