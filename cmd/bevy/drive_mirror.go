package main

import (
	"context"
	"os"
	"path"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
	"github.com/cloudbevy/bevy/hyper/mirrordrive"
	"github.com/spf13/cobra"
)

func (d *drive) mirrorCommand() *cobra.Command {
	m := &mirroring{drive: d}
	cmd := &cobra.Command{
		Use:   "mirror <source> <target> [flags]",
		Short: "Make a drive or a folder have what another has",
		Long: `Copies what is new or different from a drive or a folder on the disk to another.
A word that ends with a colon is a drive, by its name or key; others are
folders. Files of the same size and time are taken to be the same.

What only the target has stays, unless --delete is given. With --dry-run it only
says what it would do. Interrupted, it goes on where it was when it is started
again. Nothing outside of a folder is read or written, whatever links and names
say.`,
		Example: `bevy hyper drive mirror ~/Pictures photos:
bevy hyper drive mirror ~/Pictures photos: --delete --dry-run
bevy hyper drive mirror photos: ./copy --at 5 --folder /2026
bevy hyper drive mirror <key>: ./copy --peer tcp://example.org:4233
bevy hyper drive mirror photos: other:`,
		Args: wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := m.read(); err != nil {
				return err
			}
			return m.mirror(cmd.Context(), args[0], args[1])
		},
	}
	cmd.Flags().BoolVar(&m.delete, "delete", false, "remove what only the target has")
	cmd.Flags().BoolVar(&m.o.DryRun, "dry-run", false, "only say what would happen")
	cmd.Flags().BoolVar(&m.o.Checksum, "checksum", false, "compare contents also where size and time are the same")
	cmd.Flags().BoolVar(&m.o.Dedup, "dedup", false, "have a drive store only what is new in changed files")
	cmd.Flags().StringVar(&m.targetKey, "target-key", "", "encrypt with this key, in `hex`, when both are drives; --encryption-key is for the source then")
	cmd.Flags().StringArrayVar(&m.ignore, "ignore", nil, "leave alone what has a name of this `pattern`, such as *.tmp, or a path, such as /cache/*")
	cmd.Flags().StringArrayVar(&m.o.Prefix, "folder", nil, "only the file or folder of this `path`")
	d.readFlags(cmd)
	d.atFlag(cmd)
	return cmd
}

func (d *drive) checkoutCommand() *cobra.Command {
	m := &mirroring{drive: d}
	cmd := &cobra.Command{
		Use:   "checkout <key> <version> <folder> [flags]",
		Short: "Copy a version of a drive to a folder on the disk",
		Long: `Makes a folder have the files of a version, as "bevy hyper drive mirror" does.
What else is in the folder stays, unless --delete is given.`,
		Example: `bevy hyper drive checkout photos 5 ./old
bevy hyper drive checkout photos 5 ./old --folder /2026`,
		Args: wants(3, 3),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			d.at.set = true
			if d.at.n, err = parseVersion("checkout", args[1]); err == nil {
				err = m.read()
			}
			if err != nil {
				return err
			}
			return m.toFolder(cmd.Context(), args[0], args[2])
		},
	}
	cmd.Flags().BoolVar(&m.delete, "delete", false, "remove what only the folder has")
	cmd.Flags().BoolVar(&m.o.DryRun, "dry-run", false, "only say what would happen")
	cmd.Flags().StringArrayVar(&m.o.Prefix, "folder", nil, "only the file or folder of this `path`")
	d.readFlags(cmd)
	return cmd
}

// A mirroring is one run of mirror.
type mirroring struct {
	*drive
	o         mirrordrive.Options
	delete    bool
	ignore    []string
	targetKey string // --target-key
}

// read checks the flags.
func (m *mirroring) read() error {
	m.o.NoPrune = !m.delete
	for i, word := range m.o.Prefix {
		p, err := cleanFolder(word)
		if err != nil {
			return err
		}
		m.o.Prefix[i] = p
	}
	for _, pattern := range m.ignore {
		if _, err := path.Match(pattern, ""); err != nil {
			return wrong("--ignore '*.tmp'", causeOf(err), "wrong --ignore %q", pattern)
		}
	}
	if len(m.ignore) > 0 {
		m.o.Ignore = m.ignored
	}
	return nil
}

