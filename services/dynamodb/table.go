package dynamodb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A table is one that is open. Who writes next takes all writes that wait, does
// them in one batch, and wakes the others.
type table struct {
	door *Door
	id   string
	tree Tree
	now  atomic.Pointer[schema]
	// What the changes of the tree and of the catalog were when they were last
	// looked at.
	seen, seenCatalog atomic.Uint64

	// whole is held by readers, and alone by who changes several tables at once.
	whole sync.RWMutex
	// writer has room for who writes. What it guards is the state below.
	writer chan struct{}
	state  state

	mu    sync.Mutex
	queue []*job // guarded by mu
	want  int    // how many of them who writes next is waiting for; guarded by mu

	// enough tells who writes next to wait no longer. Who has the writer's place has
	// what is below, too: how many writers there seem to be, and how long the last
	// batch took.
	enough chan struct{}
	crowd  int
	took   time.Duration

	// owed is what a transaction has done but not written here yet.
	owed atomic.Pointer[debt]

	// Guarded by the door.
	users int
	idle  int64 // since when, in milliseconds
	done  bool  // its table is gone
	kept  bool  // there are backups of it
}

// state is what a writer knows besides what the tree says.
type state struct {
	items, bytes int64  // as this writer has added them up
	next         uint64 // number of the next record of the stream
	first        uint64 // number of the oldest record that is kept
}

// A job is a write that waits. An error of run leaves no trace; one of the batch
// is the end of all that are in it.
type job struct {
	run  func(*tx) error
	err  error
	done chan struct{}
}

// maxJobs bounds what is done in one batch, and maxBatch its bytes.
const (
	maxJobs  = 256
	maxBatch = 16 << 20
)

// openTable reads what a tree has of a table.
func openTable(ctx context.Context, d *Door, id string, tree Tree) (*table, error) {
	t := &table{door: d, id: id, tree: tree, writer: make(chan struct{}, 1), enough: make(chan struct{}, 1)}
	t.seen.Store(changes(tree))
	t.seenCatalog.Store(changes(d.catalog.tree))
	s, err := readSchema(ctx, tree)
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", id, err)
	}
	t.now.Store(s)
	w := tree.Writer()
	b, err := tree.Get(ctx, append([]byte{keyCount}, w[:]...))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("open table %s: %w", id, err)
	}
	if err := t.state.read(b); err != nil {
		return nil, fmt.Errorf("open table %s: %w", id, err)
	}
	return t, nil
}

func (s state) encode() []byte {
	b := binary.AppendVarint([]byte{schemaVersion}, s.items)
	b = binary.AppendVarint(b, s.bytes)
	b = binary.AppendUvarint(b, s.next)
	return binary.AppendUvarint(b, s.first)
}

func (s *state) read(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	at := 1
	varint := func() int64 { v, n := binary.Varint(b[at:]); at += max(n, 0); return v }
	uvarint := func() uint64 { v, n := binary.Uvarint(b[at:]); at += max(n, 0); return v }
	s.items, s.bytes, s.next, s.first = varint(), varint(), uvarint(), uvarint()
	if b[0] != schemaVersion || at != len(b) {
		return errors.New("its counters make no sense")
	}
	return nil
}

// write does a change, together with others that wait.
func (t *table) write(ctx context.Context, run func(*tx) error) error {
	j := &job{run: run, done: make(chan struct{})}
	t.enqueue(j)
	select {
	case <-j.done:
		return j.err
	case t.writer <- struct{}{}:
	}
	defer func() { <-t.writer }()
	for {
		select {
		case <-j.done:
			return j.err
		default:
		}
		t.gather()
		t.mu.Lock()
		jobs := t.queue[:min(len(t.queue), maxJobs)]
		t.queue = t.queue[len(jobs):]
		t.mu.Unlock()
		began := t.door.o.Clock.Now()
		// What is written for others goes on when this one is gone.
		t.commit(context.WithoutCancel(ctx), jobs)
		t.took = t.door.o.Clock.Now().Sub(began)
		t.mu.Lock()
		t.crowd = len(jobs) + len(t.queue)
		t.mu.Unlock()
	}
}

func (t *table) enqueue(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, j)
	if t.want > 0 && len(t.queue) >= t.want {
		t.stopWaiting()
	}
}

// stopWaiting lets who writes next go on. t.mu is held.
func (t *table) stopWaiting() {
	t.want = 0
	select {
	case t.enough <- struct{}{}:
	default:
	}
}

// gather waits a moment for writers whose last writes were just answered: one batch
// of all costs less than two of half of them each, one after the other. Where time
// is made up, nobody waits.
func (t *table) gather() {
	wait := min(t.took/2, time.Millisecond)
	if t.crowd < 2 || wait <= 0 || t.door.o.Clock != clock.System {
		return
	}
	t.mu.Lock()
	if len(t.queue) >= min(t.crowd, maxJobs) {
		t.mu.Unlock()
		return
	}
	select {
	case <-t.enough: // it came too late
	default:
	}
	t.want = min(t.crowd, maxJobs)
	t.mu.Unlock()
	timer := t.door.o.Clock.AfterFunc(wait, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.stopWaiting()
	})
	<-t.enough
	timer.Stop()
}

