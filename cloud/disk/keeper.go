package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// When a folder is looked at again.
const (
	settleDelay   = 200 * time.Millisecond // after the last change that was seen
	settleMax     = 2 * time.Second        // after the first one, if they don't end
	scanWatched   = 24 * time.Hour         // the whole, although it is watched
	scanUnwatched = time.Minute
	scanShare     = 20 // and not watched: at most this part of the time is spent looking
	retryDelay    = 30 * time.Second
	roomDelay     = time.Second // after which it is seen whether a full disk has room again
	unstableMin   = time.Second
	unstableMax   = 5 * time.Minute
)

// The guard asks before it removes from the cloud more than guardFiles files that
// are more than half of all, or guardFew and more that are nine tenths, within
// guardWindow.
const (
	guardFiles  = 100
	guardFew    = 10
	guardWindow = time.Hour
)

// maxDirty bounds how many changed paths are remembered: with more, the whole
// folder is looked through.
const maxDirty = 10_000

// Errors that callers branch on.
var (
	// ErrNotFound: the folder has nothing at the path.
	ErrNotFound = errors.New("not found")
	// ErrClosed: the Keeper was closed.
	ErrClosed = errors.New("keeper is closed")
)

// errPaused ends a round whose reason is in the notices.
var errPaused = errors.New("paused")

// config is what a Keeper works with; the seams are for tests.
type config struct {
	dir     string
	id      string
	source  source
	engine  storage.Engine
	clock   clock.Clock
	watcher *Watcher
	sparse  bool
	mended  int
	boot    string // names the time since the machine was started, or is empty
	booted  int64  // when that was, in nanoseconds since 1970; 0 where that is not known
	open    func(dir string) (files, error)
	changed func()
}

// A Keeper keeps a folder on the disk and one of the cloud the same.
type Keeper struct {
	c config
	x *index

	// round is held while one is under way, and guards what follows.
	round   sync.Mutex
	removed struct { // the guard's window
		since time.Time
		n, of int64
	}
	noted   int64        // how many paths the notices of later are about, without those missing
	powered bool         // it is known whether the power went
	unsure  bool         // the index may not know what was put last, on either side
	confirm bool         // what is gone may be removed
	restore bool         // what is gone is to be written again
	ended   []chan error // are told of the round that ends next

	mu       sync.Mutex // guards the fields below
	closed   bool
	running  bool
	full     bool            // the whole is to be looked through
	dirty    map[string]bool // paths that may have changed on the disk
	unstable map[string]unstable
	scan     notices // of the disk
	apply    notices // of the round
	later    notices // of what is to be written to the disk
	power    notices // of what a power cut did
	fetched  []string
	retry    time.Time // when that is tried again
	failing  bool      // some of that may work without anything being changed
	pause    string    // the code of the notice that says why, or ""
	failure  error     // that of the last round, if that is why
	busy     bool
	synced   bool // since it was opened
	gone     int64
	progress Progress
	unwatch  bool // watches ran out
	first    time.Time
	last     time.Time
	settle   clock.Timer
	again    clock.Timer
	lookout  clock.Timer
	ripe     clock.Timer
	lack     *room // when there was too little of it

	signal chan struct{}
	work   sync.WaitGroup
	stop   context.CancelFunc
}

// unstable is a file that changed while it was read.
type unstable struct {
	tries int
	at    time.Time
}

func newKeeper(c config) (*Keeper, error) {
	x, err := openIndex(c.engine, c.id)
	if err != nil {
		return nil, fmt.Errorf("keep folder %s: %w", c.dir, err)
	}
	if c.changed == nil {
		c.changed = func() {}
	}
	k := &Keeper{c: c, x: x, full: true, unsure: true, dirty: map[string]bool{}, unstable: map[string]unstable{}, scan: notices{}, apply: notices{}, power: notices{}, signal: make(chan struct{}, 1)}
	return k, nil
}

// Dir returns where the folder is.
func (k *Keeper) Dir() string { return k.c.dir }

