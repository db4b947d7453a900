// Package client talks to a running node: "bevy up". It has the types of the
// control API, version 1, and a Go method for what every node has; whatever
// else a node is asked goes through Do. It starts no node: where none runs, the
// error is ErrNotRunning.
//
// The API is JSON over HTTP. A node answers on a socket of its owner, with all
// rights, and on a port, to those who have signed in. What it can be asked is
// in its own document: GET /api/v1/openapi.json.
//
//	c, err := client.Dial(ctx, "/home/me/.local/state/bevy/bevy.sock")
//	status, err := c.Status(ctx)
//	for event, err := range c.Events(ctx, "") { … }
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// Base is what the paths of the API begin with.
const Base = "/api/v1"

// Names of headers.
const (
	// KeyHeader has the second half of a session: the first is a cookie, which
	// other servers of the machine may get to see.
	KeyHeader = "X-Bevy-Key"
	// LastEvent is where a stream of events goes on.
	LastEvent = "Last-Event-ID"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// A Client talks to one node. Its methods may be called by any goroutine.
type Client struct {
	// Clock is for waiting before connecting anew.
	Clock clock.Clock

	http   *http.Client
	base   string       // such as http://127.0.0.1:7070
	where  string       // as a person knows it
	header http.Header  // sent with each request
	cookie *http.Cookie // of a session
}

// Dial finds the node at a target: the path of its socket, or an address such
// as http://127.0.0.1:7070. A password in the address is sent as a bearer
// token.
func Dial(ctx context.Context, target string) (*Client, error) {
	c, err := open(target)
	if err != nil {
		return nil, err
	}
	if _, err := c.Hello(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func open(target string) (*Client, error) {
	t := &http.Transport{MaxIdleConnsPerHost: 4, DisableCompression: true}
	c := &Client{Clock: clock.System, http: &http.Client{Transport: t}, where: target, header: http.Header{}}
	if !strings.HasPrefix(target, "http://") && !strings.HasPrefix(target, "https://") {
		path := strings.TrimPrefix(target, "unix://")
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		c.base = "http://bevy"
		return c, nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return nil, &Error{Code: CodeUsage, Message: fmt.Sprintf("%q is not the address of a node", target), Cause: "it is no URL", Try: "http://127.0.0.1:7070"}
	}
	if token, ok := u.User.Password(); ok {
		c.header.Set("Authorization", "Bearer "+token)
	}
	u.User = nil
	c.base = u.Scheme + "://" + u.Host
	c.where = c.base
	return c, nil
}

// SignIn makes a session with a one-time link, as "bevy up" prints it. The
// session is over when it is revoked, or was not used for a month.
func SignIn(ctx context.Context, link string) (*Client, error) {
	address, token, ok := strings.Cut(link, "#t=")
	if !ok {
		return nil, &Error{Code: CodeUsage, Message: "cannot sign in", Cause: "the link has no token", Try: "bevy up prints a link"}
	}
	c, err := open(strings.TrimSuffix(address, "/"))
	if err != nil {
		return nil, err
	}
	var made SignedIn
	answer, err := c.send(ctx, http.MethodPost, "/sessions", SignInRequest{Token: token, Name: "Go client"})
	if err != nil {
		c.Close()
		return nil, err
	}
	defer answer.Body.Close()
	if err := decode(answer.Body, &made); err != nil {
		c.Close()
		return nil, err
	}
	for _, cookie := range answer.Cookies() {
		c.cookie = cookie
	}
	c.header.Set(KeyHeader, made.Key)
	return c, nil
}

// Close lets go of connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do asks the node: it sends in as JSON, unless it is nil, and reads the answer
// into out, unless that is nil. The path is one below Base; what stands in it
// for a parameter is escaped by the caller. Errors of the node are of type
// *Error.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	answer, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if out == nil {
		return nil
	}
	return decode(answer.Body, out)
}

func decode(r io.Reader, out any) error {
	if err := json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read the answer of the node: %w", err)
	}
	return nil
}

// Check checks what is here of a folder, a bucket, a table or the cloud itself, and
// calls seen with how many more bytes were read.
func (c *Client) Check(ctx context.Context, in CheckRequest, seen func(bytes int64)) (out Scrubbed, err error) {
	answer, err := c.Stream(ctx, http.MethodPost, "/checks/"+url.PathEscape(in.Space)+"?repair="+strconv.FormatBool(in.Repair), nil, nil)
	if err != nil {
		return out, err
	}
	defer answer.Body.Close()
	before := int64(0)
	for lines := json.NewDecoder(answer.Body); ; {
		var line CheckLine
		switch err := lines.Decode(&line); {
		case err != nil:
			return out, fmt.Errorf("read the answer of the node: %w", err)
		case line.Error != nil:
			return out, line.Error
		case line.Bytes > before:
			seen(line.Bytes - before)
			before = line.Bytes
		}
		if line.Found != nil {
			return *line.Found, nil
		}
	}
}

// Stream asks the node for something that is no JSON, or that is sent as it is:
// a body may be nil. The caller closes the answer's body.
func (c *Client) Stream(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+Base+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if c.cookie != nil {
		r.AddCookie(c.cookie)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if answer.StatusCode >= 300 {
		defer answer.Body.Close()
		return nil, readError(answer)
	}
	return answer, nil
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	if in == nil {
		return c.Stream(ctx, method, path, nil, nil)
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	return c.Stream(ctx, method, path, bytes.NewReader(b), http.Header{"Content-Type": {"application/json"}})
}

// unreachable says that nobody answers.
func (c *Client) unreachable(err error) error {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		e := &Error{Code: CodeOffline, Message: "bevy is not running", Cause: "nobody answers at " + c.where, Try: "bevy up", err: ErrNotRunning}
		if errors.Is(err, fs.ErrPermission) {
			*e = Error{Code: CodeDenied, Message: "cannot talk to the node", Cause: c.where + " belongs to another user", Try: "do it as that user", err: err}
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			e.Cause = dial.Err.Error()
		}
		return e
	}
	return fmt.Errorf("ask the node: %w", err)
}

// Hello tells which node answers.
func (c *Client) Hello(ctx context.Context) (out Hello, err error) {
	return out, c.Do(ctx, http.MethodGet, "", nil, &out)
}

// Status tells how the node is.
func (c *Client) Status(ctx context.Context) (out Status, err error) {
	return out, c.Do(ctx, http.MethodGet, "/status", nil, &out)
}

// Link makes a link that signs in once, within a few minutes. It needs the
// socket, or a session.
func (c *Client) Link(ctx context.Context) (out Link, err error) {
	return out, c.Do(ctx, http.MethodPost, "/links", nil, &out)
}

// Notices lists what the owner should know.
func (c *Client) Notices(ctx context.Context) (out Notices, err error) {
	return out, c.Do(ctx, http.MethodGet, "/notices", nil, &out)
}

// Services lists the parts of the node, with what each uses.
func (c *Client) Services(ctx context.Context) (out Services, err error) {
	return out, c.Do(ctx, http.MethodGet, "/services", nil, &out)
}

// Sessions lists who is signed in.
func (c *Client) Sessions(ctx context.Context) (out Sessions, err error) {
	return out, c.Do(ctx, http.MethodGet, "/sessions", nil, &out)
}

// Revoke ends a session.
func (c *Client) Revoke(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, "/sessions/"+url.PathEscape(id), nil, nil)
}

// Stop ends the node. It returns when the node has begun to stop.
func (c *Client) Stop(ctx context.Context) error {
	return c.Do(ctx, http.MethodPost, "/stop", nil, nil)
}
