package lawtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeSessionRuns runs the program in the README and compares what it
// prints with what the README says.
func TestReadmeSessionRuns(t *testing.T) {
	top, err := root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	program, rest, ok := fenced(string(text), "go")
	want, _, ok2 := fenced(rest, "")
	if !ok || !ok2 {
		t.Fatal("README.md has no Go program with its output")
	}
	// Inside the module, so that it finds our packages.
	dir, err := os.MkdirTemp(top, ".readme-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "session")
	build := exec.Command("go", "build", "-o", bin, file)
	build.Dir = top
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as for people
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the README's program: %v\n%s", err, out)
	}
	run := exec.Command(bin)
	run.Dir = t.TempDir() // it makes a folder where it is
	var stderr bytes.Buffer
	run.Stderr = &stderr
	got, err := run.Output()
	if err != nil {
		t.Fatalf("run the README's program: %v\n%s", err, stderr.Bytes())
	}
	if string(got) != want {
		t.Errorf("the README's program prints\n%s\nand the README says\n%s", got, want)
	}
}

// fenced returns the first fenced block of a language, and the text after it.
func fenced(text, language string) (block, rest string, ok bool) {
	_, after, ok := strings.Cut(text, "\n```"+language+"\n")
	if !ok {
		return "", text, false
	}
	block, rest, ok = strings.Cut(after, "```")
	return block, rest, ok
}