// Close ends the Keeper: a Run that is under way, and what it has begun. The
// folder and the index stay open.
func (k *Keeper) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	stop := k.stop
	k.stopTimersLocked()
	k.mu.Unlock()
	if stop != nil {
		stop()
	}
	k.work.Wait()
	k.round.Lock()
	defer k.round.Unlock()
	return nil
}

func (k *Keeper) stopTimersLocked() {
	for _, t := range []clock.Timer{k.settle, k.again, k.lookout, k.ripe} {
		if t != nil {
			t.Stop()
		}
	}
}

// Run keeps both sides the same until ctx ends or the Keeper is closed, which is
// no error. It may be called once.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	k.mu.Lock()
	if k.closed || k.running {
		k.mu.Unlock()
		return ErrClosed
	}
	k.running, k.stop = true, stop
	k.work.Add(1)
	k.mu.Unlock()
	defer k.work.Done()
	defer k.ran()
	defer k.c.source.notify(k.wake)()
	if k.c.watcher != nil {
		defer k.c.watcher.leave(k)
	}
	var group sync.WaitGroup
	var fetching atomic.Bool
	defer group.Wait()
	for ctx.Err() == nil {
		began := k.c.clock.Now()
		err := k.look(ctx, false)
		if ctx.Err() != nil {
			return nil
		}
		if k.x.missing.Load() > 0 && fetching.CompareAndSwap(false, true) {
			group.Go(func() {
				// What can't be had now is tried again with the next round.
				n, _ := k.Fetch(ctx)
				fetching.Store(false)
				if n > 0 {
					k.wake()
				}
			})
		}
		k.schedule(k.c.clock.Now().Sub(began), err)
		select {
		case <-ctx.Done():
		case <-k.signal:
		}
	}
	return nil
}

// Wake begins a round of Run soon, as when another device can be reached: what is
// missing may be had from it.
func (k *Keeper) Wake() { k.wake() }

func (k *Keeper) wake() {
	select {
	case k.signal <- struct{}{}:
	default:
	}
}

// schedule says when to look again if nothing happens.
func (k *Keeper) schedule(took time.Duration, err error) {
	k.lookForRoom(took)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	now := k.c.clock.Now()
	next, full := scanWatched, true
	if k.c.watcher == nil || k.unwatch {
		next = max(scanUnwatched, scanShare*took)
	}
	if err != nil || k.pause != "" || k.failing || k.x.missing.Load() > 0 {
		retry := retryDelay
		if err == nil && k.pause != "" { // a question may stay open for long
			retry = max(retry, scanShare*took)
		}
		if next > retry {
			next, full = retry, err != nil || k.pause != ""
		}
	}
	if err == nil && k.pause == "" && (k.full || len(k.dirty) > 0) {
		// The round has found more to do; what is changing now has time to rest.
		next, full = settleDelay, false
	}
	for _, u := range k.unstable {
		if d := u.at.Sub(now); d < next {
			next, full = max(d, 0), false
		}
	}
	if k.again != nil {
		k.again.Stop()
	}
	k.again = k.c.clock.AfterFunc(next, func() {
		k.mu.Lock()
		k.full = k.full || full
		k.mu.Unlock()
		k.wake()
	})
}

// A room is how much there is.
type room struct {
	free uint64 // bytes on the disk of the folder
	full bool   // the index, and so likely the logs, take no more
}

// roomMin is how many bytes have to be freed for another try: a disk is never
// quite still.
const roomMin = 1 << 20

func (k *Keeper) room() room {
	var now room
	if f, err := k.c.open(k.c.dir); err == nil {
		now.free, _ = f.free()
		f.close()
	}
	var none storage.Batch
	now.full = errors.Is(k.x.e.Apply(&none, storage.Soon), storage.ErrFull)
	return now
}

