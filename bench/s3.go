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
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// s3Benchmarks is the table of the benchmarks of the S3 door. Bevy's side is durable: each object is on disk before its
// put is answered. Versitygw never asks for that, on any of its backends: what it has answered may be gone after a power cut.
func s3Benchmarks() []benchmark {
	const mib = 1 << 20
	var all []benchmark
	for _, b := range []struct {
		name, unit, what string
		target, limit    float64
		rounds           int
		w, quick         work
	}{
		{"put-small", "objects/s", "put objects of 4 KiB by 16 clients over HTTP, durable with Bevy, not with versitygw", 1.5, 0, 0,
			work{block: 4096, gets: 20_000, peers: 16}, work{block: 4096, gets: 50, peers: 16}},
		{"get-small", "objects/s", "get objects of 4 KiB by 16 clients over HTTP", 1.5, 0, 0,
			work{block: 4096, count: 2_000, gets: 40_000, peers: 16}, work{block: 4096, count: 20, gets: 50, peers: 16}},
		{"put-big", "MiB/s", "put objects of 64 MiB by 4 clients over HTTP, durable with Bevy, not with versitygw", 1, 0, 3,
			work{block: 64 * mib, gets: 24, peers: 4}, work{block: mib, gets: 8, peers: 4}},
		{"get-big", "MiB/s", "get objects of 64 MiB by 4 clients over HTTP", 1, 0, 3,
			work{block: 64 * mib, count: 4, gets: 64, peers: 4}, work{block: mib, count: 2, gets: 8, peers: 4}},
		{"put-parallel", "MiB", "resident memory of the server, at most, while 32 clients put an object of 64 MiB each", 0, 200, 1,
			work{block: 64 * mib, gets: 32, peers: 32}, work{block: mib, gets: 32, peers: 32}},
		{"list", "keys/s", "list 100,000 keys, 1,000 in a folder and in a page, by one client over HTTP", 2, 0, 1,
			work{block: 16, count: 100_000, gets: 3, peers: 16}, work{block: 16, count: 2_000, gets: 1, peers: 16}},
	} {
		name := "s3/" + b.name
		all = append(all, benchmark{
			name: name, unit: b.unit, target: b.target, limit: b.limit, lowerIsBetter: b.limit > 0, maxRounds: b.rounds, what: b.what, full: b.w, quick: b.quick,
			bevy: side{name: "bevy, durable", prepare: buildBevy, run: inUnit(measureS3Door(name))},
			peer: side{name: "versitygw, not durable", run: inUnit(measureVersitygw(name))},
		})
	}
	return append(all, benchmark{
		name: "doors/idle", unit: "MiB", lowerIsBetter: true, maxRounds: 1,
		what: "resident memory of a node with 1,000 buckets and 1,000 tables that were just made and written to, and are idle",
		full: work{count: 1_000, settle: 3}, quick: work{count: 5},
		bevy: side{name: "bevy", prepare: buildBevy, run: measureDoor(measureIdleDoors)},
	})
}

// An s3Server is what clients have to know of one. The region is us-east-1.
type s3Server struct {
	port        int
	key, secret string
}

// measureS3Door loads a node.
func measureS3Door(name string) measure {
	return measureDoor(func(ctx context.Context, w work, d *door) (result, error) {
		return loadS3(ctx, name, w, s3Server{d.Port, d.AccessKey, d.Secret})
	})
}

// inUnit has the memory of the server be what is measured where the unit is MiB.
func inUnit(m measure) measure {
	return func(ctx context.Context, w work) (result, error) {
		r, err := m(ctx, w)
		if err == nil && w.unit == "MiB" {
			r.Value, r.Extra["objects/s"] = r.Extra["serverMaxRssMiB"], r.Value
		}
		return r, err
	}
}

// versitygwVersion is the peer's. It is built from its module, and no module of ours.
const versitygwVersion = "v1.8.0"

// versitygwPath is where the program is, or will be.
func versitygwPath() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "bevy-bench", "versitygw-"+versitygwVersion, "versitygw"), err
}

// versitygw returns the path of the program, and builds it where that was not done yet.
func versitygw(ctx context.Context) (string, error) {
	path, err := versitygwPath()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, "go", "install", "github.com/versity/versitygw/cmd/versitygw@"+versitygwVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+filepath.Dir(path), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build versitygw: %w\n%s", err, lastLines(string(out), 5))
	}
	return path, nil
}

