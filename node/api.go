package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

const (
	// maxStreams bounds the streams of events that pages have open.
	maxStreams = 64
	// heartbeat is how often a stream shows that it lives.
	heartbeat = 25 * time.Second
)

// ownRoutes is what every node can be asked.
func (n *Node) ownRoutes() []Route {
	hello := Call("GET", "", "Tell which node answers", func(context.Context, None) (client.Hello, error) { return n.hello(), nil })
	hello.Open = true
	signIn := Raw("POST", "/sessions", "Sign in with the token of a link; a cookie comes with the answer", "", "", n.signIn)
	signIn.Open = true
	signIn.out = typeOf[client.SignedIn]()
	return []Route{
		hello,
		Call("GET", "/status", "Tell how the node is", func(ctx context.Context, _ None) (client.Status, error) { return n.status(ctx), nil }),
		Call("GET", "/services", "Tell what each part of the node uses", n.listServices),
		Call("GET", "/notices", "Tell what the owner should know", func(context.Context, None) (client.Notices, error) {
			return client.Notices{Notices: n.Notices.List()}, nil
		}),
		Raw("GET", "/events", "Follow what happens: each event is JSON of the schema Event, as server-sent events", "", "text/event-stream", n.follow),
		Call("POST", "/links", "Make a link that signs in once", func(context.Context, None) (client.Link, error) { return n.Link(), nil }),
		Call("GET", "/sessions", "List who is signed in", func(ctx context.Context, _ None) (client.Sessions, error) {
			return client.Sessions{Sessions: n.sessions.list(callerOf(ctx).session)}, nil
		}),
		signIn,
		Call("DELETE", "/sessions/{id}", "End a session", func(ctx context.Context, in client.SessionID) (None, error) {
			if in.ID == "current" {
				in.ID = callerOf(ctx).session
			}
			defer n.Publish(client.Changed, nil) // streams of that session see that it has ended
			return None{}, n.sessions.revoke(in.ID)
		}),
		Call("POST", "/stop", "End the node", func(context.Context, None) (None, error) {
			n.Stop()
			return None{}, nil
		}),
		Raw("GET", "/openapi.json", "Describe all of this", "", "application/json", func(w http.ResponseWriter, _ *http.Request, _ None) error {
			w.Header().Set("Content-Type", "application/json")
			_, err := w.Write(n.document)
			return err
		}),
	}
}

func (n *Node) hello() client.Hello {
	return client.Hello{API: 1, Version: n.opts.Version, PID: os.Getpid(), Since: n.since, Address: n.Address()}
}

func (n *Node) status(ctx context.Context) client.Status {
	s := client.Status{
		Node: n.hello(), Paths: n.opts.Paths.wire(), Notices: n.Notices.List(), Recent: n.events.recent(), LastEnd: n.before.Ended,
	}
	s.Busy, s.IdleAt = n.idle.reasons()
	if after := n.idleAfter(); after > 0 {
		s.IdleExit = after.String()
	}
	if n.before.Ended == "crashed" {
		s.Crash = n.lastCrash()
	}
	goroutines := n.usage.goroutines(n.clock.Now())
	s.Process, s.Services = n.usage.process(), n.services(goroutines)
	for _, f := range n.statuses {
		f(ctx, &s)
	}
	return s
}

// services are the parts of the node: what runs, and what is open.
func (n *Node) services(goroutines map[string]int) []client.Service {
	list := n.super.list(goroutines)
	for _, d := range n.doors {
		if slices.ContainsFunc(list, func(s client.Service) bool { return s.Name == d.Name }) {
			continue // it has two ways in, and one account
		}
		list = append(list, client.Service{Name: d.Name, State: "open", Since: n.since, Usage: d.account.usage()})
	}
	return list
}

func (n *Node) listServices(ctx context.Context, in client.ServicesRequest) (out client.Services, err error) {
	var share map[string]float64
	if in.Measure != "" {
		d, err := time.ParseDuration(in.Measure)
		if err != nil || d <= 0 || d > 10*time.Second {
			return out, usage("it is no time such as 1s, of at most 10s", "wrong %q in the query", "measure")
		}
		if share, err = n.usage.measure(ctx, n.clock, d); err != nil {
			return out, err
		}
	}
	out = client.Services{Process: n.usage.process(), Services: n.services(n.usage.goroutines(n.clock.Now()))}
	for i := range out.Services {
		out.Services[i].Usage.CPUShare = share[out.Services[i].Name]
	}
	for _, part := range share {
		out.Process.CPUShare += part
	}
	return out, nil
}

// signIn makes a session of a link's token.
func (n *Node) signIn(w http.ResponseWriter, r *http.Request, in client.SignInRequest) error {
	made, cookie, key, err := n.sessions.signIn(in.Token, in.Name, remoteIP(r))
	if err != nil {
		return err
	}
	n.Log.Info("signed in", "session", made.ID, "from", made.From)
	http.SetCookie(w, &http.Cookie{
		Name: n.cookieName(), Value: cookie, Path: "/", MaxAge: int(sessionLife.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	return answer(w, http.StatusOK, client.SignedIn{ID: made.ID, Key: key})
}

// follow sends events as they come.
func (n *Node) follow(w http.ResponseWriter, r *http.Request, in client.EventsRequest) error {
	if int(n.streams.Add(1)) > maxStreams {
		n.streams.Add(-1)
		return &client.Error{Code: client.CodeFailed, Message: "cannot follow the events", Cause: "too many do", Try: "close a page", Status: http.StatusTooManyRequests}
	}
	defer n.streams.Add(-1)
	defer n.Busy("pages")()
	place := in.After
	if id := r.Header.Get(client.LastEvent); id != "" {
		place = id
	}
	if place == "" {
		place = n.events.now()
	}
	session := callerOf(r.Context()).session
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	for send := ": bevy\n\n"; ; {
		if session != "" && !n.sessions.has(session) {
			return nil // it was revoked
		}
		_ = out.SetWriteDeadline(clock.System.Now().Add(takeTime)) // who takes nothing is let go
		if _, err := w.Write([]byte(send)); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		events, more := n.events.after(place)
		if len(events) == 0 {
			if !n.await(r.Context(), more) {
				return nil
			}
			if events, _ = n.events.after(place); len(events) == 0 {
				send = ":\n\n"
				continue
			}
		}
		send = ""
		for _, e := range events {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			send += fmt.Sprintf("id: %s\ndata: %s\n\n", e.ID, b)
			place = e.ID
		}
	}
}

// await waits for events, or until it is time for a sign of life. It reports
// whether the stream goes on.
func (n *Node) await(ctx context.Context, more <-chan struct{}) bool {
	beat := make(chan struct{})
	t := n.clock.AfterFunc(heartbeat, func() { close(beat) })
	defer t.Stop()
	select {
	case <-more:
	case <-beat:
	case <-ctx.Done():
		return false
	case <-n.draining:
		return false
	}
	return true
}
