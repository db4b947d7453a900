package node

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
)

// A browser is a Chromium that is driven over two pipes, as the Chrome DevTools
// Protocol has it: it ends when they do.
type browser struct {
	t       *testing.T
	in      io.Writer
	out     *bufio.Reader
	next    int
	session string
	errors  []string // what pages complained about
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	if os.Getenv("BEVY_LONG") == "" {
		t.Skip("starts a browser: with BEVY_LONG=1")
	}
	var program string
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	if program == "" {
		t.Skip("no browser here: it takes Chromium")
	}
	fromUs, toBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromBrowser, toUs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, program, "--remote-debugging-pipe", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir())
	cmd.ExtraFiles = []*os.File{fromUs, toUs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = fromUs.Close()
	_ = toUs.Close()
	t.Cleanup(func() {
		cancel()
		_ = toBrowser.Close()
		_, _ = io.Copy(io.Discard, fromBrowser)
		_ = fromBrowser.Close()
		_ = cmd.Wait()
	})
	return &browser{t: t, in: toBrowser, out: bufio.NewReader(fromBrowser)}
}

// call calls a method and reads its result.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.next++
	text, err := json.Marshal(map[string]any{"id": b.next, "method": method, "params": params, "sessionId": b.session})
	if b.session == "" {
		text, err = json.Marshal(map[string]any{"id": b.next, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.in.Write(append(text, 0))
	}
	for err == nil {
		var line []byte
		if line, err = b.out.ReadBytes(0); err != nil {
			break
		}
		var m struct {
			ID     int             `json:"id"`
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err = json.Unmarshal(line[:len(line)-1], &m); err != nil {
			break
		}
		switch {
		case m.Method == "Runtime.exceptionThrown", m.Method == "Log.entryAdded", m.Method == "Runtime.consoleAPICalled":
			b.errors = append(b.errors, string(m.Params))
		case m.ID == b.next && m.Error != nil:
			err = errors.New(string(m.Error))
		case m.ID == b.next:
			if result != nil {
				err = json.Unmarshal(m.Result, result)
			}
			if err == nil {
				return
			}
		}
	}
	b.t.Fatalf("%s: %v", method, err)
}

// open opens a page.
func (b *browser) open(url string, width, height int, dark bool) {
	b.t.Helper()
	b.session = ""
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.call("Runtime.enable", nil, nil)
	b.call("Log.enable", nil, nil)
	b.call("Page.enable", nil, nil)
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// eval runs a script in the page, and waits for it.
func (b *browser) eval(script string) string {
	b.t.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true}, &got)
	if got.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", script, got.ExceptionDetails)
	}
	return fmt.Sprint(got.Result.Value)
}

// await waits until the page's text has what is wanted.
func (b *browser) await(want string) {
	b.t.Helper()
	script := fmt.Sprintf(`new Promise((done, failed) => {
		const look = () => document.body && document.body.innerText.includes(%q) ? done('') : 0
		setInterval(look, 20); setTimeout(() => done(document.body.innerText), 10000)
	})`, want)
	if text := b.eval(script); text != "" {
		b.t.Fatalf("the page never says %q, but:\n%s", want, text)
	}
}

// picture takes one, into the folder BEVY_PICTURES if it is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil || len(png) < 1000 {
		b.t.Fatalf("no picture: %d bytes, %v", len(png), err)
	}
	if dir := os.Getenv("BEVY_PICTURES"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// example fills a status with a cloud of three machines.
func example(now time.Time) func(context.Context, *client.Status) {
	return func(_ context.Context, s *client.Status) {
		s.Cloud = &client.Cloud{ID: "7f3a", Name: "lenka", Copies: 3, Want: 3, Newest: now.Add(-2 * time.Second)}
		s.Machines = []client.Machine{
			{ID: "a", Name: "laptop", This: true, State: "this", Holds: 8 << 30},
			{ID: "b", Name: "attic", State: "active", Path: "direct lan", RTT: 1.2, Down: 82 << 20, Holds: 8 << 30, Seen: now},
			{ID: "c", Name: "oak", State: "idle", Path: "relay via attic", Why: "its NAT is symmetric", RTT: 38, Holds: 8 << 30, Seen: now.Add(-time.Hour)},
		}
		s.Folders = []client.Folder{
			{ID: "p", Name: "Photos", Path: "/home/lenka/Photos", Files: 3201, Bytes: 8 << 30, State: "safe", Copies: 3, Changed: now.Add(-time.Minute)},
			{ID: "q", Name: "<b>Notes</b>", Path: "/home/lenka/Notes", Files: 12, Bytes: 20 << 10, State: "syncing", Missing: 12 << 10, Copies: 1, Changed: now},
		}
	}
}

// The page signs in by its link, shows what there is, changes with it, and
// complains about nothing.
func TestPageInABrowser(t *testing.T) {
	b := openBrowser(t)
	o := testOptions(t)
	full := false
	o.Wire = func(_ context.Context, n *Node) error {
		n.OnStatus(func(ctx context.Context, s *client.Status) {
			if full {
				example(time.Now())(ctx, s)
			}
		})
		return nil
	}
	n := openNode(t, o)

	b.open(n.Address(), 1100, 800, false)
	b.await("This page shows your cloud to you only.")
	b.picture("signed-out")
	b.errors = nil // a browser notes each 401
	b.open(n.Link().URL, 1100, 800, false)
	b.await("The node runs. Nothing is kept safe yet.")
	b.picture("empty")
	if got := b.eval("location.hash + document.cookie"); got != "" {
		t.Errorf("the page has %q of its session in its address or for scripts", got)
	}

	full = true
	n.Notices.Raise(client.Notice{Code: "relay", Subject: "oak", Severity: client.Warning, Text: "oak is reached by relay: its NAT is symmetric", Fix: "bevy ping oak"})
	n.Say("Photos: 3 files are new")
	b.await("3 of 3")
	b.await("3 files are new")
	b.await("<b>Notes</b>") // as text
	if got := b.eval(`document.querySelector("progress").getAttribute("aria-label")`); got != "<b>Notes</b>: 40 %" {
		t.Errorf("the bar says %q", got)
	}
	b.await("1 notice: oak is reached by relay")
	b.picture("full")
	b.open(n.Address(), 420, 900, true) // the session goes on
	b.await("3 of 3")
	b.picture("dark-narrow")
	if wide := b.eval("document.documentElement.scrollWidth > innerWidth"); wide != "false" {
		t.Error("the page is wider than the window")
	}
	if got := b.eval(`[...document.querySelectorAll('button, summary, section, table')].filter(e => !(e.innerText || e.getAttribute('aria-label'))).length`); got != "0" {
		t.Errorf("%s parts have no name", got)
	}
	n.Notices.Clear("relay", "oak")
	b.await("Everything is all right.")
	b.eval("document.getElementById('out').click()")
	b.await("You have signed out.")
	if list := n.sessions.list(""); len(list) != 0 {
		t.Errorf("sessions are left: %+v", list)
	}
	if len(b.errors) != 0 {
		t.Errorf("the page complains: %s", strings.Join(b.errors, "\n"))
	}
}
