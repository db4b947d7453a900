package nodepeer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// needNode skips a test that needs node but none of the npm packages.
func needNode(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv(must) == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func start(t *testing.T, args ...string) *Process {
	t.Helper()
	needNode(t)
	p, err := Start(t.Context(), testdata(t, "echo.js"), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestCallCarriesValuesBothWays(t *testing.T) {
	p := start(t, "one", "two")
	var got map[string]any
	if err := p.Call(t.Context(), "echo", map[string]any{"text": "ø", "n": 7, "null": nil}, &got); err != nil {
		t.Fatal(err)
	}
	if got["text"] != "ø" || got["n"] != 7.0 || got["null"] != nil || len(got) != 3 {
		t.Errorf("echo = %v", got)
	}
	var args []string
	if err := p.Call(t.Context(), "args", nil, &args); err != nil {
		t.Fatal(err)
	}
	if strings.Join(args, " ") != "one two" {
		t.Errorf("args = %q", args)
	}
	big := strings.Repeat("x", 4<<20)
	var back string
	if err := p.Call(t.Context(), "later", map[string]any{"ms": 0, "value": big}, &back); err != nil || back != big {
		t.Errorf("4 MiB came back as %d bytes, %v", len(back), err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if err := p.Call(t.Context(), "echo", nil, nil); !errors.Is(err, errClosed) {
		t.Errorf("call after Close = %v, want %v", err, errClosed)
	}
}

func TestWhatJavaScriptThrowsIsAnError(t *testing.T) {
	p := start(t)
	err := p.Call(t.Context(), "fail", map[string]any{"code": "INVALID_PROOF", "message": "no good"}, nil)
	thrown, ok := errors.AsType[*Error](err)
	if !ok || thrown.Code != "INVALID_PROOF" || thrown.Message != "no good" || !strings.Contains(thrown.Stack, "echo.js") {
		t.Errorf("fail = %#v", err)
	}
	if got, want := err.Error(), "call fail: no good"; got != want {
		t.Errorf("error text %q, want %q", got, want)
	}
	if got := Code(fmt.Errorf("wrapped: %w", err)); got != "INVALID_PROOF" {
		t.Errorf("Code = %q", got)
	}
	if err := p.Call(t.Context(), "failOddly", nil, nil); err == nil || !strings.Contains(err.Error(), "just a string") || Code(err) != "" {
		t.Errorf("failOddly = %v", err)
	}
	if err := p.Call(t.Context(), "missing", nil, nil); Code(err) != "UNKNOWN_METHOD" {
		t.Errorf("missing = %v", err)
	}
	if err := p.Call(t.Context(), "constructor", nil, nil); Code(err) != "UNKNOWN_METHOD" {
		t.Errorf("constructor = %v", err)
	}
	var n int
	if err := p.Call(t.Context(), "echo", map[string]any{"a": 1}, &n); err == nil {
		t.Error("an object went into an int")
	}
	if err := p.Call(t.Context(), "echo", func() {}, nil); err == nil {
		t.Error("a func became JSON")
	}
}

func TestCallsOverlap(t *testing.T) {
	p := start(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			var got int
			params := map[string]any{"ms": (i * 7) % 20, "value": i}
			if err := p.Call(t.Context(), "later", params, &got); err != nil || got != i {
				t.Errorf("call %d = %d, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestCallsOnOneHandleKeepTheirOrder(t *testing.T) {
	p := start(t)
	type seen struct {
		Started int
		Notes   []string
	}
	notes := func() (s seen) {
		t.Helper()
		if err := p.Call(t.Context(), "notes", nil, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	note := func(handle string, ms int, value string) {
		params := map[string]any{"handle": handle, "ms": ms, "value": value}
		if err := p.Call(t.Context(), "note", params, nil); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { note("a", 200, "slow") })
	for notes().Started == 0 {
	}
	wg.Go(func() { note("a", 0, "after it") })
	note("b", 0, "past both")
	wg.Wait()
	if got, want := strings.Join(notes().Notes, ", "), "past both, slow, after it"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
}

func TestPrintsOfPackagesDoNotBreakTheProtocol(t *testing.T) {
	p := start(t)
	if err := p.Call(t.Context(), "noise", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := p.Stderr(); got != "a package printed this" {
		t.Errorf("stderr = %q", got)
	}
}

func TestGarbageOnStdoutEndsTheProcess(t *testing.T) {
	p := start(t)
	err := p.Call(t.Context(), "garbage", nil, nil)
	if err == nil {
		err = p.Call(t.Context(), "later", map[string]any{"ms": 60_000}, nil)
	}
	if err == nil || !strings.Contains(err.Error(), `"not JSON"`) {
		t.Errorf("call = %v", err)
	}
}

func TestTheEndOfTheProcessEndsCalls(t *testing.T) {
	p := start(t)
	err := p.Call(t.Context(), "exit", map[string]any{"code": 4}, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(err.Error(), "going") {
		t.Errorf("exit = %v, want the status and stderr", err)
	}
	if err := p.Call(t.Context(), "echo", nil, nil); err == nil {
		t.Error("a call went well after the end")
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("Close = %v", err)
	}
}

func TestContextEndsACallAndAnotherEndsTheProcess(t *testing.T) {
	needNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := Start(ctx, testdata(t, "echo.js"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	short, cancelShort := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelShort()
	if err := p.Call(short, "later", map[string]any{"ms": 10_000}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call past its deadline = %v", err)
	}
	if err := p.Call(t.Context(), "echo", nil, nil); err != nil {
		t.Errorf("the process did not survive a call's deadline: %v", err)
	}
	result := make(chan error, 1)
	go func() { result <- p.Call(t.Context(), "hang", nil, nil) }()
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("call of a killed process = %v", err)
	}
	if err := p.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("Close of a killed process = %v", err)
	}
}

func TestTemporaryFilesGoWithTheProcess(t *testing.T) {
	needNode(t)
	for _, killed := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		p, err := Start(ctx, testdata(t, "echo.js"))
		if err != nil {
			t.Fatal(err)
		}
		var dir string
		if err := p.Call(t.Context(), "temp", nil, &dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
			t.Fatal(err)
		}
		if killed {
			cancel()
		}
		p.Close()
		cancel()
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("killed %v: %s is still there: %v", killed, dir, err)
		}
	}
}

func TestStartSaysWhyItFailed(t *testing.T) {
	needNode(t)
	_, err := Start(t.Context(), testdata(t, "echo.js"), "broken")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "the reason is on stderr") {
		t.Errorf("Start = %v", err)
	}
	if _, err := Start(t.Context(), "no-such-script.js"); err == nil || !strings.Contains(err.Error(), "no such script") {
		t.Errorf("Start = %v", err)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	needNode(t)
	before := runtime.NumGoroutine()
	for range 3 {
		p := start(t)
		if err := p.Call(t.Context(), "echo", nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("process %d after Close: %v", p.Pid(), err)
		}
	}
	_, _ = Start(t.Context(), testdata(t, "echo.js"), "broken")
	deadline := time.Now().Add(2 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

func TestRun(t *testing.T) {
	needNode(t)
	once := testdata(t, "once.js")
	got, err := Run(t.Context(), once, "a", "b")
	if err != nil || string(got) != `["a","b"]` {
		t.Errorf("Run = %s, %v", got, err)
	}
	if _, err := Run(t.Context(), once, "fail"); err == nil || !strings.Contains(err.Error(), "it went wrong") {
		t.Errorf("Run of a failing script = %v", err)
	}
	if _, err := Run(t.Context(), once, "text"); err == nil || !strings.Contains(err.Error(), "not one JSON value") {
		t.Errorf("Run of a script that prints text = %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, once, "forever"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run past its deadline = %v", err)
	}
}

func TestRootIsTheModule(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if !isFile(filepath.Join(root, "internal", "nodepeer", "nodepeer_test.go")) {
		t.Errorf("Root = %s", root)
	}
	t.Chdir(t.TempDir())
	if root, err := Root(); err == nil {
		t.Errorf("outside of the module Root = %s", root)
	}
}

// fakeTB records how a test ended.
type fakeTB struct {
	testing.TB
	fatal, skip string
}

func (f *fakeTB) Helper()                           {}
func (f *fakeTB) Fatalf(format string, args ...any) { f.fatal = fmt.Sprintf(format, args...) }
func (f *fakeTB) Skipf(format string, args ...any)  { f.skip = fmt.Sprintf(format, args...) }

func TestRequireSkipsAndMustFails(t *testing.T) {
	module := t.TempDir()
	node := filepath.Join(module, "interop", "node")
	write := func(path string, v any) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		raw, _ := json.Marshal(v)
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lock := func(version string) any {
		return map[string]any{"packages": map[string]any{
			"":                     map[string]any{"version": "0.0.0"},
			"node_modules/log":     map[string]any{"version": version},
			"node_modules/perhaps": map[string]any{"version": version, "optional": true},
		}}
	}
	require := func(env string) *fakeTB {
		t.Setenv(must, env)
		tb := &fakeTB{}
		Require(tb)
		return tb
	}
	needNode(t)
	write(filepath.Join(module, "go.mod"), "")
	write(filepath.Join(node, "package.json"), map[string]any{})
	write(filepath.Join(node, "package-lock.json"), lock("2.0.0"))
	t.Chdir(filepath.Join(node))

	if tb := require(""); !strings.Contains(tb.skip, "node_modules is missing") || tb.fatal != "" {
		t.Errorf("with nothing installed: skip %q, fatal %q", tb.skip, tb.fatal)
	}
	if tb := require("1"); !strings.Contains(tb.fatal, "node_modules is missing") {
		t.Errorf("with nothing installed and %s=1: fatal %q", must, tb.fatal)
	}
	installedLock := filepath.Join(node, "node_modules", ".package-lock.json")
	write(installedLock, map[string]any{"packages": map[string]any{"node_modules/log": map[string]any{"version": "1.0.0"}}})
	if tb := require(""); !strings.Contains(tb.skip, `"1.0.0", package-lock.json wants "2.0.0"`) {
		t.Errorf("with an old package: skip %q", tb.skip)
	}
	write(installedLock, map[string]any{"packages": map[string]any{"node_modules/log": map[string]any{"version": "2.0.0"}}})
	if tb := require("1"); tb.skip != "" || tb.fatal != "" {
		t.Errorf("with all installed: skip %q, fatal %q", tb.skip, tb.fatal)
	}
	var progress strings.Builder
	if err := Install(t.Context(), &progress); err != nil || progress.Len() > 0 {
		t.Errorf("Install of what is installed = %v, printed %q", err, progress.String())
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var out tail
	if out.quoted() != "" {
		t.Errorf("empty tail quotes as %q", out.quoted())
	}
	for i := range 10_000 {
		fmt.Fprintf(&out, "line %d\n", i)
	}
	s := out.String()
	if len(s) > tailSize || !strings.HasSuffix(s, "line 9999") {
		t.Errorf("kept %d bytes, ending %q", len(s), s[len(s)-20:])
	}
}
