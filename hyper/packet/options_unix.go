//go:build unix && !linux

package packet

import (
	"runtime"
	"syscall"
)

type descriptor = int

// Package syscall lacks these, and they differ.
var (
	dontFragment  = map[string]int{"darwin": 28, "ios": 28, "freebsd": 67}[runtime.GOOS]
	dontFragment6 = map[string]int{"darwin": 62, "ios": 62, "freebsd": 62}[runtime.GOOS]
)

// setByte sets an option of IPv4 multicast, which is a byte here.
func setByte(s descriptor, level, option int, value byte) error {
	return syscall.SetsockoptByte(s, level, option, value)
}
