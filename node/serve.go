package node

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// seal makes the table of routes into what serves them.
func (n *Node) seal() (err error) {
	if n.document, err = n.openAPI(); err != nil {
		return err
	}
	n.mux = http.NewServeMux()
	for _, r := range n.routes {
		n.mux.Handle(r.Method+" "+client.Base+r.Path, &routeHandler{n, r})
	}
	return nil
}

// serveControl answers on the control socket.
func (n *Node) serveControl(w http.ResponseWriter, r *http.Request) {
	who, err := n.guardOwner(r)
	if err != nil {
		refuse(w, err)
		return
	}
	n.serveAPI(w, r, func(bool) (caller, error) { return who, nil })
}

// servePort answers on the port.
func (n *Node) servePort(w http.ResponseWriter, r *http.Request) {
	if !n.knownHost(r) {
		http.Error(w, fmt.Sprintf("the node does not answer to %q; bevy up --host lets it", hostOf(r)), http.StatusMisdirectedRequest)
		return
	}
	if d := n.doorFor(r, func(d *openDoor) bool { return d.Signed }); d != nil {
		n.serveDoor(d, w, r)
		return
	}
	own := n.ownHost(r)
	if own && (r.URL.Path == client.Base || strings.HasPrefix(r.URL.Path, client.Base+"/")) {
		n.serveAPI(w, r, func(open bool) (caller, error) { return n.guardPort(r, open) })
		return
	}
	if d := n.doorFor(r, func(d *openDoor) bool { return !d.Signed && !d.Last }); d != nil {
		n.serveDoor(d, w, r)
		return
	}
	if own && !hasPage(r) {
		if d := n.doorFor(r, func(d *openDoor) bool { return d.Last }); d != nil {
			n.serveDoor(d, w, r)
			return
		}
	}
	if own {
		n.servePage(w, r)
		return
	}
	http.NotFound(w, r)
}

// doorFor returns the first door of some that a request is for, or nil.
func (n *Node) doorFor(r *http.Request, of func(*openDoor) bool) *openDoor {
	for _, d := range n.doors {
		if of(d) && d.Match(r) {
			return d
		}
	}
	return nil
}

// A routeHandler serves a route.
type routeHandler struct {
	node  *Node
	route Route
}

// serveAPI finds the route of a request, asks guard who may, and serves it.
func (n *Node) serveAPI(w http.ResponseWriter, r *http.Request, guard func(open bool) (caller, error)) {
	defer n.Busy("requests")()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h, pattern := n.mux.Handler(r)
	found, ok := h.(*routeHandler)
	who, err := guard(ok && found.route.Open)
	switch {
	case err != nil:
		refuse(w, err)
		return
	case !ok && pattern == "" && n.otherMethod(r):
		e := usage("it takes another method", "%s %s is not there", r.Method, r.URL.Path)
		e.Status = http.StatusMethodNotAllowed
		refuse(w, e)
		return
	case !ok:
		refuse(w, &client.Error{Code: client.CodeNotFound, Message: "there is nothing at " + r.URL.Path, Cause: "the API has no such path", Try: "GET " + client.Base + "/openapi.json"})
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, who))
	n.mux.ServeHTTP(w, r) // which also sets the parameters of the path
}

// otherMethod reports whether the path is there for another method.
func (n *Node) otherMethod(r *http.Request) bool {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if h, _ := n.mux.Handler(other); h != nil {
			if _, ok := h.(*routeHandler); ok {
				return true
			}
		}
	}
	return false
}

// ServeHTTP implements http.Handler. Who asks may.
func (h *routeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, route := h.node, h.route
	slow := http.NewResponseController(w)
	limit := route.MaxBody
	if limit == 0 {
		limit = maxBody
	}
	if limit > 0 && r.Body != http.NoBody { // without one, it would be the time for all of the call
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		_ = slow.SetReadDeadline(clock.System.Now().Add(bodyTime)) // a connection of a test may have none
	}
	out := &tracked{ResponseWriter: w}
	if route.gives == "" {
		out.begin = func() { _ = slow.SetWriteDeadline(clock.System.Now().Add(takeTime)) }
	}
	defer func() {
		v := recover()
		if v == nil || v == http.ErrAbortHandler {
			return
		}
		n.Log.Error("a request made us panic", "route", route.Method+" "+route.Path, "err", v, "stack", string(debug.Stack()))
		if !out.sent {
			refuse(out, &client.Error{Code: client.CodeFailed, Message: "it did not work", Cause: "a mistake in bevy", Try: "look into " + logPath(n.opts.Paths)})
		}
	}()
	if err := route.serve(out, r); err != nil && !out.sent {
		if FailureOf(err).Code == client.CodeFailed {
			n.Log.Warn("a request failed", "route", route.Method+" "+route.Path, "err", err)
		}
		refuse(out, err)
	}
}

// tracked knows whether an answer has begun.
type tracked struct {
	http.ResponseWriter
	begin func() // is called when it does, if it is not nil
	sent  bool
}

func (t *tracked) note() {
	if !t.sent && t.begin != nil {
		t.begin()
	}
	t.sent = true
}

// WriteHeader implements http.ResponseWriter.
func (t *tracked) WriteHeader(status int) {
	t.note()
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *tracked) Write(b []byte) (int, error) {
	t.note()
	return t.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
