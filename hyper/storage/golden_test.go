package storage_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

var update = flag.Bool("update", false, "make testdata/v1 anew; only while the format has no users")

const golden = "testdata/v1"

// goldenLog is the log in the store that is kept.
func goldenLog() (blocks [][]byte, b *merkle.Batch) {
	b = merkle.Tree{Fork: 2}.Batch()
	for i := range 150 {
		data := fmt.Appendf(nil, "block %d", i)
		switch i {
		case 70:
			data = bytes.Repeat([]byte{70}, 2<<10)
		case 140:
			data = bytes.Repeat([]byte{140}, 20<<10)
		}
		blocks = append(blocks, data)
		b.Append(data)
	}
	return blocks, b
}

func goldenKey(b byte) (k [32]byte) { copy(k[:], bytes.Repeat([]byte{b}, 32)); return k }

func makeGolden(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(golden); err != nil {
		t.Fatal(err)
	}
	disk := storagetest.NewFaulty() // its stores do not know the machine they were made on
	s, err := storage.Open(mustOpen(t, disk.Disk()), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	auth := storage.Auth{Key: goldenKey(1), Manifest: []byte("manifest"), PublicKey: []byte("public"), Seed: []byte("seed")}
	id, err := s.Create(goldenKey(2), auth, &storage.Alias{Namespace: goldenKey(3), Name: "name"})
	if err != nil {
		t.Fatal(err)
	}
	blocks, b := goldenLog()
	tx := &storage.Tx{
		Log: id, Nodes: b.Nodes, UserData: map[string][]byte{"user": []byte("data")},
		Head: &storage.Head{Fork: 2, Length: 150, TreeHash: b.Tree.Hash(), Signature: []byte("signature"), Tail: storage.Range{Start: 10, End: 150}},
		Runs: []storage.Range{{Start: 0, End: 5}},
	}
	for i, data := range blocks {
		tx.Blocks = append(tx.Blocks, storage.Block{Index: uint64(i), Data: data})
	}
	clear := &storage.Tx{Log: id, Base: 150, Clear: []storage.Range{{Start: 5, End: 10}}}
	for _, tx := range []*storage.Tx{tx, clear} {
		if err := s.Commit(storage.Durable, tx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.SetDraft(id, storage.Draft{Name: "draft", Base: 100, Hash: b.Tree.Hash()}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetMeta("fact", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range disk.Files() {
		name = filepath.Join(golden, strings.TrimPrefix(name, "store/"))
		if base := filepath.Base(name); base == "LOCK" || base == "OWNER" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Old data must always open. When this fails, the program is wrong, not the
// data.
func TestStoresOfTheFirstFormatOpen(t *testing.T) {
	if *update {
		makeGolden(t)
	}
	dir := filepath.Join(t.TempDir(), "store")
	copyFolder(t, golden, dir)
	for _, d := range []storage.Disk{{Dir: dir, ReadOnly: true}, {Dir: dir, Adopt: true}, {Dir: dir}} {
		s, err := storage.Open(mustOpen(t, d), storage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		discovery, err := s.FindAlias(storage.Alias{Namespace: goldenKey(3), Name: "name"})
		if err != nil || discovery != goldenKey(2) {
			t.Errorf("alias: %x, %v", discovery, err)
		}
		id, err := s.Find(discovery)
		if err != nil || id != 1 {
			t.Errorf("log: %d, %v", id, err)
		}
		l := s.Log(id)
		auth, err := l.Auth()
		if err != nil || auth.Key != goldenKey(1) || string(auth.Manifest) != "manifest" || string(auth.PublicKey) != "public" || string(auth.Seed) != "seed" || auth.Frozen != nil {
			t.Errorf("auth: %v, %v", auth, err)
		}
		blocks, b := goldenLog()
		head, err := l.Head()
		if err != nil || head.Fork != 2 || head.Length != 150 || head.TreeHash != b.Tree.Hash() || string(head.Signature) != "signature" || head.Tail != (storage.Range{Start: 10, End: 150}) {
			t.Errorf("head: %v, %v", head, err)
		}
		for i, want := range blocks {
			got, err := l.Block(uint64(i))
			if i >= 5 && i < 10 {
				if err == nil {
					t.Errorf("block %d is there", i)
				}
			} else if err != nil || !bytes.Equal(got, want) {
				t.Errorf("block %d: %.20q, %v", i, got, err)
			}
		}
		for _, want := range b.Nodes {
			if got, err := l.Node(want.Index); err != nil || got != want {
				t.Errorf("node %d: %v, %v", want.Index, got, err)
			}
		}
		if v, err := l.UserData("user"); err != nil || string(v) != "data" {
			t.Errorf("user data: %q, %v", v, err)
		}
		if runs, err := l.Runs(); err != nil || len(runs) != 1 || runs[0] != (storage.Range{Start: 0, End: 5}) {
			t.Errorf("runs: %v, %v", runs, err)
		}
		drafts, err := l.Drafts()
		if err != nil || len(drafts) != 1 || drafts[0] != (storage.Draft{Name: "draft", ID: 2, Base: 100, Hash: b.Tree.Hash()}) {
			t.Errorf("drafts: %v, %v", drafts, err)
		}
		if v, err := s.Meta("fact"); err != nil || string(v) != "value" {
			t.Errorf("fact: %q, %v", v, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
