package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/spf13/cobra"
)

// A drive is one run of a "bevy hyper drive" command.
type drive struct {
	*hyper
	at numberFlag // --at

	// Of the drive, while it is open.
	log   *log
	whole *hyperdrive.Drive
	files *hyperdrive.Drive // at the version that is read
	deaf  func()            // ends hearing of contents; nil while there are none
}

func (h *hyper) driveCommand() *cobra.Command {
	d := &drive{hyper: h}
	cmd := &cobra.Command{
		Use:   "drive",
		Short: "Work with a file tree on logs",
		Long: `A drive is files with paths, as a folder has them, on two logs: one has the
tree, the other the contents. They are those of the npm package hyperdrive 13.
All versions can still be read: each change makes one.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(d.createCommand(), d.lsCommand(), d.getCommand(), d.putCommand(), d.rmCommand(), d.catCommand(), d.mirrorCommand(), d.diffCommand(),
		d.historyCommand(), d.restoreCommand(), d.checkoutCommand(), d.downloadCommand(), d.seedCommand(), d.infoCommand(), d.watchCommand(),
		d.clearCommand())
	h.completeLogs(cmd)
	return cmd
}

// readFlags adds what commands take that read.
func (d *drive) readFlags(cmd *cobra.Command) {
	d.keyFlag(cmd, "decrypt with this key")
	d.peerFlags(cmd)
}

func (d *drive) atFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&d.at, "at", "read this `version` instead of the newest")
}

// open calls f with the drive that word names open.
func (d *drive) open(ctx context.Context, mode storeMode, word string, f func(context.Context) error) error {
	key, err := d.readEncryptionKey()
	if err != nil {
		return err
	}
	return d.withLog(ctx, mode, word, hypercore.SessionOptions{EncryptionKey: key}, func(ctx context.Context, l *log) (err error) {
		if err := needKey(l, key); err != nil {
			return err
		}
		d.log = l
		at := l.Key()
		d.whole, err = hyperdrive.Open(l.store, hyperdrive.Options{Key: &at, EncryptionKey: key})
		if err != nil {
			return d.cannot(ctx, err, "cannot open drive %s", l.called())
		}
		d.files = d.whole
		defer func() {
			if e := d.whole.Close(); err == nil {
				err = fail(e, "cannot close drive %s", l.called())
			}
		}()
		defer func() {
			if d.deaf != nil {
				d.deaf()
			}
		}()
		if err := d.reach(ctx); err != nil {
			return err
		}
		if d.at.set {
			if err := d.hasVersion(d.at.n); err != nil {
				return err
			}
			if d.files, err = d.whole.Checkout(d.at.n); err != nil {
				return d.cannot(ctx, err, "cannot read version %d of drive %s", d.at.n, l.called())
			}
			defer d.files.Close()
		}
		return f(ctx)
	})
}

// reach has peers give the contents, too, once it is known where they are.
func (d *drive) reach(ctx context.Context) error {
	l := d.log
	if l.net == nil || d.deaf != nil || l.Length() == 0 {
		return nil
	}
	err := d.ask(func() error {
		header, err := d.whole.Tree().Header(ctx)
		if err != nil {
			return err
		}
		if m := header.Metadata; m != nil && len(m.ContentFeed) >= len(hypercore.Key{}) {
			l.net.share(hypercore.Key(m.ContentFeed[:32]))
		} else if m := l.Manifest(); m != nil && m.Version > 0 {
			l.net.share(hyperdrive.ContentKey(l.Key(), m))
		}
		blobs, err := d.whole.Blobs(ctx)
		if err == nil {
			d.deaf, err = l.wait.hear(blobs.Log())
		}
		return err
	})
	return d.cannot(ctx, err, "cannot open drive %s", l.called())
}

// change is open, for who wants to write.
func (d *drive) change(ctx context.Context, word string, f func(context.Context) error) error {
	key, err := d.readEncryptionKey()
	if err != nil {
		return err
	}
	return d.open(ctx, writing, word, func(ctx context.Context) error {
		if err := d.mayAppend(ctx, d.log, key); err != nil {
			return err
		}
		// Else nothing would be found out of a log that is something else.
		if _, err := d.whole.Tree().Header(ctx); err != nil && !errors.Is(err, hyperbee.ErrNotFound) {
			return d.cannot(ctx, err, "cannot change drive %s", d.log.called())
		}
		return f(ctx)
	})
}

// ask calls f, which may wait for peers.
func (d *drive) ask(f func() error) error {
	d.log.wait.start()
	defer d.log.wait.rest()
	return f()
}

// hasVersion refuses versions that a drive does not have.
func (d *drive) hasVersion(version uint64) error {
	if newest := max(1, d.log.Length()); version == 0 || version > newest {
		return &failure{code: codeNotFound, what: fmt.Sprintf("there is no version %d of drive %s", version, d.log.called()),
			cause: fmt.Sprintf("its versions are 1 to %d", newest), try: "bevy hyper drive history " + shellWord(d.log.word())}
	}
	return nil
}

// noDrive says that a log is something else.
func (d *drive) noDrive(err error) error {
	return &failure{code: codeUsage, err: err, what: fmt.Sprintf("log %s is not a drive", d.log.called()), cause: causeOf(err),
		try: "bevy hyper core info " + shellWord(d.log.word()) + "; or --encryption-key <hex>, if it is encrypted"}
}

// cannot says what could not be done with the drive because of err.
func (d *drive) cannot(ctx context.Context, err error, format string, args ...any) error {
	f, ok := fail(err, format, args...).(*failure)
	if !ok || f.err != err {
		return fail(err, format, args...) // nil, or somebody's own words
	}
	switch {
	case errors.Is(err, hyperdrive.ErrPath):
		f.code, f.try = codeUsage, "a path such as /photos/sea.jpg"
	case errors.Is(err, hyperdrive.ErrNotFound):
		f.code, f.try = codeNotFound, d.command("ls", "--recursive")
	case errors.Is(err, hypercore.ErrNotFound):
		f.code, f.cause, f.try = codeNotFound, "some of its blocks are not here", "--peer tcp://<host>:<port>, of someone who has them"
	case errors.Is(err, hyperdrive.ErrInvalid), errors.Is(err, hyperblobs.ErrInvalid), errors.Is(err, hyperbee.ErrInvalid):
		f.code, f.try = codeCorrupt, "--at with an earlier version"
		if d.whole == nil {
			return d.noDrive(err)
		}
		var header error
		_ = d.ask(func() error { _, header = d.whole.Tree().Header(ctx); return nil })
		switch {
		case errors.Is(header, hyperbee.ErrInvalid):
			return d.noDrive(header)
		case d.at.set && errors.Is(err, hyperbee.ErrInvalid):
			f.code, f.try = codeNotFound, "another version: there is none between the changes of one batch"
		}
	}
	return f
}

// clean is a path that was given, as drives have it.
func clean(word string) (string, error) {
	p, err := hyperdrive.CleanPath(word)
	if err != nil {
		return "", wrong("a path such as /photos/sea.jpg", causeOf(err), "wrong path %q", word)
	}
	return p, nil
}

// cleanFolder is clean of what may be the drive itself, which is "/".
func cleanFolder(word string) (string, error) {
	if strings.Trim(word, "/.") == "" && !strings.Contains(word, "..") {
		return "/", nil
	}
	return clean(word)
}

// under is what there is at a path: a file, and all files in a folder.
func under(ctx context.Context, files *hyperdrive.Drive, path string) iter.Seq2[hyperdrive.Entry, error] {
	return func(yield func(hyperdrive.Entry, error) bool) {
		if path != "/" {
			e, err := files.Entry(ctx, path)
			if !errors.Is(err, hyperdrive.ErrNotFound) && (!yield(e, err) || err != nil) {
				return
			}
		}
		files.List(ctx, path, hyperdrive.ListOptions{})(yield)
	}
}

// noFile says that there is nothing at a path.
func (d *drive) noFile(path string) error {
	at := ""
	if d.at.set {
		at = fmt.Sprintf(" at version %d", d.at.n)
	}
	return &failure{code: codeNotFound, what: fmt.Sprintf("there is no %s in drive %s%s", quotePath(path), d.log.called(), at),
		cause: "it was never put, or was removed", try: d.command("ls", "--recursive")}
}

// find is the entry of a file, of what links lead to if it is one.
func (d *drive) find(ctx context.Context, path string) (e hyperdrive.Entry, err error) {
	err = d.ask(func() error {
		e, err = d.files.Follow(ctx, path)
		return err
	})
	switch {
	case errors.Is(err, hyperdrive.ErrNotFound) && d.isFolder(ctx, path):
		return e, wrong(d.command("ls", shellWord(path)), "it is a folder", "cannot read %s of drive %s", quotePath(path), d.log.called())
	case errors.Is(err, hyperdrive.ErrNotFound):
		f := d.noFile(path).(*failure)
		_ = d.ask(func() error {
			if link, err := d.files.Entry(ctx, path); err == nil && link.IsLink() {
				f.what = fmt.Sprintf("cannot read %s of drive %s", quotePath(path), d.log.called())
				f.cause = fmt.Sprintf("it leads to %s, which is not there", quotePath(link.Linkname))
			}
			return nil
		})
		return e, f
	case err != nil:
		return e, d.cannot(ctx, err, "cannot read %s of drive %s", quotePath(path), d.log.called())
	}
	return e, nil
}

// isFolder reports whether there are files in a folder.
func (d *drive) isFolder(ctx context.Context, path string) (found bool) {
	_ = d.ask(func() error {
		for _, err := range d.files.List(ctx, path, hyperdrive.ListOptions{}) {
			found = err == nil
			return err
		}
		return nil
	})
	return found
}

// quotePath is a path as it is spoken of.
func quotePath(path string) string { return `"` + escape([]byte(path)) + `"` }

// command is a command about the drive, to be typed.
func (d *drive) command(verb string, words ...string) string {
	return strings.Join(append([]string{"bevy hyper drive", verb, shellWord(d.log.word())}, words...), " ")
}

// undo is the command that brings back what a path was at a version.
func (d *drive) undo(version uint64, path string) {
	words := []string{fmt.Sprint(version)}
	if path != "/" {
		words = append(words, shellWord(path))
	}
	d.say("undo:  %s", d.command("restore", words...))
}

// A pathName is a path in JSON.
type pathName struct {
	Path       *string `json:"path,omitempty"` // if it is text
	PathBase64 []byte  `json:"pathBase64,omitempty"`
}

func pathOf(path string) (n pathName) {
	n.Path, n.PathBase64 = jsonBytes([]byte(path))
	return n
}

// A fileOf is what is known of a file or link in JSON.
type fileOf struct {
	Kind       string    `json:"kind"` // "file", "link" or "folder"
	Seq        uint64    `json:"seq"`  // the block that has it
	Size       uint64    `json:"size"` // of its contents
	Mode       string    `json:"mode"` // in octal
	Executable bool      `json:"executable"`
	Modified   time.Time `json:"modified,omitzero"` // as far as its writer says
	Target     string    `json:"target,omitempty"`  // of a link
	Metadata   any       `json:"metadata,omitempty"`
}

// describe is what is known of an entry.
func (d *drive) describe(ctx context.Context, e *hyperdrive.Entry) (fileOf, error) {
	out := fileOf{Kind: "file", Seq: e.Seq, Mode: fmt.Sprintf("%04o", e.Mode().Perm()), Executable: e.Executable,
		Modified: e.ModTime().UTC(), Target: e.Linkname}
	if e.IsLink() {
		out.Kind = "link"
	}
	if len(e.Metadata) > 0 {
		out.Metadata = e.Metadata
	}
	if y := out.Modified.Year(); y < 0 || y > 9999 {
		out.Modified = time.Time{} // JSON has no such years
	}
	err := d.ask(func() (err error) {
		out.Size, err = d.whole.Size(ctx, *e)
		return err
	})
	return out, d.cannot(ctx, err, "cannot read %s of drive %s", quotePath(e.Path), d.log.called())
}

// line is a file on a line of a list, in columns.
func (f *fileOf) line(e *hyperdrive.Entry, name string) string {
	when := "-"
	if t := f.Modified; !t.IsZero() {
		when = t.Local().Format("2006-01-02 15:04")
	}
	text := fmt.Sprintf("%s  %8s  %-16s  %s", modeOf(e), size(f.Size), when, escape([]byte(name)))
	if e.IsLink() {
		text += " -> " + escape([]byte(e.Linkname))
	}
	return text
}

func modeOf(e *hyperdrive.Entry) string {
	mode := e.Mode().String() // "Lrwxrwxrwx" for a link
	return strings.Replace(mode, "L", "l", 1)
}

// base is the last name of a path.
func base(p string) string { return path.Base(p) }
