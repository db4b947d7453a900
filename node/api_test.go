package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/internal/apicheck"
)

func documentOf(t *testing.T, n *Node) *apicheck.Document {
	t.Helper()
	d, err := apicheck.Parse(n.document)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// check compares an answer with what the document says of it.
func check(t *testing.T, d *apicheck.Document, method, path string, answer *http.Response) {
	t.Helper()
	b, err := io.ReadAll(answer.Body)
	if err == nil {
		err = d.Check(method, client.Base+strings.ReplaceAll(path, "...}", "}"), answer.StatusCode, answer.Header.Get("Content-Type"), b)
	}
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
}

// fullNode has something of everything that an answer can have.
func fullNode(t *testing.T) *Node {
	t.Helper()
	o := testOptions(t)
	o.Idle = time.Hour
	o.Wire = func(_ context.Context, n *Node) error {
		n.OnStatus(example(time.Now()))
		n.Door(Door{Name: "door", Match: func(*http.Request) bool { return false }})
		failed := false
		n.Supervise("fails", func(ctx context.Context) error {
			if !failed {
				failed = true
				panic("once")
			}
			<-ctx.Done()
			return nil
		})
		n.Notices.Raise(client.Notice{Code: "a", Subject: "b", Severity: client.Problem, Text: "c", Fix: "d"})
		n.Route(Call("GET", "/fails/{how}", "Fail", func(_ context.Context, in struct {
			How string `path:"how"`
		}) (None, error) {
			switch in.How {
			case "panic":
				panic("a mistake")
			case "full":
				return None{}, fmt.Errorf("write a log: %w", syscall.ENOSPC)
			}
			return None{}, &client.Error{Code: client.Code(in.How), Message: "m", Cause: "c", Try: "t"}
		}))
		return nil
	}
	n := openNode(t, o)
	n.Say("hello")
	return n
}

// Every route is in the document, and what it answers is what the document says.
func TestAnswersAreAsTheDocumentSays(t *testing.T) {
	n := fullNode(t)
	d := documentOf(t, n)
	signIn(t, n)
	session := n.sessions.list("")[0].ID
	ids := map[string]bool{}
	routes := n.routes
	slices.SortStableFunc(routes, func(a, b Route) int { return strings.Compare(b.Method, a.Method) }) // what takes away comes after what lists
	for _, r := range routes {
		name := r.Method + " " + r.Path
		op, ok := d.Paths[client.Base+strings.ReplaceAll(r.Path, "...}", "}")][strings.ToLower(r.Method)]
		if !ok {
			t.Errorf("%s is not in the document", name)
			continue
		}
		if ids[op.OperationID] || op.OperationID == "" || op.Summary == "" || strings.HasSuffix(op.Summary, ".") {
			t.Errorf("%s: id %q, summary %q", name, op.OperationID, op.Summary)
		}
		ids[op.OperationID] = true
		if (op.Security != nil) != r.Open {
			t.Errorf("%s: open %v, security %v", name, r.Open, op.Security)
		}
		if strings.Count(r.Path, "{") != countIn(op, "path") {
			t.Errorf("%s: parameters %+v", name, op.Parameters)
		}
		path := strings.ReplaceAll(r.Path, "{id}", session)
		var body string
		switch name {
		case "POST /stop", "GET /events", "GET /fails/{how}":
			continue // tested on their own
		case "POST /sessions":
			_, token, _ := strings.Cut(n.Link().URL, "#t=")
			body = `{"token":"` + token + `"}`
		}
		req := httptest.NewRequest(r.Method, client.Base+path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		n.serveControl(w, req)
		check(t, d, r.Method, r.Path, w.Result())
	}
	// What is refused has a form too.
	for how, status := range map[string]int{
		"failed": 500, "usage": 400, "not-found": 404, "denied": 403, "conflict": 409, "offline": 503, "corrupt": 500, "full": 507, "panic": 500,
	} {
		w := httptest.NewRecorder()
		n.serveControl(w, httptest.NewRequest("GET", client.Base+"/fails/"+how, nil))
		if w.Code != status {
			t.Errorf("%s: %d, want %d", how, w.Code, status)
		}
		check(t, d, "GET", "/fails/{how}", w.Result())
	}
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/nothing", 404}, {"PUT", "/status", 405}, {"GET", "//status", 404}, {"GET", "/../v1/status", 404}} {
		w := httptest.NewRecorder()
		n.serveControl(w, httptest.NewRequest(c.method, "http://x"+client.Base+c.path, nil))
		if w.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.want)
		}
		check(t, d, "GET", "/status", w.Result())
	}
}

