package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// nodeBenchmarks is the table of the benchmarks of the process that "bevy up" is. They run the command itself, which is
// built for them, in homes of their own and with no peers.
func nodeBenchmarks() []benchmark {
	idle := func(name, unit, what string, limit float64, value func(idleUsage) float64) benchmark {
		return benchmark{
			name: name, unit: unit, lowerIsBetter: true, target: 1, limit: limit, maxRounds: 1,
			what: what + " with 100 folders of 10 files and nobody to talk to",
			full: work{logs: 100, count: 10, settle: 30, seconds: 60}, quick: work{logs: 2, count: 2, settle: 1, seconds: 1},
			bevy: side{name: "bevy, folders", prepare: makeFolders, run: measureNodeIdle(value)},
			peer: side{name: "syncthing", run: measureSyncthingIdle(value)},
		}
	}
	return append(syncBenchmarks(), []benchmark{
		{
			name: "node/up", unit: "ms", lowerIsBetter: true, limit: 500,
			what: "start bevy up in an empty home, until it says that it is ready",
			full: work{gets: 10}, quick: work{gets: 2},
			bevy: side{name: "bevy up, empty", prepare: buildBevy, run: measureUpEmpty},
		},
		{
			name: "node/up-known", unit: "ms", lowerIsBetter: true, limit: 2000, maxRounds: 3,
			patience: 4, // adding so many files takes some minutes, and longer beside other work
			what:     "start bevy up in a home that knows 1,000,000 files in one folder, until it says that it is ready",
			full:     work{logs: 1, count: 1_000_000, gets: 5}, quick: work{logs: 1, count: 100, gets: 2},
			bevy: side{name: "bevy up, files", prepare: makeFolders, run: measureUpKnown},
		},
		{
			name: "node/wake", unit: "ms", lowerIsBetter: true, limit: 150,
			what: "connect to a port whose node sleeps, as systemd starts it, until the first byte of the page",
			full: work{gets: 10}, quick: work{gets: 2},
			bevy: side{name: "bevy up, woken", prepare: buildBevy, run: measureWake},
		},
		idle("node/idle", "MiB", "resident memory of an idle node,", 40, func(u idleUsage) float64 { return u.residentMiB }),
		idle("node/idle-cpu", "%", "share of one processor that an idle node uses,", 0.1, func(u idleUsage) float64 { return u.cpuPercent }),
	}...)
}

// buildBevy builds the command.
func buildBevy(ctx context.Context, w work) (result, error) {
	root, err := nodepeer.Root()
	if err != nil {
		return result{}, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(w.dir, "bevy"), "./cmd/bevy")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return result{}, fmt.Errorf("build bevy: %w\n%s", err, lastLines(string(out), 20))
	}
	return result{Value: 1}, nil
}

// makeFolders has a home where w.logs folders of w.count files are kept.
func makeFolders(ctx context.Context, w work) (r result, err error) {
	if r, err = buildBevy(ctx, w); err != nil {
		return r, err
	}
	home := filepath.Join(w.dir, "home")
	n, err := startUp(ctx, w.dir, home, nil)
	if err != nil {
		return r, err
	}
	for i := range w.logs {
		folder := filepath.Join(w.dir, "folders", fmt.Sprintf("folder-%03d", i))
		if err = fill(folder, w.count); err == nil {
			err = bevy(ctx, w.dir, home, "add", folder)
		}
		if err != nil {
			break
		}
	}
	return r, errors.Join(err, n.stop())
}

// fill makes small files, 1,000 a folder.
func fill(dir string, count int) error {
	for i := range count {
		sub := filepath.Join(dir, fmt.Sprintf("%04d", i/1000))
		if i%1000 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%03d.txt", i%1000)), strconv.AppendInt(nil, int64(i), 10), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bevyCommand is the command that buildBevy has built, for a home of its own and without the public network.
func bevyCommand(ctx context.Context, dir, home string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "bevy"), args...)
	cmd.Env = append(os.Environ(), "BEVY_HOME="+home, "BEVY_BOOTSTRAP=127.0.0.1:9")
	return cmd
}

// bevy runs the command to its end.
func bevy(ctx context.Context, dir, home string, args ...string) error {
	if out, err := bevyCommand(ctx, dir, home, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("bevy %s: %w\n%s", args[0], err, lastLines(string(out), 20))
	}
	return nil
}

