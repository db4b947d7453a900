package main

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A screen is a terminal that remembers what was written to it.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) IsTerminal() bool { return true }

// A keyboard is a terminal that someone types into.
type keyboard struct{ io.Reader }

func (keyboard) IsTerminal() bool { return true }

// command runs the command in this process.
func command(t *testing.T, env []string, stdin io.Reader, stderr io.Writer, args ...string) (stdout string, exit int) {
	t.Helper()
	var out bytes.Buffer
	exit = run(t.Context(), args, stdin, &out, stderr, env)
	return out.String(), exit
}

// newStore makes a store with a log "a" of three lines, and returns the
// environment in which it is the store.
func newStore(t *testing.T) []string {
	t.Helper()
	env := []string{"BEVY_STORE=" + filepath.Join(t.TempDir(), "store")}
	var talk bytes.Buffer
	if _, exit := command(t, env, nil, &talk, "hyper", "core", "create", "a"); exit != 0 {
		t.Fatalf("create: exit code %d\n%s", exit, &talk)
	}
	if _, exit := command(t, env, strings.NewReader("one\ntwo\nthree\n"), &talk, "hyper", "core", "append", "a", "--lines"); exit != 0 {
		t.Fatalf("append: exit code %d\n%s", exit, &talk)
	}
	return env
}

func TestDestructionIsAskedForOnATerminal(t *testing.T) {
	for _, c := range []struct {
		answer string
		exit   int
		left   string
	}{
		{"y\n", 0, "one\n"},
		{" YES \n", 0, "one\n"},
		{"n\n", 1, "one\ntwo\nthree\n"},
		{"\n", 1, "one\ntwo\nthree\n"},
		{"", 1, "one\ntwo\nthree\n"},
		{"yy\n", 1, "one\ntwo\nthree\n"},
	} {
		env := newStore(t)
		var s screen
		_, exit := command(t, env, keyboard{strings.NewReader(c.answer)}, &s, "hyper", "core", "truncate", "a", "1")
		if exit != c.exit || !strings.Contains(s.String(), "2 blocks (8 B) will be gone") || !strings.Contains(s.String(), "go on? [y/N]") {
			t.Errorf("answer %q: got exit code %d, want %d, and the screen\n%s", c.answer, exit, c.exit, &s)
		}
		if got, _ := command(t, env, nil, &s, "hyper", "core", "cat", "a", "--lines"); got != c.left {
			t.Errorf("answer %q: got %q left, want %q", c.answer, got, c.left)
		}
	}
}

// Someone who could answer must also see the question.
func TestNobodyIsAskedWithoutASight(t *testing.T) {
	env := newStore(t)
	var talk bytes.Buffer
	if _, exit := command(t, env, keyboard{strings.NewReader("y\n")}, &talk, "hyper", "core", "clear", "a", "0", "1"); exit != int(codeUsage) {
		t.Errorf("got exit code %d, want %d", exit, codeUsage)
	}
	var s screen
	if _, exit := command(t, env, strings.NewReader("y\n"), &s, "hyper", "core", "clear", "a", "0", "1"); exit != int(codeUsage) {
		t.Errorf("got exit code %d, want %d", exit, codeUsage)
	}
}

func TestColorsAreForTerminalsOnly(t *testing.T) {
	env := newStore(t)
	for _, c := range []struct {
		more  []string
		color bool
	}{
		{nil, true},
		{[]string{"NO_COLOR=1"}, false},
		{[]string{"NO_COLOR="}, true},
		{[]string{"TERM=dumb"}, false},
	} {
		var out, errs screen
		run(t.Context(), []string{"hyper", "core", "ls"}, nil, &out, &errs, slices.Concat(env, c.more))
		run(t.Context(), []string{"hyper", "core", "sl"}, nil, &out, &errs, slices.Concat(env, c.more))
		for _, s := range []*screen{&out, &errs} {
			if got := strings.Contains(s.String(), "\x1b["); got != c.color {
				t.Errorf("%q: got colour %v, want %v in\n%q", c.more, got, c.color, s)
			}
		}
	}
	var talk bytes.Buffer
	if out, _ := command(t, env, nil, &talk, "hyper", "core", "ls"); strings.Contains(out, "\x1b") {
		t.Errorf("not a terminal: got colours in %q", out)
	}
}

// An interrupt ends an append that waits for its input, keeps what came before,
// and closes the store.
func TestInterruptedAppendKeepsWhatCame(t *testing.T) {
	env := newStore(t)
	in, typed := io.Pipe()
	defer typed.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		io.WriteString(typed, "four\n")
		io.WriteString(typed, "fi") // taken from the pipe: the line before was, too
		interrupt()
	}()
	var out, talk bytes.Buffer
	exit := run(ctx, []string{"hyper", "core", "append", "a", "--lines"}, in, &out, &talk, env)
	if exit != int(codeFailed) || !strings.Contains(talk.String(), "interrupted") {
		t.Errorf("got exit code %d and %q, want %d and a word about it", exit, &talk, codeFailed)
	}
	want := "one\ntwo\nthree\n"
	if strings.Contains(talk.String(), "appended 1 block (4 B)") {
		want += "four\n" // it was said to be
	}
	if got, exit := command(t, env, nil, &talk, "hyper", "core", "cat", "a", "--lines"); exit != 0 || got != want {
		t.Errorf("got %q and exit code %d, want %q, as it said", got, exit, want)
	}
}

