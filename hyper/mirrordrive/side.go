package mirrordrive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
)

// A Side is what is mirrored, or what it is mirrored to: see Drive and Folder.
type Side interface {
	// list returns the entries in a folder in the order of their paths. clean is
	// for the target of a mirror that writes.
	list(ctx context.Context, folder string, ignore func(string) bool, clean bool) iter.Seq2[hyperdrive.Entry, error]
	entry(ctx context.Context, path string) (hyperdrive.Entry, error)
	size(ctx context.Context, e hyperdrive.Entry) (uint64, error)
	open(ctx context.Context, e hyperdrive.Entry) (io.ReadCloser, error)
	// ahead returns what brings the contents of a file here, nil if there is
	// nothing to do.
	ahead(e hyperdrive.Entry) func(context.Context)
	// modes reports whether files have permissions there.
	modes() bool

	// check returns an error if no file can have that path.
	check(path string) error
	// put writes a file or a link, in place of have if that is not nil.
	put(ctx context.Context, e hyperdrive.Entry, have *hyperdrive.Entry, size uint64, r io.Reader) error
	// putMetadata changes what have is besides its contents.
	putMetadata(ctx context.Context, e, have hyperdrive.Entry) error
	remove(ctx context.Context, path string) error
	// flush makes all that was done last.
	flush(ctx context.Context) error
	// only reports whether an error is about one path, and others may go well.
	only(err error) bool
}

// Groups of changes that a drive gets together.
const (
	groupFiles = 256
	groupBytes = 64 << 20
	// smallFile is what is put as a whole, with others in one append.
	smallFile = 64 << 10
)

// Drive is a drive as a side of a mirror. While it is mirrored to, nobody else
// can change it: not in the body of the loop either.
func Drive(d *hyperdrive.Drive) Side { return &drive{d: d} }

type drive struct {
	d     *hyperdrive.Drive
	dedup bool
	batch *hyperdrive.Batch // nil until there is a change
	bytes uint64            // in batch
}

func (s *drive) list(ctx context.Context, folder string, ignore func(string) bool, _ bool) iter.Seq2[hyperdrive.Entry, error] {
	o := hyperdrive.ListOptions{}
	if ignore != nil {
		// A drive has no folders that could be left out as a whole.
		o.Ignore = func(path string) bool {
			for i := 1; i < len(path); i++ {
				if path[i] == '/' && ignore(path[:i]) {
					return true
				}
			}
			return ignore(path)
		}
	}
	return s.d.List(ctx, folder, o)
}

func (s *drive) entry(ctx context.Context, path string) (hyperdrive.Entry, error) {
	return s.d.Entry(ctx, path)
}

func (s *drive) size(ctx context.Context, e hyperdrive.Entry) (uint64, error) {
	return s.d.Size(ctx, e)
}

func (s *drive) open(ctx context.Context, e hyperdrive.Entry) (io.ReadCloser, error) {
	return s.d.OpenFile(ctx, e)
}

// Bounds of a file that is fetched as a whole before it is needed.
const (
	maxAhead    = 4 << 20
	maxAheadMap = 512 // a map of about a hundred pieces
)

func (s *drive) ahead(e hyperdrive.Entry) func(context.Context) {
	id := e.Blob
	if id == nil || id.ByteLength == 0 || id.ByteLength > maxAhead || id.BlockMap && id.ByteLength > maxAheadMap {
		return nil
	}
	return func(ctx context.Context) {
		if blobs, err := s.d.Blobs(ctx); err == nil && !blobs.Log().Writable() {
			_ = blobs.Download(ctx, *id) // who reads it sees what fails
		}
	}
}

func (s *drive) modes() bool { return true }

func (s *drive) check(path string) error {
	if clean, err := hyperdrive.CleanPath(path); err != nil || clean != path {
		return fmt.Errorf("%w: %q", hyperdrive.ErrPath, path)
	}
	return nil
}

