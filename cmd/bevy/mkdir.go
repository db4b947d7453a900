package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) mkdirCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mkdir <path>... [flags]",
		Short: "Make folders in a folder of the cloud",
		Long: `Makes folders, also those that they are in. "bevy add" makes a folder of this
disk one of the cloud.`,
		Example: `bevy mkdir Photos/2026/summer`,
		Args:    wants(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error {
				for _, word := range args {
					if err := f.mkdir(cmd.Context(), word); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (f *files) mkdir(ctx context.Context, word string) error {
	p, err := f.findNow(word, "mkdir")
	if err != nil {
		return err
	}
	e, there, err := f.exists(ctx, p)
	switch {
	case err != nil:
		return err
	case there && e.Kind != "folder":
		return &failure{code: codeConflict, what: "cannot make " + p.called(), cause: "there is a " + e.Kind + " of that name", try: "another path"}
	case there:
		if f.json {
			return written(f.printJSON(changeOf(p)))
		}
		f.say("%s is there already", p.called())
		return nil
	}
	if err := f.node.Do(ctx, "POST", p.route("dirs"), map[string]string{"path": p.path}, nil); err != nil {
		return asked(err, "cannot make %s", p.called())
	}
	return f.changed(ctx, p, changeOf(p), "made %s", p.called())
}
