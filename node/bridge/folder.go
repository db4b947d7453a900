package bridge

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"

	"github.com/cloudbevy/bevy/cloud/folder"
	"golang.org/x/crypto/blake2b"
)

// FolderOptions say how a folder is served.
type FolderOptions struct {
	// ID is the folder's, that nothing else has. Nothing is kept when it is empty.
	ID string
	// Public and Fixed are those of State. A folder as it was at a time is not Fixed:
	// a device may still tell what it did then.
	Public, Fixed bool
}

// NewFolder returns a folder of the cloud, or a version of one, as a Source. It
// stays the caller's.
func NewFolder(f *folder.Folder, o FolderOptions) Source { return &cloudFolder{f, o} }

type cloudFolder struct {
	f *folder.Folder
	o FolderOptions
}

// State implements Source.
func (s *cloudFolder) State() State {
	out := State{ID: s.o.ID, Fixed: s.o.Fixed, Public: s.o.Public}
	v, err := s.f.Version(context.Background())
	if err != nil {
		out.ID = "" // what is read next says why
		return out
	}
	sum := blake2b.Sum256(v.AppendTo(nil))
	out.Revision = hex.EncodeToString(sum[:16])
	return out
}

// Lookup implements Source.
func (s *cloudFolder) Lookup(ctx context.Context, p string) (Info, error) {
	name := strings.TrimSuffix(p, "/")
	e, err := s.f.Stat(ctx, name)
	if errors.Is(err, folder.ErrNotFound) || errors.Is(err, folder.ErrPath) {
		return Info{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	if err != nil {
		return Info{}, err
	}
	if name != p && e.Kind != folder.Dir {
		return Info{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return InfoOf(e)
}

// InfoOf returns what a Source of a folder says of an entry.
func InfoOf(e folder.Entry) (Info, error) {
	i := Info{Name: path.Base(e.Path), ModTime: e.ModTime, Entry: e}
	switch e.Kind {
	case folder.Dir:
		i.Kind = Folder
	case folder.Symlink:
		i.Kind, i.Target = Link, e.Link
	case folder.File:
		i.Size, i.Tag = e.Size, hex.EncodeToString(e.Content.Hash[:16])
		if e.Growing {
			i.Size, i.Tag = Growing, ""
		}
	default:
		return Info{}, fmt.Errorf("%s: %w: %w", e.Path, folder.ErrInvalid, e.Err)
	}
	return i, nil
}

// List implements Source.
func (s *cloudFolder) List(ctx context.Context, dir, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		o := folder.ListOptions{}
		if after != "" {
			o.After = path.Join(dir, after)
		}
		for e, err := range s.f.List(ctx, dir, o) {
			i := Info{}
			if err == nil {
				if i, err = InfoOf(e); err != nil {
					continue // one that makes no sense, among others
				}
			}
			if !yield(i, err) || err != nil {
				return
			}
		}
	}
}

// Open implements Source.
func (s *cloudFolder) Open(ctx context.Context, i Info, off, n int64) (io.ReadCloser, error) {
	e, ok := i.Entry.(folder.Entry)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", i.Name, folder.ErrNotFile)
	}
	if e.Growing {
		r, err := s.f.Follow(ctx, e.Path)
		if err != nil {
			return nil, unreachable(err)
		}
		return failing{r}, nil
	}
	r, err := s.f.OpenEntry(ctx, e)
	if err != nil {
		return nil, unreachable(err)
	}
	if n < 0 || off+n >= e.Size {
		if _, err := r.Seek(off, io.SeekStart); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		return failing{r}, nil
	}
	// Not more than that is fetched.
	return failing{struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(r, off, n), r}}, nil
}

// failing says that contents nobody has to give are out of reach.
type failing struct{ io.ReadCloser }

func (f failing) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	return n, unreachable(err)
}

// WriteTo implements io.WriterTo.
func (f failing) WriteTo(w io.Writer) (n int64, err error) {
	if from, ok := f.ReadCloser.(io.WriterTo); ok {
		n, err = from.WriteTo(w)
	} else {
		n, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f.ReadCloser}, make([]byte, 64<<10))
	}
	return n, unreachable(err)
}

func unreachable(err error) error {
	if errors.Is(err, folder.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}