// A slow input is in the log as it comes, not at its end.
func TestLinesAreAppendedAsTheyCome(t *testing.T) {
	in, typed := io.Pipe()
	blocks := make(chan string)
	go func() {
		defer close(blocks)
		if err := (splitter{lines: true}).read(in, func(b []byte, _ bool) bool { blocks <- string(b); return true }); err != nil {
			t.Error(err)
		}
	}()
	for _, line := range []string{"one", "", "two"} {
		go io.WriteString(typed, line+"\n")
		if got := <-blocks; got != line {
			t.Fatalf("got %q, want %q", got, line)
		}
	}
	typed.Close()
	if _, more := <-blocks; more {
		t.Error("a block came after the end")
	}
}

func TestInputIsSplit(t *testing.T) {
	long := strings.Repeat("x", hypercore.MaxBlock)
	for _, c := range []struct {
		what  string
		split splitter
		in    string
		want  []string
	}{
		{"lines", splitter{lines: true}, "a\n\nbc\n", []string{"a", "", "bc"}},
		{"last line without an end", splitter{lines: true}, "a\nb", []string{"a", "b"}},
		{"carriage returns stay", splitter{lines: true}, "a\r\n", []string{"a\r"}},
		{"no lines", splitter{lines: true}, "", nil},
		{"longest line", splitter{lines: true}, long + "\n", []string{long}},
		{"longest line without an end", splitter{lines: true}, long, []string{long}},
		{"pieces", splitter{size: 2}, "abcde", []string{"ab", "cd", "e"}},
		{"whole pieces", splitter{size: 2}, "abcd", []string{"ab", "cd"}},
		{"no pieces", splitter{size: 2}, "", nil},
	} {
		var got []string
		err := c.split.read(strings.NewReader(c.in), func(b []byte, _ bool) bool { got = append(got, string(b)); return true })
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %d blocks and error %v, want %d", c.what, len(got), err, len(c.want))
		}
	}
	err := splitter{lines: true}.read(strings.NewReader("a\n"+long+"x\n"), func([]byte, bool) bool { return true })
	if codeOf(err) != codeUsage || !strings.Contains(err.Error(), "line 2 is longer than 15 MiB") {
		t.Errorf("too long a line: got %v", err)
	}
}

func TestProgressLine(t *testing.T) {
	var s screen
	fake := clock.NewFake(time.UnixMilli(0))
	a := &app{stderr: &s, clock: fake}
	p := a.progress(`"notes"`, "block", 4000, 0)
	if want := "\r\"notes\"  0 of 4,000 blocks  0 B  [0:00] 0%\x1b[K"; s.String() != want {
		t.Errorf("at once: got %q, want %q", &s, want)
	}
	p.skip(1000)
	last := func() string {
		text := s.String()
		return strings.TrimSuffix(text[strings.LastIndex(text, "\r")+1:], "\x1b[K")
	}
	fake.Advance(50 * time.Millisecond)
	before := s.String()
	p.add(1, 100)
	if s.String() != before {
		t.Errorf("drawn again after 50 ms: %q", last())
	}
	fake.Advance(950 * time.Millisecond) // drawn by the timer, though nothing came
	if want := `"notes"  1,001 of 4,000 blocks  100 B  [0:01] 25%  100 B/s  ETA 49:59`; last() != want {
		t.Errorf("after 1 s: got %q, want %q", last(), want)
	}
	fake.Advance(time.Second)
	p.add(999, 1<<20)
	fake.Advance(time.Second)
	if want := `"notes"  2,000 of 4,000 blocks  1.0 MiB  [0:03] 50%  341 KiB/s  ETA 0:06`; last() != want {
		t.Errorf("after 3 s: got %q, want %q", last(), want)
	}
	p.end()
	p.end()
	if last() != "" || fake.Waiting() != 0 {
		t.Errorf("after the end: got %q and %d timers", last(), fake.Waiting())
	}
	fake.Advance(time.Minute)
	p.add(1, 1)
	if last() != "" {
		t.Errorf("after the end: got %q", last())
	}
}

func TestProgressIsForTerminalsOnly(t *testing.T) {
	var plain bytes.Buffer
	var s screen
	for _, a := range []*app{
		{stderr: &plain},
		{stderr: &s, json: true},
		{stderr: &s, env: map[string]string{"TERM": "dumb"}},
	} {
		a.clock = clock.NewFake(time.UnixMilli(0))
		p := a.progress("x", "block", 10, 0)
		p.add(5, 5)
		p.end()
	}
	if plain.Len() > 0 || s.String() != "" {
		t.Errorf("got %q and %q, want nothing", &plain, &s)
	}
}

// brokenPipe is an output whose reader went away.
type brokenPipe struct{ err error }

func (w brokenPipe) Write([]byte) (int, error) { return 0, w.err }

// Who pipes a long list into head gets no error: nobody reads on.
func TestALongListEndsWithItsReader(t *testing.T) {
	var stderr bytes.Buffer
	a := newApp(strings.NewReader(""), goneReader{}, &stderr, nil)
	err := a.lines(&log{}, func(w *lineWriter) error {
		for {
			if err := w.line("a line"); err != nil {
				return err
			}
		}
	})
	if code := a.report(err); code != codeOK || stderr.Len() > 0 {
		t.Errorf("exits with %d and says %q", code, stderr.String())
	}
}

type goneReader struct{}

func (goneReader) Write([]byte) (int, error) { return 0, syscall.EPIPE }
