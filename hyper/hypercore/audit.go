package hypercore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func sortBlocks(blocks []storage.Block) {
	slices.SortFunc(blocks, func(a, b storage.Block) int {
		if a.Index < b.Index {
			return -1
		}
		return 1
	})
}

// A Problem is something stored that is not what the signed head says.
type Problem struct {
	// Blocks are those it is about: the bad block itself, or all blocks under a bad
	// node, or all of the log when its head is bad.
	Blocks Range
	// Node is the bad tree node; only with What == BadNode.
	Node uint64
	What ProblemKind
	Err  error
}

// A ProblemKind says what of a log is bad.
type ProblemKind uint8

// The kinds of problems.
const (
	BadHead  ProblemKind = iota // the head's signature or roots
	BadNode                     // a tree node
	BadBlock                    // a block
)

// String says what is bad, and where.
func (p Problem) String() string {
	switch p.What {
	case BadBlock:
		return fmt.Sprintf("block %d: %v", p.Blocks.Start, p.Err)
	case BadNode:
		return fmt.Sprintf("node %d over blocks %d to %d: %v", p.Node, p.Blocks.Start, p.Blocks.End, p.Err)
	}
	return fmt.Sprintf("head of %d blocks: %v", p.Blocks.End, p.Err)
}

// errWrongHash is the error of what does not hash to what is above it.
var errWrongHash = fmt.Errorf("wrong hash: %w", storage.ErrCorrupt)

// Audit reads everything that is stored of the log and proves it against the
// signed head: the signature, every tree node, every block. It yields what is
// bad, and an error if it could not go on. Writing goes on meanwhile.
func (l *Log) Audit(ctx context.Context) iter.Seq2[Problem, error] { return l.AuditSeen(ctx, nil) }

// AuditSeen is Audit, and calls seen with the bytes of each block that is read.
func (l *Log) AuditSeen(ctx context.Context, seen func(bytes int)) iter.Seq2[Problem, error] {
	return func(yield func(Problem, error) bool) {
		s := l
		if l.snap == nil {
			// A snapshot has caches of its own: it reads what is stored.
			var err error
			if s, err = l.Snapshot(); err != nil {
				yield(Problem{}, err)
				return
			}
			defer s.Close()
		}
		a := auditor{ctx: ctx, l: s, yield: yield, seen: seen}
		if err := a.run(); err != nil && !errors.Is(err, errStop) {
			yield(Problem{}, fmt.Errorf("audit log %s: %w", l.c.key, err))
		}
	}
}

var errStop = errors.New("stop")

type auditor struct {
	ctx   context.Context
	l     *Log
	yield func(Problem, error) bool
	seen  func(bytes int) // may be nil
}

func (a *auditor) report(p Problem) error {
	if !a.yield(p, nil) {
		return errStop
	}
	return nil
}

func (a *auditor) run() error {
	h := a.l.Head()
	all := Range{End: h.Length}
	if v := a.l.Verifier(); a.l.c.parent == nil && h.Length > 0 && (h.Signature != nil || a.l.static(h)) {
		err := errors.New("the manifest is not known")
		if v != nil {
			err = v.Verify(&merkle.Batch{Tree: h.Tree}, h.Signature)
		}
		if err != nil {
			if err := a.report(Problem{Blocks: all, What: BadHead, Err: err}); err != nil {
				return err
			}
		}
	}
	for _, root := range h.Roots {
		// The stored root, not the one in memory.
		stored, err := a.l.Node(root.Index)
		if err == nil && stored != root {
			err = errWrongHash
		}
		if err != nil {
			if err := a.report(Problem{Blocks: under(root.Index), What: BadNode, Node: root.Index, Err: err}); err != nil {
				return err
			}
			continue
		}
		if err := a.node(root); err != nil {
			return err
		}
	}
	return nil
}

func under(node uint64) Range {
	return Range{Start: merkle.LeftSpan(node) / 2, End: merkle.RightSpan(node)/2 + 1}
}

// node checks what is under a node that is right.
func (a *auditor) node(n merkle.Node) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	left, right, ok := merkle.Children(n.Index)
	if !ok {
		return a.block(n)
	}
	l, errL := a.l.Node(left)
	r, errR := a.l.Node(right)
	noL, noR := errors.Is(errL, merkle.ErrNoNode), errors.Is(errR, merkle.ErrNoNode)
	if noL && noR {
		return a.unreachable(n) // cleared, or never had
	}
	err := errors.Join(errL, errR)
	if err == nil && merkle.ParentNode(l, r) != n {
		err = errWrongHash
	}
	if err != nil {
		return a.report(Problem{Blocks: under(n.Index), What: BadNode, Node: n.Index, Err: err})
	}
	if err := a.node(l); err != nil {
		return err
	}
	return a.node(r)
}

