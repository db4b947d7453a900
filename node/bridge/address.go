package bridge

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode/utf8"
)

// An address is what a request asks for.
type address struct {
	name, at string
	path     string // absolute and clean, with a slash at its end if the request has one
	root     string // what comes before path in a URL: "", "/d/NAME" or "/s/TOKEN"
	dirty    bool   // the URL has the path in another form
	shared   bool   // the origin belongs to others, too
}

// maxName and maxPath bound what is looked at.
const (
	maxName = 255
	maxPath = 8 << 10
)

const localhost = ".localhost"

// Addressed reports whether a request is for a Handler: to a host under
// localhost, or to a path under /d/.
func Addressed(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/d/") || r.URL.Path == "/d" || len(underLocalhost(r.Host)) > 0
}

// underLocalhost returns what comes before .localhost in a host, or nothing.
func underLocalhost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	n := len(host) - len(localhost)
	if n <= 0 || !strings.EqualFold(host[n:], localhost) {
		return ""
	}
	return host[:n]
}

// parseAddress returns what a request asks for; false if that is nothing of ours.
func parseAddress(r *http.Request) (address, bool) {
	p := r.URL.Path
	if len(p) > maxPath || !utf8.ValidString(p) || strings.IndexByte(p, 0) >= 0 {
		return address{}, false
	}
	if host := underLocalhost(r.Host); host != "" {
		a := address{name: strings.ToLower(host)}
		// The version is a label of its own: hosts have no @.
		if i := strings.LastIndexByte(a.name, '.'); i >= 0 {
			a.at, a.name = a.name[:i], a.name[i+1:]
			if a.at == "" {
				return address{}, false
			}
		}
		if p == "" {
			p = "/"
		}
		return a.withPath(p)
	}
	rest, ok := strings.CutPrefix(p, "/d/")
	if !ok {
		return address{}, false
	}
	a := address{shared: true}
	// As often as there are schemes: what is left is a name, here and after a redirect.
	for after, ok := cutScheme(rest); ok; after, ok = cutScheme(rest) {
		rest, a.dirty = after, true
	}
	a.name, p, _ = strings.Cut(rest, "/")
	if len(a.name) == len(rest) {
		a.dirty = true // there is no slash behind the name
	}
	a.root = "/d/" + a.name
	if i := strings.IndexByte(a.name, '@'); i >= 0 {
		if a.at = a.name[i+1:]; a.at == "" {
			return address{}, false
		}
		a.name = a.name[:i]
	}
	return a.withPath("/" + p)
}

// cutScheme takes pear:// or hyper:// from a link, with however many slashes
// a browser has left of it.
func cutScheme(link string) (string, bool) {
	for _, scheme := range []string{"pear:", "hyper:"} {
		if rest, ok := strings.CutPrefix(link, scheme); ok {
			return strings.TrimLeft(rest, "/"), true
		}
	}
	return link, false
}

// maxToken bounds a link's token.
const maxToken = 8 << 10

// parseLink is parseAddress for links.
func parseLink(r *http.Request) (a address, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/s/")
	token, p, slash := strings.Cut(rest, "/")
	if !ok || token == "" || len(token) > maxToken || len(p) >= maxPath || !utf8.ValidString(rest) || strings.IndexByte(rest, 0) >= 0 {
		return a, false
	}
	a = address{shared: true, name: token, root: "/s/" + token, dirty: !slash}
	return a.clean("/" + p), true
}

// location is the URL of another path of the same source, on this origin.
func (a address) location(p string) string {
	return (&url.URL{Path: a.root + p}).EscapedPath()
}

func (a address) withPath(p string) (address, bool) {
	if a.name == "" || a.name == "." || a.name == ".." || len(a.name)+len(a.at) > maxName || p[0] != '/' {
		return address{}, false
	}
	return a.clean(p), true
}

func (a address) clean(p string) address {
	a.path = path.Clean(p)
	if a.path != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
		a.path += "/"
	}
	a.dirty = a.dirty || a.path != p
	return a
}
