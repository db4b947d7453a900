package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) catCommand() *cobra.Command {
	var part span
	cmd := &cobra.Command{
		Use:   "cat <path> [flags]",
		Short: "Print a file, as it is or as it was",
		Long: `Prints what is in a file, or in what a link leads to, as it is. What is not on
this machine comes from others, and of a part no more than it needs.`,
		Example: `bevy cat Notes/today.txt
bevy cat Notes/today.txt@2h
bevy cat Films/long.mp4 --from 1GiB --bytes 10MiB > part`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := part.read(); err != nil {
				return err
			}
			return a.withFiles(cmd.Context(), func(f *files) error {
				p, err := f.find(args[0])
				if err != nil {
					return err
				}
				return f.cat(cmd.Context(), p, part)
			})
		},
	}
	part.flags(cmd)
	return cmd
}

func (f *files) cat(ctx context.Context, p place, part span) error {
	p, e, err := f.file(ctx, p)
	if err != nil {
		return err
	}
	if part.off >= e.Size && part.off > 0 || part.n == 0 {
		return nil
	}
	st, err := f.stats(ctx, p)
	if err == nil {
		err = f.here(ctx, p, st.Missing)
	}
	if err != nil {
		return err
	}
	from, err := f.read(ctx, p, part)
	if err != nil {
		return err
	}
	defer from.Close()
	var to io.Writer = output{f.stdout}
	if f.json {
		to = &partWriter{f.app, uint64(part.off)}
	}
	_, err = io.CopyBuffer(to, from, make([]byte, 64<<10))
	return fail(err, "cannot read %s", p.called())
}