// lookForRoom begins a round once a disk that is full has room again.
func (k *Keeper) lookForRoom(took time.Duration) {
	k.mu.Lock()
	full := k.pause == CodeDiskFull
	k.lack = nil
	k.mu.Unlock()
	if !full {
		return
	}
	lack := k.room()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lack = &lack
	k.lookOutLocked(&lack, k.c.clock.Now().Add(min(scanShare*took, retryDelay)))
}

// lookOutLocked looks each second, but has no round before from.
func (k *Keeper) lookOutLocked(lack *room, from time.Time) {
	if k.closed {
		return
	}
	k.lookout = k.c.clock.AfterFunc(roomDelay, func() {
		now := k.room()
		k.mu.Lock()
		defer k.mu.Unlock()
		switch {
		case k.lack != lack: // there was a round since
		case !k.c.clock.Now().Before(from) && (now.free >= lack.free+roomMin || lack.full && !now.full):
			k.full = true
			k.wake()
		default:
			k.lookOutLocked(lack, from)
		}
	})
}

// touched notes that a path on the disk may have changed, "" being everything,
// and begins a round once it is quiet.
func (k *Keeper) touched(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.noteLocked(path)
	k.last = k.c.clock.Now()
	if k.settle == nil {
		k.first = k.last
		k.settle = k.c.clock.AfterFunc(settleDelay, k.settled)
	}
}

func (k *Keeper) noteLocked(path string) {
	if path == "" || len(k.dirty) >= maxDirty {
		k.full = true
		clear(k.dirty)
	}
	if !k.full {
		k.dirty[path] = true
	}
}

// settled begins a round, unless there was a change lately.
func (k *Keeper) settled() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.c.clock.Now()
	if rest := settleDelay - now.Sub(k.last); rest > 0 && now.Sub(k.first) < settleMax && !k.closed {
		k.settle = k.c.clock.AfterFunc(rest, k.settled)
		return
	}
	k.settle = nil
	k.wake()
}

// Sync looks through the whole folder and makes both sides the same, as far as
// can be without waiting for other devices; see Fetch for that. An error is
// about all of it: what is about single paths is in the notices.
func (k *Keeper) Sync(ctx context.Context) error { return k.look(ctx, true) }

// look does a round.
func (k *Keeper) look(ctx context.Context, full bool) error {
	k.round.Lock()
	defer k.round.Unlock()
	now := k.c.clock.Now()
	targets, err := k.begin(now, full)
	if err != nil {
		return err
	}
	r := &round{k: k, x: k.x, source: k.c.source, targets: targets, now: now, tried: map[string]bool{}}
	if targets == nil {
		r.targets = []string{""}
		r.full = true
	}
	err = r.run(ctx)
	k.end(r, err)
	switch {
	case errors.Is(err, errPaused):
		err = nil
	case err != nil:
		err = fmt.Errorf("keep folder %s: %w", k.c.dir, err)
	}
	k.tell(err)
	return err
}

// ran is for the end of Run: nobody waits for a round of it any more.
func (k *Keeper) ran() {
	k.round.Lock()
	defer k.round.Unlock()
	k.mu.Lock()
	k.stop = nil
	k.mu.Unlock()
	k.tell(ErrClosed)
}

// tell tells those who wait for the end of a round. k.round is held.
func (k *Keeper) tell(err error) {
	for _, ended := range k.ended {
		ended <- err
	}
	k.ended = nil
}

// answer has f change what a round asks for, and waits for one over everything. Run
// does it if it can, so that what was answered goes on when ctx ends.
func (k *Keeper) answer(ctx context.Context, f func() error) error {
	k.round.Lock()
	err := f()
	k.mu.Lock()
	run := k.stop != nil
	k.full = k.full || run
	k.mu.Unlock()
	ended := make(chan error, 1)
	if run && err == nil {
		k.ended = append(k.ended, ended)
	}
	k.round.Unlock()
	if err != nil {
		return err
	}
	if !run {
		return k.Sync(ctx)
	}
	k.wake()
	select {
	case err = <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("keep folder %s: it goes on: %w", k.c.dir, ctx.Err())
	}
}

