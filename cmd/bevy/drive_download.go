package main

import (
	"context"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) downloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "download <key> [<path>] [flags]",
		Short: "Fetch the contents of files from peers, and keep them",
		Long: `Fetches what is not here of a file, or of all files in a folder, from all peers
at once, and keeps it in the store. Interrupted, it goes on where it was when it
is started again.`,
		Example: `bevy hyper drive download <key> --peer tcp://example.org:4233
bevy hyper drive download <key> /2026 --peer tcp://example.org:4233`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			path := "/"
			if len(args) == 2 {
				if path, err = cleanFolder(args[1]); err != nil {
					return err
				}
			}
			return d.download(cmd.Context(), args[0], path)
		},
	}
	d.readFlags(cmd)
	d.atFlag(cmd)
	return cmd
}

// downloadedFiles is what --json prints.
type downloadedFiles struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	pathName
	Version uint64  `json:"version"`
	Files   uint64  `json:"files"`  // that there are
	Size    uint64  `json:"size"`   // of all of them
	Blocks  uint64  `json:"blocks"` // that came, of contents
	Bytes   uint64  `json:"bytes"`  // of those
	Seconds float64 `json:"seconds"`
}

func (d *drive) download(ctx context.Context, word, path string) error {
	if d.temp {
		return wrong("without --temp", "what is fetched would be gone at once", "--temp makes no sense here")
	}
	return d.open(ctx, reading, word, func(ctx context.Context) error {
		out := downloadedFiles{Key: d.log.Key().String(), Name: d.log.name, pathName: pathOf(path), Version: d.files.Version()}
		missing := uint64(0)
		start := d.clock.Now()
		err := each(d.log, false, under(ctx, d.files, path), func(e hyperdrive.Entry) error {
			out.Files++
			n, left, err := d.amount(ctx, &e)
			out.Size, missing = out.Size+n, missing+left
			return err
		})
		if err == nil && out.Files == 0 && path != "/" {
			return d.noFile(path)
		}
		if err == nil && missing > 0 {
			err = d.fetch(ctx, missing, &out, func() error { return d.files.Download(ctx, path, nil) })
		}
		if err != nil {
			return d.cannot(ctx, err, "cannot download drive %s", d.log.called())
		}
		took := d.clock.Now().Sub(start)
		out.Seconds = took.Seconds()
		return d.printDownloads(&out, took)
	})
}

// amount is how large a file is, and how many of its blocks are not here.
func (d *drive) amount(ctx context.Context, e *hyperdrive.Entry) (size, missing uint64, err error) {
	if e.Blob == nil {
		return 0, 0, nil
	}
	err = d.ask(func() error {
		blobs, err := d.whole.Blobs(ctx)
		if err == nil {
			size, err = blobs.Size(ctx, *e.Blob)
		}
		if err == nil {
			missing, err = blobs.Missing(ctx, *e.Blob)
		}
		return err
	})
	return size, missing, d.cannot(ctx, err, "cannot read %s of drive %s", quotePath(e.Path), d.log.called())
}

// fetch shows the progress of what f fetches, and counts it.
func (d *drive) fetch(ctx context.Context, blocks uint64, out *downloadedFiles, f func() error) error {
	blobs, err := d.whole.Blobs(ctx)
	if err != nil {
		return err
	}
	contents := blobs.Log()
	held := func() uint64 { return heldIn(contents, hypercore.Range{End: openEnd}) }
	before := held()
	bar := d.progress(d.log.called(), "block", blocks, 0)
	counted := d.countFetched(ctx, &log{Log: contents}, bar)
	err = d.ask(f)
	out.Bytes += counted()
	bar.end()
	out.Blocks += held() - before
	return err
}

func (d *drive) printDownloads(out *downloadedFiles, took time.Duration) error {
	if d.json {
		return written(d.printJSON(out))
	}
	if out.Blocks > 0 {
		d.say("fetched %s (%s) of drive %s in %s", plural(out.Blocks, "block"), size(out.Bytes), d.log.called(), minutes(took))
	} else {
		d.say("nothing to fetch")
	}
	d.say("%s (%s) are here whole", plural(out.Files, "file"), size(out.Size))
	return nil
}
