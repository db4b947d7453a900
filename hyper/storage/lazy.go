package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
)

// A lazyDisk is a store that was closed properly, and that nobody has written to
// since it was opened: it is open for reading. The first that needs more opens
// it for writing. Its lock is held all the time.
type lazyDisk struct {
	writer *disk                // has the lock
	ready  atomic.Pointer[disk] // writer, once it is open

	mu     sync.RWMutex // held shared to use reader, alone to replace it
	reader *disk
	err    error // why neither can be used
}

var _ Engine = (*lazyDisk)(nil)

// reader opens the folder for reading only, or returns nil when there is
// anything to write, or wrong: opening it for writing tells.
func (d *disk) reader() *disk {
	if d.opts.ReadOnly {
		return nil
	}
	if _, err := d.opts.FS.Stat(d.path(sealName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	o := d.opts
	o.ReadOnly = true
	r := newDisk(o)
	if r.start() != nil {
		return nil
	}
	if r.copied || len(r.segments.wasteful(nil)) > 0 {
		_ = r.Close() // it has only read
		return nil
	}
	return r
}

// current returns what can be read. The caller holds mu.
func (l *lazyDisk) current() (*disk, error) {
	if d := l.ready.Load(); d != nil {
		return d, nil
	}
	return l.reader, l.err
}

// write returns the store, open for writing.
func (l *lazyDisk) write() (*disk, error) {
	if d := l.ready.Load(); d != nil {
		return d, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.ready.Load(); d != nil || l.err != nil {
		return d, l.err
	}
	if err := l.writer.roomToOpen(); err != nil {
		return nil, err // and the next write may find some
	}
	if err := l.reader.Close(); err != nil {
		l.err = errors.Join(err, l.writer.unlock())
		return nil, l.err
	}
	if err := l.writer.start(); err != nil {
		l.err = fmt.Errorf("open store %s for writing: %w", l.writer.opts.Dir, err)
		return nil, l.err
	}
	l.ready.Store(l.writer)
	return l.writer, nil
}

func (l *lazyDisk) Get(key []byte) ([]byte, error) {
	if d := l.ready.Load(); d != nil {
		return d.Get(key)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	d, err := l.current()
	if err != nil {
		return nil, err
	}
	return d.Get(key)
}

func (l *lazyDisk) Blob(key, buf []byte) ([]byte, error) {
	if d := l.ready.Load(); d != nil {
		return d.Blob(key, buf)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	d, err := l.current()
	if err != nil {
		return nil, err
	}
	return d.Blob(key, buf)
}

// Scan opens the store for writing: its callback may write.
func (l *lazyDisk) Scan(from, to []byte, f func(key, value []byte) bool) error {
	d, err := l.write()
	if err != nil {
		return err
	}
	return d.Scan(from, to, f)
}

func (l *lazyDisk) Apply(b *Batch, durability Durability) error {
	d, err := l.write()
	if err != nil {
		return err
	}
	return d.Apply(b, durability)
}

func (l *lazyDisk) Sync() error {
	if d := l.ready.Load(); d != nil {
		return d.Sync()
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	d, err := l.current()
	if err != nil {
		return err
	}
	return d.Sync()
}

// Snapshot opens the store for writing: a snapshot may outlive the first write.
func (l *lazyDisk) Snapshot() (Snapshot, error) {
	d, err := l.write()
	if err != nil {
		return nil, err
	}
	return d.Snapshot()
}

func (l *lazyDisk) Stats() (Stats, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	d, err := l.current()
	if err != nil {
		return Stats{}, err
	}
	return d.Stats()
}

func (l *lazyDisk) Close() error {
	l.mu.Lock()
	if d := l.ready.Load(); d != nil {
		l.mu.Unlock() // who waits for space inside holds no lock of ours
		return d.Close()
	}
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.err = ErrClosed
	return errors.Join(l.reader.Close(), l.writer.unlock())
}
