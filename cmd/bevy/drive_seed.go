package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) seedCommand() *cobra.Command {
	var s server
	cmd := &cobra.Command{
		Use:   "seed <key> [flags]",
		Short: "Keep all of a drive here, and serve it to others",
		Long: `Fetches all files of a drive, and of each version that comes, until it is
stopped. With --tcp or --ws it also serves the store, as "bevy hyper serve"
does, so that others have the drive when its writer is away.`,
		Example: `bevy hyper drive seed <key> --peer tcp://example.org:4233 --tcp :4233
bevy hyper drive seed photos --tcp :4233`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return d.seed(cmd.Context(), args[0], &s) },
	}
	s.flags(cmd)
	d.readFlags(cmd)
	return cmd
}

// A seeded is what --json prints of each version.
type seeded struct {
	Event   string `json:"event"` // "seeded"
	Version uint64 `json:"version"`
	Files   uint64 `json:"files"`  // that are new, or were changed
	Blocks  uint64 `json:"blocks"` // of contents that came
	Bytes   uint64 `json:"bytes"`  // of those
}

func (d *drive) seed(ctx context.Context, word string, s *server) error {
	if !d.remote() && !s.wanted() {
		return wrong("seed --peer tcp://<host>:<port>, or --tcp :4233", "there is nobody to fetch from, or to serve", "seed wants --swarm, --peer, --tcp or --ws")
	}
	d.seeds = true
	return d.open(ctx, writing, word, func(ctx context.Context) error {
		if s.wanted() {
			if err := s.start(ctx, d.hyper, d.log.store); err != nil {
				return err
			}
			defer s.stop()
		}
		err := untilStopped(d.follow(ctx))
		if err != nil {
			return d.cannot(ctx, err, "cannot seed drive %s", d.log.called())
		}
		d.say("stopped")
		return nil
	})
}

// follow fetches one version after the other.
func (d *drive) follow(ctx context.Context) error {
	news, err := d.log.Watch()
	if err != nil {
		return err
	}
	defer news.Close()
	last, fork := uint64(0), d.log.Fork()
	for {
		if f := d.log.Fork(); f != fork {
			last, fork = 0, f // what was there may be gone
		}
		if last, err = d.keep(ctx, last); err != nil {
			return err
		}
		for d.log.Length() == last && d.log.Fork() == fork {
			if _, err := news.Next(ctx); err != nil {
				return err
			}
		}
	}
}

// keep fetches what is new since a version, and returns which one there is now.
func (d *drive) keep(ctx context.Context, last uint64) (uint64, error) {
	if err := d.reach(ctx); err != nil {
		return 0, err
	}
	now, err := d.whole.Snapshot()
	if err != nil {
		return 0, err
	}
	defer now.Close()
	length := now.Version()
	if d.log.Length() == 0 {
		length = 0
	}
	fetch := d.remote() && length > 0
	if fetch {
		if err := d.log.Download(ctx, hypercore.DownloadRange{To: length}); err != nil {
			return 0, err
		}
	}
	out, missing := seeded{Event: "seeded", Version: max(1, length)}, uint64(0)
	for e, err := range newSince(ctx, now, last) {
		if err != nil {
			return 0, err
		}
		_, left, err := d.amount(ctx, &e)
		if err != nil {
			return 0, err
		}
		out.Files, missing = out.Files+1, missing+left
	}
	if fetch && missing > 0 {
		var came downloadedFiles
		err := d.fetch(ctx, missing, &came, func() error {
			if last == 0 {
				return now.Download(ctx, "/", nil)
			}
			return now.DownloadDiff(ctx, last, "/", nil)
		})
		if err != nil {
			return 0, err
		}
		out.Blocks, out.Bytes, missing = came.Blocks, came.Bytes, 0
	}
	return length, d.printSeeded(out, missing)
}

// newSince are the files that are not what they were at a version, 0 for all.
func newSince(ctx context.Context, now *hyperdrive.Drive, last uint64) iter.Seq2[hyperdrive.Entry, error] {
	if last == 0 {
		return now.List(ctx, "/", hyperdrive.ListOptions{})
	}
	return func(yield func(hyperdrive.Entry, error) bool) {
		for diff, err := range now.Diff(ctx, last, "/") {
			if err == nil && diff.Left == nil {
				continue
			}
			e := hyperdrive.Entry{}
			if err == nil {
				e = *diff.Left
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (d *drive) printSeeded(out seeded, missing uint64) error {
	if d.json {
		return written(d.printJSON(out))
	}
	came, lacks := "", ""
	if out.Blocks > 0 {
		came = fmt.Sprintf(", fetched %s (%s)", plural(out.Blocks, "block"), size(out.Bytes))
	}
	if missing > 0 {
		lacks = fmt.Sprintf("; %s of them are not here", plural(missing, "block"))
	}
	d.say("version %d of drive %s: %s new%s%s", out.Version, d.log.called(), plural(out.Files, "file"), came, lacks)
	return nil
}
