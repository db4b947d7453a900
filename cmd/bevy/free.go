package main

import (
	"context"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) freeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "free <path> [flags]",
		Short: "Give disk back for what other machines have",
		Long: `Removes the contents of files from this machine's disk, of a folder that lists
here what it does not have (bevy add --sparse). The files stay in the cloud, and
"bevy get" brings them back. Nothing is removed unless another machine is known
to have all of the folder.`,
		Example: `bevy free Photos/2019`,
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.free(cmd.Context(), args[0]) })
		},
	}
}

func (f *files) free(ctx context.Context, word string) error {
	p, err := f.findNow(word, "free")
	if err != nil {
		return err
	}
	var freed client.Freed
	if err := f.node.Do(ctx, "DELETE", p.of("contents"), nil, &freed); err != nil {
		return f.cannot(err, p, "cannot free %s", p.called())
	}
	out := changeOf(p)
	out.Files, out.Bytes = freed.Files, freed.Bytes
	if f.json {
		return written(f.printJSON(out))
	}
	if freed == (client.Freed{}) {
		f.say("nothing of %s is on this disk", p.called())
		return nil
	}
	f.say("freed %s of %s; other machines have them", size(uint64(freed.Bytes)), p.called())
	f.say("undo:  bevy get %s", p.word())
	return nil
}
