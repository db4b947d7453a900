package hypercore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func audit(t testing.TB, l *Log) (out []Problem) {
	t.Helper()
	for p, err := range l.Audit(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// damage changes what is stored of a log, below the log.
func damage(t testing.TB, l *Log, tx storage.Tx) {
	t.Helper()
	tx.Log, tx.Base = l.c.id, l.Length()
	if err := l.c.store.Commit(Durable, &tx); err != nil {
		t.Fatal(err)
	}
}

func damageBlock(t testing.TB, l *Log, index uint64, data []byte) {
	t.Helper()
	damage(t, l, storage.Tx{Clear: []Range{{Start: index, End: index + 1}}})
	damage(t, l, storage.Tx{Blocks: []Block{{Index: index, Data: data}}})
}

func damageNode(t testing.TB, l *Log, index uint64, change func(n *merkle.Node)) {
	t.Helper()
	n, err := l.Node(index)
	if err != nil {
		t.Fatal(err)
	}
	change(&n)
	damage(t, l, storage.Tx{Nodes: []merkle.Node{n}})
}

// damageCase is one way to damage a log of 300 blocks, and what Audit says.
type damageCase struct {
	name string
	do   func(t testing.TB, l *Log)
	what ProblemKind
	at   uint64 // block or node
}

func flip(n *merkle.Node) { n.Hash[5] ^= 1 }

var damages = []damageCase{
	{"block", func(t testing.TB, l *Log) { damageBlock(t, l, 17, []byte("seventeen")) }, BadBlock, 17},
	{"empty block", func(t testing.TB, l *Log) { damageBlock(t, l, 17, nil) }, BadBlock, 17},
	{"missing block", func(t testing.TB, l *Log) {
		damage(t, l, storage.Tx{Clear: []Range{{Start: 299, End: 300}}})
	}, BadBlock, 299},
	{"large block", func(t testing.TB, l *Log) { damageBlock(t, l, 20, bytes.Repeat([]byte{1}, 50<<10)) }, BadBlock, 20},
	{"leaf", func(t testing.TB, l *Log) { damageNode(t, l, 34, flip) }, BadNode, 33},
	{"size of a leaf", func(t testing.TB, l *Log) { damageNode(t, l, 34, func(n *merkle.Node) { n.Size++ }) }, BadNode, 33},
	{"inner node", func(t testing.TB, l *Log) { damageNode(t, l, 39, flip) }, BadNode, 47},
	{"high node", func(t testing.TB, l *Log) { damageNode(t, l, 127, flip) }, BadNode, 255},
	{"root", func(t testing.TB, l *Log) { damageNode(t, l, 255, flip) }, BadNode, 255},
	{"last root", func(t testing.TB, l *Log) { damageNode(t, l, 595, flip) }, BadNode, 595},
	{"missing pages", func(t testing.TB, l *Log) {
		damage(t, l, storage.Tx{Clear: []Range{{Start: 64, End: 128}}})
	}, BadNode, 191},
}

func damagedLogs(t *testing.T) map[string]func() (l, good *Log) {
	secret := [32]byte{3}
	writer := func(o SessionOptions) *Log {
		kp := keyPairN(1)
		l := testLog(t, Options{KeyPair: &kp, Session: o})
		appendNumbers(t, l, 300)
		return l
	}
	return map[string]func() (l, good *Log){
		"full":      func() (*Log, *Log) { return writer(SessionOptions{}), writer(SessionOptions{}) },
		"encrypted": func() (*Log, *Log) { o := SessionOptions{EncryptionKey: &secret}; return writer(o), writer(o) },
		"sparse": func() (*Log, *Log) {
			w := writer(SessionOptions{})
			r := readerOf(t, w)
			upgradeTo(t, r, w)
			for i := range uint64(300) {
				if i != 9 && i != 16 && i != 200 {
					mustApply(t, r, prove(t, w, blockRequest(t, r, i)))
				}
			}
			return r, w
		},
	}
}

func TestAuditNamesWhatIsBadAndRepairMendsIt(t *testing.T) {
	ctx := context.Background()
	for _, c := range damages {
		for kind, open := range damagedLogs(t) {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				l, good := open()
				if got := audit(t, l); got != nil {
					t.Fatalf("before: %v", got)
				}
				c.do(t, l)
				bad := audit(t, l)
				found := false
				for _, p := range bad {
					at := p.Node
					if p.What == BadBlock {
						at = p.Blocks.Start
					}
					found = found || p.What == c.what && at == c.at && p.Err != nil
					if c.what == BadBlock && !found {
						t.Errorf("found %v", p)
					}
				}
				if !found {
					t.Fatalf("found %v", bad)
				}
				if left, err := l.Repair(ctx, good); err != nil || left != nil {
					t.Fatalf("repair: left %v, %v", left, err)
				}
				if got := audit(t, l); got != nil {
					t.Errorf("after: %v", got)
				}
				holdsOnly(t, l, good)
				if l.Has(9) != good.Has(9) && kind != "sparse" {
					t.Error("a block is lost")
				}
			})
		}
	}
}

