package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/services/internal/sigv4"
	"github.com/cloudbevy/bevy/services/s3/objects"
	"github.com/cloudbevy/bevy/services/s3/policy"
)

// A caller is who makes a request.
type caller struct {
	anonymous bool
	app, key  string
	region    string // that it is signed for
	presigned bool
	at        time.Time // when it was signed
}

// account is the number of the account that all is in.
const account = "000000000000"

// canonicalID is the id of an app as an owner.
func canonicalID(app string) string {
	sum := sha256.Sum256([]byte("bevy app " + app))
	return hex.EncodeToString(sum[:])
}

// displayName is the name of an app as an owner.
func displayName(app string) string {
	if app == "" {
		return "default"
	}
	return app
}

func (d *document) owner(name, app string) {
	d.in(name)
	d.put("ID", canonicalID(app))
	d.put("DisplayName", displayName(app))
	d.out()
}

// authenticate finds out who the caller is.
func (c *call) authenticate() error {
	signed := c.r.Header.Get("Authorization") != ""
	for name := range c.query {
		signed = signed || strings.HasPrefix(name, "X-Amz-Algorithm") || name == "X-Amz-Signature" || name == "X-Amz-Credential" || name == "AWSAccessKeyId"
	}
	v := c.d.o.Verifier
	if v == nil {
		v = &Verifier{Service: "s3"}
	}
	if !signed || c.d.o.Verifier == nil {
		body, err := v.Anonymous(c.r)
		c.who, c.body = caller{anonymous: true}, body
		return err
	}
	s, err := c.verify(v)
	if err != nil {
		return err
	}
	c.who = caller{app: c.d.o.App(s.AccessKey), key: s.AccessKey, region: s.Region, presigned: s.Presigned, at: s.Time}
	c.body = s.Body
	return nil
}

// verify verifies the signature, whatever its version is.
func (c *call) verify(v *Verifier) (*sigv4.Signed, error) {
	if sigv4.IsV2(c.r) {
		path := c.r.URL.EscapedPath()
		if plain := locate("", c.r.URL.Path, nil); plain != c.address {
			path = "/" + c.bucket + path
		}
		return v.VerifyV2(c.r, path)
	}
	s, err := v.Verify(c.r)
	if e := new(sigv4.Error); c.query.Has("X-Amz-Algorithm") && errors.As(err, &e) && e.Kind == sigv4.BadScope {
		return nil, failf("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter; %s", e.Message)
	}
	return s, err
}

// authorize refuses what the caller may not do.
func (c *call) authorize() error {
	return c.may(ask{bucket: c.b, owner: c.owner, action: c.op.action, key: c.key, version: c.query.Get("versionId"), write: c.op.write, onBucket: c.op.onBucket, onObject: c.op.onObject})
}

// An ask is for the right to do something.
type ask struct {
	bucket             *objects.Bucket
	owner              string // the app it is of
	action             string
	key, version       string
	write              bool
	onBucket, onObject permission
}

// ownPolicy are the actions that a policy can't refuse to its owner, who could never
// undo it.
var ownPolicy = []string{"GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy"}

// may returns AccessDenied, or nothing where the caller may do what it asks for.
func (c *call) may(a ask) error {
	own := !c.who.anonymous && c.who.app == a.owner && c.d.o.Allowed(c.who.key, a.bucket.Name(), a.write)
	if own && slices.Contains(ownPolicy, a.action) {
		return nil
	}
	p, err := bucketPolicy(c.ctx, a.bucket)
	if err != nil {
		return err
	}
	said := policy.Silent
	if p != nil {
		said = p.Decide(policy.Request{Anonymous: c.who.anonymous, Account: c.who.app, User: c.who.key,
			Action: actionName(a.action, a.version), Resource: policy.ARN(a.bucket.Name(), a.key), Values: c.values(a)})
	}
	switch {
	case said == policy.Deny && !c.who.anonymous:
		return failf("AccessDenied", "User: %s is not authorized to perform: %s on resource: %q with an explicit deny in a resource-based policy",
			c.who.key, actionName(a.action, a.version), policy.ARN(a.bucket.Name(), a.key))
	case said == policy.Deny:
		return fail("AccessDenied")
	case own:
		return nil
	}
	block, err := publicBlock(c.ctx, a.bucket)
	if err != nil {
		return err
	}
	if said == policy.Allow && !(block.RestrictPublicBuckets && p.Public()) {
		return nil
	}
	ok, err := c.granted(a, block)
	if err != nil {
		return err
	}
	if !ok {
		return fail("AccessDenied")
	}
	return nil
}

