package main

import "github.com/spf13/cobra"

// serviceCommands are those about apps, and about the doors for programs of other
// services.
func (a *app) serviceCommands() []*cobra.Command {
	return []*cobra.Command{a.envCommand(), a.appsCommand(), a.tableCommand(), a.s3Command(), a.dynamoCommand(), a.feedCommand(), a.backupCommand(), a.removedCommand()}
}
