package bridge

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// An answer is a file as it is sent.
type answer struct {
	// Values of headers, shared by all who get it.
	kind, tag, size, modTime, code []string
	varies                         bool // with the codings that the client accepts
	when                           time.Time
	body                           []byte
}

func (a *answer) cost() int { return len(a.body) + 512 }

// Values of headers that many answers have.
var (
	noSniff      = []string{"nosniff"}
	attachment   = []string{"attachment"}
	acceptBytes  = []string{"bytes"}
	varyEncoding = []string{"Accept-Encoding"}
	anyOrigin    = []string{"*"}
	exposed      = []string{"Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag, Last-Modified"}
	sameOrigin   = []string{"same-origin"}
	crossOrigin  = []string{"cross-origin"}
	noReferrer   = []string{"no-referrer"}
	noRobots     = []string{"noindex, nofollow, noarchive"}
	forEver      = []string{"public, max-age=31536000, immutable"}
	forEverMine  = []string{"private, max-age=31536000, immutable"}
	askAgain     = []string{"no-cache"}
	askAgainMine = []string{"private, no-cache"}

	// A drive that shares its origin with others, and with the page that controls the
	// node, can show things and run nothing.
	sandbox = []string{"sandbox allow-downloads; default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; " +
		"script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
)

// setHeaders sets those that do not depend on the file.
func (q *request) setHeaders() {
	h := q.w.Header()
	h["X-Content-Type-Options"] = noSniff
	// A drive's key is the right to read it: nobody learns it from a link.
	h["Referrer-Policy"] = sameOrigin
	h["Cross-Origin-Resource-Policy"] = sameOrigin
	h["Cache-Control"] = askAgainMine
	if q.address.shared {
		h["Referrer-Policy"] = noReferrer
		h["Content-Security-Policy"] = sandbox
		h["Cross-Origin-Opener-Policy"] = sameOrigin
	}
	if q.h.o.Links {
		h["X-Robots-Tag"] = noRobots
		h["Cross-Origin-Resource-Policy"] = crossOrigin // a page in a sandbox has an origin of its own; who has the link may have it
	}
	if q.source == nil {
		return
	}
	switch s := q.state; {
	case s.Fixed && s.Public:
		h["Cache-Control"] = forEver
	case s.Fixed:
		h["Cache-Control"] = forEverMine
	case s.Public:
		h["Cache-Control"] = askAgain
	}
	if q.state.Public {
		h["Cross-Origin-Resource-Policy"] = crossOrigin
		h["Access-Control-Allow-Origin"] = anyOrigin
		h["Access-Control-Expose-Headers"] = exposed
	}
}

// options answers what a browser asks before it reads from another origin.
func (q *request) options() {
	h := q.w.Header()
	h.Set("Allow", allowed)
	if q.state.Writable {
		h.Set("Allow", allowed+", PUT, DELETE, POST")
	}
	if q.state.Public {
		h.Set("Access-Control-Allow-Methods", allowed)
		h.Set("Access-Control-Allow-Headers", "Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, If-Range")
		h.Set("Access-Control-Max-Age", "7200")
	}
	q.w.WriteHeader(http.StatusNoContent)
}

// maxRanges is how many ranges are sent; who asks for more gets the whole file.
const maxRanges = 32

// serve answers a request for a path of the source.
func (q *request) serve() error {
	a := q.address
	if a.dirty {
		q.redirect(a.location(a.path))
		return nil
	}
	key := cacheKey{id: q.state.ID, revision: q.state.Revision, path: a.path}
	if strings.Count(q.r.Header.Get("Range"), ",") >= maxRanges {
		q.r = q.r.Clone(q.r.Context())
		q.r.Header.Del("Range") // RFC 9110 §14.2 allows it, and thousands are an attack
	}
	if q.r.Header["Range"] == nil {
		// A part is one of the file as it is.
		key.code = codingFor(q.r.Header)
	}
	json := isFolderPath(a.path) && wantsJSON(q.r)
	if !json {
		if kept := q.kept(key); kept != nil {
			q.answer(kept)
			return nil
		}
	}
	i, p, err := q.find(a.path)
	if err != nil {
		return err
	}
	switch folder := isFolderPath(a.path); {
	case i.Kind == Folder && !folder:
		q.redirect(a.location(a.path + "/"))
		return nil
	case i.Kind == File && folder:
		q.redirect(a.location(strings.TrimSuffix(a.path, "/")))
		return nil
	case json:
		return q.listJSON(p)
	case i.Kind == Folder && q.state.Writable:
		return q.listHTML(p) // a page of the folder's own has no form
	case i.Kind == Folder:
		index, at, err := q.find(p + "index.html")
		if err == nil && index.Kind == File {
			return q.file(key, index, at)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errLoop) {
			return err
		}
		return q.listHTML(p)
	}
	return q.file(key, i, p)
}

// kept returns the answer that is kept, if it is in the right coding.
func (q *request) kept(key cacheKey) *answer {
	a := q.h.cache.get(key)
	if a == nil && key.code != plain {
		key.code = plain
		if a = q.h.cache.get(key); a != nil && a.varies {
			return nil
		}
	}
	return a
}

func isFolderPath(p string) bool { return p[len(p)-1] == '/' }

// redirect sends the client to another path of this origin. It is not for good:
// files come and go.
func (q *request) redirect(to string) {
	if query := q.r.URL.RawQuery; query != "" {
		to += "?" + query
	}
	q.w.Header()["Cache-Control"] = askAgainMine
	q.w.Header().Set("Location", to)
	q.w.WriteHeader(http.StatusTemporaryRedirect)
}

// errLoop: too many links lead to one another.
var errLoop = errors.New("too many links")

// maxLinks is how many are followed.
const maxLinks = 16

// find returns what a path leads to, with links followed, and where that is. With
// a slash at the end it looks for a folder, and takes a file if there is only that.
func (q *request) find(p string) (Info, string, error) {
	ctx := q.watch
	for range maxLinks + 1 {
		if p == "/" {
			return Info{Kind: Folder}, p, nil
		}
		i, err := q.source.Lookup(ctx, p)
		if err == nil && i.Kind == Folder && !isFolderPath(p) {
			return i, p + "/", nil
		}
		if err == nil && i.Kind != Link {
			return i, p, nil
		}
		link, rest := p, ""
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return Info{}, "", err
			}
			if i, link, rest, err = q.linkAbove(p, err); err != nil {
				return Info{}, "", err
			}
			if i.Kind == File {
				return i, link, nil
			}
		}
		target, err := resolve(link, i.Target)
		if err != nil {
			return Info{}, "", err
		}
		if p = target + rest; p == "" {
			p = "/"
		}
	}
	return Info{}, "", errLoop
}

