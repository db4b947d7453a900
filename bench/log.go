package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// logStore is what the loops below need of a store of logs.
type logStore interface {
	// Log opens the log of this name, and makes it when there is none.
	Log(ctx context.Context, name string) (blockLog, error)
	// Syncs returns how often the store has made its data safe on disk (fsync and its kin) since it was opened.
	Syncs() int
	Close() error
}

// blockLog is what the loops below need of a log.
type blockLog interface {
	// Append returns when the blocks are acknowledged. The log must not keep them.
	Append(ctx context.Context, blocks [][]byte) error
	Get(ctx context.Context, index uint64) ([]byte, error)
	Close() error
}

// opener opens the store in a folder, and makes it when there is none. In a durable one an acknowledged block survives a
// power cut; in another it is acknowledged as the reference does it, which does not fsync.
type opener func(ctx context.Context, dir string, durable bool) (logStore, error)

// openStore is the opener of Bevy's own store.
func openStore(_ context.Context, dir string, durable bool) (logStore, error) {
	s, err := corestore.OpenDisk(storage.Disk{Dir: dir}, corestore.Options{})
	if err != nil {
		return nil, err
	}
	d := hypercore.Soon
	if durable {
		d = hypercore.Durable
	}
	return bevyStore{s, d}, nil
}

type bevyStore struct {
	*corestore.Store
	durability hypercore.Durability
}

func (s bevyStore) Log(_ context.Context, name string) (blockLog, error) {
	l, err := s.Get(corestore.LogOptions{Name: name, Durability: s.durability})
	return bevyLog{l, s.durability}, err
}

func (s bevyStore) Syncs() int {
	stats, err := s.Stats()
	if err != nil {
		return -1
	}
	return int(stats.Syncs)
}

type bevyLog struct {
	*hypercore.Log
	durability hypercore.Durability
}

func (l bevyLog) Append(ctx context.Context, blocks [][]byte) error {
	_, err := l.AppendWith(ctx, hypercore.AppendOptions{Durability: l.durability}, blocks...)
	return err
}

