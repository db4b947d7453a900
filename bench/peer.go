package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// serving is what a process that serves prints when it is ready, as one JSON line. At the end it prints a result.
type serving struct {
	Port int    `json:"port"`
	Key  string `json:"key,omitempty"` // of the log, hex
}

// serve serves until ctx ends, and returns what it measured meanwhile. It calls ready when others may connect.
type serve func(ctx context.Context, w work, ready func(serving) error) (map[string]float64, error)

// peerBenchmarks is the table of the benchmarks of two processes, or more. The targets are ratios to reach.
func peerBenchmarks() []benchmark {
	node := func(script string) side { return side{name: "node", script: script} }
	small, smallQuick := work{block: 100, count: 100_000, batch: 256}, work{block: 100, count: 2_000, batch: 256}
	bulk, bulkQuick := work{block: 64 << 10, count: 4_096, batch: 64}, work{block: 64 << 10, count: 128, batch: 64}
	many := work{block: 64 << 10, count: 1_536, batch: 64, cap: 8 << 20}
	manyQuick := work{block: 64 << 10, count: 48, batch: 64, cap: 2 << 20}
	peers := func(name string, n, stalled int, serve serve) side {
		return side{name: name, serve: serve, run: func(ctx context.Context, w work) (result, error) {
			w.peers, w.stalled = n, stalled
			return measureMany(ctx, w)
		}}
	}
	memory := side{name: "bevy", prepare: makeLog, run: measureCopy("peer/memory"), serve: serveLog}
	nodeMemory := node("replicate.js")
	nodeMemory.prepareScript = "makelog.js"

	return []benchmark{
		{
			name: "peer/secretstream", unit: "MiB/s", target: 2,
			what: "send 64 KiB messages over secret stream and TCP",
			full: work{block: 64 << 10, count: 16_384}, quick: work{block: 64 << 10, count: 256},
			bevy: side{name: "bevy", run: measureSecretStream, serve: serveSecretStream}, peer: node("secretstream.js"),
		},
		{
			name: "peer/replicate-small", unit: "blocks/s", target: 20, maxRounds: 3,
			what: "copy a log of 100,000 blocks of 100 B over TCP, from disk to disk, not fsynced on either side",
			full: small, quick: smallQuick,
			bevy: side{name: "bevy", run: measureCopy("peer/replicate-small"), serve: serveLog}, peer: node("replicate.js"),
		},
		{
			name: "peer/replicate-bulk", unit: "MiB/s", target: 5, maxRounds: 3,
			what: "copy a log of 256 MiB in blocks of 64 KiB over TCP, from disk to disk, not fsynced on either side",
			full: bulk, quick: bulkQuick,
			bevy: side{name: "bevy", run: measureCopy("peer/replicate-bulk"), serve: serveLog}, peer: node("replicate.js"),
		},
		{
			name: "peer/mixed-small", unit: "blocks/s", target: 1, maxRounds: 3,
			what: "copy 30,000 blocks of 100 B from Bevy to Node and from Node to Bevy, the slower of both; beside Node to Node",
			full: work{block: 100, count: 30_000, batch: 256}, quick: smallQuick,
			bevy: side{name: "bevy", run: measureMixed("peer/mixed-small"), serve: serveLog}, peer: node("replicate.js"),
		},
		{
			name: "peer/mixed-bulk", unit: "MiB/s", target: 1, maxRounds: 3,
			what: "copy 128 MiB in blocks of 64 KiB from Bevy to Node and from Node to Bevy, the slower of both; beside Node to Node",
			full: work{block: 64 << 10, count: 2_048, batch: 64}, quick: bulkQuick,
			bevy: side{name: "bevy", run: measureMixed("peer/mixed-bulk"), serve: serveLog}, peer: node("replicate.js"),
		},
		{
			name: "peer/append-to-visible", unit: "us", lowerIsBetter: true, target: 2, maxRounds: 3,
			what: "from the append of a 100 B block to its sight at a live reader in another process, the median",
			full: work{block: 100, count: 1_000}, quick: work{block: 100, count: 20},
			bevy: side{name: "bevy", run: measureVisible, serve: serveVisible}, peer: node("visible.js"),
		},
		{
			name: "peer/many", unit: "MiB/s", target: 3.6, maxRounds: 1,
			what: "copy 96 MiB from 4 peers behind lines of 8 MiB/s each; beside 1 such peer",
			full: many, quick: manyQuick,
			bevy: peers("bevy", 4, 0, serveLog), peer: peers("bevy, 1 peer", 1, 0, nil),
		},
		{
			name: "peer/many-stalled", unit: "MiB/s", target: 2.5, maxRounds: 1,
			what: "the same while one of the 4 says nothing more after a while; beside 1 peer that does not",
			full: many, quick: manyQuick,
			bevy: peers("bevy", 4, 1, serveLog), peer: peers("bevy, 1 peer", 1, 0, nil),
		},
		{
			name: "peer/many-node", unit: "MiB/s", target: 1, maxRounds: 1,
			what: "the same with 4 peers; beside Node's with 4 of Node",
			full: many, quick: manyQuick,
			bevy: peers("bevy", 4, 0, serveLog), peer: side{name: "node", run: measureManyNode},
		},
		{
			name: "peer/memory", unit: "MiB", lowerIsBetter: true, limit: 64, maxRounds: 1,
			what:  "memory that a process gains, at most, while 1 GiB in blocks of 64 KiB is copied, the worse of both processes",
			full:  work{block: 64 << 10, count: 16_384, batch: 64, logs: 1},
			quick: work{block: 64 << 10, count: 256, batch: 64, logs: 1},
			bevy:  memory, peer: nodeMemory,
		},
	}
}

