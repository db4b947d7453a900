package storage

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/RaduBerinde/btreemap"
)

// NewMemory returns an engine that keeps everything in memory and forgets it
// when closed. Writes are as durable as the process.
func NewMemory() Engine {
	return &memory{tree: btreemap.New[[]byte, []byte](32, bytes.Compare)}
}

// Values and blobs share one tree; the first byte of a key tells them apart.
const (
	memoryValue = 0
	memoryBlob  = 1
)

type memory struct {
	mu     sync.RWMutex
	tree   *btreemap.BTreeMap[[]byte, []byte] // values in it are never changed in place
	closed bool
}

func memoryKey(space byte, key []byte) []byte {
	return append([]byte{space}, key...)
}

func (m *memory) Apply(b *Batch, _ Durability) error {
	if err := b.complete(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	for _, op := range b.ops {
		switch op.kind {
		case opSet:
			m.tree.ReplaceOrInsert(memoryKey(memoryValue, op.key), slices.Clone(op.value))
		case opMerge:
			key := memoryKey(memoryValue, op.key)
			_, old, _ := m.tree.Get(key)
			m.tree.ReplaceOrInsert(key, slices.Concat(old, op.value))
		case opDelete:
			m.tree.Delete(memoryKey(memoryValue, op.key))
		case opDeleteRange:
			m.deleteRangeLocked(memoryValue, op.key, op.value)
		case opSetBlob:
			m.tree.ReplaceOrInsert(memoryKey(memoryBlob, op.key), slices.Clone(op.value))
		case opDeleteBlobs:
			m.deleteRangeLocked(memoryBlob, op.key, op.value)
		}
	}
	return nil
}

func (m *memory) deleteRangeLocked(space byte, from, to []byte) {
	var keys [][]byte
	for key := range m.tree.Ascend(btreemap.GE(memoryKey(space, from)), btreemap.LT(memoryKey(space, to))) {
		keys = append(keys, key)
	}
	for _, key := range keys {
		m.tree.Delete(key)
	}
}

func (m *memory) Sync() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return ErrClosed
	}
	return nil
}

func (m *memory) Snapshot() (Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	return &memory{tree: m.tree.Clone()}, nil
}

func (m *memory) Get(key []byte) ([]byte, error)     { return m.get(memoryValue, key) }
func (m *memory) Blob(key, _ []byte) ([]byte, error) { return m.get(memoryBlob, key) }

func (m *memory) get(space byte, key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, ErrClosed
	}
	_, value, ok := m.tree.Get(memoryKey(space, key))
	if !ok {
		return nil, ErrNotFound
	}
	return slices.Clone(value), nil
}

func (m *memory) Scan(from, to []byte, f func(key, value []byte) bool) error {
	// f may write to the engine, so it walks a copy (which shares all memory).
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	tree := m.tree.Clone()
	m.mu.Unlock()
	end := []byte{memoryValue + 1}
	if to != nil {
		end = memoryKey(memoryValue, to)
	}
	for key, value := range tree.Ascend(btreemap.GE(memoryKey(memoryValue, from)), btreemap.LT(end)) {
		if !f(key[1:], value) {
			break
		}
	}
	return nil
}

func (m *memory) Stats() (Stats, error) { return Stats{}, m.Sync() }

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("close: %w", ErrClosed)
	}
	m.closed, m.tree = true, nil
	return nil
}
