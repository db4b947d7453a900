package disk

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootID names the time since the machine was started.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it less is known after a kill
	return strings.TrimSpace(string(b))
}

// bootTime returns when the machine was started, as its clock sees that now, in
// nanoseconds since 1970; or 0.
func bootTime(now time.Time) int64 {
	var since unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) != nil {
		return 0
	}
	return now.UnixNano() - since.Nano()
}
