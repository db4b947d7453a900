//go:build unix

package disk

import (
	"io/fs"
	"syscall"
)

// identity returns the inode of a file and when it was last changed in any way.
func identity(info fs.FileInfo) (inode uint64, ctime int64) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return uint64(s.Ino), changeTime(s)
}
