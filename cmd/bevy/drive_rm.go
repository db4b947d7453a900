package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (d *drive) rmCommand() *cobra.Command {
	recursive, dryRun := false, false
	cmd := &cobra.Command{
		Use:   "rm <key> <path> [flags]",
		Short: "Remove a file, or a folder",
		Long: `Removes a file; with --recursive a folder with all files in it, which becomes
one change. They can still be read at versions of before, and come back with
"bevy hyper drive restore". No space is freed: see "bevy hyper drive clear".`,
		Example: `bevy hyper drive rm photos /2026/sea.jpg
bevy hyper drive rm photos /2026 --recursive --dry-run`,
		Args: wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := cleanFolder(args[1])
			if err != nil {
				return err
			}
			return d.rm(cmd.Context(), args[0], path, recursive, dryRun)
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "also all files in a folder")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen")
	d.keyFlag(cmd, "encrypt with this key")
	return cmd
}

// A changedFiles is what --json prints of a change.
type changedFiles struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	pathName
	Before  uint64 `json:"before"`  // the version before
	Version uint64 `json:"version"` // after that
	Files   uint64 `json:"files"`   // how many were changed
	Bytes   uint64 `json:"bytes"`   // of those
	DryRun  bool   `json:"dryRun"`
}

func (d *drive) changed(path string, dryRun bool) changedFiles {
	v := d.whole.Version()
	return changedFiles{Key: d.log.Key().String(), Name: d.log.name, pathName: pathOf(path), Before: v, Version: v, DryRun: dryRun}
}

func (d *drive) rm(ctx context.Context, word, path string, recursive, dryRun bool) error {
	return d.change(ctx, word, func(ctx context.Context) error {
		out := d.changed(path, dryRun)
		what := fmt.Sprintf("cannot remove %s from drive %s", quotePath(path), d.log.called())
		batch, err := d.whole.Batch(ctx)
		if err != nil {
			return d.cannot(ctx, err, "%s", what)
		}
		defer batch.Close()
		for e, err := range under(ctx, d.whole, path) {
			if err != nil {
				return d.cannot(ctx, err, "%s", what)
			}
			if e.Path != path && !recursive {
				if out.Files > 0 {
					break // a file of that name as well
				}
				return wrong(d.command("rm", shellWord(path), "--recursive"), "it is a folder", "%s", what)
			}
			n, err := d.whole.Size(ctx, e)
			if err == nil && !dryRun {
				err = batch.Delete(ctx, e.Path)
			}
			if err != nil {
				return d.cannot(ctx, err, "%s", what)
			}
			out.Files, out.Bytes = out.Files+1, out.Bytes+n
			if dryRun && !d.json {
				if _, err := fmt.Fprintln(d.stdout, "-\t"+escape([]byte(e.Path))); err != nil {
					return written(err)
				}
			}
		}
		if out.Files == 0 {
			return d.noFile(path)
		}
		if !dryRun {
			if err := batch.Flush(ctx); err != nil {
				return d.cannot(ctx, err, "%s", what)
			}
		}
		return d.printChanged("removed", path, &out)
	})
}

// printChanged says what was changed and how to undo it.
func (d *drive) printChanged(verb, path string, out *changedFiles) error {
	out.Version = d.whole.Version()
	if d.json {
		return written(d.printJSON(out))
	}
	if out.DryRun {
		d.say("%s (%s) would be %s\nnothing was changed: --dry-run", plural(out.Files, "file"), size(out.Bytes), verb)
		return nil
	}
	d.say("%s %s (%s) in drive %s, which has version %d now", verb, plural(out.Files, "file"), size(out.Bytes), d.log.called(), out.Version)
	if out.Version > out.Before {
		d.undo(out.Before, path)
	}
	return nil
}