// linkAbove returns the first link among what is above a path where nothing is,
// and the rest of the path after it. If the path is that of a folder and there is a
// file, it returns that.
func (q *request) linkAbove(p string, none error) (Info, string, string, error) {
	for n := 1; n < len(p); n++ {
		if p[n] != '/' {
			continue
		}
		switch i, err := q.source.Lookup(q.watch, p[:n]); {
		case errors.Is(err, fs.ErrNotExist):
			return Info{}, "", "", none
		case err != nil:
			return Info{}, "", "", err
		case i.Kind == Link, i.Kind == File && n == len(p)-1:
			return i, p[:n], p[n:], nil
		}
	}
	return Info{}, "", "", none
}

// resolve returns where a link leads to: "" is the source itself.
func resolve(link, target string) (string, error) {
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return "", fs.ErrNotExist
	}
	target = strings.ReplaceAll(target, `\`, "/")
	if target[0] != '/' {
		target = path.Dir(link) + "/" + target
	}
	depth := 0
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return "", fs.ErrNotExist // it leads out of the source
			}
		default:
			depth++
		}
	}
	if len(target) > maxPath {
		return "", fs.ErrNotExist
	}
	if target = path.Clean(target); target == "/" {
		return "", nil
	}
	return target, nil
}

// file answers with a file that is at a path.
func (q *request) file(key cacheKey, i Info, p string) error {
	kind := typeByName(q.address.path)
	if kind == "" {
		kind = typeByName(p)
	}
	if i.Size < 0 {
		return q.follow(i, kind)
	}
	// A small file is read at once, and kept, if all of it was asked for.
	whole := i.Size <= maxKept && q.r.Method == http.MethodGet && q.r.Header["Range"] == nil
	var body []byte
	if n := min(i.Size, sniffed); whole || kind == "" {
		if whole {
			n = i.Size
		}
		var err error
		if body, err = q.read(i, n); err != nil {
			return err
		}
		if kind == "" {
			kind = typeByContent(body)
		}
	}
	varies := compressible(kind) && i.Size >= minCompressed && i.Size <= maxCompressed
	if varies && key.code != plain {
		if !whole {
			body = nil
		}
		if done, err := q.compressed(key, i, kind, body); done || err != nil {
			return err
		}
	}
	a := newAnswer(i, kind, plain, body)
	a.varies = varies
	if !whole {
		return q.stream(a, i)
	}
	key.code = plain
	q.keep(key, a)
	q.answer(a)
	return nil
}

// maxKept is the size up to which files are kept as they are. Larger ones are sent
// while they are read.
const maxKept = 128 << 10

// compressed answers with a file in the coding of the key. It may be that there is
// no place to do so. body is all of the file, unless it is nil.
func (q *request) compressed(key cacheKey, i Info, kind string, body []byte) (done bool, err error) {
	if body == nil {
		if i.Size > maxKept {
			if !q.h.large.enter() {
				return false, nil
			}
			defer q.h.large.leave()
		}
		if body, err = q.read(i, i.Size); err != nil {
			return false, err
		}
	}
	if !q.h.compressor.enter() {
		return false, nil
	}
	small, err := q.h.compressor.compress(key.code, body)
	q.h.compressor.leave()
	if err != nil {
		return false, err
	}
	a := newAnswer(i, kind, key.code, small)
	if len(small) > len(body)-len(body)/16 {
		// It is as small as it can be: the next who asks is told so at once.
		a = newAnswer(i, kind, plain, body)
		a.varies = true
	}
	q.keep(key, a)
	q.answer(a)
	return true, nil
}

// newAnswer returns the answer of a file's contents in a coding.
func newAnswer(i Info, kind string, code coding, body []byte) *answer {
	a := &answer{kind: []string{kind}, when: i.ModTime, body: body, size: []string{strconv.Itoa(len(body))}}
	if i.Tag != "" {
		tag := `"` + i.Tag
		if code != plain {
			tag += "-" + code.String() // other bytes have another tag
		}
		a.tag = []string{tag + `"`}
	}
	if code != plain {
		a.code, a.varies = []string{code.String()}, true
	}
	if !i.ModTime.IsZero() {
		a.modTime = []string{i.ModTime.UTC().Format(http.TimeFormat)}
	}
	return a
}

