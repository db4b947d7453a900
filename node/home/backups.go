package home

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/runs"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/services/backup"
)

// backupRoutes hangs into the node what it can be asked about backups.
func (h *Home) backupRoutes() {
	h.node.Route(
		node.Call("GET", "/backups", "List where the cloud is backed up to", h.getBackups),
		node.Call("POST", "/backups", "Begin a backup, or go on with one of this cloud", h.addBackup),
		node.Call("DELETE", "/backups/{backup}", "Make a backup no more; what is there stays", h.dropBackup),
		node.Call("POST", "/backups/{backup}/runs", "Back up what is new", h.runBackup),
		node.Call("GET", "/backups/{backup}/snapshots", "List the snapshots in a backup", h.getSnapshots),
		node.Call("POST", "/backups/{backup}/checks", "Look whether a backup is whole", h.checkBackup),
		node.Call("POST", "/backups/{backup}/prunings", "Remove old snapshots", h.pruneBackup),
		node.Call("POST", "/backup-restores", "Get the cloud back from a backup", h.restoreBackup),
	)
}

// A backupPlace is what the cloud knows of a backup. It has the keys to it, so
// that any machine of the cloud can make it.
type backupPlace struct {
	client.BackupPlace
	ID      string        `json:"id"`
	Key     []byte        `json:"key"`
	Device  hypercore.Key `json:"device"` // that makes it
	Every   time.Duration `json:"every,omitempty"`
	Created time.Time     `json:"created"`
	// Freed are the devices that freed what may be nowhere else.
	Freed []hypercore.Key `json:"freed,omitempty"`
}

// backupSetting is the setting of the cloud with all of them.
const backupSetting = "backups"

// lately is what a machine knows of the backups that it makes, in a file of its own.
type lately struct {
	mu      sync.Mutex // held to use the file, too
	running map[string]bool
}

// A backupState is how the last run went.
type backupState struct {
	Last     time.Time `json:"last,omitzero"`
	Snapshot string    `json:"snapshot,omitempty"`
	Error    string    `json:"error,omitempty"`
	Tried    time.Time `json:"tried,omitzero"`
	// Missing is how many files are not whole in it, Away that another backup may have
	// them and could not be read.
	Missing int  `json:"missing,omitempty"`
	Away    bool `json:"away,omitempty"`
}

const backupFile = "backups.json"

func (h *Home) backupStates() (all map[string]backupState, err error) {
	b, err := os.ReadFile(filepath.Join(h.dir, backupFile))
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]backupState{}, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	return all, err
}

// noteBackup keeps how a run went, and tells the owner.
func (h *Home) noteBackup(p backupPlace, change func(*backupState)) {
	h.backups.mu.Lock()
	defer h.backups.mu.Unlock()
	all, err := h.backupStates()
	if err != nil || all == nil {
		all = map[string]backupState{} // it is only for people
	}
	s := all[p.ID]
	change(&s)
	all[p.ID] = s
	b, err := json.Marshal(all)
	if err == nil {
		err = cloud.FileVault(filepath.Join(h.dir, backupFile)).Save(b)
	}
	if err != nil {
		h.node.Log.Warn("cannot keep how a backup went", "err", err)
	}
	if s.Missing == 0 {
		h.node.Notices.Clear("backup-lacks", p.Address)
	} else {
		h.node.Notices.Raise(client.Notice{Code: "backup-lacks", Subject: p.Address, Severity: client.Warning,
			Text: fmt.Sprintf("the backup to %s lacks the contents of %d files, which are not on this machine", p.Address, s.Missing), Fix: "bevy backup run " + p.Address})
	}
	if s.Error == "" {
		h.node.Notices.Clear("backup-failed", p.Address)
		return
	}
	h.node.Notices.Raise(client.Notice{Code: "backup-failed", Subject: p.Address, Severity: client.Warning,
		Text: "the backup to " + p.Address + " can't be made: " + s.Error, Fix: "bevy backup run " + p.Address})
}

func (s *session) backupPlaces(ctx context.Context) (list []backupPlace, err error) {
	_, err = s.cloud.Setting(ctx, backupSetting, &list)
	return list, err
}