// begin takes the paths that are to be looked at; nil is everything.
func (k *Keeper) begin(now time.Time, full bool) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, ErrClosed
	}
	full = full || k.full
	targets := []string{}
	for path := range k.dirty {
		targets = append(targets, path)
	}
	for path, u := range k.unstable {
		if !u.at.After(now) && !k.dirty[path] {
			targets = append(targets, path)
		}
	}
	clear(k.dirty)
	k.busy = true
	k.progress = Progress{FilesToGo: k.progress.FilesToGo, BytesToGo: k.progress.BytesToGo}
	k.apply = notices{}
	if full {
		k.full = false
		k.scan = notices{}
		k.unwatch = false
		targets = nil
	} else {
		slices.Sort(targets)
	}
	return targets, nil
}

func (k *Keeper) end(r *round, err error) {
	k.mu.Lock()
	k.busy = false
	k.pause, k.failure = "", nil
	if err != nil && r.pause == "" && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		r.pause, k.failure = CodeSync, err
		if isFull(err) {
			r.pause, k.failure = CodeDiskFull, nil
		}
	}
	switch {
	case r.pause != "":
		k.pause = r.pause
		k.apply.add(r.pause, "")
	case err == nil:
		k.synced = true
	}
	if err != nil {
		// What was not done is found again by looking at everything.
		k.full = true
	} else {
		// What was due and does not wait again is at rest or gone.
		maps.DeleteFunc(k.unstable, func(_ string, u unstable) bool { return !u.at.After(r.now) })
	}
	k.gone = r.gone
	k.progress.Path = ""
	if r.full && err == nil {
		k.progress.FilesToGo, k.progress.BytesToGo = 0, 0
	}
	k.ripenLocked()
	k.mu.Unlock()
	k.c.changed()
}

// Status returns how things are.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{State: UpToDate, Waiting: k.x.waiting.Load(), Gone: k.gone, Progress: k.progress}
	s.Files, s.Bytes = k.x.files.Load(), k.x.bytes.Load()
	all := notices{}
	for _, n := range []notices{k.scan, k.apply, k.later, k.power} {
		for code, note := range n {
			all[code] = note
		}
	}
	missing := k.x.missing.Load()
	delete(all, CodeMissing)
	if missing > 0 {
		all[CodeMissing] = &Notice{Code: CodeMissing, Count: int(missing)}
		if n := k.later[CodeMissing]; n != nil {
			all[CodeMissing].Paths = n.Paths
		}
	}
	if k.unwatch {
		all.add(CodeWatch, "")
	}
	s.Notices = all.list(k.c.dir)
	switch {
	case k.pause != "":
		s.State = Paused
		s.Why = strings.ReplaceAll(words[k.pause].text, "%s", k.c.dir)
		if k.failure != nil {
			s.Why += ": " + k.failure.Error()
		}
	case k.busy || !k.synced || k.full && k.running || len(k.dirty) > 0 || missing > 0:
		s.State = Syncing
	}
	return s
}

// Confirm says that what is gone from the disk was meant to be removed: see the
// notice mass-delete.
func (k *Keeper) Confirm(ctx context.Context) error {
	return k.answer(ctx, func() error {
		k.confirm = true
		return nil
	})
}

// Restore writes what is gone from the disk again.
func (k *Keeper) Restore(ctx context.Context) error {
	return k.answer(ctx, func() error {
		k.restore = true
		return nil
	})
}

// Here says that what is at the folder's place now is the folder, although it is
// another than before: see the notice folder-replaced.
func (k *Keeper) Here(ctx context.Context) error {
	return k.answer(ctx, func() error {
		k.x.unset(spaceMeta, "root")
		return k.x.commit(true)
	})
}

// Forget removes all that is known of the folder from the index: what is on the
// disk and in the cloud stays. It is for a Keeper that was closed: a round under
// way would remember what it does.
func (k *Keeper) Forget() error {
	k.round.Lock()
	defer k.round.Unlock()
	return k.x.clear()
}

