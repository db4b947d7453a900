package hypercore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// testLog opens a log in a new store in memory and closes both with the test.
func testLog(t testing.TB, o Options) *Log {
	t.Helper()
	return testLogIn(t, memoryStore(t), o)
}

func testLogIn(t testing.TB, s *storage.Store, o Options) *Log {
	t.Helper()
	l, err := Open(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// writerOf returns a log with blocks "0", "1", …
func writerOf(t testing.TB, blocks int) *Log {
	t.Helper()
	kp := keyPairN(1)
	l := testLog(t, Options{KeyPair: &kp})
	appendNumbers(t, l, blocks)
	return l
}

func appendNumbers(t testing.TB, l *Log, n int) {
	t.Helper()
	var blocks [][]byte
	for range n {
		blocks = append(blocks, fmt.Append(nil, l.Length()+uint64(len(blocks))))
	}
	if _, err := l.Append(context.Background(), blocks...); err != nil {
		t.Fatal(err)
	}
}

// readerOf returns an empty log of the same key.
func readerOf(t testing.TB, l *Log) *Log {
	t.Helper()
	key := l.Key()
	return testLog(t, Options{Key: &key})
}

func prove(t testing.TB, l *Log, req merkle.Request) *Proof {
	t.Helper()
	p, err := l.Prove(context.Background(), req, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// upgradeTo brings a reader from its length to the writer's.
func upgradeTo(t testing.TB, r, w *Log) {
	t.Helper()
	p := prove(t, w, merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: r.Length(), Length: w.Length() - r.Length()}})
	mustApply(t, r, p)
}

func mustApply(t testing.TB, r *Log, proofs ...*Proof) {
	t.Helper()
	errs, err := r.Apply(context.Background(), Durable, proofs...)
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
}

func blockRequest(t testing.TB, r *Log, index uint64) merkle.Request {
	t.Helper()
	missing, err := r.tree().MissingNodes(2*index, r.reader())
	if err != nil {
		t.Fatal(err)
	}
	return merkle.Request{Block: &merkle.NodeRequest{Index: index, Nodes: missing}}
}

func hashRequest(t testing.TB, r *Log, index uint64) merkle.Request {
	t.Helper()
	missing, err := r.tree().MissingNodes(index, r.reader())
	if err != nil {
		t.Fatal(err)
	}
	return merkle.Request{Hash: &merkle.NodeRequest{Index: index, Nodes: missing}}
}

// holdsOnly fails if a reader has anything that is not the writer's. Sizes of
// nodes that no signature covers may be a peer's invention; pairs then still
// make up the node above.
func holdsOnly(t testing.TB, r, w *Log) {
	t.Helper()
	ctx := context.Background()
	reader := r.reader()
	for index := uint64(0); index < 2*r.Length(); index++ {
		if merkle.RightSpan(index) >= 2*r.Length() {
			continue
		}
		n, err := reader.Node(index)
		if errors.Is(err, merkle.ErrNoNode) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want, err := w.Node(index)
		if err != nil {
			t.Fatal(err)
		}
		if n.Hash != want.Hash {
			t.Fatalf("node %d is not the writer's", index)
		}
		left, right, inner := merkle.Children(index)
		if !inner {
			continue
		}
		a, errA := reader.Node(left)
		b, errB := reader.Node(right)
		if errA == nil && errB == nil && merkle.ParentNode(a, b) != n {
			t.Fatalf("nodes %d and %d do not make up node %d: %v %v %v", left, right, index, a.Size, b.Size, n.Size)
		}
	}
	for i := range r.Length() {
		if !r.Has(i) {
			continue
		}
		got, err := r.Stored(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := w.Stored(ctx, i); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("block %d: %q, want %q, %v", i, got, want, err)
		}
	}
	if h := r.Head(); h.Length > 0 {
		at, err := w.TreeHash(h.Length)
		if err != nil || at != h.Hash() {
			t.Fatalf("the tree of %d blocks is not the writer's: %v", h.Length, err)
		}
	}
}

// TestReaderHoldsOnlyWhatIsProven lets a reader fetch in random order and in
// groups, from the writer and from peers who change one thing in their proofs.
func TestReaderHoldsOnlyWhatIsProven(t *testing.T) {
	seeds := uint64(12)
	if os.Getenv("BEVY_LONG") != "" {
		seeds = 500
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 21))
			ctx := context.Background()
			kp := keyPairN(byte(seed))
			wo := Options{KeyPair: &kp, Compat: seed%4 == 0}
			if seed%3 == 0 {
				wo.Session.EncryptionKey = &[32]byte{9}
			}
			w := testLog(t, wo)
			grow := func() {
				var blocks [][]byte
				for range 1 + rng.IntN(30) {
					blocks = append(blocks, randomBlock(rng))
				}
				if _, err := w.Append(ctx, blocks...); err != nil {
					t.Fatal(err)
				}
			}
			grow()
			st := &modelStore{open: storage.Disk{Dir: "store", FS: memFS{vfs.NewMem()}}.Open}
			st.reopen(t)
			key := w.Key()
			r, err := Open(st.s, Options{Key: &key})
			if err != nil {
				t.Fatal(err)
			}
			var old []*Proof // answers that come late
			for step := range 60 {
				if rng.IntN(15) == 0 && w.Length() < 200 {
					grow()
				}
				var proofs []*Proof
				for range 1 + rng.IntN(4) {
					p := randomProof(t, rng, r, w)
					if p == nil {
						continue
					}
					old = append(old, p)
					switch rng.IntN(4) {
					case 0:
						p = mutated(t, rng, p)
					case 1:
						p = lyingSizes(p)
					}
					proofs = append(proofs, p)
					if rng.IntN(5) == 0 {
						proofs = append(proofs, p, old[rng.IntN(len(old))])
					}
				}
				if _, err := r.Apply(ctx, Durability(rng.IntN(2)), proofs...); err != nil {
					t.Fatal(err)
				}
				holdsOnly(t, r, w)
				if step%10 == 9 {
					if err := r.Close(); err != nil {
						t.Fatal(err)
					}
					st.reopen(t)
					if r, err = Open(st.s, Options{Key: &key}); err != nil {
						t.Fatal(err)
					}
					holdsOnly(t, r, w)
				}
			}
			// The honest get it all, whatever the others said.
			if r.Length() < w.Length() {
				upgradeTo(t, r, w)
			}
			for _, i := range rng.Perm(int(w.Length())) {
				mustApply(t, r, prove(t, w, blockRequest(t, r, uint64(i))))
			}
			holdsOnly(t, r, w)
			for p, err := range r.Audit(ctx) {
				t.Errorf("audit: %v, %v", p, err)
			}
			if r.Contiguous() != w.Length() || r.ByteLength() != w.Head().ByteLength() {
				t.Errorf("%d blocks of %d bytes", r.Contiguous(), r.ByteLength())
			}
			if err := errors.Join(r.Close(), st.s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// randomProof is an answer to a question that the reader may ask.
func randomProof(t *testing.T, rng *rand.Rand, r, w *Log) *Proof {
	t.Helper()
	var req merkle.Request
	if behind := w.Length() - r.Length(); behind > 0 && (r.Length() == 0 || rng.IntN(4) == 0) {
		req.Upgrade = &merkle.UpgradeRequest{Start: r.Length(), Length: 1 + rng.Uint64N(behind)}
		if rng.IntN(4) == 0 {
			req.Upgrade = &merkle.UpgradeRequest{Length: w.Length()}
		}
	}
	if r.Length() > 0 {
		index := rng.Uint64N(r.Length())
		missing, err := r.tree().MissingNodes(2*index, r.reader())
		if err != nil {
			t.Fatal(err)
		}
		switch rng.IntN(5) {
		case 0, 1, 2:
			req.Block = &merkle.NodeRequest{Index: index, Nodes: missing}
		case 3:
			req.Hash = &merkle.NodeRequest{Index: 2 * index, Nodes: missing}
		case 4:
			req.Seek = &merkle.SeekRequest{Bytes: rng.Uint64N(w.Head().ByteLength() + 1)}
			req.Hash = &merkle.NodeRequest{Index: 2 * index, Nodes: missing}
			if req.Upgrade != nil {
				req.Hash = nil
			}
		}
	}
	p, err := w.Prove(context.Background(), req, rng.IntN(4) > 0)
	if errors.Is(err, merkle.ErrRequest) || errors.Is(err, merkle.ErrNoNode) {
		return nil
	}
	if err != nil {
		t.Fatalf("prove %+v: %v", req, err)
	}
	return p
}

// copyOf returns a proof that shares nothing.
func copyOf(t testing.TB, p *Proof) *Proof {
	t.Helper()
	out, _, err := ReadData(p.AppendData(nil, 1))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func nodeLists(p *Proof) (out []*[]merkle.Node) {
	if p.Block != nil {
		out = append(out, &p.Block.Nodes)
	}
	if p.Hash != nil {
		out = append(out, &p.Hash.Nodes)
	}
	if p.Seek != nil {
		out = append(out, &p.Seek.Nodes)
	}
	if p.Upgrade != nil {
		out = append(out, &p.Upgrade.Nodes, &p.Upgrade.Additional)
	}
	return out
}

// mutated returns a proof with one thing changed.
func mutated(t testing.TB, rng *rand.Rand, p *Proof) *Proof {
	p = copyOf(t, p)
	lists := nodeLists(p)
	switch k := rng.IntN(12); {
	case k == 0 && p.Block != nil:
		p.Block.Value = append(p.Block.Value, 1)
	case k == 1 && p.Block != nil:
		p.Block.Index ^= 1 << rng.IntN(6)
	case k == 2 && p.Upgrade != nil:
		p.Upgrade.Start ^= 1 << rng.IntN(6)
	case k == 3 && p.Upgrade != nil:
		p.Upgrade.Length ^= 1 << rng.IntN(6)
	case k == 4 && p.Upgrade != nil && len(p.Upgrade.Signature) > 0:
		p.Upgrade.Signature[rng.IntN(len(p.Upgrade.Signature))] ^= 1
	case k == 5:
		p.Fork++
	case k == 6:
		p.Manifest = SingleSigner(keyPairN(77).Public)
	case len(lists) > 0:
		list := lists[rng.IntN(len(lists))]
		if len(*list) == 0 {
			*list = append(*list, merkle.Node{Index: rng.Uint64N(60)})
			break
		}
		i := rng.IntN(len(*list))
		switch k {
		case 7:
			(*list)[i].Hash[3] ^= 8
		case 8:
			(*list)[i].Index ^= 1 << rng.IntN(6)
		case 9:
			*list = (*list)[:i]
		case 10:
			*list = append(*list, (*list)[i])
		default:
			(*list)[i].Size += rng.Uint64N(5)
		}
	}
	return p
}

// lyingSizes returns a proof in which the first two nodes of each list have
// other sizes of the same sum, and a node alone has another size.
func lyingSizes(p *Proof) *Proof {
	q := *p
	if p.Hash != nil {
		h := *p.Hash
		q.Hash, h.Nodes = &h, otherSizes(h.Nodes)
	}
	if p.Seek != nil {
		s := *p.Seek
		q.Seek, s.Nodes = &s, otherSizes(s.Nodes)
	}
	if p.Upgrade != nil && len(p.Upgrade.Nodes) > 0 && len(p.Upgrade.Additional) > 0 {
		u := *p.Upgrade
		q.Upgrade = &u
		last := len(u.Nodes) - 1
		pair := otherSizes([]merkle.Node{u.Nodes[last], u.Additional[0]})
		u.Nodes = append(append([]merkle.Node(nil), u.Nodes[:last]...), pair[0])
		u.Additional = append(pair[1:], u.Additional[1:]...)
	}
	return &q
}

func otherSizes(nodes []merkle.Node) []merkle.Node {
	nodes = append([]merkle.Node(nil), nodes...)
	switch {
	case len(nodes) == 1:
		nodes[0].Size++
	case len(nodes) > 1:
		nodes[0].Size, nodes[1].Size = nodes[0].Size+nodes[1].Size, 0
	}
	return nodes
}

func TestDataParts(t *testing.T) {
	kp := keyPairN(1)
	w := testLog(t, Options{KeyPair: &kp})
	if _, err := w.Append(context.Background(), []byte("a"), nil, []byte("b"), bytes.Repeat([]byte("c"), 20<<10)); err != nil {
		t.Fatal(err)
	}
	for _, req := range []merkle.Request{
		{},
		{Upgrade: &merkle.UpgradeRequest{Length: 4}},
		{Block: &merkle.NodeRequest{Index: 1, Nodes: 2}},
		{Block: &merkle.NodeRequest{Index: 3}, Upgrade: &merkle.UpgradeRequest{Length: 4}},
		{Hash: &merkle.NodeRequest{Index: 2, Nodes: 2}},
	} {
		p, err := w.ProveIn(context.Background(), req, true, make([]byte, 0, 64<<10))
		if err != nil {
			t.Fatal(err)
		}
		want := p.AppendData([]byte("x"), 7)
		head, block, tail := p.DataParts(append(make([]byte, 0, 4096), 'x'), 7)
		if got := slices.Concat(head, block, tail); !bytes.Equal(got, want) {
			t.Errorf("parts %x, whole %x", got, want)
		}
		back, id, err := ReadData(want[1:])
		if err != nil || id != 7 || p.Block != nil && !bytes.Equal(back.Block.Value, p.Block.Value) || !bytes.Equal(back.AppendData(nil, 7), want[1:]) {
			t.Errorf("read back: %v, request %d", err, id)
		}
	}
}
