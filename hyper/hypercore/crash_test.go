package hypercore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// A state is what a log was at one time. States are never changed.
type state struct {
	blocks [][]byte
	held   []bool
	fork   uint64
}

// A history is what a log was since the last state that is sure to outlive a
// crash: it must be found in one of these states, and in a later one or the
// same after every further sync.
type history struct {
	states []*state // nil: the log does not exist yet
}

func (h *history) last() *state { return h.states[len(h.states)-1] }

// A crasher runs random work on a faulty disk and crashes at its write points:
// it copies the disk as a crash there would leave it, opens the copy, and
// compares what it finds with what was acknowledged.
type crasher struct {
	t     *testing.T
	rng   *rand.Rand
	disk  *storagetest.Faulty
	clock *clock.Fake
	keys  []hypercore.KeyPair

	store *storage.Store
	logs  []*hypercore.Log

	every uint64 // crash at every so many write points

	mu      sync.Mutex // guards the fields below: hooks run in any goroutine
	past    []history
	crashes []crash
	points  uint64
	ops     map[string]int
}

// A crash is a disk as a crash left it, and what may be on it.
type crash struct {
	disk  *storagetest.Faulty
	past  []history
	where string
}

func (c *crasher) hook(p storagetest.Point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.points++
	if c.points%c.every != 0 {
		return
	}
	c.ops[p.Op]++
	where := fmt.Sprintf("at write point %d, %s of %d bytes to %s", p.Number, p.Op, p.Size, p.Name)
	past := make([]history, len(c.past))
	for i := range c.past {
		past[i].states = slices.Clone(c.past[i].states)
	}
	cut := c.points / c.every
	if cut%3 == 0 {
		c.crashes = append(c.crashes, crash{c.disk.Kill(), past, "killed " + where})
		return
	}
	c.crashes = append(c.crashes, crash{c.disk.PowerCut(cut), past, "power cut " + where})
}

// begin notes a change that is about to be made: from now on a crash may find
// it done.
func (c *crasher) begin(log int, s *state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past[log].states = append(c.past[log].states, s)
}

// synced notes that a change, the last one of all, was acknowledged as durable:
// so is every one before it.
func (c *crasher) synced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.past {
		c.past[i].states = []*state{c.past[i].last()}
	}
}

func (c *crasher) open() {
	c.t.Helper()
	d := c.disk.Disk()
	d.Clock = c.clock
	e, err := d.Open()
	if err != nil {
		c.t.Fatal(err)
	}
	if c.store, err = storage.Open(e, storage.Options{CacheBytes: 30 << 10}); err != nil {
		c.t.Fatal(err)
	}
	for i := range c.keys {
		c.begin(i, orEmpty(c.past[i].last()))
		l, err := hypercore.Open(c.store, c.options(i))
		if err != nil {
			c.t.Fatal(err)
		}
		c.logs[i] = l
	}
	c.synced()
}

func orEmpty(s *state) *state {
	if s == nil {
		return &state{}
	}
	return s
}

func (c *crasher) options(i int) hypercore.Options {
	o := hypercore.Options{KeyPair: &c.keys[i]}
	if i%2 == 1 {
		o.Session.EncryptionKey = &[32]byte{byte(i)}
	}
	return o
}

