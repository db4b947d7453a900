package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) scrubCommand() *cobra.Command {
	repair := false
	cmd := &cobra.Command{
		Use:   "scrub [<what>] [flags]",
		Short: "Read everything, check it, and repair it",
		Long: `Reads all that this machine has of a folder, a bucket or a table, or of all of
them and of what the cloud knows about itself, and checks it: each log against
what its writer signed, each file against its hash, each item. With --repair
what is damaged is replaced by what other machines have. The exit code is 7 if
something is damaged and was not repaired.

<what> is a folder, table:<table>, or of an app <app>:<bucket> or
table:<app>:<table>.`,
		Example: `bevy scrub
bevy scrub Photos --repair
bevy scrub table:orders`,
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
		Use:   "verify [<what>] [flags]",
		Short: "Prove that everything here is what was written",
		Long: `As "bevy scrub", which can also repair: reads all that this machine has of a
folder, a bucket or a table, or of all, and checks it against signatures and
hashes. What is damaged is named: whose log it is in, and which block. Nothing
is changed. The exit code is 7 if something is damaged.`,
		Example: `bevy verify
bevy verify Photos
bevy verify table:shop:orders`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.scrub(cmd.Context(), args, "verify", false) })
		},
	}
}

// A scrubbed is what --json prints of each thing that was checked: one of the names
// says what.
type scrubbed struct {
	Folder  string `json:"folder,omitempty"`
	Table   string `json:"table,omitempty"`
	Tables  string `json:"tables,omitempty"` // the list of them, of an app; "/" is that of your own
	Cloud   string `json:"cloud,omitempty"`
	Removed bool   `json:"removed,omitempty"`
	found
}

// found is what a check found, in JSON.
type found = client.Scrubbed

// A checked is something that is checked.
type checked struct{ client.Check }

// word is how it is said to the command; "" if only all are checked.
func (c checked) word() string {
	switch {
	case c.Removed:
	case c.Kind == "folder", c.Kind == "bucket":
		return shellWord(c.Name)
	case c.Kind == "table":
		return shellWord("table:" + c.Name)
	}
	return ""
}

// called is how people are told of it.
func (c checked) called() string {
	name := escape([]byte(c.Name))
	switch c.Kind {
	case "cloud":
		name = "the cloud itself"
	case "tables":
		name = "the list of tables"
		if c.App != "" {
			name += " of " + escape([]byte(c.App))
		}
	case "table":
		name = "table " + name
	}
	if c.Removed {
		name += " (removed)"
	}
	return name
}

func (c checked) json(got client.Scrubbed) scrubbed {
	out := scrubbed{Removed: c.Removed, found: got}
	switch c.Kind {
	case "cloud":
		out.Cloud = c.Name
	case "tables":
		if out.Tables = c.App; c.App == "" {
			out.Tables = "/"
		}
	case "table":
		out.Table = c.Name
	default:
		out.Folder = c.Name
	}
	return out
}

func (f *files) scrub(ctx context.Context, args []string, verb string, repair bool) error {
	checks, err := f.checks(ctx, args, verb)
	if err != nil {
		return err
	}
	total := uint64(0)
	for _, c := range checks {
		total += c.Bytes
	}
	bar := f.progress("checking", "problem", 0, total)
	defer bar.end()
	var bad error
	for _, c := range checks {
		seen := uint64(0)
		got, err := f.node.Check(ctx, client.CheckRequest{Space: c.Space, Repair: repair}, func(bytes int64) {
			bytes = min(bytes, int64(c.Bytes-seen)) // it may have grown
			seen += uint64(bytes)
			bar.add(0, uint64(bytes))
		})
		if err != nil {
			return asked(err, "cannot check %s", c.called())
		}
		bar.add(uint64(got.Problems), c.Bytes-seen)
		if f.json {
			err = written(f.printJSON(c.json(got)))
		} else {
			err = f.printScrubbed(c, got)
		}
		if err != nil {
			return err
		}
		if left := got.Problems - got.Repaired; left > 0 && bad == nil {
			bad = damaged(c, got, left, repair)
		}
	}
	return bad
}

// checks finds what words name, all when there are none.
func (f *files) checks(ctx context.Context, args []string, verb string) (list []checked, err error) {
	var all client.Checks
	if err := f.node.Do(ctx, "GET", "/checks", nil, &all); err != nil {
		return nil, asked(err, "cannot ask what there is to check")
	}
	for _, c := range all.Checks {
		list = append(list, checked{c})
	}
	if len(args) == 0 {
		return list, nil
	}
	if name, ok := strings.CutPrefix(args[0], "table:"); ok {
		list = slices.DeleteFunc(list, func(c checked) bool { return c.Kind != "table" || c.Removed || c.Name != name })
		if len(list) == 0 {
			return nil, &failure{code: codeNotFound, what: fmt.Sprintf("there is no table %q", name), cause: "none has that name; that of an app is table:<app>:<table>", try: "bevy table ls"}
		}
		return list, nil
	}
	places, err := f.wholeFolders(args, verb)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(c checked) bool { return c.Space != places[0].folder.ID }), nil
}

func (f *files) printScrubbed(c checked, got client.Scrubbed) error {
	for _, line := range got.Details {
		if err := written(f.printLine("bad  " + c.called() + "  " + escape([]byte(line)))); err != nil {
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
	what := plural(uint64(got.Logs), "log")
	switch {
	case c.Removed:
	case c.Kind == "folder", c.Kind == "bucket":
		what = plural(uint64(got.Files), "file") + ", " + what
	case c.Kind == "table":
		what = plural(uint64(got.Items), "item") + ", " + what
	}
	line := fmt.Sprintf("%s  %s: %s", c.called(), what, state)
	if got.Missing > 0 {
		line += fmt.Sprintf("; %s are not here", size(uint64(got.Missing)))
	}
	return written(f.printLine(line))
}

// damaged is why a check fails.
func damaged(c checked, got client.Scrubbed, left int, repair bool) error {
	cause := "what is stored is not what was written"
	if len(got.Details) > 0 {
		cause = escape([]byte(got.Details[0]))
	}
	try := strings.TrimSpace("bevy scrub "+c.word()) + " --repair"
	if repair {
		try = "the same when a machine is connected that has it; or bevy restore"
		if c.Kind == "table" {
			try = "the same when a machine is connected that has it; or bevy table restore"
		}
	}
	return &failure{code: codeCorrupt, what: fmt.Sprintf("%s of %s", plural(uint64(left), "problem"), c.called()), cause: cause, try: try}
}