// A nodeProcess is a "bevy up".
type nodeProcess struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	stderr bytes.Buffer
	took   time.Duration // to be ready
}

// startUp starts bevy up and waits until it is ready. A port that is given is handed over as systemd does.
func startUp(ctx context.Context, dir, home string, port *os.File) (*nodeProcess, error) {
	cmd := bevyCommand(ctx, dir, home, "up", "--json", "--listen", "127.0.0.1:0")
	if port != nil {
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" up --json`}, cmd.Path)
		sh, err := exec.LookPath("sh")
		if err != nil {
			return nil, err
		}
		cmd.Path, cmd.ExtraFiles = sh, []*os.File{port}
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
	}
	return upReady(cmd)
}

// upReady starts a "bevy up --json" and waits until it is ready.
func upReady(cmd *exec.Cmd) (*nodeProcess, error) {
	n := &nodeProcess{cmd: cmd}
	n.cmd.Stderr = &n.stderr
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	n.out = bufio.NewReader(out)
	start := time.Now()
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	var ready struct{ Event string }
	line, err := n.out.ReadBytes('\n')
	n.took = time.Since(start)
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil || ready.Event != "ready" {
		return nil, errors.Join(fmt.Errorf("bevy up says %q: %w", line, err), n.stop())
	}
	return n, nil
}

// stop ends it, and waits.
func (n *nodeProcess) stop() error {
	err := n.cmd.Process.Signal(syscall.SIGTERM)
	_, copied := io.Copy(io.Discard, n.out)
	if e := n.cmd.Wait(); e != nil {
		err = fmt.Errorf("bevy up: %w\n%s", e, lastLines(n.stderr.String(), 20))
	}
	return errors.Join(err, copied)
}

// measureUpEmpty starts it in one new home after the other.
func measureUpEmpty(ctx context.Context, w work) (result, error) {
	return medianOf(w.gets, func() (time.Duration, error) {
		home, err := os.MkdirTemp(w.dir, "home-")
		if err != nil {
			return 0, err
		}
		took, err := upOnce(ctx, w.dir, home)
		return took, errors.Join(err, os.RemoveAll(home))
	})
}

// measureUpKnown starts it in the home of makeFolders.
func measureUpKnown(ctx context.Context, w work) (result, error) {
	return medianOf(w.gets, func() (time.Duration, error) { return upOnce(ctx, w.dir, filepath.Join(w.dir, "home")) })
}

func upOnce(ctx context.Context, dir, home string) (time.Duration, error) {
	n, err := startUp(ctx, dir, home, nil)
	if err != nil {
		return 0, err
	}
	return n.took, n.stop()
}

// measureWake has the port, and starts the node when someone has connected to it.
func measureWake(ctx context.Context, w work) (r result, err error) {
	home := filepath.Join(w.dir, "home")
	if _, err := upOnce(ctx, w.dir, home); err != nil { // so that it is no new one
		return r, err
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	defer port.Close()
	file, err := port.(*net.TCPListener).File()
	if err != nil {
		return r, err
	}
	defer file.Close()
	return medianOf(w.gets, func() (time.Duration, error) {
		start := time.Now()
		c, err := net.Dial("tcp", port.Addr().String())
		if err != nil {
			return 0, err
		}
		defer c.Close()
		type answer struct {
			took time.Duration
			err  error
		}
		answered := make(chan answer, 1)
		go func() {
			_, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			var first [12]byte
			if err == nil {
				_, err = io.ReadFull(c, first[:])
			}
			took := time.Since(start)
			if err == nil && string(first[:]) != "HTTP/1.1 200" {
				err = fmt.Errorf("the node answers %q", first)
			}
			answered <- answer{took, err}
		}()
		n, err := startUp(ctx, w.dir, home, file)
		if err != nil {
			return 0, err
		}
		a := <-answered
		return a.took, errors.Join(a.err, n.stop())
	})
}

// idleUsage is what a process uses that has nothing to do.
type idleUsage struct{ residentMiB, cpuPercent float64 }

// usageOf watches a process.
func usageOf(ctx context.Context, pid int, w work, value func(idleUsage) float64) (r result, err error) {
	if runtime.GOOS != "linux" {
		return r, errors.New("needs /proc")
	}
	if err := wait(ctx, w.settle); err != nil {
		return r, err
	}
	before, err := ticksOf(pid)
	if err != nil {
		return r, err
	}
	start := time.Now()
	if err := wait(ctx, w.seconds); err != nil {
		return r, err
	}
	after, err := ticksOf(pid)
	if err != nil {
		return r, err
	}
	took := time.Since(start).Seconds()
	kib, err := statusSum(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	u := idleUsage{residentMiB: float64(kib) / 1024, cpuPercent: float64(after-before) / took}
	r.Value = value(u)
	r.Extra = map[string]float64{"residentMiB": u.residentMiB, "cpuPercent": u.cpuPercent}
	return r, err
}

// ticksOf is the processor time of a process in hundredths of a second, as Linux counts it (proc(5)).
func ticksOf(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return user + system, err
}

// measureNodeIdle watches bevy up with the folders of makeFolders.
func measureNodeIdle(value func(idleUsage) float64) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		n, err := startUp(ctx, w.dir, filepath.Join(w.dir, "home"), nil)
		if err != nil {
			return r, err
		}
		r, err = usageOf(ctx, n.cmd.Process.Pid, w, value)
		return r, errors.Join(err, n.stop())
	}
}

