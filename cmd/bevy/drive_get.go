package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
	"github.com/cloudbevy/bevy/hyper/mirrordrive"
	"github.com/spf13/cobra"
)

func (d *drive) getCommand() *cobra.Command {
	m := &mirroring{drive: d}
	var part span
	force := false
	cmd := &cobra.Command{
		Use:   "get <key> <path> [<file>] [flags]",
		Short: "Copy a file, or a folder, to the disk",
		Long: `Copies a file, or what a link leads to, to the disk, with its permissions and
time; without <file> under its own name to where we are. Of a folder all files
are copied, with their whole paths, into the folder <file>, as "bevy hyper drive
mirror" does. The file - is stdout.`,
		Example: `bevy hyper drive get photos /2026/sea.jpg
bevy hyper drive get photos /2026 ./copy
bevy hyper drive get <key> /film.mp4 --peer tcp://example.org:4233`,
		Args: wants(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := cleanFolder(args[1])
			if err == nil {
				err = part.read()
			}
			if err != nil {
				return err
			}
			to := ""
			if len(args) == 3 {
				to = args[2]
			}
			if to == "-" {
				return d.cat(cmd.Context(), args[0], path, part)
			}
			return m.get(cmd.Context(), args[0], path, to, part, force)
		},
	}
	part.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	d.readFlags(cmd)
	d.atFlag(cmd)
	return cmd
}

// A gotFile is what --json prints of a file.
type gotFile struct {
	pathName
	File  string `json:"file"` // on the disk
	Bytes uint64 `json:"bytes"`
}

func (m *mirroring) get(ctx context.Context, word, path, to string, part span, force bool) error {
	return m.open(ctx, reading, word, func(ctx context.Context) error {
		if path == "/" || m.isFolder(ctx, path) {
			if to == "" {
				to = "."
			}
			m.o.Prefix, m.o.NoPrune = []string{path}, true
			return m.withFolder(to, true, func(f *localdrive.Folder) error {
				return m.run(ctx, mirrordrive.Drive(m.files), mirrordrive.Folder(f), to)
			})
		}
		e, err := m.find(ctx, path)
		if err != nil {
			return err
		}
		if s, err := os.Stat(to); to == "" || err == nil && s.IsDir() {
			to = filepath.Join(to, base(path))
		}
		return m.getFile(ctx, e, path, to, part, force)
	})
}

// getFile writes a file to the disk.
func (m *mirroring) getFile(ctx context.Context, e hyperdrive.Entry, path, to string, part span, force bool) error {
	n := uint64(0)
	err := m.withFolder(filepath.Dir(to), false, func(f *localdrive.Folder) error {
		out, err := f.Create(ctx, "/"+filepath.Base(to), localdrive.CreateOptions{Executable: e.Executable, Mode: e.Mode(), ModTime: e.ModTime(), New: !force})
		if err == nil {
			defer out.Abort()
			total, _ := m.files.Size(ctx, e) // for the line of progress
			bar := m.progress(path, "file", 0, total)
			err = m.copyFile(ctx, writerFunc(func(p []byte) (int, error) {
				k, err := out.Write(p)
				n += uint64(k)
				bar.add(0, uint64(k))
				return k, err
			}), e, part)
			bar.end()
		}
		if err == nil {
			err = out.Close()
		}
		if err != nil {
			f, ok := fail(err, "cannot write %s", to).(*failure)
			if ok && f.code == codeConflict {
				f.try = "another name, or --force"
			}
			return f
		}
		return nil
	})
	if err != nil {
		return err
	}
	if m.json {
		return written(m.printJSON(gotFile{pathOf(path), to, n}))
	}
	m.say("wrote %s (%s)", to, size(n))
	return nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