// logBenchmarks is the table of the benchmarks of logs. The targets are ratios to reach.
func logBenchmarks(open opener) []benchmark {
	bevy := func(run func(context.Context, opener, work) (result, error)) side {
		return side{name: "bevy", run: func(ctx context.Context, w work) (result, error) { return run(ctx, open, w) }}
	}
	node := func(script string) side { return side{name: "node", script: script} }
	withLogs := func(b, peer side) (side, side) {
		b.prepare = func(ctx context.Context, w work) (result, error) { return makeLogs(ctx, open, w) }
		peer.prepareScript = "make.js"
		return b, peer
	}
	notSynced := bevy(measureManyWriters(false))
	notSynced.name = "bevy, not fsynced"
	openBevy, openPeer := withLogs(bevy(measureOpen), node("open.js"))
	idleBevy, idlePeer := withLogs(bevy(measureIdle), node("idle.js"))

	return []benchmark{
		{
			name: "log/append-1", unit: "blocks/s", target: 5,
			what: "append 100 B blocks one by one to one log, not fsynced on either side",
			full: work{block: 100, count: 20_000, batch: 1}, quick: work{block: 100, count: 1_000, batch: 1},
			bevy: bevy(measureAppend), peer: node("append.js"),
		},
		{
			name: "log/append-durable", unit: "blocks/s", target: 0.5,
			what: "64 logs append 100 B blocks one by one at once, each fsynced; beside the same not fsynced",
			full: work{block: 100, count: 32_000, logs: 64}, quick: work{block: 100, count: 1_280, logs: 64},
			bevy: bevy(measureManyWriters(true)), peer: notSynced,
		},
		{
			name: "log/append-64", unit: "blocks/s", target: 5,
			what: "append 100 B blocks in batches of 64 to one log, not fsynced on either side",
			full: work{block: 100, count: 200_000, batch: 64}, quick: work{block: 100, count: 6_400, batch: 64},
			bevy: bevy(measureAppend), peer: node("append.js"),
		},
		{
			name: "log/append-64KiB", unit: "MiB/s", target: 3,
			what: "append 64 KiB blocks in batches of 64 to one log, not fsynced on either side",
			full: work{block: 64 << 10, count: 4_096, batch: 64}, quick: work{block: 64 << 10, count: 256, batch: 64},
			bevy: bevy(measureAppend), peer: node("append.js"),
		},
		{
			name: "log/get", unit: "gets/s", target: 10,
			what:  "get 100 B blocks of one log in random order, one at a time, after a short warm pass",
			full:  work{block: 100, count: 100_000, batch: 64, gets: 20_000, warm: 2_000},
			quick: work{block: 100, count: 6_400, batch: 64, gets: 1_000, warm: 100},
			bevy:  bevy(measureGet), peer: node("get.js"),
		},
		{
			name: "log/disk", unit: "bytes/block", lowerIsBetter: true, target: 1.39,
			what: "bytes on disk for each 100 B block of one log, appended in batches of 64, after closing",
			full: work{block: 100, count: 200_000, batch: 64}, quick: work{block: 100, count: 6_400, batch: 64},
			bevy: bevy(measureDisk), peer: node("disk.js"),
		},
		{
			name: "log/open-10000", unit: "ms", lowerIsBetter: true, target: 10,
			what: "open a store of 10,000 logs in a fresh process and read a block of one; all logs are timed apart",
			full: work{block: 100, logs: 10_000}, quick: work{block: 100, logs: 200},
			bevy: openBevy, peer: openPeer,
		},
		{
			name: "log/idle", unit: "wake-ups/s", lowerIsBetter: true, target: 1, maxRounds: 1,
			what:  "hold 10,000 logs open, wait until that is forgotten, and do nothing for a minute",
			full:  work{block: 100, logs: 10_000, settle: 15, seconds: 60},
			quick: work{block: 100, logs: 200, settle: 1, seconds: 10},
			bevy:  idleBevy, peer: idlePeer,
		},
	}
}

// withStore opens the store, runs fn, and closes the store.
func withStore(ctx context.Context, open opener, w work, durable bool, fn func(logStore) error) (err error) {
	store, err := open(ctx, w.dir, durable)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fn(store)
}

// withLog does the same with one log of the store.
func withLog(ctx context.Context, open opener, w work, fn func(blockLog) error) error {
	return withStore(ctx, open, w, false, func(store logStore) (err error) {
		log, err := store.Log(ctx, "log")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, log.Close()) }()
		return fn(log)
	})
}

// measureAppend is append.js.
func measureAppend(ctx context.Context, open opener, w work) (r result, err error) {
	at := incompressible(w.block)
	err = withLog(ctx, open, w, func(log blockLog) error {
		took, err := timed(func() error { return appendAll(ctx, log, at, w) })
		r = took.result(w)
		return err
	})
	return r, err
}

func appendAll(ctx context.Context, log blockLog, at func(int) []byte, w work) error {
	blocks := make([][]byte, 0, w.batch)
	for i := 0; i < w.count; {
		blocks = blocks[:0]
		for ; len(blocks) < w.batch && i < w.count; i++ {
			blocks = append(blocks, at(i))
		}
		if err := log.Append(ctx, blocks); err != nil {
			return fmt.Errorf("append block %d: %w", i, err)
		}
	}
	return nil
}