// measureSyncthingIdle watches syncthing with folders such as those of makeFolders.
func measureSyncthingIdle(value func(idleUsage) float64) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		path, err := exec.LookPath("syncthing")
		if err != nil {
			return r, fmt.Errorf("%w: install it to compare with it", err)
		}
		home := filepath.Join(w.dir, "home")
		version, err := exec.CommandContext(ctx, path, "--version").Output()
		if err == nil {
			err = exec.CommandContext(ctx, path, "generate", "--home="+home, "--skip-port-probing", "--no-default-folder").Run()
		}
		if err != nil {
			return r, fmt.Errorf("syncthing: %w", err)
		}
		port, err := freePort()
		if err == nil {
			err = configureSyncthing(filepath.Join(home, "config.xml"), w)
		}
		if err != nil {
			return r, err
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, path, "serve", "--home="+home, "--no-browser", "--no-restart", "--no-upgrade", "--no-default-folder", "--gui-address="+address)
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Env = append(os.Environ(), "STMONITORED=yes") // itself, and not a process that watches it
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		if err := cmd.Start(); err != nil {
			return r, err
		}
		err = untilHTTP(ctx, "http://"+address+"/rest/noauth/health")
		if err == nil {
			r, err = usageOf(ctx, cmd.Process.Pid, w, value)
		}
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait() // its code tells of the signal
		if err != nil {
			return r, fmt.Errorf("%w\n%s", err, lastLines(out.String(), 20))
		}
		if words := strings.Fields(string(version)); len(words) > 1 {
			r.Name = words[0] + " " + words[1]
		}
		return r, nil
	}
}

// configureSyncthing gives syncthing the folders, and takes from it what would talk to other machines.
func configureSyncthing(path string, w work) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(b)
	swap := func(name, value string) {
		open, end := "<"+name+">", "</"+name+">"
		if from := strings.Index(text, open); from >= 0 {
			if to := strings.Index(text[from:], end); to >= 0 {
				text = text[:from+len(open)] + value + text[from+to:]
			}
		}
	}
	swap("listenAddress", "tcp://127.0.0.1:0")
	for _, name := range []string{"globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled", "crashReportingEnabled"} {
		swap(name, "false")
	}
	swap("urAccepted", "-1")
	var folders strings.Builder
	for i := range w.logs {
		folder := filepath.Join(w.dir, "folders", fmt.Sprintf("folder-%03d", i))
		if err := fill(folder, w.count); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(folder, ".stfolder"), 0o755); err != nil {
			return err
		}
		fmt.Fprintf(&folders, "<folder id=\"f%d\" label=\"f%d\" path=\"%s\" type=\"sendreceive\" rescanIntervalS=\"3600\" fsWatcherEnabled=\"true\" fsWatcherDelayS=\"10\"></folder>\n", i, i, folder)
	}
	at := strings.Index(text, "<device ")
	if at < 0 {
		return errors.New("the configuration of syncthing has no device")
	}
	return os.WriteFile(path, []byte(text[:at]+folders.String()+text[at:]), 0o600)
}

// untilHTTP waits until an address answers.
func untilHTTP(ctx context.Context, url string) error {
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			return answer.Body.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
