package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) getCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "get <path> [<file>] [flags]",
		Short: "Bring a file or a folder to this disk",
		Long: `Of a folder that lists here what it does not have (bevy add --sparse), it brings
what is at <path> to its place on the disk. "bevy free" undoes that.

Else it copies to <file>: a file, or all in a folder, with permissions and
times; without <file> under its own name to where we are. What is there and the
same is left as it is, so that a copy that was interrupted goes on. The file -
is stdout.`,
		Example: `bevy get ~/Photos/2026
bevy get Photos/2026/sea.jpg .
bevy get Photos/2026@yesterday ./copy`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.get(cmd.Context(), args, force) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace files that are there and not the same")
	return cmd
}

// A fetched is what --json prints of what was copied to the disk.
type fetched struct {
	Folder string `json:"folder"`
	Path   string `json:"path"`
	At     string `json:"at,omitempty"` // the moment
	To     string `json:"to"`           // on the disk
	Files  int    `json:"files"`        // that were written
	Bytes  int64  `json:"bytes"`        // of them
	Same   int    `json:"same"`         // files that were there
}

func (f *files) get(ctx context.Context, args []string, force bool) error {
	p, err := f.find(args[0])
	if err != nil {
		return err
	}
	if len(args) == 2 && args[1] == "-" {
		return f.cat(ctx, p, whole)
	}
	if len(args) == 1 && p.at == "" && p.folder.Path != "" {
		return f.bring(ctx, p)
	}
	if err := f.pin(ctx, &p); err != nil {
		return err
	}
	p, e, err := f.follow(ctx, p)
	if err != nil {
		return err
	}
	to := p.base()
	if len(args) == 2 {
		to = args[1]
	}
	c := &copying{files: f, force: force, out: fetched{Folder: p.folder.Name, Path: p.path, At: p.at}}
	if e.Kind != "folder" {
		if s, err := os.Stat(to); err == nil && s.IsDir() {
			to = filepath.Join(to, p.base())
		}
	}
	return c.run(ctx, p, e, to)
}

// A copying copies from the cloud to the disk.
type copying struct {
	*files
	root  *os.Root
	force bool
	bar   *progress
	out   fetched
}

// run copies an entry to a place on the disk.
func (c *copying) run(ctx context.Context, p place, e client.Entry, to string) (err error) {
	st, err := c.stats(ctx, p)
	if err == nil {
		err = c.here(ctx, p, st.Missing)
	}
	if err != nil {
		return err
	}
	c.out.To = to
	dir, name := to, ""
	if e.Kind != "folder" {
		dir, name = filepath.Split(to)
		dir = filepath.Clean(dir)
	} else if err := os.MkdirAll(to, 0o755); err != nil {
		return fail(err, "cannot make %s", to)
	}
	if c.root, err = os.OpenRoot(dir); err != nil {
		return fail(err, "cannot write to %s", dir)
	}
	defer c.root.Close()
	c.bar = c.progress(p.called(), "file", uint64(st.Files), uint64(st.Bytes))
	if st.Files == 1 {
		c.bar.things = 0 // its bytes say more
	}
	if e.Kind == "folder" {
		err = c.tree(ctx, p)
	} else {
		err = c.entry(ctx, p, e, name)
	}
	c.bar.end()
	if err != nil {
		return fail(err, "cannot copy %s to %s", p.called(), to)
	}
	if c.json {
		return written(c.printJSON(c.out))
	}
	same := ""
	if c.out.Same > 0 {
		same = fmt.Sprintf("; %s there already", count(uint64(c.out.Same)))
	}
	c.say("copied %s (%s) of %s to %s%s", plural(uint64(c.out.Files), "file"), size(uint64(c.out.Bytes)), p.called(), to, same)
	return nil
}

