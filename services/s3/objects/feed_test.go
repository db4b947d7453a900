package objects

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/cloud/folder"
)

// events returns what happened since a cursor.
func (r *rig) events(cursor string) (names []string, cursors []string) {
	r.t.Helper()
	for e, err := range r.Changes(r.t.Context(), cursor) {
		must(r.t, err)
		s := strings.TrimPrefix(e.Name, "Object") + " " + e.Object.Key
		if e.By != "" {
			s += " by " + e.By
		}
		names, cursors = append(names, s), append(cursors, e.Cursor)
		if e.Time.IsZero() || e.Sequence == "" {
			r.t.Errorf("%s has no time or place", s)
		}
	}
	return names, cursors
}

func TestChangesTellWhatHappened(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	begin, err := r.Cursor(ctx)
	must(t, err)
	_, err = r.Put(ctx, "a", strings.NewReader("1"), PutOptions{By: "me"})
	must(t, err)
	r.put("a//b", "odd")
	must(t, r.f.Put(ctx, "/disk", strings.NewReader("2"), folder.PutOptions{}))
	o, err := r.Head(ctx, "a", "")
	must(t, err)
	_, err = r.Copy(ctx, "copy", r.Bucket, o, PutOptions{Event: CreatedPost})
	must(t, err)
	u, list := r.upload("multi", []int{1}, []byte("x"))
	_, err = r.Complete(ctx, "multi", u.ID, list, CompleteOptions{})
	must(t, err)
	_, err = r.SetTags(ctx, "a", "", []Tag{{"a", "b"}})
	must(t, err)
	_, err = r.SetACL(ctx, "a", "", "private")
	must(t, err)
	r.remove("copy", "")
	r.versioned()
	r.put("a", "2")
	first := r.put("v", "1")
	second := r.put("v", "2")
	marker := r.remove("v", "")
	_, err = r.SetTags(ctx, "v", first.Version, nil)
	must(t, err)
	r.remove("v", marker.Version)
	r.remove("v", second.Version)
	r.remove("v", first.Version)
	must(t, r.SetConfig(ctx, "policy", []byte("x")))
	must(t, r.f.Remove(ctx, "/disk", folder.RemoveOptions{}))
	all := []string{
		"Created:Put a by me", "Created:Put a//b", "Created:Put disk", "Created:Post copy", "Created:CompleteMultipartUpload multi", "Tagging:Put a", "Acl:Put a", "Removed:Delete copy",
		"Created:Put a", "Created:Put v", "Created:Put v", "Removed:DeleteMarkerCreated v", "Tagging:Put v", "Removed:Delete v", "Removed:Delete v", "Removed:Delete v", "Removed:Delete disk",
	}
	for _, cursor := range []string{"", begin} {
		names, cursors := r.events(cursor)
		want(t, "events", strings.Join(names, "\n"), strings.Join(all, "\n"))
		for i, c := range cursors {
			rest, _ := r.events(c)
			want(t, fmt.Sprint("events behind ", i), strings.Join(rest, "\n"), strings.Join(all[i+1:], "\n"))
		}
	}
	end, err := r.Cursor(ctx)
	must(t, err)
	rest, _ := r.events(end)
	want(t, "behind the end", len(rest), 0)
	for _, bad := range []string{"x", "AAAA", "!"} {
		for _, err := range r.Changes(ctx, bad) {
			wantErr(t, "bad cursor", err, ErrCursor)
		}
	}
}
