package disk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"time"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// Options for Open.
type Options struct {
	// Dir is the folder on the disk. It must be there, unless it is known: then that
	// it is gone is a notice.
	Dir string
	// Folder is that of the cloud. It stays the caller's, and open until Close.
	Folder *folder.Folder
	// Index is where the Keeper keeps what it knows, with others: all its keys begin
	// with "disk/" and ID. It stays the caller's, and open until Close.
	Index storage.Engine
	// ID names the folder in the index.
	ID string
	// Clock is the time seam. The machine's clock when nil.
	Clock clock.Clock
	// Watcher tells of changes on the disk. Without one it is looked through from
	// time to time.
	Watcher *Watcher
	// Sparse folders have on the disk what was made there and what was asked for
	// with Get.
	Sparse bool
	// Mended is how often logs of the folder have become others, under the same keys
	// (cloud.Cloud.Mended): versions of before mean nothing then.
	Mended int
	// Changed, if it is not nil, is called after each round, for who shows Status.
	// It must return soon.
	Changed func()
}

// Open returns the Keeper of a folder. It looks at nothing yet, however large the
// folder is. It must be closed.
func Open(o Options) (*Keeper, error) {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	return newKeeper(config{
		dir: dir, id: o.ID, source: cloudFolder{o.Folder}, engine: o.Index, clock: o.Clock,
		watcher: o.Watcher, sparse: o.Sparse, mended: o.Mended, boot: bootID(), booted: bootTime(o.Clock.Now()), open: opener(), changed: o.Changed,
	})
}

// cloudFolder is a folder of the cloud as a source.
type cloudFolder struct{ f *folder.Folder }

func (c cloudFolder) version(ctx context.Context) ([]byte, error) {
	v, err := c.f.Version(ctx)
	if err != nil {
		return nil, err
	}
	return v.AppendTo(nil), nil
}

// readVersion takes a version that makes no sense for that of an empty folder:
// then more is compared than needed.
func readVersion(b []byte) tree.Version {
	v, err := tree.ReadVersion(b)
	if err != nil {
		return nil
	}
	return v
}

func (c cloudFolder) changes(ctx context.Context, since []byte) iter.Seq2[change, error] {
	return func(yield func(change, error) bool) {
		for ch, err := range c.f.AllChanges(ctx, readVersion(since)) {
			switch {
			case errors.Is(err, tree.ErrWriter):
				err = errors.Join(errOther, err)
			case errors.Is(err, hypercore.ErrLength):
				err = errors.Join(errBehind, err)
			}
			if err != nil {
				yield(change{}, err)
				return
			}
			out := change{path: ch.Path}
			if ch.New != nil {
				out.now = ours(*ch.New)
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func (c cloudFolder) sync() error {
	for _, log := range c.f.Contents().Logs() {
		return log.Sync() // it syncs the store, which all logs are in
	}
	return nil
}

func (c cloudFolder) writable() bool { return c.f.Writable() }

func (c cloudFolder) resolve(ctx context.Context, since []byte) error {
	if !c.f.Writable() {
		return nil
	}
	_, err := c.f.ResolveConflicts(ctx, readVersion(since))
	return err
}

func (c cloudFolder) stat(ctx context.Context, path string) (*entry, error) {
	e, err := c.f.Entry(ctx, path)
	if errors.Is(err, folder.ErrNotFound) || err == nil && e.Deleted {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ours(e), nil
}

// keptMode are the permissions that are kept the same.
const keptMode = fs.ModePerm

// ours makes an entry of one of the folder.
func ours(e folder.Entry) *entry {
	out := &entry{path: e.Path, size: e.Size, mode: e.Mode & keptMode, link: e.Link, hash: e.Content.Hash, stamp: string(e.Stamp), bare: string(e.Values()), own: e}
	switch e.Kind {
	case folder.File:
		out.kind = kindFile
	case folder.Dir:
		out.kind = kindDir
	case folder.Symlink:
		out.kind = kindLink
	}
	if !e.ModTime.IsZero() {
		out.mtime = e.ModTime.UnixNano()
	}
	out.conflict = e.Conflicts() > 0
	return out
}

func (c cloudFolder) open(ctx context.Context, e *entry) (io.ReadCloser, error) {
	return c.f.OpenEntry(ctx, e.own.(folder.Entry))
}

func (c cloudFolder) missing(ctx context.Context, e *entry) (int64, error) {
	return c.f.MissingEntry(ctx, e.own.(folder.Entry))
}

func (c cloudFolder) fetch(ctx context.Context, e *entry) error {
	return c.f.Contents().Download(ctx, e.own.(folder.Entry).Content)
}

func (c cloudFolder) notify(f func()) (stop func()) { return c.f.Notify(f) }

func (c cloudFolder) batch(ctx context.Context) (batch, error) {
	b, err := c.f.Batch(ctx)
	if err != nil {
		return nil, err
	}
	return cloudBatch{b}, nil
}

type cloudBatch struct{ b *folder.Batch }

func (c cloudBatch) put(ctx context.Context, e entry, in io.Reader, over string) error {
	o := folder.PutOptions{Mode: e.mode, Seen: true, Over: []byte(over)}
	switch e.kind {
	case kindDir:
		return c.b.Mkdir(ctx, e.path, o)
	case kindLink:
		err := c.b.Symlink(ctx, e.path, e.link, o)
		if errors.Is(err, folder.ErrPath) {
			err = errors.Join(errName, err)
		}
		return err
	}
	o.ModTime = time.Unix(0, e.mtime)
	if in == nil {
		return c.b.PutContent(ctx, e.path, e.own.(folder.Entry).Content, o)
	}
	return c.b.Put(ctx, e.path, in, o)
}

func (c cloudBatch) remove(ctx context.Context, path, over string) error {
	return c.b.Remove(ctx, path, folder.RemoveOptions{Seen: true, Over: []byte(over)})
}

func (c cloudBatch) flush(ctx context.Context) ([]entry, error) {
	said, err := c.b.Flush(ctx)
	out := make([]entry, len(said))
	for i, e := range said {
		out[i] = *ours(e)
	}
	return out, err
}

func (c cloudBatch) close() { c.b.Close() }