// measureVersitygw loads versitygw on a folder.
func measureVersitygw(name string) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		program, err := versitygw(ctx)
		if err != nil {
			return r, err
		}
		port, err := freePort()
		if err != nil {
			return r, err
		}
		at := s3Server{port, "BENCH", "benchsecret"}
		data := filepath.Join(w.dir, "data")
		if err := os.Mkdir(data, 0o755); err != nil {
			return r, err
		}
		cmd := exec.CommandContext(ctx, program, "--port", fmt.Sprint("127.0.0.1:", port), "--keep-alive", "--quiet", "posix", data)
		cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+at.key, "ROOT_SECRET_KEY="+at.secret)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			return r, err
		}
		for ctx.Err() == nil {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprint("127.0.0.1:", port))
			if err == nil {
				_ = conn.Close()
				break
			}
			_ = wait(ctx, 1)
		}
		r, err = loadS3(ctx, name, w, at)
		killed := cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if err := errors.Join(err, killed); err != nil {
			return r, fmt.Errorf("%w\n%s", err, lastLines(stderr.String(), 20))
		}
		r.Name = "versitygw " + versitygwVersion[1:] + " posix, not durable"
		serverFigures(&r, cmd)
		return r, nil
	}
}

// An s3Client asks over one connection. It signs each request, but no body.
type s3Client struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	sign *signer
}

func dialS3(ctx context.Context, at s3Server) (*s3Client, error) {
	sign := newSigner("s3", fmt.Sprint("127.0.0.1:", at.port), at.key, at.secret)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", sign.host)
	if err != nil {
		return nil, err
	}
	return &s3Client{conn: conn, in: bufio.NewReaderSize(conn, 256<<10), sign: sign}, nil
}

// ask sends a request and reads the answer to its end, into a body if that is wanted. The query is in the order, and
// in the form, in which it is signed.
func (c *s3Client) ask(method, path, query string, body []byte, answer io.Writer) error {
	now, scope := c.sign.now()
	signature := c.sign.sign(now, scope, fmt.Sprintf("%s\n%s\n%s\nhost:%s\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:%s\n\nhost;x-amz-content-sha256;x-amz-date\nUNSIGNED-PAYLOAD", method, path, query, c.sign.host, now))
	if query != "" {
		path += "?" + query
	}
	c.out = fmt.Appendf(c.out[:0], "%s %s HTTP/1.1\r\nHost: %s\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nX-Amz-Date: %s\r\nAuthorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=%s\r\nContent-Length: %d\r\n\r\n",
		method, path, c.sign.host, now, c.sign.id, scope, signature, len(body))
	if len(body) <= 64<<10 {
		c.out = append(c.out, body...)
		body = nil
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	if len(body) > 0 {
		if _, err := c.conn.Write(body); err != nil {
			return err
		}
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	good := bytes.Contains(status, []byte(" 200 "))
	line := strings.TrimSpace(string(status))
	length := int64(-1)
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return err
			}
		}
		if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
			length = -2
		}
	}
	if answer == nil {
		answer = io.Discard
	}
	from := io.LimitReader(c.in, length)
	switch {
	case length == -2:
		from = &chunks{in: c.in}
	case length < 0:
		return errors.New("an answer has no length")
	}
	if !good {
		text, _ := io.ReadAll(io.LimitReader(from, 300))
		return fmt.Errorf("%s %s: %s %s", method, path, line, text)
	}
	_, err = io.Copy(answer, from)
	return err
}

// chunks reads a body of chunks to its end, and not beyond.
type chunks struct {
	in   *bufio.Reader
	left int64
	done bool
}

// Read implements [io.Reader].
func (c *chunks) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	if c.left == 0 {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if c.left, err = strconv.ParseInt(strings.TrimSpace(line), 16, 64); err != nil {
			return 0, err
		}
		if c.left == 0 {
			c.done = true
			if _, err = c.in.ReadString('\n'); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
	}
	n, err := c.in.Read(p[:min(int64(len(p)), c.left)])
	if c.left -= int64(n); c.left == 0 && err == nil {
		_, err = c.in.Discard(2)
	}
	return n, err
}

