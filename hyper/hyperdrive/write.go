package hyperdrive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
)

// PutOptions say what is known of a file besides its contents.
type PutOptions struct {
	Executable bool
	// Metadata is any JSON, such as that of NewMetadata.
	Metadata json.RawMessage
}

// Put writes a file, in place of what is at its path.
func (d *Drive) Put(ctx context.Context, path string, data []byte, o PutOptions) error {
	path, blobs, err := d.writing(ctx, path)
	if err != nil {
		return err
	}
	id, err := blobs.Put(ctx, data)
	if err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	return d.putEntry(ctx, Entry{Path: path, Executable: o.Executable, Blob: &id, Metadata: o.Metadata})
}

// writing checks that a path can be written.
func (d *Drive) writing(ctx context.Context, path string) (string, *hyperblobs.Blobs, error) {
	path, err := CleanPath(path)
	if err != nil {
		return "", nil, err
	}
	if d.past {
		return "", nil, fmt.Errorf("put %s: %w", path, ErrReadOnly)
	}
	blobs, err := d.Blobs(ctx)
	return path, blobs, err
}

// PutEntry writes an entry that has no contents, or those that are there already.
// Its Seq is of no matter.
func (d *Drive) PutEntry(ctx context.Context, e Entry) error {
	path, err := CleanPath(e.Path)
	if err != nil {
		return err
	}
	e.Path = path
	return d.putEntry(ctx, e)
}

func (d *Drive) putEntry(ctx context.Context, e Entry) error {
	value, err := e.append(nil)
	if err == nil {
		err = d.files.Put(ctx, []byte(e.Path), value)
	}
	if err == nil {
		err = d.s.sync()
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", e.Path, err)
	}
	return nil
}

// Symlink writes a link. What it leads to need not be there.
func (d *Drive) Symlink(ctx context.Context, path, target string, metadata json.RawMessage) error {
	e, err := newLink(path, target, metadata)
	if err != nil {
		return err
	}
	return d.putEntry(ctx, e)
}

func newLink(path, target string, metadata json.RawMessage) (Entry, error) {
	path, err := CleanPath(path)
	if err == nil && target == "" {
		err = fmt.Errorf("%w: %s is to be a link to nothing", ErrPath, path)
	}
	return Entry{Path: path, Linkname: target, Metadata: metadata}, err
}

