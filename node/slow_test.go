package node

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A pipes is a listener whose connections are in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error { close(p); return nil }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// Callers have little time to say what they want, and to take the answer; what they
// ask for may take long, and a long answer too.
func TestWhatTakesLongIsAnswered(t *testing.T) {
	const long = 10 * time.Minute
	work := func(ctx context.Context) error {
		clock.Sleep(ctx, clock.System, long)
		return ctx.Err()
	}
	call := func(ctx context.Context, in struct {
		Word string `json:"word"`
	}) (out struct{ Word string }, err error) {
		out.Word = in.Word
		return out, work(ctx)
	}
	for _, c := range []struct {
		route      Route
		body, want string
	}{
		{Call("POST", "/", "", call), `{"word":"hello"}`, `{"Word":"hello"}`},
		{Call("GET", "/", "", func(ctx context.Context, _ None) (None, error) { return None{}, work(ctx) }), "", ""},
		{Call("DELETE", "/", "", func(ctx context.Context, _ None) (None, error) { return None{}, usage("so", "it is") }), "", `"usage"`},
		{Raw("GET", "/", "", "", "text/plain", func(w http.ResponseWriter, r *http.Request, _ None) error {
			_, _ = io.WriteString(w, "hel")
			if err := work(r.Context()); err != nil {
				return err
			}
			_, err := io.WriteString(w, "lo")
			return err
		}), "", "hello"},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := make(pipes)
			s := &http.Server{Handler: &routeHandler{node: &Node{}, route: c.route}}
			go func() { _ = s.Serve(l) }()
			defer s.Close()
			way := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				l <- there
				return here, nil
			}}
			defer way.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), c.route.Method, "http://node/", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := way.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", c.route.Method, err)
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), c.want) {
				t.Errorf("%s: %q, %v; want %q", c.route.Method, b, err, c.want)
			}
		})
	}
}
