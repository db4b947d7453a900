package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) lsCommand() *cobra.Command {
	recursive, names := false, false
	cmd := &cobra.Command{
		Use:   "ls <key> [<path>] [flags]",
		Short: "List the files of a drive, or of a folder in it",
		Long: `Lists what is in a folder, a line each: permissions, size, when it was changed
if that is known, and the name, of a link with what it leads to. A name that
ends with / is a folder. What a terminal could not show of a name is escaped, as
\n or \x1b; a backslash is two.`,
		Example: `bevy hyper drive ls photos
bevy hyper drive ls photos /2026 --recursive
bevy hyper drive ls photos --at 5
bevy hyper drive ls <key> --peer tcp://example.org:4233`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder := "/"
			if len(args) == 2 {
				var err error
				if folder, err = cleanFolder(args[1]); err != nil {
					return err
				}
			}
			return d.ls(cmd.Context(), args[0], folder, recursive, names)
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "also what is in folders, with whole paths")
	cmd.Flags().BoolVar(&names, "names", false, "only names")
	d.readFlags(cmd)
	d.atFlag(cmd)
	return cmd
}

// A listedFile is what --json prints of each. A folder has a path and a kind only.
type listedFile struct {
	pathName
	fileOf
}

// A listedFolder is what --json prints of each folder.
type listedFolder struct {
	pathName
	Kind string `json:"kind"` // "folder"
}

func (d *drive) ls(ctx context.Context, word, folder string, recursive, names bool) error {
	return d.open(ctx, reading, word, func(ctx context.Context) error {
		return d.lines(d.log, func(w *lineWriter) error {
			none := true
			file := func(e hyperdrive.Entry, name string) error {
				none = false
				return d.printFile(ctx, w, &e, name, names)
			}
			var err error
			if recursive {
				err = each(d.log, false, d.files.List(ctx, folder, hyperdrive.ListOptions{}), func(e hyperdrive.Entry) error { return file(e, e.Path) })
			} else {
				err = each(d.log, false, d.files.ReadDir(ctx, folder), func(e hyperdrive.DirEntry) error {
					if !e.Dir {
						return file(e.Entry, e.Name)
					}
					none = false
					return d.printFolder(w, strings.TrimSuffix(folder, "/")+"/"+e.Name, e.Name, names)
				})
			}
			if none && err == nil && folder != "/" {
				var e hyperdrive.Entry
				err = d.ask(func() (err error) { e, err = d.files.Entry(ctx, folder); return err })
				switch {
				case errors.Is(err, hyperdrive.ErrNotFound):
					return d.noFile(folder)
				case err == nil:
					err = file(e, e.Path)
				}
			}
			if err != nil {
				return d.cannot(ctx, err, "cannot list drive %s", d.log.called())
			}
			if none && !d.json {
				d.say("no files")
			}
			return nil
		})
	})
}

func (d *drive) printFile(ctx context.Context, w *lineWriter, e *hyperdrive.Entry, name string, names bool) error {
	if names && !d.json {
		return w.line(escape([]byte(name)))
	}
	f, err := d.describe(ctx, e)
	if err != nil {
		return err
	}
	if d.json {
		return w.object(listedFile{pathOf(e.Path), f})
	}
	return w.line(f.line(e, name))
}

func (d *drive) printFolder(w *lineWriter, path, name string, names bool) error {
	switch {
	case d.json:
		return w.object(listedFolder{pathOf(path), "folder"})
	case names:
		return w.line(escape([]byte(name)) + "/")
	}
	return w.line(fmt.Sprintf("%-10s  %8s  %-16s  %s/", "drwxr-xr-x", "-", "-", escape([]byte(name))))
}