// Delete removes what is at a path, if anything is.
func (d *Drive) Delete(ctx context.Context, path string) error {
	path, err := CleanPath(path)
	if err != nil {
		return err
	}
	err = d.files.Delete(ctx, []byte(path))
	if err == nil {
		err = d.s.sync()
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	return nil
}

// A File is one that is being written.
type File struct {
	ctx  context.Context
	e    Entry
	w    *hyperblobs.Writer
	put  func(context.Context, Entry) error
	done bool
}

var _ io.ReaderFrom = (*File)(nil)

// Create begins to write a file. It is there, in place of what is at its path,
// once Close has returned nil; Abort leaves things as they are. While a large one
// is written, other files wait.
func (d *Drive) Create(ctx context.Context, path string, o PutOptions) (*File, error) {
	path, blobs, err := d.writing(ctx, path)
	if err != nil {
		return nil, err
	}
	return d.create(ctx, blobs, path, o, d.putEntry)
}

func (d *Drive) create(ctx context.Context, blobs *hyperblobs.Blobs, path string, o PutOptions, put func(context.Context, Entry) error) (*File, error) {
	wo := hyperblobs.WriteOptions{Dedup: d.s.o.Dedup}
	if wo.Dedup {
		switch before, err := d.entry(ctx, path); {
		case err == nil:
			wo.Base = before.Blob
		case !errors.Is(err, ErrNotFound):
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
	}
	e := Entry{Path: path, Executable: o.Executable, Metadata: o.Metadata}
	return &File{ctx: ctx, e: e, w: blobs.NewWriter(ctx, wo), put: put}, nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) { return f.w.Write(p) }

// ReadFrom implements io.ReaderFrom.
func (f *File) ReadFrom(r io.Reader) (int64, error) { return f.w.ReadFrom(r) }

// Close puts the file in the drive.
func (f *File) Close() error {
	if f.done {
		return ErrClosed
	}
	f.done = true
	if err := f.w.Close(); err != nil {
		return fmt.Errorf("put %s: %w", f.e.Path, err)
	}
	id := f.w.ID()
	f.e.Blob = &id
	return f.put(f.ctx, f.e)
}

// Abort forgets what was written. After Close it does nothing.
func (f *File) Abort() {
	if !f.done {
		f.done = true
		f.w.Abort()
	}
}

// A Batch is several changes that are written together: all of them or none,
// but for contents, which may be on the disk before and are of no use without.
// While it is open, nobody else can change the drive. It must be flushed or
// closed.
type Batch struct {
	d       *Drive
	b       *hyperbee.Batch
	blobs   *hyperblobs.Blobs
	waiting []change // what b does not have yet
	bytes   int      // in waiting
	n       int
}

// A change is an entry to be put, or one to be removed.
type change struct {
	e      Entry
	delete bool
	data   []byte // contents that are yet to be written; nil if there are none
}

// Small files are written together. These bound how many wait for that.
const (
	smallFile  = 64 << 10
	maxWaiting = 4 << 20
)

// Batch begins a batch, once nobody else writes.
func (d *Drive) Batch(ctx context.Context) (*Batch, error) {
	if d.past {
		return nil, ErrReadOnly
	}
	blobs, err := d.Blobs(ctx)
	if err != nil {
		return nil, err
	}
	b, err := d.files.Batch(ctx)
	if err != nil {
		return nil, fmt.Errorf("batch of drive %s: %w", d.Key(), err)
	}
	return &Batch{d: d, b: b, blobs: blobs}, nil
}

// Len returns how many changes there are in the batch.
func (b *Batch) Len() int { return b.n }

// Close ends the batch. What was not flushed is forgotten.
func (b *Batch) Close() {
	b.waiting = nil
	b.b.Close()
}

func (b *Batch) add(ctx context.Context, c change) error {
	b.waiting = append(b.waiting, c)
	b.bytes += len(c.data)
	b.n++
	if b.bytes < maxWaiting && len(b.waiting) < maxAtOnce {
		return nil
	}
	return b.settle(ctx)
}

// settle makes the changes that wait, in their order.
func (b *Batch) settle(ctx context.Context) error {
	if len(b.waiting) == 0 {
		return nil
	}
	var data [][]byte
	for _, c := range b.waiting {
		if c.data != nil {
			data = append(data, c.data)
		}
	}
	ids, err := b.blobs.PutAll(ctx, data...)
	if err != nil {
		return err
	}
	for _, c := range b.waiting {
		if c.delete {
			if err := b.b.Delete(ctx, []byte(c.e.Path)); err != nil {
				return err
			}
			continue
		}
		if c.data != nil {
			c.e.Blob, ids = &ids[0], ids[1:]
		}
		value, err := c.e.append(nil)
		if err == nil {
			err = b.b.Put(ctx, []byte(c.e.Path), value)
		}
		if err != nil {
			return fmt.Errorf("put %s: %w", c.e.Path, err)
		}
	}
	b.waiting, b.bytes = b.waiting[:0], 0
	return nil
}

// Put is Drive.Put.
func (b *Batch) Put(ctx context.Context, path string, data []byte, o PutOptions) error {
	path, err := CleanPath(path)
	if err != nil {
		return err
	}
	c := change{e: Entry{Path: path, Executable: o.Executable, Metadata: o.Metadata}}
	if len(data) <= smallFile {
		c.data = append([]byte{}, data...)
		return b.add(ctx, c)
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	id, err := b.blobs.Put(ctx, data)
	if err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	c.e.Blob = &id
	return b.add(ctx, c)
}

// Create is Drive.Create. Other methods of the batch must wait until the file is
// closed or aborted.
func (b *Batch) Create(ctx context.Context, path string, o PutOptions) (*File, error) {
	path, err := CleanPath(path)
	if err == nil {
		err = b.settle(ctx)
	}
	if err != nil {
		return nil, err
	}
	return b.d.create(ctx, b.blobs, path, o, func(ctx context.Context, e Entry) error {
		return b.add(ctx, change{e: e})
	})
}

// PutEntry is Drive.PutEntry.
func (b *Batch) PutEntry(ctx context.Context, e Entry) error {
	path, err := CleanPath(e.Path)
	if err != nil {
		return err
	}
	e.Path = path
	return b.add(ctx, change{e: e})
}

// Symlink is Drive.Symlink.
func (b *Batch) Symlink(ctx context.Context, path, target string, metadata json.RawMessage) error {
	e, err := newLink(path, target, metadata)
	if err != nil {
		return err
	}
	return b.add(ctx, change{e: e})
}

// Delete is Drive.Delete.
func (b *Batch) Delete(ctx context.Context, path string) error {
	path, err := CleanPath(path)
	if err != nil {
		return err
	}
	return b.add(ctx, change{e: Entry{Path: path}, delete: true})
}

// Entry is Drive.Entry, with the changes of the batch.
func (b *Batch) Entry(ctx context.Context, path string) (Entry, error) {
	path, err := CleanPath(path)
	if err == nil {
		err = b.settle(ctx)
	}
	if err != nil {
		return Entry{}, err
	}
	raw, err := b.b.Get(ctx, []byte(path))
	return b.d.found(path, raw, err)
}

// Flush writes the changes and ends the batch.
func (b *Batch) Flush(ctx context.Context) error {
	defer b.Close()
	err := b.settle(ctx)
	if err == nil {
		err = b.b.Flush(ctx)
	}
	if err == nil {
		err = b.d.s.sync()
	}
	if err != nil {
		return fmt.Errorf("flush %d changes to drive %s: %w", b.n, b.d.Key(), err)
	}
	return nil
}
