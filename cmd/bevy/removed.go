package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) removedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "removed",
		Short: "Folders, buckets, tables and apps that were removed, and back",
		Long: `What a program removes altogether, such as a bucket or a table, and what
"bevy folder drop --everywhere" and "bevy apps rm" remove, stays in the cloud's
logs. This lists it, and brings it back with its whole history. Of files and
items that were removed see "bevy restore" and "bevy table restore".`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(a.removedLsCommand(), a.removedBackCommand())
	return cmd
}

// removedWord is how a removed thing is said to the command.
func removedWord(r client.Removed) string {
	if r.Kind == "table" || r.Kind == "app" {
		return r.Kind + ":" + r.Name
	}
	return r.Name
}

func listRemoved(ctx context.Context, c *client.Client) ([]client.Removed, error) {
	var out client.RemovedThings
	err := c.Do(ctx, "GET", "/removed", nil, &out)
	return out.Removed, asked(err, "cannot list what was removed")
}

func (a *app) removedLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List what was removed and can be brought back",
		Example: `bevy removed ls`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				list, err := listRemoved(cmd.Context(), c)
				if err != nil {
					return err
				}
				t := newTable("WHAT", "KIND", "REMOVED", "ID")
				for _, r := range list {
					if a.json {
						if err := a.printJSON(r); err != nil {
							return written(err)
						}
						continue
					}
					t.add(removedWord(r), r.Kind, r.Time.Local().Format("2006-01-02 15:04:05"), r.ID)
				}
				switch {
				case a.json:
					return nil
				case len(list) == 0:
					a.say("nothing was removed altogether")
					return nil
				}
				return written(t.write(a.stdout))
			})
		},
	}
}

func (a *app) removedBackCommand() *cobra.Command {
	as := ""
	cmd := &cobra.Command{
		Use:   "back <what> [flags]",
		Short: "Bring back what was removed altogether",
		Long: `Makes a folder, a bucket, a table or an app again what it was when it was
removed, on all machines, with its history. <what> is as "bevy removed ls" has
it: of several that had one name the one that was removed last, or an id. An
app comes with all that went with it, but for its access keys.`,
		Example: `bevy removed back photos
bevy removed back table:orders --as orders-before
bevy removed back app:shop`,
		Args:              wants(1, 1),
		ValidArgsFunction: a.completeFirst(a.completeRemoved),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.bringBack(cmd.Context(), c, args[0], as) })
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "call it by this `name`")
	return cmd
}

func (a *app) bringBack(ctx context.Context, c *client.Client, word, as string) error {
	list, err := listRemoved(ctx, c)
	if err != nil {
		return err
	}
	var words []string
	for _, r := range list {
		if removedWord(r) != word && r.ID != word {
			words = append(words, removedWord(r))
			continue
		}
		var back client.Removed
		if err := c.Do(ctx, "POST", "/removed/"+url.PathEscape(r.ID), client.BringBack{As: as}, &back); err != nil {
			return asked(err, "cannot bring back %s", word)
		}
		if a.json {
			return written(a.printJSON(back))
		}
		next := "bevy ls " + shellWord(back.Name)
		undo := "bevy folder drop " + shellWord(back.Name) + " --everywhere"
		switch back.Kind {
		case "table":
			next, undo = "bevy table ls", "aws dynamodb delete-table"
			if back.App != "" {
				next += " --app " + shellWord(back.App)
			}
		case "app":
			next, undo = "eval $(bevy env --app "+shellWord(back.Name)+")", "bevy apps rm "+shellWord(back.Name)
		}
		a.say("the %s %s is back\nnext:  %s\nundo:  %s", back.Kind, escape([]byte(back.Name)), next, undo)
		return nil
	}
	try := "bevy removed ls"
	if near := nearest(word, words); near != "" {
		try = "bevy removed back " + shellWord(near)
	}
	return &failure{code: codeNotFound, what: fmt.Sprintf("nothing that was removed is called %q", word), cause: "or it is there again already", try: try}
}

// completeRemoved offers what can be brought back.
func (a *app) completeRemoved(cmd *cobra.Command, _ []string, _ string) (words []string, _ cobra.ShellCompDirective) {
	_ = a.withNode(contextOf(cmd), func(c *client.Client) error {
		list, err := listRemoved(contextOf(cmd), c)
		for _, r := range list {
			words = append(words, removedWord(r))
		}
		return err
	})
	return words, cobra.ShellCompDirectiveNoFileComp
}
