package main

import (
	"context"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (b *bee) createCommand() *cobra.Command {
	encrypted := false
	cmd := &cobra.Command{
		Use:   "create <name> [flags]",
		Short: "Make a new bee and print its key",
		Long: `Makes a new, empty bee that this store can write, and prints its key. Who has
the key can read the bee; only this store can write it.

With --encrypted its blocks are encrypted with a second key, which is made and
printed too. That key is kept nowhere: without it nobody reads the bee.`,
		Example: `bevy hyper bee create friends
bevy hyper bee create diary --encrypted`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.create(cmd.Context(), args[0], encrypted, aBee)
		},
	}
	cmd.Flags().BoolVar(&encrypted, "encrypted", false, "make an encryption key, and print it")
	b.keyFlag(cmd, "encrypt with this key")
	return cmd
}

var aBee = kind{group: "bee", next: "put %s <entry> <value>", begin: beginBee}

// beginBee writes the header of a bee, so that its log is told from others.
func beginBee(ctx context.Context, _ *corestore.Store, l *hypercore.Log, _ *[32]byte) error {
	tree, err := hyperbee.Open(l, hyperbee.Options{})
	if err != nil {
		return err
	}
	batch, err := tree.Batch(ctx)
	if err != nil {
		return err
	}
	return batch.Flush(ctx)
}
