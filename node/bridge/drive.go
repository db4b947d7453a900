package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
)

// DriveOptions say how a drive is served.
type DriveOptions struct {
	// Public and Fixed are those of State.
	Public, Fixed bool
}

// NewDrive returns a drive, or a version of it, as a Source. It stays the
// caller's.
func NewDrive(d *hyperdrive.Drive, o DriveOptions) Source {
	key := d.Key()
	return &drive{d: d, o: o, id: string(key[:]), tag: key.String()[:8]}
}

type drive struct {
	d   *hyperdrive.Drive
	o   DriveOptions
	id  string
	tag string
}

// fork is how often the log of entries was truncated: versions of the same number
// are others then.
func (s *drive) fork() uint64 { return s.d.Tree().Log().Fork() }

// State implements Source.
func (s *drive) State() State {
	out := State{ID: s.id, Revision: strconv.FormatUint(s.d.Version(), 10), Fixed: s.o.Fixed, Public: s.o.Public}
	if fork := s.fork(); fork > 0 {
		out.ID += strconv.FormatUint(fork, 10)
	}
	return out
}

// Lookup implements Source.
func (s *drive) Lookup(ctx context.Context, p string) (Info, error) {
	if strings.IndexByte(p, '\\') >= 0 {
		return Info{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist) // drives have slashes there
	}
	if !strings.HasSuffix(p, "/") {
		e, err := s.d.Entry(ctx, p)
		if err == nil {
			return s.info(ctx, e)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Info{}, err
		}
	}
	// A folder is there because something is in it.
	for _, err := range s.d.List(ctx, p, hyperdrive.ListOptions{}) {
		return Info{Kind: Folder}, err
	}
	return Info{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
}

func (s *drive) info(ctx context.Context, e hyperdrive.Entry) (Info, error) {
	i := Info{Name: path.Base(e.Path), ModTime: e.ModTime(), Entry: e}
	if e.IsLink() {
		i.Kind, i.Target = Link, e.Linkname
		return i, nil
	}
	size, err := s.d.Size(ctx, e)
	if err != nil {
		return Info{}, err
	}
	if i.Size = int64(size); i.Size < 0 {
		return Info{}, fmt.Errorf("%w: %s has %d bytes", hyperdrive.ErrInvalid, e.Path, size)
	}
	i.Tag = s.contentTag(e.Blob)
	return i, nil
}

// contentTag names contents by where they are in their log, which never changes
// unless it is truncated.
func (s *drive) contentTag(id *hyperblobs.ID) string {
	if id == nil {
		id = &hyperblobs.ID{}
	}
	b := append(make([]byte, 0, 48), s.tag...)
	kind := byte('-')
	if id.BlockMap {
		kind = '+'
	}
	for _, n := range [...]uint64{s.fork(), id.BlockOffset, id.BlockLength, id.ByteLength} {
		b = strconv.AppendUint(append(b, kind), n, 36)
	}
	return string(b)
}

// List implements Source.
func (s *drive) List(ctx context.Context, folder, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := s.list(ctx, folder, after, yield); err != nil {
			yield(Info{}, err)
		}
	}
}

func (s *drive) list(ctx context.Context, folder, after string, yield func(Info, error) bool) error {
	d := s.d
	if !s.o.Fixed {
		// One version from the beginning to the end.
		var err error
		if d, err = d.Snapshot(); err != nil {
			return err
		}
		defer d.Close()
	}
	in := strings.TrimSuffix(folder, "/") + "/"
	o := hyperdrive.ListOptions{}
	behind := func(name string) {
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			o.From = in + dir + "0" // '0' comes after '/'
			return
		}
		o.From = in + name + "\x00"
	}
	if after != "" {
		behind(after)
	}
	for more := true; more; {
		more = false
		for e, err := range d.List(ctx, folder, o) {
			if err != nil {
				return err
			}
			name, _, deep := strings.Cut(e.Path[len(in):], "/")
			if deep {
				behind(name + "/")
				more = true
			}
			if !isName(name) {
				if deep {
					break
				}
				continue // in a drive of somebody who makes such paths
			}
			i := Info{Name: name, Kind: Folder}
			if !deep {
				if i, err = s.info(ctx, e); err != nil {
					return err
				}
			}
			if !yield(i, nil) {
				return nil
			}
			if deep {
				break
			}
		}
	}
	return nil
}

// isName reports whether a name can be in an address.
func isName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "\\\x00") && utf8.ValidString(name)
}

// Open implements Source.
func (s *drive) Open(ctx context.Context, i Info, off, n int64) (io.ReadCloser, error) {
	e, ok := i.Entry.(hyperdrive.Entry)
	if !ok || e.Blob == nil {
		return io.NopCloser(strings.NewReader("")), nil
	}
	blobs, err := s.d.Blobs(ctx)
	if err != nil {
		return nil, err
	}
	return blobs.NewRangeReader(ctx, *e.Blob, off, n)
}
