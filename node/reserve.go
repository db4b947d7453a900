package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// reserveSize is enough to start with: records, sockets, and what the stores
	// write to open.
	reserveSize = 16 << 20
	// lowRoom is below what the stores take nothing in: storage.Disk.MinFree.
	lowRoom = 64 << 20
	// reserveEvery is the time between two looks at a disk without enough room, and
	// before the first: a node that is up for a moment needs no reserve.
	reserveEvery = time.Minute
)

// A reserve is a file that is of no use but for its room: it goes when a node is
// to start on a disk that is full to the last byte. Else the node that could free
// something, and says what is wrong, would not come up.
type reserve struct {
	path    string
	clock   clock.Clock
	notices *Notices
	free    func(dir string) (uint64, error)
	size    int64

	mu     sync.Mutex // held to look; guards what follows
	timer  clock.Timer
	closed bool
}

func newReserve(p Paths, c clock.Clock) *reserve {
	return &reserve{path: filepath.Join(p.Data, "reserve"), clock: c, free: freeBytes, size: reserveSize}
}

func freeBytes(dir string) (uint64, error) {
	u, err := vfs.Default.GetDiskUsage(dir)
	return u.AvailBytes, err
}

// giveUp gives the room back if there is too little to start with.
func (r *reserve) giveUp() {
	if free, err := r.free(filepath.Dir(r.path)); err == nil && free < uint64(r.size) {
		_ = os.Remove(r.path) // what needs the room tells
	}
}

// begin says at once if there is no room, and has the reserve made later.
func (r *reserve) begin(notices *Notices) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notices = notices
	r.tellLocked()
	r.timer = r.clock.AfterFunc(reserveEvery, r.look)
}

// look makes the reserve, and comes again while it can't.
func (r *reserve) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.tellLocked() && r.fill() == nil {
		return
	}
	r.timer = r.clock.AfterFunc(reserveEvery, r.look)
}

// tellLocked reports whether there is room for the reserve, and has a notice
// while there is too little for anything.
func (r *reserve) tellLocked() bool {
	dir := filepath.Dir(r.path)
	free, err := r.free(dir)
	if err != nil {
		return true // making it tells
	}
	if free < lowRoom {
		r.notices.Raise(client.Notice{
			Code: "disk-full", Severity: client.Problem,
			Text: fmt.Sprintf("the disk of %s has %d MiB left: nothing new is taken in until there are %d", dir, free>>20, lowRoom>>20),
			Fix:  "bevy clear <folder>",
		})
		return false
	}
	r.notices.Clear("disk-full", "")
	return free >= lowRoom+2*uint64(r.size)
}

func (r *reserve) fill() (err error) {
	if info, err := os.Stat(r.path); err == nil && info.Size() == r.size {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, r.size) // zeros may take no room
	return errors.Join(err, f.Close())
}

func (r *reserve) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}