// Get writes a path of a sparse folder to the disk, and all that is in it, once
// its content is here: with Fetch or Run it is brought.
func (k *Keeper) Get(ctx context.Context, path string) error {
	e, err := k.c.source.stat(ctx, path)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	k.round.Lock()
	if e == nil && path != "" && !k.hasIn(ctx, path) {
		k.round.Unlock()
		return fmt.Errorf("get %s: %w", path, ErrNotFound)
	}
	k.x.set(spaceWant, path, nil)
	if e == nil || e.kind == kindDir {
		k.x.set(spaceMeta, "all", nil) // what is in it comes as if it was new
	} else if known, rowErr := k.x.row(path); known == nil && rowErr == nil {
		err = k.x.setLater(path, CodeMissing, nil)
		k.mu.Lock()
		k.fetched = append(k.fetched, path) // if it is here, it is written at once
		k.mu.Unlock()
	}
	err = errors.Join(err, k.x.commit(true))
	k.round.Unlock()
	if err != nil {
		return err
	}
	k.wake()
	if !k.isRunning() {
		return k.look(ctx, false)
	}
	return nil
}

// hasIn tells whether there is something in a folder that is not there for itself.
func (k *Keeper) hasIn(ctx context.Context, path string) bool {
	for c, err := range k.c.source.changes(ctx, nil) {
		if err != nil {
			return false
		}
		if c.now != nil && strings.HasPrefix(c.path, path+"/") {
			return true
		}
	}
	return false
}

func (k *Keeper) isRunning() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.running
}

// Free removes a file of a sparse folder from the disk, and leaves it in the
// cloud. What was changed and is not in the cloud yet is not removed.
func (k *Keeper) Free(ctx context.Context, path string) error {
	k.round.Lock()
	defer k.round.Unlock()
	if !k.c.sparse {
		return fmt.Errorf("free %s: the folder keeps all its files on this disk", path)
	}
	f, err := k.c.open(k.c.dir)
	if err != nil {
		return fmt.Errorf("free %s: %w", path, err)
	}
	defer f.close()
	r, err := k.x.row(path)
	if err != nil {
		return err
	}
	now, err := f.lstat(path)
	switch {
	case r == nil || errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("free %s: %w on this disk", path, ErrNotFound)
	case err != nil:
		return fmt.Errorf("free %s: %w", path, err)
	case r.kind != kindFile || r.stamp == "" || !r.same(now):
		return fmt.Errorf("free %s: %w", path, errChanged)
	case r.racy: // its times tell nothing
		if err := isStill(ctx, f, path, r); err != nil {
			return fmt.Errorf("free %s: %w", path, err)
		}
	}
	// First it is forgotten: a file that is there and not known is put, one that is
	// known and not there is removed.
	k.x.put(path, nil)
	k.x.unset(spaceWant, path)
	if err := k.x.commit(true); err != nil {
		return err
	}
	if err := f.remove(path); err != nil {
		return fmt.Errorf("free %s: %w", path, err)
	}
	parent, _ := split(path)
	return f.syncDir(parent)
}

// isStill reads a file, and gives errChanged if it is not that of a row.
func isStill(ctx context.Context, from files, path string, r *row) error {
	f, now, err := from.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	hash, err := hashOf(&reader{ctx: ctx, f: f, before: now, count: func(int) {}})
	if err == nil && (hash != r.hash || !r.same(now)) {
		err = errChanged
	}
	return err
}

// A content has fetchMin to come, and the time that fetchRate takes for its bytes.
// Then others have their turn.
const (
	fetchParallel = 32
	fetchMin      = 30 * time.Second
	fetchRate     = 64 << 10 // bytes a second
	fetchShare    = 16       // after this part of what is missing, what came is written
)

