package tree

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// start is when the clocks of tests begin.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func keyPairN(n byte) hypercore.KeyPair {
	return hypercore.NewKeyPair([32]byte(bytes.Repeat([]byte{n}, 32)))
}

func memoryStore(t testing.TB) *storage.Store {
	t.Helper()
	s, err := storage.Open(storage.NewMemory(), storage.Options{})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// A peer is a device with a store of its own.
type peer struct {
	t     testing.TB
	n     byte
	clock *clock.Fake
	store *storage.Store
	tree  *Tree
	logs  map[byte]*hypercore.Log
	bees  map[byte]*hyperbee.Tree
	bad   []Problem
}

// newPeer is device n.
func newPeer(t testing.TB, n byte) *peer {
	t.Helper()
	p := &peer{
		t: t, n: n, store: memoryStore(t), clock: clock.NewFake(start),
		logs: map[byte]*hypercore.Log{}, bees: map[byte]*hyperbee.Tree{},
	}
	p.tree = New(Options{Clock: p.clock, Problem: func(pr Problem) { p.bad = append(p.bad, pr) }})
	t.Cleanup(func() { must(t, p.tree.Close()) })
	must(t, p.tree.Own(p.bee(n)))
	return p
}

// bee is device n's, as this device has it.
func (p *peer) bee(n byte) *hyperbee.Tree {
	p.t.Helper()
	if p.bees[n] != nil {
		return p.bees[n]
	}
	kp := keyPairN(n)
	o := hypercore.Options{KeyPair: &kp}
	if n != p.n {
		o = hypercore.Options{Manifest: hypercore.SingleSigner(kp.Public)}
	}
	log, err := hypercore.Open(p.store, o)
	must(p.t, err)
	p.t.Cleanup(func() { log.Close() })
	bee, err := hyperbee.Open(log, hyperbee.Options{Durability: hypercore.Soon})
	must(p.t, err)
	p.logs[n], p.bees[n] = log, bee
	return bee
}

// change flushes a batch.
func (p *peer) change(f func(b *Batch)) {
	p.t.Helper()
	b, err := p.tree.Batch(context.Background())
	must(p.t, err)
	f(b)
	must(p.t, b.Flush(context.Background()))
}

func (p *peer) put(key, value string) {
	p.t.Helper()
	p.change(func(b *Batch) { must(p.t, b.Put(context.Background(), []byte(key), []byte(value))) })
}

func (p *peer) del(key string) {
	p.t.Helper()
	p.change(func(b *Batch) { must(p.t, b.Delete(context.Background(), []byte(key))) })
}

// entries are all of a tree.
func entries(t testing.TB, tree *Tree, o hyperbee.RangeOptions) (out []Entry) {
	t.Helper()
	for e, err := range tree.RangeAll(context.Background(), o) {
		must(t, err)
		out = append(out, e)
	}
	return out
}

// keyOf is the key of device n's log.
func keyOf(n byte) Writer { return testKeys()[n] }

var testKeys = sync.OnceValue(func() (keys [20]Writer) {
	for n := range keys {
		keys[n] = hypercore.SingleSigner(keyPairN(byte(n)).Public).Key()
	}
	return keys
})

// pull brings some blocks of device n's bee from another peer, all if none is
// named, and its head.
func (p *peer) pull(from *peer, n byte, blocks ...uint64) {
	p.t.Helper()
	ctx := context.Background()
	src, dst := from.bee(n).Log(), p.bee(n).Log()
	apply := func(r merkle.Request) {
		p.t.Helper()
		proof, err := src.Prove(ctx, r, true)
		if errors.Is(err, merkle.ErrNoNode) || errors.Is(err, merkle.ErrRequest) {
			return // it has only parts itself
		}
		must(p.t, err)
		errs, err := dst.Apply(ctx, hypercore.Soon, proof)
		must(p.t, errors.Join(append(errs, err)...))
	}
	if have, there := dst.Length(), src.Length(); have < there {
		if !src.CanUpgrade(have) {
			return // it has only parts itself
		}
		apply(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: have, Length: there - have}})
	}
	if blocks == nil {
		for i := range src.Length() {
			blocks = append(blocks, i)
		}
	}
	for _, i := range blocks {
		if dst.Has(i) || !src.Has(i) {
			continue
		}
		missing, err := dst.Head().Tree.MissingNodes(2*i, dst)
		must(p.t, err)
		apply(merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
	}
}

// meet brings all that either of two peers has to the other.
func meet(a, b *peer, writers ...byte) {
	for _, n := range writers {
		if n != b.n {
			b.pull(a, n)
		}
		if n != a.n {
			a.pull(b, n)
		}
	}
}

// peers are devices 1 to n, each with the bees of all.
func peers(t testing.TB, n int) (list []*peer, writers []byte) {
	t.Helper()
	for i := range n {
		list = append(list, newPeer(t, byte(i+1)))
		writers = append(writers, byte(i+1))
	}
	for _, p := range list {
		for _, w := range writers {
			if w != p.n {
				must(t, p.tree.Add(p.bee(w), 0))
			}
		}
	}
	return list, writers
}
