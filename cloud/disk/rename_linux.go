package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNew moves a file to a name that is free, in one step. It returns false
// where that can't be done.
func renameNew(dir *os.Root, from, to string) (bool, error) {
	d, err := dir.Open(".")
	if err != nil {
		return true, err
	}
	defer d.Close()
	fd := int(d.Fd())
	err = unix.Renameat2(fd, from, fd, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return false, nil
	}
	return true, err
}
