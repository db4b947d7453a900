package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

// fileCommands work with the files of the cloud and their past.
func (a *app) fileCommands() []*cobra.Command {
	commands := []*cobra.Command{
		a.lsCommand(), a.catCommand(), a.getCommand(), a.putCommand(), a.cpCommand(), a.mvCommand(), a.rmCommand(), a.mkdirCommand(), a.freeCommand(),
		a.logCommand(), a.diffCommand(), a.checkoutCommand(), a.restoreCommand(), a.tagCommand(), a.scrubCommand(), a.verifyCommand(), a.clearCommand(),
	}
	a.completePlaces(commands)
	return commands
}

// An entry is what is at a path, in JSON.
type entry = client.Entry

// A listedEntry is what --json prints of each entry.
type listedEntry struct {
	Folder string `json:"folder"`
	entry
}

// A changedPlace is what --json prints of what was changed.
type changedPlace struct {
	Folder string    `json:"folder"`
	Path   string    `json:"path"`
	Files  int       `json:"files"`
	Bytes  int64     `json:"bytes"`
	Before time.Time `json:"before,omitzero"` // what there was at this moment undoes it
	DryRun bool      `json:"dryRun"`
}

func changeOf(p place) changedPlace { return changedPlace{Folder: p.folder.Name, Path: p.path} }

// changed says what was done to a place, and how to undo it.
func (f *files) changed(ctx context.Context, p place, out changedPlace, format string, args ...any) error {
	old, known := f.before(ctx, p)
	if known {
		out.Before, _ = time.Parse(time.RFC3339Nano, old.at)
	}
	if f.json {
		return written(f.printJSON(out))
	}
	f.say(format, args...)
	if known {
		f.say("undo:  bevy restore %s", old.word())
	}
	return nil
}

// lines calls do to print something, line by line.
func (f *files) lines(do func(*lineWriter) error) error { return f.app.lines(&log{}, do) }

// list returns what is in a folder.
func (f *files) list(ctx context.Context, p place, recursive bool) iter.Seq2[client.Entry, error] {
	return func(yield func(client.Entry, error) bool) {
		after := ""
		for {
			var part client.Entries
			if err := f.node.Do(ctx, "GET", p.of("entries", "after", after, "recursive", fmt.Sprint(recursive)), nil, &part); err != nil {
				yield(client.Entry{}, f.cannot(err, p, "cannot list %s", p.called()))
				return
			}
			for _, e := range part.Entries {
				if !yield(e, nil) {
					return
				}
				after = e.Path
			}
			if !part.More {
				return
			}
		}
	}
}

// stats counts what is at a place.
func (f *files) stats(ctx context.Context, p place) (st client.Stats, err error) {
	if err := f.node.Do(ctx, "GET", p.of("stats"), nil, &st); err != nil {
		return st, f.cannot(err, p, "cannot count what is in %s", p.called())
	}
	return st, nil
}

// at is the place of an entry that was listed in this one.
func (p place) entry(e client.Entry) place {
	p.path, p.dir = e.Path, false
	return p
}

// maxHops is how many links are followed in a row.
const maxHops = 40

// follow finds what a place leads to, if it is a link.
func (f *files) follow(ctx context.Context, p place) (place, client.Entry, error) {
	for range maxHops {
		e, err := f.stat(ctx, p)
		if err != nil || e.Kind != "link" {
			return p, e, err
		}
		to := path.Join(path.Dir(p.path), e.Link)
		if path.IsAbs(e.Link) || strings.HasPrefix(path.Join(strings.TrimPrefix(path.Dir(p.path), "/"), e.Link), "..") {
			return p, e, &failure{code: codeNotFound, what: "cannot read " + p.called(), cause: fmt.Sprintf("it leads to %s, which is not in the folder", quotePath(e.Link)), try: "bevy ls " + p.word()}
		}
		p.path = to
	}
	return p, client.Entry{}, &failure{code: codeFailed, what: "cannot read " + p.called(), cause: "its links lead around in circles", try: "bevy ls " + p.word()}
}

// file is follow for what has to be a file.
func (f *files) file(ctx context.Context, p place) (place, client.Entry, error) {
	p, e, err := f.follow(ctx, p)
	switch {
	case err != nil:
	case e.Kind == "folder":
		err = wrong("bevy ls "+p.word(), "it is a folder", "cannot read %s", p.called())
	case e.Kind != "file":
		err = &failure{code: codeCorrupt, what: "cannot read " + p.called(), cause: e.Error, try: "bevy log " + p.word()}
	}
	return p, e, err
}

// here makes sure that what is missing on this machine can come from another, or
// from a backup.
func (f *files) here(ctx context.Context, p place, missing int64) error {
	if missing == 0 {
		return nil
	}
	var machines client.Machines
	if err := f.node.Do(ctx, "GET", "/machines", nil, &machines); err != nil {
		return asked(err, "cannot ask for the machines")
	}
	for _, m := range machines.Machines {
		if m.State == "active" || m.State == "idle" {
			f.say("%s of %s come from other machines", size(uint64(missing)), p.called())
			return nil
		}
	}
	var backups client.Backups
	if err := f.node.Do(ctx, "GET", "/backups", nil, &backups); err != nil {
		return asked(err, "cannot ask for the backups")
	}
	if len(backups.Backups) > 0 {
		f.say("%s of %s come from %s", size(uint64(missing)), p.called(), backups.Backups[0].Address)
		return nil
	}
	return &failure{code: codeOffline, what: fmt.Sprintf("%s of %s are not on this machine", size(uint64(missing)), p.called()),
		cause: "no other machine is connected", try: "bevy status, and the same when one is"}
}

// read returns a part of a file's content.
func (f *files) read(ctx context.Context, p place, part span) (io.ReadCloser, error) {
	header := http.Header{}
	if part.off > 0 || part.n >= 0 {
		r := fmt.Sprintf("bytes=%d-", part.off)
		if part.n >= 0 {
			r += fmt.Sprint(part.off + part.n - 1)
		}
		header.Set("Range", r)
	}
	answer, err := f.node.Stream(ctx, "GET", p.of("content"), nil, header)
	if err != nil {
		return nil, f.cannot(err, p, "cannot read %s", p.called())
	}
	return answer.Body, nil
}

// whole is all of a file.
var whole = span{n: -1}

// line is an entry on a line of a list, in columns.
func entryLine(e client.Entry, name string) string {
	kind, bytes, when, mode := "-", size(uint64(e.Size)), "-", "rw-r--r--"
	switch e.Kind {
	case "folder":
		kind, bytes, mode, name = "d", "-", "rwxr-xr-x", strings.TrimSuffix(name, "/")+"/"
	case "link":
		kind, bytes, mode = "l", "-", "rwxrwxrwx"
	}
	if bits, err := parseMode(e.Mode); err == nil {
		mode = bits.String()[1:]
	}
	if !e.ModTime.IsZero() {
		when = e.ModTime.Local().Format("2006-01-02 15:04")
	}
	text := fmt.Sprintf("%s%s  %8s  %-16s  %s", kind, mode, bytes, when, escape([]byte(name)))
	switch {
	case e.Error != "":
		text += "  (damaged: " + escape([]byte(e.Error)) + ")"
	case e.Kind == "link":
		text += " -> " + escape([]byte(e.Link))
	}
	if e.Conflicts > 0 {
		text += fmt.Sprintf("  (and %s written at the same time)", plural(uint64(e.Conflicts), "other"))
	}
	return text
}
