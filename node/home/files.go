package home

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/disk"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/node"
)

// putOptions reads what a request says of a file or folder that it makes.
func (h *Home) putOptions(mode, modTime string) (o folder.PutOptions, err error) {
	o.ModTime = h.node.Clock().Now()
	if mode != "" {
		bits, err := strconv.ParseUint(mode, 8, 9)
		if err != nil {
			return o, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q are no permissions", mode), Cause: "they are three or four octal digits", Try: "0644"}
		}
		o.Mode = fs.FileMode(bits)
	}
	if modTime != "" {
		if o.ModTime, err = time.Parse(time.RFC3339Nano, modTime); err != nil {
			return o, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q is no time", modTime), Cause: "it is not in the form of RFC 3339", Try: "2026-11-23T15:04:05Z"}
		}
	}
	return o, nil
}

// copy copies in a folder. No content is moved.
func (h *Home) copy(ctx context.Context, _ *session, k *kept, in client.CopyRequest) (out client.Restored, err error) {
	if err := k.space.Write(ctx); err != nil {
		return out, err
	}
	from, to := rooted(in.From), rooted(in.To)
	err = k.at(ctx, in.At, func(f *folder.Folder) error {
		if in.Replace {
			e, err := f.Stat(ctx, from)
			if err != nil {
				return err
			}
			if there, err := k.folder.Stat(ctx, to); err == nil && there.Kind == folder.File && e.Kind == folder.File {
				out.Changed = 1
				return k.folder.PutContent(ctx, to, e.Content, folder.PutOptions{Mode: e.Mode, ModTime: e.ModTime})
			}
		}
		out.Changed, err = k.folder.Copy(ctx, f, from, to)
		return err
	})
	return out, err
}

func (h *Home) link(ctx context.Context, _ *session, k *kept, in client.LinkRequest) (node.None, error) {
	if err := k.space.Write(ctx); err != nil {
		return node.None{}, err
	}
	return node.None{}, k.folder.Symlink(ctx, rooted(in.Path), in.Target, folder.PutOptions{ModTime: h.node.Clock().Now()})
}

func (h *Home) stats(ctx context.Context, _ *session, k *kept, in client.PathRequest) (out client.Stats, err error) {
	err = k.at(ctx, in.At, func(f *folder.Folder) error {
		p := rooted(in.Path)
		if p != "/" {
			if _, err := f.Stat(ctx, p); err != nil {
				return err
			}
		}
		st, err := f.Stats(ctx, p)
		out = client.Stats{Files: st.Files, Folders: st.Folders, Links: st.Links, Bytes: st.Bytes, Missing: st.Missing}
		return err
	})
	return out, err
}

// findMoment makes a moment such as "2h" one that is the same in a minute.
func (h *Home) findMoment(ctx context.Context, _ *session, k *kept, in client.PathRequest) (out client.Moment, err error) {
	now := h.node.Clock().Now()
	if in.At == "" {
		return client.Moment{Time: now}, nil
	}
	for t, err := range k.folder.Tags(ctx) {
		if err != nil {
			return out, err
		}
		if t.Name == in.At {
			return client.Moment{Tag: t.Name, Time: t.Time}, nil
		}
	}
	if out.Time, err = parseTime(in.At, now); err != nil {
		return out, noMoment(k, in.At)
	}
	return out, nil
}

func noMoment(k *kept, text string) error {
	return &client.Error{
		Code: client.CodeNotFound, Message: fmt.Sprintf("there is no moment %q", text),
		Cause: "it is no tag of " + k.space.Info().Name + " and no time", Try: "2026-11-23, 15:04, yesterday, 2h, 3d, or a name of: bevy tag ls",
	}
}

// get brings contents to this machine, and to the disk if the folder lists there
// what it does not have.
func (h *Home) get(ctx context.Context, _ *session, k *kept, in client.PathRequest) (node.None, error) {
	p := rooted(in.Path)
	if err := k.folder.Download(ctx, p); err != nil {
		return node.None{}, err
	}
	k.mu.Lock()
	keeper, sparse := k.keeper, k.keep.Sparse
	k.mu.Unlock()
	if keeper == nil || !sparse {
		return node.None{}, nil
	}
	return node.None{}, keeper.Get(ctx, onDisk(p))
}

