package bridge

import (
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

var when = time.Date(2026, 11, 23, 10, 0, 0, 500e6, time.UTC)

// site is a drive with a bit of everything.
func site(t testing.TB) *hyperdrive.Drive {
	d := newDrive(t)
	o := hyperdrive.PutOptions{Metadata: hyperdrive.NewMetadata(when, 0)}
	put(t, d, "/index.html", []byte("<!doctype html><p>first"), o)
	put(t, d, "/a.txt", []byte("hello, all"), o)
	put(t, d, "/docs/one.md", []byte("# one"), o)
	put(t, d, "/docs/sub/two", []byte("\x89PNG\x0D\x0A\x1A\x0A"), o)
	put(t, d, "/docs/%2e <b>&\"'é", []byte("odd"), o)
	put(t, d, "/big.bin", someBytes(3<<20, 1), o)
	put(t, d, "/style.css", []byte(strings.Repeat("p { color: red }\n", 1000)), o)
	put(t, d, "/empty.txt", nil, o)
	put(t, d, "/both", []byte("a file"), o)
	put(t, d, "/both/index.html", []byte("a folder"), o)
	for link, to := range map[string]string{"/link": "a.txt", "/ldocs": "docs", "/docs/up": "../a.txt", "/docs/out": "../../etc", "/round": "/round", "/deep": "/ldocs/sub", "/none": "nothing", "/all": "/"} {
		must(t, d.Symlink(t.Context(), link, to, nil))
	}
	return d
}

func TestAnswers(t *testing.T) {
	d := site(t)
	h := New(Options{Resolver: only(d, DriveOptions{Public: true})})
	for _, c := range []struct {
		method, url string
		headers     string // "Name: value|Name: value"
		code        int
		want        string // of the head: "Name: value|…", and what the body begins with
		body        string
	}{
		{"GET", "http://x.localhost/", "", 200, "Content-Type: text/html; charset=utf-8", "<!doctype html><p>first"},
		{"GET", "http://X.LOCALHOST:7070/a.txt", "", 200, "Content-Type: text/plain; charset=utf-8|Content-Length: 10|Accept-Ranges: bytes|Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT|X-Content-Type-Options: nosniff|Cache-Control: no-cache|Access-Control-Allow-Origin: *|Referrer-Policy: same-origin", "hello, all"},
		{"HEAD", "http://x.localhost/a.txt", "", 200, "Content-Type: text/plain; charset=utf-8|Content-Length: 10|Accept-Ranges: bytes", ""},
		{"GET", "/d/x/a.txt", "", 200, "Content-Length: 10|Cross-Origin-Opener-Policy: same-origin|Referrer-Policy: no-referrer", "hello, all"},
		{"GET", "/d/x@2/a.txt", "", 404, "Cache-Control: no-store", "404 Not Found\n"},
		{"GET", "/d/x@3/a.txt", "", 200, "Cache-Control: public, max-age=31536000, immutable", "hello, all"},
		{"GET", "http://3.x.localhost/a.txt", "", 200, "Cache-Control: public, max-age=31536000, immutable", "hello, all"},
		{"GET", "/d/x@999/a.txt", "", 404, "", "404 Not Found\nWhat is behind the @"},
		{"GET", "/d/x@yesterday/a.txt", "", 404, "", "404 Not Found\nWhat is behind the @"},
		{"GET", "/d/x/docs", "", 307, "Location: /d/x/docs/", ""},
		{"GET", "/d/x", "", 307, "Location: /d/x/", ""},
		{"GET", "/d/pear://x/a.txt?q=1", "", 307, "Location: /d/x/a.txt?q=1", ""},
		{"GET", "http://x.localhost//docs/./one.md", "", 307, "Location: /docs/one.md", ""},
		{"GET", "http://x.localhost/%2e%2e/%2e%2e/a.txt", "", 307, "Location: /a.txt", ""},
		{"GET", "http://x.localhost/..%2f..%2fa.txt", "", 307, "Location: /a.txt", ""},
		{"GET", "http://x.localhost//evil.example/%2e%2e/", "", 307, "Location: /", ""},
		{"GET", "http://x.localhost/a.txt%00", "", 404, "", "404 Not Found\n"},
		{"GET", "http://x.localhost/%ff", "", 404, "", "404 Not Found\n"},
		{"GET", `http://x.localhost/docs%5cone.md`, "", 404, "", "404 Not Found\n"},
		{"GET", "http://x.localhost/a.txt/", "", 307, "Location: /a.txt", ""},
		{"GET", "http://x.localhost/both", "", 200, "", "a file"},
		{"GET", "http://x.localhost/both/", "", 200, "", "a folder"},
		{"GET", "http://x.localhost/link", "", 200, "Content-Type: text/plain; charset=utf-8", "hello, all"},
		{"GET", "http://x.localhost/ldocs/one.md", "", 200, "Content-Type: text/markdown; charset=utf-8", "# one"},
		{"GET", "http://x.localhost/ldocs", "", 307, "Location: /ldocs/", ""},
		{"GET", "http://x.localhost/ldocs/", "Accept: text/html", 200, "Content-Type: text/html; charset=utf-8|Vary: Accept, Accept-Encoding", "<!doctype html>"},
		{"GET", "http://x.localhost/deep/two", "", 200, "Content-Type: image/png", "\x89PNG"},
		{"GET", "http://x.localhost/all/a.txt", "", 200, "", "hello, all"},
		{"GET", "http://x.localhost/all/", "", 200, "", "<!doctype html><p>first"},
		{"GET", "http://x.localhost/docs/up", "", 200, "", "hello, all"},
		{"GET", "http://x.localhost/docs/out", "", 404, "", "404 Not Found\n"},
		{"GET", "http://x.localhost/round", "", 404, "", "404 Not Found\nLinks"},
		{"GET", "http://x.localhost/none", "", 404, "", "404 Not Found\n"},
		{"GET", "http://x.localhost/a.txt/b", "", 404, "", "404 Not Found\n"},
		{"GET", "http://x.localhost/nothing", "Accept: text/html", 404, "Content-Type: text/html; charset=utf-8", "<!doctype html>"},
		{"GET", "http://x.localhost/nothing", "Accept: application/json", 404, "Content-Type: application/json", `{"error":"There is no such file.","status":404}`},
		{"GET", "http://y.localhost/", "", 404, "", "404 Not Found\nThere is no such drive or folder."},
		{"GET", "http://localhost/", "", 404, "", "404 Not Found\nThis is no address"},
		{"POST", "http://x.localhost/", "", 405, "Allow: GET, HEAD, OPTIONS", "405 Method Not Allowed\n"},
		{"OPTIONS", "http://x.localhost/", "", 204, "Access-Control-Allow-Methods: GET, HEAD, OPTIONS", ""},
		{"GET", "http://x.localhost/a.txt", "Range: bytes=0-4", 206, "Content-Range: bytes 0-4/10|Content-Length: 5", "hello"},
		{"GET", "http://x.localhost/a.txt", "Range: bytes=-3", 206, "Content-Range: bytes 7-9/10", "all"},
		{"GET", "http://x.localhost/a.txt", "Range: bytes=" + strings.Repeat("0-0,", maxRanges) + "1-1", 200, "Content-Length: 10", "hello, all"},
		{"GET", "http://x.localhost/a.txt", "Range: bytes=10-", 416, "Content-Range: bytes */10", "416 Requested Range Not Satisfiable\n"},
		{"GET", "http://x.localhost/big.bin", "Range: bytes=3145728-", 416, "Content-Range: bytes */3145728|Cache-Control: no-store", "416 Requested Range Not Satisfiable\n"},
		{"GET", "http://x.localhost/a.txt", "If-Modified-Since: Mon, 23 Nov 2026 10:00:00 GMT", 304, "Content-Type: ", ""},
		{"GET", "http://x.localhost/empty.txt", "", 200, "Content-Length: 0", ""},
		{"GET", "http://x.localhost/docs/%252e%20%3Cb%3E&%22'%C3%A9", "", 200, "", "odd"},
		{"GET", "http://x.localhost/docs/", "Accept: application/json", 200, "Content-Type: application/json|Cache-Control: no-cache", `{"path":"/docs/","revision":"19","entries":[{"name":"%2e \u003cb\u003e\u0026\"'é","kind":"file","size":3,"mtime":"2026-11-23T10:00:00.5Z"},{"name":"one.md","kind":"file","size":5,"mtime":"2026-11-23T10:00:00.5Z"},{"name":"out","kind":"link","target":"../../etc"},{"name":"sub","kind":"folder"},{"name":"up","kind":"link","target":"../a.txt"}]}`},
	} {
		var lines []string
		for line := range strings.SplitSeq(c.headers, "|") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				lines = append(lines, name, value)
			}
		}
		for range 2 { // the second time from the cache
			what := c.method + " " + c.url + " " + c.headers
			r := get(t, h, c.method, c.url, lines...)
			got := body(t, r)
			if r.StatusCode != c.code || !strings.HasPrefix(got, c.body) {
				t.Errorf("%s: got %d %.400q, want %d %q", what, r.StatusCode, got, c.code, c.body)
			}
			if c.method == "HEAD" && got != "" {
				t.Errorf("%s: got a body %q", what, got)
			}
			for line := range strings.SplitSeq(c.want, "|") {
				if name, value, ok := strings.Cut(line, ": "); ok && r.Header.Get(name) != value {
					t.Errorf("%s: got %s: %q, want %q", what, name, r.Header.Get(name), value)
				}
			}
		}
	}
}