// measureManyWriters appends to many logs at once, from one goroutine each.
func measureManyWriters(durable bool) func(context.Context, opener, work) (result, error) {
	return func(ctx context.Context, open opener, w work) (r result, err error) {
		at := incompressible(w.block)
		err = withStore(ctx, open, w, durable, func(store logStore) error {
			logs := make([]blockLog, w.logs)
			for i := range logs {
				if logs[i], err = store.Log(ctx, logName(i)); err != nil {
					return err
				}
			}
			before := store.Syncs()
			took, err := timed(func() error {
				errs := make([]error, len(logs))
				var writers sync.WaitGroup
				for n, log := range logs {
					writers.Go(func() {
						block := make([][]byte, 1)
						for i := n; i < w.count && errs[n] == nil; i += len(logs) {
							block[0] = at(i)
							errs[n] = log.Append(ctx, block)
						}
					})
				}
				writers.Wait()
				return errors.Join(errs...)
			})
			r = took.result(w)
			r.Extra["fsyncs"] = float64(store.Syncs() - before)
			for _, log := range logs {
				err = errors.Join(err, log.Close())
			}
			return err
		})
		return r, err
	}
}

// measureGet is get.js.
func measureGet(ctx context.Context, open opener, w work) (r result, err error) {
	at := incompressible(w.block)
	err = withLog(ctx, open, w, func(log blockLog) error {
		if err := appendAll(ctx, log, at, w); err != nil {
			return err
		}
		next := indexes(w.count)
		get := func() error { return getOne(ctx, log, next(), w) }
		for range w.warm {
			if err := get(); err != nil {
				return err
			}
		}
		each := make([]time.Duration, w.gets)
		took, err := timed(func() error {
			for i := range each {
				start := time.Now()
				if err := get(); err != nil {
					return err
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

func getOne(ctx context.Context, log blockLog, index uint64, w work) error {
	block, err := log.Get(ctx, index)
	if err != nil {
		return fmt.Errorf("get block %d: %w", index, err)
	}
	if len(block) != w.block {
		return fmt.Errorf("get block %d: %d bytes, want %d", index, len(block), w.block)
	}
	return nil
}

// measureDisk is disk.js.
func measureDisk(ctx context.Context, open opener, w work) (r result, err error) {
	at := incompressible(w.block)
	err = withLog(ctx, open, w, func(log blockLog) error { return appendAll(ctx, log, at, w) })
	if err != nil {
		return r, err
	}
	bytes, err := diskBytes(w.dir)
	mib := float64(bytes) / (1 << 20)
	return result{Value: float64(bytes) / float64(w.count), Extra: map[string]float64{"diskMiB": mib}}, err
}

// diskBytes is the size of all files under dir.
func diskBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// makeLogs is make.js: the store that measureOpen and measureIdle open. It opens the store once when it is made, because
// the first opening has the writing's remains to work through.
func makeLogs(ctx context.Context, open opener, w work) (result, error) {
	at := incompressible(w.block)
	err := withStore(ctx, open, w, false, func(store logStore) error {
		for i := range w.logs {
			log, err := store.Log(ctx, logName(i))
			if err != nil {
				return err
			}
			if err := errors.Join(log.Append(ctx, [][]byte{at(i)}), log.Close()); err != nil {
				return fmt.Errorf("log %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		return result{}, err
	}
	err = withStore(ctx, open, w, false, func(store logStore) error {
		log, err := store.Log(ctx, logName(0))
		if err != nil {
			return err
		}
		return errors.Join(getOne(ctx, log, 0, w), log.Close())
	})
	return result{Value: float64(w.logs)}, err
}

func logName(i int) string { return fmt.Sprintf("log-%d", i) }

// measureOpen is open.js.
func measureOpen(ctx context.Context, open opener, w work) (r result, err error) {
	var store logStore
	var logs []blockLog
	defer func() {
		for _, log := range logs {
			err = errors.Join(err, log.Close())
		}
		if store != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	read := func(i int) error {
		log, err := store.Log(ctx, logName(i))
		if err != nil {
			return fmt.Errorf("log %d: %w", i, err)
		}
		logs = append(logs, log)
		return getOne(ctx, log, 0, w)
	}
	one, err := timed(func() (err error) {
		if store, err = open(ctx, w.dir, false); err != nil {
			return err
		}
		return read(w.logs / 2)
	})
	if err != nil {
		return r, err
	}
	r = result{Value: milliseconds(one.wall), Extra: map[string]float64{
		"cpuSeconds":   one.cpu.Seconds(),
		"sinceStartMs": milliseconds(time.Since(started)),
	}}
	r.add("rssMiB", residentMiB)
	r.add("fileHandles", fileHandles)
	all, err := timed(func() error {
		for i := range w.logs {
			if err := read(i); err != nil {
				return err
			}
		}
		return nil
	})
	r.Extra["allMs"] = milliseconds(all.wall)
	r.Extra["allCpuSeconds"] = all.cpu.Seconds()
	r.add("allRssMiB", residentMiB)
	r.add("allFileHandles", fileHandles)
	return r, err
}

// started is when the process began, nearly.
var started = time.Now()

// measureIdle is idle.js.
func measureIdle(ctx context.Context, open opener, w work) (r result, err error) {
	err = withStore(ctx, open, w, false, func(store logStore) error {
		logs := make([]blockLog, w.logs)
		for i := range logs {
			if logs[i], err = store.Log(ctx, logName(i)); err != nil {
				return err
			}
		}
		if err := wait(ctx, w.settle); err != nil {
			return err
		}
		before, err := switches()
		if err != nil {
			return err
		}
		took, err := timed(func() error { return wait(ctx, w.seconds) })
		if err != nil {
			return err
		}
		count, threads, err := switchesSince(before)
		r.Value = float64(count) / took.wall.Seconds()
		r.Extra = map[string]float64{
			"cpuSeconds": took.cpu.Seconds(),
			"cpuPercent": 100 * took.cpu.Seconds() / took.wall.Seconds(),
			"threads":    float64(threads),
			"goroutines": float64(runtime.NumGoroutine()),
		}
		r.add("rssMiB", residentMiB)
		r.add("fileHandles", fileHandles)
		for _, log := range logs {
			err = errors.Join(err, log.Close())
		}
		return err
	})
	return r, err
}

func wait(ctx context.Context, seconds int) error {
	timer := time.NewTimer(time.Duration(seconds) * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// span is what something took.
type span struct{ wall, cpu time.Duration }

func timed(fn func() error) (span, error) {
	cpu, _ := cpuTime()
	start := time.Now()
	err := fn()
	wall := time.Since(start)
	after, _ := cpuTime()
	return span{wall, after - cpu}, err
}

// result is the rate at which w.count blocks were dealt with.
func (s span) result(w work) result {
	rate := float64(w.count) / s.wall.Seconds()
	if w.unit == "MiB/s" {
		rate *= float64(w.block) / (1 << 20)
	}
	return result{Value: rate, Extra: map[string]float64{"seconds": s.wall.Seconds(), "cpuSeconds": s.cpu.Seconds()}}
}

// add notes a figure where the system can tell it.
func (r *result) add(key string, figure func() (float64, bool)) {
	if value, ok := figure(); ok {
		r.Extra[key] = value
	}
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }
func microseconds(d time.Duration) float64 { return d.Seconds() * 1e6 }

func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(math.Floor(float64(len(sorted))*p)))]
}

const (
	pool   = 16 << 20
	stride = 99_991 // a prime: no two blocks near each other share bytes, so nothing compresses
)

// incompressible returns a function from a block's index to its bytes, the same every time and the same as in lib.js.
// Nothing is generated while time is taken.
func incompressible(size int) func(i int) []byte {
	bytes := make([]byte, pool+size)
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err) // the key has the right size
	}
	cipher.NewCTR(block, make([]byte, 16)).XORKeyStream(bytes, bytes)
	return func(i int) []byte {
		at := i * stride % pool
		return bytes[at : at+size : at+size]
	}
}

// indexes returns random numbers below n, the same every time and the same as in lib.js: xorshift32 from 1.
func indexes(n int) func() uint64 {
	x := uint32(1)
	return func() uint64 {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		return uint64(x) % uint64(n)
	}
}
