package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
)

// Changes of a folder that is put are written in groups.
const (
	groupFiles = 256
	groupBytes = 64 << 20
)

// putFolder puts all files of a folder on the disk at a path. What is there
// already, with the same size and time, is not put again.
func (d *drive) putFolder(ctx context.Context, word string, in *putFile) error {
	path, err := cleanFolder(in.path)
	if err != nil {
		return err
	}
	m := &mirroring{drive: d}
	return m.withFolder(in.file, false, func(f *localdrive.Folder) error {
		return d.change(ctx, word, func(ctx context.Context) error {
			out := d.changed(path, false)
			bar := d.progress(in.file, "file", 0, 0)
			err := d.putAll(ctx, f, strings.TrimSuffix(path, "/"), &out, bar)
			bar.end()
			err = d.cannot(ctx, err, "cannot put %s in drive %s", in.file, d.log.called())
			if err != nil && out.Files == 0 {
				return err
			}
			return errors.Join(err, d.printChanged("put", path, &out))
		})
	})
}

func (d *drive) putAll(ctx context.Context, f *localdrive.Folder, at string, out *changedFiles, bar *progress) error {
	batch, err := d.whole.Batch(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if batch != nil {
			batch.Close()
		}
	}()
	files, bytes := uint64(0), uint64(0) // in the batch
	left, why := uint64(0), error(nil)   // what can't be read
	flush := func() error {
		if err := batch.Flush(ctx); err != nil {
			return err
		}
		out.Files, out.Bytes = out.Files+files, out.Bytes+bytes
		files, bytes = 0, 0
		return nil
	}
	for e, err := range f.List(ctx, "/", localdrive.ListOptions{}) {
		var skipped *localdrive.Skipped
		if errors.As(err, &skipped) {
			d.say("left out %s: %s", quotePath(skipped.Path), escape([]byte(causeOf(skipped.Err))))
			left, why = left+1, skipped.Err
			continue
		}
		if err != nil {
			return err
		}
		n, put, err := d.putOne(ctx, batch, f, e, at, bar)
		if err != nil {
			return err
		}
		if put {
			files, bytes = files+1, bytes+n
		}
		if files >= groupFiles || bytes >= groupBytes {
			if err = flush(); err == nil {
				batch, err = d.whole.Batch(ctx)
			}
			if err != nil {
				return err
			}
		}
	}
	if files > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	if left > 0 {
		return leftOut(left, why)
	}
	return nil
}

// putOne puts a file or a link, unless it is there.
func (d *drive) putOne(ctx context.Context, batch *hyperdrive.Batch, f *localdrive.Folder, e hyperdrive.Entry, at string, bar *progress) (n uint64, put bool, err error) {
	to := at + e.Path
	have, err := d.whole.Entry(ctx, to)
	switch {
	case err != nil && !errors.Is(err, hyperdrive.ErrNotFound):
		return 0, false, err
	case err == nil && d.same(ctx, e, have):
		return 0, false, nil
	case e.IsLink():
		bar.add(1, 0)
		return 0, true, batch.Symlink(ctx, to, e.Linkname, e.Metadata)
	}
	r, err := f.OpenFile(ctx, e)
	if err != nil {
		return 0, false, err
	}
	defer r.Close()
	w, err := batch.Create(ctx, to, hyperdrive.PutOptions{Executable: e.Executable, Metadata: e.Metadata})
	if err != nil {
		return 0, false, err
	}
	defer w.Abort()
	k, err := io.Copy(w, &countingReader{ctx, r, bar})
	if err == nil {
		err = w.Close()
	}
	bar.add(1, 0)
	return uint64(k), true, err
}

// same reports whether two entries are of the same file, as far as can be told
// without reading it.
func (d *drive) same(ctx context.Context, e, have hyperdrive.Entry) bool {
	if e.IsLink() || have.IsLink() {
		return e.Linkname == have.Linkname
	}
	n, err := d.whole.Size(ctx, have)
	return err == nil && e.Blob != nil && n == e.Blob.ByteLength && e.ModTime().Equal(have.ModTime()) && e.Mode() == have.Mode() && !e.ModTime().IsZero()
}
