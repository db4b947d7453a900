package main

import (
	"context"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) freeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "free <path> [flags]",
		Short: "Give disk back for what other machines or a backup have",
		Long: `Removes the contents of files from this machine's disk, of a folder that lists
here what it does not have (bevy add --sparse), of one that is not on this disk,
or of a bucket. The files stay in the cloud, and "bevy get" brings them back, as
does whoever reads them.

If no other machine is known to have all of the folder, the first backup of
"bevy backup ls" is made, and what is to go is read back from there and compared
before. Nothing is removed that is nowhere else.`,
		Example: `bevy free Photos/2019`,
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.free(cmd.Context(), args[0]) })
		},
	}
}

// freedFiles is what --json prints.
type freedFiles struct {
	changedPlace
	Backup string `json:"backup,omitempty"` // that has them
}

func (f *files) free(ctx context.Context, word string) error {
	p, err := f.findNow(word, "free")
	if err != nil {
		return err
	}
	var freed client.Freed
	bar := f.progress("freeing "+p.called(), "file", 0, 0)
	err = f.node.Do(ctx, "DELETE", p.of("contents"), nil, &freed)
	bar.end()
	if err != nil {
		return f.cannot(err, p, "cannot free %s", p.called())
	}
	out := freedFiles{changeOf(p), freed.Backup}
	out.Files, out.Bytes = freed.Files, freed.Bytes
	if f.json {
		return written(f.printJSON(out))
	}
	if freed.Files == 0 && freed.Bytes == 0 {
		f.say("nothing of %s is on this disk", p.called())
		return nil
	}
	who := "other machines have"
	if freed.Backup != "" {
		who = "the backup " + freed.Backup + " has"
	}
	f.say("freed %s of %s; %s them", size(uint64(freed.Bytes)), p.called(), who)
	f.say("undo:  bevy get %s", p.word())
	return nil
}
