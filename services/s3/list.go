package s3

import (
	"encoding/base64"
	"errors"
	"net/url"
	"strings"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// encoder returns how keys are written: as they are, or as in a URL.
func (c *call) encoder() (func(string) string, error) {
	switch kind := c.query.Get("encoding-type"); kind {
	case "":
		return func(s string) string { return s }, nil
	case "url":
		return encodeKey, nil
	default:
		return nil, badArgument("encoding-type", kind, "Invalid Encoding Method specified in Request")
	}
}

var keyEncoding = strings.NewReplacer("%2F", "/", "%2A", "*", "+", "%20")

// encodeKey writes a key as it is in a URL, with slashes and stars as they are.
func encodeKey(key string) string { return keyEncoding.Replace(url.QueryEscape(key)) }

// page reads what all lists have in common.
func (c *call) page(limitName string) (o objects.ListOptions, encode func(string) string, err error) {
	if encode, err = c.encoder(); err != nil {
		return o, nil, err
	}
	o = objects.ListOptions{Prefix: c.query.Get("prefix"), Delimiter: c.query.Get("delimiter")}
	o.Limit, err = c.count(limitName, objects.MaxPage, 0, objects.MaxPage)
	return o, encode, err
}

// list is a page of objects. The store takes 0 for its own limit.
func (c *call) list(o objects.ListOptions, f func(objects.ListOptions) (objects.Page, error)) (objects.Page, error) {
	if o.Limit == 0 {
		return objects.Page{}, nil
	}
	return f(o)
}

func (c *call) objectsPage(o objects.ListOptions) (objects.Page, error) { return c.b.List(c.ctx, o) }

func (c *call) listV1() error {
	o, encode, err := c.page("max-keys")
	if err != nil {
		return err
	}
	o.After = c.query.Get("marker")
	p, err := c.list(o, c.objectsPage)
	if err != nil {
		return err
	}
	d := newDocument("ListBucketResult")
	d.put("Name", c.bucket)
	d.put("Prefix", encode(o.Prefix))
	d.put("Marker", encode(o.After))
	d.number("MaxKeys", int64(o.Limit))
	d.some("Delimiter", encode(o.Delimiter))
	d.some("EncodingType", c.query.Get("encoding-type"))
	d.truth("IsTruncated", p.More)
	if p.More && o.Delimiter != "" {
		d.put("NextMarker", encode(p.Next))
	}
	c.contents(d, p, encode, true)
	return c.reply(d)
}

func (c *call) listV2() error {
	if kind := c.query.Get("list-type"); kind != "2" {
		return badArgument("list-type", kind, "Invalid List Type specified in Request")
	}
	o, encode, err := c.page("max-keys")
	if err != nil {
		return err
	}
	o.After = c.query.Get("start-after")
	token := c.query.Get("continuation-token")
	if token != "" {
		after, err := base64.URLEncoding.DecodeString(token)
		if err != nil {
			return badArgument("continuation-token", token, "The continuation token provided is incorrect")
		}
		o.After = string(after)
	}
	p, err := c.list(o, c.objectsPage)
	if err != nil {
		return err
	}
	d := newDocument("ListBucketResult")
	d.put("Name", c.bucket)
	d.put("Prefix", encode(o.Prefix))
	d.some("StartAfter", encode(c.query.Get("start-after")))
	if c.query.Has("continuation-token") {
		d.put("ContinuationToken", token)
	}
	d.number("KeyCount", int64(len(p.Objects)+len(p.Prefixes)))
	d.number("MaxKeys", int64(o.Limit))
	d.some("Delimiter", encode(o.Delimiter))
	d.some("EncodingType", c.query.Get("encoding-type"))
	d.truth("IsTruncated", p.More)
	if p.More {
		d.put("NextContinuationToken", base64.URLEncoding.EncodeToString([]byte(p.Next)))
	}
	c.contents(d, p, encode, c.query.Get("fetch-owner") == "true")
	return c.reply(d)
}

// contents writes the objects and prefixes of a page.
func (c *call) contents(d *document, p objects.Page, encode func(string) string, owner bool) {
	for i := range p.Objects {
		o := &p.Objects[i]
		d.in("Contents")
		d.put("Key", encode(o.Key))
		d.time("LastModified", o.Modified)
		d.etag("ETag", o.ETag)
		if o.Checksum.Algorithm != "" {
			d.put("ChecksumAlgorithm", o.Checksum.Algorithm)
			d.put("ChecksumType", checksumType(o.Checksum.Composite))
		}
		d.number("Size", o.Size)
		if owner {
			d.owner("Owner", c.owner)
		}
		d.put("StorageClass", storageClass(o.Meta))
		d.out()
	}
	prefixes(d, p.Prefixes, encode)
}

func prefixes(d *document, list []string, encode func(string) string) {
	for _, p := range list {
		d.in("CommonPrefixes")
		d.put("Prefix", encode(p))
		d.out()
	}
}

func storageClass(m objects.Meta) string {
	if m.StorageClass == "" {
		return "STANDARD"
	}
	return m.StorageClass
}

func (c *call) listVersions() error {
	o, encode, err := c.page("max-keys")
	if err != nil {
		return err
	}
	o.After, o.AfterVersion = c.query.Get("key-marker"), c.query.Get("version-id-marker")
	if c.query.Has("version-id-marker") && o.After == "" {
		return badArgument("version-id-marker", o.AfterVersion, "A version-id marker cannot be specified without a key marker.")
	}
	p, err := c.list(o, func(o objects.ListOptions) (objects.Page, error) { return c.b.ListVersions(c.ctx, o) })
	if err != nil {
		return err
	}
	d := newDocument("ListVersionsResult")
	d.put("Name", c.bucket)
	d.put("Prefix", encode(o.Prefix))
	d.put("KeyMarker", encode(o.After))
	d.put("VersionIdMarker", o.AfterVersion)
	d.number("MaxKeys", int64(o.Limit))
	d.some("Delimiter", encode(o.Delimiter))
	d.some("EncodingType", c.query.Get("encoding-type"))
	d.truth("IsTruncated", p.More)
	if p.More {
		d.put("NextKeyMarker", encode(p.Next))
		if n := len(p.Objects); n > 0 && p.Objects[n-1].Key == p.Next {
			d.put("NextVersionIdMarker", versionID(p.NextVersion))
		}
	}
	for i := range p.Objects {
		o := &p.Objects[i]
		if o.Marker {
			d.in("DeleteMarker")
		} else {
			d.in("Version")
		}
		d.put("Key", encode(o.Key))
		d.put("VersionId", versionID(o.Version))
		d.truth("IsLatest", o.Latest)
		d.time("LastModified", o.Modified)
		if !o.Marker {
			d.etag("ETag", o.ETag)
			if o.Checksum.Algorithm != "" {
				d.put("ChecksumAlgorithm", o.Checksum.Algorithm)
				d.put("ChecksumType", checksumType(o.Checksum.Composite))
			}
			d.number("Size", o.Size)
			d.put("StorageClass", storageClass(o.Meta))
		}
		d.owner("Owner", c.owner)
		d.out()
	}
	prefixes(d, p.Prefixes, encode)
	return c.reply(d)
}

// versionID is a version as a list has it.
func versionID(v string) string {
	if v == "" {
		return "null"
	}
	return v
}

func (c *call) listUploads() error {
	o, encode, err := c.page("max-uploads")
	if err != nil {
		return err
	}
	o.After = c.query.Get("key-marker")
	if o.After != "" {
		o.AfterUpload = c.query.Get("upload-id-marker") // says nothing without a key
	}
	var p objects.Uploads
	if o.Limit > 0 {
		p, err = c.b.ListUploads(c.ctx, o)
		if errors.Is(err, objects.ErrNoUpload) {
			return badArgument("upload-id-marker", o.AfterUpload, "Invalid uploadId marker")
		}
		if err != nil {
			return err
		}
	}
	d := newDocument("ListMultipartUploadsResult")
	d.put("Bucket", c.bucket)
	d.put("KeyMarker", encode(o.After))
	d.put("UploadIdMarker", c.query.Get("upload-id-marker"))
	d.put("Prefix", encode(o.Prefix))
	d.some("Delimiter", encode(o.Delimiter))
	d.some("EncodingType", c.query.Get("encoding-type"))
	d.number("MaxUploads", int64(o.Limit))
	d.truth("IsTruncated", p.More)
	if p.More {
		d.put("NextKeyMarker", encode(p.Next))
		d.put("NextUploadIdMarker", p.NextUpload)
	}
	for _, u := range p.Uploads {
		d.in("Upload")
		d.put("Key", encode(u.Key))
		d.put("UploadId", u.ID)
		d.owner("Initiator", c.initiator(u))
		d.owner("Owner", c.initiator(u))
		d.put("StorageClass", storageClass(u.Meta))
		d.time("Initiated", u.Created)
		if u.Algorithm != "" {
			d.put("ChecksumAlgorithm", u.Algorithm)
			d.put("ChecksumType", checksumType(u.Composite))
		}
		d.out()
	}
	prefixes(d, p.Prefixes, encode)
	return c.reply(d)
}

// initiator is the app that began an upload.
func (c *call) initiator(u objects.Upload) string {
	if u.By == "" {
		return c.owner
	}
	return c.d.o.App(u.By)
}
