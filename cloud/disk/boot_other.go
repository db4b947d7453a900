//go:build !linux && !darwin

package disk

import "time"

// bootID would name the time since the machine was started.
func bootID() string { return "" }

// bootTime would return when that was, in nanoseconds since 1970.
func bootTime(time.Time) int64 { return 0 }
