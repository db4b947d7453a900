package objects

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
)

// What an Event says that happened, as S3 names it.
const (
	CreatedPut       = "ObjectCreated:Put"
	CreatedPost      = "ObjectCreated:Post"
	CreatedCopy      = "ObjectCreated:Copy"
	CreatedMultipart = "ObjectCreated:CompleteMultipartUpload"
	Removed          = "ObjectRemoved:Delete"
	MarkerMade       = "ObjectRemoved:DeleteMarkerCreated"
	ExpiredMarker    = "LifecycleExpiration:DeleteMarkerCreated"
	Tagged           = "ObjectTagging:Put"
	RetentionChanged = "ObjectRetention:Put" // of ours
	ACLChanged       = "ObjectAcl:Put"
)

// An Event is something that happened to an object.
type Event struct {
	Name   string
	Object Object // what is there now; of what was removed its key and version
	Time   time.Time
	By     string // who, where it is known
	// Sequence sorts the events of a key.
	Sequence string
	// Cursor goes on behind the event.
	Cursor string
}

// Changes returns what happened since a cursor, on all devices as far as is known
// here, in the order of time, and ends there. "" is the beginning. What others did
// comes when it is known, which may be after what happened later. Whoever goes on
// behind the last event that was dealt with gets each at least once.
func (b *Bucket) Changes(ctx context.Context, cursor string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		fail := func(err error) { yield(Event{}, fmt.Errorf("changes of bucket %q: %w", b.Name(), err)) }
		at, err := tree.ParseVersion(cursor)
		if err != nil {
			fail(fmt.Errorf("%w: %w", ErrCursor, err))
			return
		}
		s, err := b.State(ctx)
		if err != nil {
			fail(err)
			return
		}
		// Of an object that is removed by a marker, or with its version, only the second
		// statement says what happened.
		var held *Event
		give := func() bool {
			e := held
			held = nil
			return e == nil || yield(*e, nil)
		}
		for said, err := range b.f.Said(ctx, at) {
			if err != nil {
				fail(err)
				return
			}
			e, wait, ok := event(said, s)
			if held != nil && ok && !wait && e.Object.Key == held.Object.Key && e.Object.Version != held.Object.Version && e.Time.Equal(held.Time) && strings.HasPrefix(e.Name, removing) {
				held = nil
			}
			if !give() {
				return
			}
			at[said.Writer] = said.Seq + 1
			if !ok {
				continue
			}
			e.Sequence = fmt.Sprintf("%016X%08X", e.Time.UnixNano(), said.Seq)
			e.Cursor = at.Text()
			if held = &e; !wait && !give() {
				return
			}
		}
		give()
	}
}

// removing is what the names of events begin with that remove something.
const removing = "ObjectRemoved:"

// event reads what was said as an event. It is to wait for what was said next where
// that may say better what happened.
func event(said folder.Saying, s State) (e Event, wait, ok bool) {
	e.Time = said.Time
	key, isPath := strings.CutPrefix(said.Path, "/")
	id := ""
	if said.Aside {
		var isVersion bool
		if key, isPath = strings.CutPrefix(said.Path, rowObject); !isPath {
			if key, id, isVersion = splitRow(rowVersion, said.Path); !isVersion {
				return e, false, false
			}
		}
	}
	if checkKey(key) != nil {
		return e, false, false
	}
	if said.Deleted {
		e.Name, e.Object = Removed, Object{Key: key}
		if !isPath {
			e.Object.Version = versionName(id)
		}
		return e, isPath, true
	}
	v, ok, err := read(said.Entry, nil, false)
	if !ok || err != nil || said.Growing {
		return e, false, false
	}
	e.Name, e.By = v.a.event, v.a.by
	switch {
	case v.plain && isPath:
		e.Name = CreatedPut
	case e.Name == "":
		return e, false, false
	}
	e.Object = v.object(key, s, isPath || v.a.marker).typed()
	return e, false, true
}

// Cursor returns the one behind all that happened.
func (b *Bucket) Cursor(ctx context.Context) (string, error) {
	v, err := b.f.Version(ctx)
	if err != nil {
		return "", fmt.Errorf("cursor of bucket %q: %w", b.Name(), err)
	}
	return v.Text(), nil
}