// serveUntilEnd is serve for a child process: the end of its input is the order to end.
func serveUntilEnd(s serve, in io.Reader, out io.Writer) measure {
	return func(ctx context.Context, w work) (result, error) {
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			defer cancel()
			_, _ = io.Copy(io.Discard, in) // however it ends
		}()
		extra, err := s(ctx, w, func(v serving) error { return json.NewEncoder(out).Encode(v) })
		return result{Extra: extra}, err
	}
}

// server is a process that serves.
type server struct {
	serving
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *json.Decoder
	stderr bytes.Buffer
}

// start starts cmd and waits until it serves.
func start(cmd *exec.Cmd) (*server, error) {
	s := &server{cmd: cmd}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.stdin, s.stdout, cmd.Stderr = stdin, json.NewDecoder(stdout), &s.stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var first struct {
		serving
		Error string
	}
	if err := s.stdout.Decode(&first); err != nil || first.Port == 0 {
		if first.Error != "" {
			err = errors.New(first.Error)
		}
		_, stopped := s.stop()
		return nil, fmt.Errorf("the process that serves: %w", errors.Join(err, stopped))
	}
	s.serving = first.serving
	return s, nil
}

// stop ends the process and returns what it measured.
func (s *server) stop() (map[string]float64, error) {
	closed := s.stdin.Close()
	var r result
	read := s.stdout.Decode(&r)
	if errors.Is(read, io.EOF) {
		read = nil // it has said so already
	}
	if r.Error != "" {
		read = errors.New(r.Error)
	}
	if err := errors.Join(read, s.cmd.Wait(), closed); err != nil {
		return nil, fmt.Errorf("the process that serves: %w\n%s", err, lastLines(s.stderr.String(), 20))
	}
	return r.Extra, nil
}

// startBevy starts the serving process of a benchmark.
func startBevy(ctx context.Context, name string, w work) (*server, error) {
	return startServing(ctx, name, asBevy, w)
}

// startServing starts the process that serves for one of the sides.
func startServing(ctx context.Context, name string, as role, w work) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"-child", name, string(as), toServe}, w.words()...)...)
	cmd.WaitDelay = 5 * time.Second
	return start(cmd)
}

// nodeScript is a script of the benchmarks with words, and some more.
func nodeScript(ctx context.Context, script string, w work, more ...string) (*exec.Cmd, error) {
	if err := nodepeer.Install(ctx, os.Stderr); err != nil {
		return nil, err
	}
	root, err := nodepeer.Root()
	if err != nil {
		return nil, err
	}
	return nodepeer.Command(ctx, filepath.Join(root, "bench", "node", script), append(w.words(), more...)...)
}

