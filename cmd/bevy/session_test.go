package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// A process is a command that a script has started and goes on beside.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu     sync.Mutex // guards the fields below
	stderr bytes.Buffer
	heard  int      // bytes of it that hear has seen
	lines  []string // of stdout
	ended  bool     // stdout has
	more   *sync.Cond
}

// Write takes what the process writes to stderr.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.more.Broadcast()
	return p.stderr.Write(b)
}

// processes are those of a script, by name.
type processes map[string]*process

type processesKey struct{}

func (p processes) get(ts *testscript.TestScript, name string) *process {
	if p[name] == nil {
		ts.Fatalf("there is no process %q", name)
	}
	return p[name]
}

func running(ts *testscript.TestScript) processes { return ts.Value(processesKey{}).(processes) }

// startProcess: start name command...
func startProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start name command...")
	}
	p := &process{}
	p.more = sync.NewCond(&p.mu)
	p.cmd = exec.Command(lookPath(ts, args[1]), args[2:]...)
	p.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "BEVY_HOME", "BEVY_STORE", "BEVY_BOOTSTRAP", "GORACE", "GOCOVERDIR", "SYSTEMROOT"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	p.cmd.Stderr = p
	stdin, err := p.cmd.StdinPipe()
	ts.Check(err)
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	go p.read(stdout)
	running(ts)[args[0]] = p
	ts.Defer(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
}

// lookPath finds a command as the script does.
func lookPath(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		for _, file := range []string{name, name + ".exe"} {
			if s, err := os.Stat(filepath.Join(dir, file)); err == nil && !s.IsDir() {
				return filepath.Join(dir, file)
			}
		}
	}
	ts.Fatalf("there is no command %q", name)
	return ""
}

func (p *process) read(stdout io.Reader) {
	r := bufio.NewReader(stdout)
	for {
		line, err := r.ReadString('\n')
		p.mu.Lock()
		if line != "" {
			p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
		}
		p.ended = err != nil
		p.more.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// limit ends what waits for the process after a time, so that a script that
// waits for nothing shows where. late is guarded by mu.
func (p *process) limit() (late *bool, stop func() bool) {
	late = new(bool)
	t := time.AfterFunc(30*time.Second, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		*late = true
		p.more.Broadcast()
	})
	return late, t.Stop
}

// expect waits for a line of a process: expect name pattern [variable...]. What
// the groups of the pattern match becomes the values of the variables.
func expect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: expect name pattern [variable...]")
	}
	p := running(ts).get(ts, args[0])
	pattern := regexp.MustCompile(args[1])
	p.mu.Lock()
	defer p.mu.Unlock()
	late, stop := p.limit()
	defer stop()
	for i := 0; ; i++ {
		for i == len(p.lines) && !p.ended && !*late {
			p.more.Wait()
		}
		if i == len(p.lines) {
			ts.Fatalf("%s ended, or waits, without a line like %q. It said\n%s\n%s", args[0], args[1], strings.Join(p.lines, "\n"), &p.stderr)
		}
		if groups := pattern.FindStringSubmatch(p.lines[i]); groups != nil {
			for n, name := range args[2:] {
				ts.Setenv(name, groups[n+1])
			}
			p.lines = p.lines[i+1:] // the next one is looked for after it
			return
		}
	}
}

// hear is expect for a line of stderr.
func hear(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: hear name pattern [variable...]")
	}
	p := running(ts).get(ts, args[0])
	pattern := regexp.MustCompile("(?m)" + args[1])
	p.mu.Lock()
	defer p.mu.Unlock()
	late, stop := p.limit()
	defer stop()
	for {
		rest := p.stderr.Bytes()[p.heard:]
		rest = rest[:bytes.LastIndexByte(rest, '\n')+1]
		if at := pattern.FindSubmatchIndex(rest); at != nil {
			for n, name := range args[2:] {
				ts.Setenv(name, string(rest[at[2*n+2]:at[2*n+3]]))
			}
			p.heard += at[1]
			return
		}
		if p.ended || *late {
			ts.Fatalf("%s ended, or waits, without saying %q. It said\n%s", args[0], args[1], &p.stderr)
		}
		p.more.Wait()
	}
}

// typeLine gives a process a line to read: type name text.
func typeLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: type name text")
	}
	_, err := io.WriteString(running(ts).get(ts, args[0]).stdin, args[1]+"\n")
	ts.Check(err)
}

// interrupt interrupts a process, waits for its end, which must be in order
// unless it is to fail, and prints its stderr as its own: [!] interrupt name.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] interrupt name")
	}
	p := running(ts).get(ts, args[0])
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	p.end(ts, args[0], neg)
}

// await waits for the end of a process, which must be in order: await name.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await name")
	}
	running(ts).get(ts, args[0]).end(ts, args[0], false)
}

// closeInput ends what a process reads: eof name.
func closeInput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: eof name")
	}
	ts.Check(running(ts).get(ts, args[0]).stdin.Close())
}

// killProcess ends a process without a warning: crash name.
func killProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: crash name")
	}
	p := running(ts).get(ts, args[0])
	ts.Check(p.cmd.Process.Kill())
	var exit *exec.ExitError
	if err := p.wait(); !errors.As(err, &exit) {
		ts.Fatalf("%s ended with %v", args[0], err)
	}
}

// wait waits for the end of the process. Its output was read then.
func (p *process) wait() error {
	p.mu.Lock()
	for !p.ended {
		p.more.Wait()
	}
	p.mu.Unlock()
	return p.cmd.Wait()
}

// end waits for the end of the process: with exit code 0, or 1 if it is to fail.
func (p *process) end(ts *testscript.TestScript, name string, fails bool) {
	want := 0
	if fails {
		want = 1
	}
	err := p.wait()
	if p.cmd.ProcessState.ExitCode() != want {
		ts.Fatalf("%s ended with %v, want exit code %d. It said\n%s", name, err, want, &p.stderr)
	}
	_, err = ts.Stderr().Write(p.stderr.Bytes())
	ts.Check(err)
}
