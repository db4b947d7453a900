package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/node/bridge"
)

// httpConnections is how many connections ask at once, each for one file after another.
const httpConnections = 16

// httpBenchmarks is the table of the benchmarks of the HTTP bridge. The targets are ratios to reach.
func httpBenchmarks() []benchmark {
	row := func(name, what string) (b, peer side) {
		return side{name: "bevy, " + what, prepare: makeDrive, run: measureBridge(name), serve: serveBridge},
			side{name: "nginx, " + what, prepare: makeFiles, run: measureNginx}
	}
	big, bigNginx := row("node/http-big", "a large file")
	small, smallNginx := row("node/http-small", "small files")
	return []benchmark{
		{
			name: "node/http-big", unit: "MiB/s", target: 0.8,
			what: "serve a file of 100 MiB over HTTP to 16 connections, from a drive and from a folder, warm",
			full: work{block: 100 << 20, count: 1, logs: 1, gets: 64, warm: 16}, quick: work{block: 1 << 20, count: 1, logs: 1, gets: 32, warm: 16},
			bevy: big, peer: bigNginx,
		},
		{
			name: "node/http-small", unit: "files/s", target: 0.5,
			what: "serve 1,000 files of 4 KiB over HTTP to 16 connections, from a drive and from a folder, warm",
			full: work{block: 4 << 10, count: 1_000, logs: 1, gets: 100_000, warm: 10_000}, quick: work{block: 4 << 10, count: 50, logs: 1, gets: 500, warm: 100},
			bevy: small, peer: smallNginx,
		},
	}
}

// makeFiles puts the files of makeDrive into a folder.
func makeFiles(_ context.Context, w work) (result, error) {
	at := incompressible(w.block)
	for i := range w.count {
		path := filepath.Join(w.dir, "files", filepath.FromSlash(drivePath(i)))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return result{}, err
		}
		if err := os.WriteFile(path, at(i), 0o644); err != nil {
			return result{}, err
		}
	}
	return result{Value: float64(w.count)}, nil
}

// oneDrive resolves its key to a drive.
type oneDrive struct {
	key    string
	source bridge.Source
}

// Resolve implements bridge.Resolver.
func (d oneDrive) Resolve(_ context.Context, _ *http.Request, name, _ string) (bridge.Source, func(), error) {
	if name != d.key {
		return nil, nil, os.ErrNotExist
	}
	return d.source, nil, nil
}

// serveBridge serves the drive until ctx ends.
func serveBridge(ctx context.Context, w work, ready func(serving) error) (map[string]float64, error) {
	return nil, withDrive(w.dir, func(drive *hyperdrive.Drive) error {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		key := drive.Key().String()
		server := &http.Server{Handler: bridge.New(bridge.Options{Resolver: oneDrive{key, bridge.NewDrive(drive, bridge.DriveOptions{Public: true})}})}
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		if err := ready(serving{Port: listener.Addr().(*net.TCPAddr).Port, Key: key}); err != nil {
			return errors.Join(err, listener.Close())
		}
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

// measureBridge loads a process with the bridge.
func measureBridge(name string) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		s, err := startBevy(ctx, name, w)
		if err != nil {
			return r, err
		}
		r, err = loadHTTP(ctx, w, s.Port, s.Key+".localhost")
		_, stopped := s.stop()
		if err := errors.Join(err, stopped); err != nil {
			return r, err
		}
		r.Extra["serverCPUSeconds"] = (s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()).Seconds()
		return r, nil
	}
}

// nginxConf is Debian's nginx.conf, without the log of each request and with connections that stay.
const nginxConf = `worker_processes auto;
pid "%[1]s/nginx.pid";
error_log stderr;
daemon off;
events { worker_connections 768; }
http {
	sendfile on;
	tcp_nopush on;
	default_type application/octet-stream;
	access_log off;
	gzip on;
	keepalive_requests 100000000;
	client_body_temp_path "%[1]s/body";
	proxy_temp_path "%[1]s/proxy";
	fastcgi_temp_path "%[1]s/fastcgi";
	uwsgi_temp_path "%[1]s/uwsgi";
	scgi_temp_path "%[1]s/scgi";
	server {
		listen 127.0.0.1:%[2]d;
		root "%[1]s/files";
	}
}
`

// measureNginx loads nginx.
func measureNginx(ctx context.Context, w work) (r result, err error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return r, fmt.Errorf("%w: install it to compare with it", err)
	}
	version, err := exec.CommandContext(ctx, path, "-v").CombinedOutput()
	if err != nil {
		return r, err
	}
	port, err := freePort()
	if err != nil {
		return r, err
	}
	conf := filepath.Join(w.dir, "nginx.conf")
	text := fmt.Sprintf(nginxConf, w.dir, port)
	if os.Getuid() == 0 {
		text = "user root;\n" + text // the folder is nobody else's
	}
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return r, err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "-p", w.dir, "-e", "stderr", "-c", conf)
	cmd.Stderr = &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return r, err
	}
	serves, ended := context.WithCancelCause(ctx)
	var waited sync.WaitGroup
	waited.Go(func() { ended(fmt.Errorf("nginx ended: %v", cmd.Wait())) })
	if err = untilServed(serves, port); err == nil {
		r, err = loadHTTP(serves, w, port, "localhost")
	}
	err = errors.Join(err, cmd.Process.Signal(syscall.SIGQUIT))
	waited.Wait()
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, lastLines(stderr.String(), 20))
	}
	r.Name = strings.TrimSpace(strings.TrimPrefix(string(version), "nginx version: "))
	r.Extra["serverCPUSeconds"] = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return r, nil
}

