package sigv4

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest is the text whose hash is signed.
func canonicalRequest(r *http.Request, s *signature, payload string, s3 bool) (string, error) {
	path, err := canonicalPath(r.URL, s3)
	if err != nil {
		return "", err
	}
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return "", err
	}
	headers, err := canonicalHeaders(r, s.headers)
	if err != nil {
		return "", err
	}
	return r.Method + "\n" + path + "\n" + query + "\n" + headers + "\n" + strings.Join(s.headers, ";") + "\n" + payload, nil
}

// canonicalPath is a path with all encoded but what never has to be. S3 takes the
// path as it is; the others take out what leads nowhere, and encode what they see
// a second time.
func canonicalPath(u *url.URL, s3 bool) (string, error) {
	path := u.EscapedPath()
	if s3 {
		plain, err := url.PathUnescape(path)
		if err != nil {
			return "", fail(Malformed, "The path can't be read")
		}
		path = plain
	} else {
		path = normal(path)
	}
	if path == "" {
		path = "/"
	}
	return encode(path, true), nil
}

// normal removes ".", "..", and empty parts (RFC 3986 §6.2.2.3).
func normal(path string) string {
	var out []string
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, part)
		}
	}
	joined := "/" + strings.Join(out, "/")
	if len(out) > 0 && (strings.HasSuffix(path, "/") || strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..")) {
		joined += "/"
	}
	return joined
}

const upperHex = "0123456789ABCDEF"

// encode encodes all but letters, digits, '-', '.', '_', '~', and slashes if they
// are to be kept.
func encode(s string, slashes bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 || slashes && c == '/' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
	return b.String()
}

// canonicalQuery is a query in order, without the signature.
func canonicalQuery(raw string) (string, error) {
	var out [][2]string
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil {
			return "", fail(BadQuery, "The query can't be read")
		}
		if name != "X-Amz-Signature" {
			out = append(out, [2]string{encode(name, false), encode(value, false)})
		}
	}
	slices.SortFunc(out, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	parts := make([]string, len(out))
	for i, p := range out {
		parts[i] = p[0] + "=" + p[1]
	}
	return strings.Join(parts, "&"), nil
}

// canonicalHeaders are the headers that were signed.
func canonicalHeaders(r *http.Request, signed []string) (string, error) {
	var b strings.Builder
	for _, name := range signed {
		values := r.Header.Values(name)
		switch {
		case name == "host":
			values = []string{r.Host}
		case name == "content-length" && len(values) == 0 && r.ContentLength >= 0:
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		case name == "transfer-encoding" && len(values) == 0:
			values = r.TransferEncoding
		}
		if len(values) == 0 && name != "" {
			return "", fail(Mismatch, "The signed header %.80s is not in the request", name)
		}
		b.WriteString(name)
		b.WriteByte(':')
		for i, v := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(trim(v))
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// trim leaves one space of several, and none at the ends.
func trim(v string) string {
	v = strings.Trim(v, " \t")
	if !strings.Contains(v, "  ") {
		return v
	}
	var b strings.Builder
	for i := range len(v) {
		if v[i] != ' ' || v[i-1] != ' ' {
			b.WriteByte(v[i])
		}
	}
	return b.String()
}
