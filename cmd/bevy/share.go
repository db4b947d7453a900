package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) shareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "share",
		Short: "Links by which others use a part of a folder",
		Long: `A link lets whoever has it read a file or a folder of the cloud in a browser, or
also put and remove files, until it ends or is stopped. Every machine of the
cloud serves it, at its own address, and no other path than that.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(a.shareLinkCommand(), a.shareNarrowCommand(), a.shareLsCommand(), a.shareStopCommand())
	return cmd
}

// usualShare is how long a link is good if nothing is said.
const usualShare = 7 * day

func (a *app) shareLinkCommand() *cobra.Command {
	var in client.AddShare
	var life shareLife
	cmd := &cobra.Command{
		Use:   "link <path> [flags]",
		Short: "Make a link to a file or folder",
		Long: `Prints a link to a file or folder of the cloud, as <folder>/<path> or by where
it is on the disk. Whoever has it can read that, and nothing else. It is shown
once, and kept nowhere.

Others reach this machine if it listens for them: bevy up --listen :7070. What
is sent can be read on the way then; a proxy in front of it can add encryption.`,
		Example: `bevy share link photos/2026
bevy share link ~/Photos/inbox --write --for 2d --name Lenka
bevy share link docs/plan.pdf --until 2027-01-31`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Until, err = life.end(a, cmd, a.clock.Now().Add(usualShare))
			if err != nil {
				return err
			}
			return a.withFiles(cmd.Context(), func(f *files) error { return f.shareLink(cmd.Context(), args[0], in) })
		},
	}
	cmd.Flags().BoolVar(&in.Write, "write", false, "let them put, change and remove files, too")
	cmd.Flags().BoolVar(&in.HandOn, "narrow", false, "let them hand on less, with bevy share narrow")
	life.flags(cmd, "7d")
	cmd.Flags().StringVar(&in.Name, "name", "", "keep this `text` with it: who gets it")
	return cmd
}

// A shareLife is when a link is to end.
type shareLife struct {
	after daysFlag
	until string
}

func (l *shareLife) flags(cmd *cobra.Command, usual string) {
	cmd.Flags().Var(&l.after, "for", "let it end after this `time`, such as 12h or 30d (default "+usual+")")
	cmd.Flags().StringVar(&l.until, "until", "", "let it end at this `time`: 2027-01-31, or never")
}

// end returns when, or what is usual if nothing was said; zero is never.
func (l *shareLife) end(a *app, cmd *cobra.Command, usual time.Time) (time.Time, error) {
	after := cmd.Flags().Changed("for")
	switch {
	case after && l.until != "":
		return time.Time{}, wrong("one of them", "both say when it ends", "--for and --until are given")
	case after && l.after == 0:
		return time.Time{}, wrong("--for 7d", "it would be over at once", "wrong time %q", l.after.String())
	case after:
		return a.clock.Now().Add(time.Duration(l.after)).UTC(), nil
	case l.until == "never":
		return time.Time{}, nil
	case l.until == "":
		return usual.UTC(), nil
	}
	return a.parseUntil(l.until)
}

func (f *files) shareLink(ctx context.Context, word string, in client.AddShare) error {
	p, err := f.findNow(word, "share link")
	if err != nil {
		return err
	}
	in.Folder, in.Path = p.folder.ID, p.path
	var made client.Share
	if err := f.node.Do(ctx, "POST", p.route("shares"), in, &made); err != nil {
		return f.cannot(err, p, "cannot share %s", p.called())
	}
	if f.json {
		return written(f.printJSON(made))
	}
	if err := written(f.printLine(made.URL)); err != nil {
		return err
	}
	may := "read"
	if made.Write {
		may = "read and change"
	}
	f.say("whoever has the link can %s %s%s", may, p.called(), untilWords(made))
	if made.Private {
		f.say("note:  only this machine reaches that address; for others: bevy up --listen :7070")
	}
	f.say("undo:  bevy share stop %s", made.ID[:shortID])
	return nil
}

// shortID is how much of an id is shown.
const shortID = 8

func untilWords(s client.Share) string {
	if s.Until.IsZero() {
		return ", for ever"
	}
	return ", until " + s.Until.Local().Format("2006-01-02 15:04")
}

func (a *app) shareLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the links that were made and not stopped",
		Long: `Lists the links of the cloud, on whichever machine they were made. Uses are
