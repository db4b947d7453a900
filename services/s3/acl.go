package s3

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// The groups that a grant can be for.
const (
	everybody  = "http://acs.amazonaws.com/groups/global/AllUsers"
	everyKey   = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
	logWriters = "http://acs.amazonaws.com/groups/s3/LogDelivery"
)

// A grant lets somebody do something: the owner of an id, or a group.
type grant struct {
	ID         string     `json:"id,omitempty"`
	Group      string     `json:"group,omitempty"`
	Permission permission `json:"may"`
}

// An acl is an access control list. Its text is the name of a canned one, or JSON.
type acl []grant

// maxGrants bounds a list.
const maxGrants = 100

// canned are lists by their names.
func canned(name, owner string) (acl, bool) {
	mine := grant{ID: canonicalID(owner), Permission: full}
	switch name {
	case "", "private", "bucket-owner-read", "bucket-owner-full-control", "aws-exec-read":
		return acl{mine}, true
	case "public-read":
		return acl{mine, {Group: everybody, Permission: read}}, true
	case "public-read-write":
		return acl{mine, {Group: everybody, Permission: read}, {Group: everybody, Permission: write}}, true
	case "authenticated-read":
		return acl{mine, {Group: everyKey, Permission: read}}, true
	case "log-delivery-write":
		return acl{mine, {Group: logWriters, Permission: write}, {Group: logWriters, Permission: readACP}}, true
	}
	return nil, false
}

// parseACL reads a list as it is kept.
func parseACL(text, owner string) acl {
	if list, ok := canned(text, owner); ok {
		return list
	}
	var list acl
	if json.Unmarshal([]byte(text), &list) != nil {
		list, _ = canned("", owner)
	}
	return list
}

func (l acl) text() string {
	b, err := json.Marshal(l)
	if err != nil {
		panic("s3: a list of grants is no JSON: " + err.Error())
	}
	return string(b)
}

// grants reports whether the list lets somebody do something. What it gives to the
// owner's app, of whose keys each has its own rights, does not count.
func (l acl) grants(who caller, owner string, p permission, ignorePublic bool) bool {
	return slices.ContainsFunc(l, func(g grant) bool {
		if g.Permission != p && g.Permission != full || ignorePublic && g.public() {
			return false
		}
		switch {
		case g.Group == everybody:
			return true
		case who.anonymous:
			return false
		case g.Group == everyKey:
			return true
		}
		return g.ID == canonicalID(who.app) && who.app != owner || g.ID == who.key
	})
}

func (g grant) public() bool { return g.Group == everybody || g.Group == everyKey }
func (l acl) public() bool   { return slices.ContainsFunc(l, grant.public) }

// bucketACL returns a bucket's list, which is that of its owner alone where lists
// are switched off.
func bucketACL(ctx context.Context, b *objects.Bucket, owner string) (acl, error) {
	enforced, err := ownerEnforced(ctx, b)
	if err != nil {
		return nil, err
	}
	var text []byte
	if !enforced {
		if text, err = b.Config(ctx, "acl"); err != nil && !errors.Is(err, objects.ErrNoConfig) {
			return nil, err
		}
	}
	return parseACL(string(text), owner), nil
}

// writersACL is the list of an object that another app puts into a bucket: it is
// that app's, unless lists are switched off.
func (c *call) writersACL(text string) (string, error) {
	if c.who.anonymous || c.who.app == c.owner {
		return text, nil
	}
	if enforced, err := ownerEnforced(c.ctx, c.b); err != nil || enforced {
		return text, err
	}
	list := parseACL(text, c.who.app)
	switch text {
	case "bucket-owner-read":
		list = append(list, grant{ID: canonicalID(c.owner), Permission: read})
	case "bucket-owner-full-control":
		list = append(list, grant{ID: canonicalID(c.owner), Permission: full})
	}
	return list.text(), nil
}

// aclHeaders are the headers that grant something.
var aclHeaders = []struct {
	name string
	p    permission
}{
	{"X-Amz-Grant-Read", read}, {"X-Amz-Grant-Write", write}, {"X-Amz-Grant-Read-Acp", readACP},
	{"X-Amz-Grant-Write-Acp", writeACP}, {"X-Amz-Grant-Full-Control", full},
}

