package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/dhtrelay"
	"github.com/cloudbevy/bevy/hyper/transport"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// A page in a browser, with the npm package, reaches a peer of the DHT by a door of ours, and is reached. The door sees
// neither what is said nor the page's secret key. It takes BEVY_LONG=1 and Chromium.
func TestPageInABrowserIsAPeer(t *testing.T) {
	if os.Getenv("BEVY_LONG") == "" {
		t.Skip("starts a browser: with BEVY_LONG=1")
	}
	browser := findBrowser(t)
	net := newTestnet(t, "GG")
	door, seen := watchedDoor(t, net)
	peer := net.add(false, false).listen(51, dhtOptions{})
	key, secret := keysOf(61).Public, seed(61)

	said := make(chan string, 16)
	query := url.Values{"door": {door}, "seed": {secret}, "peer": {hexKey(peer)}}
	openPage(t, browser, servePage(t, said)+"/?"+query.Encode())
	want := map[string]bool{"heard hello from the page": true, "listening " + hexKey(key): true}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(want) > 0 {
		select {
		case event := <-said:
			if !want[event] {
				t.Fatalf("the page says %q", event)
			}
			delete(want, event)
		case <-ctx.Done():
			t.Fatalf("the page never says %v", want)
		}
	}
	if err := net.add(false, false).connect(key, 10, dhtOptions{}); err != nil {
		t.Errorf("a peer can't reach the page: %v", err)
	}

	for _, plain := range []string{"hello from the page", "message 9", fromHex(t, secret)} {
		if seen.contains(plain) {
			t.Errorf("the door sees %q", plain)
		}
	}
	if !seen.contains(string(key[:])) {
		t.Error("the door has seen nothing, not even the page's public key")
	}
}

// findBrowser is a Chromium of this machine.
func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no browser here: it takes Chromium")
	return ""
}

// openPage opens a page in a browser of its own, which ends with the test: its commands come by a pipe, and the end of
// that is the browser's.
func openPage(t *testing.T, browser, page string) {
	t.Helper()
	profile, err := os.MkdirTemp("", "bevy-browser-")
	if err != nil {
		t.Fatal(err)
	}
	commands, line, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	log := &bytes.Buffer{}
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+profile, "--remote-debugging-pipe", page)
	cmd.ExtraFiles = []*os.File{commands, answers} // 3 and 4, as the browser wants them
	cmd.Stderr = log
	cmd.Cancel, cmd.WaitDelay = line.Close, 10*time.Second
	err = cmd.Start()
	commands.Close()
	answers.Close()
	t.Cleanup(func() {
		stop()
		cmd.Wait()
		if s := cmd.ProcessState; s != nil && !s.Exited() {
			t.Error("the browser does not end by itself")
		}
		if err := os.RemoveAll(profile); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the browser: %s", log)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// servePage serves interop/node/page, and passes on what the page says: an event and a text.
func servePage(t *testing.T, said chan<- string) string {
	t.Helper()
	nodepeer.Require(t)
	root, err := nodepeer.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "interop", "node")
	bundle := exec.CommandContext(t.Context(), filepath.Join(dir, "node_modules", ".bin", "esbuild"),
		"page/page.js", "--bundle", "--alias:sodium-universal=./page/sodium.js", "--log-level=warning")
	bundle.Dir = dir
	bundle.Stderr = os.Stderr
	script, err := bundle.Output()
	if err != nil {
		t.Fatalf("bundle the page: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<!doctype html><meta charset=utf-8><script src=page.js></script>")
	})
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Write(script)
	})
	mux.HandleFunc("POST /{event}", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		select {
		case said <- r.PathValue("event") + " " + string(text):
		default: // the test has heard enough
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// watchedDoor is a dht-relay of ours for pages, and what its connections carry.
func watchedDoor(t *testing.T, net *testnet) (string, *record) {
	t.Helper()
	relay := dhtrelay.NewServer(dhtrelay.Over(net.add(false, false).(ourDHT).d), dhtrelay.ServerOptions{})
	l, err := transport.Listen(t.Context(), "ws://127.0.0.1:0", transport.ListenOptions{AllowOrigins: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	seen := &record{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			serving.Go(func() { relay.ServeConn(watchedConn{conn.(transport.MessageConn), seen}) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		relay.Close()
		serving.Wait()
	})
	return l.Addr(), seen
}

// A record is all that was said.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) add(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(p)
}

func (r *record) contains(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.text.String(), s)
}

// A watchedConn keeps a record of its messages.
type watchedConn struct {
	transport.MessageConn
	seen *record
}

func (c watchedConn) ReadMessage(buf []byte, max int) ([]byte, error) {
	m, err := c.MessageConn.ReadMessage(buf, max)
	if err == nil {
		c.seen.add(m[len(buf):])
	}
	return m, err
}

func (c watchedConn) WriteMessage(p []byte) error {
	c.seen.add(p)
	return c.MessageConn.WriteMessage(p)
}
