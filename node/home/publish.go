package home

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/node"
)

// A publication is a drive that is kept the same as a folder, and that everybody
// may read who has its key. It is this device's own.
type publication struct {
	k     *kept
	drive *hyperdrive.Drive
	again chan struct{}
	done  tree.Version // of the folder, that is in the drive
	late  atomic.Bool  // contents were missing: look through all of it again
	logs  []hypercore.Key
	ctx   context.Context
	end   context.CancelFunc
	ended chan struct{}
}

// publish begins to keep a drive the same as the folder. k.publishing is held.
func (k *kept) publish(ctx context.Context, id string) error {
	s := k.session
	d, err := hyperdrive.Open(s.home.store.Namespace("bevy published"), hyperdrive.Options{Name: id, Dedup: true, Cache: s.home.cache})
	if err != nil {
		return fmt.Errorf("open the drive: %w", err)
	}
	content, err := d.ContentKey(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("open the drive: %w", err), d.Close())
	}
	p := &publication{k: k, drive: d, again: make(chan struct{}, 1), logs: []hypercore.Key{d.Key(), content}, ended: make(chan struct{})}
	p.ctx, p.end = context.WithCancel(k.ctx)
	k.public = p
	p.wake()
	k.work.Go(func() {
		defer close(p.ended)
		defer d.Close()
		defer k.folder.Notify(p.wake)()
		if s.swarm != nil {
			interest, err := s.swarm.Join(hyperswarm.Topic(d.Key().Discovery()), hyperswarm.JoinOptions{})
			if err == nil {
				defer s.forget(interest)
			}
		}
		for {
			select {
			case <-p.again:
			case <-p.ctx.Done():
				return
			}
			if err := p.update(p.ctx); err != nil && p.ctx.Err() == nil {
				s.home.node.Log.Warn("cannot publish a folder", "folder", k.space.Info().Name, "err", err)
				p.done = nil
			}
		}
	})
	return nil
}

// stop ends it.
func (p *publication) stop() {
	p.end()
	<-p.ended
}

func (p *publication) wake() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// update brings the drive up to the folder.
func (p *publication) update(ctx context.Context) error {
	now, err := p.k.folder.Version(ctx)
	if err != nil {
		return err
	}
	late := false
	put := func(e folder.Entry) error {
		done, err := p.put(ctx, e)
		late = late || !done
		return err
	}
	if p.done == nil || p.late.Load() {
		err = p.compare(ctx, put)
	} else {
		err = p.changes(ctx, put)
	}
	if err != nil {
		return err
	}
	p.done = now
	p.late.Store(late)
	return nil
}