// headerACL reads the list that headers give, as it is kept; "" is private.
func (c *call) headerACL(h http.Header, owner string) (string, error) {
	name := h.Get("X-Amz-Acl")
	var list acl
	if name != "" && hasGrants(h) {
		return "", badRequest("Specifying both Canned ACLs and Header Grants is not allowed")
	}
	for _, kind := range aclHeaders {
		for part := range strings.SplitSeq(h.Get(kind.name), ",") {
			if strings.TrimSpace(part) == "" {
				continue
			}
			g, err := c.headerGrant(part, kind.p)
			if err != nil {
				return "", err
			}
			list = append(list, g)
		}
	}
	switch {
	case len(list) > maxGrants:
		return "", fail("MalformedACLError")
	case len(list) > 0:
		return list.text(), nil
	}
	if _, ok := canned(name, owner); !ok {
		return "", badArgument("x-amz-acl", name, "Invalid canned ACL")
	}
	if name == "private" {
		name = ""
	}
	return name, nil
}

func hasGrants(h http.Header) bool {
	return slices.ContainsFunc(aclHeaders, func(kind struct {
		name string
		p    permission
	}) bool {
		return h.Get(kind.name) != ""
	})
}

func (c *call) headerGrant(text string, p permission) (grant, error) {
	kind, value, ok := strings.Cut(strings.TrimSpace(text), "=")
	value = strings.Trim(strings.TrimSpace(value), `"`)
	switch {
	case !ok:
	case kind == "id":
		return grant{ID: value, Permission: p}, c.checkID(value)
	case kind == "uri":
		return grant{Group: value, Permission: p}, checkGroup(value)
	case kind == "emailAddress":
		return grant{}, fail("UnresolvableGrantByEmailAddress")
	}
	return grant{}, badArgument("x-amz-grant", text, "Argument format not recognized")
}

// checkID refuses the id of nobody.
func (c *call) checkID(id string) error {
	_, isApp, err := c.appOf(id)
	if err != nil || isApp {
		return err
	}
	if v := c.d.o.Verifier; v != nil {
		if _, err := v.Keys(c.ctx, id); err == nil {
			return nil
		} else if !errors.Is(err, ErrUnknownKey) {
			return err
		}
	}
	return badArgument("CanonicalUser/ID", id, "Invalid id")
}

// appOf finds the app that has an id.
func (c *call) appOf(id string) (app string, ok bool, err error) {
	apps, err := c.d.o.Apps(c.ctx)
	i := slices.IndexFunc(apps, func(app string) bool { return canonicalID(app) == id })
	if err != nil || i < 0 {
		return "", false, err
	}
	return apps[i], true, nil
}

func checkGroup(uri string) error {
	if uri != everybody && uri != everyKey && uri != logWriters {
		return badArgument("uri", uri, "Invalid group uri")
	}
	return nil
}

// readACL reads the list of a request: from headers or the body.
func (c *call) readACL() (string, error) {
	body, err := c.text(maxBody)
	if err != nil {
		return "", err
	}
	if len(body) > 0 && hasGrants(c.r.Header) {
		return "", fail("UnexpectedContent")
	}
	text, err := c.headerACL(c.r.Header, c.owner)
	if err != nil {
		return "", err
	}
	if len(body) == 0 {
		if text == "" && c.r.Header.Get("X-Amz-Acl") == "" {
			return "", fail("MissingSecurityHeader").with("MissingHeaderName", "x-amz-acl")
		}
		return text, nil
	}
	if text != "" || c.r.Header.Get("X-Amz-Acl") != "" {
		return "", fail("UnexpectedContent")
	}
	return c.parseXMLACL(body, c.owner)
}

