package main

import (
	"context"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "The words that bring your cloud back",
		Args:  noSuchWord,
		RunE:  helpOf,
	}
	show := &cobra.Command{
		Use:   "show [flags]",
		Short: "Print the 24 words of your cloud",
		Long: `The words are the cloud's owner. Who has them can do everything, and they bring
all of it back when every machine is lost: "bevy up --restore". Write them on
paper. They are only on the machine where the cloud was made, or restored.`,
		Example: `bevy keys show`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.showWords(cmd.Context(), c) })
		},
	}
	var sure consent
	forget := &cobra.Command{
		Use:   "forget [flags]",
		Short: "Remove the words from this machine, so that they are on paper alone",
		Long: `A machine without the words that is stolen can be taken out by any other. What
is kept in the cloud stays as it is. Nobody can make the words again.`,
		Example: `bevy keys forget`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				if ok, err := a.confirm(sure, "bevy keys forget", "the words would be removed from this machine, for good"); !ok {
					return err
				}
				if err := c.Do(cmd.Context(), "DELETE", "/keys/words", nil, nil); err != nil {
					return asked(err, "cannot remove the words")
				}
				a.say("the words are not on this machine any more")
				return nil
			})
		},
	}
	sure.flags(forget)
	cmd.AddCommand(show, forget)
	return cmd
}

func (a *app) showWords(ctx context.Context, c *client.Client) error {
	var w client.SeedWords
	if err := c.Do(ctx, "GET", "/keys/words", nil, &w); err != nil {
		return asked(err, "cannot show the words")
	}
	if a.json {
		return written(a.printJSON(w))
	}
	if err := written(a.printLine(w.Words)); err != nil {
		return err
	}
	a.say("Write them on paper, and let nobody see them. With them: bevy up --restore")
	return nil
}
