package s3

import (
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/internal/sigv4"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

var storageClasses = []string{"", "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "OUTPOSTS", "EXPRESS_ONEZONE"}

const metaHeader = "X-Amz-Meta-"

// metaOf reads what headers say of an object.
func metaOf(h http.Header) (objects.Meta, error) {
	m := objects.Meta{
		ContentType: h.Get("Content-Type"), CacheControl: h.Get("Cache-Control"), ContentDisposition: h.Get("Content-Disposition"),
		ContentEncoding: contentEncoding(h.Values("Content-Encoding")), ContentLanguage: h.Get("Content-Language"), Expires: h.Get("Expires"),
		WebsiteRedirect: h.Get("X-Amz-Website-Redirect-Location"), StorageClass: h.Get("X-Amz-Storage-Class"),
	}
	if !slices.Contains(storageClasses, m.StorageClass) {
		return m, fail("InvalidStorageClass").with("StorageClassRequested", m.StorageClass)
	}
	if r := m.WebsiteRedirect; r != "" && !strings.HasPrefix(r, "/") && !strings.HasPrefix(r, "http://") && !strings.HasPrefix(r, "https://") {
		return m, fail("InvalidRedirectLocation")
	}
	size := 0
	for name, values := range h {
		if len(name) <= len(metaHeader) || !strings.EqualFold(name[:len(metaHeader)], metaHeader) {
			continue
		}
		if m.User == nil {
			m.User = map[string]string{}
		}
		name = strings.ToLower(name[len(metaHeader):])
		value := strings.Join(values, ",")
		if plain, err := new(mime.WordDecoder).DecodeHeader(value); err == nil && strings.HasPrefix(value, "=?") {
			value = plain
		}
		m.User[name] = value
		size += len(name) + len(value)
	}
	if size > maxMetadata {
		return m, fail("MetadataTooLarge").with("Size", strconv.Itoa(size)).with("MaxSizeAllowed", strconv.Itoa(maxMetadata))
	}
	return m, nil
}

// contentEncoding is an encoding without that of the request's body.
func contentEncoding(values []string) string {
	var out []string
	for _, line := range values {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.TrimSpace(part); part != "" && part != "aws-chunked" {
				out = append(out, part)
			}
		}
	}
	return strings.Join(out, ", ")
}

// noEncryption refuses encryption that there is not. All is encrypted on the disk
// anyway, which is what AES256 asks for.
func noEncryption(h http.Header) error {
	switch kind := h.Get("X-Amz-Server-Side-Encryption"); {
	case h.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != "" || h.Get("X-Amz-Server-Side-Encryption-Customer-Key") != "":
		return notImplemented("Encryption with keys of clients is not implemented")
	case h.Get("X-Amz-Copy-Source-Server-Side-Encryption-Customer-Algorithm") != "":
		return notImplemented("Encryption with keys of clients is not implemented")
	case kind == "aws:kms" || kind == "aws:kms:dsse":
		return notImplemented("Encryption with keys of KMS is not implemented")
	case kind != "" && kind != "AES256":
		return badArgument("x-amz-server-side-encryption", kind, "The encryption method specified is not supported")
	case h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id") != "":
		return badRequest("Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms")
	}
	return nil
}

// setEncryption says how an object is encrypted, to those who asked.
func (c *call) setEncryption() {
	if c.r.Header.Get("X-Amz-Server-Side-Encryption") == "AES256" {
		c.h.Set("x-amz-server-side-encryption", "AES256")
		return
	}
	if _, err := c.b.Config(c.ctx, "encryption"); err == nil {
		c.h.Set("x-amz-server-side-encryption", "AES256")
	}
}

// putOptions reads from headers what a new object is to be, but for its bytes.
func (c *call) putOptions() (o objects.PutOptions, err error) {
	h := c.r.Header
	if err = noEncryption(h); err != nil {
		return o, err
	}
	if o.Meta, err = metaOf(h); err != nil {
		return o, err
	}
	if o.Tags, err = parseTagHeader(h.Get("X-Amz-Tagging")); err != nil {
		return o, err
	}
	if o.ACL, err = c.headerACL(h, c.owner); err != nil {
		return o, err
	}
	if o.ACL != "" || h.Get("X-Amz-Acl") != "" {
		if err = c.checkACL(c.ctx, o.ACL); err != nil {
			return o, err
		}
		if !c.owners(o.ACL) {
			if err = c.maybe("PutObjectAcl"); err != nil {
				return o, err
			}
		}
	}
	if o.ACL, err = c.writersACL(o.ACL); err != nil {
		return o, err
	}
	if o.Lock, err = c.lockOf(h); err != nil {
		return o, err
	}
	if len(o.Tags) > 0 {
		if err = c.maybe("PutObjectTagging"); err != nil {
			return o, err
		}
	}
	o.By = c.who.key
	o.If, err = writeConditions(h)
	return o, err
}

// maybe refuses what a policy says no to, although the operation itself is allowed.
func (c *call) maybe(action string) error {
	a := ask{bucket: c.b, owner: c.owner, action: action, key: c.key, write: true, onBucket: write}
	return c.may(a)
}

// checkLength refuses a body of no known length, or of too much.
func (c *call) checkLength() error {
	switch {
	case c.body.Length > maxPut:
		return fail("EntityTooLarge").with("ProposedSize", strconv.FormatInt(c.body.Length, 10)).with("MaxSizeAllowed", strconv.Itoa(maxPut))
	case c.body.Length <= 0 && c.r.Header.Get("Content-Length") == "" && len(c.r.TransferEncoding) == 0 && c.r.ProtoMajor < 2:
		return fail("MissingContentLength")
	}
	return nil
}

// finish returns what a body has to go through before it is an object.
func (c *call) finish(d *digest) func(objects.Read) (objects.Checksum, error) {
	signed := c.body.TakeSum()
	return func(r objects.Read) (objects.Checksum, error) {
		if r.Size > maxPut {
			return objects.Checksum{}, fail("EntityTooLarge")
		}
		if signed != "" {
			if sum := r.SHA256(); hex.EncodeToString(sum[:]) != signed {
				return objects.Checksum{}, sigv4.ErrSum
			}
		}
		return d.check(r.MD5, c.body.Trailer)
	}
}

func (c *call) putObject() error {
	if c.query.Has("partNumber") || c.query.Has("uploadId") {
		return badRequest("Both partNumber and uploadId are needed")
	}
	if err := c.checkLength(); err != nil {
		return err
	}
	d, err := digestOf(c.r.Header)
	if err != nil {
		return err
	}
	o, err := c.putOptions()
	if err != nil {
		return err
	}
	if (o.Lock.Mode != "" || o.Lock.Hold) && d.md5 == nil && d.algo == nil && c.body.Length > 0 && !c.bodySigned() {
		return badRequest("Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters")
	}
	o.Finish = c.finish(d)
	put, err := c.b.Put(c.ctx, c.key, &hashed{c.body, d.hash}, o)
	if err != nil {
		return c.putError(err)
	}
	c.setPut(put)
	c.setExpiration(put)
	return c.done(http.StatusOK)
}

// bodySigned reports whether the hash of the body was signed.
func (c *call) bodySigned() bool { return len(c.r.Header.Get("X-Amz-Content-Sha256")) == 64 }

// putError says why an object can't be put.
func (c *call) putError(err error) error {
	if _, ok := told(err); ok {
		return c.versionError(err, "")
	}
	if c.ctx.Err() != nil {
		return fail("RequestTimeout")
	}
	return err
}

// setPut says in headers what was put.
func (c *call) setPut(o objects.Object) {
	c.setETag(o)
	c.setPutVersion(o.Version)
	setChecksum(c.h, o.Checksum, o.Parts)
	c.h.Set("x-amz-object-size", strconv.FormatInt(o.Size, 10))
	c.setEncryption()
}

// A source is what is copied.
type source struct {
	bucket, key, version string
}

// parseSource reads x-amz-copy-source: /bucket/key?versionId=….
func parseSource(text string) (source, error) {
	bad := badArgument("x-amz-copy-source", text, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	path, query, hasQuery := strings.Cut(text, "?versionId=")
	for _, mark := range []string{"%3FVERSIONID=", "%3FVERSIONID%3D"} { // as some clients write it
		if at := strings.Index(strings.ToUpper(text), mark); !hasQuery && at >= 0 {
			path, query, hasQuery = text[:at], text[at+len(mark):], true
		}
	}
	var s source
	if hasQuery {
		v, err := url.QueryUnescape(query)
		if err != nil || v == "" {
			return s, badArgument("x-amz-copy-source", text, "Version id cannot be the empty string")
		}
		s.version = v
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return s, badArgument("x-amz-copy-source", text, "Invalid copy source encoding")
	}
	var ok bool
	s.bucket, s.key, ok = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || s.bucket == "" || s.key == "" {
		return s, bad
	}
	return s, nil
}

// openSource finds what is to be copied, if the caller may read it. The bucket must
// be closed.
func (c *call) openSource() (*objects.Bucket, objects.Object, source, error) {
	s, err := parseSource(c.r.Header.Get("X-Amz-Copy-Source"))
	if err != nil {
		return nil, objects.Object{}, s, err
	}
	b, owner, err := c.d.find(c.ctx, c.who, s.bucket)
	if err != nil {
		return nil, objects.Object{}, s, bucketError(err, s.bucket)
	}
	o, err := c.headSource(b, owner, s)
	if err != nil {
		return nil, o, s, closed(b, err)
	}
	return b, o, s, nil
}

// closed closes a bucket that is needed no more because of err.
func closed(b *objects.Bucket, err error) error {
	if also := b.Close(); also != nil {
		return fmt.Errorf("%w (and %v)", err, also)
	}
	return err
}

func (c *call) headSource(b *objects.Bucket, owner string, s source) (objects.Object, error) {
	if err := c.may(ask{bucket: b, owner: owner, action: "GetObject", key: s.key, version: s.version, onObject: read}); err != nil {
		return objects.Object{}, err
	}
	if want := c.r.Header.Get("X-Amz-Source-Expected-Bucket-Owner"); want != "" && want != canonicalID(owner) && want != account && want != owner {
		return objects.Object{}, fail("AccessDenied")
	}
	if err := checkVersion(s.version); err != nil {
		return objects.Object{}, err
	}
	o, err := b.Head(c.ctx, s.key, s.version)
	if o.Marker && s.version != "" {
		return o, badRequest("The source of a copy request may not specifically refer to a delete marker by version id.")
	}
	if err != nil {
		return o, (&call{address: address{key: s.key}}).versionError(err, s.version)
	}
	if err := readConditions(c.r.Header, "X-Amz-Copy-Source-").check(o); err != nil {
		return o, fail("PreconditionFailed")
	}
	if o.Version != "" {
		c.h.Set("x-amz-copy-source-version-id", o.Version)
	}
	return o, nil
}

// directive reads COPY or REPLACE.
func (c *call) directive(name string) (replace bool, err error) {
	switch v := c.r.Header.Get(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, badArgument(strings.ToLower(name), v, "Unknown %s directive.", strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(name), "x-amz-"), "-directive"))
	}
}

