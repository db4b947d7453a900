package s3

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// A span is bytes of an object: n of them from start on.
type span struct{ start, n int64 }

func (s span) header(size int64) string {
	return "bytes " + strconv.FormatInt(s.start, 10) + "-" + strconv.FormatInt(s.start+s.n-1, 10) + "/" + strconv.FormatInt(size, 10)
}

// parseRange reads a Range. What can't be read, and what asks for several ranges, is
// as if there were none (RFC 9110 §14.2), as S3 does.
func parseRange(text string, size int64) (s span, ok bool, err error) {
	list, isBytes := strings.CutPrefix(text, "bytes=")
	first, last, isRange := strings.Cut(list, "-")
	if !isBytes || !isRange || strings.Contains(list, ",") {
		return span{}, false, nil
	}
	unsatisfiable := fail("InvalidRange").with("RangeRequested", text).with("ActualObjectSize", strconv.FormatInt(size, 10)).
		withHeader("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
	if first == "" {
		n, ok := number(last)
		switch {
		case !ok:
			return span{}, false, nil
		case n == 0 || size == 0:
			return span{}, false, unsatisfiable
		}
		n = min(n, size)
		return span{size - n, n}, true, nil
	}
	start, ok1 := number(first)
	end, ok2 := number(last)
	if last == "" {
		end, ok2 = size-1, true
	}
	switch {
	case !ok1 || !ok2 || last != "" && end < start:
		return span{}, false, nil
	case start >= size:
		return span{}, false, unsatisfiable
	}
	return span{start, min(end, size-1) - start + 1}, true, nil
}

// number reads a number without signs.
func number(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err == nil
}

// copyRange reads x-amz-copy-source-range, which has to be in the object.
func copyRange(text string, size int64) (span, error) {
	list, ok := strings.CutPrefix(text, "bytes=")
	first, last, dash := strings.Cut(list, "-")
	start, ok1 := number(first)
	end, ok2 := number(last)
	if !ok || !dash || !ok1 || !ok2 || end < start {
		return span{}, badArgument("x-amz-copy-source-range", text, "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
	}
	if end >= size {
		return span{}, badArgument("x-amz-copy-source-range", text, "Range specified is not valid for source object of size: %d", size)
	}
	return span{start, end - start + 1}, nil
}

// conditions are those of reading: the headers of a GET or HEAD, or those of the
// source of a copy.
type conditions struct {
	match, noneMatch           string
	modifiedSince, unmodified  time.Time
	hasModified, hasUnmodified bool
}

// readConditions reads conditions whose headers begin with prefix. Dates that can't
// be read are no conditions (RFC 9110 §13.1.3).
func readConditions(h http.Header, prefix string) conditions {
	c := conditions{match: h.Get(prefix + "If-Match"), noneMatch: h.Get(prefix + "If-None-Match")}
	c.modifiedSince, c.hasModified = httpTime(h.Get(prefix + "If-Modified-Since"))
	c.unmodified, c.hasUnmodified = httpTime(h.Get(prefix + "If-Unmodified-Since"))
	return c
}

// httpTime reads a date of HTTP, or one of ISO 8601, which S3 takes, too.
func httpTime(text string) (time.Time, bool) {
	if text == "" {
		return time.Time{}, false
	}
	if at, err := http.ParseTime(text); err == nil {
		return at, true
	}
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}

// check looks whether an object is as the conditions want it (RFC 9110 §13.2.2).
func (c conditions) check(o objects.Object) error {
	at := o.Modified.Truncate(time.Second)
	switch {
	case c.match != "":
		if !matches(c.match, o.ETag) {
			return fail("PreconditionFailed").with("Condition", "If-Match")
		}
	case c.hasUnmodified && at.After(c.unmodified):
		return fail("PreconditionFailed").with("Condition", "If-Unmodified-Since")
	}
	switch {
	case c.noneMatch != "":
		if matches(c.noneMatch, o.ETag) {
			return fail("NotModified").with("Condition", "If-None-Match")
		}
	case c.hasModified && !at.After(c.modifiedSince):
		return fail("NotModified").with("Condition", "If-Modified-Since")
	}
	return nil
}

// matches reports whether a list of ETags has one, or is "*".
func matches(list, etag string) bool {
	for _, t := range etags(list) {
		if t == "*" || t == etag {
			return true
		}
	}
	return false
}

// etags reads a list of ETags, with or without quotes.
func etags(list string) []string {
	var out []string
	for t := range strings.SplitSeq(list, ",") {
		if t = unquote(t); t != "" {
			out = append(out, t)
		}
	}
	return out
}

func unquote(etag string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(etag), "W/"), `"`)
}

// writeConditions are those of a change.
func writeConditions(h http.Header) (objects.Conditions, error) {
	c := objects.Conditions{IfMatch: etags(h.Get("If-Match")), IfNoneMatch: etags(h.Get("If-None-Match"))}
	if len(c.IfMatch) > 0 && len(c.IfNoneMatch) > 0 {
		return c, fail("NotImplemented").with("Header", "If-Match,If-None-Match")
	}
	return c, nil
}
