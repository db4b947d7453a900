package folder

import (
	"context"
	"fmt"
	"io"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
)

// Again returns what a statement about a key of the tree has to be when its writer's
// logs are given up: its value, with a content that is stored anew in this device's
// log. The hold keeps that until it was said.
func (f *Folder) Again(ctx context.Context, hold *content.Hold, raw tree.Entry) ([]byte, error) {
	if raw.Value == nil || !isFile(string(raw.Key)) {
		return raw.Value, nil
	}
	e := readOne(raw)
	if e.Kind != File || e.Content.IsZero() {
		return raw.Value, nil
	}
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("store %q again: %w", e.Path, err) }
	r, err := f.content.NewReader(ctx, e.Content)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	w := hold.NewWriter(ctx, content.WriteOptions{})
	defer w.Abort()
	if _, err := io.Copy(w, r); err != nil {
		return fail(err)
	}
	if err := w.Close(); err != nil {
		return fail(err)
	}
	e.Content = w.Ref()
	return e.encode(), nil
}
