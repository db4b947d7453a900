package dynamodb

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// flaky are trees of which one can be told not to write.
type flaky struct {
	Trees
	fails atomic.Bool // appends to tables, not to the catalog
}

var errFlaky = errors.New("no space left")

func (f *flaky) Open(ctx context.Context, name string, create bool) (Tree, error) {
	tree, err := f.Trees.Open(ctx, name, create)
	if err != nil || name == Catalog {
		return tree, err
	}
	return flakyTree{tree, f}, nil
}

type flakyTree struct {
	Tree
	f *flaky
}

func (t flakyTree) Batch(ctx context.Context) (Batch, error) {
	b, err := t.Tree.Batch(ctx)
	return flakyBatch{b, t.f}, err
}

type flakyBatch struct {
	Batch
	f *flaky
}

func (b flakyBatch) Flush(ctx context.Context) error {
	if b.f.fails.Load() {
		return errFlaky
	}
	return b.Batch.Flush(ctx)
}

func TestWhatCouldNotBeWrittenIsNotThere(t *testing.T) {
	c := clock.NewFake(epoch)
	trees, err := NewMemory(c)
	if err != nil {
		t.Fatal(err)
	}
	defer trees.Close()
	f := &flaky{Trees: trees}
	r := rigOn(t, f, c)
	r.ok("CreateTable", simpleTable("left"))
	r.ok("CreateTable", simpleTable("right"))
	put := func(table, name, n string) string {
		return `{"TableName":"` + table + `","Item":{"a":{"S":"` + name + `"},"n":{"N":"` + n + `"}}}`
	}
	r.ok("PutItem", put("left", "x", "1"))
	f.fails.Store(true)
	if status, _ := r.do("PutItem", put("left", "y", "1")); status != 500 {
		t.Errorf("a write that failed: %d", status)
	}
	// The intent is written, and so the transaction is done. Its tables get it later.
	r.ok("TransactWriteItems", `{"TransactItems":[{"Put":`+put("left", "x", "2")+`},{"Put":`+put("right", "x", "2")+`}]}`)
	if status, _ := r.do("GetItem", `{`+account("left/x")+`}`); status != 500 {
		t.Errorf("a table that is owed a transaction was read: %d", status)
	}
	f.fails.Store(false)
	for _, name := range []string{"left/x", "right/x"} {
		if got := balance(r.ok("GetItem", `{`+account(name)+`}`)["Item"]); got != "2" {
			t.Errorf("%s is %s", name, got)
		}
	}
	if n := r.count(`{"TableName":"left"}`); n != 1 {
		t.Errorf("there are %v items", n)
	}
	r.ok("PutItem", put("left", "x", "3"))
	// A door that is opened again does not do it a second time.
	if err := r.door.Close(); err != nil {
		t.Fatal(err)
	}
	again := rigOn(t, f, c)
	if got := balance(again.ok("GetItem", `{`+account("left/x")+`}`)["Item"]); got != "3" {
		t.Errorf("after opening again it is %s", got)
	}
	if got := again.ok("DescribeTable", `{"TableName":"left"}`)["Table"].(map[string]any)["ItemCount"].(float64); got != 1 {
		t.Errorf("it counts %v items", got)
	}
}

func TestIdleTablesHaveNoGoroutines(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("first"))
	before := runtime.NumGoroutine()
	for i := range 50 {
		name := "table" + strings.Repeat("x", i)
		r.ok("CreateTable", simpleTable(name))
		r.ok("PutItem", `{"TableName":"`+name+`","Item":{"a":{"S":"x"}}}`)
	}
	r.until("goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