// tree copies all that is in a folder.
func (c *copying) tree(ctx context.Context, p place) error {
	var dirs []client.Entry
	from := strings.TrimSuffix(p.path, "/")
	for e, err := range c.list(ctx, p, true) {
		if err != nil {
			return err
		}
		if e.Kind == "folder" {
			dirs = append(dirs, e)
		}
		if err := c.entry(ctx, p.entry(e), e, e.Path[len(from)+1:]); err != nil {
			return err
		}
	}
	for _, e := range slices.Backward(dirs) { // writing into them has changed their times
		name := filepath.FromSlash(e.Path[len(from)+1:])
		if err := c.describe(e, name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one entry to a name in the root.
func (c *copying) entry(ctx context.Context, p place, e client.Entry, name string) error {
	name = filepath.FromSlash(name)
	if e.Kind == "folder" {
		return c.root.MkdirAll(name, 0o755)
	}
	if err := c.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch e.Kind {
	case "file":
		return c.file(ctx, p, e, name)
	case "link":
		if to, err := c.root.Readlink(name); err == nil && to == e.Link {
			return nil
		}
		if err := c.mayReplace(name); err != nil {
			return err
		}
		return c.root.Symlink(e.Link, name)
	}
	c.say("left out %s: %s", p.called(), e.Error)
	return nil
}

// mayReplace makes room for an entry, if it may.
func (c *copying) mayReplace(name string) error {
	if _, err := c.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !c.force {
		return &failure{code: codeConflict, what: fmt.Sprintf("%s is there already", filepath.Join(c.root.Name(), name)), cause: "it is something else", try: "another place, or --force to replace it"}
	}
	return c.root.Remove(name)
}

// file copies a file. What was copied of it before, and was interrupted, is not
// copied again.
func (c *copying) file(ctx context.Context, p place, e client.Entry, name string) error {
	if s, err := c.root.Lstat(name); err == nil {
		if s.Mode().IsRegular() && s.Size() == e.Size && c.hash(name) == e.Hash {
			c.out.Same++
			c.bar.add(1, uint64(e.Size))
			return nil
		}
		if !c.force {
			return c.mayReplace(name)
		}
	}
	part := filepath.Join(filepath.Dir(name), ".bevy-"+e.Hash[:min(len(e.Hash), 16)]+".part")
	to, err := c.root.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	sum := sha256.New()
	had, err := io.Copy(sum, to)
	if err != nil {
		return err
	}
	if had > e.Size {
		had = 0
		sum.Reset()
		if err := errors.Join(to.Truncate(0), seekStart(to)); err != nil {
			return err
		}
	}
	c.bar.add(0, uint64(had))
	if had < e.Size || e.Size == 0 {
		from, err := c.read(ctx, p, span{off: had, n: -1})
		if err != nil {
			return err
		}
		defer from.Close()
		if _, err := io.CopyBuffer(io.MultiWriter(to, sum), &countingReader{ctx, from, c.bar}, make([]byte, 256<<10)); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != e.Hash {
		return errors.Join(&failure{code: codeCorrupt, what: "cannot copy " + p.called(), cause: fmt.Sprintf("what came has the hash %.16s, want %.16s", got, e.Hash), try: "bevy verify " + shellWord(p.folder.Name)},
			c.root.Remove(part))
	}
	if err := to.Close(); err != nil {
		return err
	}
	if err := c.describe(e, part, 0o644); err != nil {
		return err
	}
	if err := c.root.Rename(part, name); err != nil {
		return err
	}
	c.out.Files, c.out.Bytes = c.out.Files+1, c.out.Bytes+e.Size
	c.bar.add(1, 0)
	return nil
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// describe gives what was copied its permissions and its time.
func (c *copying) describe(e client.Entry, name string, usual fs.FileMode) error {
	mode, err := parseMode(e.Mode)
	if err != nil {
		mode = usual
	}
	if err := c.root.Chmod(name, mode); err != nil {
		return err
	}
	if e.ModTime.IsZero() {
		return nil
	}
	return c.root.Chtimes(name, e.ModTime, e.ModTime)
}

// hash is that of a file on the disk, or "".
func (c *copying) hash(name string) string {
	f, err := c.root.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// bring has the files at a place be on the disk, of a folder that is kept here.
func (f *files) bring(ctx context.Context, p place) error {
	e, err := f.stat(ctx, p)
	if err != nil {
		return err
	}
	st, err := f.stats(ctx, p)
	if err == nil {
		err = f.here(ctx, p, st.Missing)
	}
	if err != nil {
		return err
	}
	var wanted []client.Entry
	if e.Kind != "folder" {
		wanted = append(wanted, e)
	} else {
		for e, err := range f.list(ctx, p, true) {
			if err != nil {
				return err
			}
			if e.Kind == "file" {
				wanted = append(wanted, e)
			}
		}
	}
	disk := filepath.Join(p.folder.Path, filepath.FromSlash(p.path))
	out := fetched{Folder: p.folder.Name, Path: p.path, To: disk}
	away := slices.DeleteFunc(slices.Clone(wanted), func(e client.Entry) bool { return f.onDisk(p, e) })
	out.Same = len(wanted) - len(away)
	for _, e := range away {
		out.Files, out.Bytes = out.Files+1, out.Bytes+e.Size
	}
	if len(away) > 0 {
		bar := f.progress(p.called(), "file", uint64(len(away)), uint64(out.Bytes))
		err := f.bringAll(ctx, p, away, bar)
		bar.end()
		if err != nil {
			return err
		}
	}
	if f.json {
		return written(f.printJSON(out))
	}
	if len(away) == 0 {
		f.say("it is on this disk: %s", disk)
		return nil
	}
	f.say("brought %s (%s) to %s", plural(uint64(out.Files), "file"), size(uint64(out.Bytes)), disk)
	if p.folder.Sparse {
		f.say("undo:  bevy free %s", p.word())
	}
	return nil
}

// onDisk reports whether a file of a folder is on the disk.
func (f *files) onDisk(p place, e client.Entry) bool {
	s, err := os.Lstat(filepath.Join(p.folder.Path, filepath.FromSlash(e.Path)))
	return err == nil && s.Mode().IsRegular() && s.Size() == e.Size
}

// bringAll asks for files, and waits until they are on the disk.
func (f *files) bringAll(ctx context.Context, p place, away []client.Entry, bar *progress) error {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	answer := make(chan error, 1)
	go func() { answer <- f.node.Do(asking, "POST", p.of("contents"), nil, nil) }()
	for len(away) > 0 {
		select {
		case err := <-answer:
			if err != nil {
				return f.cannot(err, p, "cannot bring %s here", p.called())
			}
			answer = nil
		default:
		}
		began := f.clock.Now()
		away = slices.DeleteFunc(away, func(e client.Entry) bool {
			there := f.onDisk(p, e)
			if there {
				bar.add(1, uint64(e.Size))
			}
			return there
		})
		var now client.Folder
		if err := f.node.Do(ctx, "GET", "/folders/"+p.folder.ID, nil, &now); err != nil {
			return asked(err, "cannot ask how %s is", p.folder.Name)
		}
		if now.State == "paused" {
			return &failure{code: codeFailed, what: "cannot bring " + p.called() + " here", cause: now.Why, try: "bevy notices"}
		}
		if len(away) > 0 && !sleep(ctx, f.clock, max(100*time.Millisecond, 10*f.clock.Now().Sub(began))) {
			return fail(ctx.Err(), "cannot bring %s here", p.called())
		}
	}
	return nil
}
