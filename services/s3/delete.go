package s3

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// maxDeletes bounds what is deleted at once.
const maxDeletes = 1000

// bypass reports whether the caller goes past locks of mode governance, and may.
func (c *call) bypass(key, version string) (bool, error) {
	if !strings.EqualFold(c.r.Header.Get("X-Amz-Bypass-Governance-Retention"), "true") {
		return false, nil
	}
	return true, c.may(ask{bucket: c.b, owner: c.owner, action: "BypassGovernanceRetention", key: key, write: true})
}

func (c *call) deleteObject() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	o := objects.DeleteOptions{Version: version, By: c.who.key}
	if o.Bypass, err = c.bypass(c.key, version); err != nil {
		return err
	}
	if o.If, err = writeConditions(c.r.Header); err != nil {
		return err
	}
	if err := c.checkDelete(c.key, version, c.r.Header.Get("X-Amz-If-Match-Last-Modified-Time"), c.r.Header.Get("X-Amz-If-Match-Size")); err != nil {
		return err
	}
	gone, err := c.b.Delete(c.ctx, c.key, o)
	if errors.Is(err, objects.ErrNoVersion) {
		c.setVersion(version)
		return c.done(http.StatusNoContent) // what is gone is gone
	}
	if err != nil {
		return c.versionError(err, version)
	}
	c.setVersion(gone.Version)
	if gone.Marker {
		c.h.Set("x-amz-delete-marker", "true")
	}
	return c.done(http.StatusNoContent)
}

// checkDelete looks at conditions that are not about an ETag.
func (c *call) checkDelete(key, version, modified, size string) error {
	if modified == "" && size == "" {
		return nil
	}
	o, err := c.b.Head(c.ctx, key, version)
	if err != nil {
		if errors.Is(err, objects.ErrMarker) {
			return fail("PreconditionFailed")
		}
		return c.versionError(err, version)
	}
	if modified != "" {
		at, ok := httpTime(modified)
		if !ok {
			return badArgument("x-amz-if-match-last-modified-time", modified, "Invalid date")
		}
		if !at.Truncate(time.Second).Equal(o.Modified.Truncate(time.Second)) {
			return fail("PreconditionFailed").with("Condition", "x-amz-if-match-last-modified-time")
		}
	}
	if size != "" && size != strconv.FormatInt(o.Size, 10) {
		return fail("PreconditionFailed").with("Condition", "x-amz-if-match-size")
	}
	return nil
}

// deleteObjects deletes many.
func (c *call) deleteObjects() error {
	var in struct {
		Quiet  bool
		Object []struct {
			Key              string
			VersionId        string
			ETag             string
			LastModifiedTime string
			Size             string
		}
	}
	if err := c.xml("Delete", &in); err != nil {
		return err
	}
	if len(in.Object) == 0 || len(in.Object) > maxDeletes {
		return fail("MalformedXML")
	}
	list := make([]objects.DeleteOne, 0, len(in.Object))
	results := make([]objects.Deleted, len(in.Object))
	var at []int // of list in results
	for i, o := range in.Object {
		one := objects.DeleteOne{Key: o.Key, DeleteOptions: objects.DeleteOptions{Version: o.VersionId, By: c.who.key}}
		if o.ETag != "" {
			one.If.IfMatch = etags(o.ETag)
		}
		results[i].Key = o.Key
		var err error
		switch {
		case o.Key == "":
			return fail("MalformedXML")
		case len(o.Key) > objects.MaxKey:
			err = keyTooLong(o.Key)
		case checkVersion(o.VersionId) != nil:
			err = failf("NoSuchVersion", "Invalid version id specified")
		default:
			if err = c.may(ask{bucket: c.b, owner: c.owner, action: "DeleteObject", key: o.Key, version: o.VersionId, write: true, onBucket: write}); err == nil {
				one.Bypass, err = c.bypass(o.Key, o.VersionId)
			}
			if err == nil {
				err = c.checkDelete(o.Key, o.VersionId, o.LastModifiedTime, o.Size)
			}
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		list, at = append(list, one), append(at, i)
	}
	done, err := c.b.DeleteMany(c.ctx, list)
	if err != nil {
		return err
	}
	for i, r := range done {
		results[at[i]] = r
	}
	d := newDocument("DeleteResult")
	for i, r := range results {
		c.deleted(d, in.Object[i].Key, in.Object[i].VersionId, r, in.Quiet)
	}
	return c.reply(d)
}

// deleted writes what became of one of many.
func (c *call) deleted(d *document, key, version string, r objects.Deleted, quiet bool) {
	if r.Err != nil && !errors.Is(r.Err, objects.ErrNoVersion) {
		e, known := told(r.Err)
		if !known {
			c.d.o.Log.Error("delete object", "bucket", c.bucket, "key", key, "err", r.Err)
		}
		d.in("Error")
		d.put("Key", key)
		d.some("VersionId", version)
		d.put("Code", e.Code)
		d.put("Message", e.Message)
		d.out()
		return
	}
	if quiet {
		return
	}
	d.in("Deleted")
	d.put("Key", key)
	d.some("VersionId", version)
	if r.Marker {
		d.truth("DeleteMarker", true)
		d.put("DeleteMarkerVersionId", r.Version)
	}
	d.out()
}
