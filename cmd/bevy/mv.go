package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) mvCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mv <path>... <path> [flags]",
		Short: "Move or rename files and folders",
		Long: `Moves files, and folders with all that is in them, to the last <path>; into it
under their own names, if it is a folder, ends with /, or there are several. All
stays in one folder of the cloud. A file replaces a file, which stays as an
older version.`,
		Example: `bevy mv Photos/sea.jpg Photos/2026/
bevy mv Notes/plan.txt Notes/plan-a.txt`,
		Args: wants(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.mv(cmd.Context(), args) })
		},
	}
}

// A moved is what --json prints.
type moved struct {
	Folder string `json:"folder"`
	From   string `json:"from"`
	To     string `json:"to"`
}

func (f *files) mv(ctx context.Context, args []string) error {
	sources, last := args[:len(args)-1], args[len(args)-1]
	into, err := f.into(ctx, last, "mv", len(sources) > 1)
	if err != nil {
		return err
	}
	for _, word := range sources {
		from, err := f.findNow(word, "mv")
		if err != nil {
			return err
		}
		to := into(from.base())
		if from.folder.ID != to.folder.ID {
			return wrong("bevy cp "+from.word()+" "+to.word()+", then bevy rm", "it would leave its folder, and its history there", "cannot move %s to %s", from.called(), to.called())
		}
		_, replaces, err := f.exists(ctx, to)
		if err != nil {
			return err
		}
		if err := f.node.Do(ctx, "POST", to.route("moves"), map[string]string{"from": from.path, "to": to.path}, nil); err != nil {
			return f.cannot(err, from, "cannot move %s to %s", from.called(), to.called())
		}
		if f.json {
			if err := written(f.printJSON(moved{from.folder.Name, from.path, to.path})); err != nil {
				return err
			}
			continue
		}
		f.say("moved %s to %s", from.called(), to.called())
		f.say("undo:  bevy mv %s %s", to.word(), from.word())
		if replaces {
			f.undo(ctx, to)
		}
	}
	return nil
}