// ignored reports whether a path, or its name, is of one of the patterns.
func (m *mirroring) ignored(p string) bool {
	for _, pattern := range m.ignore {
		what := p
		if !strings.Contains(pattern, "/") {
			what = base(p)
		}
		if ok, _ := path.Match(pattern, what); ok { // the pattern was checked
			return true
		}
	}
	return false
}

func (m *mirroring) mirror(ctx context.Context, source, target string) error {
	from, fromDrive := strings.CutSuffix(source, ":")
	to, toDrive := strings.CutSuffix(target, ":")
	switch {
	case !fromDrive && !toDrive:
		return wrong("bevy hyper drive mirror <folder> <key>:", "a drive is a word that ends with a colon", "neither %q nor %q is a drive", source, target)
	case !toDrive:
		return m.toFolder(ctx, from, target)
	case !fromDrive:
		if m.at.set || m.remote() {
			return wrong("without --at and --peer", "they are for a drive that is read", "%q is a folder", source)
		}
		return m.fromFolder(ctx, source, to)
	}
	return m.toDrive(ctx, from, to)
}

// toFolder mirrors a drive to a folder, which is made if it is not there.
func (m *mirroring) toFolder(ctx context.Context, word, dir string) error {
	return m.open(ctx, reading, word, func(ctx context.Context) error {
		return m.withFolder(dir, true, func(f *localdrive.Folder) error {
			return m.run(ctx, mirrordrive.Drive(m.files), mirrordrive.Folder(f), dir)
		})
	})
}

func (m *mirroring) fromFolder(ctx context.Context, dir, word string) error {
	return m.withFolder(dir, false, func(f *localdrive.Folder) error {
		return m.change(ctx, word, func(ctx context.Context) error {
			before := m.whole.Version()
			err := m.run(ctx, mirrordrive.Folder(f), mirrordrive.Drive(m.whole), "drive "+m.log.called())
			if m.whole.Version() > before && !m.json {
				m.undo(before, "/")
			}
			return err
		})
	})
}

// toDrive mirrors a drive to another of this store.
func (m *mirroring) toDrive(ctx context.Context, from, to string) error {
	var key *[32]byte
	if m.targetKey != "" {
		h := *m.hyper
		h.encryptionKey = m.targetKey
		var err error
		if key, err = h.readEncryptionKey(); err != nil {
			return err
		}
	}
	return m.open(ctx, writing, from, func(ctx context.Context) (err error) {
		l, err := openLog(m.log.store, to, hypercore.SessionOptions{EncryptionKey: key}, false)
		if err != nil {
			return err
		}
		other := &drive{hyper: m.hyper, log: l}
		defer func() {
			if e := l.Close(); err == nil {
				err = fail(e, "cannot close drive %s", m.log.called())
			}
		}()
		if l.Key() == m.log.Key() {
			return wrong("bevy hyper drive restore "+shellWord(to)+" <version>", "both are the same drive", "cannot mirror %q to %q", from, to)
		}
		if err := m.mayAppend(ctx, l, key); err != nil {
			if f, ok := err.(*failure); ok && f.code == codeDenied && key == nil && l.KeyPair().CanSign() {
				f.try = "--target-key <hex>"
			}
			return err
		}
		at := l.Key()
		if other.whole, err = hyperdrive.Open(l.store, hyperdrive.Options{Key: &at, EncryptionKey: key}); err != nil {
			return other.cannot(ctx, err, "cannot open drive %s", l.called())
		}
		defer func() {
			if e := other.whole.Close(); err == nil {
				err = fail(e, "cannot close drive %s", l.called())
			}
		}()
		before := other.whole.Version()
		err = m.run(ctx, mirrordrive.Drive(m.files), mirrordrive.Drive(other.whole), "drive "+l.called())
		if other.whole.Version() > before && !m.json {
			other.undo(before, "/")
		}
		return err
	})
}

// withFolder calls f with a folder on the disk open.
func (m *mirroring) withFolder(dir string, create bool, f func(*localdrive.Folder) error) (err error) {
	if _, e := os.Stat(dir); create && os.IsNotExist(e) {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fail(err, "cannot make the folder %s", dir)
		}
		if m.o.DryRun {
			defer os.Remove(dir) // it is empty
		}
	}
	folder, err := localdrive.Open(dir)
	if err != nil {
		f := fail(err, "cannot open the folder %s", dir).(*failure)
		f.try = "a folder that is there; a drive is a word that ends with a colon"
		return f
	}
	defer func() {
		if e := folder.Close(); err == nil {
			err = fail(e, "cannot close the folder %s", dir)
		}
	}()
	return f(folder)
}

