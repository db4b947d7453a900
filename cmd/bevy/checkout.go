package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func (a *app) checkoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "checkout <path> <folder> [flags]",
		Short: "Look at another moment as plain files",
		Long: `Copies what was at a path at a moment to a new folder on this disk, with
permissions and times. Nothing in the cloud is changed. "bevy restore" brings
things back.`,
		Example: `bevy checkout Photos@yesterday /tmp/photos
bevy checkout ~/Notes@before-trip ./old`,
		Args: wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.checkout(cmd.Context(), args[0], args[1]) })
		},
	}
}

func (f *files) checkout(ctx context.Context, word, dir string) error {
	p, err := f.find(word)
	if err == nil {
		err = f.pin(ctx, &p)
	}
	if err != nil {
		return err
	}
	for _, of := range f.folders {
		if abs, err := filepath.Abs(dir); err == nil {
			if _, in := inFolder(abs, of.Path); in {
				return wrong("a folder elsewhere; or bevy cp, which copies in the cloud", dir+" is in a folder of the cloud, which would get all of it as new files", "cannot check out to %s", dir)
			}
		}
	}
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fail(err, "cannot check out to %s", dir)
	case len(list) > 0:
		return &failure{code: codeConflict, what: "cannot check out to " + dir, cause: "it is there and not empty", try: "a new folder; bevy get goes on with one that was interrupted"}
	}
	p, e, err := f.follow(ctx, p)
	if err != nil {
		return err
	}
	to := dir
	if e.Kind != "folder" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fail(err, "cannot make %s", dir)
		}
		to = filepath.Join(dir, p.base())
	}
	c := &copying{files: f, out: fetched{Folder: p.folder.Name, Path: p.path, At: p.at}}
	return c.run(ctx, p, e, to)
}
