package home

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/client"
)

// token is that of a link.
func token(url string) string {
	_, rest, _ := strings.Cut(url, "/s/")
	text, _, _ := strings.Cut(rest, "/")
	return text
}

// guest asks a machine's port for something of a link.
func (m *machine) guest(method, link, path, body string, headers ...string) (status int, text string, h http.Header) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), method, m.node.Address()+"/s/"+token(link)+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func (m *machine) share(in client.AddShare) (s client.Share) {
	m.t.Helper()
	m.do("POST", "/folders/"+in.Folder+"/shares", in, &s)
	return s
}

// refusal is the code of an error of a node.
func refusal(err error) client.Code {
	var e *client.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

// form is a form with files, as a browser sends it.
func form(t *testing.T, files ...string) (body, kind string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		part, err := w.CreateFormFile("file", files[i])
		if err == nil {
			_, err = part.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func TestASharedLinkIsServedByEachMachine(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.write("photos/2026/a.txt", "hello")
	a.write("photos/2026/sub/b.txt", "below")
	a.write("photos/secret.txt", "not for you")
	a.add("photos", "")
	a.pair(b)
	b.until("the folder", func() bool { f := b.folder("photos"); return f.Files == 3 && f.State == "safe" })
	s := a.share(client.AddShare{Folder: "photos", Path: "/2026", Name: "Mum"})
	if s.Folder != "photos" || s.Path != "/2026" || s.Machine != "laptop" || !s.Private || s.Name != "Mum" || s.URL != a.node.Address()+"/s/"+token(s.URL)+"/" {
		t.Errorf("made %+v", s)
	}
	b.until("the link", func() bool { code, _, _ := b.guest("GET", s.URL, "/a.txt", ""); return code == 200 })
	for _, m := range []*machine{a, b} {
		for path, want := range map[string]struct {
			code int
			body string
		}{
			"/a.txt": {200, "hello"}, "/sub/b.txt": {200, "below"}, "/": {200, ""}, "": {307, ""}, "/secret.txt": {404, ""}, "/../secret.txt": {307, ""},
			"/%2e%2e/secret.txt": {307, ""}, "/..%2fsecret.txt": {307, ""}, "/2026/a.txt": {404, ""},
		} {
			code, body, h := m.guest("GET", s.URL, path, "")
			if code != want.code || want.body != "" && body != want.body || strings.Contains(body, "not for you") {
				t.Errorf("%s: %s: %d %.100q", m.name, path, code, body)
			}
			if h.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(h.Get("X-Robots-Tag"), "noindex") || strings.Contains(h.Get("Cache-Control"), "public") || h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %s: %v", m.name, path, h)
			}
		}
		if code, body, _ := m.guest("PUT", s.URL, "/x", "x"); code != 403 {
			t.Errorf("%s: write: %d %s", m.name, code, body)
		}
	}
	if code, body, h := b.guest("GET", s.URL, "/a.txt", "", "Range", "bytes=1-2"); code != 206 || body != "el" || h.Get("Etag") == "" {
		t.Errorf("a part: %d %q", code, body)
	}
	if code, body, _ := b.guest("GET", s.URL, "/", "", "Accept", "application/json"); code != 200 || strings.Contains(body, "secret") || !strings.Contains(body, `"a.txt"`) {
		t.Errorf("a list: %d %q", code, body)
	}
	var all client.Shares
	b.do("GET", "/shares", nil, &all)
	if len(all.Shares) != 1 || all.Shares[0].ID != s.ID || all.Shares[0].Uses == 0 || all.Shares[0].URL != "" || all.Shares[0].Name != "Mum" {
		t.Errorf("listed there: %+v", all)
	}
	b.do("DELETE", "/shares/"+s.ID[:8], nil, nil)
	if code, body, _ := b.guest("GET", s.URL, "/a.txt", ""); code != 410 {
		t.Errorf("stopped: %d %s", code, body)
	}
	a.until("it is over here, too", func() bool { code, _, _ := a.guest("GET", s.URL, "/a.txt", ""); return code == 410 })
	if err := a.Do(t.Context(), "DELETE", "/shares/"+s.ID, nil, nil); refusal(err) != client.CodeNotFound {
		t.Errorf("stopped twice: %v", err)
	}
}

func TestGuestsWriteWhereTheyMay(t *testing.T) {
	m := newMachine(t, "", "solo")
	m.write("photos/inbox/a.txt", "hello")
	m.write("photos/secret.txt", "not for you")
	m.add("photos", "")
	m.until("the files", func() bool { return m.folder("photos").Files == 2 })
	s := m.share(client.AddShare{Folder: "photos", Path: "/inbox", Write: true})
	_, _, h := m.guest("GET", s.URL, "/a.txt", "")
	tag := h.Get("Etag")
	for _, c := range []struct {
		method, path, body string
		headers            []string
		code               int
	}{
		{"PUT", "/b.txt", "new", nil, 201},
		{"PUT", "/b.txt", "newer", nil, 204},
		{"PUT", "/b.txt", "x", []string{"If-None-Match", "*"}, 412},
		{"PUT", "/c.txt", "x", []string{"If-Match", "*"}, 412},
		{"PUT", "/a.txt", "x", []string{"If-Match", `"0000"`}, 412},
		{"PUT", "/a.txt", "changed", []string{"If-Match", tag}, 204},
		{"PUT", "/a.txt", "x", []string{"If-Match", tag}, 412},
		{"PUT", "/a.txt", "x", []string{"If-Unmodified-Since", "Mon, 23 Nov 2020 10:00:00 GMT"}, 412},
		{"PUT", "/new/deep/d.txt", "deep", nil, 201},
		{"PUT", "/new", "x", nil, 409},
		{"PUT", "/b.txt/x", "x", nil, 409},
		{"PUT", "/x/", "x", nil, 409},
		{"PUT", "/../secret.txt", "x", nil, 307},
		{"PUT", "/x", "x", []string{"Content-Range", "bytes 0-0/2"}, 400},
		{"PUT", "/x", "x", []string{"Content-Encoding", "gzip"}, 415},
		{"DELETE", "/b.txt", "", []string{"If-Match", `"0000"`}, 412},
		{"DELETE", "/b.txt", "", nil, 204},
		{"DELETE", "/b.txt", "", nil, 404},
		{"DELETE", "/new", "", nil, 409},
		{"DELETE", "/", "", nil, 409},
		{"POST", "/", "x", []string{"Content-Type", "text/plain"}, 415},
		{"POST", "/", "x", []string{"Content-Type", "multipart/form-data; boundary=x"}, 400},
		{"PATCH", "/a.txt", "x", nil, 405},
	} {
		if code, body, _ := m.guest(c.method, s.URL, c.path, c.body, c.headers...); code != c.code {
			t.Errorf("%s %s %v: got %d %s, want %d", c.method, c.path, c.headers, code, body, c.code)
		}
	}
	body, kind := form(t, "a.txt", "of a form", "d.txt", strings.Repeat("d", 300_000), `C:\x\e.txt`, "e")
	code, _, h := m.guest("POST", s.URL, "/", body, "Content-Type", kind, "Origin", "null", "Sec-Fetch-Site", "cross-site")
	if code != 303 || h.Get("Location") != "/s/"+token(s.URL)+"/" {
		t.Errorf("a form: %d %v", code, h)
	}
	for _, name := range []string{"..", "\x1b[2J", "a\u202eb"} {
		body, kind := form(t, name, "x")
		if code, text, _ := m.guest("POST", s.URL, "/", body, "Content-Type", kind); code != 400 && name != ".." {
			t.Errorf("a form with %q: %d %s", name, code, text)
		}
	}
	cut, kind := form(t, "cut.txt", strings.Repeat("c", 100_000))
	if code, text, _ := m.guest("POST", s.URL, "/", cut[:50_000], "Content-Type", kind); code != 400 {
		t.Errorf("a form that was cut off: %d %s", code, text)
	}
	for path, want := range map[string]string{"a.txt": "changed", "a (2).txt": "of a form", "d.txt": strings.Repeat("d", 300_000), "e.txt": "e", "new/deep/d.txt": "deep", "cut.txt": "", "x": ""} {
		m.until(path, func() bool { return m.reads("photos/inbox/"+path) == want })
	}
	if m.reads("photos/secret.txt") != "not for you" {
		t.Error("somebody wrote outside")
	}
}

// Links lead to what is shared and nowhere else, for reading and for writing.
func TestLinksDoNotLeadOutOfAShare(t *testing.T) {
	m := newMachine(t, "", "solo")
	m.write("photos/in/a.txt", "hello")
	m.write("photos/out/secret.txt", "not for you")
	m.add("photos", "")
	m.until("the files", func() bool { return m.folder("photos").Files == 2 })
	for link, to := range map[string]string{"/in/up": "../out", "/in/abs": "/out", "/in/file": "/out/secret.txt", "/in/good": "/in/a.txt", "/in/near": "a.txt", "/in/all": "/", "/in/in2": "/in"} {
		m.do("POST", "/folders/photos/links", map[string]string{"path": link, "target": to}, nil)
	}
	s := m.share(client.AddShare{Folder: "photos", Path: "/in", Write: true})
	for path, want := range map[string]int{
		"/up/secret.txt": 404, "/abs/secret.txt": 404, "/file": 404, "/all/out/secret.txt": 404, "/up/": 404, "/all/": 404, "/good": 200, "/near": 200, "/in2/a.txt": 200,
	} {
		if code, body, _ := m.guest("GET", s.URL, path, ""); code != want || strings.Contains(body, "not for you") {
			t.Errorf("%s: %d %s", path, code, body)
		}
		if code, _, _ := m.guest("PUT", s.URL, strings.TrimSuffix(path, "/")+"/x.txt", "x"); code != 409 {
			t.Errorf("write below %s: %d", path, code)
		}
		body, kind := form(t, "x.txt", "x")
		if code, _, _ := m.guest("POST", s.URL, strings.TrimSuffix(path, "/")+"/", body, "Content-Type", kind); code != 404 && code != 409 {
			t.Errorf("a form to %s: %d", path, code)
		}
	}
	var in client.Entries
	m.do("GET", "/folders/photos/entries?path=/out&recursive=true", nil, &in)
	if len(in.Entries) != 1 {
		t.Errorf("outside is %v", in.Entries)
	}
	if _, body, _ := m.guest("GET", s.URL, "/", "", "Accept", "application/json"); strings.Contains(body, `"/out`) {
		t.Errorf("the list tells %s", body)
	}
	// A link is removed, and not what it leads to.
	if code, _, _ := m.guest("DELETE", s.URL, "/file", ""); code != 204 {
		t.Errorf("remove a link: %d", code)
	}
	if code := refusal(m.Do(t.Context(), "POST", "/folders/photos/shares", client.AddShare{Folder: "photos", Path: "/in/up"}, nil)); code != client.CodeUsage {
		t.Errorf("a link is shared: %s", code)
	}
}

func TestASharedFileIsThatFileAlone(t *testing.T) {
	m := newMachine(t, "", "solo")
	m.write("docs/a.pdf", "%PDF-1.4")
	m.write("docs/b.pdf", "another")
	m.add("docs", "")
	m.until("the files", func() bool { return m.folder("docs").Files == 2 })
	s := m.share(client.AddShare{Folder: "docs", Path: "/a.pdf"})
	if !strings.HasSuffix(s.URL, "/a.pdf") {
		t.Errorf("its link is %s", s.URL)
	}
	if code, body, h := m.guest("GET", s.URL, "/a.pdf", ""); code != 200 || body != "%PDF-1.4" || h.Get("Content-Disposition") != "attachment" {
		t.Errorf("%d %q %v", code, body, h)
	}
	if code, _, _ := m.guest("GET", s.URL, "/b.pdf", ""); code != 404 {
		t.Errorf("another file: %d", code)
	}
	if code, body, _ := m.guest("GET", s.URL, "/", ""); code != 200 || !strings.Contains(body, "a.pdf") || strings.Contains(body, "b.pdf") {
		t.Errorf("the list: %d %s", code, body)
	}
	// Guests don't say what is left alone, also where they may write everything.
	all := m.share(client.AddShare{Folder: "docs", Write: true})
	if code, _, _ := m.guest("PUT", all.URL, "/.bevyignore", "*"); code != 403 {
		t.Errorf("what is left alone: %d", code)
	}
	for what, in := range map[string]client.AddShare{"a time that has passed": {Until: time.Unix(1, 0)}, "a name with a slash": {Name: "a/b"}} {
		if err := m.Do(t.Context(), "POST", "/folders/docs/shares", in, nil); refusal(err) != client.CodeUsage {
			t.Errorf("%s: %v", what, err)
		}
	}
	// One folder's link is no link to another, and goes with its folder.
	m.write("other/a.pdf", "other")
	m.add("other", "")
	m.do("DELETE", "/folders/docs?everywhere=true", nil, nil)
	if code, _, _ := m.guest("GET", s.URL, "/a.pdf", ""); code != 410 {
		t.Errorf("the folder is gone: %d", code)
	}
}

func TestWhoGuessesLinksHasToWait(t *testing.T) {
	m := newMachine(t, "", "solo")
	m.write("docs/a.txt", "hello")
	m.add("docs", "")
	m.until("the file", func() bool { return m.folder("docs").Files == 1 })
	s := m.share(client.AddShare{Folder: "docs"})
	if code, _, _ := m.guest("GET", s.URL, "/a.txt", ""); code != 200 {
		t.Fatal(code)
	}
	wrong := "/s/" + strings.Repeat("A", len(token(s.URL)))
	seen := map[int]int{}
	for range 30 {
		code, body, _ := m.guest("GET", wrong, "/a.txt", "")
		if seen[code]++; strings.Contains(body, "AAAA") {
			t.Error("the page has the link")
		}
	}
	if seen[404] < 5 || seen[429] < 10 || len(seen) != 2 {
		t.Errorf("answers were %v", seen)
	}
	if code, _, _ := m.guest("GET", s.URL, "/a.txt", ""); code != 200 {
		t.Errorf("who has the link has to wait, too: %d", code)
	}
	// What is counted is there after a restart.
	m.down()
	m.up()
	var all client.Shares
	m.do("GET", "/shares", nil, &all)
	if len(all.Shares) != 1 || all.Shares[0].Uses != 2 {
		t.Errorf("%+v", all)
	}
	// Nothing on the disk has the secret, once nobody writes to it.
	m.down()
	secret, err := base64.RawURLEncoding.DecodeString(token(s.URL))
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(m.data, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		files++
		if bytes.Contains(b, []byte(token(s.URL))) || bytes.Contains(b, secret[1:33]) {
			t.Errorf("%s has it", name)
		}
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("looked into %d files: %v", files, err)
	}
}

// Of many who make one file at once one does.
func TestGuestsDoNotOverwriteOneAnother(t *testing.T) {
	m := newMachine(t, "", "solo")
	m.write("docs/a.txt", "hello")
	m.add("docs", "")
	m.until("the file", func() bool { return m.folder("docs").Files == 1 })
	s := m.share(client.AddShare{Folder: "docs", Write: true})
	var all sync.WaitGroup
	var made, refused atomic.Int32
	for range 8 {
		all.Go(func() {
			switch code, body, _ := m.guest("PUT", s.URL, "/new.txt", strings.Repeat("x", 100_000), "If-None-Match", "*"); code {
			case 201:
				made.Add(1)
			case 412:
				refused.Add(1)
			default:
				t.Errorf("%d %s", code, body)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || refused.Load() != 7 {
		t.Errorf("%d have made it, and %d were refused", made.Load(), refused.Load())
	}
}

// What comes in by a link that is stopped meanwhile is not kept.
func TestALinkEndsInTheMiddleOfAFile(t *testing.T) {
	m := newMachine(t, "", "solo")
	m.write("docs/a.txt", "hello")
	m.add("docs", "")
	m.until("the file", func() bool { return m.folder("docs").Files == 1 })
	s := m.share(client.AddShare{Folder: "docs", Write: true})
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", m.node.Address()+"/s/"+token(s.URL)+"/late.txt", body)
	if err != nil {
		t.Fatal(err)
	}
	code := make(chan int, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			code <- 0
			return
		}
		resp.Body.Close()
		code <- resp.StatusCode
	}()
	if _, err := send.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	m.do("DELETE", "/shares/"+token(s.URL), nil, nil)
	if err := send.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 410 {
		t.Errorf("got %d", got)
	}
	var in client.Entries
	m.do("GET", "/folders/docs/entries", nil, &in)
	if len(in.Entries) != 1 {
		t.Errorf("there is %v", in.Entries)
	}
}
