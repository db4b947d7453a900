package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) cpCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "cp <path>... <path> [flags]",
		Short: "Copy in the cloud, also from another moment",
		Long: `Copies files, and folders with all that is in them, to the last <path>; into it
under their own names, if it is a folder, ends with /, or there are several. In
one folder of the cloud that takes no room: contents are there once.

"bevy put" and "bevy get" copy from and to this disk.`,
		Example: `bevy cp Photos/2026/sea.jpg Photos/best/
bevy cp Notes/plan.txt@yesterday Notes/plan-before.txt
bevy cp Photos/2026 Shared/`,
		Args: wants(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.cp(cmd.Context(), args, force) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace files that are there")
	return cmd
}

func (f *files) cp(ctx context.Context, args []string, force bool) error {
	sources, last := args[:len(args)-1], args[len(args)-1]
	into, err := f.into(ctx, last, "cp", len(sources) > 1)
	if err != nil {
		return err
	}
	for _, word := range sources {
		from, err := f.find(word)
		if err == nil {
			err = f.pin(ctx, &from)
		}
		if err != nil {
			return err
		}
		st, err := f.stats(ctx, from)
		if err != nil {
			return err
		}
		to := into(from.base())
		if from.folder.ID == to.folder.ID {
			in := client.CopyRequest{From: from.path, At: from.at, To: to.path, Replace: force}
			err = f.node.Do(ctx, "POST", to.route("copies"), bodyOf(in), nil)
		} else {
			err = f.copyOver(ctx, from, to, st, force)
		}
		if err != nil {
			return f.taken(asked(err, "cannot copy %s to %s", from.called(), to.called()), to, "--force to replace it")
		}
		out := changeOf(to)
		out.Files, out.Bytes = st.Files, st.Bytes
		if err := f.changed(ctx, to, out, "copied %s (%s) of %s to %s", plural(uint64(st.Files), "file"), size(uint64(st.Bytes)), from.called(), to.called()); err != nil {
			return err
		}
	}
	return nil
}

// bodyOf is what of a request goes into the body: the folder is in the path.
func bodyOf(in client.CopyRequest) map[string]any {
	return map[string]any{"from": in.From, "at": in.At, "to": in.To, "replace": in.Replace}
}

// taken says what to do when there is something in the way.
func (f *files) taken(err error, to place, try string) error {
	if told, ok := err.(*failure); ok && told.code == codeConflict && told.cause != "" {
		told.try = "another path, or " + try
	}
	return err
}

// copyOver copies from one folder of the cloud to another, which do not share
// contents.
func (f *files) copyOver(ctx context.Context, from, to place, st client.Stats, force bool) error {
	if _, there, err := f.exists(ctx, to); err != nil || there && !force {
		if err == nil {
			err = &failure{code: codeConflict, what: "cannot copy to " + to.called(), cause: "there is something already"}
		}
		return err
	}
	if err := f.here(ctx, from, st.Missing); err != nil {
		return err
	}
	root, err := f.stat(ctx, from)
	if err != nil {
		return err
	}
	p := &putting{files: f, bar: f.progress(to.called(), "file", uint64(st.Files), uint64(st.Bytes)), to: to}
	defer p.bar.end()
	if err := p.copyEntry(ctx, from, root, to); err != nil || root.Kind != "folder" {
		return err
	}
	for e, err := range f.list(ctx, from, true) {
		if err == nil {
			err = p.copyEntry(ctx, from.entry(e), e, to.within(strings.TrimPrefix(e.Path, strings.TrimSuffix(from.path, "/"))))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *putting) copyEntry(ctx context.Context, from place, e client.Entry, to place) error {
	switch e.Kind {
	case "folder":
		if to.path == "/" {
			return nil
		}
		in := map[string]string{"path": to.path, "mode": e.Mode}
		if !e.ModTime.IsZero() {
			in["modTime"] = e.ModTime.Format(time.RFC3339Nano)
		}
		return p.node.Do(ctx, "POST", to.route("dirs"), in, nil)
	case "link":
		return p.node.Do(ctx, "POST", to.route("links"), map[string]string{"path": to.path, "target": e.Link}, nil)
	case "file":
		content, err := p.node.Stream(ctx, "GET", from.of("content"), nil, http.Header{})
		if err != nil {
			return err
		}
		defer content.Body.Close()
		return p.file(ctx, to, content.Body, e.Mode, e.ModTime)
	}
	p.say("left out %s: %s", from.called(), e.Error)
	return nil
}
