package node

import (
	"net/http"
	"net/url"
	"strings"
)

// A Door answers requests to the port beside the API: for another host, below a
// path, or in another protocol.
type Door struct {
	Name    string                   // of its account
	Match   func(*http.Request) bool // whether a request is for it; the first door that says so has it
	Handler http.Handler
	// Trusted doors send only what is ours. What others send at one of the node's
	// own names is put in a box by the browser: else a page that a stranger wrote
	// could do there whatever the owner can.
	Trusted bool
	// Signed doors match only requests that are signed for them, or that ask
	// whether they may be sent. No page does that by itself, so that they may come
	// at any path, also at those of the API.
	Signed bool
	// Last doors are asked only at the node's own names, and only for what nothing
	// else answers there.
	Last bool
}

// UnderPath matches requests to a path, at any of the node's own names; it ends
// with a slash.
func (n *Node) UnderPath(prefix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return n.ownHost(r) && strings.HasPrefix(r.URL.Path, prefix) }
}

// UnderHost matches requests to hosts of which f takes the first label, as in
// <label>.localhost.
func UnderHost(f func(label string) bool) func(*http.Request) bool {
	return func(r *http.Request) bool {
		label, ok := strings.CutSuffix(hostOf(r), ".localhost")
		return ok && !strings.Contains(label, ".") && f(label)
	}
}

// box keeps pages of strangers from everything else at the same address.
const box = "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"

func (n *Node) serveDoor(d *openDoor, w http.ResponseWriter, r *http.Request) {
	defer n.Busy("requests")()
	d.account.Requests.Add(1)
	if r.ContentLength > 0 {
		d.account.In.Add(uint64(r.ContentLength))
	}
	if !d.Trusted && n.ownHost(r) {
		w = &boxed{ResponseWriter: w}
	}
	d.Handler.ServeHTTP(&counted{w, d.account}, r)
}

// An openDoor is a door with its account.
type openDoor struct {
	Door
	account *Account
}

// counted counts what is sent.
type counted struct {
	http.ResponseWriter
	account *Account
}

// Write implements http.ResponseWriter.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.account.Out.Add(uint64(n))
	return n, err
}

// Unwrap is for http.ResponseController.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// boxed adds the box to whatever a door sends.
type boxed struct {
	http.ResponseWriter
	sent bool
}

// WriteHeader implements http.ResponseWriter.
func (b *boxed) WriteHeader(status int) {
	if !b.sent && status >= 200 {
		b.sent = true
		b.Header().Add("Content-Security-Policy", box)
		b.Header().Set("X-Content-Type-Options", "nosniff")
	}
	b.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (b *boxed) Write(p []byte) (int, error) {
	if !b.sent {
		b.WriteHeader(http.StatusOK)
	}
	return b.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (b *boxed) FlushError() error {
	if !b.sent {
		b.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(b.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (b *boxed) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// address is one of a host and port.
func address(host string) string { return (&url.URL{Scheme: "http", Host: host}).String() }
