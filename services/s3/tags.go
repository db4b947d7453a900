package s3

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// Bounds of tags.
const (
	maxTags       = 10
	maxBucketTags = 50
	maxTagKey     = 128
	maxTagValue   = 256
)

// tagging is tags as they are in XML.
type tagging struct {
	TagSet *tagSet
}

type tagSet struct{ Tag []xmlTag }

func (s tagSet) tags() []objects.Tag {
	out := make([]objects.Tag, len(s.Tag))
	for i, t := range s.Tag {
		out[i] = objects.Tag(t)
	}
	return out
}

type xmlTag struct{ Key, Value string }

// parseTags reads tags of XML.
func parseTags(body []byte, limit int) (tagging, []objects.Tag, error) {
	var in tagging
	if err := decode(body, "Tagging", &in); err != nil {
		return in, nil, err
	}
	if in.TagSet == nil {
		return in, nil, fail("MalformedXML")
	}
	tags := in.TagSet.tags()
	return in, tags, checkTags(tags, limit)
}

// parseTagHeader reads tags of a header: a=b&c=d.
func parseTagHeader(text string) ([]objects.Tag, error) {
	if text == "" {
		return nil, nil
	}
	var tags []objects.Tag
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		key, err1 := url.QueryUnescape(key)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || key == "" {
			return nil, badTagging(text)
		}
		if slices.ContainsFunc(tags, func(t objects.Tag) bool { return t.Key == key }) {
			return nil, badTagging(text)
		}
		tags = append(tags, objects.Tag{Key: key, Value: value})
	}
	slices.SortFunc(tags, func(a, b objects.Tag) int { return strings.Compare(a.Key, b.Key) })
	return tags, checkTags(tags, maxTags)
}

func badTagging(text string) *Error {
	return badArgument("x-amz-tagging", text, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
}

func checkTags(tags []objects.Tag, limit int) error {
	if len(tags) > limit {
		if limit == maxTags {
			return failf("BadRequest", "Object tags cannot be greater than 10")
		}
		return failf("BadRequest", "Bucket tag count cannot be greater than 50")
	}
	seen := map[string]bool{}
	for _, t := range tags {
		switch {
		case t.Key == "" || utf8.RuneCountInString(t.Key) > maxTagKey || !goodTag(t.Key) || strings.HasPrefix(t.Key, "aws:"):
			return failf("InvalidTag", "The TagKey you have provided is invalid").with("TagKey", t.Key)
		case utf8.RuneCountInString(t.Value) > maxTagValue || !goodTag(t.Value):
			return failf("InvalidTag", "The TagValue you have provided is invalid").with("TagKey", t.Key).with("TagValue", t.Value)
		case seen[t.Key]:
			return failf("InvalidTag", "Cannot provide multiple Tags with the same key").with("TagKey", t.Key)
		}
		seen[t.Key] = true
	}
	return nil
}

// goodTag reports whether a tag has only what tags may have.
func goodTag(s string) bool {
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.Is(unicode.M, r) && !unicode.Is(unicode.Zs, r) && !strings.ContainsRune("+-=._:/@", r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

func readBucketTags(_ *call, body []byte) (any, error) {
	in, _, err := parseTags(body, maxBucketTags)
	return in, err
}

func (c *call) putTags() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	body, err := c.text(maxBody)
	if err != nil {
		return err
	}
	_, tags, err := parseTags(body, maxTags)
	if err != nil {
		return err
	}
	return c.setTags(version, tags, http.StatusOK)
}

func (c *call) setTags(version string, tags []objects.Tag, status int) error {
	o, err := c.b.SetTags(c.ctx, c.key, version, tags)
	if err != nil {
		return c.versionError(err, version)
	}
	c.setVersion(o.Version)
	return c.done(status)
}

func (c *call) getTags() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	o, err := c.b.Head(c.ctx, c.key, version)
	if err != nil {
		return c.readError(o, err, version)
	}
	c.setVersion(o.Version)
	d := newDocument("Tagging")
	d.in("TagSet")
	for _, t := range o.Tags {
		d.in("Tag")
		d.put("Key", t.Key)
		d.put("Value", t.Value)
		d.out()
	}
	d.out()
	return c.reply(d)
}

func (c *call) deleteTags() error {
	version, err := c.version()
	if err != nil {
		return err
	}
	return c.setTags(version, nil, http.StatusNoContent)
}
