package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) rmCommand() *cobra.Command {
	recursive, dryRun := false, false
	cmd := &cobra.Command{
		Use:   "rm <path>... [flags]",
		Short: "Remove files and folders, on all machines",
		Long: `Removes files from a folder of the cloud, and so from the disks of all machines
that keep it. They stay as older versions for as long as these are kept: what it
prints brings them back.`,
		Example: `bevy rm Photos/blurred.jpg
bevy rm ~/Photos/2019 --recursive --dry-run`,
		Args: wants(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error {
				for _, word := range args {
					if err := f.rm(cmd.Context(), word, recursive, dryRun); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "folders, with all that is in them")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen")
	return cmd
}

func (f *files) rm(ctx context.Context, word string, recursive, dryRun bool) error {
	p, err := f.findNow(word, "rm")
	if err != nil {
		return err
	}
	if p.path == "/" {
		return wrong("bevy folder drop "+p.word(), "it is a whole folder of the cloud", "cannot remove %s", p.called())
	}
	e, err := f.stat(ctx, p)
	if err != nil {
		return err
	}
	st, err := f.stats(ctx, p)
	if err != nil {
		return err
	}
	if e.Kind == "folder" && !recursive && st.Files+st.Links+st.Folders > 0 {
		for range f.list(ctx, p, false) {
			return &failure{code: codeConflict, what: "cannot remove " + p.called(), cause: "it is a folder with something in it", try: "bevy rm " + p.word() + " --recursive"}
		}
	}
	out := changeOf(p)
	out.Files, out.Bytes, out.DryRun = st.Files, st.Bytes, dryRun
	what := fmt.Sprintf("%s (%s)", plural(uint64(st.Files), "file"), size(uint64(st.Bytes)))
	if dryRun {
		if f.json {
			return written(f.printJSON(out))
		}
		if e.Kind == "folder" {
			for e, err := range f.list(ctx, p, true) {
				if err == nil {
					err = written(f.printLine("-\t" + p.entry(e).called()))
				}
				if err != nil {
					return err
				}
			}
		}
		if err := written(f.printLine("-\t" + p.called())); err != nil {
			return err
		}
		f.say("%s would be removed\nnothing was changed: --dry-run", what)
		return nil
	}
	if err := f.node.Do(ctx, "DELETE", p.of("entry", "recursive", fmt.Sprint(recursive)), nil, nil); err != nil {
		return f.cannot(err, p, "cannot remove %s", p.called())
	}
	return f.changed(ctx, p, out, "removed %s, %s", p.called(), what)
}
