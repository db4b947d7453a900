package s3

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// corsRules say what pages of other origins may do.
type corsRules struct {
	CORSRule []corsRule
}

type corsRule struct {
	ID            string   `xml:",omitempty"`
	AllowedOrigin []string `xml:",omitempty"`
	AllowedMethod []string `xml:",omitempty"`
	AllowedHeader []string `xml:",omitempty"`
	MaxAgeSeconds *int     `xml:",omitempty"`
	ExposeHeader  []string `xml:",omitempty"`
}

const maxCORSRules = 100

func readCORS(_ *call, body []byte) (any, error) {
	var in corsRules
	if err := decode(body, "CORSConfiguration", &in); err != nil {
		return nil, err
	}
	if len(in.CORSRule) == 0 || len(in.CORSRule) > maxCORSRules {
		return nil, fail("MalformedXML")
	}
	for _, r := range in.CORSRule {
		if len(r.AllowedMethod) == 0 || len(r.AllowedOrigin) == 0 || len(r.ID) > 255 {
			return nil, fail("MalformedXML")
		}
		for _, m := range r.AllowedMethod {
			if !slices.Contains([]string{"GET", "PUT", "POST", "DELETE", "HEAD"}, m) {
				return nil, badRequest("Found unsupported HTTP method in CORS config. Unsupported method is %s", m)
			}
		}
		for _, o := range r.AllowedOrigin {
			if strings.Count(o, "*") > 1 {
				return nil, badRequest("AllowedOrigin \"%s\" can not have more than one wildcard.", o)
			}
		}
		for _, h := range append(slices.Clone(r.AllowedHeader), r.ExposeHeader...) {
			if !headerName(h, "*") {
				return nil, badRequest("AllowedHeader \"%s\" contains invalid character.", h)
			}
		}
		for _, h := range r.AllowedHeader {
			if strings.Count(h, "*") > 1 {
				return nil, badRequest("AllowedHeader \"%s\" can not have more than one wildcard.", h)
			}
		}
		for _, h := range r.ExposeHeader {
			if strings.Contains(h, "*") {
				return nil, badRequest("ExposeHeader \"%s\" contains wildcard. We currently do not support wildcard for ExposeHeader.", h)
			}
		}
	}
	return in, nil
}

// headerName reports whether a text can be the name of a header (RFC 9110 §5.6.2), but
// for some letters.
func headerName(text, also string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		letter := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && !strings.ContainsRune(marks+also, r)
	})
}

// oneStar matches a pattern with at most one star.
func oneStar(pattern, s string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	return len(s) >= len(before)+len(after) && strings.HasPrefix(s, before) && strings.HasSuffix(s, after)
}

// match returns the rule for a request, and the origin that it names.
func (l corsRules) match(origin, method string, headers []string) (r *corsRule, allowed string) {
	for i := range l.CORSRule {
		r := &l.CORSRule[i]
		at := slices.IndexFunc(r.AllowedOrigin, func(p string) bool { return oneStar(p, origin) })
		if at < 0 || !slices.Contains(r.AllowedMethod, method) || !r.allows(headers) {
			continue
		}
		if r.AllowedOrigin[at] == "*" {
			return r, "*"
		}
		return r, origin
	}
	return nil, ""
}

// allows reports whether a page may send headers.
func (r *corsRule) allows(headers []string) bool {
	return !slices.ContainsFunc(headers, func(h string) bool {
		return !slices.ContainsFunc(r.AllowedHeader, func(p string) bool { return oneStar(strings.ToLower(p), h) })
	})
}

// say writes the headers of a rule.
func (r *corsRule) say(h http.Header, origin, method string, headers []string) {
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Methods", strings.Join(r.AllowedMethod, ", "))
	if len(headers) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(headers, ", "))
	}
	if len(r.ExposeHeader) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(r.ExposeHeader, ", "))
	}
	if r.MaxAgeSeconds != nil {
		h.Set("Access-Control-Max-Age", strconv.Itoa(*r.MaxAgeSeconds))
	}
	if origin != "*" {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
}

// allowOrigin tells a browser that the page it shows may have the answer.
func (c *call) allowOrigin() {
	origin := c.r.Header.Get("Origin")
	if origin == "" {
		return
	}
	var rules corsRules
	if ok, err := config(c.ctx, c.b, "cors", "CORSConfiguration", &rules); err != nil || !ok {
		return
	}
	method := c.r.Header.Get("Access-Control-Request-Method")
	if method == "" {
		method = c.r.Method
	}
	if r, allowed := rules.match(origin, method, nil); r != nil {
		r.say(c.h, allowed, method, nil)
	}
}

// preflight answers a browser that asks what a page may do.
func (c *call) preflight() error {
	origin, method := c.r.Header.Get("Origin"), c.r.Header.Get("Access-Control-Request-Method")
	if origin == "" {
		return failf("BadRequest", "Insufficient information. Origin request header needed.")
	}
	if !slices.Contains([]string{"GET", "PUT", "POST", "DELETE", "HEAD"}, method) {
		return failf("BadRequest", "Invalid Access-Control-Request-Method: %s", method)
	}
	if c.bucket == "" {
		return failf("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")
	}
	// Whose key will be used is not known yet.
	c.who = caller{anonymous: true}
	if err := c.openBucket(); err != nil {
		return err
	}
	var rules corsRules
	ok, err := config(c.ctx, c.b, "cors", "CORSConfiguration", &rules)
	if err != nil {
		return err
	}
	if !ok {
		return failf("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")
	}
	var headers []string
	for h := range strings.SplitSeq(c.r.Header.Get("Access-Control-Request-Headers"), ",") {
		if strings.TrimSpace(h) != "" && !headerName(strings.Trim(h, " "), "") {
			return failf("BadRequest", "Access-Control-Request-Headers \"%s\" contains invalid character.", h)
		}
		if h = strings.ToLower(strings.TrimSpace(h)); h != "" {
			headers = append(headers, h)
		}
	}
	r, allowed := rules.match(origin, method, headers)
	if r == nil {
		return fail("AccessForbidden").with("Method", method).with("ResourceType", "BUCKET")
	}
	r.say(c.h, allowed, method, headers)
	return c.done(http.StatusOK)
}
