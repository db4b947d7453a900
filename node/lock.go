package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cloudbevy/bevy/client"
)

// A Record tells which process has a store, or had it last.
type Record struct {
	Version int       `json:"version"` // 1 (docs/formats/node.md)
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Socket  string    `json:"socket,omitempty"`
	Address string    `json:"address,omitempty"` // "" until it is ready
	Control string    `json:"control,omitempty"` // what client.Dial takes
	Ended   string    `json:"ended,omitempty"`   // "stopped" or "idle"; "" while it runs, or when it was killed
}

// A RunningError says that another process has the store.
type RunningError struct{ Record Record }

func (e *RunningError) Error() string {
	if e.Record.PID == 0 {
		return "another node has the store"
	}
	return fmt.Sprintf("another node has the store: process %d, since %s", e.Record.PID, e.Record.Since.Format(time.DateTime))
}

// errHeld: someone has the lock.
var errHeld = errors.New("lock is held")

// A lock makes sure that one process works on a store. The system lets go of it
// when the process ends, however it does.
type lock struct {
	file *os.File
	path string // of the record
	Record
}

// takeLock takes the lock, or returns a *RunningError. It also returns the
// record of the process that had it before.
func takeLock(p Paths, now time.Time) (l *lock, before Record, err error) {
	f, err := os.OpenFile(p.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, before, err
	}
	before, _ = ReadRecord(p) // none, or half of one, tells nothing
	if err := lockFile(f); err != nil {
		err = errors.Join(err, f.Close())
		if errors.Is(err, errHeld) {
			return nil, before, &RunningError{before}
		}
		return nil, before, fmt.Errorf("lock %s: %w", p.lock(), err)
	}
	l = &lock{file: f, path: p.record(), Record: Record{Version: 1, PID: os.Getpid(), Since: now}}
	return l, before, l.write()
}

// Running reports whether a process has the store, also where it can't write that
// down any more.
func Running(p Paths) bool {
	f, err := os.OpenFile(p.lock(), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(lockFile(f), errHeld)
}

// ReadRecord reads who has the store, or had it last.
func ReadRecord(p Paths) (r Record, err error) {
	b, err := os.ReadFile(p.record())
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// Control is the target by which client.Dial finds the node: its socket, or
// where there are no such sockets what the running node has written down.
func Control(p Paths) string {
	if socketControl {
		return p.Socket()
	}
	r, err := ReadRecord(p)
	if err != nil || r.Control == "" {
		return p.Socket() // which is not there
	}
	return r.Control
}

func (l *lock) write() error {
	b, err := json.Marshal(l.Record)
	if err != nil {
		return err
	}
	return writeFile(l.path, b, false) // after a power cut nobody has the store
}

// free lets go of the lock.
func (l *lock) free(ended string) error {
	l.Ended = ended
	err := l.write()
	if CodeOf(err) == client.CodeFull { // a record that is old does no harm
		err = nil
	}
	return errors.Join(err, l.file.Close())
}

// writeFile replaces a small file of the owner's, whole or not at all; if it is
// to be durable, also when the power goes.
func writeFile(path string, b []byte, durable bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // what went wrong first is what counts
		}
	}()
	_, err = f.Write(b)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readFile reads a small file; none is nil.
func readFile(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
