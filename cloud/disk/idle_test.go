package disk

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// TestManyIdleFolders holds what folders cost that nothing happens to.
func TestManyIdleFolders(t *testing.T) {
	const folders, each = 100, 5
	w := newTestWatcher(t)
	engine := storage.NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer func() { cancel(); work.Wait() }()
	var was, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&was)
	goroutines := runtime.NumGoroutine()
	var rounds sync.WaitGroup
	for i := range folders {
		dir := t.TempDir()
		rounds.Add(1)
		var once sync.Once
		k, err := newKeeper(config{dir: dir, id: fmt.Sprint(i), source: newFake("a"), engine: engine, clock: clock.NewFake(time.Now()), watcher: w, open: opener(),
			changed: func() { once.Do(rounds.Done) }})
		must(t, err)
		smallFiles(t, dir, each)
		work.Go(func() { _ = k.Run(ctx) })
	}
	rounds.Wait()
	runtime.GC()
	runtime.ReadMemStats(&now)
	bytes := int64(now.HeapInuse+now.StackInuse) - int64(was.HeapInuse+was.StackInuse)
	t.Logf("%d folders: %d KiB, %d goroutines", folders, bytes>>10, runtime.NumGoroutine()-goroutines)
	// One goroutine each, that waits. The contents are those of the fake cloud.
	if n := runtime.NumGoroutine() - goroutines; n > folders+10 || bytes > 100<<10*folders {
		t.Errorf("they cost %d bytes and %d goroutines", bytes, n)
	}
}
