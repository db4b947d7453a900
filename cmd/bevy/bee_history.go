package main

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/spf13/cobra"
)

func (b *bee) historyCommand() *cobra.Command {
	var flags historyFlags
	cmd := &cobra.Command{
		Use:   "history <key> [flags]",
		Short: "List the changes that made a bee",
		Long: `Lists changes in their order, a line each, with tabs between: the number of the
block that has it, put or del, the entry, and its value. The version before a
change has that number, and --at reads it; between changes that were written
together, as load does, there is none that makes sense.`,
		Example: `bevy hyper bee history friends
bevy hyper bee history friends --reverse --limit 5
bevy hyper bee history <key> --live --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.options(b.hyper, "bee")
			if err != nil {
				return err
			}
			return b.history(cmd.Context(), args[0], o)
		},
	}
	flags.flags(cmd)
	b.readFlags(cmd)
	return cmd
}

// A printedChange is what --json prints of each.
type printedChange struct {
	Seq    uint64 `json:"seq"`    // the block that has it
	Change string `json:"change"` // "put" or "del"
	entryName
	entryValue
}

func (b *bee) history(ctx context.Context, word string, o hyperbee.HistoryOptions) error {
	return b.print(ctx, word, func(ctx context.Context, w *beeWriter) error {
		none := true
		err := each(b.log, o.Live, b.tree.History(ctx, o), func(c hyperbee.Change) error {
			none = false
			what := "put"
			if c.Deleted {
				what = "del"
			}
			if b.json {
				return w.object(printedChange{c.Seq, what, nameOf(c.Key), valueOf(c.Value)})
			}
			return w.line(append([]string{fmt.Sprint(c.Seq), what}, w.cells(c.Entry)...)...)
		})
		if o.Live {
			err = untilStopped(err)
		}
		if err != nil {
			return b.cannot(ctx, err, "cannot read the history of bee %s", b.log.called())
		}
		if none && !o.Live && !b.json {
			b.say("no changes")
		}
		return nil
	})
}
