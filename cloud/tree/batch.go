package tree

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
)

// A Batch is several changes that this device makes at one time, written together
// with one append to its log: all of them or none. It keeps them in memory until
// then. What others say is read as it was when the batch began. While it is
// open, nobody else of this process can write to the tree. It must be flushed or
// closed.
type Batch struct {
	t       *Tree
	open    bool
	now     view // what there was when it began, with what it changes
	own     member
	bee     *hyperbee.Batch
	base    uint64 // the version of the bee that it began with
	time    uint64
	table   map[Writer]uint64 // numbers of the writers in the bee's table
	learned bool              // there are new ones
	buf     []byte
}

// Batch begins a batch, once nobody else writes.
func (t *Tree) Batch(ctx context.Context) (*Batch, error) {
	b, err := t.batch(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin batch: %w", err)
	}
	return b, nil
}

func (t *Tree) batch(ctx context.Context) (*Batch, error) {
	t.s.mu.Lock()
	own, closed := t.s.own, t.s.closed
	t.s.mu.Unlock()
	switch {
	case t.past != nil || own == nil:
		return nil, ErrReadOnly
	case closed:
		return nil, ErrClosed
	}
	bee, err := own.bee.Batch(ctx)
	if err != nil {
		return nil, err
	}
	b := &Batch{t: t, bee: bee, base: own.bee.Version(), open: true}
	if err := b.begin(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Batch) begin(ctx context.Context) error {
	v, err := b.t.now(ctx)
	if err != nil {
		return err
	}
	b.now.s = v.s
	b.now.members = slices.Clone(v.members)
	for i, m := range v.members {
		if !m.w.own {
			continue
		}
		table, err := m.getTable(ctx)
		if err != nil {
			return err
		}
		b.own.w, b.own.read = m.w, b.bee
		b.own.table, b.own.known = slices.Clone(table), true
		b.now.members[i] = &b.own
	}
	b.table = make(map[Writer]uint64, len(b.own.table))
	for n, w := range b.own.table {
		if _, ok := b.table[w]; !ok {
			b.table[w] = uint64(n)
		}
	}
	b.time, err = v.nextTime(ctx)
	return err
}

// nextTime returns the time for this device's next batch.
func (v *view) nextTime(ctx context.Context) (uint64, error) {
	now := v.clock()
	time := now
	for _, m := range v.members {
		last, err := m.lastTime(ctx)
		switch {
		case bad(err):
			v.s.problem(m.w, m.version-1, err)
			if m.w.own {
				return 0, err
			}
		case err != nil:
			return 0, err
		case m.w.own || last <= now+uint64(maxDrift):
			time = max(time, last+1)
		}
	}
	if time > maxTime {
		return 0, errTime
	}
	return time, nil
}

// Close ends the batch. What was not flushed is forgotten.
func (b *Batch) Close() {
	b.bee.Close()
	b.open = false
}

// Len returns how many changes there are in the batch.
func (b *Batch) Len() int { return b.bee.Len() }

// Time returns when its statements will have been made.
func (b *Batch) Time() time.Time { return timeOf(b.time) }

// Get is Tree.Get, with the changes of the batch.
func (b *Batch) Get(ctx context.Context, key []byte) (Entry, error) {
	if !b.open {
		return Entry{}, fmt.Errorf("get: %w", ErrClosed)
	}
	return found(b.view().get(ctx, key))
}

// view is what the batch reads.
func (b *Batch) view() *view {
	b.own.version = b.next()
	return &b.now
}

// next is the block of the next statement.
func (b *Batch) next() uint64 { return b.base + uint64(b.bee.Len()) }

// Range is Tree.Range, with the changes of the batch, which must not be changed
// meanwhile.
func (b *Batch) Range(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return b.ranging(ctx, o, false)
}

// RangeAll is Tree.RangeAll, as Range is Tree.Range.
func (b *Batch) RangeAll(ctx context.Context, o hyperbee.RangeOptions) iter.Seq2[Entry, error] {
	return b.ranging(ctx, o, true)
}

func (b *Batch) ranging(ctx context.Context, o hyperbee.RangeOptions, deleted bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := ErrClosed
		if b.open {
			err = b.view().ranging(ctx, o, deleted, yield)
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("range: %w", err))
		}
	}
}

// Put sets the value of a key, over all that is said about it. A nil value is an
// empty one.
func (b *Batch) Put(ctx context.Context, key, value []byte) error {
	if err := b.over(ctx, record{value: value}, key, nil); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	return nil
}

// PutOver is Put for one who has seen no more about the key than an entry that
// Get, Range or Changes returned, also if that was some time ago: what was said
// since then is left standing beside the value. An entry that was not found is
// one who has seen nothing.
func (b *Batch) PutOver(ctx context.Context, key, value []byte, seen Entry) error {
	if err := b.over(ctx, record{value: value}, key, &seen); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	return nil
}

