package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Writer is a Source that can be changed. Errors that are fs.ErrPermission,
// ErrChanged, ErrInTheWay and ErrFull have their own answers.
type Writer interface {
	Source
	// Put makes a file of what body has, all of it or none, if may says so of what is
	// there: nil if nothing is. It is asked when nobody else writes any more. It is on
	// the disk when Put returns what is there now, and whether nothing was before.
	Put(ctx context.Context, path string, body io.Reader, may func(*Info) bool) (now Info, made bool, err error)
	// Remove removes a file or a link, if may says so.
	Remove(ctx context.Context, path string, may func(*Info) bool) error
}

// Errors of Writers.
var (
	// ErrChanged: what is there is not what it may take the place of.
	ErrChanged = errors.New("it was changed")
	// ErrInTheWay: a folder, or a link, is where a file is to be, or a file where a
	// folder would have to be.
	ErrInTheWay = errors.New("something is in the way")
	// ErrFull: there is no room.
	ErrFull = errors.New("there is no room")
)

const (
	pdf = "application/pdf"
	// maxFiles is how many files a form can have.
	maxFiles = 1000
)

// write changes what is at a path.
func (q *request) write() error {
	to, ok := q.source.(Writer)
	switch {
	case !ok || !q.state.Writable:
		q.fail(http.StatusForbidden, "This link is for reading.")
		return nil
	case q.address.dirty:
		q.redirect(q.address.location(q.address.path))
		return nil
	}
	// Who sends may take as long as there comes something.
	body := &patient{q: q, body: q.r.Body}
	defer body.end()
	switch q.r.Method {
	case http.MethodPost:
		return q.form(to, body)
	case http.MethodDelete:
		return q.remove(to)
	}
	return q.put(to, body)
}

func (q *request) put(to Writer, body *patient) error {
	switch {
	case isFolderPath(q.address.path):
		q.fail(http.StatusConflict, "A file has no slash at its end.")
		return nil
	case q.r.Header["Content-Range"] != nil:
		q.fail(http.StatusBadRequest, "A file is put as a whole.")
		return nil
	case q.r.Header["Content-Encoding"] != nil:
		q.fail(http.StatusUnsupportedMediaType, "A file is put as it is, without an encoding.")
		return nil
	}
	may := q.may()
	if err := q.allowed(q.address.path, may); err != nil {
		return err // before anything is sent
	}
	now, made, err := to.Put(q.r.Context(), q.address.path, body, may)
	switch {
	case body.err != nil:
		q.fail(http.StatusBadRequest, "The file was cut off, or nothing of it came for too long.")
		return nil
	case err != nil:
		return err
	}
	if now.Tag != "" {
		q.w.Header().Set("ETag", `"`+now.Tag+`"`)
	}
	q.w.Header().Set("Cache-Control", "no-store")
	code := http.StatusNoContent
	if made {
		code = http.StatusCreated
	}
	q.done(code)
	return nil
}

func (q *request) remove(to Writer) error {
	if isFolderPath(q.address.path) {
		q.fail(http.StatusConflict, "Only files can be removed.")
		return nil
	}
	if err := to.Remove(q.r.Context(), q.address.path, q.may()); err != nil {
		return err
	}
	q.done(http.StatusNoContent)
	return nil
}

func (q *request) done(code int) {
	q.begun = true
	q.w.WriteHeader(code)
}

// allowed asks may of what is at a path.
func (q *request) allowed(p string, may func(*Info) bool) error {
	i, err := q.source.Lookup(q.watch, p)
	there := &i
	if errors.Is(err, fs.ErrNotExist) {
		there, err = nil, nil
	}
	if err == nil && !may(there) {
		err = ErrChanged
	}
	return err
}

// may returns what the request's conditions say (RFC 9110 §13).
func (q *request) may() func(*Info) bool {
	h := q.r.Header
	match, noneMatch, since := h.Values("If-Match"), h.Values("If-None-Match"), time.Time{}
	if len(match) == 0 {
		since, _ = http.ParseTime(h.Get("If-Unmodified-Since"))
	}
	return func(i *Info) bool {
		switch {
		case len(match) > 0 && !tagged(match, i), len(noneMatch) > 0 && tagged(noneMatch, i):
			return false
		}
		return since.IsZero() || i == nil || !i.ModTime.Truncate(time.Second).After(since)
	}
}

