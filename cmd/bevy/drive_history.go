package main

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) historyCommand() *cobra.Command {
	var flags historyFlags
	cmd := &cobra.Command{
		Use:   "history <key> [flags]",
		Short: "List the changes that made a drive",
		Long: `Lists changes in their order, a line each, with tabs between: the number of the
block that has it, put or del, the path, and the size. The version before a
change has that number, and --at reads it; between changes that were written
together, as those of mirror, there is none that makes sense.`,
		Example: `bevy hyper drive history photos
bevy hyper drive history photos --reverse --limit 5
bevy hyper drive history <key> --live --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.options(d.hyper, "drive")
			if err != nil {
				return err
			}
			return d.history(cmd.Context(), args[0], o)
		},
	}
	flags.flags(cmd)
	d.readFlags(cmd)
	return cmd
}

// A fileChange is what --json prints of each.
type fileChange struct {
	Change string `json:"change"` // "put" or "del"
	Seq    uint64 `json:"seq"`    // the block that has it
	pathName
	File *fileOf `json:"file,omitempty"` // nil if it was removed
}

func (d *drive) history(ctx context.Context, word string, o hyperbee.HistoryOptions) error {
	return d.open(ctx, reading, word, func(ctx context.Context) error {
		return d.lines(d.log, func(w *lineWriter) error {
			none := true
			err := each(d.log, o.Live, d.whole.History(ctx, o), func(c hyperdrive.Change) error {
				none = false
				return d.printChange(ctx, w, c)
			})
			if o.Live {
				err = untilStopped(err)
			}
			if err != nil {
				return d.cannot(ctx, err, "cannot read the history of drive %s", d.log.called())
			}
			if none && !o.Live && !d.json {
				d.say("no changes")
			}
			return nil
		})
	})
}

func (d *drive) printChange(ctx context.Context, w *lineWriter, c hyperdrive.Change) error {
	out := fileChange{Change: "del", Seq: c.Seq, pathName: pathOf(c.Path)}
	cells := []string{fmt.Sprint(c.Seq), "del", escape([]byte(c.Path))}
	if !c.Deleted {
		f, err := d.describe(ctx, &c.Entry)
		if err != nil {
			return err
		}
		out.Change, out.File = "put", &f
		cells[1] = "put"
		if cells = append(cells, size(f.Size)); c.IsLink() {
			cells[3] = "-> " + escape([]byte(c.Linkname))
		}
	}
	if d.json {
		return w.object(out)
	}
	return w.line(cells...)
}
