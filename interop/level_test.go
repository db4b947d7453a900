package interop_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/internal/nodepeer"
	"github.com/cloudbevy/bevy/services/level"
)

// levelToken is what the doors of a test want to see.
const levelToken = "a-token.of_letters~1"

// levelDoors serves a fresh database in memory at each path. A request for /end
// ends all connections.
func levelDoors(t *testing.T) (url string) {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	var mu sync.Mutex
	trees := map[string]*hyperbee.Tree{}
	doors := map[string]*level.Door{}
	end := func() {
		mu.Lock()
		defer mu.Unlock()
		for path, door := range doors {
			door.Close()
			delete(doors, path)
		}
	}
	door := func(path string) *level.Door {
		mu.Lock()
		defer mu.Unlock()
		if trees[path] == nil {
			kp := hypercore.NewKeyPair([32]byte{byte(len(trees)), byte(len(trees) >> 8)})
			log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
			if err != nil {
				t.Error(err)
			}
			t.Cleanup(func() { log.Close() })
			if trees[path], err = hyperbee.Open(log, hyperbee.Options{Durability: hypercore.Soon}); err != nil {
				t.Error(err)
			}
		}
		if doors[path] == nil {
			doors[path] = level.New(trees[path], level.Options{Token: levelToken})
		}
		return doors[path]
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/end" {
			end()
			return
		}
		door(r.URL.Path).ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		end()
		server.Close()
	})
	return strings.Replace(server.URL, "http", "ws", 1) + "/"
}

// runClient runs a script of clients/js/test and returns what it printed.
func runClient(t *testing.T, script string, args ...string) string {
	t.Helper()
	root, err := nodepeer.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "clients", "js")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err != nil {
		if os.Getenv("BEVY_INTEROP") == "1" {
			t.Fatalf("BEVY_INTEROP=1, but the packages of clients/js are missing: %v; run `npm ci` there", err)
		}
		t.Skipf("the packages of clients/js are missing: %v; run `npm ci` there", err)
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{filepath.Join("test", script)}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := bytes.Split(out, []byte("\n"))
		for i, line := range lines {
			if bytes.HasPrefix(line, []byte("not ok")) {
				t.Errorf("%s", bytes.Join(lines[i:min(i+12, len(lines))], []byte("\n")))
			}
		}
		t.Fatalf("node %s: %v: %s", script, err, out[max(0, len(out)-2000):])
	}
	return string(out)
}

// suiteAssertions is how many assertions abstract-level 3.1.1's suite has at
// least, of what the client's manifest says that it supports.
const suiteAssertions = 4600

func TestAbstractLevelSuitePassesOverTheDoor(t *testing.T) {
	t.Parallel()
	passes(t, "level.js", suiteAssertions)
}

func TestLevelClientKeepsToTheDoorsLimits(t *testing.T) {
	t.Parallel()
	passes(t, "limits.js", 40)
}

// passes runs tests in JavaScript, of which at least so many assertions have to
// hold, and all.
func passes(t *testing.T, script string, atLeast int) {
	t.Helper()
	out := runClient(t, script, levelDoors(t), levelToken)
	counts := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^# (tests|pass|fail)\s+(\d+)$`).FindAllStringSubmatch(out, -1) {
		counts[m[1]], _ = strconv.Atoi(m[2])
	}
	if counts["pass"] < atLeast || counts["pass"] != counts["tests"] || counts["fail"] != 0 {
		t.Errorf("%s counts %v, want at least %d to pass and all", script, counts, atLeast)
	}
	if skipped := strings.Count(out, "# SKIP"); skipped > 0 {
		t.Errorf("%s skipped %d", script, skipped)
	}
}

func TestLevelClientReadmeIsTrue(t *testing.T) {
	t.Parallel()
	if out := runClient(t, "readme.js", levelDoors(t), levelToken); !strings.Contains(out, "printed 4 lines") {
		t.Errorf("the example of the README said %s", out)
	}
}