func (c *call) copyObject() error {
	if c.who.anonymous {
		return failf("AccessDenied", "Anonymous users cannot copy objects. Please authenticate.")
	}
	meta, err := c.directive("X-Amz-Metadata-Directive")
	if err != nil {
		return err
	}
	tags, err := c.directive("X-Amz-Tagging-Directive")
	if err != nil {
		return err
	}
	var a *algorithm
	if name := c.r.Header.Get("X-Amz-Checksum-Algorithm"); name != "" {
		if a = byName(name); a == nil {
			return badAlgorithm()
		}
	}
	o, err := c.putOptions()
	if err != nil {
		return err
	}
	from, src, s, err := c.openSource()
	if err != nil {
		return err
	}
	defer from.Close()
	if !meta {
		if s.bucket == c.bucket && s.key == c.key && s.version == "" && o.Meta.StorageClass == "" && o.Meta.WebsiteRedirect == "" && a == nil && c.r.Header.Get("X-Amz-Server-Side-Encryption") == "" && !tags {
			return badRequest("This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
		}
		class, redirect := o.Meta.StorageClass, o.Meta.WebsiteRedirect
		o.Meta = src.Meta
		o.Meta.StorageClass, o.Meta.WebsiteRedirect = class, redirect
	}
	if !tags {
		o.Tags = src.Tags
	}
	if a != nil && (a.name != src.Checksum.Algorithm || src.Checksum.Composite) {
		sum, err := c.checksumOf(from, src, a)
		if err != nil {
			return err
		}
		o.Finish = func(objects.Read) (objects.Checksum, error) { return sum, nil }
	}
	put, err := c.b.Copy(c.ctx, c.key, from, src, o)
	if err != nil {
		return c.putError(err)
	}
	c.setPutVersion(put.Version)
	c.setEncryption()
	d := newDocument("CopyObjectResult")
	d.time("LastModified", put.Modified)
	d.etag("ETag", put.ETag)
	checksumElement(d, put.Checksum, put.Parts)
	return c.reply(d)
}

func checksumElement(d *document, sum objects.Checksum, parts int) {
	if sum.Algorithm != "" {
		d.put(element(sum.Algorithm), checksumText(sum, parts))
		d.put("ChecksumType", checksumType(sum.Composite))
	}
}

// checksumOf reads an object for a checksum that it has not.
func (c *call) checksumOf(b *objects.Bucket, o objects.Object, a *algorithm) (objects.Checksum, error) {
	r, err := b.Open(c.ctx, o)
	if err != nil {
		return objects.Checksum{}, err
	}
	defer r.Close()
	h := a.new()
	if _, err := r.WriteTo(h); err != nil {
		return objects.Checksum{}, err
	}
	return objects.Checksum{Algorithm: a.name, Value: h.Sum(nil)}, nil
}
