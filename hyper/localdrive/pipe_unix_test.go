//go:build unix

package localdrive

import (
	"syscall"
	"testing"
)

func pipe(t testing.TB, name string) {
	t.Helper()
	must(t, syscall.Mkfifo(name, 0o600))
}
