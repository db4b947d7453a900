package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble ends the process when it can't write its log or manifest, and tries
// for ever, without a pause, when it can't write a table. Both is wrong for a
// full disk, and the first for any process that does more than this. So a guard
// stands between Pebble and the file system:
//
//   - A write that finds the disk full waits for space. Meanwhile Apply refuses
//     more. What the log waits for has a writer waiting too, so that is bounded.
//   - Any other failure of a write, and a sync that fails for any reason, is the
//     end: from then on nothing of Pebble reaches the disk, which stays as a
//     crash would have left it. Writes to the log and to folders seem to
//     succeed, and Apply, which knows better, returns the error to whoever
//     waited for them. Who writes other files is in the background and stops.
//
// The store can then be closed, and opened anew in the same process.
//
// It also keeps the order between the two kinds of files: nothing is written to
// Pebble's log before the segments are on the disk that it may point to.
type guard struct {
	vfs.FS
	clock clock.Clock
	dir   string
	blobs atomic.Pointer[segments] // nil while opening

	syncs   atomic.Uint64
	armed   atomic.Bool // off while opening: then errors are simply returned
	closing chan struct{}
	waiting atomic.Int32 // writes that wait for space
	failed  atomic.Pointer[failure]
	dead    chan struct{} // closed when failed is set
}

// A failure is why a store can't go on.
type failure struct {
	err error
	// broken: the database contradicts itself, so reads can't be trusted.
	broken bool
}

const (
	// fullPause is the time between tries to write to a full disk.
	fullPause = time.Second
	// logPatience is how often the log tries.
	logPatience = 10
)

func newGuard(d *disk) *guard {
	return &guard{FS: d.opts.FS, clock: d.opts.Clock, dir: d.opts.Dir,
		closing: make(chan struct{}), dead: make(chan struct{})}
}

// fail ends all writing. The first error stays.
func (g *guard) fail(err error, broken bool) {
	f := &failure{fmt.Errorf("store %s failed and must be opened anew: %w", g.dir, diskError(err)), broken}
	if g.failed.CompareAndSwap(nil, f) {
		close(g.dead)
	}
}

// failure returns why the store can't go on, or nil.
func (g *guard) failure() error {
	if f := g.failed.Load(); f != nil {
		return f.err
	}
	return nil
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// write does something that changes the disk. It reports whether it was done;
// if not, it must be made to look so.
func (g *guard) write(name string, do func() error) (bool, error) {
	for try := 1; ; try++ {
		if g.failed.Load() != nil {
			g.stop(name)
			return false, nil
		}
		err := do()
		if err == nil || !g.armed.Load() {
			return true, err
		}
		if errors.Is(err, syscall.ENOSPC) && (!isLog(name) || try <= logPatience) && g.wait() {
			continue
		}
		g.fail(err, false)
	}
}

// sync is write for what must not be tried again: a second fsync may succeed
// though the first lost what was to be synced.
func (g *guard) sync(name string, do func() error) error {
	if g.failed.Load() != nil {
		g.stop(name)
		return nil
	}
	g.syncs.Add(1)
	err := do()
	if err != nil && g.armed.Load() {
		g.fail(err, false)
		g.stop(name)
		return nil
	}
	return err
}

// stop ends a goroutine of the background for good. Log files and folders are
// written by others too.
func (g *guard) stop(name string) {
	if !isLog(name) && name != g.dir {
		select {}
	}
}

// wait returns when it is worth to try again, or false.
func (g *guard) wait() bool {
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	again := make(chan struct{})
	timer := g.clock.AfterFunc(fullPause, func() { close(again) })
	defer timer.Stop()
	select {
	case <-again:
		return true
	case <-g.closing:
		return false
	}
}

func (g *guard) Unwrap() vfs.FS { return g.FS }

func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if g.isMarker(name) {
		if err := g.syncFolderOf(name); err != nil { // what it names comes first
			return nil, err
		}
	}
	return g.open(name, func() (vfs.File, error) { return g.FS.Create(name, category) })
}

func (g *guard) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.open(name, func() (vfs.File, error) {
		f, err := g.FS.ReuseForWrite(old, name, category)
		if errors.Is(err, fs.ErrNotExist) {
			return g.FS.Create(name, category) // the old one was removed, see removeOldLogs
		}
		return f, err
	})
}

func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.open(name, func() (vfs.File, error) { return g.FS.OpenReadWrite(name, category, opts...) })
}

func (g *guard) open(name string, open func() (vfs.File, error)) (f vfs.File, err error) {
	done, err := g.write(name, func() error { f, err = open(); return err })
	if err != nil {
		return nil, err
	}
	if !done {
		f = vfs.NewMemFile(nil) // never written: guardedFile knows
	}
	return &guardedFile{f, g, name}, nil
}

func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardedFile{f, g, name}, nil
}

