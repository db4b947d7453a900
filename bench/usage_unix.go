//go:build unix

package main

import (
	"os"
	"runtime"
	"syscall"
	"time"
)

// cpuTime is the time that the process has had on CPUs so far.
func cpuTime() (time.Duration, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}

// maxResidentMiB is the most memory that the process has had in RAM.
func maxResidentMiB() (float64, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	if runtime.GOOS == "darwin" {
		return float64(u.Maxrss) / (1 << 20), true // bytes there, KiB elsewhere
	}
	return float64(u.Maxrss) / (1 << 10), true
}

// maxResidentOf is the same of a process that has ended.
func maxResidentOf(p *os.ProcessState) (float64, bool) {
	u, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, false
	}
	if runtime.GOOS == "darwin" {
		return float64(u.Maxrss) / (1 << 20), true
	}
	return float64(u.Maxrss) / (1 << 10), true
}