// findBackup returns the backup that a word means: its address or id.
func (s *session) findBackup(ctx context.Context, word string) (backupPlace, error) {
	list, err := s.backupPlaces(ctx)
	if err != nil {
		return backupPlace{}, err
	}
	for _, p := range list {
		if p.ID == word || p.Address == word {
			return p, nil
		}
	}
	return backupPlace{}, &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("there is no backup to %q", word), Cause: "the cloud is not backed up there", Try: "bevy backup ls"}
}

// remote is what a place is at.
func (h *Home) remote(p client.BackupPlace) (backup.Remote, error) {
	wrong := func(cause string) error {
		return &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q is no place for a backup", p.Address), Cause: cause, Try: "bevy backup to --help"}
	}
	path, isS3 := strings.CutPrefix(p.Address, "s3://")
	if !isS3 {
		if !filepath.IsAbs(p.Address) {
			return nil, wrong("it is neither s3://bucket/prefix nor the absolute path of a folder")
		}
		if info, err := os.Stat(p.Address); err != nil || !info.IsDir() {
			return nil, &client.Error{Code: client.CodeOffline, Message: "the folder " + p.Address + " is not there", Cause: "its disk is not plugged in, or it was never made", Try: "ls " + p.Address}
		}
		return backup.Folder(p.Address), nil
	}
	bucket, prefix, _ := strings.Cut(path, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	r := &backup.S3{Endpoint: p.Endpoint, Bucket: bucket, Prefix: prefix, Region: p.Region, AccessKey: p.AccessKey, Secret: p.Secret, Clock: h.node.Clock()}
	if r.Endpoint == "" {
		r.Endpoint = "https://s3.amazonaws.com"
	}
	if err := r.Check(); err != nil {
		return nil, wrong(err.Error())
	}
	return r, nil
}

func (h *Home) openRepo(ctx context.Context, p backupPlace) (*backup.Repo, error) {
	r, err := h.remote(p.BackupPlace)
	if err != nil {
		return nil, err
	}
	repo, err := backup.Open(ctx, r, backup.WithKey(p.Key), backup.Options{Clock: h.node.Clock()})
	if err == nil && repo.ID() != p.ID {
		err = errors.New("another backup was begun there")
	}
	return repo, toldByBackup(err, p.Address)
}

// toldByBackup gives errors of backups their codes.
func toldByBackup(err error, address string) error {
	var known *client.Error
	switch {
	case err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, backup.ErrNotFound):
		return (&client.Error{Code: client.CodeNotFound, Message: "there is no such backup at " + address, Cause: err.Error(), Try: "bevy backup to " + address}).Because(err)
	case errors.Is(err, backup.ErrKey):
		return (&client.Error{Code: client.CodeCorrupt, Message: "the backup at " + address + " can't be read", Cause: err.Error(), Try: "bevy backup verify --read " + address}).Because(err)
	case errors.Is(err, backup.ErrVersion):
		return (&client.Error{Code: client.CodeUsage, Message: "the backup at " + address + " is of a newer program", Cause: err.Error(), Try: "a newer bevy"}).Because(err)
	}
	code, try := client.CodeOffline, "the same command again, once that works"
	switch {
	case errors.Is(err, backup.ErrNoBucket):
		code, try = client.CodeNotFound, "make the bucket on that server, then the same command again"
	case errors.Is(err, backup.ErrDenied):
		code, try = client.CodeDenied, "look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and whether they may read, write, list and delete there; then: bevy backup to "+address
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		code, try = client.CodeDenied, "look at who may write there, and whether the disk is read-only"
	case errors.Is(err, syscall.ENOSPC):
		code, try = client.CodeFull, "make room there, such as by: bevy backup prune "+address
	}
	return (&client.Error{Code: code, Message: "the backup at " + address + " failed", Cause: err.Error(), Try: try}).Because(err)
}

func (h *Home) describeBackup(s *session, p backupPlace, states map[string]backupState) client.Backup {
	state := states[p.ID]
	return client.Backup{
		ID: p.ID, Address: p.Address, Endpoint: p.Endpoint, Region: p.Region, Every: p.Every, Created: p.Created,
		Only: len(p.Freed) > 0, Machine: s.cloud.DeviceName(noise.Key(p.Device)), Here: noise.Key(p.Device) == s.cloud.Self(),
		Last: state.Last, Snapshot: state.Snapshot, Error: state.Error, Running: h.backups.running[p.ID],
	}
}

