package s3

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// overrides are the headers of an answer that a request can set.
var overrides = [][2]string{
	{"response-content-type", "Content-Type"}, {"response-content-language", "Content-Language"}, {"response-expires", "Expires"},
	{"response-cache-control", "Cache-Control"}, {"response-content-disposition", "Content-Disposition"}, {"response-content-encoding", "Content-Encoding"},
}

// getObject answers GET and HEAD.
func (c *call) getObject() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	if c.r.Header.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != "" {
		return notImplemented("Encryption with keys of clients is not implemented")
	}
	if c.query.Has("partNumber") {
		if _, err := c.part(); err != nil {
			return err
		}
	}
	o, err := c.b.Head(c.ctx, c.key, version)
	if err != nil {
		return c.readError(o, err, version)
	}
	override := false
	for _, over := range overrides {
		override = override || c.query.Has(over[0])
	}
	if override && c.who.anonymous {
		return badRequest("Request specific response headers cannot be used for anonymous GET requests.")
	}
	c.setVersion(o.Version)
	if err := readConditions(c.r.Header, "").check(o); err != nil {
		c.setETag(o)
		c.set("Cache-Control", o.Meta.CacheControl)
		return err
	}
	all := span{0, o.Size}
	part, ranged, err := c.span(o)
	if err != nil {
		return err
	}
	c.describe(o)
	for _, over := range overrides {
		c.set(over[1], c.query.Get(over[0]))
	}
	if strings.EqualFold(c.r.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") && (part == all || c.query.Has("partNumber")) {
		c.setPartChecksum(o)
	}
	status := http.StatusOK
	if ranged {
		status = http.StatusPartialContent
		c.h.Set("Content-Range", part.header(o.Size))
		if o.Size == 0 {
			c.h.Del("Content-Range")
		}
	} else {
		part = all
	}
	c.h.Set("Content-Length", strconv.FormatInt(part.n, 10))
	if c.r.Method == http.MethodHead {
		c.head(status)
		return nil
	}
	return c.stream(status, o, part)
}

// readError says why an object can't be read.
func (c *call) readError(o objects.Object, err error, version string) error {
	if o.Marker {
		c.h.Set("x-amz-delete-marker", "true")
		c.setVersion(o.Version)
	}
	if errors.Is(err, objects.ErrMarker) {
		c.h.Set("Allow", "DELETE")
		c.h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
		return fail("MethodNotAllowed").with("Method", c.r.Method).with("ResourceType", "DeleteMarker")
	}
	return c.versionError(err, version)
}

// span is what of an object is asked for.
func (c *call) span(o objects.Object) (s span, ranged bool, err error) {
	header := c.r.Header.Get("Range")
	if c.query.Has("partNumber") {
		if header != "" {
			return s, false, badRequest("Cannot specify both Range header and partNumber query parameter")
		}
		return c.partSpan(o)
	}
	if header == "" || !c.ifRange(o) {
		return span{0, o.Size}, false, nil
	}
	s, ranged, err = parseRange(header, o.Size)
	if !ranged {
		s = span{0, o.Size}
	}
	return s, ranged, err
}

// ifRange reports whether the range is still wanted (RFC 9110 §13.1.5).
func (c *call) ifRange(o objects.Object) bool {
	text := c.r.Header.Get("If-Range")
	if text == "" {
		return true
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Equal(o.Modified.Truncate(time.Second))
	}
	return text == quote(o.ETag)
}

// partSpan is the part of an object that was put in parts.
func (c *call) partSpan(o objects.Object) (span, bool, error) {
	text := c.query.Get("partNumber")
	n, err := c.part()
	if err != nil {
		return span{}, false, err
	}
	parts := c.b.PartsOf(o)
	if len(parts) == 0 {
		if n > 1 {
			return span{}, false, fail("InvalidPartNumber").with("ActualPartCount", "1").with("PartNumberRequested", text)
		}
		return span{0, o.Size}, true, nil
	}
	// Parts are counted as they are in the object, whatever their numbers were.
	if n > len(parts) {
		return span{}, false, fail("InvalidPartNumber").with("ActualPartCount", strconv.Itoa(len(parts))).with("PartNumberRequested", text)
	}
	c.h.Set("x-amz-mp-parts-count", strconv.Itoa(len(parts)))
	return span{parts[n-1].Start, parts[n-1].Size}, true, nil
}

