package node

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetFiles takes from the process's memory what it has of files: most of the
// program itself, which starting needed and resting does not. What is needed
// again comes back by itself, as a rule from the system's cache.
func forgetFiles() {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range fileMappings(f) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED) // only advice
	}
}

// A mapping is a part of the memory of the process.
type mapping struct{ start, end uintptr }

// fileMappings reads which parts are the same as in a file (proc_pid_smaps(5)):
// nobody can write to them, and nothing of them was changed before that.
func fileMappings(smaps io.Reader) (out []mapping) {
	var m mapping
	file := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		if key, value, ok := strings.Cut(line, ":"); ok && !strings.Contains(key, " ") {
			if file && key == "Anonymous" && strings.TrimSpace(value) == "0 kB" {
				out = append(out, m)
			}
			continue
		}
		fields := strings.Fields(line) // addresses, permissions, offset, device, inode, path
		if file = len(fields) >= 6 && !strings.Contains(fields[1], "w") && fields[4] != "0"; file {
			_, err := fmt.Sscanf(fields[0], "%x-%x", &m.start, &m.end)
			file = err == nil
		}
	}
	return out
}
