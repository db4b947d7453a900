package node

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/client"
)

// Signed doors come before everything, and last ones after everything.
func TestDoorsHaveTheirTurn(t *testing.T) {
	o := testOptions(t)
	o.Hosts = []string{"Oak.Example"}
	o.Wire = func(_ context.Context, n *Node) error {
		door := func(name string, match func(*http.Request) bool) Door {
			return Door{Name: name, Match: match, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })}
		}
		last := door("last", func(r *http.Request) bool { return r.Method == http.MethodGet })
		last.Last = true
		signed := door("signed", func(r *http.Request) bool { return r.Header.Get("Authorization") == "signed" })
		signed.Signed = true
		n.Door(last)
		n.Door(door("paths", n.UnderPath("/d/")))
		n.Door(signed)
		return nil
	}
	n := openNode(t, o)
	for _, c := range []struct {
		method, host, path string
		signed             bool
		status             int
		body               string
	}{
		{"GET", "127.0.0.1", "/d/x", false, 200, "paths"},
		{"GET", "127.0.0.1", "/d/x", true, 200, "signed"},
		{"POST", "127.0.0.1", client.Base + "/stop", true, 200, "signed"},
		{"POST", "127.0.0.1", client.Base + "/stop", false, 401, ""},
		{"GET", "127.0.0.1", "/", false, 200, ""},
		{"GET", "127.0.0.1", "/", true, 200, "signed"},
		{"GET", "127.0.0.1", "/bucket/key", false, 200, "last"},
		{"POST", "127.0.0.1", "/bucket/key", false, 404, ""},
		{"GET", "127.0.0.1", client.Base + "/nothing", false, 401, ""},
		{"GET", "x.localhost", "/bucket/key", false, 404, ""}, // not the node's own name
		{"GET", "x.localhost", "/", true, 200, "signed"},
		{"GET", "bucket.oak.example", "/", true, 200, "signed"},
		{"GET", "bucket.oak.example", "/", false, 404, ""},
		{"GET", "bucket.oak.example", client.Base, false, 404, ""},
		{"GET", "notoak.example", "/", true, 421, ""},
		{"GET", "evil.example", "/", true, 421, ""}, // who made its name lead here
	} {
		headers := map[string]string{"Host": c.host}
		if c.signed {
			headers["Authorization"] = "signed"
		}
		got := ask(t, n, c.method, c.path, "", headers)
		if got.StatusCode != c.status || c.body != "" && got.body != c.body {
			t.Errorf("%s %s%s, signed %v: %d %.40q, want %d %q", c.method, c.host, c.path, c.signed, got.StatusCode, got.body, c.status, c.body)
		}
		own := c.host == "127.0.0.1"
		if boxed := strings.Contains(got.Header.Get("Content-Security-Policy"), "sandbox"); c.body != "" && boxed != own {
			t.Errorf("%s %s%s: boxed %v", c.method, c.host, c.path, boxed)
		}
	}
}