// granted reports whether an access control list lets the caller do something.
func (c *call) granted(a ask, block publicAccessBlock) (bool, error) {
	if a.onBucket != noGrant {
		list, err := bucketACL(c.ctx, a.bucket, a.owner)
		return err == nil && list.grants(c.who, a.owner, a.onBucket, block.IgnorePublicAcls), err
	}
	if a.onObject == noGrant {
		return false, nil
	}
	enforced, err := ownerEnforced(c.ctx, a.bucket)
	if err != nil || enforced {
		return false, err
	}
	o, err := a.bucket.Head(c.ctx, a.key, a.version)
	if errors.Is(err, objects.ErrNoKey) || errors.Is(err, objects.ErrNoVersion) {
		// Only who may list learns that there is nothing.
		list := a
		list.action, list.key, list.version, list.onBucket, list.onObject = "ListBucket", "", "", read, noGrant
		return c.may(list) == nil, nil
	}
	if err != nil {
		return false, err
	}
	return parseACL(o.ACL, a.owner).grants(c.who, a.owner, a.onObject, block.IgnorePublicAcls), nil
}

// values returns the condition keys of policies for a request.
func (c *call) values(a ask) func(string) []string {
	return func(key string) []string {
		one := func(v string) []string {
			if v == "" {
				return nil
			}
			return []string{v}
		}
		if tag, ok := strings.CutPrefix(key, "s3:existingobjecttag/"); ok {
			return c.existingTag(a, tag)
		}
		if tag, ok := strings.CutPrefix(key, "s3:requestobjecttag/"); ok {
			tags, _ := parseTagHeader(c.r.Header.Get("X-Amz-Tagging"))
			for _, t := range tags {
				if strings.EqualFold(t.Key, tag) {
					return []string{t.Value}
				}
			}
			return nil
		}
		switch key {
		case "aws:sourceip":
			host, _, _ := net.SplitHostPort(c.r.RemoteAddr)
			return one(host)
		case "aws:securetransport":
			return one(strconv.FormatBool(c.r.TLS != nil))
		case "aws:useragent":
			return one(c.r.UserAgent())
		case "aws:referer":
			return one(c.r.Referer())
		case "aws:currenttime":
			return one(c.d.o.Clock.Now().UTC().Format(time.RFC3339))
		case "aws:epochtime":
			return one(strconv.FormatInt(c.d.o.Clock.Now().Unix(), 10))
		case "aws:username", "aws:userid":
			return one(c.who.key)
		case "aws:principalaccount":
			return one(c.who.app)
		case "aws:principalarn":
			if c.who.anonymous {
				return nil
			}
			return one("arn:aws:iam::" + c.who.app + ":user/" + c.who.key)
		case "aws:requestedregion":
			return one(c.d.o.Region)
		case "s3:prefix", "s3:delimiter", "s3:max-keys":
			name := strings.TrimPrefix(key, "s3:")
			if name == "prefix" && c.op != nil && c.op.level == object {
				return []string{c.key} // who may list it may know that it is not there
			}
			if a.action == "ListBucket" || a.action == "ListBucketVersions" {
				if c.query.Has(name) {
					return []string{c.query.Get(name)}
				}
			}
			return nil
		case "s3:versionid":
			return one(a.version)
		case "s3:signatureversion":
			if c.who.anonymous {
				return nil
			}
			return one("AWS4-HMAC-SHA256")
		case "s3:authtype":
			switch {
			case c.who.anonymous:
				return nil
			case c.who.presigned:
				return one("REST-QUERY-STRING")
			}
			return one("REST-HEADER")
		case "s3:signatureage":
			if c.who.presigned {
				return one(strconv.FormatInt(c.d.o.Clock.Now().Sub(c.who.at).Milliseconds(), 10))
			}
			return nil
		case "s3:requestobjecttagkeys":
			tags, _ := parseTagHeader(c.r.Header.Get("X-Amz-Tagging"))
			var out []string
			for _, t := range tags {
				out = append(out, t.Key)
			}
			return out
		}
		if name, ok := strings.CutPrefix(key, "s3:x-amz-"); ok {
			return c.r.Header.Values(http.CanonicalHeaderKey("X-Amz-" + name))
		}
		return nil
	}
}

// existingTag returns the value of a tag that the object has.
func (c *call) existingTag(a ask, name string) []string {
	o, err := a.bucket.Head(c.ctx, a.key, a.version)
	if err != nil {
		return nil
	}
	for _, t := range o.Tags {
		if strings.EqualFold(t.Key, name) {
			return []string{t.Value}
		}
	}
	return nil
}
