package hypercore

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestWatcherTellsInOrder(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 2)
	w, err := l.Watch()
	if err != nil {
		t.Fatal(err)
	}
	next := func(want Event) {
		t.Helper()
		if e, err := w.Next(ctx); err != nil || e != want {
			t.Errorf("%v event %+v, %v, want %+v", e.Kind, e, err, want)
		}
	}
	appendNumbers(t, l, 1)
	appendNumbers(t, l, 3)
	next(Event{Kind: Appended, Length: 6}) // two as one
	appendNumbers(t, l, 1)
	if err := l.Truncate(ctx, 3, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	appendNumbers(t, l, 1)
	for _, r := range []Range{{End: 1}, {Start: 1, End: 3}, {Start: 0, End: 2}, {Start: 3, End: 9}} {
		if _, err := l.Clear(ctx, r.Start, r.End); err != nil {
			t.Fatal(err)
		}
	}
	next(Event{Kind: Appended, Length: 7})
	next(Event{Kind: Truncated, Length: 3, Fork: 1})
	next(Event{Kind: Appended, Length: 4})
	next(Event{Kind: Cleared, Range: Range{Start: 0, End: 4}}) // what was not held tells nothing

	d := openDraft(t, l)
	appendTo(t, d, "x")
	if _, err := l.CommitDraft(ctx, d, AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	closeAll(t, d)
	next(Event{Kind: Appended, Length: 5})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	appendNumbers(t, l, 1)
	if e, err := w.Next(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %+v, %v", e, err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestWatcherHearsOfProofs(t *testing.T) {
	ctx := context.Background()
	w := writerOf(t, 9)
	r := readerOf(t, w)
	watcher, err := r.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	first := prove(t, w, upgradeRequest(0, 9))
	upgradeTo(t, r, w)
	p4 := prove(t, w, blockRequest(t, r, 4))
	p5 := prove(t, w, blockRequest(t, r, 5))
	p1 := prove(t, w, blockRequest(t, r, 1))
	mustApply(t, r, p5, p1, p4, first, p5)
	for _, want := range []Event{
		{Kind: Appended, Length: 9},
		{Kind: Received, Range: Range{Start: 1, End: 2}},
		{Kind: Received, Range: Range{Start: 4, End: 6}},
	} {
		if e, err := watcher.Next(ctx); err != nil || e != want {
			t.Errorf("event %+v, %v, want %+v", e, err, want)
		}
	}
}

func TestSlowWatcherLags(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 2000)
	w, err := l.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range uint64(maxEvents + 20) {
		if _, err := l.Clear(ctx, 3*i, 3*i+1); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := w.Next(ctx); err != nil || e.Kind != Lagged {
		t.Errorf("event %v, %v", e.Kind, err)
	}
	n := 0
	for len(w.events) > 0 {
		if e, err := w.Next(ctx); err != nil || e.Kind != Cleared {
			t.Errorf("event %v, %v", e.Kind, err)
		}
		n++
	}
	if n == 0 || n > 21 {
		t.Errorf("%d events after the lag", n)
	}
}

func TestCloseEndsWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kp := keyPairN(1)
		l, err := Open(memoryStore(t), Options{KeyPair: &kp})
		if err != nil {
			t.Fatal(err)
		}
		var ended, events atomic.Int32
		for range 3 {
			w, err := l.Watch()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for range w.All(context.Background()) {
					events.Add(1)
				}
				ended.Add(1)
				_ = w.Close()
			}()
			synctest.Wait()
		}
		w, err := l.Watch()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("next: %v", err)
			}
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		appendTo(t, l, "last")
		closeAll(t, l)
		synctest.Wait()
		if ended.Load() != 3 || events.Load() != 3 {
			t.Errorf("%d watchers ended, with %d events", ended.Load(), events.Load())
		}
		// What it did not read is still there.
		if e, err := w.Next(context.Background()); err != nil || e.Length != 1 {
			t.Errorf("event %+v, %v", e, err)
		}
		if _, err := w.Next(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("then: %v", err)
		}
	})
}

func TestEventKindsHaveNames(t *testing.T) {
	for k := Appended; k <= Lagged; k++ {
		if k.String() == "" || k.String()[0] == 'e' {
			t.Errorf("kind %d is called %q", uint8(k), k)
		}
	}
	if got := EventKind(99).String(); got != "event 99" {
		t.Errorf("kind 99 is called %q", got)
	}
}