func (c *call) parseXMLACL(body []byte, owner string) (string, error) {
	var in struct {
		Owner *struct{ ID string }
		List  *struct {
			Grant []struct {
				Grantee struct {
					Type         string `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
					ID           string
					URI          string
					EmailAddress string
				}
				Permission permission
			}
		} `xml:"AccessControlList"`
	}
	if decode(body, "AccessControlPolicy", &in) != nil || in.Owner == nil || in.Owner.ID == "" || in.List == nil || len(in.List.Grant) > maxGrants {
		return "", fail("MalformedACLError")
	}
	list := acl{}
	for _, g := range in.List.Grant {
		if !slices.Contains([]permission{read, write, readACP, writeACP, full}, g.Permission) {
			return "", fail("MalformedACLError")
		}
		if kind := g.Grantee.Type; kind != "" && kind != "CanonicalUser" && kind != "Group" && kind != "AmazonCustomerByEmail" {
			return "", fail("MalformedACLError")
		}
		var err error
		switch out := (grant{ID: g.Grantee.ID, Group: g.Grantee.URI, Permission: g.Permission}); {
		case out.ID != "":
			out.Group = ""
			err = c.checkID(out.ID)
			list = append(list, out)
		case out.Group != "":
			err = checkGroup(out.Group)
			list = append(list, out)
		case g.Grantee.EmailAddress != "":
			err = fail("UnresolvableGrantByEmailAddress")
		default:
			err = fail("MalformedACLError")
		}
		if err != nil {
			return "", err
		}
	}
	if in.Owner.ID != canonicalID(owner) {
		return "", fail("AccessDenied")
	}
	return list.text(), nil
}

// owners reports whether a list gives something to nobody but the bucket's owner: it
// can be put with an object by who may put the object.
func (c *call) owners(text string) bool {
	return !slices.ContainsFunc(parseACL(text, c.owner), func(g grant) bool { return g.ID != canonicalID(c.owner) })
}

// checkACL refuses a list where the bucket does not take it.
func (c *call) checkACL(ctx context.Context, text string) error {
	enforced, err := ownerEnforced(ctx, c.b)
	if err != nil {
		return err
	}
	if name := c.r.Header.Get("X-Amz-Acl"); enforced && (text != "" || name == "private") && name != "bucket-owner-full-control" {
		return fail("AccessControlListNotSupported")
	}
	block, err := publicBlock(ctx, c.b)
	if err != nil {
		return err
	}
	if block.BlockPublicAcls && parseACL(text, c.owner).public() {
		return fail("AccessDenied")
	}
	return nil
}

func (c *call) putBucketACL() error {
	if enforced, err := ownerEnforced(c.ctx, c.b); err != nil {
		return err
	} else if enforced && c.r.Header.Get("X-Amz-Acl") != "bucket-owner-full-control" {
		return fail("AccessControlListNotSupported")
	}
	text, err := c.readACL()
	if err != nil {
		return err
	}
	if err := c.checkACL(c.ctx, text); err != nil {
		return err
	}
	if err := c.b.SetConfig(c.ctx, "acl", []byte(text)); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func (c *call) getBucketACL() error {
	list, err := bucketACL(c.ctx, c.b, c.owner)
	if err != nil {
		return err
	}
	return c.replyACL(list)
}

func (c *call) putObjectACL() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	text, err := c.readACL()
	if err != nil {
		return err
	}
	if err := c.checkACL(c.ctx, text); err != nil {
		return err
	}
	o, err := c.b.SetACL(c.ctx, c.key, version, text)
	if err != nil {
		return c.versionError(err, version)
	}
	c.setVersion(o.Version)
	return c.done(http.StatusOK)
}

func (c *call) getObjectACL() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	o, err := c.b.Head(c.ctx, c.key, version)
	if err != nil {
		return c.versionError(err, version)
	}
	c.setVersion(o.Version)
	return c.replyACL(parseACL(o.ACL, c.owner))
}

// replyACL answers with a list, groups first.
func (c *call) replyACL(list acl) error {
	slices.SortStableFunc(list, func(a, b grant) int { return min(len(b.Group), 1) - min(len(a.Group), 1) })
	d := newDocument("AccessControlPolicy")
	d.owner("Owner", c.owner)
	d.in("AccessControlList")
	for _, g := range list {
		d.in("Grant")
		if g.Group != "" {
			d.grantee("Group")
			d.put("URI", g.Group)
		} else {
			d.grantee("CanonicalUser")
			d.put("ID", g.ID)
			app, ok, err := c.appOf(g.ID)
			if err != nil {
				return err
			}
			if ok {
				d.put("DisplayName", displayName(app))
			}
		}
		d.out()
		d.put("Permission", string(g.Permission))
		d.out()
	}
	d.out()
	return c.reply(d)
}
