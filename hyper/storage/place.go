package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A store that was copied, or restored from a backup, must not write to its logs
// as if nothing had happened: another one may write to them, or may have. It
// knows by a mark: an empty file with a name of its own, whose time of change the
// database has. No program can choose that time for the file that it makes, or
// writes over.
//
// The mark is another one each time that the store is opened for writing, and
// each time that it is closed. What is restored over the folder then brings an
// older mark, which is made anew; programs that leave out files which look the
// same would otherwise leave it as it is.
const markPrefix = "PLACE-"

// noPlace is the place of stores on file systems that are not the machine's.
const noPlace = "no place"

// settle makes another mark, and adds to a batch that this is where the store is.
// It returns what is to be called when the batch is on the disk.
func (d *disk) settle(b *pebble.Batch) (done func(), err error) {
	place, name := noPlace, ""
	if d.opts.FS == vfs.Default {
		id := make([]byte, 8)
		if _, err := rand.Read(id); err != nil {
			return nil, err
		}
		name = markPrefix + hex.EncodeToString(id)
		if place, err = d.makeMark(name); err != nil {
			return nil, fmt.Errorf("mark the folder: %w", err)
		}
	}
	return func() { d.removeMarks(name) }, b.Set([]byte("mplace"), []byte(place), nil)
}

// begin commits a batch with which the store is at this place.
func (d *disk) begin(b *pebble.Batch) error {
	done, err := d.settle(b)
	if err != nil {
		return diskError(errors.Join(err, b.Close()))
	}
	if err := d.commit(b, pebble.Sync); err != nil {
		return err
	}
	done()
	return nil
}

// resettle changes the mark of a store that is where it was. If that fails, the
// old mark is as good as before, so that a full disk is no reason to fail.
func (d *disk) resettle() {
	if d.opts.FS == vfs.Default {
		_ = d.begin(d.db.NewBatch())
	}
}

func (d *disk) makeMark(name string) (place string, err error) {
	f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Sync(), f.Close(), d.syncFolder()); err != nil {
		return "", err
	}
	mark, ok := fileMark(d.path(name))
	if !ok {
		return d.firstPlace(), nil
	}
	return fmt.Sprintf("machine %s file %s %s", machineID(), name, mark), nil
}

// removeMarks removes all marks but one. One that stays does no harm.
func (d *disk) removeMarks(but string) {
	names, err := d.opts.FS.List(d.opts.Dir)
	if err != nil {
		return
	}
	for _, name := range names {
		if strings.HasPrefix(name, markPrefix) && name != but {
			_ = d.opts.FS.Remove(d.path(name))
		}
	}
}

// isAt tells whether the store is still at a place, and no copy of what was there.
func (d *disk) isAt(place string) bool {
	if d.opts.FS != vfs.Default {
		return place == noPlace
	}
	var machine, name, mark string
	rest, ok := strings.CutPrefix(place, "machine ")
	if machine, rest, _ = strings.Cut(rest, " "); ok {
		name, mark, ok = strings.Cut(strings.TrimPrefix(rest, "file "), " ")
	}
	if !ok || !strings.HasPrefix(rest, "file "+markPrefix) || strings.ContainsAny(name, `/\`) {
		return place == d.firstPlace()
	}
	now, ok := fileMark(d.path(name))
	return ok && machine == machineID() && sameMark(mark, now)
}

// sameMark compares the mark that was with the one that is. Where a file system
// forgets parts of a second, they don't count.
func sameMark(was, now string) bool {
	if seconds, ok := strings.CutSuffix(now, ".000000000"); ok {
		was, _, _ = strings.Cut(was, ".")
		now = seconds
	}
	return was == now
}

// firstPlace is how places were told before there were marks, and where there are
// none.
func (d *disk) firstPlace() string {
	abs, err := filepath.Abs(d.opts.Dir)
	if err != nil {
		abs = d.opts.Dir
	}
	if n, ok := folderNumber(abs); ok {
		return fmt.Sprintf("machine %s folder %d", machineID(), n)
	}
	return fmt.Sprintf("machine %s path %s", machineID(), abs)
}

// machineID names the machine; empty where it has no name.
func machineID() string {
	b, _ := os.ReadFile("/etc/machine-id")
	return string(bytes.TrimSpace(b))
}
