package home

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/node/bridge"
	"github.com/cloudbevy/bevy/services/backup"
)

// An archive brings contents that no machine at hand has from the backups of the
// cloud, as long as the session lasts.
type archive struct {
	session *session

	mu      sync.Mutex // guards what is below
	readers map[string]*archiveReader
	timer   clock.Timer // forgets readers; nil when there is none
}

var _ content.Archive = (*archive)(nil)

// An archiveReader is a backup that was read from.
type archiveReader struct {
	opening sync.Mutex // held to open it

	place  client.BackupPlace // as it was opened
	reader *backup.Reader     // nil until it could be
	failed time.Time          // when it did not answer last
	err    error              // then
	used   time.Time
}

const (
	// archiveRetry is how long a backup that does not answer is not asked again.
	archiveRetry = 20 * time.Second
	// archiveIdle is how long it is kept in mind what is in a backup.
	archiveIdle = 10 * time.Minute
)

// Ready implements content.Archive.
func (a *archive) Ready() bool {
	list, err := a.session.backupPlaces(a.session.ctx)
	return err == nil && len(list) > 0
}

// Bring implements content.Archive.
func (a *archive) Bring(ctx context.Context, log *hypercore.Log, blocks *runs.Set) error {
	list, err := a.session.backupPlaces(ctx)
	if err != nil {
		return err
	}
	var away error
	for _, p := range list {
		err := a.with(ctx, p, func(r *backup.Reader) error { return r.Bring(ctx, log, blocks) })
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.Is(err, backup.ErrKey):
			away = (&client.Error{Code: client.CodeCorrupt, Message: "it is on no machine at hand, and what the backup " + p.Address + " has of it is damaged",
				Cause: err.Error(), Try: "bevy backup verify --read " + p.Address}).Because(err)
		case !errors.Is(err, backup.ErrNotFound) && away == nil:
			away = (&client.Error{Code: client.CodeOffline, Message: "it is on no machine at hand, and the backup " + p.Address + " does not answer",
				Cause: err.Error(), Try: "bevy backup verify " + p.Address + ", and the same again when that works"}).Because(errors.Join(err, bridge.ErrUnreachable))
		}
	}
	if away != nil {
		return away
	}
	return fmt.Errorf("no machine at hand and no backup has it: %w", content.ErrNotFound)
}

// with calls f with the reader of a backup.
func (a *archive) with(ctx context.Context, p backupPlace, f func(*backup.Reader) error) error {
	reader, err := a.open(ctx, p)
	if err != nil {
		return err
	}
	err = f(reader)
	if err != nil && !errors.Is(err, backup.ErrNotFound) && !errors.Is(err, backup.ErrKey) {
		r := a.of(p)
		r.opening.Lock()
		defer r.opening.Unlock()
		r.fail(ctx, err, a.session.home.node.Clock().Now())
	}
	return err
}

// open returns the reader of a backup.
func (a *archive) open(ctx context.Context, p backupPlace) (*backup.Reader, error) {
	r := a.of(p)
	now := a.session.home.node.Clock().Now
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.err != nil && now().Sub(r.failed) < archiveRetry {
		return nil, r.err
	}
	r.err = nil
	if _, err := a.session.home.remote(p.BackupPlace); err != nil { // such as a disk that was taken away
		r.fail(ctx, err, now())
		return nil, err
	}
	if r.reader == nil || r.place != p.BackupPlace {
		repo, err := a.session.home.openRepo(ctx, p)
		if err != nil {
			r.fail(ctx, err, now())
			return nil, err
		}
		r.place, r.reader = p.BackupPlace, repo.Reader()
	}
	return r.reader, nil
}

// retry forgets that a backup did not answer.
func (a *archive) retry(p backupPlace) {
	r := a.of(p)
	r.opening.Lock()
	defer r.opening.Unlock()
	r.err = nil
}

// fail notes that a backup does not answer. The caller holds opening.
func (r *archiveReader) fail(ctx context.Context, err error, at time.Time) {
	if ctx.Err() == nil {
		r.failed, r.err = at, err
	}
}

// of returns what is known of a backup.
func (a *archive) of(p backupPlace) *archiveReader {
	clk := a.session.home.node.Clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.readers[p.ID]
	if r == nil {
		r = &archiveReader{}
		if a.readers == nil {
			a.readers = map[string]*archiveReader{}
		}
		a.readers[p.ID] = r
	}
	r.used = clk.Now()
	if a.timer == nil && a.session.ctx.Err() == nil {
		a.timer = clk.AfterFunc(archiveIdle, a.forget)
	}
	return r
}

// forget drops what was not used for a while.
func (a *archive) forget() {
	clk := a.session.home.node.Clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, r := range a.readers {
		if clk.Now().Sub(r.used) >= archiveIdle {
			delete(a.readers, id)
		}
	}
	a.timer = nil
	if len(a.readers) > 0 && a.session.ctx.Err() == nil {
		a.timer = clk.AfterFunc(archiveIdle, a.forget)
	}
}

// stop ends it.
func (a *archive) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
}

// safe makes a backup of all that is here now, and returns what looks whether blocks
// are in it. That it is needed is written down before.
func (a *archive) safe(ctx context.Context) (backupPlace, content.Check, error) {
	s := a.session
	list, err := s.backupPlaces(ctx)
	if err != nil {
		return backupPlace{}, nil, err
	}
	if len(list) == 0 {
		return backupPlace{}, nil, &client.Error{Code: client.CodeDenied, Message: "nothing was freed", Cause: "no other machine is known to have all of it, and there is no backup", Try: "bevy status, or: bevy backup to <place>"}
	}
	var failed error
	for _, p := range list {
		_, err := s.home.runBackup(ctx, client.BackupName{ID: p.ID})
		if err == nil {
			err = a.with(ctx, p, func(r *backup.Reader) error { return r.Reload(ctx) })
		}
		if ctx.Err() != nil {
			return backupPlace{}, nil, err
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		self := hypercore.Key(s.cloud.Self())
		if !slices.Contains(p.Freed, self) {
			for i := range list {
				if list[i].ID == p.ID {
					list[i].Freed = append(list[i].Freed, self)
				}
			}
			if err := s.cloud.SetSetting(ctx, backupSetting, list); err != nil {
				return backupPlace{}, nil, err
			}
		}
		return p, func(ctx context.Context, log *hypercore.Log, blocks *runs.Set) error {
			err := a.with(ctx, p, func(r *backup.Reader) error { return r.Check(ctx, log, blocks) })
			if err != nil && ctx.Err() == nil {
				err = (&client.Error{Code: client.CodeDenied, Message: "what is not in the backup " + p.Address + " was not freed", Cause: err.Error(), Try: "bevy backup verify --read " + p.Address}).Because(err)
			}
			return err
		}, nil
	}
	return backupPlace{}, nil, failed
}

// secure makes the backups anew that have what was freed here. What is older than a
// snapshot may then be cleared: what lies between two of them proves what is in the
// first.
func (s *session) secure(ctx context.Context) error {
	list, err := s.backupPlaces(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		if !slices.Contains(p.Freed, hypercore.Key(s.cloud.Self())) {
			continue
		}
		if _, err := s.home.runBackup(ctx, client.BackupName{ID: p.ID}); err != nil {
			return err
		}
	}
	return nil
}
