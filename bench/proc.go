package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// residentMiB is the memory that the process has in RAM now; false where there is no /proc.
func residentMiB() (float64, bool) {
	kib, err := statusSum("/proc/self/status", "VmRSS")
	return float64(kib) / 1024, err == nil
}

// fileHandles is how many files the process has open; false where there is no /proc.
func fileHandles() (float64, bool) {
	entries, err := os.ReadDir("/proc/self/fd")
	return float64(len(entries) - 1), err == nil // not the one that reads the folder
}

// switches returns how often each thread of the process was taken off a CPU so far, by thread: what waiting costs.
func switches() (map[string]int, error) {
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return nil, errors.New("needs /proc to count wake-ups")
	}
	out := make(map[string]int)
	for _, status := range tasks {
		n, err := statusSum(status, "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return nil, err
		}
		out[status] = n
	}
	return out, nil
}

// switchesSince returns how often threads were taken off a CPU since before, and how many threads there are.
func switchesSince(before map[string]int) (sum, threads int, err error) {
	now, err := switches()
	for thread, n := range now {
		sum += n - before[thread]
	}
	return sum, len(now), err
}

// statusSum adds the numbers behind some keys of a /proc status file.
func statusSum(path string, keys ...string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum, found := 0, 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		for _, want := range keys {
			if key != want {
				continue
			}
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				return 0, fmt.Errorf("%s: %s: %w", path, key, err)
			}
			sum += n
			found++
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if found != len(keys) {
		return 0, fmt.Errorf("%s: no %s", path, strings.Join(keys, ", "))
	}
	return sum, nil
}
