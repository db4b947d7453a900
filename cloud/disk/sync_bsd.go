//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package disk

import "golang.org/x/sys/unix"

// sync has the system begin to write. That it ends soon is all that is known.
func (f *rooted) sync() error { return unix.Sync() }