// onDisk is a path as a keeper has it.
func onDisk(p string) string {
	if p == "/" {
		return ""
	}
	return p
}

// free gives disk back for contents that others have, or a backup.
func (h *Home) free(ctx context.Context, s *session, k *kept, in client.PathRequest) (out client.Freed, err error) {
	p, name := rooted(in.Path), k.space.Info().Name
	k.mu.Lock()
	keeper, keep := k.keeper, k.keep
	k.mu.Unlock()
	if !keep.Sparse && keep.Path != "" {
		return out, &client.Error{
			Code: client.CodeDenied, Message: "nothing was freed", Cause: fmt.Sprintf("all of %q is kept at %s", name, keep.Path),
			Try: "bevy add " + keep.Path + " --as " + name + " --sparse",
		}
	}
	var check content.Check
	if !s.othersHave(k, keep.Path == "") {
		var place backupPlace
		if place, check, err = s.archive.safe(ctx); err != nil {
			return out, err
		}
		out.Backup = place.Address
	}
	if !keep.Sparse { // or what goes would be brought again
		keep.Sparse = true
		if err := s.cloud.SetKeep(ctx, k.space.Info().ID, keep); err != nil {
			return out, err
		}
		if err := k.carryOut(ctx); err != nil {
			return out, err
		}
	}
	files, err := filesAt(ctx, k.folder, p)
	if err != nil {
		return out, err
	}
	free := func(path string) error {
		n, err := k.folder.EvictChecked(ctx, path, check)
		out.Bytes += n
		return err
	}
	for _, file := range files {
		if keeper == nil {
			before := out.Bytes
			if err := free(file); err != nil {
				return out, err
			}
			if out.Bytes > before {
				out.Files++
			}
			continue
		}
		if check != nil { // before it goes from the disk
			if err := k.folder.Check(ctx, file, check); err != nil {
				return out, err
			}
		}
		switch err := keeper.Free(ctx, file); {
		case err == nil:
			out.Files++
		case !errors.Is(err, disk.ErrNotFound):
			return out, err
		}
		if err := free(file); err != nil {
			return out, err
		}
	}
	err = free(p)
	k.grow()
	return out, err
}

// othersHave reports whether another machine has all that is known here of a
// folder, whatever is missing on this one. Machines that don't keep it on their disks
// may free it at the same time, each as the other one has it: with strict, those count
// that keep it, and of the others those with a greater key, and only while they are
// connected.
func (s *session) othersHave(k *kept, strict bool) bool {
	own, id := k.space.Holding(), k.space.Info().ID
	connected := map[noise.Key]bool{}
	for _, p := range s.cloud.Peers() {
		connected[noise.Key(p.Key())] = true
	}
	self := s.cloud.Self()
	for _, d := range s.cloud.Devices() {
		if d.Status != identity.In || d.Key == self {
			continue
		}
		if strict && (!connected[d.Key] || s.cloud.Keep(d.Key, id).Path == "" && bytes.Compare(d.Key[:], self[:]) < 0) {
			continue
		}
		if h, ok := s.holdingsOf(d.Key)[id]; ok && h.Covers(own) {
			return true
		}
	}
	return false
}

// filesAt are the paths of the files at a path and in it.
func filesAt(ctx context.Context, f *folder.Folder, p string) (files []string, err error) {
	if p != "/" {
		e, err := f.Stat(ctx, p)
		if err != nil {
			return nil, err
		}
		if e.Kind != folder.Dir {
			return []string{p}, nil
		}
	}
	for e, err := range f.List(ctx, p, folder.ListOptions{Recursive: true}) {
		if err != nil {
			return nil, err
		}
		if e.Kind == folder.File {
			files = append(files, e.Path)
		}
	}
	return files, nil
}

// sameEntry reports whether two entries are the same to people, whoever wrote
// them and when.
func sameEntry(a, b folder.Entry) bool {
	return a.Kind == b.Kind && a.Content.Same(b.Content) && a.Link == b.Link && a.Mode == b.Mode && a.ModTime.Equal(b.ModTime) &&
		len(a.Others) == len(b.Others) && a.Err == nil && b.Err == nil
}
