package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// A page is a browser's session, of which tests leave out parts.
type page struct {
	cookie *http.Cookie
	key    string
}

// signedPage signs in as a page does.
func signedPage(t *testing.T, n *Node) page {
	t.Helper()
	_, token, _ := strings.Cut(n.Link().URL, "#t=")
	answer := ask(t, n, "POST", "/api/v1/sessions", `{"token":"`+token+`"}`, map[string]string{"Content-Type": "application/json"})
	var made client.SignedIn
	if err := json.Unmarshal([]byte(answer.body), &made); err != nil || answer.StatusCode != 200 || len(answer.Cookies()) != 1 {
		t.Fatalf("sign in: %d %s", answer.StatusCode, answer.body)
	}
	return page{answer.Cookies()[0], made.Key}
}

type asked struct {
	*http.Response
	body string
}

// ask asks a node's port. "Host" is a header like others.
func ask(t *testing.T, n *Node, method, path, body string, headers map[string]string) asked {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.Address()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Set(name, value)
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return asked{answer, string(b)}
}

func TestOnlyTheOwnersPageMayAsk(t *testing.T) {
	o := testOptions(t)
	o.Hosts = []string{"Oak.Example"}
	n := openNode(t, o)
	own := strings.TrimPrefix(n.Address(), "http://")
	port := strings.TrimPrefix(own, "127.0.0.1:")
	me, other := signedPage(t, n), signedPage(t, n)
	for _, c := range []struct {
		what         string
		method, path string
		with         map[string]string
		cookie       *http.Cookie
		key          string
		want         int
	}{
		{"the page", "GET", "/status", map[string]string{"Sec-Fetch-Site": "same-origin"}, me.cookie, me.key, 200},
		{"the page, in an old browser", "POST", "/links", map[string]string{"Origin": n.Address()}, me.cookie, me.key, 200},
		{"a program", "POST", "/links", nil, me.cookie, me.key, 200},
		{"by the name localhost", "GET", "/status", map[string]string{"Host": "localhost:" + port}, me.cookie, me.key, 200},
		{"by a name that was asked for", "GET", "/status", map[string]string{"Host": "oak.example:" + port}, me.cookie, me.key, 200},
		{"in capitals", "GET", "/status", map[string]string{"Host": "OAK.EXAMPLE"}, me.cookie, me.key, 200},

		{"nobody", "GET", "/status", nil, nil, "", 401},
		{"a cookie alone, as other servers of the machine get it", "GET", "/status", nil, me.cookie, "", 401},
		{"a key alone", "GET", "/status", nil, nil, me.key, 401},
		{"halves of two sessions", "GET", "/status", nil, me.cookie, other.key, 401},
		{"a wrong cookie", "GET", "/status", nil, &http.Cookie{Name: me.cookie.Name, Value: "x"}, me.key, 401},
		{"the cookie of another port", "GET", "/status", nil, &http.Cookie{Name: "bevy-1", Value: me.cookie.Value}, me.key, 401},

		{"another site", "POST", "/stop", map[string]string{"Sec-Fetch-Site": "cross-site"}, me.cookie, me.key, 403},
		{"another port of this machine", "POST", "/stop", map[string]string{"Sec-Fetch-Site": "same-site"}, me.cookie, me.key, 403},
		{"another site that reads", "GET", "/status", map[string]string{"Sec-Fetch-Site": "cross-site"}, me.cookie, me.key, 403},
		{"a link of another site", "GET", "/status", map[string]string{"Sec-Fetch-Site": "none"}, me.cookie, "", 401},
		{"a write that nobody has made", "POST", "/stop", map[string]string{"Sec-Fetch-Site": "none"}, me.cookie, me.key, 403},
		{"another origin", "POST", "/stop", map[string]string{"Origin": "http://evil.example"}, me.cookie, me.key, 403},
		{"another port as origin", "POST", "/stop", map[string]string{"Origin": "http://127.0.0.1:1"}, me.cookie, me.key, 403},
		{"a page in a box", "POST", "/stop", map[string]string{"Origin": "null"}, me.cookie, me.key, 403},
		{"a page of a drive", "POST", "/stop", map[string]string{"Origin": "http://key.localhost:" + port}, me.cookie, me.key, 403},
		{"origin and site disagree", "POST", "/stop", map[string]string{"Origin": n.Address(), "Sec-Fetch-Site": "cross-site"}, me.cookie, me.key, 403},
		{"signing in from another site", "POST", "/sessions", map[string]string{"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, nil, "", 403},
		{"signing in with a form", "POST", "/sessions", map[string]string{"Content-Type": "text/plain"}, nil, "", 400},

		{"a name that leads here", "GET", "/status", map[string]string{"Host": "evil.example:" + port}, me.cookie, me.key, 421},
		{"a name that leads here, open", "GET", "", map[string]string{"Host": "evil.example"}, nil, "", 421},
		{"a name that ends like one of ours", "GET", "/status", map[string]string{"Host": "evillocalhost"}, me.cookie, me.key, 421},
		{"a name that begins like one of ours", "GET", "/status", map[string]string{"Host": "localhost.evil.example"}, me.cookie, me.key, 421},
		{"an address that is not ours", "GET", "/status", map[string]string{"Host": "192.0.2.1"}, me.cookie, me.key, 421},
		{"the host of a drive has no API", "GET", "/status", map[string]string{"Host": "key.localhost:" + port}, me.cookie, me.key, 404},
	} {
		headers := map[string]string{client.KeyHeader: c.key}
		if c.cookie != nil {
			headers["Cookie"] = c.cookie.Name + "=" + c.cookie.Value
		}
		for name, value := range c.with {
			headers[name] = value
		}
		if got := ask(t, n, c.method, "/api/v1"+c.path, "", headers); got.StatusCode != c.want {
			t.Errorf("%s: %d, want %d: %s", c.what, got.StatusCode, c.want, got.body)
		}
	}
	select {
	case <-n.ended:
		t.Error("someone has stopped the node")
	default:
	}
	// Nobody lets other sites read.
	got := ask(t, n, "OPTIONS", "/api/v1/status", "", map[string]string{"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
	for name := range got.Header {
		if strings.HasPrefix(name, "Access-Control") {
			t.Errorf("the node sends %s", name)
		}
	}
}

func TestSessionCookieIsForThisPageOnly(t *testing.T) {
	n := openNode(t, testOptions(t))
	c := signedPage(t, n).cookie
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Domain != "" || c.Path != "/" || !strings.HasSuffix(n.Address(), strings.TrimPrefix(c.Name, "bevy-")) {
		t.Errorf("the cookie is %+v", c)
	}
	// What is on the disk signs nobody in.
	b, err := os.ReadFile(filepath.Join(n.Paths().State, "sessions.json"))
	if err != nil || strings.Contains(string(b), c.Value) {
		t.Errorf("the file has the secret: %s, %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(n.Paths().State, "sessions.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}

func TestLinksWorkOnceAndSoon(t *testing.T) {
	o := testOptions(t)
	fake := clock.NewFake(time.Unix(1e9, 0))
	o.Clock = fake
	n := openNode(t, o)
	try := func(link client.Link) int {
		_, token, _ := strings.Cut(link.URL, "#t=")
		return ask(t, n, "POST", "/api/v1/sessions", `{"token":"`+token+`"}`, map[string]string{"Content-Type": "application/json"}).StatusCode
	}
	link := n.Link()
	if got := try(link); got != 200 {
		t.Errorf("the first time: %d", got)
	}
	if got := try(link); got != 401 {
		t.Errorf("a second time: %d", got)
	}
	old := n.Link()
	fake.Advance(linkLife)
	if got := try(old); got != 401 {
		t.Errorf("too late: %d", got)
	}
	first := n.Link()
	for range maxLinks {
		fake.Advance(time.Millisecond)
		n.Link()
	}
	if got := try(first); got != 401 {
		t.Errorf("the oldest of many: %d", got)
	}
	fresh := n.Link()
	for range maxTries {
		if got := try(client.Link{URL: "#t=guess"}); got == 429 {
			break
		}
	}
	if got := try(fresh); got != 429 {
		t.Errorf("after many tries: %d", got)
	}
	fake.Advance(tryEvery)
	if got := try(fresh); got != 200 {
		t.Errorf("a while later: %d", got) // the try before has not used it up
	}
}

func TestTriesAreCountedByNetworkAndBounded(t *testing.T) {
	s := NewTries(clock.NewFake(time.Unix(1e9, 0)))
	for i := range maxTries {
		if !s.Take(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i))) {
			t.Fatalf("try %d is refused", i)
		}
	}
	if s.Take(netip.MustParseAddr("2001:db8::ffff")) {
		t.Error("an address of the same network begins anew")
	}
	if !s.Take(netip.MustParseAddr("::ffff:192.0.2.1")) || !s.Take(netip.MustParseAddr("2001:db8:0:1::1")) {
		t.Error("another network has to wait for that one")
	}
	for i := range 3 * maxTriers {
		s.Take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(s.networks) > maxTriers {
		t.Errorf("%d networks are remembered, want at most %d", len(s.networks), maxTriers)
	}
}

func TestSessionsLastUntilRevokedOrUnused(t *testing.T) {
	o := testOptions(t)
	fake := clock.NewFake(time.Unix(1e9, 0))
	o.Clock = fake
	n := openNode(t, o)
	me, other := signedPage(t, n), signedPage(t, n)
	works := func(n *Node, p page) bool {
		_, ok := n.sessions.find(p.cookie.Value, p.key, false)
		return ok
	}
	fake.Advance(sessionLife - time.Minute)
	if !works(n, me) {
		t.Fatal("a session ends too soon")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, o) // a session outlives the process
	fake.Advance(time.Minute)
	if !works(n, me) || works(n, other) {
		t.Errorf("used: %v, not used for a month: %v", works(n, me), works(n, other))
	}
	id, _ := n.sessions.find(me.cookie.Value, me.key, false)
	if err := dial(t, n).Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if works(n, me) {
		t.Error("a revoked session works")
	}
	if err := dial(t, n).Revoke(t.Context(), id); CodeOf(err) != client.CodeNotFound {
		t.Errorf("a second time: %v", err)
	}
	n.sessions.mu.Lock()
	for i := range 2 * maxSessions {
		n.sessions.all = append(n.sessions.all, &session{ID: fmt.Sprint(i), Used: fake.Now().Add(time.Duration(i))})
	}
	n.sessions.mu.Unlock()
	signedPage(t, n)
	if n.sessions.has("0") || !n.sessions.has(fmt.Sprint(2*maxSessions-1)) {
		t.Error("it is not those used last that are kept")
	}
	if list := n.sessions.list(""); len(list) != maxSessions {
		t.Errorf("%d sessions, want %d", len(list), maxSessions)
	}
}

func TestRevokedSessionSeesNothingMore(t *testing.T) {
	n := openNode(t, testOptions(t))
	c := signIn(t, n)
	list, err := c.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{})
	over := make(chan error, 1)
	go func() {
		place := n.events.now()
		n.Say("begin")
		for e, err := range c.Events(t.Context(), place) {
			if err != nil {
				over <- err // the stream ended; then it is refused
				if CodeOf(err) == client.CodeDenied {
					return
				}
				continue
			}
			if e.Kind == client.Said {
				close(began)
			}
		}
	}()
	<-began
	if err := dial(t, n).Revoke(t.Context(), list.Sessions[0].ID); err != nil {
		t.Fatal(err)
	}
	<-over
}

func TestBodiesAreBounded(t *testing.T) {
	n := openNode(t, testOptions(t))
	big := `{"token":"` + strings.Repeat("x", maxBody) + `"}`
	got := ask(t, n, "POST", "/api/v1/sessions", big, map[string]string{"Content-Type": "application/json"})
	if got.StatusCode != 413 || !strings.Contains(got.body, `"usage"`) {
		t.Errorf("%d: %s", got.StatusCode, got.body)
	}
	for _, body := range []string{"", "[]", "{", `{"token":1}`, `{}`, `{"token":"x","more":1}`, `{"token":"x"} {}`, strings.Repeat("[", 100_000)} {
		got := ask(t, n, "POST", "/api/v1/sessions", body, map[string]string{"Content-Type": "application/json"})
		if got.StatusCode != 400 {
			t.Errorf("%.20q: %d %s", body, got.StatusCode, got.body)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", n.Address()+"/api/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("x", 4*maxHeader))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return // it was cut off while it spoke
	}
	defer answer.Body.Close()
	if answer.StatusCode != 431 {
		t.Errorf("a long header: %d", answer.StatusCode)
	}
}

// Someone who sends a request bit by bit is let go. The times are those of the
// machine: a short form of them is tested, and that the node has them set.
func TestSlowCallersAreLetGo(t *testing.T) {
	n := openNode(t, testOptions(t))
	for _, s := range n.servers {
		if s.ReadHeaderTimeout != headerTime || s.IdleTimeout != silentTime || s.MaxHeaderBytes != maxHeader {
			t.Errorf("a server has no bounds: %+v", s)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(n.servePort))
	_ = s.Listener.Close()
	s.Listener = l
	s.Config.ReadHeaderTimeout = 20 * time.Millisecond
	s.Start()
	defer s.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: local")
	if _, err := io.ReadAll(c); err != nil { // until it is closed
		t.Error(err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := bounded(l)
	accepted := make(chan net.Conn, maxConnections+1)
	go func() {
		for {
			c, err := b.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	var first net.Conn
	for range maxConnections {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		first = <-accepted
		defer first.Close()
	}
	extra, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	select {
	case <-accepted:
		t.Error("one more is accepted")
	default:
	}
	_ = first.Close()
	_ = (<-accepted).Close()
}

func TestNothingIsOpenToTheNetworkUnlessAsked(t *testing.T) {
	paths := testOptions(t).Paths
	n := openNode(t, Options{Paths: paths})
	for _, l := range n.port {
		if !addrOf(l).Addr().IsLoopback() {
			t.Errorf("it listens at %s", l.Addr())
		}
	}
	if len(n.Notices.List()) != 0 {
		t.Errorf("notices: %+v", n.Notices.List())
	}
	second := openNode(t, Options{Paths: testOptions(t).Paths}) // takes the next port
	if second.Address() == n.Address() {
		t.Errorf("two nodes at %s", n.Address())
	}
	o := testOptions(t)
	o.Listen = []string{"0.0.0.0:0"}
	open := openNode(t, o)
	if list := open.Notices.List(); len(list) != 1 || list[0].Code != "open-port" {
		t.Errorf("notices: %+v", list)
	}
}

// The control is a port where sockets have no permissions: a token guards it.
func TestControlPortWantsItsToken(t *testing.T) {
	n := openNode(t, testOptions(t))
	n.token = "secret"
	s := httptest.NewServer(http.HandlerFunc(n.serveControl))
	defer s.Close()
	for _, c := range []struct {
		target string
		want   client.Code
	}{
		{strings.Replace(s.URL, "://", "://:secret@", 1), ""},
		{strings.Replace(s.URL, "://", "://:wrong@", 1), client.CodeDenied},
		{s.URL, client.CodeDenied},
	} {
		got, err := client.Dial(t.Context(), c.target)
		if err == nil {
			got.Close()
		}
		if (err == nil) != (c.want == "") || err != nil && CodeOf(err) != c.want {
			t.Errorf("%s: %v", c.target, err)
		}
	}
	r := httptest.NewRequest("GET", "/api/v1", nil)
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set("Origin", s.URL)
	w := httptest.NewRecorder()
	n.serveControl(w, r)
	if w.Code != 401 {
		t.Errorf("a page with the token: %d", w.Code)
	}
}

func TestSocketIsTheOwnersOnly(t *testing.T) {
	o := testOptions(t)
	o.Paths = pathsOf(t, filepath.Join(t.TempDir(), "new"))
	openNode(t, o)
	for name, want := range map[string]os.FileMode{o.Paths.Socket(): 0o600, o.Paths.State: 0o700, o.Paths.Data: 0o700, o.Paths.lock(): 0o600, o.Paths.record(): 0o600, logPath(o.Paths): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&^want != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if l, err := listenSocket(t.Context(), filepath.Join(open, "bevy.sock")); err == nil {
		_ = l.Close()
		t.Error("a socket in a folder that all can write to")
	}
}

// A door's page at the node's own name is in a box, and at a name of its own is
// not: there it can do no harm.
func TestDoorsAreBoxedAtTheNodesOwnNames(t *testing.T) {
	o := testOptions(t)
	var node *Node
	o.Wire = func(_ context.Context, n *Node) error {
		node = n
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", "default-src *")
			if r.URL.Query().Has("flush") {
				_ = http.NewResponseController(w).Flush()
			}
			fmt.Fprint(w, n.SignedIn(r))
		})
		n.Door(Door{Name: "paths", Match: n.UnderPath("/d/"), Handler: h})
		n.Door(Door{Name: "hosts", Match: UnderHost(func(label string) bool { return label == "key" }), Handler: h})
		n.Door(Door{Name: "ours", Match: n.UnderPath("/ours/"), Handler: h, Trusted: true})
		return nil
	}
	n := openNode(t, o)
	me := signedPage(t, n)
	cookie := me.cookie.Name + "=" + me.cookie.Value
	for _, c := range []struct {
		host, path, cookie string
		boxed              bool
		body               string
	}{
		{"localhost", "/d/x", cookie, true, "true"},
		{"localhost", "/d/x?flush", cookie, true, "true"},
		{"127.0.0.1", "/d/x", "", true, "false"},
		{"key.localhost", "/d/x", cookie, false, "false"}, // the session is not for strangers' names
		{"localhost", "/ours/", cookie, false, "true"},
	} {
		got := ask(t, n, "GET", c.path, "", map[string]string{"Host": c.host, "Cookie": c.cookie})
		boxed := strings.Contains(strings.Join(got.Header.Values("Content-Security-Policy"), ","), "sandbox")
		if boxed != c.boxed || got.body != c.body {
			t.Errorf("%s%s: boxed %v, signed in %s; want %v, %s", c.host, c.path, boxed, got.body, c.boxed, c.body)
		}
	}
	if got := ask(t, n, "GET", "/", "", map[string]string{"Host": "other.localhost"}); got.StatusCode != 404 {
		t.Errorf("a host that nobody has: %d", got.StatusCode)
	}
	if got := ask(t, n, "GET", "/d/x", "", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "same-site"}); got.body != "false" {
		t.Error("a page of another port may have it shown")
	}
	if got := ask(t, n, "POST", "/d/x", "", map[string]string{"Cookie": cookie}); got.body != "false" {
		t.Error("a cookie alone may write")
	}
	status := node.status(t.Context())
	for _, s := range status.Services {
		if s.Name == "paths" && (s.Usage.Requests != 5 || s.Usage.Out != uint64(len("truetruefalsefalsefalse"))) {
			t.Errorf("the door is accounted %+v", s.Usage)
		}
	}
}

func TestPageIsSmallAndSafe(t *testing.T) {
	n := openNode(t, testOptions(t))
	total := 0
	for _, path := range []string{"/", "/style.css", "/page.js", "/icon.svg"} {
		got := ask(t, n, "GET", path, "", nil)
		total += len(got.body)
		if got.StatusCode != 200 || got.Header.Get("Content-Type") == "" || got.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(got.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %d %v", path, got.StatusCode, got.Header)
		}
		if strings.Contains(got.body, "//") && strings.Contains(got.body, "https://") {
			t.Errorf("%s has an address of someone else", path)
		}
		again := ask(t, n, "GET", path, "", map[string]string{"If-None-Match": got.Header.Get("ETag")})
		if again.StatusCode != 304 || again.body != "" {
			t.Errorf("%s again: %d", path, again.StatusCode)
		}
	}
	if total > 100_000 {
		t.Errorf("the page has %d bytes, want at most 100,000", total)
	}
	for path, want := range map[string]int{"/nothing": 404, "/../node.go": 404, "/page.go": 404} {
		if got := ask(t, n, "GET", path, "", nil); got.StatusCode != want {
			t.Errorf("%s: %d", path, got.StatusCode)
		}
	}
	if got := ask(t, n, "POST", "/", "", nil); got.StatusCode != 405 {
		t.Errorf("POST: %d", got.StatusCode)
	}
}
