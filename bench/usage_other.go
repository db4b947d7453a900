//go:build !unix

package main

import "time"

func cpuTime() (time.Duration, bool) { return 0, false }

func maxResidentMiB() (float64, bool) { return 0, false }