// commit does jobs in one batch. Those that don't fit wait for the next.
func (t *table) commit(ctx context.Context, jobs []*job) {
	for len(jobs) > 0 {
		n, err := t.commitSome(ctx, jobs)
		for _, j := range jobs[:n] {
			if err != nil && j.err == nil {
				j.err = err
			}
			close(j.done)
		}
		jobs = jobs[n:]
	}
}

func (t *table) commitSome(ctx context.Context, jobs []*job) (n int, err error) {
	x, err := t.begin(ctx)
	if err != nil {
		return len(jobs), err
	}
	defer x.close()
	for n < len(jobs) && x.size < maxBatch && x.err == nil {
		jobs[n].err = jobs[n].run(x)
		n++
	}
	return n, x.flush()
}

// A tx is a batch of a table's changes.
type tx struct {
	t     *table
	ctx   context.Context
	batch Batch
	s     *schema
	state state
	size  int   // bytes that were written
	err   error // of the batch: nothing of it will be written
}

// begin begins a batch. The caller has the writer's place.
func (t *table) begin(ctx context.Context) (*tx, error) {
	if err := t.settle(ctx); err != nil {
		return nil, err
	}
	b, err := t.tree.Batch(ctx)
	if err != nil {
		return nil, fmt.Errorf("write to table %s: %w", t.id, err)
	}
	return &tx{t: t, ctx: ctx, batch: b, s: t.now.Load(), state: t.state}, nil
}

func (x *tx) close() { x.batch.Close() }

// flush writes the batch, if there is anything in it.
func (x *tx) flush() error {
	if x.err != nil {
		return fmt.Errorf("write to table %s: %w", x.t.id, x.err)
	}
	if x.size == 0 {
		return nil
	}
	if x.state != x.t.state {
		w := x.t.tree.Writer()
		x.put(append([]byte{keyCount}, w[:]...), x.state.encode())
	}
	if x.err == nil {
		x.err = x.batch.Flush(x.ctx)
	}
	if x.err != nil {
		return fmt.Errorf("write to table %s: %w", x.t.id, x.err)
	}
	x.t.state = x.state
	if x.s != x.t.now.Load() {
		x.t.now.Store(x.s)
	}
	return nil
}

func (x *tx) put(key, value []byte) {
	x.size += len(key) + len(value)
	if x.err == nil {
		x.err = x.batch.Put(x.ctx, key, value)
	}
}

func (x *tx) delete(key []byte) {
	x.size += len(key)
	if x.err == nil {
		x.err = x.batch.Delete(x.ctx, key)
	}
}

// setSchema replaces what is known of the table.
func (x *tx) setSchema(s *schema) {
	x.put([]byte{keyTable}, s.encode())
	x.s = s
}

// get returns a stored item, which may be none.
func (x *tx) get(key []byte) (stored, error) {
	b, err := x.batch.Get(x.ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		x.err = err
		return nil, err
	}
	return stored(b), nil
}

// A change is what becomes of one item.
type change struct {
	key []byte
	old stored
	now item.Item // nil if it is deleted
	by  string    // of the record in the stream: who, if not a client
}

// apply writes a change, with what indexes, the stream and the expiry have of it.
func (x *tx) apply(c change) error {
	var old item.Item
	if c.old == nil && c.now == nil {
		return nil
	}
	if c.old != nil && (x.s.wantsOld() || c.now == nil) {
		var err error
		if old, err = c.old.item(); err != nil {
			x.err = err
			return err
		}
	}
	if c.old != nil {
		x.state.items--
		x.state.bytes -= int64(c.old.size())
	}
	if c.now == nil {
		x.delete(c.key)
	} else {
		b := newStored(c.now, rangeName(x.s.Keys))
		x.put(c.key, b)
		x.state.items++
		x.state.bytes += int64(b.size())
	}
	for _, list := range [][]*index{x.s.Global, x.s.Local} {
		for _, idx := range list {
			x.reindex(idx, c.key, old, c.now)
		}
	}
	x.reexpire(c.key, old, c.now)
	return x.record(c, old)
}

// wantsOld reports whether writing needs to know what an item was.
func (s *schema) wantsOld() bool {
	return len(s.Global) > 0 || len(s.Local) > 0 || s.TTL != "" || s.Stream != nil && s.Stream.On
}

// reindex brings an index up to date with a change.
func (x *tx) reindex(idx *index, key []byte, old, now item.Item) {
	var was, is []byte
	if old != nil && idx.hasKey(x.s, old) {
		was = idx.key(x.s, old, key)
	}
	if now != nil && idx.hasKey(x.s, now) {
		is = idx.key(x.s, now, key)
	}
	if string(was) == string(is) && !idx.Filling && !x.t.tree.Shared() {
		return
	}
	if was != nil && string(was) != string(is) {
		x.delete(was)
	}
	if is != nil {
		x.put(is, []byte{})
	}
}
