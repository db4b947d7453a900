package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/internal/sigv4"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// A call is a request that is being answered.
type call struct {
	d   *Door
	w   http.ResponseWriter
	r   *http.Request
	ctx context.Context
	h   http.Header // of the answer
	id  string

	address
	op    *operation
	query url.Values
	who   caller
	body  *sigv4.Body

	b     *objects.Bucket
	owner string // the app that b is of
	sent  bool   // the head of the answer
}

// operation is the name of what was asked for.
func (c *call) operation() string {
	if c.op == nil {
		return ""
	}
	return c.op.name
}

// serve does what is asked for.
func (c *call) serve() error {
	if size := headerSize(c.r.Header); size > maxHeaders {
		return fail("RequestHeaderSectionTooLarge").with("MaxSizeAllowed", strconv.Itoa(maxHeaders))
	}
	var err error
	if c.query, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return fail("InvalidURI").with("URI", c.r.URL.RawQuery)
	}
	c.address = locate(c.r.Host, c.r.URL.Path, c.d.o.Hosts)
	if !utf8.ValidString(c.key) || strings.Contains(c.bucket, "\x00") {
		return fail("InvalidURI").with("URI", c.r.URL.EscapedPath())
	}
	if len(c.key) > objects.MaxKey {
		return keyTooLong(c.key)
	}
	if c.r.Method == http.MethodOptions {
		return c.preflight()
	}
	if c.website {
		return c.serveWebsite()
	}
	c.op = route(c.r.Method, c.level(), c.query, c.r.Header)
	if c.op == nil {
		return fail("MethodNotAllowed").with("Method", c.r.Method).with("ResourceType", strings.ToUpper([]string{"service", "bucket", "object"}[c.level()]))
	}
	c.limitReading()
	if c.op.name == "PostObject" {
		return c.op.run(c) // its form says who it is
	}
	if err := c.authenticate(); err != nil {
		return err
	}
	switch c.op.name {
	case "ListBuckets", "CreateBucket":
		return c.op.run(c)
	}
	if err := c.openBucket(); err != nil {
		return err
	}
	c.allowOrigin()
	if err := c.authorize(); err != nil {
		return err
	}
	return c.op.run(c)
}

func keyTooLong(key string) *Error {
	return fail("KeyTooLongError").with("Size", strconv.Itoa(len(key))).with("MaxSizeAllowed", strconv.Itoa(objects.MaxKey))
}

func headerSize(h http.Header) (n int) {
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return n
}

// openBucket opens the bucket: that of the caller's app, or of another one.
func (c *call) openBucket() error {
	b, app, err := c.d.find(c.ctx, c.who, c.bucket)
	if err != nil {
		return bucketError(err, c.bucket)
	}
	c.b, c.owner = b, app
	if want := c.r.Header.Get("X-Amz-Expected-Bucket-Owner"); want != "" && want != canonicalID(app) && want != account && want != app {
		return fail("AccessDenied")
	}
	return nil
}

func bucketError(err error, name string) error {
	if errors.Is(err, objects.ErrNoBucket) {
		return fail("NoSuchBucket").with("BucketName", name)
	}
	return err
}

// find opens a bucket for somebody.
func (d *Door) find(ctx context.Context, who caller, name string) (*objects.Bucket, string, error) {
	if !who.anonymous {
		b, err := d.store.Open(ctx, who.app, name)
		if err == nil || !errors.Is(err, objects.ErrNoBucket) {
			return b, who.app, err
		}
	}
	apps, err := d.o.Apps(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, app := range apps {
		if !who.anonymous && app == who.app {
			continue
		}
		b, err := d.store.Open(ctx, app, name)
		if err == nil || !errors.Is(err, objects.ErrNoBucket) {
			return b, app, err
		}
	}
	return nil, "", objects.ErrNoBucket
}

// end gives back what the call holds.
func (c *call) end() {
	if c.b != nil {
		if err := c.b.Close(); err != nil {
			c.d.o.Log.Error("close bucket", "bucket", c.bucket, "err", err)
		}
	}
}

// limitReading makes a client that sends nothing fail. Where connections have no
// deadlines, clients may take as long as they like.
func (c *call) limitReading() {
	if c.d.o.Clock != clock.System || c.r.Body == nil || c.r.Body == http.NoBody {
		return
	}
	c.r.Body = &impatient{c.r.Body, http.NewResponseController(c.w), c.d.o.Clock}
}

// impatient is a body that has to come.
type impatient struct {
	io.ReadCloser
	c     *http.ResponseController
	clock clock.Clock
}

func (b *impatient) Read(p []byte) (int, error) {
	_ = b.c.SetReadDeadline(b.clock.Now().Add(patience))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.c.SetReadDeadline(time.Time{}) // or the next request would have it, too
	}
	return n, err
}