func (c *crasher) close() {
	c.t.Helper()
	for _, l := range c.logs {
		if err := l.Close(); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.store.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.synced()
}

func (c *crasher) block() []byte {
	size := c.rng.IntN(80)
	switch c.rng.IntN(10) {
	case 0:
		size = 1000 + c.rng.IntN(60)
	case 1:
		size = 16<<10 + c.rng.IntN(4000)
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(c.rng.Uint32())
	}
	return b
}

// step makes one random change.
func (c *crasher) step() {
	c.t.Helper()
	ctx := context.Background()
	i := c.rng.IntN(len(c.logs))
	l, now := c.logs[i], c.past[i].last()
	fail := func(err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	switch k := c.rng.IntN(20); {
	case k < 11:
		next := &state{slices.Clone(now.blocks), slices.Clone(now.held), now.fork}
		n := 1
		if c.rng.IntN(3) == 0 {
			n = 1 + c.rng.IntN(90)
		}
		var blocks [][]byte
		for range n {
			blocks = append(blocks, c.block())
		}
		for _, b := range blocks {
			next.blocks, next.held = append(next.blocks, b), append(next.held, true)
		}
		d := hypercore.Durability(c.rng.IntN(2))
		c.begin(i, next)
		_, err := l.AppendWith(ctx, hypercore.AppendOptions{Durability: d}, blocks...)
		fail(err)
		if d == hypercore.Durable {
			c.synced()
		}
	case k < 14:
		n := c.rng.IntN(len(now.blocks) + 1)
		c.begin(i, &state{now.blocks[:n:n], now.held[:n:n], now.fork + 1})
		err := l.Truncate(ctx, uint64(n), hypercore.TruncateOptions{})
		if err != nil && n > 0 && !now.held[n-1] {
			// Among pages that were cleared; nothing was changed.
			c.mu.Lock()
			h := &c.past[i]
			h.states = h.states[:len(h.states)-1]
			c.mu.Unlock()
			return
		}
		fail(err)
		c.synced()
	case k < 16:
		if len(now.blocks) == 0 {
			return
		}
		from := c.rng.IntN(len(now.blocks))
		to := from + 1 + c.rng.IntN(len(now.blocks)-from)
		held := slices.Clone(now.held)
		some := slices.Contains(held[from:to], true)
		for j := from; j < to; j++ {
			held[j] = false
		}
		c.begin(i, &state{now.blocks, held, now.fork})
		_, err := l.Clear(ctx, uint64(from), uint64(to))
		fail(err)
		if some {
			c.synced()
		}
	case k == 16:
		d, err := l.Draft(ctx, "draft")
		fail(err)
		next := &state{slices.Clone(now.blocks), slices.Clone(now.held), now.fork}
		for range 1 + c.rng.IntN(5) {
			b := c.block()
			_, err := d.Append(ctx, b)
			fail(err)
			next.blocks, next.held = append(next.blocks, b), append(next.held, true)
		}
		c.begin(i, next)
		_, err = l.CommitDraft(ctx, d, hypercore.AppendOptions{})
		fail(err)
		c.synced()
		fail(d.Discard(ctx))
	case k == 17:
		c.clock.Advance(2 * time.Second) // syncs what is due, gives back space
		if err := c.store.Sync(); err != nil {
			c.t.Fatal(err)
		}
		c.synced()
	case k == 18:
		fail(c.store.Sync())
		c.synced()
	default:
		c.close()
		c.open()
	}
}

// take returns the crashes since the last call.
func (c *crasher) take() []crash {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.crashes
	c.crashes = nil
	return out
}

// check opens what a crash left and compares it with what may be there.
func (c *crasher) check(cr crash) (err error) {
	d := cr.disk.Disk()
	d.Clock = clock.NewFake(time.Unix(0, 0))
	e, err := d.Open()
	if err != nil {
		return err
	}
	s, err := storage.Open(e, storage.Options{CacheBytes: 1 << 20})
	if err != nil {
		return errors.Join(err, e.Close())
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for i := range c.keys {
		o := c.options(i)
		o.MustExist = true
		l, err := hypercore.Open(s, o)
		if errors.Is(err, storage.ErrNotFound) && slices.Contains(cr.past[i].states, nil) {
			continue
		}
		if err != nil {
			return fmt.Errorf("log %d: %w", i, err)
		}
		if err := c.checkLog(l, cr.past[i].states); err != nil {
			return fmt.Errorf("log %d: %w", i, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (c *crasher) checkLog(l *hypercore.Log, states []*state) error {
	ctx := context.Background()
	var reasons []string
	found := false
	for i := len(states) - 1; i >= 0 && !found; i-- {
		err := orEmpty(states[i]).equals(l)
		if err == nil {
			found = true
			break
		}
		reasons = append(reasons, err.Error())
	}
	if !found {
		return fmt.Errorf("it has %d blocks in fork %d and is none of the states it may be in: %s", l.Length(), l.Fork(), strings.Join(reasons, "; "))
	}
	for p, err := range l.Audit(ctx) {
		return fmt.Errorf("audit: %v, %w", p, err)
	}
	// Life goes on.
	before := l.Length()
	if _, err := l.Append(ctx, []byte("after the crash")); err != nil {
		return err
	}
	if got, err := l.Get(ctx, before); err != nil || string(got) != "after the crash" {
		return fmt.Errorf("append after the crash: %q, %w", got, err)
	}
	return nil
}

func (s *state) equals(l *hypercore.Log) error {
	if l.Length() != uint64(len(s.blocks)) || l.Fork() != s.fork {
		return fmt.Errorf("not %d blocks in fork %d", len(s.blocks), s.fork)
	}
	for i, want := range s.blocks {
		if !s.held[i] {
			if l.Has(uint64(i)) {
				return fmt.Errorf("block %d was not cleared", i)
			}
			continue
		}
		got, err := l.Get(context.Background(), uint64(i))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("block %d has other bytes", i)
		}
	}
	return nil
}

// TestNothingAcknowledgedIsLostInACrash crashes at write points of appending,
// truncating, clearing, committing drafts, collecting and opening: after each,
// every acknowledged block is there and proven, nothing half-written shows, and
// the log can be written again. With BEVY_LONG it does so at over 10,000 points.
func TestNothingAcknowledgedIsLostInACrash(t *testing.T) {
	seeds, steps, every := uint64(3), 60, uint64(7)
	if os.Getenv("BEVY_LONG") != "" {
		seeds, steps, every = 40, 120, 3
	}
	total, ops := 0, map[string]int{}
	for seed := range seeds {
		c := &crasher{t: t, rng: rand.New(rand.NewPCG(seed, 21)), disk: storagetest.NewFaulty(), clock: clock.NewFake(time.Unix(0, 0)),
			every: every, ops: ops, past: make([]history, 3), logs: make([]*hypercore.Log, 3)}
		for i := range c.past {
			c.past[i].states = []*state{nil}
			c.keys = append(c.keys, hypercore.NewKeyPair([32]byte{byte(seed), byte(i)}))
		}
		c.disk.Hook(c.hook)
		verify := func() {
			for _, cr := range c.take() {
				total++
				if err := c.check(cr); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, cr.where, err)
				}
			}
		}
		c.open()
		for range steps {
			c.step()
			verify()
		}
		c.close()
		verify()
		c.disk.Hook(nil)
	}
	t.Logf("%d crash points: %v", total, ops)
	if total < 200 {
		t.Errorf("only %d crash points", total)
	}
	for _, op := range []string{"write", "sync", "create"} {
		if ops[op] == 0 {
			t.Errorf("no crash before a %s", op)
		}
	}
}
