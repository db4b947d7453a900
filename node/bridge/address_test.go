package bridge

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ host, path, want string }{
		{"abc.localhost", "/x/y", "abc@ /x/y"},
		{"ABC.LocalHost.:7070", "/", "abc@ /"},
		{"12.abc.localhost:80", "/x/", "abc@12 /x/"},
		{"2026-11-23.abc.localhost", "/", "abc@2026-11-23 /"},
		{"a.b.abc.localhost", "/", "abc@a.b /"},
		{".abc.localhost", "/", "none"},
		{"localhost", "/", "none"},
		{"localhost", "/x", "none"},
		{"notlocalhost", "/d/", "none"},
		{"abc.localhost.example", "/d/abc/x", "abc@ /x shared"},
		{"127.0.0.1:7070", "/d/abc/x", "abc@ /x shared"},
		{"[::1]:7070", "/d/abc@7/x", "abc@7 /x shared"},
		{"h", "/d/abc@2026-11-23T10:00:00Z/x", "abc@2026-11-23T10:00:00Z /x shared"},
		{"h", "/d/abc@a@b/", "abc@a@b / shared"},
		{"h", "/d/abc@/", "none"},
		{"h", "/d/@1/", "none"},
		{"h", "/d/abc", "abc@ / shared dirty"},
		{"h", "/d//abc", "none"},
		{"h", "/d/../abc", "none"},
		{"h", "/d/pear://abc/x", "abc@ /x shared dirty"},
		{"h", "/d/hyper:/abc@3", "abc@3 / shared dirty"},
		{"h", "/d/abc/a//b/./c/../d/", "abc@ /a/b/d/ shared dirty"},
		{"h", "/d/abc/../../x", "abc@ /x shared dirty"},
		{"h", "/d/abc/a\x00", "none"},
		{"h", "/d/abc/\xff", "none"},
		{"h", "/d/abc/" + strings.Repeat("x", maxPath), "none"},
		{"h", "/d/" + strings.Repeat("x", maxName+1) + "/", "none"},
		{"h", "/x", "none"},
	} {
		r := &http.Request{Host: c.host, URL: &url.URL{Path: c.path}}
		a, ok := parseAddress(r)
		got := a.name + "@" + a.at + " " + a.path
		if a.shared {
			got += " shared"
		}
		if a.dirty {
			got += " dirty"
		}
		if !ok {
			got = "none"
		}
		if got != c.want {
			t.Errorf("%s %.60q: got %s, want %s", c.host, c.path, got, c.want)
		}
		if want := c.want != "none" || strings.HasPrefix(c.path, "/d/") || c.host == ".abc.localhost"; Addressed(r) != want {
			t.Errorf("%s %.60q: addressed %v, want %v", c.host, c.path, !want, want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("abc.localhost", "/a/b")
	f.Add("1.abc.localhost:7070", "/a//b/../c/")
	f.Add("h", "/d/abc@1/a%2f..")
	f.Add("h", "/d/pear://abc@1/a\\b")
	f.Add("h", "/d/pear:///pear:")
	f.Add("h", "/d/pear://hyper://abc/x")
	f.Fuzz(func(t *testing.T, host, p string) {
		a, ok := parseAddress(&http.Request{Host: host, URL: &url.URL{Path: p}})
		if !ok {
			return
		}
		if a.name == "" || strings.ContainsAny(a.name, "/@\x00") && a.shared || len(a.name)+len(a.at) > maxName {
			t.Errorf("name %q at %q", a.name, a.at)
		}
		if trimmed := strings.TrimSuffix(a.path, "/"); a.path[0] != '/' || trimmed != "" && path.Clean(trimmed) != trimmed || strings.Contains(a.path, "//") {
			t.Errorf("path %q", a.path)
		}
		if a.shared != (a.root != "") || a.shared && !strings.HasPrefix(a.root, "/d/") {
			t.Errorf("root %q, shared %v", a.root, a.shared)
		}
		// Wherever it is sent to is on this origin, and leads to the same.
		to := a.location(a.path)
		u, err := url.Parse(to)
		if err != nil || u.Host != "" || u.Scheme != "" || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n") {
			t.Fatalf("redirect to %q: %v", to, err)
		}
		again, ok := parseAddress(&http.Request{Host: host, URL: u})
		if a.dirty = false; !ok || again != a {
			t.Errorf("redirect to %q leads to %+v, want %+v", to, again, a)
		}
	})
}