func countIn(op apicheck.Operation, in string) (n int) {
	for _, p := range op.Parameters {
		if p.In == in {
			n++
		}
	}
	return n
}

func TestInputsAreChecked(t *testing.T) {
	type input struct {
		ID    string    `path:"id"`
		Limit int       `query:"limit"`
		At    time.Time `query:"at"`
		All   bool      `query:"all"`
		Size  uint64    `query:"size"`
		Name  string    `json:"name"`
		Note  string    `json:"note,omitempty"`
		List  []string  `json:"list,omitempty"`
	}
	var got input
	o := testOptions(t)
	o.Wire = func(_ context.Context, n *Node) error {
		n.Route(Call("PUT", "/things/{id}", "Take", func(_ context.Context, in input) (None, error) {
			got = in
			return None{}, nil
		}))
		return nil
	}
	n := openNode(t, o)
	put := func(query, kind, body string) (int, string) {
		r := httptest.NewRequest("PUT", client.Base+"/things/a%2Fb"+query, strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		n.serveControl(w, r)
		return w.Code, w.Body.String()
	}
	at := time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)
	if code, text := put("?limit=-3&all=true&size=7&at=2026-11-23T16:00:00Z", "application/json; charset=utf-8", `{"name":"n","list":["x"]}`); code != 204 || text != "" {
		t.Errorf("%d %s", code, text)
	}
	if want := (input{ID: "a/b", Limit: -3, At: at, All: true, Size: 7, Name: "n", List: []string{"x"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, c := range []struct{ query, kind, body, says string }{
		{"?limit=x", "application/json", `{"name":"n"}`, `\"limit\" in the query`},
		{"?at=now", "application/json", `{"name":"n"}`, `\"at\" in the query`},
		{"?all=perhaps", "application/json", `{"name":"n"}`, `\"all\" in the query`},
		{"?size=-1", "application/json", `{"name":"n"}`, `\"size\" in the query`},
		{"", "application/json", `{}`, `\"name\" in the body`},
		{"", "application/json", `{"name":7}`, `\"name\" in the body`},
		{"", "application/json", `{"name":"n","other":1}`, `\"other\" in the body`},
		{"", "text/plain", `{"name":"n"}`, "Content-Type"},
		{"", "", `{"name":"n"}`, "Content-Type"},
	} {
		if code, text := put(c.query, c.kind, c.body); code != 400 || !strings.Contains(text, c.says) {
			t.Errorf("%+v: %d %s", c, code, text)
		}
	}
}

func TestAMistakeInATableOfRoutesShowsAtOnce(t *testing.T) {
	o := testOptions(t)
	o.Wire = func(_ context.Context, n *Node) error {
		n.Route(Call("GET", "/status", "Again", func(context.Context, None) (None, error) { return None{}, nil }))
		return nil
	}
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "two routes") {
		t.Errorf("got %v", err)
	}
	o.Wire = nil
	openNode(t, o) // the first try has let go of everything
	for what, f := range map[string]func(){
		"no tag":    func() { fieldsOf(typeOf[struct{ A string }]()) },
		"no struct": func() { fieldsOf(typeOf[int]()) },
		"no field":  func() { schemas{}.parameters(Route{Path: "/{id}", in: typeOf[None]()}) },
		"no name":   func() { schemas{}.ref(typeOf[struct{ A int }]()) },
		"no such":   func() { schemas{}.ref(typeOf[chan int]()) },
		"two by name": func() {
			s := schemas{}
			s.ref(typeOf[client.Link]())
			s["Link"]["x-go"] = "other"
			s.ref(typeOf[client.Link]())
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: nobody notices", what)
				}
			}()
			f()
		}()
	}
}

