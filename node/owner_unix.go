//go:build unix

package node

import (
	"fmt"
	"os"
	"syscall"
)

// ownFolder makes sure that nobody else can put a socket into a folder.
func ownFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not safe for a socket: others can write to it: %w", dir, os.ErrPermission)
	}
	return nil
}
