package home

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/disk"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
)

// A kept is a folder of the cloud while the session lasts.
type kept struct {
	session *session
	space   *cloud.Space
	folder  *folder.Folder
	deaf    func() // ends the folder's notifications
	stop    context.CancelFunc
	ctx     context.Context
	work    sync.WaitGroup

	carrying   sync.Mutex // held to begin and end what is done with the folder
	publishing sync.Mutex // guards public
	public     *publication

	mu       sync.Mutex
	writers  map[tree.Writer]hypercore.Key // who writes which log
	keeper   *disk.Keeper                  // nil if there is no folder on this disk
	keep     cloud.Keep                    // as it is carried out
	unfetch  context.CancelFunc            // ends bringing all contents; nil if that is not going on
	stats    folder.Stats
	measured bool
	changed  time.Time
	grown    bool // since it was counted last
	counting bool
}

// openFolders opens the folders that are new in the cloud, closes those that are
// gone, and does for each what this device is to do with it.
func (s *session) openFolders() error {
	wanted := map[string]bool{}
	errs := []error{s.takeOver()}
	for _, info := range s.cloud.Spaces(cloud.Folder) {
		wanted[info.ID] = true
		k, err := s.folderOf(info.ID)
		if err == nil {
			err = k.carryOut(s.ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("folder %q: %w", info.Name, err))
		}
	}
	s.mu.Lock()
	var gone []*kept
	for id, k := range s.folders {
		if !wanted[id] {
			gone = append(gone, k)
			delete(s.folders, id)
		}
	}
	s.mu.Unlock()
	for _, k := range gone {
		errs = append(errs, k.close())
	}
	return errors.Join(errs...)
}

// takeOver has this device keep the folders that the devices kept that it was before,
// as long as it has not said itself what it does with them. They must be on this disk:
// the home may have been copied to another machine.
func (s *session) takeOver() error {
	former := s.cloud.Former()
	if len(former) == 0 {
		return nil
	}
	var errs []error
	for _, info := range s.cloud.Spaces(cloud.Folder) {
		if _, said := s.cloud.Kept(s.cloud.Self(), info.ID); said {
			continue
		}
		for _, f := range slices.Backward(former) {
			keep, said := s.cloud.Kept(noise.Key(f.Device), info.ID)
			if !said {
				continue
			}
			if st, err := os.Stat(keep.Path); keep.Path == "" || err != nil || !st.IsDir() || s.overlaps(keep.Path, info.Name) != nil {
				break
			}
			keep.Published = "" // what others read is the other one's to write
			if err := s.cloud.SetKeep(s.ctx, info.ID, keep); err != nil {
				errs = append(errs, fmt.Errorf("folder %q: %w", info.Name, err))
			}
			break
		}
	}
	return errors.Join(errs...)
}

// folderOf returns an open folder, and opens it if it is not.
func (s *session) folderOf(id string) (*kept, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.folders[id]; k != nil {
		return k, nil
	}
	if s.folders == nil {
		return nil, errors.New("the cloud is closed")
	}
	space, err := s.cloud.Space(id)
	if err != nil {
		return nil, err
	}
	clk := s.home.node.Clock()
	k := &kept{session: s, space: space, writers: map[tree.Writer]hypercore.Key{}}
	k.ctx, k.stop = context.WithCancel(s.ctx)
	contents := content.New(content.Options{Clock: clk, Archive: s.archive})
	k.folder = folder.New(space.Tree(), contents, folder.Options{Device: k.deviceOf, Clock: clk})
	space.Writers(func(w cloud.Writer) {
		k.mu.Lock()
		k.writers[w.Tree.Key()] = w.Device
		k.mu.Unlock()
		if w.Content == nil {
			return
		}
		var err error
		if w.Own {
			err = contents.Own(w.Content)
		} else if err = contents.Add(w.Content, 0); err == nil {
			// The log is the space's, and so ends with this session.
			_, err = w.Content.Notify(func(e hypercore.Event) {
				if e.Kind == hypercore.Received || e.Kind == hypercore.Cleared || e.Kind == hypercore.Lagged {
					k.grow()
				}
			})
		}
		if err != nil {
			s.home.node.Log.Error("cannot use a log of contents", "log", w.Content.Key(), "err", err)
		}
	})
	space.SetMissing(k.missing)
	k.deaf = k.folder.Notify(k.grow)
	k.grow()
	s.folders[id] = k
	return k, nil
}

