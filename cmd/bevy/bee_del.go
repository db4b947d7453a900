package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (b *bee) delCommand() *cobra.Command {
	var c condition
	cmd := &cobra.Command{
		Use:   "del <key> <entry> [flags]",
		Short: "Remove an entry",
		Long: `Removes an entry. It can still be read at versions of before.

With a condition the entry is removed only if that is true; else nothing
changes, and the exit code is 5.`,
		Example: `bevy hyper bee del friends lenka
bevy hyper bee del locks printer --if lenka`,
		Args: wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			entry, err := b.bytes("entry", args[1])
			if err == nil {
				err = c.read(b)
			}
			if err != nil {
				return err
			}
			return b.del(cmd.Context(), args[0], entry, &c)
		},
	}
	b.flags(cmd)
	c.flags(cmd)
	b.keyFlag(cmd, "encrypt with this key")
	return cmd
}

func (b *bee) del(ctx context.Context, word string, entry []byte, c *condition) error {
	return b.change(ctx, word, func(ctx context.Context) error {
		done, err := b.tree.DeleteIf(ctx, entry, c.met)
		switch {
		case err != nil:
			return b.cannot(ctx, err, "cannot delete %s from bee %s", b.quote(entry), b.log.called())
		case c.have == nil:
			return b.noEntry(entry)
		case !done:
			return b.conflict(c, "delete", entry)
		}
		return b.printChanged(c, entry, "deleted", b.undo(c.have))
	})
}

// noEntry says that an entry is not there.
func (b *bee) noEntry(entry []byte) error {
	at := ""
	if b.at.set {
		at = fmt.Sprintf(" at version %d", b.at.n)
	}
	return &failure{code: codeNotFound, what: fmt.Sprintf("there is no entry %s in bee %s%s", b.quote(entry), b.log.called(), at),
		cause: "it was never put, or was deleted", try: b.command("ls", nil, "--keys")}
}