func (c *call) setPartChecksum(o objects.Object) {
	parts := c.b.PartsOf(o)
	n, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || n < 1 || n > len(parts) {
		setChecksum(c.h, o.Checksum, o.Parts)
		return
	}
	if v := parts[n-1].Checksum; v != nil {
		c.h.Set(checksumHeader+strings.ToLower(o.Checksum.Algorithm), base64.StdEncoding.EncodeToString(v))
		c.h.Set("x-amz-checksum-type", checksumType(o.Checksum.Composite))
	}
}

func (c *call) set(name, value string) {
	if value != "" {
		c.h.Set(name, value)
	}
}

func (c *call) setETag(o objects.Object) {
	c.h["ETag"] = []string{quote(o.ETag)} // as S3 spells it
}

// describe says in headers what an object is.
func (c *call) describe(o objects.Object) {
	m := o.Meta
	c.setETag(o)
	c.h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	kind := m.ContentType
	if kind == "" {
		kind = "binary/octet-stream"
	}
	c.h.Set("Content-Type", kind)
	c.set("Cache-Control", m.CacheControl)
	c.set("Content-Disposition", m.ContentDisposition)
	c.set("Content-Encoding", m.ContentEncoding)
	c.set("Content-Language", m.ContentLanguage)
	c.set("Expires", m.Expires)
	c.set("x-amz-website-redirect-location", m.WebsiteRedirect)
	if m.StorageClass != "" && m.StorageClass != "STANDARD" {
		c.h.Set("x-amz-storage-class", m.StorageClass)
	}
	for name, value := range m.User {
		c.h["x-amz-meta-"+name] = []string{headerText(value)}
	}
	if n := len(o.Tags); n > 0 {
		c.h.Set("x-amz-tagging-count", strconv.Itoa(n))
	}
	if o.Lock.Mode != "" {
		c.h.Set("x-amz-object-lock-mode", o.Lock.Mode)
		c.h.Set("x-amz-object-lock-retain-until-date", stamp(o.Lock.Until))
	}
	if o.Lock.Hold {
		c.h.Set("x-amz-object-lock-legal-hold", "ON")
	}
	c.setExpiration(o)
	c.setEncryption()
}

// headerText writes a value as headers can have it (RFC 2047 where it is no ASCII).
func headerText(v string) string {
	for i := range len(v) {
		if v[i] < ' ' && v[i] != '\t' || v[i] == 0x7f {
			return mime.BEncoding.Encode("UTF-8", v)
		}
	}
	return v
}

// stream answers with a part of an object.
func (c *call) stream(status int, o objects.Object, s span) error {
	if s.n == 0 {
		c.head(status)
		return nil
	}
	if o.Size <= smallObject {
		all, err := c.b.Read(c.ctx, o, smallObject)
		if err != nil {
			return err
		}
		c.head(status)
		_, err = c.writer().Write(all[s.start : s.start+s.n])
		if err != nil {
			return http.ErrAbortHandler
		}
		return nil
	}
	r, err := c.b.Open(c.ctx, o)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.Seek(s.start, io.SeekStart); err != nil {
		return err
	}
	// Nothing is said before there is something to send.
	first := make([]byte, min(s.n, smallObject))
	if _, err := io.ReadFull(r, first); err != nil {
		return err
	}
	c.head(status)
	w := c.writer()
	if _, err := w.Write(first); err != nil {
		return http.ErrAbortHandler
	}
	if _, err := r.CopyN(w, s.n-int64(len(first))); err != nil {
		if c.ctx.Err() == nil {
			c.d.o.Log.Warn("read object", "bucket", c.bucket, "key", c.key, "err", err)
		}
		return http.ErrAbortHandler
	}
	return nil
}

