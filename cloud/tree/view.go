package tree

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A view is one state of all bees. It has a member for each writer, in the order
// in which they were added. It keeps nothing that would have to be given back.
type view struct {
	s       *shared
	members []*member
}

// A member is a version of a writer's bee. Views that follow one another share
// those that did not change.
type member struct {
	w       *writer
	version uint64
	upTo    uint64         // what is beyond it will never count; 0 is no limit
	bee     *hyperbee.Tree // pinned at the version; nil if there is nothing in it
	read    reader         // bee, or a batch on it

	mu    sync.Mutex
	table []Writer // guarded by mu
	wrong error    // guarded by mu: why there is no table
	known bool     // guarded by mu: table was read
	time  uint64   // guarded by mu: of the last statement; 0 until it is read
}

// A reader is what can be read of a bee or a batch of it.
type reader interface {
	Get(ctx context.Context, key []byte) (hyperbee.Entry, error)
	Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[hyperbee.Entry, error]
}

// A state of a log and of what may be read of it.
type state struct {
	length, here, fork, upTo uint64
}

// unknown is no length of a log: the state is to be made anew.
const unknown = math.MaxUint64

// now returns what the tree is made of now.
func (t *Tree) now(ctx context.Context) (*view, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case t.past != nil && t.closed || t.past == nil && s.closed:
		return nil, ErrClosed
	case t.past != nil:
		return t.past, nil
	}
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	return s.view, nil
}

// refresh makes s.view that of now. s.mu is held.
func (s *shared) refresh(ctx context.Context) error {
	same := s.view != nil && len(s.view.members) == len(s.writers)
	for i, w := range s.writers {
		if err := w.refresh(ctx, s); err != nil {
			return err
		}
		same = same && s.view.members[i] == w.last
	}
	if same {
		return nil
	}
	s.view = &view{s: s}
	for _, w := range s.writers {
		s.view.members = append(s.view.members, w.last)
	}
	return nil
}

// refresh makes w.last that of now. shared.mu is held.
func (w *writer) refresh(ctx context.Context, s *shared) error {
	log := w.bee.Log()
	head := log.Head()
	now := state{length: head.Length, here: head.Length, fork: head.Fork, upTo: w.upTo}
	if !w.own {
		now.here = min(log.Contiguous(), head.Length)
	}
	if w.last != nil && now == w.state {
		return nil
	}
	version, err := w.complete(ctx, now)
	if bad(err) {
		s.problem(w, 0, err)
	} else if err != nil {
		return err
	}
	// What was whole once stays so, also while what follows comes in without its
	// beginning: versions that were handed out go on.
	if w.last != nil && w.state.fork == now.fork {
		w.whole = max(w.whole, w.last.version)
	} else if w.last != nil {
		w.whole = 0
	}
	if w.whole > version && w.whole <= now.here && (w.upTo == 0 || w.whole <= w.upTo) {
		version = w.whole
	}
	if w.last != nil && w.last.version == version && w.last.upTo == w.upTo && w.state.fork == now.fork {
		w.state = now
		return nil
	}
	m, err := newMember(w, w.bee, version, w.upTo)
	if err != nil {
		return err
	}
	w.last, w.state = m, now
	return nil
}

// newMember returns a version of a writer's bee.
func newMember(w *writer, bee *hyperbee.Tree, version, upTo uint64) (*member, error) {
	m := &member{w: w, version: version, upTo: upTo}
	if version <= 1 {
		return m, nil
	}
	pinned, err := bee.Pinned(version)
	if err != nil {
		return nil, err
	}
	m.bee, m.read = pinned, pinned
	return m, nil
}

// complete returns the newest version of the bee that is here whole, 1 if there is
// none. A batch of its writer is there whole or not at all.
func (w *writer) complete(ctx context.Context, now state) (uint64, error) {
	end := now.here
	if w.upTo > 0 {
		end = min(end, w.upTo)
	}
	// A length that was signed is the end of a batch, and so is the limit.
	if end <= 1 || end == now.length || end == w.upTo {
		return max(1, end), nil
	}
	// All of a batch has the same time, and no other batch of the writer has it.
	last, err := blockTime(ctx, w.bee, end-1)
	if err != nil {
		return 1, err
	}
	return batchStart(ctx, w.bee, end-1, last)
}

// batchStart returns the first block of a batch of that time: the version without
// it. seq is a block of the batch.
func batchStart(ctx context.Context, bee *hyperbee.Tree, seq, time uint64) (uint64, error) {
	in := func(seq uint64) (bool, error) {
		t, err := blockTime(ctx, bee, seq)
		if bad(err) {
			return false, nil
		}
		return t == time, err
	}
	// Batches are small mostly: look near the end first. Blocks from high on are in
	// the batch, block low is not.
	high, low := seq, uint64(0)
	for step := uint64(1); high > 1; step *= 2 {
		at := max(1, high-min(high, step))
		ok, err := in(at)
		if err != nil {
			return 0, err
		}
		if !ok {
			low = at
			break
		}
		high = at
	}
	for low+1 < high {
		mid := low + (high-low)/2
		ok, err := in(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			high = mid
		} else {
			low = mid
		}
	}
	return high, nil
}

// blockTime returns the time of the statement in a block.
func blockTime(ctx context.Context, bee *hyperbee.Tree, seq uint64) (uint64, error) {
	for c, err := range bee.History(ctx, hyperbee.HistoryOptions{From: seq, To: seq + 1}) {
		if err != nil {
			return 0, err
		}
		_, t, err := readHead(c.Value)
		if err != nil {
			return 0, fmt.Errorf("block %d: %w: %w", seq, ErrStatement, err)
		}
		return t, nil
	}
	return 0, fmt.Errorf("block %d: %w", seq, hypercore.ErrLength)
}

// bad reports whether an error means that what a writer wrote makes no sense.
func bad(err error) bool {
	return errors.Is(err, hyperbee.ErrInvalid) || errors.Is(err, hyperbee.ErrTruncated) || errors.Is(err, ErrStatement) || errors.Is(err, hypercore.ErrDecrypt)
}

// lastTime returns the time of the last statement of a member.
func (m *member) lastTime(ctx context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.time == 0 && m.bee != nil {
		t, err := blockTime(ctx, m.bee, m.version-1)
		if err != nil {
			return 0, err
		}
		m.time = t
	}
	return m.time, nil
}

// getTable returns the writers that the member's claims speak of.
func (m *member) getTable(ctx context.Context) ([]Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known || m.read == nil {
		return m.table, m.wrong
	}
	e, err := m.read.Get(ctx, tableKey)
	if err == nil {
		m.table, err = readTable(e.Value)
	}
	switch {
	case errors.Is(err, ErrNotFound):
	case bad(err):
		m.wrong = err
	case err != nil:
		return nil, err
	}
	m.known = true
	return m.table, m.wrong
}

// tableKey is where a bee has its table of writers. Entries have longer keys.
var tableKey = []byte{}

// version returns the version of the tree that the view is of.
func (v *view) version() Version {
	out := Version{}
	for _, m := range v.members {
		if m.version > 1 {
			out[m.w.key] = m.version
		}
	}
	return out
}
