package packet

import "syscall"

type descriptor = syscall.Handle

// Package syscall lacks these of ws2ipdef.h.
const (
	dontFragment  = 14
	dontFragment6 = 14
)

// setByte sets an option of IPv4 multicast, which is a whole number here.
func setByte(s descriptor, level, option int, value byte) error {
	return syscall.SetsockoptInt(s, level, option, int(value))
}
