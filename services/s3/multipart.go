package s3

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

func (c *call) createUpload() error {
	if c.who.anonymous {
		return failf("AccessDenied", "Anonymous users cannot initiate multipart uploads. Please authenticate.")
	}
	p, err := c.putOptions()
	if err != nil {
		return err
	}
	o := objects.UploadOptions{Meta: p.Meta, Tags: p.Tags, Lock: p.Lock, ACL: p.ACL, By: p.By}
	if err := readAlgorithm(c.r.Header, &o); err != nil {
		return err
	}
	u, err := c.b.CreateUpload(c.ctx, c.key, o)
	if err != nil {
		return c.putError(err)
	}
	if o.Algorithm != "" {
		c.h.Set("x-amz-checksum-algorithm", o.Algorithm)
		c.h.Set("x-amz-checksum-type", checksumType(o.Composite))
	}
	c.setEncryption()
	d := newDocument("InitiateMultipartUploadResult")
	d.put("Bucket", c.bucket)
	d.put("Key", c.key)
	d.put("UploadId", u.ID)
	return c.reply(d)
}

// readAlgorithm reads which checksum an object of parts is to have.
func readAlgorithm(h http.Header, o *objects.UploadOptions) error {
	name, kind := h.Get("X-Amz-Checksum-Algorithm"), strings.ToUpper(h.Get("X-Amz-Checksum-Type"))
	if kind != "" && kind != "COMPOSITE" && kind != "FULL_OBJECT" {
		return badRequest("Value for x-amz-checksum-type header is invalid.")
	}
	if name == "" {
		if kind != "" {
			return badRequest("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return nil
	}
	a := byName(name)
	if a == nil {
		return badAlgorithm()
	}
	o.Algorithm = a.name
	switch kind {
	case "":
		o.Composite = a.composite
	default:
		o.Composite = kind == "COMPOSITE"
		if o.Composite && !a.composite || !o.Composite && !a.full {
			return badRequest("The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(a.name))
		}
	}
	return nil
}

// part reads the number of a part.
func (c *call) part() (int, error) {
	text := c.query.Get("partNumber")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > objects.MaxPart {
		return 0, badArgument("partNumber", text, "Part number must be an integer between 1 and 10000, inclusive.")
	}
	return n, nil
}

// upload returns the upload that is asked for.
func (c *call) upload() (objects.Upload, error) {
	id := c.query.Get("uploadId")
	u, err := c.b.Upload(c.ctx, c.key, id)
	if errors.Is(err, objects.ErrNoUpload) {
		return u, fail("NoSuchUpload").with("UploadId", id)
	}
	return u, err
}

func (c *call) putPart() error {
	n, err := c.part()
	if err != nil {
		return err
	}
	if err := c.checkLength(); err != nil {
		return err
	}
	d, err := digestOf(c.r.Header)
	if err != nil {
		return err
	}
	if err := noEncryption(c.r.Header); err != nil {
		return err
	}
	u, err := c.upload()
	if err != nil {
		return err
	}
	if err := d.forUpload(u); err != nil {
		return err
	}
	p, err := c.b.PutPart(c.ctx, c.key, u.ID, n, &hashed{c.body, d.hash}, c.finish(d))
	if err != nil {
		return c.putError(err)
	}
	c.h["ETag"] = []string{quote(p.ETag)}
	if p.Checksum.Algorithm != "" {
		c.h.Set(checksumHeader+strings.ToLower(p.Checksum.Algorithm), checksumText(p.Checksum, 0))
	}
	c.setEncryption()
	return c.done(http.StatusOK)
}

// forUpload makes the checksum of a part that of its upload.
func (d *digest) forUpload(u objects.Upload) error {
	if u.Algorithm == "" {
		return nil
	}
	if d.algo != nil && d.algo.name != u.Algorithm {
		return badRequest("Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", u.Algorithm, d.algo.name)
	}
	if d.algo == nil {
		if u.Composite {
			return badRequest("Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: null", u.Algorithm)
		}
		if d.algo = byName(u.Algorithm); d.algo != nil {
			d.hash = d.algo.new()
		}
	}
	return nil
}

func (c *call) copyPart() error {
	if c.who.anonymous {
		return failf("AccessDenied", "Anonymous users cannot copy objects. Please authenticate.")
	}
	n, err := c.part()
	if err != nil {
		return err
	}
	if err := noEncryption(c.r.Header); err != nil {
		return err
	}
	from, src, _, err := c.openSource()
	if err != nil {
		return err
	}
	defer from.Close()
	s := span{0, src.Size}
	if text := c.r.Header.Get("X-Amz-Copy-Source-Range"); text != "" {
		if s, err = copyRange(text, src.Size); err != nil {
			return err
		}
	}
	u, err := c.upload()
	if err != nil {
		return err
	}
	p, err := c.copyInto(u, n, from, src, s)
	if err != nil {
		return c.putError(err)
	}
	d := newDocument("CopyPartResult")
	d.time("LastModified", p.Modified)
	d.etag("ETag", p.ETag)
	if p.Checksum.Algorithm != "" {
		d.put(element(p.Checksum.Algorithm), checksumText(p.Checksum, 0))
	}
	return c.reply(d)
}

// copyInto makes a part of a span of an object. Where the upload wants checksums, it
// is read for that.
func (c *call) copyInto(u objects.Upload, n int, from *objects.Bucket, src objects.Object, s span) (objects.Part, error) {
	a := byName(u.Algorithm)
	if a == nil {
		return c.b.CopyPart(c.ctx, c.key, u.ID, n, from, src, s.start, s.n)
	}
	r, err := from.Open(c.ctx, src)
	if err != nil {
		return objects.Part{}, err
	}
	defer r.Close()
	if _, err := r.Seek(s.start, io.SeekStart); err != nil {
		return objects.Part{}, err
	}
	h := a.new()
	return c.b.PutPart(c.ctx, c.key, u.ID, n, io.TeeReader(io.LimitReader(r, s.n), h), func(objects.Read) (objects.Checksum, error) {
		return objects.Checksum{Algorithm: a.name, Value: h.Sum(nil)}, nil
	})
}

func (c *call) listParts() error {
	limit, err := c.count("max-parts", objects.MaxPage, 0, objects.MaxPage)
	if err != nil {
		return err
	}
	after, err := c.count("part-number-marker", 0, 0, 1<<31-1)
	if err != nil {
		return err
	}
	encode, err := c.encoder()
	if err != nil {
		return err
	}
	u, err := c.upload()
	if err != nil {
		return err
	}
	var parts []objects.Part
	more := false
	if limit > 0 {
		if parts, more, err = c.b.Parts(c.ctx, c.key, u.ID, after, limit); err != nil {
			return err
		}
	}
	d := newDocument("ListPartsResult")
	d.put("Bucket", c.bucket)
	d.put("Key", encode(c.key))
	d.put("UploadId", u.ID)
	d.owner("Initiator", c.initiator(u))
	d.owner("Owner", c.owner)
	d.put("StorageClass", storageClass(u.Meta))
	d.number("PartNumberMarker", int64(after))
	if len(parts) > 0 {
		after = parts[len(parts)-1].Number
	}
	if more {
		d.number("NextPartNumberMarker", int64(after))
	}
	d.number("MaxParts", int64(limit))
	d.truth("IsTruncated", more)
	if u.Algorithm != "" {
		d.put("ChecksumAlgorithm", u.Algorithm)
		d.put("ChecksumType", checksumType(u.Composite))
	}
	for _, p := range parts {
		d.in("Part")
		d.number("PartNumber", int64(p.Number))
		d.time("LastModified", p.Modified)
		d.etag("ETag", p.ETag)
		d.number("Size", p.Size)
		if p.Checksum.Algorithm != "" {
			d.put(element(p.Checksum.Algorithm), checksumText(p.Checksum, 0))
		}
		d.out()
	}
	return c.reply(d)
}

// xmlPart is a part that an object is to be made of.
type xmlPart struct {
	PartNumber        *int
	ETag              string
	ChecksumCRC32     string
	ChecksumCRC32C    string
	ChecksumCRC64NVME string
	ChecksumSHA1      string
	ChecksumSHA256    string
	ChecksumSHA512    string
	ChecksumMD5       string
	ChecksumXXHASH64  string
	ChecksumXXHASH3   string
	ChecksumXXHASH128 string
}

// checksum returns the one that the part was said to have.
func (p xmlPart) checksum() (a *algorithm, sum []byte, err error) {
	texts := []string{p.ChecksumCRC32, p.ChecksumCRC32C, p.ChecksumCRC64NVME, p.ChecksumSHA1, p.ChecksumSHA256, p.ChecksumSHA512, p.ChecksumMD5,
		p.ChecksumXXHASH64, p.ChecksumXXHASH3, p.ChecksumXXHASH128}
	all, last, ok := "", "", true
	for i, text := range texts {
		if text == "" {
			continue
		}
		ok = ok && a == nil
		a, last = &algorithms[i], text
		all += a.name + ":" + text + ";"
	}
	if a == nil {
		return nil, nil, nil
	}
	if ok {
		all = last
		sum, ok = a.parse(last)
	}
	if !ok {
		return nil, nil, badArgument("Checksum", all, "Invalid Base64 or multiple checksums present in request")
	}
	return a, sum, nil
}

func (c *call) completeUpload() error {
	var in struct{ Part []xmlPart }
	// Its checksum headers are of the object, not of the body.
	sums := c.r.Header.Clone()
	for i := range algorithms {
		c.r.Header.Del(algorithms[i].header())
	}
	c.r.Header.Del("X-Amz-Sdk-Checksum-Algorithm")
	body, err := c.text(maxBody)
	if err != nil {
		return err
	}
	if err := decode(body, "CompleteMultipartUpload", &in); err != nil {
		return err
	}
	if len(in.Part) == 0 || len(in.Part) > objects.MaxPart {
		return fail("MalformedXML")
	}
	u, err := c.upload()
	if err != nil && !errors.Is(err, objects.ErrNoUpload) && !isCode(err, "NoSuchUpload") {
		return err
	}
	o := objects.CompleteOptions{By: c.who.key}
	u.ID = c.query.Get("uploadId")
	if o.If, err = writeConditions(c.r.Header); err != nil {
		return err
	}
	if err := c.completeChecksum(u, sums, &o); err != nil {
		return err
	}
	list, err := completeParts(in.Part, u)
	if err != nil {
		return err
	}
	put, err := c.b.Complete(c.ctx, c.key, u.ID, list, o)
	if errors.Is(err, objects.ErrNoUpload) {
		return fail("NoSuchUpload").with("UploadId", u.ID)
	}
	if err != nil {
		return c.putError(err)
	}
	c.setPutVersion(put.Version)
	c.setExpiration(put)
	c.setEncryption()
	d := newDocument("CompleteMultipartUploadResult")
	d.put("Location", c.location())
	d.put("Bucket", c.bucket)
	d.put("Key", c.key)
	d.etag("ETag", put.ETag)
	checksumElement(d, put.Checksum, put.Parts)
	return c.reply(d)
}

func isCode(err error, code string) bool {
	e := new(Error)
	return errors.As(err, &e) && e.Code == code
}

// location is the address of the object.
func (c *call) location() string {
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.r.Host + c.r.URL.EscapedPath()
}

func completeParts(in []xmlPart, u objects.Upload) ([]objects.CompletePart, error) {
	out := make([]objects.CompletePart, len(in))
	last := 0
	for i, p := range in {
		if p.PartNumber == nil || p.ETag == "" {
			return nil, fail("MalformedXML")
		}
		n := *p.PartNumber
		if n < 1 || n > objects.MaxPart {
			return nil, badArgument("PartNumber", strconv.Itoa(n), "PartNumber must be >= 1")
		}
		if n <= last {
			return nil, fail("InvalidPartOrder")
		}
		last = n
		out[i] = objects.CompletePart{Number: n, ETag: unquote(p.ETag)}
		a, sum, err := p.checksum()
		if err != nil {
			return nil, err
		}
		if a == nil {
			if u.Composite {
				return nil, badRequest("The upload was created using a %s checksum. The complete request must include the checksum for each part. It was missing for part %d in the request.", strings.ToLower(u.Algorithm), n)
			}
			continue
		}
		if u.Algorithm != "" && a.name != u.Algorithm {
			return nil, failf("BadDigest", "The %s you specified for part %d did not match what we received.", strings.ToLower(a.name), n)
		}
		if u.Algorithm != "" {
			out[i].Checksum = sum
		}
	}
	return out, nil
}

// completeChecksum says what checksum the whole gets, and what it has to be.
func (c *call) completeChecksum(u objects.Upload, h http.Header, o *objects.CompleteOptions) error {
	sums := 0
	for i := range algorithms {
		sums += len(h.Values(algorithms[i].header()))
	}
	if sums > 1 {
		return badRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
	}
	kind := h.Get("X-Amz-Checksum-Type")
	if kind != "" && !strings.EqualFold(kind, "COMPOSITE") && !strings.EqualFold(kind, "FULL_OBJECT") {
		return badRequest("Value for x-amz-checksum-type header is invalid.")
	}
	if kind != "" && u.Algorithm != "" && !strings.EqualFold(kind, checksumType(u.Composite)) {
		return badRequest("The upload was created using the %s checksum mode. The complete request must use the same checksum mode.", checksumType(u.Composite))
	}
	size := int64(-1)
	if text := h.Get("X-Amz-Mp-Object-Size"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return badRequest("Value for x-amz-mp-object-size header is invalid: '%.40s'", text)
		case n < 0:
			return badRequest("Value for x-amz-mp-object-size header is less than zero: '%d'", n)
		}
		size = n
	}
	a := byName(u.Algorithm)
	want := ""
	if a != nil {
		var count string
		var counted bool
		want, count, counted = strings.Cut(h.Get(a.header()), "-")
		_, ok := a.parse(want)
		if _, isNumber := number(count); want != "" && (!ok || counted && (!isNumber || !u.Composite)) {
			return badRequest("Value for %s header is invalid.", a.header())
		}
	}
	if a != nil && !u.Composite {
		o.Hash = a.new()
	}
	o.Finish = func(parts []objects.Part, got int64) (objects.Checksum, error) {
		if size >= 0 && size != got {
			return objects.Checksum{}, badRequest("The provided 'x-amz-mp-object-size' header value %d does not match what was computed: %d", size, got)
		}
		if a == nil {
			return objects.Checksum{}, nil
		}
		sum := objects.Checksum{Algorithm: a.name}
		if u.Composite {
			var ok bool
			if sum, ok = compositeOf(a, parts); !ok {
				return sum, badRequest("The upload was created using a %s checksum. The complete request must include the checksum for each part.", strings.ToLower(a.name))
			}
		} else {
			sum.Value = o.Hash.Sum(nil)
		}
		if want != "" && want != base64.StdEncoding.EncodeToString(sum.Value) {
			return sum, failf("BadDigest", "The %s you specified did not match the calculated checksum.", a.name)
		}
		return sum, nil
	}
	return nil
}

func (c *call) abortUpload() error {
	if text := c.r.Header.Get("X-Amz-If-Match-Initiated-Time"); text != "" {
		u, err := c.upload()
		if err != nil {
			return err
		}
		if at, ok := httpTime(text); !ok || at.Unix() != u.Created.Unix() && !at.After(c.d.o.Clock.Now()) {
			return fail("PreconditionFailed")
		}
	}
	id := c.query.Get("uploadId")
	err := c.b.Abort(c.ctx, c.key, id)
	if errors.Is(err, objects.ErrNoUpload) {
		return fail("NoSuchUpload").with("UploadId", id)
	}
	if err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}