func (h *Home) getBackups(ctx context.Context, _ node.None) (out client.Backups, err error) {
	err = h.use(ctx, func(s *session) error {
		list, err := s.backupPlaces(ctx)
		if err != nil {
			return err
		}
		h.backups.mu.Lock()
		defer h.backups.mu.Unlock()
		states, err := h.backupStates()
		if err != nil {
			return err
		}
		for _, p := range list {
			out.Backups = append(out.Backups, h.describeBackup(s, p, states))
		}
		return nil
	})
	return out, err
}

// minEvery is the shortest time between two runs that are not asked for.
const minEvery = time.Minute

func (h *Home) addBackup(ctx context.Context, in client.AddBackup) (out client.Backup, err error) {
	if in.Every < 0 || in.Every > 0 && in.Every < minEvery {
		return out, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%v is no time between two backups", in.Every), Cause: "it is a minute at least", Try: "--every 24h"}
	}
	remote, err := h.remote(in.Place)
	if err != nil {
		return out, err
	}
	err = h.use(ctx, func(s *session) error {
		o := backup.Options{Clock: h.node.Clock()}
		repo, err := backup.Create(ctx, remote, s.cloud.ID().String(), s.cloud.SealForOwner, o)
		if errors.Is(err, backup.ErrExists) {
			repo, err = h.openOwn(ctx, s, remote, in.Place.Address)
		}
		if err != nil {
			return toldByBackup(err, in.Place.Address)
		}
		list, err := s.backupPlaces(ctx)
		if err != nil {
			return err
		}
		p := backupPlace{BackupPlace: in.Place, ID: repo.ID(), Key: repo.Key(), Device: hypercore.Key(s.cloud.Self()), Every: in.Every, Created: h.node.Clock().Now().UTC()}
		for _, old := range list {
			if old.ID == p.ID {
				p.Freed = old.Freed
			}
		}
		list = append(slices.DeleteFunc(list, func(old backupPlace) bool { return old.ID == p.ID || old.Address == p.Address }), p)
		if err := s.cloud.SetSetting(ctx, backupSetting, list); err != nil {
			return err
		}
		s.poke()
		h.node.Say("the cloud is backed up to %s", p.Address)
		out = h.describeBackup(s, p, nil)
		return nil
	})
	return out, err
}

// openOwn opens a repository that there is already, of this cloud.
func (h *Home) openOwn(ctx context.Context, s *session, remote backup.Remote, address string) (*backup.Repo, error) {
	list, err := s.backupPlaces(ctx)
	if err != nil {
		return nil, err
	}
	repo, err := backup.Open(ctx, remote, func(sealed []byte) ([]byte, bool) {
		if seed, here, _ := s.cloud.Seed(); here {
			return cloud.UnsealAsOwner(seed, sealed)
		}
		for _, p := range list {
			if p.Address == address {
				return p.Key, true
			}
		}
		return nil, false
	}, backup.Options{Clock: h.node.Clock()})
	switch {
	case errors.Is(err, backup.ErrKey):
		return nil, (&client.Error{Code: client.CodeDenied, Message: "the backup at " + address + " can't be opened here",
			Cause: "it is of another cloud, or this machine has not its owner's words", Try: "bevy up --home <another folder> --restore"}).Because(err)
	case err == nil && repo.Cloud() != s.cloud.ID().String():
		return nil, &client.Error{Code: client.CodeDenied, Message: "the backup at " + address + " is of another cloud", Cause: "it is of the cloud " + repo.Cloud(), Try: "bevy up --home <another folder> --restore"}
	}
	return repo, err
}

func (h *Home) dropBackup(ctx context.Context, in client.DropBackup) (node.None, error) {
	return node.None{}, h.use(ctx, func(s *session) error {
		p, err := s.findBackup(ctx, in.ID)
		if err != nil {
			return err
		}
		list, err := s.backupPlaces(ctx)
		if err != nil {
			return err
		}
		if len(p.Freed) > 0 && !in.Anyway {
			return &client.Error{Code: client.CodeDenied, Message: "the backup to " + p.Address + " is still needed", Cause: "it may be the only place of what was freed with \"bevy free\"",
				Try: "bevy get <folder> of all that was freed, then: bevy backup stop --yes " + p.Address}
		}
		list = slices.DeleteFunc(list, func(old backupPlace) bool { return old.ID == p.ID })
		if err := s.cloud.SetSetting(ctx, backupSetting, list); err != nil {
			return err
		}
		h.node.Notices.Clear("backup-failed", p.Address)
		h.node.Say("the cloud is not backed up to %s any more", p.Address)
		return nil
	})
}

