//go:build unix

package storage

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileMark returns when a file was last changed by any means, also by those that
// keep the times of its content.
func fileMark(path string) (string, bool) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", false
	}
	return fmt.Sprintf("changed %d.%09d", st.Ctim.Sec, st.Ctim.Nsec), true
}

// folderNumber returns the folder's inode.
func folderNumber(dir string) (uint64, bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(st.Ino), true
}
