package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// TestMain lets the test's own program be a node.
func TestMain(m *testing.M) {
	if os.Getenv("BEVY_TEST_NODE") != "" {
		os.Exit(nodeMain())
	}
	os.Exit(m.Run())
}

// nodeMain is "bevy up" with nothing in it.
func nodeMain() int {
	env := map[string]string{}
	for _, e := range os.Environ() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	paths, err := FindPaths("linux", env)
	if err != nil {
		return fail(err)
	}
	idle, _ := time.ParseDuration(env["BEVY_TEST_IDLE"])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n, err := Open(ctx, Options{Paths: paths, Version: "test", Env: env, Listen: []string{"127.0.0.1:0"}, Idle: idle, Process: true})
	var running *RunningError
	if errors.As(err, &running) {
		fmt.Println("running", running.Record.PID)
		return 5
	}
	if err != nil {
		return fail(err)
	}
	if env["BEVY_TEST_NODE"] == "crash" {
		go func() { panic("a mistake") }()
	}
	fmt.Println("ready", n.Address())
	err = n.Wait(ctx)
	stop() // from now on a signal ends the process
	if err := errors.Join(err, n.Close()); err != nil {
		return fail(err)
	}
	return 0
}

// A process is a node in a process of its own.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

// startNode starts a node with these variables, by a program that is given the
// node's program as its last argument; none is the node itself.
func startNode(t *testing.T, home string, files []*os.File, env []string, by ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	by = append(by, self)
	cmd := exec.Command(by[0], by[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "BEVY_TEST_NODE=1", "BEVY_HOME=" + home, "GORACE=atexit_sleep_ms=0"}, env...)
	cmd.ExtraFiles = files
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t, cmd, bufio.NewReader(out)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return p
}