// onBackup does something with a backup, alone.
func (h *Home) onBackup(ctx context.Context, id string, f func(*session, backupPlace, *backup.Repo) error) error {
	return h.use(ctx, func(s *session) error {
		p, err := s.findBackup(ctx, id)
		if err != nil {
			return err
		}
		h.backups.mu.Lock()
		busy := h.backups.running[p.ID]
		if !busy {
			h.backups.running[p.ID] = true
		}
		h.backups.mu.Unlock()
		if busy {
			return &client.Error{Code: client.CodeConflict, Message: "the backup to " + p.Address + " is at work already", Cause: "one thing at a time is done with it", Try: "bevy backup ls"}
		}
		defer func() {
			h.backups.mu.Lock()
			delete(h.backups.running, p.ID)
			h.backups.mu.Unlock()
		}()
		repo, err := h.openRepo(ctx, p)
		if err != nil {
			return err
		}
		return toldByBackup(f(s, p, repo), p.Address)
	})
}

func (h *Home) runBackup(ctx context.Context, in client.BackupName) (out client.BackedUp, err error) {
	var place backupPlace
	err = h.onBackup(ctx, in.ID, func(s *session, p backupPlace, repo *backup.Repo) error {
		place = p
		out, err = h.backUp(ctx, s, p, repo)
		return err
	})
	if place.ID == "" && err == nil || ctx.Err() != nil {
		return out, err
	}
	if place.ID == "" {
		if s := h.now(); s != nil {
			place, _ = s.findBackup(ctx, in.ID) // there is none to tell of
		}
	}
	var busy *client.Error
	if place.ID != "" && !(errors.As(err, &busy) && busy.Code == client.CodeConflict) {
		now := h.node.Clock().Now().UTC()
		h.noteBackup(place, func(b *backupState) {
			if b.Tried, b.Error = now, ""; err != nil {
				b.Error = err.Error()
				return
			}
			b.Last, b.Snapshot, b.Missing, b.Away = now, out.Snapshot, out.MissingFiles, len(out.Away) > 0
		})
	}
	return out, err
}

// backUp adds a snapshot of all that is here, and of what only other backups have.
func (h *Home) backUp(ctx context.Context, s *session, to backupPlace, repo *backup.Repo) (out client.BackedUp, err error) {
	logs, err := s.cloud.Logs(ctx)
	if err != nil {
		return out, err
	}
	from := backup.Source{Store: h.store, Device: s.cloud.DeviceName(s.cloud.Self()), Gone: map[hypercore.Key]bool{}}
	for _, l := range logs {
		if l.Removed {
			from.Gone[l.Key] = true
		} else {
			from.Logs = append(from.Logs, l.Key)
		}
	}
	if from.Root, err = s.cloud.Root(); err != nil {
		return out, err
	}
	list, err := s.backupPlaces(ctx)
	if err != nil {
		return out, err
	}
	list = slices.DeleteFunc(list, func(p backupPlace) bool { return p.ID == to.ID })
	for _, p := range list {
		from.Elsewhere = append(from.Elsewhere, func(ctx context.Context) (*backup.Reader, error) {
			s.archive.retry(p)
			return s.archive.open(ctx, p)
		})
	}
	done, err := repo.Run(ctx, from, nil)
	if err != nil {
		return out, err
	}
	out = client.BackedUp{Snapshot: done.Snapshot, New: done.New, Blocks: done.Blocks, Bytes: done.Bytes, Missing: done.Missing, Copied: done.Copied, Behind: len(done.Behind)}
	if done.Missing == 0 {
		return out, nil
	}
	for i, err := range done.Failed {
		if err != nil {
			out.Away = append(out.Away, list[i].Address+": "+firstLine(err))
		}
	}
	// Most of it may be old versions that were cleared: what counts is what is there now.
	there := &inBackup{reader: repo.Reader(), blocks: map[hypercore.Key]*runs.Set{}}
	if err := there.reader.Reload(ctx); err != nil {
		return out, err
	}
	missing, err := s.notWhole(ctx, func(k *kept, e folder.Entry) (bool, error) { return k.folder.WholeIn(ctx, e, there) })
	out.MissingFiles, out.MissingNames = missing.files, missing.names
	return out, err
}

