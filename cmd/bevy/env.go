package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

// envShells are those that bevy env knows how to set variables in.
var envShells = []string{"sh", "bash", "zsh", "fish", "powershell", "cmd"}

func (a *app) envCommand() *cobra.Command {
	app, shell := "", "sh"
	cmd := &cobra.Command{
		Use:   "env [flags]",
		Short: "Have programs for AWS use this node instead",
		Long: `Prints variables that programs for AWS read: where S3 and DynamoDB are, and an
access key that may do everything with the buckets and tables of an app. Without
--app that is your own.

The key is made if there is none. It is the same each time, on all machines of
the cloud; "bevy apps keys" takes it back, or makes one with fewer rights.

Programs older than the middle of 2023, such as aws before 2.13, do not know
AWS_ENDPOINT_URL, and would ask Amazon. For these:

  alias aws='aws --endpoint-url "$AWS_ENDPOINT_URL"'`,
		Example: `eval $(bevy env)
eval $(bevy env --app shop)
bevy env --shell fish | source
bevy env --shell powershell | Out-String | Invoke-Expression`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(envShells, shell) {
				try := "--shell sh"
				if near := nearest(shell, envShells); near != "" {
					try = "--shell " + near
				}
				return wrong(try, "known are "+strings.Join(envShells, ", "), "it is not known how to set variables in %q", shell)
			}
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				e, err := environment(cmd.Context(), c, app)
				if err != nil {
					return err
				}
				return written(a.printEnvironment(e, shell))
			})
		},
	}
	a.appFlag(cmd, &app)
	cmd.Flags().StringVar(&shell, "shell", shell, "for this `shell`: "+strings.Join(envShells, ", "))
	_ = cmd.RegisterFlagCompletionFunc("shell", cobra.FixedCompletions(envShells, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// environment asks the node what programs for AWS have to know.
func environment(ctx context.Context, c *client.Client, app string) (e client.Environment, err error) {
	err = c.Do(ctx, "POST", "/environment", client.EnvironmentRequest{App: app}, &e)
	return e, asked(err, "cannot find out what programs have to know")
}

// printEnvironment prints the variables, and nothing else.
func (a *app) printEnvironment(e client.Environment, shell string) error {
	if a.json {
		return a.printJSON(e)
	}
	form := "export %s=%s"
	switch shell {
	case "fish":
		form = "set -gx %s %s;"
	case "powershell":
		form = "$env:%s = \"%s\""
	case "cmd":
		form = "set %s=%s"
	}
	for _, v := range [][2]string{
		{"AWS_ENDPOINT_URL", e.Endpoint}, {"AWS_REGION", e.Region}, {"AWS_DEFAULT_REGION", e.Region},
		{"AWS_ACCESS_KEY_ID", e.AccessKey}, {"AWS_SECRET_ACCESS_KEY", e.Secret},
	} {
		if err := a.printLine(fmt.Sprintf(form, v[0], v[1])); err != nil {
			return err
		}
	}
	return nil
}

// appFlag adds --app.
func (a *app) appFlag(cmd *cobra.Command, app *string) {
	cmd.Flags().StringVar(app, "app", "", "of this `app`, and not your own")
	_ = cmd.RegisterFlagCompletionFunc("app", a.completeApp)
}

// completeApp offers the apps.
func (a *app) completeApp(cmd *cobra.Command, _ []string, _ string) (words []string, _ cobra.ShellCompDirective) {
	_ = a.withNode(contextOf(cmd), func(c *client.Client) error {
		var all client.Apps
		err := c.Do(contextOf(cmd), "GET", "/apps", nil, &all)
		for _, app := range all.Apps {
			if app.Name != "" {
				words = append(words, app.Name)
			}
		}
		return err
	})
	return words, cobra.ShellCompDirectiveNoFileComp
}

// contextOf is a command's context; completion may have none.
func contextOf(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
