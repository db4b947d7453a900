package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// hurry tells the system to begin to write a part of a file to the disk. It does
// not wait for that.
func hurry(f *os.File, from, to int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, to-from, unix.SYNC_FILE_RANGE_WRITE) // the sync tells what fails
}

// letGo waits until a part of a file is on the disk, and lets go of its memory. A
// failure to write is told but once, so it must not get lost here.
func letGo(f *os.File, from, to int64) error {
	from = max(from, 0)
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	switch err := unix.SyncFileRange(int(f.Fd()), from, to-from, all); err {
	case nil:
		_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED) // it is only advice
		return nil
	case unix.ENOSYS, unix.EINVAL, unix.ESPIPE, unix.EPERM:
		return nil // this system can't do that
	default:
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
}
