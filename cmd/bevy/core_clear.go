package main

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) clearCommand() *cobra.Command {
	var c consent
	cmd := &cobra.Command{
		Use:   "clear <key> <from> <to> [flags]",
		Short: "Remove blocks from this store, to free their space",
		Long: `Removes the blocks from <from> up to, and without, <to> from this store. The log
keeps its length, and the blocks can be fetched again from peers that have them.`,
		Example: `bevy hyper core clear notes 0 100 --dry-run`,
		Args:    wants(3, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r hypercore.Range
			for i, n := range []*uint64{&r.Start, &r.End} {
				var err error
				if *n, err = parseIndex(args[1+i]); err != nil {
					return wrong("bevy hyper core clear <key> 0 100", causeOf(err), "wrong block %q", args[1+i])
				}
			}
			if r.End < r.Start {
				return wrong(fmt.Sprintf("bevy hyper core clear %s %d %d", args[0], r.End, r.Start), fmt.Sprintf("block %d comes after block %d", r.Start, r.End), "the blocks are the wrong way round")
			}
			return h.clear(cmd.Context(), args[0], r, c)
		},
	}
	c.flags(cmd)
	return cmd
}

// cleared is what --json prints.
type cleared struct {
	Key     string `json:"key"`
	Name    string `json:"name"`
	From    uint64 `json:"from"`
	To      uint64 `json:"to"`
	Cleared uint64 `json:"cleared"` // how many of them were here
	DryRun  bool   `json:"dryRun"`
}

func (h *hyper) clear(ctx context.Context, word string, r hypercore.Range, c consent) error {
	mode := writing
	if c.dryRun {
		mode = reading
	}
	return h.withLog(ctx, mode, word, hypercore.SessionOptions{}, func(ctx context.Context, l *log) error {
		what := fmt.Sprintf("cannot clear blocks of log %s", l.called())
		if r.End > l.Length() {
			return wrong(fmt.Sprintf("blocks from 0 to %d", l.Length()), fmt.Sprintf("it has only %s", plural(l.Length(), "block")), "%s", what)
		}
		out := cleared{Key: l.Key().String(), Name: l.name, From: r.Start, To: r.End, DryRun: c.dryRun}
		out.Cleared = heldIn(l.Log, r)
		if out.Cleared == 0 {
			h.say("none of these blocks is here: nothing was changed")
		} else {
			plan := []string{fmt.Sprintf("%s of log %s will be removed from this store", plural(out.Cleared, "block"), l.called())}
			if l.KeyPair().CanSign() {
				plan = append(plan, "this store writes the log: blocks that no peer has fetched are lost for good")
			}
			ok, err := h.confirm(c, fmt.Sprintf("bevy hyper core clear %s %d %d", word, r.Start, r.End), plan...)
			if err != nil {
				return err
			}
			if ok {
				if out.Cleared, err = l.Clear(ctx, r.Start, r.End); err != nil {
					return fail(err, "%s", what)
				}
				h.say("removed %s of log %s from this store", plural(out.Cleared, "block"), l.called())
				h.say("undo:  bevy hyper core download %s --blocks %s --peer tcp://<host>:<port>", l.word(), blockList(r))
			}
		}
		if h.json {
			return written(h.printJSON(out))
		}
		return nil
	})
}
