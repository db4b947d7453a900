package clock

import (
	"fmt"
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
