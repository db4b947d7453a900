package hyperbee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// stores are as many stores in memory, closed when the test ends.
func stores(t testing.TB, n int) (list []*corestore.Store) {
	t.Helper()
	for range n {
		store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, store.Close()) })
		list = append(list, store)
	}
	return list
}

// logOf is the log of a key in a store, or a new one.
func logOf(t testing.TB, store *corestore.Store, key *hypercore.Key) *hypercore.Log {
	t.Helper()
	o := corestore.LogOptions{Key: key, Durability: hypercore.Soon}
	if key == nil {
		o.Name = "tree"
	}
	log, err := store.Get(o)
	must(t, err)
	t.Cleanup(func() { must(t, log.Close()) })
	return log
}

// treeOf is a tree on a log of a store.
func treeOf(t testing.TB, store *corestore.Store, log *hypercore.Log) *Tree {
	t.Helper()
	tree, err := Open(log, Options{Durability: hypercore.Soon, Store: store})
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree
}

// connect replicates two stores until stop is called or the test ends.
func connect(t testing.TB, a, b *corestore.Store) (stop func()) {
	t.Helper()
	x, y := transport.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	found := b.FindingPeers()
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{1}), KeepAlive: -1}
		if stream, err := secretstream.Server(ctx, x, o); err == nil {
			_ = a.Replicate(ctx, stream, corestore.ReplicateOptions{}) // it ends with the test
		}
	})
	running.Go(func() {
		o := secretstream.Options{KeyPair: noise.NewKeyPair([32]byte{2}), KeepAlive: -1}
		if stream, err := secretstream.Client(ctx, y, o); err == nil {
			_ = b.Replicate(ctx, stream, corestore.ReplicateOptions{Attached: func(*protomux.Mux) { found() }})
		}
	})
	stop = sync.OnceFunc(func() {
		found()
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// held is how many blocks of a log are here.
func held(log *hypercore.Log) (n int) {
	for seq := range log.Length() {
		if log.Has(seq) {
			n++
		}
	}
	return n
}

// asked records the questions that come to a writer's tree, and lets it answer.
type asked struct {
	mu        sync.Mutex
	questions []hint // guarded by mu
}

func (a *asked) listen(t testing.TB, store *corestore.Store, tree *Tree) {
	t.Helper()
	_, err := store.OnReplicator(tree.Log().Key(), func(r *replicate.Replicator) {
		must(t, r.Extension(hintName, func(m replicate.Message) {
			h, err := readMessage(bytes.Clone(m.Payload))
			if err != nil {
				t.Error(err)
			}
			a.mu.Lock()
			a.questions = append(a.questions, h)
			a.mu.Unlock()
			tree.answer(context.Background(), nil, m.Payload, m.Reply)
		}))
	})
	must(t, err)
}

// take returns the questions since it was last called.
func (a *asked) take() []hint {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.questions
	a.questions = nil
	return list
}

func fill(t testing.TB, tree *Tree, n int) {
	t.Helper()
	ctx := context.Background()
	b, err := tree.Batch(ctx)
	must(t, err)
	for i := range n {
		must(t, b.Put(ctx, benchKey(nil, i*7919%n), []byte("value")))
	}
	must(t, b.Flush(ctx))
}

func TestReadersAskForHintsAndFetchWhatTheySay(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := stores(t, 2)
	writers, readers := s[0], s[1]
	writer := treeOf(t, writers, logOf(t, writers, nil))
	fill(t, writer, 3000)
	key := writer.Log().Key()
	reader := treeOf(t, readers, logOf(t, readers, &key))
	var questions asked
	questions.listen(t, writers, writer)
	connect(t, writers, readers)

	for reader.Version() < writer.Version() {
		must(t, reader.Update(ctx))
	}
	e, err := reader.Get(ctx, benchKey(nil, 77))
	if err != nil || string(e.Value) != "value" {
		t.Fatalf("get: %v, %v", e, err)
	}
	if q := questions.take(); len(q) != 1 || q[0].get == nil || !bytes.Equal(q[0].get.key, benchKey(nil, 77)) || q[0].get.version != writer.Version() {
		t.Errorf("one get asked %+v", q)
	}
	t.Logf("a get brought %d of %d blocks", held(reader.Log()), writer.Version())
	if held(reader.Log()) > 200 {
		t.Errorf("a get brought %d blocks", held(reader.Log()))
	}
	if got := list(t, reader, RangeOptions{}); len(got) != 3000 {
		t.Errorf("the range has %d entries", len(got))
	}
	if q := questions.take(); len(q) < 1 || len(q) > 4 || q[0].iterator == nil {
		t.Errorf("a range asked %d questions", len(q))
	}
	must(t, reader.Close())
	if reader.s.hints.Load() != nil {
		t.Error("hints go on")
	}
	if _, err := reader.Get(ctx, benchKey(nil, 77)); !errors.Is(err, ErrClosed) {
		t.Errorf("get of a closed tree: %v", err)
	}
}

// It does not matter whether the tree or the connection is there first.
func TestHintsBeginByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := stores(t, 3)
		writer := treeOf(t, s[0], logOf(t, s[0], nil))
		fill(t, writer, 500)
		key := writer.Log().Key()
		var questions asked
		questions.listen(t, s[0], writer)
		before, log := treeOf(t, s[1], logOf(t, s[1], &key)), logOf(t, s[2], &key)
		defer connect(t, s[0], s[1])()
		defer connect(t, s[0], s[2])()
		synctest.Wait()
		after := treeOf(t, s[2], log)
		plain, err := Open(log, Options{})
		must(t, err)
		for i, c := range []struct {
			tree *Tree
			want int
		}{{before, 1}, {after, 1}, {plain, 0}, {before, 1}} {
			must(t, c.tree.Update(ctx))
			_, err := c.tree.Get(ctx, benchKey(nil, 100*i))
			must(t, err)
			if q := questions.take(); len(q) != c.want {
				t.Errorf("get %d asked %d questions, want %d", i, len(q), c.want)
			}
		}
		must(t, after.Close())
		must(t, after.Close())
		// A new one takes over.
		again := treeOf(t, s[2], log)
		if _, err := again.Get(ctx, benchKey(nil, 450)); err != nil {
			t.Fatal(err)
		}
		if q := questions.take(); len(q) != 1 {
			t.Errorf("a tree that was opened again asked %d questions", len(q))
		}
		if _, err := Open(log, Options{Store: s[1].Namespace("other")}); err != nil {
			t.Errorf("a namespace of the store is the store, too: %v", err)
		}
		kp := keyPairN(9)
		alone, err := hypercore.Open(memoryStore(t), hypercore.Options{KeyPair: &kp})
		must(t, err)
		defer alone.Close()
		if _, err := Open(alone, Options{Store: s[0]}); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("open with a store that has not the log: %v", err)
		}
	})
}

