package disk

import (
	"os"
	"strings"
)

// bootID names the time since the machine was started.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it less is known after a kill
	return strings.TrimSpace(string(b))
}
