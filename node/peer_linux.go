package node

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerIsOwner reports whether the program at the other end of a socket is the
// user's own, or root's.
func peerIsOwner(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var got error
	err = raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && got == nil && (cred.Uid == 0 || int(cred.Uid) == os.Getuid())
}