// freePort returns a port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// untilServed waits until connections to a port are accepted.
func untilServed(ctx context.Context, port int) error {
	for {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return conn.Close()
		}
		if err := until(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
			return err
		}
	}
}

// loadHTTP gets w.gets files over the connections, after w.warm whose contents are looked at.
func loadHTTP(ctx context.Context, w work, port int, host string) (r result, err error) {
	at := incompressible(w.block)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var clients []*httpClient
	defer func() {
		for _, c := range clients {
			err = errors.Join(err, c.conn.Close())
		}
	}()
	for range httpConnections {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return r, err
		}
		clients = append(clients, &httpClient{conn: conn, buf: make([]byte, 256<<10)})
	}
	defer context.AfterFunc(ctx, func() {
		for _, c := range clients {
			_ = c.conn.SetDeadline(time.Unix(1, 0))
		}
	})()
	requests := make([][]byte, w.count)
	for i := range requests {
		requests[i] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", drivePath(i), host)
	}
	get := func(n int, check bool) error {
		var next atomic.Int64
		var wg sync.WaitGroup
		errs := make([]error, len(clients))
		for c, client := range clients {
			wg.Go(func() {
				for errs[c] == nil {
					i := int(next.Add(1)) - 1
					if i >= n {
						return
					}
					file := shuffled(i%w.count, w.count)
					var want []byte
					if check {
						want = at(file)
					}
					errs[c] = client.get(requests[file], w.block, want)
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	if err := get(w.warm, true); err != nil {
		return r, err
	}
	took, err := timed(func() error { return get(w.gets, false) })
	if err != nil {
		return r, err
	}
	w.count = w.gets
	r = took.result(w)
	r.Extra["loadCPUSeconds"] = r.Extra["cpuSeconds"]
	delete(r.Extra, "cpuSeconds")
	return r, nil
}

// httpClient is one connection. It knows as much of HTTP as it must, so that it is not what is measured.
type httpClient struct {
	conn net.Conn
	buf  []byte
}

// get asks for a file of size bytes. It compares it with want unless that is nil.
func (c *httpClient) get(request []byte, size int, want []byte) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	n, head := 0, -1
	for head < 0 {
		k, err := c.conn.Read(c.buf[n:])
		if err != nil {
			return err
		}
		n += k
		head = bytes.Index(c.buf[:n], []byte("\r\n\r\n"))
	}
	if err := checkHead(c.buf[:head+2], size); err != nil {
		return err
	}
	got := c.buf[head+4 : n]
	for left := size; ; {
		if len(got) > left || want != nil && !bytes.Equal(got, want[size-left:size-left+len(got)]) {
			return fmt.Errorf("other contents within %d bytes from %d", len(got), size-left)
		}
		if left -= len(got); left == 0 {
			return nil
		}
		n, err := c.conn.Read(c.buf)
		if err != nil {
			return err
		}
		got = c.buf[:n]
	}
}

var (
	statusOK      = []byte("HTTP/1.1 200 OK\r\n")
	contentLength = []byte("\r\nContent-Length: ")
)

func checkHead(head []byte, size int) error {
	if bytes.HasPrefix(head, statusOK) {
		if _, after, ok := bytes.Cut(head, contentLength); ok {
			digits, _, _ := bytes.Cut(after, []byte("\r\n"))
			if n, err := strconv.Atoi(string(digits)); err == nil && n == size {
				return nil
			}
		}
	}
	return fmt.Errorf("got %.500q, want %d bytes: %w", head, size, io.ErrUnexpectedEOF)
}
