package main

import (
	"context"
	"errors"
	"io"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) catCommand() *cobra.Command {
	var part span
	cmd := &cobra.Command{
		Use:   "cat <key> <path> [flags]",
		Short: "Print the contents of a file",
		Long: `Prints the contents of a file, or of what a link leads to, as they are. Of a
part no more is fetched from peers than it needs.`,
		Example: `bevy hyper drive cat photos /index.txt
bevy hyper drive cat photos /index.txt --at 5
bevy hyper drive cat <key> /film.mp4 --from 1GiB --peer tcp://example.org:4233`,
		Args: wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := clean(args[1])
			if err == nil {
				err = part.read()
			}
			if err != nil {
				return err
			}
			return d.cat(cmd.Context(), args[0], path, part)
		},
	}
	part.flags(cmd)
	d.readFlags(cmd)
	d.atFlag(cmd)
	return cmd
}

// A span is the part of a file that is read.
type span struct {
	from, bytes string // --from, --bytes
	off, n      int64  // n is negative for all that there is
}

func (s *span) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.from, "from", "", "begin after this `size`, such as 512 or 1MiB")
	cmd.Flags().StringVar(&s.bytes, "bytes", "", "only so much, in bytes, as a `size`")
}

func (s *span) read() error {
	s.n = -1
	for _, f := range []struct {
		name, word string
		to         *int64
	}{{"from", s.from, &s.off}, {"bytes", s.bytes, &s.n}} {
		if f.word == "" {
			continue
		}
		n, err := parseSize(f.word)
		if err == nil && n > 1<<62 {
			err = errors.New("no file is that large")
		}
		if err != nil {
			return wrong("--"+f.name+" 1MiB", causeOf(err), "wrong --%s %q", f.name, f.word)
		}
		*f.to = int64(n)
	}
	return nil
}

// A printedPart is what --json prints of each part of the contents.
type printedPart struct {
	Offset uint64 `json:"offset"` // of the first byte in the file
	Size   int    `json:"size"`
	Data   []byte `json:"data"` // in base64
}

func (d *drive) cat(ctx context.Context, word, path string, part span) error {
	return d.open(ctx, reading, word, func(ctx context.Context) error {
		e, err := d.find(ctx, path)
		if err != nil {
			return err
		}
		var to io.Writer = output{d.stdout}
		if d.json {
			to = &partWriter{d.app, uint64(part.off)}
		}
		return d.copyFile(ctx, to, e, part)
	})
}

// copyFile writes a part of a file's contents.
func (d *drive) copyFile(ctx context.Context, to io.Writer, e hyperdrive.Entry, part span) error {
	var from *hyperblobs.Reader
	err := d.ask(func() error {
		blobs, err := d.files.Blobs(ctx)
		if err != nil {
			return err
		}
		id := hyperblobs.ID{}
		if e.Blob != nil {
			id = *e.Blob
		}
		if part.off == 0 && part.n < 0 {
			from, err = blobs.NewReader(ctx, id)
		} else {
			from, err = blobs.NewRangeReader(ctx, id, part.off, part.n)
		}
		return err
	})
	if err == nil {
		defer from.Close()
		_, err = io.CopyBuffer(to, &patientReader{from, d.log.wait}, make([]byte, hyperblobs.DefaultBlockSize))
	}
	return d.cannot(ctx, err, "cannot read %s of drive %s", quotePath(e.Path), d.log.called())
}

// A patientReader gives peers --wait for each part.
type patientReader struct {
	r    io.Reader
	wait *patience
}

func (r *patientReader) Read(p []byte) (int, error) {
	r.wait.start()
	defer r.wait.rest()
	return r.r.Read(p)
}

// An output is stdout with errors that say so.
type output struct{ w io.Writer }

func (o output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	return n, written(err)
}

// A partWriter prints what is written as JSON.
type partWriter struct {
	app    *app
	offset uint64
}

func (w *partWriter) Write(p []byte) (int, error) {
	if err := w.app.printJSON(printedPart{w.offset, len(p), p}); err != nil {
		return 0, written(err)
	}
	w.offset += uint64(len(p))
	return len(p), nil
}