func (s *drive) put(ctx context.Context, e hyperdrive.Entry, have *hyperdrive.Entry, size uint64, r io.Reader) error {
	if err := s.begin(ctx, size); err != nil {
		return err
	}
	o := hyperdrive.PutOptions{Executable: e.Executable, Metadata: e.Metadata}
	switch {
	case e.IsLink():
		return s.batch.Symlink(ctx, e.Path, e.Linkname, e.Metadata)
	case s.dedup:
		return s.putPieces(ctx, e, have, r)
	case size <= smallFile:
		data, err := io.ReadAll(io.LimitReader(r, smallFile+1))
		if err != nil {
			return err
		}
		if uint64(len(data)) != size {
			return fmt.Errorf("%s has %d bytes, and should have %d: %w", e.Path, len(data), size, io.ErrUnexpectedEOF)
		}
		return s.batch.Put(ctx, e.Path, data, o)
	}
	w, err := s.batch.Create(ctx, e.Path, o)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.ReadFrom(r); err != nil {
		return err
	}
	return w.Close()
}

// putPieces writes only what was not there.
func (s *drive) putPieces(ctx context.Context, e hyperdrive.Entry, have *hyperdrive.Entry, r io.Reader) error {
	blobs, err := s.d.Blobs(ctx)
	if err != nil {
		return err
	}
	o := hyperblobs.WriteOptions{Dedup: true}
	if have != nil {
		o.Base = have.Blob
	}
	w := blobs.NewWriter(ctx, o)
	defer w.Abort()
	if _, err := w.ReadFrom(r); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	id := w.ID()
	e.Blob = &id
	return s.batch.PutEntry(ctx, e)
}

