package s3

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/internal/sigv4"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// Bounds of a form.
const (
	maxFields    = 20 << 10 // bytes of all fields
	maxFormParts = 128
)

// A form is what a browser posts: fields, and then a file.
type form struct {
	fields map[string]string // by names in lower case
	file   io.Reader
	name   string // of the file
}

// readForm reads the fields of a form, up to the file. What comes behind it is not
// looked at, as S3 does.
func readForm(r *http.Request) (*form, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		if err == nil && kind == "multipart/form-data" {
			return nil, fail("MalformedPOSTRequest")
		}
		return nil, fail("PreconditionFailed").with("Condition", "Bucket POST must be of the enclosure-type multipart/form-data")
	}
	parts := multipart.NewReader(r.Body, params["boundary"])
	f := &form{fields: map[string]string{}}
	left := int64(maxFields)
	for range maxFormParts {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, badArgument("file", "0", "POST requires exactly one file upload per request.")
		}
		if err != nil {
			return nil, formError(err)
		}
		name := strings.ToLower(p.FormName())
		if name == "file" {
			f.file, f.name = p, p.FileName()
			return f, nil
		}
		b, err := io.ReadAll(io.LimitReader(p, left+1))
		if err != nil {
			return nil, formError(err)
		}
		if left -= int64(len(b)); left < 0 {
			return nil, failf("MaxMessageLengthExceeded", "Your POST request fields preceding the upload file were too large.").with("MaxPostPreDataLengthExceeded", strconv.Itoa(maxFields))
		}
		f.fields[name] = string(b)
	}
	return nil, fail("MalformedPOSTRequest")
}

func formError(err error) error {
	if _, ok := told(err); ok {
		return err
	}
	return fail("MalformedPOSTRequest")
}

// postObject puts the file of a form.
func (c *call) postObject() error {
	f, err := readForm(c.r)
	if err != nil {
		return err
	}
	f.fields["key"] = strings.ReplaceAll(f.fields["key"], "${filename}", f.name)
	if f.fields["key"] == "" {
		return badArgument("key", "", "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.")
	}
	limits := sigv4.Posted{MaxLength: maxPut}
	c.who = caller{anonymous: true}
	if v := c.d.o.Verifier; v != nil && (f.fields["policy"] != "" || f.fields["x-amz-signature"] != "" || f.fields["x-amz-credential"] != "" || f.fields["awsaccesskeyid"] != "") {
		posted, err := v.VerifyForm(c.ctx, f.fields, c.bucket)
		if err != nil {
			return formSignature(err, f.fields)
		}
		limits = *posted
		c.who = caller{app: c.d.o.App(posted.AccessKey), key: posted.AccessKey}
	}
	if err := c.openBucket(); err != nil {
		return err
	}
	c.allowOrigin()
	if c.key = f.fields["key"]; len(c.key) > objects.MaxKey {
		return keyTooLong(c.key)
	}
	if err := c.authorize(); err != nil {
		return err
	}
	return c.putForm(f, limits)
}

// formSignature says what is wrong with the signature of a form.
func formSignature(err error, fields map[string]string) error {
	var s *sigv4.Error
	if !errors.As(err, &s) {
		return err
	}
	switch s.Kind {
	case sigv4.BadScope:
		return badArgument("x-amz-credential", fields["x-amz-credential"], "%s", s.Message)
	case sigv4.Missing, sigv4.Malformed, sigv4.Incomplete:
		return badArgument(s.Value, fields[strings.ToLower(s.Value)], "%s", s.Message)
	}
	return err
}

// formHeaders are the fields that are headers of a put.
func (f *form) headers() http.Header {
	h := http.Header{}
	for name, value := range f.fields {
		switch {
		case strings.HasPrefix(name, "x-amz-meta-"), strings.HasPrefix(name, checksumHeader), name == "x-amz-storage-class", name == "x-amz-website-redirect-location",
			strings.HasPrefix(name, "x-amz-object-lock-"), strings.HasPrefix(name, "x-amz-server-side-encryption"), strings.HasPrefix(name, "x-amz-grant-"), name == "x-amz-sdk-checksum-algorithm",
			name == "content-type", name == "cache-control", name == "content-disposition", name == "content-encoding", name == "content-language", name == "expires", name == "content-md5",
			name == "if-match", name == "if-none-match":
			h.Set(name, value)
		case name == "acl", name == "x-amz-acl":
			h.Set("X-Amz-Acl", value)
		}
	}
	return h
}

func (c *call) putForm(f *form, limits sigv4.Posted) error {
	c.r.Header = f.headers() // what is said of the object is in the form
	d, err := digestOf(c.r.Header)
	if err != nil {
		return err
	}
	o, err := c.putOptions()
	if err != nil {
		return err
	}
	if text := f.fields["tagging"]; text != "" {
		if _, o.Tags, err = parseTags([]byte(text), maxTags); err != nil {
			return err
		}
	}
	o.Event = objects.CreatedPost
	o.Finish = func(r objects.Read) (objects.Checksum, error) {
		switch {
		case r.Size > limits.MaxLength:
			return objects.Checksum{}, tooLarge(r.Size, limits.MaxLength)
		case r.Size < limits.MinLength:
			return objects.Checksum{}, fail("EntityTooSmall").with("ProposedSize", strconv.FormatInt(r.Size, 10)).with("MinSizeAllowed", strconv.FormatInt(limits.MinLength, 10))
		}
		return d.check(r.MD5, http.Header{})
	}
	file := io.Reader(&fileReader{r: f.file, left: min(limits.MaxLength, maxPut), limit: limits.MaxLength})
	if d.hash != nil {
		file = io.TeeReader(file, d.hash)
	}
	put, err := c.b.Put(c.ctx, c.key, file, o)
	if err != nil {
		return c.putError(err)
	}
	c.setPut(put)
	return c.formDone(f, put)
}

func tooLarge(size, limit int64) *Error {
	return fail("EntityTooLarge").with("ProposedSize", strconv.FormatInt(size, 10)).with("MaxSizeAllowed", strconv.FormatInt(limit, 10))
}

// fileReader reads the file of a form, up to what its policy allows.
type fileReader struct {
	r           io.Reader
	left, limit int64
}

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, tooLarge(r.limit-r.left, r.limit)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = formError(err)
	}
	return n, err
}

// formDone answers as the form asks for.
func (c *call) formDone(f *form, put objects.Object) error {
	location := c.location()
	if !strings.HasSuffix(location, "/") {
		location += "/"
	}
	location += strings.ReplaceAll(url.PathEscape(c.key), "%2F", "/")
	to := f.fields["success_action_redirect"]
	if to == "" {
		to = f.fields["redirect"]
	}
	if u, err := url.Parse(to); to != "" && err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += "bucket=" + c.bucket + "&key=" + encodeKey(c.key) + "&etag=" + url.QueryEscape(quote(put.ETag))
		c.h.Set("Location", u.String())
		return c.done(http.StatusSeeOther)
	}
	c.h.Set("Location", location)
	switch f.fields["success_action_status"] {
	case "200":
		return c.done(http.StatusOK)
	case "201":
		d := newDocument("PostResponse")
		d.put("Location", location)
		d.put("Bucket", c.bucket)
		d.put("Key", c.key)
		d.etag("ETag", put.ETag)
		c.h.Set("Content-Type", "application/xml")
		return c.send(http.StatusCreated, d.bytes())
	}
	return c.done(http.StatusNoContent)
}
