package bridge

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"
)

func FuzzLinkAddress(f *testing.F) {
	for _, p := range []string{"/s/T/a/b", "/s/T", "/s//a", "/s/T//a", "/s/T/../../x", "/s/T/a/", "/d/T/a", "/s/T/\x00", "/s/T/\xff", "/s/T@1/a"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		a, ok := parseLink(&http.Request{Host: "x", URL: &url.URL{Path: p}})
		if !ok {
			return
		}
		if a.name == "" || strings.Contains(a.name, "/") || a.at != "" || !a.shared || a.root != "/s/"+a.name {
			t.Errorf("%q is %+v", p, a)
		}
		if clean := strings.TrimSuffix(a.path, "/"); a.path != "/" && path.Clean(a.path) != clean || a.path[0] != '/' {
			t.Errorf("%q is at %q", p, a.path)
		}
		if !a.dirty && a.root+a.path != p {
			t.Errorf("%q is taken for %q", p, a.root+a.path)
		}
	})
}

func TestLinkAddresses(t *testing.T) {
	for p, want := range map[string]string{
		"/s/T/a/b": "/a/b", "/s/T": "/", "/s/T/a/": "/a/", "/s/T/../../a": "/a", "/s/T/a/..": "/", "/s/" + strings.Repeat("x", maxToken) + "/a": "/a",
		"/s/": "", "/s//a": "", "/d/T/a": "", "/s": "", "/s/" + strings.Repeat("x", maxToken+1) + "/a": "", "/s/T/" + strings.Repeat("x", maxPath): "", "/s/T/\xff": "", "/s/T/\x00": "",
	} {
		a, ok := parseLink(&http.Request{URL: &url.URL{Path: p}})
		if ok != (want != "") || a.path != want {
			t.Errorf("%.60q: %v %.60q", p, ok, a.path)
		}
	}
}

// The conditions of a request, held against a file of a tag and a time.
func TestConditionsForWriting(t *testing.T) {
	there := &Info{Tag: "abc", ModTime: when}
	for _, c := range []struct {
		name, value string
		file, none  bool // whether it may if there is a file, or none
	}{
		{"", "", true, true},
		{"If-Match", "*", true, false},
		{"If-Match", `"abc"`, true, false},
		{"If-Match", `"x", "abc-gzip"`, true, false},
		{"If-Match", `W/"abc"`, false, false},
		{"If-Match", `abc`, false, false},
		{"If-Match", `""`, false, false},
		{"If-Match", ``, false, false},
		{"If-None-Match", "*", false, true},
		{"If-None-Match", `"abc"`, false, true},
		{"If-None-Match", `"x"`, true, true},
		{"If-Unmodified-Since", when.Format(http.TimeFormat), true, true},
		{"If-Unmodified-Since", when.Add(-time.Second).Format(http.TimeFormat), false, true},
		{"If-Unmodified-Since", "yesterday", true, true},
	} {
		q := &request{r: &http.Request{Header: http.Header{}}}
		if c.name != "" {
			q.r.Header[c.name] = []string{c.value}
		}
		may := q.may()
		if got := may(there); got != c.file {
			t.Errorf("%s: %s, a file: %v", c.name, c.value, got)
		}
		if got := may(nil); got != c.none {
			t.Errorf("%s: %s, none: %v", c.name, c.value, got)
		}
	}
}
