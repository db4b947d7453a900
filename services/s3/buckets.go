package s3

import (
	"errors"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// regionName is what a region is called.
var regionName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// goodBucket reports whether a bucket may be made with a name ("Bucket naming rules").
func goodBucket(name string) bool {
	return bucketName.MatchString(name) && net.ParseIP(name) == nil && !strings.Contains(name, "..") && !strings.Contains(name, ".-") && !strings.Contains(name, "-.") &&
		!strings.HasPrefix(name, "xn--") && !strings.HasPrefix(name, "sthree-") && !strings.HasSuffix(name, "-s3alias") && !strings.HasSuffix(name, "--ol-s3")
}

func (c *call) listBuckets() error {
	if c.who.anonymous {
		return fail("AccessDenied")
	}
	limit, err := c.count("max-buckets", 10000, 1, 10000)
	if err != nil {
		return err
	}
	list, err := c.d.store.List(c.ctx, c.who.app)
	if err != nil {
		return err
	}
	prefix, after := c.query.Get("prefix"), c.query.Get("continuation-token")
	list = slices.DeleteFunc(list, func(i objects.Info) bool {
		return !strings.HasPrefix(i.Name, prefix) || after != "" && i.Name <= after || !c.d.o.Allowed(c.who.key, i.Name, false)
	})
	more := len(list) > limit
	list = list[:min(limit, len(list))]
	d := newDocument("ListAllMyBucketsResult")
	d.owner("Owner", c.who.app)
	d.in("Buckets")
	for _, i := range list {
		d.in("Bucket")
		d.put("Name", i.Name)
		if i.Created.IsZero() {
			i.Created = time.Unix(0, 0)
		}
		d.time("CreationDate", i.Created)
		if c.query.Has("max-buckets") {
			d.put("BucketRegion", c.d.o.Region)
		}
		d.out()
	}
	d.out()
	if more {
		d.put("ContinuationToken", list[len(list)-1].Name)
	}
	d.some("Prefix", prefix)
	return c.reply(d)
}

// count reads a parameter that is a number in some bounds.
func (c *call) count(name string, none, low, high int) (int, error) {
	text := c.query.Get(name)
	if text == "" {
		return none, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(text, "-"), err != nil:
		return 0, badArgument(name, text, "Provided %s not an integer or within integer range", name)
	case low > 0 && (int(n) < low || int(n) > high):
		return 0, badArgument(name, text, "Argument %s must be an integer between %d and %d.", name, low, high)
	case n < 0:
		return 0, badArgument(name, text, "Argument %s must be an integer between 0 and 2147483647", name)
	}
	return min(int(n), high), nil
}

func (c *call) createBucket() error {
	if c.who.anonymous {
		return failf("AccessDenied", "Anonymous users cannot invoke this API. Please authenticate.")
	}
	if !c.d.o.Allowed(c.who.key, c.bucket, true) {
		return fail("AccessDenied")
	}
	if !goodBucket(c.bucket) {
		return fail("InvalidBucketName").with("BucketName", c.bucket)
	}
	body, err := c.text(maxBody)
	if err != nil {
		return err
	}
	region, tags, err := c.readCreate(body)
	if err != nil {
		return err
	}
	c.owner = c.who.app
	ownership := c.r.Header.Get("X-Amz-Object-Ownership")
	if ownership != "" && !goodOwnership(ownership) {
		return badArgument("x-amz-object-ownership", ownership, "Invalid x-amz-object-ownership header: %s", ownership)
	}
	list, err := c.headerACL(c.r.Header, c.owner)
	if err != nil {
		return err
	}
	if ownership == "BucketOwnerEnforced" && list != "" {
		return fail("InvalidBucketAclWithObjectOwnership")
	}
	locks := strings.EqualFold(c.r.Header.Get("X-Amz-Bucket-Object-Lock-Enabled"), "true")
	if c.b, err = c.d.store.Make(c.ctx, c.owner, c.bucket, locks); err != nil {
		if errors.Is(err, objects.ErrBucketExists) {
			if c.d.o.Region == "us-east-1" && list == "" && ownership == "" && !locks {
				c.h.Set("Location", "/"+c.bucket)
				return c.done(http.StatusOK) // as there, for clients that are used to it
			}
			return fail("BucketAlreadyOwnedByYou").with("BucketName", c.bucket)
		}
		return err
	}
	if region != "" && region != c.d.o.Region {
		if err := c.b.SetConfig(c.ctx, "location", []byte(region)); err != nil {
			return err
		}
	}
	if list != "" {
		if err := c.b.SetConfig(c.ctx, "acl", []byte(list)); err != nil {
			return err
		}
	}
	if ownership != "" {
		if err := c.setOwnership(ownership); err != nil {
			return err
		}
	}
	if len(tags) > 0 {
		text, err := encode("Tagging", tagging{TagSet: &tagSet{tags}})
		if err != nil {
			return err
		}
		if err := c.b.SetConfig(c.ctx, "tagging", append([]byte{configVersion}, text...)); err != nil {
			return err
		}
	}
	c.h.Set("Location", "/"+c.bucket)
	c.h.Set("x-amz-bucket-arn", "arn:aws:s3:::"+c.bucket)
	return c.done(http.StatusOK)
}

// readCreate reads where a new bucket is to be and which tags it gets. It may be in the
// region that the request is signed for: all of them are here.
func (c *call) readCreate(body []byte) (region string, _ []xmlTag, err error) {
	if len(body) == 0 {
		return "", nil, nil
	}
	var in struct {
		LocationConstraint string
		Tags               tagSet
	}
	if err := decode(body, "CreateBucketConfiguration", &in); err != nil {
		return "", nil, err
	}
	at := in.LocationConstraint
	if at != "" && at != c.d.o.Region && (at != c.who.region || !regionName.MatchString(at)) {
		return "", nil, fail("InvalidLocationConstraint").with("LocationConstraint", at)
	}
	return at, in.Tags.Tag, checkTags(in.Tags.tags(), maxBucketTags)
}

// region is where a bucket is said to be.
func (c *call) region(b *objects.Bucket) (string, error) {
	text, err := b.Config(c.ctx, "location")
	if errors.Is(err, objects.ErrNoConfig) || err == nil && !regionName.Match(text) {
		return c.d.o.Region, nil
	}
	return string(text), err
}

func (c *call) headBucket() error {
	region, err := c.region(c.b)
	if err != nil {
		return err
	}
	c.h.Set("x-amz-bucket-region", region)
	c.h.Set("x-amz-access-point-alias", "false")
	c.h.Set("Content-Type", "application/xml")
	c.head(http.StatusOK)
	return nil
}

func (c *call) deleteBucket() error {
	state, err := c.b.State(c.ctx)
	if err != nil {
		return err
	}
	err = c.b.Close()
	c.b = nil
	if err != nil {
		return err
	}
	err = c.d.store.Drop(c.ctx, c.owner, c.bucket)
	if errors.Is(err, objects.ErrNotEmpty) && state.Versioning != "" {
		return failf("BucketNotEmpty", "The bucket you tried to delete is not empty. You must delete all versions in the bucket.").with("BucketName", c.bucket)
	}
	if errors.Is(err, objects.ErrKept) {
		// Who empties a bucket before it asks, as "aws s3 rb --force", is told how to undo it.
		return failf("BucketNotEmpty", "The bucket is a folder that is kept on a disk, and stays. To undo what was removed: bevy restore %s@10m -- To remove it: bevy folder drop %s --everywhere", c.bucket, c.bucket).with("BucketName", c.bucket)
	}
	if err != nil {
		return bucketError(err, c.bucket)
	}
	return c.done(http.StatusNoContent)
}

func (c *call) getLocation() error {
	region, err := c.region(c.b)
	if err != nil {
		return err
	}
	d := newDocument("LocationConstraint")
	if region != "us-east-1" {
		d.b = escape(d.b, region)
	}
	return c.reply(d)
}

func (c *call) putVersioning() error {
	var in struct{ Status, MfaDelete string }
	if err := c.xml("VersioningConfiguration", &in); err != nil {
		return err
	}
	switch {
	case in.MfaDelete != "" && in.MfaDelete != "Disabled":
		return notImplemented("MFA delete is not implemented")
	case in.Status == "":
		return fail("IllegalVersioningConfigurationException")
	case in.Status != "Enabled" && in.Status != "Suspended":
		return fail("MalformedXML")
	}
	err := c.b.SetState(c.ctx, func(s *objects.State) { s.Versioning = objects.Versioning(in.Status) })
	if errors.Is(err, objects.ErrState) {
		return failf("InvalidBucketState", "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.")
	}
	if err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func (c *call) getVersioning() error {
	s, err := c.b.State(c.ctx)
	if err != nil {
		return err
	}
	d := newDocument("VersioningConfiguration")
	d.some("Status", string(s.Versioning))
	return c.reply(d)
}
