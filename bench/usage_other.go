//go:build !unix

package main

import (
	"os"
	"time"
)

func cpuTime() (time.Duration, bool) { return 0, false }

func maxResidentMiB() (float64, bool) { return 0, false }

func maxResidentOf(*os.ProcessState) (float64, bool) { return 0, false }