func (g *guard) Link(old, name string) error {
	_, err := g.write(name, func() error { return g.FS.Link(old, name) })
	return err
}

func (g *guard) Rename(old, name string) error {
	_, err := g.write(name, func() error { return g.FS.Rename(old, name) })
	return err
}

// Remove may fail: Pebble tries again with the next start.
func (g *guard) Remove(name string) error {
	if g.failed.Load() != nil {
		return nil
	}
	if g.isMarker(name) {
		if err := g.syncFolderOf(name); err != nil { // the new one comes first
			return err
		}
	}
	return g.FS.Remove(name)
}

// Pebble moves a marker, which says which manifest counts, by making the
// manifest, then the new marker, then removing the old one, and syncs the folder
// after all three. A file system that keeps no order could keep a later one and
// lose an earlier one, and with it the whole database. So the folder is synced
// in between.
func (g *guard) isMarker(name string) bool {
	return strings.HasPrefix(g.PathBase(name), markerPrefix)
}

func (g *guard) syncFolderOf(name string) error {
	dir, err := g.OpenDir(g.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

const markerPrefix = "marker."

func (g *guard) RemoveAll(name string) error {
	if g.failed.Load() != nil {
		return nil
	}
	return g.FS.RemoveAll(name)
}

// Lock does nothing: the lock was taken before Pebble asks for it.
func (g *guard) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

type guardedFile struct {
	vfs.File
	g    *guard
	name string
}

// blobsFirst syncs what is about to be pointed to. What is in tables was in the
// log before: Pebble closes a log before it writes the tables that replace it.
func (g *guard) blobsFirst() {
	s := g.blobs.Load()
	if s == nil || g.failed.Load() != nil {
		return
	}
	if err := s.syncSoon(); err != nil {
		g.fail(err, false)
	}
}

func (f *guardedFile) Write(p []byte) (n int, err error) {
	if isLog(f.name) {
		f.g.blobsFirst()
	}
	_, err = f.g.write(f.name, func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *guardedFile) WriteAt(p []byte, at int64) (n int, err error) {
	_, err = f.g.write(f.name, func() error {
		m, err := f.File.WriteAt(p[n:], at+int64(n))
		n += m
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *guardedFile) Sync() error     { return f.g.sync(f.name, f.File.Sync) }
func (f *guardedFile) SyncData() error { return f.g.sync(f.name, f.File.SyncData) }

func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	if f.g.failed.Load() != nil {
		f.g.stop(f.name)
		return true, nil
	}
	full, err = f.File.SyncTo(length)
	if full {
		f.g.syncs.Add(1)
	}
	if err != nil && f.g.armed.Load() {
		f.g.fail(err, false)
		f.g.stop(f.name)
		return true, nil
	}
	return full, err
}

// A plainGuard is the guard's file system for those that take errors as they
// are: segments. After a failure it refuses to change anything.
type plainGuard struct{ *guard }

func (g plainGuard) open(open func() (vfs.File, error)) (vfs.File, error) {
	if err := g.failure(); err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &plainFile{f, g.guard}, nil
}

func (g plainGuard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.open(func() (vfs.File, error) { return g.FS.Create(name, category) })
}

func (g plainGuard) OpenDir(name string) (vfs.File, error) {
	return g.open(func() (vfs.File, error) { return g.FS.OpenDir(name) })
}

func (g plainGuard) MkdirAll(name string, perm os.FileMode) error {
	if err := g.failure(); err != nil {
		return err
	}
	return g.FS.MkdirAll(name, perm)
}

func (g plainGuard) Remove(name string) error {
	if err := g.failure(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

type plainFile struct {
	vfs.File
	g *guard
}

// Write leaves p alone. Files of a vfs may change it, except those of the system.
func (f *plainFile) Write(p []byte) (int, error) {
	if err := f.g.failure(); err != nil {
		return 0, err
	}
	if f.Fd() == vfs.InvalidFd {
		p = bytes.Clone(p)
	}
	return f.File.Write(p)
}

func (f *plainFile) sync(do func() error) error {
	if err := f.g.failure(); err != nil {
		return err
	}
	f.g.syncs.Add(1)
	return do()
}

func (f *plainFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *plainFile) SyncData() error { return f.sync(f.File.SyncData) }

// A gate lets users in until it is closed, and knows when the last has left.
type gate struct {
	state atomic.Int64 // users inside, and gateClosed
	empty chan struct{}
}

const gateClosed = 1 << 62

func newGate() gate { return gate{empty: make(chan struct{}, 1)} }

// enter reports whether the caller is inside, and must leave.
func (g *gate) enter() bool {
	if g.state.Add(1) < gateClosed {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.state.Add(-1) == gateClosed {
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
}

// close lets nobody in any more. The channel it returns has something when
// nobody is inside.
func (g *gate) close() <-chan struct{} {
	if g.state.Add(gateClosed) == gateClosed {
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
	return g.empty
}
