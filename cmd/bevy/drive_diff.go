package main

import (
	"context"
	"errors"
	"iter"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) diffCommand() *cobra.Command {
	folder := ""
	cmd := &cobra.Command{
		Use:   "diff <key> <version> [<version>] [flags]",
		Short: "Show what is different between two versions",
		Long: `Shows which files are different between a version and a later one, the newest if
none is given, in the order of their paths: + for one that is new, - for one
that is gone, and ~ for one that was written again.`,
		Example: `bevy hyper drive diff photos 5
bevy hyper drive diff photos 5 9 --folder /2026`,
		Args: wants(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			before, err := parseVersion("diff", args[1])
			if err == nil && len(args) == 3 {
				d.at.set = true
				d.at.n, err = parseVersion("diff", args[2])
			}
			path := "/"
			if err == nil && folder != "" {
				path, err = cleanFolder(folder)
			}
			if err != nil {
				return err
			}
			return d.diff(cmd.Context(), args[0], before, path)
		},
	}
	cmd.Flags().StringVar(&folder, "folder", "", "only the file or folder of this `path`")
	d.readFlags(cmd)
	return cmd
}

// A fileDifference is what --json prints of each.
type fileDifference struct {
	pathName
	Before *fileOf `json:"before,omitempty"` // nil if there was none
	After  *fileOf `json:"after,omitempty"`  // nil if there is none
}

func (d *drive) diff(ctx context.Context, word string, before uint64, path string) error {
	return d.open(ctx, reading, word, func(ctx context.Context) error {
		if err := d.hasVersion(before); err != nil {
			return err
		}
		return d.lines(d.log, func(w *lineWriter) error {
			none := true
			err := each(d.log, false, d.differences(ctx, d.files, before, path), func(diff hyperdrive.Difference) error {
				none = false
				return d.printDifference(ctx, w, diff)
			})
			if err != nil {
				return d.cannot(ctx, err, "cannot compare versions of drive %s", d.log.called())
			}
			if none && !d.json {
				d.say("nothing is different")
			}
			return nil
		})
	})
}

// differences are those of a file and of all files in a folder.
func (d *drive) differences(ctx context.Context, files *hyperdrive.Drive, version uint64, path string) iter.Seq2[hyperdrive.Difference, error] {
	return func(yield func(hyperdrive.Difference, error) bool) {
		if path != "/" {
			diff, err := fileDiff(ctx, files, version, path)
			if err != nil || diff.Left != diff.Right {
				if !yield(diff, err) || err != nil {
					return
				}
			}
		}
		files.Diff(ctx, version, path)(yield)
	}
}

// fileDiff is the difference of one file; both sides are nil if there is none.
func fileDiff(ctx context.Context, files *hyperdrive.Drive, version uint64, path string) (diff hyperdrive.Difference, err error) {
	before, err := files.Checkout(version)
	if err != nil {
		return diff, err
	}
	defer before.Close()
	side := func(of *hyperdrive.Drive, to **hyperdrive.Entry) {
		if err != nil {
			return
		}
		var e hyperdrive.Entry
		if e, err = of.Entry(ctx, path); err == nil {
			*to = &e
		} else if errors.Is(err, hyperdrive.ErrNotFound) {
			err = nil
		}
	}
	side(files, &diff.Left)
	side(before, &diff.Right)
	if diff.Left != nil && diff.Right != nil && diff.Left.Seq == diff.Right.Seq {
		diff = hyperdrive.Difference{}
	}
	return diff, err
}

// marked is the sign of a difference between what was and what is.
func marked(before, after *hyperdrive.Entry) string {
	switch {
	case before == nil:
		return "+"
	case after == nil:
		return "-"
	}
	return "~"
}

// printDifference prints what a file was and what it is.
func (d *drive) printDifference(ctx context.Context, w *lineWriter, diff hyperdrive.Difference) error {
	out := fileDifference{pathName: pathOf(diff.Path())}
	for _, side := range []struct {
		e  *hyperdrive.Entry
		to **fileOf
	}{{diff.Right, &out.Before}, {diff.Left, &out.After}} {
		if side.e == nil {
			continue
		}
		f, err := d.describe(ctx, side.e)
		if err != nil {
			return err
		}
		*side.to = &f
	}
	if d.json {
		return w.object(out)
	}
	sizes := ""
	switch {
	case out.Before == nil:
		sizes = size(out.After.Size)
	case out.After == nil:
		sizes = size(out.Before.Size)
	default:
		sizes = size(out.Before.Size) + " -> " + size(out.After.Size)
	}
	return w.line(marked(diff.Right, diff.Left), escape([]byte(diff.Path())), sizes)
}
