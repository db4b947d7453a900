//go:build unix

package node

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// socketControl reports whether the node is controlled by a socket of the file
// system.
const socketControl = true

func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errHeld
	}
	return err
}
