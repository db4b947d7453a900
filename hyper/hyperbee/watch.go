package hyperbee

import (
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// Watch returns what changes in a range of keys from a version on, 0 for what is
// now: for each key the entry that there is, on the left, and the one that was
// there before, on the right. Changes that come while the caller looks at others
// are told together. It waits for more until the context ends, with its error,
// or until Limit is reached.
//
// After a truncation it goes on with what that has changed.
func (t *Tree) Watch(ctx context.Context, from uint64, o RangeOptions) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		if err := t.watch(ctx, from, o, yield); err != nil {
			yield(Difference{}, fmt.Errorf("watch: %w", err))
		}
	}
}

func (t *Tree) watch(ctx context.Context, from uint64, o RangeOptions, yield func(Difference, error) bool) (err error) {
	if t.pin != nil {
		return ErrReadOnly
	}
	w, err := t.s.log.Watch()
	if err != nil {
		return err
	}
	defer w.Close()
	if from == 0 {
		from = t.Version()
	}
	before, err := t.Checkout(from)
	if err != nil {
		return err
	}
	defer func() { before.Close() }()

	fork := before.pin.log.Fork() // that the events are at
	// Blocks below the lowest cut are the same before and after.
	same := uint64(math.MaxUint64)
	limit := o.Limit
	for {
		after, err := t.Snapshot()
		if err != nil {
			return err
		}
		next := func() error {
			e, err := w.Next(ctx)
			switch {
			case err != nil:
				return err
			case e.Kind == hypercore.Lagged:
				same, fork = 0, t.s.log.Fork() // what comes of later ones is still to come
			case e.Kind == hypercore.Truncated && e.Fork > fork:
				same, fork = min(same, e.Length), e.Fork
			}
			return nil
		}
		for fork < after.pin.log.Fork() {
			if err := next(); err != nil {
				after.Close()
				return err
			}
		}
		going := true
		if after.version != before.version || same != math.MaxUint64 {
			going, err = t.tell(ctx, after, before, same, &o, yield)
		}
		// Cuts that the snapshot does not have yet are still to be told of.
		if fork == after.pin.log.Fork() {
			same = math.MaxUint64
		}
		before.Close()
		before = after
		if err != nil || !going || limit > 0 && o.Limit <= 0 {
			return err
		}
		if err := next(); err != nil {
			return err
		}
	}
}

// tell yields what is different after and before, and counts the limit down. It
// returns false when no more is wanted.
func (t *Tree) tell(ctx context.Context, after, before *Tree, same uint64, o *RangeOptions, yield func(Difference, error) bool) (going bool, err error) {
	left, err := after.view(ctx)
	if err != nil {
		return false, err
	}
	defer left.end()
	right, err := before.view(ctx)
	if err != nil {
		return false, err
	}
	defer right.end()
	d := differ{left: cursor{v: left}, right: cursor{v: right}, same: same}
	going = true
	err = d.run(ctx, t.prefix, *o, func(diff Difference, err error) bool {
		going = yield(diff, err)
		o.Limit--
		return going
	})
	return going, err
}