// begin begins a batch for a change of that many bytes, if there is none.
func (s *drive) begin(ctx context.Context, size uint64) error {
	if s.batch != nil && (s.batch.Len() >= groupFiles || s.bytes >= groupBytes) {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	s.bytes += size
	if s.batch != nil {
		return nil
	}
	batch, err := s.d.Batch(ctx)
	s.batch = batch
	return err
}

func (s *drive) putMetadata(ctx context.Context, e, have hyperdrive.Entry) error {
	if err := s.begin(ctx, 0); err != nil {
		return err
	}
	have.Executable, have.Metadata = e.Executable, e.Metadata
	return s.batch.PutEntry(ctx, have)
}

func (s *drive) remove(ctx context.Context, path string) error {
	if err := s.begin(ctx, 0); err != nil {
		return err
	}
	return s.batch.Delete(ctx, path)
}

func (s *drive) flush(ctx context.Context) error {
	batch := s.batch
	s.batch, s.bytes = nil, 0
	if batch == nil {
		return nil
	}
	return batch.Flush(ctx)
}

func (s *drive) only(err error) bool { return errors.Is(err, hyperdrive.ErrPath) }

// Folder is a folder on the disk as a side of a mirror.
func Folder(f *localdrive.Folder) Side {
	return &folder{f: f, slots: make(chan struct{}, syncs), writing: map[string]bool{}}
}

// syncs is how many files are on their way to the disk together: that costs
// little more than one does.
const syncs = 32

type folder struct {
	f     *localdrive.Folder
	n     int // files since the last flush
	slots chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex
	writing map[string]bool // guarded by mu: files that are not in their place yet
	err     error           // guarded by mu: the first of writing
}

func (s *folder) list(ctx context.Context, folder string, ignore func(string) bool, clean bool) iter.Seq2[hyperdrive.Entry, error] {
	return s.f.List(ctx, folder, localdrive.ListOptions{Ignore: ignore, Clean: clean})
}

func (s *folder) entry(ctx context.Context, path string) (hyperdrive.Entry, error) {
	return s.f.Entry(ctx, path)
}

func (s *folder) size(_ context.Context, e hyperdrive.Entry) (uint64, error) {
	if e.Blob == nil {
		return 0, nil
	}
	return e.Blob.ByteLength, nil
}

func (s *folder) open(ctx context.Context, e hyperdrive.Entry) (io.ReadCloser, error) {
	return s.f.OpenFile(ctx, e)
}

func (s *folder) ahead(hyperdrive.Entry) func(context.Context) { return nil }

func (s *folder) modes() bool { return s.f.Modes() }

func (s *folder) check(path string) error { return s.f.Check(path) }

func (s *folder) put(ctx context.Context, e hyperdrive.Entry, have *hyperdrive.Entry, _ uint64, r io.Reader) error {
	if err := s.begin(ctx, e.Path); err != nil {
		return err
	}
	if e.IsLink() {
		return s.f.Symlink(ctx, e.Path, e.Linkname, have == nil)
	}
	o := localdrive.CreateOptions{Executable: e.Executable, ModTime: e.ModTime(), New: have == nil}
	switch {
	case knowsMode(&e):
		o.Mode = e.Mode()
	case have != nil && !have.IsLink():
		o.Mode = withExecutable(have.Mode(), e.Executable)
	}
	w, err := s.f.Create(ctx, e.Path, o)
	if err != nil {
		return err
	}
	if _, err := w.ReadFrom(r); err != nil {
		w.Abort()
		return err
	}
	if s.f.Folds() {
		return w.Close() // before it is asked whether the next is there
	}
	s.mu.Lock()
	s.writing[e.Path] = true
	s.mu.Unlock()
	s.slots <- struct{}{}
	s.wg.Go(func() {
		err := w.Close()
		s.mu.Lock()
		delete(s.writing, e.Path)
		if s.err == nil {
			s.err = err
		}
		s.mu.Unlock()
		<-s.slots
	})
	return nil
}

// begin is called before each change.
func (s *folder) begin(ctx context.Context, path string) error {
	if s.n++; s.n >= groupFiles {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	err, wait := s.err, false
	for above := range s.writing {
		wait = wait || strings.HasPrefix(path, above) // a file where a folder is to be
	}
	s.mu.Unlock()
	if wait {
		s.wg.Wait()
	}
	return err
}

func (s *folder) putMetadata(ctx context.Context, e, have hyperdrive.Entry) error {
	if err := s.begin(ctx, e.Path); err != nil {
		return err
	}
	var mode fs.FileMode
	switch {
	case knowsMode(&e):
		mode = e.Mode()
	case e.Executable != have.Executable:
		mode = withExecutable(have.Mode(), e.Executable)
	}
	return s.f.SetMode(ctx, e.Path, mode, e.ModTime())
}

func (s *folder) remove(ctx context.Context, path string) error {
	if err := s.begin(ctx, path); err != nil {
		return err
	}
	return s.f.Delete(ctx, path)
}

func (s *folder) flush(context.Context) error {
	s.wg.Wait()
	s.n = 0
	s.mu.Lock()
	err := s.err
	s.err = nil
	s.mu.Unlock()
	return errors.Join(err, s.f.Sync())
}

// only says no to errors that the next file will have, too.
func (s *folder) only(err error) bool {
	for _, all := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, os.ErrClosed} {
		if errors.Is(err, all) {
			return false
		}
	}
	var path *fs.PathError
	var link *os.LinkError
	return errors.As(err, &path) || errors.As(err, &link) || later(err) ||
		errors.Is(err, localdrive.ErrName) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)
}

// later reports whether a file may be written when others are gone.
func later(err error) bool {
	return errors.Is(err, localdrive.ErrFolder) || errors.Is(err, localdrive.ErrNotFolder) || errors.Is(err, localdrive.ErrExists)
}

// knowsMode reports whether an entry says what permissions it has.
func knowsMode(e *hyperdrive.Entry) bool {
	var a struct {
		Mode string `json:"mode"`
	}
	return json.Unmarshal(e.Metadata, &a) == nil && a.Mode != "" && e.Mode().Perm() != 0
}

// withExecutable returns permissions with those to run it, for all who can read
// it, or without.
func withExecutable(mode fs.FileMode, executable bool) fs.FileMode {
	mode = mode.Perm() &^ 0o111
	if executable {
		mode |= mode & 0o444 >> 2
	}
	return mode
}

// sameJSON reports whether two metadata are the same, but for spaces.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