func TestStreamGoesOnWhereItWas(t *testing.T) {
	n := openNode(t, testOptions(t))
	c := dial(t, n)
	place := n.events.now()
	for i := range 5 {
		n.Say("%d", i)
	}
	follow := func(after string, want int) (kinds []string, last string) {
		for e, err := range c.Events(t.Context(), after) {
			if err != nil {
				t.Fatal(err)
			}
			var w client.Words
			_ = json.Unmarshal(e.Data, &w) // not all have words
			kinds, last = append(kinds, e.Kind+w.Text), e.ID
			if len(kinds) == want {
				break
			}
		}
		return kinds, last
	}
	first, at := follow(place, 2)
	rest, _ := follow(at, 3)
	if got := fmt.Sprint(first, rest); got != "[said0 said1] [said2 said3 said4]" {
		t.Errorf("got %s", got)
	}
	for range maxEvents {
		n.Publish("many", nil)
	}
	for _, old := range []string{place, "other-1", "nonsense", n.events.id(1 << 40)} {
		if got, last := follow(old, 1); got[0] != client.Reset || last != n.events.now() {
			t.Errorf("after %s: %s at %s", old, got, last)
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	h := newHub(clock.NewFake(time.Unix(1e9, 0)))
	place := h.now()
	h.publish("big", strings.Repeat("x", maxEvent))
	events, _ := h.after(place)
	if len(events) != 1 || events[0].Data != nil {
		t.Error("data that is too large is sent")
	}
	for range 100 {
		h.publish("large", strings.Repeat("x", maxEvent-10))
	}
	if h.bytes > maxEventBytes || len(h.events) >= 20 {
		t.Errorf("%d events with %d bytes are kept", len(h.events), h.bytes)
	}
	for range 2 * maxEvents {
		h.publish("small", nil)
	}
	if len(h.events) != maxEvents || h.bytes != 0 {
		t.Errorf("%d events with %d bytes are kept", len(h.events), h.bytes)
	}
	last, more := h.after(h.now())
	if len(last) != 0 {
		t.Errorf("%d events after the last", len(last))
	}
	h.publish("next", nil)
	<-more
}

func TestStreamsAreBoundedAndEndWithTheNode(t *testing.T) {
	n := openNode(t, testOptions(t))
	c := dial(t, n)
	n.streams.Store(maxStreams)
	for _, err := range c.Events(t.Context(), "") {
		var e *client.Error
		if !errors.As(err, &e) || e.Status != 429 {
			t.Errorf("one more: %v", err)
		}
		break
	}
	n.streams.Store(0)
	place := n.events.now()
	n.Say("x")
	for _, err := range c.Events(t.Context(), place) {
		if err != nil {
			break // the stream has ended
		}
		go n.Close()
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// Names and fields that programs rely on are not taken away. It takes a change
// here to change them, and then a new version of the API.
func TestTheAPIKeepsItsNames(t *testing.T) {
	n := openNode(t, testOptions(t))
	d := documentOf(t, n)
	for path, methods := range map[string][]string{
		"": {"get"}, "/status": {"get"}, "/services": {"get"}, "/notices": {"get"}, "/events": {"get"}, "/links": {"post"},
		"/sessions": {"get", "post"}, "/sessions/{id}": {"delete"}, "/stop": {"post"}, "/openapi.json": {"get"},
	} {
		for _, m := range methods {
			if _, ok := d.Paths[client.Base+path][m]; !ok {
				t.Errorf("%s %s is gone", m, path)
			}
		}
	}
	for name, fields := range map[string]string{
		"Error": "code message cause try", "Hello": "api version pid since address", "Notice": "code severity text since",
		"Session": "id name from made used current", "Event": "id kind time data",
	} {
		s, _ := d.Components.Schemas[name].(map[string]any)
		properties, _ := s["properties"].(map[string]any)
		for _, f := range strings.Fields(fields) {
			if properties[f] == nil {
				t.Errorf("%s.%s is gone", name, f)
			}
		}
	}
	if m := regexp.MustCompile(`"x-go":"[^"]*/`).Find(n.document); m != nil {
		t.Errorf("the document has a path of the machine: %s", m)
	}
}
