package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

func (d *drive) putCommand() *cobra.Command {
	var in putFile
	cmd := &cobra.Command{
		Use:   "put <key> <file> [<path>] [flags]",
		Short: "Put a file in a drive, or the files of a folder",
		Long: `Puts a file in a drive, in place of what is at its path, with its permissions
and the time when it was changed. Without <path> it gets its own name; one that
ends with / is a folder that it is put in. The file - is what comes from stdin,
which wants a path.

Of a folder all files are put, as "bevy hyper drive mirror" does; nothing is
removed.`,
		Example: `bevy hyper drive put photos sea.jpg /2026/
bevy hyper drive put photos ~/Pictures /2026
date | bevy hyper drive put photos - /date.txt`,
		Args: wants(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.file = args[1]
			if len(args) == 3 {
				in.path = args[2]
			}
			return d.put(cmd.Context(), args[0], &in)
		},
	}
	cmd.Flags().BoolVar(&in.executable, "executable", false, "it is a program, whatever its permissions are")
	d.keyFlag(cmd, "encrypt with this key")
	return cmd
}

// A putFile is a file that is put in a drive.
type putFile struct {
	file, path string
	executable bool

	r    io.ReadCloser
	size uint64 // 0 if that is not known
	o    hyperdrive.PutOptions
}

// open opens the file, and says where it goes.
func (p *putFile) open(h *hyper) (err error) {
	switch {
	case p.file == "-" && (p.path == "" || strings.HasSuffix(p.path, "/")):
		return wrong("a path such as /date.txt", "what comes from stdin has no name", "put - wants a path")
	case p.path == "" || strings.HasSuffix(p.path, "/"):
		p.path += "/" + filepath.Base(p.file)
	}
	if p.path, err = clean(p.path); err != nil {
		return err
	}
	if p.r, p.size, err = h.open(p.file); err != nil {
		return err
	}
	changed, mode := h.clock.Now(), os.FileMode(0)
	if f, ok := p.r.(*os.File); ok {
		if s, err := f.Stat(); err == nil {
			changed, mode = s.ModTime(), s.Mode()
		}
	}
	p.o.Executable = p.executable || mode&0o100 != 0
	if p.o.Executable && mode != 0 {
		mode |= 0o100
	}
	p.o.Metadata = hyperdrive.NewMetadata(changed, mode)
	return nil
}

func (d *drive) put(ctx context.Context, word string, in *putFile) error {
	if s, err := os.Stat(in.file); err == nil && s.IsDir() {
		return d.putFolder(ctx, word, in)
	}
	if err := in.open(d.hyper); err != nil {
		return err
	}
	defer in.r.Close()
	return d.change(ctx, word, func(ctx context.Context) error {
		if in.file == "-" && isTerminal(d.stdin) {
			d.say("reading from the terminal; Ctrl-D ends it")
		}
		out := d.changed(in.path, false)
		what := fmt.Sprintf("cannot put %s in drive %s", quotePath(in.path), d.log.called())
		to, err := d.whole.Create(ctx, in.path, in.o)
		if err != nil {
			return d.cannot(ctx, err, "%s", what)
		}
		defer to.Abort()
		bar := d.progress(in.path, "file", 0, in.size)
		n, err := to.ReadFrom(&countingReader{ctx, in.r, bar})
		bar.end()
		if err == nil {
			err = to.Close()
		}
		if err != nil {
			return d.cannot(ctx, err, "%s", what)
		}
		out.Files, out.Bytes = 1, uint64(n)
		return d.printChanged("put", in.path, &out)
	})
}

// A countingReader counts what is read, and stops when the context ends.
type countingReader struct {
	ctx context.Context
	r   io.Reader
	bar *progress
}

func (r *countingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.bar.add(0, uint64(n))
	return n, err
}
