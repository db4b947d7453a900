package main

import (
	"context"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) watchCommand() *cobra.Command {
	folder := ""
	var from numberFlag
	cmd := &cobra.Command{
		Use:   "watch <key> [flags]",
		Short: "Show changes of a drive, or of a folder, as they come",
		Long: `Shows which files change, as that comes from peers, until it is stopped: as
"bevy hyper drive diff" does. Changes of one file that come at once are shown as
one.`,
		Example: `bevy hyper drive watch <key> --peer tcp://example.org:4233
bevy hyper drive watch <key> --folder /2026 --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := "/", d.wantsPeer("watch", "drive")
			if err == nil && folder != "" {
				path, err = cleanFolder(folder)
			}
			if err != nil {
				return err
			}
			return d.watch(cmd.Context(), args[0], from, path)
		},
	}
	cmd.Flags().StringVar(&folder, "folder", "", "only what is in the folder of this `path`")
	cmd.Flags().Var(&from, "from", "begin with what has changed since this `version`")
	d.readFlags(cmd)
	return cmd
}

func (d *drive) watch(ctx context.Context, word string, from numberFlag, folder string) error {
	return d.open(ctx, reading, word, func(ctx context.Context) error {
		if !from.set {
			from.n = d.whole.Version()
		}
		if err := d.hasVersion(from.n); err != nil {
			return err
		}
		d.say("watching drive %s from version %d on", d.log.called(), from.n)
		return d.lines(d.log, func(w *lineWriter) error {
			err := untilStopped(each(d.log, true, d.whole.Watch(ctx, from.n, folder), func(diff hyperdrive.Difference) error {
				return d.printDifference(ctx, w, diff)
			}))
			return d.cannot(ctx, err, "cannot watch drive %s", d.log.called())
		})
	})
}
