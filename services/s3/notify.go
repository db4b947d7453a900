package s3

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// notifications say who is told of what, as it is in XML.
type notifications struct {
	TopicConfiguration         []target  `xml:",omitempty"`
	QueueConfiguration         []target  `xml:",omitempty"`
	CloudFunctionConfiguration []target  `xml:",omitempty"`
	EventBridgeConfiguration   *struct{} `xml:",omitempty"`
}

// A target is told of some events. It has one of its three names.
type target struct {
	ID            string `xml:"Id"`
	Topic         string `xml:",omitempty"`
	Queue         string `xml:",omitempty"`
	CloudFunction string `xml:",omitempty"`
	Event         []string
	Filter        *struct {
		S3Key struct {
			FilterRule []struct{ Name, Value string }
		}
	} `xml:",omitempty"`
}

func (n notifications) all() []target {
	return slices.Concat(n.TopicConfiguration, n.QueueConfiguration, n.CloudFunctionConfiguration)
}

func (t target) arn() string { return t.Topic + t.Queue + t.CloudFunction }

func readNotification(_ *call, body []byte) (any, error) {
	var in notifications
	if err := decode(body, "NotificationConfiguration", &in); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, list := range [][]target{in.TopicConfiguration, in.QueueConfiguration, in.CloudFunctionConfiguration} {
		for i := range list {
			t := &list[i]
			if t.ID == "" {
				var b [8]byte
				rand.Read(b[:])
				t.ID = hex.EncodeToString(b[:])
			}
			if seen[t.ID] {
				return nil, badArgument("Id", t.ID, "Two configurations can't have the same id")
			}
			seen[t.ID] = true
			if err := t.check(); err != nil {
				return nil, err
			}
		}
	}
	return in, nil
}

func (t *target) check() error {
	if !strings.HasPrefix(t.arn(), "arn:") {
		return badArgument("ARN", t.arn(), "The ARN could not be parsed")
	}
	if len(t.Event) == 0 {
		return fail("MalformedXML")
	}
	for _, e := range t.Event {
		if !strings.HasPrefix(e, "s3:") {
			return badArgument("Event", e, "The event is not supported for notifications")
		}
	}
	if t.Filter != nil {
		for _, r := range t.Filter.S3Key.FilterRule {
			if !strings.EqualFold(r.Name, "prefix") && !strings.EqualFold(r.Name, "suffix") {
				return badArgument("FilterRule.Name", r.Name, "filter rule name must be either prefix or suffix")
			}
		}
	}
	return nil
}

// takes reports whether a target is told of an event.
func (t target) takes(event, key string) bool {
	if !slices.ContainsFunc(t.Event, func(e string) bool { return oneStar(strings.TrimPrefix(e, "s3:"), event) }) {
		return false
	}
	if t.Filter == nil {
		return true
	}
	for _, r := range t.Filter.S3Key.FilterRule {
		if strings.EqualFold(r.Name, "prefix") && !strings.HasPrefix(key, r.Value) || strings.EqualFold(r.Name, "suffix") && !strings.HasSuffix(key, r.Value) {
			return false
		}
	}
	return true
}

// A Notice is an event that a bucket's notification configuration names.
type Notice struct {
	// Target is the ARN that is to be told, and Body the message, as S3 sends it.
	Target string
	Body   []byte
	// Cursor goes on behind it.
	Cursor string
}

// Notices returns who is to be told of what happened in a bucket since a cursor, and
// ends at what there is now. See [objects.Bucket.Changes]. What nobody asked to be
// told has no target and no body, for its cursor's sake.
func (d *Door) Notices(ctx context.Context, app, bucket, cursor string) iter.Seq2[Notice, error] {
	return func(yield func(Notice, error) bool) {
		if !d.enter() {
			yield(Notice{}, errors.New("read notices: the door is closed"))
			return
		}
		defer d.busy.Done()
		b, err := d.store.Open(ctx, app, bucket)
		if err != nil {
			yield(Notice{}, err)
			return
		}
		defer b.Close()
		var n notifications
		if _, err := config(ctx, b, "notification", "NotificationConfiguration", &n); err != nil {
			yield(Notice{}, err)
			return
		}
		targets := n.all()
		for e, err := range b.Changes(ctx, cursor) {
			if err != nil {
				yield(Notice{}, err)
				return
			}
			told := false
			for _, t := range targets {
				if t.takes(e.Name, e.Object.Key) {
					told = true
					if !yield(Notice{t.arn(), d.message(app, bucket, t.ID, e), e.Cursor}, nil) {
						return
					}
				}
			}
			if !told && !yield(Notice{Cursor: e.Cursor}, nil) {
				return
			}
		}
	}
}

// message is an event as S3 tells it ("Event message structure").
func (d *Door) message(app, bucket, id string, e objects.Event) []byte {
	object := map[string]any{"key": url.QueryEscape(e.Object.Key), "sequencer": e.Sequence}
	if strings.HasPrefix(e.Name, "ObjectCreated:") {
		object["size"], object["eTag"] = e.Object.Size, e.Object.ETag
	}
	if e.Object.Version != "" {
		object["versionId"] = e.Object.Version
	}
	return jsonText(map[string]any{"Records": []any{map[string]any{
		"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": d.o.Region, "eventTime": e.Time.UTC().Format(time.RFC3339Nano), "eventName": e.Name,
		"userIdentity":      map[string]any{"principalId": e.By},
		"requestParameters": map[string]any{"sourceIPAddress": ""},
		"responseElements":  map[string]any{"x-amz-request-id": strconv.FormatInt(e.Time.UnixNano(), 16)},
		"s3": map[string]any{
			"s3SchemaVersion": "1.0", "configurationId": id, "object": object,
			"bucket": map[string]any{"name": bucket, "arn": "arn:aws:s3:::" + bucket, "ownerIdentity": map[string]any{"principalId": canonicalID(app)}},
		},
	}}})
}
