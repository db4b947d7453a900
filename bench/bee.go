package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/secretstream"
)

// beeBenchmarks is the table of the benchmarks of trees. The targets are ratios to reach.
func beeBenchmarks() []benchmark {
	node := func(script string) side { return side{name: "node", script: script} }
	made := func(run measure) side { return side{name: "bevy, a tree", prepare: makeBee, run: run} }
	madeNode := side{name: "node, a tree", prepareScript: "makebee.js", script: "bee.js"}
	far := func(run measure) side {
		return side{name: "a tree far away", prepare: makeFarBee, run: run, serve: serveBee}
	}
	return []benchmark{
		{
			name: "bee/put", unit: "puts/s", target: 10,
			what: "put 100 B under 12 B keys in no order, one by one, into one tree, not fsynced on either side",
			full: work{block: 100, count: 10_000, batch: 1}, quick: work{block: 100, count: 500, batch: 1},
			bevy: side{name: "bevy", run: measurePuts}, peer: node("bee.js"),
		},
		{
			name: "bee/batch", unit: "puts/s", target: 15,
			what: "the same in batches of 1,000, not fsynced on either side",
			full: work{block: 100, count: 50_000, batch: 1_000}, quick: work{block: 100, count: 2_000, batch: 1_000},
			bevy: side{name: "bevy", run: measurePuts}, peer: node("bee.js"),
		},
		{
			name: "bee/get", unit: "gets/s", target: 20,
			what:  "get entries of 100 B in random order, one at a time, from a tree of 100,000, after all were read once",
			full:  work{block: 100, count: 100_000, batch: 1_000, gets: 20_000, logs: 1},
			quick: work{block: 100, count: 2_000, batch: 1_000, gets: 500, logs: 1},
			bevy:  made(measureBeeGets), peer: madeNode,
		},
		{
			name: "bee/scan", unit: "entries/s", target: 20,
			what:  "go through all entries of a tree of 100,000 of 100 B in their order, the second time; the first is told apart",
			full:  work{block: 100, count: 100_000, batch: 1_000, logs: 1},
			quick: work{block: 100, count: 2_000, batch: 1_000, logs: 1},
			bevy:  made(measureBeeScan), peer: madeNode,
		},
		{
			name: "bee/remote-get", unit: "round trips", lowerIsBetter: true, target: 1, maxRounds: 3,
			what:  "the first get of a new reader from a tree of 10,000,000 entries that Bevy serves over TCP with 20 ms each way: the time by that of a round trip, the mean of several readers",
			full:  work{block: 16, count: 10_000_000, batch: 10_000, gets: 5, logs: 1},
			quick: work{block: 16, count: 20_000, batch: 10_000, gets: 2, logs: 1},
			bevy:  far(measureBeeFar(readBeeFar)), peer: far(measureBeeFar(readBeeFarNode)),
		},
	}
}

// beeKey is the key of an entry of count, as in lib.js.
func beeKey(i int) []byte { return fmt.Appendf(nil, "key-%08d", i) }

// shuffled is the number of the entry that is put at a place: all of them in no order, as 7919 and no count here have a
// divisor in common.
func shuffled(i, count int) int { return i * 7919 % count }

