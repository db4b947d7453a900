package level

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

const token = "sesame"

// A counter is storage that knows how many snapshots of it are open.
type counter struct {
	storage.Engine
	open atomic.Int64
}

type counted struct {
	storage.Snapshot
	c *counter
}

func (c *counter) Snapshot() (storage.Snapshot, error) {
	s, err := c.Engine.Snapshot()
	c.open.Add(1)
	return counted{s, c}, err
}

func (s counted) Close() error {
	s.c.open.Add(-1)
	return s.Snapshot.Close()
}

// A house has a door.
type house struct {
	t     *testing.T
	door  *Door
	tree  *hyperbee.Tree
	clock *clock.Fake
	store *counter
	url   string
}

func newHouse(t *testing.T, o Options) *house {
	t.Helper()
	h := &house{t: t, clock: clock.NewFake(time.Unix(0, 0)), store: &counter{Engine: storage.NewMemory()}}
	store, err := storage.Open(h.store, storage.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	kp := hypercore.NewKeyPair([32]byte{1})
	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
	must(t, err)
	t.Cleanup(func() { log.Close() })
	h.tree, err = hyperbee.Open(log, hyperbee.Options{Durability: hypercore.Soon})
	must(t, err)
	o.Token, o.Clock = token, h.clock
	h.door = New(h.tree, o)
	server := httptest.NewServer(h.door)
	t.Cleanup(func() {
		h.door.Close()
		server.Close()
	})
	h.url = server.URL
	return h
}

// A client speaks the protocol by hand.
type client struct {
	t  *testing.T
	ws *websocket.Conn
	id uint64
}

type object = map[string]any

func (h *house) dial() *client {
	h.t.Helper()
	ws, _, err := websocket.Dial(h.t.Context(), h.url, &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	must(h.t, err)
	ws.SetReadLimit(-1)
	h.t.Cleanup(func() { ws.CloseNow() })
	return &client{t: h.t, ws: ws}
}

// client is one that has said hello.
func (h *house) client() *client {
	h.t.Helper()
	c := h.dial()
	c.call(object{"op": "hello", "version": 1})
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	must(c.t, c.ws.Write(c.t.Context(), websocket.MessageText, []byte(text)))
}

func (c *client) receive() (r object) {
	c.t.Helper()
	_, b, err := c.ws.Read(c.t.Context())
	must(c.t, err)
	must(c.t, json.Unmarshal(b, &r))
	return r
}

// ask sends a request, with the next number.
func (c *client) ask(r object) uint64 {
	c.t.Helper()
	c.id++
	r["id"] = c.id
	b, err := json.Marshal(r)
	must(c.t, err)
	c.send(string(b))
	return c.id
}

// answer is the reply to a request, which may be an error.
func (c *client) answer(r object) object {
	c.t.Helper()
	id := c.ask(r)
	reply := c.receive()
	if reply["id"] != float64(id) {
		c.t.Fatalf("request %d is answered by %v", id, reply)
	}
	return reply
}

// call is a request that has to go well.
func (c *client) call(r object) object {
	c.t.Helper()
	reply := c.answer(r)
	if reply["error"] != nil {
		c.t.Fatalf("%v: %v", r, reply["error"])
	}
	return reply
}

// refused checks the code of a request that has to go wrong.
func (c *client) refused(r object, want Code) {
	c.t.Helper()
	reply := c.answer(r)
	if e, _ := reply["error"].(object); e["code"] != string(want) || e["message"] == "" {
		c.t.Errorf("%v is answered by %v, want %s", r, reply, string(want))
	}
}

// until waits for something that other goroutines do.
func (h *house) until(what string, done func() bool) {
	h.t.Helper()
	for !done() {
		if h.t.Context().Err() != nil {
			h.t.Fatal(what)
		}
		runtime.Gosched()
	}
}

func TestDoorRefusesWhoMayNotEnter(t *testing.T) {
	h := newHouse(t, Options{Origins: []string{"https://app.example"}, Hosts: []string{"bevy.example"}})
	bearer := http.Header{"Authorization": {"Bearer " + token}}
	with := func(key, value string) http.Header {
		h := bearer.Clone()
		h.Set(key, value)
		return h
	}
	for name, c := range map[string]struct {
		host   string
		header http.Header
		want   int
	}{
		"token":                   {"", bearer, 101},
		"no token":                {"", http.Header{}, 401},
		"another token":           {"", http.Header{"Authorization": {"Bearer sesame2"}}, 401},
		"an empty token":          {"", http.Header{"Authorization": {"Bearer "}}, 401},
		"an origin that may":      {"", with("Origin", "https://app.example"), 101},
		"an origin that may not":  {"", with("Origin", "https://evil.example"), 403},
		"an origin with a port":   {"", with("Origin", "https://app.example:444"), 403},
		"no page in particular":   {"", with("Origin", "null"), 403},
		"the page of the door":    {"", with("Origin", h.url), 403},
		"a name of this machine":  {"LOCALHOST:1", bearer, 101},
		"another such":            {"127.9.9.9", bearer, 101},
		"an IPv6 address":         {"[::1]:4234", bearer, 101},
		"a name it was told of":   {"Bevy.example:4234", bearer, 101},
		"a name that points here": {"evil.example:4234", bearer, 421},
		"an address elsewhere":    {"192.0.2.1", bearer, 421},
		"a name like a loopback":  {"127.0.0.1.evil.example", bearer, 421},
	} {
		ws, response, err := websocket.Dial(t.Context(), h.url, &websocket.DialOptions{HTTPHeader: c.header, Host: c.host})
		if response == nil || response.StatusCode != c.want || (err == nil) != (c.want == 101) {
			t.Errorf("%s: %v, %v, want status %d", name, response, err, c.want)
		}
		if ws != nil {
			ws.CloseNow()
		}
	}
	for offer, want := range map[string]int{token: 101, "x": 401} {
		ws, response, err := websocket.Dial(t.Context(), h.url, &websocket.DialOptions{
			Subprotocols: []string{"bevy-level", "bevy-token." + offer},
		})
		if response == nil || response.StatusCode != want || ws != nil && ws.Subprotocol() != "bevy-level" {
			t.Errorf("token %s as a subprotocol: %v, %v, want status %d", offer, response, err, want)
		}
		if ws != nil {
			ws.CloseNow()
		}
	}
	shut := httptest.NewServer(New(h.tree, Options{}))
	defer shut.Close()
	if _, r, _ := websocket.Dial(t.Context(), shut.URL, nil); r == nil || r.StatusCode != 401 {
		t.Errorf("a door without a token answered %v, want 401", r)
	}
	request, err := http.NewRequestWithContext(t.Context(), "GET", h.url, nil)
	must(t, err)
	request.Header = bearer
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("what is no WebSocket is answered %s", response.Status)
	}
}

func TestDoorAnswers(t *testing.T) {
	h := newHouse(t, Options{})
	c := h.dial()
	c.refused(object{"op": "get", "key": "a"}, NotSupported)
	c.refused(object{"op": "hello", "version": 2}, NotSupported)
	c.refused(object{"op": "get", "key": "a"}, NotSupported)
	if r := c.call(object{"op": "hello", "version": 1}); r["version"] != 1. || r["maxMessage"] != float64(maxMessage) {
		t.Errorf("hello is answered %v", r)
	}
	c.call(object{"op": "put", "key": "a", "value": "1"})
	c.call(object{"op": "put", "key": object{"base64": "/w=="}, "value": ""})
	if r := c.call(object{"op": "get", "key": "a"}); r["value"] != "1" {
		t.Errorf("get is answered %v", r)
	}
	if r := c.call(object{"op": "get", "key": object{"base64": "/w=="}}); r["value"] != "" {
		t.Errorf("get of an empty value is answered %v", r)
	}
	if r := c.call(object{"op": "get", "key": "b"}); len(r) != 1 {
		t.Errorf("get of nothing is answered %v", r)
	}
	if r := c.call(object{"op": "getMany", "keys": []string{"a", "b"}}); fmt.Sprint(r["values"]) != "[1 <nil>]" {
		t.Errorf("getMany is answered %v", r)
	}
	c.refused(object{"op": "get"}, InvalidKey)
	c.refused(object{"op": "getMany", "keys": []any{nil}}, InvalidKey)
	c.refused(object{"op": "put", "key": "a"}, InvalidValue)
	c.refused(object{"op": "batch", "changes": []object{{"type": "add", "key": "a", "value": "1"}}}, NotSupported)
	c.refused(object{"op": "drop"}, NotSupported)
	c.refused(object{"op": "clear", "gtt": "a"}, NotSupported)
	c.refused(object{"op": "iterator", "only": "some"}, NotSupported)
	c.refused(object{"op": "iterator", "snapshot": 7}, SnapshotNotOpen)
	c.refused(object{"op": "clear", "snapshot": 7}, SnapshotNotOpen)
	c.refused(object{"op": "next", "iterator": 7}, IteratorNotOpen)
	c.call(object{"op": "close", "iterator": 7, "snapshot": 7})
	// A limit of 0 is none of it, and not all.
	c.call(object{"op": "clear", "limit": 0})
	if r := c.call(object{"op": "hasMany", "keys": []string{"a", "b"}}); fmt.Sprint(r["has"]) != "[true false]" {
		t.Errorf("hasMany is answered %v", r)
	}
	c.call(object{"op": "iterator", "limit": 0})
	if r := c.call(object{"op": "next", "iterator": c.id}); r["end"] != true || fmt.Sprint(r["keys"]) != "[]" {
		t.Errorf("next with a limit of 0 is answered %v", r)
	}
	c.call(object{"op": "clear", "limit": -1})
	if r := c.call(object{"op": "hasMany", "keys": []string{"a"}}); fmt.Sprint(r["has"]) != "[false]" {
		t.Errorf("hasMany after clear is answered %v", r)
	}
}

func TestDoorHandsOutEntriesInPages(t *testing.T) {
	h := newHouse(t, Options{})
	c := h.client()
	large := strings.Repeat("x", pageBytes/2)
	for i := range 4 {
		c.call(object{"op": "put", "key": fmt.Sprint(i), "value": large})
	}
	var changes []object
	for i := range pageSize {
		changes = append(changes, object{"type": "put", "key": fmt.Sprintf("m%04d", i), "value": ""})
	}
	c.call(object{"op": "batch", "changes": changes})
	c.call(object{"op": "iterator"})
	it := c.id
	for _, want := range []int{2, 2, pageSize, 0} {
		r := c.call(object{"op": "next", "iterator": it, "size": 1 << 30})
		keys, values := r["keys"].([]any), r["values"].([]any)
		if len(keys) != want || len(values) != want || (r["end"] == true) != (want == 0) {
			t.Errorf("a page has %d keys and %d values, end %v, want %d", len(keys), len(values), r["end"], want)
		}
	}
	r := c.call(object{"op": "next", "iterator": it, "size": -1, "seek": "m0500"})
	if fmt.Sprint(r["keys"]) != "[m0500]" {
		t.Errorf("after a seek there is %v", r)
	}
	if r := c.call(object{"op": "getMany", "keys": []string{"0", "1", "2"}}); len(r["values"].([]any)) != 2 {
		t.Errorf("getMany of much answers %d values, want 2", len(r["values"].([]any)))
	}
	c.call(object{"op": "iterator", "only": "values", "lt": "1"})
	if r := c.call(object{"op": "next", "iterator": c.id, "size": 5}); r["keys"] != nil || len(r["values"].([]any)) != 1 {
		t.Errorf("values only are %v", r)
	}
}

func TestDoorEndsConnectionsThatMakeNoSense(t *testing.T) {
	h := newHouse(t, Options{})
	for name, c := range map[string]struct {
		kind    websocket.MessageType
		message string
		want    websocket.StatusCode
	}{
		"no JSON":   {websocket.MessageText, "hello?", websocket.StatusPolicyViolation},
		"no id":     {websocket.MessageText, `{"op":"get"}`, websocket.StatusPolicyViolation},
		"binary":    {websocket.MessageBinary, `{"id":1,"op":"hello","version":1}`, websocket.StatusPolicyViolation},
		"too large": {websocket.MessageText, strings.Repeat(" ", maxMessage+1), websocket.StatusMessageTooBig},
	} {
		client := h.client()
		// The door may end the connection before it has all of it.
		client.ws.Write(t.Context(), c.kind, []byte(c.message))
		_, b, err := client.ws.Read(t.Context())
		if websocket.CloseStatus(err) != c.want {
			t.Errorf("%s: %q, %v, want status %d", name, b, err, c.want)
		}
	}
	h.until("connections stay", func() bool { return len(h.door.conns) == 0 })
	h.client().call(object{"op": "get", "key": "a"})
}

func TestDoorFreesWhatAConnectionHeld(t *testing.T) {
	h := newHouse(t, Options{})
	other := h.client()
	other.call(object{"op": "snapshot"})
	h.until("no snapshot is held", func() bool { return h.store.open.Load() == 1 })
	for _, end := range []func(c *client){
		func(c *client) { c.ws.Close(websocket.StatusNormalClosure, "") },
		func(c *client) { c.ws.CloseNow() },
		func(c *client) {
			for id := range c.id {
				c.call(object{"op": "close", "iterator": id + 1, "snapshot": id + 1})
			}
		},
	} {
		c := h.client()
		c.call(object{"op": "snapshot"})
		c.call(object{"op": "iterator", "snapshot": c.id})
		c.call(object{"op": "iterator"})
		if n := h.store.open.Load(); n != 3 {
			t.Errorf("%d snapshots are held, want 3", n)
		}
		end(c)
		h.until("what a connection held stays", func() bool { return h.store.open.Load() == 1 })
	}
	must(t, h.door.Close())
	if n := h.store.open.Load(); n != 0 {
		t.Errorf("%d snapshots are held by a door that is closed", n)
	}
	if _, _, err := other.ws.Read(t.Context()); err == nil {
		t.Error("a connection goes on when the door is closed")
	}
	if _, r, _ := websocket.Dial(t.Context(), h.url, &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	}); r == nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a closed door answers %v", r)
	}
}

