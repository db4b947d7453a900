package hypercore

import (
	"context"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/hyper/merkle"
)

// Replace gives the log another history of the same fork, of which it has the
// first blocks: what is behind them goes, and comes anew from peers. It is for who
// finds that the log went on elsewhere, and must not be called while anybody writes
// to it. The head must be signed; that the first blocks are its own is the caller's
// word, and without it no more blocks are had.
func (l *Log) Replace(ctx context.Context, head Head, first uint64) error {
	c := l.c
	fail := func(err error) error { return fmt.Errorf("replace the end of log %s: %w", c.key, err) }
	if err := l.changeable(); err != nil {
		return fail(err)
	}
	if err := c.lock(ctx); err != nil {
		return fail(err)
	}
	defer c.unlock()
	if err := c.writable(); err != nil {
		return fail(err)
	}
	if head.Fork != c.tree.Fork || first > head.Length || first > c.tree.Length || c.verifier == nil {
		return fail(fmt.Errorf("%w: %d blocks of %d", ErrConflict, first, head.Length))
	}
	b := &merkle.Batch{
		Tree: head.Tree, Nodes: slices.Clone(head.Roots), Base: c.tree,
		Ancestors: first, Upgraded: true, Signature: slices.Clone(head.Signature),
	}
	if err := c.verifier.Verify(b, b.Signature); err != nil {
		return fail(err)
	}
	if err := c.commit(Durable, &change{batch: b, truncate: true, theirs: true}); err != nil {
		return fail(err)
	}
	c.truncated(first)
	return nil
}
