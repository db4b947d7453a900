package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// serve answers as a node would, and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := open(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestDialSaysWhatToDoWithoutANode(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // now nobody listens there
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "stale"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	for _, target := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "stale"), "http://" + l.Addr().String()} {
		_, err := Dial(t.Context(), target)
		var e *Error
		if !errors.Is(err, ErrNotRunning) || !errors.As(err, &e) || e.Code != CodeOffline || e.Try != "bevy up" {
			t.Errorf("%s: %v", target, err)
		}
	}
	var e *Error
	if _, err := Dial(t.Context(), "http://"); !errors.As(err, &e) || e.Code != CodeUsage {
		t.Errorf("got %v", err)
	}
	if _, err := SignIn(t.Context(), "http://127.0.0.1:1/"); !errors.As(err, &e) || e.Code != CodeUsage {
		t.Errorf("got %v", err)
	}
}

func TestErrorsOfTheNodeAreTyped(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   Error
	}{
		{404, `{"error":{"code":"not-found","message":"no","cause":"because","try":"that"}}`, Error{CodeNotFound, "no", "because", "that", 404, nil}},
		{502, "<html>a proxy", Error{CodeFailed, "the node gave an answer that is not its own", "HTTP 502 Bad Gateway", "look at what listens at that address", 502, nil}},
		{500, `{}`, Error{CodeFailed, "the node gave an answer that is not its own", "HTTP 500 Internal Server Error", "look at what listens at that address", 500, nil}},
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		_, err := client.Hello(t.Context())
		var e *Error
		if !errors.As(err, &e) || *e != c.want {
			t.Errorf("%s: %+v", c.body, err)
		}
	}
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[") })
	if _, err := client.Hello(t.Context()); err == nil {
		t.Error("half an answer is taken")
	}
	for i, code := range Codes {
		if code.Exit() != i+1 {
			t.Errorf("%s has exit code %d", code, code.Exit())
		}
	}
	if Code("new").Exit() != 1 {
		t.Error("an unknown code is no failure")
	}
}

func TestTokenIsSentAndNotShown(t *testing.T) {
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		fmt.Fprint(w, "{}")
	}))
	defer s.Close()
	c, err := Dial(t.Context(), strings.Replace(s.URL, "://", "://:secret@", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got.Get("Authorization") != "Bearer secret" {
		t.Errorf("sent %v", got)
	}
	s.Close()
	if _, err := c.Hello(t.Context()); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

// streams answers each connection with the next of these texts.
func streams(t *testing.T, asked *[]string, texts ...string) *Client {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get(LastEvent))
		if len(*asked) > len(texts) {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":{"code":"denied","message":"no more"}}`)
			return
		}
		fmt.Fprint(w, texts[len(*asked)-1])
	})
}

func TestEventsGoOnAfterABreak(t *testing.T) {
	var asked []string
	c := streams(t, &asked,
		": bevy\n\nid: 1\ndata: {\"id\":\"1\",\"kind\":\"a\"}\n\ndata: {\"id\":\"2\",\ndata: \"kind\":\"b\"}\n\ndata: {\"id\":\"3\"",
		":\n\n",
		"data: {\"id\":\"3\",\"kind\":\"c\"}\n\n",
	)
	c.Clock = rushed{c.Clock}
	var got []string
	for e, err := range c.Events(t.Context(), "0") {
		if err != nil {
			got = append(got, "break")
			continue
		}
		got = append(got, e.Kind)
	}
	if fmt.Sprint(got) != "[a b break break c break break]" || fmt.Sprint(asked) != "[0 2 2 3]" {
		t.Errorf("got %v after %v", got, asked)
	}
}

// rushed is a clock on which nobody waits.
type rushed struct{ clock.Clock }

// AfterFunc implements clock.Clock.
func (r rushed) AfterFunc(_ time.Duration, f func()) clock.Timer { return r.Clock.AfterFunc(0, f) }

func TestEventsEndWithTheCallersWish(t *testing.T) {
	var asked []string
	c := streams(t, &asked, "data: {\"id\":\"1\"}\n\n", "")
	for range c.Events(t.Context(), "") {
		break
	}
	if len(asked) != 1 {
		t.Errorf("asked %v", asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range c.Events(ctx, "") {
		if err == nil {
			t.Error("an event of nothing")
		}
		cancel()
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("id: 1\ndata: {\"id\":\"1\",\"kind\":\"a\"}\n\n")
	f.Add(":\n\ndata:\n\ndata: [\n\n")
	f.Add("data: {}\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		err := readEvents(strings.NewReader(text), func(e Event) bool {
			if _, err := json.Marshal(e); err != nil {
				t.Error(err)
			}
			n++
			return n < 3
		})
		if err == nil {
			t.Error("a stream has an end")
		}
		if errors.Is(err, errEnough) != (n == 3) {
			t.Errorf("%d events, %v", n, err)
		}
	})
}

func TestLinesOfEventsAreBounded(t *testing.T) {
	line := "data: " + strings.Repeat("x", maxLine) + "\n\n"
	if err := readEvents(strings.NewReader(line), nil); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a long line: %v", err)
	}
	many := strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 5) + "\n"
	if err := readEvents(strings.NewReader(many), nil); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("many lines: %v", err)
	}
}