func TestDoorBoundsHandlesAndConnections(t *testing.T) {
	h := newHouse(t, Options{})
	c := h.client()
	first := c.id + 1
	for range maxHandles / 2 {
		c.call(object{"op": "snapshot"})
		c.call(object{"op": "iterator", "snapshot": c.id})
	}
	c.refused(object{"op": "snapshot"}, NotSupported)
	c.refused(object{"op": "iterator"}, NotSupported)
	c.call(object{"op": "close", "snapshot": first})
	c.refused(object{"op": "next", "iterator": first + 1}, SnapshotNotOpen)
	c.id = first
	c.refused(object{"op": "snapshot"}, NotSupported) // its number is that of an iterator
	for range maxConns - 1 {
		h.client()
	}
	_, r, err := websocket.Dial(t.Context(), h.url, &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	if r == nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one connection too many: %v, %v", r, err)
	}
}

func TestTwoClientsSeeTheSame(t *testing.T) {
	h := newHouse(t, Options{})
	a, b := h.client(), h.client()
	a.call(object{"op": "put", "key": "k", "value": "of a"})
	b.call(object{"op": "snapshot"})
	snapshot := b.id
	a.call(object{"op": "put", "key": "k", "value": "changed"})
	if r := b.call(object{"op": "get", "key": "k"}); r["value"] != "changed" {
		t.Errorf("b sees %v", r)
	}
	if r := b.call(object{"op": "get", "key": "k", "snapshot": snapshot}); r["value"] != "of a" {
		t.Errorf("b's snapshot has %v", r)
	}
	// What is open belongs to a connection.
	a.refused(object{"op": "get", "key": "k", "snapshot": snapshot}, SnapshotNotOpen)
}

