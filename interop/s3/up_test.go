package s3

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// node is the `bevy up` that all tests of programs use.
var node struct {
	once  sync.Once
	at    server
	err   error
	close func() error
}

// up returns the server that programs are run against: the one of BEVY_S3_URL, or a real node, found as people find it.
func up(t testing.TB) server {
	t.Helper()
	if os.Getenv("BEVY_S3_URL") != "" {
		return start(t)
	}
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("there is no shell to ask for the environment")
	}
	node.once.Do(func() { node.err = startNode() })
	ok(t, node.err)
	return node.at
}

// startNode builds the command, starts a node, and asks for its environment.
func startNode() (err error) {
	root, err := nodepeer.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bevy-s3-")
	if err != nil {
		return err
	}
	node.close = func() error { return os.RemoveAll(dir) }
	bevy := filepath.Join(dir, "bevy")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", bevy, "./cmd/bevy")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as for people
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build bevy: %w\n%s", err, out)
	}
	env := append(os.Environ(), "BEVY_HOME="+filepath.Join(dir, "home"), "BEVY_BOOTSTRAP=127.0.0.1:9", "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	cmd := exec.Command(bevy, "up", "--json", "--listen", "127.0.0.1:0")
	cmd.Env, cmd.Stderr = env, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	node.close = func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait(), os.RemoveAll(dir))
	}
	lines := bufio.NewReader(out)
	var said struct{ Event string }
	if line, err := lines.ReadBytes('\n'); err != nil {
		return err
	} else if err := json.Unmarshal(line, &said); err != nil || said.Event != "ready" {
		return fmt.Errorf("bevy up says %s: %w", line, err)
	}
	go func() { // what else it says
		for {
			if _, err := lines.ReadBytes('\n'); err != nil {
				return
			}
		}
	}()
	sh := exec.Command("sh", "-ec", `eval "$(bevy env)"; echo "$AWS_ENDPOINT_URL $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY"`)
	sh.Env, sh.Stderr = env, os.Stderr
	text, err := sh.Output()
	if err != nil {
		return fmt.Errorf("bevy env: %w", err)
	}
	words := strings.Fields(string(text))
	if len(words) != 3 {
		return fmt.Errorf("bevy env says %q", text)
	}
	node.at = server{URL: words[0], Key: words[1], Secret: words[2]}
	return nil
}