// deviceOf returns what people call the device that writes a log.
func (k *kept) deviceOf(w tree.Writer) string {
	k.mu.Lock()
	device, ok := k.writers[w]
	k.mu.Unlock()
	if !ok {
		return ""
	}
	return k.session.cloud.DeviceName(noise.Key(device))
}

// grow has what there is counted soon. There is a goroutine only while that takes.
func (k *kept) grow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.grown = true
	if !k.counting && k.ctx.Err() == nil {
		k.counting = true
		k.work.Go(k.measure)
	}
}

// grew reports whether there is something to count, and ends the counting if not.
func (k *kept) grew() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counting = k.grown && k.ctx.Err() == nil
	k.grown = false
	return k.counting
}

// measureShare is the part of the time that may be spent on counting what there
// is.
const measureShare = 20

// measure counts what there is, and what of it is not here, when that has
// changed.
func (k *kept) measure() {
	clk := k.session.home.node.Clock()
	for k.grew() {
		began := clk.Now()
		st, err := k.folder.Stats(k.ctx, "/")
		if err != nil {
			if k.ctx.Err() == nil {
				k.session.home.node.Log.Warn("cannot count a folder", "folder", k.space.Info().Name, "err", err)
			}
			continue // when it grows again
		}
		took := clk.Now().Sub(began)
		k.mu.Lock()
		if k.measured && (st.Bytes != k.stats.Bytes || st.Files != k.stats.Files) {
			k.changed = clk.Now()
		}
		k.stats, k.measured = st, true
		k.mu.Unlock()
		k.publishing.Lock()
		if k.public != nil && k.public.late.Load() {
			k.public.wake()
		}
		k.publishing.Unlock()
		k.session.poke()
		sleep(k.ctx, clk, max(calm, measureShare*took))
	}
}

// missing is how many bytes of the folder are not here, as far as is known.
func (k *kept) missing() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.measured {
		return 1 // nobody may count on it
	}
	return k.stats.Missing
}

// carryOut does what this device is to do with the folder. What failed is tried
// again by the next call.
func (k *kept) carryOut(ctx context.Context) error {
	k.carrying.Lock()
	defer k.carrying.Unlock()
	keep := k.session.cloud.Keep(k.session.cloud.Self(), k.space.Info().ID)
	k.fetch(keep)
	if err := k.carryOutPublished(ctx, keep.Published); err != nil {
		return err
	}
	keep.Published = ""
	k.mu.Lock()
	old, same := k.keeper, k.keep == keep && (keep.Path == "" || k.keeper != nil)
	k.mu.Unlock()
	if same {
		return nil
	}
	if old != nil {
		if err := old.Close(); err != nil {
			return err
		}
	}
	k.mu.Lock()
	k.keeper, k.keep = nil, keep
	k.mu.Unlock()
	if keep.Path == "" {
		return nil
	}
	if err := k.space.Write(ctx); err != nil {
		return err
	}
	h := k.session.home
	keeper, err := disk.Open(disk.Options{
		Dir: keep.Path, Folder: k.folder, Index: h.index, ID: k.space.Info().ID,
		Clock: h.node.Clock(), Watcher: h.watcher, Sparse: keep.Sparse, Mended: k.session.cloud.Mended(), Changed: k.session.poke,
	})
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.keeper = keeper
	k.mu.Unlock()
	k.work.Go(func() {
		defer h.node.Busy("folders")() // what changes on the disk is seen only while it runs
		if err := keeper.Run(k.ctx); err != nil && k.ctx.Err() == nil {
			h.node.Log.Error("a folder is not kept any more", "folder", keep.Path, "err", err)
		}
	})
	return nil
}

