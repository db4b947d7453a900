package node

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
)

// pageFiles are what the page is made of.
//
//go:embed page
var pageFiles embed.FS

// pageTypes are the media types of pageFiles.
var pageTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// policy lets the page load what is in pageFiles and nothing else, and nobody
// put it into a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageName is the file of the page that a request is for.
func pageName(r *http.Request) string {
	if name := path.Clean("/" + r.URL.Path)[1:]; name != "" {
		return name
	}
	return "index.html"
}

// hasPage reports whether there is such a file.
func hasPage(r *http.Request) bool {
	st, err := fs.Stat(pageFiles, "page/"+pageName(r))
	return err == nil && !st.IsDir()
}

// servePage serves the page. It holds nothing secret: what it shows it asks the
// API for.
func (n *Node) servePage(w http.ResponseWriter, r *http.Request) {
	defer n.Busy("requests")()
	name := pageName(r)
	b, err := fs.ReadFile(pageFiles, "page/"+name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	if !safe(r.Method) {
		http.Error(w, "the page is only read", http.StatusMethodNotAllowed)
		return
	}
	sum := sha256.Sum256(b)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "no-cache") // asked for each time, sent when it has changed
	h.Set("Content-Type", pageTypes[path.Ext(name)])
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(b) // who asked may be gone
}