// loadS3 makes a bucket with w.count objects, and then does w.gets requests by w.peers clients.
func loadS3(ctx context.Context, name string, w work, at s3Server) (r result, err error) {
	clients := make([]*s3Client, w.peers)
	for i := range clients {
		if clients[i], err = dialS3(ctx, at); err != nil {
			return r, err
		}
		conn := clients[i].conn
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
	}
	if err := clients[0].ask("PUT", "/bench", "", nil, nil); err != nil {
		return r, err
	}
	contents := incompressible(w.block)
	if w.block > 1<<20 {
		body := contents(0) // one for all: as much memory as a client may have
		contents = func(int) []byte { return body }
	}
	key := func(i int) string { return fmt.Sprintf("/bench/folder-%03d/object-%06d", i/1000, i) }
	all := func(n int, f func(c *s3Client, i int) error) error {
		var next atomic.Int64
		var wg sync.WaitGroup
		errs := make([]error, len(clients))
		for j, c := range clients {
			wg.Go(func() {
				for errs[j] == nil {
					i := int(next.Add(1)) - 1
					if i >= n {
						return
					}
					errs[j] = f(c, i)
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	put := func(c *s3Client, i int) error { return c.ask("PUT", key(i), "", contents(i), nil) }
	if err := all(w.count, put); err != nil {
		return r, err
	}
	var span span
	switch name {
	case "s3/list":
		span, err = timed(func() error {
			for range w.gets {
				if n, err := listS3(clients[0]); err != nil || n != w.count {
					return fmt.Errorf("listed %d of %d keys: %w", n, w.count, err)
				}
			}
			return nil
		})
		w.gets *= w.count
	case "s3/get-small", "s3/get-big":
		span, err = timed(func() error {
			return all(w.gets, func(c *s3Client, i int) error { return c.ask("GET", key(shuffled(i%w.count, w.count)), "", nil, nil) })
		})
	default:
		span, err = timed(func() error { return all(w.gets, put) })
	}
	if err != nil {
		return r, err
	}
	w.count = w.gets
	r = span.result(w)
	r.Extra["loadCPUSeconds"] = r.Extra["cpuSeconds"]
	delete(r.Extra, "cpuSeconds")
	return r, nil
}

// listS3 lists all keys, and counts them.
func listS3(c *s3Client) (n int, err error) {
	var page bytes.Buffer
	for token := ""; ; {
		query := "list-type=2&max-keys=1000"
		if token != "" {
			query = "continuation-token=" + token + "&" + query
		}
		page.Reset()
		if err := c.ask("GET", "/bench", query, nil, &page); err != nil {
			return n, err
		}
		n += bytes.Count(page.Bytes(), []byte("<Key>"))
		_, rest, more := bytes.Cut(page.Bytes(), []byte("<NextContinuationToken>"))
		if !more {
			return n, nil
		}
		text, _, _ := bytes.Cut(rest, []byte("<"))
		token = strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(string(text))
	}
}

// measureIdleDoors makes w.count buckets and as many tables, writes to each, and asks what the node has then.
func measureIdleDoors(ctx context.Context, w work, d *door) (r result, err error) {
	before, err := d.Client.Status(ctx)
	if err != nil {
		return r, err
	}
	c, err := dialS3(ctx, s3Server{d.Port, d.AccessKey, d.Secret})
	if err != nil {
		return r, err
	}
	defer c.conn.Close()
	defer context.AfterFunc(ctx, func() { c.conn.Close() })()
	for i := range w.count {
		table, bucket := fmt.Sprintf("table-%d", i), fmt.Sprintf("/bucket-%d", i)
		if err := errors.Join(c.ask("PUT", bucket, "", nil, nil), c.ask("PUT", bucket+"/object", "", []byte("text"), nil),
			d.Client.DynamoDB(ctx, "", "CreateTable", json.RawMessage(`{"TableName":"`+table+`","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"}]}`), nil),
			d.Client.DynamoDB(ctx, "", "PutItem", json.RawMessage(`{"TableName":"`+table+`","Item":{"a":{"S":"x"}}}`), nil)); err != nil {
			return r, err
		}
	}
	if err := errors.Join(c.conn.Close(), wait(ctx, w.settle)); err != nil {
		return r, err
	}
	after, err := d.Client.Status(ctx)
	if err != nil {
		return r, err
	}
	r.Value = float64(after.Process.Memory) / (1 << 20)
	r.Extra = map[string]float64{
		"residentMiBBefore": float64(before.Process.Memory) / (1 << 20), "fileHandles": float64(after.Process.Files),
		"goroutinesBefore": float64(before.Process.Goroutines), "goroutines": float64(after.Process.Goroutines),
	}
	return r, nil
}
