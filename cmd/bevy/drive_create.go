package main

import (
	"context"
	"errors"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) createCommand() *cobra.Command {
	encrypted := false
	cmd := &cobra.Command{
		Use:   "create <name> [flags]",
		Short: "Make a new drive and print its key",
		Long: `Makes a new, empty drive that this store can write, and prints its key. Who has
the key can read the drive; only this store can write it.

With --encrypted its blocks are encrypted with a second key, which is made and
printed too. That key is kept nowhere: without it nobody reads the drive,
neither the names of its files nor what is in them.`,
		Example: `bevy hyper drive create photos
bevy hyper drive create letters --encrypted`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.create(cmd.Context(), args[0], encrypted, aDrive)
		},
	}
	cmd.Flags().BoolVar(&encrypted, "encrypted", false, "make an encryption key, and print it")
	d.keyFlag(cmd, "encrypt with this key")
	return cmd
}

var aDrive = kind{group: "drive", next: "put %s <file>", begin: beginDrive}

// beginDrive writes the header of a drive, and makes the log of its contents, so
// that it can be read at once.
func beginDrive(ctx context.Context, s *corestore.Store, l *hypercore.Log, encryption *[32]byte) error {
	key := l.Key()
	d, err := hyperdrive.Open(s, hyperdrive.Options{Key: &key, EncryptionKey: encryption})
	if err != nil {
		return err
	}
	batch, err := d.Batch(ctx)
	if err == nil {
		err = batch.Flush(ctx)
	}
	return errors.Join(err, d.Close())
}
