package hyperdrive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// maxLinks is how many links are followed, as in the npm package.
const maxLinks = 16

// Entry returns the entry of a path: of a link itself, not of what it leads to.
// ErrNotFound means that there is none.
func (d *Drive) Entry(ctx context.Context, path string) (Entry, error) {
	path, err := CleanPath(path)
	if err != nil {
		return Entry{}, err
	}
	return d.entry(ctx, path)
}

func (d *Drive) entry(ctx context.Context, path string) (Entry, error) {
	raw, err := d.files.Get(ctx, []byte(path))
	return d.found(path, raw, err)
}

// found makes an entry of one of the tree's.
func (d *Drive) found(path string, raw hyperbee.Entry, err error) (Entry, error) {
	if errors.Is(err, hyperbee.ErrNotFound) {
		return Entry{}, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("%s: %w", path, err)
	}
	return d.decode(raw)
}

func (d *Drive) decode(raw hyperbee.Entry) (Entry, error) {
	e := Entry{Path: string(raw.Key), Seq: raw.Seq}
	if err := e.parse(raw.Value); err != nil {
		return Entry{}, fmt.Errorf("%w: entry %q of drive %s: %w", ErrInvalid, e.Path, d.Key(), err)
	}
	return e, nil
}

// Follow is Entry of what links lead to. A link that is relative starts at its
// folder, as everywhere but in the npm package, where it starts at the link.
// ErrLoop means that it led to more than 16 others.
func (d *Drive) Follow(ctx context.Context, path string) (Entry, error) {
	e, err := d.Entry(ctx, path)
	for range maxLinks {
		if err != nil || !e.IsLink() {
			return e, err
		}
		target, err := resolve(e.Path, e.Linkname)
		if err != nil {
			return Entry{}, fmt.Errorf("%s: %w", e.Path, err)
		}
		if target == "" {
			return Entry{}, fmt.Errorf("%s leads to the drive itself: %w", e.Path, ErrNotFound)
		}
		if e, err = d.entry(ctx, target); err != nil {
			return Entry{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	return Entry{}, fmt.Errorf("%s: %w", path, ErrLoop)
}

// ReadFile returns the contents of a file. It follows no links: what has no
// contents, as they do, is ErrNotFound.
func (d *Drive) ReadFile(ctx context.Context, path string) ([]byte, error) {
	e, err := d.Entry(ctx, path)
	if err != nil {
		return nil, err
	}
	if e.Blob == nil {
		return nil, fmt.Errorf("%s has no contents: %w", e.Path, ErrNotFound)
	}
	blobs, err := d.Blobs(ctx)
	if err != nil {
		return nil, err
	}
	data, err := blobs.Get(ctx, *e.Blob)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	return data, nil
}

// OpenFile returns a reader of an entry's contents, none if it has none. What is
// not here is fetched while the context lasts.
func (d *Drive) OpenFile(ctx context.Context, e Entry) (*hyperblobs.Reader, error) {
	blobs, err := d.Blobs(ctx)
	if err != nil {
		return nil, err
	}
	r, err := blobs.NewReader(ctx, e.blob())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	return r, nil
}

// blob returns where the contents are, of a blob without any if there are none.
func (e *Entry) blob() hyperblobs.ID {
	if e.Blob == nil {
		return hyperblobs.ID{}
	}
	return *e.Blob
}

// Size returns how many bytes an entry's contents have. Those of a file that was
// written with Dedup may have to be asked for.
func (d *Drive) Size(ctx context.Context, e Entry) (uint64, error) {
	if id := e.blob(); !id.BlockMap {
		return id.ByteLength, nil
	}
	blobs, err := d.Blobs(ctx)
	if err != nil {
		return 0, err
	}
	n, err := blobs.Size(ctx, *e.Blob)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", e.Path, err)
	}
	return n, nil
}

// ListOptions say which entries List returns. The zero value is all of them.
type ListOptions struct {
	// Ignore leaves out the entries whose path it says yes to.
	Ignore func(path string) bool
	// From leaves out the entries before this path.
	From string
	// Reverse goes from the last to the first.
	Reverse bool
}

// List returns the entries in a folder and the folders in it, in the order of
// the bytes of their paths, of the version there is when it begins. It ends with
// the first error. Paths of somebody else's drive are as they are there, and may
// be none that CleanPath returns.
func (d *Drive) List(ctx context.Context, folder string, o ListOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r, err := inside(folder)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if o.From != "" && o.From > string(r.Gt) {
			r.Gt, r.Gte = nil, []byte(o.From)
		}
		r.Reverse = o.Reverse
		for raw, err := range d.files.Range(ctx, r) {
			var e Entry
			if err == nil {
				if o.Ignore != nil && o.Ignore(string(raw.Key)) {
					continue
				}
				e, err = d.decode(raw)
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("list %q: %w", folder, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// inside is the range of the paths in a folder.
func inside(folder string) (hyperbee.RangeOptions, error) {
	folder, err := cleanFolder(folder)
	if err != nil {
		return hyperbee.RangeOptions{}, err
	}
	return hyperbee.RangeOptions{Gt: []byte(folder + "/"), Lt: []byte(folder + "0")}, nil // '0' comes after '/'
}

// A DirEntry is what a folder has: a file or link, or a folder, which have no
// entry of their own.
type DirEntry struct {
	Name  string
	Dir   bool
	Entry Entry // of what is no folder
}

// ReadDir returns what is in a folder, in the order of the paths. It ends with
// the first error. A file and a folder of one name are both returned.
func (d *Drive) ReadDir(ctx context.Context, folder string) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		if err := d.readDir(ctx, folder, yield); err != nil {
			yield(DirEntry{}, fmt.Errorf("read folder %q: %w", folder, err))
		}
	}
}

func (d *Drive) readDir(ctx context.Context, folder string, yield func(DirEntry, error) bool) error {
	r, err := inside(folder)
	if err != nil {
		return err
	}
	from := len(r.Gt)
	// One version from the beginning to the end, though each folder in it begins a
	// range anew.
	tree := d.files
	if !d.past {
		if tree, err = tree.Snapshot(); err != nil {
			return err
		}
		defer tree.Close()
	}
	for {
		next := r
		for raw, err := range tree.Range(ctx, r) {
			if err != nil {
				return err
			}
			name, _, isDir := strings.Cut(string(raw.Key[from:]), "/")
			out := DirEntry{Name: name, Dir: isDir}
			if !isDir {
				if out.Entry, err = d.decode(raw); err != nil {
					return err
				}
			}
			if !yield(out, nil) {
				return nil
			}
			if isDir {
				next.Gt, next.Gte = nil, append(raw.Key[:from+len(name):from+len(name)], '0')
				break
			}
		}
		if next.Gt != nil || string(next.Gte) == string(r.Gte) {
			return nil
		}
		r = next
	}
}

// A Difference is a path that has not the same entry in two versions. An entry
// that a version has not is nil.
type Difference struct {
	Left, Right *Entry
}

// Path returns the path of the entries.
func (d Difference) Path() string {
	if d.Left != nil {
		return d.Left.Path
	}
	return d.Right.Path
}

// Diff returns what is different in a folder between this drive, on the left, and
// a version of it, on the right, in the order of the paths. What was written
// again is different also if its contents are the same. It ends with the first
// error.
func (d *Drive) Diff(ctx context.Context, version uint64, folder string) iter.Seq2[Difference, error] {
	return d.differences("diff", folder, func(r hyperbee.RangeOptions) iter.Seq2[hyperbee.Difference, error] {
		return d.files.Diff(ctx, version, r)
	})
}

// Watch returns what changes in a folder from a version on, 0 for what is now: for
// each path the entry that there is, on the left, and the one that was there
// before, on the right. Changes that come while the caller looks at others are
// told together. It waits for more until the context ends, with its error.
func (d *Drive) Watch(ctx context.Context, from uint64, folder string) iter.Seq2[Difference, error] {
	return d.differences("watch", folder, func(r hyperbee.RangeOptions) iter.Seq2[hyperbee.Difference, error] {
		return d.files.Watch(ctx, from, r)
	})
}

func (d *Drive) differences(what, folder string, of func(hyperbee.RangeOptions) iter.Seq2[hyperbee.Difference, error]) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		r, err := inside(folder)
		if err != nil {
			yield(Difference{}, err)
			return
		}
		for raw, err := range of(r) {
			var out Difference
			side := func(raw *hyperbee.Entry, e **Entry) {
				if raw == nil || err != nil {
					return
				}
				var decoded Entry
				decoded, err = d.decode(*raw)
				*e = &decoded
			}
			side(raw.Left, &out.Left)
			side(raw.Right, &out.Right)
			if err != nil {
				yield(Difference{}, fmt.Errorf("%s %q: %w", what, folder, err))
				return
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

// A Change is one operation of a drive's history.
type Change struct {
	Entry
	// Deleted says that it removed what was at the path.
	Deleted bool
}

// History returns the changes that made the drive, in their order. It ends with
// the first error.
func (d *Drive) History(ctx context.Context, o hyperbee.HistoryOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for raw, err := range d.files.History(ctx, o) {
			out := Change{Deleted: raw.Deleted}
			switch {
			case err != nil:
				err = fmt.Errorf("history of drive %s: %w", d.Key(), err)
			case raw.Deleted:
				out.Entry = Entry{Path: string(raw.Key), Seq: raw.Seq}
			default:
				out.Entry, err = d.decode(raw.Entry)
			}
			if err != nil {
				yield(Change{}, err)
				return
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

// Has reports whether all contents of a file, or of all files in a folder, are
// here. It is ErrNotFound if there is neither.
func (d *Drive) Has(ctx context.Context, path string) (bool, error) {
	found := false
	for e, err := range d.under(ctx, path) {
		if err != nil {
			return false, err
		}
		found = true
		if e.Blob == nil || e.Blob.BlockLength == 0 {
			continue
		}
		blobs, err := d.Blobs(ctx)
		if err != nil {
			return false, err
		}
		if has, err := blobs.Has(ctx, *e.Blob); !has || err != nil {
			return false, err
		}
	}
	if !found {
		return false, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	return true, nil
}

// under returns the file at a path and those in the folder at it.
func (d *Drive) under(ctx context.Context, path string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		folder, err := cleanFolder(path)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if folder != "" && !strings.HasSuffix(path, "/") {
			e, err := d.entry(ctx, folder)
			if err == nil || !errors.Is(err, ErrNotFound) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
		for e, err := range d.List(ctx, folder, ListOptions{}) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// Progress is how far a Download is.
type Progress struct {
	Files  int    // that were found
	Blocks uint64 // that were brought
	Bytes  uint64 // of the files that are here now
}

// maxAtOnce bounds how many files are asked for together.
const maxAtOnce = 1024

// Download brings the contents of a file, or of all files in a folder, and
// returns when they are here and on the disk. progress, which may be nil, is
// called with how far it is.
func (d *Drive) Download(ctx context.Context, path string, progress func(Progress)) error {
	return d.download(ctx, progress, func(yield func(Entry, error) bool) {
		for e, err := range d.under(ctx, path) {
			if !yield(e, err) {
				return
			}
		}
	})
}

// DownloadDiff is Download of what is different in a folder since a version.
func (d *Drive) DownloadDiff(ctx context.Context, version uint64, folder string, progress func(Progress)) error {
	return d.download(ctx, progress, func(yield func(Entry, error) bool) {
		for diff, err := range d.Diff(ctx, version, folder) {
			if err == nil && diff.Left == nil {
				continue
			}
			e := Entry{}
			if err == nil {
				e = *diff.Left
			}
			if !yield(e, err) {
				return
			}
		}
	})
}

func (d *Drive) download(ctx context.Context, progress func(Progress), entries iter.Seq2[Entry, error]) error {
	fail := func(err error) error { return fmt.Errorf("download drive %s: %w", d.Key(), err) }
	var blobs *hyperblobs.Blobs
	var ids []hyperblobs.ID
	var p Progress
	bring := func() error {
		if len(ids) == 0 {
			return nil
		}
		missing := uint64(0)
		for _, id := range ids {
			n, err := blobs.Missing(ctx, id)
			if err != nil {
				return err
			}
			missing += n
		}
		if err := blobs.Download(ctx, ids...); err != nil {
			return err
		}
		p.Files += len(ids)
		p.Blocks += missing
		for _, id := range ids {
			n, err := blobs.Size(ctx, id)
			if err != nil {
				return err
			}
			p.Bytes += n
		}
		if progress != nil {
			progress(p)
		}
		ids = ids[:0]
		return nil
	}
	for e, err := range entries {
		if err != nil {
			return fail(err)
		}
		if e.Blob == nil || e.Blob.BlockLength == 0 {
			continue
		}
		if blobs == nil {
			if blobs, err = d.Blobs(ctx); err != nil {
				return fail(err)
			}
		}
		if ids = append(ids, *e.Blob); len(ids) == maxAtOnce {
			if err := bring(); err != nil {
				return fail(err)
			}
		}
	}
	if err := bring(); err != nil {
		return fail(err)
	}
	return nil
}

// Freed is what clearing gave back.
type Freed struct {
	Blocks uint64
	Bytes  uint64 // of contents
}

// Clear removes the contents of a file, or of all files in a folder, from this
// store, to free their space. Entries stay, and contents can be had again from
// peers that have them. Pieces that a file shares with others (Dedup) go for all
// of them.
func (d *Drive) Clear(ctx context.Context, path string) (Freed, error) {
	blobs, err := d.Blobs(ctx)
	if err != nil {
		return Freed{}, err
	}
	var out Freed
	found := false
	for e, err := range d.under(ctx, path) {
		if err != nil {
			return out, err
		}
		found = true
		if e.Blob == nil || e.Blob.BlockLength == 0 {
			continue
		}
		size, err := d.heldBytes(ctx, blobs, *e.Blob)
		if err != nil {
			return out, fmt.Errorf("clear %s: %w", e.Path, err)
		}
		n, err := blobs.Clear(ctx, *e.Blob)
		if err != nil {
			return out, fmt.Errorf("clear %s: %w", e.Path, err)
		}
		if out.Blocks += n; n > 0 {
			out.Bytes += size
		}
	}
	if !found {
		return out, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	return out, nil
}

// ClearAll removes the contents of all versions from this store, as Clear does.
func (d *Drive) ClearAll(ctx context.Context) (Freed, error) {
	blobs, err := d.Blobs(ctx)
	if err != nil {
		return Freed{}, err
	}
	log := blobs.Log()
	size, err := bytesIn(log, 0, log.Length())
	if err != nil {
		return Freed{}, fmt.Errorf("clear drive %s: %w", d.Key(), err)
	}
	n, err := log.Clear(ctx, 0, log.Length())
	if err != nil {
		return Freed{}, fmt.Errorf("clear drive %s: %w", d.Key(), err)
	}
	return Freed{n, size}, nil
}

// heldBytes returns how many bytes of a blob are here.
func (d *Drive) heldBytes(ctx context.Context, blobs *hyperblobs.Blobs, id hyperblobs.ID) (uint64, error) {
	log := blobs.Log()
	n, err := bytesIn(log, id.BlockOffset, id.BlockOffset+id.BlockLength)
	if err != nil || !id.BlockMap {
		return n, err
	}
	if held, ok := log.NextHeld(id.BlockOffset); !ok || held.Start > id.BlockOffset || held.End < id.BlockOffset+id.BlockLength {
		return n, nil // without the map nobody knows
	}
	chunks, err := blobs.Map(ctx, id)
	if err != nil {
		return 0, err
	}
	for _, c := range chunks {
		if log.Has(c.Index) {
			n += c.Length
		}
	}
	return n, nil
}

// bytesIn returns how many bytes of a range of blocks are here.
func bytesIn(log *hypercore.Log, from, to uint64) (n uint64, err error) {
	for from < to {
		r, ok := log.NextHeld(from)
		if !ok || r.Start >= to {
			break
		}
		end := min(r.End, to)
		low, err := log.ByteOffset(r.Start)
		if err != nil {
			return 0, err
		}
		high, err := log.ByteOffset(end)
		if err != nil {
			return 0, err
		}
		n, from = n+high-low, end
	}
	return n, nil
}