// withBee opens the tree in a folder, and makes it when there is none.
func withBee(dir string, f func(*corestore.Store, *hyperbee.Tree) error) (err error) {
	store, err := openPeer(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log, err := store.Get(corestore.LogOptions{Name: "bee", Durability: hypercore.Soon})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	tree, err := hyperbee.Open(log, hyperbee.Options{Durability: hypercore.Soon, Store: store})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	return f(store, tree)
}

// putAll puts the entries, batch at a time.
func putAll(ctx context.Context, tree *hyperbee.Tree, at func(int) []byte, entry func(i, count int) int, w work) error {
	if w.batch == 1 {
		for i := range w.count {
			if err := tree.Put(ctx, beeKey(entry(i, w.count)), at(i)); err != nil {
				return err
			}
		}
		return nil
	}
	for i := 0; i < w.count; {
		b, err := tree.Batch(ctx)
		if err != nil {
			return err
		}
		for end := min(i+w.batch, w.count); i < end && err == nil; i++ {
			err = b.Put(ctx, beeKey(entry(i, w.count)), at(i))
		}
		if err == nil {
			err = b.Flush(ctx)
		}
		b.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// makeBee is makebee.js.
func makeBee(ctx context.Context, w work) (result, error) { return makeBeeOf(ctx, shuffled, w) }

// makeFarBee puts the entries in their order, which is faster when they are many.
func makeFarBee(ctx context.Context, w work) (result, error) {
	return makeBeeOf(ctx, func(i, _ int) int { return i }, w)
}

func makeBeeOf(ctx context.Context, entry func(i, count int) int, w work) (result, error) {
	err := withBee(w.dir, func(_ *corestore.Store, tree *hyperbee.Tree) error {
		return putAll(ctx, tree, incompressible(w.block), entry, w)
	})
	return result{Value: float64(w.count)}, err
}

// measurePuts is bee.js with no tree yet.
func measurePuts(ctx context.Context, w work) (r result, err error) {
	at := incompressible(w.block)
	err = withBee(w.dir, func(_ *corestore.Store, tree *hyperbee.Tree) error {
		took, err := timed(func() error { return putAll(ctx, tree, at, shuffled, w) })
		r = took.result(w)
		return err
	})
	return r, err
}

// scanBee goes through all entries of a tree.
func scanBee(ctx context.Context, tree *hyperbee.Tree, w work) error {
	n := 0
	for e, err := range tree.Range(ctx, hyperbee.RangeOptions{}) {
		if err != nil {
			return err
		}
		if len(e.Value) != w.block {
			return fmt.Errorf("a value of %d bytes", len(e.Value))
		}
		n++
	}
	if n != w.count {
		return fmt.Errorf("%d entries, want %d", n, w.count)
	}
	return nil
}

// measureBeeGets is bee.js with gets.
func measureBeeGets(ctx context.Context, w work) (r result, err error) {
	next := indexes(w.count)
	err = withBee(w.dir, func(_ *corestore.Store, tree *hyperbee.Tree) error {
		if err := scanBee(ctx, tree, w); err != nil {
			return err
		}
		each := make([]time.Duration, w.gets)
		took, err := timed(func() error {
			for i := range each {
				start := time.Now()
				e, err := tree.Get(ctx, beeKey(int(next())))
				if err != nil {
					return err
				}
				if len(e.Value) != w.block {
					return fmt.Errorf("a value of %d bytes", len(e.Value))
				}
				each[i] = time.Since(start)
			}
			return nil
		})
		w.count = w.gets
		r = took.result(w)
		slices.Sort(each)
		r.Extra["p50us"] = microseconds(percentile(each, 0.5))
		r.Extra["p99us"] = microseconds(percentile(each, 0.99))
		return err
	})
	return r, err
}

// measureBeeScan is bee.js with a tree that is there and no gets.
func measureBeeScan(ctx context.Context, w work) (r result, err error) {
	err = withBee(w.dir, func(_ *corestore.Store, tree *hyperbee.Tree) error {
		first, err := timed(func() error { return scanBee(ctx, tree, w) })
		if err != nil {
			return err
		}
		took, err := timed(func() error { return scanBee(ctx, tree, w) })
		r = took.result(w)
		r.Extra["firstPerSecond"] = first.result(w).Value
		return err
	})
	return r, err
}

// serveBee serves the tree.
func serveBee(ctx context.Context, w work, ready func(serving) error) (map[string]float64, error) {
	return nil, withBee(w.dir, func(store *corestore.Store, tree *hyperbee.Tree) error {
		key := tree.Log().Key()
		return accept(ctx, hex.EncodeToString(key[:]), ready, func(ctx context.Context, s *secretstream.Stream) error {
			return store.Replicate(ctx, s, corestore.ReplicateOptions{})
		})
	})
}

// oneWay is how long what goes to a tree far away, or comes from it, is under way.
const oneWay = 20 * time.Millisecond

// measureBeeFar lets readers, each in a folder of its own, get one entry from a tree that is far away. read returns how
// long they took for that altogether, in ms, as its value, and how many blocks they fetched.
func measureBeeFar(read func(ctx context.Context, w work, key string, port int) (result, error)) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		from, err := startBevy(ctx, "bee/remote-get", w)
		if err != nil {
			return r, err
		}
		lines, cancel := context.WithCancel(ctx)
		var copies sync.WaitGroup
		defer func() {
			cancel()
			copies.Wait()
			_, stopped := from.stop()
			err = errors.Join(err, stopped)
		}()
		l := farLine{to: from.Port}
		port, err := l.listen(lines, &copies)
		if err != nil {
			return r, err
		}
		if w.dir, err = os.MkdirTemp(filepath.Dir(w.dir), "readers-"); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
		if r, err = read(ctx, w, from.Key, port); err != nil {
			return r, err
		}
		each := r.Value / float64(w.gets)
		r.Value = each / milliseconds(2*oneWay)
		r.Extra["getMs"] = each
		r.Extra["blocksEach"] = r.Extra["blocks"] / float64(w.gets)
		// With what it takes to connect and to learn of the log's length.
		r.Extra["wireBytesEach"] = float64(l.passed.Load()) / float64(w.gets)
		delete(r.Extra, "blocks")
		return r, nil
	}
}

// readBeeFar is beefar.js.
func readBeeFar(ctx context.Context, w work, key string, port int) (result, error) {
	var k hypercore.Key
	if _, err := hex.Decode(k[:], []byte(key)); err != nil {
		return result{}, err
	}
	r := result{Extra: map[string]float64{"blocks": 0}}
	next := indexes(w.count)
	for i := range w.gets {
		took, blocks, err := getFar(ctx, filepath.Join(w.dir, fmt.Sprint(i)), k, port, int(next()), w)
		if err != nil {
			return r, fmt.Errorf("reader %d: %w", i, err)
		}
		r.Value += milliseconds(took)
		r.Extra["blocks"] += float64(blocks)
	}
	return r, nil
}

// getFar gets one entry, with a new store.
func getFar(ctx context.Context, dir string, key hypercore.Key, port, entry int, w work) (took time.Duration, blocks uint64, err error) {
	store, err := openPeer(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log, err := store.Get(corestore.LogOptions{Key: &key, Durability: hypercore.Soon})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	tree, err := hyperbee.Open(log, hyperbee.Options{Store: store})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	events, err := log.Watch()
	if err != nil {
		return 0, 0, err
	}
	defer events.Close()
	var received atomic.Uint64
	quiet, err := log.Notify(func(e hypercore.Event) {
		if e.Kind == hypercore.Received {
			received.Add(e.Range.End - e.Range.Start)
		}
	})
	if err != nil {
		return 0, 0, err
	}
	defer quiet()

	s, err := dial(ctx, port)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var stream sync.WaitGroup
	defer stream.Wait()
	defer cancel()
	stream.Go(func() {
		defer cancel()
		_ = store.Replicate(ctx, s, corestore.ReplicateOptions{}) // it ends with ctx, or ctx with it
	})
	for log.Length() <= uint64(w.count) {
		if _, err := events.Next(ctx); err != nil {
			return 0, 0, err
		}
	}
	start := time.Now()
	e, err := tree.Get(ctx, beeKey(entry))
	took = time.Since(start)
	if err == nil && len(e.Value) != w.block {
		err = fmt.Errorf("a value of %d bytes", len(e.Value))
	}
	return took, received.Load(), err
}

// readBeeFarNode is readBeeFar with Node.
func readBeeFarNode(ctx context.Context, w work, key string, port int) (result, error) {
	return readNode(ctx, "beefar.js", w, key, port)
}

// farLine is a way to a port on this machine on which everything takes oneWay.
type farLine struct {
	to     int
	passed atomic.Int64 // bytes, from there
}

// listen carries connections to its port until ctx ends.
func (l *farLine) listen(ctx context.Context, copies *sync.WaitGroup) (port int, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	copies.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // ctx has ended
			}
			far, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", l.to))
			if err != nil {
				near.Close()
				continue
			}
			end := func() {
				near.Close()
				far.Close()
			}
			context.AfterFunc(ctx, end)
			copies.Go(func() {
				defer end()
				carryFar(near, far, &l.passed)
			})
			copies.Go(func() {
				defer end()
				carryFar(far, near, new(atomic.Int64))
			})
		}
	})
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// carryFar copies until one side ends, each byte oneWay after it came.
func carryFar(to io.Writer, from io.Reader, passed *atomic.Int64) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, 1024)
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			_, _ = to.Write(p.bytes) // if it fails, reading will end soon, too
		}
	})
	defer close(pieces)
	for {
		p := make([]byte, 64<<10)
		n, err := from.Read(p)
		if n > 0 {
			passed.Add(int64(n))
			pieces <- piece{time.Now().Add(oneWay), p[:n]}
		}
		if err != nil {
			return
		}
	}
}
