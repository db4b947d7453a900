package hyperbee

import (
	"bytes"
	"context"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// keyPairN is the key pair of the vectors' seed n.
func keyPairN(n byte) hypercore.KeyPair {
	return hypercore.NewKeyPair([32]byte(bytes.Repeat([]byte{n}, 32)))
}

func memoryStore(t testing.TB) *storage.Store {
	t.Helper()
	s, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openLog(t testing.TB, s *storage.Store, n byte) *hypercore.Log {
	t.Helper()
	kp := keyPairN(n)
	log, err := hypercore.Open(s, hypercore.Options{KeyPair: &kp})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// newTree is an empty tree in memory.
func newTree(t testing.TB, n byte, o Options) *Tree {
	t.Helper()
	if o.Durability == 0 {
		o.Durability = hypercore.Soon
	}
	tree, err := Open(openLog(t, memoryStore(t), n), o)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list is what a range returns.
func list(t testing.TB, tree *Tree, o RangeOptions) (out []Entry) {
	t.Helper()
	for e, err := range tree.Range(context.Background(), o) {
		must(t, err)
		out = append(out, e)
	}
	return out
}

func put(t testing.TB, tree *Tree, key, value string) {
	t.Helper()
	must(t, tree.Put(context.Background(), []byte(key), []byte(value)))
}

func del(t testing.TB, tree *Tree, key string) {
	t.Helper()
	must(t, tree.Delete(context.Background(), []byte(key)))
}
