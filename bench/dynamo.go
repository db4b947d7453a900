package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
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

	"github.com/cloudbevy/bevy/internal/nodepeer"
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
			bevy: side{name: "bevy, durable", prepare: buildBevy, run: measureDynamoDoor(name)},
			peer: side{name: "dynalite, in memory", run: measureDynalite(name)},
		})
	}
	return all
}

// dynamoClients is how many ask at a time.
const dynamoClients = 16

// A dynamoServer is what clients have to know of one.
type dynamoServer struct {
	port        int
	key, secret string
}

// measureDynamoDoor loads a node.
func measureDynamoDoor(name string) measure {
	return measureDoor(func(ctx context.Context, w work, d *door) (result, error) {
		return loadDynamo(ctx, name, w, dynamoServer{d.Port, d.AccessKey, d.Secret})
	})
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
				r, err = loadDynamo(ctx, name, w, dynamoServer{port, "BENCH", "benchsecret"})
			}
		}
		err = errors.Join(err, in.Close())
		if ended := cmd.Wait(); err != nil || ended != nil {
			return r, fmt.Errorf("%w\n%s", errors.Join(err, ended), lastLines(stderr.String(), 20))
		}
		r.Name = "dynalite 4.0.0, in memory"
		serverFigures(&r, cmd)
		return r, nil
	}
}

// A dynamoClient asks over one connection. It does as little as it can: it has the machine with whom it asks.
type dynamoClient struct {
	conn net.Conn
	in   *bufio.Reader
}

// dynamoRequest is a request, signed.
func dynamoRequest(s *signer, target string, body []byte) []byte {
	now, scope := s.now()
	const signed = "content-type;host;x-amz-date;x-amz-target"
	head := fmt.Sprintf("content-type:application/x-amz-json-1.0\nhost:%s\nx-amz-date:%s\nx-amz-target:DynamoDB_20120810.%s\n", s.host, now, target)
	sum := sha256.Sum256(body)
	signature := s.sign(now, scope, fmt.Sprintf("POST\n/\n\n%s\n%s\n%x", head, signed, sum))
	return fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Date: %s\r\nX-Amz-Target: DynamoDB_20120810.%s\r\n"+
		"Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s\r\nContent-Length: %d\r\n\r\n%s",
		s.host, now, target, s.id, scope, signed, signature, len(body), body)
}

// ask sends a request and reads the answer to its end.
func (c *dynamoClient) ask(request []byte) error {
	if _, err := c.conn.Write(request); err != nil {
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
		return fmt.Errorf("refused: %s", text)
	}
	_, err = c.in.Discard(length)
	return err
}

// loadDynamo makes a table with w.count items, 25 under each first key, and then does w.gets requests. They are made
// and signed before, as clients have machines of their own.
func loadDynamo(ctx context.Context, name string, w work, at dynamoServer) (r result, err error) {
	sign := newSigner("dynamodb", fmt.Sprint("127.0.0.1:", at.port), at.key, at.secret)
	clients := make([]*dynamoClient, dynamoClients)
	for i := range clients {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", sign.host)
		if err != nil {
			return r, err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		clients[i] = &dynamoClient{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	}
	if err := clients[0].ask(dynamoRequest(sign, "CreateTable", []byte(`{"TableName":"bench","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],`+
		`"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"}]}`))); err != nil {
		return r, err
	}
	for scan := dynamoRequest(sign, "Scan", []byte(`{"TableName":"bench"}`)); clients[0].ask(scan) != nil; {
		if err := ctx.Err(); err != nil {
			return r, err // dynalite makes tables a little later
		}
	}
	key := func(i int) string { return fmt.Sprintf(`"a":{"S":"key-%d"},"b":{"N":"%d"}`, 1_000_000+i/25, i%25) }
	text := strings.Repeat("0123456789abcdef", w.block/16)
	text = text[:max(0, len(text)-40)]
	put := func(i int) []byte {
		return dynamoRequest(sign, "PutItem", fmt.Appendf(nil, `{"TableName":"bench","Item":{%s,"text":{"S":"%s"}}}`, key(i), text))
	}
	if err := askAll(clients, requests(w.count, put)); err != nil {
		return r, err
	}
	all := requests(w.gets, map[string]func(i int) []byte{
		"dynamo/put": func(i int) []byte { return put(shuffled(i, w.gets)) },
		"dynamo/get": func(i int) []byte {
			return dynamoRequest(sign, "GetItem", fmt.Appendf(nil, `{"TableName":"bench","Key":{%s}}`, key(shuffled(i%w.count, w.count))))
		},
		"dynamo/query": func(i int) []byte {
			return dynamoRequest(sign, "Query", fmt.Appendf(nil, `{"TableName":"bench","KeyConditionExpression":"a = :a","ExpressionAttributeValues":{":a":{"S":"key-%d"}}}`,
				1_000_000+shuffled(i%w.count, w.count)/25))
		},
	}[name])
	took, err := timed(func() error { return askAll(clients, all) })
	if err != nil {
		return r, err
	}
	w.count = w.gets
	r = took.result(w)
	r.Extra["loadCPUSeconds"] = r.Extra["cpuSeconds"]
	delete(r.Extra, "cpuSeconds")
	return r, nil
}

// requests makes n of them.
func requests(n int, request func(i int) []byte) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = request(i)
	}
	return all
}

// askAll has each client ask for what comes next until nothing is left.
func askAll(clients []*dynamoClient, all [][]byte) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, len(clients))
	for j, c := range clients {
		wg.Go(func() {
			for errs[j] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				errs[j] = c.ask(all[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
