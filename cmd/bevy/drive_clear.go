package main

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) clearCommand() *cobra.Command {
	var c consent
	all := false
	cmd := &cobra.Command{
		Use:   "clear <key> [<path>] [flags]",
		Short: "Remove contents from this store, to free their space",
		Long: `Removes the contents of a file, or of all files in a folder, from this store.
The files stay in the drive, and their contents can be fetched again from peers
that have them. With --all those of all files and all versions are removed.`,
		Example: `bevy hyper drive clear photos /2026 --dry-run
bevy hyper drive clear photos --all`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if all == (len(args) == 2) {
				return wrong("bevy hyper drive clear <key> /2026, or --all", "it takes one of the two", "clear wants <path> or --all")
			}
			path := "/"
			if !all {
				if path, err = cleanFolder(args[1]); err != nil {
					return err
				}
			}
			return d.clear(cmd.Context(), args[0], path, all, c)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "the contents of all files and all versions")
	c.flags(cmd)
	d.keyFlag(cmd, "decrypt with this key")
	return cmd
}

// clearedFiles is what --json prints.
type clearedFiles struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	pathName
	Blocks uint64 `json:"blocks"` // how many of them were here
	Bytes  uint64 `json:"bytes"`  // of those that were removed
	DryRun bool   `json:"dryRun"`
}

func (d *drive) clear(ctx context.Context, word, path string, all bool, c consent) error {
	mode := writing
	if c.dryRun {
		mode = reading
	}
	return d.open(ctx, mode, word, func(ctx context.Context) error {
		what := fmt.Sprintf("cannot clear contents of drive %s", d.log.called())
		out := clearedFiles{Key: d.log.Key().String(), Name: d.log.name, pathName: pathOf(path), DryRun: c.dryRun}
		plan, err := d.clearable(ctx, path, all, &out)
		if err != nil {
			return d.cannot(ctx, err, "%s", what)
		}
		if out.Blocks == 0 {
			d.say("none of these contents is here: nothing was changed")
		} else {
			command := []string{shellWord(path)}
			if all {
				command[0] = "--all"
			}
			ok, err := d.confirm(c, d.command("clear", command...), plan...)
			if err != nil {
				return err
			}
			if ok {
				var freed hyperdrive.Freed
				if all {
					freed, err = d.whole.ClearAll(ctx)
				} else {
					freed, err = d.whole.Clear(ctx, path)
				}
				if err != nil {
					return d.cannot(ctx, err, "%s", what)
				}
				out.Blocks, out.Bytes = freed.Blocks, freed.Bytes
				d.say("removed %s (%s) of contents of drive %s from this store", plural(out.Blocks, "block"), size(out.Bytes), d.log.called())
				d.say("undo:  %s --peer tcp://<host>:<port>", d.command("download", shellWord(path)))
			}
		}
		if d.json {
			return written(d.printJSON(out))
		}
		return nil
	})
}

// clearable counts the blocks that would be removed, and says what that means.
func (d *drive) clearable(ctx context.Context, path string, all bool, out *clearedFiles) (plan []string, err error) {
	blobs, err := d.whole.Blobs(ctx)
	if err != nil {
		return nil, err
	}
	files, bytes := uint64(0), uint64(0)
	for e, err := range under(ctx, d.whole, path) {
		if err != nil {
			return nil, err
		}
		files++
		if e.Blob == nil || all {
			continue
		}
		out.Blocks += heldIn(blobs.Log(), hypercore.Range{Start: e.Blob.BlockOffset, End: e.Blob.BlockOffset + e.Blob.BlockLength})
		bytes += e.Blob.ByteLength
	}
	if files == 0 && path != "/" {
		return nil, d.noFile(path)
	}
	text := fmt.Sprintf("the contents of %s (%s) of drive %s will be removed from this store", plural(files, "file"), size(bytes), d.log.called())
	if all {
		out.Blocks = heldIn(blobs.Log(), hypercore.Range{End: blobs.Log().Length()})
		text = fmt.Sprintf("all contents (%s) of all versions of drive %s will be removed from this store", plural(out.Blocks, "block"), d.log.called())
	}
	if plan = []string{text}; d.log.KeyPair().CanSign() {
		plan = append(plan, "this store writes the drive: contents that no peer has fetched are lost for good")
	}
	return plan, nil
}
