// Package nodepeer finds, prepares and runs the Node side of a test or a measurement: the scripts and the npm packages
// of interop/node. It knows nothing of what the scripts do, and imports nothing of ours.
//
// A test that needs the packages asks first, starts a script and calls its methods:
//
//	nodepeer.Require(t)
//	peer, err := nodepeer.Start(t.Context(), "peer.js")
//	defer peer.Close()
//	var head struct{ Length uint64 }
//	err = peer.Call(t.Context(), "append", map[string]any{"handle": "a", "blocks": []string{"00ff"}}, &head)
//
// A script is named by its path under interop/node, or by an absolute path. The module is found by walking up from the
// working directory, which is where `go test` and `go run` leave it. Nothing is downloaded unless [Install] is called.
package nodepeer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// must is the environment variable that turns a missing Node side from a skipped test into a failed one.
const must = "BEVY_INTEROP"

// grace is how long a process may take to end by itself once it was told to.
const grace = 5 * time.Second

// Require skips the test when node or the npm packages are missing, and says why. With BEVY_INTEROP=1 it fails the test
// instead, so that a run which promises to prove compatibility cannot pass by proving nothing.
func Require(t testing.TB) {
	t.Helper()
	err := installed()
	if err == nil {
		return
	}
	if os.Getenv(must) == "1" {
		t.Fatalf("%s=1, but the Node side is not ready: %v; run `npm ci` in interop/node", must, err)
	}
	t.Skipf("the Node side is not ready: %v; run `npm ci` in interop/node", err)
}

// Root returns the directory of the module that the working directory is in.
func Root() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if isFile(filepath.Join(dir, "go.mod")) && isFile(filepath.Join(dir, "interop", "node", "package.json")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the module: no folder above %s has go.mod and interop/node", wd)
		}
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Install makes interop/node/node_modules what package-lock.json says, with `npm ci`, and does nothing when it already
// is. What npm prints goes to progress.
func Install(ctx context.Context, progress io.Writer) error {
	root, err := Root()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("node"); err != nil {
		return fmt.Errorf("install the npm packages: %w", err)
	}
	if installed() == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir = filepath.Join(root, "interop", "node")
	cmd.WaitDelay = grace
	said := &tail{}
	cmd.Stdout = io.MultiWriter(progress, said)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install the npm packages: npm ci: %w%s", err, said.quoted())
	}
	if err := installed(); err != nil {
		return fmt.Errorf("install the npm packages: npm ci went well, but %w", err)
	}
	return nil
}

// installed says what is missing before a script of interop/node can run, nil when nothing is.
func installed() error {
	if _, err := exec.LookPath("node"); err != nil {
		return err
	}
	root, err := Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "interop", "node")
	want, err := versions(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	// npm writes what it installed into a lock file of its own.
	got, err := versions(filepath.Join(dir, "node_modules", ".package-lock.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("interop/node/node_modules is missing")
	}
	if err != nil {
		return err
	}
	for name, p := range want {
		if name == "" || p.Optional || got[name].Version == p.Version {
			continue
		}
		return fmt.Errorf("interop/%s is %q, package-lock.json wants %q", "node/"+name, got[name].Version, p.Version)
	}
	return nil
}

type lockedPackage struct {
	Version  string `json:"version"`
	Optional bool   `json:"optional"`
}

// versions reads the packages of an npm lock file, by their paths.
func versions(lock string) (map[string]lockedPackage, error) {
	raw, err := os.ReadFile(lock)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(lock), err)
	}
	var file struct {
		Packages map[string]lockedPackage `json:"packages"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(lock), err)
	}
	return file.Packages, nil
}

// Command returns the command that runs the script under node; the end of ctx kills it. The caller decides what its
// streams are.
func Command(ctx context.Context, script string, args ...string) (*exec.Cmd, error) {
	path := script
	if !filepath.IsAbs(path) {
		root, err := Root()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(root, "interop", "node", filepath.FromSlash(script))
	}
	if !isFile(path) {
		return nil, fmt.Errorf("node %s: no such script", script)
	}
	cmd := exec.CommandContext(ctx, "node", append([]string{path}, args...)...)
	cmd.WaitDelay = grace
	return cmd, nil
}

// Run runs a script that prints one JSON value, and returns it. What the script wrote to stderr is part of the error.
func Run(ctx context.Context, script string, args ...string) (json.RawMessage, error) {
	cmd, err := Command(ctx, script, args...)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	said := &tail{}
	cmd.Stdout, cmd.Stderr = &out, said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("node %s: %w%s", script, endOf(ctx, err), said.quoted())
	}
	value := json.RawMessage(bytes.TrimSpace(out.Bytes()))
	if !json.Valid(value) {
		return nil, fmt.Errorf("node %s: printed %.200q, not one JSON value%s", script, value, said.quoted())
	}
	return value, nil
}

// endOf prefers the reason why a process was killed over the fact that it was.
func endOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
