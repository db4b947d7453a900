package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) infoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "info <key> [flags]",
		Short: "Say what a drive is, and how much of it is here",
		Example: `bevy hyper drive info photos
bevy hyper drive info <key> --peer tcp://example.org:4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return d.info(cmd.Context(), args[0]) },
	}
	d.readFlags(cmd)
	d.atFlag(cmd)
	return cmd
}

// A driveInfo is what --json prints.
type driveInfo struct {
	logInfo
	Version       uint64 `json:"version"`
	Files         uint64 `json:"files"`
	FileBytes     uint64 `json:"fileBytes"`
	ContentKey    string `json:"contentKey"`    // "" while it is not known
	ContentBlocks uint64 `json:"contentBlocks"` // of all versions
	ContentBytes  uint64 `json:"contentBytes"`
	ContentHeld   uint64 `json:"contentHeld"` // how many of the blocks are here
}

func (d *drive) info(ctx context.Context, word string) error {
	return d.open(ctx, reading, word, func(ctx context.Context) error {
		what := fmt.Sprintf("cannot read drive %s", d.log.called())
		var out driveInfo
		var last *hyperblobs.ID // in the log of contents
		out.Version = d.files.Version()
		bar := d.progress(d.log.called(), "file", 0, 0)
		err := each(d.log, false, d.files.List(ctx, "/", hyperdrive.ListOptions{}), func(e hyperdrive.Entry) error {
			f, err := d.describe(ctx, &e)
			out.Files, out.FileBytes = out.Files+1, out.FileBytes+f.Size
			if b := e.Blob; b != nil && (last == nil || b.BlockOffset > last.BlockOffset) {
				last = b
			}
			bar.add(1, f.Size)
			return err
		})
		bar.end()
		if err != nil {
			return d.cannot(ctx, err, "%s", what)
		}
		if d.log.Length() > 0 || d.whole.Writable() {
			err := d.ask(func() error {
				blobs, err := d.whole.Blobs(ctx)
				if err != nil {
					return err
				}
				l := blobs.Log()
				if last != nil && l.Length() < last.BlockOffset+last.BlockLength {
					// Reading has the head of the log come. If none does, that is told, too.
					r, err := blobs.NewReader(ctx, *last)
					if err == nil {
						r.Close()
					} else if !errors.Is(err, hyperblobs.ErrInvalid) {
						return err
					}
				}
				out.ContentKey, out.ContentBlocks, out.ContentBytes = l.Key().String(), l.Length(), l.ByteLength()
				out.ContentHeld = heldIn(l, hypercore.Range{End: l.Length()})
				return nil
			})
			if err != nil {
				return d.cannot(ctx, err, "%s", what)
			}
		}
		i, err := describe(d.log)
		if err != nil {
			return err
		}
		if out.logInfo = *i; d.json {
			return written(d.printJSON(out))
		}
		rows := [][2]string{
			{"version", fmt.Sprint(out.Version)},
			{"files", fmt.Sprintf("%s, %s", count(out.Files), size(out.FileBytes))},
		}
		if out.ContentKey != "" {
			rows = append(rows, [2]string{"contents", out.ContentKey},
				[2]string{"", fmt.Sprintf("%s, %s, of all versions", plural(out.ContentBlocks, "block"), size(out.ContentBytes))},
				[2]string{"", fmt.Sprintf("%s of %s are here", count(out.ContentHeld), count(out.ContentBlocks))})
		}
		return d.printInfo(i, rows...)
	})
}