// Who serves the log without a tree does not know of hints, and is not troubled.
func TestHintsTroubleNobodyWhoDoesNotKnowThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stores(t, 2)
		log := logOf(t, s[0], nil)
		writer, err := Open(log, Options{Durability: hypercore.Soon})
		must(t, err)
		fill(t, writer, 500)
		key := log.Key()
		reader := treeOf(t, s[1], logOf(t, s[1], &key))
		defer connect(t, s[0], s[1])()
		must(t, reader.Update(t.Context()))
		if _, err := reader.Get(t.Context(), benchKey(nil, 123)); err != nil {
			t.Error(err)
		}
		if got := list(t, reader, RangeOptions{}); len(got) != 500 {
			t.Errorf("the range has %d entries", len(got))
		}
		for _, store := range s {
			if p := store.Peers(); len(p) != 1 || !p[0].Open || p[0].Dropped != nil || p[0].Violations > 0 {
				t.Errorf("the peers are %+v", p)
			}
		}
	})
}

// A writer may sign what it wants. Who reads its tree is told so, and fetches no
// more than the blocks that the nodes come by speak of, however long the log is.
func TestTreesOfLiarsOverAConnection(t *testing.T) {
	const later = 300 // blocks that nothing leads to
	cases := slices.Clone(trouble)
	cases = append(cases, cases[0])
	last := &cases[len(cases)-1]
	last.name, last.want, last.blocks = "copies of itself", "order", copies()
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				s := stores(t, 2)
				kp := keyPairN(byte(i + 1))
				evil, err := s[0].Get(corestore.LogOptions{KeyPair: &kp, Manifest: hypercore.SingleSigner(kp.Public)})
				must(t, err)
				defer evil.Close()
				blocks := append([][]byte{Header{Protocol: protocolName}.Append(nil)}, c.blocks...)
				for range later {
					blocks = append(blocks, rawBlock("k", make([]byte, 100), leaf(1)))
				}
				_, err = evil.Append(ctx, blocks...)
				must(t, err)
				key := evil.Key()
				log := logOf(t, s[1], &key)
				tree := treeOf(t, s[1], log)
				defer connect(t, s[0], s[1])()
				must(t, tree.Update(ctx))
				bad, err := tree.Checkout(uint64(len(c.blocks)) + 1)
				must(t, err)
				defer bad.Close()

				errs := useAll(ctx, bad, "", "a", "k", "m", "z")
				if len(errs) == 0 {
					t.Fatal("nothing is wrong with it")
				}
				told := false
				for what, err := range errs {
					if !errors.Is(err, ErrInvalid) {
						t.Errorf("%s: %v, want ErrInvalid", what, err)
					}
					told = told || strings.Contains(err.Error(), c.want)
				}
				if !told {
					t.Errorf("no error says %q: %v", c.want, errs)
				}
				// One more, as the newest version is asked about, too.
				if n := held(log); n == 0 || n > len(c.blocks)+1 {
					t.Errorf("%d blocks were fetched, want %d at most of %d", n, len(c.blocks)+1, len(blocks))
				}
			})
		})
	}
}

// copies is a tree of few blocks and many paths: each has a node whose nine
// children are all the one before, so there are 9^28.
func copies() [][]byte {
	blocks := [][]byte{rawBlock(fmt.Sprintf("k%03d", 1), nil, leaf(1, 1, 1, 1, 1, 1, 1, 1))}
	for i := uint64(2); i < 30; i++ {
		n := rawNode{keys: []uint64{i, i, i, i, i, i, i, i}}
		for range 9 {
			n.children = append(n.children, i-1, 0)
		}
		blocks = append(blocks, rawBlock(fmt.Sprintf("k%03d", i), nil, n))
	}
	return blocks
}
