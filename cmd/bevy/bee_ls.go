package main

import (
	"context"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/spf13/cobra"
)

func (b *bee) lsCommand() *cobra.Command {
	var r bounds
	keys, reverse := false, false
	cmd := &cobra.Command{
		Use:   "ls <key> [flags]",
		Short: "List the entries of a bee, or a range of them",
		Long: `Lists entries in the order of their bytes, a line each: the entry, a tab, and
its value if it has one. What a terminal could not show is escaped, as \n or
\x1b; a backslash is two. "bevy hyper bee load" reads such lines. On a terminal,
lines that are too long for it are cut.`,
		Example: `bevy hyper bee ls friends
bevy hyper bee ls friends --gte a --lt c --keys
bevy hyper bee ls events --reverse --limit 10
bevy hyper bee ls <key> --prefix 2026- --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := r.options(b)
			if err != nil {
				return err
			}
			o.Reverse = reverse
			return b.ls(cmd.Context(), args[0], o, keys)
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&keys, "keys", false, "without the values")
	cmd.Flags().BoolVar(&reverse, "reverse", false, "from the last to the first")
	b.readFlags(cmd)
	b.atFlag(cmd)
	return cmd
}

func (b *bee) ls(ctx context.Context, word string, o hyperbee.RangeOptions, keys bool) error {
	return b.print(ctx, word, func(ctx context.Context, w *beeWriter) error {
		none := true
		err := each(b.log, false, b.tree.Range(ctx, o), func(e hyperbee.Entry) error {
			none = false
			if keys {
				e.Value = nil
			}
			if b.json {
				return w.object(printedEntry{e.Seq, nameOf(e.Key), valueOf(e.Value)})
			}
			return w.line(w.cells(e)...)
		})
		if err != nil {
			return b.cannot(ctx, err, "cannot list bee %s", b.log.called())
		}
		if none && !b.json {
			b.say("no entries")
		}
		return nil
	})
}
