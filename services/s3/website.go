package s3

import (
	"bytes"
	"html"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// website is how a bucket is a website, as it is in XML.
type website struct {
	IndexDocument         *struct{ Suffix string } `xml:",omitempty"`
	ErrorDocument         *struct{ Key string }    `xml:",omitempty"`
	RedirectAllRequestsTo *redirect                `xml:",omitempty"`
	RoutingRules          *struct {
		RoutingRule []routingRule
	} `xml:",omitempty"`
}

type routingRule struct {
	Condition *routingCondition `xml:",omitempty"`
	Redirect  redirect
}

type routingCondition struct {
	KeyPrefixEquals             string `xml:",omitempty"`
	HTTPErrorCodeReturnedEquals string `xml:"HttpErrorCodeReturnedEquals,omitempty"`
}

type redirect struct {
	HostName             string  `xml:",omitempty"`
	Protocol             string  `xml:",omitempty"`
	ReplaceKeyPrefixWith *string `xml:",omitempty"`
	ReplaceKeyWith       *string `xml:",omitempty"`
	HTTPRedirectCode     string  `xml:"HttpRedirectCode,omitempty"`
}

const maxRoutes = 50

func readWebsite(_ *call, body []byte) (any, error) {
	var in website
	if err := decode(body, "WebsiteConfiguration", &in); err != nil {
		return nil, err
	}
	if all := in.RedirectAllRequestsTo; all != nil {
		if in.IndexDocument != nil || in.ErrorDocument != nil || in.RoutingRules != nil {
			return nil, fail("MalformedXML")
		}
		if all.HostName == "" {
			return nil, fail("MalformedXML")
		}
		return in, all.check()
	}
	if in.IndexDocument == nil {
		return nil, failf("InvalidArgument", "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty")
	}
	if s := in.IndexDocument.Suffix; s == "" || strings.Contains(s, "/") {
		return nil, badArgument("IndexDocument", s, "The IndexDocument Suffix is not well formed")
	}
	if in.ErrorDocument != nil && in.ErrorDocument.Key == "" {
		return nil, badArgument("ErrorDocument", "", "The ErrorDocument Key is not well formed")
	}
	if in.RoutingRules == nil {
		return in, nil
	}
	if len(in.RoutingRules.RoutingRule) > maxRoutes {
		return nil, badRequest("%d routing rules provided, the number of routing rules in a website configuration is limited to %d.", len(in.RoutingRules.RoutingRule), maxRoutes)
	}
	for _, r := range in.RoutingRules.RoutingRule {
		if r.Condition != nil && *r.Condition == (routingCondition{}) || r.Redirect == (redirect{}) {
			return nil, fail("MalformedXML")
		}
		if r.Condition != nil && r.Condition.HTTPErrorCodeReturnedEquals != "" {
			code := r.Condition.HTTPErrorCodeReturnedEquals
			if n, err := strconv.Atoi(code); err != nil || n < 400 || n > 599 {
				return nil, badRequest("The provided HTTP error code (%s) is not valid. Valid codes are 4XX or 5XX.", code)
			}
		}
		if err := r.Redirect.check(); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (r *redirect) check() error {
	if r.Protocol != "" && r.Protocol != "http" && r.Protocol != "https" {
		return badRequest("Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically.")
	}
	if r.ReplaceKeyWith != nil && r.ReplaceKeyPrefixWith != nil {
		return badRequest("You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
	}
	if code := r.HTTPRedirectCode; code != "" {
		if n, err := strconv.Atoi(code); err != nil || n < 301 || n > 308 || n == 306 {
			return badRequest("The provided HTTP redirect code (%s) is not valid. Valid codes are 3XX except 300.", code)
		}
	}
	return nil
}

// serveWebsite answers a request to a bucket's website: anybody's, of objects that
// anybody may read.
func (c *call) serveWebsite() error {
	c.who = caller{anonymous: true}
	c.op = route(http.MethodGet, object, nil, nil)
	err := c.answerSite()
	if err == nil || c.sent {
		return err
	}
	e, known := told(err)
	if !known {
		c.d.o.Log.Error("website failed", "bucket", c.bucket, "err", err)
	}
	return c.errorPage(e)
}

// answerSite is serveWebsite without the pages for errors.
func (c *call) answerSite() error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return fail("MethodNotAllowed").with("Method", c.r.Method).with("ResourceType", "OBJECT")
	}
	if err := c.openBucket(); err != nil {
		return err
	}
	c.allowOrigin()
	var site website
	ok, err := config(c.ctx, c.b, "website", "WebsiteConfiguration", &site)
	if err != nil {
		return err
	}
	if !ok {
		return fail("NoSuchWebsiteConfiguration").with("BucketName", c.bucket)
	}
	if all := site.RedirectAllRequestsTo; all != nil {
		return c.redirect(all, "")
	}
	asked := c.key
	if r := site.rule(asked, 0); r != nil {
		return c.redirect(&r.Redirect, r.prefix())
	}
	err = c.sitePage(&site, asked)
	if err == nil || c.sent {
		return err
	}
	e, _ := told(err)
	if r := site.rule(asked, e.Status); r != nil {
		c.key = asked
		return c.redirect(&r.Redirect, r.prefix())
	}
	if site.ErrorDocument == nil || e.Status < 400 || e.Status >= 500 {
		return err
	}
	o, sent := c.readable(site.ErrorDocument.Key)
	if sent != nil {
		return err
	}
	return c.sendPage(e.Status, o)
}

// sitePage answers with the object of a path, or with the index of a folder.
func (c *call) sitePage(site *website, key string) error {
	index := site.IndexDocument.Suffix
	if key == "" || strings.HasSuffix(key, "/") {
		key += index
	}
	o, err := c.readable(key)
	if err != nil {
		if isCode(err, "NoSuchKey") || isCode(err, "AccessDenied") {
			if _, also := c.readable(key + "/" + index); also == nil {
				c.h.Set("Location", "/"+encodeKey(key)+"/")
				return c.done(http.StatusFound)
			}
		}
		return err
	}
	if to := o.Meta.WebsiteRedirect; to != "" {
		c.h.Set("Location", to)
		return c.done(http.StatusMovedPermanently)
	}
	if err := readConditions(c.r.Header, "").check(o); err != nil {
		c.setETag(o)
		return err
	}
	s, ranged, err := c.span(o)
	if err != nil {
		return err
	}
	if ranged {
		c.describe(o)
		c.h.Set("Content-Range", s.header(o.Size))
		c.h.Set("Content-Length", strconv.FormatInt(s.n, 10))
		if c.r.Method == http.MethodHead {
			c.head(http.StatusPartialContent)
			return nil
		}
		return c.stream(http.StatusPartialContent, o, s)
	}
	return c.sendPage(http.StatusOK, o)
}

// readable finds an object that the caller may read.
func (c *call) readable(key string) (objects.Object, error) {
	c.key = key
	if err := c.authorize(); err != nil {
		return objects.Object{}, err
	}
	o, err := c.b.Head(c.ctx, key, "")
	return o, c.versionError(err, "")
}

func (c *call) sendPage(status int, o objects.Object) error {
	c.describe(o)
	c.h.Set("Content-Length", strconv.FormatInt(o.Size, 10))
	if c.r.Method == http.MethodHead {
		c.head(status)
		return nil
	}
	return c.stream(status, o, span{0, o.Size})
}

// rule returns the first rule for a key, and for the status of an answer if it is one
// of those.
func (w *website) rule(key string, status int) *routingRule {
	if w.RoutingRules == nil {
		return nil
	}
	for i := range w.RoutingRules.RoutingRule {
		r := &w.RoutingRules.RoutingRule[i]
		code := ""
		if r.Condition != nil {
			code = r.Condition.HTTPErrorCodeReturnedEquals
		}
		if (status == 0) == (code == "") && (code == "" || code == strconv.Itoa(status)) && strings.HasPrefix(key, r.prefix()) {
			return r
		}
	}
	return nil
}

func (r *routingRule) prefix() string {
	if r.Condition == nil {
		return ""
	}
	return r.Condition.KeyPrefixEquals
}

// redirect sends the browser elsewhere.
func (c *call) redirect(to *redirect, prefix string) error {
	key := c.key
	switch {
	case to.ReplaceKeyWith != nil:
		key = *to.ReplaceKeyWith
	case to.ReplaceKeyPrefixWith != nil:
		key = *to.ReplaceKeyPrefixWith + strings.TrimPrefix(key, prefix)
	}
	host, scheme := to.HostName, to.Protocol
	if host == "" {
		host = c.r.Host
	}
	if scheme == "" {
		if scheme = "http"; c.r.TLS != nil {
			scheme = "https"
		}
	}
	status := http.StatusMovedPermanently
	if n, err := strconv.Atoi(to.HTTPRedirectCode); err == nil {
		status = n
	}
	c.h.Set("Location", scheme+"://"+host+"/"+encodeKey(key))
	return c.done(status)
}

// errorPage answers with an error as websites do.
func (c *call) errorPage(e *Error) error {
	for name, values := range e.Header {
		c.h[http.CanonicalHeaderKey(name)] = values
	}
	if e.Status == http.StatusNotModified {
		c.head(e.Status)
		return nil
	}
	title := strconv.Itoa(e.Status) + " " + http.StatusText(e.Status)
	var b bytes.Buffer
	_, _ = io.WriteString(&b, "<html>\n<head><title>"+title+"</title></head>\n<body>\n<h1>"+title+"</h1>\n<ul>\n<li>Code: "+html.EscapeString(e.Code)+"</li>\n<li>Message: "+html.EscapeString(e.Message)+"</li>\n")
	for _, x := range e.Extra {
		_, _ = io.WriteString(&b, "<li>"+x[0]+": "+html.EscapeString(x[1])+"</li>\n")
	}
	_, _ = io.WriteString(&b, "<li>RequestId: "+c.id+"</li>\n</ul>\n</body>\n</html>\n")
	c.h.Set("Content-Type", "text/html; charset=utf-8")
	c.h.Set("x-amz-error-code", e.Code)
	c.h.Set("x-amz-error-message", e.Message)
	return c.send(e.Status, b.Bytes())
}