// firstLine is what an error says first: some are of a thousand blocks.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// inBackup is a place for contents: a backup.
type inBackup struct {
	reader *backup.Reader
	blocks map[hypercore.Key]*runs.Set // of logs that were asked about
}

var _ content.Place = (*inBackup)(nil)

// Has implements content.Place.
func (b *inBackup) Has(log *hypercore.Log, block uint64) bool {
	set := b.blocks[log.Key()]
	if set == nil {
		all := b.reader.Blocks(log)
		set = &all
		b.blocks[log.Key()] = set
	}
	return set.Has(block)
}

// Bring implements content.Place.
func (b *inBackup) Bring(ctx context.Context, log *hypercore.Log, blocks *runs.Set) error {
	return b.reader.Bring(ctx, log, blocks)
}

// missingFiles are files that are not whole.
type missingFiles struct {
	files int
	names []string // the first of them, as folder/path
}

// maxMissingNames is how many are named.
const maxMissingNames = 100

// notWhole returns the files, as they are now, that is says are not whole. What can't
// be told counts as that.
func (s *session) notWhole(ctx context.Context, whole func(*kept, folder.Entry) (bool, error)) (out missingFiles, err error) {
	add := func(name string) {
		if out.files++; len(out.names) < maxMissingNames {
			out.names = append(out.names, name)
		}
	}
	for _, info := range s.cloud.Spaces(cloud.Folder) {
		k, err := s.folderOf(info.ID)
		if err != nil {
			return out, err
		}
		name := called(info)
		for e, err := range k.folder.List(ctx, "/", folder.ListOptions{Recursive: true}) {
			if err != nil {
				return out, fmt.Errorf("list folder %q: %w", name, err)
			}
			if e.Kind != folder.File {
				continue
			}
			ok, err := whole(k, e)
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			if err != nil || !ok {
				add(name + e.Path)
			}
		}
	}
	return out, nil
}

func (h *Home) getSnapshots(ctx context.Context, in client.BackupName) (out client.BackupSnapshots, err error) {
	err = h.use(ctx, func(s *session) error {
		p, err := s.findBackup(ctx, in.ID)
		if err != nil {
			return err
		}
		repo, err := h.openRepo(ctx, p)
		if err != nil {
			return err
		}
		names, err := repo.Snapshots(ctx)
		for _, name := range names {
			var snap *backup.Snapshot
			if snap, err = repo.Snapshot(ctx, name); err != nil {
				break
			}
			out.Snapshots = append(out.Snapshots, describeSnapshot(snap))
		}
		return toldByBackup(err, p.Address)
	})
	return out, err
}

func describeSnapshot(s *backup.Snapshot) client.BackupSnapshot {
	return client.BackupSnapshot{Name: s.Name, Time: s.Time, Machine: s.Device, Logs: len(s.Logs), Bytes: s.Bytes()}
}

func (h *Home) checkBackup(ctx context.Context, in client.CheckBackup) (out client.BackupChecked, err error) {
	err = h.onBackup(ctx, in.ID, func(_ *session, _ backupPlace, repo *backup.Repo) (err error) {
		snap, err := repo.Snapshot(ctx, "")
		if err != nil {
			return err
		}
		var scratch *corestore.Store
		if in.Read {
			dir, err := os.MkdirTemp(h.dir, "verify-*")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			if scratch, err = corestore.OpenDisk(storage.Disk{Dir: filepath.Join(dir, "logs")}, corestore.Options{}); err != nil {
				return err
			}
			defer scratch.Close()
		}
		c, err := repo.Verify(ctx, snap, scratch, nil)
		out = client.BackupChecked{Snapshot: snap.Name, Packs: c.Packs, Bytes: c.Bytes, Read: c.Read, Wrong: c.Wrong, Problem: c.Problem}
		if err == nil && in.Restore && len(c.Wrong) == 0 && c.Problem == "" {
			err = h.drill(ctx, repo, snap, &out)
		}
		return err
	})
	return out, err
}