// Fetch brings contents here that are missing, and returns how many files it
// brought. It waits for other devices, for each content for some time.
func (k *Keeper) Fetch(ctx context.Context) (int, error) {
	var (
		group sync.WaitGroup
		n     int
		first error
	)
	every := max(256, int(k.x.missing.Load())/fetchShare)
	slots := make(chan struct{}, fetchParallel)
	fetched := func(path string, err error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if err != nil {
			first = err
			return
		}
		if len(k.fetched) <= maxDirty {
			k.fetched = append(k.fetched, path)
		}
		if n++; n%every == 0 {
			k.wake()
		}
	}
	for path, reason := range k.x.scan(spaceLater, "", "") {
		if codeOf(reason) != CodeMissing {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		e, err := k.c.source.stat(ctx, path)
		if err != nil {
			fetched(path, err)
			break
		}
		if e == nil {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			fetched(path, k.fetchOne(ctx, e))
			<-slots
		})
	}
	group.Wait()
	if first != nil {
		return n, fmt.Errorf("fetch contents for %s: %w", k.c.dir, first)
	}
	return n, ctx.Err()
}

func (k *Keeper) fetchOne(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit := fetchMin + time.Duration(e.size/fetchRate)*time.Second
	defer k.c.clock.AfterFunc(limit, cancel).Stop()
	return k.c.source.fetch(ctx, e)
}