// writer is where the answer goes. A client that takes nothing fails.
func (c *call) writer() io.Writer {
	if c.d.o.Clock != clock.System {
		return onlyWriter{c.w}
	}
	return &impatientWriter{c.w, http.NewResponseController(c.w), c.d.o.Clock}
}

type onlyWriter struct{ io.Writer }

type impatientWriter struct {
	io.Writer
	c     *http.ResponseController
	clock clock.Clock
}

func (w *impatientWriter) Write(p []byte) (int, error) {
	_ = w.c.SetWriteDeadline(w.clock.Now().Add(patience))
	n, err := w.Writer.Write(p)
	_ = w.c.SetWriteDeadline(time.Time{})
	return n, err
}

// attributes are those that GetObjectAttributes can be asked for.
var attributes = []string{"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}

func (c *call) getAttributes() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	var want []string
	for _, line := range c.r.Header.Values("X-Amz-Object-Attributes") {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				want = append(want, name)
			}
		}
	}
	if len(want) == 0 {
		return badRequest("The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty")
	}
	for _, name := range want {
		if !slices.Contains(attributes, name) {
			return badArgument("x-amz-object-attributes", name, "Invalid attribute name specified.")
		}
	}
	limit, after, err := c.partsPage()
	if err != nil {
		return err
	}
	o, err := c.b.Head(c.ctx, c.key, version)
	if err != nil {
		return c.readError(o, err, version)
	}
	if err := readConditions(c.r.Header, "").check(o); err != nil {
		return err
	}
	c.setVersion(o.Version)
	c.h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	d := newDocument("GetObjectAttributesResponse")
	for _, name := range attributes {
		if !slices.Contains(want, name) {
			continue
		}
		switch name {
		case "ETag":
			d.put(name, o.ETag)
		case "Checksum":
			if o.Checksum.Algorithm != "" {
				d.in(name)
				checksumElement(d, o.Checksum, o.Parts)
				d.out()
			}
		case "ObjectParts":
			c.parts(d, o, after, limit)
		case "StorageClass":
			d.put(name, storageClass(o.Meta))
		case "ObjectSize":
			d.number(name, o.Size)
		}
	}
	return c.reply(d)
}

// partsPage reads which parts are asked for.
func (c *call) partsPage() (limit, after int, err error) {
	limit, after = objects.MaxPage, 0
	for name, into := range map[string]*int{"X-Amz-Max-Parts": &limit, "X-Amz-Part-Number-Marker": &after} {
		text := c.r.Header.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, 0, badArgument(strings.ToLower(name), text, "Provided %s not an integer or within integer range", strings.ToLower(name))
		}
		*into = n
	}
	return min(limit, objects.MaxPage), after, nil
}

func (c *call) parts(d *document, o objects.Object, after, limit int) {
	parts := c.b.PartsOf(o)
	if len(parts) == 0 {
		return
	}
	d.in("ObjectParts")
	defer d.out()
	d.number("PartsCount", int64(len(parts)))
	if o.Checksum.Algorithm != "" && !slices.ContainsFunc(parts, func(p objects.PartInfo) bool { return p.Checksum != nil }) {
		return
	}
	d.number("PartNumberMarker", int64(after))
	shown := 0
	last := after
	more := false
	for i, p := range parts {
		number := i + 1
		if number <= after {
			continue
		}
		if shown == limit {
			more = true
			break
		}
		shown, last = shown+1, number
		d.in("Part")
		d.number("PartNumber", int64(number))
		d.number("Size", p.Size)
		if p.Checksum != nil {
			d.put(element(o.Checksum.Algorithm), base64.StdEncoding.EncodeToString(p.Checksum))
		}
		d.out()
	}
	d.number("NextPartNumberMarker", int64(last))
	d.number("MaxParts", int64(limit))
	d.truth("IsTruncated", more)
}
