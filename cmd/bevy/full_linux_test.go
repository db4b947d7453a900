package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A machine whose disk other programs have filled to the last byte waits for
// room, says so, and goes on by itself.
func TestUpWaitsForRoomOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=100m"); err != nil {
		t.Skip("a small disk takes the rights to mount one: ", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	bevy := func(args ...string) *exec.Cmd {
		cmd := exec.Command("bevy", args...)
		cmd.Env = append(os.Environ(), "BEVY_HOME="+filepath.Join(dir, "home"), "BEVY_BOOTSTRAP=127.0.0.1:9")
		return cmd
	}
	up := func() (stdout, stderr *bufio.Reader, end func()) {
		cmd := bevy("up", "--offline")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		errs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(out), bufio.NewReader(errs), func() {
			if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
				t.Error(err)
			}
		}
	}
	says := func(r *bufio.Reader, what string) {
		t.Helper()
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, what) {
			t.Fatalf("says %q, %v and not %q", line, err, what)
		}
	}
	out, _, end := up()
	says(out, "Bevy")
	end()

	filling := filepath.Join(dir, "filling")
	f, err := os.Create(filling)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	f.Close()
	out, errs, end := up()
	says(errs, "waiting for room on the disk")
	if err := os.Remove(filling); err != nil {
		t.Fatal(err)
	}
	says(out, "Bevy")
	end()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
