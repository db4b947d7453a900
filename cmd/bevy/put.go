package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) putCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put <file>... <path> [flags]",
		Short: "Put files and folders of this disk into the cloud",
		Long: `Puts files, and folders with all that is in them, into a folder of the cloud,
with their permissions and times. If <path> is a folder, ends with /, or there
are several, they go into it under their own names. The file - is stdin.

What was there stays as an older version. Nothing that is in a folder of the
cloud and not in the one that is put is removed.`,
		Example: `bevy put sea.jpg Photos/2026/
bevy put ~/Music ~/Films Media/
date | bevy put - Notes/date.txt`,
		Args: wants(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.put(cmd.Context(), args) })
		},
	}
	return cmd
}

// into says where each of several things goes that are put, copied or moved to
// what a word means: into it, if it is a folder or there are several, else in its
// place.
func (f *files) into(ctx context.Context, word, verb string, several bool) (func(base string) place, error) {
	to, err := f.findNow(word, verb)
	if err != nil {
		return nil, err
	}
	e, there, err := f.exists(ctx, to)
	if err != nil {
		return nil, err
	}
	folder := there && e.Kind == "folder"
	if there && !folder && (several || to.dir) {
		return nil, &failure{code: codeConflict, what: fmt.Sprintf("cannot %s into %s", verb, to.called()), cause: "it is no folder", try: "another path"}
	}
	return func(base string) place {
		if folder || several || to.dir {
			return to.within(base)
		}
		return to
	}, nil
}

// A putting puts files of the disk.
type putting struct {
	*files
	bar *progress
	to  place // of what is being put
	out changedPlace
}

func (f *files) put(ctx context.Context, args []string) error {
	sources, last := args[:len(args)-1], args[len(args)-1]
	into, err := f.into(ctx, last, "put", len(sources) > 1)
	if err != nil {
		return err
	}
	n, bytes := uint64(0), uint64(0)
	for _, source := range sources {
		if source == "-" {
			if len(sources) > 1 {
				return wrong("bevy put - <path>", "what comes from stdin goes to one place", "put - wants nothing beside it")
			}
			continue
		}
		if _, err := os.Stat(source); err != nil {
			return &failure{code: codeOf(err), what: "cannot read " + source, cause: causeOf(err), err: err, try: "the path of a file or folder, or - for stdin"}
		}
		// What can't be read is told of when it is put.
		_ = walk(ctx, source, func(_ string, d fs.FileInfo) error {
			if d.Mode().IsRegular() {
				n, bytes = n+1, bytes+uint64(d.Size())
			}
			return nil
		})
	}
	p := &putting{files: f}
	if n == 1 {
		n = 0 // its bytes say more
	}
	p.bar = f.progress(last, "file", n, bytes)
	defer p.bar.end()
	for _, source := range sources {
		base := "stdin"
		if source != "-" {
			abs, err := filepath.Abs(source)
			if err != nil {
				return fail(err, "cannot find %s", source)
			}
			base = filepath.Base(abs)
		}
		p.to = into(base)
		p.out = changeOf(p.to)
		if err := p.source(ctx, source); err != nil {
			return err
		}
		p.bar.end()
		if err := p.done(); err != nil {
			return err
		}
	}
	return nil
}

// done says what was put, and how to undo it.
func (p *putting) done() error {
	if p.json {
		return written(p.printJSON(p.out))
	}
	p.say("put %s (%s) into %s", plural(uint64(p.out.Files), "file"), size(uint64(p.out.Bytes)), p.to.called())
	if !p.out.Before.IsZero() {
		old := p.to
		old.at = p.out.Before.Format(time.RFC3339Nano)
		p.say("undo:  bevy restore %s", old.word())
	}
	return nil
}

// walk calls f with a file, or a folder and all in it.
func walk(ctx context.Context, source string, f func(name string, s fs.FileInfo) error) error {
	s, err := os.Stat(source) // what is named may be a link
	if err != nil {
		return err
	}
	if !s.IsDir() {
		return f(source, s)
	}
	return filepath.Walk(source+string(filepath.Separator), func(name string, s fs.FileInfo, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		return f(name, s)
	})
}

// source puts one of the words.
func (p *putting) source(ctx context.Context, source string) error {
	if source == "-" {
		if isTerminal(p.stdin) {
			p.say("reading from the terminal; Ctrl-D ends it")
		}
		return p.file(ctx, p.to, p.stdin, "", p.clock.Now())
	}
	err := walk(ctx, source, func(name string, s fs.FileInfo) error {
		in, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		to := p.to.within(filepath.ToSlash(in))
		switch {
		case s.IsDir():
			return p.folder(ctx, to, s)
		case s.Mode().IsRegular():
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			return p.file(ctx, to, f, fmt.Sprintf("%04o", s.Mode().Perm()), s.ModTime())
		case s.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			if e, ok, err := p.exists(ctx, to); err != nil || ok && e.Link == target {
				return err
			}
			return p.did(ctx, to, p.node.Do(ctx, "POST", to.route("links"), map[string]string{"path": to.path, "target": target}, nil))
		}
		p.say("left out %s: it is no file, folder or link", name)
		return nil
	})
	return fail(err, "cannot put %s", source)
}

// folder makes a folder, if it is not there.
func (p *putting) folder(ctx context.Context, to place, s fs.FileInfo) error {
	if to.path == "/" {
		return nil
	}
	e, there, err := p.exists(ctx, to)
	if err != nil || there && e.Kind == "folder" && !e.Time.IsZero() {
		return err
	}
	in := map[string]string{"path": to.path, "mode": fmt.Sprintf("%04o", s.Mode().Perm()), "modTime": s.ModTime().UTC().Format(time.RFC3339Nano)}
	return p.did(ctx, to, p.node.Do(ctx, "POST", to.route("dirs"), in, nil))
}

func (p *putting) file(ctx context.Context, to place, from io.Reader, mode string, changed time.Time) error {
	body := &countingReader{ctx, from, p.bar}
	sized := &sizedReader{r: body}
	answer, err := p.node.Stream(ctx, "PUT", to.of("content", "mode", mode, "modTime", changed.UTC().Format(time.RFC3339Nano)), sized, http.Header{"Content-Type": {"application/octet-stream"}})
	if err == nil {
		err = answer.Body.Close()
	}
	if sized.err != nil && !errors.Is(sized.err, io.EOF) {
		err = sized.err // what was read failed, and not what was asked
	}
	if err := p.did(ctx, to, err); err != nil {
		return err
	}
	p.out.Files, p.out.Bytes = p.out.Files+1, p.out.Bytes+sized.n
	p.bar.add(1, 0)
	return nil
}

// did notes the moment before the first change.
func (p *putting) did(ctx context.Context, to place, err error) error {
	if err != nil {
		return asked(err, "cannot put %s", to.called())
	}
	if p.out.Before.IsZero() {
		if old, ok := p.before(ctx, to); ok {
			p.out.Before, _ = time.Parse(time.RFC3339Nano, old.at)
		}
	}
	return nil
}

// A sizedReader counts what is read, and keeps why it ended.
type sizedReader struct {
	r   io.Reader
	n   int64
	err error
}

func (r *sizedReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.n += int64(n)
	if err != nil {
		r.err = err
	}
	return n, err
}
