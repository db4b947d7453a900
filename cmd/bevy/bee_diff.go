package main

import (
	"context"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/spf13/cobra"
)

func (b *bee) diffCommand() *cobra.Command {
	var r bounds
	cmd := &cobra.Command{
		Use:   "diff <key> <version> [<version>] [flags]",
		Short: "Show what is different between two versions",
		Long: `Shows what is different between a version and a later one, the newest if none is
given, in the order of entries. A line with - has what was before, one with +
what is after.`,
		Example: `bevy hyper bee diff friends 5
bevy hyper bee diff friends 5 9 --prefix l`,
		Args: wants(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			var versions [2]numberFlag
			for i, arg := range args[1:] {
				if err := versions[i].Set(arg); err != nil {
					return wrong("bevy hyper bee diff <key> 5 9", causeOf(err), "wrong version %q", arg)
				}
			}
			o, err := r.options(b)
			if err != nil {
				return err
			}
			b.at = versions[1]
			return b.diff(cmd.Context(), args[0], versions[0].n, o)
		},
	}
	r.flags(cmd)
	b.readFlags(cmd)
	return cmd
}

// A printedDifference is what --json prints of each.
type printedDifference struct {
	entryName
	Before *versionOf `json:"before,omitempty"` // nil if there was none
	After  *versionOf `json:"after,omitempty"`  // nil if there is none
}

// A versionOf is what an entry is in one version.
type versionOf struct {
	Seq uint64 `json:"seq"` // the block that has it
	entryValue
}

func (b *bee) diff(ctx context.Context, word string, before uint64, o hyperbee.RangeOptions) error {
	return b.print(ctx, word, func(ctx context.Context, w *beeWriter) error {
		if err := b.hasVersion(before); err != nil {
			return err
		}
		none := true
		err := each(b.log, false, b.tree.Diff(ctx, before, o), func(d hyperbee.Difference) error {
			none = false
			return w.difference(d)
		})
		if err != nil {
			return b.cannot(ctx, err, "cannot compare versions of bee %s", b.log.called())
		}
		if none && !b.json {
			b.say("nothing is different")
		}
		return nil
	})
}

// difference prints what an entry was and what it is.
func (w *beeWriter) difference(d hyperbee.Difference) error {
	if w.bee.json {
		var out printedDifference
		if e := d.Right; e != nil {
			out.entryName, out.Before = nameOf(e.Key), &versionOf{e.Seq, valueOf(e.Value)}
		}
		if e := d.Left; e != nil {
			out.entryName, out.After = nameOf(e.Key), &versionOf{e.Seq, valueOf(e.Value)}
		}
		return w.object(out)
	}
	for _, side := range []struct {
		mark string
		e    *hyperbee.Entry
	}{{"-", d.Right}, {"+", d.Left}} {
		if side.e == nil {
			continue
		}
		if err := w.line(append([]string{side.mark}, w.cells(*side.e)...)...); err != nil {
			return err
		}
	}
	return nil
}
