package node

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// socketControl reports whether the node is controlled by a socket of the file
// system. Such sockets have no permissions here.
const socketControl = false

func lockFile(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return errHeld
	}
	return err
}
