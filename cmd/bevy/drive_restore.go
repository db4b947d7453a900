package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (d *drive) restoreCommand() *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use:   "restore <key> <version> [<path>] [flags]",
		Short: "Make files what they were at a version",
		Long: `Makes a file, or all in a folder, what they were at a version: what was changed
since is changed back, what was removed is there again, and what was added is
removed. That is one new change, which can be undone in the same way. Contents
are not written again.`,
		Example: `bevy hyper drive restore photos 5 /2026/sea.jpg
bevy hyper drive restore photos 5 --dry-run`,
		Args: wants(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := parseVersion("restore", args[1])
			path := "/"
			if err == nil && len(args) == 3 {
				path, err = cleanFolder(args[2])
			}
			if err != nil {
				return err
			}
			return d.restore(cmd.Context(), args[0], version, path, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen")
	d.keyFlag(cmd, "encrypt with this key")
	return cmd
}

// parseVersion reads the version that a command was given.
func parseVersion(verb, word string) (uint64, error) {
	var v numberFlag
	if err := v.Set(word); err != nil {
		return 0, wrong(fmt.Sprintf("bevy hyper drive %s <key> 5", verb), causeOf(err), "wrong version %q", word)
	}
	return v.n, nil
}

func (d *drive) restore(ctx context.Context, word string, version uint64, path string, dryRun bool) error {
	return d.change(ctx, word, func(ctx context.Context) error {
		if err := d.hasVersion(version); err != nil {
			return err
		}
		what := fmt.Sprintf("cannot restore version %d of drive %s", version, d.log.called())
		out := d.changed(path, dryRun)
		batch, err := d.whole.Batch(ctx)
		if err != nil {
			return d.cannot(ctx, err, "%s", what)
		}
		defer batch.Close()
		for diff, err := range d.differences(ctx, d.whole, version, path) {
			n := uint64(0)
			switch {
			case err != nil:
			case diff.Right == nil:
				if n, err = d.whole.Size(ctx, *diff.Left); err == nil {
					err = batch.Delete(ctx, diff.Left.Path)
				}
			default:
				if n, err = d.whole.Size(ctx, *diff.Right); err == nil {
					err = batch.PutEntry(ctx, *diff.Right)
				}
			}
			if err == nil && dryRun && !d.json {
				// What is left of it is what is there now.
				_, err = fmt.Fprintln(d.stdout, marked(diff.Left, diff.Right)+"\t"+escape([]byte(diff.Path())))
				err = written(err)
			}
			if err != nil {
				return d.cannot(ctx, err, "%s", what)
			}
			out.Files, out.Bytes = out.Files+1, out.Bytes+n
		}
		if out.Files > 0 && !dryRun {
			if err := batch.Flush(ctx); err != nil {
				return d.cannot(ctx, err, "%s", what)
			}
		}
		if out.Files == 0 && !d.json {
			d.say("nothing is different: nothing was changed")
			return nil
		}
		return d.printChanged("restored", path, &out)
	})
}
