package nodepeer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// errClosed is why calls fail on a process that ended as it was told to.
var errClosed = errors.New("closed")

// Error is what JavaScript threw while it answered a call.
type Error struct {
	Method  string `json:"-"`
	Message string `json:"message"`
	Code    string `json:"code"` // such as INVALID_OPERATION; empty when the thrown value had none
	Stack   string `json:"stack"`
}

// Error says which method threw what.
func (e *Error) Error() string { return fmt.Sprintf("call %s: %s", e.Method, e.Message) }

// Code returns the JavaScript error code in err, or "" when there is none.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Process is a running script that answers calls: JSON lines, as interop/node/lib/lines.js describes them. Its methods
// may be called from many goroutines at once.
type Process struct {
	name     string // for errors
	cmd      *exec.Cmd
	temp     string // where the script's temporary files go
	stderr   *tail
	outgoing chan []byte   // lines, to the goroutine that writes them
	quit     chan struct{} // closed by Close
	done     chan struct{} // closed when the process has ended; err is set before
	err      error
	routines sync.WaitGroup
	closing  sync.Once

	mu      sync.Mutex
	last    uint64                 // guarded by mu: the newest id
	waiting map[uint64]chan answer // guarded by mu
}

type request struct {
	ID     uint64 `json:"id"`
	Method string `json:"method"`
	Params any    `json:"params"`
}

type answer struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *Error          `json:"error"`
	Ready  json.RawMessage `json:"ready"`
}

// Start runs the script and returns when it is ready for calls. The caller must call Close; the end of ctx kills the
// process, whatever it is doing. The script's temporary files are removed when the process ends, even when it is killed.
func Start(ctx context.Context, script string, args ...string) (*Process, error) {
	cmd, err := Command(ctx, script, args...)
	if err != nil {
		return nil, err
	}
	return launch(ctx, "node "+script, cmd)
}

// StartCommand is Start for a command that is ready to be started: any program that speaks the same lines. What ctx
// does to it is up to the command.
func StartCommand(ctx context.Context, cmd *exec.Cmd) (*Process, error) {
	return launch(ctx, filepath.Base(cmd.Path), cmd)
}

func launch(ctx context.Context, name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{
		name:     name,
		cmd:      cmd,
		stderr:   &tail{},
		outgoing: make(chan []byte),
		quit:     make(chan struct{}),
		done:     make(chan struct{}),
		waiting:  make(map[uint64]chan answer),
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cmd.Stderr = p.stderr
	if p.temp, err = os.MkdirTemp("", "bevy-nodepeer-"); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cmd.Env = append(cmd.Environ(), "TMPDIR="+p.temp, "TMP="+p.temp, "TEMP="+p.temp)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(err, os.RemoveAll(p.temp)))
	}
	ready := make(chan answer, 1)
	p.waiting[0] = ready
	p.routines.Go(func() { p.write(stdin) })
	p.routines.Go(func() { p.read(ctx, stdout) })
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		p.routines.Wait()
		return nil, fmt.Errorf("%s: ended before it was ready: %w%s", name, p.err, p.stderr.quoted())
	}
}

// write hands lines to the script until Close or the end of the process, and then closes its stdin.
func (p *Process) write(stdin io.WriteCloser) {
	defer stdin.Close()
	for {
		select {
		case line := <-p.outgoing:
			if _, err := stdin.Write(line); err != nil {
				return // the process is gone or going: read says why
			}
		case <-p.quit:
			return
		case <-p.done:
			return
		}
	}
}

// read hands answers to the calls that wait for them until the script's stdout ends, and then waits for the process.
func (p *Process) read(ctx context.Context, stdout io.Reader) {
	defer close(p.done)
	lines := bufio.NewReader(stdout)
	var bad error
	for bad == nil {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			bad = fmt.Errorf("printed %.200q, not an answer: %w", bytes.TrimSpace(line), err)
			break
		}
		p.mu.Lock()
		waiting := p.waiting[a.ID]
		delete(p.waiting, a.ID)
		p.mu.Unlock()
		if waiting != nil { // else the caller has given up
			waiting <- a
		}
	}
	if bad != nil {
		_ = p.cmd.Process.Kill()
	}
	err := p.cmd.Wait()
	switch {
	case bad != nil:
		p.err = bad
	case err != nil:
		p.err = endOf(ctx, err)
	default:
		p.err = errClosed
	}
	if err := os.RemoveAll(p.temp); err != nil && p.err == errClosed {
		p.err = err
	}
}

// Call calls a method of the script with params, which become JSON, and decodes what it answers into result; a nil
// result throws it away. What JavaScript threw is an [*Error]. When ctx ends first the call goes on in the script, and
// its answer is dropped.
func (p *Process) Call(ctx context.Context, method string, params, result any) error {
	reply := make(chan answer, 1)
	p.mu.Lock()
	p.last++
	id := p.last
	p.waiting[id] = reply
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, id)
		p.mu.Unlock()
	}()

	line, err := json.Marshal(request{ID: id, Method: method, Params: params})
	if err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	select {
	case p.outgoing <- append(line, '\n'):
	case <-p.quit:
		return fmt.Errorf("call %s: %s: %w", method, p.name, errClosed)
	case <-p.done:
		return p.gone(method)
	case <-ctx.Done():
		return fmt.Errorf("call %s: %w", method, context.Cause(ctx))
	}
	select {
	case a := <-reply:
		return a.into(method, result)
	case <-ctx.Done():
		return fmt.Errorf("call %s: %w", method, context.Cause(ctx))
	case <-p.done:
	}
	select {
	case a := <-reply: // it was the last one before the end
		return a.into(method, result)
	default:
		return p.gone(method)
	}
}

func (p *Process) gone(method string) error {
	return fmt.Errorf("call %s: %s has ended: %w%s", method, p.name, p.err, p.stderr.quoted())
}

func (a answer) into(method string, result any) error {
	if a.Error != nil {
		a.Error.Method = method
		return a.Error
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return fmt.Errorf("call %s: answered %.200q: %w", method, a.Result, err)
	}
	return nil
}

// Pid returns the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Stderr returns the end of what the script has written to stderr so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Close ends the process and waits for it: first by closing its stdin, and by killing it when that has not helped for
// a few seconds. The error says how it ended, when not well. Close may be called again.
func (p *Process) Close() error {
	p.closing.Do(func() { close(p.quit) })
	patience := time.NewTimer(grace)
	defer patience.Stop()
	killed := false
	select {
	case <-p.done:
	case <-patience.C:
		killed = true
		_ = p.cmd.Process.Kill()
	}
	p.routines.Wait()
	if killed {
		return fmt.Errorf("%s: killed, it had not ended in %v%s", p.name, grace, p.stderr.quoted())
	}
	if p.err != errClosed {
		return fmt.Errorf("%s: %w%s", p.name, p.err, p.stderr.quoted())
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	end []byte // guarded by mu
}

const tailSize = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b...)
	if extra := len(t.end) - tailSize; extra > 0 {
		t.end = append(t.end[:0], t.end[extra:]...)
	}
	return len(b), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}

// quoted is the form for the end of an error: nothing, or the text on lines of its own.
func (t *tail) quoted() string {
	s := t.String()
	if s == "" {
		return ""
	}
	return "\n--- stderr ---\n" + s
}