// What is asked for without waiting for replies is done in that order.
func TestDoorKeepsTheOrderOfRequests(t *testing.T) {
	h := newHouse(t, Options{})
	c := h.client()
	var want []string
	for i := range 100 {
		c.ask(object{"op": "put", "key": "k", "value": fmt.Sprint(i)})
		c.ask(object{"op": "get", "key": "k"})
		want = append(want, fmt.Sprint(i))
	}
	var got []string
	for range 200 {
		if r := c.receive(); r["value"] != nil {
			got = append(got, r["value"].(string))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the values were %v", got)
	}
}

func TestDoorGivesUpOnWhatTakesTooLong(t *testing.T) {
	h := newHouse(t, Options{})
	c := h.client()
	batch, err := h.tree.Batch(t.Context()) // nobody else can write
	must(t, err)
	defer batch.Close()
	c.ask(object{"op": "put", "key": "k", "value": ""})
	replies := make(chan object)
	go func() { replies <- c.receive() }()
	for waiting := true; waiting; {
		select {
		case r := <-replies:
			if e, _ := r["error"].(object); e["code"] != string(Aborted) || !strings.Contains(e["message"].(string), "1m0s") {
				t.Errorf("it is answered %v", r)
			}
			waiting = false
		default:
			h.clock.Advance(requestTime)
			runtime.Gosched()
		}
	}
	// A client that goes does not leave its request behind.
	c.ask(object{"op": "put", "key": "k", "value": ""})
	c.ws.CloseNow()
	h.until("its request stays", func() bool { return len(h.door.conns) == 0 })
	// With another request behind, that takes until the time is up.
	c = h.client()
	for range 5 {
		c.ask(object{"op": "put", "key": "k", "value": ""})
	}
	c.ws.CloseNow()
	h.until("its requests stay", func() bool {
		h.clock.Advance(requestTime)
		return len(h.door.conns) == 0
	})
	batch.Close()
	if _, err := h.tree.Get(context.Background(), []byte("k")); !errors.Is(err, hyperbee.ErrNotFound) {
		t.Errorf("what was given up was written: %v", err)
	}
}