func (h *Home) pruneBackup(ctx context.Context, in client.PruneBackup) (out client.BackupPruned, err error) {
	if in.Days < 0 || in.Weeks < 0 || in.Months < 0 {
		return out, &client.Error{Code: client.CodeUsage, Message: "fewer than no snapshots can't be kept", Cause: "a number is negative", Try: "bevy backup prune --help"}
	}
	err = h.onBackup(ctx, in.ID, func(_ *session, _ backupPlace, repo *backup.Repo) error {
		p, err := repo.Prune(ctx, backup.Keep{Days: in.Days, Weeks: in.Weeks, Months: in.Months}, in.Dry)
		out = client.BackupPruned{Kept: p.Kept, Removed: p.Snapshots, Packs: p.Packs, Bytes: p.Bytes}
		return err
	})
	return out, err
}

func (h *Home) restoreBackup(ctx context.Context, in client.RestoreBackup) (out client.BackupRestored, err error) {
	remote, err := h.remote(in.Place)
	if err != nil {
		return out, err
	}
	err = h.use(ctx, func(s *session) error {
		repo, err := h.openOwn(ctx, s, remote, in.Place.Address)
		if err != nil {
			return toldByBackup(err, in.Place.Address)
		}
		snap, err := repo.Snapshot(ctx, in.Snapshot)
		if err != nil {
			return toldByBackup(err, in.Place.Address)
		}
		if err := repo.Restore(ctx, snap, h.store, nil); err != nil {
			if ctx.Err() != nil || !backup.Partly(err) {
				return toldByBackup(err, in.Place.Address)
			}
			out.Problem = firstLine(err) // the rest is here
		}
		if err := s.cloud.Learn(ctx, snap.Root); err != nil {
			return err
		}
		if err := s.openFolders(); err != nil {
			return err
		}
		s.poke()
		h.node.Say("the cloud came back from %s as it was at %s", in.Place.Address, snap.Time.Format(time.RFC3339))
		out.BackupSnapshot = describeSnapshot(snap)
		missing, err := s.restored(ctx)
		out.MissingFiles, out.MissingNames = missing.files, missing.names
		if err != nil && out.Problem == "" {
			out.Problem = firstLine(err)
		}
		return ctx.Err()
	})
	return out, err
}

// listPatience is how long is waited for what lists the next file after something was
// restored: it is here, unless it was not in the backup.
const listPatience = time.Minute

// restored returns the files that are not whole on this machine.
func (s *session) restored(ctx context.Context) (missingFiles, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wait := func() clock.Timer {
		return s.home.node.Clock().AfterFunc(listPatience, func() { cancel(errors.New("not all that lists files could be had")) })
	}
	timer := wait()
	defer func() { timer.Stop() }()
	missing, err := s.notWhole(ctx, func(k *kept, e folder.Entry) (bool, error) {
		timer.Stop()
		timer = wait()
		n, err := k.folder.MissingEntry(ctx, e)
		return n == 0, err
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return missing, err
}

const (
	backupRetry  = 15 * time.Minute // after one that failed
	maxBackupNap = time.Hour        // the clock may jump
	backupCalm   = 10 * time.Second // after the start
)

// keepBackups makes the backups of this machine when it is their time, until the
// session ends.
func (s *session) keepBackups() {
	for wait := backupCalm; sleep(s.ctx, s.home.node.Clock(), wait); {
		wait = maxBackupNap
		list, err := s.backupPlaces(s.ctx)
		if err != nil {
			continue
		}
		for _, p := range list {
			if p.Every <= 0 || p.Device != hypercore.Key(s.cloud.Self()) {
				continue
			}
			due := s.home.backupDue(p)
			now := s.home.node.Clock().Now()
			if !due.After(now) {
				if _, err := s.home.runBackup(s.ctx, client.BackupName{ID: p.ID}); err != nil && s.ctx.Err() == nil {
					s.home.node.Log.Warn("cannot back up", "to", p.Address, "err", err)
				}
				due, now = s.home.backupDue(p), s.home.node.Clock().Now()
			}
			wait = min(wait, max(due.Sub(now), minEvery))
		}
	}
}

// backupDue is when a backup is to be made.
func (h *Home) backupDue(p backupPlace) time.Time {
	h.backups.mu.Lock()
	defer h.backups.mu.Unlock()
	states, err := h.backupStates()
	if err != nil {
		return time.Time{}
	}
	state := states[p.ID]
	if state.Error != "" {
		return state.Tried.Add(min(p.Every, backupRetry))
	}
	if state.Away {
		return state.Last.Add(min(p.Every, backupRetry))
	}
	return state.Last.Add(p.Every)
}
