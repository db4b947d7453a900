package main

import (
	"context"
	"iter"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff <path> [<path>] [flags]",
		Short: "See what is different from another moment",
		Long: `Lists what is different at a path, and in it, between the moment of the first
<path> and that of the second: + for what is new, - for what is gone, and ~ for
what was changed. The second may be a moment alone, such as @2h, or left out:
now.`,
		Example: `bevy diff Photos@yesterday
bevy diff Photos/2026@7d @2d
bevy diff ~/Notes@before-trip`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.diff(cmd.Context(), args) })
		},
	}
}

// A change is a path that is not what it was, in JSON.
type change = client.Change

// A listedChange is what --json prints of each.
type listedChange struct {
	Folder string `json:"folder"`
	change
}

func (f *files) diff(ctx context.Context, args []string) error {
	p, err := f.find(args[0])
	if err != nil {
		return err
	}
	to := ""
	if len(args) == 2 {
		other := p
		if what, at := cutMoment(args[1]); what == "" {
			to = at
		} else if other, err = f.find(args[1]); err != nil {
			return err
		} else {
			to = other.at
		}
		if other.folder.ID != p.folder.ID || other.path != p.path {
			return wrong("bevy diff "+p.word()+" @"+dash(to), "it compares one path at two moments", "cannot compare %s with %s", p.called(), other.called())
		}
	}
	if p.at == "" {
		return wrong("bevy diff "+shellWord(args[0]+"@yesterday"), "it compares with another moment", "%q wants a moment", "bevy diff")
	}
	return f.lines(func(w *lineWriter) error {
		none := true
		for c, err := range f.changes(ctx, p, p.at, to) {
			if err != nil {
				return err
			}
			none = false
			if f.json {
				err = w.object(listedChange{p.folder.Name, c})
			} else {
				err = w.line(p.changeLine(c)...)
			}
			if err != nil {
				return err
			}
		}
		if none && !f.json {
			f.say("nothing is different")
		}
		return nil
	})
}

// changes are what is different at a place between two moments.
func (f *files) changes(ctx context.Context, p place, from, to string) iter.Seq2[client.Change, error] {
	return func(yield func(client.Change, error) bool) {
		if from == "" {
			from = "now"
		}
		at := p
		at.at = ""
		after := ""
		for {
			var part client.Changes
			if err := f.node.Do(ctx, "GET", at.of("diff", "from", from, "to", to, "after", after), nil, &part); err != nil {
				yield(client.Change{}, momentHint(asked(err, "cannot compare %s", at.called()), p))
				return
			}
			for _, c := range part.Changes {
				if !yield(c, nil) {
					return
				}
				after = c.Path
			}
			if !part.More {
				return
			}
		}
	}
}

// changeLine is a change in cells.
func (p place) changeLine(c client.Change) []string {
	sign, bytes := "~", ""
	switch {
	case c.Old == nil && c.New != nil:
		sign, bytes = "+", sizeOf(c.New)
	case c.New == nil && c.Old != nil:
		sign, bytes = "-", sizeOf(c.Old)
	case c.Old != nil && c.New != nil:
		if bytes = sizeOf(c.Old); sizeOf(c.New) != bytes {
			bytes += " -> " + sizeOf(c.New)
		}
	}
	return []string{sign, escape([]byte(p.folder.Name + c.Path)), bytes}
}

func sizeOf(e *client.Entry) string {
	if e.Kind != "file" {
		return e.Kind
	}
	return size(uint64(e.Size))
}
