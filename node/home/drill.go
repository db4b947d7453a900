package home

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/services/backup"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// drill restores a snapshot to a place of its own, opens the cloud there as another
// device that meets nobody, and reads all files. Then it all goes again. A problem is
// what is wrong with the backup, an error why that is not known.
func (h *Home) drill(ctx context.Context, repo *backup.Repo, snap *backup.Snapshot, out *client.BackupChecked) (err error) {
	if disk, err := vfs.Default.GetDiskUsage(h.dir); err == nil {
		if err := roomFor(snap.Bytes(), disk.AvailBytes, h.dir); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(h.dir, "drill-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	secrets, err := cloud.FileVault(filepath.Join(h.dir, secretsFile)).Load()
	if err != nil {
		return err
	}
	vault := cloud.FileVault(filepath.Join(dir, secretsFile))
	if err := vault.Save(secrets); err != nil {
		return err
	}
	clk := h.node.Clock()
	store, err := corestore.OpenDisk(storage.Disk{Dir: filepath.Join(dir, "logs"), Clock: clk}, corestore.Options{Clock: clk})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := repo.Restore(ctx, snap, store, nil); err != nil {
		if ctx.Err() != nil || !backup.Partly(err) {
			return err
		}
		out.Problem = firstLine(err)
		return nil
	}
	c, err := cloud.Open(ctx, cloud.Options{Store: store, Vault: vault, Device: "drill", Copied: true, Log: h.node.Log, Clock: clk})
	if err != nil {
		return fmt.Errorf("open the cloud that was restored: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Learn(ctx, snap.Root); err != nil {
		return fmt.Errorf("open the cloud that was restored: %w", err)
	}
	for _, info := range c.Spaces(cloud.Folder) {
		space, err := c.Space(info.ID)
		if err == nil {
			err = drillFolder(ctx, space, out)
		}
		if err != nil {
			return fmt.Errorf("read folder %q that was restored: %w", info.Name, err)
		}
		out.Folders++
	}
	out.Restored = true
	return nil
}

// drillSpare is how much has to be left on the disk while a drill goes on.
const drillSpare = 256 << 20

// roomFor says why there is no room for a drill.
func roomFor(need int64, free uint64, dir string) error {
	if need <= 0 || free >= uint64(need)+drillSpare {
		return nil
	}
	return &client.Error{Code: client.CodeFull, Message: "there is no room to restore all of the backup",
		Cause: fmt.Sprintf("it takes %d MiB, of which %d have to stay free, and there are %d in %s", (need+drillSpare)>>20+1, drillSpare>>20, free>>20, dir),
		Try:   "bevy backup verify --read, which proves all of it and keeps next to nothing"}
}

// sweepTries removes what is left of drills and checks that were ended by force.
func (h *Home) sweepTries() error {
	for _, pattern := range []string{"drill-*", "verify-*"} {
		left, err := filepath.Glob(filepath.Join(h.dir, pattern))
		if err != nil {
			return err
		}
		for _, dir := range left {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// drillFolder reads all files of a folder, and compares them with their hashes.
func drillFolder(ctx context.Context, space *cloud.Space, out *client.BackupChecked) error {
	contents := content.New(content.Options{})
	var failed error
	space.Writers(func(w cloud.Writer) {
		if w.Content != nil {
			failed = errors.Join(failed, contents.Add(w.Content, 0))
		}
	})
	if failed != nil {
		return failed
	}
	f := folder.New(space.Tree(), contents, folder.Options{})
	defer f.Close()
	for e, err := range f.List(ctx, "/", folder.ListOptions{Recursive: true}) {
		if err != nil {
			return err
		}
		if e.Kind != folder.File {
			continue
		}
		sum := content.NewHash()
		r, err := f.OpenEntry(ctx, e)
		if err == nil {
			_, err = io.Copy(sum, r)
			err = errors.Join(err, r.Close())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && content.Hash(sum.Sum(nil)) != e.Content.Hash {
			err = errors.New("it is not what it was")
		}
		if err != nil {
			if out.Unreadable++; out.Problem == "" {
				out.Problem = fmt.Sprintf("%s%s: %v", space.Info().Name, e.Path, err)
			}
			continue
		}
		out.Files, out.FileBytes = out.Files+1, out.FileBytes+e.Content.Size
	}
	return nil
}
