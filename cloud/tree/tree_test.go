package tree

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// wantEntry checks a key: its value and those beside it, nil for a deletion.
func (p *peer) wantEntry(key string, values ...any) {
	p.t.Helper()
	e, err := p.tree.Get(context.Background(), []byte(key))
	if err != nil && !errors.Is(err, ErrNotFound) {
		p.t.Fatal(err)
	}
	var got []any
	for _, e := range append([]Entry{e}, e.Others...) {
		if e.Value == nil {
			got = append(got, nil)
		} else {
			got = append(got, string(e.Value))
		}
	}
	if !slices.Equal(got, values) {
		p.t.Errorf("%s is %q, want %q", key, got, values)
	}
}

func TestOneWriter(t *testing.T) {
	ctx := context.Background()
	p := newPeer(t, 1)
	p.put("a", "1")
	p.put("b", "2")
	p.put("a", "")
	e, err := p.tree.Get(ctx, []byte("a"))
	must(t, err)
	if e.Value == nil || len(e.Value) > 0 || e.Writer != keyOf(1) || e.Seq != 3 || !e.Time.Equal(start.Add(2)) {
		t.Errorf("got %+v", e)
	}
	p.del("a")
	if e, err := p.tree.Get(ctx, []byte("a")); !errors.Is(err, ErrNotFound) || e.Seq != 4 || e.Value != nil {
		t.Errorf("got %+v, %v", e, err)
	}
	if _, err := p.tree.Get(ctx, []byte("c")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	got := entries(t, p.tree, hyperbee.RangeOptions{})
	if len(got) != 2 || got[0].Value != nil || string(got[1].Value) != "2" {
		t.Errorf("got %+v", got)
	}
	// What one writer says costs nine bytes more than its value.
	raw, err := p.bee(1).Get(ctx, []byte("b"))
	must(t, err)
	if len(raw.Value) != 10 {
		t.Errorf("a value of one byte takes %d", len(raw.Value))
	}
	before := p.bee(1).Version()
	p.del("a")
	p.del("c")
	if p.bee(1).Version() != before {
		t.Error("deleting what is not there was written")
	}
}

func TestABatchReadsWhatItWrites(t *testing.T) {
	ctx := context.Background()
	list, writers := peers(t, 2)
	p, q := list[0], list[1]
	q.put("x", "theirs")
	q.put("y", "theirs")
	p.pull(q, 2)
	p.put("a", "1")
	b, err := p.tree.Batch(ctx)
	must(t, err)
	must(t, b.Put(ctx, []byte("b"), []byte("2")))
	must(t, b.Put(ctx, []byte("x"), []byte("ours")))
	must(t, b.Delete(ctx, []byte("y")))
	var got []string
	for e, err := range b.Range(ctx, hyperbee.RangeOptions{}) {
		must(t, err)
		got = append(got, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	if want := []string{"a=1", "b=2", "x=ours"}; !slices.Equal(got, want) {
		t.Errorf("the batch has %q, want %q", got, want)
	}
	got = nil
	for e, err := range b.RangeAll(ctx, hyperbee.RangeOptions{Reverse: true, Limit: 2}) {
		must(t, err)
		got = append(got, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	if want := []string{"y=", "x=ours"}; !slices.Equal(got, want) {
		t.Errorf("the batch has %q, want %q", got, want)
	}
	p.wantEntry("b", nil)
	if b.Len() != 3 {
		t.Errorf("%d changes", b.Len())
	}
	waiting, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := p.tree.Batch(waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("a second batch: %v", err)
	}
	must(t, b.Flush(ctx))
	p.wantEntry("b", "2")
	p.wantEntry("x", "ours")
	p.wantEntry("y", nil)
	meet(p, q, writers...)
	q.wantEntry("x", "ours")

	if _, err := b.Get(ctx, []byte("a")); !errors.Is(err, ErrClosed) {
		t.Errorf("get after flush: %v", err)
	}
	for _, err := range b.Range(ctx, hyperbee.RangeOptions{}) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("range after flush: %v", err)
		}
	}
	if err := errors.Join(b.Put(ctx, []byte("a"), nil), b.Flush(ctx)); !errors.Is(err, ErrClosed) {
		t.Errorf("put after flush: %v", err)
	}
}

// A device that was late makes a conflict, not a loss, also with itself.
func TestPutOverLeavesStandingWhatWasNotSeen(t *testing.T) {
	ctx := context.Background()
	list, writers := peers(t, 2)
	p, q := list[0], list[1]
	q.put("k", "q1")
	p.pull(q, 2)
	old, err := p.tree.Get(ctx, []byte("k"))
	must(t, err)
	p.clock.Advance(time.Second)
	q.put("k", "q2")
	p.pull(q, 2)
	p.put("k", "p1")
	p.wantEntry("k", "p1")
	p.clock.Advance(time.Second)
	// p1 was said with q2 in view. Somebody who has seen neither comes now.
	p.change(func(b *Batch) { must(t, b.PutOver(ctx, []byte("k"), []byte("late"), old)) })
	p.wantEntry("k", "late", "p1")
	p.change(func(b *Batch) { must(t, b.DeleteOver(ctx, []byte("k"), old)) })
	p.wantEntry("k", "late", "p1", nil)
	now, err := p.tree.Get(ctx, []byte("k"))
	must(t, err)
	p.change(func(b *Batch) { must(t, b.DeleteOver(ctx, []byte("k"), now)) })
	p.wantEntry("k", nil)
	p.change(func(b *Batch) { must(t, b.PutOver(ctx, []byte("k"), []byte("new"), Entry{})) })
	p.wantEntry("k", "new", nil)
	p.put("k", "all")
	meet(p, q, writers...)
	q.wantEntry("k", "all")
}

func TestConcurrentStatements(t *testing.T) {
	list, writers := peers(t, 3)
	a, b, c := list[0], list[1], list[2]
	b.clock.Advance(time.Second)
	c.clock.Advance(2 * time.Second)
	a.put("edited and deleted", "old")
	a.put("equal", "old")
	meet(a, b, writers...)
	meet(a, c, writers...)
	a.put("edited and deleted", "edited")
	b.del("edited and deleted")
	a.put("equal", "same")
	b.put("equal", "same")
	for _, p := range list {
		p.put("three", fmt.Sprint(p.n))
	}
	for range 2 {
		meet(a, b, writers...)
		meet(b, c, writers...)
	}
	for _, p := range list {
		p.wantEntry("edited and deleted", "edited", nil) // though the deletion is later
		p.wantEntry("equal", "same")
		p.wantEntry("three", "3", "2", "1")
	}
	b.put("three", "merged")
	b.put("equal", "another")
	meet(a, b, writers...)
	a.wantEntry("three", "merged")
	a.wantEntry("equal", "another")
}

func TestTimesRise(t *testing.T) {
	list, writers := peers(t, 2)
	p, q := list[0], list[1]
	timeOfKey := func(p *peer, key string) time.Duration {
		t.Helper()
		e, err := p.tree.Get(context.Background(), []byte(key))
		must(t, err)
		return e.Time.Sub(start)
	}
	// A clock that goes back.
	p.clock.Advance(-time.Hour)
	p.put("a", "1")
	p.clock.Advance(-time.Hour)
	p.put("b", "1")
	if got := timeOfKey(p, "b"); got != -time.Hour+1 {
		t.Errorf("after the clock went back the time is %v", got)
	}
	p.clock.Advance(2 * time.Hour)
	// One that is a little ahead is followed.
	q.clock.Advance(4 * time.Minute)
	q.put("c", "1")
	p.pull(q, 2)
	p.put("d", "1")
	if got := timeOfKey(p, "d"); got != 4*time.Minute+1 {
		t.Errorf("the time is %v, and what was read is of 4m", got)
	}
	// One that is far ahead is not, and what it says can be replaced nevertheless.
	q.clock.Advance(time.Hour)
	q.put("c", "2")
	p.pull(q, 2)
	p.clock.Advance(10 * time.Minute)
	p.put("c", "3")
	p.put("e", "1")
	if got := timeOfKey(p, "e"); got != 10*time.Minute+1 {
		t.Errorf("the time is %v, and the clock 10m", got)
	}
	meet(p, q, writers...)
	for _, p := range list {
		p.wantEntry("c", "3")
	}
}

func TestAWriterIsCut(t *testing.T) {
	ctx := context.Background()
	list, writers := peers(t, 3)
	p, q, r := list[0], list[1], list[2]
	q.put("a", "1")
	q.put("b", "1")
	p.pull(q, 2)
	v, err := p.tree.Version(ctx)
	must(t, err)
	q.put("a", "2")
	q.put("c", "1")
	// r replaces what the cut takes away. Its clock is far behind.
	q.clock.Advance(time.Hour)
	q.put("b", "2")
	r.pull(q, 2)
	r.put("b", "3")
	meet(p, r, writers...)
	p.wantEntry("a", "2")
	p.wantEntry("b", "3")
	later, err := p.tree.Version(ctx)
	must(t, err)
	told := 0
	stop := p.tree.Notify(func() { told++ })
	must(t, p.tree.Add(p.bee(2), v[keyOf(2)]))
	must(t, p.tree.Add(p.bee(2), v[keyOf(2)])) // which is no news: a cloud says it each time that it is told
	stop()
	if told != 1 {
		t.Errorf("the cut was told %d times", told)
	}
	p.wantEntry("a", "1")
	p.wantEntry("b", "3")
	p.wantEntry("c", nil)
	past, err := p.tree.Checkout(ctx, later)
	must(t, err)
	defer past.Close()
	if _, err := past.Get(ctx, []byte("c")); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was cut off is in the past: %v", err)
	}
	// Who follows the tree hears what the cut has changed.
	var changed []string
	for c, err := range p.tree.Changes(ctx, later, hyperbee.RangeOptions{}) {
		must(t, err)
		changed = append(changed, fmt.Sprintf("%s: %s -> %s", c.Key, c.Old.Value, c.New.Value))
	}
	if want := []string{"a: 2 -> 1", "c: 1 -> "}; !slices.Equal(changed, want) {
		t.Errorf("changes are %q, want %q", changed, want)
	}
	must(t, p.tree.Add(p.bee(2), 0))
	p.wantEntry("c", "1")
}

// What is half here is not read, and does not keep anybody waiting.
// TestWhatWasWholeStaysSo: that a writer has said more is known before what it said
// is here, and then nothing tells where its last batch that is here ends.
func TestWhatWasWholeStaysSo(t *testing.T) {
	list, _ := peers(t, 2)
	a, b := list[0], list[1]
	for _, keys := range [][]string{{"a", "b"}, {"x", "y"}} {
		a.change(func(batch *Batch) {
			for _, k := range keys {
				must(t, batch.Put(t.Context(), []byte(k), []byte("here")))
			}
		})
	}
	b.pull(a, 1)
	before, err := b.tree.Version(t.Context())
	must(t, err)
	a.put("z", "not here yet")
	b.pull(a, 1, []uint64{}...) // the head only
	if b.bees[1].Log().Length() != a.bees[1].Log().Length() {
		t.Fatal("it has not heard of more")
	}
	now, err := b.tree.Version(t.Context())
	must(t, err)
	if !now.Covers(before) {
		t.Errorf("version %v after %v", now, before)
	}
	for c, err := range b.tree.Changes(t.Context(), before, hyperbee.RangeOptions{}) {
		t.Errorf("changes %q, %v", c.Key, err)
	}
	if e, err := b.tree.Get(t.Context(), []byte("y")); err != nil || string(e.Value) != "here" {
		t.Errorf("y is %q, %v", e.Value, err)
	}
	// After a start, whoever has the version from before tells.
	again := New(Options{})
	defer again.Close()
	must(t, again.Add(b.bees[1], 0))
	for c, err := range again.Changes(t.Context(), before, hyperbee.RangeOptions{}) {
		t.Errorf("changes after a start: %q, %v", c.Key, err)
	}
	if e, err := again.Get(t.Context(), []byte("y")); err != nil || string(e.Value) != "here" {
		t.Errorf("y after a start is %q, %v", e.Value, err)
	}
	b.pull(a, 1)
	if e, err := b.tree.Get(t.Context(), []byte("z")); err != nil || string(e.Value) != "not here yet" {
		t.Errorf("z is %q, %v", e.Value, err)
	}
}

func TestTheNewestVersionThatIsHereWholeIsRead(t *testing.T) {
	ctx := context.Background()
	list, _ := peers(t, 2)
	p, q := list[0], list[1]
	for batch := range 3 {
		q.change(func(b *Batch) {
			for i := range 20 {
				must(t, b.Put(ctx, fmt.Append(nil, "key ", i), fmt.Append(nil, "batch ", batch)))
			}
		})
	}
	p.wantEntry("key 3", nil)
	want := any(nil)
	for block := range q.bee(2).Version() {
		p.pull(q, 2, block)
		switch block {
		case 21: // the first of a batch shows that the one before is whole
			want = "batch 0"
		case 41:
			want = "batch 1"
		case 60: // the last that was signed
			want = "batch 2"
		}
		p.wantEntry("key 3", want)
		p.wantEntry("key 17", want)
	}
	if n := p.tree.Missing(); n != 0 {
		t.Errorf("%d blocks are missing", n)
	}
	// The same, as the blocks come in no order.
	last := newPeer(t, 3)
	must(t, last.tree.Add(last.bee(2), 0))
	last.pull(q, 2, 60, 3, 59, 20, 44)
	last.wantEntry("key 3", nil)
	if n := last.tree.Missing(); n != 61 {
		t.Errorf("%d blocks are missing, want all 61 as the first is", n)
	}
	last.pull(q, 2)
	last.wantEntry("key 3", "batch 2")
}

func TestMisuse(t *testing.T) {
	ctx := context.Background()
	p := newPeer(t, 1)
	p.put("a", "1")
	must(t, p.tree.Add(p.bee(2), 0))
	past, err := p.tree.Checkout(ctx, Version{keyOf(1): 2})
	must(t, err)
	if err := p.tree.Own(p.bee(3)); err == nil {
		t.Error("two bees of one device")
	}
	if err := p.tree.Add(p.bee(1), 3); err == nil {
		t.Error("the own bee was added again")
	}
	if err := past.Add(p.bee(3), 0); !errors.Is(err, ErrReadOnly) {
		t.Errorf("add to the past: %v", err)
	}
	if _, err := past.Batch(ctx); !errors.Is(err, ErrReadOnly) {
		t.Errorf("batch of the past: %v", err)
	}
	if err := past.Download(ctx); !errors.Is(err, ErrReadOnly) {
		t.Errorf("download of the past: %v", err)
	}
	if past.Writable() || !p.tree.Writable() {
		t.Error("the past is writable, or the present is not")
	}
	if _, err := p.tree.Checkout(ctx, Version{keyOf(9): 2}); !errors.Is(err, ErrWriter) {
		t.Errorf("a version of another writer: %v", err)
	}
	if _, err := p.tree.Checkout(ctx, Version{keyOf(1): 3}); !errors.Is(err, hypercore.ErrLength) {
		t.Errorf("a version that is not here: %v", err)
	}
	if _, err := p.tree.Get(ctx, nil); !errors.Is(err, ErrKey) {
		t.Errorf("an empty key: %v", err)
	}
	for _, err := range p.tree.History(ctx, HistoryOptions{Key: []byte{}}) {
		if !errors.Is(err, ErrKey) {
			t.Errorf("history of an empty key: %v", err)
		}
	}
	p.change(func(b *Batch) {
		if err := b.Put(ctx, nil, nil); !errors.Is(err, ErrKey) {
			t.Errorf("put of an empty key: %v", err)
		}
	})
	reader := New(Options{})
	defer reader.Close()
	must(t, reader.Add(p.bee(2), 0))
	if _, err := reader.Batch(ctx); !errors.Is(err, ErrReadOnly) || reader.Writable() {
		t.Errorf("batch of who only reads: %v", err)
	}
	must(t, p.tree.Close())
	must(t, p.tree.Close())
	if _, err := p.tree.Get(ctx, []byte("a")); !errors.Is(err, ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
	if err := p.tree.Download(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("download after close: %v", err)
	}
	if e, err := past.Get(ctx, []byte("a")); err != nil || string(e.Value) != "1" {
		t.Errorf("the past, after the present was closed: %v, %v", e, err)
	}
	must(t, past.Close())
	must(t, past.Close())
	if _, err := past.Get(ctx, []byte("a")); !errors.Is(err, ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
}

// Entries are their caller's, and ranges go on over what is written meanwhile.
func TestRangesAreOfOneVersion(t *testing.T) {
	ctx := context.Background()
	p := newPeer(t, 1)
	p.change(func(b *Batch) {
		for i := range 50 {
			must(t, b.Put(ctx, fmt.Appendf(nil, "%02d", i), []byte("old")))
		}
	})
	n := 0
	for e, err := range p.tree.Range(ctx, hyperbee.RangeOptions{}) {
		must(t, err)
		if string(e.Value) != "old" {
			t.Fatalf("%s is %s", e.Key, e.Value)
		}
		clear(e.Value)
		if n++; n%10 == 0 {
			p.put("49", "new")
			p.put("60", "new")
		}
	}
	if n != 50 {
		t.Errorf("%d entries", n)
	}
	p.wantEntry("00", "old")
	p.wantEntry("49", "new")
}

func TestManyGoroutines(t *testing.T) {
	ctx := context.Background()
	list, _ := peers(t, 2)
	p, q := list[0], list[1]
	var all sync.WaitGroup
	told := make(chan struct{}, 1)
	stop := p.tree.Notify(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	defer stop()
	for w := range 3 {
		all.Go(func() {
			for i := range 30 {
				p.change(func(b *Batch) {
					key := []byte("counter")
					e, err := b.Get(ctx, key)
					if err != nil && !errors.Is(err, ErrNotFound) {
						t.Error(err)
					}
					must(t, b.Put(ctx, key, append(e.Value, '.')))
					must(t, b.Put(ctx, fmt.Append(nil, "key ", w, i), []byte("x")))
				})
			}
		})
	}
	all.Go(func() {
		for i := range 40 {
			q.put(fmt.Sprint("q", i), "y")
			p.pull(q, 2)
		}
	})
	all.Go(func() {
		last := 0
		for last < 90 {
			<-told
			e, err := p.tree.Get(ctx, []byte("counter"))
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
				return
			}
			if len(e.Value) < last {
				t.Errorf("%d after %d", len(e.Value), last)
			}
			last = len(e.Value)
		}
	})
	all.Go(func() {
		for range 20 {
			n := 0
			for _, err := range p.tree.Range(ctx, hyperbee.RangeOptions{}) {
				must(t, err)
				n++
			}
			past, err := p.tree.At(ctx, start.Add(time.Hour))
			must(t, err)
			if got := len(entries(t, past, hyperbee.RangeOptions{})); got < n {
				t.Errorf("%d entries after %d", got, n)
			}
			must(t, past.Close())
		}
	})
	all.Wait()
	if got := len(entries(t, p.tree, hyperbee.RangeOptions{})); got != 3*30+40+1 {
		t.Errorf("%d entries", got)
	}
}

func TestAMomentIsTheSameWhileNothingIsSaid(t *testing.T) {
	ctx := context.Background()
	a, b := newPeer(t, 1), newPeer(t, 2)
	must(t, a.tree.Add(b.bee(2), 0))
	last, err := a.tree.Moment(ctx)
	must(t, err)
	for _, say := range []func(){func() { a.put("k", "1") }, func() { b.put("k", "2") }, func() { a.del("k") }} {
		say()
		now, err := a.tree.Moment(ctx)
		must(t, err)
		if now == last {
			t.Error("it is the same though something was said")
		}
		_, err = a.tree.Get(ctx, []byte("k"))
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if last, err = a.tree.Moment(ctx); err != nil || last != now {
			t.Errorf("it is another one though nothing was said: %v", err)
		}
	}
}
