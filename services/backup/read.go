package backup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
	"golang.org/x/crypto/chacha20poly1305"
)

// A Reader brings single blocks from a repository, and not more than about 1 MiB
// around each. What it reads is proven by the log that it is for: parts of a pack
// can be decrypted, but not checked by the pack's own seal. Any goroutine may call
// its methods.
type Reader struct {
	repo  *Repo
	slots chan struct{} // one for each read that is going on

	mu      sync.Mutex // guards what is below
	snap    *Snapshot
	loaded  time.Time
	logs    map[hypercore.Key][]*lookup
	nonces  map[string][]byte // of packs
	reading map[stretch]chan struct{}
	checked map[hypercore.Key]*runs.Set

	proving sync.Mutex
	pools   map[*lookup]*pool // of logs in need of one; guarded by proving
}

// A lookup is where the blocks of a log are, as one history of it.
type lookup struct {
	log   Log
	spans []span // in order
}

type span struct {
	Blocks
	piece int
}

// A stretch is what is read at once: a part of a piece.
type stretch struct {
	of       *lookup
	piece    int
	at, size int64 // in the piece
}

const (
	readsAtOnce = 4
	maxNonces   = 4096
	maxNodes    = 1 << 17 // of trees, that are kept to prove others
	maxPools    = 256
	// freshFor is how long a snapshot is taken for the newest one when a block is not
	// in it.
	freshFor = time.Minute
)

// Reader returns a reader of the newest snapshot.
func (r *Repo) Reader() *Reader {
	return &Reader{repo: r, slots: make(chan struct{}, readsAtOnce), nonces: map[string][]byte{}, reading: map[stretch]chan struct{}{}}
}