func startNode(ctx context.Context, script string, w work) (*server, error) {
	cmd, err := nodeScript(ctx, script, w, "role=serve")
	if err != nil {
		return nil, err
	}
	return start(cmd)
}

// readNode lets a script measure against what serves already.
func readNode(ctx context.Context, script string, w work, key string, ports ...int) (r result, err error) {
	var list []string
	for _, port := range ports {
		list = append(list, fmt.Sprint(port))
	}
	cmd, err := nodeScript(ctx, script, w, "key="+key, "port="+strings.Join(list, ","))
	if err != nil {
		return r, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		return r, fmt.Errorf("node %s: %w\n%s", script, err, lastLines(stderr.String(), 20))
	}
	return r, nil
}

// dial connects to what serves.
func dial(ctx context.Context, port int) (*secretstream.Stream, error) {
	conn, err := transport.Dial(ctx, fmt.Sprintf("tcp://127.0.0.1:%d", port), transport.DialOptions{})
	if err != nil {
		return nil, err
	}
	return secretstream.Client(ctx, conn, secretstream.Options{KeyPair: keyPair()})
}

func keyPair() noise.KeyPair {
	kp, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		panic(err) // the machine's randomness does not fail
	}
	return kp
}

// accept calls f with every stream that comes, until ctx ends.
func accept(ctx context.Context, key string, ready func(serving) error, f func(context.Context, *secretstream.Stream) error) (err error) {
	l, err := transport.Listen(ctx, "tcp://127.0.0.1:0", transport.ListenOptions{})
	if err != nil {
		return err
	}
	var streams sync.WaitGroup
	defer streams.Wait()
	defer func() { err = errors.Join(err, l.Close()) }()
	var port int
	if _, err := fmt.Sscanf(l.Addr(), "tcp://127.0.0.1:%d", &port); err != nil {
		return err
	}
	if err := ready(serving{port, key}); err != nil {
		return err
	}
	for {
		conn, err := l.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		streams.Go(func() {
			s, err := secretstream.Server(ctx, conn, secretstream.Options{KeyPair: keyPair()})
			if err == nil {
				err = f(ctx, s)
			}
			if err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
}

// serveSecretStream is the serving half of secretstream.js.
func serveSecretStream(ctx context.Context, w work, ready func(serving) error) (map[string]float64, error) {
	at := incompressible(w.block)
	return nil, accept(ctx, "", ready, func(ctx context.Context, s *secretstream.Stream) error {
		defer s.Close()
		if _, err := s.Next(); err != nil { // the sign to begin
			return err
		}
		for i := range w.count {
			if err := s.WriteMessage(at(i)); err != nil {
				return err
			}
		}
		_, err := s.Next() // until the reader has gone
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
}

// measureSecretStream is secretstream.js.
func measureSecretStream(ctx context.Context, w work) (r result, err error) {
	from, err := startBevy(ctx, "peer/secretstream", w)
	if err != nil {
		return r, err
	}
	defer func() {
		_, stopped := from.stop()
		err = errors.Join(err, stopped)
	}()
	s, err := dial(ctx, from.Port)
	if err != nil {
		return r, err
	}
	defer s.Close()
	took, err := timed(func() error {
		if err := s.WriteMessage([]byte("go")); err != nil {
			return err
		}
		for i := range w.count {
			message, err := s.Next()
			if err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
			if len(message) != w.block {
				return fmt.Errorf("message %d has %d bytes", i, len(message))
			}
		}
		return nil
	})
	return took.result(w), err
}

// openPeer opens a store in a folder of its own, as the reference has it: nothing waits for the disk.
func openPeer(dir string) (*corestore.Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	primary := [32]byte(bytes.Repeat([]byte{1}, 32)) // every process makes the same log, so that several can serve it
	return corestore.OpenDisk(storage.Disk{Dir: dir}, corestore.Options{
		PrimaryKey: &primary,
	})
}

// withServed opens the log that is served, and makes it when it is not there yet.
func withServed(ctx context.Context, w work, f func(*corestore.Store, *hypercore.Log) error) (err error) {
	store, err := openPeer(filepath.Join(w.dir, "writer"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log, err := store.Get(corestore.LogOptions{Name: "log", Durability: hypercore.Soon})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if log.Length() == 0 {
		if err := appendAll(ctx, bevyLog{log, hypercore.Soon}, incompressible(w.block), w); err != nil {
			return err
		}
	}
	if log.Length() != uint64(w.count) {
		return fmt.Errorf("the log has %d blocks, want %d", log.Length(), w.count)
	}
	return f(store, log)
}

// makeLog makes the log that serveLog serves.
func makeLog(ctx context.Context, w work) (result, error) {
	err := withServed(ctx, w, func(*corestore.Store, *hypercore.Log) error { return nil })
	return result{Value: float64(w.count)}, err
}

// serveLog is the serving half of replicate.js.
func serveLog(ctx context.Context, w work, ready func(serving) error) (extra map[string]float64, err error) {
	err = withServed(ctx, w, func(store *corestore.Store, log *hypercore.Log) error {
		key := log.Key()
		grown := growth()
		err := accept(ctx, hex.EncodeToString(key[:]), ready, func(ctx context.Context, s *secretstream.Stream) error {
			return store.Replicate(ctx, s, corestore.ReplicateOptions{})
		})
		extra = map[string]float64{"servesMiB": grown()}
		return err
	})
	return extra, err
}

// withReader opens the log of what serves in a new store, and replicates with all ports until f returns.
func withReader(ctx context.Context, w work, key string, ports []int, f func(context.Context, *hypercore.Log) error) (err error) {
	dir := filepath.Join(w.dir, "reader")
	store, err := openPeer(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(), os.RemoveAll(dir)) }()
	var k hypercore.Key
	if _, err := hex.Decode(k[:], []byte(key)); err != nil {
		return err
	}
	log, err := store.Get(corestore.LogOptions{Key: &k, Durability: hypercore.Soon})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	found := store.FindingPeers()
	defer found()
	ctx, cancel := context.WithCancelCause(ctx)
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel(nil)
	for _, port := range ports {
		streams.Go(func() {
			s, err := dial(ctx, port)
			if err == nil {
				err = store.Replicate(ctx, s, corestore.ReplicateOptions{})
			}
			// Nothing ends before the reader does.
			cancel(fmt.Errorf("the connection has ended: %w", err))
		})
	}
	if err := f(ctx, log); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// copyLog makes a copy of the log of what serves.
func copyLog(ctx context.Context, w work, key string, ports ...int) (r result, err error) {
	grown := growth()
	before := time.Now()
	cpu, _ := cpuTime()
	err = withReader(ctx, w, key, ports, func(ctx context.Context, log *hypercore.Log) error {
		if err := log.Download(ctx, hypercore.DownloadRange{To: uint64(w.count)}); err != nil {
			return err
		}
		after, _ := cpuTime()
		r = span{time.Since(before), after - cpu}.result(w)
		r.Extra["readsMiB"] = grown()
		at := incompressible(w.block)
		for _, i := range []int{0, w.count / 2, w.count - 1} {
			if got, err := log.Get(ctx, uint64(i)); err != nil || !bytes.Equal(got, at(i)) {
				return fmt.Errorf("block %d of the copy has %d bytes: %w", i, len(got), err)
			}
		}
		if log.Contiguous() != uint64(w.count) {
			return fmt.Errorf("%d blocks of the copy are here, want %d", log.Contiguous(), w.count)
		}
		return nil
	})
	return r, err
}

// measureCopy is replicate.js.
func measureCopy(name string) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		from, err := startBevy(ctx, name, w)
		if err != nil {
			return r, err
		}
		r, err = copyLog(ctx, w, from.Key, from.Port)
		extra, stopped := from.stop()
		if err := errors.Join(err, stopped); err != nil {
			return r, err
		}
		r.Extra["servesMiB"] = extra["servesMiB"]
		if w.unit == "MiB" {
			r.Value = max(r.Extra["readsMiB"], r.Extra["servesMiB"])
		}
		return r, nil
	}
}

// measureMixed copies in both directions between Bevy and Node.
func measureMixed(name string) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		one := w
		one.dir = filepath.Join(w.dir, "to-node")
		if err := os.Mkdir(one.dir, 0o755); err != nil {
			return r, err
		}
		from, err := startBevy(ctx, name, one)
		if err != nil {
			return r, err
		}
		toNode, err := readNode(ctx, "replicate.js", one, from.Key, from.Port)
		if _, stopped := from.stop(); err != nil || stopped != nil {
			return r, fmt.Errorf("from Bevy to Node: %w", errors.Join(err, stopped))
		}
		one.dir = filepath.Join(w.dir, "from-node")
		if err := os.Mkdir(one.dir, 0o755); err != nil {
			return r, err
		}
		if from, err = startNode(ctx, "replicate.js", one); err != nil {
			return r, err
		}
		fromNode, err := copyLog(ctx, one, from.Key, from.Port)
		if _, stopped := from.stop(); err != nil || stopped != nil {
			return r, fmt.Errorf("from Node to Bevy: %w", errors.Join(err, stopped))
		}
		extra := map[string]float64{"toNode": toNode.Value, "fromNode": fromNode.Value}
		return result{Value: min(toNode.Value, fromNode.Value), Extra: extra}, nil
	}
}

// pause is the time between two appends in visible.js.
const pause = 5 * time.Millisecond

// serveVisible is the serving half of visible.js.
func serveVisible(ctx context.Context, w work, ready func(serving) error) (map[string]float64, error) {
	at := incompressible(w.block)
	total := w.count
	w.count, w.batch = 1, 1
	return nil, withServed(ctx, w, func(store *corestore.Store, log *hypercore.Log) error {
		ctx, cancel := context.WithCancelCause(ctx)
		var appends sync.WaitGroup
		appends.Go(func() {
			ticks := time.NewTicker(pause)
			defer ticks.Stop()
			for i := 0; i < total; {
				select {
				case <-ticks.C:
				case <-ctx.Done():
					return
				}
				// The reader has the first block: it is there.
				if i == 0 && !slices.ContainsFunc(store.Peers(), func(p replicate.PeerInfo) bool { return p.BlocksUp > 0 }) {
					continue
				}
				i++
				block := bytes.Clone(at(i))
				binary.LittleEndian.PutUint64(block, uint64(time.Now().UnixNano()))
				if _, err := log.AppendWith(ctx, hypercore.AppendOptions{Durability: hypercore.Soon}, block); err != nil {
					cancel(err)
					return
				}
			}
		})
		defer appends.Wait()
		key := log.Key()
		err := accept(ctx, hex.EncodeToString(key[:]), ready, func(ctx context.Context, s *secretstream.Stream) error {
			return store.Replicate(ctx, s, corestore.ReplicateOptions{})
		})
		if cause := context.Cause(ctx); cause != context.Canceled {
			err = errors.Join(err, cause)
		}
		return err
	})
}

// measureVisible is visible.js.
func measureVisible(ctx context.Context, w work) (r result, err error) {
	from, err := startBevy(ctx, "peer/append-to-visible", w)
	if err != nil {
		return r, err
	}
	defer func() {
		_, stopped := from.stop()
		err = errors.Join(err, stopped)
	}()
	each := make([]time.Duration, 0, w.count)
	err = withReader(ctx, w, from.Key, []int{from.Port}, func(ctx context.Context, log *hypercore.Log) error {
		took, err := timed(func() error {
			for block, err := range log.Blocks(ctx, hypercore.BlockRange{Live: true}) {
				if err != nil {
					return err
				}
				if block.Index == 0 {
					continue
				}
				sent := time.Unix(0, int64(binary.LittleEndian.Uint64(block.Data)))
				if each = append(each, time.Since(sent)); len(each) == w.count {
					return nil
				}
			}
			return fmt.Errorf("only %d blocks came", len(each))
		})
		slices.Sort(each)
		r = result{Value: microseconds(percentile(each, 0.5)), Extra: map[string]float64{
			"seconds": took.wall.Seconds(), "cpuSeconds": took.cpu.Seconds(), "p99us": microseconds(percentile(each, 0.99)),
		}}
		return err
	})
	return r, err
}

// measureMany copies a log from several peers, each behind a slow line.
func measureMany(ctx context.Context, w work) (result, error) {
	return throughLines(ctx, w, func(w work) (*server, error) { return startBevy(ctx, "peer/many", w) }, copyLog)
}

// measureManyNode is measureMany with Node alone.
func measureManyNode(ctx context.Context, w work) (result, error) {
	w.peers = 4
	return throughLines(ctx, w, func(w work) (*server, error) { return startNode(ctx, "replicate.js", w) },
		func(ctx context.Context, w work, key string, ports ...int) (result, error) {
			return readNode(ctx, "replicate.js", w, key, ports...)
		})
}

// throughLines starts as many servers as w says, and lets copy use them through lines with its bounds.
func throughLines(ctx context.Context, w work, begin func(work) (*server, error), copy func(context.Context, work, string, ...int) (result, error)) (r result, err error) {
	var ports []int
	key := ""
	lines, cancel := context.WithCancel(ctx)
	var copies sync.WaitGroup
	defer copies.Wait()
	defer cancel()
	for i := range w.peers {
		one := w
		one.dir = filepath.Join(w.dir, fmt.Sprint("peer-", i))
		if err := os.Mkdir(one.dir, 0o755); err != nil {
			return r, err
		}
		s, err := begin(one)
		if err != nil {
			return r, err
		}
		defer func() {
			cancel()
			_, stopped := s.stop()
			err = errors.Join(err, stopped)
		}()
		l := line{to: s.Port, rate: w.cap}
		if i < w.stalled {
			l.stallAfter = w.count * w.block / (4 * w.peers)
		}
		port, err := l.listen(lines, &copies)
		if err != nil {
			return r, err
		}
		ports, key = append(ports, port), s.Key
	}
	r, err = copy(ctx, w, key, ports...)
	if err == nil {
		r.Extra["ofOneLine"] = r.Value * (1 << 20) / float64(w.cap)
	}
	return r, err
}

// line is a slow way to a port on this machine.
type line struct {
	to         int
	rate       int // bytes a second, from there
	stallAfter int // bytes, after which nothing more comes; 0 is never
	passed     atomic.Int64
}

// buffer is what the system keeps of a line's bytes in each direction, so that they are under way no longer than on a real
// line.
const buffer = 64 << 10

// listen carries connections to its port until ctx ends.
func (l *line) listen(ctx context.Context, copies *sync.WaitGroup) (port int, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	copies.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // ctx has ended
			}
			copies.Go(func() {
				if err := l.carry(ctx, conn.(*net.TCPConn)); err != nil && ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, "line:", err)
				}
			})
		}
	})
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func (l *line) carry(ctx context.Context, near *net.TCPConn) error {
	defer near.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", l.to))
	if err != nil {
		return err
	}
	far := conn.(*net.TCPConn)
	defer far.Close()
	if err := errors.Join(far.SetReadBuffer(buffer), near.SetWriteBuffer(buffer)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		near.Close()
		far.Close()
	})()
	var back sync.WaitGroup
	defer back.Wait()
	back.Go(func() {
		_, _ = io.Copy(far, near) // the other direction tells
		_ = far.CloseWrite()
	})
	due := time.Now()
	p := make([]byte, 16<<10)
	for {
		n, err := far.Read(p)
		if l.stallAfter > 0 && l.passed.Load() > int64(l.stallAfter) {
			<-ctx.Done()
			return nil
		}
		l.passed.Add(int64(n))
		if n > 0 {
			due = later(due, time.Now()).Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
			if err := until(ctx, due); err != nil {
				return err
			}
			if _, err := near.Write(p[:n]); err != nil {
				return nil // the reader has gone
			}
		}
		if err != nil {
			return near.CloseWrite()
		}
	}
}

// later is due, but never more than a moment in the past: what was not sent in time is lost.
func later(due, now time.Time) time.Time {
	if floor := now.Add(-2 * time.Millisecond); due.Before(floor) {
		return floor
	}
	return due
}

func until(ctx context.Context, due time.Time) error {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// growth watches how much more memory the process has than now; 0 where the system does not tell.
func growth() (grown func() float64) {
	before, ok := residentMiB()
	if !ok {
		return func() float64 { return 0 }
	}
	most := before
	done, ended := make(chan bool), make(chan bool)
	look := func() {
		if now, ok := residentMiB(); ok {
			most = max(most, now)
		}
	}
	go func() {
		defer close(ended)
		ticks := time.NewTicker(20 * time.Millisecond)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				look()
			case <-done:
				look()
				return
			}
		}
	}()
	return sync.OnceValue(func() float64 {
		close(done)
		<-ended
		return most - before
	})
}