// Delete deletes a key, over all that is said about it. It does nothing if the key
// is not there.
func (b *Batch) Delete(ctx context.Context, key []byte) error {
	if err := b.over(ctx, record{deleted: true}, key, nil); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// DeleteOver is Delete as PutOver is Put: values that were said since then are
// left standing. Who has seen a value deletes it also if somebody else has.
func (b *Batch) DeleteOver(ctx context.Context, key []byte, seen Entry) error {
	if err := b.over(ctx, record{deleted: true}, key, &seen); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// over makes a statement about a key, over what was seen, or all there is if that
// is nil.
func (b *Batch) over(ctx context.Context, r record, key []byte, seen *Entry) error {
	if !b.open {
		return ErrClosed
	}
	if len(key) == 0 {
		return ErrKey
	}
	var few [4]statement
	list, err := b.view().statements(ctx, key, few[:0])
	if err != nil {
		return err
	}
	if r.deleted {
		if len(list) == 0 {
			return nil
		}
		e, err := b.now.merge(ctx, key, list)
		if err != nil || e.Value == nil && (seen == nil || seen.Value == nil) {
			return err
		}
	}
	r.time = b.time
	if seen == nil {
		err = b.overAll(&r, list)
	} else {
		err = b.overSeen(&r, list, seen)
	}
	if err != nil {
		return err
	}
	b.buf = r.append(b.buf[:0])
	return b.bee.Put(ctx, key, b.buf)
}

// overAll says that all of a list was seen.
func (b *Batch) overAll(r *record, list []statement) error {
	if len(list) == 0 || len(list) == 1 && list[0].m == &b.own && list[0].claims == nil {
		return nil
	}
	c := claiming{}
	for i := range list {
		c.sees(list[i].dot())
	}
	return b.claim(r, &c)
}

// overSeen says that what an entry has seen was seen. What this device said
// itself and the entry has not seen is kept.
func (b *Batch) overSeen(r *record, list []statement, seen *Entry) error {
	c := claiming{}
	c.sees(dot{writer: seen.Writer, seq: seen.Seq})
	for _, d := range seen.all {
		c.sees(d)
	}
	var kept []keptRecord
	for i := range list {
		s := &list[i]
		switch {
		case s.m != &b.own:
		case s.seq > c.last[b.own.w.key]:
			alone := s.record
			alone.kept = nil
			kept = append(kept, keptRecord{s.seq, alone.append(nil)})
		default:
			c.sees(s.dot()) // who saw it saw what it has seen
		}
	}
	if len(kept) > maxKept {
		return fmt.Errorf("%w: %d statements of this device were not seen", ErrFull, len(kept))
	}
	if len(kept) > 0 {
		r.kept = appendKept(nil, kept)
	}
	return b.claim(r, &c)
}

// A dot names a statement. One of this device comes with its claims.
type dot struct {
	writer Writer
	seq    uint64
	claims []byte
}

func (s *statement) dot() dot {
	d := dot{writer: s.m.w.key, seq: s.seq}
	if s.m.w.own {
		d.claims = s.claims
	}
	return d
}

// claiming collects what was seen.
type claiming struct {
	last map[Writer]uint64
	own  map[uint64]uint64 // what this device has claimed before, by number
}

func (c *claiming) sees(d dot) {
	if d.seq == 0 {
		return
	}
	if c.last == nil {
		c.last, c.own = map[Writer]uint64{}, map[uint64]uint64{}
	}
	c.last[d.writer] = max(c.last[d.writer], d.seq)
	for claim := range eachClaim(d.claims) {
		c.own[claim.number] = max(c.own[claim.number], claim.seq)
	}
}

// claim gives a record the claims to what was seen.
func (b *Batch) claim(r *record, c *claiming) error {
	for w, seq := range c.last {
		if w == b.own.w.key {
			continue
		}
		n, ok := b.table[w]
		if !ok {
			if n = uint64(len(b.own.table)); n == maxWriters {
				return fmt.Errorf("%w: %d writers", ErrFull, n+1)
			}
			b.table[w] = n
			b.own.table = append(b.own.table, w)
			b.learned = true
		}
		c.own[n] = max(c.own[n], seq)
	}
	if len(c.own) == 0 {
		return nil
	}
	claims := make([]claim, 0, len(c.own))
	for _, n := range slices.Sorted(maps.Keys(c.own)) {
		claims = append(claims, claim{n, c.own[n]})
	}
	r.claims = appendClaims(nil, claims)
	return nil
}

// Flush writes the changes and ends the batch. When it returns they are on the
// disk, if the bee's are.
func (b *Batch) Flush(ctx context.Context) error {
	if err := b.flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

func (b *Batch) flush(ctx context.Context) error {
	if !b.open {
		return ErrClosed
	}
	defer b.Close()
	if b.learned {
		if err := b.bee.Put(ctx, tableKey, appendTable(nil, b.time, b.own.table)); err != nil {
			return err
		}
	}
	return b.bee.Flush(ctx)
}