// keep keeps an answer, if the source is still what it was when it was asked.
func (q *request) keep(key cacheKey, a *answer) {
	if s := q.source.State(); s.ID == key.id && s.Revision == key.revision {
		q.h.cache.put(key, a)
	}
}

// read returns the first n bytes of a file, which are few.
func (q *request) read(i Info, n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	r, err := q.source.Open(q.watch, i, 0, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return body, nil
}

// head sets the headers of an answer.
func (q *request) head(a *answer) {
	h := q.w.Header()
	h["Content-Type"] = a.kind
	if q.h.o.Links && a.kind[0] == pdf {
		h["Content-Disposition"] = attachment // browsers show none in a sandbox
	}
	if a.tag != nil {
		h["Etag"] = a.tag
	}
	if a.varies {
		h["Vary"] = varyEncoding
	}
	if a.code != nil {
		h["Content-Encoding"] = a.code
	}
}

// conditions are the headers that ask for something else than all of a file.
var conditions = [...]string{"Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range"}

func unconditional(h http.Header) bool {
	for _, name := range conditions {
		if h[name] != nil {
			return false
		}
	}
	return true
}

// answer sends what is in memory.
func (q *request) answer(a *answer) {
	q.head(a)
	if !unconditional(q.r.Header) {
		q.content(a, bytes.NewReader(a.body))
		return
	}
	h := q.w.Header()
	h["Content-Length"] = a.size
	h["Accept-Ranges"] = acceptBytes
	if a.modTime != nil {
		h["Last-Modified"] = a.modTime
	}
	q.begun = true
	q.w.WriteHeader(http.StatusOK)
	if q.r.Method != http.MethodHead {
		_, _ = q.watch.write(q.w, a.body) // the client has gone
	}
}

// content sends what the request's ranges and conditions ask for.
func (q *request) content(a *answer, content io.ReadSeeker) *writer {
	if a.code != nil {
		q.w.Header()["Content-Length"] = a.size
	}
	w := &writer{q: q}
	http.ServeContent(w, q.r, "", a.when, content)
	switch {
	case w.code == http.StatusRequestedRangeNotSatisfiable:
		q.fail(w.code, "The file has no such range.")
	case w.err == nil && !q.begun:
		w.begin() // of what has no body
	}
	return w
}

// stream sends a file from the source.
func (q *request) stream(a *answer, i Info) error {
	q.head(a)
	f := &file{q: q, i: i}
	defer f.close()
	return q.content(a, f).err
}

// follow sends a file while it grows.
func (q *request) follow(i Info, kind string) error {
	h := q.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Accept-Ranges", "none")
	if kind == "" {
		kind = "application/octet-stream"
	}
	h.Set("Content-Type", kind)
	if q.r.Method == http.MethodHead {
		q.w.WriteHeader(http.StatusOK)
		return nil
	}
	r, err := q.source.Open(q.watch, i, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	// Whoever writes it may take a rest: the source knows when it will not go on.
	q.watch.forEver()
	flush := http.NewResponseController(q.w)
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			q.begun = true
			if _, err := q.watch.write(q.w, buf[:n]); err != nil {
				return nil // the client has gone
			}
			_ = flush.Flush()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A writer is where http.ServeContent writes to. It puts off the head of the
// answer until there is something to send, so that it can still be an error.
type writer struct {
	q    *request
	code int
	err  error
}

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.q.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(code int) { w.code = code }

func (w *writer) begin() {
	w.q.begun = true
	w.q.w.WriteHeader(w.code)
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.code == http.StatusRequestedRangeNotSatisfiable {
		return len(p), nil // we say that ourselves
	}
	if !w.q.begun {
		w.begin()
	}
	return w.q.watch.write(w.q.w, p)
}

// ReadFrom implements io.ReaderFrom: a range of a file goes straight from the
// source to the client.
func (w *writer) ReadFrom(r io.Reader) (n int64, err error) {
	if part, ok := r.(*io.LimitedReader); ok {
		if f, ok := part.R.(*file); ok {
			return w.copyRange(f, part.N)
		}
	}
	return w.copy(r)
}

// copyRange copies n bytes from where a file is.
func (w *writer) copyRange(f *file, n int64) (int64, error) {
	f.close()
	r, err := w.q.source.Open(w.q.watch, f.i, f.pos, n)
	if err != nil {
		w.err = err
		return 0, err
	}
	defer r.Close()
	got, err := w.copy(r)
	if err == nil && got < n {
		w.err = io.ErrUnexpectedEOF
	}
	return got, w.err
}

func (w *writer) copy(r io.Reader) (n int64, err error) {
	out := writeOnly{w}
	if from, ok := r.(io.WriterTo); ok {
		n, err = from.WriteTo(out) // whole blocks
	} else {
		n, err = io.CopyBuffer(out, r, make([]byte, 64<<10))
	}
	w.err = err
	return n, err
}

// writeOnly hides ReadFrom.
type writeOnly struct{ io.Writer }

// A file is one of the source's, for http.ServeContent.
type file struct {
	q      *request
	i      Info
	pos    int64
	r      io.ReadCloser // nil until it is read
	window int64
}

// firstWindow and lastWindow are how much is opened when nobody says how much will
// be read, as with several ranges.
const (
	firstWindow = 64 << 10
	lastWindow  = 4 << 20
)

// Seek implements io.Seeker.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.i.Size
	}
	if offset != f.pos {
		f.close()
		f.pos, f.window = offset, 0
	}
	return offset, nil
}

// Read implements io.Reader.
func (f *file) Read(p []byte) (int, error) {
	for {
		if f.pos >= f.i.Size {
			return 0, io.EOF
		}
		if f.r == nil {
			f.window = min(max(firstWindow, 2*f.window), lastWindow)
			var err error
			if f.r, err = f.q.source.Open(f.q.watch, f.i, f.pos, min(f.window, f.i.Size-f.pos)); err != nil {
				return 0, err
			}
		}
		n, err := f.r.Read(p)
		f.pos += int64(n)
		if err == io.EOF {
			f.close()
			if err = nil; n == 0 {
				continue
			}
		}
		return n, err
	}
}

func (f *file) close() {
	if f.r != nil {
		_ = f.r.Close() // it was read
		f.r = nil
	}
}
