package dynamodb

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func TestChangesOfATable(t *testing.T) {
	logs, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	c := clock.NewFake(epoch)
	a := rigOn(t, &device{logs: logs, own: "a", peer: "b", clock: c}, c)
	a.ok("CreateTable", newPeople)
	b := rigOn(t, &device{logs: logs, own: "b", peer: "a", clock: c}, c)
	put := func(r *rig, n int, color string) {
		c.Advance(time.Second)
		r.ok("PutItem", fmt.Sprintf(`{"TableName":"people","Item":{"a":{"S":"x"},"b":{"N":"%d"},"c":{"S":%q}}}`, n, color))
	}
	told := 0
	stop, err := a.door.NotifyChanges(t.Context(), "people", func() { told++ })
	if err != nil {
		t.Fatal(err)
	}
	put(a, 1, "red")
	put(b, 1, "blue")
	put(a, 2, "red")
	c.Advance(time.Second)
	b.ok("DeleteItem", `{"TableName":"people","Key":{"a":{"S":"x"},"b":{"N":"1"}}}`)
	b.ok("DeleteItem", `{"TableName":"people","Key":{"a":{"S":"x"},"b":{"N":"7"}}}`) // there is none
	stop()
	if told == 0 {
		t.Error("nobody was told")
	}
	read := func(cursor string) (list, cursors []string) {
		for e, err := range a.door.Changes(t.Context(), "people", cursor) {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("%s %s %s %s", e.Event, e.Keys, e.New, e.Old))
			cursors = append(cursors, e.Cursor)
		}
		return list, cursors
	}
	list, cursors := read("")
	one, two := `{"a":{"S":"x"},"b":{"N":"1"}}`, `{"a":{"S":"x"},"b":{"N":"2"}}`
	item := func(n int, color string) string {
		return fmt.Sprintf(`{"a":{"S":"x"},"b":{"N":"%d"},"c":{"S":%q}}`, n, color)
	}
	want := []string{
		"PUT " + one + " " + item(1, "red") + " ", "PUT " + one + " " + item(1, "blue") + " ",
		"PUT " + two + " " + item(2, "red") + " ", "REMOVE " + one + "  " + item(1, "blue"),
	}
	if !slices.Equal(list, want) {
		t.Errorf("%q, want %q", list, want)
	}
	for i, cursor := range cursors {
		if rest, _ := read(cursor); !slices.Equal(rest, want[i+1:]) {
			t.Errorf("behind the change %d: %q", i, rest)
		}
	}
	now, err := a.door.Cursor(t.Context(), "people")
	if err != nil {
		t.Fatal(err)
	}
	if rest, _ := read(now); len(rest) != 0 {
		t.Errorf("from now on: %q", rest)
	}
	put(b, 3, "red")
	if rest, _ := read(now); len(rest) != 1 {
		t.Errorf("later: %q", rest)
	}
	for _, err := range a.door.Changes(t.Context(), "people", "!") {
		if !errors.Is(err, ErrCursor) {
			t.Errorf("a wrong cursor: %v", err)
		}
	}
	for _, err := range a.door.Changes(t.Context(), "none", "") {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("no table: %v", err)
		}
	}
	if _, err := rigOn(t, mustMemory(t), c).door.Cursor(t.Context(), "x"); err == nil {
		t.Error("a cursor of no table")
	}
}

func mustMemory(t *testing.T) Trees {
	t.Helper()
	trees, err := NewMemory(clock.NewFake(epoch))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trees.Close() })
	return trees
}
