package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A lostLog is one of the logs that this device wrote until it found itself behind,
// and what others have of it.
type lostLog struct {
	Head signedHead `json:"head"`
	// From is how many first blocks they have in common, or fewer. What is here
	// behind them was written without knowing of theirs.
	From uint64 `json:"from"`
}

// forked tells whether something was written to the log that others don't have.
func (l *lostLog) forked(log *hypercore.Log) (bool, error) {
	if log.Length() <= l.From {
		return false, nil
	}
	tree, err := l.Head.tree()
	if err != nil || l.Head.Length > log.Length() {
		return true, err
	}
	hash, err := log.TreeHash(l.Head.Length)
	return hash != tree.Hash(), err
}

// recovered opens a cloud by secrets. If this device was behind, it says again in
// its new logs what it has said in the old ones without knowing of what was lost;
// then the old ones become what others have of them.
func recovered(ctx context.Context, o Options, s *secrets) (*Cloud, error) {
	c := newCloud(o, s)
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	if len(s.Lost) == 0 {
		return c, nil
	}
	if err := c.sayAgain(ctx); err != nil {
		// Nobody gets the old logs. The next start tries it again.
		o.Log.Error("cannot say again what was written while this device was behind", "err", err)
		return c, nil
	}
	if err := c.Close(); err != nil {
		return nil, err
	}
	for _, l := range s.Lost {
		if err := l.replace(ctx, o.Store); err != nil {
			return nil, fmt.Errorf("take what others have of log %s: %w", l.Head.Log, err)
		}
	}
	s.Lost, s.Mended = nil, s.Mended+1
	if err := s.save(o.Vault); err != nil {
		return nil, err
	}
	c = newCloud(o, s)
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// replace has a log that has forked become what others have of it.
func (l *lostLog) replace(ctx context.Context, store *corestore.Store) (err error) {
	log, err := store.Get(corestore.LogOptions{Key: &l.Head.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if forked, err := l.forked(log); err != nil || !forked {
		return err
	}
	tree, err := l.Head.tree()
	if err != nil {
		return err
	}
	return log.Replace(ctx, hypercore.Head{Tree: tree, Signature: l.Head.Signature}, l.From)
}

// sayAgain says in this device's logs what it has said in those that were lost, and
// that others don't have.
func (c *Cloud) sayAgain(ctx context.Context) error {
	lost := map[hypercore.Key]*lostLog{}
	for i := range c.secrets.Lost {
		lost[c.secrets.Lost[i].Head.Log] = &c.secrets.Lost[i]
	}
	for _, s := range c.all() {
		for _, w := range s.open() {
			l := lost[w.record.Tree]
			if l == nil {
				continue
			}
			forked, err := l.forked(w.Tree)
			if err == nil && forked {
				err = s.sayAgain(ctx, w, l.From)
			}
			if err != nil {
				return fmt.Errorf("space %s: %w", s.Info().Name, err)
			}
		}
	}
	return c.refresh(ctx)
}

// mostAgain is how much is said again in one batch.
const mostAgain = 256

// sayAgain says again what a writer has said since a version, as one who has seen
// what was there then: what others have of that writer may be something else, and
// stays beside it.
func (s *Space) sayAgain(ctx context.Context, w *writer, from uint64) error {
	if err := s.Write(ctx); err != nil {
		return err
	}
	version, err := s.tree.Version(ctx)
	if err != nil {
		return err
	}
	version[w.record.Tree] = max(from, emptyTree)
	contents := content.New(content.Options{Clock: s.cloud.clock})
	for _, x := range s.open() {
		switch {
		case x.Content == nil:
		case x.Own:
			err = errors.Join(err, contents.Own(x.Content))
		default:
			err = errors.Join(err, contents.Add(x.Content, 0))
		}
	}
	if err != nil {
		return err
	}
	files := folder.New(s.tree, contents, folder.Options{Clock: s.cloud.clock})
	hold := contents.Hold()
	defer hold.Release()
	var some []overSeen
	flush := func() error {
		b, err := s.tree.Batch(ctx)
		if err != nil {
			return err
		}
		defer b.Close()
		for _, x := range some {
			if x.value == nil {
				err = b.DeleteOver(ctx, x.seen.Key, x.seen)
			} else {
				err = b.PutOver(ctx, x.seen.Key, x.value, x.seen)
			}
			if err != nil {
				return err
			}
		}
		some = some[:0]
		return b.Flush(ctx)
	}
	for change, err := range s.tree.Changes(ctx, version, hyperbee.RangeOptions{}) {
		if err != nil {
			return err
		}
		// What a device does with a space it says for itself, as what it is now.
		if s.Info().Kind == Control && bytes.HasPrefix(change.Key, []byte(keepKeys)) {
			continue
		}
		for _, e := range append([]tree.Entry{change.New}, change.New.Others...) {
			if e.Writer != w.record.Tree || e.Seq < from {
				continue
			}
			x := overSeen{value: e.Value, seen: change.Old}
			x.seen.Key = change.Key
			if s.Info().Kind == Folder {
				e.Key = change.Key
				if x.value, err = files.Again(ctx, hold, e); err != nil {
					return err
				}
			}
			some = append(some, x)
		}
		if len(some) >= mostAgain {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// An overSeen is something to be said over what was seen; nil deletes.
type overSeen struct {
	value []byte
	seen  tree.Entry
}