// unreachable reports blocks that are held without the nodes that prove them.
func (a *auditor) unreachable(n merkle.Node) error {
	blocks := under(n.Index)
	for i := blocks.Start; i < blocks.End; {
		run, ok := a.l.NextHeld(i)
		if !ok || run.Start >= blocks.End {
			return nil
		}
		run.End = min(run.End, blocks.End)
		err := fmt.Errorf("the nodes that prove it are missing: %w", storage.ErrCorrupt)
		if err := a.report(Problem{Blocks: run, What: BadNode, Node: n.Index, Err: err}); err != nil {
			return err
		}
		i = run.End
	}
	return nil
}

func (a *auditor) block(n merkle.Node) error {
	index := n.Index / 2
	if !a.l.Has(index) {
		return nil
	}
	data, err := a.l.reader().Block(index)
	if a.seen != nil {
		a.seen(len(data))
	}
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("it is missing: %w", storage.ErrCorrupt)
	}
	if err == nil && (uint64(len(data)) != n.Size || merkle.LeafHash(data) != n.Hash) {
		err = errWrongHash
	}
	if err != nil {
		return a.report(Problem{Blocks: Range{Start: index, End: index + 1}, What: BadBlock, Err: err})
	}
	return nil
}

// A Prover makes proofs of a log. A Log is one; a peer may be another.
type Prover interface {
	// Prove answers as Log.Prove does.
	Prove(ctx context.Context, req merkle.Request, manifest bool) (*Proof, error)
}

var _ Prover = (*Log)(nil)

// Repair audits the log and replaces what is bad by what from can prove. It
// returns the problems that are left: those that from could not help with.
func (l *Log) Repair(ctx context.Context, from Prover) (left []Problem, err error) {
	if err := l.changeable(); err != nil {
		return nil, fmt.Errorf("repair log %s: %w", l.c.key, err)
	}
	var bad []Problem
	for p, err := range l.Audit(ctx) {
		if err != nil {
			return nil, err
		}
		bad = append(bad, p)
	}
	for _, p := range bad {
		if p.What == BadHead {
			left = append(left, p) // the head in memory is what proofs are checked with
			continue
		}
		for i := p.Blocks.Start; i < p.Blocks.End; i++ {
			if err := l.repairBlock(ctx, i, from); err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				p.Err = errors.Join(p.Err, fmt.Errorf("repair of block %d: %w", i, err))
				left = append(left, p)
				break
			}
		}
	}
	return left, nil
}

// rootNodes are a tree's roots and nothing else: what is certain.
type rootNodes struct{ roots []merkle.Node }

func (r rootNodes) Node(index uint64) (merkle.Node, error) {
	for _, n := range r.roots {
		if n.Index == index {
			return n, nil
		}
	}
	return merkle.Node{}, merkle.ErrNoNode
}

// repairBlock fetches a block with all nodes up to the root, and stores them in
// place of what is there. Of a block that is not held only the nodes are stored;
// its leaf alone will do, where the block can't be had.
func (l *Log) repairBlock(ctx context.Context, index uint64, from Prover) error {
	t := l.tree()
	certain := rootNodes{t.Roots}
	levels, err := t.MissingNodes(2*index, certain)
	if err != nil {
		return err
	}
	held := l.Has(index)
	p, err := from.Prove(ctx, merkle.Request{Block: &merkle.NodeRequest{Index: index, Nodes: levels}}, false)
	if err != nil && !held {
		p, err = from.Prove(ctx, merkle.Request{Hash: &merkle.NodeRequest{Index: 2 * index, Nodes: levels}}, false)
	}
	if err != nil {
		return err
	}
	answered := p.Block != nil && p.Block.Index == index || !held && p.Hash != nil && p.Hash.Index == 2*index
	if !answered || p.Fork != t.Fork || p.Seek != nil || p.Upgrade != nil {
		return fmt.Errorf("the answer is to another question: %w", merkle.ErrProof)
	}
	if _, err := t.Verify(&p.Proof, nil, certain); err != nil {
		return err
	}
	// It holds. Where it says sizes that it does not prove, those held stay.
	nodes := overlay{l.reader(), map[uint64]merkle.Node{}}
	for _, root := range t.Roots {
		nodes.added[root.Index] = root
	}
	b, err := t.Verify(&p.Proof, nil, nodes)
	if err != nil {
		return err
	}
	c := l.c
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if c.tree.Fork != t.Fork || c.tree.Length < t.Length {
		return ErrTruncated
	}
	b.Base, b.Tree = c.tree, c.tree
	if !held {
		return c.commit(Durable, &change{batch: b})
	}
	// Out with the old block first: a block is added only where there is none.
	return c.commit(Durable, &change{
		batch: b, clear: Range{Start: index, End: index + 1}, blocks: []storage.Block{{Index: index, Data: p.Block.Value}},
	})
}