// tagged reports whether lists of tags have that of a file. Of a compressed form
// it is that of the file.
func tagged(lists []string, i *Info) bool {
	if i == nil {
		return false
	}
	for _, list := range lists {
		for tag := range strings.SplitSeq(list, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" {
				return true
			}
			tag, quoted := strings.CutPrefix(tag, `"`)
			tag, ended := strings.CutSuffix(tag, `"`)
			for _, code := range []coding{gzipped, zstandard} {
				tag = strings.TrimSuffix(tag, "-"+code.String())
			}
			if quoted && ended && i.Tag != "" && tag == i.Tag {
				return true
			}
		}
	}
	return false
}

// form puts the files of a form into a folder. None takes the place of another:
// "a.txt" becomes "a (2).txt".
func (q *request) form(to Writer, body *patient) error {
	kind, params, err := mime.ParseMediaType(q.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		q.fail(http.StatusUnsupportedMediaType, "A form with files is sent as multipart/form-data.")
		return nil
	}
	i, dir, err := q.find(q.address.path)
	if err != nil {
		return err
	}
	if i.Kind != Folder || !isFolderPath(q.address.path) {
		q.fail(http.StatusConflict, "A form is sent to a folder.")
		return nil
	}
	q.r.Body = io.NopCloser(body)
	parts, err := q.r.MultipartReader()
	if err != nil {
		return err
	}
	for n := 0; ; {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			q.fail(http.StatusBadRequest, "The form was cut off, or is none.")
			return nil
		}
		name := part.FileName()
		if name == "" {
			continue
		}
		name = name[strings.LastIndexByte(name, '\\')+1:]
		if n++; n > maxFiles || !putName(name) {
			q.fail(http.StatusBadRequest, "The form has too many files, or one of a name that can't be had.")
			return nil
		}
		p, err := q.free(dir, name)
		if err == nil {
			_, _, err = to.Put(q.r.Context(), p, part, func(there *Info) bool { return there == nil })
		}
		switch {
		case body.err != nil, errors.Is(err, io.ErrUnexpectedEOF):
			q.fail(http.StatusBadRequest, "The form was cut off, or nothing of it came for too long.")
			return nil
		case err != nil:
			return err
		}
	}
	q.w.Header().Set("Cache-Control", "no-store")
	q.w.Header().Set("Location", q.address.location(q.address.path))
	q.done(http.StatusSeeOther)
	return nil
}

// putName reports whether a file can be called so that people can see.
func putName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 240 && utf8.ValidString(name) && !strings.Contains(name, "/") &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// free returns the path in a folder where a file of a name can be.
func (q *request) free(dir, name string) (string, error) {
	end := path.Ext(name)
	for n := 1; n <= maxFiles; n++ {
		p := dir + name
		if n > 1 {
			p = fmt.Sprintf("%s%s (%d)%s", dir, strings.TrimSuffix(name, end), n, end)
		}
		_, err := q.source.Lookup(q.watch, p)
		if errors.Is(err, fs.ErrNotExist) {
			return p, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", ErrInTheWay
}

// A patient reads a body for as long as something of it comes in time.
type patient struct {
	q    *request
	body io.Reader
	late time.Time
	err  error // but for the end
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	o := p.q.h.o
	if now := o.Clock.Now(); p.late.Sub(now) < o.WriteTimeout*3/4 {
		p.late = now.Add(o.WriteTimeout)
		_ = http.NewResponseController(p.q.w).SetReadDeadline(p.late) // not every connection has one
	}
	n, err := p.body.Read(b)
	if err != nil && err != io.EOF {
		p.err = err
	}
	return n, err
}

func (p *patient) end() {
	if !p.late.IsZero() {
		_ = http.NewResponseController(p.q.w).SetReadDeadline(time.Time{})
	}
}
