package folder

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloudbevy/bevy/cloud/content"
)

// A Writer writes a file that others can read while it is being written. It is one
// goroutine's at a time, and must be closed or aborted.
type Writer struct {
	f    *Folder
	ctx  context.Context
	e    Entry
	hold *content.Hold
	w    *content.Writer
	last content.Ref // what was published
	done bool
}

var _ interface {
	io.WriteCloser
	io.ReaderFrom
} = (*Writer)(nil)

// Create returns a writer of a file. Nothing is at its path until Publish or Close.
func (f *Folder) Create(ctx context.Context, path string, o PutOptions) (*Writer, error) {
	fail := func(err error) (*Writer, error) { return nil, fmt.Errorf("create %q: %w", path, err) }
	if err := CheckPath(path); err != nil {
		return fail(err)
	}
	if !f.Writable() {
		return fail(ErrReadOnly)
	}
	w := &Writer{f: f, ctx: ctx, e: newEntry(path, File, o), hold: f.content.Hold()}
	if _, err := rand.Read(w.e.live[:]); err != nil {
		w.hold.Release()
		return fail(err)
	}
	w.w = w.hold.NewWriter(ctx, content.WriteOptions{Base: o.Base})
	return w, nil
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) { return w.w.Write(p) }

// ReadFrom implements io.ReaderFrom.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) { return w.w.ReadFrom(r) }

// Publish lets others read what was written so far. While a file is being written
// it should be published at least once a minute, so that those who follow it do not
// take it for abandoned, and not much more often than they need: each time costs an
// entry, and up to some 300 KiB until the next Clear.
func (w *Writer) Publish() error {
	if w.done {
		return fmt.Errorf("publish %q: %w", w.e.Path, errEnded)
	}
	ref, err := w.w.Flush()
	if err == nil {
		err = w.put(ref, true)
	}
	if err != nil {
		return fmt.Errorf("publish %q: %w", w.e.Path, err)
	}
	return nil
}

func (w *Writer) put(ref content.Ref, growing bool) error {
	e := w.e
	e.Content, e.Growing = ref, growing
	b, err := w.f.Batch(w.ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.add("put", e, putting(PutOptions{})); err != nil {
		return err
	}
	if _, err := b.Flush(w.ctx); err != nil {
		return err
	}
	w.last = ref
	return nil
}

// Close ends the file. It is on the disk when it returns.
func (w *Writer) Close() error {
	if w.done {
		return nil
	}
	err := w.w.Close()
	if err == nil {
		err = w.put(w.w.Ref(), false)
	}
	if err != nil {
		w.Abort()
		return fmt.Errorf("close %q: %w", w.e.Path, err)
	}
	w.done = true
	w.hold.Release()
	return nil
}

// Abort ends the file with what was published, if there is any, and forgets the
// rest. After Close it does nothing.
func (w *Writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.w.Abort()
	if !w.last.IsZero() {
		// Without it, those who follow wait for a while longer.
		w.ctx = context.WithoutCancel(w.ctx)
		_ = w.put(w.last, false)
	}
	w.hold.Release()
}

// abandoned is after what time a file that was not published again has ended.
const abandoned = 2 * time.Minute

// ErrReplaced: a file that was followed was replaced by another one.
var ErrReplaced = errors.New("the file was replaced while it was read")

// A Live reads a file that may still be written. It is one goroutine's at a time.
type Live struct {
	f   *Folder
	ctx context.Context
	e   Entry
	r   *content.Reader
	pos int64

	changed chan struct{}
	stop    func()
}

var _ io.ReadSeekCloser = (*Live)(nil)

// Follow returns a reader of a file that at its end waits for more while the file is
// being written, for as long as the context lasts. The end of one whose writer has
// not been heard of for two minutes is io.ErrUnexpectedEOF. It must be closed.
func (f *Folder) Follow(ctx context.Context, path string) (*Live, error) {
	l := &Live{f: f, ctx: ctx, changed: make(chan struct{}, 1)}
	l.stop = f.Notify(func() {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	})
	var err error
	if l.e, err = f.Stat(ctx, path); err == nil {
		l.r, err = f.OpenEntry(ctx, l.e)
	}
	if err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// Entry returns the entry that is read now.
func (l *Live) Entry() Entry { return l.e }

// Seek implements io.Seeker. The end is that of what there is now.
func (l *Live) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += l.pos
	case io.SeekEnd:
		offset += l.e.Size
	case io.SeekStart:
	default:
		return 0, fmt.Errorf("seek in %q: whence %d", l.e.Path, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek in %q: before the start", l.e.Path)
	}
	l.pos = offset
	return offset, nil
}

// Read implements io.Reader.
func (l *Live) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for l.pos >= l.e.Size {
		if !l.e.Growing {
			return 0, io.EOF
		}
		if err := l.wait(); err != nil {
			return 0, err
		}
	}
	if _, err := l.r.Seek(l.pos, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := l.r.Read(p)
	l.pos += int64(n)
	return n, err
}

// wait returns when the entry is another one.
func (l *Live) wait() error {
	for {
		e, err := l.f.Stat(l.ctx, l.e.Path)
		switch {
		case errors.Is(err, ErrNotFound):
			return fmt.Errorf("follow %q: %w", l.e.Path, ErrReplaced)
		case err != nil:
			return err
		case e.live != l.e.live || e.Kind != File:
			return fmt.Errorf("follow %q: %w", l.e.Path, ErrReplaced)
		case e.Content != l.e.Content || !e.Growing:
			r, err := l.f.OpenEntry(l.ctx, e)
			if err != nil {
				return err
			}
			_ = l.r.Close()
			l.e, l.r = e, r
			return nil
		}
		left := abandoned - l.f.o.Clock.Now().Sub(e.Time)
		if left <= 0 {
			return fmt.Errorf("follow %q: its writer was not heard of for %v: %w", l.e.Path, abandoned, io.ErrUnexpectedEOF)
		}
		late := make(chan struct{})
		timer := l.f.o.Clock.AfterFunc(left, func() { close(late) })
		select {
		case <-l.changed:
		case <-late:
		case <-l.ctx.Done():
			timer.Stop()
			return l.ctx.Err()
		}
		timer.Stop()
	}
}

// Close ends the reader.
func (l *Live) Close() error {
	l.stop()
	return l.r.Close()
}
