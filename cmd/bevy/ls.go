package main

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) lsCommand() *cobra.Command {
	recursive, names := false, false
	cmd := &cobra.Command{
		Use:   "ls [<path>] [flags]",
		Short: "List files, also those that are not on this disk",
		Long: `Lists what is in a folder of the cloud, now or as it was, a line each:
permissions, size, when it was changed, and the name, of a link with what it
leads to. A name that ends with / is a folder. Without <path> it lists the
folders of the cloud. "bevy help places" says what a <path> is.

What a terminal could not show of a name is escaped, as \n or \x1b.`,
		Example: `bevy ls
bevy ls Photos/2026
bevy ls ~/Photos@yesterday --recursive`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error {
				if len(args) == 0 {
					return f.lsFolders(names)
				}
				return f.ls(cmd.Context(), args[0], recursive, names)
			})
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "also what is in folders, with whole paths")
	cmd.Flags().BoolVar(&names, "names", false, "only names")
	return cmd
}

// lsFolders lists the folders of the cloud, as folders.
func (f *files) lsFolders(names bool) error {
	return f.lines(func(w *lineWriter) error {
		for _, of := range f.folders {
			var err error
			switch {
			case f.json:
				err = w.object(listedEntry{of.Name, client.Entry{Path: "/", Kind: "folder"}})
			case names:
				err = w.line(escape([]byte(of.Name)) + "/")
			default:
				err = w.line(fmt.Sprintf("%-10s  %8s  %-16s  %s/", "drwxr-xr-x", size(of.Bytes), "-", escape([]byte(of.Name))))
			}
			if err != nil {
				return err
			}
		}
		if len(f.folders) == 0 && !f.json {
			f.say("no folder is kept yet\nnext:  bevy add <folder>")
		}
		return nil
	})
}

func (f *files) ls(ctx context.Context, word string, recursive, names bool) error {
	p, err := f.find(word)
	if err != nil {
		return err
	}
	root, err := f.stat(ctx, p)
	if err != nil {
		return err
	}
	return f.lines(func(w *lineWriter) error {
		print := func(e client.Entry, name string) error {
			switch {
			case f.json:
				return w.object(listedEntry{p.folder.Name, e})
			case names && e.Kind == "folder":
				return w.line(escape([]byte(name)) + "/")
			case names:
				return w.line(escape([]byte(name)))
			}
			return w.line(entryLine(e, name))
		}
		if root.Kind != "folder" {
			return print(root, p.base())
		}
		none := true
		for e, err := range f.list(ctx, p, recursive) {
			if err != nil {
				return err
			}
			none = false
			name := p.entry(e).base()
			if recursive {
				name = e.Path[1:]
			}
			if err := print(e, name); err != nil {
				return err
			}
		}
		if none && !f.json {
			f.say("no files")
		}
		return nil
	})
}

// parseMode reads permissions such as 0644.
func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	return fs.FileMode(n) & fs.ModePerm, err
}
