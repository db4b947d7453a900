//go:build unix

package storage

import (
	"os"
	"syscall"
)

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