// line is the next line that it prints.
func (p *process) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("read what the node prints: %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// wait waits for its end and returns the exit code, or -1 if it was killed.
func (p *process) wait() int {
	p.t.Helper()
	_, _ = io.Copy(io.Discard, p.out)
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func pathsOf(t *testing.T, home string) Paths {
	t.Helper()
	p, err := FindPaths("linux", map[string]string{"BEVY_HOME": home})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func statusOf(t *testing.T, p Paths) client.Status {
	t.Helper()
	c, err := client.Dial(t.Context(), Control(p))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKilledNodeStartsAgainAtOnce(t *testing.T) {
	home := t.TempDir()
	for i := range 3 {
		p := startNode(t, home, nil, nil)
		if line := p.line(); !strings.HasPrefix(line, "ready http://127.0.0.1:") {
			t.Fatalf("it says %q", line)
		}
		status := statusOf(t, pathsOf(t, home))
		if want := []string{"", "killed", "killed"}[i]; status.LastEnd != want {
			t.Errorf("start %d: the last one has ended %q, want %q", i, status.LastEnd, want)
		}
		p.signal(syscall.SIGKILL)
		p.wait()
		if _, err := client.Dial(t.Context(), Control(pathsOf(t, home))); !errors.Is(err, client.ErrNotRunning) {
			t.Errorf("a killed node: %v", err)
		}
	}
}

func TestSecondNodeOfAStoreSaysWhoHasIt(t *testing.T) {
	home := t.TempDir()
	p := startNode(t, home, nil, nil)
	p.line()
	second := startNode(t, home, nil, nil)
	if got, want := second.line(), fmt.Sprint("running ", p.cmd.Process.Pid); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if code := second.wait(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

// Of many that begin at once on one store, one gets it.
func TestOneOfManyNodesGetsTheStore(t *testing.T) {
	home := t.TempDir()
	var all []*process
	for range 6 {
		all = append(all, startNode(t, home, nil, nil))
	}
	ready := 0
	for _, p := range all {
		if strings.HasPrefix(p.line(), "ready") {
			ready++
			defer p.signal(syscall.SIGTERM)
		}
	}
	if ready != 1 {
		t.Errorf("%d nodes have the store", ready)
	}
}

func TestCrashIsKeptAndTold(t *testing.T) {
	home := t.TempDir()
	p := startNode(t, home, nil, []string{"BEVY_TEST_NODE=crash"})
	if code := p.wait(); code != 2 {
		t.Errorf("exit code %d of a panic", code)
	}
	again := startNode(t, home, nil, nil)
	again.line()
	s := statusOf(t, pathsOf(t, home))
	b, err := os.ReadFile(s.Crash)
	if s.LastEnd != "crashed" || err != nil || !strings.Contains(string(b), "a mistake") {
		t.Errorf("the last end is %q; its file %q has %q, %v", s.LastEnd, s.Crash, b, err)
	}
	if len(s.Notices) != 1 || s.Notices[0].Code != "crashed" {
		t.Errorf("notices are %+v", s.Notices)
	}
}

// A browser opens connections before it needs them.
func TestConnectionsThatSayNothingDoNotKeepTheNode(t *testing.T) {
	n := openNode(t, testOptions(t))
	at := strings.TrimPrefix(n.Address(), "http://")
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := http.Get(n.Address()); err != nil { // then the one before it was accepted too
		t.Fatal(err)
	}
	began := time.Now()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

// hang sends the beginning of a request to the port.
func hang(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("the node answers %q, %v", line, err) // it waits for the body now
	}
	return c
}

func TestSecondSignalEndsANodeThatWaits(t *testing.T) {
	m := newManager(t)
	p := m.start(t, "")
	address := strings.TrimPrefix(p.line(), "ready ")
	m.told(t)
	hang(t, address)
	p.signal(syscall.SIGTERM)
	if told := m.told(t); told != "STOPPING=1" {
		t.Fatalf("it told the manager %q", told)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != -1 {
		t.Errorf("exit code %d, want it killed", code)
	}
	m.start(t, "").line()
	if s := statusOf(t, pathsOf(t, m.home)); s.LastEnd != "killed" {
		t.Errorf("it has ended %q", s.LastEnd)
	}
}

func TestRequestsHaveATimeToEndAndNoMore(t *testing.T) {
	o := testOptions(t)
	fake := clock.NewFake(time.Now())
	o.Clock = fake
	n := openNode(t, o)
	hang(t, n.Address())
	done := make(chan error, 1)
	go func() { done <- n.Close() }()
	<-n.draining
	for fake.Waiting() == 0 { // until that has begun to be timed
		runtime.Gosched()
	}
	fake.Advance(drainTime - time.Second)
	select {
	case <-done:
		t.Fatal("it ends while someone asks")
	default:
	}
	fake.Advance(time.Second)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A manager is what systemd does: it has the sockets, and starts the node when
// someone connects.
type manager struct {
	home   string
	files  []*os.File
	port   net.Listener
	notify *net.UnixConn
	env    []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	if !socketControl {
		t.Skip("no such sockets here")
	}
	m := &manager{home: t.TempDir()}
	p := pathsOf(t, m.home)
	if err := p.make(); err != nil {
		t.Fatal(err)
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	m.port = port
	for _, l := range []net.Listener{port, socket} {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		m.files = append(m.files, f)
		t.Cleanup(func() {
			_ = f.Close()
			_ = l.Close()
		})
	}
	path := filepath.Join(m.home, "notify")
	m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.notify.Close() })
	m.env = []string{"LISTEN_FDS=2", "NOTIFY_SOCKET=" + path}
	return m
}

func (m *manager) start(t *testing.T, idle string) *process {
	t.Helper()
	return startNode(t, m.home, m.files, append(m.env, "BEVY_TEST_IDLE="+idle), "sh", "-c", `LISTEN_PID=$$ exec "$0"`)
}

// told is what the node has told the manager next.
func (m *manager) told(t *testing.T) string {
	t.Helper()
	b := make([]byte, 1024)
	n, err := m.notify.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNodeSleepsAndIsWokenByAConnection(t *testing.T) {
	m := newManager(t)
	p := pathsOf(t, m.home)
	page := make(chan error, 1)
	for _, ask := range []func(){
		func() { // a page
			go func() {
				answer, err := http.Get("http://" + m.port.Addr().String())
				if err == nil {
					_, err = io.Copy(io.Discard, answer.Body)
					_ = answer.Body.Close()
				}
				page <- err
			}()
		},
		func() { // a program
			go func() {
				c, err := client.Dial(t.Context(), p.Socket())
				if err == nil {
					c.Close()
				}
				page <- err
			}()
		},
	} {
		ask() // waits until there is a node
		node := m.start(t, "100ms")
		if line, want := node.line(), "ready http://"+m.port.Addr().String(); line != want {
			t.Fatalf("it says %q, want %q", line, want)
		}
		if told := m.told(t); !strings.HasPrefix(told, "READY=1\n") {
			t.Errorf("it told the manager %q", told)
		}
		if err := <-page; err != nil {
			t.Error(err)
		}
		if code := node.wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if told := m.told(t); told != "STOPPING=1" {
			t.Errorf("at its end it told the manager %q", told)
		}
		if r, err := ReadRecord(p); err != nil || r.Ended != "idle" {
			t.Errorf("the record is %+v, %v", r, err)
		}
	}
}

// The same with the program that systemd has for it.
func TestSystemdHandsSocketsOver(t *testing.T) {
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("no systemd-socket-activate here")
	}
	home := t.TempDir()
	p := pathsOf(t, home)
	if err := p.make(); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_ = free.Close()
	node := startNode(t, home, nil, nil, activate, "-l", p.Socket(), "-l", addr,
		"-E", "BEVY_TEST_NODE", "-E", "BEVY_HOME", "-E", "GORACE", "-E", "BEVY_TEST_IDLE=100ms")
	var answer *http.Response
	for { // until it listens
		if answer, err = http.Get("http://" + addr); !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if line := node.line(); line != "ready http://"+addr || answer.StatusCode != http.StatusOK {
		t.Errorf("it says %q; the page's status is %d", line, answer.StatusCode)
	}
	if code := node.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
