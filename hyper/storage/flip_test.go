package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// flipStore fills a disk with some of everything, and returns what reads all of
// it: it returns what is lost without an error.
func flipStore(t *testing.T, disk *storagetest.Faulty, clean bool) func(s *storage.Store) (lost []string, errs int) {
	type logContent struct {
		blocks [][]byte
		tree   merkle.Tree
		nodes  []merkle.Node
	}
	var logs []logContent
	for round := range 3 {
		s, err := storage.Open(mustOpen(t, disk.Disk()), storage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			id := storage.ID(n + 1)
			if round == 0 {
				logs = append(logs, logContent{})
				if _, err := s.Create([32]byte{byte(n)}, storage.Auth{Key: [32]byte{byte(n)}}, &storage.Alias{Name: fmt.Sprint(n)}); err != nil {
					t.Fatal(err)
				}
			}
			for range 10 {
				l := &logs[n]
				b := l.tree.Batch()
				tx := &storage.Tx{Log: id, Base: l.tree.Length}
				for range 4 {
					i := len(l.blocks)
					data := bytes.Repeat([]byte{byte(i), byte(n), 9}, 10+i%7)
					switch i % 9 {
					case 3:
						data = bytes.Repeat(data, 40) // a blob in the database
					case 5:
						data = bytes.Repeat(data, 500) // a blob in a segment
						data = data[:min(len(data), 20<<10)]
					}
					l.blocks = append(l.blocks, data)
					tx.Blocks = append(tx.Blocks, storage.Block{Index: uint64(i), Data: data})
					b.Append(data)
				}
				l.tree, tx.Nodes = b.Tree, b.Nodes
				l.nodes = append(l.nodes, b.Nodes...)
				tx.Head = &storage.Head{Length: l.tree.Length, TreeHash: l.tree.Hash(), Signature: make([]byte, 64)}
				tx.UserData = map[string][]byte{"name": fmt.Append(nil, l.tree.Length)}
				if err := s.Commit(storage.Durable, tx); err != nil {
					t.Fatal(err)
				}
			}
		}
		if round < 2 || clean {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			t.Cleanup(func() { _ = s.Close() })
		}
	}
	return func(s *storage.Store) (lost []string, errs int) {
		n := 0
		note := func(what string, same bool, err error) {
			switch {
			case errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupt), errors.Is(err, merkle.ErrNoNode), err == nil && !same:
				lost = append(lost, fmt.Sprintf("%s of log %d", what, n))
			case err != nil:
				errs++
			}
		}
		for n = range logs {
			l, log := &logs[n], s.Log(storage.ID(n+1))
			id, err := s.Find([32]byte{byte(n)})
			note("index", id == log.ID(), err)
			_, err = s.FindAlias(storage.Alias{Name: fmt.Sprint(n)})
			note("alias", true, err)
			_, err = log.Auth()
			note("auth", true, err)
			head, err := log.Head()
			note("head", head.Length == l.tree.Length && head.TreeHash == l.tree.Hash(), err)
			name, err := log.UserData("name")
			note("user data", string(name) == fmt.Sprint(l.tree.Length), err)
			for i, want := range l.blocks {
				if errs > 3 {
					return lost, errs // each takes long: Pebble looks for the bit that flipped
				}
				got, err := log.Block(uint64(i))
				note(fmt.Sprint("block ", i), bytes.Equal(got, want), err)
			}
			for _, want := range l.nodes {
				if errs > 3 {
					return lost, errs
				}
				got, err := log.Node(want.Index)
				note(fmt.Sprint("node ", want.Index), got == want, err)
			}
		}
		return lost, errs
	}
}

// A bit that flips anywhere is met as an error, or not at all: never as other
// data, and never as less data.
func TestFlippedBitsAreNeverServed(t *testing.T) {
	for _, clean := range []bool{true, false} {
		name := "closed"
		if !clean {
			name = "killed"
		}
		t.Run(name, func(t *testing.T) {
			rng := random(t)
			original := storagetest.NewFaulty()
			check := flipStore(t, original, clean)
			image := original.Kill()
			newest := map[string]bool{"head of log 2": true, "user data of log 2": true} // of the last three commits
			for i := 108; i < 120; i++ {
				newest[fmt.Sprintf("block %d of log 2", i)] = true
			}
			for i := range 256 {
				newest[fmt.Sprintf("node %d of log 2", i)] = true
			}
			files := image.Files()
			type result struct{ flips, opens, errors, lost int }
			results := map[string]*result{}
			for _, file := range slices.Sorted(maps.Keys(files)) {
				data := files[file]
				flips := make([]int, 0, len(data))
				if long() {
					step := map[string]int{".sst": 11, ".seg": 199}[path.Ext(file)]
					for i := 0; i < len(data); i += max(1, step) {
						flips = append(flips, 8*i+rng.IntN(8))
					}
				} else {
					n := map[string]int{".sst": 8, ".log": 20, ".seg": 3}[path.Ext(file)]
					if strings.Contains(file, "MANIFEST-") {
						n = 30
					}
					for range min(len(data), max(n, 3)) {
						flips = append(flips, rng.IntN(8*len(data)))
					}
				}
				kind := path.Ext(file)
				if kind == "" || strings.Contains(file, "OPTIONS") || strings.Contains(file, "marker") {
					kind = strings.TrimRight(path.Base(file), "-.0123456789")
				}
				r := results[kind]
				if r == nil {
					r = &result{}
					results[kind] = r
				}
				for _, bit := range flips {
					r.flips++
					disk := image.Kill()
					bad := bytes.Clone(data)
					bad[bit/8] ^= 1 << (bit % 8)
					if err := disk.SetFile(file, bad); err != nil {
						t.Fatal(err)
					}
					e, err := disk.Disk().Open()
					if err != nil {
						continue
					}
					s, err := storage.Open(e, storage.Options{})
					if err != nil {
						_ = e.Close()
						continue
					}
					r.opens++
					lost, errs := check(s)
					if errs > 0 {
						r.errors++
					}
					if kind == ".log" && !slices.ContainsFunc(lost, func(what string) bool { return !newest[what] }) {
						// Too little was written after it that would tell a flipped bit from
						// a write that was cut off.
						continue
					}
					if len(lost) > 0 {
						r.lost++
						t.Errorf("%s, bit %d of byte %d of %d: %d things lost in silence, %.80v", file, bit%8, bit/8, len(data), len(lost), lost)
					}
					_ = s.Close()
				}
			}
			for kind, r := range results {
				t.Logf("%s: %d flips, opened %d times, errors met %d times, loss in silence %d times", kind, r.flips, r.opens, r.errors, r.lost)
			}
		})
	}
}
