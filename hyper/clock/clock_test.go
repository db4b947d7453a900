package clock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestFakeCallsInOrderOfTime(t *testing.T) {
	start := time.Unix(100, 0)
	c := NewFake(start)
	var got []string
	note := func(name string) func() {
		return func() { got = append(got, fmt.Sprint(name, " ", c.Now().Sub(start))) }
	}
	c.AfterFunc(3*time.Second, note("c"))
	c.AfterFunc(time.Second, func() {
		note("a")()
		c.AfterFunc(time.Second, note("b"))
	})
	stopped := c.AfterFunc(time.Second, note("never"))
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop does not report what it did")
	}
	c.Advance(2500 * time.Millisecond)
	if want := "[a 1s b 2s]"; fmt.Sprint(got) != want {
		t.Errorf("calls %v, want %s", got, want)
	}
	if c.Waiting() != 1 || c.Now() != start.Add(2500*time.Millisecond) {
		t.Errorf("%d waiting at %v", c.Waiting(), c.Now())
	}
	c.Advance(time.Hour)
	if len(got) != 3 || got[2] != "c 3s" {
		t.Errorf("calls %v", got)
	}
}

func TestFakeKeepsTheOrderOfCalls(t *testing.T) {
	c := NewFake(time.Unix(100, 0))
	random := rand.New(rand.NewPCG(1, 2))
	type call struct{ at, turn int }
	var got, want []call
	var timers []Timer
	for turn := range 2000 {
		at := random.IntN(50) - 1 // what is due before now is due now
		timers = append(timers, c.AfterFunc(time.Duration(at)*time.Second, func() { got = append(got, call{max(at, 0), turn}) }))
		want = append(want, call{max(at, 0), turn})
	}
	for i := 0; i < len(timers); i += 3 {
		if !timers[i].Stop() || timers[i].Stop() {
			t.Fatal("Stop does not report what it did")
		}
		want[i].turn = -1
	}
	want = slices.DeleteFunc(want, func(c call) bool { return c.turn < 0 })
	if c.Waiting() != len(want) {
		t.Errorf("%d waiting, want %d", c.Waiting(), len(want))
	}
	slices.SortStableFunc(want, func(a, b call) int { return a.at - b.at })
	c.Advance(20 * time.Second)
	c.Advance(time.Minute)
	if !slices.Equal(got, want) {
		t.Error("calls of one time are not made in the order they were asked for")
	}
	if timers[1].Stop() || c.Waiting() != 0 {
		t.Error("a call that was made still waits")
	}
}

func BenchmarkFake(b *testing.B) {
	c := NewFake(time.Unix(100, 0))
	for i := range 10_000 {
		c.AfterFunc(time.Duration(i)*time.Hour, func() {})
	}
	for b.Loop() {
		c.AfterFunc(time.Second, func() {}).Stop()
		c.AfterFunc(time.Nanosecond, func() {})
		c.Advance(time.Nanosecond)
	}
}

func TestSystemKeepsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := System.Now()
		done := make(chan time.Time)
		System.AfterFunc(time.Minute, func() { done <- System.Now() })
		if took := (<-done).Sub(start); took != time.Minute {
			t.Errorf("called after %v, want 1m", took)
		}
		if System.AfterFunc(time.Hour, func() {}).Stop() != true {
			t.Error("Stop did not cancel")
		}
	})
}

func TestSleepEndsWithItsTimeOrItsContext(t *testing.T) {
	c := NewFake(time.Unix(0, 0))
	slept := make(chan bool, 1)
	go func() { slept <- Sleep(t.Context(), c, time.Second) }()
	for c.Waiting() == 0 {
		runtime.Gosched()
	}
	c.Advance(time.Second)
	if !<-slept {
		t.Error("the time has passed, and it says that it has not")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if Sleep(ctx, c, time.Second) || c.Waiting() != 0 {
		t.Error("it goes on without its context")
	}
}
