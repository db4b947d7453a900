package main

import (
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) leaveCommand() *cobra.Command {
	var sure consent
	var force bool
	cmd := &cobra.Command{
		Use:   "leave [flags]",
		Short: "Take this machine out of its cloud",
		Long: `The machine keeps nothing of the cloud any more, and gets nothing of it. Its
folders stay on the disk as they are. The other machines are told, and go on
with a new key. This one begins an empty cloud of its own.

It refuses if nobody else has all that is here, or the words that bring the
cloud back, unless --force is given.`,
		Example: `bevy leave
bevy leave --dry-run`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				var all client.Folders
				if err := c.Do(cmd.Context(), "GET", "/folders", nil, &all); err != nil {
					return asked(err, "cannot look at the folders")
				}
				plan := []string{"this machine would leave its cloud, for good"}
				for _, f := range all.Folders {
					if f.Path != "" {
						plan = append(plan, f.Path+" would stay as it is, and be kept no longer")
					}
				}
				var machines client.Machines
				if err := c.Do(cmd.Context(), "GET", "/machines", nil, &machines); err != nil {
					return asked(err, "cannot look at the machines")
				}
				for _, m := range machines.Machines {
					if m.This {
						links, err := falling(cmd.Context(), c, m.Name)
						if err != nil {
							return err
						}
						plan = append(plan, links...)
					}
				}
				if ok, err := a.agree(sure, "bevy leave", plan...); !ok {
					return err
				}
				var left client.Left
				if err := c.Do(cmd.Context(), "POST", "/leave", client.Leave{Force: force}, &left); err != nil {
					return asked(err, "cannot leave")
				}
				if a.json {
					return written(a.printJSON(left))
				}
				a.say("this machine has left its cloud, and has an empty one of its own now")
				if len(left.Folders) > 0 {
					a.say("kept no longer: %s", strings.Join(left.Folders, ", "))
				}
				a.say("undo:  bevy join <words>, with those of another machine")
				return nil
			})
		},
	}
	sure.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "leave also if nobody else has all that is here")
	return cmd
}