// text reads a body that is text, as the headers say it has to be.
func (c *call) text(limit int64) ([]byte, error) {
	if strings.HasPrefix(c.r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return nil, badRequest("The value of x-amz-content-sha256 header is invalid.")
	}
	d, err := digestOf(c.r.Header)
	if err != nil {
		return nil, err
	}
	if c.body.Length > limit {
		return nil, fail("MaxMessageLengthExceeded").with("MaxMessageLengthBytes", strconv.FormatInt(limit, 10))
	}
	b, err := io.ReadAll(io.LimitReader(&hashed{c.body, d.hash}, limit+1))
	if err != nil {
		return nil, bodyError(err)
	}
	if int64(len(b)) > limit {
		return nil, fail("MaxMessageLengthExceeded").with("MaxMessageLengthBytes", strconv.FormatInt(limit, 10))
	}
	_, err = d.check(md5.Sum(b), c.body.Trailer)
	return b, err
}

// bodyError says why a body could not be read.
func bodyError(err error) error {
	if _, ok := told(err); ok {
		return err
	}
	return fail("IncompleteBody")
}

// xml reads a body of XML.
func (c *call) xml(root string, into any) error {
	b, err := c.text(maxBody)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return fail("MissingRequestBodyError")
	}
	return decode(b, root, into)
}

// reply answers with a document.
func (c *call) reply(d *document) error {
	c.h.Set("Content-Type", "application/xml")
	return c.send(http.StatusOK, d.bytes())
}

// send answers with a body.
func (c *call) send(status int, body []byte) error {
	c.h.Set("Content-Length", strconv.Itoa(len(body)))
	c.head(status)
	if c.r.Method != http.MethodHead {
		c.w.Write(body)
	}
	return nil
}

// done answers with nothing.
func (c *call) done(status int) error {
	if status != http.StatusNoContent {
		c.h.Set("Content-Length", "0")
	}
	c.head(status)
	return nil
}

func (c *call) head(status int) {
	c.sent = true
	c.w.WriteHeader(status)
}

// fail answers with an error.
func (c *call) fail(e *Error) {
	if c.sent {
		panic(http.ErrAbortHandler)
	}
	for name, values := range e.Header {
		c.h[http.CanonicalHeaderKey(name)] = values
	}
	if e.Status == http.StatusNotModified {
		c.head(e.Status)
		return
	}
	c.drain()
	d := errorDocument(e, c.r.URL.Path, c.id)
	c.h.Set("Content-Type", "application/xml")
	for _, name := range []string{"ETag", "Last-Modified", "Content-Encoding", "Content-Disposition", "Content-Language", "Cache-Control", "Expires"} {
		c.h.Del(name)
	}
	if c.r.Method == http.MethodHead {
		c.h.Del("Content-Length")
		c.head(e.Status)
		return
	}
	_ = c.send(e.Status, d.bytes())
}

// drain reads what a client is still sending, for a while, so that it gets to read
// the answer. One that waits for it (Expect: 100-continue) sends nothing.
func (c *call) drain() {
	if c.r.Body == nil || c.r.Header.Get("Expect") != "" || c.d.o.Clock != clock.System {
		return
	}
	control := http.NewResponseController(c.w)
	_ = control.SetReadDeadline(c.d.o.Clock.Now().Add(drainTime))
	if b, ok := c.r.Body.(*impatient); ok {
		c.r.Body = b.ReadCloser
	}
	_, err := io.CopyN(io.Discard, c.r.Body, drainSize)
	if errors.Is(err, io.EOF) {
		_ = control.SetReadDeadline(time.Time{})
	}
}

func errorDocument(e *Error, resource, id string) *document {
	d := bare("Error")
	d.put("Code", e.Code)
	d.put("Message", e.Message)
	for _, x := range e.Extra {
		d.put(x[0], x[1])
	}
	d.put("Resource", resource)
	d.put("RequestId", id)
	d.put("HostId", id+id)
	return d
}

// noOperation is for what there is not.
func (c *call) noOperation() error {
	return notImplemented("%s is not implemented", c.op.name)
}

// setVersion says which version an answer is about.
func (c *call) setVersion(version string) {
	if version != "" {
		c.h.Set("x-amz-version-id", version)
	}
}

// setPutVersion is setVersion for what was put. The version that all objects have in a
// bucket whose versioning is suspended has no name worth telling.
func (c *call) setPutVersion(version string) {
	if version != objects.Null {
		c.setVersion(version)
	}
}

// version is the one that is asked for.
func (c *call) version() (string, error) {
	if c.query.Has("versionId") && c.query.Get("versionId") == "" {
		return "", badArgument("versionId", "", "Version id cannot be the empty string")
	}
	v := c.query.Get("versionId")
	return v, checkVersion(v)
}

// versionText is what version ids look like, those of other servers, too: such a one is
// of no object here, another is a mistake.
var versionText = regexp.MustCompile(`^[A-Za-z0-9._+/-]{20}[A-Za-z0-9._+/-]*$`)

// checkVersion refuses what can be no version.
func checkVersion(v string) error {
	if v != "" && v != objects.Null && !versionText.MatchString(v) {
		return badArgument("versionId", v, "Invalid version id specified")
	}
	return nil
}

// versionError says of what there is no version.
func (c *call) versionError(err error, version string) error {
	switch {
	case errors.Is(err, objects.ErrNoKey):
		return fail("NoSuchKey").with("Key", c.key)
	case errors.Is(err, objects.ErrNoVersion):
		return fail("NoSuchVersion").with("Key", c.key).with("VersionId", version)
	}
	return err
}
