package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

// A logging is one run of "bevy log".
type logging struct {
	limit        int
	since, until string
	forward      bool
}

func (a *app) logCommand() *cobra.Command {
	var l logging
	cmd := &cobra.Command{
		Use:   "log [<path>] [flags]",
		Short: "See what was done, by which machine, and when",
		Long: `Lists what was written and removed at a path and in it, by all machines, the
last first: when, by which machine, what, how large it was, and where. Without
<path> it is about all folders of the cloud.

Each of these times is a moment: <path>@<time> is how things were then.`,
		Example: `bevy log
bevy log Photos/2026 --since 7d
bevy log ~/Notes/plan.txt --limit 5`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.limit < 1 || l.limit > 10_000 {
				return wrong("--limit 100", "it is 1 to 10,000", "wrong --limit %q", fmt.Sprint(l.limit))
			}
			return a.withFiles(cmd.Context(), func(f *files) error { return f.log(cmd.Context(), args, l) })
		},
	}
	cmd.Flags().StringVar(&l.since, "since", "", "only what was done after this `time`, such as 2h, 3d or 2026-11-23")
	cmd.Flags().StringVar(&l.until, "until", "", "only what was done before this `time`")
	cmd.Flags().IntVar(&l.limit, "limit", 100, "at most this `number`")
	cmd.Flags().BoolVar(&l.forward, "reverse", false, "the first first")
	return cmd
}

func (f *files) log(ctx context.Context, args []string, l logging) error {
	var places []place
	if len(args) == 1 {
		p, err := f.findNow(args[0], "log")
		if err != nil {
			return err
		}
		places = append(places, p)
	} else {
		for _, of := range f.folders {
			places = append(places, place{folder: of, path: "/"})
		}
	}
	var all []listedEntry
	more := false
	for _, p := range places {
		var part client.Entries
		ask := p.of("history", "since", l.since, "until", l.until, "limit", fmt.Sprint(l.limit), "forward", fmt.Sprint(l.forward))
		if err := f.node.Do(ctx, "GET", ask, nil, &part); err != nil {
			return asked(err, "cannot read the history of %s", p.called())
		}
		for _, e := range part.Entries {
			all = append(all, listedEntry{p.folder.Name, e})
		}
		more = more || part.More
	}
	if len(places) > 1 {
		slices.SortStableFunc(all, func(a, b listedEntry) int {
			if l.forward {
				return a.Time.Compare(b.Time)
			}
			return b.Time.Compare(a.Time)
		})
		more = more || len(all) > l.limit
		all = all[:min(len(all), l.limit)]
	}
	return f.lines(func(w *lineWriter) error {
		for _, e := range all {
			err := error(nil)
			if f.json {
				err = w.object(e)
			} else {
				err = w.line(logLine(e)...)
			}
			if err != nil {
				return err
			}
		}
		switch {
		case f.json:
		case len(all) == 0 && len(args) == 1 && l.since == "" && l.until == "":
			return &failure{code: codeNotFound, what: "nothing was ever at " + places[0].called(), cause: "no machine has written there", try: "bevy log " + shellWord(places[0].folder.Name)}
		case len(all) == 0:
			f.say("nothing was done")
		case more:
			f.say("there is more: --limit %d", min(10*l.limit, 10_000))
		}
		return nil
	})
}

// logLine is what was done to an entry, in cells.
func logLine(e listedEntry) []string {
	what, bytes := "wrote", size(uint64(e.Size))
	switch {
	case e.Deleted:
		what, bytes = "removed", "-"
	case e.Kind == "folder":
		what, bytes = "made", "-"
	case e.Kind == "link":
		what, bytes = "linked", "-"
	}
	return []string{e.Time.Local().Format("2006-01-02 15:04:05"), escape([]byte(dash(e.Machine))), fmt.Sprintf("%-7s", what), fmt.Sprintf("%8s", bytes), escape([]byte(e.Folder + e.Path))}
}
