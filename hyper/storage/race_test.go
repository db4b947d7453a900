package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// Readers run beside a writer that appends, truncates and clears. What the
// writer has committed is what it reads next, whatever readers put into the
// cache meanwhile; and a reader meets blocks as they were at some time, or none.
func TestReadersNeverLeaveStalePagesBehind(t *testing.T) {
	engines := map[string]storage.Engine{
		"memory": storage.NewMemory(),
		"disk":   mustOpen(t, storagetest.NewFaulty().Disk()),
	}
	for name, engine := range engines {
		for _, cache := range []int{1, 40 << 10} {
			t.Run(fmt.Sprintf("%s with a cache of %d", name, cache), func(t *testing.T) {
				s, err := storage.Open(engine, storage.Options{CacheBytes: cache})
				if err != nil {
					t.Fatal(err)
				}
				testReaders(t, s, cache)
			})
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}
}

func testReaders(t *testing.T, s *storage.Store, cache int) {
	rng := random(t)
	id, err := s.Create([32]byte{byte(cache)}, storage.Auth{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const longest = 400
	block := func(i uint64, version int) []byte {
		data := fmt.Appendf(nil, "%d %d ", i, version)
		switch i % 16 {
		case 3:
			data = append(data, make([]byte, 2<<10)...)
		case 7:
			if version%16 == 0 {
				data = append(data, make([]byte, 17<<10)...)
			}
		}
		return data
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(*seed, uint64(r)))
			for {
				select {
				case <-done:
					return
				default:
				}
				i := rng.Uint64N(longest)
				data, err := s.Log(id).Block(i)
				if err != nil && !errors.Is(err, storage.ErrNotFound) {
					t.Errorf("block %d: %v", i, err)
					return
				}
				if err == nil && !bytes.HasPrefix(data, fmt.Appendf(nil, "%d ", i)) {
					t.Errorf("block %d is %.20q", i, data)
					return
				}
				if _, err := s.Log(id).Node(i); err != nil && !errors.Is(err, merkle.ErrNoNode) {
					t.Errorf("node %d: %v", i, err)
					return
				}
			}
		})
	}
	m := newLogModel()
	rounds := 600
	if long() {
		rounds = 10000
	}
	for version := range rounds {
		tx := &storage.Tx{Log: id, Base: m.tree.Length}
		b := m.tree.Batch()
		if n := m.tree.Length; n > 0 && (n > longest-70 || rng.IntN(6) == 0) {
			length := rng.Uint64N(n)
			if err := b.Truncate(length, b.Tree.Fork+1, m); err != nil {
				t.Fatal(err)
			}
			tx.Truncate = &length
			m.truncate(length)
			m.tree = b.Tree
		}
		if n := m.tree.Length; n > 0 && rng.IntN(4) == 0 {
			start := rng.Uint64N(n)
			tx.Clear = []storage.Range{{Start: start, End: start + rng.Uint64N(100)}}
			m.clear(tx.Clear[0])
		}
		for range rng.IntN(5) * rng.IntN(5) {
			i := b.Tree.Length
			m.all[i], m.held[i] = block(i, version), true
			b.Append(m.all[i])
			tx.Blocks = append(tx.Blocks, storage.Block{Index: i, Data: m.all[i]})
		}
		for _, n := range b.Nodes {
			m.nodes[n.Index], m.kept[n.Index] = n, true
		}
		tx.Nodes, m.tree = b.Nodes, b.Tree
		if err := s.Commit(storage.Soon, tx); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			i := rng.Uint64N(longest)
			got, err := s.Log(id).Block(i)
			if m.held[i] && (err != nil || !bytes.Equal(got, m.all[i])) {
				t.Fatalf("version %d, block %d is %.20q, %v, want %.20q", version, i, got, err, m.all[i])
			}
			if !m.held[i] && !errors.Is(err, storage.ErrNotFound) {
				t.Fatalf("version %d, block %d is there: %v", version, i, err)
			}
		}
		if version%100 == 99 {
			if err := m.check(s.Log(id), rng); err != nil {
				t.Fatalf("version %d: %v", version, err)
			}
		}
	}
	close(done)
	wg.Wait()
	if err := m.check(s.Log(id), rng); err != nil {
		t.Fatal(err)
	}
}