those of this machine. The links themselves can't be shown again.`,
		Example: `bevy share ls`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				shares, err := sharesOf(cmd.Context(), c)
				if err != nil {
					return asked(err, "cannot list the links")
				}
				return a.listShares(shares)
			})
		},
	}
}

func sharesOf(ctx context.Context, c *client.Client) ([]client.Share, error) {
	var all client.Shares
	err := c.Do(ctx, "GET", "/shares", nil, &all)
	return all.Shares, err
}

// falling says, for a plan, which links end when a machine that made them is in
// the cloud no more.
func falling(ctx context.Context, c *client.Client, machine string) (plan []string, err error) {
	shares, err := sharesOf(ctx, c)
	if err != nil {
		return nil, asked(err, "cannot look at the links")
	}
	for _, s := range shares {
		if s.Machine == machine && !s.Over {
			plan = append(plan, fmt.Sprintf("the link %s to %s, which was made on it, would end", s.ID[:shortID], escape([]byte(s.Folder+strings.TrimSuffix(s.Path, "/")))))
		}
	}
	return plan, nil
}

func (a *app) listShares(shares []client.Share) error {
	t := newTable("ID", "WHAT", "MAY", "UNTIL", "USES", "MADE ON", "FOR")
	t.right[4] = true
	for _, s := range shares {
		if a.json {
			if err := a.printJSON(s); err != nil {
				return written(err)
			}
			continue
		}
		may, until, name := "read", "-", "-"
		if s.Name != "" {
			name = s.Name
		}
		if s.Write {
			may = "write"
		}
		switch {
		case s.Over:
			until = "is over"
		case !s.Until.IsZero():
			until = s.Until.Local().Format("2006-01-02 15:04")
		}
		t.add(s.ID[:shortID], escape([]byte(s.Folder+strings.TrimSuffix(s.Path, "/"))), may, until, fmt.Sprint(s.Uses), escape([]byte(s.Machine)), escape([]byte(name)))
	}
	switch {
	case a.json:
		return nil
	case len(shares) == 0:
		a.say("nothing is shared\nnext:  bevy share link <path>")
		return nil
	}
	return written(t.write(a.stdout))
}

func (a *app) shareStopCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stop <share>...",
		Short: "Let links end, on all machines",
		Long: `Ends links, for good: on this machine at once, and on the others as soon as they
hear of it. A link is named by its id or the first letters of that, by what
--name said, or by itself. Who has read a file, has it.`,
		Example: `bevy share stop k3ab7dq1`,
		Args:    wants(1, 100),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, word string) (words []string, _ cobra.ShellCompDirective) {
			ctx := cmd.Context()
			if ctx == nil {
				ctx = context.Background()
			}
			_ = a.withNode(ctx, func(c *client.Client) error {
				shares, err := sharesOf(ctx, c)
				for _, s := range shares {
					if id := s.ID[:shortID]; strings.HasPrefix(id, word) {
						words = append(words, id+"\t"+escape([]byte(s.Folder+strings.TrimSuffix(s.Path, "/"))))
					}
				}
				return err
			})
			return words, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				for _, word := range args {
					if err := c.Do(cmd.Context(), "DELETE", "/shares/"+url.PathEscape(shareWord(word)), nil, nil); err != nil {
						return asked(err, "cannot stop the link %s", word)
					}
					a.say("the link %s is stopped", escape([]byte(word)))
				}
				return nil
			})
		},
	}
}

// shareWord is what the node calls a share: of a whole link its token.
func shareWord(word string) string {
	if _, rest, ok := strings.Cut(word, "/s/"); ok {
		word, _, _ = strings.Cut(rest, "/")
	}
	return word
}
