package storage_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what is random")

func random(t testing.TB) *rand.Rand {
	t.Logf("seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}

func long() bool { return os.Getenv("BEVY_LONG") != "" }

// A logModel is what a log must hold.
type logModel struct {
	tree  merkle.Tree
	nodes map[uint64]merkle.Node // all nodes of the tree that anybody knows
	kept  map[uint64]bool        // those that must be there; others may be
	all   map[uint64][]byte      // all blocks of the tree that anybody knows
	held  map[uint64]bool        // those that must be there; others must not
	user  map[string]string
	runs  map[uint64]uint64
	head  storage.Head
}

func newLogModel() *logModel {
	return &logModel{
		nodes: map[uint64]merkle.Node{}, kept: map[uint64]bool{}, all: map[uint64][]byte{}, held: map[uint64]bool{},
		user: map[string]string{}, runs: map[uint64]uint64{},
	}
}

func (m *logModel) clone() *logModel {
	c := *m
	c.nodes, c.kept, c.all, c.held = maps.Clone(m.nodes), maps.Clone(m.kept), maps.Clone(m.all), maps.Clone(m.held)
	c.user, c.runs = maps.Clone(m.user), maps.Clone(m.runs)
	return &c
}

// Node implements merkle.Nodes.
func (m *logModel) Node(index uint64) (merkle.Node, error) {
	n, ok := m.nodes[index]
	if !ok {
		return n, merkle.ErrNoNode
	}
	return n, nil
}

func (m *logModel) truncate(length uint64) {
	for i := range m.nodes {
		if merkle.RightSpan(i) >= 2*length {
			delete(m.nodes, i)
			delete(m.kept, i)
		}
	}
	for i := range m.all {
		if i >= length {
			delete(m.all, i)
			delete(m.held, i)
		}
	}
}

// clear removes blocks. The nodes of a page may go when all its leaves are in
// the tree, it holds no block, and some of it was cleared.
func (m *logModel) clear(r storage.Range) {
	r.End = min(r.End, m.tree.Length)
	if r.Len() == 0 {
		return
	}
	for i := range m.held {
		if r.Start <= i && i < r.End {
			delete(m.held, i)
		}
	}
	roots := merkle.AppendRoots(nil, m.tree.Length)
	for i := range m.kept {
		if slices.Contains(roots, i) {
			continue
		}
		span := uint64(1) << (merkle.Depth(i)/6*6 + 6)
		first := merkle.LeftSpan(i) / 2 / span * span
		if first+span > m.tree.Length || first >= r.End || first+span <= r.Start {
			continue
		}
		gone := r.Start <= first && first+span <= r.End
		if span == 64 && !gone {
			gone = true
			for b := first; b < first+span; b++ {
				gone = gone && !m.held[b]
			}
		}
		if gone {
			delete(m.kept, i)
		}
	}
}

// check compares a log with its model.
func (m *logModel) check(l storage.Log, rng *rand.Rand) error {
	for i := range m.all {
		got, err := l.Block(i)
		switch {
		case m.held[i] && err != nil:
			return fmt.Errorf("block %d of %d is lost: %w", i, m.tree.Length, err)
		case m.held[i] && !bytes.Equal(got, m.all[i]):
			return fmt.Errorf("block %d has %d bytes, want %d", i, len(got), len(m.all[i]))
		case !m.held[i] && !errors.Is(err, storage.ErrNotFound):
			return fmt.Errorf("block %d is there: %v", i, err)
		}
	}
	for range 50 {
		i := rng.Uint64N(2*m.tree.Length + 200)
		if _, err := l.Block(i); !m.held[i] && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("block %d of %d is there: %v", i, m.tree.Length, err)
		}
		i = rng.Uint64N(4*m.tree.Length + 400)
		if n, err := l.Node(i); err == nil && n != m.nodes[i] {
			return fmt.Errorf("node %d is %v, want %v", i, n, m.nodes[i])
		}
	}
	for i, want := range m.nodes {
		got, err := l.Node(i)
		if err == nil && got != want {
			return fmt.Errorf("node %d is %v, want %v", i, got, want)
		}
		if m.kept[i] && err != nil {
			return fmt.Errorf("node %d of %d blocks is lost: %w", i, m.tree.Length, err)
		}
		if err != nil && !errors.Is(err, merkle.ErrNoNode) {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	head, err := l.Head()
	if err != nil || head.Length != m.head.Length || head.TreeHash != m.head.TreeHash || !bytes.Equal(head.Signature, m.head.Signature) {
		return fmt.Errorf("head %v, %v, want %v", head, err, m.head)
	}
	names, err := l.UserDataNames()
	if err != nil || !slices.Equal(names, slices.Sorted(maps.Keys(m.user))) {
		return fmt.Errorf("user data %q, %v, want %v", names, err, m.user)
	}
	for name, want := range m.user {
		if got, err := l.UserData(name); err != nil || string(got) != want {
			return fmt.Errorf("user data %q is %q, %v", name, got, err)
		}
	}
	runs, err := l.Runs()
	if err != nil || len(runs) != len(m.runs) {
		return fmt.Errorf("runs %v, %v, want %v", runs, err, m.runs)
	}
	for _, r := range runs {
		if m.runs[r.Start] != r.End {
			return fmt.Errorf("runs %v, want %v", runs, m.runs)
		}
	}
	return nil
}

func randomBlock(rng *rand.Rand) []byte {
	size := rng.IntN(60)
	switch rng.IntN(40) {
	case 0:
		size = 1<<10 - 2 + rng.IntN(4)
	case 1:
		size = 2 << 10
	case 2:
		if rng.IntN(6) == 0 {
			size = 16<<10 - 2 + rng.IntN(4)
		}
	case 3:
		if rng.IntN(12) == 0 {
			size = 40 << 10
		}
	}
	b := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b
}

// change makes one random change of the model, and the transaction for it.
func (m *logModel) change(rng *rand.Rand, id storage.ID) *storage.Tx {
	tx := &storage.Tx{Log: id, Base: m.tree.Length}
	b := m.tree.Batch()
	if rng.IntN(8) == 0 && m.tree.Length > 0 {
		length := rng.Uint64N(m.tree.Length + 1)
		switch rng.IntN(3) {
		case 0:
			length = length / 64 * 64
		case 1:
			length = m.tree.Length - min(m.tree.Length, rng.Uint64N(100))
		}
		if err := b.Truncate(length, m.tree.Fork+1, m); err == nil {
			tx.Truncate = &length
			m.truncate(length)
			m.tree = b.Tree
		} else {
			b = m.tree.Batch() // inside of a graft: no roots are known
		}
	}
	if rng.IntN(4) == 0 && m.tree.Length > 0 {
		for range 1 + rng.IntN(3) {
			r := storage.Range{Start: rng.Uint64N(m.tree.Length)}
			switch rng.IntN(4) {
			case 0:
				r.End = r.Start + 1
			case 1:
				r.End = r.Start + rng.Uint64N(m.tree.Length+10)
			case 2:
				r.End = r.Start + rng.Uint64N(200)
			default:
				r.Start = r.Start / 64 * 64
				r.End = r.Start + 64*(1+rng.Uint64N(4))
			}
			tx.Clear = append(tx.Clear, r)
		}
		for _, r := range tx.Clear {
			m.clear(r)
		}
		// What two of them clear together may take a page.
		for _, r := range tx.Clear {
			m.clear(r)
		}
		if len(tx.Clear) > 1 {
			joined := slices.Clone(tx.Clear)
			slices.SortFunc(joined, func(a, b storage.Range) int { return int(a.Start) - int(b.Start) })
			for i := 1; i < len(joined); i++ {
				if joined[i].Start <= joined[i-1].End {
					joined[i].Start, joined[i].End = joined[i-1].Start, max(joined[i].End, joined[i-1].End)
					m.clear(joined[i])
				}
			}
		}
	}
	add := func(nodes []merkle.Node) {
		for _, n := range nodes {
			m.nodes[n.Index], m.kept[n.Index] = n, true
		}
		tx.Nodes = append(tx.Nodes, nodes...)
	}
	hold := func(i uint64, data []byte) {
		m.held[i] = true
		tx.Blocks = append(tx.Blocks, storage.Block{Index: i, Data: data})
	}
	switch rng.IntN(8) {
	case 0, 1, 2: // append
		n := 1 + rng.IntN(3)
		if rng.IntN(4) == 0 {
			n = rng.IntN(300)
		}
		for range n {
			data := randomBlock(rng)
			i := b.Tree.Length
			b.Append(data)
			m.all[i] = data
			hold(i, data)
		}
		add(b.Nodes)
	case 3: // a longer tree, of which only the nodes come
		for range 1 + rng.IntN(150) {
			data := randomBlock(rng)
			m.all[b.Tree.Length] = data
			b.Append(data)
		}
		for _, n := range b.Nodes {
			m.nodes[n.Index] = n
		}
		add(b.Tree.Roots)
	case 4: // a whole subtree of which nobody knows more
		depth := 6 + rng.IntN(9)
		if b.Tree.Length%(1<<depth) == 0 && b.Tree.Length < 1<<20 {
			n := merkle.Node{Index: merkle.Index(depth, b.Tree.Length>>depth), Size: rng.Uint64N(1 << 30)}
			binary.LittleEndian.PutUint64(n.Hash[:], rng.Uint64())
			b.AppendRoot(n)
			add(b.Nodes)
		}
	case 5, 6: // blocks from elsewhere, with the nodes that prove them
		for range rng.IntN(20) {
			for i, data := range m.all { // a random one
				if m.held[i] {
					break
				}
				hold(i, data)
				var path []merkle.Node
				for at := 2 * i; ; at = merkle.Parent(at) {
					n, ok := m.nodes[at]
					if !ok {
						break
					}
					path = append(path, n)
					if sibling, ok := m.nodes[merkle.Sibling(at)]; ok {
						path = append(path, sibling)
					}
				}
				rng.Shuffle(len(path), func(i, j int) { path[i], path[j] = path[j], path[i] })
				add(path)
				break
			}
		}
		if rng.IntN(2) == 0 {
			slices.SortFunc(tx.Blocks, func(a, b storage.Block) int { return int(a.Index) - int(b.Index) })
		}
	}
	m.tree = b.Tree
	if rng.IntN(2) == 0 {
		m.head = storage.Head{Fork: m.tree.Fork, Length: m.tree.Length, TreeHash: m.tree.Hash(), Signature: randomBlock(rng)}
		head := m.head
		tx.Head = &head
	}
	if rng.IntN(5) == 0 {
		name := fmt.Sprint(rng.IntN(5))
		tx.UserData = map[string][]byte{name: nil}
		delete(m.user, name)
		if rng.IntN(3) > 0 {
			m.user[name] = fmt.Sprint(rng.Int())
			tx.UserData[name] = []byte(m.user[name])
		}
	}
	if rng.IntN(5) == 0 {
		start := rng.Uint64N(5)
		r := storage.Range{Start: start, End: start + rng.Uint64N(3)}
		tx.Runs = []storage.Range{r}
		delete(m.runs, start)
		if r.Len() > 0 {
			m.runs[start] = r.End
		}
	}
	return tx
}

type storeModel struct {
	logs  map[storage.ID]*logModel
	names map[[32]byte]storage.ID
}

func (m *storeModel) clone() *storeModel {
	c := &storeModel{map[storage.ID]*logModel{}, maps.Clone(m.names)}
	for id, l := range m.logs {
		c.logs[id] = l.clone()
	}
	return c
}

// What is committed is read back, whatever the changes are, in memory and on a
// disk, with a cache too small for anything.
func TestStoreHoldsWhatWasCommitted(t *testing.T) {
	engines := map[string]func(t *testing.T) func() storage.Engine{
		"memory": func(*testing.T) func() storage.Engine {
			e := storage.NewMemory()
			return func() storage.Engine { return e }
		},
		"disk": func(t *testing.T) func() storage.Engine {
			dir := t.TempDir()
			return func() storage.Engine { return mustOpen(t, storage.Disk{Dir: dir}) }
		},
		"faulty": func(t *testing.T) func() storage.Engine {
			disk := storagetest.NewFaulty()
			return func() storage.Engine { return mustOpen(t, disk.Disk()) }
		},
	}
	for name, make := range engines {
		for _, cache := range []int{1, 30 << 10} {
			t.Run(fmt.Sprintf("%s with a cache of %d", name, cache), func(t *testing.T) {
				t.Parallel()
				rounds := 120
				if long() {
					rounds = 5000
				}
				testStoreModel(t, make(t), cache, rounds, name != "memory")
			})
		}
	}
}

func mustOpen(t testing.TB, d storage.Disk) storage.Engine {
	t.Helper()
	e, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func testStoreModel(t *testing.T, open func() storage.Engine, cache, rounds int, reopens bool) {
	rng := random(t)
	model := &storeModel{map[storage.ID]*logModel{}, map[[32]byte]storage.ID{}}
	reopen := func() *storage.Store {
		s, err := storage.Open(open(), storage.Options{CacheBytes: cache})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	store := reopen()
	type view struct {
		snapshot *storage.StoreSnapshot
		model    *storeModel
	}
	var views []view
	check := func(m *storeModel, log func(storage.ID) storage.Log, what string) {
		t.Helper()
		for id, l := range m.logs {
			if err := l.check(log(id), rng); err != nil {
				t.Fatalf("%s, log %d: %v", what, id, err)
			}
		}
	}
	closeViews := func() {
		for _, v := range views {
			check(v.model, v.snapshot.Log, "snapshot")
			if err := v.snapshot.Close(); err != nil {
				t.Fatal(err)
			}
		}
		views = nil
	}
	for round := range rounds {
		switch what := rng.IntN(100); {
		case what < 6 && len(model.logs) < 6 || len(model.logs) == 0:
			discovery := [32]byte{byte(round), byte(round >> 8), 1}
			id, err := store.Create(discovery, storage.Auth{Key: discovery}, nil)
			if err != nil {
				t.Fatal(err)
			}
			model.logs[id], model.names[discovery] = newLogModel(), id
		case what < 8:
			for discovery, id := range model.names {
				if err := store.Delete(discovery); err != nil {
					t.Fatal(err)
				}
				gone := newLogModel()
				gone.tree = model.logs[id].tree
				gone.all, gone.nodes = model.logs[id].all, map[uint64]merkle.Node{}
				if err := gone.check(store.Log(id), rng); err != nil {
					t.Fatalf("deleted log: %v", err)
				}
				delete(model.logs, id)
				delete(model.names, discovery)
				break
			}
		case what < 10:
			// A draft is a log like others, which begins somewhere.
			for _, parent := range model.names {
				d, err := store.SetDraft(parent, storage.Draft{Name: fmt.Sprint(round)})
				if err != nil {
					t.Fatal(err)
				}
				m := newLogModel()
				m.tree = model.logs[parent].tree
				model.logs[d.ID] = m
				tx := &storage.Tx{Log: d.ID, Base: m.tree.Length}
				b := m.tree.Batch()
				b.Append([]byte("draft"))
				m.all[m.tree.Length], m.held[m.tree.Length] = []byte("draft"), true
				tx.Blocks = []storage.Block{{Index: m.tree.Length, Data: []byte("draft")}}
				tx.Nodes = b.Nodes
				for _, n := range b.Nodes {
					m.nodes[n.Index], m.kept[n.Index] = n, true
				}
				m.tree = b.Tree
				if err := store.Commit(storage.Durable, tx); err != nil {
					t.Fatal(err)
				}
				if err := m.check(store.Log(d.ID), rng); err != nil {
					t.Fatalf("draft: %v", err)
				}
				delete(model.logs, d.ID)
				if err := store.DeleteDraft(parent, d); err != nil {
					t.Fatal(err)
				}
				break
			}
		case what < 13 && reopens:
			closeViews()
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			store = reopen()
			check(model, store.Log, "after opening")
		case what < 16 && len(views) < 3:
			s, err := store.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			views = append(views, view{s, model.clone()})
		case what < 18:
			closeViews()
		default:
			var txs []*storage.Tx
			for id, l := range model.logs {
				if len(txs) == 0 || rng.IntN(3) == 0 {
					txs = append(txs, l.change(rng, id))
				}
			}
			durability := storage.Soon
			if rng.IntN(4) == 0 {
				durability = storage.Durable
			}
			if err := store.Commit(durability, txs...); err != nil {
				t.Fatal(err)
			}
			for _, tx := range txs {
				if rng.IntN(4) == 0 {
					if err := model.logs[tx.Log].check(store.Log(tx.Log), rng); err != nil {
						t.Fatalf("round %d, log %d: %v", round, tx.Log, err)
					}
				}
			}
		}
		if round%40 == 39 {
			check(model, store.Log, fmt.Sprint("round ", round))
		}
	}
	closeViews()
	check(model, store.Log, "at the end")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// A page that a commit removes and adds to begins empty: what is added may not
// be left out because it followed from what went.
func TestPageIsClearedAndAddedToInOneCommit(t *testing.T) {
	engine := storage.NewMemory()
	s, err := storage.Open(engine, storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := merkle.Tree{}.Batch()
	tx := &storage.Tx{Log: 1}
	for i := range uint64(128) {
		data := fmt.Append(nil, i)
		b.Append(data)
		tx.Blocks = append(tx.Blocks, storage.Block{Index: i, Data: data})
	}
	tx.Nodes = b.Nodes
	again := &storage.Tx{Log: 1, Base: 128, Clear: []storage.Range{{Start: 32, End: 64}}, Blocks: tx.Blocks[5:6]}
	var path []merkle.Node
	for _, n := range b.Nodes {
		if at := merkle.Parent(n.Index); merkle.Depth(n.Index) < 6 && (merkle.Contains(n.Index, 10) || merkle.Contains(at, 10)) {
			path = append(path, n)
		}
	}
	again.Nodes = path
	for _, tx := range []*storage.Tx{tx, {Log: 1, Base: 128, Clear: []storage.Range{{Start: 0, End: 32}}}, again} {
		if err := s.Commit(storage.Durable, tx); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = storage.Open(engine, storage.Options{}); err != nil { // without a cache
		t.Fatal(err)
	}
	if got, err := s.Log(1).Block(5); err != nil || string(got) != "5" {
		t.Errorf("block 5: %q, %v", got, err)
	}
	for _, n := range path {
		if got, err := s.Log(1).Node(n.Index); err != nil || got != n {
			t.Errorf("node %d: %v, %v", n.Index, got, err)
		}
	}
	if _, err := s.Log(1).Block(40); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("block 40: %v", err)
	}
}
