package cloudlab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/internal/natlab"
	"github.com/cloudbevy/bevy/node"
)

// The binary under test, or why there is none.
var (
	bevy   string
	errBin error
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if natlab.Check() == nil {
		dir, err := os.MkdirTemp("", "cloudlab")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bevy = filepath.Join(dir, "bevy")
		// Without the race detector, also if this test has it.
		build := exec.Command("go", "build", "-ldflags=-s -w", "-o", bevy, "../../cmd/bevy")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as for people
		if out, err := build.CombinedOutput(); err != nil {
			errBin = fmt.Errorf("build bevy: %w\n%s", err, out)
		}
	}
	return m.Run()
}

// A lab is an internet with a network of peers on it.
type lab struct {
	*natlab.Lab
	t         *testing.T
	dir       string
	bootstrap string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	t.Parallel() // much of the time they wait
	if err := natlab.Check(); err != nil {
		t.Skipf("NOTHING IS PROVED HERE: %v", err)
	}
	if errBin != nil {
		t.Fatal(errBin)
	}
	nat, err := natlab.New()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Lab: nat, t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		if err := nat.Close(); err != nil {
			t.Error(err)
		}
	})
	var nodes []netip.Addr
	for i := range 8 {
		nodes = append(nodes, netip.AddrFrom4([4]byte{9, 9, 0, byte(1 + i)}))
	}
	host, err := l.Host("dht", nodes...)
	if err != nil {
		t.Fatal(err)
	}
	first := netip.AddrPortFrom(nodes[0], hyperdht.DefaultPort)
	l.bootstrap = first.String()
	for i, addr := range nodes {
		o := hyperdht.Options{Network: network{host}, Bind: addr, Open: true, Node: true, Bootstrap: []string{l.bootstrap}}
		if i == 0 {
			o.Bootstrap, o.Public, o.FixedPort = []string{}, first, true
		}
		d, err := hyperdht.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		if err := d.Bootstrapped(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// A network is a host as DHT nodes of this process use it.
type network struct{ host *natlab.Host }

// in is what f returns in the host.
func in[T any](n network, f func() (T, error)) (v T, err error) {
	err = n.host.Do(func() (err error) {
		v, err = f()
		return err
	})
	return v, err
}

func (n network) Listen(addr netip.AddrPort, receive packet.Handler) (packet.Conn, error) {
	return in(n, func() (packet.Conn, error) { return packet.System.Listen(addr, receive) })
}

func (n network) ListenMulticast(group netip.AddrPort, ifname string, receive packet.Handler) (packet.Conn, error) {
	return in(n, func() (packet.Conn, error) { return packet.System.ListenMulticast(group, ifname, receive) })
}

func (n network) LocalAddrs() ([]netip.Addr, error) { return in(n, packet.System.LocalAddrs) }

func (n network) Interfaces() ([]packet.Interface, error) { return in(n, packet.System.Interfaces) }

// A place is where a machine stands.
type place struct {
	name string
	kind natlab.Kind
}

// A machine is one of the owner's, with a disk of its own.
type machine struct {
	l      *lab
	name   string
	host   *natlab.Host
	home   string // BEVY_HOME
	folder string // that is kept, once it was added

	cmd    *exec.Cmd
	log    *output
	client *client.Client
}

// An output is what a process has said last.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b.Len() > 1<<20 {
		o.b.Next(1 << 19)
	}
	return o.b.Write(p)
}

// text is a value as people read it.
func text(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// machine sets up a machine, without starting anything on it.
func (l *lab) machine(p place) *machine {
	l.t.Helper()
	site, err := l.Site(p.name, p.kind)
	if err != nil {
		l.t.Fatal(err)
	}
	host, err := site.Host(p.name)
	if err != nil {
		l.t.Fatal(err)
	}
	m := &machine{l: l, name: p.name, host: host, home: filepath.Join(l.dir, p.name, "home"), folder: filepath.Join(l.dir, p.name, "Things"), log: &output{}}
	for _, dir := range []string{m.home, m.folder} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			l.t.Fatal(err)
		}
	}
	l.t.Cleanup(func() {
		if l.t.Failed() && m.cmd != nil {
			_ = m.cmd.Process.Signal(syscall.SIGQUIT) // it says what it is doing
			_ = m.cmd.Wait()
		}
		m.kill()
		if l.t.Failed() {
			said, _ := os.ReadFile(filepath.Join(m.home, "state", "bevy.log"))
			l.t.Logf("%s wrote:\n%s\nand said:\n%s", m.name, said, m.log)
		}
	})
	return m
}

// command is the program on the machine.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(bevy, args...)
	cmd.Env = append(os.Environ(), "BEVY_HOME="+m.home, "BEVY_BOOTSTRAP="+m.l.bootstrap)
	return cmd
}

