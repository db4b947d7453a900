package home

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"path"
	"strings"

	"golang.org/x/crypto/blake2b"

	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/node/bridge"
)

// doors opens the bridge for browsers.
func (h *Home) doors() {
	h.bridge = bridge.New(bridge.Options{Resolver: h, Clock: h.node.Clock(), Log: h.node.Log, CacheBytes: bridgeCache})
	h.node.Door(node.Door{Name: "bridge", Match: bridge.Addressed, Handler: h.bridge})
}

// bridgeCache bounds the memory for answers of the bridge.
const bridgeCache = 8 << 20

// Resolve implements bridge.Resolver. A folder of the cloud is for those who have
// signed in, a drive for everybody who knows its key.
func (h *Home) Resolve(ctx context.Context, r *http.Request, name, at string) (source bridge.Source, release func(), err error) {
	s, release, err := h.acquire(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", bridge.ErrUnreachable, err)
	}
	defer func() {
		if err != nil {
			release()
			release = nil
		}
	}()
	if source, closed, err := s.drive(ctx, name, at); err == nil || !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, release, err
		}
		done := release
		release = func() { closed(); done() }
		return source, release, nil
	}
	if !h.node.SignedIn(r) {
		return nil, release, fmt.Errorf("%s: %w", name, fs.ErrPermission)
	}
	k, err := s.findFolder(name)
	if err != nil {
		return nil, release, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if at == "" {
		return &folderSource{k: k, folder: k.folder}, release, nil
	}
	old, err := k.moment(ctx, at)
	if err != nil {
		return nil, release, fmt.Errorf("%s@%s: %w", name, at, bridge.ErrBadTime)
	}
	done := release
	release = func() { old.Close(); done() }
	return &folderSource{k: k, folder: old, fixed: at}, release, nil
}

// A folderSource is a folder of the cloud as the bridge sees it.
type folderSource struct {
	k      *kept
	folder *folder.Folder
	fixed  string // the moment that it is of; "" if it is now
}

// State implements bridge.Source.
func (f *folderSource) State() bridge.State {
	v, err := f.folder.Version(context.Background()) // of what is here: it does not wait
	if err != nil {
		return bridge.State{}
	}
	sum := blake2b.Sum256(v.AppendTo(nil))
	st := bridge.State{ID: f.k.space.Info().ID + "/" + hex.EncodeToString(sum[:12]), Fixed: f.fixed != ""}
	if f.fixed != "" {
		st.Revision = f.fixed
	}
	return st
}

// Lookup implements bridge.Source.
func (f *folderSource) Lookup(ctx context.Context, p string) (bridge.Info, error) {
	p, _ = strings.CutSuffix(p, "/")
	if p == "" {
		return bridge.Info{Kind: bridge.Folder}, nil
	}
	e, err := f.folder.Stat(ctx, p)
	if err != nil {
		return bridge.Info{}, notExist(err)
	}
	return infoOf(e)
}

// notExist is an error of a folder as the bridge knows it.
func notExist(err error) error {
	if errors.Is(err, folder.ErrNotFound) || errors.Is(err, folder.ErrPath) || errors.Is(err, folder.ErrNotFolder) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func infoOf(e folder.Entry) (bridge.Info, error) {
	i := bridge.Info{Name: path.Base(e.Path), ModTime: e.ModTime, Entry: e}
	switch e.Kind {
	case folder.Dir:
		i.Kind = bridge.Folder
	case folder.Symlink:
		i.Kind, i.Target = bridge.Link, e.Link
	case folder.File:
		i.Size, i.Tag = e.Size, hex.EncodeToString(e.Content.Hash[:])
		if e.Growing {
			i.Size, i.Tag = bridge.Growing, ""
		}
	default:
		return i, fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return i, nil
}

// List implements bridge.Source.
func (f *folderSource) List(ctx context.Context, dir, after string) iter.Seq2[bridge.Info, error] {
	dir, _ = strings.CutSuffix(dir, "/")
	if dir == "" {
		dir = "/"
	}
	return func(yield func(bridge.Info, error) bool) {
		o := folder.ListOptions{}
		if after != "" {
			o.After = path.Join(dir, strings.TrimSuffix(after, "/"))
		}
		for e, err := range f.folder.List(ctx, dir, o) {
			if err != nil {
				yield(bridge.Info{}, notExist(err))
				return
			}
			i, err := infoOf(e)
			if err != nil {
				continue // it makes no sense, and hides nothing else
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}

// Open implements bridge.Source.
func (f *folderSource) Open(ctx context.Context, i bridge.Info, off, n int64) (io.ReadCloser, error) {
	e := i.Entry.(folder.Entry)
	if n < 0 {
		live, err := f.folder.Follow(ctx, e.Path)
		if err != nil {
			return nil, err
		}
		if _, err := live.Seek(off, io.SeekStart); err != nil {
			return nil, errors.Join(err, live.Close())
		}
		return live, nil
	}
	content, err := f.folder.OpenEntry(ctx, e)
	if err != nil {
		return nil, err
	}
	if _, err := content.Seek(off, io.SeekStart); err != nil {
		return nil, errors.Join(err, content.Close())
	}
	return limited{io.LimitReader(content, n), content}, nil
}

// limited is a part of a content.
type limited struct {
	io.Reader
	io.Closer
}
