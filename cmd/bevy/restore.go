package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) restoreCommand() *cobra.Command {
	var sure consent
	cmd := &cobra.Command{
		Use:   "restore <path> [<path>] [flags]",
		Short: "Make files what they were at a moment",
		Long: `Makes what is at a path, and in it, what it was at the moment that is named with
it: what was changed since is changed back, what was removed is there again, and
what was added is removed; on all machines. It is one new change, and all that
there was stays as older versions. It shows what will change, and asks.

With a second <path> it is put there, beside what is: nothing may be there yet.`,
		Example: `bevy restore Photos@2h --dry-run
bevy restore ~/Notes/plan.txt@yesterday
bevy restore Notes/plan.txt@yesterday Notes/plan-before.txt`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error {
				p, err := f.find(args[0])
				if err != nil {
					return err
				}
				if p.at == "" {
					return wrong("bevy restore "+shellWord(args[0]+"@yesterday"), "it was not said which moment to go back to", "%q wants a moment", "bevy restore")
				}
				if err := f.pin(cmd.Context(), &p); err != nil {
					return err
				}
				if len(args) == 2 {
					return f.restoreBeside(cmd.Context(), p, args[1], sure)
				}
				return f.restore(cmd.Context(), p, sure)
			})
		},
	}
	sure.flags(cmd)
	sure.why = "it changes files"
	return cmd
}

// maxShown is how many changes are shown before it is asked.
const maxShown = 20

func (f *files) restore(ctx context.Context, p place, sure consent) error {
	out := changeOf(p)
	out.DryRun = sure.dryRun
	plan := []string{}
	for c, err := range f.changes(ctx, p, "", p.at) {
		if err != nil {
			return err
		}
		if out.Files++; out.Files <= maxShown || sure.dryRun {
			plan = append(plan, strings.TrimRight(strings.Join(p.changeLine(c), "  "), " "))
		}
		if c.New != nil {
			out.Bytes += c.New.Size
		}
	}
	if out.Files == 0 {
		if f.json {
			return written(f.printJSON(out))
		}
		f.say("nothing is different: nothing was changed")
		return nil
	}
	if out.Files > len(plan) {
		plan = append(plan, fmt.Sprintf("and %s more", count(uint64(out.Files-len(plan)))))
	}
	plan = append(plan, fmt.Sprintf("%s will be what it was%s: %s", p.now().called(), p.when(), plural(uint64(out.Files), "change")))
	lost, err := f.lost(ctx, p)
	if err != nil {
		return err
	}
	plan = append(plan, lost...)
	if sure.dryRun && f.json {
		return written(f.printJSON(out))
	}
	if ok, err := f.confirm(sure, "bevy restore "+p.word(), plan...); !ok {
		return err
	}
	var done client.Restored
	if err := f.node.Do(ctx, "POST", p.route("restores"), map[string]string{"path": p.path, "at": p.at}, &done); err != nil {
		return asked(err, "cannot restore %s", p.called())
	}
	out.Files = done.Changed
	return f.changed(ctx, p, out, "restored %s: %s", p.called(), plural(uint64(done.Changed), "change"))
}

// now is the place as it is.
func (p place) now() place {
	p.at = ""
	return p
}

// lost says what of an earlier moment may not be had any more.
func (f *files) lost(ctx context.Context, p place) ([]string, error) {
	var st client.Stats
	err := f.node.Do(ctx, "GET", p.of("stats"), nil, &st)
	if err != nil && codeOf(asked(err, "")) == codeNotFound {
		return nil, nil // there was nothing
	}
	if err != nil {
		return nil, asked(err, "cannot count what was in %s", p.called())
	}
	if st.Missing == 0 || p.folder.Sparse {
		return nil, nil
	}
	return []string{fmt.Sprintf("%s of it are not on this machine; what no other has either can't be read", size(uint64(st.Missing)))}, nil
}

// restoreBeside puts what was at a moment where nothing is.
func (f *files) restoreBeside(ctx context.Context, p place, word string, sure consent) error {
	to, err := f.findNow(word, "restore")
	if err != nil {
		return err
	}
	if to.folder.ID != p.folder.ID {
		return wrong("bevy cp "+p.word()+" "+to.word(), "it is another folder of the cloud", "cannot restore to %s", to.called())
	}
	if _, there, err := f.exists(ctx, to); err != nil || there {
		if there {
			err = &failure{code: codeConflict, what: "cannot restore to " + to.called(), cause: "there is something already", try: "another path; or without one, to restore in place"}
		}
		return err
	}
	st, err := f.stats(ctx, p)
	if err != nil {
		return err
	}
	out := changeOf(to)
	out.Files, out.Bytes, out.DryRun = st.Files, st.Bytes, sure.dryRun
	what := fmt.Sprintf("%s (%s) of %s", plural(uint64(st.Files), "file"), size(uint64(st.Bytes)), p.called())
	if sure.dryRun {
		if f.json {
			return written(f.printJSON(out))
		}
		return written(f.printLine(what + " would be put at " + to.called() + "\nnothing was changed: --dry-run"))
	}
	if err := f.node.Do(ctx, "POST", p.route("restores"), map[string]string{"path": p.path, "at": p.at, "to": to.path}, nil); err != nil {
		return asked(err, "cannot restore %s to %s", p.called(), to.called())
	}
	return f.changed(ctx, to, out, "restored %s at %s", what, to.called())
}