// changes carries over what has changed since the last time.
func (p *publication) changes(ctx context.Context, put func(folder.Entry) error) error {
	for c, err := range p.k.folder.Changes(ctx, p.done) {
		switch {
		case err != nil:
			return err
		case c.New == nil || c.New.Kind == folder.Dir:
			err = p.drive.Delete(ctx, c.Path)
		default:
			err = put(*c.New)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compare goes through both, in the order of their paths.
func (p *publication) compare(ctx context.Context, put func(folder.Entry) error) error {
	have, stop := iter.Pull2(p.drive.List(ctx, "/", hyperdrive.ListOptions{}))
	defer stop()
	entry, err, ok := have()
	next := func() { entry, err, ok = have() }
	for e, ferr := range p.k.folder.List(ctx, "/", folder.ListOptions{Recursive: true}) {
		if ferr != nil {
			return ferr
		}
		if e.Kind == folder.Dir || e.Kind == folder.Unknown {
			continue
		}
		for ; ok && err == nil && entry.Path < e.Path; next() {
			if err := p.drive.Delete(ctx, entry.Path); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if ok && entry.Path == e.Path {
			same := bytes.Equal(entry.Metadata, p.metadata(e)) && entry.Linkname == e.Link
			next()
			if same {
				continue
			}
		}
		if err := put(e); err != nil {
			return err
		}
	}
	for ; ok && err == nil; next() {
		if err := p.drive.Delete(ctx, entry.Path); err != nil {
			return err
		}
	}
	return err
}

// metadata is what the drive says of an entry: with the hash of its content, by
// which it is known to be the same.
func (p *publication) metadata(e folder.Entry) json.RawMessage {
	m := map[string]any{}
	_ = json.Unmarshal(hyperdrive.NewMetadata(e.ModTime, e.FileMode()), &m)
	if e.Kind == folder.File {
		m["sha256"] = hex.EncodeToString(e.Content.Hash[:])
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil // there is nothing in it that can't be JSON
	}
	return b
}

// put carries one entry over, unless its content is still to come.
func (p *publication) put(ctx context.Context, e folder.Entry) (done bool, err error) {
	if e.Kind == folder.Symlink {
		return true, p.drive.Symlink(ctx, e.Path, e.Link, p.metadata(e))
	}
	if e.Kind != folder.File {
		return true, nil
	}
	if missing, err := p.k.folder.MissingEntry(ctx, e); err != nil || missing > 0 {
		return false, err
	}
	content, err := p.k.folder.OpenEntry(ctx, e)
	if err != nil {
		return false, err
	}
	defer content.Close()
	f, err := p.drive.Create(ctx, e.Path, hyperdrive.PutOptions{Executable: e.FileMode()&0o100 != 0, Metadata: p.metadata(e)})
	if err != nil {
		return false, err
	}
	if _, err := f.ReadFrom(content); err != nil {
		f.Abort()
		return false, err
	}
	return true, f.Close()
}

// published tells where the folder can be read.
func (h *Home) published(k *kept) client.Published {
	key := k.public.drive.Key().String()
	out := client.Published{Folder: called(k.space.Info()), Key: key, Link: "pear://" + key}
	if _, port, ok := strings.Cut(strings.TrimPrefix(h.node.Address(), "http://"), ":"); ok {
		out.URL = "http://" + key + ".localhost:" + port + "/"
	}
	return out
}

// publishFolder makes a folder one that everybody may read who has the key that
// is returned.
func (h *Home) publishFolder(ctx context.Context, s *session, k *kept, _ client.FolderRequest) (out client.Published, err error) {
	k.publishing.Lock()
	defer k.publishing.Unlock()
	if k.public == nil {
		keep := s.cloud.Keep(s.cloud.Self(), k.space.Info().ID)
		if keep.Published == "" {
			if keep.Published, err = cloud.NewID(); err != nil {
				return out, err
			}
			if err := s.cloud.SetKeep(ctx, k.space.Info().ID, keep); err != nil {
				return out, err
			}
		}
		if err := k.publish(ctx, keep.Published); err != nil {
			return out, err
		}
		h.node.Say("%s is published", called(k.space.Info()))
	}
	return h.published(k), nil
}

// getPublished tells where a folder can be read.
func (h *Home) getPublished(_ context.Context, _ *session, k *kept, _ client.FolderRequest) (client.Published, error) {
	k.publishing.Lock()
	defer k.publishing.Unlock()
	if k.public == nil {
		return client.Published{Folder: called(k.space.Info())}, nil
	}
	return h.published(k), nil
}

// unpublishFolder has this node give the drive to nobody any more. Who has read
// it, has it.
func (h *Home) unpublishFolder(ctx context.Context, s *session, k *kept, _ client.FolderRequest) (node.None, error) {
	k.carrying.Lock() // or it is published again before the cloud knows
	defer k.carrying.Unlock()
	id := k.space.Info().ID
	keep := s.cloud.Keep(s.cloud.Self(), id)
	keep.Published = ""
	k.publishing.Lock()
	p := k.public
	k.public = nil
	k.publishing.Unlock()
	if p == nil {
		return node.None{}, nil
	}
	p.stop()
	err := s.cloud.SetKeep(ctx, id, keep)
	for _, key := range p.logs {
		err = errors.Join(err, h.store.Delete(key))
	}
	return node.None{}, err
}