// Measure counts what is on the disk, so that Progress tells how much is to go.
func (k *Keeper) Measure(ctx context.Context) (files, bytes int64, err error) {
	f, err := k.c.open(k.c.dir)
	if err != nil {
		return 0, 0, fmt.Errorf("measure %s: %w", k.c.dir, err)
	}
	defer f.close()
	r := &round{k: k, files: f, x: k.x, measure: true}
	if err := r.loadIgnore(); err != nil {
		return 0, 0, err
	}
	for at := range r.walk(ctx, "") {
		if at.err == nil && at.stat.kind == kindFile {
			files++
			bytes += at.stat.size
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.progress.FilesToGo, k.progress.BytesToGo = files, bytes
	return files, bytes, ctx.Err()
}

// round is one pass over changed paths.
type round struct {
	k       *Keeper
	files   files
	x       *index
	source  source
	targets []string
	full    bool
	measure bool
	now     time.Time
	rules   rules
	mute    bool // this device can't write to the folder
	calm    bool // the folder is as the index has it, so that it need not be asked
	behind  bool // the folder has not all that the index knows of it
	out     outbox
	in      inbox
	pause   string
	clash   bool // a file is where a folder should be
	moved   bool // something went, and may have made room
	gone    int64
	tried   map[string]bool // paths that need not be written later any more, once flushIn has returned
	brought map[string]bool // paths that the power cut took, and that are written again
}

func (r *round) run(ctx context.Context) (err error) {
	if r.files, err = r.k.c.open(r.k.c.dir); err != nil {
		return r.stop(CodeRootGone)
	}
	defer r.files.close()
	defer r.out.close()
	r.mute = !r.source.writable()
	if err := r.checkRoot(); err != nil {
		return err
	}
	if err := r.loadIgnore(); err != nil {
		return err
	}
	if err := r.checkMode(); err != nil {
		return err
	}
	if err := r.checkMended(ctx); err != nil {
		return err
	}
	if err := r.checkPower(); err != nil {
		return err
	}
	if err := r.recover(ctx); err != nil {
		return err
	}
	if err := r.local(ctx); err != nil {
		return err
	}
	if r.behind {
		return r.remote(ctx)
	}
	for _, part := range []func(context.Context) error{r.removals, r.remote, r.prune, r.later, r.prune} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return r.believe()
}

// stop ends the round with a notice.
func (r *round) stop(code string) error {
	r.pause = code
	return errPaused
}

// checkRoot makes sure that the folder is the one that is known.
func (r *round) checkRoot() error {
	s, err := r.files.root()
	if err != nil || s.kind != kindDir {
		return r.stop(CodeRootGone)
	}
	known, err := r.x.meta("root")
	if err != nil {
		return err
	}
	now := binary.BigEndian.AppendUint64(nil, s.inode)
	if string(now) == string(known) {
		return nil
	}
	// A file system may give a folder another number. Then its files are there.
	if known != nil && s.inode != 0 && !r.looksKnown() {
		return r.stop(CodeRootOther)
	}
	r.x.set(spaceMeta, "root", now)
	return r.x.commit(true)
}

// looksKnown tells whether half of some files that the index has are there.
func (r *round) looksKnown() bool {
	const sample = 64
	seen, there := 0, 0
	for path, value := range r.x.scan(spaceFile, "", "") {
		known, err := readRow(value)
		if err != nil || known.kind != kindFile {
			continue
		}
		if now, err := r.files.lstat(path); err == nil && now.size == known.size && now.mtime == known.mtime {
			there++
		}
		if seen++; seen == sample {
			break
		}
	}
	return 2*there >= seen
}

// loadIgnore reads the rules. With others than before everything is compared.
func (r *round) loadIgnore() error {
	text := ""
	f, _, err := r.files.open("/" + IgnoreFile)
	if err == nil {
		b, err := io.ReadAll(io.LimitReader(f, maxIgnore))
		f.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", IgnoreFile, err)
		}
		text = string(b)
	} else if !notThere(err) && !errors.Is(err, errKind) {
		// What can't be read might keep anything out.
		return fmt.Errorf("read %s: %w", IgnoreFile, err)
	}
	r.rules = parseIgnore(text)
	if r.measure {
		return nil
	}
	sum := ""
	if len(r.rules) > 0 {
		h := sha256.Sum256([]byte(text))
		sum = string(h[:])
	}
	return r.settled("ignore", sum)
}

// checkMode has everything compared when sparse was switched off.
func (r *round) checkMode() error {
	mode := ""
	if r.k.c.sparse {
		mode = "sparse"
	}
	return r.settled("mode", mode)
}

// checkMended has everything compared when the versions that the index has name
// other blocks by now. What it knows of files is from before, and stays.
func (r *round) checkMended(ctx context.Context) error {
	before, err := r.x.meta("mended")
	now := ""
	if r.k.c.mended > 0 {
		now = strconv.Itoa(r.k.c.mended)
	}
	if err != nil || string(before) == now {
		return err
	}
	if cursor, err := r.x.meta("cursor"); err != nil {
		return err
	} else if cursor != nil {
		version, err := r.source.version(ctx)
		if err != nil {
			return err
		}
		r.x.set(spaceMeta, "cursor", version)
		r.x.set(spaceMeta, "unresolved", tree.Version{}.AppendTo(nil))
	}
	return r.settled("mended", now)
}

// settled begins anew when a setting is another than before.
func (r *round) settled(name, now string) error {
	before, err := r.x.meta(name)
	if err != nil || string(before) == now {
		return err
	}
	r.x.set(spaceMeta, "all", nil)
	r.x.set(spaceMeta, name, []byte(now))
	if !r.full {
		r.full = true
		r.targets = []string{""}
	}
	return r.x.commit(true)
}

// progress changes what Status tells.
func (r *round) progress(f func(p *Progress)) {
	r.k.mu.Lock()
	f(&r.k.progress)
	r.k.mu.Unlock()
}

// scanned notes something about a path on the disk.
func (r *round) scanned(code, path string) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	r.k.scan.add(code, path)
	r.k.progress.Errors++
}

// lstat returns nil if there is nothing, also if a name is taken by another.
func (r *round) lstat(path string) (*stat, error) {
	s, err := r.files.lstat(path)
	switch {
	case err == nil:
		return &s, nil
	case notThere(err) || errors.Is(err, errClash):
		return nil, nil
	}
	return nil, err
}

func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) || errors.Is(err, syscall.ENOTDIR)
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota) || errors.Is(err, storage.ErrFull)
}

// clean makes a path of the folder from one on the disk.
func clean(dir, path string) (string, bool) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return "", false
	}
	if rel == "." {
		return "", true
	}
	return "/" + filepath.ToSlash(rel), true
}
