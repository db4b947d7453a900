package disk

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootID names the time since the machine was started.
func bootID() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid") // without it less is known after a kill
	return id
}

// bootTime returns when the machine was started, as its clock sees that now, in
// nanoseconds since 1970; or 0.
func bootTime(time.Time) int64 {
	at, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return 0
	}
	return at.Nano()
}