// carryOutPublished publishes the folder, if it is to be.
func (k *kept) carryOutPublished(ctx context.Context, id string) error {
	k.publishing.Lock()
	defer k.publishing.Unlock()
	if id == "" || k.public != nil {
		return nil
	}
	return k.publish(ctx, id)
}

// fetch brings the contents of the folder here while there is another device, if
// this one is to have them all. A keeper brings only what it has to write: a file
// that is on the disk already has its content to be in the logs, too.
func (k *kept) fetch(keep cloud.Keep) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if keep.Sparse && k.unfetch != nil {
		k.unfetch()
	}
	if keep.Sparse || len(k.session.cloud.Peers()) == 0 || k.unfetch != nil || k.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(k.ctx)
	k.unfetch = cancel
	k.work.Go(func() {
		// What could not be had comes with the next device, or the next change.
		_ = k.folder.Fetch(ctx)
		cancel()
		k.mu.Lock()
		k.unfetch = nil
		k.mu.Unlock()
		k.grow()
	})
}

// met is told that another device has come: it may have what nobody had.
func (k *kept) met() {
	k.folder.Refetch()
	k.mu.Lock()
	keeper := k.keeper
	k.mu.Unlock()
	if keeper != nil {
		keeper.Wake()
	}
}

// close ends all that is done with the folder.
func (k *kept) close() (err error) {
	k.deaf()
	k.stop()
	k.mu.Lock()
	keeper := k.keeper
	k.mu.Unlock()
	if keeper != nil {
		err = keeper.Close()
	}
	k.work.Wait()
	return errors.Join(err, k.folder.Close())
}

// findFolder finds a folder by its name or id, or by where it is on this disk, and the
// bucket of an app by app:name.
func (s *session) findFolder(word string) (*kept, error) {
	if filepath.IsAbs(word) {
		for _, info := range s.cloud.Spaces(cloud.Folder) {
			if have := s.cloud.Keep(s.cloud.Self(), info.ID).Path; have != "" && within(word, have) && within(have, word) {
				return s.folderOf(info.ID)
			}
		}
	}
	info, err := s.findCalled(word)
	if err != nil {
		return nil, &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("there is no folder %q", word), Cause: "none of the cloud has that name", Try: "bevy folder ls"}
	}
	return s.folderOf(info.ID)
}

// findCalled finds what a folder or bucket is by how it is called, or by its id.
func (s *session) findCalled(word string) (cloud.SpaceInfo, error) {
	own, err := s.cloud.Find(cloud.Folder, "", word)
	if err == nil {
		return own, nil
	}
	for _, info := range s.cloud.Spaces(cloud.Folder) { // an app's name may have a colon, too
		if info.App != "" && (called(info) == word || info.ID == word) {
			return info, nil
		}
	}
	return own, err
}

