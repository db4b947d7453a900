package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) feedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "feed",
		Short: "Changes of buckets and tables, handed on to programs",
		Long: `A feed hands on what changes in a bucket or a table, on all machines of the
cloud, in order and at least once: to a web hook, a program, or a file. It goes
on where it was after a restart, and waits for who does not answer.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(a.feedReadCommand(), a.feedAddCommand(), a.feedLsCommand(),
		a.feedSetCommand("pause", "Have a feed wait", true), a.feedSetCommand("resume", "Have a feed go on, and try again at once", false), a.feedRmCommand())
	return cmd
}

func (a *app) feedReadCommand() *cobra.Command {
	var in client.ReadChanges
	follow := false
	cmd := &cobra.Command{
		Use:   "read <source> [flags]",
		Short: "Print what has changed, a line of JSON for each change",
		Long: `Prints all that ever happened to a source, or what came behind a cursor: that
of the last line that was dealt with is where to go on. A source is bucket:name,
table:name, or notices:name: what a bucket's notification configuration asks
for, as S3 tells it.`,
		Example: `bevy feed read bucket:photos
bevy feed read table:orders --from now --follow`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Source = args[0]
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				return untilStopped(a.readFeed(cmd.Context(), c, in, follow))
			})
		},
	}
	a.appFlag(cmd, &in.App)
	cmd.Flags().StringVar(&in.From, "from", "", "begin behind this `cursor`, or now (default the beginning)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more, until it is stopped")
	return cmd
}

func (a *app) readFeed(ctx context.Context, c *client.Client, in client.ReadChanges, follow bool) error {
	wait := 0
	for {
		query := url.Values{"app": {in.App}, "source": {in.Source}, "from": {in.From}, "wait": {strconv.Itoa(wait)}}
		var out client.SourceChanges
		if err := c.Do(ctx, "GET", "/changes?"+query.Encode(), nil, &out); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return asked(err, "cannot read the changes of %s", in.Source)
		}
		for _, change := range out.Changes {
			if err := a.printJSON(change); err != nil {
				return written(err)
			}
		}
		in.From = out.Cursor
		if len(out.Changes) > 0 {
			continue
		}
		if !follow {
			return nil
		}
		wait = 30
	}
}

func (a *app) feedAddCommand() *cobra.Command {
	var in client.AddFeed
	cmd := &cobra.Command{
		Use:   "add <feed> <source> [<program>...] [flags]",
		Short: "Hand the changes of a bucket or a table on",
		Long: `Hands each change of bucket:name, table:name or notices:name (see bevy feed
read) on to one of three. A web hook is sent them, signed with a secret that is
printed. A file gets a line of JSON for each. A program, with its arguments
behind "--", is run with lines of JSON as its input, and has taken them when it
ends with 0.

It begins with all that ever happened, or with --from.`,
		Example: `bevy feed add mirror bucket:photos --url https://example.com/hook
bevy feed add log table:orders --from now --file orders.jsonl
bevy feed add thumbs bucket:photos -- ./make-thumbs --size 200`,
		Args: wants(2, 2+64),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Name, in.Source, in.To.Program = args[0], args[1], args[2:]
			if len(in.To.Program) > 0 && cmd.ArgsLenAtDash() != 2 {
				return wrong("bevy feed add "+shellWord(in.Name)+" "+shellWord(in.Source)+" -- "+args[2], "a program comes behind --", "what is %q?", args[2])
			}
			if in.To.File != "" {
				if in.To.File, err = filepath.Abs(in.To.File); err != nil {
					return fail(err, "cannot find %s", in.To.File)
				}
			}
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.addFeed(cmd.Context(), c, in) })
		},
	}
	a.appFlag(cmd, &in.App)
	cmd.Flags().StringVar(&in.To.URL, "url", "", "the `address` of a web hook")
	cmd.Flags().StringVar(&in.To.File, "file", "", "the `file` that gets lines")
	cmd.Flags().StringVar(&in.From, "from", "", "begin behind this `cursor`, or now (default the beginning)")
	return cmd
}

func (a *app) addFeed(ctx context.Context, c *client.Client, in client.AddFeed) error {
	var made client.Feed
	if err := c.Do(ctx, "POST", "/feeds", in, &made); err != nil {
		return asked(err, "cannot make the feed %s", in.Name)
	}
	if a.json {
		return written(a.printJSON(made))
	}
	if made.To.Secret != "" {
		if err := written(a.printLine(made.To.Secret)); err != nil {
			return err
		}
		a.say("what is sent is signed with the secret above, which is not shown again: docs/formats/feed.md")
	}
	a.say("the changes of %s are handed on\nundo:  bevy feed rm %s", made.Source, shellWord(made.Name))
	return nil
}

func (a *app) feedLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the feeds of this machine",
		Example: `bevy feed ls`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				var all client.Feeds
				if err := c.Do(cmd.Context(), "GET", "/feeds", nil, &all); err != nil {
					return asked(err, "cannot list the feeds")
				}
				return a.listFeeds(all.Feeds)
			})
		},
	}
}

func (a *app) listFeeds(feeds []client.Feed) error {
	t := newTable("FEED", "OF", "TO", "DELIVERED", "STATE")
	t.right[3] = true
	for _, f := range feeds {
		if a.json {
			if err := a.printJSON(f); err != nil {
				return written(err)
			}
			continue
		}
		state := "ok"
		switch {
		case f.Paused:
			state = "paused"
		case f.Stopped:
			state = "stopped: " + f.Error
		case f.Failures > 0:
			state = fmt.Sprintf("failed %s, next %s: %s", plural(uint64(f.Failures), "time"), f.NextTry.Local().Format("15:04:05"), f.Error)
		}
		to := f.To.URL + f.To.File + strings.Join(f.To.Program, " ")
		t.add(f.Name, escape([]byte(f.Source)), escape([]byte(to)), strconv.FormatUint(f.Delivered, 10), escape([]byte(state)))
	}
	switch {
	case a.json:
		return nil
	case len(feeds) == 0:
		a.say("no feeds\nnext:  bevy feed add --help")
		return nil
	}
	return written(t.write(a.stdout))
}

func (a *app) feedSetCommand(verb, short string, paused bool) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " <feed>",
		Short:   short,
		Example: "bevy feed " + verb + " mirror",
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				if err := c.Do(cmd.Context(), "PATCH", "/feeds/"+url.PathEscape(args[0]), client.ChangeFeed{Paused: paused}, nil); err != nil {
					return asked(err, "cannot %s the feed %s", verb, args[0])
				}
				if paused {
					a.say("the feed %s waits\nundo:  bevy feed resume %s", args[0], shellWord(args[0]))
				} else {
					a.say("the feed %s goes on\nnext:  bevy feed ls", args[0])
				}
				return nil
			})
		},
	}
}

func (a *app) feedRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm <feed>",
		Short:   "End a feed, and forget where it was",
		Example: `bevy feed rm mirror`,
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				if err := c.Do(cmd.Context(), "DELETE", "/feeds/"+url.PathEscape(args[0]), nil, nil); err != nil {
					return asked(err, "cannot end the feed %s", args[0])
				}
				a.say("the feed %s has ended", args[0])
				return nil
			})
		},
	}
}
