package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// tiny is enough to run every loop once.
var tiny = work{block: 100, count: 200, batch: 64, logs: 5, gets: 50, warm: 5, seconds: 1}

// memoryStores are stores by folder, as long as the test runs.
type memoryStores struct {
	mu     sync.Mutex
	byDir  map[string]*memoryStore // guarded by mu
	broken error                   // what Append answers
}

type memoryStore struct {
	stores  *memoryStores
	dir     string
	durable bool

	mu    sync.Mutex
	logs  map[string][][]byte // guarded by mu
	syncs int                 // guarded by mu
	open  int                 // guarded by mu: logs that were not closed
}

func (m *memoryStores) opener(ctx context.Context, dir string, durable bool) (logStore, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byDir[dir] == nil {
		m.byDir[dir] = &memoryStore{stores: m, dir: dir, logs: make(map[string][][]byte)}
	}
	m.byDir[dir].durable = durable
	return m.byDir[dir], nil
}

func (s *memoryStore) Log(ctx context.Context, name string) (blockLog, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return &memoryLog{s, name}, nil
}

func (s *memoryStore) Syncs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.syncs
}

func (s *memoryStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != 0 {
		return fmt.Errorf("%d logs are open", s.open)
	}
	return os.WriteFile(filepath.Join(s.dir, "data"), []byte("data"), 0o644)
}

type memoryLog struct {
	store *memoryStore
	name  string
}

func (l *memoryLog) Append(ctx context.Context, blocks [][]byte) error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	for _, b := range blocks {
		l.store.logs[l.name] = append(l.store.logs[l.name], bytes.Clone(b))
	}
	if l.store.durable {
		l.store.syncs++
	}
	return l.store.stores.broken
}

func (l *memoryLog) Get(ctx context.Context, index uint64) ([]byte, error) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	log := l.store.logs[l.name]
	if index >= uint64(len(log)) {
		return nil, errors.New("not here")
	}
	return log[index], nil
}

func (l *memoryLog) Close() error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.open--
	return nil
}

func TestLoopsDoTheirWork(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the memory figures need /proc")
	}
	stores := &memoryStores{byDir: make(map[string]*memoryStore)}
	for _, b := range logBenchmarks(stores.opener) {
		for _, as := range []role{asBevy, asPeer} {
			s := b.side(as)
			if s.run == nil {
				continue
			}
			w := tiny
			w.unit, w.dir = b.unit, t.TempDir()
			if s.prepare != nil {
				if _, err := s.prepare(t.Context(), w); err != nil {
					t.Fatalf("%s: prepare: %v", b.name, err)
				}
			}
			r, err := s.run(t.Context(), w)
			if err != nil {
				t.Errorf("%s: %v", b.name, err)
				continue
			}
			checkResult(t, b, r)

			blocks := 0
			for _, log := range stores.byDir[w.dir].logs {
				blocks += len(log)
			}
			want := w.count
			if s.prepare != nil {
				want = w.logs
			}
			if blocks != want {
				t.Errorf("%s: %d blocks in the store, want %d", b.name, blocks, want)
			}
			if b.name != "log/append-durable" {
				continue
			}
			if got, want := r.Extra["fsyncs"], map[role]float64{asBevy: float64(w.count), asPeer: 0}[as]; got != want {
				t.Errorf("%s: %v fsyncs, want %v", b.name, got, want)
			}
		}
	}
}

func TestLoopsReportErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	stores := &memoryStores{byDir: make(map[string]*memoryStore), broken: broken}
	for _, b := range logBenchmarks(stores.opener) {
		w := tiny
		w.dir = t.TempDir()
		run := b.bevy.run
		if b.bevy.prepare != nil {
			run = b.bevy.prepare
		}
		if _, err := run(t.Context(), w); !errors.Is(err, broken) {
			t.Errorf("%s: error %v, want %v", b.name, err, broken)
		}
	}
	for _, b := range logBenchmarks(openStore) {
		if _, err := b.bevy.run(t.Context(), tiny); err == nil {
			t.Errorf("%s went well without a store", b.name)
		}
	}
}

func TestNamesAreUniqueAndSizesGiven(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range logBenchmarks(openStore) {
		if seen[b.name] || b.unit == "" || b.what == "" || b.full == (work{}) || b.quick == (work{}) || b.bevy.name != "bevy" {
			t.Errorf("bad row: %+v", b)
		}
		seen[b.name] = true
	}
}

func TestIndexesAreThoseOfThePeer(t *testing.T) {
	next := indexes(1000)
	var got []uint64
	for range 5 {
		got = append(got, next())
	}
	if want := []uint64{369, 689, 461, 695, 233}; !slices.Equal(got, want) {
		t.Errorf("indexes = %v, want %v as lib.js has them", got, want)
	}
}

func TestIncompressibleBlocksDiffer(t *testing.T) {
	at := incompressible(100)
	seen := make(map[string]int)
	for i := range 10_000 {
		block := at(i)
		if len(block) != 100 || cap(block) != 100 {
			t.Fatalf("block %d has %d bytes of %d", i, len(block), cap(block))
		}
		if before, ok := seen[string(block)]; ok {
			t.Fatalf("blocks %d and %d are the same", before, i)
		}
		seen[string(block)] = i
	}
}

func TestSwitchesCountThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	before, err := switches()
	if err != nil {
		t.Fatal(err)
	}
	if n, threads, err := switchesSince(before); err != nil || n < 0 || threads == 0 {
		t.Errorf("switchesSince = %d, %d, %v", n, threads, err)
	}
	if handles, ok := fileHandles(); !ok || handles < 3 {
		t.Errorf("fileHandles = %v, %v", handles, ok)
	}
	if mib, ok := residentMiB(); !ok || mib <= 0 {
		t.Errorf("residentMiB = %v, %v", mib, ok)
	}
}
