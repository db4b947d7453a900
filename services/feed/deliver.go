package feed

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// hookTimeout is how long a web hook may take.
const hookTimeout = 30 * time.Second

// deliver hands changes over. They are taken when it returns without an error.
func (f *Feeds) deliver(ctx context.Context, feed *Feed, batch []Change) error {
	switch to := feed.To; {
	case to.URL != "":
		return f.post(ctx, feed, batch)
	case to.File != "":
		return appendLines(to.File, batch)
	default:
		return run(ctx, feed, batch)
	}
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || len(s) > maxText {
		return fmt.Errorf("%w: %q is no address of a web hook", ErrInvalid, s)
	}
	return nil
}

func checkFile(s string) error {
	if s != "" && (!filepath.IsAbs(s) || len(s) > maxText) {
		return fmt.Errorf("%w: %q is no absolute path of a file", ErrInvalid, s)
	}
	return nil
}

// A hook is the body of a request to a web hook.
type hook struct {
	Feed    string   `json:"feed"`
	Changes []Change `json:"changes"`
}

// Signature returns what the header Bevy-Signature has for a body: the time, in
// seconds since 1970, and the HMAC-SHA-256 of "TIME.BODY" in hex. Whoever gets it
// compares, and declines what is old.
func Signature(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// post asks a web hook. Any 2xx is that it has taken all.
func (f *Feeds) post(ctx context.Context, feed *Feed, batch []Change) error {
	body, err := json.Marshal(hook{feed.Name, batch})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := f.o.Clock.AfterFunc(hookTimeout, func() { cancel(fmt.Errorf("no answer in %v", hookTimeout)) })
	defer t.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, feed.To.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "bevy-feed/1")
	if feed.To.Secret != "" {
		req.Header.Set("Bevy-Signature", Signature(feed.To.Secret, f.o.Clock.Now(), body))
	}
	client := http.Client{Transport: f.o.HTTP, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("post to the web hook: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // what it says does not matter
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the web hook answers %s", resp.Status)
	}
	return nil
}

// lines returns changes as JSON, one on each line.
func lines(batch []Change) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, c := range batch {
		if err := e.Encode(c); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// appendLines appends changes to a file. A line that a crash cut short is ended
// first, so that only that one makes no sense; what was on it comes again.
func appendLines(path string, batch []Change) (err error) {
	b, err := lines(batch)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		file, err = create(path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if n := info.Size(); n > 0 && info.Mode().IsRegular() {
		var last [1]byte
		if _, err := file.ReadAt(last[:], n-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			b = append([]byte{'\n'}, b...)
		}
	}
	if _, err := file.Write(b); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil // nothing that could be synced, such as a pipe
	}
	return file.Sync()
}

// create makes a file for its owner alone whose name outlives a power cut, where
// a system knows how to have it so.
func create(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil || runtime.GOOS == "windows" {
		return file, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// run runs a program with changes as JSON lines on its standard input. It has
// taken them when it ends with 0.
func run(ctx context.Context, feed *Feed, batch []Change) error {
	b, err := lines(batch)
	if err != nil {
		return err
	}
	var said tail
	cmd := exec.CommandContext(ctx, feed.To.Program[0], feed.To.Program[1:]...)
	cmd.Env = append(os.Environ(), "BEVY_FEED="+feed.Name, "BEVY_FEED_SOURCE="+feed.Source)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(b), &said, &said
	cmd.WaitDelay = time.Second // for what it has begun and left behind
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(string(said)); text != "" {
			return fmt.Errorf("run %s: %w: %s", feed.To.Program[0], err, text)
		}
		return fmt.Errorf("run %s: %w", feed.To.Program[0], err)
	}
	return nil
}

// A tail keeps the last words of a program.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - 512; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}