// addFolder has a folder on the disk kept the same as one of the cloud, which is
// made if there is none of that name.
func (s *session) addFolder(ctx context.Context, path, name string, sparse bool) (*kept, error) {
	path = filepath.Clean(path)
	if !filepath.IsAbs(path) {
		return nil, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q is no place on the disk", path), Cause: "it must begin at the root", Try: "the whole path"}
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, ferr := s.findCalled(named(path, name)); ferr != nil {
			return nil, &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("there is no folder %s", path), Cause: "it is not on this disk, and the cloud has none of that name", Try: "mkdir " + path}
		}
		err = os.MkdirAll(path, 0o755)
	case err == nil && !st.IsDir():
		return nil, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%s is no folder", path), Cause: "only folders are kept", Try: "the folder that it is in"}
	}
	if err != nil {
		return nil, err
	}
	name = named(path, name)
	if name == "." || name == ".." || cloud.CheckName(name) != nil {
		return nil, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("no folder can be called %q", name), Cause: "it has up to 255 bytes that can be printed, and no slash", Try: "bevy add " + path + " --as <another name>"}
	}
	if where, err := filepath.EvalSymlinks(path); err == nil { // what a link leads to may be kept already
		path = where
	}
	if err := s.overlaps(path, name); err != nil {
		return nil, err
	}
	info, err := s.findCalled(name)
	if err != nil {
		space, err := s.cloud.Make(ctx, cloud.SpaceInfo{Kind: cloud.Folder, Name: name, Options: s.madeNow()})
		if err != nil {
			return nil, err
		}
		info = space.Info()
	}
	if have := s.cloud.Keep(s.cloud.Self(), info.ID); have.Path != "" && have.Path != path {
		return nil, &client.Error{Code: client.CodeConflict, Message: fmt.Sprintf("%q is kept already", name), Cause: "it is at " + have.Path, Try: "bevy add " + path + " --as <another name>"}
	}
	keep := s.cloud.Keep(s.cloud.Self(), info.ID)
	keep.Path, keep.Sparse = path, sparse
	if err := s.cloud.SetKeep(ctx, info.ID, keep); err != nil {
		return nil, err
	}
	k, err := s.folderOf(info.ID)
	if err != nil {
		return nil, err
	}
	if err := k.carryOut(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	keeper := k.keeper
	k.mu.Unlock()
	if keeper != nil { // it may have been taken away already
		k.work.Go(func() { // for those who watch: how much there is to do
			_, _, _ = keeper.Measure(k.ctx)
		})
	}
	return k, nil
}

// named is what a folder is called: what was said, or what it is called on the
// disk.
func named(path, name string) string {
	if name != "" {
		return name
	}
	return filepath.Base(path)
}

// overlaps tells whether a folder on the disk is in one that is kept, or one that
// is kept is in it: what would be kept twice would go around in circles.
func (s *session) overlaps(path, name string) error {
	for _, own := range []string{s.home.node.Paths().Data, s.home.node.Paths().State} {
		if within(own, path) || within(path, own) {
			return &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%s can't be kept", path), Cause: "the cloud's own data are in " + own, Try: "another folder"}
		}
	}
	for _, info := range s.cloud.Spaces(cloud.Folder) {
		have := s.cloud.Keep(s.cloud.Self(), info.ID).Path
		if have == "" || have == path && called(info) == name {
			continue
		}
		if within(have, path) || within(path, have) {
			return &client.Error{Code: client.CodeConflict, Message: fmt.Sprintf("%s can't be kept", path), Cause: fmt.Sprintf("%q is kept at %s already", called(info), have), Try: "another folder"}
		}
	}
	return nil
}

// within tells whether a path is that of a folder, or leads into it, by whatever links
// and mounts.
func within(path, folder string) bool {
	top, err := os.Stat(folder)
	if where, err := filepath.EvalSymlinks(path); err == nil {
		path = where
	}
	for {
		if path == folder {
			return true
		}
		if st, serr := os.Stat(path); err == nil && serr == nil && os.SameFile(st, top) {
			return true
		}
		up := filepath.Dir(path)
		if up == path {
			return false
		}
		path = up
	}
}

// dropFolder ends keeping a folder on this disk, where all stays as it is. The
// cloud keeps it, unless everywhere says that it is to go there, too.
func (s *session) dropFolder(ctx context.Context, k *kept, everywhere bool) error {
	k.carrying.Lock()
	defer k.carrying.Unlock()
	id := k.space.Info().ID
	k.mu.Lock()
	keeper := k.keeper
	k.keeper, k.keep = nil, cloud.Keep{}
	k.mu.Unlock()
	if keeper != nil {
		// A round that was under way would remember what was forgotten.
		if err := errors.Join(keeper.Close(), keeper.Forget()); err != nil {
			return err
		}
	}
	if err := s.cloud.SetKeep(ctx, id, cloud.Keep{}); err != nil {
		return err
	}
	if !everywhere {
		return nil
	}
	return s.cloud.Update(ctx, id, func(i *cloud.SpaceInfo) { i.Removed = true })
}
