package main

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) truncateCommand() *cobra.Command {
	var c consent
	cmd := &cobra.Command{
		Use:   "truncate <key> <length> [flags]",
		Short: "Cut the end off a log, for all its readers",
		Long: `Cuts a log that this store can write to <length> blocks. Every reader drops the
rest too, as soon as it hears of it. It can't be undone.`,
		Example: `bevy hyper core truncate notes 2 --dry-run`,
		Args:    wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			length, err := parseIndex(args[1])
			if err != nil {
				return wrong("bevy hyper core truncate <key> 10", fmt.Sprintf("%q is not a number of blocks", args[1]), "wrong length %q", args[1])
			}
			return h.truncate(cmd.Context(), args[0], length, c)
		},
	}
	c.flags(cmd)
	return cmd
}

// truncated is what --json prints.
type truncated struct {
	Key    string `json:"key"`
	Name   string `json:"name"`
	Blocks uint64 `json:"blocks"` // how many are cut off
	Bytes  uint64 `json:"bytes"`
	Length uint64 `json:"length"` // after that
	Fork   uint64 `json:"fork"`
	DryRun bool   `json:"dryRun"`
}

func (h *hyper) truncate(ctx context.Context, word string, length uint64, c consent) error {
	mode := writing
	if c.dryRun {
		mode = reading
	}
	return h.withLog(ctx, mode, word, hypercore.SessionOptions{}, func(ctx context.Context, l *log) error {
		what := fmt.Sprintf("cannot truncate log %s", l.called())
		switch {
		case l.Frozen() != nil:
			return fail(hypercore.ErrFrozen, "%s", what)
		case !l.KeyPair().CanSign():
			return fail(hypercore.ErrNotWritable, "%s", what)
		case length > l.Length():
			return wrong(fmt.Sprintf("a length from 0 to %d", l.Length()), fmt.Sprintf("it has only %s", plural(l.Length(), "block")), "%s", what)
		case length == l.Length():
			h.say("log %s has %s already: nothing was changed", l.called(), plural(length, "block"))
		}
		t := truncated{Key: l.Key().String(), Name: l.name, Length: length, Blocks: l.Length() - length, Fork: l.Fork(), DryRun: c.dryRun}
		if t.Blocks > 0 {
			before, err := l.ByteOffset(length)
			if err != nil {
				return fail(err, "%s", what)
			}
			t.Bytes, t.Fork = l.ByteLength()-before, l.Fork()+1
			ok, err := h.confirm(c, fmt.Sprintf("bevy hyper core truncate %s %d", word, length),
				fmt.Sprintf("log %s will be cut from %s to %s", l.called(), plural(l.Length(), "block"), count(length)),
				fmt.Sprintf("%s (%s) will be gone, here and for every reader, for good", plural(t.Blocks, "block"), size(t.Bytes)))
			if err != nil {
				return err
			}
			if ok {
				if err := l.Truncate(ctx, length, hypercore.TruncateOptions{}); err != nil {
					return fail(err, "%s", what)
				}
				t.Fork = l.Fork()
				h.say("cut %s (%s) off log %s, which has %s in fork %d now", plural(t.Blocks, "block"), size(t.Bytes), l.called(), plural(length, "block"), t.Fork)
			}
		}
		if h.json {
			return written(h.printJSON(t))
		}
		return nil
	})
}