// try starts the node, and waits until it is ready.
func (m *machine) try() error {
	if m.cmd != nil {
		return errors.New("it runs already")
	}
	cmd := m.command("up", "--json", "--name", m.name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = m.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := m.host.Do(cmd.Start); err != nil {
		return err
	}
	var ready struct{ Event, Data string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err == nil && ready.Event != "ready" {
		err = fmt.Errorf("it is %s", ready.Event)
	}
	var c *client.Client
	if err == nil {
		c, err = m.dial()
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("bevy up on %s: %w", m.name, err)
	}
	m.cmd, m.client = cmd, c
	return nil
}

// up starts the node, which must work.
func (m *machine) up() {
	m.l.t.Helper()
	if err := m.try(); err != nil {
		m.l.t.Fatal(err)
	}
}

// dial finds the node's socket, as every program on the machine does.
func (m *machine) dial() (*client.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p, err := node.FindPaths("linux", map[string]string{"BEVY_HOME": m.home})
	if err != nil {
		return nil, err
	}
	return client.Dial(ctx, node.Control(p))
}

// kill ends the node as a cut of power does.
func (m *machine) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // it was killed, says the error
	m.client.Close()
	m.cmd, m.client = nil, nil
}

// bevy runs a command on the machine, and returns what it prints.
func (m *machine) bevy(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.l.t.Context(), time.Minute)
	defer cancel()
	cmd := m.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.host.Do(cmd.Start); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("bevy %s on %s: %w: %s", strings.Join(args, " "), m.name, err, errs.String())
	}
	return out.String(), nil
}

// must is bevy, which must work.
func (m *machine) must(args ...string) string {
	m.l.t.Helper()
	out, err := m.bevy(args...)
	if err != nil {
		m.l.t.Fatal(err)
	}
	return out
}

// joins pairs the machine with another, by the words that that one shows.
func (m *machine) joins(other *machine) {
	m.l.t.Helper()
	words := strings.Fields(other.must("join", "--no-qr", "--no-wait"))
	m.must(append([]string{"join"}, words[2:]...)...)
}

// status asks the node how it is.
func (m *machine) status() (client.Status, error) {
	if m.client == nil {
		return client.Status{}, client.ErrNotRunning
	}
	ctx, cancel := context.WithTimeout(m.l.t.Context(), 20*time.Second)
	defer cancel()
	return m.client.Status(ctx)
}

// things is how the folder is.
func (m *machine) things() (f client.Folder, err error) {
	st, err := m.status()
	if err != nil {
		return f, err
	}
	for _, f := range st.Folders {
		if f.Name == "Things" {
			return f, nil
		}
	}
	return f, fmt.Errorf("%s has no folder", m.name)
}

// call asks the node something about the folder.
func (m *machine) call(method, path string, in, out any) error {
	if m.client == nil {
		return client.ErrNotRunning
	}
	ctx, cancel := context.WithTimeout(m.l.t.Context(), time.Minute)
	defer cancel()
	return m.client.Do(ctx, method, "/folders/Things"+path, in, out)
}

// check checks what the machine has of the folder.
func (m *machine) check() (found client.Scrubbed, err error) {
	var f client.Folder
	if err := m.call("GET", "", nil, &f); err != nil {
		return found, err
	}
	ctx, cancel := context.WithTimeout(m.l.t.Context(), time.Minute)
	defer cancel()
	return m.client.Check(ctx, client.CheckRequest{Space: f.ID}, func(int64) {})
}

// put writes a file by the API. It is acknowledged when there is no error.
func (m *machine) put(path string, data []byte) error {
	if m.client == nil {
		return client.ErrNotRunning
	}
	ctx, cancel := context.WithTimeout(m.l.t.Context(), time.Minute)
	defer cancel()
	r, err := m.client.Stream(ctx, "PUT", "/folders/Things/content?mode=0644&path="+escaped(path), bytes.NewReader(data), nil)
	if err != nil {
		return err
	}
	return r.Body.Close()
}

func escaped(path string) string { return url.QueryEscape(path) }

// write writes a file on the disk.
func (m *machine) write(path, text string) {
	m.l.t.Helper()
	path = filepath.Join(m.folder, path)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		m.l.t.Fatal(err)
	}
}

// has tells whether a file on the disk has a content.
func (m *machine) has(path, text string) bool {
	b, err := os.ReadFile(filepath.Join(m.folder, path))
	return err == nil && string(b) == text
}

// await waits until something is so. Why says what is missing, "" is nothing.
func (l *lab) await(what string, limit time.Duration, why func() string) {
	l.t.Helper()
	began := time.Now()
	for {
		left := why()
		if left == "" {
			l.t.Logf("%s: after %v", what, time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > limit {
			l.t.Fatalf("%s: not after %v: %s", what, limit, left)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
