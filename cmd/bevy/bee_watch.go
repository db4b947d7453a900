package main

import (
	"context"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/spf13/cobra"
)

func (b *bee) watchCommand() *cobra.Command {
	var r bounds
	var from numberFlag
	cmd := &cobra.Command{
		Use:   "watch <key> [flags]",
		Short: "Show changes of a bee, or of a range, as they come",
		Long: `Shows what changes, as it comes from peers, until it is stopped: as
"bevy hyper bee diff" does. Changes of one entry that come at once are shown as
one.`,
		Example: `bevy hyper bee watch <key> --peer tcp://example.org:4233
bevy hyper bee watch <key> --prefix door/ --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := r.options(b)
			if err == nil {
				err = b.wantsPeer("watch", "bee")
			}
			if err != nil {
				return err
			}
			return b.watch(cmd.Context(), args[0], from, o)
		},
	}
	r.flags(cmd)
	cmd.Flags().Var(&from, "from", "begin with what has changed since this `version`")
	b.readFlags(cmd)
	return cmd
}

func (b *bee) watch(ctx context.Context, word string, from numberFlag, o hyperbee.RangeOptions) error {
	return b.print(ctx, word, func(ctx context.Context, w *beeWriter) error {
		if !from.set {
			from.n = b.tree.Version()
		}
		if err := b.hasVersion(from.n); err != nil {
			return err
		}
		b.say("watching bee %s from version %d on", b.log.called(), from.n)
		err := untilStopped(each(b.log, true, b.tree.Watch(ctx, from.n, o), w.difference))
		return b.cannot(ctx, err, "cannot watch bee %s", b.log.called())
	})
}
