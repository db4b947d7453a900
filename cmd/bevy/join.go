package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/spf13/cobra"
)

func (a *app) joinCommand() *cobra.Command {
	var name string
	var wait time.Duration
	var noQR, noWait bool
	cmd := &cobra.Command{
		Use:   "join [<words>] [flags]",
		Short: "Add another machine to your cloud",
		Long: `Without words, shows six words, and waits until a machine has joined by them.
They are good for one machine and ten minutes.

With the words that another machine shows, makes this machine one of that cloud.
It must have nothing in a cloud of its own.`,
		Example: `bevy join
bevy join stone-river-amber-nine-lotus-fog`,
		Args: wants(0, 6),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				if len(args) == 0 {
					return a.invite(cmd.Context(), c, !noQR, !noWait)
				}
				return a.join(cmd.Context(), c, strings.Join(args, "-"), name, wait)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "call this machine by this `name` in that cloud")
	f.DurationVar(&wait, "wait", 2*time.Minute, "look for the other machine for this `time`")
	f.BoolVar(&noQR, "no-qr", false, "show the words alone")
	f.BoolVar(&noWait, "no-wait", false, "show the words, and leave the rest to the node")
	return cmd
}

// invite shows words, and waits until they were used.
func (a *app) invite(ctx context.Context, c *client.Client, qr, wait bool) error {
	var v client.Invitation
	if err := c.Do(ctx, "POST", "/invitation", nil, &v); err != nil {
		return asked(err, "cannot make words")
	}
	if a.json {
		if err := written(a.printJSON(v)); err != nil {
			return err
		}
	} else {
		if qr && isTerminal(a.stdout) {
			if err := written(a.printLine(v.QR)); err != nil {
				return err
			}
		}
		if err := written(a.printLine("bevy join " + v.Words)); err != nil {
			return err
		}
		a.say("on the other machine: bevy up, and then the line above, within %.0f minutes", v.Expires.Sub(a.clock.Now()).Minutes())
	}
	if !wait {
		return nil
	}
	for {
		if !sleep(ctx, a.clock, time.Second) {
			_ = c.Do(context.WithoutCancel(ctx), "DELETE", "/invitation", nil, nil)
			a.say("the words are dead")
			return nil
		}
		if err := c.Do(ctx, "GET", "/invitation", nil, &v); err != nil {
			return asked(err, "cannot ask for news")
		}
		switch v.State {
		case "joined":
			v.Words, v.QR = "", ""
			if a.json {
				return written(a.printJSON(v))
			}
			a.say("%s has joined\nundo:  bevy machines rm %s", v.Machine, shellWord(v.Machine))
			return nil
		case "over":
			return &failure{code: codeFailed, what: "no machine has joined", cause: v.Why, try: "bevy join"}
		}
	}
}

// join makes this machine one of another cloud.
func (a *app) join(ctx context.Context, c *client.Client, text, name string, wait time.Duration) error {
	if _, err := words.ParseCode(text); err != nil {
		return wrong("bevy join <word>-<word>-<word>-<word>-<word>-<word>", err.Error(), "these are not the words that bevy join shows")
	}
	a.say("looking for the machine that shows these words")
	var j client.Joined
	if err := c.Do(ctx, "POST", "/join", client.JoinRequest{Words: text, Name: name, Wait: wait.String()}, &j); err != nil {
		return asked(err, "cannot join")
	}
	if a.json {
		return written(a.printJSON(j))
	}
	a.say("joined. What is in the cloud comes here now.\nnext:  bevy status\n       bevy add <folder>    have a folder of the cloud on this disk")
	return nil
}

func (a *app) machinesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "machines",
		Short: "See the machines of your cloud, and take one out",
		Args:  noSuchWord,
		RunE:  helpOf,
	}
	cmd.AddCommand(a.machinesLsCommand(), a.machinesRmCommand())
	return cmd
}

func (a *app) machinesLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [flags]",
		Short: "List the machines of your cloud",
		Example: `bevy machines ls
bevy machines ls --json`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				var m client.Machines
				if err := c.Do(cmd.Context(), "GET", "/machines", nil, &m); err != nil {
					return asked(err, "cannot list the machines")
				}
				for _, x := range m.Machines {
					line := fmt.Sprintf("%s  %-7s  %s", x.ID[:8], x.State, x.Name)
					var err error
					if a.json {
						err = a.printJSON(x)
					} else {
						err = a.printLine(line)
					}
					if err != nil {
						return written(err)
					}
				}
				return nil
			})
		},
	}
}

func (a *app) machinesRmCommand() *cobra.Command {
	var sure consent
	var byWords bool
	cmd := &cobra.Command{
		Use:   "rm <machine> [flags]",
		Short: "Take a machine that is lost or sold out of your cloud",
		Long: `The machine gets nothing of the cloud any more, what it writes from now on does
not count, and the other machines go on with a new key. What it has already, it
keeps. It can't be taken back: the machine would have to join again.

The machine that has let this one in can only be taken out by the owner: on the
machine that has the owner's words, or with --words, which reads them.`,
		Example: `bevy machines rm phone
bevy machines rm 7f3ac2 --yes
bevy machines rm laptop --words`,
		Args:              wants(1, 1),
		ValidArgsFunction: a.completeFirst(a.completeMachine),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				at := "/machines/" + url.PathEscape(args[0])
				var m client.Machine
				if err := c.Do(cmd.Context(), "GET", at, nil, &m); err != nil {
					return asked(err, "cannot find %s", args[0])
				}
				links, err := falling(cmd.Context(), c, m.Name)
				if err != nil {
					return err
				}
				plan := append([]string{fmt.Sprintf("%s (%s, %s) would be taken out of the cloud, for good", m.Name, m.ID[:8], m.State)}, links...)
				if ok, err := a.agree(sure, "bevy machines rm "+shellWord(args[0]), plan...); !ok {
					return err
				}
				if byWords {
					seed, err := a.readWords("bevy machines rm " + args[0] + " --words")
					if err != nil {
						return err
					}
					err = c.Do(cmd.Context(), "POST", at+"/removals", client.RemoveMachine{Words: words.FromSeed(*seed)}, nil)
					if err != nil {
						return asked(err, "cannot take %s out", args[0])
					}
				} else if err := c.Do(cmd.Context(), "DELETE", at, nil, nil); err != nil {
					return asked(err, "cannot take %s out", args[0])
				}
				a.say("%s was taken out of the cloud", m.Name)
				return nil
			})
		},
	}
	sure.why = "it can't be taken back"
	sure.flags(cmd)
	cmd.Flags().BoolVar(&byWords, "words", false, "by the owner's 24 words, which are read from stdin")
	return cmd
}

// completeMachine offers the other machines that are in the cloud.
func (a *app) completeMachine(cmd *cobra.Command, _ []string, word string) (words []string, _ cobra.ShellCompDirective) {
	var m client.Machines
	_ = a.withNode(contextOf(cmd), func(c *client.Client) error { return c.Do(contextOf(cmd), "GET", "/machines", nil, &m) }) // no node, no words
	for _, x := range m.Machines {
		if !x.This && x.State != "revoked" && strings.HasPrefix(x.Name, word) {
			words = append(words, x.Name)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
