package storage_test

import (
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func benchStore(b *testing.B, engine storage.Engine) (*storage.Store, storage.ID) {
	b.Helper()
	s, err := storage.Open(engine, storage.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	id, err := s.Create([32]byte{1}, storage.Auth{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return s, id
}

// appended makes the transactions of n appends of one block of 100 bytes,
// without what is not the store's: hashes.
func appended(id storage.ID, n int) []*storage.Tx {
	block := make([]byte, 100)
	leaf := merkle.Leaf(0, block)
	txs := make([]*storage.Tx, n)
	var roots []uint64
	for i := range txs {
		tx := &storage.Tx{Log: id, Base: uint64(i), Blocks: []storage.Block{{Index: uint64(i), Data: block}},
			Head: &storage.Head{Length: uint64(i + 1), Signature: make([]byte, 64)}}
		at := uint64(2 * i)
		tx.Nodes = append(tx.Nodes, merkle.Node{Index: at, Size: 100, Hash: leaf.Hash})
		for len(roots) > 0 && roots[len(roots)-1] == merkle.Sibling(at) {
			at = merkle.Parent(at)
			roots = roots[:len(roots)-1]
			tx.Nodes = append(tx.Nodes, merkle.Node{Index: at, Hash: leaf.Hash})
		}
		roots = append(roots, at)
		txs[i] = tx
	}
	return txs
}

func BenchmarkCommit(b *testing.B) {
	for name, open := range map[string]func() storage.Engine{
		"disk":   func() storage.Engine { return mustOpen(b, storage.Disk{Dir: b.TempDir()}) },
		"memory": storage.NewMemory,
		"none":   func() storage.Engine { return noEngine{storage.NewMemory()} },
	} {
		b.Run(name, func(b *testing.B) {
			s, id := benchStore(b, open())
			txs := appended(id, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for _, tx := range txs {
				if err := s.Commit(storage.Soon, tx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// noEngine takes everything and keeps nothing, so that what is measured is the
// store.
type noEngine struct{ storage.Engine }

func (noEngine) Apply(*storage.Batch, storage.Durability) error { return nil }

func BenchmarkBlock(b *testing.B) {
	s, id := benchStore(b, storage.NewMemory())
	if err := s.Commit(storage.Soon, appended(id, 4096)...); err == nil {
		b.Fatal("one log was changed twice")
	}
	for _, tx := range appended(id, 4096) {
		if err := s.Commit(storage.Soon, tx); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := s.Log(id).Block(uint64(i) * 37 % 4096); err != nil {
			b.Fatal(err)
		}
	}
}
