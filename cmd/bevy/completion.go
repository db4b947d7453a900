package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/spf13/cobra"
)

var shells = []string{"bash", "zsh", "fish", "powershell"}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion {bash | zsh | fish | powershell}",
		Short: "Print a script that completes commands in a shell",
		Long: `Prints a script for a shell, which then completes commands, flags and the names
of logs, folders and files.`,
		Example: `source <(bevy completion bash)
bevy completion fish > ~/.config/fish/completions/bevy.fish`,
		ValidArgs: shells,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := wants(1, 1)(cmd, args); err != nil {
				return err
			}
			if slices.Contains(shells, args[0]) {
				return nil
			}
			try := "bevy completion bash"
			if near := nearest(args[0], shells); near != "" {
				try = "bevy completion " + near
			}
			return wrong(try, "known are bash, zsh, fish and powershell", "there is no script for %q", args[0])
		},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := cmd.Root(), error(nil)
			switch args[0] {
			case "bash":
				err = root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				err = root.GenZshCompletion(a.stdout)
			case "fish":
				err = root.GenFishCompletion(a.stdout, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return written(err)
		},
	}
}

// completeLogs makes all commands below one complete the logs that they take.
func (h *hyper) completeLogs(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if strings.Contains(c.Use, "<key>") {
			c.ValidArgsFunction = h.completeLog(strings.Contains(c.Use, "<file>"))
		}
	}
}

// completeLog offers the names of the store's logs, and keys of those without,
// as the first word of a command; files as the second, if it takes one.
func (h *hyper) completeLog(takesFile bool) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
		if len(args) == 1 && takesFile {
			return nil, cobra.ShellCompDirectiveDefault
		}
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		// Without a store, or one that is in use, there is nothing to offer.
		_ = h.withStore(reading, func(s *corestore.Store) error {
			names, err := readNames(s)
			if err != nil {
				return err
			}
			for info, err := range s.Logs() {
				if err != nil {
					return err
				}
				word := names.of[info.Discovery]
				if word == "" {
					word = info.Key.String()
				}
				words = append(words, fmt.Sprintf("%s\t%s", word, plural(info.Length, "block")))
			}
			return nil
		})
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
