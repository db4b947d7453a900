package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// run does the job, and leaves the result in it.
//
// What comes in is not synced one by one: until it is, it can be fetched again.
func (j *job) run(ctx context.Context, log *hypercore.Log) {
	switch {
	case j.fork != nil:
		j.fork.err = j.fork.run(ctx, log)
	case j.check != nil:
		j.check.frozen, j.check.err = log.CheckConflict(ctx, j.check.proof)
	default:
		j.apply(ctx, log)
	}
}

// apply applies proofs. Those that miss a node are tried again as long as others
// bring some: answers may come in another order than they were asked for.
func (j *job) apply(ctx context.Context, log *hypercore.Log) {
	left := slices.DeleteFunc(slices.Clone(j.answers), func(a *answer) bool { return a.learn(log) })
	for {
		if len(left) == 0 {
			return
		}
		proofs := make([]*hypercore.Proof, len(left))
		for i, a := range left {
			proofs[i] = a.proof
		}
		errs, err := log.Apply(ctx, hypercore.Soon, proofs...)
		if err != nil {
			j.stored = err
			return
		}
		var again []*answer
		for i, a := range left {
			if a.err = errs[i]; errors.Is(a.err, merkle.ErrNoNode) {
				again = append(again, a)
			}
		}
		if len(again) == 0 || len(again) == len(left) {
			return
		}
		left = again
	}
}

// learn takes an answer that is a manifest and nothing else, and reports whether
// it is one.
func (a *answer) learn(log *hypercore.Log) bool {
	p := a.proof
	if p.Manifest == nil || p.Block != nil || p.Hash != nil || p.Seek != nil || p.Upgrade != nil {
		return false
	}
	switch {
	case p.Manifest.Key() != log.Key():
		a.err = fmt.Errorf("%w: it is not that of log %s", hypercore.ErrManifest, log.Key())
	case log.Manifest() == nil:
		a.err = log.Learn(hypercore.Options{Manifest: p.Manifest})
	}
	return true
}

// run takes the next step to the other fork.
func (f *forkChange) run(ctx context.Context, log *hypercore.Log) (err error) {
	f.useful = true
	if f.reorg == nil {
		if f.reorg, err = log.StartReorg(f.proof); err != nil {
			return err
		}
	} else if f.useful, err = f.reorg.Update(f.proof); err != nil {
		return err
	}
	if !f.reorg.Done() {
		return nil
	}
	return f.reorg.Commit(ctx, hypercore.Soon)
}
