package tree

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// Checkout returns the tree as it was at a version, read-only. It need not be closed.
// All of the version must be here (hypercore.ErrLength), and its writers must have
// been added (ErrWriter).
func (t *Tree) Checkout(ctx context.Context, version Version) (*Tree, error) {
	v, err := t.checkout(ctx, version, false)
	if err != nil {
		return nil, fmt.Errorf("checkout: %w", err)
	}
	return &Tree{s: t.s, past: v}, nil
}

// checkout returns a version of the tree, whichever t is of. With all, what was
// cut off since then is in it.
func (t *Tree) checkout(ctx context.Context, version Version, all bool) (*view, error) {
	now, err := (&Tree{s: t.s}).now(ctx)
	if err != nil {
		return nil, err
	}
	return now.checkout(version, all)
}

// checkout returns an earlier version of a view, see Tree.checkout.
func (v *view) checkout(version Version, all bool) (*view, error) {
	out := &view{s: v.s}
	known := 0
	for _, m := range v.members {
		want, ok := version[m.w.key]
		if ok {
			known++
		}
		var past *member
		var err error
		switch {
		case m.upTo == 0 || want <= m.upTo:
			past, err = m.at(max(1, want))
		case all && want <= m.w.bee.Log().Contiguous():
			past, err = newMember(m.w, m.w.bee, want, 0)
		default:
			past, err = m.at(m.upTo)
		}
		if err != nil {
			return nil, err
		}
		out.members = append(out.members, past)
	}
	if known < len(version) {
		return nil, fmt.Errorf("%w: the version has %d more", ErrWriter, len(version)-known)
	}
	return out, nil
}

// at returns an earlier version of a member.
func (m *member) at(version uint64) (*member, error) {
	if version == m.version {
		return m, nil
	}
	if version > m.version {
		return nil, fmt.Errorf("writer %s: %w: of version %d is here %d", m.w.key, hypercore.ErrLength, version, m.version)
	}
	return newMember(m.w, m.bee, version, m.upTo)
}

// At returns the tree as it was at a time, read-only: with all that was said until
// then, by the clocks of those who said it.
func (t *Tree) At(ctx context.Context, when time.Time) (*Tree, error) {
	now, err := t.now(ctx)
	if err != nil {
		return nil, fmt.Errorf("tree at %v: %w", when, err)
	}
	version := Version{}
	for _, m := range now.members {
		seq, err := now.since(ctx, m, when.Add(1))
		if err != nil {
			return nil, fmt.Errorf("tree at %v: %w", when, err)
		}
		version[m.w.key] = seq
	}
	v, err := now.checkout(version, false)
	if err != nil {
		return nil, fmt.Errorf("tree at %v: %w", when, err)
	}
	return &Tree{s: t.s, past: v}, nil
}

// since returns the first block that is not before a time: the version with all
// that was said before it.
func (v *view) since(ctx context.Context, m *member, when time.Time) (uint64, error) {
	if m.bee == nil || when.Before(timeOf(1)) {
		return 1, nil
	}
	if when.After(timeOf(maxTime)) {
		return m.version, nil
	}
	least := uint64(when.UnixNano())
	var failed error
	n := sort.Search(int(m.version-1), func(i int) bool {
		if failed != nil {
			return true
		}
		t, err := blockTime(ctx, m.bee, uint64(i)+1)
		if bad(err) {
			v.s.problem(m.w, uint64(i)+1, err)
			return true
		}
		if err != nil {
			failed = err
		}
		return t >= least
	})
	return uint64(n) + 1, failed
}
