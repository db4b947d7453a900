package main

import (
	"context"
	"net/url"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) publishCommand() *cobra.Command {
	var stop bool
	cmd := &cobra.Command{
		Use:   "publish <folder> [flags]",
		Short: "Have everybody read a folder who has its key",
		Long: `Keeps a public drive the same as a folder of the cloud, and prints the drive's
key. Whoever has the key can read it, in a browser through any node of Bevy and
by every peer that knows hyperdrive; nobody else can find it. It is this machine
that serves it.

With --stop this machine gives it to nobody any more. Who has read it, has it.`,
		Example: `bevy publish site
bevy publish site --stop`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.publish(cmd.Context(), c, args[0], stop) })
		},
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "give it to nobody any more")
	return cmd
}

func (a *app) publish(ctx context.Context, c *client.Client, folder string, stop bool) error {
	path := folderPath(folder) + "/publication"
	if stop {
		if err := c.Do(ctx, "DELETE", path, nil, nil); err != nil {
			return asked(err, "cannot stop publishing %s", folder)
		}
		a.say("%s is not published any more\nundo:  bevy publish %s, which has another key", folder, shellWord(folder))
		return nil
	}
	var p client.Published
	if err := c.Do(ctx, "POST", path, nil, &p); err != nil {
		return asked(err, "cannot publish %s", folder)
	}
	if a.json {
		return written(a.printJSON(p))
	}
	if err := written(a.printLine(p.Key)); err != nil {
		return err
	}
	a.say("everybody who has the key can read %s\npage:  %s\nundo:  bevy publish %s --stop", p.Folder, p.URL, shellWord(folder))
	return nil
}

// folderPath is the path of the API for a folder that a word names.
func folderPath(word string) string { return "/folders/" + url.PathEscape(folderWord(word)) }