// A liar answers with proofs that are changed.
type liar struct {
	from *Log
	lie  func(p *Proof)
}

func (l liar) Prove(ctx context.Context, req merkle.Request, manifest bool) (*Proof, error) {
	p, err := l.from.Prove(ctx, req, manifest)
	if err == nil {
		l.lie(p)
	}
	return p, err
}

func TestRepairStoresNothingFromALiar(t *testing.T) {
	ctx := context.Background()
	other := writerOf(t, 300)
	lies := map[string]func(p *Proof){
		"nothing":       func(p *Proof) { *p = Proof{} },
		"other block":   func(p *Proof) { p.Block.Value = []byte("lie") },
		"other index":   func(p *Proof) { p.Block.Index++ },
		"other fork":    func(p *Proof) { p.Fork++ },
		"no nodes":      func(p *Proof) { p.Block.Nodes = nil },
		"with upgrade":  func(p *Proof) { p.Upgrade = &merkle.UpgradeProof{Start: 300} },
		"another node":  func(p *Proof) { p.Block.Nodes[2].Hash[1] ^= 1 },
		"another size":  func(p *Proof) { p.Block.Nodes[0].Size++ },
		"a longer path": func(p *Proof) { p.Block.Nodes = append(p.Block.Nodes, p.Block.Nodes[0]) },
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			l := writerOf(t, 300)
			damageBlock(t, l, 17, []byte("x"))
			left, err := l.Repair(ctx, liar{other, lie})
			if err != nil || len(left) != 1 || left[0].Blocks.Start != 17 {
				t.Errorf("left %v, %v", left, err)
			}
			if bad := audit(t, l); len(bad) != 1 || bad[0].What != BadBlock || bad[0].Blocks.Start != 17 {
				t.Errorf("after the lie: %v", bad)
			}
			if left, err := l.Repair(ctx, other); err != nil || left != nil {
				t.Errorf("honest repair: left %v, %v", left, err)
			}
		})
	}
}

// When the block can't be had, its leaf will do, and what it says of sizes that
// are held does not count.
func TestRepairOfNodesWithoutTheirBlocks(t *testing.T) {
	ctx := context.Background()
	w := writerOf(t, 40)
	r := readerOf(t, w)
	upgradeTo(t, r, w)
	mustApply(t, r, prove(t, w, merkle.Request{Hash: &merkle.NodeRequest{Index: 34, Nodes: 5}}))
	damageNode(t, r, 39, flip)
	if len(audit(t, r)) == 0 {
		t.Fatal("nothing found")
	}
	lying := liar{w, func(p *Proof) {
		if p.Block != nil {
			*p = Proof{}
			return
		}
		p.Hash.Nodes = otherSizes(p.Hash.Nodes)
	}}
	if left, err := r.Repair(ctx, lying); err != nil || len(left) == 0 {
		t.Errorf("a liar repairs: %v, %v", left, err)
	}
	noBlocks := proverFunc(func(req merkle.Request) (*Proof, error) {
		if req.Block != nil {
			return nil, ErrNotFound
		}
		p, err := w.Prove(ctx, req, false)
		if err == nil {
			p.Hash.Nodes = otherSizes(p.Hash.Nodes)
		}
		return p, err
	})
	if left, err := r.Repair(ctx, noBlocks); err != nil || left != nil {
		t.Errorf("left %v, %v", left, err)
	}
	if bad := audit(t, r); bad != nil {
		t.Errorf("after: %v", bad)
	}
	for _, index := range []uint64{34, 32} {
		got, err := r.Node(index)
		if want, _ := w.Node(index); err != nil || got != want {
			t.Errorf("node %d: %+v, %v, want %+v", index, got, err, want)
		}
	}
}

type proverFunc func(merkle.Request) (*Proof, error)

func (f proverFunc) Prove(_ context.Context, req merkle.Request, _ bool) (*Proof, error) {
	return f(req)
}

func TestAuditFindsAWrongHead(t *testing.T) {
	l := writerOf(t, 5)
	l.c.signature = bytes.Clone(l.c.signature)
	l.c.signature[9] ^= 1
	bad := audit(t, l)
	if len(bad) != 1 || bad[0].What != BadHead || bad[0].Blocks != (Range{End: 5}) {
		t.Errorf("found %v", bad)
	}
	if left, err := l.Repair(context.Background(), writerOf(t, 5)); err != nil || len(left) != 1 {
		t.Errorf("repair: left %v, %v", left, err)
	}
}

func TestAuditStopsWhenItIsTold(t *testing.T) {
	l := writerOf(t, 300)
	damageBlock(t, l, 3, nil)
	damageBlock(t, l, 5, nil)
	n := 0
	for range l.Audit(context.Background()) {
		n++
		break
	}
	if n != 1 || l.InUse() {
		t.Errorf("%d problems, in use %v", n, l.InUse())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for p, err := range l.Audit(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v, %v", p, err)
		}
	}
	for _, p := range audit(t, l) {
		if fmt.Sprint(p) == "" || !errors.Is(p.Err, storage.ErrCorrupt) {
			t.Errorf("problem %v", p)
		}
	}
}
