package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// consent is how a command that destroys something is let do it.
type consent struct {
	yes    bool
	dryRun bool
	why    string // it has to be asked; that it removes data when empty
}

func (c *consent) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "only say what would happen")
}

// confirm says what will happen and reports whether it may: it was said with a
// flag, or is asked for on a terminal. No script is ever kept waiting.
func (a *app) confirm(c consent, command string, plan ...string) (bool, error) {
	text := strings.Join(plan, "\n")
	switch {
	case c.dryRun && a.json:
		return false, nil
	case c.dryRun:
		_, err := fmt.Fprintf(a.stdout, "%s\nnothing was changed: --dry-run\n", text)
		return false, written(err)
	case c.yes:
		return true, nil
	case !isTerminal(a.stdin) || !isTerminal(a.stderr):
		return false, wrong(fmt.Sprintf("%s --yes, or --dry-run to see what would happen", command),
			cmp.Or(c.why, "it removes data")+", and nobody can be asked here", "%q wants --yes", command)
	}
	a.say("%s", text)
	fmt.Fprint(a.stderr, "go on? [y/N] ")
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fail(err, "cannot read the answer")
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, &failure{code: codeFailed, what: "nothing was changed", cause: "the answer was not yes", try: command + " --yes"}
}

// A planned is what --dry-run prints with --json where there is only a plan.
type planned struct {
	DryRun bool     `json:"dryRun"`
	Plan   []string `json:"plan"` // in words
}

// agree is confirm for commands that know no more of what would happen than the
// plan says.
func (a *app) agree(c consent, command string, plan ...string) (bool, error) {
	if c.dryRun && a.json {
		return false, written(a.printJSON(planned{true, plan}))
	}
	return a.confirm(c, command, plan...)
}