// A mirrored is what --json prints of each operation.
type mirrored struct {
	Op string `json:"op"` // "add", "change", "remove" or "skip"
	pathName
	BytesAdded   uint64 `json:"bytesAdded"`
	BytesRemoved uint64 `json:"bytesRemoved"`
	Metadata     bool   `json:"metadata,omitempty"` // nothing but that was changed
	Reason       string `json:"reason,omitempty"`   // why it was skipped
}

// A mirroredAll is what --json prints at the end.
type mirroredAll struct {
	Added        uint64 `json:"added"`
	Changed      uint64 `json:"changed"`
	Removed      uint64 `json:"removed"`
	Same         uint64 `json:"same"`
	Skipped      uint64 `json:"skipped"`
	BytesAdded   uint64 `json:"bytesAdded"`
	BytesRemoved uint64 `json:"bytesRemoved"`
	DryRun       bool   `json:"dryRun"`
}

// run mirrors, and tells what is done.
func (m *mirroring) run(ctx context.Context, from, to mirrordrive.Side, target string) error {
	var total mirrordrive.Total
	var why error
	bar := m.progress(target, "file", 0, 0)
	done := uint64(0) // of the file that is copied
	m.o.Progress = func(p mirrordrive.Progress) {
		m.log.wait.came()
		bar.add(0, p.Bytes-min(done, p.Bytes))
		if done = p.Bytes; done >= p.Size {
			done = 0
		}
	}
	err := m.lines(m.log, func(w *lineWriter) error {
		return each(m.log, false, mirrordrive.Mirror(ctx, from, to, m.o), func(op mirrordrive.Op) error {
			total.Count(op)
			bar.add(1, 0)
			if op.Kind == mirrordrive.Skip && why == nil {
				why = op.Reason
			}
			return m.printOp(w, op)
		})
	})
	bar.end()
	if err != nil {
		return m.cannot(ctx, err, "cannot mirror to %s", target)
	}
	if err := m.printTotal(total, target); err != nil {
		return err
	}
	if total.Skip > 0 {
		return leftOut(total.Skip, why)
	}
	return nil
}

// leftOut says that not all files could be copied.
func leftOut(files uint64, why error) error {
	return &failure{code: codeFailed, err: why, what: "left out " + plural(files, "file"), cause: escape([]byte(causeOf(why))),
		try: "look at them, and do the command again"}
}

func (m *mirroring) printOp(w *lineWriter, op mirrordrive.Op) error {
	mark := map[mirrordrive.Kind]string{mirrordrive.Add: "+", mirrordrive.Change: "~", mirrordrive.Remove: "-", mirrordrive.Skip: "!"}[op.Kind]
	switch {
	case op.Kind == mirrordrive.Equal:
		return nil
	case m.json:
		out := mirrored{Op: op.Kind.String(), pathName: pathOf(op.Path), BytesAdded: op.BytesAdded, BytesRemoved: op.BytesRemoved, Metadata: op.Metadata}
		if op.Reason != nil {
			out.Reason = causeOf(op.Reason)
		}
		return w.object(out)
	case op.Kind == mirrordrive.Skip:
		m.say("left out %s: %s", quotePath(op.Path), escape([]byte(causeOf(op.Reason))))
		return nil
	case m.o.DryRun:
		return w.line(mark, escape([]byte(op.Path)))
	}
	return nil
}

func (m *mirroring) printTotal(t mirrordrive.Total, target string) error {
	if m.json {
		return written(m.printJSON(mirroredAll{t.Add, t.Change, t.Remove, t.Equal, t.Skip, t.BytesAdded, t.BytesRemoved, m.o.DryRun}))
	}
	m.say("%s: %s new, %s changed, %s removed, %s the same; %s written", target, plural(t.Add, "file"), count(t.Change), count(t.Remove), count(t.Equal), size(t.BytesAdded))
	if m.o.DryRun {
		m.say("nothing was changed: --dry-run")
	}
	return nil
}
