package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (b *bee) infoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "info <key> [flags]",
		Short: "Say what a bee is, and how much of it is here",
		Example: `bevy hyper bee info friends
bevy hyper bee info <key> --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.info(cmd.Context(), args[0]) },
	}
	b.keyFlag(cmd, "decrypt with this key")
	b.peerFlags(cmd)
	b.atFlag(cmd)
	return cmd
}

// A beeInfo is what --json prints.
type beeInfo struct {
	logInfo
	Version     uint64 `json:"version"`
	ContentFeed string `json:"contentFeed"` // the log that the entries speak of, "" if none
	UserData    []byte `json:"userData"`    // of the header
}

func (b *bee) info(ctx context.Context, word string) error {
	return b.open(ctx, reading, word, func(ctx context.Context) error {
		b.log.wait.start()
		header, err := b.tree.Header(ctx)
		b.log.wait.rest()
		if err != nil && !errors.Is(err, hyperbee.ErrNotFound) {
			return b.cannot(ctx, err, "cannot read bee %s", b.log.called())
		}
		i, err := describe(b.log)
		if err != nil {
			return err
		}
		out := beeInfo{logInfo: *i, Version: b.tree.Version()}
		var more [][2]string
		more = append(more, [2]string{"version", fmt.Sprint(out.Version)})
		if m := header.Metadata; m != nil {
			out.UserData = m.UserData
			if key := m.ContentFeed; len(key) == 32 {
				out.ContentFeed = hypercore.Key(key).String()
				more = append(more, [2]string{"content", out.ContentFeed})
			}
			if len(m.UserData) > 0 {
				more = append(more, [2]string{"user data", fmt.Sprintf("%.60s", escape(m.UserData))})
			}
		}
		if b.json {
			return written(b.printJSON(out))
		}
		return b.printInfo(i, more...)
	})
}
