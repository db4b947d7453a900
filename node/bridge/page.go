package bridge

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// pageEntries is how many names a page of a folder has; maxEntries is how many a
// program can ask for.
const (
	pageEntries = 1_000
	maxEntries  = 10_000
)

func wantsJSON(r *http.Request) bool {
	return accepts(r, "application/json") && !accepts(r, "text/html")
}

func accepts(r *http.Request, kind string) bool {
	for _, line := range r.Header["Accept"] {
		if strings.Contains(line, kind) {
			return true
		}
	}
	return false
}

// A listing is what a folder has, or a part of it.
type listing struct {
	Path     string         `json:"path"`
	Revision string         `json:"revision,omitempty"`
	Entries  []listingEntry `json:"entries"`
	Next     string         `json:"next,omitempty"` // what comes after= for more
}

type listingEntry struct {
	Name   string     `json:"name"`
	Kind   string     `json:"kind"`
	Size   *int64     `json:"size,omitempty"` // not while it is written
	Time   *time.Time `json:"mtime,omitempty"`
	Target string     `json:"target,omitempty"`
}

var kinds = [...]string{File: "file", Folder: "folder", Link: "link"}

// list reads a folder: p ends in a slash.
func (q *request) list(p string, limit int) (listing, error) {
	out := listing{Path: q.address.path, Revision: q.state.Revision, Entries: []listingEntry{}}
	last := ""
	folder := strings.TrimSuffix(p, "/")
	if folder == "" {
		folder = "/"
	}
	for i, err := range q.source.List(q.watch, folder, q.r.URL.Query().Get("after")) {
		if err != nil {
			return listing{}, err
		}
		if len(out.Entries) == limit {
			out.Next = last
			break
		}
		e := listingEntry{Name: i.Name, Kind: kinds[i.Kind], Target: i.Target}
		if last = i.Name; i.Kind == Folder {
			last += "/"
		}
		if i.Kind == File && i.Size >= 0 {
			e.Size = &i.Size
		}
		if !i.ModTime.IsZero() {
			when := i.ModTime.UTC()
			e.Time = &when
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

func (q *request) listJSON(p string) error {
	limit := pageEntries
	if s := q.r.URL.Query().Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			q.fail(http.StatusBadRequest, "limit is to be a number from 1 on.")
			return nil
		}
		limit = min(n, maxEntries)
	}
	l, err := q.list(p, limit)
	if err != nil {
		return err
	}
	body, err := json.Marshal(l)
	if err != nil {
		return err
	}
	q.page("application/json", append(body, '\n'))
	return nil
}

func (q *request) listHTML(p string) error {
	l, err := q.list(p, pageEntries)
	if err != nil {
		return err
	}
	name := q.called()
	if q.address.at != "" {
		name += "@" + q.address.at
	}
	v := folderView{Title: name + strings.TrimSuffix(q.address.path, "/"), Root: q.address.location("/"), Name: short(name), Full: name}
	v.Heading = v.Name
	parts := strings.Split(strings.Trim(q.address.path, "/"), "/")
	for n, part := range parts {
		if part != "" {
			v.Heading = part
			v.Crumbs = append(v.Crumbs, crumb{part, q.address.location("/" + strings.Join(parts[:n+1], "/") + "/"), n == len(parts)-1})
		}
	}
	if q.address.path != "/" {
		v.Up = "../"
	}
	for _, e := range l.Entries {
		row := folderRow{Name: e.Name, Link: "./" + url.PathEscape(e.Name), Target: e.Target, Kind: e.Kind}
		if e.Kind == kinds[Folder] {
			row.Name, row.Link = row.Name+"/", row.Link+"/"
		}
		switch {
		case e.Size != nil:
			row.Bytes, row.Size = strconv.FormatInt(*e.Size, 10), humanSize(*e.Size)
		case e.Kind == kinds[File]:
			row.Size = "being written"
		}
		if e.Time != nil {
			row.Machine, row.Time = e.Time.Format(time.RFC3339), e.Time.Format("2006-01-02 15:04")
		}
		v.Rows = append(v.Rows, row)
	}
	if l.Next != "" {
		v.Next = "?after=" + url.QueryEscape(l.Next)
	}
	v.Writable = q.state.Writable
	v.Later = q.r.URL.Query().Get("after") != ""
	body, err := render(folderPage, v)
	if err != nil {
		return err
	}
	q.page("text/html; charset=utf-8", body)
	return nil
}

// page sends what was made for this request.
func (q *request) page(kind string, body []byte) {
	h := q.w.Header()
	h.Set("Cache-Control", "private, no-cache")
	if q.state.Public {
		h["Cache-Control"] = askAgain
	}
	h.Set("Vary", "Accept, Accept-Encoding")
	setPagePolicy(h, q.address.shared, q.state.Writable)
	if code := codingFor(q.r.Header); code != plain && len(body) >= minCompressed && q.h.compressor.enter() {
		small, err := q.h.compressor.compress(code, body)
		q.h.compressor.leave()
		if err == nil {
			body = small
			h.Set("Content-Encoding", code.String())
		}
	}
	q.send(http.StatusOK, kind, body)
}

func (q *request) send(code int, kind string, body []byte) {
	h := q.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	q.begun = true
	q.w.WriteHeader(code)
	if q.r.Method != http.MethodHead {
		_, _ = q.watch.write(q.w, body) // the client has gone
	}
}

// setPagePolicy says that a page of ours has styles and nothing else, or a form, too.
func setPagePolicy(h http.Header, shared, form bool) {
	box, action := "sandbox allow-downloads", "'none'"
	if form {
		box, action = box+" allow-forms", "'self'"
	}
	policy := "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action " + action + "; frame-ancestors 'none'"
	if shared {
		policy = box + "; " + policy
	}
	h.Set("Content-Security-Policy", policy)
}

// fail answers with what is wrong, in the form that the client likes.
func (q *request) fail(code int, text string) {
	h := q.w.Header()
	for _, name := range []string{"Etag", "Last-Modified", "Content-Encoding", "Content-Length", "Accept-Ranges"} {
		delete(h, name)
	}
	if code != http.StatusRequestedRangeNotSatisfiable {
		delete(h, "Content-Range")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	setPagePolicy(h, q.address.shared, false)
	title := fmt.Sprintf("%d %s", code, http.StatusText(code))
	switch {
	case wantsJSON(q.r):
		body, err := json.Marshal(map[string]any{"error": text, "status": code})
		if err != nil {
			body = nil
		}
		q.send(code, "application/json", append(body, '\n'))
	case accepts(q.r, "text/html"):
		v := errorView{title, text, q.address.location("/")}
		if q.h.o.Links && q.source == nil {
			v.Root = "" // there is none
		}
		body, err := render(errorPage, v)
		if err != nil {
			body = nil
		}
		q.send(code, "text/html; charset=utf-8", body)
	default:
		q.send(code, "text/plain; charset=utf-8", []byte(title+"\n"+text+"\n"))
	}
}

func render(t *template.Template, v any) ([]byte, error) {
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

// short is a name that fits on a phone.
func short(name string) string {
	if len(name) <= 24 {
		return name
	}
	return name[:8] + "…" + name[len(name)-6:]
}

// humanSize is a number of bytes for people.
func humanSize(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n)/1024, 0
	for ; v >= 1023.95 && unit < 4; unit++ {
		v /= 1024
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + [...]string{"KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}

type (
	crumb struct {
		Name, Link string
		Here       bool
	}
	folderRow  struct{ Name, Link, Target, Kind, Bytes, Size, Machine, Time string }
	folderView struct {
		Title, Heading, Root, Name, Full, Up, Next string
		Later, Writable                            bool
		Crumbs                                     []crumb
		Rows                                       []folderRow
	}
	errorView struct{ Title, Text, Root string }
)

const style = `<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif;--paper:#f6f6f3;--card:#fff;--ink:#1d2321;--soft:#5a6561;--line:#dcdfdc;--accent:#1f6b5a}
@media(prefers-color-scheme:dark){:root{--paper:#121615;--card:#1a201e;--ink:#e6ebe8;--soft:#9aa6a1;--line:#2c3532;--accent:#6cc7b0}}
body{max-width:60rem;margin:0 auto;padding:1rem;background:var(--paper);color:var(--ink)}
h1{font-size:1.4rem;overflow-wrap:anywhere}
nav{overflow-wrap:anywhere}
a{color:var(--accent)}
a bdi{white-space:pre-wrap}
a:focus-visible{outline:3px solid;outline-offset:2px}
table{width:100%;border-collapse:separate;border-spacing:0;background:var(--card);border:1px solid var(--line);border-radius:.75rem}
caption{text-align:left;padding:.5rem 0;color:var(--soft)}
th,td{text-align:left;padding:.4rem .8rem}
th{color:var(--soft);font-weight:600}
td{border-top:1px solid var(--line)}
td:first-child{overflow-wrap:anywhere}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.t{white-space:nowrap}
small{color:var(--soft)}
@media(max-width:36rem){.t{display:none}}
</style>
`

var folderPage = template.Must(template.New("folder").Parse(`<!doctype html>
<html lang="en">
<head>
` + style + `<title>{{.Title}}</title>
</head>
<body>
<nav aria-label="Folders above"><a href="{{.Root}}" title="{{.Full}}"><bdi>{{.Name}}</bdi></a>{{range .Crumbs}} / {{if .Here}}<span aria-current="page"><bdi>{{.Name}}</bdi></span>{{else}}<a href="{{.Link}}"><bdi>{{.Name}}</bdi></a>{{end}}{{end}}</nav>
<main>
<h1><bdi>{{.Heading}}</bdi></h1>
{{if .Rows}}<table>
<caption>Files and folders{{if .Later}}, continued{{end}}</caption>
<thead><tr><th scope="col">Name</th><th scope="col" class="n">Size</th><th scope="col" class="t">Changed (UTC)</th></tr></thead>
<tbody>
{{if .Up}}<tr><td><a href="{{.Up}}">../ <small>the folder above</small></a></td><td class="n"></td><td class="t"></td></tr>
{{end}}{{range .Rows}}<tr><td><a href="{{.Link}}"><bdi>{{.Name}}</bdi></a>{{if .Target}} <small>leads to <bdi>{{.Target}}</bdi></small>{{end}}</td><td class="n">{{if .Bytes}}<data value="{{.Bytes}}">{{.Size}}</data>{{else}}{{.Size}}{{end}}</td><td class="t">{{if .Machine}}<time datetime="{{.Machine}}">{{.Time}}</time>{{end}}</td></tr>
{{end}}</tbody>
</table>
{{else}}<p>{{if .Later}}There is nothing more{{else}}This folder is empty{{end}}.{{if .Up}} <a href="{{.Up}}">The folder above</a>{{end}}</p>
{{end}}{{if .Next}}<p><a href="{{.Next}}" rel="next">More files and folders</a></p>
{{end}}{{if .Writable}}<form action="./" method="post" enctype="multipart/form-data">
<p><label>Put files here: <input type="file" name="file" multiple required></label> <button>Send</button></p>
</form>
{{end}}</main>
</body>
</html>
`))

var errorPage = template.Must(template.New("error").Parse(`<!doctype html>
<html lang="en">
<head>
` + style + `<title>{{.Title}}</title>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{if .Root}}<p><a href="{{.Root}}">To the first page</a></p>
{{end}}</main>
</body>
</html>
`))
