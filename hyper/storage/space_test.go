package storage_test

import (
	"encoding/binary"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// folderSize returns the bytes that a folder takes.
func folderSize(t *testing.T, dir string) (n int64, files map[string]int64) {
	t.Helper()
	files = map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // files come and go
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
			files[filepath.Base(path)] = info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, files
}

// Nobody has to ask for the space of what was removed.
func TestSpaceComesBackByItself(t *testing.T) {
	large, small := 64<<20, 12<<20
	if long() {
		large, small = 200<<20, 50<<20
	}
	dir := t.TempDir()
	s, err := storage.Open(mustOpen(t, storage.Disk{Dir: dir}), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	ends := make([]uint64, 2)
	for i, c := range []struct{ total, size, batch int }{{large, 64 << 10, 16}, {small, 100, 256}} {
		id, err := s.Create([32]byte{byte(i)}, storage.Auth{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var tree merkle.Tree
		for written := 0; written < c.total; {
			b := tree.Batch()
			tx := &storage.Tx{Log: id, Base: tree.Length}
			for range c.batch {
				data := make([]byte, c.size)
				for j := 0; j+8 <= len(data); j += 8 { // nothing to compress
					binary.LittleEndian.PutUint64(data[j:], (tree.Length+uint64(j)+1)*0x9e3779b97f4a7c15)
				}
				tx.Blocks = append(tx.Blocks, storage.Block{Index: b.Tree.Length, Data: data})
				b.Append(data)
				written += c.size
			}
			tree, tx.Nodes = b.Tree, b.Nodes
			if err := s.Commit(storage.Soon, tx); err != nil {
				t.Fatal(err)
			}
		}
		ends[i] = tree.Length
	}
	falls := func(what string, percent int64) {
		t.Helper()
		before, _ := folderSize(t, dir)
		limit := int64(large+small) * percent / 100
		start := time.Now()
		for {
			now, files := folderSize(t, dir)
			if now < limit {
				t.Logf("%s: from %d to %d MiB in %.1f s", what, before>>20, now>>20, time.Since(start).Seconds())
				return
			}
			if time.Since(start) > 30*time.Second {
				t.Fatalf("%s: %d MiB are left of %d: %v", what, now>>20, before>>20, files)
			}
			time.Sleep(50 * time.Millisecond) // the one test in which time is real
		}
	}
	for i, end := range ends {
		tx := &storage.Tx{Log: storage.ID(i + 1), Base: end, Clear: []storage.Range{{Start: 0, End: end * 9 / 10}}}
		if err := s.Commit(storage.Soon, tx); err != nil {
			t.Fatal(err)
		}
	}
	falls("clearing 90 %", 20)
	for i, end := range ends {
		keep := end * 9 / 10
		if _, err := s.Log(storage.ID(i + 1)).Block(keep + 5); err != nil {
			t.Error(err)
		}
		tx := &storage.Tx{Log: storage.ID(i + 1), Base: end, Truncate: &keep}
		if err := s.Commit(storage.Soon, tx); err != nil {
			t.Fatal(err)
		}
	}
	falls("truncating the rest", 3)
}
