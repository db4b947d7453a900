package main

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) scrubCommand() *cobra.Command {
	repair := false
	cmd := &cobra.Command{
		Use:   "scrub [<folder>] [flags]",
		Short: "Read everything, check it, and repair it",
		Long: `Reads all that this machine has of a folder of the cloud, or of all, and checks
it: each log against what its writer signed, each file against its hash. With
--repair what is damaged is replaced by what other machines have. The exit code
is 7 if something is damaged and was not repaired.`,
		Example: `bevy scrub
bevy scrub Photos --repair`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.scrub(cmd.Context(), args, "scrub", repair) })
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "replace what is damaged by what others have")
	return cmd
}

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [<folder>] [flags]",
		Short: "Prove that everything here is what was written",
		Long: `As "bevy scrub", which can also repair: reads all that this machine has, and
checks it against signatures and hashes. Nothing is changed. The exit code is 7
if something is damaged.`,
		Example: `bevy verify
bevy verify Photos`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.scrub(cmd.Context(), args, "verify", false) })
		},
	}
}

// A scrubbed is what --json prints of each folder.
type scrubbed struct {
	Folder string `json:"folder"`
	found
}

// found is what a check of a folder found, in JSON.
type found = client.Scrubbed

func (f *files) scrub(ctx context.Context, args []string, verb string, repair bool) error {
	places, err := f.wholeFolders(args, verb)
	if err != nil {
		return err
	}
	var bad error
	for _, p := range places {
		got, err := f.scrubOne(ctx, p, repair)
		if err != nil {
			return err
		}
		if f.json {
			err = written(f.printJSON(scrubbed{p.folder.Name, got}))
		} else {
			err = f.printScrubbed(p, got)
		}
		if err != nil {
			return err
		}
		if left := got.Problems - got.Repaired; left > 0 && bad == nil {
			bad = damaged(p, got, left, repair)
		}
	}
	if len(places) == 0 && !f.json {
		f.say("no folder is kept yet\nnext:  bevy add <folder>")
	}
	return bad
}

// scrubOne checks a folder, which may take a while.
func (f *files) scrubOne(ctx context.Context, p place, repair bool) (got client.Scrubbed, err error) {
	bar := f.progress("checking "+p.called(), "problem", 0, 0)
	defer bar.end()
	if err := f.node.Do(ctx, "POST", p.route("scrubs"), map[string]bool{"repair": repair}, &got); err != nil {
		return got, asked(err, "cannot check %s", p.called())
	}
	return got, nil
}

func (f *files) printScrubbed(p place, got client.Scrubbed) error {
	for _, line := range got.Details {
		if err := written(f.printLine("bad  " + p.called() + "  " + escape([]byte(line)))); err != nil {
			return err
		}
	}
	state := "all that is here is whole"
	if got.Problems > 0 {
		state = plural(uint64(got.Problems), "problem")
		if got.Repaired > 0 {
			state += fmt.Sprintf(", %s repaired", count(uint64(got.Repaired)))
		}
	}
	line := fmt.Sprintf("%s  %s, %s: %s", p.called(), plural(uint64(got.Files), "file"), plural(uint64(got.Logs), "log"), state)
	if got.Missing > 0 {
		line += fmt.Sprintf("; %s are not here", size(uint64(got.Missing)))
	}
	return written(f.printLine(line))
}

// damaged is why a check fails.
func damaged(p place, got client.Scrubbed, left int, repair bool) error {
	cause := "what is stored is not what was written"
	if len(got.Details) > 0 {
		cause = escape([]byte(got.Details[0]))
	}
	try := "bevy scrub " + p.word() + " --repair"
	if repair {
		try = "the same when a machine is connected that has it; or bevy restore"
	}
	return &failure{code: codeCorrupt, what: fmt.Sprintf("%s of %s", plural(uint64(left), "problem"), p.called()), cause: cause, try: try}
}
