package main

import (
	"bufio"
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

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/internal/nodepeer"
	"github.com/cloudbevy/bevy/services/dynamodb"
)

// dynamoBenchmarks is the table of the benchmarks of the DynamoDB door. Bevy's side is durable: each write is on disk
// before it is answered. Dynalite is in memory, where it is fastest.
func dynamoBenchmarks() []benchmark {
	var all []benchmark
	for _, b := range []struct {
		name, what string
		w, quick   work
	}{
		{"put", "put items of 1 KiB by 16 clients over HTTP, durable with Bevy, in memory with dynalite",
			work{block: 1024, count: 2_000, gets: 30_000}, work{block: 1024, count: 50, gets: 100}},
		{"get", "get items of 1 KiB by 16 clients over HTTP",
			work{block: 1024, count: 2_000, gets: 40_000}, work{block: 1024, count: 50, gets: 100}},
		{"query", "query 25 items of 1 KiB by 16 clients over HTTP",
			work{block: 1024, count: 2_000, gets: 8_000}, work{block: 1024, count: 50, gets: 50}},
	} {
		name := "dynamo/" + b.name
		all = append(all, benchmark{
			name: name, unit: "requests/s", target: 5, what: b.what, full: b.w, quick: b.quick,
			bevy: side{name: "bevy, durable", run: measureDynamoDoor(name), serve: serveDynamo},
			peer: side{name: "dynalite, in memory", run: measureDynalite(name)},
		})
	}
	return all
}

// dynamoClients is how many ask at a time.
const dynamoClients = 16

// serveDynamo serves a door to tables on disk until ctx ends.
func serveDynamo(ctx context.Context, w work, ready func(serving) error) (_ map[string]float64, err error) {
	logs, err := corestore.OpenDisk(storage.Disk{Dir: filepath.Join(w.dir, "store")}, corestore.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	door, err := dynamodb.New(ctx, dynamodb.Options{Trees: dynamodb.NewStore(logs, clock.System)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, door.Close()) }()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: door}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := ready(serving{Port: listener.Addr().(*net.TCPAddr).Port}); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return nil, err
	}
	return nil, nil
}

// measureDynamoDoor loads a process with the door.
func measureDynamoDoor(name string) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		s, err := startBevy(ctx, name, w)
		if err != nil {
			return r, err
		}
		r, err = loadDynamo(ctx, name, w, s.Port)
		_, stopped := s.stop()
		if err := errors.Join(err, stopped); err != nil {
			return r, err
		}
		r.Extra["serverCPUSeconds"] = cpuOf(s.cmd)
		return r, nil
	}
}

// measureDynalite loads dynalite.
func measureDynalite(name string) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		root, err := nodepeer.Root()
		if err != nil {
			return r, err
		}
		dir := filepath.Join(root, "interop", "node-doors")
		if _, err := os.Stat(filepath.Join(dir, "node_modules", "dynalite")); err != nil {
			return r, fmt.Errorf("%w: run `npm ci` in interop/node-doors", err)
		}
		cmd := exec.CommandContext(ctx, "node", "dynalite.js")
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return r, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return r, err
		}
		if err := cmd.Start(); err != nil {
			return r, err
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err == nil {
			var port int
			if port, err = strconv.Atoi(strings.TrimSpace(line)); err == nil {
				r, err = loadDynamo(ctx, name, w, port)
			}
		}
		err = errors.Join(err, in.Close())
		if ended := cmd.Wait(); err != nil || ended != nil {
			return r, fmt.Errorf("%w\n%s", errors.Join(err, ended), lastLines(stderr.String(), 20))
		}
		r.Name = "dynalite 4.0.0, in memory"
		r.Extra["serverCPUSeconds"] = cpuOf(cmd)
		return r, nil
	}
}

// cpuOf is what a process that has ended has used.
func cpuOf(cmd *exec.Cmd) float64 {
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
}

// A dynamoClient asks over one connection. It does as little as it can: it has the machine with whom it asks.
type dynamoClient struct {
	conn      net.Conn
	in        *bufio.Reader
	body, out []byte
}

const (
	dynamoHead = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Date: 20261123T120000Z\r\n" +
		"Authorization: AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=f, Signature=g\r\nX-Amz-Target: DynamoDB_20120810."
	dynamoLength = "\r\nContent-Length: "
)

// ask sends a request and reads the answer to its end.
func (c *dynamoClient) ask(target string, body []byte) error {
	c.out = append(append(append(c.out[:0], dynamoHead...), target...), dynamoLength...)
	c.out = append(strconv.AppendInt(c.out, int64(len(body)), 10), "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.Contains(status, []byte(" 200 "))
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, found := bytes.Cut(line, []byte(":")); found && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer has no length")
	}
	if !ok {
		text, _ := io.ReadAll(io.LimitReader(c.in, int64(min(length, 300))))
		return fmt.Errorf("%s: %s", target, text)
	}
	_, err = c.in.Discard(length)
	return err
}

// loadDynamo makes a table with w.count items, 25 under each first key, and then does w.gets requests.
func loadDynamo(ctx context.Context, name string, w work, port int) (r result, err error) {
	clients := make([]*dynamoClient, dynamoClients)
	for i := range clients {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return r, err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		clients[i] = &dynamoClient{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	}
	if err := clients[0].ask("CreateTable", []byte(`{"TableName":"bench","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],`+
		`"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"}]}`)); err != nil {
		return r, err
	}
	for clients[0].ask("Scan", []byte(`{"TableName":"bench"}`)) != nil {
		if err := ctx.Err(); err != nil {
			return r, err // dynalite makes tables a little later
		}
	}
	key := func(b []byte, i int) []byte {
		b = strconv.AppendInt(append(b, `"a":{"S":"key-`...), int64(1_000_000+i/25), 10)
		b = strconv.AppendInt(append(b, `"},"b":{"N":"`...), int64(i%25), 10)
		return append(b, `"}`...)
	}
	text := strings.Repeat("0123456789abcdef", w.block/16)
	end := `,"text":{"S":"` + text[:max(0, len(text)-40)] + `"}}}`
	put := func(c *dynamoClient, i int) error {
		c.body = append(key(append(c.body[:0], `{"TableName":"bench","Item":{`...), i), end...)
		return c.ask("PutItem", c.body)
	}
	all := func(n int, f func(c *dynamoClient, i int) error) error {
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
	if err := all(w.count, put); err != nil {
		return r, err
	}
	work := map[string]func(c *dynamoClient, i int) error{
		"dynamo/put": func(c *dynamoClient, i int) error { return put(c, shuffled(i, w.gets)) },
		"dynamo/get": func(c *dynamoClient, i int) error {
			c.body = append(key(append(c.body[:0], `{"TableName":"bench","Key":{`...), shuffled(i%w.count, w.count)), "}}"...)
			return c.ask("GetItem", c.body)
		},
		"dynamo/query": func(c *dynamoClient, i int) error {
			return c.ask("Query", fmt.Appendf(nil, `{"TableName":"bench","KeyConditionExpression":"a = :a","ExpressionAttributeValues":{":a":{"S":"key-%d"}}}`,
				1_000_000+shuffled(i%w.count, w.count)/25))
		},
	}[name]
	took, err := timed(func() error { return all(w.gets, work) })
	if err != nil {
		return r, err
	}
	w.count = w.gets
	r = took.result(w)
	r.Extra["loadCPUSeconds"] = r.Extra["cpuSeconds"]
	delete(r.Extra, "cpuSeconds")
	return r, nil
}