// Reload has it look for the newest snapshot.
func (a *Reader) Reload(ctx context.Context) error {
	s, err := a.repo.Snapshot(ctx, "")
	if err != nil {
		return fmt.Errorf("read from the backup: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loaded = a.repo.clock.Now()
	if a.snap != nil && a.snap.Name == s.Name {
		return nil
	}
	a.use(s)
	return nil
}

// use has it read from a snapshot. The caller holds mu.
func (a *Reader) use(s *Snapshot) {
	a.snap, a.logs, a.checked = s, make(map[hypercore.Key][]*lookup, len(s.Logs)), map[hypercore.Key]*runs.Set{}
	for _, l := range slices.Concat(s.Logs, s.Others) {
		a.logs[l.Key] = append(a.logs[l.Key], &lookup{log: l})
	}
}

// again calls f, and once more if it did not find something and there is a newer
// snapshot: what the one before had may have been pruned.
func (a *Reader) again(ctx context.Context, f func() error) error {
	a.mu.Lock()
	before := a.snap
	a.mu.Unlock()
	err := f()
	if !errors.Is(err, errLost) || ctx.Err() != nil || a.Reload(ctx) != nil {
		return err
	}
	a.mu.Lock()
	same := a.snap == before
	a.mu.Unlock()
	if same {
		return err
	}
	return f()
}

// errLost: a pack that a snapshot names is not there.
var errLost = fmt.Errorf("a pack is missing: %w", ErrNotFound)

// Bring adds blocks to a log of this store that does not hold them. ErrNotFound
// says that some are not in the backup.
func (a *Reader) Bring(ctx context.Context, log *hypercore.Log, want *runs.Set) error {
	if n := want.Last().End; n > log.Length() {
		return fmt.Errorf("read log %s from the backup: block %d of %d: %w", log.Key(), n-1, log.Length(), ErrNotFound)
	}
	if err := a.again(ctx, func() error { return a.each(ctx, log, want, true, a.bring) }); err != nil {
		return fmt.Errorf("read log %s from the backup: %w", log.Key(), err)
	}
	for r := range want.All() {
		for i := r.Start; i < r.End; i++ {
			if !log.Has(i) {
				return fmt.Errorf("read log %s from the backup: block %d: %w", log.Key(), i, ErrNotFound)
			}
		}
	}
	return nil
}

// Check reads blocks that a log holds from the backup, and compares them. It
// returns ErrNotFound, or ErrKey, unless all are there as they are here. The
// snapshot should be reloaded before.
func (a *Reader) Check(ctx context.Context, log *hypercore.Log, want *runs.Set) error {
	var left runs.Set
	a.mu.Lock()
	done := a.checked[log.Key()]
	for r := range want.All() {
		left.Add(r)
	}
	if done != nil {
		for r := range done.All() {
			left.Remove(r)
		}
	}
	a.mu.Unlock()
	if err := a.again(ctx, func() error { return a.each(ctx, log, &left, false, a.check) }); err != nil {
		return fmt.Errorf("check log %s in the backup: %w", log.Key(), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	done = a.checked[log.Key()]
	for r := range left.All() {
		if done == nil {
			return fmt.Errorf("check log %s in the backup: block %d: %w", log.Key(), r.Start, ErrNotFound)
		}
		if have, ok := done.At(r.Start); !ok || have.End < r.End {
			return fmt.Errorf("check log %s in the backup: block %d: %w", log.Key(), r.Start, ErrNotFound)
		}
	}
	return nil
}

// Blocks returns which blocks of a log are in the newest snapshot. That should be
// reloaded before.
func (a *Reader) Blocks(log *hypercore.Log) (all runs.Set) {
	a.mu.Lock()
	logs := a.logs[log.Key()]
	a.mu.Unlock()
	for _, l := range sameFirst(log, logs) {
		for _, p := range l.log.Pieces {
			for _, b := range p.Blocks {
				all.Add(runs.Range{Start: b[0], End: b[1]})
			}
		}
	}
	return all
}

// each calls f with all stretches that have some of the blocks. With some, those are
// left out that are nowhere.
func (a *Reader) each(ctx context.Context, log *hypercore.Log, want *runs.Set, some bool, f func(context.Context, *hypercore.Log, stretch) error) error {
	list, err := a.find(ctx, log, want)
	if err != nil && !(some && errors.Is(err, ErrNotFound)) {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, s := range list {
		select {
		case a.slots <- struct{}{}:
			all.Go(func() {
				defer func() { <-a.slots }()
				if err := f(ctx, log, s); err != nil {
					cancel(err)
				}
			})
		case <-ctx.Done():
		}
	}
	all.Wait()
	return context.Cause(ctx)
}

// find returns where blocks are, also with ErrNotFound if some are nowhere.
func (a *Reader) find(ctx context.Context, log *hypercore.Log, want *runs.Set) ([]stretch, error) {
	for {
		a.mu.Lock()
		fresh := a.snap != nil && a.repo.clock.Now().Sub(a.loaded) < freshFor
		logs := a.logs[log.Key()]
		for _, l := range logs {
			if l.spans == nil {
				l.spans = l.log.spans()
			}
		}
		a.mu.Unlock()
		var list []stretch
		missing := fmt.Errorf("the log: %w", ErrNotFound)
		left := want.Clone()
		for _, l := range sameFirst(log, logs) {
			var some []stretch
			some, left, missing = l.stretches(&left)
			if list = append(list, some...); missing == nil {
				break
			}
		}
		if fresh || missing == nil {
			return list, missing
		}
		if err := a.Reload(ctx); err != nil {
			return nil, err
		}
	}
}

// sameFirst returns those that may be of a log's history: first those that are.
func sameFirst(log *hypercore.Log, logs []*lookup) []*lookup {
	var same, may []*lookup
	for _, l := range logs {
		hash, err := log.TreeHash(l.log.Length)
		switch {
		case l.log.Tree == nil || l.log.Fork != log.Fork() || err != nil:
			may = append(may, l)
		case bytes.Equal(hash[:], l.log.Tree):
			same = append(same, l)
		}
	}
	return append(same, may...)
}

// stretches returns where blocks are, and which are nowhere, also with ErrNotFound
// if there are some.
func (l *lookup) stretches(want *runs.Set) (list []stretch, left runs.Set, missing error) {
	for r := range want.All() {
		for i := r.Start; i < r.End; {
			n := sort.Search(len(l.spans), func(n int) bool { return l.spans[n].Blocks[0] > i }) - 1
			if n < 0 || l.spans[n].Blocks[1] <= i {
				if missing == nil {
					missing = fmt.Errorf("block %d: %w", i, ErrNotFound)
				}
				end := r.End
				if n+1 < len(l.spans) {
					end = min(end, l.spans[n+1].Blocks[0])
				}
				left.Add(runs.Range{Start: i, End: end})
				i = end
				continue
			}
			s, end := l.stretch(l.spans[n], i)
			if len(list) == 0 || list[len(list)-1] != s {
				list = append(list, s)
			}
			i = end
		}
	}
	return list, left, missing
}

// spans returns the blocks of a log in order.
func (l *Log) spans() (list []span) {
	var seen rangeSet
	for n, p := range l.Pieces {
		for _, b := range p.Blocks {
			for _, rest := range seen.without(b) {
				list = append(list, span{rest, n})
			}
			seen.add(b)
		}
	}
	slices.SortFunc(list, func(x, y span) int { return cmp.Compare(x.Blocks[0], y.Blocks[0]) })
	return list
}

// stretch returns the one with a block of a span, and the block behind those that
// it has of the span.
func (l *lookup) stretch(s span, block uint64) (stretch, uint64) {
	p := l.log.Pieces[s.piece]
	out := stretch{of: l, piece: s.piece, size: p.Size}
	end := s.Blocks[1]
	for _, m := range p.Marks {
		if m[0] > block {
			end = min(end, m[0])
			out.size = int64(m[1]) - out.at
			break
		}
		out.at, out.size = int64(m[1]), p.Size-int64(m[1])
	}
	return out, end
}

// read reads and decrypts a part of a piece.
func (a *Reader) read(ctx context.Context, p Piece, at, size int64) ([]byte, error) {
	name := packName(p.Pack)
	nonce, err := a.nonce(ctx, name)
	if err != nil {
		return nil, err
	}
	at += p.At
	b, err := a.part(ctx, name, int64(headBytes)+at, size)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != size {
		return nil, fmt.Errorf("%s is cut off: %w", name, ErrKey)
	}
	return b, a.repo.decrypt(name, nonce, b, at)
}

func (a *Reader) nonce(ctx context.Context, name string) ([]byte, error) {
	a.mu.Lock()
	nonce := a.nonces[name]
	a.mu.Unlock()
	if nonce != nil {
		return nonce, nil
	}
	b, err := a.part(ctx, name, 0, int64(headBytes))
	if err != nil {
		return nil, err
	}
	if nonce, err = readHead(name, b); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.nonces) >= maxNonces {
		clear(a.nonces)
	}
	a.nonces[name] = slices.Clone(nonce[:chacha20poly1305.NonceSizeX])
	return a.nonces[name], nil
}

// part reads a part of a pack.
func (a *Reader) part(ctx context.Context, name string, at, size int64) ([]byte, error) {
	b, err := a.repo.remote.GetRange(ctx, name, at, size)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %w", errLost, err)
	}
	if err != nil {
		return nil, fmt.Errorf("get a part of %s: %w", name, err)
	}
	return b, nil
}

// proofs reads the proofs in a stretch.
func (a *Reader) proofs(ctx context.Context, s stretch) ([]*hypercore.Proof, error) {
	p := s.of.log.Pieces[s.piece]
	b, err := a.read(ctx, p, s.at, s.size)
	if err != nil {
		return nil, err
	}
	list, err := corestore.Proofs(b)
	if err != nil {
		return nil, fmt.Errorf("pack %s was changed: %w: %w", p.Pack, ErrKey, err)
	}
	return list, nil
}

// check compares what is held of a stretch, and notes what is the same.
func (a *Reader) check(ctx context.Context, log *hypercore.Log, s stretch) error {
	list, err := a.proofs(ctx, s)
	if err != nil {
		return err
	}
	// That it can be proven without what is held here is a part of it.
	a.proving.Lock()
	defer a.proving.Unlock()
	tree, err := a.poolOf(ctx, s.of)
	if err != nil {
		return err
	}
	if hash, err := log.TreeHash(tree.tree.Length); err == nil && hash != tree.tree.Hash() {
		return fmt.Errorf("the log is not the same with %d blocks: %w", tree.tree.Length, ErrKey)
	}
	for _, p := range list {
		if p.Block == nil {
			continue
		}
		i := p.Block.Index
		if err := tree.add(p); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		node, err := log.Node(2 * i)
		if errors.Is(err, merkle.ErrNoNode) {
			continue // it was never here
		}
		if err != nil {
			return err
		}
		if merkle.Leaf(i, p.Block.Value) != node || p.Fork != log.Fork() {
			return fmt.Errorf("block %d is not the same in pack %s: %w", i, s.of.log.Pieces[s.piece].Pack, ErrKey)
		}
		a.mu.Lock()
		done := a.checked[log.Key()]
		if done == nil {
			done = new(runs.Set)
			a.checked[log.Key()] = done
		}
		done.Add(runs.Range{Start: i, End: i + 1})
		a.mu.Unlock()
	}
	return nil
}

// bring adds what a stretch has to a log, or waits for who does.
func (a *Reader) bring(ctx context.Context, log *hypercore.Log, s stretch) error {
	for {
		a.mu.Lock()
		other := a.reading[s]
		if other == nil {
			a.reading[s] = make(chan struct{})
		}
		a.mu.Unlock()
		if other == nil {
			break
		}
		select {
		case <-other: // it may have failed, or been stopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		close(a.reading[s])
		delete(a.reading, s)
	}()
	if s.held(log) {
		return nil
	}
	list, err := a.proofs(ctx, s)
	if err != nil {
		return err
	}
	head := log.Head()
	var blocks []*hypercore.Proof
	for _, p := range list {
		if p.Block == nil || p.Block.Index >= head.Length || log.Has(p.Block.Index) {
			continue
		}
		n, err := head.MissingNodes(2*p.Block.Index, log)
		if err != nil {
			return err
		}
		if n < uint64(len(p.Block.Nodes)) { // it may not have those above
			less, block := *p, *p.Block
			block.Nodes, less.Block = block.Nodes[:n], &block
			p = &less
		}
		blocks = append(blocks, p)
	}
	left, err := apply(ctx, log, blocks)
	if err != nil || len(left) == 0 {
		return err
	}
	return a.prove(ctx, log, s.of, list, left)
}

// held reports whether all blocks of a stretch are held.
func (s stretch) held(log *hypercore.Log) bool {
	l := s.of
	p := l.log.Pieces[s.piece]
	for _, b := range p.Blocks {
		for i := b[0]; i < b[1]; {
			at, end := l.stretch(span{b, s.piece}, i)
			r, ok := log.NextHeld(i)
			if at == s && (!ok || r.Start > i || r.End < end) {
				return false
			}
			i = end
		}
	}
	return true
}

// apply adds what proofs prove to a log, and returns the blocks of those that miss
// a node.
func apply(ctx context.Context, log *hypercore.Log, list []*hypercore.Proof) (left []uint64, err error) {
	errs, err := log.Apply(ctx, hypercore.Soon, list...)
	if err != nil {
		return nil, err
	}
	for i, err := range errs {
		switch {
		case errors.Is(err, merkle.ErrNoNode):
			left = append(left, list[i].Block.Index)
		case err != nil:
			return nil, fmt.Errorf("block %d is not that of the log: %w: %w", list[i].Block.Index, ErrKey, err)
		}
	}
	return left, nil
}

// A pool is what is known of the tree of a log from its pieces. It fits together;
// that it is the log's is proven when something of it is added there.
type pool struct {
	tree  merkle.Tree
	nodes map[uint64]merkle.Node
	least int // nodes that it is begun with
}

// Node implements merkle.Nodes.
func (p *pool) Node(index uint64) (merkle.Node, error) {
	if n, ok := p.nodes[index]; ok {
		return n, nil
	}
	return merkle.Node{}, fmt.Errorf("node %d: %w", index, merkle.ErrNoNode)
}

func (p *pool) add(proof *hypercore.Proof) error {
	b, err := p.tree.Verify(&proof.Proof, nil, p)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	for _, n := range b.Nodes {
		p.nodes[n.Index] = n
	}
	if b.Upgraded {
		p.tree = b.Tree
	}
	return nil
}

// both are the nodes of a log, and of a pool where it has them no more.
type both struct {
	log  *hypercore.Log
	pool *pool
}

// Node implements merkle.Nodes. What lies over the end of the pool's tree follows
// from what is on both sides of it.
func (b both) Node(index uint64) (merkle.Node, error) {
	n, err := b.log.Node(index)
	if !errors.Is(err, merkle.ErrNoNode) {
		return n, err
	}
	if n, err := b.pool.Node(index); err == nil {
		return n, nil
	}
	end := 2 * b.pool.tree.Length
	left, right, ok := merkle.Children(index)
	if !ok || merkle.LeftSpan(index) >= end || merkle.RightSpan(index) < end {
		return n, err
	}
	first, err := b.Node(left)
	if err != nil {
		return n, err
	}
	second, err := b.Node(right)
	if err != nil {
		return n, err
	}
	return merkle.ParentNode(first, second), nil
}

// prove adds blocks to a log that lacks the nodes which they are proven against in
// the backup. What is known from there about the log as it was at each length leads
// to nodes that it has.
func (a *Reader) prove(ctx context.Context, log *hypercore.Log, l *lookup, proofs []*hypercore.Proof, blocks []uint64) error {
	a.proving.Lock()
	defer a.proving.Unlock()
	tree, err := a.poolOf(ctx, l)
	if err != nil {
		return err
	}
	nodes := both{log, tree}
	head := log.Head()
	var list []*hypercore.Proof
	for _, p := range proofs {
		if p.Block == nil {
			continue
		}
		if err := tree.add(p); err != nil {
			return err
		}
		if !slices.Contains(blocks, p.Block.Index) {
			continue
		}
		n, err := head.MissingNodes(2*p.Block.Index, log)
		if err != nil {
			return err
		}
		more, block := *p, *p.Block
		more.Block, block.Nodes = &block, nil
		at := 2 * block.Index
		for range n {
			sibling, err := nodes.Node(merkle.Sibling(at))
			if err != nil {
				return fmt.Errorf("block %d, as the log has grown since: %w: %w", block.Index, ErrNotFound, err)
			}
			block.Nodes = append(block.Nodes, sibling)
			at = merkle.Parent(at)
		}
		list = append(list, &more)
	}
	left, err := apply(ctx, log, list)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("block %d, as the log has grown since: %w", left[0], ErrNotFound)
	}
	return err
}

// poolOf returns what is known of the tree of a log: at first what it was at each
// length. The caller holds proving.
func (a *Reader) poolOf(ctx context.Context, l *lookup) (*pool, error) {
	nodes := 0 // besides those that each is begun with
	for _, p := range a.pools {
		nodes += len(p.nodes) - p.least
	}
	if nodes > maxNodes || len(a.pools) > maxPools || a.pools == nil {
		a.pools = map[*lookup]*pool{}
	}
	if p := a.pools[l]; p != nil {
		return p, nil
	}
	p := &pool{tree: merkle.Tree{Fork: l.log.Fork}, nodes: map[uint64]merkle.Node{}}
	for n, piece := range l.log.Pieces {
		if piece.Length <= p.tree.Length {
			continue
		}
		s := stretch{of: l, piece: n, size: piece.Size}
		if len(piece.Marks) > 0 {
			s.size = int64(piece.Marks[0][1])
		}
		list, err := a.proofs(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, proof := range list {
			if proof.Block != nil && proof.Upgrade == nil {
				break
			}
			if err := p.add(proof); err != nil {
				return nil, err
			}
		}
	}
	p.least = len(p.nodes)
	a.pools[l] = p
	return p, nil
}
